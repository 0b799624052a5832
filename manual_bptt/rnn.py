"""The many-to-one RNN and its gradients by the adjoint recursion: one sweep forward, one back.

    a_t = U x_t + W h_{t-1} (+ b),    h_t = φ(a_t),    ŷ = V h_T (+ c)

Arrays are time-major and steps count from 1, as in docs/derivation.md: x_t is `x[t-1]`, a_t is
`a[t-1]`, δ_t is `adjoints[t-1]`, while the states start at h_0, so that h_t is `h[t]`.
The output's equations, (F3), (B1), (B6) and (B8), are those of every cell: see `many_to_one`.
The code is generic over dtype: float32, float64, longdouble, and object arrays of exact numbers.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from manual_bptt import activations, many_to_one
from manual_bptt.activations import Activation, Array
from manual_bptt.inputs import arguments
from manual_bptt.many_to_one import Cell, draw_weights, read_out
from manual_bptt.sequences import at_work, cut


class Params(NamedTuple):
    """The weights; b and c are absent by default. Gradients come in the same tuple."""

    U: Shaped[Array, "H D"]
    W: Shaped[Array, "H H"]
    V: Shaped[Array, "O H"]
    b: Shaped[Array, " H"] | None = None
    c: Shaped[Array, " O"] | None = None


class Trace(NamedTuple):
    """What the forward sweep leaves for the backward one."""

    x: Shaped[Array, "T B D"]
    a: Shaped[Array, "T B H"]
    h: Shaped[Array, "T+1 B H"]
    activation: str | Activation
    outputs: str = "last"
    lengths: Int[Array, " B"] | None = None


class Gradients(NamedTuple):
    """∂L/∂U, ∂L/∂W, ∂L/∂V, ∂L/∂b and ∂L/∂c (None without biases), ∂L/∂x, ∂L/∂h_0 and all δ_t.

    V and c are None where the gradient came in at the states: `backward_through_time`.
    """

    U: Shaped[Array, "H D"]
    W: Shaped[Array, "H H"]
    V: Shaped[Array, "O H"] | None
    b: Shaped[Array, " H"] | None
    c: Shaped[Array, " O"] | None
    x: Shaped[Array, "T B D"]
    h0: Shaped[Array, "B H"]
    adjoints: Shaped[Array, "T B H"]


def init(
    rng: np.random.Generator,
    input_size: int,
    hidden_size: int,
    output_size: int,
    *,
    dtype: Any = np.float64,
    bias: bool = False,
) -> Params:
    """Random weights with variance one over the number of inputs of each sum, and zero biases.

    U is drawn with variance 1/D, W and V with 1/H, so that neither path through (F1) is negligible.
    Raises TypeError or ValueError where `rng`, a size or the dtype is not what its name says.
    """
    return Params(*draw_weights(rng, input_size, hidden_size, output_size, 1, dtype, bias))


def forward(
    params: Params,
    x: Shaped[Array, "T B D"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    activation: str | Activation = "tanh",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
) -> tuple[Shaped[Array, "*T B O"], Trace]:
    """The prediction ŷ and the trace that `backward` needs. Equations (F1) to (F3).

    `outputs` is "last", ŷ (B, O), or "every", ŷ (T, B, O); `lengths` are those of the sequences in
    a padded batch, equation (M1).
    Raises TypeError or ValueError naming the argument that does not fit.
    """
    (U, W, V, b, c), x, _, h0, _, lengths = arguments(
        params, x, h0=h0, outputs=outputs, lengths=lengths
    )
    phi = activations.find(activation)
    T = len(x)

    a = x @ U.T  # U x_t for all t at once: it does not wait for the states
    if b is not None:
        a = a + b
    h = np.empty((T + 1, *h0.shape), h0.dtype)
    h[0] = h0
    for t in range(1, T + 1):
        a[t - 1] += h[t - 1] @ W.T  # (F1)  a_t = U x_t + W h_{t-1} + b
        h[t] = at_work(t, lengths, phi.function(a[t - 1]), h[t - 1])  # (F2)  φ(a_t), and (M1)
    reached = h[1:] if outputs == "every" else h[T]
    return read_out(reached, V, c), Trace(x, a, h, activation, outputs, lengths)


def sweep_back(
    params: Params,
    trace: Trace,
    entering: Shaped[Array, "*T B H"],
    truncation: int | None = None,
) -> Gradients:
    """Gradients of all but V and c, from ∂L/∂h_T (B, H), or from what enters each h_t (T, B, H)."""
    U, W, _, b, _ = params
    x, a, h, activation, _, lengths = trace
    phi = activations.find(activation)
    T, every = len(x), entering.ndim == 3
    ends = T if lengths is None else lengths

    adjoints = np.empty_like(a)
    dh = entering[-1] if every else entering
    for t in range(T, 0, -1):
        delta = dh * phi.derivative(a[t - 1], h[t])  # (B2)  δ_t = ∂L/∂h_t ⊙ φ′(a_t)
        adjoints[t - 1] = at_work(t, lengths, delta, 0)  # (M2)
        dh = at_work(t, lengths, adjoints[t - 1] @ W, dh)  # (B3)  ∂L/∂h_{t-1} = Wᵀ δ_t
        if every and t > 1:
            dh = dh + entering[t - 2]  # (O1)  ∂L/∂h_{t-1} += Vᵀ ∂L/∂ŷ_{t-1}
        dh = cut(t - 1, ends, truncation, dh)  # (K1)

    return Gradients(
        U=np.einsum("tbh,tbd->hd", adjoints, x, optimize=True),  # (B4)  Σ_t δ_t x_tᵀ
        W=np.einsum("tbh,tbk->hk", adjoints, h[:-1], optimize=True),  # (B5)  Σ_t δ_t h_{t-1}ᵀ
        V=None,
        b=None if b is None else adjoints.sum(axis=(0, 1)),  # (B7)  Σ_t δ_t
        c=None,
        x=adjoints @ U,  # (B9)  ∂L/∂x_t = Uᵀ δ_t
        h0=dh,  # (B3) once more, at t = 1
        adjoints=adjoints,
    )


CELL = Cell(Params, 1, forward, sweep_back)


def backward(
    params: Params,
    trace: Trace,
    output_gradient: Shaped[Array, "*T B O"],
    *,
    truncation: int | None = None,
) -> Gradients:
    """All gradients from ∂L/∂ŷ, by one sweep back through time. Equations (B1) to (B9).

    `truncation` keeps the gradient through the last so many steps only, equation (K1).
    Raises TypeError or ValueError where an argument does not fit the trace.
    """
    return many_to_one.backward(CELL, params, trace, output_gradient, truncation)


def backward_through_time(
    params: Params, trace: Trace, hidden_gradients: Shaped[Array, "T B H"]
) -> Gradients:
    """The bare layer: all gradients from ∂L/∂h_t as they enter each state from outside.

    V and c, which are no part of it, get None. Equations (B2) to (B9) and (O1).
    Raises TypeError or ValueError where `hidden_gradients` does not fit the trace.
    """
    return many_to_one.backward_through_time(CELL, params, trace, hidden_gradients)


def gradients(
    params: Params,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    activation: str | Activation = "tanh",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> tuple[Any, Gradients]:
    """The loss and every gradient: forward sweep, loss, sweep back.

    Where the numbers overflow, the results are infinite or NaN.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    return many_to_one.gradients(
        CELL, params, x, y, {"h0": h0}, loss, outputs, lengths, truncation, activation=activation
    )


def predict(
    params: Params,
    x: Shaped[Array, "T B D"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    activation: str | Activation = "tanh",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
) -> Shaped[Array, "*T B O"]:
    """The prediction ŷ, equations (F1) to (F3). Raises as `forward`."""
    return forward(params, x, h0, activation=activation, outputs=outputs, lengths=lengths)[0]


def value_and_grad(
    params: Params,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    activation: str | Activation = "tanh",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> tuple[Any, Params]:
    """The loss and its gradients with respect to the parameters, in their own tuple.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    value, found = gradients(
        params, x, y, h0,
        activation=activation, loss=loss, outputs=outputs, lengths=lengths, truncation=truncation,
    )  # fmt: skip
    return value, many_to_one.select_weight_gradients(CELL, found)


def adjoints(
    params: Params,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    activation: str | Activation = "tanh",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
    truncation: int | None = None,
) -> Shaped[Array, "T B H"]:
    """δ_t = ∂L/∂a_t for every step, by (B1) to (B3). Raises as `value_and_grad`."""
    return gradients(
        params, x, y, h0,
        activation=activation, loss=loss, outputs=outputs, lengths=lengths, truncation=truncation,
    )[1].adjoints  # fmt: skip
