"""Exact rational numbers on which code with tanh, exp, log and sqrt runs unchanged.

The value of tanh, exp, log or sqrt at an argument is a free variable, drawn once for that argument.
So a loss and a gradient are rational functions of the weights and of these values, and a derivative
follows from rules such as (tanh a)˙ = (1 − tanh² a) ȧ, which hold for the functions themselves.
Equal rational functions remain equal when the values are those of the functions. Source:
docs/derivation.md, section 16, and docs/certification.md, section 6.
"""

import random
from fractions import Fraction
from functools import total_ordering
from typing import Any

import numpy as np

LARGEST = 2**63  # of the integers that are drawn, in absolute value
# Work that takes one or two seconds; no entry of the docket needs a third of it. An operation takes
# twice as long if its numbers have so many bits together, and then as the square of the bits.
MOST_WORK, BITS = 300_000, 2_000


class FreeValues:
    """The values of the functions, by function and argument, and the numbers they come from.

    Two arguments that are different functions of the weights may be equal at a point by chance, or
    one the negative of the other, or one zero: `collisions` bounds the sum of these degrees.
    The numbers are integers, divided by `scale`. `work` counts operations, one with long numbers as
    several.
    """

    def __init__(self, seed: int, scale: int = 1) -> None:
        self.rng, self.scale, self.work = random.Random(seed), scale, 0
        self.found: dict[tuple[str, Fraction], Fraction] = {}
        self.degrees = 0

    def draw(self) -> Fraction:
        """Draw one of the 2 `LARGEST` numbers."""
        k = self.rng.randint(1, 2 * LARGEST)
        return Fraction(k - LARGEST if k > LARGEST else -k, self.scale)

    def draw_number(self) -> "FreeNumber":
        """Draw a variable: its value, and its degree 1."""
        return FreeNumber(self, self.draw(), 1, 0)

    def read(self, number: Any) -> "FreeNumber":
        """Read a number without rounding, as a constant."""
        whole = hasattr(number, "__index__")  # NumPy's integers have no ratio
        value = Fraction(number.__index__()) if whole else Fraction(*number.as_integer_ratio())
        return FreeNumber(self, value, 0, 0)

    def charge(self, bits: int) -> None:
        """Count an operation with so many bits. Raises OverflowError where the work is too much."""
        self.work += 1 + (bits // BITS) ** 2
        if self.work > MOST_WORK:
            raise OverflowError("expected smaller sizes, found numbers that grow too long")

    def find(self, name: str, argument: "FreeNumber") -> "FreeNumber":
        """Find the value of a function at an argument, or draw it."""
        key = name, argument.value
        if key not in self.found:
            self.found[key] = self.draw()
            self.degrees += argument.top + argument.bottom
        return FreeNumber(self, self.found[key], 1, 0)

    @property
    def collisions(self) -> int:
        """2 k Σ deg a for k arguments, as deg(a − b) and deg(a + b) are at most deg a + deg b."""
        return 2 * len(self.found) * self.degrees  # the sums in (Z10)


def require_whole(exponent: Any) -> int:
    """Return a whole exponent as an integer; raise TypeError for any other."""
    if isinstance(exponent, int | float | np.integer | Fraction) and exponent % 1 == 0:
        return int(exponent)
    raise TypeError(f"exponent: expected a whole number or 0.5, found {exponent}")


@total_ordering
class FreeNumber:
    """A rational number, and the degrees of the numerator and denominator that it is a value of."""

    __slots__ = ("bits", "bottom", "top", "value", "values")

    def __init__(self, values: FreeValues, value: Fraction, top: int, bottom: int) -> None:
        self.values, self.value, self.top, self.bottom = values, value, top, bottom
        self.bits = value.numerator.bit_length() + value.denominator.bit_length()

    def read(self, other: Any) -> "FreeNumber":
        """Read a number that NumPy or the code supplies."""
        return other if isinstance(other, FreeNumber) else self.values.read(other)

    def __add__(self, other: Any) -> Any:
        if isinstance(other, Tangent | np.ndarray):
            return NotImplemented
        b = self.read(other)
        self.values.charge(self.bits + b.bits)
        top = max(self.top + b.bottom, b.top + self.bottom)
        return FreeNumber(self.values, self.value + b.value, top, self.bottom + b.bottom)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Tangent | np.ndarray):
            return NotImplemented
        b = self.read(other)
        self.values.charge(self.bits + b.bits)
        top, bottom = self.top + b.top, self.bottom + b.bottom
        return FreeNumber(self.values, self.value * b.value, top, bottom)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> "FreeNumber":
        return FreeNumber(self.values, -self.value, self.top, self.bottom)

    def __sub__(self, other: Any) -> Any:
        return self + -other

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def reciprocal(self) -> "FreeNumber":
        """1 over the number."""
        return FreeNumber(self.values, 1 / self.value, self.bottom, self.top)

    def __truediv__(self, other: Any) -> Any:
        if isinstance(other, Tangent | np.ndarray):
            return NotImplemented
        return self * self.read(other).reciprocal()

    def __rtruediv__(self, other: Any) -> Any:
        return self.reciprocal() * other

    def __pow__(self, exponent: Any) -> "FreeNumber":
        if exponent == 0.5:
            return self.sqrt()
        exponent = require_whole(exponent)
        if exponent < 0:
            inverse: FreeNumber = self.reciprocal() ** -exponent
            return inverse
        self.values.charge(self.bits * exponent)
        power = self.value**exponent
        return FreeNumber(self.values, power, self.top * exponent, self.bottom * exponent)

    def __abs__(self) -> "FreeNumber":
        return -self if self.value < 0 else self

    def __eq__(self, other: object) -> bool:
        return self.value == self.read(other).value

    def __lt__(self, other: Any) -> bool:
        return self.value < self.read(other).value

    def __hash__(self) -> int:
        return hash(self.value)

    def tanh(self) -> "FreeNumber":
        """Hyperbolic tangent, which is odd; NumPy calls it for np.tanh."""
        if self.value < 0:
            return -(-self).tanh()
        return self.values.find("tanh", self) if self.value else self

    def exp(self) -> "FreeNumber":
        """Exponential, with exp(−a) = 1 / exp(a); NumPy calls it for np.exp."""
        if self.value < 0:
            return (-self).exp().reciprocal()
        return self.values.find("exp", self) if self.value else self + 1

    def log(self) -> "FreeNumber":
        """Natural logarithm; NumPy calls it for np.log."""
        return self.values.find("log", self)

    def sqrt(self) -> "FreeNumber":
        """Square root; NumPy calls it for np.sqrt."""
        return self.values.find("sqrt", self)


