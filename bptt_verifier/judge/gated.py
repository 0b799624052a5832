"""A derivation of the project's LSTM or GRU, judged as a model whose loss is known.

What the plain RNN's judge does with a table of its mistakes, the judge of one's own model does with
any forward pass; here it reads `stated_cells`. A few problems whose sizes differ, then one long
sequence of one-hot inputs, where column t of ∂L/∂U is δ_t, of all gates.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, wraps
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.judge.own_model import (
    SIMPLE,
    answered,
    compared,
    judged,
    not_finite,
    roundoff,
    simple_case,
    simplest,
)
from bptt_verifier.judge.steps import step_results, steps_of
from bptt_verifier.judge.submission import (
    NAMES,
    WEIGHTS,
    Broken,
    broken,
    by_name,
    call_with,
    states_taken,
)
from bptt_verifier.mistakes.gated_diagnosis import Witness, diagnose
from bptt_verifier.problems.problem import CELLS, Sizes, Variant, read_only
from bptt_verifier.reference import stated_cells
from bptt_verifier.reference.exact_values import Case, decided
from bptt_verifier.reference.own_loss import Case as OwnCase
from bptt_verifier.reference.own_loss import Oracle, copies, prepared
from bptt_verifier.report.report import (
    Counterexample,
    Mistake,
    ParameterResult,
    Report,
    StepResult,
    nine_digits,
)
from bptt_verifier.tolerance.comparison import Array, Verdict, coarsest
from jax_reference import padded
from jax_reference.padded import Capacity
from manual_bptt import gru, lstm

GATES = {"lstm": lstm.GATES, "gru": gru.GATES}
RESETS = gru.RESETS
HELD = frozenset({"adjoints"})  # at zero: ∂L/∂a_t is the derivative with respect to these
# Each size is one somewhere, and equals its neighbours somewhere.
ORDINARY = (
    Sizes(T=6, B=3, D=4, H=5, O=2),
    Sizes(T=1, B=3, D=2, H=4, O=2),
    Sizes(T=5, B=3, D=1, H=2, O=1),
    Sizes(T=3, B=2, D=2, H=1, O=2),
    Sizes(T=4, B=1, D=3, H=3, O=3),
)
PROBE = Sizes(T=30, B=1, D=30, H=3, O=2)
# Where a failing case is looked for that is small enough to read.
SMALL = (
    *(Sizes(T=T, B=1, D=1, H=1, O=1) for T in (1, 2, 3)),
    Sizes(T=2, B=2, D=1, H=1, O=1),
    *(Sizes(T=T, B=1, D=1, H=2, O=1) for T in (1, 2)),
    Sizes(T=2, B=1, D=2, H=2, O=2),
)
CAPACITY = Capacity(*map(max, *ORDINARY, PROBE, *SMALL))
WITNESSES = 3  # of each size, that a named mistake must reproduce; one of them is in float32
POINTS = {ORDINARY[0]: 12, **dict.fromkeys(ORDINARY[1:], 3), PROBE: 6}  # cases of each


class Cell(NamedTuple):
    """The stated model: which forward pass and loss are claimed to be differentiated."""

    name: str
    loss: str
    bias: bool
    reset: str
    states: tuple[str, ...]  # those of h0 and c0 that the derivation takes

    @property
    def weights(self) -> tuple[str, ...]:
        """The names of the parameters, in the order that a derivation gets them."""
        count = 3 if not self.bias else 6 if self.name == "gru" else 5
        return NAMES[:count]

    def packed(self, p: Mapping[str, Array]) -> Any:
        """The parameters as a derivation gets them."""
        return WEIGHTS[len(self.weights)](*(p[name] for name in self.weights))

    def shapes(self, sizes: Sizes) -> dict[str, tuple[int, ...]]:
        """The shapes of everything that the loss depends on."""
        T, B, D, H, O = sizes
        G = GATES[self.name]
        shapes: dict[str, tuple[int, ...]] = {
            "U": (G * H, D), "W": (G * H, H), "V": (O, H), "b": (G * H,), "c": (O,), "b_n": (H,),
            "x": (T, B, D), "h0": (B, H), "c0": (B, H), "adjoints": (T, B, G * H),
        }  # fmt: skip
        return {name: shapes[name] for name in (*self.weights, "x", *self.states, *HELD)}


class Setting(NamedTuple):
    """One choice of sizes with its sequences; `given` are also the first values of the weights.

    `asked` are the names that are differentiated with respect to; the others are constants.
    """

    cell: Cell
    sizes: Sizes
    given: dict[str, Array]
    y: Array
    asked: tuple[str, ...]

    def loss(self, p: dict[str, Any], xp: Any) -> Any:
        """L of the stated model."""
        cell = self.cell
        zero = np.zeros((self.sizes.B, self.sizes.H))
        x, h0, c0 = (p.get(n, self.given.get(n, zero)) for n in ("x", "h0", "c0"))
        if cell.name == "lstm":
            h = stated_cells.lstm(p, x, h0, c0, xp)
        else:
            h = stated_cells.gru(p, x, h0, cell.reset, xp)
        return stated_cells.loss_of(p, h, self.y, cell.loss, xp)

    def arguments(self, p: Mapping[str, Array]) -> list[Array]:
        """Fresh copies of what a derivation is given after its parameters, in their precision."""
        dtype = p["U"].dtype
        values = [p.get("x", self.given["x"]), self.y]
        values += [p.get(state, self.given[state]) for state in self.cell.states]
        return [np.array(value, dtype) for value in values]

    def problem(self, p: Mapping[str, Array]) -> Variant:
        """The same as a point of the cell with its options."""
        cell = self.cell
        x, y, *first = self.arguments(p)
        params = CELLS[cell.name].Params(**{name: p[name] for name in cell.weights})
        option = {"reset": cell.reset} if cell.name == "gru" else {}
        states = dict(zip(cell.states, first, strict=True))
        return Variant(cell.name, params, x, y, states, option, cell.loss)

    def by_autodiff(self, p: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
        """The loss and its gradient by the second witness, which compiles once for all sizes."""
        at = self.problem(p)
        given: dict[str, Any] = at.first | at.options
        found = padded.derivatives(at.params, at.x, at.y, cell=at.cell, capacity=CAPACITY, **given)
        return found.loss, {name: getattr(found, name) for name in p}


def setting(cell: Cell, sizes: Sizes, seed: int, asked: tuple[str, ...] = ()) -> Setting:
    """Random values that are exact in float32, so that both precisions solve the same problem.

    Of a small problem, with one digit, none of them zero.
    """
    rng = np.random.default_rng([seed, *sizes, 5])

    def normal(*shape: int) -> Array:
        values = rng.normal(size=shape)
        if sizes in SMALL:
            return np.round(values + 0.05 * np.sign(values), 1)
        return values.astype(np.float32).astype(np.float64)

    given = {name: normal(*shape) for name, shape in cell.shapes(sizes).items()}
    given |= {name: np.zeros_like(given[name]) for name in HELD}
    if sizes == PROBE:
        given["x"] = np.eye(sizes.T)[:, None, :]
        asked = tuple(name for name in asked if name != "x")
    return Setting(cell, sizes, given, normal(sizes.B, sizes.O), asked)


def of_their_own(gradients: Callable[..., Any], at: Setting) -> Callable[[dict[str, Array]], Any]:
    """Their gradients as a function of the parameters alone, by name."""
    cell = at.cell

    @wraps(gradients)
    def by_parameters(p: dict[str, Array]) -> Any:
        result = gradients(cell.packed(p), *at.arguments(p))
        found = by_name(result, cell.weights)
        return {} if isinstance(found, Broken) else found

    return by_parameters


def contract(gradients: Callable[..., Any], at: Setting) -> tuple[str, ...] | Broken:
    """The names that they differentiate with respect to; or what is broken at the first call."""
    cell = at.cell
    given, kept = at.arguments(at.given), at.arguments(at.given)
    try:
        result = gradients(cell.packed(copies(at.given)), *given)
    except (Exception, SystemExit):  # the judge of one's own model says where
        return cell.weights
    found = by_name(result, cell.weights)
    if isinstance(found, Broken):
        return found
    for name, now, before in zip(("x", "y", *cell.states), given, kept, strict=True):
        if now.shape != before.shape or not np.array_equal(now, before):
            return broken(
                "inputs-modified",
                f"your function modified its argument {name}; the caller's arrays must stay as "
                "they are.",
                argument=name,
            )
    return tuple(name for name in at.given if name in found)


@lru_cache(maxsize=8 * (len(POINTS) + len(SMALL)))
def oracle_of(cell: Cell, sizes: Sizes, seed: int, asked: tuple[str, ...]) -> Oracle:
    """What is true of one setting: the same for every derivation, and a second's work."""
    at = setting(cell, sizes, seed, asked)
    given = {name: at.given[name] for name in at.asked}
    oracle = prepared(
        at.loss,
        given,
        seed=seed,
        cases=POINTS.get(sizes, 1),
        held=HELD,
        reference=at.by_autodiff,
    )
    read_only((oracle.params, oracle.cases))
    return oracle


