"""Every built-in derivation against enclosures of the exact values, on random small problems.

A float may be as far from the exact value as the bound says that rounding takes it, and the exact
value is known to lie in an interval narrower than a fiftieth of a unit in the last place.
Needs python-flint, which is in the extra `certify`.
"""

from types import ModuleType
from typing import Any

import numpy as np

from bptt_verifier.judge.builtin import (
    Derivation,
    Judge,
    Oracle,
    VariantDerivation,
    derivation_of,
    known,
    reference,
    reference_and_allowed,
)
from bptt_verifier.problems.problem import Problem, Variant
from bptt_verifier.proofs.enclosures import Enclosure, Undecided, certify
from bptt_verifier.tolerance.bounds import RESOLVING, bounds
from bptt_verifier.tolerance.comparison import Array, Comparison
from jax_reference.padded import Capacity
from manual_bptt.jitted import gru, lstm, rnn

SMALL = Capacity(T=5, B=2, D=3, H=3, O=3)


def against_enclosure(name: str, yours: Array, exact: Enclosure, allowed: Array) -> Comparison:
    """The worst entry: the largest distance that the enclosure leaves open, in units of `allowed`.

    `conclusive` as in `comparison.compare`. Raises ValueError where the shapes differ.
    """
    farthest, middle = exact.farthest(yours), np.asarray(exact.nearest, np.float64)
    limits = np.broadcast_to(np.asarray(allowed, np.float64), middle.shape)
    error = np.zeros(middle.shape)
    for entry in np.ndindex(middle.shape):
        distance, limit = farthest[entry], float(limits[entry])
        if np.isfinite(limit) and distance > 0:
            error[entry] = float(distance) / limit if limit > 0 else np.inf
    worst = np.unravel_index(int(np.argmax(error)), error.shape)
    largest = float(np.max(np.abs(middle)))
    return Comparison(
        name=name,
        error=float(error[worst]),
        entry=tuple(int(i) for i in worst),
        yours=float(np.asarray(yours)[worst]),
        reference=float(middle[worst]),
        allowed=float(limits[worst]),
        conclusive=bool(
            np.isfinite(limits).all() and largest > 0 and np.max(limits) <= RESOLVING * largest
        ),
    )


def compare_all(
    found: dict[str, Any], exact: dict[str, Enclosure], limits: dict[str, Any]
) -> list[Comparison]:
    """Each result against its enclosure; what is absent on both sides is left out."""
    return [
        against_enclosure(name, value, exact[name], limits[name])
        for name, value in found.items()
        if value is not None
    ]


def undecided(_: dict[str, Any]) -> list[Comparison]:
    """A problem at a kink decides nothing."""
    return []


def by_enclosures(problem: Problem) -> Judge:
    """Comparison with the exact values, within the derived bound (E1) to (E12)."""
    params, x, y, h0, activation, loss = problem
    bound = bounds(
        params, x, y, reference(problem), dtype=x.dtype, activation=activation, loss=loss
    )
    try:
        exact = certify(params, x, y, h0, activation=activation, loss=loss)
    except Undecided:
        return undecided
    return lambda found: compare_all(found, exact, bound._asdict())


def variant_by_enclosures(variant: Variant) -> Judge:
    """Comparison with the exact values, within the error measured (N2)."""
    _, allowed = reference_and_allowed(variant)
    given: dict[str, Any] = variant.first | variant.options
    try:
        exact = certify(variant.params, variant.x, variant.y, model=variant.cell, **given)
    except Undecided:
        return undecided
    return lambda found: compare_all(found, exact, known(allowed))


# A shape costs a compilation, so the compiled RNN solves the problems of these sizes alone.
COMPILED = {"B": 2, "D": 3, "H": 3}


def compiled_derivation(problem: Problem) -> dict[str, Any]:
    """The plain RNN compiled, by name; nothing where it is not worth compiling."""
    sizes = problem.sizes._asdict()
    return derivation_of(rnn)(problem) if sizes | COMPILED == sizes else {}


def compiled_variant(module: ModuleType) -> VariantDerivation:
    """A compiled cell, which knows neither lengths nor outputs at every step nor truncation."""

    def derivation(variant: Variant) -> dict[str, Any]:
        plain = variant.lengths is None and variant.truncation is None
        if not (plain and variant.outputs == "last"):
            return {}
        given: dict[str, Any] = variant.first | variant.option
        value, found = module.value_and_grad(
            variant.params, variant.x, variant.y, **given, loss=variant.loss
        )
        return dict(loss=value, **found._asdict())

    return derivation


COMPILED_DERIVATIONS: dict[str, Derivation] = {"adjoint recursion, jitted": compiled_derivation}
COMPILED_VARIANTS = {"LSTM, jitted": compiled_variant(lstm), "GRU, jitted": compiled_variant(gru)}
CERTIFIED = Oracle("certified", by_enclosures, variant_by_enclosures, SMALL)
