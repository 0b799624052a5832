"""The same derivatives for any shape within a fixed capacity, compiled once.

A new shape costs `jax.jit` about a quarter of a second. Verification meets thousands of shapes, so
every problem is laid into arrays of one fixed size: rows and columns of zeros, and steps after the
last that leave the state as it is. What the padding adds is cut off again.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jax_reference import activations, losses
from jax_reference.inputs import Parameters, check
from jax_reference.rnn import Activation, Derivatives, States


class Capacity(NamedTuple):
    """The largest sizes that fit. Each capacity, activation and loss compiles once."""

    T: int = 16
    B: int = 4
    D: int = 8
    H: int = 8
    O: int = 4


class Padded(NamedTuple):
    """A problem laid into arrays of the capacity; an absent bias or h0 is zeros."""

    U: Any
    W: Any
    V: Any
    b: Any
    c: Any
    x: Any
    h0: Any
    perturbations: Any


LAYOUT = {
    "U": "HD", "W": "HH", "V": "OH", "b": "H", "c": "O",
    "x": "TBD", "h0": "BH", "perturbations": "TBH", "y": "BO",
}  # fmt: skip


def masked_states(problem: Padded, T: Any, *, activation: Activation) -> States:
    """The forward pass, in which steps after T change nothing. Equation (P2)."""
    phi = activations.find(activation)

    def step(h: Array, inputs: tuple[Array, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        t, x_t, perturbation = inputs
        a = x_t @ problem.U.T + h @ problem.W.T + problem.b + perturbation
        h = jnp.where(t < T, phi(a), h)  # (P2)  h_t = φ(a_t) for t ≤ T, else h_{t-1}
        return h, (a, h)

    steps = jnp.arange(len(problem.x))
    last, (a, h) = jax.lax.scan(step, problem.h0, (steps, problem.x, problem.perturbations))
    prediction = last @ problem.V.T + problem.c
    return States(prediction, a, jnp.concatenate([problem.h0[None], h]))


class Laid(NamedTuple):
    """A problem laid into the capacity, and which part of each array is its own."""

    problem: Padded
    y: Any
    valid: Any
    T: Any
    own: dict[str, tuple[slice, ...]]
    biased: tuple[bool, bool]

    def cut(self, value: Any, gradient: Padded, reached: States) -> Derivatives:
        """The problem's own part of what was computed, as NumPy arrays."""
        own = {name: np.asarray(grad)[self.own[name]] for name, grad in gradient._asdict().items()}
        (steps, batch, units) = self.own["perturbations"]
        states = slice(steps.stop + 1)
        return Derivatives(
            loss=np.asarray(value),
            U=own["U"], W=own["W"], V=own["V"],
            b=own["b"] if self.biased[0] else None,
            c=own["c"] if self.biased[1] else None,
            x=own["x"], h0=own["h0"], adjoints=own["perturbations"],
            states=States(
                prediction=np.asarray(reached.prediction)[self.own["y"]],
                a=np.asarray(reached.a)[self.own["perturbations"]],
                h=np.asarray(reached.h)[states, batch, units],
            ),
        )  # fmt: skip


def lay_out(
    params: Parameters, x: Any, y: Any, h0: Any = None, *, capacity: Capacity = Capacity()
) -> Laid:
    """The problem in float64 arrays of the capacity.

    Raises TypeError or ValueError as `rnn.derivatives`, and where it exceeds the capacity.
    """
    check(params, x, y, h0)
    (T, B, D), (O, H) = np.shape(x), np.shape(params.V)
    size = dict(zip(Capacity._fields, (T, B, D, H, O), strict=True))
    most = capacity._asdict()
    for letter, needed in size.items():
        if needed > most[letter]:
            raise ValueError(
                f"capacity: expected {letter} ≥ {needed}, found {letter} = {most[letter]}"
            )
    own = {name: tuple(slice(size[letter]) for letter in LAYOUT[name]) for name in LAYOUT}

    def lay(name: str, value: Any) -> np.ndarray[Any, np.dtype[Any]]:
        laid = np.zeros([most[letter] for letter in LAYOUT[name]])
        if value is not None:
            laid[own[name]] = value
        return laid

    given = {field: getattr(params, field) for field in "UWVbc"} | {"x": x, "h0": h0}
    return Laid(
        Padded(*(lay(name, given.get(name)) for name in Padded._fields)),
        lay("y", y),
        lay("y", np.ones((B, O))) == 1,
        np.int64(T),
        own,
        (params.b is not None, params.c is not None),
    )


def differentiated(
    problem: Padded, y: Array, valid: Array, T: Array, activation: Activation, loss: str
) -> tuple[Array, Padded, States]:
    """The loss, its gradient with respect to everything, and the states; not compiled."""

    def objective(problem: Padded) -> tuple[Array, States]:
        reached = masked_states(problem, T, activation=activation)
        return losses.find(loss)(reached.prediction, y, valid), reached

    (value, reached), gradient = jax.value_and_grad(objective, has_aux=True)(problem)
    return value, gradient, reached


_derivatives = jax.jit(differentiated, static_argnames=("activation", "loss"))


def derivatives(
    params: Parameters,
    x: Any,
    y: Any,
    h0: Any = None,
    *,
    activation: Activation = "tanh",
    loss: str = "mse",
    capacity: Capacity = Capacity(),
) -> Derivatives:
    """What `rnn.derivatives` returns, as NumPy arrays, always computed in float64.

    The inputs may be float32: they are then the exact points at which float64 differentiates.
    Raises as `rnn.derivatives`, and ValueError where the problem exceeds the capacity.
    """
    activations.find(activation)
    losses.find(loss)
    laid = lay_out(params, x, y, h0, capacity=capacity)
    with jax.enable_x64(True):
        return laid.cut(*_derivatives(*laid[:4], activation, loss))
