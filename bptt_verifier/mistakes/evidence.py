"""Evidence: one case as a hypothesis must explain it, entry by entry."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array

# A hypothesis is not the reference, and its rounding is not the one that was bounded.
SLACK = 8


class Witness(NamedTuple):
    """A point, the submission's gradients there, the true ones, and the allowed errors."""

    point: Any
    submitted: Mapping[str, Array]
    reference: Mapping[str, Array]
    allowed: Mapping[str, Array]
    fails: bool


class Wanted(NamedTuple):
    """One gradient of a submission, and how far a hypothesis may be from it."""

    submitted: Array
    allowed: Array
    relative: float
    axis: int | None

    def within(self, found: Array, slack: float, rounded: Array) -> Array:
        """Which entries of a hypothesis' gradient are the submission's.

        What is compared was rounded as `rounded` is, whose largest entries set the scale.
        """
        scale = np.max(np.abs(rounded), axis=self.axis, keepdims=True)
        near: Array = np.abs(self.submitted - found) <= slack * np.maximum(
            self.allowed, self.relative * scale
        )
        return near


class Evidence(NamedTuple):
    """One case: the forward pass there, the true gradients, and those of the submission.

    `forward` is what a subject's hypotheses start from.
    """

    forward: Any
    reference: Mapping[str, Array]
    wanted: dict[str, Wanted]

    @property
    def cheapest_first(self) -> list[str]:
        """The names of the gradients, the small ones first."""
        return sorted(self.wanted, key=lambda name: self.wanted[name].submitted.size)

    def explains(self, name: str, found: Array) -> bool:
        """Whether a hypothesis' gradient is the submission's, entry by entry."""
        wanted = self.wanted[name]
        if found.shape != wanted.submitted.shape:
            return False
        with np.errstate(all="ignore"):
            return bool(wanted.within(found, SLACK, found).all())


def make_evidence(
    forward: Any, steps: int, witness: Witness, axes: Mapping[str, int | None]
) -> Evidence:
    """A witness as evidence, with the forward pass at its point.

    Rounding errors grow with the largest entry along an axis of each gradient, or with its largest
    of all where that is None; `steps` of a sweep each round.
    """
    _, submitted, reference, allowed, _ = witness
    wanted = {}
    for name, found in submitted.items():
        size = np.abs(reference[name])
        nonzero = size > 0
        relative = float(np.median(allowed[name][nonzero] / size[nonzero])) if nonzero.any() else 0
        relative = max(relative, 2 * steps * float(np.finfo(found.dtype).eps))
        axis = axes[name] if found.ndim else None
        wanted[name] = Wanted(found.astype(np.float64), allowed[name], relative, axis)
    return Evidence(forward, reference, wanted)
