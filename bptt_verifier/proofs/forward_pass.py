"""A forward pass over numbers of any kind: rationals, balls, power series, symbols.

The proofs differentiate this forward pass alone. The file contains no gradient and no chain rule,
and imports neither witness. Arrays are object arrays, time-major, with the letters of
docs/derivation.md; `Numbers` holds the operations of a number beyond + − × ÷.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]  # `problems` defines it, too, but imports a witness
Function = Callable[..., Any]


class Numbers(NamedTuple):
    """The operations of one kind of numbers beyond arithmetic; most have methods for the others.

    `sign` is −1, 0 or 1, and chooses branches. `constant` removes the dependence on the variables
    of differentiation, as truncation does with a state.
    """

    sign: Function
    constant: Function
    tanh: Function = lambda z: z.tanh()
    sigmoid: Function = lambda z: 1 / (1 + (-z).exp())
    exp: Function = lambda z: z.exp()
    log: Function = lambda z: z.log()


class ForwardPass(NamedTuple):
    """A cell, a loss and their options.

    `option` is the RNN's activation, by name or as a function, or the GRU's `reset`.
    """

    cell: str = "rnn"
    option: str | Function = ""
    loss: str = "mse"
    outputs: str = "last"
    lengths: Array | None = None
    truncation: int | None = None


def map_entries(function: Function, *arrays: Array) -> Array:
    """Apply a function to every entry of one array, or of several of one shape; objects."""
    found = np.empty(np.shape(arrays[0]), object)
    for entry in np.ndindex(found.shape):
        found[entry] = function(*(values[entry] for values in arrays))
    return found


# One step of each cell: the states after it, h first, from the states before it, x_t and ε_t.


def affine(point: dict[str, Any], h: Array, x_t: Array, epsilon: Array) -> Array:
    """U x_t + W h_{t-1} + b + ε_t."""
    a: Array = x_t @ point["U"].T + h @ point["W"].T + epsilon
    return a if point["b"] is None else a + point["b"]


def rnn_step(
    numbers: Numbers, option: Any, point: dict[str, Any], states: list[Array], *driven: Array
) -> list[Array]:
    """h_t = φ(a_t)."""
    by_name = {
        "tanh": numbers.tanh,
        "sigmoid": numbers.sigmoid,
        "relu": lambda a: a if numbers.sign(a) > 0 else 0 * numbers.constant(a),
        "identity": lambda a: a,
    }
    activation = option if callable(option) else by_name[option]
    return [map_entries(activation, affine(point, states[0], *driven))]


def lstm_step(
    numbers: Numbers, option: Any, point: dict[str, Any], states: list[Array], *driven: Array
) -> list[Array]:
    """c_t = f c_{t-1} + i g, h_t = o tanh(c_t)."""
    h, cell = states
    i, f, g, o = np.split(affine(point, h, *driven), 4, axis=-1)
    i, f, o = (map_entries(numbers.sigmoid, gate) for gate in (i, f, o))
    cell = f * cell + i * map_entries(numbers.tanh, g)
    return [o * map_entries(numbers.tanh, cell), cell]


def gru_step(
    numbers: Numbers, option: Any, point: dict[str, Any], states: list[Array], *driven: Array
) -> list[Array]:
    """h_t = (1 − z) n + z h_{t-1}; the reset gate before or after the product with W_n."""
    (h,), (x_t, epsilon) = states, driven
    H = h.shape[-1]
    inner = point | {"W": point["W"][: 2 * H], "U": point["U"][: 2 * H]}
    if point["b"] is not None:
        inner["b"] = point["b"][: 2 * H]
    gates = map_entries(numbers.sigmoid, affine(inner, h, x_t, epsilon[:, : 2 * H]))
    r, z = np.split(gates, 2, axis=-1)
    met = (r * h if option == "before" else h) @ point["W"][2 * H :].T
    if point["b_n"] is not None:
        met = met + point["b_n"]
    a_n = x_t @ point["U"][2 * H :].T + epsilon[:, 2 * H :]
    a_n = a_n + (met if option == "before" else r * met)
    if point["b"] is not None:
        a_n = a_n + point["b"][2 * H :]
    return [(1 - z) * map_entries(numbers.tanh, a_n) + z * h]


STEPS = {"rnn": rnn_step, "lstm": lstm_step, "gru": gru_step}


# Losses of rows of predictions and targets; every entry counts.


def absolute(numbers: Numbers, r: Any) -> Any:
    """|r|, whose derivative at 0 is 0."""
    return numbers.sign(r) * r


def huber(numbers: Numbers, r: Any) -> Any:
    """½ r² where |r| ≤ 1, and |r| − ½ beyond."""
    far = numbers.sign(absolute(numbers, r) - 1) > 0
    return (2 * absolute(numbers, r) - 1) / 2 if far else r * r / 2


def loss_of(numbers: Numbers, loss: str, prediction: Array, y: Array) -> Any:
    """The loss of (R, O) predictions and targets: a sum, or a mean over entries or over rows."""
    r, N, exp, log = prediction - y, prediction.size, numbers.exp, numbers.log
    if loss == "half_sse":
        return (r * r).sum() / 2
    if loss == "mse":
        return (r * r).sum() / N
    if loss == "softmax_cross_entropy":  # −Σ y log p = log Σ exp ŷ − Σ y ŷ, where y sums to one
        rows = zip(prediction, y, strict=True)
        return sum(log(map_entries(exp, row).sum()) - (t * row).sum() for row, t in rows) / len(y)
    if loss == "binary_cross_entropy":  # −y log σ(ŷ) − (1 − y) log(1 − σ(ŷ))
        entries = zip(prediction.flat, y.flat, strict=True)
        return sum(log(1 + exp(logit)) - target * logit for logit, target in entries) / N
    distance = {"mae": absolute, "huber": huber}[loss]
    return sum(distance(numbers, entry) for entry in r.flat) / N


def loss_and_prediction(
    numbers: Numbers, model: ForwardPass, point: dict[str, Any], y: Array
) -> tuple[Any, Array]:
    """L and ŷ at a point: U, W, V, b, c, b_n (or None), x, h0, c0 and `adjoints`, the ε_t.

    y is (B, O), or (T, B, O) for outputs at every step; ŷ has the same shape. In the padding ŷ is
    computed from the last state of the sequence, and does not count.
    """
    x, V, c = point["x"], point["V"], point["c"]
    T, B = x.shape[:2]
    ends = np.full(B, T) if model.lengths is None else model.lengths
    states = [point["h0"], point["c0"]] if model.cell == "lstm" else [point["h0"]]
    every_h = []
    for t in range(1, T + 1):
        driven = x[t - 1], point["adjoints"][t - 1]
        after = STEPS[model.cell](numbers, model.option, point, states, *driven)
        active = (t <= ends)[:, None]
        states = [np.where(active, new, old) for new, old in zip(after, states, strict=True)]
        if model.truncation is not None:
            constant = (t <= ends - model.truncation)[:, None]
            states = [np.where(constant, map_entries(numbers.constant, s), s) for s in states]
        every_h.append(states[0])
    every = model.outputs == "every"
    prediction = (np.stack(every_h) if every else states[0]) @ V.T
    if c is not None:
        prediction = prediction + c
    counted = np.arange(1, T + 1)[:, None] <= ends if every else np.full(B, True)
    return loss_of(numbers, model.loss, prediction[counted], y[counted]), prediction
