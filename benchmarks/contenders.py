"""What a contender is, and which there are.

A contender does the whole training step: loss, gradients, update θ ← θ − η g, its parameters kept
where it computes. What is timed is exactly what the agreement gate reads the gradients off.
"""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Problem

Step = Callable[[Any, Any], tuple[Any, Any]]

# Training must change the parameters, and must not change what there is to time: after thousands of
# steps they should still be near the start, which is the same for all contenders. A rate at which
# the model learned would let the gradients fall until they are subnormal.
LEARNING_RATE = 2.0**-20


class Unavailable(Exception):  # noqa: N818 - a reason to leave a contender out, not an error
    """Why a contender cannot take part here, as a sentence for the reader."""


class Contender(NamedTuple):
    """A training step, ready to be called.

    `start()` gives a state with the problem's parameters, and `step(state, rate)` the loss and the
    next state; it may overwrite the state. `wait` returns when what it is given is computed.
    `rate` brings a learning rate to where the step wants it. `parameters` brings a state's
    parameters home, by name; it is None for what derives nothing, such as the limit.
    `steps` is the number of training steps in one call; then `once` does a single one with the
    same code, for the gate.
    """

    name: str
    start: Callable[[], Any]
    step: Step
    parameters: Callable[[Any], dict[str, Any]] | None
    wait: Callable[[Any], Any] = lambda computed: computed
    rate: Callable[[float], Any] = float
    compile_seconds: float | None = None
    temporary_bytes: int | None = None
    steps: int = 1
    once: Step | None = None


class Setting(NamedTuple):
    """Where and how everything runs: a JAX device, and whether products may round to TF32."""

    device: Any
    tf32: bool = False

    @property
    def gpu(self) -> bool:
        """Whether this is not the processor that Python runs on."""
        return bool(self.device.platform != "cpu")


Builder = Callable[[str, Problem, Setting], Contender]


def named(params: Any) -> dict[str, Any]:
    """Parameters by name, as NumPy arrays; absent ones are left out."""
    return {
        name: np.asarray(value) for name, value in params._asdict().items() if value is not None
    }


def fastest(
    candidates: Sequence[Callable[[], Any]], wait: Callable[[Any], Any] = lambda computed: computed
) -> Callable[[], Any]:
    """The one whose best of three calls is fastest, after one that does not count."""

    def best_of_three(candidate: Callable[[], Any]) -> float:
        wait(candidate())
        return min(timed_once(lambda: wait(candidate()))[1] for _ in range(3))

    return min(candidates, key=best_of_three)


def timed_once(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns, and how many seconds it took."""
    begun = perf_counter()
    result = function()
    return result, perf_counter() - begun
