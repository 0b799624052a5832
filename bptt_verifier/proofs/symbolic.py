"""The shipped derivations on symbols: the gradient minus the symbolic derivative is zero.

The plain RNN runs with an activation φ that is not specified, of which nothing is known but that it
has a derivative φ′: a proof for all values and all differentiable activations, at those sizes. The
gated cells and the cross-entropies run with their own functions, of which (A1), (A2) and the
definitions of exp and log are known. Source: docs/certification.md, section 1.
Needs SymPy, which is in the extra `certify`.
"""

import math
import random
from collections.abc import Callable
from functools import total_ordering
from itertools import count, product
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import ALL_LOSSES, LOSSES, Array, Sizes
from bptt_verifier.proofs.cases import OPTIONS, Case, filled
from bptt_verifier.proofs.extras import require_sympy
from bptt_verifier.proofs.forward_pass import Numbers, each, loss_and_prediction
from bptt_verifier.proofs.run import Differs, refutation, results

require_sympy()

import sympy  # noqa: E402 - after a sentence that says it is missing

# Functions of which the derivative is known, and for σ also that σ(−z) = 1 − σ(z).


class phi(sympy.Function):  # noqa: N801 - as it is printed
    """An activation of which nothing is known."""

    def fdiff(self, argindex: int = 1) -> Any:
        """φ′, of which nothing is known either."""
        return phi_prime(self.args[0])


class phi_prime(sympy.Function):  # noqa: N801
    """Its derivative."""


class hyperbolic(sympy.Function):  # noqa: N801
    """The hyperbolic tangent."""

    def fdiff(self, argindex: int = 1) -> Any:
        """1 − tanh²."""
        return 1 - self**2


class sigma(sympy.Function):  # noqa: N801
    """1 / (1 + e^−z), in one sign of its argument."""

    @classmethod
    def eval(cls, z: Any) -> Any:
        """σ(−z) = 1 − σ(z)."""
        return 1 - cls(-z) if z.could_extract_minus_sign() else None

    def fdiff(self, argindex: int = 1) -> Any:
        """σ (1 − σ)."""
        return self * (1 - self)


class exponential(sympy.Function):  # noqa: N801
    """e^z."""

    @classmethod
    def eval(cls, z: Any) -> Any:
        """e⁰ = 1."""
        return sympy.S.One if z == 0 else None

    def fdiff(self, argindex: int = 1) -> Any:
        """Itself."""
        return self


class softplus(sympy.Function):  # noqa: N801
    """log(1 + e^z)."""

    def fdiff(self, argindex: int = 1) -> Any:
        """σ(z)."""
        return sigma(self.args[0])


def exponent_beside_one(total: Any) -> Any:
    """The z of 1 + e^z, or None where it is something else."""
    rest = total - 1
    return rest.args[0] if isinstance(rest, exponential) else None


