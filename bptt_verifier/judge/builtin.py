"""Every built-in derivation against autodiff, on random problems."""

from collections.abc import Callable
from functools import cache, partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from bptt_verifier.problems.problem import (
    ALL_LOSSES,
    LARGEST,
    Problem,
    Sizes,
    Variant,
    draw,
    draw_variant,
    read_only,
    remembered,
)
from bptt_verifier.tolerance.bounds import Bounds, bounds
from bptt_verifier.tolerance.comparison import Comparison, Verdict, compare
from bptt_verifier.tolerance.noise import UNOPTIMISED, measured
from jax_reference import padded
from jax_reference.padded import Capacity, Fixed, Padded
from jax_reference.unrolled import Derivatives, Model
from manual_bptt import gru, jacobian_sum, lstm, rnn, rtrl
from manual_bptt.inputs import require_at_least

Array = np.ndarray[Any, np.dtype[Any]]
Derivation = Callable[[Problem], dict[str, Any]]
VariantDerivation = Callable[[Variant], dict[str, Any]]


def derivation_of(module: ModuleType) -> Derivation:
    """All that a module of `manual_bptt` derives, by name.

    From its `gradients` and `predict` where it has them, else from its `value_and_grad`.
    """

    def derivation(problem: Problem) -> dict[str, Any]:
        params, x, y, h0, activation, loss = problem
        everything = getattr(module, "gradients", module.value_and_grad)
        value, gradients = everything(params, x, y, h0, activation=activation, loss=loss)
        found: dict[str, Any] = {"loss": value} | gradients._asdict()
        if hasattr(module, "predict"):
            found["prediction"] = module.predict(params, x, h0, activation=activation)
        return found

    return derivation


DERIVATIONS: dict[str, Derivation] = {
    "adjoint recursion": derivation_of(rnn),
    "jacobian sum": derivation_of(jacobian_sum),
    "forward recursion": derivation_of(rtrl),
}


def variant_derivation_of(module: ModuleType) -> VariantDerivation:
    """All that a cell of `manual_bptt` derives, by name, whatever the options."""

    def derivation(variant: Variant) -> dict[str, Any]:
        params, x, y, first = variant.params, variant.x, variant.y, variant.first
        value, gradients = module.gradients(params, x, y, **first, **variant.options)
        prediction = module.predict(params, x, **first, **variant.batch)
        found: dict[str, Any] = gradients._asdict()
        return {"loss": value, "prediction": prediction} | found

    return derivation


VARIANTS: dict[str, VariantDerivation] = {
    "RNN": variant_derivation_of(rnn),
    "LSTM": variant_derivation_of(lstm),
    "GRU": variant_derivation_of(gru),
}
FIRST, THEN = 100, 5  # examples that are also a problem of a variant: the first, and every fifth
GRADIENTS = (*Bounds._fields, "c0", "b_n")


class Row(NamedTuple):
    """One gradient of one derivation, over all problems, or over those with one loss."""

    derivation: str
    gradient: str
    cases: int
    conclusive: int
    worst: Comparison
    worst_case: int
    largest: Sizes
    loss: str | None = None

    @property
    def verdict(self) -> Verdict:
        """Disagrees if any case does; agrees if none does and at least one could have."""
        if self.worst.verdict is Verdict.DISAGREES:
            return Verdict.DISAGREES
        return Verdict.AGREES if self.conclusive else Verdict.INCONCLUSIVE

    def to_dict(self, oracle: str) -> dict[str, Any]:
        """Plain values, for JSON; `oracle` is what gave the reference."""
        return {
            "derivation": self.derivation,
            "gradient": self.gradient,
            **({} if self.loss is None else {"loss": self.loss}),
            "verdict": str(self.verdict),
            "cases": self.cases,
            "conclusive_cases": self.conclusive,
            "worst_error_over_bound": self.worst.error,
            "worst": {
                "case": self.worst_case,
                "entry": list(self.worst.entry),
                "by_hand": self.worst.yours,
                oracle: self.worst.reference,
                "bound": self.worst.allowed,
            },
            "largest_shape": self.largest._asdict(),
        }


