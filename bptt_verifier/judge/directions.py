"""Entry points: verify a kernel's forward mode, and its Hessian-vector products.

The judge of `vjp`, with directions of the arguments in the place of cotangents of the outputs.
"""

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import jax
import numpy as np

from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_cases import (
    KernelCase,
    count_tests,
    draw_cases,
    prepare_cotangents,
)
from bptt_verifier.judge.kernel_comparisons import OVERFLOW, Found, compare_kernel
from bptt_verifier.judge.kernel_diagnosis import name_gradient
from bptt_verifier.judge.kernel_precision import describe_resolution
from bptt_verifier.judge.kernel_questions import OF_MEMORY, find_lazy_answer, prepare_question
from bptt_verifier.judge.options import DirectionOptions
from bptt_verifier.judge.verify import add_origin, find_name, require_agreement, require_function
from bptt_verifier.judge.vjp import CASES, describe_overflow, find_zeros, summarise
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.arguments import (
    Arguments,
    convert_to_numpy,
    read_outputs,
    read_settings,
)
from bptt_verifier.program.attempt import USERS, Failure, attempt, use_own_settings
from bptt_verifier.reference.pushforwards import (
    Curvature,
    Pushforward,
    prepare_curvature,
    prepare_pushforward,
)
from bptt_verifier.report import Mistake, Report
from bptt_verifier.tolerance.comparison import Verdict, find_symbol, name_tangents, overall
from manual_bptt.inputs import require_at_least

LINEAR = 2.0**-6  # relative change of a result that doubling the direction makes beyond doubling


class DirectionCalls(KernelCalls):
    """A submission that takes arguments and a direction of the same structure."""

    pullback: Pushforward
    noun = "function"

    @property
    def results(self) -> dict[str, Any]:
        """Arrays of the shapes of all results, by name."""
        return self.pullback.results

    def arrange(self, cotangents: Any) -> Any:
        """Arrange a direction in the structure of the arguments; data stand there as they are."""
        return self.arguments.rebuild(cotangents)

    def call_once(self, point: Any, direction: Any) -> Any:
        """Call the submission; return arrays in the structure of its results, or its mistake."""
        at, along = (self.arguments.rebuild(each) for each in (point, direction))
        result = attempt(self.backward, at, along, settings=USERS.get())
        if isinstance(result, Failure):
            said = f"your {self.noun} raised {result.what}. It was raised at {result.where}."
            return Mistake("raised", said, {"exception": result.exception})
        return jax.tree.map(convert_to_numpy, result)

    def read(self, result: Any) -> dict[str, Array]:
        """Read tangents or products by name. Raises ValueError where they do not fit."""
        if isinstance(self.pullback, Curvature):
            return name_tangents(self.arguments.read(result))
        return read_tangents(result, self.pullback.computed)


def read_tangents(result: Any, outputs: dict[str, Any]) -> dict[str, Array]:
    """Read tangents in the structure of the outputs. Raises ValueError where it is another."""
    found = read_outputs(result)
    if len(found) == len(outputs) == 1:  # one array, however it is wrapped
        found = dict(zip(outputs, found.values(), strict=True))
    tangents = {}
    for name, output in outputs.items():
        array = attempt(convert_to_numpy, found.get(name))
        shape = None if isinstance(array, Failure) or name not in found else array.shape
        if shape != tuple(output.shape):
            raise ValueError(
                f"the tangent of {name}: expected shape {tuple(output.shape)}, found {shape}"
            )
        tangents[f"tangent of {name}"] = np.array(array)
    return tangents


