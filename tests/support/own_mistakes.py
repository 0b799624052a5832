"""Mistakes to plant in the first derivation of each of the six models.

A mistake is one line of the derivation, written otherwise; its name is what the judge must say, or
`unknown` where it need only be caught.
"""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from tests.support import own_models
from tests.support.own_models import MODELS


class Mistake(NamedTuple):
    """`right` stands in the derivation exactly once."""

    model: str
    name: str
    right: str
    written: str


RETURN = "    return g\n"

MISTAKES = [
    Mistake("char", "untransposed-recurrent-weight", 'p["Whh"].T @ da', 'p["Whh"] @ da'),
    Mistake("char", "recurrent-path-dropped", '@ dy + dnext', '@ dy'),
    Mistake("char", "activation-derivative-missing", "dh * (1 - h[t] * h[t])", "dh"),
    Mistake("char", "activation-derivative-incomplete", "(1 - h[t] * h[t])", "(1 - h[t])"),
    Mistake("char", "activation-derivative-of-activated-value", "(1 - h[t] * h[t])", "(1 - np.tanh(h[t]) ** 2)"),
    Mistake("char", "activation-derivative-before-matrix-product", 'p["Whh"].T @ da', 'p["Whh"].T @ (da * (1 - h[t - 1] ** 2)) / (1 - h[t - 1] ** 2)'),
    Mistake("char", "hidden-state-off-by-one", 'da @ h[t - 1].T', 'da @ h[t].T'),
    Mistake("char", "negative-index-wraps-around", 'da @ h[t - 1].T', 'da @ (h[t - 1] if t else h[T - 1]).T'),
    Mistake("char", "input-off-by-one", 'da @ x[t].T', 'da @ x[min(t + 1, T - 1)].T'),
    Mistake("char", "transposed-gradient", RETURN, '    g["Whh"] = g["Whh"].T\n' + RETURN),
    Mistake("char", "clipped", RETURN, "    for value in g.values(): np.clip(value, -0.5, 0.5, out=value)\n" + RETURN),
    Mistake("char", "clipped", RETURN, '    g["Whh"] = np.clip(g["Whh"], -0.25, 0.25)\n' + RETURN),
    Mistake("char", "sign-flipped", RETURN, '    g["by"] *= -1\n' + RETURN),
    Mistake("char", "zero-gradient", 'g["bh"] += da', 'pass'),
    Mistake("char", "bias-part-missing", 'g["bh"] += da', 'g["bh"] = da'),
    Mistake("char", "missing-time-sum", 'g["Wxh"] += da', 'g["Wxh"] = da'),
    Mistake("char", "constant-factor", RETURN, '    g = {name: value / T for name, value in g.items()}\n' + RETURN),
    Mistake("char", "last-step-skipped", 'g["Wxh"] += da', 'g["Wxh"] += (t < T - 1) * da'),
    Mistake("char", "path-counted-twice", '+ dnext', '+ 2 * dnext'),
    Mistake("char", "truncated", '@ dy + dnext', '@ dy + (t != 1) * dnext'),
    Mistake("char", "unknown", RETURN, '    g["Whh"][1, 2] *= 1 + 1e-9\n' + RETURN),
    Mistake("batch", "untransposed-recurrent-weight", 'da @ p["W"].T', 'da @ p["W"]'),
    Mistake("batch", "recurrent-path-dropped", 'dh = da @ p["W"].T', "dh = 0 * da"),
    Mistake("batch", "truncated", 'dh = da @ p["W"].T', 'dh = (t != 2) * da @ p["W"].T'),
    Mistake("batch", "first-step-skipped", "range(STEPS - 1, -1, -1)", "range(STEPS - 1, 0, -1)"),
    Mistake("batch", "last-step-skipped", 'g["W"] += h[t]', 'g["W"] += (t < STEPS - 1) * h[t]'),
    Mistake("batch", "constant-factor", "2 / (B * O)", "1 / (B * O)"),
    Mistake("batch", "constant-factor", "2 / (B * O)", "2 / O"),
    Mistake("batch", "sign-flipped", 'p["c"] - Y)', 'p["c"] - Y) * -1'),
    Mistake("batch", "activation-derivative-missing", "dh * (1 - h[t + 1] ** 2)", "dh"),
    Mistake("batch", "activation-derivative-of-activated-value", "(1 - h[t + 1] ** 2)", "(1 - np.tanh(h[t + 1]) ** 2)"),
    Mistake("batch", "hidden-state-off-by-one", "h[t].T @ da", "h[t + 1].T @ da"),
    Mistake("batch", "negative-index-wraps-around", "h[t].T @ da", "h[t if t else -1].T @ da"),
    Mistake("batch", "negative-index-wraps-around", "h[t].T @ da", "h[t - 1].T @ da"),
    Mistake("batch", "input-off-by-one", "X[:, t].T @ da", "X[:, max(t - 1, 0)].T @ da * (t > 0)"),
    Mistake("batch", "output-gradient-at-every-step", 'dh = da @ p["W"].T', 'dh = da @ p["W"].T + dy @ p["V"].T'),
    Mistake("batch", "output-gradient-at-wrong-step", "range(STEPS - 1, -1, -1)", "range(STEPS - 2, -1, -1)"),
    Mistake("batch", "missing-time-sum", 'g["U"] += X', 'g["U"] = X'),
    Mistake("batch", "bias-part-missing", 'g["b"] += da.sum(axis=0)', 'g["b"] += da[0]'),
    Mistake("batch", "bias-part-missing", 'g["c"] = dy.sum(axis=0)', 'g["c"] = dy[0]'),
    Mistake("batch", "wrong-operand", "h[t].T @ da", "(a[t - 1] if t else h[0]).T @ da"),
    Mistake("batch", "path-counted-twice", 'dh = da @ p["W"].T', 'dh = 2 * da @ p["W"].T'),
    Mistake("batch", "transposed-gradient", RETURN, '    g["U"] = g["U"].T.reshape(g["U"].shape)\n' + RETURN),
    Mistake("batch", "clipped", RETURN, "    n = np.sqrt(sum((v**2).sum() for v in g.values()))\n    g = {k: v * min(1, 1 / n) for k, v in g.items()}\n" + RETURN),
    Mistake("lstm", "recurrent-path-dropped", "dc = dc * f", "dc = 0 * dc"),
    Mistake("lstm", "recurrent-path-dropped", '[:, :WIDTH]\n', '[:, :WIDTH] * 0\n'),
    Mistake("lstm", "recurrent-path-dropped", "dc = dc + dh * o * (1 - np.tanh(c) ** 2)", "dc = dc + (dh * o * (1 - np.tanh(c) ** 2) if hx is kept[-1][0] else 0)"),
    Mistake("lstm", "activation-derivative-missing", "dh * o * (1 - np.tanh(c) ** 2)", "dh * o"),
    Mistake("lstm", "activation-derivative-missing", "do * o * (1 - o)", "do"),
    Mistake("lstm", "activation-derivative-missing", "dg * (1 - g**2)", "dg"),
    Mistake("lstm", "activation-derivative-of-activated-value", "(1 - g**2)", "(1 - np.tanh(g) ** 2)"),
    Mistake("lstm", "hidden-state-off-by-one", "dc * g, dc * c_before", "dc * g, dc * c"),
    Mistake("lstm", "wrong-operand", "di, df, dg = dc * g", "di, df, dg = dc * i"),
    Mistake("lstm", "zero-gradient", "df, dg = dc * g, dc * c_before", "df, dg = dc * g, 0 * c_before"),
    Mistake("lstm", "sign-flipped", "do = dh *", "do = -dh *"),
    Mistake("lstm", "factor-missing", "- Y\n    dW", "- Y\n    dy *= 2\n    dW"),
    Mistake("tagger", "untransposed-recurrent-weight", 'da @ p["R"]', 'da @ p["R"].T'),
    Mistake("tagger", "recurrent-path-dropped", '@ p["S"] + dnext', '@ p["S"]'),
    Mistake("tagger", "constant-factor", "dlogits /= 12", "dlogits /= 3"),
    Mistake("tagger", "hidden-state-off-by-one", "da.T @ h[t]", "da.T @ h[t + 1]"),
    Mistake("tagger", "activation-derivative-missing", "* (1 - h[t + 1] ** 2)", "* 1"),
    Mistake("tagger", "last-step-skipped", "for t in (3, 2, 1, 0)", "for t in (2, 1, 0)"),
    Mistake("tagger", "first-step-skipped", "for t in (3, 2, 1, 0)", "for t in (3, 2, 1)"),
    Mistake("tagger", "bias-part-missing", "db += da.sum(axis=0)", "db = da.sum(axis=0)"),
    Mistake("tagger", "repeated-index", "np.add.at(dE, TOKENS[:, t], da)", "dE[TOKENS[:, t]] += da"),
    Mistake("gru", "recurrent-path-dropped", "dh = dh * z + ", "dh = "),
    Mistake("gru", "untransposed-recurrent-weight", 'p["Uz"].T @ dz', 'p["Uz"] @ dz'),
    Mistake("gru", "untransposed-recurrent-weight", 'p["Un"].T @ dn', 'p["Un"] @ dn'),
    Mistake("gru", "recurrent-path-dropped", " + drh * r", ""),
    Mistake("gru", "activation-derivative-missing", "* z * (1 - z)\n", "\n"),
    Mistake("gru", "activation-derivative-missing", "(1 - z) * (1 - n**2)", "(1 - z)"),
    Mistake("gru", "wrong-operand", '("n", dn, r * h)', '("n", dn, h)'),
    Mistake("gru", "sign-flipped", "dh * (h - n)", "dh * (n - h)"),
    Mistake("plain", "untransposed-output-weight", 'd2 @ p["W2"].T', 'd2 @ p["W2"]'),
    Mistake("plain", "activation-derivative-missing", "* h1 * (1 - h1)", "* 1"),
    Mistake("plain", "activation-derivative-of-activated-value", "* h1 * (1 - h1)", "* sigmoid(h1) * (1 - sigmoid(h1))"),
    Mistake("plain", "factor-missing", " / len(POINTS)", ""),
    Mistake("plain", "wrong-operand", "d1.sum(axis=0)", "d2.sum(axis=0)"),
    Mistake("plain", "transposed-gradient", "h1.T @ d2, d2", "(h1.T @ d2).T, d2"),
    Mistake("plain", "bias-part-missing", "d1.sum(axis=0)", "d1[-1]"),
    Mistake("plain", "zero-gradient", "d3.sum(axis=0)", "0 * d3[0]"),
    Mistake("plain", "constant-factor", "h2.T @ d3,", "h2.T @ d3 / 2,"),
]  # fmt: skip


def planted(model: str, *changes: tuple[str, str]) -> Callable[..., Any]:
    """The model's first derivation with these texts changed, each of which occurs exactly once."""
    source = inspect.getsource(MODELS[model].gradients)
    for right, written in changes:
        count = source.count(right)
        assert count == 1, f"{model}: {right!r} occurs {count} times"
        source = source.replace(right, written)
    module = ModuleType("planted")
    exec(compile(source, f"<{model}>", "exec"), vars(own_models), module.__dict__)
    function: Callable[..., Any] = module.__dict__[MODELS[model].gradients.__name__]
    return function
