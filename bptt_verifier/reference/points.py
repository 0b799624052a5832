"""Points at which an own model is compared: the parameters given, and values drawn from them."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.leaves import Leaves, flatten

SCALE = 0.6  # standard deviation of drawn values; every fourth draw is twice as large
# A random W (n, n) neither damps nor amplifies much where its entries have the size 1/√n.
GAIN = 1.5
SPREAD = 0.3  # relative standard deviation of the values near the parameters given
DIGITS = np.finfo(np.float64).precision  # decimals that float64 can hold
FURTHEST = 3.0  # in standard deviations, so that no value near a given one changes its sign


class Point(NamedTuple):
    """A point of one setting: number 0 is the parameters given, the others are drawn.

    `near` draws around the parameters given. `factors` multiply the draws, by name, and `digits` is
    the number of their decimals.
    """

    number: int
    near: bool = False
    factors: Mapping[str, float] = {}
    setting: int = 0
    digits: int | None = None

    @property
    def has_zeros(self) -> bool:
        """True if some parameters are scaled by zero."""
        return 0.0 in self.factors.values()

    @property
    def label(self) -> str:
        """The point as messages name it."""
        words = [f"case {self.number}" if self.digits is None else f"simple case {self.number}"]
        if self.setting:
            words.append(f"of setting {self.setting + 1}")
        if self.near:
            words.append("near the parameters given")
        factors = set(self.factors.values())
        if factors:
            which = "all values" if len(factors) == 1 < len(self.factors) else ", ".join(
                self.factors
            )  # fmt: skip
            words.append(f"with {which} scaled by {', '.join(f'{f:g}' for f in factors)}")
        return " ".join(words)

    def write(self) -> str:
        """Write the point as text that `read_point` reads, such as `7,digits=1`."""
        setting = [f"setting={self.setting + 1}"] if self.setting else []
        digits = [] if self.digits is None else [f"digits={self.digits}"]
        scaled = [f"{escape(name)}*{factor!r}" for name, factor in self.factors.items()]
        return ",".join([str(self.number), *setting, *["near"] * self.near, *digits, *scaled])


def escape(name: str) -> str:
    """Escape the characters of a name that separate the parts of a point, as in addresses."""
    return re.sub("[,*=%]", lambda found: f"%{ord(found[0]):02X}", name)


def read_point(text: str) -> Point:
    """Read a point as `Point.write` writes it.

    Raises ValueError, with one sentence, where the text is none, or names what case 0 ignores.
    """
    first, *others = text.split(",")
    setting, digits, factors = 1, None, {}
    try:
        for each in others:
            if each.startswith("setting="):
                setting = int(each.removeprefix("setting="))
            elif each.startswith("digits="):
                digits = int(each.removeprefix("digits="))
            elif each != "near":
                name, _, factor = each.rpartition("*")
                factors[unquote(name)] = float(factor)
        point = Point(int(first), "near" in others, factors, setting - 1, digits)
    except ValueError:
        point = Point(-1)
    finite = np.isfinite([*factors.values()]).all()
    decimals = digits is None or 1 <= digits <= DIGITS
    if point.number < 0 or point.setting < 0 or not (finite and decimals):
        raise ValueError(f"case: expected a name such as 7,digits=1 of a report, found {text!r}")
    if point.number == 0 and digits is None and (factors or point.near):
        raise ValueError(
            f"case: expected no factors of case 0, the parameters given, found {text!r}; name a "
            "case that is drawn, or digits"
        )
    return point


def draw_parameters(
    params: Any,
    *,
    seed: int,
    case: int,
    near: bool = False,
    factors: Mapping[str, float] = {},
    digits: int | None = None,
) -> Any:
    """Draw the values of one case, in the structure and shapes of `params`.

    Case 0 is `params` itself. The others are normal and away from zero, and smaller in wide arrays;
    with `near`, each is p (1 + 0.3 z) instead. Every third case is float32; tensors keep their
    dtype. `factors` multiply the values, by name. `digits` is the number of decimals.
    """
    options: Any = {"seed": seed, "case": case, "near": near, "factors": factors, "digits": digits}
    if isinstance(params, Leaves):  # which has no structure to be found anew for each case
        return draw_leaves(params, **options)
    tree = flatten(params)
    return tree.rebuild(draw_leaves(tree.leaves, **options))


def draw_leaves(
    params: Leaves,
    *,
    seed: int,
    case: int,
    near: bool,
    factors: Mapping[str, float],
    digits: int | None,
) -> dict[str, Array]:
    """Draw the values of the leaves of one case."""
    if case == 0 and digits is None:
        return {name: np.array(value) for name, value in params.items()}
    rng = np.random.default_rng([seed, case])
    twice = 2 if case % 4 == 3 and digits is None else 1
    dtype = np.float32 if case % 3 == 2 and digits is None else np.float64
    drawn = {}
    for name, given in params.items():
        z = rng.normal(size=np.shape(given))
        deviation = choose_deviation(np.shape(given))
        values = twice * deviation * (z + np.sign(z) / 6)
        if near:
            values = draw_near(np.asarray(given, np.float64), z, deviation)
        values = values * factors.get(name, 1.0)
        if digits is not None:
            rounded = np.round(values, digits)
            values = np.where(rounded == 0, 10.0**-digits * np.sign(z), rounded)
        drawn[name] = np.array(values, given.dtype if params.one_precision else dtype)
    return drawn


def choose_deviation(shape: tuple[int, ...]) -> float:
    """Choose the standard deviation of an array's draws: smaller for a wide one."""
    if len(shape) < 2:
        return SCALE
    width = np.prod(shape) ** 0.5  # the layout does not say which axis is summed over
    return float(SCALE * min(1.0, GAIN / width**0.5))


def draw_near(given: Array, z: Array, deviation: float) -> Array:
    """Draw p (1 + 0.3 z). Zeros, at which a loss may have a kink, are drawn at the others' size."""
    size = float(np.sqrt(np.mean(given**2))) or deviation
    z = np.clip(z, -FURTHEST, FURTHEST)
    return np.where(given == 0, SPREAD * size * z, given * (1 + SPREAD * z))
