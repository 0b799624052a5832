"""Numbers to run the shipped functions on: formal power series over the rationals, and degrees.

`Formal` is an ordered field of series in an infinitesimal s > 0, truncated after some power, in
which tanh, exp and log are exact: so the derivations run on it as they are, with the activations
and losses that they ship. `Degree` is the (max, +) semiring: evaluated on it, a derivation yields
the degree of the polynomial that it computes. Source: docs/certification.md, section 1.
Needs python-flint, which is in the extra `certify`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import total_ordering
from typing import Any

from bptt_verifier.proofs.extras import require_flint

require_flint()

from flint import ctx, fmpq, fmpq_series  # noqa: E402 - after a sentence that says it is missing


@contextmanager
def as_many_terms_as(terms: int) -> Iterator[None]:
    """Inside, python-flint's series keep so many terms; afterwards, what it had before."""
    before = ctx.cap
    ctx.cap = terms
    try:
        yield
    finally:
        ctx.cap = before


def series(coefficients: list[Any], terms: int) -> Any:
    """The power series of these coefficients, known up to s^(terms − 1)."""
    return fmpq_series(coefficients[:terms], prec=terms)


@total_ordering
class Formal:
    """A power series with rational coefficients, plus k log c for one rational c > 0.

    A logarithm whose constant is not 1 leaves the rationals: log(c f) = log f + log c. That part is
    carried along as a symbol, which exp turns back into a power of c.
    """

    __slots__ = ("base", "power", "terms")

    def __init__(self, terms: Any, power: Any = 0, base: Any = 1) -> None:
        self.terms: Any = terms  # an fmpq_series, whose type stubs lack mixed arithmetic
        self.power, self.base = fmpq(power), fmpq(base)

    def plain(self, operation: str) -> Any:
        """The series. Raises TypeError where there is a logarithm beside it."""
        if self.power != 0 and self.base != 1:
            raise TypeError(f"{operation}: expected a series, found one with a logarithm")
        return self.terms

    def with_terms(self, terms: Any, factor: Any = 1) -> "Formal":
        """The same multiple of the logarithm, times a factor, beside other terms."""
        return Formal(terms, self.power * factor, self.base)

    def sign(self) -> int:
        """The sign for small s > 0: that of the first term that is not zero."""
        for coefficient in self.plain("a comparison").coeffs():
            if coefficient != 0:
                return 1 if coefficient > 0 else -1
        return 0

    def __add__(self, other: Any) -> "Formal":
        if not isinstance(other, Formal):
            return self.with_terms(self.terms + rational(other))
        if self.power != 0 and other.power != 0 and self.base != other.base:
            raise TypeError("+: expected logarithms of one number, found those of two")
        base = self.base if self.power != 0 else other.base
        return Formal(self.terms + other.terms, self.power + other.power, base)

    __radd__ = __add__

    def __neg__(self) -> "Formal":
        return self.with_terms(-self.terms, -1)

    def __sub__(self, other: Any) -> "Formal":
        return self.__add__(-other)

    def __rsub__(self, other: Any) -> "Formal":
        return (-self).__add__(other)

    def __mul__(self, other: Any) -> "Formal":
        if isinstance(other, Formal):
            return Formal(self.plain("×") * other.plain("×"))
        return self.with_terms(self.terms * rational(other), rational(other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Formal":
        if isinstance(other, Formal):
            return Formal(self.plain("÷") / other.plain("÷"))
        return self * (1 / rational(other))

    def __rtruediv__(self, other: Any) -> "Formal":
        return Formal(rational(other) / self.plain("÷"))

    def __pow__(self, exponent: int) -> "Formal":
        return Formal(self.plain("a power") ** exponent)

    def __abs__(self) -> "Formal":
        return -self if self.sign() < 0 else self

    def __eq__(self, other: object) -> bool:
        return bool((self - other).sign() == 0)

    def __lt__(self, other: Any) -> bool:
        return bool((self - other).sign() < 0)

    def __hash__(self) -> int:
        raise TypeError("a series is known up to a power only, and cannot be hashed")

    def tanh(self) -> "Formal":
        """What np.tanh calls."""
        return Formal(self.plain("tanh").tanh())

    def exp(self) -> "Formal":
        """What np.exp calls."""
        if self.power.q != 1:
            raise TypeError(f"exp: expected a whole multiple of a logarithm, found {self.power}")
        return Formal(self.terms.exp() * self.base ** int(self.power.p))

    def log(self) -> "Formal":
        """What np.log calls."""
        constant = self.plain("log")[0]
        return Formal((self.terms / constant).log(), 1, constant)

    def log1p(self) -> "Formal":
        """What np.log1p calls."""
        return (1 + self).log()


def rational(value: Any) -> fmpq:
    """A rational, an integer, or the exact value of a float, such as the 1/4 that NumPy makes."""
    return value if isinstance(value, fmpq) else fmpq(*value.as_integer_ratio())


class Degree:
    """The largest degree that a polynomial can have, given those it is made of: (max, +)."""

    __slots__ = ("degree",)

    def __init__(self, degree: int) -> None:
        self.degree = degree

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Degree) and self.degree == other.degree

    def __hash__(self) -> int:
        return hash(self.degree)

    def added(self, other: Any) -> "Degree":
        """Of a sum, the larger one."""
        return Degree(max(self.degree, degree_of(other)))

    def multiplied(self, other: Any) -> "Degree":
        """Of a product, the sum."""
        return Degree(self.degree + degree_of(other))

    __add__ = __radd__ = __sub__ = __rsub__ = added
    __mul__ = __rmul__ = multiplied

    def __neg__(self) -> "Degree":
        return self

    def __truediv__(self, other: int) -> "Degree":
        return Degree(self.degree - 0 * other.__index__())  # by whole numbers only

    def __pow__(self, exponent: int) -> "Degree":
        return Degree(self.degree * exponent)


def degree_of(value: Any) -> int:
    """A constant has degree 0."""
    return value.degree if isinstance(value, Degree) else 0 * value.__index__()