class Report(NamedTuple):
    """What was compared, on what, and what came of it."""

    seed: int
    dtype: str
    rows: list[Row]
    shapes: list[Sizes]
    by_loss: list[Row]
    oracle: str = "autodiff"

    @property
    def verdict(self) -> Verdict:
        """Of all rows together: one disagreement, or one row without evidence, decides."""
        verdicts = {row.verdict for row in self.rows}
        if Verdict.DISAGREES in verdicts:
            return Verdict.DISAGREES
        return Verdict.AGREES if verdicts == {Verdict.AGREES} else Verdict.INCONCLUSIVE

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "verdict": str(self.verdict),
            "seed": self.seed,
            "dtype": self.dtype,
            "oracle": self.oracle,
            "examples": len(self.shapes),
            "rows": [row.to_dict(self.oracle) for row in self.rows],
            "by_loss": [row.to_dict(self.oracle) for row in self.by_loss],
            "shapes": [sizes._asdict() for sizes in self.shapes],
        }


@remembered(256)
def started_reference(problem: Problem) -> Callable[[], Derivatives]:
    """Starts `reference`, and returns what waits for it."""
    params, x, y, h0, activation, loss = problem
    waiting = padded.started(params, x, y, h0, activation=activation, loss=loss, capacity=LARGEST)
    return cache(lambda: read_only(waiting()))


def reference(problem: Problem) -> Derivatives:
    """What autodiff gives for this problem, in float64."""
    return started_reference(problem)()


def allowed(problem: Problem, truth: Derivatives) -> Bounds:
    """How far a derivation in the problem's dtype may be from the reference."""
    params, x, y, _, activation, loss = problem
    yours = bounds(params, x, y, truth, dtype=x.dtype, activation=activation, loss=loss)
    # Each bound is a polynomial in u without constant term and with no negative coefficient, so
    # that of float64 is at most this part of it.
    both = 1 + np.finfo(np.float64).eps / np.finfo(x.dtype).eps
    return Bounds(*(both * bound for bound in yours))  # (E13)


@partial(jax.jit, static_argnames=("model", "states"), compiler_options=UNOPTIMISED)
def _measured(
    model: Model, states: tuple[str, ...], roundoff: Any, problem: Padded, fixed: Fixed
) -> Any:
    differentiated = partial(padded.differentiated, model, states)
    return measured(lambda problem: differentiated(problem, fixed), roundoff, problem)


@remembered(128)
def reference_and_allowed(variant: Variant, dtype: Any = None) -> tuple[Derivatives, Derivatives]:
    """What autodiff gives in float64, and how far a derivation may be from it, measured: (N2).

    `dtype` is the derivation's, where that is not the variant's own.
    """
    option = next(iter(variant.option.values()), None)
    with jax.enable_x64(True):
        laid = padded.lay_out(
            variant.cell, variant.params, variant.x, variant.y, **variant.first,
            option=option, loss=variant.loss, outputs=variant.outputs, lengths=variant.lengths,
            truncation=variant.truncation, capacity=LARGEST,
        )  # fmt: skip
        # What is allowed is proportional to the roundoff: yours and the reference's at once.
        both = (variant.x.dtype if dtype is None else dtype, np.float64)
        roundoff = sum(float(np.finfo(each).eps) / 2 for each in both)
        clean, allowed = _measured(laid.model, laid.states, roundoff, laid.problem, laid.fixed)
    return laid.cut(*clean), laid.cut(*allowed)


def known(derivatives: Derivatives) -> dict[str, Any]:
    """All results by name, the prediction among them."""
    found = derivatives._asdict() | {"prediction": derivatives.states.prediction}
    del found["states"]
    return found


def compare_all(
    found: dict[str, Any], truth: Derivatives, bound: Bounds | Derivatives
) -> list[Comparison]:
    """Each result of a derivation against the reference; what is None on both sides is left out."""
    right = known(truth)
    limits = known(bound) if isinstance(bound, Derivatives) else bound._asdict()
    return [
        compare(name, found[name], right[name], limits[name])
        for name in found
        if not (found[name] is None and right[name] is None)
    ]


Judge = Callable[[dict[str, Any]], list[Comparison]]


