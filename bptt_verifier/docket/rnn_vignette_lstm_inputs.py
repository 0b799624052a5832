"""The R package rnn, vignette on LSTM units: the forget gate's part of ∂L/∂x."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry
from bptt_verifier.docket.forward_passes import run_lstm

ENTRY = Entry(
    title="The forget gate's recurrent weight in the error of the input",
    source="R package rnn (bquast/rnn on GitHub), vignettes/LSTM_units.Rmd, back propagation pass",
    claim=(
        "δ17 = δ13 * U_oᵀ,  δ19 = δ14 * U_gᵀ,  δ21 = δ15 * U_iᵀ",
        "δ23 = δ16 * W_fᵀ",
        "δ26 = δ17 + δ19 + δ21 + δ23",
    ),
    convention="Row vectors. δ26 is the error of x_t, which the layer below receives; x is a "
    "parameter here, so that its gradient is compared. If x and h are not of one size, the shapes "
    "of δ23 and δ17 differ. The gates are stacked as i, f, g, o here. δ8 is a sum, δ22 has δ15: "
    "see rnn-vignette-lstm and rnn-vignette-lstm-input-gate for both.",
    verdict=DISAGREES,
    seen=True,
    rests_on="the whole vignette",
    reading="A slip of the text: the package's code, R/backprop_r.R, has the weights of the input "
    "there for all four gates.",
    corrected=("δ23 = δ16 * U_fᵀ",),
)

rng = np.random.default_rng(7)
T, H = 3, 2
y = rng.normal(size=(T, 1, H))
params = {
    "U": rng.normal(size=(4 * H, H)), "W": rng.normal(size=(4 * H, H)),
    "x": rng.normal(size=(T, 1, H)),
}  # fmt: skip


def loss(p: Any) -> Any:
    h, _, _ = run_lstm(p["U"], p["W"], p["x"])
    return sum(np.sum((h[t + 1] - y[t]) ** 2) / 2 for t in range(T))


def gradients(p: Any) -> Any:
    x, Wf = p["x"], np.split(p["W"], 4)[1]
    Ui, Uf, Ug, Uo = np.split(p["U"], 4)  # noqa: RUF059 - the corrected formula has Uf
    h, c, gates = run_lstm(p["U"], p["W"], x)
    found = {name: np.zeros_like(value) for name, value in p.items()}
    error2, error4 = np.zeros((1, H)), np.zeros((1, H))
    for t in reversed(range(T)):
        i, f, g, o = gates[t]
        error3, tanh_c = h[t + 1] - y[t] + error2, np.tanh(c[t + 1])
        error8 = error3 * o * (1 - tanh_c**2) + error4
        error13 = error3 * tanh_c * o * (1 - o)
        error14 = error8 * i * (1 - g**2)
        error15 = error8 * g * i * (1 - i)
        error16 = error8 * c[t] * f * (1 - f)
        packed = np.concatenate([error15, error16, error14, error13], axis=1)
        found["U"] += packed.T @ x[t]
        found["W"] += packed.T @ h[t]
        found["x"][t] = error13 @ Uo + error14 @ Ug + error15 @ Ui + error16 @ Wf
        error2, error4 = packed @ p["W"], error8 * f
    return found
