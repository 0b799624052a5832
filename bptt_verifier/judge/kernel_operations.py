"""Mistakes in the operations of a kernel's stated function: one that gives the kernel's numbers.

With fixed cotangents c, the inner product of c and the outputs is a loss, whose gradient is the
pull-back of c. The mistakes of a user's own model are tried in its operations.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_cases import draw_cases, draw_neighbours
from bptt_verifier.judge.kernel_comparisons import Found, find_result_dtype
from bptt_verifier.judge.kernel_explanations import EXPLAINED, leaves_rounding
from bptt_verifier.mistakes.effort import find_effort
from bptt_verifier.mistakes.evidence import Witness
from bptt_verifier.mistakes.operation_mistakes import OperationMistake
from bptt_verifier.mistakes.other_sizes import OtherSize, hold_at
from bptt_verifier.mistakes.own_diagnosis import Fits, find_only_fit, find_single_mistake
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.backward import backward
from bptt_verifier.program.paths import leave_out_reshapes, prune
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.trace import Program, forward, trace
from bptt_verifier.program.zero_cotangents import keep_zeros_of
from bptt_verifier.reference.point_arrays import select_traced, widen
from bptt_verifier.reference.pullbacks import JaxPullback, TorchPullback
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.formats import find_unit, is_half
from bptt_verifier.tolerance.noise import SAFETY
from bptt_verifier.tolerance.sizes import root_mean_square

POINTS = 3  # at which one mistake has to give the kernel's numbers
OTHER_COTANGENTS = 1  # the seed that they are drawn from
EVIDENT = 64  # times larger than what rounding may do is a mistake that can be told from others


class Search(NamedTuple):
    """What a mistake has to explain in one setting: the numbers of a kernel at some points.

    `fits` judges its gradients by rounding in 16 bits; without it they are the kernel's to the
    rounding of 32 or 64.
    """

    program: Program
    witnesses: list[Witness]
    fits: Fits | None

    def find(self, holds: Callable[[OperationMistake], bool]) -> tuple[Mistake, ...]:
        """Find the one mistake that explains the numbers, here and elsewhere."""
        with use_float64(), np.errstate(all="ignore"):
            if self.fits is None:
                return find_single_mistake(self.program, self.witnesses, holds)
            return find_only_fit(self.program, self.witnesses, self.fits, holds)


def find_wrong_operation(
    every: Sequence[KernelCalls], wrong: Sequence[Found], right: Sequence[Found] = ()
) -> tuple[Mistake, ...]:
    """Find the one mistake in an operation of the forward pass that gives a kernel's gradients.

    `wrong` are cases in which they are wrong, and `right` those in which they are right, one of
    each setting, and `every` the calls of all settings. The mistake is sought in the largest wrong
    one, where fewer say the same, and has to explain the others as well. Empty where none does,
    where noise hides too much, or where the operations are not known.
    """
    order = sorted(wrong, key=lambda each: -sum(g[0].size for g in each.exact.values()))
    found = attempt(find_in_settings, every, order, right)
    if isinstance(found, Failure) or len(found) != 1:
        return ()
    where = str(found[0].details.get("file_line") or __file__)
    return () if where.startswith(__file__) else tuple(found)


def find_in_settings(
    every: Sequence[KernelCalls], wrong: Sequence[Found], right: Sequence[Found]
) -> tuple[Mistake, ...]:
    """Find the one mistake in an operation that explains the first case and all others."""
    searches = list[Search | None]()
    for each in (*wrong, *right):
        if not find_effort().goes_on():
            return ()
        searches.append(prepare_search(every[each.case.setting], each))
    first, *others = searches
    if first is None:
        return ()
    with use_float64(), np.errstate(all="ignore"):
        elsewhere = [
            OtherSize(*each, is_right=k >= len(wrong))
            for k, each in enumerate(others, 1)
            if each is not None
        ]
        holds = hold_at(elsewhere, first.program)

        @cache
        def prepare_others() -> OtherSize | None:
            other = prepare_search(every[wrong[0].case.setting], change_cotangents(every, wrong[0]))
            if other is None:
                return None
            with use_float64(), np.errstate(all="ignore"):
                return OtherSize(leave_out_reshapes(prune(other.program)), *other[1:])

        def holds_with_others(made: OperationMistake) -> bool:
            others = prepare_others()
            return others is None or others.gives_numbers(made)

    return first.find(lambda made: holds(made) and holds_with_others(made))


def change_cotangents(every: Sequence[KernelCalls], found: Found) -> Found:
    """Change the cotangents of a case to others of their dtypes.

    With the same ones at all points, a kernel that ignores a cotangent has a constant factor.
    """
    setting, given = found.case.setting, found.case.cotangents
    *_, other = draw_cases(setting, every[setting], given, 2, OTHER_COTANGENTS)
    return found._replace(case=found.case._replace(cotangents=other.cotangents))


def prepare_search(calls: KernelCalls, found: Found) -> Search | None:
    """Prepare the search at a case; None where operations are not known or noise hides too much."""
    pullback = calls.pullback
    if isinstance(pullback, TorchPullback):
        pullback = pullback.traced
    if not isinstance(pullback, JaxPullback) or not pullback.is_small:
        return None
    coarse = any(is_half(found.submitted[name].dtype) for name in found.gradients)
    prepare = prepare_beyond_noise if coarse else prepare_exact
    return prepare(calls, pullback, found)


def prepare_exact(calls: KernelCalls, pullback: JaxPullback, found: Found) -> Search | None:
    """Prepare the search for what gives all numbers of a kernel at some points.

    None where an error is not far beyond rounding.
    """
    witnesses: list[Witness] = []
    for case in draw_cases(found.case.setting, calls, found.case.cotangents, POINTS, 0):
        submitted = calls.ask(case.point, found.case.cotangents)
        if isinstance(submitted, Mistake):
            return None
        exact = calls.pullback.pull_back([case.point], [found.case.cotangents]).gradients
        reference = {name: g[0] for name, g in exact.items()}
        allowed = {}
        for name, g in reference.items():
            rounding = SAFETY * find_unit(submitted[name].dtype) * np.abs(g).max(initial=0.0)
            allowed[name] = np.full(g.shape, rounding)
            error = np.abs(submitted[name] - g).max(initial=0.0)
            if name in found.wrong and error < EVIDENT * allowed[name].max(initial=0.0):
                return None
        witnesses.append(Witness(widen(case.point), submitted, reference, allowed, True))
    return Search(trace_product(pullback, found), witnesses, None)


def prepare_beyond_noise(calls: KernelCalls, pullback: JaxPullback, found: Found) -> Search | None:
    """Prepare the search for what leaves nothing but rounding of a kernel in 16 bits.

    The kernel is asked at the neighbours of a point, with cotangents that stay.
    """
    given = found.case.cotangents
    points = draw_neighbours(found.case, found.case.distance, 0).points
    answers = [calls.ask(point, given) for point in points]
    submitted = [each for each in answers if not isinstance(each, Mistake)]
    if len(submitted) < len(points):
        return None
    exact = calls.pullback.pull_back(points, [given] * len(points)).gradients
    numbers = {name: np.stack([each[name] for each in submitted]) for name in exact}
    dtypes = {name: find_result_dtype(name, g, found.case) for name, g in numbers.items()}
    witnesses = [
        Witness(widen(point), widen(each), {n: g[k] for n, g in exact.items()},
                {n: np.zeros(g.shape[1:]) for n, g in exact.items()}, True)
        for k, (point, each) in enumerate(zip(points, submitted, strict=True))
    ]  # fmt: skip

    def fits(gradients: Mapping[str, Array], chosen: Sequence[int]) -> bool:
        for name, expected in gradients.items():
            here = numbers[name][[*chosen]], expected, exact[name][[*chosen]]
            if name in found.wrong and not explains_most(*here):
                return False
            if not leaves_rounding(*here, dtypes[name]):
                return False
        return True

    return Search(trace_product(pullback, found), witnesses, fits)


def explains_most(submitted: Array, expected: Array, exact: Array) -> bool:
    """Tell whether an explanation leaves a small part of a mistake only."""
    left = root_mean_square(submitted.astype(np.float64) - expected)
    return left * EXPLAINED <= root_mean_square(expected - exact)


def trace_product(pullback: JaxPullback, found: Found) -> Program:
    """Trace the inner product of the outputs and the cotangents at a case.

    Where its gradient is not finite, cotangents of zero stay zero, as in the reference (N8).
    """
    cotangents, start = widen(found.case.cotangents), widen(found.case.point)
    with use_float64():
        function = pullback.trace(start)

        def loss(params: Mapping[str, Any], _: Any = None) -> Any:
            outputs = select_traced(function(params))
            return sum((outputs[name] * cotangents[name]).sum() for name in outputs)

        program = trace(loss, start)
        with np.errstate(all="ignore"):
            slopes = backward(program, forward(program, start)).values()
        finite = all(np.isfinite(each).all() for each in slopes)
    return program if finite else keep_zeros_of(program)
