"""Places of a kernel's wrong numbers in 16 bits: docs/derivation.md, section 17.

There the errors of a wrong gradient scatter with the points, as rounding does, and so widen what is
allowed of all its entries, right ones included. Whether an index is right is asked of its own
errors, relative to its own gradient.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bptt_verifier.judge.kernel_comparisons import Found, find_result_dtype
from bptt_verifier.judge.kernel_explanations import ROUNDINGS
from bptt_verifier.judge.kernel_formats import STAYING
from bptt_verifier.judge.kernel_places import CONTRAST, WrongIndices, describe_indices
from bptt_verifier.problems.problem import Array
from bptt_verifier.tolerance.formats import is_half
from bptt_verifier.tolerance.projections import COARSE, Slices


class IndexErrors(NamedTuple):
    """Errors at the indices of one axis, in all cases, in units of the format.

    `wrong` indices have a mean `error` of more than a few roundings in some case, and not by
    chance. `size` is the largest error of any kind, mean or scatter. An index that is not `known`
    has no gradient.
    """

    axis: int
    wrong: Array
    error: Array
    size: Array
    known: Array

    def find_place(self) -> WrongIndices | None:
        """Find the wrong indices; None where they cannot be told from all right ones."""
        right, wrong = self.size[self.known & ~self.wrong], self.error[self.wrong]
        if not right.size or not wrong.size or right.max() > COARSE:
            return None
        if wrong.min() < max(COARSE, CONTRAST * right.max()):
            return None
        indices = [int(i) for i in np.flatnonzero(self.wrong)]
        kind, said = describe_indices(indices, len(self.wrong))
        return WrongIndices(kind, f"{said} of axis {self.axis}", self.axis, tuple(indices))


def list_index_errors(name: str, cases: Sequence[Found]) -> Iterator[IndexErrors]:
    """List the errors of a gradient along each axis; all cases have one shape."""
    for axis in range(cases[0].exact[name].ndim - 1):
        every = [(each, find_slices(each, name, axis)) for each in cases]
        known = np.any([np.isfinite(s.limit) for _, s in every], axis=0)
        wrong = np.zeros_like(known)
        error, size = np.zeros((2, len(known)))
        for found, slices in every:
            unit, number = found.gradients[name].noise.unit, len(found.exact[name])
            staying = number * slices.error**2 > STAYING * slices.noise**2
            wrong |= staying & (slices.error > ROUNDINGS * unit)
            error = np.maximum(error, slices.error / unit)
            size = np.maximum(size, np.maximum(slices.error, slices.noise) / unit)
        yield IndexErrors(axis, wrong & known, error, size, known)


def find_slices(found: Found, name: str, axis: int) -> Slices:
    """Find the slices of a gradient along an axis."""
    return next(each for each in found.gradients[name].slices if each.axis == axis)


def list_half_places(name: str, cases: Sequence[Found]) -> list[WrongIndices]:
    """List where a gradient in 16 bits is wrong along each axis on which it is right elsewhere."""
    if not is_in_half(name, cases):
        return []
    return [*filter(None, (each.find_place() for each in list_index_errors(name, cases)))]


def hides_place(name: str, cases: Sequence[Found]) -> bool:
    """Tell whether 16 bits may hide a place: an index on some axis is not wrong in any case.

    Where every index is wrong in some case, there is no place in any format.
    """
    return is_in_half(name, cases) and any(
        bool(np.any(each.known & ~each.wrong)) for each in list_index_errors(name, cases)
    )


def is_in_half(name: str, cases: Sequence[Found]) -> bool:
    """Tell whether a gradient has 16 bits in all cases."""
    return all(is_half(find_result_dtype(name, each.submitted[name], each.case)) for each in cases)