class Tangent:
    """A number and its derivative along a direction."""

    __slots__ = ("slope", "value")

    def __init__(self, value: FreeNumber, slope: FreeNumber) -> None:
        self.value, self.slope = value, slope

    def read(self, other: Any) -> "Tangent":
        """Read a number without a derivative as a constant."""
        if isinstance(other, Tangent):
            return other
        return Tangent(self.value.read(other), self.value.read(0))

    def __add__(self, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        b = self.read(other)
        return Tangent(self.value + b.value, self.slope + b.slope)

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        b = self.read(other)
        return Tangent(self.value * b.value, self.slope * b.value + self.value * b.slope)

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> "Tangent":
        return Tangent(-self.value, -self.slope)

    def __sub__(self, other: Any) -> Any:
        return self + -other

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __truediv__(self, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            return NotImplemented
        b = self.read(other)
        ratio = self.value / b.value
        return Tangent(ratio, (self.slope - ratio * b.slope) / b.value)

    def __rtruediv__(self, other: Any) -> Any:
        return self.read(other) / self

    def __pow__(self, exponent: Any) -> "Tangent":
        if exponent == 0.5:
            return self.sqrt()
        exponent = require_whole(exponent)
        slope = exponent * self.value ** (exponent - 1) * self.slope
        return Tangent(self.value**exponent, slope)

    def tanh(self) -> "Tangent":
        """(tanh a)˙ = (1 − tanh² a) ȧ."""
        value = self.value.tanh()
        return Tangent(value, (1 - value * value) * self.slope)  # (Z9)

    def exp(self) -> "Tangent":
        """(exp a)˙ = exp(a) ȧ."""
        value = self.value.exp()
        return Tangent(value, value * self.slope)  # (Z9)

    def log(self) -> "Tangent":
        """(log a)˙ = ȧ / a."""
        return Tangent(self.value.log(), self.slope / self.value)  # (Z9)

    def sqrt(self) -> "Tangent":
        """(√a)˙ = ȧ / (2 √a)."""
        value = self.value.sqrt()
        return Tangent(value, self.slope / (2 * value))  # (Z9)


def draw_array(values: FreeValues, shape: tuple[int, ...]) -> Any:
    """Draw an array of variables."""
    found = np.empty(shape, object)
    for entry in np.ndindex(shape):
        found[entry] = values.draw_number()
    return found


def read_array(values: FreeValues, array: Any) -> Any:
    """Read an array of floats without rounding."""
    found = np.empty(array.shape, object)
    for entry in np.ndindex(array.shape):
        found[entry] = values.read(array[entry])
    return found


def move_along(point: dict[str, Any], direction: dict[str, Any]) -> dict[str, Any]:
    """Give every entry of a point its derivative along a direction."""
    moved = {}
    for name, value in point.items():
        along: Any = np.asarray(direction[name], object)
        moved[name] = np.empty(value.shape, object)
        for entry in np.ndindex(value.shape):
            moved[name][entry] = Tangent(value[entry], along[entry])
    return moved
