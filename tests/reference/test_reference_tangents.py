"""Tangents of autodiff are those by hand of a network with one number of everything."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import Problem, Sizes
from bptt_verifier.reference import tangents
from bptt_verifier.reference.tangents import reference_tangents, tangent_truth
from manual_bptt.tangents import Direction

ONE = Sizes(1, 1, 1, 1, 1)


def draw(dtype: Any = np.float64) -> Problem:
    """L = (V (U x + W h_0) − y)² with U, W, V, x, h_0, y = 2, 3, 5, 7, 11, 13."""
    problem = with_values(
        np.random.default_rng(0), ONE, option="identity", loss="mse", initial_state=True
    )
    U, W, V, x, h0, y = (np.array(value, dtype) for value in (2, 3, 5, 7, 11, 13))
    params = problem.params._replace(U=U.reshape(1, 1), W=W.reshape(1, 1), V=V.reshape(1, 1))
    first = {"h0": h0.reshape(1, 1)}
    return problem._replace(
        params=params, x=x.reshape(1, 1, 1), y=y.reshape(problem.y.shape), first=first
    )


# h = U x + W h_0 = 47 and e = V h − y = 222.
# L_V = 2 e h, L_U = 2 e V x, L_x = 2 e V U, L_W = 2 e V h_0, L_h0 = 2 e V W.
MOVED = np.ones((1, 1))


def find(direction: Direction) -> dict[str, float]:
    found = reference_tangents(draw(), direction)
    assert found.b is None
    return {n: float(np.sum(getattr(found, n))) for n in ("loss", "U", "W", "V", "x", "h0")}


@pytest.mark.parametrize(
    ("direction", "tangents"),
    [
        # Along V: de = h, d2e = 0.
        (
            Direction(V=MOVED),
            {
                "loss": 2 * 222 * 47, "U": 2 * 7 * (47 * 5 + 222), "W": 2 * 11 * (47 * 5 + 222),
                "V": 2 * 47 * 47, "x": 2 * 2 * (47 * 5 + 222), "h0": 2 * 3 * (47 * 5 + 222),
            },
        ),
        # Along x: dh = U, de = V U.
        (
            Direction(x=MOVED[None]),
            {
                "loss": 2 * 222 * 10, "U": 2 * 5 * (10 * 7 + 222), "W": 2 * 5 * 10 * 11,
                "V": 2 * (10 * 47 + 222 * 2), "x": 2 * 10 * 10, "h0": 2 * 10 * 5 * 3,
            },
        ),
        # Along h_0: dh = W, de = V W.
        (
            Direction(h0=MOVED),
            {
                "loss": 2 * 222 * 15, "U": 2 * 5 * 15 * 7, "W": 2 * 5 * (15 * 11 + 222),
                "V": 2 * (15 * 47 + 222 * 3), "x": 2 * 15 * 5 * 2, "h0": 2 * 15 * 15,
            },
        ),
    ],
    ids=["V", "x", "h0"],
)  # fmt: skip
def test_the_tangents_are_those_by_hand_and_an_absent_part_does_not_move(
    direction: Direction, tangents: dict[str, float]
) -> None:
    assert find(direction) == pytest.approx(tangents, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_tangent_may_be_off_by_its_bound_and_by_the_share_of_autodiff(
    dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(E13): autodiff in float64 has u = 2⁻⁵³, a correct derivation in float32 u = 2⁻²⁴."""
    asked: list[Any] = []

    def bound(*given: Any, **options: Any) -> Any:
        asked.append((given, options))
        return tangents.reference_tangents(draw(), Direction(V=MOVED))._replace(
            loss=np.array(3.0), U=np.array([[5.0]]), b=None
        )

    monkeypatch.setattr(tangents, "bound_tangents", bound)
    problem, direction = draw(dtype), Direction(V=MOVED.astype(dtype))
    values, allowed = tangent_truth(problem, direction)
    ((_, options),) = asked
    assert options == {"dtype": dtype, "loss": "mse", **problem.option}
    both = {np.float64: 2.0, np.float32: 1 + 2.0**-29}[dtype]
    assert values.keys() == allowed.keys() >= {"loss", "U", "W", "V", "x", "h0", "adjoints"}
    assert {each.dtype for each in values.values()} == {np.dtype(np.float64)}
    assert values["loss"] == pytest.approx(2 * 222 * 47, rel=1e-12)
    assert allowed["loss"] == 3 * both
    assert allowed["U"] == 5 * both
