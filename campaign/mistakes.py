"""Mistakes of random submissions: one line of a way back, or what becomes of the gradients.

A line is a text that occurs once in the function of a layer, and what stands there instead. A
change takes the gradients and the parameters; what depends on earlier calls is made anew for each
submission.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from campaign.formulas import draw_formulas
from campaign.models import BACK, Model
from campaign.submissions import Gradients, by_hand

Change = Callable[[dict[str, Any], Mapping[str, Any]], dict[str, Any]]


class Wrong(NamedTuple):
    """A wrong submission, what is wrong, and the right one that is the same otherwise."""

    mistake: str
    gradients: Gradients
    right: Gradients


CARRIED = 'later = da @ p["W"].T'
LINES: dict[str, list[tuple[str, str]]] = {
    "rnn": [
        (CARRIED, 'later = da @ p["W"]'),
        (CARRIED, "later = 0.0"),
        (CARRIED, 'later = 2 * (da @ p["W"].T)'),
        (CARRIED, 'later = 0.99 * (da @ p["W"].T)'),
        (CARRIED, 'later = (T - t < 3) * (da @ p["W"].T)'),
        (CARRIED, 'later = (T - t < 16) * (da @ p["W"].T)'),
        (CARRIED, 'later = (t % 4 != 0) * (da @ p["W"].T)'),
        (CARRIED, 'later = (t % 16 != 0) * (da @ p["W"].T)'),
        (CARRIED, 'later = np.clip(da @ p["W"].T, -0.01, 0.01)'),
        (CARRIED, 'later = np.clip(da @ p["W"].T, -1, 1)'),
        (CARRIED, 'later = dh @ p["W"].T'),
        ("dh = dy[t] + later", "dh = dy[t] + dy[-1] + later"),
        ("dh * f.differentiate(a, h)", "dh"),
        ("dh * f.differentiate(a, h)", "dh * f.differentiate(h, h)"),
        ("dh * f.differentiate(a, h)", "dh * f.differentiate(a, h) ** 2"),
        ("dh * f.differentiate(a, h)", "dh * f.differentiate(a, h) * (np.abs(a) < 3)"),
        ("dh * f.differentiate(a, h)", "dh * f.differentiate(a, h) * (np.abs(a) < 15)"),
        ("before.T @ da", "h.T @ da"),
        ('g["W"] +=', 'g["W"] ='),
        ('g["U"] +=', 'g["U"] ='),
        ('g["b"] +=', 'g["b"] ='),
        ('g["U"] +=', 'g["U"] += (t > 0) *'),
        ('g["W"] +=', 'g["W"] += (t < T - 1) *'),
        ('g["W"] +=', 'g["W"] += (t != 1) *'),
        ("x.T @ da", "x[1:].T @ da[1:]"),
        ("da.sum(axis=0)", "da[0]"),
        ("da.sum(axis=0)", "da.mean(axis=0)"),
        ('da @ p["U"].T)', 'da @ p["U"].T * f.differentiate(a, h).mean())'),
    ],
    "lstm": [
        (CARRIED, "later = 0.0"),
        (CARRIED, 'later = np.concatenate([di, df, dg, 0 * do], axis=1) @ p["W"].T'),
        (CARRIED, 'later = (T - t < 3) * (da @ p["W"].T)'),
        (CARRIED, 'later = (t % 4 != 0) * (da @ p["W"].T)'),
        ("dc_later = dc * forget", "dc_later = dc"),
        ("dc_later = dc * forget", "dc_later = 0.0"),
        ("dc_later = dc * forget", "dc_later = (t % 4 != 0) * dc * forget"),
        ("dc_later = dc * forget", "dc_later = dc * i"),
        (" + dc_later", " + 0.98 * dc_later"),
        ("dh * o * f.slope_of_tanh(c, u)", "dh * o"),
        ("dh * o * f.slope_of_tanh(c, u)", "dh * f.slope_of_tanh(c, u)"),
        ("dh * o * f.slope_of_tanh(c, u)", "dh * o * f.slope_of_tanh(c, u) * (np.abs(c) < 3)"),
        ("dh * u * f.slope_of_sigmoid(ao, o)", "dh * u"),
        ("dh * u * f.slope_of_sigmoid(ao, o)", "dh * c * f.slope_of_sigmoid(ao, o)"),
        ("dc * g * f.slope_of_sigmoid(ai, i)", "dc * g * f.slope_of_sigmoid(ai, forget) * i"),
        ("dc * g * f.slope_of_sigmoid(ai, i)", "0 * dc"),
        ("dc * c0 * f", "dc * c * f"),
        ("dc * c0 * f", "-dc * c0 * f"),
        ("f.slope_of_tanh(ag, g)", "f.slope_of_tanh(ag, g) ** 2"),
        ("[di, df, dg, do]", "[df, di, dg, do]"),
        ("[di, df, dg, do]", "[di, df, dg, do * 1.01]"),
        ('G["W"] += h0.T', 'G["W"] += (o * u).T'),
        ('G["W"] +=', 'G["W"] ='),
        ('G["U"] +=', 'G["U"] += (t < T - 1) *'),
        ('G["b"] +=', 'G["b"] ='),
        ("da.sum(axis=0)", "da[-1]"),
    ],
    "gru": [
        ("dh * (1 - z)", "dh * z"),
        ("dh * (h0 - n)", "dh * (n - h0)"),
        ("dh * (h0 - n)", "dh * h0"),
        ("dn * m *", "dn * h0 *"),
        ("dn * r]", "dn]"),
        ("later = dh * z + of_h", "later = of_h"),
        ("later = dh * z + of_h", "later = dh * z + of_x"),
        ('of_h @ p["W"].T', '0 * (of_h @ p["W"].T)'),
        ('of_h @ p["W"].T', '(T - t < 4) * (of_h @ p["W"].T)'),
        ('of_h @ p["W"].T', '0.99 * (of_h @ p["W"].T)'),
        ("f.slope_of_sigmoid(ar, r)", "1"),
        ("f.slope_of_tanh(an, n)", "f.slope_of_tanh(n, n) ** 2"),
        ("f.slope_of_sigmoid(az, z)", "f.slope_of_sigmoid(az, r)"),
        ("h0.T @ of_h", "h0.T @ of_x"),
        ('G["W"] +=', 'G["W"] ='),
        ('G["U"] +=', 'G["U"] += (t > 0) *'),
        ("of_x.sum(axis=0)", "of_h.sum(axis=0)"),
        ("of_x = np.concatenate([dr, dz, dn]", "of_x = np.concatenate([dz, dr, dn]"),
    ],
    "lru": [
        ("later = np.conj(factor) * dh", "later = factor * dh"),
        ("later = np.conj(factor) * dh", "later = 0.0"),
        ("later = np.conj(factor) * dh", "later = np.abs(factor) * dh"),
        ("np.conj(before)", "before"),
        ("np.conj(before)", "np.conj(h)"),
        ("np.conj(factor) * of_factor", "factor * of_factor"),
        ("np.conj(factor) * of_factor", "of_factor"),
        ('-np.exp(p["ν"]) *', 'np.exp(p["ν"]) *'),
        ('-np.exp(p["ν"]) *', "-1 *"),
        ("of_exponent.imag", "-of_exponent.imag"),
        ('+ 1j * p["β"]', '- 1j * p["β"]'),
        ("(dy[t] * h.imag)", "(dy[t] * h.real)"),
        ("x.T @ dh.imag", "-x.T @ dh.imag"),
        (' + dh.imag @ p["Q"].T', ""),
    ],
    "embedding": [
        ('np.add.at(g["E"], tokens, arriving)', 'g["E"][tokens] += arriving'),
        ('np.add.at(g["E"], tokens, arriving)', 'g["E"][tokens] = arriving'),
        ('np.add.at(g["E"], tokens, arriving)', 'np.add.at(g["E"], tokens[:1], arriving[:1])'),
    ],
    "convolution": [
        ("x[t - k].T", "x[t].T"),
        ('g["K"][k] +=', 'g["K"][k] ='),
        ('g["b"] +=', 'g["b"] ='),
        ("dy[t] * f.differentiate(a, h)", "dy[t]"),
        ('dx[t - k] = dx[t - k] + da @ p["K"][k].T', 'dx[t - k] = da @ p["K"][k].T'),
        ('g["K"][k] +=', 'g["K"][k] += (k < 2) *'),
    ],
    "normalisation": [
        ("dn - mean - n * along", "dn - n * along"),
        ("dn - mean - n * along", "dn - mean"),
        ("dn - mean - n * along", "dn"),
        (") / s)", "))"),
        ('arriving * p["γ"]', "arriving"),
        ('g["γ"] += (arriving * n)', 'g["γ"] += arriving'),
        ('g["β"] +=', 'g["β"] ='),
    ],
    "attention": [
        ("dw - total", "dw"),
        ("weights * (dw - total)", "weights * (1 - weights) * dw"),
        (' / p["Q"].shape[1] ** 0.5', ""),
        ('"bts,bsh->bth", ds, k', '"bts,bsh->bth", ds, q'),
        ('"bts,bth->bsh", ds, q', '"bst,bth->bsh", ds, q'),
        (' + dk @ p["K"].T', ""),
        ('"bts,bth->bsh", weights', '"bst,bth->bsh", weights'),
    ],
    "pooling": [
        ("[0 * dy] * (trace - 1) + [dy]", "[dy] * trace"),
        ("[dy / trace] * trace", "[dy] * trace"),
        ("np.split(dy, trace)", "np.split(dy, trace)[:1] * trace"),
        ("(dw - (weights * dw).sum(axis=0))", "dw"),
        (" / size\n", "\n"),
        ("weights[:, :, None] * dy + de", "de"),
        ("(every * dy).sum(axis=2)", "(every * dy).mean(axis=2)"),
    ],
    "loss": [
        ("2 * (o - y) / o.size", "(o - y) / o.size"),
        ("2 * (o - y) / o.size", "2 * (o - y) / len(o)"),
        ("return o - y", "return y - o"),
        ("np.tanh(o - y)", "np.tanh(o - y) ** 2"),
        ("np.tanh(o - y)", "np.clip(o - y, -1, 1)"),
        ("(f.squash(o, np) - y) / o.size", "(f.squash(o, np) - y) / len(o)"),
        ("(f.normalise(o, 1, np) - y)", "(f.normalise(o, 1, np) - 0.999 * y)"),
        ("(f.normalise(o, 1, np) - y) / len(y)", "(f.normalise(o, 1, np) - y)"),
    ],
}


def plant(function: Callable[..., Any], right: str, written: str) -> Callable[..., Any]:
    """Write one text of a function otherwise; it must occur exactly once."""
    source = inspect.getsource(function)
    if source.count(right) != 1:
        raise ValueError(f"{function.__name__}: {right!r} occurs {source.count(right)} times")
    names = dict(vars(sys.modules[function.__module__]))
    exec(compile(source.replace(right, written), f"<{function.__name__}>", "exec"), names)
    planted: Callable[..., Any] = names[function.__name__]
    return planted


def change_one(name: str, change: Callable[[Any], Any]) -> Change:
    """Change one gradient."""
    return lambda g, p: g | {name: change(g[name])}


def multiply_at(value: Any, place: Any, by: float) -> Any:
    """Multiply one entry, row or column."""
    value = value.copy()
    value[place] = value[place] * by
    return value


def list_changes(model: Model, rng: np.random.Generator) -> dict[str, Change]:
    """Draw a change of each kind, of one gradient or of all."""
    settings = model.settings[0]
    name = str(rng.choice([*settings]))
    given = settings[name]
    entry = tuple(int(rng.integers(size)) for size in given.shape)
    axis = int(rng.integers(given.ndim))
    row = (*[slice(None)] * axis, entry[axis])
    factor = float(rng.choice([2.0, 0.5, -1.0, 1.01, 0.999, 1 + 1e-5, 1 + 1e-8]))
    limit = float(rng.choice([1e-3, 1e-2, 0.1, 1.0, 5.0]))
    large = float(rng.choice([3.0, 30.0]))
    count = {"calls": 0}
    left: dict[str, Any] = {}

    def clip_norm(g: dict[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
        norm = float(np.sqrt(sum(float(np.sum(value.astype(float) ** 2)) for value in g.values())))
        scale = min(1.0, limit / max(norm, 1e-30))
        return {each: (value * scale).astype(value.dtype) for each, value in g.items()}

    def at_some_calls(g: dict[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
        count["calls"] += 1
        return g | {name: g[name] * 1.5} if count["calls"] % every == 0 else g

    def from_second_call(g: dict[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
        count["calls"] += 1
        return g | {name: g[name] * 0.9} if count["calls"] > 1 else g

    def keep_adding(g: dict[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
        known = left.get(name)
        same = known is not None and known.shape == g[name].shape
        left[name] = known + g[name] if same else g[name].copy()
        return g | {name: left[name]}

    def share(g: dict[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
        like = [each for each in g if g[each].shape == g[name].shape and each != name]
        return g | {name: g[like[0]]} if like else g | {name: 0 * g[name]}

    def leave_unwritten(g: dict[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
        value = np.empty_like(g[name])
        rest = tuple(slice(1, None) for _ in value.shape)
        value[rest] = g[name][rest]
        return g | {name: value}

    def update(g: dict[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
        for each, value in g.items():
            p[each][...] -= (0.01 * value).astype(p[each].dtype)
        return g

    every = int(rng.choice([5, 20]))
    changes: dict[str, Change] = {
        f"{name} times {factor:.9g}": change_one(name, lambda v: (v * factor).astype(v.dtype)),
        f"all times {factor:.9g}": lambda g, p: {
            each: (value * factor).astype(value.dtype) for each, value in g.items()
        },
        f"{name} zero": change_one(name, lambda v: 0 * v),
        f"{name}{list(entry)} off by 1 %": change_one(name, lambda v: multiply_at(v, entry, 1.01)),
        f"{name}{list(entry)} off by 1e-6": change_one(
            name, lambda v: multiply_at(v, entry, 1 + 1e-6)
        ),
        f"{name}{list(entry)} zero": change_one(name, lambda v: multiply_at(v, entry, 0.0)),
        f"{name} without index {entry[axis]} of axis {axis}": change_one(
            name, lambda v: multiply_at(v, row, 0.0)
        ),
        f"{name} clipped at {limit:g}": change_one(name, lambda v: np.clip(v, -limit, limit)),
        f"norm clipped at {limit:g}": clip_norm,
        f"{name} zero where its largest entry exceeds {large:g}": change_one(
            name, lambda v: v * (np.abs(v).max() < large)
        ),
        f"{name} 10 % off where a parameter exceeds {large:g}": lambda g, p: (
            g | {name: g[name] * (1 if max(np.abs(v).max() for v in p.values()) < large else 0.9)}
        ),
        f"{name} with decay": lambda g, p: (
            g | {name: (g[name] + 1e-3 * p[name]).astype(g[name].dtype)}
        ),
        f"{name} in half precision": change_one(
            name, lambda v: v.astype(np.float16).astype(v.dtype)
        ),
        f"{name} at every call {every} times 1.5": at_some_calls,
        f"{name} from the second call times 0.9": from_second_call,
        f"{name} added to that of earlier calls": keep_adding,
        f"{name} takes another one's": share,
        f"{name} not all written": leave_unwritten,
        "parameters updated": update,
        f"{name} reversed": change_one(name, lambda v: v[::-1].copy()),
    }
    square = given.ndim == 2 and given.shape[0] == given.shape[1]
    if square:
        changes[f"{name} transposed"] = change_one(name, lambda v: v.T.copy())
    if len(model.settings) > 1:
        wide = max(each[name].size for each in model.settings)
        changes[f"{name} half in the larger setting"] = change_one(
            name, lambda v: v / 2 if v.size == wide else v
        )
    return changes


def draw_wrong(model: Model, rng: np.random.Generator) -> Wrong:
    """Draw a wrong submission: a line of one layer, or a change of the gradients."""
    f = draw_formulas(rng, model.formulas.activation)._replace(rotation="complex")
    style = str(rng.choice(["hand"] * 3 + ["hand float32"] * 2))
    right = by_hand(model, f, style)
    if rng.random() < 0.55:
        kinds = [layer.kind for layer in model.layers] * 3 + ["pooling", "loss"]
        kind = str(rng.choice(kinds))
        one, other = LINES[kind][int(rng.integers(len(LINES[kind])))]
        back = BACK | {kind: plant(BACK[kind], one, other)}
        return Wrong(f"{kind}: {one!r} written {other!r}", by_hand(model, f, style, back), right)
    changes = list_changes(model, rng)
    mistake = str(rng.choice([*changes]))
    change = changes[mistake]

    def gradients(p: Mapping[str, Any]) -> dict[str, Any]:
        return change(right(p), p)

    return Wrong(mistake, gradients, right)
