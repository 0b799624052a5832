"""deeplearning.ai, Sequence Models: an LSTM's gates in an earlier version of the exercise."""

from typing import Any

import numpy as np

from bptt_verifier.docket.deeplearning_ai_lstm import H, T, da, loss, params, run
from bptt_verifier.docket.entry import DISAGREES, Entry

__all__ = ["ENTRY", "gradients", "loss", "params"]

ENTRY = Entry(
    title="The gates of an LSTM, with the slope on one of two paths",
    source="deeplearning.ai, Sequence Models, week 1, Building a recurrent neural network, "
    "version 3, equations (8) to (10)",
    claim=(
        "dc̃ = dc_next ∗ Γ_u + Γ_o (1 − tanh² c_next) ∗ i ∗ da_next ∗ c̃ ∗ (1 − tanh² c̃)",
        "dΓ_u = dc_next ∗ c̃ + Γ_o (1 − tanh² c_next) ∗ c̃ ∗ da_next ∗ Γ_u ∗ (1 − Γ_u)",
        "dΓ_f = dc_next ∗ c_prev + Γ_o (1 − tanh² c_next) ∗ c_prev ∗ da_next ∗ Γ_f ∗ (1 − Γ_f)",
    ),
    convention="As in deeplearning-ai-lstm: these are meant with respect to the arguments of the "
    "gates, since dW_f = dΓ_f [a_prev; x_t]ᵀ follows. c̃ is the value of tanh, i is Γ_u, and "
    "c̃_prev in (10) is read as c_prev.",
    verdict=DISAGREES,
    seen=True,
    rests_on="six stored copies of the notebook that have these equations alike, and version 3b",
    reading="With a bracket around both summands before the slope, and 1 − c̃² for "
    "c̃ (1 − tanh² c̃), they are right. Version 3b has that. The numbers that the notebook "
    "expects were computed with the bracket.",
    corrected=(
        "dp_c̃ = (dc_next ∗ Γ_u + Γ_o (1 − tanh² c_next) ∗ Γ_u ∗ da_next) ∗ (1 − c̃²)",
        "dγ_u = (dc_next ∗ c̃ + Γ_o (1 − tanh² c_next) ∗ c̃ ∗ da_next) ∗ Γ_u ∗ (1 − Γ_u)",
        "dγ_f = (dc_next ∗ c_prev + Γ_o (1 − tanh² c_next) ∗ c_prev ∗ da_next) ∗ Γ_f ∗ (1 − Γ_f)",
    ),
)


def gradients(p: Any) -> Any:
    _, c, steps = run(p)
    found = {name: np.zeros_like(value) for name, value in p.items()}
    da_prev, dc_next = np.zeros(H), np.zeros(H)
    for t in reversed(range(T)):
        met, f, u, candidate, o = steps[t]
        da_next = da[t] + da_prev
        slope = o * (1 - np.tanh(c[t + 1]) ** 2) * da_next
        of = {
            "f": dc_next * c[t] + slope * c[t] * f * (1 - f),
            "u": dc_next * candidate + slope * candidate * u * (1 - u),
            "c": dc_next * u + slope * u * candidate * (1 - np.tanh(candidate) ** 2),
            "o": da_next * np.tanh(c[t + 1]) * o * (1 - o),
        }
        for gate, delta in of.items():
            found["W" + gate] += np.outer(delta, met)
            found["b" + gate] += delta
        da_prev = sum(p["W" + gate][:, :H].T @ delta for gate, delta in of.items())
        dc_next = dc_next * f + slope * f
    return found
