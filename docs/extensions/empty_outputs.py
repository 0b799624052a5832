"""Sphinx extension: leaves out empty outputs of notebooks, such as a finished progress bar."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def remove_empty_outputs(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Remove the blocks of output that have no text."""
    for block in [*doctree.findall(nodes.literal_block)]:
        if "output" in block["classes"] and not block.astext().strip():
            block.parent.remove(block)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the step, which comes after the choice among the formats of an output."""
    app.connect("doctree-resolved", remove_empty_outputs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
