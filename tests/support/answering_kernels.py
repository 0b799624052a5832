"""Kernels whose every answer is written down, and questions to them."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from bptt_verifier.judge.kernel_answers import Question
from bptt_verifier.judge.kernel_cases import KernelCase
from bptt_verifier.report import Mistake

Respond = Callable[[int, Any, Any], Any]  # the number of the call, arguments and cotangents
UNIT = 2.0**-24  # the unit roundoff of float32
ONES = {"w": np.ones(10)}


class Kernel:
    """A kernel that counts its calls; it raises where it responds with None."""

    def __init__(self, respond: Respond) -> None:
        self.respond, self.count = respond, 0

    def ask(self, point: Any, cotangents: Any, copy: Any = np.array) -> Any:
        self.count += 1
        given, back = ({n: copy(v) for n, v in each.items()} for each in (point, cotangents))
        found = self.respond(self.count, given, back)
        return Mistake("raised", "It was raised.", {}) if found is None else found


def prepare(
    respond: Respond,
    answer: Any = ONES,
    dtype: Any = np.float32,
    of_x: Any = None,
    tolerance: float = 1e-3,
    errors: float | None = 0.0,
    exact: Any = None,
    **known: Any,
) -> Question:
    """A question about x and v; rounding every operation errs by `errors`, if it is known.

    Both are of `dtype`, unless x is of another.
    """

    def imitate(points: Any, cotangents: Any, given: Any) -> Any:
        if errors is None:
            raise ValueError("the operations are unknown")
        return SimpleNamespace(
            gradients={n: np.full((2, 1, *v.shape), errors) for n, v in answer.items()}
        )

    def pull_back(points: Any, cotangents: Any) -> Any:
        found = exact(points[0], cotangents[0])
        return SimpleNamespace(gradients={n: v[None] for n, v in found.items()}, kept=())

    calls: Any = Kernel(respond)
    calls.pullback = SimpleNamespace(imitate_rounding=imitate, pull_back=pull_back)
    case, other = (
        KernelCase(
            0,
            k,
            {"x": np.full(4, k + 1, of_x or dtype), "v": np.full(3, k + 1, dtype)},
            {"y": np.full(2, k + 3.0)},
        )
        for k in range(2)
    )
    allowed = {n: np.full(v.shape, tolerance) for n, v in answer.items()}
    sets = {n: frozenset(v) if isinstance(v, str) else v for n, v in known.items()}
    return Question(calls, case, other, answer, allowed, [], **sets)


def answer_in_order(*answers: Any) -> Respond:
    """Answer the calls one after the other; the last answer is that to all further ones."""
    return lambda number, *_: answers[min(number, len(answers)) - 1]


def one(*values: Any) -> dict[str, Any]:
    return {"w": np.array(values, np.float64)}


def changed(by: Any, count: int = 10) -> dict[str, Any]:
    """Ones of which the first few are changed by a number."""
    return one(*(1 + by * (k < count) for k in range(10)))
