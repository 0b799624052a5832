"""Balanced problems for timing: adjoints neither vanish nor explode, at any length.

With ordinary random weights the adjoints shrink by a constant factor every step, and after a
hundred steps the backward sweep computes with subnormal numbers or zeros. Some libraries flush
subnormal numbers and some do not, so the timing would measure that instead of training.
"""

from typing import Any

import numpy as np

from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import GATES, Array, Problem, Sizes


def orthogonal(rng: np.random.Generator, size: int) -> Array:
    """A random orthogonal matrix (size, size): a product with it keeps every length."""
    rotation: Array = np.linalg.qr(rng.normal(size=(size, size)))[0]
    return rotation


def biases_that_remember(cell: str, T: int, H: int) -> Array:
    """The gates' biases (G·H,) for which a state decays by 1/T per step, on average.

    Source: Tallec & Ollivier 2018, "Can recurrent neural networks warp time?"
    """
    keep, none = np.full(H, np.log(max(T, 2))), np.zeros(H)
    blocks = {"lstm": [-keep, keep, none, none], "gru": [none, keep, none]}[cell]
    return np.concatenate(blocks)


def balanced(cell: str, sizes: Sizes, *, dtype: Any, seed: int = 0) -> Problem:
    """A balanced problem of these sizes for one cell, with h0 = 0 and the mean squared error.

    W, or its block for each gate, is orthogonal. The plain RNN has no biases and small inputs, of
    size 1/T, for which the slopes 1 − h² of T steps multiply to about e^{−1/2}. The gated cells
    have biases that keep a state for T steps.
    """
    T, _, _, H, _ = sizes
    gates = GATES[cell]
    rng = np.random.default_rng(seed)
    drawn = with_values(rng, sizes, cell=cell, bias=gates > 1)
    W = np.concatenate([orthogonal(rng, H) for _ in range(gates)])
    params = drawn.params._replace(W=W)
    if gates == 1:
        params = params._replace(U=params.U / T)
    else:
        params = params._replace(b=biases_that_remember(cell, T, H), c=np.zeros_like(params.c))
        if cell == "gru":
            params = params._replace(b_n=np.zeros(H))
    return drawn._replace(params=params).map_arrays(lambda values: values.astype(dtype))


def flop(cell: str, sizes: Sizes) -> int:
    """Floating-point operations of the matrix products of one training step; docs/performance.md.

    2B[2TDGH + 3(T−1)GH² + 3HO] with G gates. The first step has no product with W, as h0 = 0.
    """
    T, B, D, H, O = sizes
    G = GATES[cell]
    return 2 * B * (2 * T * D * G * H + 3 * (T - 1) * G * H * H + 3 * H * O)
