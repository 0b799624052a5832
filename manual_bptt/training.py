"""Gradient descent: forward, loss, backward, update, until the loss meets a target.

Whatever ends training early loses nothing: the exception carries the run so far, and the
parameters of a run are a start like any other. n steps and then N − n are the N steps at once, bit
for bit. Source: docs/derivation.md, section 7.
"""

from collections.abc import Callable
from functools import partial
from math import inf
from numbers import Real
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Shaped

from manual_bptt import gru, lstm, rnn
from manual_bptt.activations import Activation, Array
from manual_bptt.inputs import arguments, name_among, require_at_least

CELLS: dict[str, ModuleType] = {"rnn": rnn, "lstm": lstm, "gru": gru}

Params = rnn.Params | lstm.Params | gru.Params
Stopped = Literal["target", "limit", "diverged", "interrupted"]


class Run(NamedTuple):
    """How far training came: `losses[k]` is the loss after k updates, the last that of `params`.

    `stopped` says why it ended: "target" where the loss is at most the target, "limit" where the
    steps are used up; "diverged" and "interrupted" in the exceptions of those names.
    """

    params: Params
    losses: Shaped[Array, " updates+1"]
    stopped: Stopped


class Diverged(ArithmeticError):  # noqa: N818 - what happened, like KeyboardInterrupt
    """The loss or a parameter became infinite or NaN. `run` ends with the last finite ones."""

    def __init__(self, message: str, run: Run) -> None:
        super().__init__(message)
        self.run = run


class Interrupted(KeyboardInterrupt):
    """Ctrl-C. `run` ends with the last step that was finished."""

    def __init__(self, message: str, run: Run) -> None:
        super().__init__(message)
        self.run = run


def descend(
    params: Params,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "B O"],
    h0: Shaped[Array, "B H"] | None = None,
    c0: Shaped[Array, "B H"] | None = None,
    *,
    model: str = "rnn",
    learning_rate: float,
    steps: int,
    target: float | None = None,
    activation: str | Activation | None = None,
    loss: str = "mse",
    progress: Callable[[int, float], None] = lambda steps, loss: None,
) -> Run:
    """Gradient descent from `params`, until the loss is at most `target` or after `steps` updates.

    `model` names the cell. c0 is the LSTM's alone, and `activation` the RNN's, "tanh" for None.
    `progress` is called after every step with the number of steps done and the loss.
    Raises TypeError or ValueError naming the argument that does not fit, Diverged where the loss or
    a parameter is no longer finite, and Interrupted on Ctrl-C; the last two carry the run so far.
    """
    own = options_of(model, c0, activation)
    cell = CELLS[model]
    weights, x, y, h0, *_ = arguments(
        params, x, y, h0, c0=c0, gates=cell.CELL.gates, fields=cell.Params._fields, loss=loss,
    )  # fmt: skip
    evaluate = partial(cell.value_and_grad, x=x, y=y, h0=h0, loss=loss, **own)
    start = cell.Params(*weights)
    return Descent(evaluate, start).descend(learning_rate, steps, target, progress)


class Descent(NamedTuple):
    """Descent along the gradient of any loss, from any start.

    `evaluate` gives the loss and its gradient at some parameters, as NumPy arrays.
    """

    evaluate: Callable[[Params], tuple[Any, Params]]
    start: Params

    def descend(
        self,
        learning_rate: float,
        steps: int,
        target: float | None,
        progress: Callable[[int, float], None],
    ) -> Run:
        """`descend` from the start; it raises the same, except for arguments that it lacks."""
        rate, goal = rate_and_goal(learning_rate, steps, target, self.start[0].dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            value, gradient = self.evaluate(self.start)
        losses = [value]
        reached = self.start, 1  # the parameters, and how many of the losses lead to them

        def run(stopped: Stopped) -> Run:
            return Run(reached[0], np.array(losses[: reached[1]]), stopped)

        def diverged(step: int, found: object) -> Diverged:
            return Diverged(
                f"{'learning_rate' if step else 'params'}: expected a finite loss, "
                f"found {found} at step {step} with learning rate {learning_rate}",
                run("diverged"),
            )

        if not finite(value):
            raise diverged(0, value)
        try:
            for step in range(1, steps + 1):
                if value <= goal:
                    break
                with np.errstate(over="ignore", invalid="ignore"):
                    candidate = updated(reached[0], gradient, rate)
                    if not all(weight is None or finite(weight) for weight in candidate):
                        raise diverged(step, "a parameter that is not finite")
                    value, gradient = self.evaluate(candidate)
                if not finite(value):
                    raise diverged(step, value)
                losses.append(value)
                reached = candidate, step + 1  # in one assignment: Ctrl-C finds both or neither
                progress(step, value)
            return run("target" if value <= goal else "limit")
        except KeyboardInterrupt:
            message = f"training: interrupted after step {reached[1] - 1}"
            raise Interrupted(message, run("interrupted")) from None


def updated(params: Params, gradient: Params, rate: Any) -> Params:
    """One step of gradient descent; a bias that is absent stays so."""
    moved: list[Any] = [
        None if weight is None else weight - rate * slope  # (T1)  θ ← θ − η ∂L/∂θ
        for weight, slope in zip(params, gradient, strict=True)
    ]
    return type(params)(*moved)


def options_of(model: Any, c0: Any, activation: Any) -> dict[str, Any]:
    """The options that only this cell has.

    Raises TypeError or ValueError where there is no such cell, or it lacks an option that is given.
    """
    name_among("model", model, tuple(CELLS))
    if c0 is not None and model != "lstm":
        raise ValueError(f"c0: expected None with model={model!r}, found {type(c0).__name__}")
    if activation is not None and model != "rnn":
        found = repr(activation) if isinstance(activation, str) else type(activation).__name__
        raise ValueError(f"activation: expected None with model={model!r}, found {found}")
    if model == "rnn":
        return {"activation": "tanh" if activation is None else activation}
    return {"c0": c0} if model == "lstm" else {}


def rate_and_goal(
    learning_rate: Any, steps: Any, target: Any, dtype: np.dtype[Any]
) -> tuple[Any, Any]:
    """The learning rate and the target in the dtype of the parameters; no target is −∞.

    Raises TypeError or ValueError naming the argument that does not fit.
    """
    given: dict[str, Any] = {"learning_rate": learning_rate}
    for name, number in (given if target is None else given | {"target": target}).items():
        if isinstance(number, bool) or not isinstance(number, Real):
            raise TypeError(f"{name}: expected a number, found {type(number).__name__}")
    require_at_least(0, "steps", steps)
    exact = dtype.hasobject
    with np.errstate(over="ignore", under="ignore"):
        rate = learning_rate if exact else dtype.type(learning_rate)
        goal = -inf if target is None else target if exact else dtype.type(target)
    if not 0 < rate < inf:
        raise ValueError(
            f"learning_rate: expected a finite number above 0 in {dtype}, found {learning_rate}"
        )
    if target is not None and not 0 <= goal < inf:
        raise ValueError(f"target: expected None or a finite number from 0 on, found {target}")
    return rate, goal


def finite(value: Any) -> bool:
    """Whether every entry is finite; exact numbers always are."""
    found = np.asarray(value)
    return found.dtype == object or bool(np.isfinite(found).all())
