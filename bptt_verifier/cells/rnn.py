"""The plain RNN as a stated function: h_t = φ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from bptt_verifier.cells.layers import Array, Gates, State, run

NONLINEARITIES = ("tanh", "relu")


def step(nonlinearity: str, xp: Any, params: Gates, states: State, entered: Array) -> State:
    """One step."""
    a = entered + params.recur(states[0])
    return (xp.tanh(a) if nonlinearity == "tanh" else xp.where(a > 0, a, xp.zeros_like(a)),)


def forward(
    weights: Mapping[str, Array],
    x: Array,
    h0: Array | None = None,
    *,
    nonlinearity: str = "tanh",
    lengths: Array | None = None,
    batch_first: bool = False,
) -> tuple[Array, Array]:
    """Every h_t of the last layer, and h_T of all layers and directions, as torch.nn.RNN returns.

    x is (T, B, D), or (B, T, D) if `batch_first`; h0 is (layers · directions, B, H). `weights` and
    `lengths` are those of `layers`. The nonlinearity is tanh or relu.
    Raises ValueError naming what does not fit.
    """
    if nonlinearity not in NONLINEARITIES:
        raise ValueError(f"nonlinearity: expected tanh or relu, found {nonlinearity!r}")
    output, (h_n,) = run(partial(step, nonlinearity), 1, weights, x, [h0], lengths, batch_first)
    return output, h_n
