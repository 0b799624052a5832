"""Comparison of the built-in derivations with enclosures of the exact values, on small problems.

The bound allows for the rounding of the derivation alone. The intervals are narrower than a
fiftieth of a unit in the last place.
Needs python-flint, which is in the extra `certify`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bptt_verifier.judge.builtin import Comparer, Derivation, Yardstick, make_derivation
from bptt_verifier.problems.problem import Problem
from bptt_verifier.proofs.enclosures import Enclosure, Undecided, certify
from bptt_verifier.reference.autodiff import measure_reference, name_arrays, reference
from bptt_verifier.tolerance.bounds import bounds
from bptt_verifier.tolerance.comparison import Array, Comparison, compare
from jax_reference.padded import Capacity
from manual_bptt.jitted import gru, lstm, rnn

SMALL = Capacity(T=5, B=2, D=3, H=3, O=3)


def compare_with_enclosure(name: str, found: Array, exact: Enclosure, allowed: Array) -> Comparison:
    """Compare with the farther end of each interval."""
    distance = exact.farthest(found).astype(np.float64)
    return compare(name, found, exact.nearest.astype(np.float64), allowed, distance)


def make_comparer(problem: Problem, allowed: Mapping[str, Array]) -> Comparer:
    """Make a comparison with the exact values; an empty one if a kink makes them undecided."""
    named: dict[str, Any] = {**problem.first, **problem.options}
    try:
        exact = certify(problem.params, problem.x, problem.y, model=problem.cell, **named)
    except Undecided:
        return lambda found: []
    return lambda found: [
        compare_with_enclosure(name, value, exact[name], allowed[name])
        for name, value in found.items()
        if value is not None
    ]


def compare_exactly_within_bound(problem: Problem) -> Comparer:
    """Compare with the exact values, within the derived bound (E1) to (E12)."""
    # Not `derive_bound`, which adds the reference's own error: the exact values have none.
    bound = bounds(
        problem.params, problem.x, problem.y, reference(problem),
        dtype=problem.x.dtype, loss=problem.loss, **problem.option,
    )  # fmt: skip
    return make_comparer(problem, name_arrays(bound))


def compare_exactly_within_measured_error(problem: Problem) -> Comparer:
    """Compare with the exact values, within the measured error (N2)."""
    return make_comparer(problem, name_arrays(measure_reference(problem)[1]))


COMPILED = {"B": 2, "D": 3, "H": 3}  # each shape compiles anew, so the compiled RNN runs at these


def run_compiled_rnn(problem: Problem) -> dict[str, Any]:
    """Run the compiled RNN; return its results by name, or none at sizes other than `COMPILED`."""
    sizes = problem.sizes._asdict()
    return make_derivation(rnn)(problem) if sizes | COMPILED == sizes else {}


def make_compiled_derivation(module: Any) -> Derivation:
    """Make the derivation of a compiled cell, without results where it lacks an option."""

    def derivation(problem: Problem) -> dict[str, Any]:
        plain = problem.lengths is None and problem.truncation is None
        return make_derivation(module)(problem) if plain and problem.outputs == "last" else {}

    return derivation


COMPILED_DERIVATIONS: dict[str, Derivation] = {"adjoint recursion, jitted": run_compiled_rnn}
COMPILED_CELL_DERIVATIONS: dict[str, Derivation] = {
    "LSTM, jitted": make_compiled_derivation(lstm),
    "GRU, jitted": make_compiled_derivation(gru),
}
CERTIFIED = Yardstick(
    "certified", compare_exactly_within_bound, compare_exactly_within_measured_error, SMALL
)
