"""Entry points: verify a kernel's vector-Jacobian product, in the precision it runs in."""

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import numpy as np

from bptt_verifier.judge.kernel_approximation import describe_approximation
from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_cases import count_tests, draw_cases, prepare_cotangents
from bptt_verifier.judge.kernel_comparisons import OVERFLOW, Found, compare_kernel
from bptt_verifier.judge.kernel_diagnosis import diagnose_kernel
from bptt_verifier.judge.kernel_places import draw_map
from bptt_verifier.judge.kernel_precision import describe_kernel_precision
from bptt_verifier.judge.kernel_questions import (
    Question,
    find_lazy_answer,
    list_untried_sizes,
    prepare_question,
)
from bptt_verifier.judge.options import PullbackOptions
from bptt_verifier.judge.verify import (
    add_origin,
    find_name,
    require_agreement,
    require_function,
)
from bptt_verifier.program.arguments import read_settings
from bptt_verifier.program.attempt import use_own_settings
from bptt_verifier.reference.pullbacks import StatedPullback, prepare_pullback
from bptt_verifier.report import Counterexample, Mistake, ParameterResult, Report, nine_digits
from bptt_verifier.tolerance.comparison import Verdict, overall
from manual_bptt.inputs import require_at_least

CASES = 3  # cases of each setting: the arguments given, and drawn ones
SHOWN = 20  # entries of a row that a report shows
LARGEST_MAP = 128  # rows and columns of a map of errors
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
        report = judge_kernel(every, cotangents, cases, seed, name)
    written = [find_name(backward), find_name(forward), "arguments"]
    written += ["cotangents=cotangents"] if cotangents is not None else []
    written += [f"reference={find_name(reference)}"] if reference is not None else []
    return add_origin(report, verify_vjp, written, {"cases": cases}, seed)


def assert_vjp_verified(
    backward: Callable[[Any, Any], Any],
    forward: Callable[..., Any],
    arguments: Any,
    **options: Unpack[PullbackOptions],
) -> Report:
    """Return the report of `verify_vjp`. Raises DerivationError unless it agrees."""
    __tracebackhide__ = True
    return require_agreement(verify_vjp(backward, forward, arguments, **options))


def judge_kernel(
    every: Sequence[KernelCalls], cotangents: Any, number: int, seed: int, name: str
) -> Report:
    """Judge a kernel at the cases of all settings, ask what a lazy one fails, and report."""
    tests = number * sum(map(count_tests, every))
    found: list[Found] = []
    questions: list[Question] = []
    left_out: list[str] = []
    for setting, calls in enumerate(every):
        given = prepare_cotangents(calls, cotangents if setting == 0 else None, seed)
        cases = [*draw_cases(setting, calls, given, number + 1, seed)]
        for case in cases[:number]:
            here = compare_kernel(calls, case, tests, seed)
            if isinstance(here, Mistake) and here.details.get(OVERFLOW):
                left_out.append(case.label)
                continue
            if isinstance(here, Mistake):
                return Report(name, Verdict.DISAGREES, (here,), cases=len(found))
            found.append(here)
        at = next((each for each in reversed(found) if each.case.setting == setting), None)
        question = None if at is None else prepare_question(calls, at, cases[-1])
        questions += [question] if question is not None else []
    omitted = describe_overflow(left_out)
    if not found:
        return Report(name, Verdict.INCONCLUSIVE, notes=omitted)
    lazy = next(filter(None, map(find_lazy_answer, questions)), ())
    parameters = summarise(found)
    verdict = overall(each.verdict for each in parameters.values())
    approximation = describe_approximation(every, found)
    precision = describe_kernel_precision(every, found)
    notes = *omitted, *approximation, *precision, *describe_zeros(found), *list_untried_sizes(every)
    report = Report(name, verdict, lazy, None, parameters, cases=len(found), notes=notes)
    if lazy:
        report = report._replace(verdict=Verdict.DISAGREES)
    if verdict is Verdict.DISAGREES:
        example = show_worst(found, every, f"seed={seed}, cases={number}")
        named = [each for each in diagnose_kernel(every, found) if not (lazy and is_vague(each))]
        report = report._replace(mistakes=(*lazy, *named), counterexample=example)
    return report


def describe_overflow(cases: Sequence[str]) -> tuple[str, ...]:
    """Say which cases were left out, and what helps."""
    if not cases:
        return ()
    return (
        f"Left out: {', '.join(cases)}. The exact gradient is not finite there, or too near the "
        "largest number of its format; other or smaller arguments or cotangents help.",
    )


def is_vague(mistake: Mistake) -> bool:
    """Tell whether a mistake has no name and no place."""
    return mistake.name == "unknown"


def summarise(found: Sequence[Found]) -> dict[str, ParameterResult]:
    """Find the worst entry of each gradient over all cases, and the verdict on it.

    A gradient that is zero at all cases, such as that of W at T = 1, is right if the kernel's is
    zero to rounding, unless there is no other.
    """
    results, zeros = {}, find_zeros(found)
    for name in dict.fromkeys(name for each in found for name in each.gradients):
        here = [each for each in found if name in each.gradients]
        worst = max(here, key=lambda each: each.gradients[name].excess)
        measured = worst.gradients[name]
        resolution = min(each.gradients[name].resolution for each in here)
        wrong = any(each.gradients[name].wrong for each in here)
        untestable = resolution > RESOLVED and name not in zeros
        vague = untestable or any(name in each.unsure for each in here)
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


def find_zeros(found: Sequence[Found]) -> list[str]:
    """List the gradients that are zero, to rounding, in all cases; none if that is all of them."""
    every = dict.fromkeys(name for each in found for name in each.gradients)
    testable = {
        name
        for each in found
        for name, measured in each.gradients.items()
        if np.isfinite(measured.resolution)
    }
    return [name for name in every if name not in testable] if testable else []


def describe_zeros(found: Sequence[Found]) -> list[str]:
    """Say which gradients are zero in all cases."""
    return [
        f"∂L/∂{name} is zero, to rounding, in all cases, and yours must be, too."
        for name in find_zeros(found)
    ]


def show_worst(
    found: Sequence[Found], every: Sequence[KernelCalls], options: str
) -> Counterexample:
    """Show the worst gradient of all cases: the row of its worst entry, and a map of its errors.

    `options` are those of the call that yields the report again.
    """
    pairs = [(each, name) for each in found for name in each.wrong]
    worst, name = max(pairs, key=lambda pair: pair[0].gradients[pair[1]].excess)
    measured = worst.gradients[name]
    submitted, exact = worst.submitted[name][0].astype(np.float64), worst.exact[name][0]
    drawn = draw_map(worst.nearest.gradients[name])
    errors = np.abs(measured.mean) / measured.limit
    place = np.unravel_index(int(np.argmax(np.nan_to_num(errors))), errors.shape)
    row = tuple(map(int, place[:-1]))
    leaves = every[worst.case.setting].arguments.leaves.items()
    shapes = " ".join(f"{leaf}={value.shape}" for leaf, value in leaves)
    where = f", row {list(row)} of {name}" if row else ""
    return Counterexample(
        sizes=f"{worst.case.label}, {shapes}{where}",
        arrays={},
        gradient=name,
        yours=np.atleast_1d(nine_digits(submitted[row]))[:SHOWN].tolist(),
        autodiff=np.atleast_1d(nine_digits(exact[row]))[:SHOWN].tolist(),
        error_over_bound=drawn[:LARGEST_MAP, :LARGEST_MAP].tolist(),
        reproduce=f"verify_vjp(backward, forward, arguments, {options})",
    )
