"""Contenders: implementations of the training step, and the setting that they run in.

A contender does the whole training step: loss, gradients and update θ ← θ − η g, with parameters
on its own device. The agreement gate checks the gradients of exactly the step that is timed.
"""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Problem

Step = Callable[[Any, Any], tuple[Any, Any]]

# Small, so that the parameters are near their start after thousands of steps, and every contender
# computes with the same numbers. At a rate at which the model learns, the gradients would fall
# until they are subnormal.
LEARNING_RATE = 2.0**-20


class Unavailable(Exception):  # noqa: N818 - a reason to leave a contender out, not an error
    """The reason why a contender cannot run here, as a sentence."""


class Contender(NamedTuple):
    """A training step, ready to call.

    `start()` returns a state with the problem's parameters. `step(state, rate)` returns the loss
    and the next state, and may overwrite the state. `wait` blocks until its argument is computed.
    `rate` moves a learning rate to the device. `parameters` returns a state's parameters as NumPy
    arrays, by name; it is None for contenders without gradients, such as the limit.
    `exchanged_bytes` are those of the arrays that devices exchange in a step. `steps` is the number
    of training steps in one call; if it is not 1, `once` does a single step, for the gate.
    """

    name: str
    start: Callable[[], Any]
    step: Step
    parameters: Callable[[Any], dict[str, Any]] | None
    wait: Callable[[Any], Any] = lambda computed: computed
    rate: Callable[[float], Any] = float
    compile_seconds: float | None = None
    temporary_bytes: int | None = None
    exchanged_bytes: int | None = None
    steps: int = 1
    once: Step | None = None


class Setting(NamedTuple):
    """The JAX device of a run, and whether products may round to TF32."""

    device: Any
    tf32: bool = False

    @property
    def gpu(self) -> bool:
        """True if the device is not the CPU."""
        return bool(self.device.platform != "cpu")


Builder = Callable[[str, Problem, Setting], Contender]


def named(params: Any) -> dict[str, Any]:
    """The parameters by name, as NumPy arrays, without those that are None."""
    return {
        name: np.asarray(value) for name, value in params._asdict().items() if value is not None
    }


def fastest(
    candidates: Sequence[Callable[[], Any]], wait: Callable[[Any], Any] = lambda computed: computed
) -> Callable[[], Any]:
    """The candidate with the fastest of three calls, after a warm-up call."""

    def best_of_three(candidate: Callable[[], Any]) -> float:
        wait(candidate())
        return min(timed_once(lambda: wait(candidate()))[1] for _ in range(3))

    return min(candidates, key=best_of_three)


def timed_once(function: Callable[[], Any]) -> tuple[Any, float]:
    """The result of a call, and the seconds that it took."""
    begun = perf_counter()
    result = function()
    return result, perf_counter() - begun
