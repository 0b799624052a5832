"""Cases of a kernel: the arguments given and drawn ones, with what is found at their neighbours."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.problems.kernel_draws import displace, draw_cotangents, draw_near
from bptt_verifier.problems.problem import Array
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.formats import find_unit, is_half
from bptt_verifier.tolerance.projections import Measurement, measure
from bptt_verifier.tolerance.scatter import DISTANCE, IN_HALF, NEIGHBOURS

# A mean error of so many times the scatter near the point is no rounding in a coarser format, of
# which at least every hundredth is drawn anew there.
BEYOND_ROUNDING = 64.0


class KernelCase(NamedTuple):
    """A point with cotangents: number 0 is the arguments given, the others are drawn near them."""

    setting: int
    number: int
    point: dict[str, Array]
    cotangents: dict[str, Array]

    @property
    def label(self) -> str:
        """The case as messages name it."""
        where = f" of setting {self.setting + 1}" if self.setting else ""
        return f"the arguments given{where}" if not self.number else f"case {self.number}{where}"


class Found(NamedTuple):
    """What was found at the neighbours of a case: results (K, …) and exact values, by name."""

    case: KernelCase
    submitted: dict[str, Array]
    exact: dict[str, Array]
    measured: dict[str, Measurement]
    unsure: frozenset[str] = frozenset()


def draw_cases(
    setting: int, calls: KernelCalls, cotangents: Mapping[str, Array], number: int, seed: int
) -> Iterator[KernelCase]:
    """Draw the cases of one setting. `cotangents` have the dtypes, and the values of the first."""
    leaves = calls.arguments.leaves
    for k in range(number):
        rng = np.random.default_rng([seed, setting, k])
        point = {n: draw_near(v, rng) if k else v for n, v in leaves.items()}
        given = {
            n: draw_cotangents(v.shape, v.dtype, rng) if k else v for n, v in cotangents.items()
        }
        yield KernelCase(setting, k, point, given)


def draw_neighbours(
    case: KernelCase, distance: float, seed: int
) -> tuple[list[dict[str, Array]], list[dict[str, Array]]]:
    """Draw neighbours of a case: points, and cotangents."""
    points, cotangents = [], []
    for k in range(NEIGHBOURS):
        rng = np.random.default_rng([seed, case.setting, case.number, k, int(1 / distance)])
        points.append({n: displace(v, distance, rng) for n, v in case.point.items()})
        cotangents.append({n: displace(v, distance, rng) for n, v in case.cotangents.items()})
    return points, cotangents


def compare_gradients(
    calls: KernelCalls, case: KernelCase, tests: int, seed: int
) -> Found | Mistake:
    """Compare a kernel's gradients with the exact ones at the neighbours of a case.

    What is wrong near the point must be wrong further away as well: there, rounding in any format
    is drawn anew.
    """
    near = measure_at(calls, case, choose_distance(case), tests, seed)
    if isinstance(near, Mistake) or choose_distance(case) == IN_HALF:
        return near
    wrong = [name for name, each in near.measured.items() if each.wrong]
    if not wrong:
        return near
    far = measure_at(calls, case, IN_HALF, tests, seed)
    if isinstance(far, Mistake):
        return far
    vague = [n for n in wrong if not far.measured[n].wrong and is_mistake(near, n)]
    return far._replace(unsure=frozenset(vague))


def is_mistake(found: Found, name: str) -> bool:
    """Tell whether errors are larger than rounding in any format would scatter at these points."""
    measured = found.measured[name]
    largest = float(np.abs(found.exact[name]).max())
    factors = [np.abs(each.factor[each.wrong]) for each in measured.slices]
    factors.append(np.abs(measured.mean[measured.wrong_entries]) / largest)
    size = max(float(each.max(initial=0.0)) for each in factors)
    return size > BEYOND_ROUNDING * measured.noise.relative


def choose_distance(case: KernelCase) -> float:
    """Choose how far neighbours are: many units in the last place of the coarsest argument."""
    return IN_HALF if any(is_half(v.dtype) for v in case.point.values()) else DISTANCE


def measure_at(
    calls: KernelCalls, case: KernelCase, distance: float, tests: int, seed: int
) -> Found | Mistake:
    """Measure a kernel's errors at the neighbours of a case."""
    points, cotangents = draw_neighbours(case, distance, seed)
    exact = calls.pullback.pull_back(points, cotangents)
    # The exact gradient is linear in the cotangents; times three, every rounding in it is another.
    thrice = calls.pullback.pull_back(points, [scale(each, 3.0) for each in cotangents])
    doubt = {name: np.abs(thrice[name] / 3.0 - each) for name, each in exact.items()}
    answers = []
    for point, given in zip(points, cotangents, strict=True):
        answer = calls.ask(point, given)
        if isinstance(answer, Mistake):
            return answer._replace(explanation=f"{answer.explanation} With {case.label}.")
        answers.append(answer)
    submitted = {name: np.stack([each[name] for each in answers]) for name in exact}
    unfit = find_not_finite(submitted, exact, case)
    return unfit or measure_all(case, submitted, exact, doubt, tests)


def measure_all(
    case: KernelCase,
    submitted: dict[str, Array],
    exact: dict[str, Array],
    doubt: dict[str, Array],
    tests: int,
) -> Found:
    """Measure the errors of all results, each in the coarser dtype of it and its argument."""
    measured = {}
    for name, values in submitted.items():
        dtype = find_result_dtype(name, values, case)
        errors = values.astype(np.float64) - exact[name]
        measured[name] = measure(errors, exact[name], dtype, tests, doubt[name])
    return Found(case, submitted, exact, measured)


def scale(arrays: Mapping[str, Array], factor: float) -> dict[str, Array]:
    """Multiply arrays, in float64."""
    return {name: factor * value.astype(np.float64) for name, value in arrays.items()}


def find_result_dtype(name: str, values: Array, case: KernelCase) -> Any:
    """Find the coarser dtype of a result and of the argument that it belongs to."""
    like = case.point.get(name)
    return max((values, values if like is None else like), key=lambda a: find_unit(a.dtype)).dtype


def find_not_finite(
    submitted: Mapping[str, Array], exact: Mapping[str, Array], case: KernelCase
) -> Mistake | None:
    """Find a result that is not finite where the exact one is."""
    for name, values in submitted.items():
        bad = ~np.isfinite(values.astype(np.float64)) & np.isfinite(exact[name])
        if bad.any():
            k, *entry = map(int, np.argwhere(bad)[0])
            said = (
                f"the gradient for {name}: expected finite numbers, found "
                f"{float(values[(k, *entry)])} at entry {list(entry)}, where autodiff gives "
                f"{exact[name][(k, *entry)]:.6g}, with {case.label}."
            )
            return Mistake("not-finite", said, {"gradients": [name], "entry": list(entry)})
    return None


def count_tests(calls: KernelCalls) -> int:
    """Count the entries and slices of all gradients of one setting."""
    return sum(v.size + sum(v.shape) + 1 for v in calls.arguments.leaves.values())
