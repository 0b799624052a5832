"""Check the links of a built site that stay on it: `python docs/check_links.py build/site`."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class PageReader(HTMLParser):
    """Reader of a page, which collects its anchors and its links."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what this element defines and refers to."""
        for name, value in attrs:
            if name in ("id", "name") and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def read_page(file: Path) -> PageReader:
    """Read the anchors and the links of a page."""
    reader = PageReader()
    reader.feed(file.read_text(encoding="utf-8"))
    return reader


def list_broken_links(site: Path) -> list[str]:
    """List the links, written `page -> link`, to a page or an anchor that does not exist."""
    pages = {file.resolve(): read_page(file) for file in sorted(site.rglob("*.html"))}
    broken = []
    for file, page in pages.items():
        for link in page.links:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = (file.parent / unquote(address.path)).resolve() if address.path else file
            anchor = unquote(address.fragment)
            missing = anchor and target in pages and anchor not in pages[target].anchors
            if missing or not target.exists():
                broken.append(f"{file.relative_to(site.resolve())} -> {link}")
    return broken


if __name__ == "__main__":
    sys.exit("\n".join(list_broken_links(Path(sys.argv[1]))) or None)
