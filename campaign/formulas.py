"""Equal formulas of the functions in a model, which round differently.

A value is a function of an array and of the namespace, numpy or jax.numpy. A slope, in NumPy, is a
function of the operand a and of the value h.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Value = Callable[[Any, Any], Any]
Slope = Callable[[Any, Any], Any]


class Function(NamedTuple):
    """The equal formulas of a function and of its slope, by name."""

    values: Mapping[str, Value]
    slopes: Mapping[str, Slope]


def sigmoid_by_where(a: Any, xp: Any) -> Any:
    """σ(a) without an exponential that overflows."""
    e = xp.exp(xp.where(a >= 0, -a, a))
    return xp.where(a >= 0, 1 / (1 + e), e / (1 + e))


def elu(a: Any, xp: Any) -> Any:
    """a, and e^a − 1 where a is negative."""
    return xp.where(a > 0, a, xp.exp(xp.where(a > 0, 0 * a, a)) - 1)


SIGMOIDS: dict[str, Value] = {
    "e^-a": lambda a, xp: 1 / (1 + xp.exp(-a)),
    "e^a": lambda a, xp: xp.exp(a) / (1 + xp.exp(a)),
    "where": sigmoid_by_where,
    "tanh": lambda a, xp: 0.5 * (1 + xp.tanh(a / 2)),
}
SIGMOID = Function(
    SIGMOIDS,
    {
        "s(1-s)": lambda a, s: s * (1 - s),
        "s-s²": lambda a, s: s - s * s,
        "e^-a": lambda a, s: np.exp(-np.abs(a)) / (1 + np.exp(-np.abs(a))) ** 2,
    },
)
TANH = Function(
    {
        "tanh": lambda a, xp: xp.tanh(a),
        "σ": lambda a, xp: 2 * SIGMOIDS["e^-a"](2 * a, xp) - 1,
        "two σ": lambda a, xp: SIGMOIDS["where"](2 * a, xp) - SIGMOIDS["where"](-2 * a, xp),
        "e^a": lambda a, xp: (xp.exp(a) - xp.exp(-a)) / (xp.exp(a) + xp.exp(-a)),
        "e^2a": lambda a, xp: 1 - 2 / (xp.exp(2 * a) + 1),
    },
    {
        "1-h²": lambda a, h: 1 - h * h,
        "(1-h)(1+h)": lambda a, h: (1 - h) * (1 + h),
        "cosh": lambda a, h: 1 / np.cosh(a) ** 2,
        "tanh(a)": lambda a, h: 1 - np.tanh(a) ** 2,
    },
)
# The activations of a plain recurrent network.
FUNCTIONS: dict[str, Function] = {
    "tanh": TANH,
    "sigmoid": SIGMOID,
    "relu": Function(
        {
            "maximum": lambda a, xp: xp.maximum(a, 0),
            "where": lambda a, xp: xp.where(a > 0, a, 0 * a),
            "product": lambda a, xp: a * (a > 0),
        },
        {"a>0": lambda a, h: (a > 0) * np.ones_like(a), "h>0": lambda a, h: np.sign(h)},
    ),
    "leaky": Function(
        {
            "where": lambda a, xp: xp.where(a > 0, a, 0.1 * a),
            "maximum": lambda a, xp: xp.maximum(a, 0.1 * a),
        },
        {"where": lambda a, h: np.where(a > 0, np.ones_like(a), 0.1 * np.ones_like(a))},
    ),
    "softplus": Function(
        {
            "log(1+e^a)": lambda a, xp: xp.log(1 + xp.exp(a)),
            "log1p": lambda a, xp: xp.log1p(xp.exp(a)),
            "logaddexp": lambda a, xp: xp.logaddexp(0 * a, a),
        },
        {
            "σ": lambda a, h: SIGMOIDS["where"](a, np),
            "1-e^-h": lambda a, h: 1 - np.exp(-h),
            "expm1": lambda a, h: -np.expm1(-h),
        },
    ),
    "softsign": Function(
        {"|a|": lambda a, xp: a / (1 + xp.abs(a))},
        {
            "a": lambda a, h: 1 / (1 + np.abs(a)) ** 2,
            "h": lambda a, h: (1 - np.abs(h)) ** 2,
        },
    ),
    "elu": Function(
        {"where": elu},
        {"h": lambda a, h: np.where(a > 0, np.ones_like(a), h + 1)},
    ),
    "swish": Function(
        {
            "e^-a": lambda a, xp: a / (1 + xp.exp(-a)),
            "where": lambda a, xp: a * sigmoid_by_where(a, xp),
        },
        {
            "s+h(1-s)": lambda a, h: (s := sigmoid_by_where(a, np)) + h * (1 - s),
            "s(1+a(1-s))": lambda a, h: (s := sigmoid_by_where(a, np)) * (1 + a * (1 - s)),
        },
    ),
    "arctan": Function(
        {"arctan": lambda a, xp: xp.arctan(a)},
        {"a": lambda a, h: 1 / (1 + a * a), "cos²": lambda a, h: np.cos(h) ** 2},
    ),
    "sin": Function({"sin": lambda a, xp: xp.sin(a)}, {"cos": lambda a, h: np.cos(a)}),
}
SOFTMAXES: dict[str, Callable[[Any, int, Any], Any]] = {
    "shifted": lambda z, axis, xp: (
        (e := xp.exp(z - xp.max(z, axis=axis, keepdims=True))) / xp.sum(e, axis=axis, keepdims=True)
    ),
    "plain": lambda z, axis, xp: xp.exp(z) / xp.sum(xp.exp(z), axis=axis, keepdims=True),
    "logarithm": lambda z, axis, xp: xp.exp(z - logsumexp(z, axis, xp)),
}


def logsumexp(z: Any, axis: int, xp: Any) -> Any:
    """Compute log Σ e^z, with the axis kept."""
    m = xp.max(z, axis=axis, keepdims=True)
    return m + xp.log(xp.sum(xp.exp(z - m), axis=axis, keepdims=True))


class Formulas(NamedTuple):
    """The formulas chosen for one program; `activation` is that of plain recurrences."""

    activation: str
    value: str
    slope: str
    sigmoid: str
    sigmoid_slope: str
    tanh: str
    tanh_slope: str
    softmax: str
    variance: str  # of a normalisation: "centred" or "moments"
    logarithm: str  # of a cross-entropy: "of softmax" or "logsumexp"
    rotation: str  # of a linear recurrence: "complex" or "real"
    product: str  # of states and weights: "@", "einsum" or "apart", x U and h W in two products

    def activate(self, a: Any, xp: Any) -> Any:
        """φ(a) of a plain recurrence."""
        return FUNCTIONS[self.activation].values[self.value](a, xp)

    def differentiate(self, a: Any, h: Any) -> Any:
        """φ′(a), with h = φ(a)."""
        return FUNCTIONS[self.activation].slopes[self.slope](a, h)

    def squash(self, a: Any, xp: Any) -> Any:
        """σ(a) of a gate."""
        return SIGMOID.values[self.sigmoid](a, xp)

    def bend(self, a: Any, xp: Any) -> Any:
        """tanh(a) of a gated cell."""
        return TANH.values[self.tanh](a, xp)

    def slope_of_sigmoid(self, a: Any, s: Any) -> Any:
        """σ′(a), with s = σ(a)."""
        return SIGMOID.slopes[self.sigmoid_slope](a, s)

    def slope_of_tanh(self, a: Any, h: Any) -> Any:
        """tanh′(a), with h = tanh(a)."""
        return TANH.slopes[self.tanh_slope](a, h)

    def normalise(self, z: Any, axis: int, xp: Any) -> Any:
        """softmax(z) along an axis."""
        return SOFTMAXES[self.softmax](z, axis, xp)

    def multiply(self, x: Any, W: Any, xp: Any) -> Any:
        """Compute x W, of rows."""
        return xp.einsum("...i,ij->...j", x, W) if self.product == "einsum" else x @ W


def draw_formulas(rng: np.random.Generator, activation: str) -> Formulas:
    """Draw the formulas of one program."""

    def choose(names: Any) -> str:
        return str(rng.choice([*names]))

    function = FUNCTIONS[activation]
    return Formulas(
        activation, choose(function.values), choose(function.slopes), choose(SIGMOIDS),
        choose(SIGMOID.slopes), choose(TANH.values), choose(TANH.slopes), choose(SOFTMAXES),
        choose(("centred", "moments")), choose(("of softmax", "logsumexp")),
        choose(("complex", "real")), choose(("@", "einsum", "apart")),
    )  # fmt: skip
