"""Intervals that contain the exact derivative at floating-point inputs: balls and power series.

Every input is used exactly. One entry at a time is moved by ε; the forward pass runs over series in
ε whose coefficients are balls, and the coefficient of ε encloses the derivative. Source: Johansson
2017, "Arb: efficient arbitrary-precision midpoint-radius interval arithmetic";
docs/certification.md, section 3. Needs python-flint, which is in the extra `certify`.
"""

from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from bptt_verifier.problems.problem import ACTIVATIONS, CELLS, GATES, Array
from bptt_verifier.proofs.extras import require_flint
from bptt_verifier.proofs.forward_pass import ForwardPass, Numbers, loss_and_prediction, map_entries
from manual_bptt import gru, losses
from manual_bptt.inputs import arguments, name_among, steps_kept

require_flint()

from flint import arb, arb_series, ctx  # noqa: E402 - after the check

PRECISIONS = tuple(2**k for k in range(7, 15))  # bits, tried in turn
FINER = 100  # the radius is at most one unit in the last place divided by this


class Undecided(ArithmeticError):  # noqa: N818 - a state, not a failure
    """A ball is too wide to decide on which side of a kink it lies, or how large a value is."""


class Enclosure(NamedTuple):
    """Intervals that contain the exact values: object arrays of fractions, shaped like the values.

    `dtype` is the dtype of the inputs; `ulps` counts in its units in the last place.
    """

    lower: Array
    upper: Array
    dtype: Any

    @property
    def nearest(self) -> Array:
        """The number of the dtype nearest to the middle of each interval.

        That is the exact value, correctly rounded, unless a tie lies within the interval. Beyond
        the range of the format it is ±∞.
        """
        found = map_entries(lambda low, high: nearest((low + high) / 2, self.dtype), *self[:2])
        return found.astype(self.dtype)

    @property
    def ulps(self) -> Array:
        """One unit in the last place at each value, as a fraction."""
        return map_entries(lambda low, high: ulp((low + high) / 2, self.dtype), *self[:2])

    def farthest(self, values: Array) -> Array:
        """An upper bound on |value − exact| by entry: a fraction, ∞ if the value is not finite.

        Raises ValueError where the shapes differ.
        """
        if np.shape(values) != self.lower.shape:
            raise ValueError(f"values: expected shape {self.lower.shape}, found {np.shape(values)}")

        def distance(low: Fraction, high: Fraction, value: Any) -> Any:
            if not np.isfinite(value):
                return np.inf
            exact = fraction(value)
            return max(abs(exact - low), abs(exact - high))

        return map_entries(distance, *self[:2], np.asarray(values))

    def errors_in_ulps(self, values: Array) -> Float[Array, "..."]:
        """|value − exact| in units in the last place of the exact value. Raises as `farthest`."""
        errors = map_entries(lambda error, unit: error / unit, self.farthest(values), self.ulps)
        return errors.astype(np.float64)


def fraction(value: Any) -> Fraction:
    """The exact value of a floating-point number of any format."""
    return Fraction(*value.as_integer_ratio())


def exponent(value: Fraction) -> int:
    """The integer e with 2^e ≤ |value| < 2^(e+1); `value` is not 0."""
    guess = abs(value.numerator).bit_length() - value.denominator.bit_length()
    return guess if abs(value) >= Fraction(2) ** guess else guess - 1


def ulp(value: Fraction, dtype: Any) -> Fraction:
    """The distance between adjacent numbers of the dtype at `value`; at 0, the smallest number."""
    form = np.finfo(dtype)
    lowest = fraction(form.smallest_subnormal)
    if value == 0:
        return lowest
    return max(Fraction(2) ** (exponent(value) - form.nmant), lowest)


def nearest(value: Fraction, dtype: Any) -> Any:
    """The number of the dtype nearest to `value`; ties go to the even last place."""
    unit = ulp(value, dtype)
    whole = round(value / unit)  # Fraction rounds ties to even
    with np.errstate(over="ignore"):
        return np.ldexp(dtype(whole), exponent(unit))


# Below the smallest number of every format. A ball smaller than this becomes ± this bound: its
# exact fraction could have any number of digits.
BELOW_ALL = Fraction(1, 2**20000)
TINY = arb(2) ** -20000


def to_fraction(number: Any) -> Fraction:
    """The exact value of the middle, or of the radius, of a ball."""
    mantissa, power = (int(part) for part in number.man_exp())
    return mantissa * Fraction(2) ** power


# The operations of balls, and of series of balls.


def value_of(number: Any) -> arb:
    """The constant term of a series, or the ball itself."""
    return number[0] if isinstance(number, arb_series) else arb(number)


def sign(number: Any) -> int:
    """The sign of the constant term. Raises Undecided if the ball contains 0 and other numbers."""
    ball = value_of(number)
    if ball.is_zero():
        return 0
    if ball.contains(0) or ball.is_nan():
        raise Undecided("a value that decides on a branch cannot be told from a kink")
    return 1 if ball > 0 else -1


BALLS = Numbers(sign=sign, constant=value_of, tanh=lambda z: 1 - 2 / (1 + (2 * z).exp()))


def ball_of(value: Any) -> arb:
    """The ball of radius zero around a floating-point number or a whole number."""
    mantissa, denominator = value.as_integer_ratio()
    return arb((mantissa, 1 - denominator.bit_length()))


