"""The check of links finds those to pages and anchors that a site lacks."""

from pathlib import Path

import pytest

from tests.support.documentation import load_builder

PAGE = '<h1 id="top">A</h1><a href="{}">a</a><img src="https://elsewhere.example/picture.png">'


@pytest.mark.parametrize(
    ("link", "broken"),
    [
        ("#top", False),
        ("index.html#top", False),
        ("deeper/page.html#%74op", False),
        ("https://elsewhere.example/page.html", False),
        ("mailto:a@b.example", False),
        ("#bottom", True),
        ("deeper/page.html#bottom", True),
        ("missing.html", True),
    ],
)
def test_a_link_to_what_a_site_lacks_is_found(link: str, broken: bool, tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    (tmp_path / "index.html").write_text(PAGE.format(link))
    (tmp_path / "deeper" / "page.html").write_text(PAGE.format("../index.html"))
    found = load_builder("check_links").list_broken_links(tmp_path)
    assert found == ([f"index.html -> {link}"] if broken else [])
