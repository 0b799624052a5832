"""Products and linear maps whose order is that of the loss in the gradient, too."""

from typing import Any

import numpy as np
import pytest

from tests.support.diagnosis import IN_BOTH_PRECISIONS, diagnose_planted

RNG = np.random.default_rng(14)
T, N = 5, 7
DATA, FIRST = RNG.normal(size=(T, N)), RNG.normal(size=N)
MAP = RNG.normal(size=(N, N)) / 3


def weights(**shapes):
    return {name: np.zeros(shape) for name, shape in shapes.items()}


# A wave on a ring: the factor of a Laplacian.


def lap(u, xp):
    return xp.roll(u, 1) - 2 * u + xp.roll(u, -1)


def wave_loss(p, xp):
    u, v, total = FIRST, xp.zeros(N), 0.0
    for d in DATA:
        v = v + 0.3 * p["c"] * lap(u, xp)
        u = u + v
        total = total + xp.sum((u - d) ** 2)
    return total


def wave_gradients(p):
    u, v, kept = FIRST, np.zeros(N), []
    for d in DATA:
        kept.append(lap(u, np))
        v = v + 0.3 * p["c"] * kept[-1]
        u = u + v
        kept[-1] = kept[-1], 2 * (u - d)
    dc, du, dv = np.zeros(N), np.zeros(N), np.zeros(N)
    for curvature, r in reversed(kept):
        du = du + r
        dv = dv + du
        dc += 0.3 * curvature * dv
        du = du + 0.3 * lap(p["c"] * dv, np)
    return {"c": dc}


# A flux on a line: the divergence of a conductivity times a value, by a matrix.


def flux_loss(p, xp):
    u, total = xp.tanh(p["u"]), 0.0
    for d in DATA:
        u = u + 0.2 * xp.tanh(MAP @ (p["k"] * u))
        total = total + xp.mean((u - d) ** 2)
    return total


def flux_gradients(p):
    us, fs = [np.tanh(p["u"])], []
    for _ in DATA:
        fs.append(np.tanh(MAP @ (p["k"] * us[-1])))
        us.append(us[-1] + 0.2 * fs[-1])
    dk, du = np.zeros(N), np.zeros(N)
    for t in reversed(range(T)):
        du = du + 2 * (us[t + 1] - DATA[t]) / N
        da = 0.2 * du * (1 - fs[t] ** 2)
        dk += us[t] * (MAP.T @ da)
        du = du + p["k"] * (MAP.T @ da)
    return {"k": dk, "u": du * (1 - us[0] ** 2)}


# Rows: a gate beside running sums of a batch.

X, Y = RNG.normal(size=(3, N)), RNG.normal(size=(3, N))


def sums_loss(p, xp):
    h = xp.tanh(X @ p["W"])
    g = 1 / (1 + xp.exp(-X @ p["G"]))
    return xp.mean((g * xp.cumsum(h, axis=1) - Y) ** 2)


def sums_gradients(p):
    h, g = np.tanh(X @ p["W"]), 1 / (1 + np.exp(-X @ p["G"]))
    running = np.cumsum(h, axis=1)
    d = 2 * (g * running - Y) / Y.size
    dh = np.cumsum((g * d)[:, ::-1], axis=1)[:, ::-1]
    dg = running * d
    return {"W": X.T @ (dh * (1 - h**2)), "G": X.T @ (dg * g * (1 - g))}


MODELS: dict[str, Any] = {
    "wave": (wave_loss, wave_gradients, weights(c=(N,))),
    "flux": (flux_loss, flux_gradients, weights(k=(N,), u=(N,))),
    "sums": (sums_loss, sums_gradients, weights(W=(N, N), G=(N, N))),
}
PLANTED: dict[str, tuple[str, tuple[str, str], str]] = {
    "a Laplacian": ("wave", ('lap(p["c"] * dv, np)', 'p["c"] * lap(dv, np)'), "after the linear"),
    "a matrix": (
        "flux", ('du + p["k"] * (MAP.T @ da)', 'du + MAP.T @ (p["k"] * da)'), "before the linear",
    ),
    "running sums": (
        "sums", ("np.cumsum((g * d)[:, ::-1], axis=1)[:, ::-1]",
                 "g * np.cumsum(d[:, ::-1], axis=1)[:, ::-1]"), "after the linear",
    ),
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_wrong_without_a_change(model: str) -> None:
    assert diagnose_planted(MODELS[model]) == ()


@IN_BOTH_PRECISIONS
@pytest.mark.parametrize("kind", PLANTED)
def test_a_factor_on_the_wrong_side_of_a_map_is_named(kind: str, dtype: Any) -> None:
    model, change, said = PLANTED[kind]
    (found,) = diagnose_planted(MODELS[model], change, dtype=dtype)
    assert found.name == "wrong-operand", found
    assert said in found.explanation