def derivative(model: ForwardPass, point: dict[str, Any], y: Array, name: str, entry: Any) -> arb:
    """∂L/∂θ for one entry θ of `name`: the coefficient of ε in the loss at θ + ε."""
    moved = point[name].copy()
    moved[entry] = arb_series([moved[entry], 1], prec=2)
    found, _ = loss_and_prediction(BALLS, model, point | {name: moved}, y)  # (Z1)
    return found[1] if isinstance(found, arb_series) else arb(0)


def refine(compute: Any, dtype: Any) -> tuple[Fraction, Fraction]:
    """Lower and upper end of the ball that `compute` returns, at the first sufficient precision.

    Raises Undecided where the largest of `PRECISIONS` does not suffice.
    """
    reason = Undecided("the value cannot be told from zero")
    for bits in PRECISIONS:
        with ctx.workprec(bits):
            try:
                ball = compute()
            except Undecided as error:
                reason = error
                continue
            if not ball.is_finite():
                continue
            if not ball.is_zero() and abs(ball) < TINY:
                return -BELOW_ALL, BELOW_ALL
            if abs(ball) > 1 / TINY:
                raise Undecided("a value lies beyond every number format")
            middle, radius = to_fraction(ball.mid()), to_fraction(ball.rad())
        if FINER * radius <= ulp(max(abs(middle) - radius, Fraction(0)), dtype):  # (Z2)
            return middle - radius, middle + radius
    raise reason


def certify(
    params: Any,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
    h0: Shaped[Array, "B H"] | None = None,
    c0: Shaped[Array, "B H"] | None = None,
    *,
    model: str = "rnn",
    activation: str = "tanh",
    reset: str = "after",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
    names: tuple[str, ...] | None = None,
) -> dict[str, Enclosure]:
    """Enclose the exact loss, prediction and every gradient at exactly these inputs.

    Returns the enclosures by name: "loss", "prediction", the fields of `params` that are not None,
    "x", "h0", "c0" (LSTM) and "adjoints". Intervals are narrower than a fiftieth of a unit in the
    last place of the inputs' dtype. `model` names the cell, `activation` is the RNN's option and
    `reset` the GRU's; `names` restricts what is computed.
    One forward pass is needed for each entry, so problems must be small.
    Raises TypeError or ValueError naming the argument that does not fit. Raises Undecided where no
    precision separates a value from a kink of relu or of a loss, or from zero.
    """
    name_among("model", model, tuple(CELLS))
    name_among("activation", activation, ACTIVATIONS)
    name_among("reset", reset, gru.RESETS)
    losses.find(loss)
    steps_kept(truncation, outputs)
    fields = CELLS[model].Params._fields
    if y is None:
        raise TypeError("y: expected an array, found None")
    if c0 is not None and model != "lstm":
        raise ValueError(f"c0: expected None for the {model}, found {type(c0).__name__}")
    given = arguments(
        params, x, y, h0, c0=c0, gates=GATES[model], fields=fields,
        loss=loss, outputs=outputs, lengths=lengths,
    )  # fmt: skip
    if given.x.dtype == object:
        raise TypeError(f"x: expected a floating dtype, found {given.x.dtype}")
    target = given.y
    if np.issubdtype(target.dtype, np.integer):
        target = np.eye(len(params.V), dtype=given.x.dtype)[target]
    rows = given.weights[0].shape[0]
    point: dict[str, Any] = {"b_n": None, **dict(zip(fields, given.weights, strict=True))}
    point |= {"x": given.x, "h0": given.h0} | ({"c0": given.c0} if model == "lstm" else {})
    point["adjoints"] = np.zeros((*given.x.shape[:2], rows), given.x.dtype)
    there = ("loss", "prediction", *(name for name, value in point.items() if value is not None))
    for name in (names,) if isinstance(names, str) else names or ():
        if isinstance(names, str) or name not in there:
            raise ValueError(f"names: expected a tuple of {', '.join(there)}, found {names!r}")
    exact = {n: None if v is None else map_entries(ball_of, v) for n, v in point.items()}
    option = {"rnn": activation, "lstm": "", "gru": reset}[model]
    forward = ForwardPass(model, option, loss, outputs, given.lengths, truncation)
    return enclose(forward, exact, map_entries(ball_of, target), given.x.dtype, names)


def enclose(
    model: ForwardPass, point: dict[str, Any], y: Array, dtype: Any, names: tuple[str, ...] | None
) -> dict[str, Enclosure]:
    """Compute the enclosures at a point whose numbers are balls; `certify` describes them."""
    number = np.dtype(dtype).type

    def enclosure(shape: tuple[int, ...], compute: Any) -> Enclosure:
        lower, upper = np.empty(shape, object), np.empty(shape, object)
        for entry in np.ndindex(shape):
            lower[entry], upper[entry] = refine(lambda at=entry: compute(at), number)
        return Enclosure(lower, upper, number)

    def computed(name: str, entry: Any) -> arb:
        if name in point:
            return derivative(model, point, y, name, entry)
        loss, prediction = loss_and_prediction(BALLS, model, point, y)
        return arb(loss if name == "loss" else prediction[entry])

    shapes = {name: value.shape for name, value in point.items() if value is not None}
    return {
        name: enclosure(shape, partial(computed, name))
        for name, shape in ({"loss": (), "prediction": y.shape} | shapes).items()
        if names is None or name in names
    }
