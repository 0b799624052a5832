"""Jupyter notebooks: their code cells as Python, without magics and shell commands."""

import ast
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from bptt_verifier.program.attempt import Failure, attempt

RUN_BY = ("%%time", "%%timeit", "%%capture", "%%prun")  # cell magics whose cells are Python


class Cell(NamedTuple):
    """A part of a file that is compiled by itself: its name in messages, and its source."""

    name: str
    source: str


class Notebook(NamedTuple):
    """The code cells of a notebook, and the number of lines left out of them."""

    cells: tuple[Cell, ...]
    skipped: int

    @property
    def note(self) -> str:
        """A sentence on what was left out; empty if nothing was."""
        lines = "1 line" if self.skipped == 1 else f"{self.skipped} lines"
        return f" {lines} of magics and shell commands left out." if self.skipped else ""


def read_notebook(file: Path) -> Notebook:
    """Read the code cells of a notebook. Raises ValueError where it is none.

    A cell is named by its place among all cells, from 1.
    """
    try:
        plain: Any = json.loads(file.read_text(encoding="utf-8"))
        found = plain["cells"] if "cells" in plain else plain["worksheets"][0]["cells"]
        texts = [
            (number, "".join(cell.get("source", cell.get("input", ""))))
            for number, cell in enumerate(found, 1)
            if cell["cell_type"] == "code"
        ]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError) as error:
        raise ValueError(f"FILE: expected a notebook, found {file}, which is not one") from error
    cells, skipped = [], 0
    for number, text in texts:
        python, left_out = leave_out_magics(text)
        cells.append(Cell(f"{file.resolve()}, cell {number}", python))
        skipped += left_out
    return Notebook(tuple(cells), skipped)


def leave_out_magics(text: str) -> tuple[str, int]:
    """Replace magics and shell commands by what keeps the lines in their places; count them."""
    lines = text.splitlines()
    if not isinstance(attempt(ast.parse, text), Failure):
        return "\n".join(lines) + "\n", 0
    first = next((line for line in lines if line.strip()), "")
    if first.startswith("%%") and first.split()[0] not in RUN_BY:
        return "", len(lines)
    python, skipped, continued = [], 0, False
    for line in lines:
        indent, code = line[: len(line) - len(line.lstrip())], line.strip()
        assigned = re.match(r"([\w, .\[\]]+=\s*)[!%]", code)
        if (
            continued
            or code.startswith(("%", "!", "?"))
            or (code.endswith("?") and "#" not in code)
        ):
            python.append(f"{indent}pass" if not continued else "")
            continued = code.endswith("\\")
            skipped += 1
        elif assigned:
            python.append(f"{indent}{assigned[1]}None")
            skipped += 1
        else:
            python.append(line)
    return "\n".join(python) + "\n", skipped


def write_places(text: str) -> str:
    """Write places in cells as they are read: `cell 3, line 5`."""
    return re.sub(r"(\.ipynb, cell \d+):(\d+)", r"\1, line \2", text)
