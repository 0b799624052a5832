"""Hochreiter & Schmidhuber: the truncated gradient of the first LSTM."""

from typing import Any

import numpy as np

from bptt_verifier.docket.entry import DISAGREES, Entry
from bptt_verifier.docket.forward_passes import sigmoid

ENTRY = Entry(
    title="The truncated gradient of the LSTM without a forget gate",
    source="S. Hochreiter & J. Schmidhuber, Long short-term memory, Neural Computation 9(8), 1997, "
    "appendix A.1, equations (12) to (28)",
    claim=(
        "∂net_l(t)/∂y^u(t−1) ≈ 0 for cells and gates l,  E(t) = Σ_k (t^k(t) − y^k(t))²",
        "e_k(t) = f′_k(net_k(t)) (t^k(t) − y^k(t)),  Δw_lm(t) = α e_l(t) y^m(t−1)",
        "e_out(t) = f′_out(net_out(t)) h(s_c(t)) Σ_k w_kc e_k(t)",
        "e_s(t) = f_out(net_out(t)) h′(s_c(t)) Σ_k w_kc e_k(t)",
        "∂s_c(t)/∂w_in,m = ∂s_c(t−1)/∂w_in,m + g(net_c(t)) f′_in(net_in(t)) y^m(t−1)",
        "∂s_c(t)/∂w_c,m = ∂s_c(t−1)/∂w_c,m + g′(net_c(t)) f_in(net_in(t)) y^m(t−1)",
        "Δw_lm(t) = α e_s(t) ∂s_c(t)/∂w_lm for l = in and l = c",
    ),
    convention="Total derivatives but for the paths that are set to zero; −Δw/α is claimed as the "
    "gradient of Σ_t E(t). Two things differ from the print: E has a factor ½ here, which α takes "
    "up in the paper, and net_k(t) has y^c(t), with which (19) to (24) agree; the forward pass "
    "prints y^u(t−1). One cell in a block, no hidden units, g = 4σ − 2, h = 2σ − 1.",
    verdict=DISAGREES,
    seen=True,
    rests_on="two transcriptions of the appendix from its pages; notes on the paper of 2000 in "
    "ProFatXuanAll.github.io remark on the index in net_k",
    reading="As the truncation that it defines it is right. With y^u(t−1) in net_k(t), as printed "
    "in the forward pass, the error e_k(t) would belong to h(s_c(t−1)).",
    mistake=("recurrent-path-dropped",),
    corrected=("∂net_l(t)/∂y^u(t−1) = w_lu, with what follows from it",),
    exactly="the gradient of the loss in which the y(t−1) that enter cells and gates are constants",
    deliberate=True,
)

rng = np.random.default_rng(16)
T, D, H, O = 4, 2, 3, 2
x, target = rng.normal(size=(T, D)), rng.uniform(size=(T, O))
params = {"W_" + unit: rng.normal(size=(H, D + H)) for unit in ("in", "out", "c")}
params |= {"W_k": rng.normal(size=(O, H))}


def run(p: Any, held: Any = None) -> tuple[list[Any], list[Any]]:
    """All y of the cells, and what each step computes; cells and gates take y from `held`."""
    y, s, steps = [np.zeros(H)], np.zeros(H), []
    for t in range(T):
        met = np.concatenate([x[t], (y if held is None else held)[t]])
        into, out, u = (sigmoid(p["W_" + unit] @ met) for unit in ("in", "out", "c"))
        s = s + into * (4 * u - 2)
        y.append(out * (2 * sigmoid(s) - 1))
        steps.append((met, into, out, u, sigmoid(s)))
    return y, steps


def sum_errors(p: Any, y: list[Any]) -> Any:
    """Σ_t E(t), with a factor ½."""
    return sum(np.sum((target[t] - sigmoid(p["W_k"] @ y[t + 1])) ** 2) for t in range(T)) / 2


def loss(p: Any) -> Any:
    return sum_errors(p, run(p)[0])


def held_loss(p: Any, held: Any) -> Any:
    return sum_errors(p, run(p, held=run(held)[0])[0])


def gradients(p: Any) -> Any:
    y, steps = run(p)
    found = {name: np.zeros_like(value) for name, value in p.items()}
    by_in, by_c = np.zeros_like(p["W_in"]), np.zeros_like(p["W_c"])
    for t in range(T):
        met, into, out, u, v = steps[t]  # v = σ(s)
        y_k = sigmoid(p["W_k"] @ y[t + 1])
        e_k = y_k * (1 - y_k) * (y_k - target[t])
        back = p["W_k"].T @ e_k
        by_in = by_in + np.outer((4 * u - 2) * into * (1 - into), met)
        by_c = by_c + np.outer(4 * u * (1 - u) * into, met)
        e_s = out * 2 * v * (1 - v) * back
        found["W_k"] += np.outer(e_k, y[t + 1])
        found["W_out"] += np.outer(out * (1 - out) * (2 * v - 1) * back, met)
        found["W_in"] += e_s[:, None] * by_in
        found["W_c"] += e_s[:, None] * by_c
    return found
