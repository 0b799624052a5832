"""Derivatives for any shape within a fixed capacity, compiled once.

A new shape costs `jax.jit` about a quarter of a second. Verification meets thousands of shapes, so
every problem is padded to arrays of one fixed size, with rows and columns of zeros, and with steps
after the last that leave the state as it is. The padding is cut off the results. Losses, lengths,
outputs at every step and truncation are data here, so each cell compiles once for each option.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jax_reference import activations, gru, losses, lstm, rnn, unrolled
from jax_reference.inputs import (
    Parameters,
    arguments,
    require_name,
    require_truncation,
)
from jax_reference.rnn import Activation
from jax_reference.unrolled import Derivatives, Model, States


class Capacity(NamedTuple):
    """The largest sizes that fit. Each capacity, cell and option compiles once."""

    T: int = 16
    B: int = 4
    D: int = 8
    H: int = 8
    O: int = 4


class Cell(NamedTuple):
    """A cell: its step, number of gates, parameter fields and parts of the state."""

    step: unrolled.Step
    gates: int = 1
    fields: tuple[str, ...] = ("U", "W", "V", "b", "c")
    states: tuple[str, ...] = ("h0",)


CELLS = {
    "rnn": Cell(rnn.step),
    "lstm": Cell(lstm.step, lstm.GATES, states=lstm.STATES),
    "gru": Cell(gru.step, gru.GATES, fields=gru.FIELDS),
}

# G stands for the gates: each gate's block is padded separately.
LAYOUT = {
    "U": "GHD", "W": "GHh", "V": "OH", "b": "GH", "c": "O", "b_n": "H",
    "x": "TBD", "h0": "BH", "c0": "BH", "perturbations": "TBGH", "y": "TBO", "lengths": "B",
}  # fmt: skip


class Padded(NamedTuple):
    """A problem padded to the capacity; an absent bias or first state is zeros."""

    U: Any
    W: Any
    V: Any
    b: Any
    c: Any
    b_n: Any
    x: Any
    h0: Any
    c0: Any
    perturbations: Any


class Fixed(NamedTuple):
    """Inputs that are not differentiated; y and `valid` are given at every step."""

    y: Any
    valid: Any
    lengths: Any
    truncation: Any
    loss: Any


def differentiated(
    model: Model,
    states: tuple[str, ...],
    problem: Padded,
    fixed: Fixed,
    kinds: int = len(losses.LOSSES),
) -> tuple[Array, Padded, States]:
    """The loss, its gradient with respect to everything and the states, not compiled.

    The loss must be among the first `kinds` of `LOSSES`: each takes time to trace and to compile.
    """

    def prediction(problem: Padded) -> tuple[Array, States]:
        first = tuple(getattr(problem, state) for state in states)
        reached = unrolled.states(
            model, problem, problem.x, first, problem.perturbations, fixed.lengths, fixed.truncation
        )
        return reached.prediction, reached

    # The chain rule is cut at the prediction, so that each branch is a loss with its gradient: to
    # differentiate the switch itself takes three times as long to compile.
    predicted, pullback, reached = jax.vjp(prediction, problem, has_aux=True)
    branches = [jax.value_and_grad(loss) for loss in [*losses.LOSSES.values()][:kinds]]
    value, at_prediction = jax.lax.switch(fixed.loss, branches, predicted, fixed.y, fixed.valid)
    (gradient,) = pullback(at_prediction)
    return value, gradient, reached


def moved(
    model: Model,
    states: tuple[str, ...],
    measures: tuple[str, ...],
    problem: Padded,
    direction: Padded,
    fixed: Fixed,
) -> tuple[Array, Padded, States]:
    """The tangents of the loss, of its gradient and of the states along a direction, not compiled.

    That of the gradient is the Hessian times the direction. `measures` names the losses that the
    problem may have, of which each takes time to compile. Nothing is truncated.
    """

    def objective(problem: Padded) -> tuple[Array, States]:
        first = tuple(getattr(problem, state) for state in states)
        reached = unrolled.states(
            model, problem, problem.x, first, problem.perturbations, fixed.lengths
        )
        chosen = [fixed.loss == list(losses.LOSSES).index(name) for name in measures]
        values = [losses.find(n)(reached.prediction, fixed.y, fixed.valid) for n in measures]
        return jnp.select(chosen, values), reached

    differentiated_at = jax.value_and_grad(objective, has_aux=True)
    _, ((value, reached), gradient) = jax.jvp(differentiated_at, (problem,), (direction,))
    return value, gradient, reached


_derivatives = partial(jax.jit, static_argnames=("model", "states"))(differentiated)


class Parts(NamedTuple):
    """The slices that remove the padding, and what the results lack."""

    own: dict[str, tuple[slice, ...]]
    gates: int
    outputs: str
    absent: tuple[str, ...]

    def cut(self, value: Any, gradient: Padded, reached: States) -> Derivatives:
        """The results without padding, as NumPy arrays."""

        def own(name: str, laid: Any) -> Any:
            letters, laid = LAYOUT[name], np.asarray(laid)
            if "G" in letters:
                axis = letters.index("G")
                block = laid.shape[axis] // self.gates
                shape = (*laid.shape[:axis], self.gates, block, *laid.shape[axis + 1 :])
                part = laid.reshape(shape)[self.own[name]]
                return part.reshape(*part.shape[:axis], -1, *part.shape[axis + 2 :])
            return laid[self.own[name]]

        cut = {
            name: None if name in self.absent else own(name, laid)
            for name, laid in gradient._asdict().items()
        }
        adjoints = cut.pop("perturbations")
        T = self.own["x"][0].stop
        B, H = (part.stop for part in self.own["h0"])
        predictions = own("y", reached.prediction)
        return Derivatives(
            loss=np.asarray(value),
            adjoints=adjoints,
            states=States(
                prediction=predictions if self.outputs == "every" else predictions[-1],
                a=own("perturbations", reached.a),
                h=np.asarray(reached.h)[: T + 1, :B, :H],
                cells=None if reached.cells is None else np.asarray(reached.cells)[: T + 1, :B, :H],
            ),
            **cut,
        )


class Laid(NamedTuple):
    """A padded problem, ready for `differentiated`, and its parts of the arrays."""

    model: Model
    states: tuple[str, ...]
    problem: Padded
    fixed: Fixed
    parts: Parts

    def cut(self, value: Any, gradient: Padded, reached: States) -> Derivatives:
        """The results without padding, as NumPy arrays."""
        return self.parts.cut(value, gradient, reached)


def lay_out(
    cell: str,
    params: Parameters,
    x: Any,
    y: Any,
    h0: Any = None,
    c0: Any = None,
    *,
    option: Any = None,
    loss: str = "mse",
    outputs: str = "last",
    lengths: Any = None,
    truncation: int | None = None,
    capacity: Capacity = Capacity(),
) -> Laid:
    """Pad a problem to the capacity. Needs 64-bit JAX.

    Raises what the cell's `derivatives` raises, and ValueError where the problem exceeds the
    capacity.
    """
    step, gates, fields, states = CELLS[cell]
    losses.find(loss)
    require_truncation(truncation, outputs)
    given = arguments(
        params, x, y, h0,
        c0=c0, gates=gates, states=states, fields=fields,
        loss=loss, outputs=outputs, lengths=lengths,
    )  # fmt: skip
    (T, B, D), (O, H) = np.shape(x), np.shape(params.V)
    size = dict(zip(Capacity._fields, (T, B, D, H, O), strict=True))
    most = capacity._asdict()
    for letter, needed in size.items():
        if needed > most[letter]:
            raise ValueError(
                f"capacity: expected {letter} ≥ {needed}, found {letter} = {most[letter]}"
            )
    size |= {"h": H, "G": gates}
    most |= {"h": capacity.H, "G": gates}
    own = {name: tuple(slice(size[letter]) for letter in LAYOUT[name]) for name in LAYOUT}

    def lay(name: str, value: Any) -> np.ndarray[Any, np.dtype[Any]]:
        letters = LAYOUT[name]
        laid = np.zeros([most[letter] for letter in letters])
        if value is not None:
            laid[own[name]] = np.reshape(value, [size[letter] for letter in letters])
        if "G" in letters:
            axis = letters.index("G")
            laid = laid.reshape(*laid.shape[:axis], -1, *laid.shape[axis + 2 :])
        return laid

    rows = np.asarray(given.y)
    if np.issubdtype(rows.dtype, np.integer):
        rows = np.eye(O)[rows]
    ends = np.full(B, T) if given.lengths is None else np.asarray(given.lengths)
    if outputs == "last":  # a sequence that has ended keeps its state until the last step
        targets, counted = np.zeros((T, B, O)), np.zeros((T, B), bool)
        targets[-1], counted[-1] = rows, True
    else:
        targets, counted = rows, np.arange(1, T + 1)[:, None] <= ends
    values = {field: getattr(params, field) for field in fields}
    values |= {"x": given.x} | dict(zip(states, given.first, strict=True))
    absent = {name for name in Padded._fields if values.get(name) is None} - {"perturbations"}
    return Laid(
        Model(step, option, outputs="every"),
        states,
        Padded(*(lay(name, values.get(name)) for name in Padded._fields)),
        Fixed(
            lay("y", targets),
            lay("y", np.repeat(counted[..., None], O, axis=-1)) == 1,
            lay("lengths", ends).astype(np.int64),
            np.int64(capacity.T if truncation is None else truncation),
            np.int64(list(losses.LOSSES).index(loss)),
        ),
        Parts(own, gates, outputs, tuple(absent)),
    )


def started(
    params: Parameters,
    x: Any,
    y: Any,
    h0: Any = None,
    c0: Any = None,
    *,
    cell: str = "rnn",
    activation: Activation = "tanh",
    reset: str = "after",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Any = None,
    truncation: int | None = None,
    capacity: Capacity = Capacity(),
) -> Callable[[], Derivatives]:
    """Start computing `derivatives`; return a function that blocks until the result is there.

    JAX computes while Python continues. Raises what `derivatives` raises.
    """
    require_name("cell", cell, tuple(CELLS))
    activations.find(activation)
    require_name("reset", reset, gru.RESETS)
    with jax.enable_x64(True):
        laid = lay_out(
            cell, params, x, y, h0, c0,
            option={"rnn": activation, "gru": reset}.get(cell),
            loss=loss, outputs=outputs, lengths=lengths, truncation=truncation, capacity=capacity,
        )  # fmt: skip
        results = _derivatives(laid.model, laid.states, laid.problem, laid.fixed)
    return lambda: laid.cut(*results)


def derivatives(
    params: Parameters,
    x: Any,
    y: Any,
    h0: Any = None,
    c0: Any = None,
    *,
    cell: str = "rnn",
    activation: Activation = "tanh",
    reset: str = "after",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Any = None,
    truncation: int | None = None,
    capacity: Capacity = Capacity(),
) -> Derivatives:
    """What the cell's `derivatives` returns, as NumPy arrays, always computed in float64.

    `cell` is "rnn", "lstm" or "gru"; `activation` is the RNN's, `reset` the GRU's. The inputs may
    be float32: their exact values are then the point at which float64 differentiates.
    Raises what the cell's `derivatives` raises, and ValueError where the problem exceeds the
    capacity.
    """
    return started(
        params, x, y, h0, c0,
        cell=cell, activation=activation, reset=reset, loss=loss, outputs=outputs,
        lengths=lengths, truncation=truncation, capacity=capacity,
    )()  # fmt: skip
