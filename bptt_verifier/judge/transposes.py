"""Entry points: the transpose test of a forward mode and a pull-back, without a reference.

⟨J v, w⟩ = ⟨v, Jᵀ w⟩ for v in one argument and w at one output: docs/derivation.md, section 18.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Unpack

import numpy as np

from bptt_verifier.judge.conclusion import summarise_parameters
from bptt_verifier.judge.directions import DirectionCalls
from bptt_verifier.judge.judgement import count_compared, find_largest_shapes
from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_cases import KernelCase, draw_neighbours
from bptt_verifier.judge.kernel_comparisons import RESOLVED, ask_each
from bptt_verifier.judge.kernel_path import CASES, require_settings
from bptt_verifier.judge.options import KernelOptions
from bptt_verifier.judge.verify import add_origin, find_name, require_agreement
from bptt_verifier.problems.kernel_draws import draw_cotangents, draw_near
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.arguments import Arguments, read_outputs, read_settings
from bptt_verifier.program.attempt import use_own_settings
from bptt_verifier.report import Mistake, Report, write_count
from bptt_verifier.tolerance.comparison import Comparison, Verdict, overall
from bptt_verifier.tolerance.pairings import Pairing, measure_additivity, pair
from bptt_verifier.tolerance.scatter import IN_HALF

Blocks = dict[str, Pairing]


class Unstated(NamedTuple):
    """What is known of a function that is not stated: its arguments and its outputs' structure."""

    arguments: Arguments
    structure: Any

    @property
    def computed(self) -> dict[str, Any]:
        """The outputs by name."""
        return read_outputs(self.structure)

    @property
    def results(self) -> dict[str, Any]:
        """Arrays of the shapes of all tangents, by name."""
        return {f"tangent of {name}": value for name, value in self.computed.items()}


def verify_transpose(
    jvp: Callable[[Any, Any], Any],
    vjp: Callable[[Any, Any], Any],
    arguments: Any,
    *,
    cases: int = CASES,
    seed: int = 0,
    subject: str | None = None,
) -> Report:
    """Verify that `vjp(arguments, cotangents)` is the transpose of `jvp(arguments, direction)`.

    No function is stated: what both get wrong alike is not seen. `jvp` is that of `verify_jvp` and
    `vjp` the `backward` of `verify_vjp`; what is drawn and raised is the same as there. The report
    has a row for each argument and output.
    """
    require_settings({"jvp": jvp, "vjp": vjp}, cases, seed)
    name = subject or f"{find_name(jvp)} and {find_name(vjp)}"
    written = [find_name(jvp), find_name(vjp), "arguments"]
    with use_own_settings():
        every, called = list[Blocks](), list[dict[str, Array]]()
        for setting, given in enumerate(read_settings(arguments, jvp_like)):
            for number in range(cases):
                case = draw_case(given, setting, number, seed)
                called.append(case.point)
                found = pair_blocks(jvp, vjp, given, case, seed)
                if isinstance(found, Mistake):
                    stated = state_tried(every, called)
                    report = Report(name, Verdict.DISAGREES, (found,), **stated)
                    return add_origin(report, verify_transpose, written, {"cases": cases}, seed)
                every.append(found)
    report = report_blocks(name, every)
    stated = state_tried(every, called)
    report = report._replace(**stated | {"notes": (*stated["notes"], *report.notes)})
    return add_origin(report, verify_transpose, written, {"cases": cases}, seed)


def assert_transpose_verified(
    jvp: Callable[[Any, Any], Any],
    vjp: Callable[[Any, Any], Any],
    arguments: Any,
    **options: Unpack[KernelOptions],
) -> Report:
    """Return the report of `verify_transpose`. Raises DerivationError unless it agrees."""
    __tracebackhide__ = True
    return require_agreement(verify_transpose(jvp, vjp, arguments, **options))


def jvp_like(*arguments: Any) -> None:
    """Stand for the function that is not stated: its arguments have no names."""


def draw_case(given: Arguments, setting: int, number: int, seed: int) -> KernelCase:
    """Draw a point, the arguments given at first, and a direction.

    A function that is not stated cannot be asked what a number stands for: each may be −∞.
    """
    rng = np.random.default_rng([seed, setting, number])
    point = {n: draw_near(v, rng, excludes=True) if number else v for n, v in given.leaves.items()}
    direction = {n: draw_cotangents(v.shape, v.dtype, rng) for n, v in point.items()}
    return KernelCase(setting, number, point, direction, frozenset(point))


def pair_blocks(
    jvp: Any, vjp: Any, given: Arguments, case: KernelCase, seed: int
) -> Blocks | Mistake:
    """Compare the two sides in every block near a point, and further away where they differ."""
    pushing = DirectionCalls(jvp, Unstated(given, None))  # type: ignore[arg-type]
    structure = pushing.call_once(case.point, case.cotangents)
    if isinstance(structure, Mistake):
        return structure
    shapes: Any = Unstated(given, structure)
    pushing, pulling = DirectionCalls(jvp, shapes), KernelCalls(vjp, shapes)
    near = pair_at(pushing, pulling, case, case.distance, seed)
    if isinstance(near, Mistake) or case.distance == IN_HALF:
        return near
    if not any(each.wrong for each in near.values()):
        return near
    # Rounding in a coarser format inside is drawn anew only there.
    return pair_at(pushing, pulling, case, IN_HALF, seed)


