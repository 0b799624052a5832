"""Numbers that may overflow a format, in a stated function or in another formula of it.

docs/derivation.md, sections 10 and 17.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bptt_verifier.program.precision import list_inner
from bptt_verifier.program.trace import Program
from bptt_verifier.tolerance.noise import BY_EXPONENTIALS, EXTREMA, Roundoff

EXPONENTIALS = BY_EXPONENTIALS | {"exp", "exp2", "expm1"}
HYPERBOLIC = frozenset({"cosh", "sinh"})
# Of a sum of 2¹¹ exponentials e^|a| the square is 2¹²⁶ or less, so its reciprocal fits float32.
EXPONENT = 52 * float(np.log(2))
MASKED = -1e3  # up to here, an operand of these functions, or a maximum, is a mask


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


def find_largest_exponent(program: Program, slots: Sequence[Any]) -> float:
    """Find the largest |a| of which some formula of a loss may compute the exponential.

    That is an operand of an exponential, or of a function written with some, or a maximum, which
    formulas of a softmax subtract from exponents or do not. A maximum with a constant is a relu.
    """
    exponents = []
    for operation in program.operations:
        if operation.name in EXPONENTIALS | HYPERBOLIC:
            exponents.append(slots[operation.inputs[0]])
        elif operation.name in EXTREMA and not program.constants.keys() & {*operation.inputs}:
            exponents.append(slots[operation.outputs[0]])
    if not any(each.name in EXPONENTIALS | HYPERBOLIC for each in program.operations):
        return 0.0
    return max(map(find_largest_unmasked, exponents))


def find_largest_unmasked(exponents: Any) -> float:
    """Find the largest finite absolute value that is no mask, of real parts.

    A mask takes away what it is added to: it is a large negative number.
    """
    a = np.real(exponents)
    counted = np.isfinite(a) & (a > MASKED)
    return float(np.max(np.abs(a), where=counted, initial=0.0))
