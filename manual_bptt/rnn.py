"""The many-to-one RNN and its gradients by the adjoint recursion: one sweep forward, one back.

    a_t = U x_t + W h_{t-1} (+ b),    h_t = φ(a_t),    ŷ = V h_T (+ c)

Arrays are time-major and steps count from 1, as in docs/derivation.md: x_t is `x[t-1]`, a_t is
`a[t-1]`, δ_t is `adjoints[t-1]`, while the states start at h_0, so that h_t is `h[t]`.
The code is generic over dtype: float32, float64, longdouble, and object arrays of exact numbers.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from manual_bptt import activations, inputs, losses
from manual_bptt.activations import Activation, Array
from manual_bptt.inputs import checked


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


class Gradients(NamedTuple):
    """∂L/∂U, ∂L/∂W, ∂L/∂V, ∂L/∂b and ∂L/∂c (None without biases), ∂L/∂x, ∂L/∂h_0 and all δ_t."""

    U: Shaped[Array, "H D"]
    W: Shaped[Array, "H H"]
    V: Shaped[Array, "O H"]
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
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng: expected a numpy.random.Generator, found {type(rng).__name__}")
    sizes = {"input_size": input_size, "hidden_size": hidden_size, "output_size": output_size}
    for name, size in sizes.items():
        if not isinstance(size, int | np.integer) or isinstance(size, bool):
            raise TypeError(f"{name}: expected an integer, found {type(size).__name__}")
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, found {size}")
    if not np.issubdtype(dtype, np.floating):
        raise TypeError(f"dtype: expected a floating dtype, found {np.dtype(dtype)}")

    def normal(rows: int, columns: int) -> Array:
        values: Array = rng.normal(size=(rows, columns)) / np.sqrt(columns)
        return values.astype(dtype)

    return Params(
        U=normal(hidden_size, input_size),
        W=normal(hidden_size, hidden_size),
        V=normal(output_size, hidden_size),
        b=np.zeros(hidden_size, dtype) if bias else None,
        c=np.zeros(output_size, dtype) if bias else None,
    )


def forward(
    params: Params,
    x: Shaped[Array, "T B D"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    activation: str | Activation = "tanh",
) -> tuple[Shaped[Array, "B O"], Trace]:
    """The prediction ŷ and the trace that `backward` needs. Equations (F1) to (F3).

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    (U, W, V, b, c), x, _, h0 = checked(params, x, h0=h0)
    phi = activations.find(activation)
    T = len(x)

    a = x @ U.T  # U x_t for all t at once: it does not wait for the states
    if b is not None:
        a = a + b
    h = np.empty((T + 1, *h0.shape), h0.dtype)
    h[0] = h0
    for t in range(1, T + 1):
        a[t - 1] += h[t - 1] @ W.T  # (F1)  a_t = U x_t + W h_{t-1} + b
        h[t] = phi.function(a[t - 1])  # (F2)  h_t = φ(a_t)
    prediction = h[T] @ V.T  # (F3)  ŷ = V h_T + c
    if c is not None:
        prediction = prediction + c
    return prediction, Trace(x, a, h, activation)


def backward(params: Params, trace: Trace, output_gradient: Shaped[Array, "B O"]) -> Gradients:
    """All gradients from ∂L/∂ŷ, by one sweep back through time. Equations (B1) to (B9).

    Raises TypeError or ValueError where `output_gradient` does not fit the trace.
    """
    weights, x, _, _ = checked(params, trace.x)
    dy = inputs.output_gradient(output_gradient, weights[2], x)
    return sweep_back(Params(*weights), trace, dy)


def sweep_back(params: Params, trace: Trace, dy: Shaped[Array, "B O"]) -> Gradients:
    """`backward` without its checks: where the forward pass overflowed, so does this."""
    U, W, V, b, c = params
    x, a, h, activation = trace
    phi = activations.find(activation)

    adjoints = np.empty_like(a)
    dh = dy @ V  # (B1)  ∂L/∂h_T = Vᵀ ∂L/∂ŷ
    for t in range(len(x), 0, -1):
        adjoints[t - 1] = dh * phi.derivative(a[t - 1], h[t])  # (B2)  δ_t = ∂L/∂h_t ⊙ φ′(a_t)
        dh = adjoints[t - 1] @ W  # (B3)  ∂L/∂h_{t-1} = Wᵀ δ_t

    return Gradients(
        U=np.einsum("tbh,tbd->hd", adjoints, x, optimize=True),  # (B4)  Σ_t δ_t x_tᵀ
        W=np.einsum("tbh,tbk->hk", adjoints, h[:-1], optimize=True),  # (B5)  Σ_t δ_t h_{t-1}ᵀ
        V=np.einsum("bo,bh->oh", dy, h[-1], optimize=True),  # (B6)  ∂L/∂ŷ h_Tᵀ
        b=None if b is None else adjoints.sum(axis=(0, 1)),  # (B7)  Σ_t δ_t
        c=None if c is None else dy.sum(axis=0),  # (B8)  ∂L/∂ŷ
        x=adjoints @ U,  # (B9)  ∂L/∂x_t = Uᵀ δ_t
        h0=dh,  # (B3) once more, at t = 1
        adjoints=adjoints,
    )


def gradients(
    params: Params,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "B O"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    activation: str | Activation = "tanh",
    loss: str = "mse",
) -> tuple[Any, Gradients]:
    """The loss and every gradient: forward sweep, loss, sweep back.

    Where the numbers overflow, the results are infinite or NaN.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    weights, x, y, h0 = checked(params, x, y, h0)
    measure = losses.find(loss)
    prediction, trace = forward(params, x, h0, activation=activation)
    return (
        measure.value(prediction, y),
        sweep_back(Params(*weights), trace, measure.gradient(prediction, y)),
    )


def predict(
    params: Params,
    x: Shaped[Array, "T B D"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    activation: str | Activation = "tanh",
) -> Shaped[Array, "B O"]:
    """The prediction ŷ, equations (F1) to (F3). Raises as `forward`."""
    return forward(params, x, h0, activation=activation)[0]


def value_and_grad(
    params: Params,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "B O"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    activation: str | Activation = "tanh",
    loss: str = "mse",
) -> tuple[Any, Params]:
    """The loss and its gradients with respect to the parameters, in their own tuple.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    value, by_name = gradients(params, x, y, h0, activation=activation, loss=loss)
    return value, Params(*by_name[:5])


def adjoints(
    params: Params,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "B O"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    activation: str | Activation = "tanh",
    loss: str = "mse",
) -> Shaped[Array, "T B H"]:
    """δ_t = ∂L/∂a_t for every step, by (B1) to (B3). Raises as `value_and_grad`."""
    return gradients(params, x, y, h0, activation=activation, loss=loss)[1].adjoints
