"""The types of `params` in a call of a derivation, and the names of its fields in their order."""

from collections import namedtuple
from collections.abc import Mapping, Sequence
from typing import Any

from bptt_verifier.problems.problem import Array

NAMES = ("U", "W", "V", "b", "c", "b_n")


def make_weights_type(name: str, fields: tuple[str, ...]) -> Any:
    """Make a NamedTuple type whose items can also be read by name."""

    def item(self: Any, key: Any) -> Any:
        return getattr(self, key) if isinstance(key, str) else tuple.__getitem__(self, key)

    def explain(self: Any, name: str) -> Any:
        remedy = "; `--bias` or bias=True judges a derivation with biases" if name in NAMES else ""
        raise AttributeError(f"params has {', '.join(fields)}, and no {name}{remedy}")

    methods = {"__slots__": (), "__getitem__": item, "__getattr__": explain}
    return type(name, (namedtuple(name, fields),), methods)


# The types of `params` in a call: a submission may read them by field, by name or in order.
Weights = make_weights_type("Weights", NAMES[:3])
BiasedWeights = make_weights_type("BiasedWeights", NAMES[:5])
GruBiasedWeights = make_weights_type("GruBiasedWeights", NAMES)
# The same types by their number of fields.
WEIGHTS = {len(kind._fields): kind for kind in (Weights, BiasedWeights, GruBiasedWeights)}


def write_call(arrays: Mapping[str, Array], by_name: tuple[str, ...] = ()) -> str:
    """Write the line that calls a submission with these arrays; `by_name` become keywords."""
    written = {name: f"np.array({v.tolist()}, np.{v.dtype})" for name, v in arrays.items()}
    inner = [f"{name}={written.pop(name)}" for name in NAMES if name in written]
    others = [f"{name}={text}" if name in by_name else text for name, text in written.items()]
    kind = WEIGHTS[len(inner)].__name__
    return (
        f"import numpy as np; from bptt_verifier import {kind}; "
        f"print(gradients({kind}({', '.join(inner)}), {', '.join(others)}))"
    )


def order_names(names: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """Name the items of a tuple of gradients by its length: these, or all with biases."""
    longest = NAMES[: max(5, len(names))]
    return {len(names): tuple(names), len(longest): longest}
