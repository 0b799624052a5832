"""Forward mode and Hessian-vector products of the plain RNN's loss, derived by hand.

A direction has a number for each entry of the parameters, x and h_0. `moved_q` is the tangent of q,
its derivative along the direction, and stands beside q in both sweeps. The sweep forward gives the
Jacobian-vector product of the loss, the sweep back the Hessian times the direction, which is
Pearlmutter's R operator applied to the gradient.
Source: Pearlmutter 1994, "Fast exact multiplication by the Hessian"; docs/derivation.md,
section 18.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from manual_bptt import activations, inputs, losses
from manual_bptt.activations import Activation, Array
from manual_bptt.inputs import arguments
from manual_bptt.many_to_one import read_out
from manual_bptt.rnn import Gradients, Params
from manual_bptt.sequences import at_work, steps_that_count


class Direction(NamedTuple):
    """A direction to move the parameters, x and h_0 in; None where they do not move."""

    U: Shaped[Array, "H D"] | None = None
    W: Shaped[Array, "H H"] | None = None
    V: Shaped[Array, "O H"] | None = None
    b: Shaped[Array, " H"] | None = None
    c: Shaped[Array, " O"] | None = None
    x: Shaped[Array, "T B D"] | None = None
    h0: Shaped[Array, "B H"] | None = None


class Moving(NamedTuple):
    """The forward sweep with its tangents: everything that the sweep back needs."""

    params: Params
    direction: Any
    lengths: Int[Array, " B"] | None
    x: Shaped[Array, "T B D"]
    a: Shaped[Array, "T B H"]
    h: Shaped[Array, "T+1 B H"]
    moved_a: Shaped[Array, "T B H"]
    moved_h: Shaped[Array, "T+1 B H"]
    value: Any
    moved_value: Any
    dy: Shaped[Array, "*T B O"]
    moved_dy: Shaped[Array, "*T B O"]


def sweep_forward(
    params: Any,
    direction: Any,
    x: Any,
    y: Any,
    h0: Any,
    phi: Activation,
    loss: str,
    outputs: str,
    lengths: Any,
) -> Moving:
    """The forward pass, the loss and ∂L/∂ŷ, each with its tangent. (D1) to (D4)."""
    weights, x, y, h0, _, lengths = arguments(
        params, x, y, h0, loss=loss, outputs=outputs, lengths=lengths
    )
    U, W, V, b, c = weights
    moved: Any = Direction(*inputs.direction(direction, weights, x, h0, lengths, Direction._fields))
    T, every = len(x), outputs == "every"

    a = x @ U.T
    moved_a = x @ moved.U.T + moved.x @ U.T
    if b is not None:
        a, moved_a = a + b, moved_a + moved.b
    h, moved_h = (np.empty((T + 1, *h0.shape), h0.dtype) for _ in range(2))
    h[0], moved_h[0] = h0, moved.h0
    for t in range(1, T + 1):
        a[t - 1] += h[t - 1] @ W.T  # (F1)  a_t = U x_t + W h_{t-1} + b
        moved_a[t - 1] += h[t - 1] @ moved.W.T + moved_h[t - 1] @ W.T  # (D1)  and its tangent
        reached = phi.function(a[t - 1])
        moved_reached = phi.derivative(a[t - 1], reached) * moved_a[t - 1]
        h[t] = at_work(t, lengths, reached, h[t - 1])  # (F2)  φ(a_t), and (M1)
        moved_h[t] = at_work(t, lengths, moved_reached, moved_h[t - 1])  # (D2)  φ′(a_t) ⊙ ȧ_t

    read, moved_read = (h[1:], moved_h[1:]) if every else (h[T], moved_h[T])
    prediction = read_out(read, V, c)
    moved_prediction = read @ moved.V.T + read_out(moved_read, V, moved.c)  # (D3)
    counted = steps_that_count(lengths, T) if every else None
    value, dy = losses.value_and_gradient(loss, prediction, y, counted)
    moved_value = (dy * moved_prediction).sum()  # (D4)  ⟨∂L/∂ŷ, tangent of ŷ⟩
    moved_dy = losses.tangent_of_gradient(loss, prediction, moved_prediction, y, counted)
    return Moving(
        Params(*weights), moved, lengths, x, a, h, moved_a, moved_h,
        value, moved_value, dy, moved_dy,
    )  # fmt: skip


def sweep_back(moving: Moving, phi: Activation) -> Gradients:
    """The tangent of every gradient, by the R operator on the adjoint recursion. (D5) to (D13)."""
    (U, W, V, b, c), moved, lengths, x, a, h, moved_a, moved_h, _, _, dy, moved_dy = moving
    T, every, second = len(x), dy.ndim == 3, phi.second_derivative
    assert second is not None

    entering = dy @ V  # (B1)  Vᵀ ∂L/∂ŷ
    moved_entering = dy @ moved.V + moved_dy @ V  # (D5)  and its tangent
    delta, moved_delta = np.empty_like(a), np.empty_like(a)
    dh, moved_dh = (entering[-1], moved_entering[-1]) if every else (entering, moved_entering)
    for t in range(T, 0, -1):
        at = a[t - 1], h[t]
        slope = phi.derivative(*at)
        step = dh * slope  # (B2)  δ_t = ∂L/∂h_t ⊙ φ′(a_t)
        moved_step = moved_dh * slope + dh * second(*at) * moved_a[t - 1]  # (D6)  R{δ_t}
        delta[t - 1] = at_work(t, lengths, step, 0)
        moved_delta[t - 1] = at_work(t, lengths, moved_step, 0)
        through = delta[t - 1] @ W  # (B3)  Wᵀ δ_t
        moved_through = delta[t - 1] @ moved.W + moved_delta[t - 1] @ W  # (D7)  and its tangent
        dh, moved_dh = (
            at_work(t, lengths, through, dh),
            at_work(t, lengths, moved_through, moved_dh),
        )
        if every and t > 1:
            dh, moved_dh = dh + entering[t - 2], moved_dh + moved_entering[t - 2]  # (O1), (D5)

    def over_time(left: Array, right: Array) -> Array:
        found: Array = np.einsum("tbi,tbj->ij", left, right, optimize=True)
        return found

    read, moved_read = (h[1:], moved_h[1:]) if every else (h[-1:], moved_h[-1:])
    dy, moved_dy = (each.reshape(len(read), -1, len(V)) for each in (dy, moved_dy))
    return Gradients(
        U=over_time(moved_delta, x) + over_time(delta, moved.x),  # (D8)
        W=over_time(moved_delta, h[:-1]) + over_time(delta, moved_h[:-1]),  # (D9)
        V=over_time(moved_dy, read) + over_time(dy, moved_read),  # (D10)
        b=None if b is None else moved_delta.sum(axis=(0, 1)),  # (D11)
        c=None if c is None else moved_dy.sum(axis=(0, 1)),  # (D12)
        x=delta @ moved.U + moved_delta @ U,  # (D13)
        h0=moved_dh,  # (D7) once more, at t = 1
        adjoints=moved_delta,
    )


def jvp(
    params: Params,
    direction: Direction | Params,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    activation: str | Activation = "tanh",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
) -> tuple[Any, Any]:
    """The loss and its derivative along a direction, by one sweep forward. (D1) to (D4).

    The direction is a `Direction`, or the `Params` alone.
    Raises TypeError or ValueError naming the argument that does not fit.
    """
    phi = activations.find(activation)
    moving = sweep_forward(params, direction, x, y, h0, phi, loss, outputs, lengths)
    return moving.value, moving.moved_value


def hvp(
    params: Params,
    direction: Direction | Params,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "*T B O"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    activation: str | Activation = "tanh",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array, " B"] | None = None,
) -> Gradients:
    """The Hessian of the loss times a direction, at the cost of two gradients. (D1) to (D13).

    The Hessian is that of L as a function of the parameters, x and h_0 together. The product has
    the fields of the gradients; `adjoints` are the tangents of δ_t.
    Raises TypeError or ValueError naming the argument that does not fit, such as an activation of
    your own without a second derivative.
    """
    phi = activations.find(activation)
    if phi.second_derivative is None:
        raise ValueError("activation: expected one with a second_derivative, found None")
    moving = sweep_forward(params, direction, x, y, h0, phi, loss, outputs, lengths)
    return sweep_back(moving, phi)
