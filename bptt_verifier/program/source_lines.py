"""Source lines of the equations of a jaxpr.

JAX has no public function for them, so this module, and no other, uses a private one. Where that is
missing or has changed, the place of every equation is unknown, and nothing else breaks.
"""

import linecache
from pathlib import Path
from typing import Any, NamedTuple

HERE = str(Path(__file__).parents[1])


class Place(NamedTuple):
    """An expression in a source file; lines and columns count as in Python's tracebacks."""

    file: str
    line: int
    column: int
    end_column: int

    @property
    def text(self) -> str:
        """The source line, without its indentation."""
        return linecache.getline(self.file, self.line).strip()

    @property
    def expression(self) -> str:
        """The expression's source, or its first line."""
        line = linecache.getline(self.file, self.line).encode()  # columns count bytes
        found = line[self.column : self.end_column] or line[self.column :]
        return found.decode(errors="replace").strip()

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def places(equation: Any) -> tuple[Place, ...]:
    """The expressions that produced an equation, innermost first, without the judge's own frames.

    Empty where JAX does not provide them.
    """
    try:
        from jax._src import source_info_util  # noqa: PLC0415 - private

        chain = [
            Place(str(f.file_name), int(f.start_line), int(f.start_column), int(f.end_column))
            for f in source_info_util.user_frames(equation.source_info.traceback)
        ]
    except (ImportError, AttributeError, TypeError, ValueError):
        return ()
    judge = [place.file.startswith(HERE) for place in chain]
    return tuple(chain[: judge.index(True)] if any(judge) else chain)
