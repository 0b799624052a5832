"""Graves & Schmidhuber: a weight's gradient as δ times what it met."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import AGREES, Entry
from bptt_verifier.docket.forward_passes import run_lstm

ENTRY = Entry(
    title="∂E/∂w = Σ_t δ y, in an LSTM with the full gradient",
    source="A. Graves & J. Schmidhuber, Framewise phoneme classification with bidirectional LSTM "
    "and other neural network architectures, Neural Networks 18, 2005, appendix; called incorrect "
    "by wangtong106/scribbles on GitHub",
    claim=("∂E/∂w_ij = Σ_τ δ_i(τ) y_j(τ−1),  δ_i(τ) = ∂E/∂x_i(τ)",),
    convention=(
        "δ_i is the total derivative with respect to the argument x_i of unit i, along all later "
        "steps; y_j is what the weight met. Without peepholes here."
    ),
    verdict=AGREES,
    seen=False,
    rests_on="the formula as the critic quotes it; the critic's page was seen, the paper was not",
    reading=(
        "The critic holds ∂x/∂w ≠ y, since y depends on w through the recurrence. For the total "
        "derivative that is true. In the sum over all steps ∂x/∂w is direct, because δ already "
        "has the later steps in it; the indirect paths are the other terms of the sum. The "
        "critic's program compares another sum: the δ of each step's own error alone, times the "
        "input of the step before, where its gates read the input of the same step."
    ),
    model="lstm",
)


def gradients(params: Any, x: Any, y: Any) -> Any:
    U, W, V = params
    T = len(x)
    h, c, gates = run_lstm(U, W, x)
    dy = 2 * (h[T] @ V.T - y) / y.size
    dU, dW, dV = np.zeros_like(U), np.zeros_like(W), dy.T @ h[T]
    dh, dc = dy @ V, np.zeros_like(h[0])
    for t in reversed(range(T)):
        i, f, g, o = gates[t]
        tanh_c = np.tanh(c[t + 1])
        ds = dc + dh * o * (1 - tanh_c**2)
        deltas = ds * g * i * (1 - i), ds * c[t] * f * (1 - f), ds * i * (1 - g**2)
        delta = np.concatenate([*deltas, dh * tanh_c * o * (1 - o)], axis=1)
        dU += delta.T @ x[t]
        dW += delta.T @ h[t]
        dh, dc = delta @ W, ds * f
    return dU, dW, dV
