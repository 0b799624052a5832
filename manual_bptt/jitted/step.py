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
from jaxtyping import Float, Int

from manual_bptt import gru, inputs, losses, lstm, rnn
from manual_bptt.jitted.losses import Measure, measure_of
from manual_bptt.jitted.sequences import Course, without_padding
from manual_bptt.sequences import steps_that_count

TURN = 10  # steps in one turn of a loop on a GPU, as measured in docs/performance_log.md

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
    lengths: Int[Array, " B"] | None = None


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

    forward(weights, x, first, option, turn, course) -> (h_T, trace); backward(weights, x, trace,
    ∂L/∂h_T, option, turn, course, entering) -> Found. `entering` are the gradients that enter each
    state, for outputs at every step. `turn` is the number of steps in one turn of a loop, 1 on a
    CPU and the field of that name on a GPU. `before` takes h_{t-1} of all steps out of a trace.
    """

    forward: Callable[..., tuple[Array, Any]]
    backward: Callable[..., Found]
    option: Any
    loss: str
    parameters: type[P]
    before: Callable[[Any], Array]
    gates: int = 1
    turn: int = TURN
    outputs: str = "last"
    truncation: int | None = None


def course_of(model: Model[Any], given: Given) -> Course:
    """What of these sequences counts."""
    return Course(given.lengths, model.truncation, model.outputs == "every")


def rows(array: Float[Array, "T B K"]) -> Float[Array, "TB K"]:
    """The rows of all sequences at all steps, one below the other."""
    return array.reshape(-1, array.shape[-1])


def step_of(t: Any, array: Float[Array, "T B K"]) -> Float[Array, "B K"]:
    """The part of step t in an array of all steps."""
    found: Array = lax.dynamic_index_in_dim(array, t, keepdims=False)
    return found


def with_step(
    t: Any, array: Float[Array, "T B K"], value: Float[Array, "B K"]
) -> Float[Array, "T B K"]:
    """The array of all steps with another part of step t, in place where XLA can."""
    found: Array = lax.dynamic_update_index_in_dim(array, value, t, 0)
    return found


def apart(turn: int, x: Float[Array, "T B D"]) -> bool:
    """True where a loop had better write into new arrays than over those that it reads.

    That is so on a GPU, where turns are long, and where B = 1: there XLA makes a product with one
    row a sum, computes its factors once more for it, and copies all steps at every step lest they
    be written over.
    """
    return turn > 1 or x.shape[1] == 1


def zeros_unless_given(
    first: tuple[Any, ...], weights: Weights, x: Float[Array, "T B D"]
) -> tuple[Float[Array, "B H"], ...]:
    """The first states, zeros where they are None."""
    zeros = jnp.zeros((x.shape[1], weights.W.shape[1]), x.dtype)
    return tuple(zeros if state is None else state for state in first)


def output(weights: Weights, h: Float[Array, "*T B H"]) -> Float[Array, "*T B O"]:
    """The prediction ŷ of the last state, or of each."""
    prediction = h @ weights.V.T  # (F3)  ŷ = V h_T + c
    return prediction if weights.c is None else prediction + weights.c


def read_out(turn: int, model: Model[Any], given: Given) -> tuple[Array, Any, Array, Measure]:
    """The states that are read, the trace, the prediction, and the loss of it."""
    weights, x, y, first, lengths = given
    h, trace = model.forward(weights, x, first, model.option, turn, course_of(model, given))
    if model.outputs == "every":
        h = jnp.concatenate([model.before(trace)[1:], h[None]])
    prediction = output(weights, h)
    return h, trace, prediction, measure_of(model.loss, y, prediction, lengths)


def by_platform(function: Callable[..., Any], model: Model[Any], given: Any) -> Any:
    """`function(turn, model, given)`, with the `turn` of the platform that it is compiled for."""
    on_gpu, elsewhere = (partial(function, turn, model) for turn in (model.turn, 1))
    return lax.platform_dependent(given, cuda=on_gpu, default=elsewhere)


def everything(model: Model[Any], given: Given) -> tuple[Float[Array, ""], Given]:
    """The loss and all its gradients."""
    found: tuple[Array, Given] = by_platform(sweeps, model, given)
    return found


def sweeps(turn: int, model: Model[Any], given: Given) -> tuple[Float[Array, ""], Given]:
    """The loss and all its gradients: forward sweep, loss, sweep back."""
    given = given._replace(x=without_padding(given.x, given.lengths))
    weights, x, _, first, _ = given
    h, trace, prediction, measure = read_out(turn, model, given)
    dy = measure.gradient(prediction)
    dh, entering = dy @ weights.V, None  # (B1)  Vᵀ ∂L/∂ŷ
    if model.outputs == "every":
        dh, entering = jnp.zeros_like(h[0]), dh
    course = course_of(model, given)
    found = model.backward(weights, x, trace, dh, model.option, turn, course, entering)
    gradient = Weights(
        U=found.U,
        W=found.W,
        V=rows(dy).T @ rows(h),  # (B6)  ∂L/∂ŷ h_Tᵀ
        b=None if weights.b is None else found.b,
        c=None if weights.c is None else rows(dy).sum(axis=0),  # (B8)  ∂L/∂ŷ
        b_n=None if weights.b_n is None else found.b_n,
    )
    of_first = (None if h is None else d for h, d in zip(first, found.first, strict=True))
    return measure.value(prediction), Given(
        gradient, found.x, measure.of_targets(prediction), tuple(of_first)
    )


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def loss_alone(model: Model[Any], given: Given) -> Float[Array, ""]:
    """The loss, with the hand-derived gradient with respect to everything that it is given."""
    found: Array = by_platform(sweep_forward, model, given)
    return found


def sweep_forward(turn: int, model: Model[Any], given: Given) -> Float[Array, ""]:
    """The loss alone: forward sweep and loss."""
    given = given._replace(x=without_padding(given.x, given.lengths))
    *_, prediction, measure = read_out(turn, model, given)
    return measure.value(prediction)


@partial(loss_alone.defjvp, symbolic_zeros=True)
def along(model: Model[Any], at: tuple[Given], directions: tuple[Given]) -> tuple[Array, Array]:
    """The loss, and the inner product of its gradient with a direction: forward mode. (Q8).

    JAX transposes the inner product in reverse mode: what comes back is a factor to the gradients.
    What does not move has no product, so that its gradient is not computed.
    """
    ((given,), (direction,)) = at, directions
    value, gradients = everything(model, given)
    direction = direction._replace(lengths=None)  # whole numbers do not move
    if gradients.y is None:  # nor do classes
        direction = direction._replace(y=None)
    pairs = zip(jax.tree.leaves(gradients), jax.tree.leaves(direction), strict=True)
    products = [
        (gradient * moved).sum()  # (Q8)  ∂F/∂L ∂L/∂θ, or ∂L/∂θ along the direction
        for gradient, moved in pairs
        if not isinstance(moved, SymbolicZero)
    ]
    return value, sum(products, jnp.zeros_like(value))


compiled_loss = jax.jit(loss_alone, static_argnums=0)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def all_states(model: Model[Any], given: Given) -> Float[Array, "T B H"]:
    """All states, with the hand-derived way back from a gradient with respect to each."""
    return states_and_trace(model, given)[0]


def states_and_trace(model: Model[Any], given: Given) -> tuple[Float[Array, "T B H"], Any]:
    """All states, and what the way back needs."""
    given = given._replace(x=without_padding(given.x, given.lengths))

    def run(turn: int, model: Model[Any], given: Given) -> tuple[Array, Any]:
        course = course_of(model, given)
        h_T, trace = model.forward(given.weights, given.x, given.first, model.option, turn, course)
        return jnp.concatenate([model.before(trace)[1:], h_T[None]]), trace

    found: tuple[Array, Any] = by_platform(run, model, given)
    return found[0], (given, found[1])


def states_back(model: Model[Any], kept: Any, entering: Float[Array, "T B H"]) -> tuple[Given]:
    """The gradients of all that the states depend on; V and c are no part of them."""

    def run(turn: int, model: Model[Any], given: tuple[Any, Any, Array]) -> Found:
        (weights, x, _, _, lengths), trace, entering = given
        course = Course(lengths, every=True)
        zero = jnp.zeros_like(entering[0])
        return model.backward(weights, x, trace, zero, model.option, turn, course, entering)

    given, trace = kept
    found: Found = by_platform(run, model, (given, trace, entering))
    weights = given.weights
    gradient = Weights(
        U=found.U,
        W=found.W,
        V=jnp.zeros_like(weights.V),
        b=None if weights.b is None else found.b,
        c=None if weights.c is None else jnp.zeros_like(weights.c),
        b_n=None if weights.b_n is None else found.b_n,
    )
    of_first = (None if h is None else d for h, d in zip(given.first, found.first, strict=True))
    return (Given(gradient, found.x, None, tuple(of_first)),)


all_states.defvjp(states_and_trace, states_back)
compiled_states = jax.jit(all_states, static_argnums=0)


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
    model, given = arguments(model, params, x, y, *options, **states)
    with precision(given):
        found, gradient = compiled(model, given)
    return found, model.parameters(*gradient[: len(model.parameters._fields)])


def value(
    model: Model[Any], params: Any, x: Any, y: Any, *options: Any, **states: Any
) -> Float[Array, ""]:
    """The loss, for JAX to differentiate by way of (Q8). The arguments are those of `arguments`."""
    model, given = arguments(model, params, x, y, *options, **states)
    with precision(given):
        found: Array = compiled_loss(model, given)
    return found


def layer(model: Model[Any], params: Any, x: Any, lengths: Any, **states: Any) -> Array:
    """The bare layer: all states h_t (T, B, H), for JAX to differentiate by way of (O1)."""
    model, given = arguments(model, params, x, None, "every", lengths, None, bare=True, **states)
    with precision(given):
        found: Array = compiled_states(model, given)
    return found


def precision(given: Given) -> AbstractContextManager[Any]:
    """64-bit JAX for the duration of a block, where `given` needs it: never switched globally."""
    return jax.enable_x64(True) if given.x.dtype == np.float64 else nullcontext()


def arguments(
    model: Model[P],
    params: Any,
    x: Any,
    y: Any,
    outputs: Any,
    lengths: Any,
    truncation: Any,
    *,
    bare: bool = False,
    **states: Any,
) -> tuple[Model[P], Given]:
    """The model with its options, and the arguments as they are, checked under `jax.jit` too.

    What is demanded, and what is said where it is missing, is that of
    `manual_bptt.inputs.arguments`. No value is looked at but the lengths and the targets of a
    cross-entropy, where they are at hand. `states` are the first states by name, None for zeros.
    A `bare` layer has no targets.
    """
    inputs.name_among("outputs", outputs, inputs.OUTPUTS)
    inputs.steps_kept(truncation, outputs)
    losses.find(model.loss)
    if y is None and not bare:
        raise TypeError("y: expected an array, found None")
    weights: dict[str, Any] = {n: getattr(params, n, None) for n in Weights._fields}
    weights = {
        name: inputs.native(name, value) if isinstance(value, np.ndarray) else value
        for name, value in weights.items()
    }
    arrays: dict[str, Any] = {"x": x, "y": y, **states}
    arrays = {name: None if v is None else as_array(name, v) for name, v in arrays.items()}
    whole = {name: shape_only(value) for name, value in (weights | arrays).items()}
    integer = not bare and np.issubdtype(arrays["y"].dtype, np.integer)
    try:
        checked = inputs.arguments(
            type(type(params).__name__, (), {name: whole.pop(name) for name in weights})(),
            **whole,
            gates=model.gates,
            fields=Weights._fields,
            loss=losses.CLASSES if integer and model.loss == losses.CLASSES else None,
            outputs=outputs,
            also=("bfloat16",),
        )
    except TypeError as error:
        raise TypeError(f"{error}{advice(str(error), weights | arrays)}") from None
    dtype = checked.x.dtype
    if dtype not in (jnp.bfloat16, np.float16, np.float32, np.float64):
        raise TypeError(f"U: expected bfloat16, float16, float32 or float64, found {dtype}")
    T, y = len(checked.x), arrays["y"]
    traced = lengths is not None and is_elsewhere(lengths)
    if lengths is not None:
        of_shape = np.ones(lengths.shape, lengths.dtype) if traced else np.asarray(lengths)
        known = inputs.whole_numbers("lengths", of_shape, checked.x)
        lengths = lengths if traced else known.astype(np.int32)
    if not (bare or traced or is_elsewhere(y)):
        valid = steps_that_count(lengths, T) if outputs == "every" else None
        inputs.require_targets(np.asarray(y), model.loss, checked.weights[2].shape[0], valid)
    if truncation is not None and truncation >= T:
        truncation = None  # no step is cut off
    first = tuple(arrays[name] for name in states)
    given = Given(Weights(**weights), arrays["x"], y, first, lengths)
    return model._replace(outputs=outputs, truncation=truncation), given


def is_elsewhere(value: Any) -> bool:
    """True if the values are not at hand: traced, or in part on another process's devices."""
    traced = isinstance(value, jax.core.Tracer)
    return traced or (isinstance(value, Array) and not value.is_fully_addressable)


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
