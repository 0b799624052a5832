"""Source lines of the equations of a jaxpr.

JAX has no public function for them, so this module, and no other, uses a private one. Where that is
missing or has changed, the place of every equation is unknown, and nothing else breaks.
"""

import linecache
import os
import sys
import sysconfig
from importlib.util import find_spec
from itertools import dropwhile, islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy

HERE = str(Path(__file__).parents[1]) + os.sep
# They are not imported; ml_dtypes is what JAX has its formats from.
SPECS = [find_spec(name) for name in ("torch", "jax", "jaxlib", "ml_dtypes")]
FILES = [np.__file__, scipy.__file__, *(spec.origin for spec in SPECS if spec and spec.origin)]
LIBRARIES = (str(Path(str(file)).parent) + os.sep for file in FILES)
# Frames of these folders are never the user's.
FOLDERS = (*LIBRARIES, sysconfig.get_paths()["stdlib"] + os.sep, "<frozen ")
# Code that is judged, though it comes with the judge.
JUDGED = tuple(HERE + name + os.sep for name in ("docket", "cells"))

BETWEEN = tuple(
    f"{HERE}program{os.sep}{name}.py"
    for name in (
        "numpy_arrays numpy_calls numpy_memory numpy_methods numpy_namespace numpy_rules"
        " torch_losses torch_rules torch_trace"
    ).split()
)


class Place(NamedTuple):
    """An expression in a source file; lines and columns count as in Python's tracebacks.

    `end_column` is 0 where the expression goes on in the next line.
    """

    file: str
    line: int
    column: int
    end_column: int

    @property
    def text(self) -> str:
        """The source line, without its indentation."""
        return linecache.getline(self.file, self.line).strip()

    @property
    def lines(self) -> list[str]:
        """The lines of the source file."""
        return linecache.getlines(self.file)

    @property
    def expression(self) -> str:
        """The expression's source, or its first line."""
        line = linecache.getline(self.file, self.line).encode()  # columns count bytes
        found = line[self.column : self.end_column] or line[self.column :]
        return found.decode(errors="replace").strip()

    @property
    def first_column(self) -> int:
        """The column in which the expression begins, counted in characters from 1."""
        line = linecache.getline(self.file, self.line).encode()
        return len(line[: self.column].decode(errors="replace")) + 1

    @property
    def at_column(self) -> str:
        """The place with its column."""
        return f"{self}:{self.first_column}"

    def __str__(self) -> str:
        cell = find_cell(self.file)
        file = self.file
        if file.startswith(JUDGED):  # wherever the package is installed
            file = Path(file).relative_to(Path(HERE).parent).as_posix()
        return f"{file}:{self.line}" if cell is None else f"In [{cell}], line {self.line}"


def find_cell(file: str) -> int | None:
    """Find the number of the input of IPython that has this file's name; None of other files."""
    make = getattr(sys.modules.get("IPython"), "get_ipython", None)
    compiler = getattr(make() if make else None, "compile", None)
    number = getattr(compiler, "_filename_map", {}).get(file)
    return None if number is None else int(number)


def places(equation: Any) -> tuple[Place, ...]:
    """The expressions that produced an equation, innermost first, without the judge's own frames.

    Empty where JAX does not provide them.
    """
    try:
        from jax._src import source_info_util  # noqa: PLC0415 - private

        chain = [
            Place(str(f.file_name), int(f.start_line), int(f.start_column),
                  int(f.end_column) if f.end_line == f.start_line else 0)
            for f in source_info_util.user_frames(equation.source_info.traceback)
        ]  # fmt: skip
    except (ImportError, AttributeError, TypeError, ValueError):
        return ()
    own = dropwhile(lambda place: is_between(place.file), chain)
    return tuple(takewhile(lambda place: not is_of_judge(place.file), own))


def is_between(file: str) -> bool:
    """True if a file is one through which the user's calls of NumPy reach JAX."""
    return file.startswith(BETWEEN) or not (is_of_judge(file) or is_of_user(file))


def is_of_user(file: str) -> bool:
    """True if a file is not of the judge, NumPy, SciPy, JAX, PyTorch or Python itself."""
    return not (is_of_judge(file) or is_of_library(file))


def is_of_library(file: str) -> bool:
    """True if a file is of NumPy, SciPy, JAX, PyTorch or Python itself."""
    return file.startswith(FOLDERS)


def is_of_judge(file: str) -> bool:
    """True if a file is one of the judge's own."""
    return file.startswith(HERE) and not file.startswith(JUDGED)


def place_of_frame(frame: Any) -> Place:
    """The expression that a running frame evaluates."""
    code = frame.f_code
    found = next(islice(code.co_positions(), frame.f_lasti // 2, None), (None,) * 4)
    line, end_line, column, end_column = found
    if line is None or end_line != line or column is None or end_column is None:
        return Place(code.co_filename, frame.f_lineno, column or 0, 0)
    return Place(code.co_filename, line, column, end_column)
