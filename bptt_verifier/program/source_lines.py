"""Which line of somebody's code made an equation of a jaxpr.

JAX has no public way to ask. This is the one module that touches its private parts; where they are
gone or changed, every equation is of an unknown place, and nothing else breaks.
"""

import linecache
from pathlib import Path
from typing import Any, NamedTuple

HERE = str(Path(__file__).parents[1])


class Place(NamedTuple):
    """An expression in a source file; line and columns count as Python's tracebacks do."""

    file: str
    line: int
    column: int
    end_column: int

    @property
    def text(self) -> str:
        """The source line, without its indentation."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def places(equation: Any) -> tuple[Place, ...]:
    """The expressions that made an equation, innermost first, up to the judge's own frames.

    Empty where JAX does not tell.
    """
    try:
        from jax._src import source_info_util  # noqa: PLC0415 - may be gone

        frames = list(source_info_util.user_frames(equation.source_info.traceback))
        chain = [
            Place(
                str(frame.file_name),
                int(frame.start_line),
                int(frame.start_column),
                int(frame.end_column),
            )
            for frame in frames
        ]
    except (ImportError, AttributeError, TypeError, ValueError):
        return ()
    judge = [place.file.startswith(HERE) for place in chain]
    return tuple(chain[: judge.index(True)] if any(judge) else chain)
