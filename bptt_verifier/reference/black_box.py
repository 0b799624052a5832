"""The reference of a loss that cannot be traced: its differences, with their measured errors."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.reference import differences
from bptt_verifier.reference.case import Case, Truth
from bptt_verifier.reference.points import Point, draw_parameters
from bptt_verifier.reference.selection import RAISES, count_left_out, is_telling, resolve
from bptt_verifier.tolerance.bounds import describe_dtype
from bptt_verifier.tolerance.noise import SAFETY
from bptt_verifier.tolerance.scatter import displace

CASES = 6  # at most
FEWEST = 3  # by which gradients may agree
BUDGET = 30.0  # seconds for all cases
FAR = 2.0**-14  # relative distance of the neighbours that show the effect of rounding
NEIGHBOURS = 2


# Compute a loss and its gradient, by another library's autodiff.
Gradient = Callable[[Mapping[str, Array]], tuple[float, dict[str, Array]]]


class BlackBox(NamedTuple):
    """A loss as a function of float arrays, and the dtype of its differences.

    `gradient` is the autodiff of another library, if it has one: then no differences are taken.
    """

    loss: differences.Loss
    dtype: Any
    gradient: Gradient | None = None

    def differentiate(self, params: Mapping[str, Array]) -> differences.Differences:
        """Compute the loss and its gradient at a point, with errors."""
        if self.gradient is not None:
            wide = {name: value.astype(np.float64) for name, value in params.items()}
            loss, slopes = self.gradient(wide)
            unit = float(np.finfo(np.float64).eps) / 2
            errors = {
                n: np.full(v.shape, SAFETY * unit * np.abs(v).max()) for n, v in slopes.items()
            }
            return differences.Differences(loss, slopes, errors)
        return differences.differentiate(self.loss, params, self.dtype)

    def make_case(self, params: dict[str, Array], point: Point, seed: int) -> Case:
        """Make the case of a point, whose allowed errors are those of the differences."""
        found = self.differentiate(params)
        values = found.values | ({} if "loss" in params else {"loss": np.asarray(found.loss)})

        @cache
        def measure_condition() -> dict[str, Array]:
            """Measure the change of each entry over the relative change of the parameters."""
            rng = np.random.default_rng([seed, point.number])
            changes = {name: np.zeros(value.shape) for name, value in found.values.items()}
            for _ in range(NEIGHBOURS):
                moved = {name: displace(value, FAR, rng) for name, value in params.items()}
                for name, value in self.differentiate(moved).values.items():
                    apart = np.abs(value - found.values[name]) / FAR
                    changes[name] = np.maximum(changes[name], apart)
            return changes

        def truth(dtype: Any, names: Collection[str] = ()) -> Truth:
            unit = float(describe_dtype(dtype).eps) / 2
            allowed = dict(found.errors)
            for name, value in found.values.items():
                largest = float(np.max(np.abs(value)))
                rounding = unit * (measure_condition()[name] + largest)
                allowed[name] = allowed[name] + SAFETY * rounding
            if "loss" not in params:
                size = abs(found.loss) + sum(
                    float(np.sum(np.abs(value * params[name])))
                    for name, value in found.values.items()
                )
                allowed["loss"] = np.asarray(SAFETY * SAFETY * unit * size)
            return Truth(values, allowed)

        return Case(point.label, params, point, truth)

    def estimate_time(self, params: Mapping[str, Array]) -> float:
        """Estimate the seconds that one case takes."""
        start = time.perf_counter()
        self.loss(params)
        entries = sum(value.size for value in params.values()) if self.gradient is None else 1
        calls = 2 * differences.STEPS * entries
        return max(1e-9, (time.perf_counter() - start) * calls * (1 + NEIGHBOURS))


class Chosen(NamedTuple):
    """The cases of a black box, the draws that were left out, and gradients that are zero.

    The loss raised an exception at the draws in `raising`.
    """

    cases: tuple[Case, ...]
    left_out: int
    zeros: frozenset[str]
    raising: tuple[Point, ...] = ()


def choose_black_box(
    loss: differences.Loss,
    settings: Sequence[Mapping[str, Array]],
    seed: int,
    number: int,
    progress: Callable[[int, int], None],
    gradient: Gradient | None = None,
) -> tuple[BlackBox, Chosen]:
    """Choose cases that can show a mistake, and the dtype of the differences.

    The cases of each setting are the parameters given, and draws in float64: differences show
    little in float32.
    """
    wide = {name: value.astype(np.float64) for name, value in settings[0].items()}
    dtype = np.float64 if gradient else differences.find_dtype(loss, wide)
    box = BlackBox(loss, dtype, gradient)
    seconds = max(map(box.estimate_time, settings))
    wanted = min(max(number, len(settings)), CASES, int(BUDGET / seconds))
    cases, left_out, raising = list[Case](), 0, list[Point]()

    def make_telling(values: dict[str, Array], point: Point) -> Case | None:
        case = box.make_case(values, point, seed)
        return case if is_telling(case) else None

    for setting, params in enumerate(settings):
        share = len(range(setting, wanted, len(settings)))
        points = [Point(0, setting=setting)]
        for i in range(1, 3 * share):
            if i % 3 != 2:
                points += [Point(i, setting=setting), Point(i, near=True, setting=setting)]
        own = 0
        for point in points:
            if own == share:
                break
            values = draw_parameters(params, seed=seed, case=point.number, near=point.near)
            drawn = point.number != 0  # at the parameters given, an exception ends the search
            case = attempt(make_telling, values, point) if drawn else make_telling(values, point)
            if isinstance(case, Failure):
                raising.append(point)
            elif case is None:
                left_out += 1
            else:
                cases.append(case)
                own += 1
                progress(len(cases), wanted)
    zeros = [find_zeros(case) for case in cases]
    common = frozenset.intersection(*zeros or [frozenset()])
    return box, Chosen(tuple(cases), left_out, common, (*raising,))


def find_zeros(case: Case) -> frozenset[str]:
    """Find the gradients of a case that are exactly zero: the loss depends on no entry."""
    assert case.truth is not None
    values = case.truth(np.float64, ()).values
    return frozenset(name for name in case.arguments if not values[name].any())


def doubt_few_cases(chosen: Chosen, cases: int) -> str | None:
    """Say so where differences serve at too few cases to agree."""
    number = len(chosen.cases)
    if number >= min(FEWEST, cases):
        return None
    return (
        f"Only {number} case{'s' * (number != 1)} could be compared: the differences of the loss "
        "take too long, or are too inaccurate. A mistake may show elsewhere."
    )


def describe_differences(box: BlackBox, chosen: Chosen, reason: str) -> list[str]:
    """Describe that the reference is differences, why, and what could be seen."""
    precision = "float64" if box.dtype is np.float64 else "longdouble"
    what = f"central differences of the loss in {precision}, extrapolated"
    if box.gradient is not None:
        what = "torch.autograd in float64, confirmed by central differences"
    notes = [f"{reason} The reference is therefore {what}, with measured errors."]
    seen: dict[str, float] = {}
    for case in chosen.cases:
        for name, found in resolve(case).items():
            seen[name] = float(np.fmin(found, seen.get(name, np.inf)))
    shown = ", ".join(f"{x:.1g} of ∂L/∂{name}" for name, x in seen.items() if np.isfinite(x))
    if shown:
        notes.append(f"The smallest relative errors that could have been seen: {shown}.")
    reasons = {"the reference is not accurate there": chosen.left_out, RAISES: len(chosen.raising)}
    notes += [f"{count_left_out(n)}, because {why}." for why, n in reasons.items() if n]
    notes += [f"∂L/∂{name} is zero in all cases, and yours must be, too." for name in chosen.zeros]
    return notes