def verify_jvp(
    jvp: Callable[[Any, Any], Any],
    forward: Callable[..., Any],
    arguments: Any,
    *,
    direction: Any = None,
    cases: int = CASES,
    seed: int = 0,
    subject: str | None = None,
) -> Report:
    """Verify `jvp(arguments, direction)` against the push-forward of `forward(*arguments)`.

    `jvp` gets a direction in the structure of the arguments, integer data as they are, and returns
    the tangents of all floating outputs in the structure of the outputs. The other arguments, what
    is drawn, and what is raised, are those of `verify_vjp`.
    """
    every = arguments, direction, cases, seed, subject
    report = verify_along(jvp, forward, prepare_pushforward, *every)
    return add_call(report, verify_jvp, (jvp, forward), *every[1:4])


def verify_hvp(
    hvp: Callable[[Any, Any], Any],
    loss: Callable[..., Any],
    arguments: Any,
    *,
    direction: Any = None,
    cases: int = CASES,
    seed: int = 0,
    subject: str | None = None,
) -> Report:
    """Verify `hvp(arguments, direction)` against the Hessian of `loss(*arguments)`.

    `loss` returns one number. `hvp` returns the Hessian times the direction, in the structure of
    the arguments. The other arguments, what is drawn, and what is raised, are those of
    `verify_vjp`.
    """
    every = arguments, direction, cases, seed, subject
    report = verify_along(hvp, loss, prepare_curvature, *every)
    return add_call(report, verify_hvp, (hvp, loss), *every[1:4])


def add_call(
    report: Report,
    function: Callable[..., Report],
    named: tuple[Callable[..., Any], Callable[..., Any]],
    direction: Any,
    cases: int,
    seed: int,
) -> Report:
    """Add the call that gives the same report again, and the versions."""
    along = [] if direction is None else ["direction=direction"]
    written = [*map(find_name, named), "arguments", *along]
    return add_origin(report, function, written, {"cases": cases}, seed)


def assert_jvp_verified(
    jvp: Callable[[Any, Any], Any],
    forward: Callable[..., Any],
    arguments: Any,
    **options: Unpack[DirectionOptions],
) -> Report:
    """Return the report of `verify_jvp`. Raises DerivationError unless it agrees."""
    __tracebackhide__ = True
    return require_agreement(verify_jvp(jvp, forward, arguments, **options))


def assert_hvp_verified(
    hvp: Callable[[Any, Any], Any],
    loss: Callable[..., Any],
    arguments: Any,
    **options: Unpack[DirectionOptions],
) -> Report:
    """Return the report of `verify_hvp`. Raises DerivationError unless it agrees."""
    __tracebackhide__ = True
    return require_agreement(verify_hvp(hvp, loss, arguments, **options))


def verify_along(
    function: Callable[[Any, Any], Any],
    stated: Callable[..., Any],
    prepare: Callable[[Any, Arguments], Pushforward],
    arguments: Any,
    direction: Any,
    cases: int,
    seed: int,
    subject: str | None,
) -> Report:
    """Judge a function of arguments and directions at the cases of all settings, and report."""
    require_function(function)
    require_function(stated)
    require_at_least(1, "cases", cases)
    require_at_least(0, "seed", seed)
    name = subject or find_name(function)
    with use_own_settings():
        settings = read_settings(arguments, stated)
        every = [DirectionCalls(function, prepare(stated, each)) for each in settings]
        given = None if direction is None else read_direction(direction, settings[0])
        tests, found = cases * sum(map(count_tests, every)), list[Found]()
        lazy: tuple[Mistake, ...] = ()
        left_out: list[str] = []
        for number, calls in enumerate(every):
            along = prepare_cotangents(calls, given if number == 0 else None, seed)
            drawn = [*draw_cases(number, calls, along, cases + 1, seed)]
            for case in drawn[:cases]:
                here = compare_kernel(calls, case, tests, seed)
                if isinstance(here, Mistake) and here.details.get(OVERFLOW):
                    left_out.append(case.label)
                    continue
                if isinstance(here, Mistake):
                    return Report(name, Verdict.DISAGREES, (reword(here),), cases=len(found))
                found.append(here)
            if not found:
                continue
            question = prepare_question(calls, found[-1], drawn[-1])
            if question is not None and not lazy:
                lazy = tuple(map(reword, find_lazy_answer(question, OF_MEMORY)))
        if not found:
            return Report(name, Verdict.INCONCLUSIVE, notes=describe_overflow(left_out))
        report = make_report(name, every, found, tests)
    if lazy:
        return report._replace(verdict=Verdict.DISAGREES, mistakes=(*lazy, *report.mistakes))
    return report


