"""Power series over the rationals, and degrees of polynomials, as numbers for a derivation.

`PowerSeries` is an ordered field of series in an infinitesimal s > 0, truncated after some power.
tanh, exp and log of a series are exact, so the derivations run on it unchanged. On `Degree`, the
(max, +) semiring, a derivation computes the degree of its polynomial. Source:
docs/certification.md, section 1. Needs python-flint, which is in the extra `certify`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import total_ordering
from typing import Any

from bptt_verifier.proofs.extras import require_flint

require_flint()

from flint import ctx, fmpq, fmpq_series  # noqa: E402 - after the check


@contextmanager
def keep_terms(terms: int) -> Iterator[None]:
    """Set the number of terms of python-flint's series inside the block, and restore it after."""
    before = ctx.cap
    ctx.cap = terms
    try:
        yield
    finally:
        ctx.cap = before


def series(coefficients: list[Any], terms: int) -> Any:
    """The power series with these coefficients, known up to s^(terms − 1)."""
    return fmpq_series(coefficients[:terms], prec=terms)


@total_ordering
class PowerSeries:
    """A power series with rational coefficients, plus k log c for one rational c > 0.

    log(c f) = log f + log c, and log c is not rational unless c = 1. `power` k and `base` c keep
    that part as a symbol, which exp turns back into c^k.
    """

    __slots__ = ("base", "power", "terms")

    def __init__(self, terms: Any, power: Any = 0, base: Any = 1) -> None:
        self.terms: Any = terms  # an fmpq_series, whose type stubs lack mixed arithmetic
        self.power, self.base = fmpq(power), fmpq(base)

    def plain(self, operation: str) -> Any:
        """The series alone. Raises TypeError where k log c is not zero."""
        if self.power != 0 and self.base != 1:
            raise TypeError(f"{operation}: expected a series, found one with a logarithm")
        return self.terms

    def with_terms(self, terms: Any, factor: Any = 1) -> "PowerSeries":
        """Other terms, with the same logarithm times a factor."""
        return PowerSeries(terms, self.power * factor, self.base)

    def sign(self) -> int:
        """The sign for small s > 0: the sign of the first nonzero coefficient."""
        for coefficient in self.plain("a comparison").coeffs():
            if coefficient != 0:
                return 1 if coefficient > 0 else -1
        return 0

    def __add__(self, other: Any) -> "PowerSeries":
        if not isinstance(other, PowerSeries):
            return self.with_terms(self.terms + rational(other))
        if self.power != 0 and other.power != 0 and self.base != other.base:
            raise TypeError("+: expected logarithms of one number, found those of two")
        base = self.base if self.power != 0 else other.base
        return PowerSeries(self.terms + other.terms, self.power + other.power, base)

    __radd__ = __add__

    def __neg__(self) -> "PowerSeries":
        return self.with_terms(-self.terms, -1)

    def __sub__(self, other: Any) -> "PowerSeries":
        return self.__add__(-other)

    def __rsub__(self, other: Any) -> "PowerSeries":
        return (-self).__add__(other)

    def __mul__(self, other: Any) -> "PowerSeries":
        if isinstance(other, PowerSeries):
            return PowerSeries(self.plain("×") * other.plain("×"))
        return self.with_terms(self.terms * rational(other), rational(other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "PowerSeries":
        if isinstance(other, PowerSeries):
            return PowerSeries(self.plain("÷") / other.plain("÷"))
        return self * (1 / rational(other))

    def __rtruediv__(self, other: Any) -> "PowerSeries":
        return PowerSeries(rational(other) / self.plain("÷"))

    def __pow__(self, exponent: int) -> "PowerSeries":
        return PowerSeries(self.plain("a power") ** exponent)

    def __abs__(self) -> "PowerSeries":
        return -self if self.sign() < 0 else self

    def __eq__(self, other: object) -> bool:
        return bool((self - other).sign() == 0)

    def __lt__(self, other: Any) -> bool:
        return bool((self - other).sign() < 0)

    def __hash__(self) -> int:
        raise TypeError("a truncated series cannot be hashed")

    def tanh(self) -> "PowerSeries":
        """Hyperbolic tangent; NumPy calls it for np.tanh."""
        return PowerSeries(self.plain("tanh").tanh())

    def exp(self) -> "PowerSeries":
        """Exponential; NumPy calls it for np.exp."""
        if self.power.q != 1:
            raise TypeError(f"exp: expected a whole multiple of a logarithm, found {self.power}")
        return PowerSeries(self.terms.exp() * self.base ** int(self.power.p))

    def log(self) -> "PowerSeries":
        """Natural logarithm; NumPy calls it for np.log."""
        constant = self.plain("log")[0]
        return PowerSeries((self.terms / constant).log(), 1, constant)

    def log1p(self) -> "PowerSeries":
        """Logarithm of 1 + z; NumPy calls it for np.log1p."""
        return (1 + self).log()


def rational(value: Any) -> fmpq:
    """The exact value of a rational, an integer or a float, such as the 1/4 that NumPy makes."""
    return value if isinstance(value, fmpq) else fmpq(*value.as_integer_ratio())


@dataclass(frozen=True, slots=True)
class Degree:
    """An upper bound on the degree of a polynomial, from the degrees of its parts: (max, +)."""

    degree: int

    def add(self, other: Any) -> "Degree":
        """The degree of a sum: the larger one."""
        return Degree(max(self.degree, degree_of(other)))

    def multiply(self, other: Any) -> "Degree":
        """The degree of a product: the sum of both."""
        return Degree(self.degree + degree_of(other))

    __add__ = __radd__ = __sub__ = __rsub__ = add
    __mul__ = __rmul__ = multiply

    def __neg__(self) -> "Degree":
        return self

    def __truediv__(self, other: int) -> "Degree":
        return Degree(self.degree - 0 * other.__index__())  # by whole numbers only

    def __pow__(self, exponent: int) -> "Degree":
        return Degree(self.degree * exponent)


def degree_of(value: Any) -> int:
    """The degree of a value; a whole number has degree 0."""
    return value.degree if isinstance(value, Degree) else 0 * value.__index__()
