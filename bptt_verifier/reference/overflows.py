"""Numbers that may overflow a format, in a stated function or in another formula of it.

docs/derivation.md, section 17.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from bptt_verifier.program.precision import list_inner
from bptt_verifier.tolerance.noise import BY_EXPONENTIALS, Roundoff

EXPONENTIALS = BY_EXPONENTIALS | {"exp", "exp2", "expm1"}


def find_overflowing(jaxpr: Any, largest: float) -> Roundoff:
    """Find which numbers of a jaxpr become NaN, those that may lead beyond `largest`."""
    exponent = np.log(largest) if has(jaxpr, is_exponential) else np.inf
    root = largest**0.5 if has(jaxpr, is_square) else np.inf
    return Roundoff(0.0, 0.0, largest=largest, beyond=np.nan, exponent=exponent, root=root)


def has(jaxpr: Any, kind: Callable[[Any], bool]) -> bool:
    """Tell whether a jaxpr has an operation of a kind, in any of its loops and branches."""
    return any(
        kind(equation) or any(has(inner, kind) for inner in list_inner(equation))
        for equation in jaxpr.eqns
    )


def is_exponential(equation: Any) -> bool:
    """Tell whether an operation is an exponential, or is written with some."""
    return equation.primitive.name in EXPONENTIALS


def is_square(equation: Any) -> bool:
    """Tell whether an operation is a square, as a power or as a product."""
    name, inputs = equation.primitive.name, equation.invars
    power = name == "integer_pow" and equation.params["y"] == 2
    return power or name == "square" or (name == "mul" and inputs[0] is inputs[1])
