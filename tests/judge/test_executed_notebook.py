"""A session of IPython's kernel: the report is shown as a page, and places are inputs and lines.

IPython and nbclient are no dependencies: where they are not installed, this test is skipped.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

NEEDED = ("nbclient", "nbformat", "ipykernel")
MISSING = [name for name in NEEDED if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed")

MODEL = """import numpy as np
from bptt_verifier import verify_here
params = {"W": np.array([[0.3, -0.5], [0.8, 0.1]])}
x = np.array([1.0, 2.0])
def loss(p):
    h = np.tanh(p["W"] @ x)
    return np.sum(h ** 3)
def gradients(p):
    h = np.tanh(p["W"] @ x)
    return {"W": np.outer(3 * h ** 2, x)}
"""


@pytest.fixture(scope="module")
def cells() -> Any:
    nbformat, nbclient = import_module("nbformat"), import_module("nbclient")
    make, code = nbformat.v4.new_notebook, nbformat.v4.new_code_cell
    lines = [MODEL, "verify_here(cases=4)", "print(verify_here(cases=4).verdict)"]
    notebook = make(cells=[code(line) for line in lines])
    where = {"metadata": {"path": str(Path(__file__).parents[2])}}
    nbclient.NotebookClient(notebook, timeout=120, resources=where).execute()
    return notebook.cells


def test_a_notebook_shows_the_report_as_a_page_that_is_light_or_dark(cells: Any) -> None:
    (shown,) = [o for o in cells[1].outputs if o.output_type == "execute_result"]
    page, text = shown.data["text/html"], shown.data["text/plain"]
    assert "prefers-color-scheme: dark" in page
    assert "disagrees" in page
    assert text.startswith("disagrees: your model, 4 cases")


def test_places_are_inputs_and_lines(cells: Any) -> None:
    page = cells[1].outputs[-1].data["text/plain"]
    assert 'the line `h = np.tanh(p["W"] @ x)` (In [1], line 6:' in page


def test_progress_leaves_an_empty_line_and_no_warning(cells: Any) -> None:
    progress, verdict = cells[2].outputs
    assert (progress.output_type, progress.data["text/plain"]) == ("display_data", "")
    assert (verdict.name, verdict.text) == ("stdout", "disagrees\n")
