"""Gradient descent, compiled: many steps in one `jax.lax.scan`, no Python between them.

A compiled step of a small model takes microseconds; calling it from Python takes a hundred. Names,
arguments and meaning are those of the other witness's training; the gradient is JAX's. Training
that ends early loses no finished step, and n steps followed by N − n give the same bits as N steps.
"""

from collections.abc import Callable
from functools import partial
from math import inf
from numbers import Real
from time import perf_counter
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jax_reference import activations, losses, unrolled
from jax_reference.inputs import Parameters, arguments, precision, require_name
from jax_reference.padded import CELLS
from jax_reference.rnn import Activation
from jax_reference.unrolled import Model

P = TypeVar("P", bound=Parameters)
Stopped = Literal["target", "limit", "diverged", "interrupted"]

CHUNK = 1000  # steps compiled into one call
PATIENCE = 0.1  # seconds; a call that takes less is followed by one with more steps


class Run(NamedTuple, Generic[P]):
    """The result of training: `losses[k]` is the loss after k updates, the last that of `params`.

    `params` has the structure of the given pytree; its leaves and `losses` are NumPy arrays.
    `stopped` says why training ended: "target" where the loss is at most the target, "limit" where
    the steps are used up, "diverged" and "interrupted" in the exceptions of those names.
    """

    params: P
    losses: Float[np.ndarray[Any, np.dtype[Any]], " updates+1"]
    stopped: Stopped


