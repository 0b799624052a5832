"""Comparison of every built-in derivation with a reference, on random problems."""

from collections.abc import Callable, Sequence
from itertools import chain
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.judge.tally import Row, Tally
from bptt_verifier.problems.draws import draw, draw_direction, draw_with_options
from bptt_verifier.problems.problem import LARGEST, Problem, Sizes
from bptt_verifier.reference.autodiff import (
    measure_truth,
    start_reference,
    start_references,
)
from bptt_verifier.reference.tangents import tangent_truth
from bptt_verifier.tolerance.comparison import (
    Comparison,
    Verdict,
    compare_all,
    name_tangents,
    overall,
)
from jax_reference.padded import Capacity
from manual_bptt import gru, jacobian_sum, lstm, rnn, rtrl, tangents
from manual_bptt.inputs import require_at_least
from manual_bptt.tangents import Direction

Derivation = Callable[[Problem], dict[str, Any]]
TangentDerivation = Callable[[Problem, Direction], dict[str, Any]]


def make_derivation(module: ModuleType) -> Derivation:
    """Make a function of problems that returns everything a module computes, by name.

    It calls `gradients` of the module, which takes all options, or else `value_and_grad`.
    """
    everything = getattr(module, "gradients", None)

    def derivation(problem: Problem) -> dict[str, Any]:
        params, x, y, first = problem.params, problem.x, problem.y, problem.first
        if everything is None:
            value, gradients = module.value_and_grad(params, x, y, **problem.simple_options)
        else:
            value, gradients = everything(params, x, y, **first, **problem.options)
        found: dict[str, Any] = {"loss": value} | gradients._asdict()
        if hasattr(module, "predict"):
            batch = problem.option if everything is None else problem.batch
            found["prediction"] = module.predict(params, x, **first, **batch)
        return found

    return derivation


def derive_jvp(problem: Problem, direction: Direction) -> dict[str, Any]:
    """Return the tangent of the loss, by the sweep forward."""
    given = problem.params, direction, problem.x, problem.y
    return {"loss": tangents.jvp(*given, **problem.simple_options)[1]}


def derive_hvp(problem: Problem, direction: Direction) -> dict[str, Any]:
    """Return the tangent of every gradient, by the R operator, by name."""
    given = problem.params, direction, problem.x, problem.y
    return tangents.hvp(*given, **problem.simple_options)._asdict()


# Derivations of the plain RNN, within the derived bound, and of every cell, with all options.
DERIVATIONS: dict[str, Derivation] = {
    "adjoint recursion": make_derivation(rnn),
    "jacobian sum": make_derivation(jacobian_sum),
    "forward recursion": make_derivation(rtrl),
}
CELL_DERIVATIONS: dict[str, Derivation] = {
    "RNN": make_derivation(rnn),
    "LSTM": make_derivation(lstm),
    "GRU": make_derivation(gru),
}
TANGENT_DERIVATIONS: dict[str, TangentDerivation] = {
    "forward mode": derive_jvp,
    "Hessian-vector product": derive_hvp,
}
# The first 100 examples, and every fifth, add problems of cells and directions.
FIRST, THEN = 100, 5
TOGETHER = 64  # examples whose references are started together


class BuiltinReport(NamedTuple):
    """The comparisons of all built-in derivations, and the verdict on them together."""

    seed: int
    dtype: str
    examples: int
    rows: list[Row]
    by_loss: list[Row]
    shapes: list[Sizes]
    reference: str = "autodiff"

    @property
    def verdict(self) -> Verdict:
        """The verdict on all rows: one disagreement, or one inconclusive row, decides."""
        return overall(row.verdict for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "verdict": str(self.verdict),
            "seed": self.seed,
            "dtype": self.dtype,
            "oracle": self.reference,
            "examples": self.examples,
            "rows": [row.to_dict(self.reference) for row in self.rows],
            "by_loss": [row.to_dict(self.reference) for row in self.by_loss],
            "shapes": [sizes._asdict() for sizes in self.shapes],
        }


# Compares the results of a derivation, by name, at one problem.
Comparer = Callable[[dict[str, Any]], list[Comparison]]


class Yardstick(NamedTuple):
    """A reference, with comparisons within the derived bound and within the measured error.

    `prepare` is told the problems whose comparisons within the bound are next.
    """

    name: str
    within_bound: Callable[[Problem], Comparer]
    within_measured_error: Callable[[Problem], Comparer]
    largest: Capacity = LARGEST
    tangents: Callable[[Problem, Direction], Comparer] | None = None
    prepare: Callable[[Sequence[Problem]], object] = lambda problems: None


def compare_within_bound(problem: Problem) -> Comparer:
    """Compare with autodiff, within the derived bound."""
    known = start_reference(problem)
    values, allowed = known.values, known.derive_allowed(problem.x.dtype)
    return lambda found: compare_all(found, values, allowed)


