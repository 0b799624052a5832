"""A case: one point at which a submission is called, and the true gradients there."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array


class Truth(NamedTuple):
    """Autodiff's values, by name, and the allowed error of every entry, in the same shapes."""

    values: dict[str, Array]
    allowed: dict[str, Array]


Loss = Callable[[dict[str, Any], Any], Any]  # of a model of the user's own
CASES = 24  # of such a model

# The truth for a submission that computes in a dtype; errors are refined for results of some names.
FindTruth = Callable[[Any, Collection[str]], Truth]


class Case(NamedTuple):
    """One point: its arguments by name, and the truth there.

    `truth(dtype, names)` has autodiff's values and the allowed errors of a submission that computes
    in that dtype; it is None where there is no reference. `point` identifies the case to the
    subject: a Problem, or the number of the case. `label` names it in messages. `noise()` is the
    allowed error in float64 of an own model's loss, whose name may be that of a parameter.
    """

    label: str
    arguments: dict[str, Array]
    point: Any
    truth: FindTruth | None
    noise: Callable[[], float] = float

    @property
    def single(self) -> bool:
        """True if any argument is float32, in which mistakes show less clearly."""
        return any(value.dtype == np.float32 for value in self.arguments.values())

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the arguments, by name."""
        return {name: value.shape for name, value in self.arguments.items()}
