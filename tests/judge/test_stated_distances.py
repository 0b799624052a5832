"""How far a stated gradient is from the true one, over all cases, by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.kernel_approximation import describe_approximation, describe_distance
from bptt_verifier.reference.stated_pullbacks import StatedPullback


def describe(*cases: tuple[Any, Any]) -> list[str]:
    """Describe the distance from stated and true gradients for w, at one case after the other."""

    class Stated(StatedPullback):
        def __init__(self) -> None:
            self.true: Any = SimpleNamespace(pull_back=lambda points, _: answer(points, 1))

        def pull_back(self, points: Any, cotangents: Any) -> Any:
            return answer(points, 0)

    def answer(points: Any, which: int) -> Any:
        found = np.array(cases[points[0]][which], np.float64)[None]
        return SimpleNamespace(gradients={"w": found})

    found: Any = [
        SimpleNamespace(case=SimpleNamespace(setting=0, point=k, cotangents=None))
        for k in range(len(cases))
    ]
    calls: Any = [SimpleNamespace(pullback=Stated())]
    return [*describe_approximation(calls, found)]


def test_the_distance_is_over_all_cases_together() -> None:
    (said,) = describe(([[1.0, 1.0]], [[1.0, 0.0]]), ([[2.0, 0.0]], [[2.0, 2.0]]))
    # The errors are (0, 1) and (0, −2), of size √5; the true gradients are of size √(1 + 8) = 3,
    # and the stated ones of √(2 + 4); their products are 1 + 4 = 5.
    assert said.endswith(
        f"has, for w: relative error {5**0.5 / 3:.2g} and cosine {5 / 54**0.5:.3g}."
    )
    assert said.startswith("The submission is judged against the stated gradient. Compared with")


def test_nothing_is_said_where_the_gradient_is_autodiffs() -> None:
    case: Any = SimpleNamespace(case=SimpleNamespace(setting=0))
    assert [*describe_approximation([SimpleNamespace(pullback=None)], [case])] == []  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("square", "product", "true", "error", "cosine"),
    [
        (4.0, 4.0, 4.0, "0", "1"),
        (4.0, -4.0, 4.0, "2", "-1"),
        (0.0, 0.0, 4.0, "1", "0"),
        (0.25, 0.5, 4.0, "0.9", "0.5"),  # √(0.25 − 1 + 4) / 2
        (1.0, 1.0 + 1e-15, 1.0, "0", "1"),  # rounding makes no root of a negative number
    ],
)
def test_a_distance_by_hand(
    square: float, product: float, true: float, error: str, cosine: str
) -> None:
    said = describe_distance(square, product, true)
    assert said == f"relative error {error} and cosine {cosine}"


def test_a_true_gradient_of_zeros_is_no_measure() -> None:
    assert describe_distance(1.0, 0.0, 0.0) == "no measure, since the true gradient is zero"
