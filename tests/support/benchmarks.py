"""The benchmarks' small problem, contenders with a mistake, and names that no result may hold."""

import getpass
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.agreement import expected
from benchmarks.balanced import balanced
from benchmarks.contenders import Contender, Setting, named
from bptt_verifier.problems.problem import Problem, Sizes
from manual_bptt import rnn
from tests.support.modules import ROOT

SMALL = Sizes(T=4, B=3, D=2, H=5, O=2)
HERE = Setting(jax.devices("cpu")[0])


def problem(cell: str = "rnn", sizes: Sizes = SMALL, dtype: str = "float32") -> Problem:
    return balanced(cell, sizes, dtype=dtype)


@cache
def truth_of(cell: str, dtype: str) -> Any:
    """The reference of the small problem, compiled once for each cell and dtype."""
    return expected(problem(cell, dtype=dtype))


Changed = Callable[[Any, Any, Any], tuple[Any, Any]]


def wrong_gradient(change: Callable[[Any], Any]) -> Changed:
    return lambda loss, gradient, params: (loss, change(gradient))


# What a contender may get wrong, as a change of (loss, gradient).
WRONG: dict[str, Changed] = {
    "W off by a thousandth": wrong_gradient(lambda g: g._replace(W=g.W * 1.001)),
    "one entry of U": wrong_gradient(
        lambda g: g._replace(U=g.U + 1e-3 * (np.arange(g.U.size).reshape(g.U.shape) == 7))
    ),
    "V transposed in sign": wrong_gradient(lambda g: g._replace(V=-g.V)),
    "W transposed": wrong_gradient(lambda g: g._replace(W=g.W.T)),
    "twice the step": wrong_gradient(lambda g: jax.tree.map(lambda slope: 2 * slope, g)),
    "no update": wrong_gradient(lambda g: jax.tree.map(np.zeros_like, g)),
    "NaN": wrong_gradient(lambda g: g._replace(U=g.U * np.float32(np.nan))),
    "half the loss": lambda loss, gradient, params: (loss / 2, gradient),
}


def tampering(change: Changed, name: str, given: Problem, setting: Setting) -> Contender:
    """The readable derivation with a mistake."""

    def step(params: Any, rate: float) -> tuple[Any, Any]:
        loss, gradient = change(*rnn.value_and_grad(params, given.x, given.y), params)
        moved = (
            None if w is None else (w - w.dtype.type(rate) * g).astype(w.dtype)
            for w, g in zip(params, gradient, strict=True)
        )
        return loss, type(params)(*moved)

    return Contender(name, lambda: given.params, step, named)


def private() -> set[str]:
    """Names that no result may contain: host, user and folders."""
    found = {platform.node(), str(Path.home()), str(ROOT), os.sep + "tmp"}
    with suppress(KeyError, OSError):
        found.add(getpass.getuser())
    return {word for word in found if len(word) > 3}
