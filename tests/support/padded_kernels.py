"""A kernel that reads three rows of four, its wrong variants, and questions to them."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from bptt_verifier.judge.kernel_answers import Question
from bptt_verifier.judge.kernel_cases import KernelCase
from bptt_verifier.report import Mistake

Backward = Callable[[Any, Any], Any]
RNG = np.random.default_rng(0)
POINTS = [{"x": RNG.normal(size=(4, 3)), "w": RNG.normal(size=3)} for _ in range(2)]
COTANGENTS = [{"rows": RNG.normal(size=(4, 3)), "sums": RNG.normal(size=4)} for _ in range(2)]
READ = np.arange(4) < 3  # of the rows of x; the last is padding


def pull_back(point: Any, d: Any) -> Any:
    """The gradients of x w, row by row, and of the sums of x over the rows that are read."""
    x, read = np.where(READ[:, None], point["x"], 0), READ[:, None]
    of_x = np.where(read, d["rows"] * point["w"] + d["sums"][:, None], 0)
    return {"x": of_x, "w": np.where(read, d["rows"] * x, 0).sum(axis=0)}


def ask(
    backward: Backward = pull_back,
    exact: Backward = pull_back,
    wrong: Any = (),
    tolerance: float = 1e-12,
    keeps_zeros: Callable[[Any], bool] = lambda point: False,
) -> Question:
    """A question to a kernel, whose exact gradients may be others, and keep zeros somewhere."""

    def answer(point: Any, cotangents: Any, copy: Any) -> Any:
        found = backward({n: copy(v) for n, v in point.items()}, cotangents)
        return Mistake("raised", "It was raised.", {}) if found is None else found

    def stated(points: Any, cotangents: Any) -> Any:
        found = exact(points[0], cotangents[0])
        arrays = {name: each[None] for name, each in found.items()}
        return SimpleNamespace(gradients=arrays, kept=keeps_zeros(points[0]))

    def imitate(*_: Any) -> Any:
        raise ValueError("the operations are unknown")

    pullback = SimpleNamespace(pull_back=stated, imitate_rounding=imitate)
    calls: Any = SimpleNamespace(ask=answer, pullback=pullback)
    case, other = (KernelCase(0, k, POINTS[k], COTANGENTS[k]) for k in range(2))
    allowed = {n: np.full(v.shape, tolerance) for n, v in POINTS[0].items()}
    question = Question(calls, case, other, {}, allowed, [], frozenset(wrong))
    return question._replace(answer=backward(POINTS[0], COTANGENTS[0]))
