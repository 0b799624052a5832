"""The ceilings of a device, measured: one large matrix product and one large copy."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contenders import timed_once

REPEATS = 20


def fastest(function: Any, *given: Any) -> float:
    """Seconds of the fastest of several calls of a function, compiled beforehand."""
    program = jax.jit(function).lower(*given).compile()

    def call() -> Any:
        return program(*given).block_until_ready()

    call()
    return min(timed_once(call)[1] for _ in range(REPEATS))


def ceilings(
    device: Any, dtype: str = "float32", *, side: int = 8192, numbers: int = 2**28
) -> dict[str, float]:
    """10⁹ FLOP/s of a product of `side`² matrices; 10⁹ bytes/s of a copy of `numbers` float32.

    A copy counts twice, for reading and writing. The precision is that of the surrounding run.
    """
    place = partial(jax.device_put, device=device)
    rng = np.random.default_rng(0)
    left, right = (place(rng.normal(size=(side, side)).astype(dtype)) for _ in range(2))
    line = place(np.zeros(numbers, np.float32))
    product = fastest(jnp.matmul, left, right)
    copy = fastest(lambda values: values + 1, line)
    return {
        "matrix product GFLOP/s": round(2 * side**3 / product / 1e9, 1),
        "copy GB/s": round(2 * line.nbytes / copy / 1e9, 1),
    }
