"""Proofs of forward mode and Hessian-vector products on symbols, for any φ with two derivatives.

The tangent of the loss, and every entry of the Hessian times a direction of symbols, minus what the
computer algebra system derives from the expression of the loss, expand to zero. Source:
docs/derivation.md, section 18. Needs SymPy, which is in the extra `certify`.
"""

import math
import random
from itertools import product
from operator import methodcaller
from types import ModuleType
from typing import Any

import numpy as np

from bptt_verifier.problems.problem import LOSSES, Sizes
from bptt_verifier.proofs.cases import ProofCase
from bptt_verifier.proofs.extras import require_sympy
from bptt_verifier.proofs.forward_pass import Numbers, loss_and_prediction, map_entries
from bptt_verifier.proofs.run import WrongGradient, refute
from bptt_verifier.proofs.symbolic import (
    UNSPECIFIED,
    Proof,
    phi,
    phi_prime,
    phi_second,
    symbolic,
    symbols,
)

require_sympy()

import sympy  # noqa: E402 - after the check

SIZES = (Sizes(1, 1, 1, 2, 1), Sizes(2, 1, 1, 1, 2), Sizes(2, 2, 1, 1, 1), Sizes(3, 1, 1, 1, 1))
NUMBERS = Numbers(sign=lambda z: z, constant=lambda z: z)  # no loss and no φ here has branches


def free_tangent_cases() -> tuple[ProofCase, ...]:
    """The cases with the unspecified activation, and one with sequences of unequal length."""
    return (
        *(ProofCase("rnn", UNSPECIFIED, loss, sizes) for sizes, loss in product(SIZES, LOSSES)),
        ProofCase("rnn", UNSPECIFIED, "half_sse", Sizes(2, 1, 1, 1, 1), outputs="every"),
        ProofCase("rnn", UNSPECIFIED, "half_sse", Sizes(2, 2, 1, 1, 1), lengths=(1, 2)),
    )


def prove_tangent_case(module: ModuleType, case: ProofCase) -> int:
    """Prove the tangent and every entry of the product; return their number.

    Raises WrongGradient where one is not a derivative of the loss.
    """
    rng = random.Random(str(case))
    shapes = {name: shape for name, shape in case.shapes.items() if name != "adjoints"}
    point = {name: symbols(rng, name, shape) for name, shape in shapes.items()}
    direction = {name: symbols(rng, f"d_{name}", shape) for name, shape in shapes.items()}
    T, B, _, H, O = case.sizes
    y = symbols(rng, "y", (T, B, O) if case.outputs == "every" else (B, O))
    by_name = [
        methodcaller("apply", function, numeric)
        for function, numeric in (
            (phi, math.tanh),
            (phi_prime, lambda sample: 1 - math.tanh(sample) ** 2),
            (phi_second, lambda sample: -2 * math.tanh(sample) * (1 - math.tanh(sample) ** 2)),
        )
    ]
    activation = module.activations.Activation(
        lambda a: map_entries(by_name[0], a),
        lambda a, h: map_entries(by_name[1], a),
        lambda a, h: map_entries(by_name[2], a),
    )
    problem = case.problem(point, y, activation)
    options = {**problem.batch, **problem.first, "loss": problem.loss}
    given = problem.params, module.Direction(**direction), problem.x, y
    _, tangent = module.jvp(*given, **options)
    found = module.hvp(*given, **options)

    at = dict.fromkeys(("b", "c", "b_n")) | {"adjoints": np.zeros((T, B, H), object)} | point
    model = case.forward_pass._replace(option=by_name[0])
    loss, _ = loss_and_prediction(NUMBERS, model, at, y)
    moved = sum(
        sympy.diff(loss.expression, symbolic(theta).expression) * symbolic(along).expression
        for name in shapes
        for theta, along in zip(point[name].flat, direction[name].flat, strict=True)
    )
    require_zero("the tangent of the loss", symbolic(tangent).expression - moved)
    entries = 1
    for name, coordinates in point.items():
        for where in np.ndindex(coordinates.shape):
            exact = sympy.diff(moved, symbolic(coordinates[where]).expression)  # (Z8)
            own = symbolic(getattr(found, name)[where]).expression
            require_zero(f"R{{{name}[{', '.join(map(str, where))}]}}", own - exact)
            entries += 1
    return entries


def require_zero(what: str, difference: Any) -> None:
    """Raise WrongGradient unless the difference expands to zero."""
    if sympy.expand(difference) != 0:
        raise WrongGradient(f"{what} is not the derivative")


def prove_tangents_symbolically(
    name: str, module: ModuleType, chosen: tuple[ProofCase, ...]
) -> Proof:
    """Prove that the module's tangents are derivatives of the loss, in every case."""
    total = 0
    for done, case in enumerate(chosen):
        refuted, entries = refute(str(case), prove_tangent_case, module, case)
        if refuted is not None:
            return Proof(name, done, total, refuted)
        total += entries
    return Proof(name, len(chosen), total)
