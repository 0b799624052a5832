"""Every built-in derivation against autodiff, on random problems."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.bounds import Bounds, bounds
from bptt_verifier.comparison import Comparison, Verdict, compare
from bptt_verifier.problems import LARGEST, Problem, Sizes, draw
from jax_reference import padded
from jax_reference.rnn import Derivatives
from manual_bptt import jacobian_sum, rnn, rtrl

Array = np.ndarray[Any, np.dtype[Any]]
Derivation = Callable[[Problem], dict[str, Any]]


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


class Row(NamedTuple):
    """One gradient of one derivation, over all problems."""

    derivation: str
    gradient: str
    cases: int
    conclusive: int
    worst: Comparison
    worst_case: int
    largest: Sizes

    @property
    def verdict(self) -> Verdict:
        """Disagrees if any case does; agrees if none does and at least one could have."""
        if self.worst.verdict is Verdict.DISAGREES:
            return Verdict.DISAGREES
        return Verdict.AGREES if self.conclusive else Verdict.INCONCLUSIVE

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "derivation": self.derivation,
            "gradient": self.gradient,
            "verdict": str(self.verdict),
            "cases": self.cases,
            "conclusive_cases": self.conclusive,
            "worst_error_over_bound": self.worst.error,
            "worst": {
                "case": self.worst_case,
                "entry": list(self.worst.entry),
                "by_hand": self.worst.yours,
                "autodiff": self.worst.reference,
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
            "examples": len(self.shapes),
            "rows": [row.to_dict() for row in self.rows],
            "shapes": [sizes._asdict() for sizes in self.shapes],
        }


def reference(problem: Problem) -> Derivatives:
    """What autodiff gives for this problem, in float64."""
    params, x, y, h0, activation, loss = problem
    return padded.derivatives(params, x, y, h0, activation=activation, loss=loss, capacity=LARGEST)


def allowed(problem: Problem, truth: Derivatives) -> Bounds:
    """How far a derivation in the problem's dtype may be from the reference."""
    params, x, y, _, activation, loss = problem
    yours = bounds(params, x, y, truth, dtype=x.dtype, activation=activation, loss=loss)
    # Each bound is a polynomial in u without constant term and with no negative coefficient, so
    # that of float64 is at most this part of it.
    both = 1 + np.finfo(np.float64).eps / np.finfo(x.dtype).eps
    return Bounds(*(both * bound for bound in yours))  # (E13)


def compare_all(found: dict[str, Any], truth: Derivatives, bound: Bounds) -> list[Comparison]:
    """Each result of a derivation against the reference; what is None on both sides is left out."""
    known = truth._asdict() | {"prediction": truth.states.prediction}
    return [
        compare(name, found[name], known[name], getattr(bound, name))
        for name in found
        if not (found[name] is None and known[name] is None)
    ]


def verify_builtin(
    examples: int = 200,
    *,
    seed: int = 0,
    dtype: Any = np.float64,
    derivations: dict[str, Derivation] = DERIVATIONS,
    progress: Callable[[int], None] = lambda done: None,
) -> Report:
    """Compare every derivation with autodiff on `examples` random problems.

    The reference is always float64 at exactly the same inputs; `dtype` is the derivations'.
    `progress` is called with the number of problems done. Raises ValueError where `examples` < 1.
    """
    if examples < 1:
        raise ValueError(f"examples: expected at least 1, found {examples}")
    rows: dict[tuple[str, str], Row] = {}
    shapes = []
    for case in range(examples):
        problem = draw(seed, case, dtype)
        shapes.append(problem.sizes)
        truth = reference(problem)
        bound = allowed(problem, truth)
        for name, derivation in derivations.items():
            for comparison in compare_all(derivation(problem), truth, bound):
                key = name, comparison.name
                new = Row(*key, 1, int(comparison.conclusive), comparison, case, problem.sizes)
                rows[key] = merged(rows[key], new) if key in rows else new
        progress(case + 1)
    in_order = [
        rows[name, gradient]
        for name in derivations
        for gradient in Bounds._fields
        if (name, gradient) in rows
    ]
    return Report(seed, str(np.dtype(dtype)), in_order, shapes)


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
