"""Activations that are recognised by their values, with their slopes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Formula = Callable[[Any], Any]


class KnownActivation(NamedTuple):
    """An activation as a function of its argument, and its slope as a function of its result y.

    `incomplete` is what is left of the slope where a part of its formula is forgotten. A formula
    stands beside its text, which has {0} for y.
    """

    function: Formula
    text: str
    slope: Formula
    incomplete: tuple[tuple[str, Formula], ...]


KNOWN = {
    "tanh": KnownActivation(
        np.tanh, "1 − {0}²", lambda y: 1 - y * y,
        (
            ("1 − {0}", lambda y: 1 - y),
            ("{0}²", lambda y: y * y),
            ("(1 − {0})²", lambda y: (1 - y) ** 2),
        ),
    ),
    "sigmoid": KnownActivation(
        lambda a: 1 / (1 + np.exp(-a)), "{0} (1 − {0})", lambda y: y * (1 - y),
        (("1 − {0}", lambda y: 1 - y), ("{0}", np.copy)),
    ),
}  # fmt: skip
