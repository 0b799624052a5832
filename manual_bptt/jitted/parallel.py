"""The training step on several devices: each has a share of the batch, and all have the weights.

Each device runs the compiled sweeps on its own sequences. The loss and all gradients of the weights
are then added up over the devices as one array, by one all-reduce; nothing else is sent. The
devices may be the cores of one machine, GPUs, or those of several processes that
`jax.distributed.initialize` has joined. Source: docs/derivation.md, section 15.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Int, Shaped

from manual_bptt import gru as readable_gru
from manual_bptt import inputs
from manual_bptt import lstm as readable_lstm
from manual_bptt.activations import Array as NumPyArray
from manual_bptt.jitted import gru, lstm, rnn, step
from manual_bptt.jitted.losses import SUMS
from manual_bptt.jitted.step import Given, Model, Weights
from manual_bptt.workspace import count_gates


def value_and_grad(
    params: Any,
    x: Float[Array | NumPyArray, "T B D"],
    y: Shaped[Array | NumPyArray, "*T B O"],
    h0: Float[Array | NumPyArray, "B H"] | None = None,
    c0: Float[Array | NumPyArray, "B H"] | None = None,
    *,
    mesh: Mesh,
    activation: str = "tanh",
    reset: str = "after",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array | NumPyArray, " B"] | None = None,
    truncation: int | None = None,
    checkpoint_every: int | None = None,
) -> tuple[Float[Array, ""], Any]:
    """The loss of the whole batch and its gradients, with the batch shared out over a mesh.

    `params` are those of `rnn`, `lstm` or `gru`, told apart by the shape of W; the options are
    those of the cell's own `value_and_grad`. The batch is divided along all axes of `mesh`, and its
    size must be a multiple of the number of devices. Loss and gradients are on every device.
    On CPUs it returns when they are there: two programs at once, each of which waits for all its
    devices, may take all threads of XLA from each other and wait for ever. Under a `jax.jit` of
    your own, wait for each result yourself.
    Raises TypeError or ValueError naming the argument that does not fit.
    """
    require_mesh(mesh)
    options = activation, reset, loss, outputs, lengths, truncation, checkpoint_every
    model, given = arguments(params, x, y, h0, c0, *options)
    B = given.x.shape[1]
    if B % mesh.size:
        raise ValueError(
            f"x: expected a batch that {mesh.size} devices share evenly, found B = {B}"
        )
    with step.precision(given):
        value, gradient = compiled(mesh, model, placed(mesh, outputs, given))
    if mesh.devices.flat[0].platform == "cpu" and not isinstance(value, jax.core.Tracer):
        wait: Any = jax.block_until_ready
        wait((value, gradient))
    return value, model.parameters(*gradient[: len(model.parameters._fields)])


def arguments(
    params: Any,
    x: Any,
    y: Any,
    h0: Any,
    c0: Any,
    activation: str,
    reset: str,
    loss: str,
    outputs: str,
    lengths: Any,
    truncation: int | None,
    checkpoint_every: int | None,
) -> tuple[Model[Any], Given]:
    """The model that these parameters belong to, told by the shape of W, and its arguments.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    states: dict[str, Any] = {"h0": h0}
    gates = count_gates(params)
    if gates == readable_lstm.GATES:
        model: Model[Any] = lstm.model_of(loss)
        states["c0"] = c0
    elif c0 is not None:
        raise TypeError(f"c0: expected None, found {type(c0).__name__}")
    elif gates == readable_gru.GATES:
        model = gru.model_of(reset, loss)
    else:
        model = rnn.model_of(activation, loss, checkpoint_every, outputs, lengths, truncation)
    if gates != 1:
        inputs.name_among("activation", activation, ("tanh",))
        if checkpoint_every is not None:
            raise ValueError(f"checkpoint_every: expected None, found {checkpoint_every}")
    return step.arguments(model, params, x, y, outputs, lengths, truncation, **states)


def require_mesh(mesh: Any) -> None:
    """Raises TypeError for anything but a mesh of devices."""
    if not isinstance(mesh, Mesh):
        raise TypeError(f"mesh: expected a jax.sharding.Mesh, found {type(mesh).__name__}")


def shared_out(mesh: Mesh, outputs: str) -> Given:
    """How each argument lies on the devices: the weights on all, the sequences in shares."""
    spec: Any = PartitionSpec
    of_batch, after_time = spec(mesh.axis_names), spec(None, mesh.axis_names)
    y = after_time if outputs == "every" else of_batch
    return Given(weights=spec(), x=after_time, y=y, first=of_batch, lengths=of_batch)


def placed(mesh: Mesh, outputs: str, given: Given) -> Given:
    """The arguments on their devices. Each process takes its own part of a NumPy array."""

    def place(spec: PartitionSpec, values: Any) -> Any:
        sharding = NamedSharding(mesh, spec)
        if isinstance(values, Array):
            return jax.device_put(values, sharding)
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    specs = shared_out(mesh, outputs)
    found = [
        jax.tree.map(partial(place, spec), values)
        for spec, values in zip(specs, given, strict=True)
    ]
    return Given(*found)


@partial(jax.jit, static_argnums=(0, 1))
def compiled(mesh: Mesh, model: Model[Any], given: Given) -> tuple[Float[Array, ""], Weights]:
    """The loss and its gradients with respect to the weights, compiled for the mesh."""
    share = partial(on_one_device, mesh.axis_names, model)
    specs, everywhere = shared_out(mesh, model.outputs), shared_out(mesh, model.outputs).weights
    # Without check_vma JAX takes our word that the sums are the same on every device.
    run = jax.shard_map(
        share, mesh=mesh, in_specs=(specs,), out_specs=(everywhere, everywhere), check_vma=False
    )
    found: tuple[Array, Weights] = run(given)
    return found


def on_one_device(
    axes: tuple[str, ...], model: Model[Any], given: Given
) -> tuple[Float[Array, ""], Weights]:
    """The loss and the gradients of all devices' sequences, from those of this device's."""
    weighed, n = weigh(model, given)  # the devices have shares of equal size
    if model.loss in SUMS:
        summed: tuple[Array, Weights] = added(axes, weighed)
        return summed
    found, N = added(axes, (weighed, n))
    mean: tuple[Array, Weights] = jax.tree.map(lambda each: each / N, found)  # (Q17)
    return mean


def weigh(model: Model[Any], given: Given, size: int = 1) -> tuple[tuple[Array, Weights], Array]:
    """N_p times the loss and the gradients of a share, and N_p. (Q17)

    `size` is the share's, relative to the others. Of sequences of other lengths, N_p is the number
    of steps that count; of a loss that is a sum, 1.
    """
    value, gradients = step.everything(model, given)
    n: Any = 1 if model.loss in SUMS else size
    if model.loss not in SUMS and model.outputs == "every" and given.lengths is not None:
        n = given.lengths.sum()
    n = jnp.asarray(n, value.dtype)
    return jax.tree.map(lambda each: n * each, (value, gradients.weights)), n


def added(axes: tuple[str, ...], values: Any) -> Any:
    """The sums of all arrays over the devices, sent as one array."""
    arrays, structure = jax.tree.flatten(values)
    add: Any = lax.psum
    together = add(jnp.concatenate([array.reshape(-1) for array in arrays]), axes)
    found, start = [], 0
    for array in arrays:
        found.append(together[start : start + array.size].reshape(array.shape))
        start += array.size
    return jax.tree.unflatten(structure, found)
