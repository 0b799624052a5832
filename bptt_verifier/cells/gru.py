"""The GRU as a stated function, its gates in PyTorch's order r, z, n.

n_t = tanh(W_in x_t + b_in + σ(r) (W_hn h_{t-1} + b_hn)),    h_t = (1 − σ(z)) n_t + σ(z) h_{t-1}
"""

from collections.abc import Mapping
from typing import Any

from bptt_verifier.cells.layers import Array, Gates, State, run, sigmoid, split


def step(xp: Any, params: Gates, states: State, entered: Array) -> State:
    """One step."""
    (h,) = states
    (r, z, n), (r_h, z_h, n_h) = split(entered, 3), split(params.recur(h), 3)
    z = sigmoid(xp, z + z_h)
    n = xp.tanh(n + sigmoid(xp, r + r_h) * n_h)
    return ((1 - z) * n + z * h,)


def forward(
    weights: Mapping[str, Array],
    x: Array,
    h0: Array | None = None,
    *,
    lengths: Array | None = None,
    batch_first: bool = False,
) -> tuple[Array, Array]:
    """Every h_t of the last layer, and h_T of all layers and directions, as torch.nn.GRU returns.

    x is (T, B, D), or (B, T, D) if `batch_first`; h0 is (layers · directions, B, H). `weights` and
    `lengths` are those of `layers`. The reset gate acts after the product with W_hn, as in PyTorch.
    Raises ValueError naming what does not fit.
    """
    output, (h_n,) = run(step, 3, weights, x, [h0], lengths, batch_first)
    return output, h_n
