"""Notebooks: which lines are Python, and where a line is said to be."""

import ast
import json
from pathlib import Path

import pytest

from bptt_verifier.program.notebooks import leave_out_magics, read_notebook, write_places


@pytest.mark.parametrize(
    ("text", "python", "skipped"),
    [
        ("x = 1\n%time y = 2", "x = 1\npass\n", 1),
        ("for i in x:\n    !ls {i}\n    print(i)", "for i in x:\n    pass\n    print(i)\n", 1),
        ("files = !ls\na, b = %magic 1\nx %= 2", "files = None\na, b = None\nx %= 2\n", 2),
        ("!pip install \\\n  numpy\nx", "pass\n\nx\n", 2),
        ("%%bash\nls\ncd", "", 3),
        ("%%time\nx = 1", "pass\nx = 1\n", 1),
        ("np.dot?\n?x", "pass\npass\n", 2),
        ("x = (a\n  % b)", "x = (a\n  % b)\n", 0),
        ("a = b != c\nd = 7 % 3\ne = 1  # why?", "a = b != c\nd = 7 % 3\ne = 1  # why?\n", 0),
    ],
)
def test_magics_and_shell_commands_are_left_out_and_lines_keep_their_places(
    text: str, python: str, skipped: int
) -> None:
    assert leave_out_magics(text) == (python, skipped)
    ast.parse(python)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": [{}]}', '{"cells": 3}'])
def test_a_file_that_is_no_notebook_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.ipynb"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"FILE: expected a notebook, found .*, which is not one"):
        read_notebook(file)


def test_cells_are_numbered_among_all_and_old_notebooks_are_read(tmp_path: Path) -> None:
    cells = [{"cell_type": "markdown", "source": "x"}, {"cell_type": "code", "input": ["a\n", "b"]}]
    file = tmp_path / "a.ipynb"
    file.write_text(json.dumps({"worksheets": [{"cells": cells}]}), encoding="utf-8")
    (cell,) = read_notebook(file).cells
    assert (cell.name, cell.source) == (f"{file.resolve()}, cell 2", "a\nb\n")
    assert write_places(f"{cell.name}:7: x") == f"{file.resolve()}, cell 2, line 7: x"