@lru_cache(maxsize=8 * SIMPLE * len(SMALL))
def small_case_of(
    cell: Cell, sizes: Sizes, seed: int, asked: tuple[str, ...], number: int
) -> OwnCase:
    """One with values of one digit: as often asked for as what is true of a setting."""
    return read_only(simple_case(oracle_of(cell, sizes, seed, asked), number))


def verify_cell(
    gradients: Callable[..., Any],
    name: str,
    *,
    loss: str = "mse",
    bias: bool = False,
    reset: str = "after",
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    subject: str = "your derivation",
) -> Report:
    """The verdict on `gradients(params, x, y[, h0[, c0]])` of the LSTM or GRU: `judge.verify`."""
    states = states_taken(gradients, ("h0", "c0") if name == "lstm" else ("h0",))
    gradients = states.in_order_for(gradients)
    cell = Cell(name, loss, bias, reset, states.all)
    asked = contract(gradients, setting(cell, ORDINARY[0], seed))
    if isinstance(asked, Broken):
        return Report(subject, Verdict.DISAGREES, (asked.mistake,), notes=asked.notes)
    total, done = sum(POINTS.values()), 0
    reports = []

    def named() -> tuple[tuple[Mistake, ...], Counterexample | None]:
        mistakes = diagnose([*witnesses(gradients, cell, seed, asked)])
        return mistakes, smallest_failing(gradients, cell, seed, asked, states.by_name)

    for sizes, points in POINTS.items():
        oracle = oracle_of(cell, sizes, seed, asked)
        theirs = of_their_own(gradients, setting(cell, sizes, seed, asked))
        report = judged(theirs, oracle, named, subject=subject)
        done += points
        progress(done, total)
        reports.append(report)
        if report.verdict is Verdict.DISAGREES:
            break
    return concluded(gradients, cell, seed, asked, reports, sizes)