class Oracle(NamedTuple):
    """What derivations are compared with: a judge of results for every problem."""

    name: str
    of_problem: Callable[[Problem], Judge]
    of_variant: Callable[[Variant], Judge]
    largest: Capacity = LARGEST


def by_autodiff(problem: Problem) -> Judge:
    """Comparison with autodiff, within the derived bound."""
    truth = reference(problem)
    bound = allowed(problem, truth)
    return lambda found: compare_all(found, truth, bound)


def variant_by_autodiff(variant: Variant) -> Judge:
    """Comparison with autodiff, within the error measured."""
    truth, measured_error = reference_and_allowed(variant)
    return lambda found: compare_all(found, truth, measured_error)


AUTODIFF = Oracle("autodiff", by_autodiff, variant_by_autodiff)


def verify_builtin(
    examples: int = 200,
    *,
    seed: int = 0,
    dtype: Any = np.float64,
    derivations: dict[str, Derivation] = DERIVATIONS,
    variants: dict[str, VariantDerivation] = VARIANTS,
    oracle: Oracle = AUTODIFF,
    progress: Callable[[int], None] = lambda done: None,
) -> Report:
    """Compare every derivation with autodiff on `examples` random problems.

    Each example is a problem of the plain RNN, which all `derivations` solve within the derived
    bound. The first hundred, and then every fifth, are also a problem of a cell in turn, with any
    loss, lengths, outputs and truncation, which that cell of `variants` solves within the error
    measured.
    The reference is the `oracle`'s, at exactly the same inputs: by default autodiff's, in float64.
    `dtype` is the derivations'.
    `progress` is called with the number of problems done. Raises TypeError or ValueError where
    `examples` is no integer from 1, or `seed` none from 0.
    """
    require_at_least(1, "examples", examples)
    require_at_least(0, "seed", seed)
    rows: dict[tuple[str, str], Row] = {}
    by_loss: dict[tuple[str, str, str], Row] = {}
    shapes = []

    def add(name: str, loss: str, sizes: Sizes, case: int, comparisons: list[Comparison]) -> None:
        for comparison in comparisons:
            key = name, comparison.name
            new = Row(*key, 1, int(comparison.conclusive), comparison, case, sizes)
            rows[key] = merged(rows[key], new) if key in rows else new
            new = new._replace(loss=loss)
            by_loss[*key, loss] = (
                merged(by_loss[*key, loss], new) if (*key, loss) in by_loss else new
            )

    for case in range(examples):
        problem = draw(seed, case, dtype, oracle.largest)
        shapes.append(problem.sizes)
        if derivations:
            judge = oracle.of_problem(problem)
            for name, derivation in derivations.items():
                add(name, problem.loss, problem.sizes, case, judge(derivation(problem)))
        chosen = case < FIRST or case % THEN == 0
        variant = draw_variant(seed, case, dtype, oracle.largest) if chosen else None
        cell = "" if variant is None else variant.cell.upper()
        of_cell = [name for name in variants if name.partition(",")[0] == cell]
        if variant is not None and of_cell:
            judge = oracle.of_variant(variant)
            for name in of_cell:
                add(name, variant.loss, variant.sizes, case, judge(variants[name](variant)))
        progress(case + 1)

    names = [*derivations, *variants]
    in_order = [
        rows[name, gradient] for name in names for gradient in GRADIENTS if (name, gradient) in rows
    ]
    in_detail = [
        by_loss[row.derivation, row.gradient, loss]
        for row in in_order
        for loss in ALL_LOSSES
        if (row.derivation, row.gradient, loss) in by_loss
    ]
    return Report(seed, str(np.dtype(dtype)), in_order, shapes, in_detail, oracle.name)


def merged(row: Row, other: Row) -> Row:
    """Both rows' cases in one row, with the worse of the two worst entries."""
    worse = other if other.worst.error > row.worst.error else row
    return row._replace(
        cases=row.cases + other.cases,
        conclusive=row.conclusive + other.conclusive,
        worst=worse.worst,
        worst_case=worse.worst_case,
        largest=max(row.largest, other.largest, key=np.prod),
    )