@total_ordering
class Symbolic:
    """An expression, and a sample of its value, by which comparisons choose a branch.

    What is proved holds wherever the same branches are taken.
    """

    __slots__ = ("expression", "sample")

    def __init__(self, expression: Any, sample: float) -> None:
        self.expression, self.sample = expression, sample

    def __add__(self, other: Any) -> "Symbolic":
        other = symbolic(other)
        return Symbolic(self.expression + other.expression, self.sample + other.sample)

    __radd__ = __add__

    def __mul__(self, other: Any) -> "Symbolic":
        other = symbolic(other)
        return Symbolic(self.expression * other.expression, self.sample * other.sample)

    __rmul__ = __mul__

    def __neg__(self) -> "Symbolic":
        return self * -1

    def __sub__(self, other: Any) -> "Symbolic":
        return self + symbolic(other) * -1

    def __rsub__(self, other: Any) -> "Symbolic":
        return symbolic(other) + self * -1

    def __truediv__(self, other: Any) -> "Symbolic":
        other = symbolic(other)
        sample = self.sample / other.sample
        z = exponent_beside_one(other.expression)
        if z is None:
            return Symbolic(self.expression / other.expression, sample)
        if self.expression == exponential(z):
            return Symbolic(sigma(z), sample)  # e^z / (1 + e^z)
        return Symbolic(self.expression * sigma(-z), sample)  # 1 / (1 + e^z) = σ(−z)

    def __rtruediv__(self, other: Any) -> "Symbolic":
        return symbolic(other) / self

    def __pow__(self, exponent: int) -> "Symbolic":
        return Symbolic(self.expression**exponent, self.sample**exponent)

    def __abs__(self) -> "Symbolic":
        return -self if self.sample < 0 else self

    def __eq__(self, other: object) -> bool:
        return bool(self.expression == symbolic(other).expression)

    def __lt__(self, other: Any) -> bool:
        return self.sample < symbolic(other).sample

    def __hash__(self) -> int:
        return hash(self.expression)

    def of(self, function: Any, sampled: Callable[[float], float]) -> "Symbolic":
        """A function of it, whose argument is expanded, so that equal ones look alike."""
        return Symbolic(function(sympy.expand(self.expression)), sampled(self.sample))

    def tanh(self) -> "Symbolic":
        """What np.tanh calls."""
        return self.of(hyperbolic, math.tanh)

    def exp(self) -> "Symbolic":
        """What np.exp calls; e^(x − log(1 + e^z)) is e^x / (1 + e^z)."""
        value = math.exp(self.sample)
        for term in sympy.Add.make_args(self.expression):
            if isinstance(-term, softplus):
                z = (-term).args[0]
                rest = sympy.expand(self.expression - term)
                if rest == 0:
                    return Symbolic(sigma(-z), value)
                if rest == z:
                    return Symbolic(sigma(z), value)
        return self.of(exponential, math.exp)

    def log(self) -> "Symbolic":
        """What np.log calls: log(1 + e^z), and log(e^x + e^z) = x + log(1 + e^(z − x))."""
        z, value = exponent_beside_one(self.expression), math.log(self.sample)
        if z is not None:
            return Symbolic(softplus(z), value)
        first, second = (term.args[0] for term in sympy.Add.make_args(self.expression))
        return Symbolic(first + softplus(sympy.expand(second - first)), value)

    def log1p(self) -> "Symbolic":
        """What np.log1p calls."""
        return (1 + self).log()


def symbolic(value: Any) -> Symbolic:
    """A number as an expression; a float is the fraction that it is."""
    if isinstance(value, Symbolic):
        return value
    return Symbolic(sympy.Rational(*value.as_integer_ratio()), float(value))


def unspecified(z: Symbolic) -> Symbolic:
    """φ(z)."""
    return z.of(phi, math.tanh)


def unspecified_slope(z: Symbolic) -> Symbolic:
    """φ′(z)."""
    return z.of(phi_prime, lambda sample: 1 - math.tanh(sample) ** 2)


class Proof(NamedTuple):
    """What was proved of one derivation: how many entries of gradients, in which models.

    `refuted` says in which model, and in which gradient, the difference is not zero.
    """

    derivation: str
    models: int
    entries: int
    refuted: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return self._asdict() | {"holds": self.refuted is None}


SHAPES = (*(Sizes(T, 1, 2, 2, 2) for T in (1, 2, 3)), Sizes(2, 2, 1, 1, 1), Sizes(12, 1, 1, 1, 1))
FREE = "unspecified"
# Small enough to expand. Two classes, and entries that count a power of two: see `MODES` there.
ONE_STEP, OWN = Sizes(T=1, B=1, D=1, H=1, O=2), Sizes(T=2, B=1, D=1, H=1, O=1)
PAIR = OWN._replace(B=2)
WIDE = ONE_STEP._replace(H=2, O=1)  # where a product with W and one with a gate do not commute
OWN_MODES: tuple[tuple[Sizes, dict[str, Any]], ...] = (
    (WIDE, {}),
    (OWN, {"full": False, "outputs": "every"}),
    (PAIR, {"outputs": "every", "lengths": (1, 1)}),
    (OWN, {"truncation": 1}),
    (PAIR, {"full": False, "lengths": (2, 1)}),
    (PAIR, {"lengths": (2, 1), "truncation": 1}),
)


