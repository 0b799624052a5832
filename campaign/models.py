"""Random models: layers, pooling and a loss, with sizes, parameters and data."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from campaign.cells import (
    Params,
    back_gru,
    back_lru,
    back_lstm,
    back_rnn,
    run_gru,
    run_lru,
    run_lstm,
    run_rnn,
)
from campaign.formulas import FUNCTIONS, Formulas, draw_formulas
from campaign.layers import (
    back_attention,
    back_convolution,
    back_embedding,
    back_loss,
    back_normalisation,
    back_pooling,
    run_attention,
    run_convolution,
    run_embedding,
    run_loss,
    run_normalisation,
    run_pooling,
)

RUN: dict[str, Callable[..., Any]] = {
    "rnn": run_rnn, "lstm": run_lstm, "gru": run_gru, "lru": run_lru,
    "embedding": run_embedding, "convolution": run_convolution,
    "normalisation": run_normalisation, "attention": run_attention,
}  # fmt: skip
# The ways back, by which a mistake replaces one of them.
BACK: dict[str, Callable[..., Any]] = {
    "rnn": back_rnn, "lstm": back_lstm, "gru": back_gru, "lru": back_lru,
    "embedding": back_embedding, "convolution": back_convolution,
    "normalisation": back_normalisation, "attention": back_attention,
    "pooling": back_pooling, "loss": back_loss,
}  # fmt: skip
CELLS = "rnn", "lstm", "gru", "lru"
WINDOW, VOCABULARY = 3, 5  # steps of a convolution, tokens of an embedding

# Sizes (T, B, D, H) from and to, and how often they are drawn. An unrolled loss of many steps and
# many gates is compiled for half a minute: few are long, and few are wide.
SIZES = {
    "small": (0.78, (2, 8), (1, 4), (1, 4), (1, 8)),
    "medium": (0.14, (6, 14), (2, 5), (3, 10), (10, 32)),
    "wide": (0.05, (3, 6), (2, 4), (3, 8), (48, 128)),
    "long": (0.03, (30, 100), (1, 2), (2, 3), (2, 8)),
}


class Layer(NamedTuple):
    """One layer: its kind, and the prefix of its parameters, one for each direction."""

    kind: str
    prefixes: tuple[str, ...]


class Model(NamedTuple):
    """A random model: `x` are inputs (T, B, D) or tokens (T, B), `y` are targets.

    `settings` are its parameters, of one width or two; `formulas` are those of the loss.
    """

    label: str
    layers: tuple[Layer, ...]
    pooling: str
    head: str
    settings: tuple[Params, ...]
    x: Any
    y: Any
    formulas: Formulas
    in_numpy: bool

    def loss(self) -> Callable[..., Any]:
        """The loss as a user writes it: of parameters alone, or with a namespace."""
        if self.in_numpy:
            return lambda params: run(self, params, np, self.formulas)[0]
        return lambda params, xp: run(self, params, xp, self.formulas)[0]

    def convert(self, dtype: Any) -> "Model":
        """The model with its data in another precision."""
        x = self.x if self.x.dtype.kind == "i" else self.x.astype(dtype)
        return self._replace(x=x, y=self.y.astype(dtype))


def select(p: Mapping[str, Any], prefix: str) -> Params:
    """The parameters of one layer, by their own names."""
    return {n.removeprefix(prefix): v for n, v in p.items() if n.startswith(prefix)}


def run(model: Model, p: Mapping[str, Any], xp: Any, f: Formulas) -> tuple[Any, Any]:
    """Compute the loss, and a trace for the way back."""
    x, traces = model.x, []
    for layer in model.layers:
        outputs, kept = [], []
        for prefix in layer.prefixes:
            reverse = prefix.endswith("b_")
            given = x[::-1] if reverse else x
            y, trace = RUN[layer.kind](select(p, prefix), given, xp, f)
            outputs.append(y[::-1] if reverse else y)
            kept.append(trace)
        x = outputs[0]
        if len(outputs) > 1:
            x = [xp.concatenate(pair, axis=1) for pair in zip(*outputs, strict=True)]
        traces.append(kept)
    states, pooled = run_pooling(model.pooling, select(p, "p_"), x, xp, f)
    o = states @ p["V"] + p["c"]
    return run_loss(model.head, o, model.y, xp, f), (traces, pooled, states, o)


def derive(
    model: Model, p: Mapping[str, Any], f: Formulas, back: Mapping[str, Callable[..., Any]] = BACK
) -> Params:
    """Compute the gradients of all parameters, by hand."""
    _, (traces, pooled, states, o) = run(model, p, np, f)
    do = back["loss"](model.head, o, model.y, f)
    g = {"V": states.T @ do, "c": do.sum(axis=0)}
    dy, own = back["pooling"](model.pooling, select(p, "p_"), pooled, do @ p["V"].T, f)
    g |= {f"p_{name}": value for name, value in own.items()}
    for layer, kept in zip(reversed(model.layers), reversed(traces), strict=True):
        halves = [
            [*each] for each in zip(*(np.split(d, len(kept), axis=1) for d in dy), strict=True)
        ]
        below = []
        for prefix, trace, half in zip(layer.prefixes, kept, halves, strict=True):
            reverse = prefix.endswith("b_")
            given = half[::-1] if reverse else half
            dx, own = back[layer.kind](select(p, prefix), trace, given, f)
            g |= {prefix + name: value for name, value in own.items()}
            below.append(dx[::-1] if reverse else dx)
        if layer.kind != "embedding":
            dy = [sum(each[1:], each[0]) for each in zip(*below, strict=True)]
    return {name: g[name] for name in p}


def draw_model(seed: int, number: int) -> Model:
    """Draw the model of this number; the same seed gives the same models."""
    rng = np.random.default_rng([seed, number])
    kind = str(rng.choice([*SIZES], p=[each[0] for each in SIZES.values()]))
    T, B, D, H = (int(rng.integers(low, high + 1)) for low, high in SIZES[kind][1:])
    O = int(rng.integers(2, 5))
    activation = str(rng.choice([*FUNCTIONS]))
    pooling = str(rng.choice(["last", "last", "mean", "attention", "every step"]))
    head = str(rng.choice(["mse", "half sse", "log cosh", "binary", "cross-entropy"]))
    if kind == "long":
        pooling = "last" if pooling == "every step" else pooling
    kinds = draw_layers(rng, kind)
    layers = tuple(Layer(each, draw_prefixes(rng, each, i)) for i, each in enumerate(kinds))
    tokens = kinds[0] == "embedding"
    x = rng.integers(0, VOCABULARY, (T, B)) if tokens else rng.normal(size=(T, B, D))
    rows = T * B if pooling == "every step" else B
    y = rng.normal(size=(rows, O))
    if head == "binary":
        y = (y > 0).astype(float)
    if head == "cross-entropy":
        y = np.eye(O)[rng.integers(0, O, rows)]
    widths = [H, H + 5] if kind == "small" and rng.random() < 0.1 else [H]
    gain = float(rng.choice([1.0, 1.0, 0.3, 2.0]))
    dtype = rng.choice(["float64"] * 5 + ["float32"])
    bias = float(rng.choice([0.0, 0.1]))
    settings = tuple(
        {
            name: value.astype(dtype)
            for name, value in draw_values(rng, layers, pooling, D, width, O, gain, bias).items()
        }
        for width in widths
    )
    in_numpy = bool(rng.random() < 0.3)
    words = [
        "+".join(layer.kind + "²" * (len(layer.prefixes) > 1) for layer in layers), activation,
        pooling, head, f"T{T} B{B} D{D} H{'/'.join(map(str, widths))} O{O}", f"gain {gain:g}",
        str(dtype), "NumPy" if in_numpy else "xp",
    ]  # fmt: skip
    formulas = draw_formulas(rng, activation)
    return Model(" ".join(words), layers, pooling, head, settings, x, y, formulas, in_numpy)


def draw_layers(rng: np.random.Generator, kind: str) -> list[str]:
    """Draw the kinds of the layers: at least one recurrent one, unless there is attention."""
    kinds = [str(rng.choice(["embedding", "convolution"]))] * int(rng.random() < 0.3)
    kinds.append(str(rng.choice(CELLS)))
    if kind == "small":
        kinds += [str(rng.choice(CELLS))] * int(rng.random() < 0.2)
        kinds += [str(rng.choice(["normalisation", "attention"]))] * int(rng.random() < 0.35)
    return kinds


def draw_prefixes(rng: np.random.Generator, kind: str, number: int) -> tuple[str, ...]:
    """Draw whether a layer has one direction or both, and name its parameters."""
    both = kind in CELLS and rng.random() < 0.15
    return (f"{number}f_", f"{number}b_") if both else (f"{number}_",)


def draw_values(
    rng: np.random.Generator, layers: tuple[Layer, ...], pooling: str, D: int, H: int, O: int,
    gain: float, bias: float,
) -> Params:  # fmt: skip
    """Draw parameters as one initialises them."""

    def normal(*shape: int) -> Any:
        fan = shape[-2] if len(shape) > 1 else shape[0]
        return gain * rng.normal(size=shape) / fan**0.5

    p: Params = {}
    width = D
    for layer in layers:
        for prefix in layer.prefixes:
            own: Params
            if layer.kind in ("rnn", "lstm", "gru"):
                G = {"rnn": 1, "lstm": 4, "gru": 3}[layer.kind] * H
                own = {"U": normal(width, G), "W": normal(H, G), "b": bias * rng.normal(size=G)}
            elif layer.kind == "lru":
                own = {
                    "ν": np.log(-np.log(rng.uniform(0.4, 0.95, H))), "θ": rng.uniform(0, 3, H),
                    "P": normal(width, H), "Q": normal(width, H), "α": normal(H), "β": normal(H),
                }  # fmt: skip
            elif layer.kind == "embedding":
                own = {"E": gain * rng.normal(size=(VOCABULARY, H))}
            elif layer.kind == "convolution":
                own = {"K": normal(WINDOW, width, H), "b": bias * rng.normal(size=H)}
            elif layer.kind == "normalisation":
                own = {"γ": 1 + 0.1 * rng.normal(size=width), "β": bias * rng.normal(size=width)}
            else:
                own = {name: normal(width, H) for name in ("Q", "K", "Z")}
            p |= {prefix + name: value for name, value in own.items()}
        width = width if layer.kind == "normalisation" else H * len(layer.prefixes)
    if pooling == "attention":
        p["p_q"] = gain * rng.normal(size=width)
    return p | {"V": normal(width, O), "c": bias * rng.normal(size=O)}
