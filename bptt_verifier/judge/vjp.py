"""Entry points: verify a kernel's vector-Jacobian product, in the precision it runs in."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_cases import (
    Found,
    compare_gradients,
    count_tests,
    draw_cases,
)
from bptt_verifier.judge.kernel_places import locate
from bptt_verifier.judge.verify import find_name, require_agreement, require_function
from bptt_verifier.problems.kernel_draws import draw_cotangents
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.arguments import (
    convert_to_numpy,
    read_outputs,
    read_settings,
)
from bptt_verifier.program.attempt import use_own_settings
from bptt_verifier.reference.pullbacks import StatedPullback, prepare_pullback
from bptt_verifier.report import Mistake, ParameterResult, Report
from bptt_verifier.tolerance.comparison import Verdict, overall
from bptt_verifier.tolerance.formats import find_unit
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
            here = compare_gradients(calls, case, tests, seed)
            if isinstance(here, Mistake):
                return Report(name, Verdict.DISAGREES, (here,), cases=len(found))
            found.append(here)
    parameters = summarise(found)
    report = Report(
        name, overall(each.verdict for each in parameters.values()), (), None, parameters
    )
    report = report._replace(cases=len(found))
    if report.verdict is Verdict.DISAGREES:
        return report._replace(mistakes=locate(found))
    return report


def prepare_cotangents(calls: KernelCalls, given: Any, seed: int) -> dict[str, Array]:
    """Read the cotangents given, or draw them in the dtypes of the outputs.

    These are the kernel's own, if it supplies its outputs, else the coarsest of the arguments.
    Raises ValueError, with one sentence, where the cotangents given do not fit the outputs.
    """
    outputs = calls.pullback.find_outputs(calls.arguments.leaves)
    if given is not None:
        read = {n: convert_to_numpy(each) for n, each in read_outputs(given).items()}
        for name, value in outputs.items():
            shape = read[name].shape if name in read else None
            if shape != value.shape:
                raise ValueError(
                    f"cotangents: expected shape {value.shape} of {name}, found {shape}"
                )
        return {name: read[name] for name in outputs}
    coarsest = max((v.dtype for v in calls.arguments.leaves.values()), key=find_unit)
    own = None if calls.values is None else calls.compute_values(calls.arguments.leaves)
    dtypes = {n: v.dtype for n, v in own.items()} if isinstance(own, dict) else {}
    rng = np.random.default_rng([seed, 1])
    return {n: draw_cotangents(v.shape, dtypes.get(n, coarsest), rng) for n, v in outputs.items()}


def summarise(found: Sequence[Found]) -> dict[str, ParameterResult]:
    """Find the worst entry of each gradient over all cases, and the verdict on it."""
    results = {}
    for name in dict.fromkeys(name for each in found for name in each.measured):
        here = [each for each in found if name in each.measured]
        worst = max(here, key=lambda each: each.measured[name].excess)
        measured = worst.measured[name]
        resolution = min(each.measured[name].resolution for each in here)
        wrong = any(each.measured[name].wrong for each in here)
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