def reword(mistake: Mistake) -> Mistake:
    """Speak of results where the judge of pull-backs speaks of gradients."""
    said = mistake.explanation.replace("the gradient for tangent", "the tangent")
    return mistake._replace(explanation=said.replace("the gradient for R", "R"))


def read_direction(direction: Any, arguments: Arguments) -> dict[str, Array]:
    """Read a direction by name. Raises ValueError unless it has the arguments' structure."""
    read = attempt(arguments.read, direction)
    if isinstance(read, Failure):
        said = "the structure and shapes of the arguments"
        raise ValueError(f"direction: expected {said}, with arrays of floats in their places")
    found: dict[str, Array] = read
    return found


def make_report(
    name: str, every: Sequence[DirectionCalls], found: Sequence[Found], tests: int
) -> Report:
    """Report the worst entry of each result, what would have been seen, and what is wrong."""
    parameters = summarise(found)
    verdict = overall(each.verdict for each in parameters.values())
    right, wrong = ([each for each in found if bool(each.wrong) == case] for case in (False, True))
    notes = [describe_resolution(right).replace("gradient", "result")] if right else []
    zeros = ", ".join(map(find_symbol, find_zeros(found)))
    notes += [f"Zero, to rounding, in all cases: {zeros}; yours must be, too."] if zeros else []
    report = Report(name, verdict, (), None, parameters)
    report = report._replace(cases=len(found), notes=tuple(notes))
    if verdict is not Verdict.DISAGREES:
        return report
    return report._replace(mistakes=explain(every[wrong[0].case.setting], wrong, tests))


def explain(calls: DirectionCalls, wrong: Sequence[Found], tests: int) -> tuple[Mistake, ...]:
    """Name what is wrong with each result, or that it is not linear, and where it is wrong."""
    case, names = wrong[0].case, list(dict.fromkeys(n for each in wrong for n in each.wrong))
    once, twice = (
        calls.ask(case.point, {n: factor * v for n, v in case.cotangents.items()})
        for factor in (1, 2)
    )
    if isinstance(once, dict) and isinstance(twice, dict) and not all(
        np.allclose(twice[n].astype(float), 2 * once[n].astype(float), rtol=LINEAR, atol=0)
        for n in once
    ):  # fmt: skip
        said = f"{join(names)}: twice the direction does not give twice the result."
        return (Mistake("not-linear-in-direction", said, {"results": names}),)
    moving = list_wrong_directions(calls, case, tests)
    where = f" where {' or '.join(moving)} moves" if 0 < len(moving) < len(case.cotangents) else ""
    mistakes: dict[tuple[str, str], list[str]] = {}
    for name in names:
        cases = [each for each in wrong if name in each.wrong]
        mistakes.setdefault(name_gradient(name, cases, calls.arguments.data), []).append(name)
    return tuple(
        Mistake(kind, f"in {join(alike)}, {said}{where}.", {"results": alike, "moving": moving})
        for (kind, said), alike in mistakes.items()
    )


def list_wrong_directions(calls: DirectionCalls, case: KernelCase, tests: int) -> list[str]:
    """List the arguments whose direction alone gives wrong results."""
    moving = []
    for name in case.cotangents:
        alone = {n: v if n == name else np.zeros_like(v) for n, v in case.cotangents.items()}
        here = compare_kernel(calls, case._replace(cotangents=alone), tests, 0)
        moving += [name] if isinstance(here, Mistake) or here.wrong else []
    return moving


def join(names: Sequence[str]) -> str:
    """Join the symbols of results."""
    return ", ".join(map(find_symbol, names))
