"""Entry points: verify a kernel's forward mode, and its Hessian-vector products.

The judge of `vjp`, with directions of the arguments in the place of cotangents of the outputs.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Unpack

import jax
import numpy as np

from bptt_verifier.judge.curvature_penalties import find_penalty
from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_cases import (
    KernelCase,
)
from bptt_verifier.judge.kernel_comparisons import Found, compare_kernel
from bptt_verifier.judge.kernel_diagnosis import name_gradient, separate_cases
from bptt_verifier.judge.kernel_memory import OF_MEMORY
from bptt_verifier.judge.kernel_path import CASES, KernelJudgement, find_zeros, require_settings
from bptt_verifier.judge.kernel_precision import describe_resolution
from bptt_verifier.judge.options import DirectionOptions
from bptt_verifier.judge.verify import add_origin, find_name, require_agreement
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.arguments import (
    Arguments,
    convert_to_numpy,
    read_outputs,
    read_settings,
)
from bptt_verifier.program.attempt import USERS, Failure, attempt, use_own_settings
from bptt_verifier.program.torch_modules import make_stated
from bptt_verifier.program.trees import has_mapping
from bptt_verifier.reference.pushforwards import (
    Curvature,
    Pushforward,
    prepare_curvature,
    prepare_pushforward,
)
from bptt_verifier.report import Mistake, Report
from bptt_verifier.tolerance.comparison import find_symbol, name_tangents

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
    if len(found) == len(outputs) and not has_mapping(result):  # in the order of the outputs
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


class DirectionJudgement(KernelJudgement):
    """The judgement of a function of arguments and directions."""

    questions = OF_MEMORY

    def describe(self) -> Iterator[str]:
        """Describe what would have been seen, and results of zeros."""
        right = [each for each in self.found if not each.wrong]
        if right:
            yield describe_resolution(right).replace("gradient", "result")
        zeros = ", ".join(map(find_symbol, find_zeros(self.found)))
        if zeros:
            yield f"Zero, to rounding, in all cases: {zeros}; yours must be, too."

    def explain(self) -> tuple[Mistake, ...]:
        """Name what is wrong with each result, and where it is wrong."""
        return explain(self.every, self.found, self.tests)

    def reword(self, mistake: Mistake) -> Mistake:
        """Speak of results where the judge of pull-backs speaks of gradients."""
        said = mistake.explanation.replace("the gradient for tangent", "the tangent")
        return mistake._replace(explanation=said.replace("the gradient for R", "R"))


class PushforwardJudgement(DirectionJudgement):
    """The judgement of a push-forward."""

    call = "verify_jvp(jvp, forward, arguments"


class CurvatureJudgement(DirectionJudgement):
    """The judgement of a Hessian-vector product."""

    call = "verify_hvp(hvp, loss, arguments"


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
    report = verify_along(jvp, forward, prepare_pushforward, PushforwardJudgement, *every)
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
    report = verify_along(hvp, loss, prepare_curvature, CurvatureJudgement, *every)
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
    judgement: type[DirectionJudgement],
    arguments: Any,
    direction: Any,
    cases: int,
    seed: int,
    subject: str | None,
) -> Report:
    """Judge a function of arguments and directions at the cases of all settings, and report."""
    own, of = ("hvp", "loss") if judgement is CurvatureJudgement else ("jvp", "forward")
    require_settings({own: function, of: stated}, cases, seed)
    name = subject or find_name(function)
    with use_own_settings():
        stated = make_stated(stated, arguments)
        settings = read_settings(arguments, stated)
        every = [DirectionCalls(function, prepare(stated, each)) for each in settings]
        given = None if direction is None else read_direction(direction, settings[0])
        return judgement(name, every, given, cases, seed).judge()


def read_direction(direction: Any, arguments: Arguments) -> dict[str, Array]:
    """Read a direction by name. Raises ValueError unless it has the arguments' structure."""
    read = attempt(arguments.read, direction)
    if isinstance(read, Failure):
        said = "the structure and shapes of the arguments"
        raise ValueError(f"direction: expected {said}, with arrays of floats in their places")
    found: dict[str, Array] = read
    return found


def explain(
    every: Sequence[KernelCalls], found: Sequence[Found], tests: int
) -> tuple[Mistake, ...]:
    """Name what is wrong with each result, or that it is not linear, and where it is wrong."""
    wrong = [each for each in found if each.wrong]
    calls = every[wrong[0].case.setting]
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
        known = separate_cases(name, found)
        penalty = None
        if isinstance(calls.pullback, Curvature):
            penalty = find_penalty(name, [each for each in wrong if name in each.wrong], every)
        mistakes.setdefault(penalty or name_gradient(name, known, every), []).append(name)
    return tuple(
        Mistake(kind, f"in {join(alike)}, {said}{where}.", {"results": alike, "moving": moving})
        for (kind, said), alike in mistakes.items()
    )


def list_wrong_directions(calls: KernelCalls, case: KernelCase, tests: int) -> list[str]:
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
