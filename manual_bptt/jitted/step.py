"""What the compiled cells share: their arguments, the output and the loss, and the way into JAX.

A cell is two sweeps. The one forward leaves h_T and what the one back needs; the one back makes the
gradients of weights, x and first states of ∂L/∂h_T. L is a number, so all its gradients can be
found along with it, and what autodiff brings back is only a factor to them: equation (Q8). In
forward mode, the gradients are multiplied by the direction. A gradient that nobody asks for is not
computed, since XLA drops what has no use.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Float

from manual_bptt import gru, inputs, losses, lstm, rnn
from manual_bptt.jitted.losses import LOSSES, one_hot

TURN = 10  # steps that one turn of a loop does on a GPU; docs/performance.md has measurements

P = TypeVar("P", rnn.Params, lstm.Params, gru.Params)


class Weights(NamedTuple):
    """The weights of any cell, or their gradients; None stands for what a cell does not have."""

    U: Float[Array, "G D"]
    W: Float[Array, "G H"]
    V: Float[Array, "O H"]
    b: Float[Array, " G"] | None
    c: Float[Array, " O"] | None
    b_n: Float[Array, " H"] | None = None


class Given(NamedTuple):
    """What L is a function of, or its gradients with respect to all of that."""

    weights: Weights
    x: Float[Array, "T B D"]
    y: Any
    first: tuple[Float[Array, "B H"] | None, ...]


class Found(NamedTuple):
    """The gradients that a sweep back makes of ∂L/∂h_T."""

    U: Float[Array, "G D"]
    W: Float[Array, "G H"]
    b: Float[Array, " G"]
    x: Float[Array, "T B D"]
    first: tuple[Float[Array, "B H"], ...]
    b_n: Float[Array, " H"] | None = None


class Model(NamedTuple, Generic[P]):
    """Everything about a model that is not an array: hashable, compiled in.

    forward(weights, x, first, option, turn) -> (h_T, trace); backward(weights, x, trace, ∂L/∂h_T,
    option, turn) -> Found. `turn` is the number of steps in one turn of a loop, 1 on a CPU and the
    field of that name on a GPU.
    """

    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[..., Found]
    option: Any
    loss: str
    parameters: type[P]
    gates: int = 1
    turn: int = TURN


def rows(array: Float[Array, "T B K"]) -> Float[Array, "TB K"]:
    """The rows of all sequences at all steps, one below the other."""
    return array.reshape(-1, array.shape[-1])


def zeros_unless_given(
    first: tuple[Any, ...], weights: Weights, x: Float[Array, "T B D"]
) -> tuple[Float[Array, "B H"], ...]:
    """The first states, zeros where they are None."""
    zeros = jnp.zeros((x.shape[1], weights.W.shape[1]), x.dtype)
    return tuple(zeros if state is None else state for state in first)


def output(weights: Weights, h_T: Float[Array, "B H"]) -> Float[Array, "B O"]:
    """The prediction ŷ."""
    prediction = h_T @ weights.V.T  # (F3)  ŷ = V h_T + c
    return prediction if weights.c is None else prediction + weights.c


def by_platform(function: Callable[..., Any], model: Model[Any], given: Given) -> Any:
    """`function(turn, model, given)`, with the `turn` of the platform that it is compiled for."""
    on_gpu, elsewhere = (partial(function, turn, model) for turn in (model.turn, 1))
    return lax.platform_dependent(given, cuda=on_gpu, default=elsewhere)


def everything(model: Model[Any], given: Given) -> tuple[Float[Array, ""], Given]:
    """The loss and all its gradients."""
    found: tuple[Array, Given] = by_platform(sweeps, model, given)
    return found


def sweeps(turn: int, model: Model[Any], given: Given) -> tuple[Float[Array, ""], Given]:
    """The loss and all its gradients: forward sweep, loss, sweep back."""
    weights, x, y, first = given
    h_T, trace = model.forward(weights, x, first, model.option, turn)
    prediction, loss = output(weights, h_T), LOSSES[model.loss]
    targets = one_hot(prediction, y)
    dy = loss.gradient(prediction, targets)
    dh = dy @ weights.V  # (B1)  Vᵀ ∂L/∂ŷ
    found = model.backward(weights, x, trace, dh, model.option, turn)
    gradient = Weights(
        U=found.U,
        W=found.W,
        V=dy.T @ h_T,  # (B6)  ∂L/∂ŷ h_Tᵀ
        b=None if weights.b is None else found.b,
        c=None if weights.c is None else dy.sum(axis=0),  # (B8)  ∂L/∂ŷ
        b_n=None if weights.b_n is None else found.b_n,
    )
    of_targets = loss.of_targets(prediction, targets) if targets is y else None
    value = loss.value(prediction, targets)
    of_first = (None if h is None else d for h, d in zip(first, found.first, strict=True))
    return value, Given(gradient, found.x, of_targets, tuple(of_first))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def loss_alone(model: Model[Any], given: Given) -> Float[Array, ""]:
    """The loss, with the hand-derived gradient with respect to everything that it is given."""
    found: Array = by_platform(sweep_forward, model, given)
    return found


def sweep_forward(turn: int, model: Model[Any], given: Given) -> Float[Array, ""]:
    """The loss alone: forward sweep and loss."""
    weights, x, y, first = given
    h_T, _ = model.forward(weights, x, first, model.option, turn)
    prediction = output(weights, h_T)
    return LOSSES[model.loss].value(prediction, one_hot(prediction, y))


@partial(loss_alone.defjvp, symbolic_zeros=True)
def along(model: Model[Any], at: tuple[Given], directions: tuple[Given]) -> tuple[Array, Array]:
    """The loss, and the inner product of its gradient with a direction: forward mode. (Q8).

    JAX transposes the inner product in reverse mode: what comes back is a factor to the gradients.
    What does not move has no product, so that its gradient is not computed.
    """
    ((given,), (direction,)) = at, directions
    value, gradients = everything(model, given)
    if gradients.y is None:  # classes do not move
        direction = direction._replace(y=None)
    pairs = zip(jax.tree.leaves(gradients), jax.tree.leaves(direction), strict=True)
    products = [
        (gradient * moved).sum()  # (Q8)  ∂F/∂L ∂L/∂θ, or ∂L/∂θ along the direction
        for gradient, moved in pairs
        if not isinstance(moved, SymbolicZero)
    ]
    return value, sum(products, jnp.zeros_like(value))


compiled_loss = jax.jit(loss_alone, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def compiled(model: Model[Any], given: Given) -> tuple[Float[Array, ""], Weights]:
    """The loss and its gradients with respect to the weights, compiled."""
    value, gradients = everything(model, given)
    return value, gradients.weights


def value_and_gradient(
    model: Model[P], params: P, x: Any, y: Any, *options: Any, **states: Any
) -> tuple[Float[Array, ""], P]:
    """The loss and its gradients with respect to the weights, in their own tuple.

    The arguments are those of `arguments`, which raises.
    """
    given = arguments(model, params, x, y, *options, **states)
    with precision(given):
        found, gradient = compiled(model, given)
    return found, model.parameters(*gradient[: len(model.parameters._fields)])


def value(
    model: Model[Any], params: Any, x: Any, y: Any, *options: Any, **states: Any
) -> Float[Array, ""]:
    """The loss, for JAX to differentiate by way of (Q8). The arguments are those of `arguments`."""
    given = arguments(model, params, x, y, *options, **states)
    with precision(given):
        found: Array = compiled_loss(model, given)
    return found


def precision(given: Given) -> AbstractContextManager[Any]:
    """64-bit JAX for the duration of a block, where `given` needs it: never switched globally."""
    return jax.enable_x64(True) if given.x.dtype == np.float64 else nullcontext()


def arguments(
    model: Model[Any],
    params: Any,
    x: Any,
    y: Any,
    outputs: Any,
    lengths: Any,
    truncation: Any,
    **states: Any,
) -> Given:
    """The arguments of a cell as they are, checked for shapes and dtypes, under `jax.jit` too.

    What is demanded, and what is said where it is missing, is that of
    `manual_bptt.inputs.arguments`. No value is looked at but the targets of a cross-entropy, where
    they are at hand. `states` are the first states by name, None for zeros. Of `outputs`, `lengths`
    and `truncation` the compiled sweeps know one value each.
    """
    inputs.name_among("outputs", outputs, ("last",))
    for name, option in {"lengths": lengths, "truncation": truncation}.items():
        if option is not None:
            raise ValueError(
                f"{name}: expected None in the compiled step, found {type(option).__name__}"
            )
    losses.find(model.loss)
    if y is None:
        raise TypeError("y: expected an array, found None")
    weights: dict[str, Any] = {n: getattr(params, n, None) for n in Weights._fields}
    weights = {
        name: inputs.native(name, value) if isinstance(value, np.ndarray) else value
        for name, value in weights.items()
    }
    arrays: dict[str, Any] = {"x": x, "y": y, **states}
    arrays = {name: None if v is None else as_array(name, v) for name, v in arrays.items()}
    whole = {name: shape_only(value) for name, value in (weights | arrays).items()}
    integer = np.issubdtype(arrays["y"].dtype, np.integer)
    try:
        checked = inputs.arguments(
            type(type(params).__name__, (), {name: whole.pop(name) for name in weights})(),
            **whole,
            gates=model.gates,
            fields=Weights._fields,
            loss=losses.CLASSES if integer and model.loss == losses.CLASSES else None,
            also=("bfloat16",),
        )
    except TypeError as error:
        raise TypeError(f"{error}{advice(str(error), weights | arrays)}") from None
    dtype = checked.x.dtype
    if dtype not in (jnp.bfloat16, np.float16, np.float32, np.float64):
        raise TypeError(f"U: expected bfloat16, float16, float32 or float64, found {dtype}")
    y = arrays["y"]
    if not isinstance(y, jax.core.Tracer):
        inputs.require_targets(np.asarray(y), model.loss, checked.weights[2].shape[0], None)
    return Given(Weights(**weights), arrays["x"], y, tuple(arrays[name] for name in states))


def advice(refused: str, values: dict[str, Any]) -> str:
    """What to do where JAX made float32 of a float64 that it differentiates with respect to."""
    found = [(isinstance(v, jax.core.Tracer), getattr(v, "dtype", None)) for v in values.values()]
    made_narrow = (True, np.float32) in found and jnp.result_type(float) == np.float32
    mixed = made_narrow and "as in U, found float64" in refused
    return "; to differentiate float64, JAX needs jax.enable_x64(True)" if mixed else ""


def as_array(name: str, value: Any) -> Any:
    """`value`, where JAX made it, else as a NumPy array in the byte order of this machine."""
    return value if isinstance(value, Array) else inputs.native(name, value)


def shape_only(value: Any) -> Any:
    """Zeros of the shape and dtype of an array, in the memory of one number; else `value`."""
    if not hasattr(value, "dtype"):
        return value
    return np.broadcast_to(np.zeros((), value.dtype), np.shape(value))
