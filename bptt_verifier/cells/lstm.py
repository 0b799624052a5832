"""The LSTM as a stated function, its gates in PyTorch's order i, f, g, o.

c_t = σ(f) c_{t-1} + σ(i) tanh(g),    h_t = σ(o) tanh(c_t)
"""

from collections.abc import Mapping
from typing import Any

from bptt_verifier.cells.layers import Array, Gates, State, run, sigmoid, split


def step(xp: Any, params: Gates, states: State, entered: Array) -> State:
    """One step."""
    h, c = states
    i, f, g, o = split(entered + params.recur(h), 4)
    c = sigmoid(xp, f) * c + sigmoid(xp, i) * xp.tanh(g)
    return sigmoid(xp, o) * xp.tanh(c), c


def forward(
    weights: Mapping[str, Array],
    x: Array,
    h0: Array | None = None,
    c0: Array | None = None,
    *,
    lengths: Array | None = None,
    batch_first: bool = False,
) -> tuple[Array, tuple[Array, Array]]:
    """Every h_t of the last layer, and (h_T, c_T) of all layers, as torch.nn.LSTM returns.

    x is (T, B, D), or (B, T, D) if `batch_first`; h0 and c0 are (layers · directions, B, H).
    `weights` and `lengths` are those of `layers`.
    Raises ValueError naming what does not fit.
    """
    output, (h_n, c_n) = run(step, 4, weights, x, [h0, c0], lengths, batch_first)
    return output, (h_n, c_n)
