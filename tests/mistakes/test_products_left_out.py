"""A product with a weight that the backward pass leaves out is named, on one path or on all."""

from typing import Any

import numpy as np
import pytest

from tests.support.diagnosis import diagnose_numbers, plant
from tests.support.own_models import normal, sigmoid
from tests.support.wrong_derivations import weights

T, H = 3, 3
X, Y = normal(T, 2, scale=1), normal(T, H, scale=1)
PARAMS = weights(Ur=(H, H), Wr=(H, 2), U=(H, H), W=(H, 2))


def run(p: Any, xp: Any) -> tuple[list[Any], list[Any], Any]:
    """Run states that a gate reduces before the product, as in a GRU."""
    h, r, total = [xp.zeros(H)], [], 0.0
    for t in range(T):
        r.append(sigmoid(p["Wr"] @ X[t] + p["Ur"] @ h[t], xp))
        h.append(xp.tanh(p["W"] @ X[t] + p["U"] @ (r[t] * h[t])))
        total = total + xp.sum((h[-1] - Y[t]) ** 2)
    return h, r, total


def loss(p: Any, xp: Any) -> Any:
    return run(p, xp)[-1]


def gradients(p: Any) -> dict[str, Any]:
    h, r, _ = run(p, np)
    G, dh = {name: np.zeros_like(value) for name, value in p.items()}, np.zeros(H)
    for t in reversed(range(T)):
        dh = dh + 2 * (h[t + 1] - Y[t])
        da = dh * (1 - h[t + 1] ** 2)
        dr = (p["U"].T @ da) * h[t] * r[t] * (1 - r[t])
        G["W"] += np.outer(da, X[t])
        G["U"] += np.outer(da, r[t] * h[t])
        G["Wr"] += np.outer(dr, X[t])
        G["Ur"] += np.outer(dr, h[t])
        dh = (p["U"].T @ da) * r[t] + p["Ur"].T @ dr
    return G


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ('(p["U"].T @ da) * h[t]', "da * h[t]", "the gradient passed on to `r[t]`"),
        ('(p["U"].T @ da) * r[t] +', "da * r[t] +", "the gradient passed on to `h[t]`"),
        (' + p["Ur"].T @ dr', " + dr", "the gradient passed on to `h[t]`"),
    ],
)
def test_a_product_with_a_weight_that_is_left_out_is_named(
    right: str, wrong: str, said: str
) -> None:
    (found,) = diagnose_numbers(loss, PARAMS, plant(gradients, (right, wrong)))
    assert found.name == "factor-missing"
    assert f"{said} is not multiplied by the weight" in found.explanation


def test_the_derivation_is_right_as_it_stands() -> None:
    assert diagnose_numbers(loss, PARAMS, gradients) == ()


S = np.array([[0.6, 0.3, 0.0, 0.1], [0.2, 0.5, 0.3, 0.0], [0.0, 0.2, 0.7, 0.4], [0.3, 0, 0.1, 0.5]])
NODES = normal(4, 2, scale=1)


def graph_loss(p: Any, xp: Any) -> Any:
    """Run a graph network, whose layers mix the nodes by a constant matrix."""
    h = xp.tanh(S @ (NODES @ p["U"]))
    mixed = S @ xp.tanh(S @ (h @ p["W"]))
    return xp.sum(mixed**2)


def graph_gradients(p: Any) -> dict[str, Any]:
    h = np.tanh(S @ (NODES @ p["U"]))
    k = np.tanh(S @ (h @ p["W"]))
    dk = S.T @ (2 * (S @ k))
    db = dk * (1 - k**2)
    dm = S.T @ db
    dh = dm @ p["W"].T
    da = S.T @ (dh * (1 - h**2))
    return {"U": NODES.T @ da, "W": h.T @ dm}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("dk = S.T @ (2 * (S @ k))", "dk = 2 * (S @ k)"),
        ("dm = S.T @ db", "dm = db"),
        ("da = S.T @ (dh * (1 - h**2))", "da = dh * (1 - h**2)"),
    ],
)
def test_a_constant_matrix_that_is_left_out_is_named(right: str, wrong: str) -> None:
    params = weights(U=(2, 3), W=(3, 3))
    assert diagnose_numbers(graph_loss, params, graph_gradients) == ()
    (found,) = diagnose_numbers(graph_loss, params, plant(graph_gradients, (right, wrong)))
    assert found.name == "factor-missing", found.explanation
    assert "is not multiplied by the matrix `S`" in found.explanation
