"""The unrolled network of any cell: a step repeated over time, a loss at the end, and autodiff.

A cell is a function step(params, state, x_t, ε_t, option) -> (a_t, next state), where the state is
a tuple that begins with h. This module runs it over a batch of sequences of any lengths;
`jax.value_and_grad` differentiates it. A zero ε_t is added to a_t; ∂L/∂ε_t at ε = 0 is δ_t.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jax_reference import losses
from jax_reference.inputs import Parameters

P = TypeVar("P", bound=Parameters)
State = tuple[Array, ...]
Step = Callable[[Any, State, Array, Array, Any], tuple[Array, State]]


class Model(NamedTuple):
    """The parts of a model that are not arrays: hashable, and static when compiled.

    `option` is the RNN's activation or the GRU's placement of the reset gate.
    """

    step: Step
    option: Any = None
    loss: str = "mse"
    outputs: str = "last"


class States(NamedTuple):
    """The forward pass: prediction, pre-activations a_1 … a_T, states h_0 … h_T, LSTM cells.

    JAX arrays here, NumPy arrays from `padded`.
    """

    prediction: Float[Any, "*T B O"]
    a: Float[Any, "T B G"]
    h: Float[Any, "T+1 B H"]
    cells: Float[Any, "T+1 B H"] | None = None


class Derivatives(NamedTuple):
    """The loss, its gradient with respect to everything, and the states of the forward pass.

    G is H times the number of gates. c0 is the LSTM's, b_n the GRU's.
    JAX arrays here, NumPy arrays from `padded`.
    """

    loss: Float[Any, ""]
    U: Float[Any, "G D"]
    W: Float[Any, "G H"]
    V: Float[Any, "O H"]
    b: Float[Any, " G"] | None
    c: Float[Any, " O"] | None
    x: Float[Any, "T B D"]
    h0: Float[Any, "B H"]
    adjoints: Float[Any, "T B G"]
    states: States
    c0: Float[Any, "B H"] | None = None
    b_n: Float[Any, " H"] | None = None


def unroll(
    model: Model,
    params: Parameters,
    x: Float[Array, "T B D"],
    first: State,
    perturbations: Float[Array, "T B G"] | float,
    lengths: Int[Array, " B"] | None = None,
    truncation: Any = None,
) -> tuple[Array, State]:
    """All a_t, and every state from the first, time leading. Equation (P2).

    A sequence that has ended keeps its state, so its h_T is its last state. With a truncation k,
    the states h_1, h_2, … before the last k steps of each sequence are constants.
    """
    T, B, _ = x.shape
    ends = jnp.full(B, T) if lengths is None else lengths

    def advance(state: State, inputs: tuple[Array, Array, Array]) -> tuple[State, Any]:
        t, x_t, perturbation = inputs
        a, reached = model.step(params, state, x_t, perturbation, model.option)
        if truncation is not None:
            kept = (t > ends - truncation)[:, None]
            reached = tuple(jnp.where(kept, s, jax.lax.stop_gradient(s)) for s in reached)
        if lengths is not None:
            at_work = (t <= lengths)[:, None]
            reached = tuple(
                jnp.where(at_work, new, old)  # (P2)  the step's h_t for t ≤ length, else h_{t-1}
                for new, old in zip(reached, state, strict=True)
            )
        return reached, (a, reached)

    perturbations = jnp.broadcast_to(perturbations, (T, B, len(params.W))).astype(x.dtype)
    _, (a, states) = jax.lax.scan(advance, first, (jnp.arange(1, T + 1), x, perturbations))
    return a, tuple(
        jnp.concatenate([start[None], rest]) for start, rest in zip(first, states, strict=True)
    )


def output(params: Parameters, h: Float[Array, "*T B H"]) -> Float[Array, "*T B O"]:
    """ŷ = V h + c."""
    prediction: Array = h @ params.V.T
    return prediction if params.c is None else prediction + params.c


def states(
    model: Model,
    params: Parameters,
    x: Float[Array, "T B D"],
    first: State,
    perturbations: Float[Array, "T B G"] | float = 0.0,
    lengths: Int[Array, " B"] | None = None,
    truncation: Any = None,
) -> States:
    """The forward pass."""
    a, reached = unroll(model, params, x, first, perturbations, lengths, truncation)
    h = reached[0]
    prediction = output(params, h[1:] if model.outputs == "every" else h[-1])
    return States(prediction, a, *reached)


def objective(
    params: Parameters,
    x: Float[Array, "T B D"],
    first: State,
    perturbations: Float[Array, "T B G"] | float,
    y: Array,
    lengths: Int[Array, " B"] | None,
    *,
    model: Model,
    truncation: int | None,
) -> tuple[Float[Array, ""], States]:
    """The loss as a function of every argument that it is differentiated with respect to."""
    reached = states(model, params, x, first, perturbations, lengths, truncation)
    prediction = reached.prediction
    valid = jnp.ones(prediction.shape, bool)
    if model.outputs == "every" and lengths is not None:
        counted = jnp.arange(1, len(x) + 1)[:, None] <= lengths
        valid = jnp.broadcast_to(counted[..., None], prediction.shape)
    y = losses.one_hot(y, prediction.shape[-1], prediction.dtype)
    return losses.find(model.loss)(prediction, y, valid), reached


@partial(jax.jit, static_argnames="model")
def compiled_prediction(
    model: Model, params: Parameters, x: Array, first: State, lengths: Array | None
) -> Array:
    """The prediction ŷ, compiled."""
    prediction: Array = states(model, params, x, first, lengths=lengths).prediction
    return prediction


@partial(jax.jit, static_argnames=("model", "truncation"))
def compiled_value_and_grad(
    model: Model,
    params: P,
    x: Array,
    first: State,
    y: Array,
    lengths: Array | None,
    truncation: int | None,
) -> tuple[Array, P]:
    """The loss and its gradients with respect to the parameters, compiled."""
    function = partial(objective, model=model, truncation=truncation)
    (value, _), gradient = jax.value_and_grad(function, has_aux=True)(
        params, x, first, 0.0, y, lengths
    )
    return value, gradient


@partial(jax.jit, static_argnames=("model", "truncation"))
def compiled_derivatives(
    model: Model,
    params: Parameters,
    x: Array,
    first: State,
    y: Array,
    lengths: Array | None,
    truncation: int | None,
) -> Derivatives:
    """The loss and its gradient with respect to everything, compiled."""
    zero = jnp.zeros((*x.shape[:2], len(params.W)), x.dtype)
    function = partial(objective, model=model, truncation=truncation)
    (value, reached), (d, dx, dfirst, adjoints) = jax.value_and_grad(
        function, argnums=(0, 1, 2, 3), has_aux=True
    )(params, x, first, zero, y, lengths)
    dh0, dc0 = dfirst if len(dfirst) == 2 else (*dfirst, None)
    b_n = getattr(d, "b_n", None)
    return Derivatives(value, d.U, d.W, d.V, d.b, d.c, dx, dh0, adjoints, reached, dc0, b_n)
