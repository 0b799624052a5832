"""The same derivatives for any shape within a fixed capacity, compiled once.

A new shape costs `jax.jit` about a quarter of a second. Verification meets thousands of shapes, so
every problem is laid into arrays of one fixed size: rows and columns of zeros, and steps after the
last that leave the state as it is. What the padding adds is cut off again.
"""

from functools import partial
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


@partial(jax.jit, static_argnames=("activation", "loss"))
def _derivatives(
    problem: Padded, y: Array, valid: Array, T: Array, activation: Activation, loss: str
) -> tuple[Array, Padded, States]:
    def objective(problem: Padded) -> tuple[Array, States]:
        reached = masked_states(problem, T, activation=activation)
        return losses.find(loss)(reached.prediction, y, valid), reached

    (value, reached), gradient = jax.value_and_grad(objective, has_aux=True)(problem)
    return value, gradient, reached


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
    problem = Padded(*(lay(name, given.get(name)) for name in Padded._fields))
    with jax.enable_x64(True):
        value, gradient, reached = _derivatives(
            problem, lay("y", y), lay("y", np.ones((B, O))) == 1, np.int64(T), activation, loss
        )
    cut = {name: np.asarray(grad)[own[name]] for name, grad in gradient._asdict().items()}
    return Derivatives(
        loss=np.asarray(value),
        U=cut["U"], W=cut["W"], V=cut["V"],
        b=None if params.b is None else cut["b"],
        c=None if params.c is None else cut["c"],
        x=cut["x"], h0=cut["h0"], adjoints=cut["perturbations"],
        states=States(
            prediction=np.asarray(reached.prediction)[own["y"]],
            a=np.asarray(reached.a)[own["perturbations"]],
            h=np.asarray(reached.h)[: T + 1, :B, :H],
        ),
    )  # fmt: skip
