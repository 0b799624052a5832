"""The clock: contenders in turn, round by round, each round in another order."""

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any

import jax
import numpy as np

from benchmarks.contenders import LEARNING_RATE, Contender

SHORTEST = 20e-3  # seconds of one sample: far above what the clock and waking threads add
MOST = 10_000  # calls in one sample
# OpenBLAS's threads look for more work for some 27 ms before they sleep; a step of XLA takes up to
# 1.7 times as long meanwhile, and for some steps after.
SETTLING = 0.12  # seconds of calls before the clock starts


class Transfer(RuntimeError):  # noqa: N818 - what happened
    """A step moved data between the host and the device while the clock ran."""


def timed(contender: Contender, state: Any, rate: Any, calls: int) -> tuple[float, Any]:
    """Seconds for so many calls, their last result computed, and the state they leave.

    Raises Transfer where JAX had to move an array to the device or back.
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
    """How many calls make a sample that is long enough, found by doubling; warms up, too.

    The faster of two tries decides: the other may have waited for threads that were asleep.
    """
    calls = 1
    while True:
        first, state = timed(contender, state, rate, calls)
        second, state = timed(contender, state, rate, calls)
        if min(first, second) >= SHORTEST or calls >= MOST:
            return calls, state
        calls *= 2


def settled(contender: Contender, state: Any, rate: Any, calls: int) -> Any:
    """The state after as many calls as it takes to settle, none of them timed.

    The contender before left its own data in the processor's caches and threads that still spin,
    and this one's threads may be asleep.
    """
    begun = perf_counter()
    while True:
        _, state = timed(contender, state, rate, -(-calls // 2))
        if perf_counter() - begun >= SETTLING:
            return state


def rounds(
    contenders: Sequence[Contender],
    number: int,
    *,
    seed: int = 0,
    enough: Callable[[int], bool] = lambda done: False,
) -> Iterator[dict[str, float]]:
    """Seconds a training step takes, by contender, one dict for each round.

    Every contender goes on from where its last sample left off, after a time of calls that do not
    count. Where `enough`, told how many rounds are done, says so, the rounds end early.
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
            states[i] = settled(contender, states[i], rates[i], calls[i])
            seconds, states[i] = timed(contender, states[i], rates[i], calls[i])
            found[contender.name] = seconds / (calls[i] * contender.steps)
        yield found
