"""deeplearning.ai, Sequence Models: an LSTM's way back, as version 3b of the exercise has it."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry
from bptt_verifier.docket.forward_passes import sigmoid

ENTRY = Entry(
    title="The gates of an LSTM, with both paths in one bracket",
    source="deeplearning.ai, Sequence Models, week 1, Building your recurrent neural network, "
    "version 3b, equations (7) to (17)",
    claim=(
        "dγ_o = da_next ∗ tanh(c_next) ∗ Γ_o ∗ (1 − Γ_o)",
        "dp_c̃ = (dc_next ∗ Γ_u + Γ_o ∗ (1 − tanh² c_next) ∗ Γ_u ∗ da_next) ∗ (1 − c̃²)",
        "dγ_u = (dc_next ∗ c̃ + Γ_o ∗ (1 − tanh² c_next) ∗ c̃ ∗ da_next) ∗ Γ_u ∗ (1 − Γ_u)",
        "dγ_f = (dc_next ∗ c_prev + Γ_o ∗ (1 − tanh² c_next) ∗ c_prev ∗ da_next) ∗ Γ_f ∗ (1 − Γ_f)",
        "dW_f = dγ_f [a_prev; x_t]ᵀ and likewise,  da_prev = W_fᵀ dγ_f + W_uᵀ dγ_u + W_cᵀ dp_c̃ + "
        "W_oᵀ dγ_o",
        "dc_prev = dc_next ∗ Γ_f + Γ_o ∗ (1 − tanh² c_next) ∗ Γ_f ∗ da_next",
    ),
    convention="Columns; ∗ is elementwise. da_next is total, with what comes from the next step, "
    "and dc_next is what comes from it alone. γ and p are the arguments of σ and tanh. The "
    "gradients da_t from above are given; here the loss is Σ_t ⟨da_t, a_t⟩.",
    verdict=AGREES,
    seen=True,
    rests_on="five stored copies of the notebook that have these equations alike; the number of "
    "the version is from secondary texts",
    reading="The equations of an earlier version have other brackets: see "
    "deeplearning-ai-lstm-gates. The numbers that belong to the earlier one have another way "
    "through the sequence: see deeplearning-ai-lstm-sequence.",
)

rng = np.random.default_rng(12)
T, D, H = 4, 2, 3
x, da = rng.normal(size=(T, D)), rng.normal(size=(T, H))
params = {"W" + gate: rng.normal(size=(H, H + D)) for gate in "fuco"}
params |= {"b" + gate: rng.normal(size=H) for gate in "fuco"}


def run(p: Any, held: Any = None) -> tuple[list[Any], list[Any], list[Any]]:
    """All a, all c, and what each step computes; each step takes both from `held` if given."""
    a, c, steps = [np.zeros(H)], [np.zeros(H)], []
    for t in range(T):
        before_a, before_c = (a, c) if held is None else held
        met = np.concatenate([before_a[t], x[t]])
        f, u, o = (sigmoid(p["W" + gate] @ met + p["b" + gate]) for gate in "fuo")
        candidate = np.tanh(p["Wc"] @ met + p["bc"])
        c.append(f * before_c[t] + u * candidate)
        a.append(o * np.tanh(c[t + 1]))
        steps.append((met, f, u, candidate, o))
    return a, c, steps


def loss(p: Any) -> Any:
    a, _, _ = run(p)
    return sum(np.sum(da[t] * a[t + 1]) for t in range(T))


def gradients(p: Any) -> Any:
    _, c, steps = run(p)
    found = {name: np.zeros_like(value) for name, value in p.items()}
    da_prev, dc_next = np.zeros(H), np.zeros(H)
    for t in reversed(range(T)):
        met, f, u, candidate, o = steps[t]
        da_next = da[t] + da_prev
        slope = o * (1 - np.tanh(c[t + 1]) ** 2) * da_next
        of = {
            "f": (dc_next * c[t] + slope * c[t]) * f * (1 - f),
            "u": (dc_next * candidate + slope * candidate) * u * (1 - u),
            "c": (dc_next * u + slope * u) * (1 - candidate**2),
            "o": da_next * np.tanh(c[t + 1]) * o * (1 - o),
        }
        for gate, delta in of.items():
            found["W" + gate] += np.outer(delta, met)
            found["b" + gate] += delta
        da_prev = sum(p["W" + gate][:, :H].T @ delta for gate, delta in of.items())
        dc_next = dc_next * f + slope * f
    return found
