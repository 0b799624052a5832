"""Comparison of every built-in derivation with a reference, on random problems."""

from collections.abc import Callable, Iterable
from itertools import chain, product
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.draws import draw, draw_direction, draw_with_options
from bptt_verifier.problems.problem import ALL_LOSSES, LARGEST, Problem, Sizes
from bptt_verifier.reference.autodiff import (
    COMPARED,
    derive_bound,
    measure_truth,
    name_arrays,
    reference,
)
from bptt_verifier.reference.tangents import tangent_truth
from bptt_verifier.tolerance.comparison import (
    Comparison,
    Verdict,
    compare_all,
    name_tangents,
    overall,
    verdict_of,
    worst_of,
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


class ComparedCase(NamedTuple):
    """One gradient of one derivation at one problem."""

    case: int
    problem: Problem
    comparison: Comparison


class Row(NamedTuple):
    """One gradient of one derivation, over all problems, or over those with one loss."""

    derivation: str
    gradient: str
    compared: tuple[ComparedCase, ...]
    loss: str | None = None

    @property
    def comparisons(self) -> list[Comparison]:
        """The comparisons of all problems."""
        return [each.comparison for each in self.compared]

    @property
    def verdict(self) -> Verdict:
        """Disagrees if any case does; agrees if none does and at least one could have."""
        return verdict_of(self.comparisons)

    @property
    def worst(self) -> ComparedCase:
        """The problem with the largest error."""
        worst = worst_of(self.comparisons)
        return next(each for each in self.compared if each.comparison is worst)

    @property
    def largest(self) -> Sizes:
        """The sizes of the largest problem."""
        return max((each.problem.sizes for each in self.compared), key=np.prod)

    def to_dict(self, reference: str) -> dict[str, Any]:
        """Plain values, for JSON; `reference` names the reference."""
        case, _, worst = self.worst
        return {
            "derivation": self.derivation,
            "gradient": self.gradient,
            **({} if self.loss is None else {"loss": self.loss}),
            "verdict": str(self.verdict),
            "cases": len(self.compared),
            "conclusive_cases": sum(found.conclusive for found in self.comparisons),
            "worst_error_over_bound": worst.error,
            "worst": {
                "case": case,
                "entry": list(worst.entry),
                "by_hand": worst.yours,
                reference: worst.reference,
                "bound": worst.allowed,
            },
            "largest_shape": self.largest._asdict(),
        }


class BuiltinReport(NamedTuple):
    """The comparisons of all built-in derivations, and the verdict on them together."""

    seed: int
    dtype: str
    rows: list[Row]
    shapes: list[Sizes]
    by_loss: list[Row]
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
            "examples": len(self.shapes),
            "rows": [row.to_dict(self.reference) for row in self.rows],
            "by_loss": [row.to_dict(self.reference) for row in self.by_loss],
            "shapes": [sizes._asdict() for sizes in self.shapes],
        }


# Compares the results of a derivation, by name, at one problem.
Comparer = Callable[[dict[str, Any]], list[Comparison]]


class Yardstick(NamedTuple):
    """A reference, with comparisons within the derived bound and within the measured error."""

    name: str
    within_bound: Callable[[Problem], Comparer]
    within_measured_error: Callable[[Problem], Comparer]
    largest: Capacity = LARGEST
    tangents: Callable[[Problem, Direction], Comparer] | None = None


def compare_within_bound(problem: Problem) -> Comparer:
    """Compare with autodiff, within the derived bound."""
    known = reference(problem)
    values, allowed = name_arrays(known), name_arrays(derive_bound(problem, known))
    return lambda found: compare_all(found, values, allowed)


def compare_within_measured_error(problem: Problem) -> Comparer:
    """Compare with autodiff, within the measured error and what underflow takes."""
    values, allowed = measure_truth(problem, problem.x.dtype)
    return lambda found: compare_all(found, values, allowed)


def compare_tangents(problem: Problem, direction: Direction) -> Comparer:
    """Compare tangents with autodiff's, within the derived bound."""
    known = [name_tangents(each) for each in tangent_truth(problem, direction)]
    return lambda found: compare_all(name_tangents(found), *known)


AUTODIFF = Yardstick(
    "autodiff", compare_within_bound, compare_within_measured_error, tangents=compare_tangents
)


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
    found = []
    for case in range(examples):
        found.append(compare_case(case, seed, dtype, subjects))
        progress(case + 1)
    return make_report(found, seed, dtype, subjects)


class Subjects(NamedTuple):
    """The derivations that are compared, and with what."""

    derivations: dict[str, Derivation]
    cell_derivations: dict[str, Derivation]
    tangent_derivations: dict[str, TangentDerivation]
    yardstick: Yardstick


class CaseFindings(NamedTuple):
    """What was found in one example: its sizes, and every comparison by derivation."""

    case: int
    sizes: Sizes
    compared: list[tuple[str, ComparedCase]]


def compare_case(case: int, seed: int, dtype: Any, subjects: Subjects) -> CaseFindings:
    """Compare every derivation with the reference on one example of `verify_builtin`."""
    compared: list[tuple[str, ComparedCase]] = []
    derivations, cell_derivations, tangent_derivations, yardstick = subjects

    def compare(
        problem: Problem, chosen: dict[str, Any], comparer: Comparer, *also: Direction
    ) -> None:
        for name, derivation in chosen.items():
            for found in comparer(derivation(problem, *also)):
                compared.append((name, ComparedCase(case, problem, found)))

    problem = draw(seed, case, dtype, yardstick.largest)
    sizes = problem.sizes
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
    return CaseFindings(case, sizes, compared)


def make_report(
    found: Iterable[CaseFindings], seed: int, dtype: Any, subjects: Subjects
) -> BuiltinReport:
    """Make the report of findings in the order of their cases, whoever computed them."""
    compared: dict[tuple[str, str], list[ComparedCase]] = {}
    shapes, names = [], chain(*subjects[:3])
    for case in found:
        shapes.append(case.sizes)
        for name, each in case.compared:
            compared.setdefault((name, each.comparison.name), []).append(each)
    rows = [
        Row(name, gradient, tuple(compared[name, gradient]))
        for name in names
        for gradient in (*COMPARED, *name_tangents(dict.fromkeys(COMPARED)))
        if (name, gradient) in compared
    ]
    by_loss = [
        row._replace(compared=part, loss=loss)
        for row, loss in product(rows, ALL_LOSSES)
        if (part := tuple(each for each in row.compared if each.problem.loss == loss))
    ]
    reference_name = subjects.yardstick.name
    return BuiltinReport(seed, str(np.dtype(dtype)), rows, shapes, by_loss, reference_name)
