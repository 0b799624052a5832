"""Sets in which parameters may be meant to lie, such as symmetric matrices or unit vectors.

A formula may be right for such parameters alone, as 2 S⁻¹ for the gradient of log det S Sᵀ. A set
counts only where the parameters given are in it by more than an initial value that is simple: the
identity is symmetric, as many others that were meant to be free.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array

ULPS = 64.0  # of the largest entry, by which arrays in a set may miss it


class SpecialSet(NamedTuple):
    """A set of arrays: the nearest array in it, and whether an array may be in it by chance.

    `said` completes the sentence "S is …".
    """

    said: str
    project: Callable[[Array], Array]
    is_simple: Callable[[Array], bool]

    def has(self, value: Array) -> bool:
        """Tell whether an array is in this set, to rounding, and not by a simple choice."""
        with np.errstate(all="ignore"):
            away = np.max(np.abs(self.project(value) - value))
            unit = float(np.finfo(value.dtype).eps)
            near = away < ULPS * unit * np.max(np.abs(value))
        return bool(near) and not self.is_simple(value)


def transpose(value: Array) -> Array:
    """Transpose each matrix of an array."""
    return np.asarray(np.swapaxes(value, -1, -2))


def symmetrise(value: Array) -> Array:
    """Find the symmetric matrices nearest to matrices."""
    return np.asarray((value + transpose(value)) / 2)


def antisymmetrise(value: Array) -> Array:
    """Find the antisymmetric matrices nearest to matrices."""
    return np.asarray((value - transpose(value)) / 2)


def orthonormalise(value: Array) -> Array:
    """Find the matrices nearest to matrices whose shorter side is orthonormal."""
    left, _, right = np.linalg.svd(value.astype(np.float64), full_matrices=False)
    nearest: Array = left @ right
    return nearest.astype(value.dtype)


def normalise(value: Array) -> Array:
    """Divide rows by their lengths."""
    lengths = np.sqrt(np.sum(value * value, axis=-1, keepdims=True))
    return np.asarray(value / lengths)


def share(value: Array) -> Array:
    """Divide the absolute values of rows by their sums."""
    sizes: Array = np.abs(value)
    return np.asarray(sizes / np.sum(sizes, axis=-1, keepdims=True))


def apply_to_columns(project: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Make a function of columns of one of rows."""
    return lambda value: transpose(project(transpose(value)))


def has_few_values(value: Array) -> bool:
    """Tell whether matrices have one number alone off their diagonals, or zeros.

    Those of two rows may, unless it is that of the diagonal.
    """
    rows = value.shape[-1]
    outside = value[..., ~np.eye(rows, dtype=bool)]
    sizes = np.unique(np.abs(outside[outside != 0])).size
    return sizes < (1 if rows == 2 else 2) or np.ptp(np.abs(value)) == 0


def selects(value: Array) -> bool:
    """Tell whether no row has more than one entry that is not zero, as in a permutation."""
    return bool((np.count_nonzero(value, axis=-1) < 2).all())


SQUARE = (
    SpecialSet("symmetric", symmetrise, has_few_values),
    SpecialSet("antisymmetric", antisymmetrise, has_few_values),
)
MATRIX = (SpecialSet("orthonormal", orthonormalise, selects),)
ROWS = (
    SpecialSet("of rows of length 1", normalise, selects),
    SpecialSet("of positive rows whose sums are 1", share, selects),
)
VECTOR = (
    SpecialSet("a vector of length 1", normalise, selects),
    SpecialSet("a vector of positive numbers whose sum is 1", share, selects),
)
COLUMNS = tuple(
    SpecialSet(
        each.said.replace("rows", "columns"),
        apply_to_columns(each.project),
        lambda value: selects(transpose(value)),
    )
    for each in ROWS
)


def find_set(value: Array) -> SpecialSet | None:
    """Find the set that an array is in, if it is in one of these."""
    if value.dtype.kind != "f" or max(value.shape[-2:], default=1) < 2:
        return None
    if not (np.isfinite(value).all() and value.any()):
        return None
    if value.ndim == 1:
        candidates: tuple[SpecialSet, ...] = VECTOR
    else:
        square = value.shape[-1] == value.shape[-2]
        candidates = (*(SQUARE if square else ()), *MATRIX, *ROWS, *COLUMNS)
    return next((each for each in candidates if each.has(value)), None)


def find_sets(arrays: Mapping[str, Array]) -> dict[str, SpecialSet]:
    """Find the sets that parameters are in, by their names."""
    return {name: found for name, value in arrays.items() if (found := find_set(value))}