def compare_within_measured_error(problem: Problem) -> Comparer:
    """Compare with autodiff, within the measured error and what underflow takes."""
    values, allowed = measure_truth(problem, problem.x.dtype)
    return lambda found: compare_all(found, values, allowed)


def compare_tangents(problem: Problem, direction: Direction) -> Comparer:
    """Compare tangents with autodiff's, within the derived bound."""
    values, allowed = (name_tangents(each) for each in tangent_truth(problem, direction))
    return lambda found: compare_all(name_tangents(found), values, allowed)


AUTODIFF = Yardstick(
    "autodiff", compare_within_bound, compare_within_measured_error,
    tangents=compare_tangents, prepare=start_references,
)  # fmt: skip


def verify_builtin(
    examples: int = 200,
    *,
    seed: int = 0,
    dtype: Any = np.float64,
    derivations: dict[str, Derivation] = DERIVATIONS,
    cell_derivations: dict[str, Derivation] = CELL_DERIVATIONS,
    tangent_derivations: dict[str, TangentDerivation] = TANGENT_DERIVATIONS,
    yardstick: Yardstick = AUTODIFF,
    progress: Callable[[int], None] = lambda done: None,
) -> BuiltinReport:
    """Compare every derivation with the reference on `examples` random problems.

    Each example is a problem of the plain RNN, which all `derivations` solve within the derived
    bound. The first hundred, and then every fifth, are also a problem of a cell in turn, with any
    loss, lengths, outputs and truncation, which that cell of `cell_derivations` solves within the
    error measured; and the problem of the plain RNN gets a random direction, along which all
    `tangent_derivations` move it, within the derived bound, if the yardstick knows tangents.
    The reference is the `yardstick`'s, at exactly the same inputs: by default autodiff's, in
    float64. `dtype` is the derivations'. `progress` is called with the number of problems done.
    Raises TypeError or ValueError where `examples` is no integer from 1, or `seed` none from 0.
    """
    require_at_least(1, "examples", examples)
    require_at_least(0, "seed", seed)
    subjects = Subjects(derivations, cell_derivations, tangent_derivations, yardstick)
    tally = Tally()
    compare_cases(range(examples), seed, dtype, subjects, tally, progress)
    return make_report(tally, seed, dtype, subjects)


class Subjects(NamedTuple):
    """The derivations that are compared, and with what."""

    derivations: dict[str, Derivation]
    cell_derivations: dict[str, Derivation]
    tangent_derivations: dict[str, TangentDerivation]
    yardstick: Yardstick


def compare_cases(
    cases: range,
    seed: int,
    dtype: Any,
    subjects: Subjects,
    tally: Tally,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Compare every derivation with the reference on examples of `verify_builtin`."""
    for start in range(0, len(cases), TOGETHER):
        part = cases[start : start + TOGETHER]
        problems = [draw(seed, case, dtype, subjects.yardstick.largest) for case in part]
        if subjects.derivations:
            subjects.yardstick.prepare(problems)
        for case, problem in zip(part, problems, strict=True):
            compare_case(case, problem, seed, dtype, subjects, tally)
            progress(case + 1)


def compare_case(
    case: int, problem: Problem, seed: int, dtype: Any, subjects: Subjects, tally: Tally
) -> None:
    """Compare every derivation with the reference on one example, whose first problem this is."""
    derivations, cell_derivations, tangent_derivations, yardstick = subjects

    def compare(
        problem: Problem, chosen: dict[str, Any], comparer: Comparer, *also: Direction
    ) -> None:
        for name, derivation in chosen.items():
            for found in comparer(derivation(problem, *also)):
                tally.add(name, case, problem, found)

    tally.count(case, problem.sizes)
    if derivations:
        compare(problem, derivations, yardstick.within_bound(problem))
    if case < FIRST or case % THEN == 0:
        if tangent_derivations and yardstick.tangents is not None:
            along = draw_direction(seed, case, problem)
            compare(problem, tangent_derivations, yardstick.tangents(problem, along), along)
        problem = draw_with_options(seed, case, dtype, yardstick.largest)
        cell = problem.cell.upper()
        chosen = {n: d for n, d in cell_derivations.items() if n.partition(",")[0] == cell}
        if chosen:
            compare(problem, chosen, yardstick.within_measured_error(problem))


def make_report(tally: Tally, seed: int, dtype: Any, subjects: Subjects) -> BuiltinReport:
    """Make the report of a tally, the same whoever compared its examples, and in which order."""
    compared = subjects.derivations, subjects.cell_derivations, subjects.tangent_derivations
    rows = list(tally.list_rows(chain(*compared)))
    by_loss = [each for row in rows for each in tally.list_losses(row.derivation, row.gradient)]
    shapes = [tally.shapes[case] for case in sorted(tally.shapes)]
    name = subjects.yardstick.name
    return BuiltinReport(seed, str(np.dtype(dtype)), tally.cases, rows, by_loss, shapes, name)
