"""Small problems that both witnesses train, and how they train them."""

from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from bptt_verifier.problems.problem import Array, Problem, Sizes
from jax_reference import training as autodiff
from manual_bptt import training as manual

WITNESSES = pytest.mark.parametrize("witness", [manual, autodiff], ids=lambda w: w.__name__)
SIZES = Sizes(T=3, B=2, D=2, H=4, O=2)  # one shape, so that JAX compiles once
STEPS = 50
RATE = 2.0**-4  # the same number in every dtype


def descend(witness: ModuleType, problem: Problem, **options: Any) -> Any:
    options = {"learning_rate": RATE, "steps": 20, **problem.simple_options, **options}
    return witness.descend(problem.params, problem.x, problem.y, **options)


class Gated(NamedTuple):
    """A problem for a cell with gates, biases and random first states included."""

    model: str
    params: Any
    x: Array
    y: Array
    first: tuple[Array, ...]

    def descend(self, witness: ModuleType, **options: Any) -> Any:
        options = {"model": self.model, "learning_rate": RATE, "steps": STEPS} | options
        return witness.descend(self.params, self.x, self.y, *self.first, **options)


def gated(model: str, seed: int = 0, dtype: Any = np.float64) -> Gated:
    rng, (T, B, D, H, O) = np.random.default_rng(seed), SIZES
    params = manual.CELLS[model].init(rng, D, H, O, bias=True)
    params = jax.tree.map(lambda weight: weight + rng.normal(size=weight.shape) / 4, params)
    x, y, *first = (rng.normal(size=shape) for shape in ((T, B, D), (B, O), (B, H), (B, H)))
    problem = Gated(model, params, x, y, tuple(first[: 1 + (model == "lstm")]))
    return jax.tree.map(lambda leaf: leaf if leaf is model else leaf.astype(dtype), problem)
