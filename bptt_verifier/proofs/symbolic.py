"""Proofs on symbols: the gradient minus the symbolic derivative simplifies to zero.

The plain RNN runs with an unspecified φ that has a derivative φ′: the proof holds for all values
and all differentiable activations, at these sizes. The gated cells and the cross-entropies run with
their own functions, known by (A1), (A2) and the definitions of exp and log. Source:
docs/certification.md, section 1. Needs SymPy, which is in the extra `certify`.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import total_ordering
from itertools import count, product
from operator import methodcaller
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import ALL_LOSSES, LOSSES, OPTIONS, Array, Sizes
from bptt_verifier.proofs.cases import ProofCase, fill
from bptt_verifier.proofs.extras import require_sympy
from bptt_verifier.proofs.forward_pass import Numbers, loss_and_prediction, map_entries
from bptt_verifier.proofs.run import WrongGradient, refute, run_module

require_sympy()

import sympy  # noqa: E402 - after the check


def define(
    name: str, derivative: Callable[[Any], Any], rule: Callable[[Any], Any] = lambda z: None
) -> Any:
    """Define a function f(z): f′ from f itself, and a `rule` that rewrites f(z) or returns None."""
    members = {
        "eval": classmethod(lambda cls, z: rule(z)),
        "fdiff": lambda self, argindex=1: derivative(self),
    }
    return type(name, (sympy.Function,), members)


# φ, φ′ and φ″ are unspecified. The rule of σ(z) = 1 / (1 + e^−z) is σ(−z) = 1 − σ(z), that of e^z
# is e⁰ = 1, and softplus is log(1 + e^z).
phi_second = sympy.Function("phi_second")
phi_prime = define("phi_prime", lambda f: phi_second(f.args[0]))
phi = define("phi", lambda f: phi_prime(f.args[0]))
hyperbolic = define("hyperbolic", lambda tanh: 1 - tanh**2)
sigma: Any = define(
    "sigma",
    lambda f: f * (1 - f),
    lambda z: 1 - sigma(-z) if z.could_extract_minus_sign() else None,
)
exponential = define("exponential", lambda f: f, lambda z: sympy.S.One if z == 0 else None)
softplus = define("softplus", lambda f: sigma(f.args[0]))


@dataclass(eq=False, slots=True)
@total_ordering
class Symbolic:
    """An expression with a numerical sample of its value; the sample chooses branches.

    A proof holds wherever the same branches are taken.
    """

    expression: Any
    sample: float

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
        rest = other.expression - 1
        if not isinstance(rest, exponential):
            return Symbolic(self.expression / other.expression, sample)
        z = rest.args[0]
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

    def apply(self, function: Any, numeric: Callable[[float], float]) -> "Symbolic":
        """Apply a function; the argument is expanded, so that equal arguments compare equal."""
        return Symbolic(function(sympy.expand(self.expression)), numeric(self.sample))

    def tanh(self) -> "Symbolic":
        """Hyperbolic tangent; NumPy calls it for np.tanh."""
        return self.apply(hyperbolic, math.tanh)

    def exp(self) -> "Symbolic":
        """e^x, with e^(x − log(1 + e^z)) = e^x / (1 + e^z); NumPy calls it for np.exp."""
        value = math.exp(self.sample)
        for term in sympy.Add.make_args(self.expression):
            if isinstance(-term, softplus):
                z = (-term).args[0]
                rest = sympy.expand(self.expression - term)
                if rest in (0, z):
                    return Symbolic(sigma(z if rest == z else -z), value)
        return self.apply(exponential, math.exp)

    def log(self) -> "Symbolic":
        """log(1 + e^z), or log(e^x + e^z) = x + log(1 + e^(z − x)); NumPy calls it for np.log."""
        rest, value = self.expression - 1, math.log(self.sample)
        if isinstance(rest, exponential):
            return Symbolic(softplus(rest.args[0]), value)
        first, second = (term.args[0] for term in sympy.Add.make_args(self.expression))
        return Symbolic(first + softplus(sympy.expand(second - first)), value)

    def log1p(self) -> "Symbolic":
        """Logarithm of 1 + z; NumPy calls it for np.log1p."""
        return (1 + self).log()


def symbolic(value: Any) -> Symbolic:
    """A number as an expression; a float becomes its exact fraction."""
    if isinstance(value, Symbolic):
        return value
    return Symbolic(sympy.Rational(*value.as_integer_ratio()), float(value))


class Proof(NamedTuple):
    """The result for one derivation: numbers of models, and of gradient entries, proved correct.

    `refuted` names the model and the gradient with a nonzero difference, or is None.
    """

    derivation: str
    models: int
    entries: int
    refuted: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return self._asdict() | {"holds": self.refuted is None}


SHAPES = (*(Sizes(T, 1, 2, 2, 2) for T in (1, 2, 3)), Sizes(2, 2, 1, 1, 1), Sizes(12, 1, 1, 1, 1))
UNSPECIFIED = "unspecified"
# Small enough to expand. There are two classes; the number of entries that count is a power of two,
# as in `cases.MODES`.
ONE_STEP, OWN = Sizes(T=1, B=1, D=1, H=1, O=2), Sizes(T=2, B=1, D=1, H=1, O=1)
PAIR = OWN._replace(B=2)
WIDE = ONE_STEP._replace(H=2, O=1)  # products with W and with a gate do not commute
OWN_MODES: tuple[tuple[Sizes, dict[str, Any]], ...] = (
    (WIDE, {}),
    (OWN, {"full": False, "outputs": "every"}),
    (PAIR, {"outputs": "every", "lengths": (1, 1)}),
    (OWN, {"truncation": 1}),
    (PAIR, {"full": False, "lengths": (2, 1)}),
    (PAIR, {"lengths": (2, 1), "truncation": 1}),
)


def free_cases() -> tuple[ProofCase, ...]:
    """The cases of the plain RNN with the unspecified activation."""
    return tuple(
        ProofCase("rnn", UNSPECIFIED, loss, sizes) for sizes, loss in product(SHAPES, LOSSES)
    )


def own_cases(cell: str) -> tuple[ProofCase, ...]:
    """The cases of a cell with its own functions: every option, loss and mode."""
    options = OPTIONS[cell]
    by_loss, by_mode = product(options, ALL_LOSSES), product(options, OWN_MODES)
    return (
        *(ProofCase(cell, option, loss, ONE_STEP) for option, loss in by_loss),
        *(ProofCase(cell, option, "half_sse", sizes, **m) for option, (sizes, m) in by_mode),
        # With biases and initial states, two steps of the GRU take ten times as long to expand.
        *(ProofCase(cell, option, "half_sse", OWN, full=cell != "gru") for option in options),
    )


def symbols(rng: random.Random, name: str, shape: tuple[int, ...]) -> Array:
    """An array of symbols with independent random samples; the samples of ε_t are zero."""
    number, reach = count(1), 0 if name == "adjoints" else 2
    return fill(
        shape, lambda: Symbolic(sympy.Symbol(f"{name}_{next(number)}"), rng.uniform(-reach, reach))
    )


def prove_case(module: ModuleType, case: ProofCase) -> int:
    """Prove every entry of every gradient; return their number. Raises WrongGradient."""
    rng = random.Random(str(case))
    point = {name: symbols(rng, name, shape) for name, shape in case.shapes.items()}
    T, B, _, _, O = case.sizes
    at = (T, B) if case.outputs == "every" else (B,)
    y = symbols(rng, "y", (*at, O))
    if case.loss == "softmax_cross_entropy":
        y = np.eye(O, dtype=object)[fill(at, lambda: rng.randrange(O)).astype(int)]
    option: Any = case.option
    activation = None
    if option == UNSPECIFIED:
        option = methodcaller("apply", phi, math.tanh)
        slope = methodcaller("apply", phi_prime, lambda sample: 1 - math.tanh(sample) ** 2)
        activation = module.activations.Activation(
            lambda a: map_entries(option, a), lambda a, h: map_entries(slope, a)
        )
    values = {name: value for name, value in point.items() if name != "adjoints"}
    found = run_module(module, case.problem(values, y, activation))

    constants: list[tuple[Any, Any]] = []  # a dummy symbol for each state that is held constant

    def constant(z: Any) -> Symbolic:
        constants.append((sympy.Dummy(), symbolic(z).expression))
        return Symbolic(constants[-1][0], symbolic(z).sample)

    numbers = Numbers(
        sign=lambda z: int(math.copysign(1, symbolic(z).sample)),
        constant=constant,
        sigmoid=lambda z: z.apply(sigma, lambda sample: 1 / (1 + math.exp(-sample))),
        exp=lambda z: z.apply(exponential, math.exp),
    )
    states = dict.fromkeys(("h0", "c0"), np.zeros((B, case.sizes.H), object))
    given = dict.fromkeys(("b", "c", "b_n")) | states | point
    loss, _ = loss_and_prediction(numbers, case.forward_pass._replace(option=option), given, y)
    zeros = {symbolic(z).expression: sympy.S.Zero for z in point["adjoints"].flat}

    entries = 0
    for name, coordinates in point.items():
        if found.get(name) is None:
            continue
        for where in np.ndindex(coordinates.shape):
            exact = sympy.diff(loss.expression, symbolic(coordinates[where]).expression)  # (Z6)
            for dummy, state in reversed(constants):
                exact = exact.xreplace({dummy: state})
            exact = exact.xreplace(zeros)
            if sympy.expand(symbolic(found[name][where]).expression - exact) != 0:
                raise WrongGradient(f"{name}[{', '.join(map(str, where))}] is not the derivative")
            entries += 1
    return entries


def prove_symbolically(name: str, module: ModuleType, chosen: tuple[ProofCase, ...]) -> Proof:
    """Prove that every gradient of the module is the derivative of the loss, in every case."""
    total = 0
    for done, case in enumerate(chosen):
        refuted, entries = refute(str(case), prove_case, module, case)
        if refuted is not None:
            return Proof(name, done, total, refuted)
        total += entries
    return Proof(name, len(chosen), total)