def pair_at(
    pushing: DirectionCalls, pulling: KernelCalls, case: KernelCase, distance: float, seed: int
) -> Blocks | Mistake:
    """Compare the two sides in every block at the neighbours of a point."""
    whole = pushing.ask(case.point, case.cotangents)
    breach = find_breach([whole], case)
    if breach is not None:
        return breach
    assert isinstance(whole, dict)
    given = draw_aligned(whole, np.random.default_rng([seed, case.setting, case.number, 1]))
    noises: list[Any] = [
        measure_noise(calls, case._replace(cotangents=each))
        for calls, each in ((pushing, case.cotangents), (pulling, given))
    ]
    v = draw_neighbours(case, distance, seed)
    w = draw_neighbours(case._replace(cotangents=given), distance, seed)
    sides: list[dict[str, Any]] = [
        {n: ask_each(near._replace(cotangents=[keep(c, n) for c in near.cotangents]), calls.ask)
         for n in near.cotangents[0]}
        for calls, near in ((pushing, v), (pulling, w))
    ]  # fmt: skip
    breach = find_breach([*noises, *sides[0].values(), *sides[1].values()], case)
    if breach is not None:
        return breach
    (tangents, gradients), noise = sides, max(each["noise"] for each in noises)
    directions, cotangents = (
        {n: np.stack([c[n] for c in near.cotangents]) for n in near.cotangents[0]}
        for near in (v, w)
    )
    return {
        f"∂{y}/∂{x}": pair(
            (tangents[x][f"tangent of {y}"], w_y), (gradients[y][x], v_x), noise,
            len(directions) * len(cotangents),
        )
        for x, v_x in directions.items()
        for y, w_y in cotangents.items()
    }  # fmt: skip


def draw_aligned(tangents: Mapping[str, Array], rng: np.random.Generator) -> dict[str, Array]:
    """Draw cotangents with the signs of the tangents, by the names of the outputs."""
    drawn = {n: np.abs(draw_cotangents(t.shape, np.float64, rng)) for n, t in tangents.items()}
    return {
        n.removeprefix("tangent of "): np.where(t < 0, -drawn[n], drawn[n]).astype(t.dtype)
        for n, t in tangents.items()
    }


def find_breach(answers: Sequence[Any], case: KernelCase) -> Mistake | None:
    """Find an answer that is a breach of the contract, or holds numbers that are not finite."""
    for answer in answers:
        if isinstance(answer, Mistake):
            return answer
        if not all(np.isfinite(np.asarray(v, np.float64)).all() for v in answer.values()):
            said = f"expected finite numbers, found NaN or infinity, with {case.label}."
            return Mistake("not-finite", said, {})
    return None


def measure_noise(calls: KernelCalls, case: KernelCase) -> dict[str, float] | Mistake:
    """Measure the rounding noise of a linear function: in the sum of its values at two parts."""
    rng = np.random.default_rng(0)
    masks = {n: rng.integers(0, 2, v.shape).astype(bool) for n, v in case.cotangents.items()}
    parts = [
        {n: np.where(mask == kept, case.cotangents[n], 0).astype(case.cotangents[n].dtype)
         for n, mask in masks.items()}
        for kept in (True, False)
    ]  # fmt: skip
    answers: list[Any] = [calls.ask(case.point, each) for each in (case.cotangents, *parts)]
    return find_breach(answers, case) or {"noise": measure_additivity(*answers)}


def keep(arrays: Mapping[str, Array], name: str) -> dict[str, Array]:
    """Keep one array, and put zeros in the place of the others."""
    return {n: each if n == name else np.zeros_like(each) for n, each in arrays.items()}


def compare_blocks(every: Sequence[Blocks]) -> list[Comparison]:
    """Compare each block that is not zero on both sides."""
    pairings = [pairing for found in every for pairing in found.items()]
    sizes = dict.fromkeys(block for block, each in pairings if each.size)
    return [
        Comparison(
            block, each.difference / each.allowed, (), each.forward, each.backward, each.allowed,
            each.resolution,
        )
        for block, each in pairings
        if block in sizes
    ]  # fmt: skip


def state_tried(every: Sequence[Blocks], called: Sequence[Mapping[str, Array]]) -> dict[str, Any]:
    """State the cases, how many of them could tell, and the largest shapes of all calls."""
    telling = count_compared(compare_blocks(every), RESOLVED)
    return {
        "cases": len(every), "notes": (write_count(telling, len(every)),),
        "largest_sizes": find_largest_shapes(called),
    }  # fmt: skip


def report_blocks(name: str, every: Sequence[Blocks]) -> Report:
    """Report each block that is not zero on both sides."""
    parameters = summarise_parameters(compare_blocks(every), RESOLVED)
    verdict = overall(each.verdict for each in parameters.values())
    wrong_blocks = [n for n, each in parameters.items() if each.verdict is Verdict.DISAGREES]
    notes = (
        "“yours” is ⟨J v, w⟩ by the forward mode, “autodiff” is ⟨v, Jᵀ w⟩ by the pull-back. What "
        "both get wrong alike is not seen.",
    )
    mistakes: tuple[Mistake, ...] = ()
    if wrong_blocks:
        said = f"the forward mode and the pull-back disagree on {', '.join(wrong_blocks)}."
        mistakes = (Mistake("not-transposed", said, {"blocks": wrong_blocks}),)
    return Report(name, verdict, mistakes, None, parameters)._replace(cases=len(every), notes=notes)
