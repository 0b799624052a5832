"""GeeksforGeeks: the gradients of an LSTM at one time stamp."""

from typing import Any

import numpy as np

from bptt_verifier.docket.deeplearning_ai_lstm import T, params, run
from bptt_verifier.docket.deeplearning_ai_lstm import da as y
from bptt_verifier.docket.entry import DISAGREES, Entry

__all__ = ["ENTRY", "gradients", "held_loss", "loss", "params"]

ENTRY = Entry(
    title="E_delta = y − h(x), and the gradients of each time stamp from it alone",
    source="GeeksforGeeks, LSTM – derivation of back propagation through time, step 4",
    claim=(
        "c_t = c_{t−1} ∗ f + g ∗ i,  h_t = o ∗ tanh(c_t)",
        "E_delta = dE/dh_t; for MSE (mean square error) E_delta = y − h(x)",
        "dE/dc_t = E_delta ∗ o ∗ (1 − tanh²(c_t)),  dE/do = E_delta ∗ tanh(c_t)",
        "dE/df = dE/dc_t ∗ c_{t−1},  dE/di = dE/dc_t ∗ g,  dE/dg = dE/dc_t ∗ i",
        "dE/dw_xf = dE/df ∗ σ(z_f) ∗ (1 − σ(z_f)) ∗ x_t,  dE/dw_hf = … ∗ h_{t−1},  and likewise",
        "the gradients of the weights are the sums over the time stamps",
    ),
    convention="Numbers in the text, columns here. dE/dc_{t−1} = E_delta ∗ o ∗ (1 − tanh²(c_t)) ∗ "
    "f is printed and not used. No formula passes anything to h_{t−1}, so that E_delta is the "
    "direct derivative. Here E = Σ_t ‖y_t − h_t‖² / 2.",
    verdict=DISAGREES,
    mistake=("recurrent-path-dropped", "sign-flipped"),
    seen=True,
    rests_on="two stored copies of the page; its last formula, the sums, is a picture that was not "
    "seen, and stands here as the text says",
    reading="With E_delta = h(x) − y, and for a sequence of one step, it is right. If E_delta is "
    "dE/dh_t along all later steps, the way through c_{t+1} is still missing: see hanbt-lstm-cell.",
    corrected=(
        "E_delta = (h_t − y_t) + Σ over the gates of W_h·ᵀ dE/dz_·,t+1",
        "dE/dc_t = E_delta ∗ o ∗ (1 − tanh²(c_t)) + dE/dc_{t+1} ∗ f_{t+1}",
    ),
    exactly="minus the gradient of the loss in which the state before each step is a constant",
)


def sum_errors(h: list[Any]) -> Any:
    """Σ_t ‖y_t − h_t‖² / 2."""
    return sum(np.sum((y[t] - h[t + 1]) ** 2) for t in range(T)) / 2


def loss(p: Any) -> Any:
    return sum_errors(run(p)[0])


def held_loss(p: Any, held: Any) -> Any:
    return -sum_errors(run(p, held=run(held)[:2])[0])


def gradients(p: Any) -> Any:
    h, c, steps = run(p)
    found = {name: np.zeros_like(value) for name, value in p.items()}
    for t in range(T):
        met, f, i, g, o = steps[t]
        e_delta = y[t] - h[t + 1]
        dc = e_delta * o * (1 - np.tanh(c[t + 1]) ** 2)
        of = {
            "f": dc * c[t] * f * (1 - f), "u": dc * g * i * (1 - i), "c": dc * i * (1 - g**2),
            "o": e_delta * np.tanh(c[t + 1]) * o * (1 - o),
        }  # fmt: skip
        for gate, delta in of.items():
            found["W" + gate] += np.outer(delta, met)
            found["b" + gate] += delta
    return found