class Diverged(ArithmeticError):  # noqa: N818 - named like KeyboardInterrupt
    """The loss or a parameter became infinite or NaN. `run` ends with the last finite ones."""

    def __init__(self, message: str, run: Run[Any]) -> None:
        super().__init__(message)
        self.run = run


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended training. `run` ends with the last finished call of compiled steps."""

    def __init__(self, message: str, run: Run[Any]) -> None:
        super().__init__(message)
        self.run = run


class State(NamedTuple, Generic[P]):
    """Parameters, their gradient, the steps done in this call, and whether to do another."""

    params: P
    gradient: P
    done: Array
    running: Array


@partial(jax.jit, static_argnames="model")
def _steps(
    params: P, gradient: P, x: Array, y: Array, first: unrolled.State, rate: Array, target: Array,
    allowed: Array, model: Model,
) -> tuple[State[P], Float[Array, " chunk"]]:  # fmt: skip
    """Do up to `allowed` of CHUNK steps; return the state and the loss of each step.

    A step with a loss or a parameter that is not finite changes nothing.
    """
    objective = partial(unrolled.objective, model=model, truncation=None)

    def step(state: State[P]) -> tuple[State[P], Array]:
        candidate = jax.tree.map(lambda p, g: p - rate * g, state.params, state.gradient)
        (value, _), gradient = jax.value_and_grad(objective, has_aux=True)(
            candidate, x, first, 0.0, y, None
        )
        finite = jnp.isfinite(value)
        for weight in jax.tree.leaves(candidate):
            finite &= jnp.isfinite(weight).all()
        done = state.done + finite.astype(jnp.int32)
        params, gradient = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (candidate, gradient),
            (state.params, state.gradient),
        )
        running = finite & (value > target) & (done < allowed)
        return State(params, gradient, done, running), value

    def rest(state: State[P]) -> tuple[State[P], Array]:
        return state, jnp.zeros((), x.dtype)

    # `lax.cond`, because a skipped step then costs a fiftieth of one computed and discarded.
    return jax.lax.scan(
        lambda state, _: jax.lax.cond(state.running, step, rest, state),
        State(params, gradient, jnp.int32(0), jnp.bool(True)),
        length=CHUNK,
    )


def descend(
    params: P,
    x: Float[Array, "T B D"],
    y: Float[Array, "B O"],
    h0: Float[Array, "B H"] | None = None,
    c0: Float[Array, "B H"] | None = None,
    *,
    model: str = "rnn",
    learning_rate: float,
    steps: int,
    target: float | None = None,
    activation: Activation | None = None,
    loss: str = "mse",
    progress: Callable[[int, float], None] = lambda steps, loss: None,
) -> Run[P]:
    """Gradient descent from `params`, until the loss is at most `target` or after `steps` updates.

    `model` names the cell. c0 is the LSTM's alone, and `activation` the RNN's, "tanh" for None.
    `progress` is called after every call of compiled steps with the number of steps done and the
    loss; that is also when Ctrl-C is noticed.
    Raises TypeError or ValueError naming the argument that does not fit, Diverged where the loss or
    a parameter is no longer finite, and Interrupted on Ctrl-C; the last two carry the run so far.
    """
    option = option_of(model, c0, activation)
    losses.find(loss)
    step_of, gates, fields, states = CELLS[model]
    x, y, first, _, dtype = arguments(
        params, x, y, h0, c0=c0, gates=gates, states=states, fields=fields, loss=loss
    )
    whole = Model(step_of, option, loss)
    rate, goal = rate_and_goal(learning_rate, steps, target, dtype)

    gradient = jax.tree.map(np.zeros_like, params)  # so the first step only finds the loss
    found: list[float] = []
    reached = params, 0  # the parameters, and how many of the losses lead to them
    allowed = 1

    def run(stopped: Stopped) -> Run[P]:
        last, updates = reached
        return Run(jax.tree.map(np.asarray, last), np.array(found[:updates], dtype), stopped)

    try:
        while reached[1] <= steps and not (found and found[-1] <= goal):
            began = perf_counter()
            allowed = min(allowed, steps + 1 - reached[1])
            with precision(dtype):
                (last, gradient, count, _), values = _steps(
                    reached[0], gradient, x, y, first, rate, goal, np.int32(allowed), whole
                )
                done, values = int(count), np.asarray(values)
            found.extend(values[:done].tolist())
            reached = last, reached[1] + done  # one assignment: Ctrl-C sees both or neither
            if done < allowed and not (done and found[-1] <= goal):
                step, value = reached[1], values[done]
                if step == 0:
                    found, reached = [value], (params, 1)
                raise Diverged(
                    f"{'learning_rate' if step else 'params'}: expected a finite loss, "
                    f"found {'a parameter that is not finite' if np.isfinite(value) else value} "
                    f"at step {step} with learning rate {learning_rate}",
                    run("diverged"),
                )
            progress(reached[1] - 1, found[-1])
            if perf_counter() - began < PATIENCE:
                allowed = min(2 * allowed, CHUNK)
        return run("target" if found[-1] <= goal else "limit")
    except KeyboardInterrupt:
        if reached[1] == 0:
            raise  # no loss is known yet, so there is no run to return
        message = f"training: interrupted after step {reached[1] - 1}"
        raise Interrupted(message, run("interrupted")) from None


def option_of(model: Any, c0: Any, activation: Any) -> Any:
    """The option of the cell's step: the RNN's activation, the GRU's reset, None for the LSTM.

    Raises TypeError or ValueError where there is no such cell, or it lacks an option that is given.
    """
    require_name("model", model, tuple(CELLS))
    if c0 is not None and model != "lstm":
        raise ValueError(f"c0: expected None with model={model!r}, found {type(c0).__name__}")
    if activation is not None and model != "rnn":
        found = repr(activation) if isinstance(activation, str) else type(activation).__name__
        raise ValueError(f"activation: expected None with model={model!r}, found {found}")
    if model == "rnn":
        activation = "tanh" if activation is None else activation
        activations.find(activation)
        return activation
    return "after" if model == "gru" else None


def rate_and_goal(
    learning_rate: Any, steps: Any, target: Any, dtype: np.dtype[Any]
) -> tuple[Any, Any]:
    """The learning rate and the target in the dtype of the parameters; None as target is −∞.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    given: dict[str, Any] = {"learning_rate": learning_rate}
    for name, number in (given if target is None else given | {"target": target}).items():
        if isinstance(number, bool) or not isinstance(number, Real):
            raise TypeError(f"{name}: expected a number, found {type(number).__name__}")
    if not isinstance(steps, int | np.integer) or isinstance(steps, bool):
        raise TypeError(f"steps: expected an integer, found {type(steps).__name__}")
    if steps < 0:
        raise ValueError(f"steps: expected at least 0, found {steps}")
    with np.errstate(over="ignore", under="ignore"):
        rate, goal = (dtype.type(n) for n in (learning_rate, -inf if target is None else target))
    if not 0 < rate < inf:
        raise ValueError(
            f"learning_rate: expected a finite number above 0 in {dtype}, found {learning_rate}"
        )
    if target is not None and not 0 <= goal < inf:
        raise ValueError(f"target: expected None or a finite number from 0 on, found {target}")
    return rate, goal
