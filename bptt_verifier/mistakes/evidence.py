"""Evidence: the submission's gradients at one case, which a hypothesis must explain by entry."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array

# The allowed error holds for the reference. A hypothesis is computed differently and rounds more.
SLACK = 8
FEW_ENTRIES = 64  # entries of a gradient that are compared before all are


class Witness(NamedTuple):
    """A point, with the submission's gradients, the true ones and the allowed errors."""

    point: Any
    submitted: Mapping[str, Array]
    reference: Mapping[str, Array]
    allowed: Mapping[str, Array]
    fails: bool


class Wanted(NamedTuple):
    """One gradient of a submission, and the allowed distance of a hypothesis from it.

    That is `allowed`, or `relative` times the largest entry along `axis`, if that is larger.
    """

    submitted: Array
    allowed: Array
    relative: float
    axis: int | None

    def within(self, found: Array, slack: float, rounded: Array) -> Array:
        """Tell which entries of a hypothesis' gradient `found` are the submission's.

        The largest entries of `rounded` set the scale of the rounding errors.
        """
        scale = np.max(np.abs(rounded), axis=self.axis, keepdims=True)
        allowed = slack * np.maximum(self.allowed, self.relative * scale)
        near: Array = np.abs(self.submitted - found) <= allowed
        return near

    def select_near(self, rows: Array, slack: float) -> Array:
        """Tell which rows are the submission's gradient in every entry.

        A few entries leave most rows out: one of them that is too far off is one of all.
        """
        found = rows.reshape(len(rows), -1)
        submitted, allowed = self.submitted.ravel(), self.allowed.ravel()
        with np.errstate(all="ignore"):
            scale = np.maximum(np.max(found, axis=1), -np.min(found, axis=1))
            # An infinite gradient would allow infinite errors.
            near: Array = np.isfinite(scale)
            for every in (max(1, found.shape[1] // FEW_ENTRIES), 1):
                left, part = np.flatnonzero(near), slice(None, None, every)
                some = found[:, part] if len(left) == len(near) else found[left, part]
                most = slack * np.maximum(allowed[part], self.relative * scale[left, None])
                near[left] = (np.abs(submitted[part] - some) <= most).all(axis=1)
        return near


class Evidence(NamedTuple):
    """One case: its forward pass, the true gradients, and those of the submission."""

    forward: Any
    reference: Mapping[str, Array]
    wanted: dict[str, Wanted]

    @property
    def cheapest_first(self) -> list[str]:
        """Names of the gradients, the small ones first."""
        return sorted(self.wanted, key=lambda name: self.wanted[name].submitted.size)

    @property
    def submitted(self) -> dict[str, Array]:
        """The gradients of the submission."""
        return {name: wanted.submitted for name, wanted in self.wanted.items()}

    def is_zero(self, name: str, found: Array) -> bool:
        """Tell whether a gradient is zero to rounding: a multiple of it says nothing."""
        with np.errstate(all="ignore"):
            limits = SLACK * np.ravel(self.wanted[name].allowed)
            return bool((np.abs(np.ravel(found)) <= limits).all())

    def find_size(self, name: str) -> float:
        """Find the largest entry of the true gradient, in units of which errors are compared.

        Of a gradient that is zero to rounding, it is the size that its terms have before they
        cancel, as their rounding tells.
        """
        wanted, true = self.wanted[name], self.reference[name]
        size = float(np.max(np.abs(true), initial=0.0))
        if self.is_zero(name, true):
            size = float(np.max(wanted.allowed, initial=0.0)) / (wanted.relative or 1.0)
        return size if 0 < size < np.inf else 1.0

    def explains(self, name: str, found: Array) -> bool:
        """Tell whether a hypothesis' gradient is the submission's, entry by entry."""
        wanted = self.wanted[name]
        # An infinite gradient would allow infinite errors.
        if found.shape != wanted.submitted.shape or not np.isfinite(found).all():
            return False
        with np.errstate(all="ignore"):
            return bool(wanted.within(found, SLACK, found).all())

    def scale(self, rows: Mapping[str, Array]) -> Array:
        """Join the gradients of each row to a vector, each in units of its largest true entry."""
        parts = {name: found.reshape(len(found), -1) for name, found in rows.items()}
        ends = np.cumsum([0, *(part.shape[1] for part in parts.values())])
        joined = np.empty((len(next(iter(parts.values()))), ends[-1]), np.float32)
        for (n, part), (start, end) in zip(parts.items(), pairwise(ends.tolist()), strict=True):
            with np.errstate(all="ignore"):
                np.divide(part, self.find_size(n), out=joined[:, start:end], casting="same_kind")
        return joined

    def join_exactly(self, found: Mapping[str, Array]) -> Array:
        """Join what gradients differ from the true ones by, in units of the largest entry of each.

        In float64, other than `scale`.
        """
        parts = [np.ravel(found[n] - self.reference[n]) / self.find_size(n) for n in self.wanted]
        return np.concatenate(parts)


def make_evidence(
    forward: Any, steps: int, witness: Witness, axes: Mapping[str, int | None]
) -> Evidence:
    """Make evidence of a witness and the forward pass at its point.

    Rounding errors grow with the largest entry along an axis of each gradient, or of the whole
    gradient where `axes` has None; each of the `steps` of a sweep rounds. Entries that are zero to
    rounding tell nothing of how the errors grow.
    """
    _, submitted, reference, allowed, _ = witness
    wanted = {}
    for name, found in submitted.items():
        size = np.abs(reference[name])
        telling = size > allowed[name]
        relative = float(np.median(allowed[name][telling] / size[telling])) if telling.any() else 0
        relative = max(relative, 2 * steps * float(np.finfo(found.dtype).eps))
        axis = axes[name] if found.ndim else None
        wanted[name] = Wanted(found.astype(np.float64), allowed[name], relative, axis)
    return Evidence(forward, reference, wanted)
