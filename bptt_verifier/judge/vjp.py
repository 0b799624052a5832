"""Entry points: verify a kernel's vector-Jacobian product, in the precision it runs in."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_cases import count_tests, draw_cases, prepare_cotangents
from bptt_verifier.judge.kernel_comparisons import Found, compare_kernel
from bptt_verifier.judge.kernel_places import locate
from bptt_verifier.judge.kernel_precision import describe_kernel_precision
from bptt_verifier.judge.verify import find_name, require_agreement, require_function
from bptt_verifier.program.arguments import read_settings
from bptt_verifier.program.attempt import use_own_settings
from bptt_verifier.reference.pullbacks import StatedPullback, prepare_pullback
from bptt_verifier.report import Mistake, ParameterResult, Report
from bptt_verifier.tolerance.comparison import Verdict, overall
from manual_bptt.inputs import require_at_least

CASES = 3  # cases of each setting: the arguments given, and drawn ones
RESOLVED = 2.0**-4  # a gradient is not testable if rounding hides a larger factor on all of it


def verify_vjp(
    backward: Callable[[Any, Any], Any],
    forward: Callable[..., Any],
    arguments: Any,
    *,
    cotangents: Any = None,
    reference: Callable[[Any, Any], Any] | None = None,
    cases: int = CASES,
    seed: int = 0,
    subject: str | None = None,
) -> Report:
    """Verify `backward(arguments, cotangents)` against the pull-back of `forward(*arguments)`.

    `forward` states the function, in plain NumPy, jax.numpy or PyTorch, and returns a pytree of
    arrays. `arguments` is a tuple or a mapping, nested in any way, or a list of such settings; its
    floating arrays are differentiated, in their dtypes, and the others are data. `backward` gets
    cotangents in the structure of the outputs and returns gradients in that of the arguments.
    `cotangents` are those of the first setting's first case; the judge draws all others, and values
    near the arguments given for all but the first of `cases`, from `seed`. `reference(arguments,
    cotangents)` states, in float64, a gradient that is not autodiff's, such as a truncated one.
    Raises TypeError or ValueError where an argument does not fit this description.
    """
    require_function(backward)
    require_function(forward)
    require_at_least(1, "cases", cases)
    require_at_least(0, "seed", seed)
    name = subject or find_name(backward)
    with use_own_settings():
        settings = read_settings(arguments, forward)
        pullbacks = [prepare_pullback(forward, setting) for setting in settings]
        judged = [p if reference is None else StatedPullback(reference, p) for p in pullbacks]
        every = [KernelCalls(backward, pullback) for pullback in judged]
        return judge_kernel(every, cotangents, cases, seed, name)


def assert_vjp_verified(
    backward: Callable[[Any, Any], Any],
    forward: Callable[..., Any],
    arguments: Any,
    **options: Any,
) -> Report:
    """Return the report of `verify_vjp`. Raises DerivationError unless it agrees."""
    return require_agreement(verify_vjp(backward, forward, arguments, **options))


def judge_kernel(
    every: Sequence[KernelCalls], cotangents: Any, number: int, seed: int, name: str
) -> Report:
    """Judge a kernel at the cases of all settings, and report."""
    tests = number * sum(map(count_tests, every))
    found: list[Found] = []
    for setting, calls in enumerate(every):
        given = prepare_cotangents(calls, cotangents if setting == 0 else None, seed)
        for case in draw_cases(setting, calls, given, number, seed):
            here = compare_kernel(calls, case, tests, seed)
            if isinstance(here, Mistake):
                return Report(name, Verdict.DISAGREES, (here,), cases=len(found))
            found.append(here)
    parameters = summarise(found)
    report = Report(
        name, overall(each.verdict for each in parameters.values()), (), None, parameters
    )
    notes = tuple(describe_kernel_precision(every, found))
    report = report._replace(cases=len(found), notes=notes)
    if report.verdict is Verdict.DISAGREES:
        return report._replace(mistakes=locate(found))
    return report


def summarise(found: Sequence[Found]) -> dict[str, ParameterResult]:
    """Find the worst entry of each gradient over all cases, and the verdict on it."""
    results = {}
    for name in dict.fromkeys(name for each in found for name in each.gradients):
        here = [each for each in found if name in each.gradients]
        worst = max(here, key=lambda each: each.gradients[name].excess)
        measured = worst.gradients[name]
        resolution = min(each.gradients[name].resolution for each in here)
        wrong = any(each.gradients[name].wrong for each in here)
        vague = resolution > RESOLVED or any(name in each.unsure for each in here)
        verdict = Verdict.DISAGREES if wrong else (
            Verdict.INCONCLUSIVE if vague else Verdict.AGREES
        )  # fmt: skip
        with np.errstate(all="ignore"):
            place = int(np.argmax(np.nan_to_num(np.abs(measured.mean) / measured.limit)))
        entry = tuple(int(i) for i in np.unravel_index(place, measured.mean.shape))
        results[name] = ParameterResult(
            verdict, measured.excess, entry,
            float(worst.submitted[name][(0, *entry)]), float(worst.exact[name][(0, *entry)]),
            float(measured.limit[entry]), len(here), resolution,
        )  # fmt: skip
    return results
