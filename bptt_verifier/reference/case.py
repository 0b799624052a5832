"""A case: one point at which a submission is asked, and what is true there."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array


class Truth(NamedTuple):
    """Autodiff's values, by name, and the allowed error of every entry, in the same shapes."""

    values: dict[str, Array]
    allowed: dict[str, Array]


class Case(NamedTuple):
    """One point: its arguments by name, and the truth there.

    `truth(dtype, names)` is what autodiff gives and how far a submission that computes in that
    dtype may be from it; None where there is no reference. `point` is what the subject keeps of the
    case, a Problem for cells; `label` says which case it is.
    """

    label: str
    arguments: dict[str, Array]
    point: Any
    truth: Callable[[Any, Collection[str]], Truth] | None

    @property
    def single(self) -> bool:
        """Whether any argument is float32: it hides more than float64 does."""
        return any(value.dtype == np.float32 for value in self.arguments.values())