def free_cases() -> tuple[Case, ...]:
    """The plain RNN with the unspecified activation."""
    return tuple(Case("rnn", FREE, loss, sizes) for sizes, loss in product(SHAPES, LOSSES))


def own_cases(cell: str) -> tuple[Case, ...]:
    """A cell with the functions that it ships: every option and loss, and what else can vary."""
    by_loss = (
        Case(cell, option, loss, ONE_STEP) for option, loss in product(OPTIONS[cell], ALL_LOSSES)
    )
    by_mode = (
        Case(cell, option, "half_sse", sizes, **mode)
        for option, (sizes, mode) in product(OPTIONS[cell], OWN_MODES)
    )
    # Biases and initial states make the GRU's two steps ten times as long to expand.
    two_steps = (
        Case(cell, option, "half_sse", OWN, full=cell != "gru") for option in OPTIONS[cell]
    )
    return (*by_loss, *by_mode, *two_steps)


def symbols(rng: random.Random, name: str, shape: tuple[int, ...]) -> Array:
    """An array of symbols, each with a sample of its own; that of ε_t is zero."""
    number, reach = count(1), 0 if name == "adjoints" else 2
    return filled(
        shape, lambda: Symbolic(sympy.Symbol(f"{name}_{next(number)}"), rng.uniform(-reach, reach))
    )


def check(module: ModuleType, case: Case) -> int:
    """How many entries were proved equal. Raises Differs where one is not."""
    rng = random.Random(str(case))
    point = {name: symbols(rng, name, shape) for name, shape in case.shapes.items()}
    T, B, _, _, O = case.sizes
    at = (T, B) if case.outputs == "every" else (B,)
    y = symbols(rng, "y", (*at, O))
    if case.loss == "softmax_cross_entropy":
        y = np.eye(O, dtype=object)[filled(at, lambda: rng.randrange(O)).astype(int)]
    free = case.option == FREE
    option = unspecified if free else case.option
    pair = (
        module.activations.Activation(
            lambda a: each(unspecified, a), lambda a, h: each(unspecified_slope, a)
        )
        if free
        else None
    )
    values = {name: value for name, value in point.items() if name != "adjoints"}
    found = results(module, case.variant(values, y, pair))

    held: list[tuple[Any, Any]] = []

    def constant(z: Any) -> Symbolic:
        held.append((sympy.Dummy(), symbolic(z).expression))
        return Symbolic(held[-1][0], symbolic(z).sample)

    numbers = Numbers(
        tanh=lambda z: z.tanh(),
        sigmoid=lambda z: z.of(sigma, lambda sample: 1 / (1 + math.exp(-sample))),
        exp=lambda z: z.of(exponential, math.exp),
        log=lambda z: z.log(),
        sign=lambda z: int(math.copysign(1, symbolic(z).sample)),
        constant=constant,
    )
    states = dict.fromkeys(("h0", "c0"), np.zeros((B, case.sizes.H), object))
    given = dict.fromkeys(("b", "c", "b_n")) | states | point
    loss, _ = loss_and_prediction(numbers, case.model._replace(option=option), given, y)
    still = {symbolic(z).expression: sympy.S.Zero for z in point["adjoints"].flat}

    entries = 0
    for name, coordinates in point.items():
        if found.get(name) is None:
            continue
        for where in np.ndindex(coordinates.shape):
            exact = sympy.diff(loss.expression, symbolic(coordinates[where]).expression)  # (Z6)
            for dummy, state in reversed(held):
                exact = exact.xreplace({dummy: state})
            exact = exact.xreplace(still)
            if sympy.expand(symbolic(found[name][where]).expression - exact) != 0:
                raise Differs(f"{name}[{', '.join(map(str, where))}] is not the derivative")
            entries += 1
    return entries


def prove_symbolically(
    name: str,
    module: ModuleType,
    chosen: tuple[Case, ...],
) -> Proof:
    """Prove every gradient of the module, in every case, to be the derivative of the loss."""
    total = 0
    for done, case in enumerate(chosen):
        refuted, entries = refutation(str(case), check, module, case)
        if refuted is not None:
            return Proof(name, done, total, refuted)
        total += entries
    return Proof(name, len(chosen), total)
