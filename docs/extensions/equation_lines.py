"""Sphinx extension: under each equation of the derivation, links to the lines that compute it.

A line computes an equation if a comment in it has the equation's tag, such as (B3). The modules
with such lines are pages of the site, with an anchor at each line.
"""

import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.application import Sphinx
from sphinx.util import logging
from tagged_lines import ROOT, find_lines, rank_place

LOGGER = logging.getLogger(__name__)
DERIVATION = "derivation"
TAG = re.compile(r"\\tag\{([^}]*)\}")
SHOWN = 6  # links under one equation


def name_page(file: str) -> str:
    """Name the page of a module."""
    return f"source/{file.removesuffix('.py')}"


def add_links(app: Sphinx, doctree: nodes.document) -> None:
    """Add an anchor and the links to each equation of the derivation that has a tag."""
    if app.env.docname != DERIVATION:
        return
    lines = find_lines()
    for equation in [*doctree.findall(nodes.math_block)]:
        tags = TAG.findall(equation.astext())
        for tag in tags:
            equation["ids"].append(f"equation-{tag.lower()}")
            doctree.ids[f"equation-{tag.lower()}"] = equation
        places = [place for tag in tags for place in lines.get(tag, ())]
        if tags and not places:
            LOGGER.warning("no line computes equation %s", tags, location=equation)
        if not places:
            continue
        links = nodes.paragraph(classes=["equation-lines"])
        shown = sorted(places, key=rank_place)[:SHOWN]
        for file, line in shown:
            links += nodes.Text(", " if len(links) else "computed in ")
            address = f"{name_page(file)}.html#line-{line}"
            links += nodes.reference("", f"{file}:{line}", refuri=address, internal=True)
        if len(places) > len(shown):
            links += nodes.Text(f" and {len(places) - len(shown)} more")
        equation.parent.insert(equation.parent.index(equation) + 1, links)


def collect_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield a page for each module that computes an equation."""
    formatter = HtmlFormatter(linenos="inline", anchorlinenos=True, lineanchors="line")
    for file in sorted({file for places in find_lines().values() for file, _ in places}):
        source = (ROOT / file).read_text(encoding="utf-8")
        body = highlight(source, PythonLexer(), formatter)
        text = f"<h1>{file}</h1><div class='highlight-python'>{body}</div>"
        yield name_page(file), {"title": file, "body": text, "parents": []}, "page.html"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the links and the pages of the modules."""
    app.connect("doctree-read", add_links)
    app.connect("html-collect-pages", collect_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
