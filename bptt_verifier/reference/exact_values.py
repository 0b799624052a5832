"""Exact values of a gradient, which decide where every bound is too large.

A result within a small fraction of the exact gradient agrees, because a mistake changes it by more.
One that is much farther from it than every correct derivation in the same number format disagrees.
Between the two, rounding alone destroys the result: the verdict is inconclusive. Needs the extra
`certify` and small problems. Source: docs/certification.md, section 5.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.util import find_spec
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from ml_dtypes import bfloat16

from bptt_verifier.problems.cached import cached_by_content
from bptt_verifier.problems.problem import Array, Problem
from bptt_verifier.report import Decision
from bptt_verifier.tolerance.bounds import RESOLVING, describe_dtype
from bptt_verifier.tolerance.comparison import Verdict
from bptt_verifier.tolerance.noise import SAFETY
from manual_bptt import gru, jacobian_sum, lstm, rnn, rtrl

PROBLEMS = 8  # at most, for each of which every entry costs one forward pass
LARGEST_SIZE = 2000  # T B H, at most
TO_ONE_SIDE = 3  # times as much may be off where errors have one sign, and add up
CORRECT = {"rnn": (rnn, jacobian_sum, rtrl), "lstm": (lstm,), "gru": (gru,)}


class Computed(NamedTuple):
    """A problem, the submitted gradients by name, and the dtype of the computation."""

    problem: Problem
    submitted: dict[str, Array]
    dtype: Any

    @property
    def size(self) -> int:
        """T B H."""
        T, B, _, H, _ = self.problem.sizes
        return T * B * H


def is_available() -> bool:
    """Tell whether python-flint is installed."""
    return find_spec("flint") is not None


def run_correct_derivations(problem: Problem, dtype: Any) -> list[dict[str, Array]]:
    """Run the built-in derivations of a problem's cell in a number format of NumPy."""
    given = problem.map_arrays(lambda values: values.astype(dtype))
    derivations = [getattr(m, "gradients", m.value_and_grad) for m in CORRECT[problem.cell]]
    point = given.params, given.x, given.y
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return [derive(*point, **given.simple_options)[1]._asdict() for derive in derivations]


def judge_deviation(
    deviation: float, size: float, correct: float, safety: float = SAFETY
) -> Verdict:
    """Judge one gradient in one problem by its largest deviation and its largest exact entry.

    `correct` is the largest deviation of any correct derivation, and `safety` how many times that
    is no mistake. If `correct` or `size` is NaN, the verdict is inconclusive.
    """
    if not (size > 0 and np.isfinite(correct)):
        return Verdict.INCONCLUSIVE
    if deviation <= RESOLVING * size:
        return Verdict.AGREES
    return Verdict.DISAGREES if not deviation <= safety * correct else Verdict.INCONCLUSIVE


def find_deviations(problem: Problem, dtype: Any, exact: Mapping[str, Array]) -> dict[str, float]:
    """Find the largest deviation of the correct derivations in a number format, by name.

    It is one rounding of the largest entry at least: the arguments may not be numbers of the
    format. NumPy does not compute with bfloat16, in which errors are as many times those in float32
    as the units are.
    """
    known = np.float32 if dtype == bfloat16 else dtype
    unit = float(describe_dtype(dtype).eps) / 2
    times = float(describe_dtype(dtype).eps / describe_dtype(known).eps)
    found = run_correct_derivations(problem, known)
    deviations = dict[str, float]()
    for name, value in exact.items():
        own = [find_largest_deviation(each[name], value) for each in found if name in each]
        if own:
            deviations[name] = max(times * max(own), unit * float(np.max(np.abs(value))))
    return deviations


@cached_by_content(4 * PROBLEMS)
def exact_values(problem: Problem, names: tuple[str, ...]) -> dict[str, Array]:
    """Compute the float64 nearest to every entry of these gradients."""
    from bptt_verifier.proofs.enclosures import certify  # noqa: PLC0415 - needs an extra

    given: dict[str, Any] = problem.first | problem.options
    found = certify(problem.params, problem.x, problem.y, model=problem.cell, names=names, **given)
    return {name: enclosure.nearest.astype(np.float64) for name, enclosure in found.items()}


def decide(
    computed: Iterable[Computed], names: list[str], one_sided: Collection[str] = ()
) -> dict[str, Decision]:
    """Decide on these gradients by the exact values of the first problems that are small.

    Those `one_sided` may have errors of one sign, which add up.
    """
    from bptt_verifier.proofs.enclosures import Undecided  # noqa: PLC0415 - needs an extra

    small = (each for each in computed if each.size <= LARGEST_SIZE)
    verdicts: dict[str, list[Verdict]] = {name: [] for name in names}
    worst = dict.fromkeys(names, 0.0)
    for problem, submitted, dtype in islice(small, PROBLEMS):
        asked = tuple(name for name in names if name in submitted)
        try:
            exact = exact_values(problem, asked)
        except Undecided:
            continue
        correct = find_deviations(problem, dtype, exact)
        underflow = float(describe_dtype(dtype).smallest_normal)
        for name in asked:
            largest = float(np.max(np.abs(exact[name])))
            off = find_largest_deviation(submitted[name], exact[name])
            # Where numbers underflow, one correct derivation may be exact and another may not.
            best = correct.get(name, np.nan) + underflow
            safety = SAFETY * (TO_ONE_SIDE if name in one_sided else 1)
            found = judge_deviation(off, largest, best, safety)
            if found is not Verdict.INCONCLUSIVE:
                verdicts[name].append(found)
                worst[name] = max(worst[name], off / largest)
    return {
        name: Decision(combine_verdicts(found), len(found), worst[name])
        for name, found in verdicts.items()
    }


def find_largest_deviation(values: Array, exact: Array) -> float:
    """Find the largest |values − exact|; ∞ where a value is not finite."""
    off = np.abs(np.asarray(values, np.float64) - exact)
    return float(np.max(np.where(np.isnan(off), np.inf, off)))


def combine_verdicts(verdicts: list[Verdict]) -> Verdict:
    """Combine verdicts: disagrees if any does, else agrees if any does."""
    order: Callable[[Verdict], int] = [Verdict.DISAGREES, Verdict.AGREES].index
    return min(verdicts, key=order, default=Verdict.INCONCLUSIVE)
