"""Mistakes in the operations of a kernel's stated function: one that gives the kernel's numbers.

With fixed cotangents c, the inner product of c and the outputs is a loss, whose gradient is the
pull-back of c. The mistakes of a user's own model are tried in its operations.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_cases import draw_cases
from bptt_verifier.judge.kernel_comparisons import Found
from bptt_verifier.mistakes.effort import limit_effort
from bptt_verifier.mistakes.evidence import Witness
from bptt_verifier.mistakes.own_diagnosis import find_single_mistake
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.trace import Program, trace
from bptt_verifier.reference.pullbacks import JaxPullback, select_traced, widen
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.formats import find_unit, is_half
from bptt_verifier.tolerance.noise import SAFETY

POINTS = 3  # at which one mistake has to give the kernel's numbers
SECONDS = 10.0  # for the search
EVIDENT = 64  # times larger than what rounding may do is a mistake that can be told from others


def find_wrong_operation(calls: KernelCalls, found: Found) -> tuple[Mistake, ...]:
    """Find the one mistake in an operation of the forward pass that gives a kernel's gradients.

    Empty where none does, where noise hides too much, or where the operations are not known.
    """
    pullback = calls.pullback
    if not isinstance(pullback, JaxPullback) or not pullback.is_small:
        return ()
    made = attempt(make_evidence, calls, pullback, found)
    if isinstance(made, Failure) or not made[1]:
        return ()
    with use_float64(), limit_effort(SECONDS):
        mistakes = attempt(find_single_mistake, *made)
    if isinstance(mistakes, Failure) or len(mistakes) != 1:
        return ()
    where = str(mistakes[0].details.get("file_line") or __file__)
    return () if where.startswith(__file__) else mistakes


def make_evidence(
    calls: KernelCalls, pullback: JaxPullback, found: Found
) -> tuple[Program, list[Witness]]:
    """Trace the inner product of outputs and cotangents, and ask the kernel at some points.

    There are no witnesses where an error is not far beyond rounding.
    """
    cotangents = widen(found.case.cotangents)
    start = widen(found.case.point)
    with use_float64():
        function = pullback.trace(start)

        def loss(params: Mapping[str, Any], _: Any = None) -> Any:
            outputs = select_traced(function(params))
            return sum((outputs[name] * cotangents[name]).sum() for name in outputs)

        program = trace(loss, start)
    witnesses: list[Witness] = []
    for case in draw_cases(found.case.setting, calls, found.case.cotangents, POINTS, 0):
        submitted = calls.ask(case.point, found.case.cotangents)
        if isinstance(submitted, Mistake) or any(is_half(g.dtype) for g in submitted.values()):
            return program, []
        exact = pullback.pull_back([case.point], [found.case.cotangents]).gradients
        reference = {name: g[0] for name, g in exact.items()}
        allowed = {}
        for name, g in reference.items():
            rounding = SAFETY * find_unit(submitted[name].dtype) * np.abs(g).max(initial=0.0)
            allowed[name] = np.full(g.shape, rounding)
            error = np.abs(submitted[name] - g).max(initial=0.0)
            if name in found.wrong and error < EVIDENT * allowed[name].max(initial=0.0):
                return program, []
        witnesses.append(Witness(widen(case.point), submitted, reference, allowed, True))
    return program, witnesses