def concluded(
    gradients: Callable[..., Any],
    cell: Cell,
    seed: int,
    asked: tuple[str, ...],
    reports: list[Report],
    last: Sizes,
) -> Report:
    """One report on all settings: the last one's mistake, if any, and the single steps."""
    report = reports[-1]
    wrong = report.verdict is Verdict.DISAGREES
    notes = (*report.notes, f"Found with {last}.") if wrong else ()
    if wrong and not report.parameters:
        return report._replace(notes=notes)
    of_probe = of_their_own(gradients, setting(cell, PROBE, seed, asked))
    steps = single_steps(of_probe, oracle_of(cell, PROBE, seed, asked))
    first = max((s.t for s in steps if s.verdict is Verdict.DISAGREES), default=None)
    if wrong:
        shown = report.counterexample
        if shown is not None and "y" not in shown.arrays:  # no small problem fails
            again = f"{cell.name!r}, loss={cell.loss!r}, bias={cell.bias}, reset={cell.reset!r}"
            call = (
                f"from bptt_verifier import verify; verify(gradients, model={again}, seed={seed})"
            )
            report = report._replace(counterexample=shown._replace(reproduce=call))
        return report._replace(
            steps=steps,
            first_wrong_step=first,
            notes=notes,
            cases=sum(each.cases for each in reports),
        )
    parameters: dict[str, ParameterResult] = {}
    for each in reports:
        for name, result in each.parameters.items():
            parameters[name] = merged(parameters[name], result) if name in parameters else result
    verdicts = {result.verdict for result in parameters.values()}
    verdict = Verdict.AGREES if verdicts == {Verdict.AGREES} else Verdict.INCONCLUSIVE
    report = report._replace(
        verdict=verdict,
        parameters=parameters,
        steps=steps,
        cases=sum(each.cases for each in reports),
        notes=() if verdict is Verdict.AGREES else report.notes,
    )
    if verdict is Verdict.AGREES:
        return report
    return decided(report, asked_again(gradients, cell, seed, asked))


