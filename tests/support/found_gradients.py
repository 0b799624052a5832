"""Gradients that were found of a kernel, made by hand, and the calls that they are of."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from bptt_verifier.judge.kernel_cases import KernelCase
from bptt_verifier.judge.kernel_comparisons import Found
from bptt_verifier.tolerance.projections import measure


def draw(*shape: int) -> Any:
    """Draw an exact gradient at 16 neighbours."""
    rng = np.random.default_rng(0)
    return rng.normal(size=shape) * (1 + 0.001 * rng.uniform(-1, 1, (16, *shape)))


def find(
    submitted: Any,
    exact: Any,
    setting: int = 0,
    measured: Any = None,
    dtype: Any = np.float32,
    **more: Any,
) -> Found:
    """What was found of a gradient for w in a setting, rounded to a dtype."""
    case = KernelCase(setting, 0, {"w": np.ones(2, dtype)}, {"y": np.ones(2)})
    submitted = submitted.astype(dtype)
    if measured is None:
        measured = measure(submitted.astype(np.float64) - exact, exact, dtype, 1000)
    return Found(case, {"w": submitted}, {"w": exact}, {"w": measured}, {}, **more)


def calls_of(*leaves: Any, data: Any = None) -> Any:
    """The calls of settings whose arguments have these shapes."""
    arrays = [{n: np.ones(shape) for n, shape in each.items()} for each in leaves or [{}]]
    return [
        SimpleNamespace(arguments=SimpleNamespace(data=data or {}, leaves=each), pullback=None)
        for each in arrays
    ]


FACTORS = np.random.default_rng(1).uniform(1.5, 3, (4, 4))  # of entries, all of them wrong
EXACT = draw(4, 4)
ZERO = find(0 * EXACT, 0 * EXACT)
