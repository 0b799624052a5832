"""Dive into Deep Learning, 2019: both ways from a shared weight to an output."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry

ENTRY = Entry(
    title="∂L/∂w of a weight that both the step and the output have",
    source="A. Zhang et al., Dive into Deep Learning, section 8.7.1, the gradient of the "
    "objective, in versions of 2019",
    claim=(
        "h_t = f(x_t, h_{t−1}, w),  o_t = g(h_t, w),  L = Σ_t l(y_t, o_t)",
        "∂_w L = Σ_t ∂_{o_t} l(y_t, o_t) [∂_w g(h_t, w) + ∂_{h_t} g(h_t, w) ∂_w h_t]",
        "∂_w h_t = ∂_w f(x_t, h_{t−1}, w) + ∂_h f(x_t, h_{t−1}, w) ∂_w h_{t−1}",
    ),
    convention="∂_w g and ∂_w f are direct, ∂_w h_t is total. w is one vector that f and g both "
    "have. Here h_t = tanh(w_1 h_{t−1} + w_2 x_t) and o_t = w_1 h_t + w_2, with numbers for h.",
    verdict=AGREES,
    seen=True,
    rests_on="two stored versions of the section's source; an earlier one has another first line, "
    "see d2l-output-factor",
    reading="If g has weights of its own, as in later editions, the first summand is zero for the "
    "weights of f, and the second for those of g.",
)

rng = np.random.default_rng(13)
T, N = 4, 2
x, y = rng.normal(size=T), rng.normal(size=T)
params = {"w": rng.normal(size=N)}


def loss(p: Any) -> Any:
    h, total = 0.0, 0.0
    for t in range(T):
        h = np.tanh(p["w"][0] * h + p["w"][1] * x[t])
        total = total + (p["w"][0] * h + p["w"][1] - y[t]) ** 2
    return total


def run(p: Any) -> tuple[list[Any], list[Any]]:
    """All h_t, and all ∂_w h_t, from zero."""
    h, by_w = [0.0], [np.zeros(2)]
    for t in range(T):
        h.append(np.tanh(p["w"][0] * h[t] + p["w"][1] * x[t]))
        by_w.append((1 - h[t + 1] ** 2) * (np.stack([h[t], x[t]]) + p["w"][0] * by_w[t]))
    return h, by_w


def gradients(p: Any) -> Any:
    h, by_w = run(p)
    found = np.zeros_like(p["w"])
    for t in range(1, T + 1):
        output = 2 * (p["w"][0] * h[t] + p["w"][1] - y[t - 1])
        found += output * (np.stack([h[t], 1]) + p["w"][0] * by_w[t])
    return {"w": found}
