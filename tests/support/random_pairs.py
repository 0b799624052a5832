"""Random pairs of known mistakes in seven models, and the names that the judge gives them.

`python -m tests.support.random_pairs 500` measures the share of pairs whose two names are given,
and lists the others.
"""

import inspect
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.report import Mistake
from tests.support import further_models, own_mistakes, own_models
from tests.support.diagnosis import diagnose_numbers

Gradients = dict[str, Any]
Change = Callable[[Gradients, Mapping[str, Any]], Gradients]


class Planted(NamedTuple):
    """A known mistake: its name, and the texts that it changes, or what it makes of gradients."""

    name: str
    texts: tuple[tuple[str, str], ...] = ()
    change: Change | None = None


class Pair(NamedTuple):
    """Two mistakes in the derivation of a model, and the function that makes both."""

    model: str
    one: Planted
    other: Planted
    gradients: Callable[[Any], Gradients]

    @property
    def names(self) -> list[str]:
        """The names of both, in alphabetical order."""
        return sorted([self.one.name, self.other.name])


MODELS: dict[str, tuple[ModuleType, Any]] = {
    name: (module, module.MODELS[name])
    for module, names in (
        (own_models, "char tagger gru"),
        (further_models, "attention sequence stacked normalised"),
    )
    for name in names.split()
}


def list_planted(model: str) -> list[Planted]:
    """List the mistakes that texts of a model's derivation can be changed to."""
    texts = [m for m in own_mistakes.MISTAKES if m.model == model and m.name != "unknown"]
    found = [Planted(m.name, ((m.right, m.written),)) for m in texts]
    return found + [Planted(n, c) for n, _, c in further_models.PLANTED.get(model, ())]


def multiply(by: float) -> Change:
    """Multiply every gradient."""
    return lambda g, p: {name: by * value for name, value in g.items()}


def clip_norm(most: float) -> Change:
    """Scale all gradients down, so that their norm is at most this."""

    def change(g: Gradients, p: Mapping[str, Any]) -> Gradients:
        norm = float(np.sqrt(sum(float(np.sum(np.square(v))) for v in g.values())))
        return {name: value * min(1.0, most / norm) for name, value in g.items()}

    return change


RETURN = further_models.RETURN  # a change of this text makes a mistake after all others

WHOLE = [
    Planted("clipped", change=clip_norm(0.01)),
    Planted("clipped", change=clip_norm(0.1)),
    Planted("clipped", change=lambda g, p: {n: np.clip(v, -0.02, 0.02) for n, v in g.items()}),
    Planted("constant-factor", change=multiply(1 / 3)),
    Planted("constant-factor", change=multiply(2.0)),
    Planted("sign-flipped", change=multiply(-1.0)),
    Planted("weight-decay", change=lambda g, p: {n: v + 0.01 * p[n] for n, v in g.items()}),
    Planted("update-returned", change=lambda g, p: {n: -0.1 * v for n, v in g.items()}),
    Planted("update-returned", change=lambda g, p: {n: p[n] - 0.01 * v for n, v in g.items()}),
]  # fmt: skip


def list_single(model: str) -> list[Planted]:
    """List mistakes in one gradient of a model alone."""

    def only(name: str, change: Callable[[Any], Any]) -> Change:
        return lambda g, p: g | {name: change(g[name])}

    found = []
    for name, value in MODELS[model][1].params.items():
        square = value.ndim > 1 and value.shape[-1] == value.shape[-2]
        found += [
            Planted("sign-flipped", change=only(name, np.negative)),
            Planted("constant-factor", change=only(name, lambda v: v / 2)),
            Planted("clipped", change=only(name, lambda v: np.clip(v, -0.01, 0.01))),
        ]
        found += [
            Planted("transposed-gradient", change=only(name, lambda v: v.swapaxes(-1, -2)))
        ] * square
    return found


def make_gradients(model: str, *planted: Planted) -> Callable[[Any], Gradients] | None:
    """Make the derivation of a model with these mistakes; None where they change one text."""
    module, found = MODELS[model]
    source = inspect.getsource(found.gradients)
    for right, written in (text for each in planted for text in each.texts):
        if source.count(right) != 1:
            return None
        source = source.replace(right, written)
    made = ModuleType(model)
    exec(compile(source, f"<{model}>", "exec"), vars(module), made.__dict__)
    function = made.__dict__[found.gradients.__name__]

    def gradients(p: Any) -> Gradients:
        g: Gradients = function(p)
        for each in planted:
            g = g if each.change is None else each.change(g, p)
        return g

    return gradients


def draw_pairs(seed: int) -> Iterator[Pair]:
    """Draw pairs without end: of two operations, or of an operation and of gradients."""
    rng = np.random.default_rng(seed)
    while True:
        model = [*MODELS][rng.integers(len(MODELS))]
        texts = list_planted(model)
        one = texts[rng.integers(len(texts))]
        others = [texts, texts, WHOLE, list_single(model)][rng.integers(4)]
        other = others[rng.integers(len(others))]
        gradients = make_gradients(model, one, other)
        last = any(right == RETURN for right, _ in one.texts) and other.change is not None
        if gradients is not None and one != other and not last:
            yield Pair(model, one, other, gradients)


def diagnose_pair(pair: Pair) -> tuple[Mistake, ...]:
    """Diagnose the gradients of a pair."""
    _, model = MODELS[pair.model]
    return diagnose_numbers(model.loss, model.params, pair.gradients)


def classify(pair: Pair, found: tuple[Mistake, ...]) -> str:
    """Classify a diagnosis: `named`, `unknown`, or `other` names, which give the same numbers."""
    names = [{each.name, *each.details.get("or", ())} for each in found]
    if any(each.name == "unknown" for each in found):
        return "unknown"
    if len(names) == 1 and names[0] & {*pair.names}:
        return "one"  # the other has no effect beside it, or both are one mistake
    if len(names) == 2 and any(
        one in names[k] and other in names[1 - k] for k in (0, 1) for one, other in [pair.names]
    ):
        return "named"
    return "other"


def measure(count: int, seed: int = 0) -> Counter[str]:
    """Diagnose so many pairs; print those that do not get both names, and the shares."""
    result, seconds = Counter[str](), list[float]()
    for number, pair in zip(range(count), draw_pairs(seed), strict=False):
        began = time.process_time()
        found = diagnose_pair(pair)
        seconds.append(time.process_time() - began)
        kind = classify(pair, found)
        result[kind] += 1
        if kind != "named":
            names = [(each.name, each.details.get("or")) for each in found]
            print(number, pair.model, kind, pair.one.name, pair.one.texts, "+", pair.other.name,
                  pair.other.texts, "→", names, f"{seconds[-1]:.1f} s", flush=True)  # fmt: skip
    print(count, dict(result), f"seconds: median {np.median(seconds):.2f}, max {max(seconds):.2f}")
    return result


if __name__ == "__main__":
    measure(int(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 0)
