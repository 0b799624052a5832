"""The corrected formulas of the docket: with them, the code of a wrong claim is the gradient."""

from pathlib import Path

import pytest

from bptt_verifier.judge.published import (
    FOLDER,
    ROUNDING,
    compare_sizes,
    evaluate,
    list_entries,
    read_entry,
)

# What the claim's code has, and what its corrected formulas put there.
CELL = ("ds = dh * o * (1 - tanh_c**2)\n", "ds = dc + dh * o * (1 - tanh_c**2)\n")
CARRIED = ("dh = delta @ W\n", "dh, dc = delta @ W, ds * f\n")
FIRST = ("dh = dy @ V\n", "dh, dc = dy @ V, 0\n")
CORRECTIONS = {
    "ai-edu-lstm-cell": [CELL, CARRIED, FIRST],
    "ai-edu-lstm-output": [('delta = output @ p["V"] +', 'delta = output @ p["V"].T +')],
    "cs224n-jacobian": [
        ('p["W"].T @ np.diag(slopes[t - 1])', 'np.diag(slopes[t]) @ p["W"]')
    ],
    "d2l-total": [
        ('np.einsum("i,ikl->kl", state, totals[t - 1][0])', "np.outer(state, x[t - 1])"),
        ('np.einsum("i,ikl->kl", state, totals[t - 1][1])', "np.outer(state, h[t - 1])"),
    ],
    "d2l-output-factor": [
        ("np.stack([h[t], 1]) * by_w[t]", '(np.stack([h[t], 1]) + p["w"][0] * by_w[t])')
    ],
    "d2l-products-from-i": [("t - i + 1)", "t - i)")],
    "d2l-state-index": [("np.outer(state, h[j])", "np.outer(state, h[j - 1])")],
    "deep-learning-columns": [('(q["W"].T @ state) * slope', 'q["W"].T @ (slope * state)')],
    "deeplearning-ai-lstm-gates": [
        ("dc_next * c[t] + slope * c[t] *", "(dc_next * c[t] + slope * c[t]) *"),
        (
            "dc_next * candidate + slope * candidate *",
            "(dc_next * candidate + slope * candidate) *",
        ),
        (
            "dc_next * u + slope * u * candidate * (1 - np.tanh(candidate) ** 2)",
            "(dc_next * u + slope * u) * (1 - candidate**2)",
        ),
    ],
    "deeplearning-ai-lstm-sequence": [
        (
            "        da_prev, dc_next = np.zeros(H), np.zeros(H)\n    return",
            '        da_prev = sum(p["W" + g][:, :H].T @ d for g, d in of.items())\n'
            "        dc_next = cell * f\n    return",
        )
    ],
    "eprop-approximation": [],  # needs the way back: the code of eprop-ideal has it
    "gers-truncated-lstm": [("np.zeros_like(dh), ds * f", "delta @ W, ds * f")],
    "hanbt-lstm-biases": [
        ("b[:H] = found.b[H : 2 * H]", "b[:H] = found.b[:H]"),
        ("b[3 * H :] = found.b[H : 2 * H]", "b[3 * H :] = found.b[3 * H :]"),
    ],
    "hanbt-lstm-cell": [CELL, CARRIED, FIRST],
    "hanbt-lstm-product": [("product_from(sums | {t: true @ p[\"W_h\"]}, t)", "sums[t + 1]")],
    "hanbt-rnn-error-reversed": [
        ("(row * (1 - s[i] ** 2)) @ W", "(row @ W) * (1 - s[i] ** 2)")
    ],
    "hanbt-lstm-inputs": [
        ("        if t == T - 1:\n            dU = delta", "        dU += delta")
    ],
    "hochreiter-schmidhuber-1997": [],  # needs the way back too
    "lstm-in-numpy-forget-gate": [("sigmoid(f) * ds * c[t]", "f * (1 - f) * ds * c[t]")],
    "min-char-rnn-clipped": [
        ("np.clip(value, -5, 5) for name, value in d.", "value for name, value in d.")
    ],
    "nicodjimenez-without-carousel": [
        ("ds = o * top_h\n", "ds = o * top_h + later_s\n"),
        ("later_h = np.zeros(H)\n", "later_h, later_s = np.zeros(H), np.zeros(H)\n"),
        ("later_h = dxc[D:]\n", "later_h, later_s = dxc[D:], ds * f\n"),
    ],
    "oreilly-tanh-reader": [("dh / (1 -", "dh * (1 -")],
    "pascanu-jacobian": [('p["W_rec"].T @ np.diag', 'p["W_rec"] @ np.diag')],
    "rnn-vignette-gru": [
        ("d3 * g + d3 * z\n", "d3 * g - d3 * h[t]\n"),
        ("d18 = d17 * r", "d18 = d13 * h[t] * r"),
        ('("r", h[t], d10)', '("r", h[t], d18)'),
        ('("g", h[t] * r, d18)', '("g", h[t] * r, d10)'),
    ],
    "rnn-vignette-lstm": [("error7 * error4", "error7 + error4")],
    "rnn-vignette-lstm-input-gate": [("error16 @ Wi", "error15 @ Wi")],
    "rnn-vignette-lstm-inputs": [("error16 @ Wf", "error16 @ Uf")],
    "rnn-vignette-rnn": [("error5.T @ x[t]", "error4.T @ x[t]")],
    "tan-for-tanh": [("(1 + h[t + 1] ** 2)", "(1 - h[t + 1] ** 2)")],
    "tensorflow-gru-block": [("dz @ Wr +", "dz @ Wz +")],
    "truncated-bptt": [("range(max(T - 4, 0), T)", "range(T)")],
}  # fmt: skip


def test_every_wrong_claim_has_its_correction_here() -> None:
    assert sorted(CORRECTIONS) == [n for n in list_entries() if read_entry(n).entry.corrected]


@pytest.mark.parametrize("name", [name for name, pairs in CORRECTIONS.items() if pairs])
def test_the_corrected_formulas_give_the_gradient(name: str, tmp_path: Path) -> None:
    source = (FOLDER / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
    for wrong, right in CORRECTIONS[name]:
        assert source.count(wrong) == 1
        source = source.replace(wrong, right)
    (tmp_path / "corrected.py").write_text(source, encoding="utf-8")
    corrected, claimed = (
        evaluate(read_entry(each)) for each in (str(tmp_path / "corrected.py"), name)
    )
    true = corrected.find_gradient()
    errors, others = (
        compare_sizes(each.claimed, true, tuple(each.weights)) for each in (corrected, claimed)
    )
    assert max(errors.values()) < ROUNDING
    assert max(others.values()) > 0.01
