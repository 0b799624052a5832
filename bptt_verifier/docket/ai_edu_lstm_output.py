"""microsoft/ai-edu: the error that an LSTM's output passes to its state."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry
from bptt_verifier.docket.forward_passes import run_lstm

ENTRY = Entry(
    title="(a − y) · V, where the forward pass has h_t · V",
    source="microsoft/ai-edu on GitHub, neural networks step by step, step 9, section 20.1 on the "
    "LSTM, equations (15) and (16), before pull request 618 (2021)",
    claim=(
        "z_t = h_t · V + b,  ∂loss/∂z_t = a − y",
        "δ_x,t = ∂loss/∂z_t · ∂z_t/∂h_t = (a − y) · V",
        "δ_t = ∂loss/∂h_t = δ_x,t + δ_h,t = (a − y) · V",
    ),
    convention="Row vectors. If h and z are not of one size, the shapes of (a − y) · V do not fit. "
    "The last equality of (16) holds at the last step, where the text has δ_h,t = 0; at the others "
    "it drops δ_h,t. The code has the sum. Each step has an output, softmax and cross entropy.",
    verdict=DISAGREES,
    seen=True,
    rests_on="two stored versions of the section's source, and pull request 618, which says that "
    "both equations are wrong; the version after it was not seen",
    reading="With columns, z_t = V h_t, and the rows (a − y)ᵀ it would be right.",
    mistake=("untransposed-output-weight",),
    corrected=("δ_x,t = (a − y) · Vᵀ,  δ_t = δ_x,t + δ_h,t",),
)

rng = np.random.default_rng(8)
T, D, H = 3, 2, 3
x, y = rng.normal(size=(T, 1, D)), np.eye(H)[np.arange(T)[:, None] % H]
params = {
    "U": rng.normal(size=(4 * H, D)), "W": rng.normal(size=(4 * H, H)),
    "V": rng.normal(size=(H, H)), "b": np.full(H, 0.1),
}  # fmt: skip


def loss(p: Any) -> Any:
    h, _, _ = run_lstm(p["U"], p["W"], x)
    z = [h[t + 1] @ p["V"] + p["b"] for t in range(T)]
    return sum(np.log(np.sum(np.exp(z[t]))) - np.sum(y[t] * z[t]) for t in range(T))


def gradients(p: Any) -> Any:
    h, c, gates = run_lstm(p["U"], p["W"], x)
    found = {name: np.zeros_like(value) for name, value in p.items()}
    later, carried = np.zeros((1, H)), np.zeros((1, H))
    for t in reversed(range(T)):
        e, (i, f, g, o), tanh_c = np.exp(h[t + 1] @ p["V"] + p["b"]), gates[t], np.tanh(c[t + 1])
        output = e / e.sum() - y[t]
        found["V"] += h[t + 1].T @ output
        found["b"] += output[0]
        delta = output @ p["V"] + later
        cell = delta * o * (1 - tanh_c**2) + carried
        packed = np.concatenate(
            [
                cell * g * i * (1 - i), cell * c[t] * f * (1 - f),
                cell * i * (1 - g**2), delta * tanh_c * o * (1 - o),
            ],
            axis=1,
        )  # fmt: skip
        found["U"] += packed.T @ x[t]
        found["W"] += packed.T @ h[t]
        later, carried = packed @ p["W"], cell * f
    return found
