"""Timing of contenders: rounds in which each is timed once, in random order."""

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any

import jax
import numpy as np

from benchmarks.contenders import LEARNING_RATE, Contender

SHORTEST = 20e-3  # seconds of one sample: far more than the clock and waking threads take
MOST = 10_000  # calls in one sample
# OpenBLAS's threads spin for about 27 ms before they sleep. During that time, and for some steps
# after it, a step of XLA takes up to 1.7 times as long.
SETTLING = 0.12  # seconds of calls before the clock starts
SETTLING_GPU = 0.03  # no thread of the other contenders spins, but the clock rate may have fallen


class Transfer(RuntimeError):  # noqa: N818 - an event
    """A timed step moved data between the host and the device."""


def timed(contender: Contender, state: Any, rate: Any, calls: int) -> tuple[float, Any]:
    """The seconds of so many calls, until their last result is computed, and the last state.

    Raises Transfer where JAX moved an array to the device or back.
    """
    with jax.transfer_guard("disallow"):
        begun = perf_counter()
        try:
            for _ in range(calls):
                loss, state = contender.step(state, rate)
            contender.wait((loss, state))
        except RuntimeError as error:  # what the guard raises has no class of its own
            if "isallowed" not in str(error):
                raise
            message = f"{contender.name}: expected no transfer inside the step, found one"
            raise Transfer(f"{message}: {str(error).splitlines()[0]}") from None
        return perf_counter() - begun, state


def calls_needed(contender: Contender, state: Any, rate: Any) -> tuple[int, Any]:
    """The number of calls in a sample of at least `SHORTEST` seconds, found by doubling.

    The faster of two tries counts: the other may have waited for sleeping threads.
    """
    calls = 1
    while True:
        first, state = timed(contender, state, rate, calls)
        second, state = timed(contender, state, rate, calls)
        if min(first, second) >= SHORTEST or calls >= MOST:
            return calls, state
        calls *= 2


def settled(
    contender: Contender, state: Any, rate: Any, calls: int, settling: float | None = None
) -> Any:
    """Call the contender for `settling` seconds without timing it; returns the state.

    The previous contender left its data in the processor's caches and its threads spinning, and
    this contender's threads may be asleep.
    """
    begun = perf_counter()
    while True:
        _, state = timed(contender, state, rate, -(-calls // 2))
        if perf_counter() - begun >= (SETTLING if settling is None else settling):
            return state


def rounds(
    contenders: Sequence[Contender],
    number: int,
    *,
    seed: int = 0,
    enough: Callable[[int], bool] = lambda done: False,
    settling: float | None = None,
) -> Iterator[dict[str, float]]:
    """Yield the seconds of one training step by contender, once for each round.

    Every contender continues from the state of its last sample, after calls that are not timed.
    The rounds end early where `enough(number of rounds done)` is True.
    """
    rng = np.random.default_rng(seed)
    rates = [contender.rate(LEARNING_RATE) for contender in contenders]
    states: list[Any] = []
    calls = []
    for contender, rate in zip(contenders, rates, strict=True):
        count, state = calls_needed(contender, contender.start(), rate)
        calls.append(count)
        states.append(state)
    for done in range(number):
        if enough(done):
            return
        found = dict.fromkeys((contender.name for contender in contenders), 0.0)
        for i in rng.permutation(len(contenders)):
            contender = contenders[i]
            states[i] = settled(contender, states[i], rates[i], calls[i], settling)
            seconds, states[i] = timed(contender, states[i], rates[i], calls[i])
            found[contender.name] = seconds / (calls[i] * contender.steps)
        yield found
