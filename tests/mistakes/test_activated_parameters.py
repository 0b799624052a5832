"""Mistakes in the slope of an activation whose argument is a parameter get their names."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.in_parts import list_exchanges
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import forward
from tests.support.diagnosis import diagnose_numbers, trace_points
from tests.support.own_models import normal

Slope = Callable[[Any, Any], Any]
X, Y = normal(3, 2, scale=1), normal(3, scale=1)
PARAMS = {"U": np.ones((3, 2)), "W": np.ones((3, 3)), "h0": np.ones(3), "rate": np.ones(3)}


def run(p: Any, xp: Any) -> tuple[list[Any], Any, Any]:
    """Run states of leaky units, whose first state and rates are bounded parameters."""
    rate, states = 1 / (1 + xp.exp(-p["rate"])), [xp.tanh(p["h0"])]
    inner = []
    for t in range(3):
        inner.append(xp.tanh(p["U"] @ X[t] + p["W"] @ states[-1]))
        states.append(rate * states[-1] + (1 - rate) * inner[-1])
    return states, inner, rate


def loss(p: Any, xp: Any) -> Any:
    return xp.sum((run(p, xp)[0][-1] - Y) ** 2)


def derive(of_state: Slope, of_rate: Slope) -> Callable[[Any], dict[str, Any]]:
    """Make a derivation with these slopes, of the argument and of the result."""

    def gradients(p: Any) -> dict[str, Any]:
        states, inner, rate = run(p, np)
        dU, dW, drate = np.zeros((3, 2)), np.zeros((3, 3)), np.zeros(3)
        dh = 2 * (states[-1] - Y)
        for t in (2, 1, 0):
            da = dh * (1 - rate) * (1 - inner[t] ** 2)
            drate += dh * (states[t] - inner[t])
            dU += np.outer(da, X[t])
            dW += np.outer(da, states[t])
            dh = dh * rate + p["W"].T @ da
        dh0, drate = dh * of_state(p["h0"], states[0]), drate * of_rate(p["rate"], rate)
        return {"U": dU, "W": dW, "h0": dh0, "rate": drate}

    return gradients


def of_tanh(a: Any, y: Any) -> Any:
    return 1 - y**2


def of_sigmoid(a: Any, y: Any) -> Any:
    return y * (1 - y)


@pytest.mark.table(3)
@pytest.mark.parametrize(
    ("name", "of_state", "of_rate"),
    [
        (None, of_tanh, of_sigmoid),
        ("activation-derivative-missing", lambda a, y: 1, of_sigmoid),
        ("activation-derivative-missing", of_tanh, lambda a, y: 1),
        ("activation-derivative-of-preactivation", lambda a, y: 1 - a**2, of_sigmoid),
        ("activation-derivative-of-preactivation", of_tanh, lambda a, y: a * (1 - a)),
        ("activation-derivative-twice", of_tanh, lambda a, y: (y * (1 - y)) ** 2),
        ("activation-derivative-of-another-function", of_tanh, lambda a, y: 1 - y**2),
    ],
)
def test_the_slope_at_a_parameter_is_named(
    name: str | None, of_state: Slope, of_rate: Slope
) -> None:
    found = diagnose_numbers(loss, PARAMS, derive(of_state, of_rate))
    assert [mistake.name for mistake in found] == ([name] if name else [])


def test_parts_of_an_activated_parameter_are_exchanged_after_its_activation_alone() -> None:
    def parts(p: Any, xp: Any) -> Any:
        h = xp.zeros(3)
        for _ in range(3):
            y = xp.tanh(p["w"])
            h = xp.sin(y[:3] * h + y[3:] * Y)
        return xp.sum(h)

    program, _ = trace_points(parts, (("w", (6,)),), np.dtype(float))
    known, values = structure(program), forward(program, {"w": np.linspace(-1, 1, 6)})
    after, before = (each.changes(values) for each in list_exchanges(known, known.groups))
    assert len(after) == 6
    assert before == {}
