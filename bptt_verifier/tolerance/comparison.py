"""Entrywise comparisons within allowed errors, and the verdicts that follow."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import accumulate
from math import prod
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from bptt_verifier.tolerance.bounds import RESOLVING, describe_dtype

Array = np.ndarray[Any, np.dtype[Any]]

SYMBOLS = {
    "loss": "L", "prediction": "ŷ", "h0": "∂L/∂h₀", "c0": "∂L/∂c₀", "adjoints": "every δ_t"
}  # fmt: skip


class Verdict(StrEnum):
    """A verdict; `INCONCLUSIVE` means that no comparison could have shown a mistake."""

    AGREES = "agrees"
    DISAGREES = "disagrees"
    INCONCLUSIVE = "inconclusive"


class Comparison(NamedTuple):
    """The worst entry of one gradient in one problem.

    `yours` is the submission's value. `error` is |yours − reference| in units of `allowed`, and 0
    where both are equal. `resolution` is the error that any entry could have had unseen, relative
    to the largest entry; it is infinite where nothing could have been seen.
    """

    name: str
    error: float
    entry: tuple[int, ...]
    yours: float
    reference: float
    allowed: float
    resolution: float

    @property
    def conclusive(self) -> bool:
        """True if the comparison could have shown a mistake: docs/derivation.md, section 9."""
        return self.resolution <= RESOLVING

    @property
    def verdict(self) -> Verdict:
        """The verdict of this comparison alone."""
        if not self.error <= 1:
            return Verdict.DISAGREES
        return Verdict.AGREES if self.conclusive else Verdict.INCONCLUSIVE


def find_symbol(result: str) -> str:
    """Find the symbol of a result in messages and tables, such as ∂L/∂W, or R{∂L/∂W}."""
    if result.startswith(("∂", "tangent of ")):
        return result
    if result.startswith("R{"):
        return f"R{{{find_symbol(result[2:-1])}}}"
    return SYMBOLS.get(result, f"∂L/∂{result}")


def name_tangents(results: dict[str, Any]) -> dict[str, Any]:
    """Rename results to the tangents of those results, as in R{W}."""
    return {f"R{{{name}}}": value for name, value in results.items()}


def find_coarsest_dtype(*arrays: Array, precision: Any = None) -> Any:
    """Find the coarsest floating dtype among the arrays and `precision`; there is at least one."""
    floats = {array.dtype for array in arrays if array.dtype.kind == "f"}
    floats |= set() if precision is None else {np.dtype(precision)}
    if len(floats) == 1:
        return floats.pop()
    return max(floats, key=lambda dtype: float(describe_dtype(dtype).eps))


def compare(
    name: str,
    yours: Float[Array, "..."],
    reference: Float[Array, "..."],
    allowed: Float[Array, "..."],
    distance: Float[Array, "..."] | None = None,
) -> Comparison:
    """Compare `yours`, of the submission, with `reference`, entry by entry, in units of `allowed`.

    NaN or infinity in `yours` where the reference is finite is an infinite error. An entry whose
    reference is not finite, or whose allowed error is infinite, has error 0 and makes the
    comparison inconclusive. `distance` is |yours − reference| where that is known otherwise.
    Raises ValueError where the shapes differ.
    """
    return compare_all({name: yours}, {name: reference}, {name: allowed}, distance)[0]


def compare_all(
    found: Mapping[str, Any],
    reference: Mapping[str, Array],
    allowed: Mapping[str, Array],
    distance: Float[Array, "..."] | None = None,
) -> list[Comparison]:
    """Compare every result that is not None with the reference of the same name, as `compare` does.

    All entries stand one behind the other in one array; `distance` is that of a single result.
    """
    names = [name for name, value in found.items() if value is not None]
    shapes = [np.shape(found[name]) for name in names]
    for name, shape in zip(names, shapes, strict=True):
        if shape != reference[name].shape:
            expected = reference[name].shape
            raise ValueError(f"{name}: expected shape {expected}, found {shape}")
    if not names:
        return []
    yours, true, limits = (
        np.concatenate([np.ravel(arrays[name]) for name in names]).astype(np.float64, copy=False)
        for arrays in (found, reference, allowed)
    )
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        away = np.abs(yours - true) if distance is None else np.ravel(distance)
        error = away / limits
    equal = yours == true if distance is None else away == 0
    decidable = np.isfinite(true) & np.isfinite(limits)
    error = np.where(np.isnan(error), np.inf, error)
    error[equal | ~decidable] = 0.0
    starts = [0, *accumulate(map(prod, shapes))]
    first = starts[:-1]
    every_decidable = np.logical_and.reduceat(decidable, first).tolist()
    largest = np.maximum.reduceat(np.abs(true), first).tolist()
    least_seen = np.maximum.reduceat(limits, first).tolist()
    comparisons = []
    for k, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        here = error[starts[k] : starts[k + 1]].argmax().item()
        entry, place = tuple(map(int, np.unravel_index(here, shape))), starts[k] + here
        seen = every_decidable[k] and largest[k] > 0
        comparisons.append(
            Comparison(
                name, error.item(place), entry, yours.item(place), true.item(place),
                limits.item(place), least_seen[k] / largest[k] if seen else np.inf,
            )
        )  # fmt: skip
    return comparisons


def worst_of(comparisons: Sequence[Comparison]) -> Comparison:
    """The comparison with the largest error."""
    return max(comparisons, key=lambda comparison: comparison.error)


def verdict_of(comparisons: Sequence[Comparison], resolving: float = RESOLVING) -> Verdict:
    """Disagrees if any comparison does; agrees if none does and at least one could have.

    One could have if its resolution is at most `resolving`.
    """
    if any(comparison.verdict is Verdict.DISAGREES for comparison in comparisons):
        return Verdict.DISAGREES
    conclusive = any(comparison.resolution <= resolving for comparison in comparisons)
    return Verdict.AGREES if conclusive else Verdict.INCONCLUSIVE


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """Disagrees if any verdict does; agrees if all of at least one do; else inconclusive."""
    found = set(verdicts)
    if Verdict.DISAGREES in found:
        return Verdict.DISAGREES
    return Verdict.AGREES if found == {Verdict.AGREES} else Verdict.INCONCLUSIVE
