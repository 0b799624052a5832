"""Constant factors in a recurrence that are wrong by any amount."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.fitted_factors import FEWEST, Scaled, fit_factors, list_fitting_factors
from bptt_verifier.mistakes.known_factors import SMALLEST
from bptt_verifier.mistakes.operation_mistakes import OperationMistake, change_edges
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import trace
from tests.support.diagnosis import IN_BOTH_PRECISIONS, diagnose_numbers, diagnose_planted, plant

RNG = np.random.default_rng(13)
T, D, H = 5, 2, 3
X, Y = RNG.normal(size=(T, D)), RNG.normal(size=(T, H))


def weights(**shapes):
    return {name: np.zeros(shape) for name, shape in shapes.items()}


# A gated state, whose gate is a hard sigmoid of slope 1/5.


def hard_loss(p, xp):
    h, total = xp.zeros(H), 0.0
    for x, y in zip(X, Y, strict=True):
        z = xp.clip(0.2 * (p["Wz"] @ x + p["Uz"] @ h) + 0.5, 0, 1)
        h = (1 - z) * h + z * xp.tanh(p["Wc"] @ x + p["Uc"] @ h)
        total = total + xp.sum((h - y) ** 2)
    return total


def hard_gradients(p):
    h, tape = np.zeros(H), []
    for x, y in zip(X, Y, strict=True):
        z = np.clip(0.2 * (p["Wz"] @ x + p["Uz"] @ h) + 0.5, 0, 1)
        c = np.tanh(p["Wc"] @ x + p["Uc"] @ h)
        new = (1 - z) * h + z * c
        tape.append((x, h, z, c, 2 * (new - y)))
        h = new
    g, dh = {k: np.zeros_like(v) for k, v in p.items()}, np.zeros(H)
    for x, h, z, c, dy in reversed(tape):
        dh = dh + dy
        da = 0.2 * dh * (c - h) * ((z > 0) & (z < 1))
        dc = dh * z * (1 - c**2)
        g["Wz"] += np.outer(da, x)
        g["Uz"] += np.outer(da, h)
        g["Wc"] += np.outer(dc, x)
        g["Uc"] += np.outer(dc, h)
        dh = dh * (1 - z) + p["Uz"].T @ da + p["Uc"].T @ dc
    return g


# A leaky rectifier in rows, with a slope of 0.1 below zero.

XB, YB = RNG.normal(size=(T, 4, D)), RNG.normal(size=(4, 1))


def leaky_loss(p, xp):
    h = xp.zeros((4, H))
    for t in range(T):
        a = XB[t] @ p["U"] + h @ p["W"]
        h = xp.where(a > 0, a, 0.1 * a)
    return xp.mean((h @ p["v"] - YB) ** 2)


def leaky_gradients(p):
    hs, slopes = [np.zeros((4, H))], []
    for t in range(T):
        a = XB[t] @ p["U"] + hs[-1] @ p["W"]
        slopes.append(np.where(a > 0, 1.0, 0.1))
        hs.append(np.where(a > 0, a, 0.1 * a))
    dout = 2 * (hs[-1] @ p["v"] - YB) / YB.size
    g = {"v": hs[-1].T @ dout, "U": np.zeros((D, H)), "W": np.zeros((H, H))}
    dh = dout @ p["v"].T
    for t in reversed(range(T)):
        da = dh * slopes[t]
        g["U"] += XB[t].T @ da
        g["W"] += hs[t].T @ da
        dh = da @ p["W"].T
    return g


# Euler steps of a flow, and what they carry back.

DT = 0.25


def flow_loss(p, xp):
    h = xp.zeros(H)
    for x in X:
        h = h + DT * xp.tanh(p["A"] @ h + p["B"] @ x)
    return xp.sum(h**2)


def flow_gradients(p):
    hs, fs = [np.zeros(H)], []
    for x in X:
        fs.append(np.tanh(p["A"] @ hs[-1] + p["B"] @ x))
        hs.append(hs[-1] + DT * fs[-1])
    dA, dB, dh = np.zeros((H, H)), np.zeros((H, D)), 2 * hs[-1]
    for t in reversed(range(T)):
        da = DT * dh * (1 - fs[t] ** 2)
        dA += np.outer(da, hs[t])
        dB += np.outer(da, X[t])
        dh = dh + p["A"].T @ da
    return {"A": dA, "B": dB}


MODELS: dict[str, Any] = {
    "hard": (hard_loss, hard_gradients, weights(Wz=(H, D), Uz=(H, H), Wc=(H, D), Uc=(H, H))),
    "leaky": (leaky_loss, leaky_gradients, weights(U=(D, H), W=(H, H), v=(H, 1))),
    "flow": (flow_loss, flow_gradients, weights(A=(H, H), B=(H, D))),
}
SLOPE = "activation-derivative-of-another-function"
PLANTED: dict[str, tuple[str, str, tuple[str, str], str]] = {
    "a sixth": ("hard", SLOPE, ("0.2 * dh", "dh / 6"), "multiplied by 0.16"),
    "a quarter": ("hard", SLOPE, ("0.2 * dh", "0.25 * dh"), "multiplied by 0.25"),
    "a fiftieth": ("leaky", SLOPE, ("1.0, 0.1)", "1.0, 0.02)"), "multiplied by 0.02"),
    "three tenths": ("leaky", SLOPE, ("1.0, 0.1)", "1.0, 0.3)"), "multiplied by 0.3"),
    "a step": ("flow", "constant-factor", ("DT * dh", "0.4 * dh"), "multiplied by 0.4"),
    "a decay": (
        "flow", "constant-factor", ('dh + p["A"].T @ da', '0.9 * (dh + p["A"].T @ da)'),
        "multiplied by 0.9",
    ),
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_wrong_without_a_change(model: str) -> None:
    assert diagnose_planted(MODELS[model]) == ()


@IN_BOTH_PRECISIONS
@pytest.mark.parametrize("kind", PLANTED)
def test_a_factor_of_every_step_is_fitted(kind: str, dtype: Any) -> None:
    model, name, change, said = PLANTED[kind]
    (found,) = diagnose_planted(MODELS[model], change, dtype=dtype)
    assert found.name == name, found
    assert said in found.explanation


@pytest.mark.rest
def test_a_factor_that_differs_by_step_has_no_name_of_one() -> None:
    change = ("DT * dh", "DT * (1 + 0.1 * t) * dh")
    loss, gradients, params = MODELS["flow"]
    found = diagnose_numbers(loss, params, plant(gradients, change))
    assert "constant-factor" not in [each.name for each in found]


def test_a_fit_finds_the_root_of_a_polynomial_and_leaves_out_what_has_none() -> None:
    powers = np.arange(1.0, 6.0)

    def join(made: Any) -> Any:
        return np.array([each.details["by"] ** powers - 1 for each in made])

    def make(by: float) -> OperationMistake:
        return OperationMistake("", "", 0, change_edges([]), {"by": by})

    place = Scaled(make)
    ((found, factor),) = fit_factors([place], join, 1.2**powers - 1)
    assert found is place
    assert factor == pytest.approx(1.2, rel=1e-9)
    assert not [*fit_factors([place], join, np.array([0.2, 0.2, 0.2, 0.2, 3.0]))]


@pytest.mark.parametrize(("factor", "listed"), [(0.5 * SMALLEST, False), (2e-3, True)])
def test_a_factor_of_rounding_is_no_factor(factor: float, listed: bool) -> None:
    """Nothing is passed on, which is a mistake of another name."""
    with use_float64():
        known = structure(trace(leaky_loss, MODELS["leaky"][2]))

    def join(made: Any) -> Any:
        by = np.array([each.details["factor"] for each in made])
        return (by - 1)[:, None] * np.arange(1.0, 6.0)

    found = [*list_fitting_factors(known, (), join, (factor - 1) * np.arange(1.0, 6.0))]
    assert bool(found) is listed


def test_a_place_without_an_effect_has_no_factor() -> None:
    def join(made: Any) -> Any:
        return np.zeros((len(made), 5))

    place = Scaled(lambda by: by)  # type: ignore[arg-type, return-value]
    assert not [*fit_factors([place], join, np.ones(5))]


def test_too_few_wrong_numbers_have_no_fit() -> None:
    with use_float64():
        known = structure(trace(leaky_loss, MODELS["leaky"][2]))

    def join(made: Any) -> Any:
        raise AssertionError("expected no sweep where any factor explains the numbers")

    error = np.zeros(10)
    error[: FEWEST - 1] = 1.0
    assert not [*list_fitting_factors(known, [], join, error)]