def asked_again(
    gradients: Callable[..., Any], cell: Cell, seed: int, asked: tuple[str, ...]
) -> Iterator[Case]:
    """What they give at the first point of every size, the small ones first, then at the next."""
    for number, sizes in product(range(min(POINTS.values())), reversed(ORDINARY)):
        at = setting(cell, sizes, seed, asked)
        for case in oracle_of(cell, sizes, seed, asked).cases[number : number + 1]:
            answer = answered(of_their_own(gradients, at), case.params)
            if isinstance(answer, dict):
                yours = {name: answer[name] for name in asked}
                dtype = coarsest(*yours.values(), *case.params.values())
                yield Case(at.problem(case.params), yours, dtype)


def witnesses(
    gradients: Callable[..., Any], cell: Cell, seed: int, asked: tuple[str, ...]
) -> Iterator[Witness]:
    """What they give at the first points of every size, beside what autodiff gives there."""
    for sizes in POINTS:
        at = setting(cell, sizes, seed, asked)
        for case in oracle_of(cell, sizes, seed, asked).cases[:WITNESSES]:
            answer = answered(of_their_own(gradients, at), case.params)
            if isinstance(answer, dict) and not not_finite(answer, case):
                yours = {name: answer[name] for name in at.asked}
                found = compared(yours, case).values()
                yield Witness(
                    at.problem(case.params),
                    yours,
                    case.reference,
                    {name: roundoff(case, name, value)[0] for name, value in yours.items()},
                    any(each.verdict is Verdict.DISAGREES for each in found),
                )


def smallest_failing(
    gradients: Callable[..., Any],
    cell: Cell,
    seed: int,
    asked: tuple[str, ...],
    by_name: tuple[str, ...],
) -> Counterexample | None:
    """A small case that fails, with values of one digit; None where no small one does.

    `by_name` are the states that the derivation takes as keywords.
    """
    for sizes in SMALL:
        at = setting(cell, sizes, seed, asked)
        cases = (small_case_of(cell, sizes, seed, asked, number) for number in range(SIMPLE))
        found = simplest(of_their_own(gradients, at), cases)
        if found is None:
            continue
        case, answer = found
        results = compared(answer, case)
        worst = max(results, key=lambda name: results[name].error)
        yours, known = answer[worst], case.reference[worst]
        allowed, _ = roundoff(case, worst, yours)
        params = {name: case.params[name] for name in cell.weights}
        names = ("x", "y", *cell.states)
        arrays = params | dict(zip(names, at.arguments(case.params), strict=True))
        return Counterexample(
            sizes=f"{sizes}, {cell.name}, {cell.loss}, {known.dtype}",
            arrays={name: value.tolist() for name, value in arrays.items()},
            gradient=worst,
            yours=nine_digits(yours).tolist(),
            autodiff=nine_digits(known).tolist(),
            error_over_bound=(np.abs(yours - known) / allowed).tolist(),
            reproduce=call_with(arrays, by_name),
        )
    return None


def merged(one: ParameterResult, other: ParameterResult) -> ParameterResult:
    """The worse of two results that do not disagree; evidence in one of them is evidence."""
    worse = max(one, other, key=lambda result: result.error)
    agrees = Verdict.AGREES in (one.verdict, other.verdict)
    return worse._replace(
        verdict=Verdict.AGREES if agrees else Verdict.INCONCLUSIVE, cases=one.cases + other.cases
    )


def single_steps(
    gradients: Callable[[dict[str, Array]], Any], oracle: Oracle
) -> tuple[StepResult, ...]:
    """Every δ_t over all cases; empty where they break their contract on a long sequence."""
    found = []
    for case in oracle.cases:
        answer = answered(gradients, case.params)
        if isinstance(answer, Mistake):
            return ()
        bound, _ = roundoff(case, "U", answer["U"])
        found.append(steps_of(answer["U"], case.reference["U"].T, bound.T))
    return step_results(found) if found else ()
