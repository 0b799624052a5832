"""What an explanation says of gradients is true of the table that stands below it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.mistakes.search import relate_factor
from bptt_verifier.report import Mistake

rng = np.random.default_rng(4)
x, y = rng.normal(size=(4, 3)), rng.normal(size=3)
W, c0 = rng.normal(size=(3, 3)) / 2, rng.normal(size=3)


def leak(p: Any) -> Any:
    c = p["c0"]
    for t in range(4):
        f = 1 / (1 + np.exp(-(p["W"] @ x[t])))
        c = f * c + (1 - f) * x[t]
    return np.sum((c - y) ** 2)


def leak_back(p: Any) -> Any:
    f = 1 / (1 + np.exp(-(x @ p["W"].T)))
    c = [p["c0"]]
    for t in range(4):
        c.append(f[t] * c[-1] + (1 - f[t]) * x[t])
    dc, dW = 2 * (c[-1] - y), np.zeros((3, 3))
    for t in reversed(range(4)):
        dW += np.outer(dc * (c[t] - x[t]) * f[t] * (1 - f[t]), x[t])
        dc = dc * f[t]
    return {"W": dW, "c0": np.zeros(3)}  # dc is right


@pytest.mark.slow
def test_an_initial_state_has_no_sum_over_time() -> None:
    report = verify_own_model(leak_back, leak, {"W": W, "c0": c0})
    (mistake,) = report.mistakes
    assert mistake.name == "zero-gradient"
    assert "weight" not in mistake.explanation
    assert "missing-time-sum" not in mistake.details.get("or", ())


def test_a_factor_beside_another_mistake_is_one_of_what_that_gives() -> None:
    second = Mistake("constant-factor", "in ∂L/∂W, every entry is 0.5 times what it should be.", {})
    said = "in ∂L/∂W, every entry is 0.5 times what the first mistake alone would give."
    assert relate_factor(second).explanation == said
    other = Mistake("transposed-gradient", "it is transposed.", {})
    assert relate_factor(other) == other


@jax.jit
def gate(a: Any, h: Any) -> Any:
    g = jnp.minimum(a / 4 + 0.5, 1.0)
    return h * (1 - g) + jnp.tanh(g * h)


@pytest.mark.slow
def test_an_operand_inside_a_call_is_named_by_what_takes_it() -> None:
    def loss(p: Any) -> Any:
        return jnp.sum(gate(p["W"], p["c0"]) ** 2)

    def gradients(p: Any) -> Any:
        a, h = p["W"], p["c0"]
        g = np.minimum(a / 4 + 0.5, 1.0)
        s = np.tanh(g * h)
        out = h * (1 - g) + s
        dg = 2 * out * -h  # and 2 out (1 - s²) h, by the product
        dh = 2 * out * (1 - g + (1 - s * s) * g)
        return {"W": np.where(a / 4 + 0.5 < 1, dg / 4, 0), "c0": dh}

    report = verify_own_model(gradients, loss, {"W": c0, "c0": y})
    (mistake,) = report.mistakes
    assert "the minimum inside it that is a factor of a product" in mistake.explanation
