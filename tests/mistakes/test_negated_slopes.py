"""Slopes at the negative of the argument: the sigmoid of −a for a softplus, `a < 0` for a ReLU."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.in_negated_slopes import list_negated_arguments
from bptt_verifier.program.activations import Activation, find_activations, slope_of
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import Structure, structure
from bptt_verifier.program.trace import forward, trace
from tests.support.diagnosis import IN_BOTH_PRECISIONS, diagnose_planted, ones

rng = np.random.default_rng(5)
T, H, D = 4, 3, 2
X = rng.normal(size=(T, D))

# A decay exp(−softplus(s) dt) of each state, in columns.


def decay_run(p: Any, xp: Any) -> Any:
    rate = xp.logaddexp(0.0, p["s"])
    a, states = xp.exp(-rate * 0.5), [xp.zeros(H)]
    for t in range(T):
        states.append(a * states[-1] + p["B"] @ X[t])
    return a, states


def decay_loss(p: Any, xp: Any) -> Any:
    return xp.sum(decay_run(p, xp)[1][-1] ** 2)


def decay_gradients(p: Any) -> Any:
    a, h = decay_run(p, np)
    G = {k: np.zeros_like(v) for k, v in p.items()}
    da, d = np.zeros(H), 2 * h[-1]
    for t in reversed(range(T)):
        da += d * h[t]
        G["B"] += np.outer(d, X[t])
        d = d * a
    G["s"] = da * a * -0.5 / (1 + np.exp(-p["s"]))
    return G


# A softplus as the activation of a network, in rows.


def softplus_run(p: Any, xp: Any) -> Any:
    states, arguments = [xp.zeros((1, H))], []
    for t in range(T):
        arguments.append(X[t : t + 1] @ p["U"] + states[-1] @ p["W"])
        states.append(xp.log(1 + xp.exp(arguments[-1])))
    return arguments, states


def softplus_loss(p: Any, xp: Any) -> Any:
    return xp.sum(softplus_run(p, xp)[1][-1] ** 2)


def softplus_gradients(p: Any) -> Any:
    a, h = softplus_run(p, np)
    G = {k: np.zeros_like(v) for k, v in p.items()}
    d = 2 * h[-1]
    for t in reversed(range(T)):
        d = d / (1 + np.exp(-a[t]))
        G["U"] += X[t : t + 1].T @ d
        G["W"] += h[t].T @ d
        d = d @ p["W"].T
    return G


# A leaky ReLU, in columns, a loss at every step.


def leaky_run(p: Any, xp: Any) -> Any:
    states, arguments = [xp.zeros(H)], []
    for t in range(T):
        a = p["U"] @ X[t] + p["W"] @ states[-1]
        arguments.append(a)
        states.append(xp.where(a > 0, a, 0.2 * a))
    return arguments, states


def leaky_loss(p: Any, xp: Any) -> Any:
    return sum(xp.sum((h - 0.3) ** 2) for h in leaky_run(p, xp)[1][1:])


def leaky_gradients(p: Any) -> Any:
    a, h = leaky_run(p, np)
    G = {k: np.zeros_like(v) for k, v in p.items()}
    later = np.zeros(H)
    for t in reversed(range(T)):
        d = (later + 2 * (h[t + 1] - 0.3)) * np.where(a[t] > 0, 1.0, 0.2)
        G["U"] += np.outer(d, X[t])
        G["W"] += np.outer(d, h[t])
        later = p["W"].T @ d
    return G


MODELS: dict[str, Any] = {
    "decay": (decay_loss, decay_gradients, ones(s=(H,), B=(H, D))),
    "softplus": (softplus_loss, softplus_gradients, ones(U=(D, H), W=(H, H))),
    "leaky": (leaky_loss, leaky_gradients, ones(U=(H, D), W=(H, H))),
}
NEGATED = {
    "decay": ('np.exp(-p["s"])', 'np.exp(p["s"])'),
    "softplus": ("np.exp(-a[t])", "np.exp(a[t])"),
    "leaky": ("a[t] > 0", "a[t] < 0"),
}


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_wrong_without_a_change(model: str) -> None:
    assert diagnose_planted(MODELS[model]) == ()


@IN_BOTH_PRECISIONS
@pytest.mark.parametrize("model", MODELS)
def test_a_slope_at_the_negative_of_its_argument_is_named(model: str, dtype: Any) -> None:
    (found,) = diagnose_planted(MODELS[model], NEGATED[model], dtype=dtype)
    # In log(1 + exp(a)) the slope at −a is also what is left where that of exp(a) is missing.
    names = {found.name, *found.details.get("or", ())}
    assert "activation-derivative-of-another-function" in names, found
    assert "is taken at −a" in found.explanation


def trace_activation(function: Callable[[Any, Any], Any]) -> tuple[Structure, list[Activation]]:
    """Trace the sum of an activation's squares; return the activation at its longest."""
    with use_float64():
        known = structure(
            trace(lambda p, xp: xp.sum(p["y"] * function(p["x"], xp)), ones(x=(4,), y=(4,)))
        )
    every = [find_activations(known, group) for group in known.groups]
    return known, max(
        (found[-1] for found in every if found), key=lambda each: len(each[0].numbers)
    )


def test_a_softplus_that_numpy_has_as_one_function_is_one_activation() -> None:
    known, (softplus,) = trace_activation(lambda x, xp: xp.logaddexp(0.0, x))
    point = np.array([-700.0, -1.0, 2.0, 900.0])
    values = forward(known.program, {"x": point, "y": point})
    expected = 1 / (1 + np.exp(-point))
    np.testing.assert_allclose(slope_of(known, softplus, values)[0], expected, 1e-15, 1e-300)


@pytest.mark.parametrize("function", ["tanh", "square", "abs"])
def test_a_slope_that_a_sign_at_most_changes_is_no_other_mistake(function: str) -> None:
    known, each = trace_activation(lambda x, xp: getattr(xp, function)(x))
    assert [*list_negated_arguments(known, [each])] == []


def test_indices_that_are_computed_are_no_activations() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(xp.exp(p["x"])[xp.argmax(p["x"]) - 1] * p["x"])

    with use_float64():
        known = structure(trace(loss, ones(x=(4,))))
    names = [each.name for each in known.program.operations]
    found = [
        one for group in known.groups for each in find_activations(known, group) for one in each
    ]
    assert "select_n" in names
    assert {known.program.operations[one.end].name for one in found} <= {"exp", "mul"}
