"""The shipped derivations over the rationals: every gradient is the derivative, to the last digit.

At random rational points a derivation's gradient, times a random direction, is compared with the
derivative in that direction: the coefficient of ε in the loss at θ + ε d, from truncated power
series on a forward pass of its own. Both sides are polynomials, so that agreement at random points
decides their identity, up to a probability of error that is computed. Sources: Schwartz 1980, "Fast
probabilistic algorithms for verification of polynomial identities"; Zippel 1979, "Probabilistic
algorithms for sparse polynomials"; docs/certification.md, section 1.
Needs python-flint, which is in the extra `certify`.
"""

import random
from collections.abc import Callable
from itertools import product
from math import log2, log10
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import LOSSES, Array, Sizes
from bptt_verifier.proofs.cases import Case, cases, filled
from bptt_verifier.proofs.extras import require_flint
from bptt_verifier.proofs.forward_pass import Model, Numbers, each, loss_and_prediction
from bptt_verifier.proofs.power_series import Degree, Formal, as_many_terms_as, rational, series
from bptt_verifier.proofs.run import Differs, refutation, results
from manual_bptt import gru, jacobian_sum, lstm, rnn, rtrl
from manual_bptt.inputs import require_at_least

require_flint()

from flint import fmpq  # noqa: E402 - after a sentence that says it is missing

SHAPES = tuple(Sizes(*each) for each in product(range(1, 5), *[range(1, 4)] * 4))
LARGEST_NUMERATOR, DENOMINATOR = 2**62, 7
SET_SIZE = 2 * LARGEST_NUMERATOR + 1  # rationals that each coordinate is drawn from
DERIVATIONS = {"adjoint recursion": rnn, "jacobian sum": jacobian_sum, "forward recursion": rtrl}


def cubic(a: Any) -> Any:
    """φ(z) = z − z³/3."""
    return a - a * a * a / 3


def cubic_slope(a: Any, h: Any) -> Any:
    """Its derivative, 1 − z²."""
    return 1 - a * a


class Certificate(NamedTuple):
    """What was decided about one derivation, or why it was not.

    `degree` is the largest of the polynomials compared, and `log10_error` bounds the probability
    that any of the identities is false although every point agreed. `refuted` says what was found
    first: where, and what differs.
    """

    derivation: str
    identities: int
    points: int
    degree: int
    log10_error: float
    refuted: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return self._asdict() | {"holds": self.refuted is None}


def rational_number(rng: random.Random) -> fmpq:
    """One of the `SET_SIZE` rationals, each as likely."""
    return fmpq(rng.randint(-LARGEST_NUMERATOR, LARGEST_NUMERATOR), DENOMINATOR)


class Point(NamedTuple):
    """A problem's numbers and a direction: v and d for each name; ε_t are zero, and move by d."""

    values: dict[str, Array]
    directions: dict[str, Array]
    y: Array
    origin: dict[str, int] = {}  # noqa: RUF012 - never modified

    def turned(self, number: Callable[[fmpq], Any]) -> dict[str, Array]:
        """The values as numbers of another kind."""
        return {
            name: self.origin.get(name, 0) + each(number, value)
            for name, value in self.values.items()
        }


def random_point(rng: random.Random, case: Case) -> Point:
    """Every coordinate of the point and of the direction drawn on its own."""
    shapes = case.shapes

    def number() -> fmpq:
        return rational_number(rng)

    values = {name: filled(shape, number) for name, shape in shapes.items() if name != "adjoints"}
    directions = {name: filled(shape, number) for name, shape in shapes.items()}
    T, B, _, _, O = case.sizes
    y = filled((T, B, O) if case.outputs == "every" else (B, O), number)
    return Point(values, directions, y, case.origin)


# The derivative in the direction d, from the forward pass alone.


class Curve(NamedTuple):
    """How rationals become series: v s^start, and d s^order added, of which the square is zero.

    For order 1 and start 0 that is v + ε d. Otherwise the point is a power series itself, and so
    is everything that is compared, up to s^(order − 1).
    """

    start: int
    order: int

    @property
    def numbers(self) -> Numbers:
        """What series can do; the constant of one is what does not depend on the direction."""
        return Numbers(
            tanh=lambda z: z.tanh(),
            sigmoid=lambda z: 1 / (1 + (-z).exp()),
            exp=lambda z: z.exp(),
            log=lambda z: z.log(),
            sign=lambda z: z.sign(),
            constant=lambda z: Formal(self.cut(z.terms), z.power, z.base),
        )

    def cut(self, terms: Any) -> Any:
        """Terms below s^order."""
        return series([terms[k] for k in range(self.order)], 2 * self.order)

    def number(self, value: Any, terms: int, direction: Any = 0) -> Formal:
        """The series of a coordinate, in so many terms."""
        coefficients = [fmpq(0)] * terms
        coefficients[self.start] = fmpq(value)
        if terms > self.order:
            coefficients[self.order] += direction
        return Formal(series(coefficients, terms))


def derivative_along(curve: Curve, model: Model, point: Point, y: Array) -> list[fmpq]:
    """Σ ∂L/∂θ d at the point: its coefficients up to s^(order − 1)."""
    shapes = {name: value.shape for name, value in point.directions.items()}
    states = dict.fromkeys(("h0", "c0"), (shapes["x"][1], shapes["V"][1]))

    def loss(moved: bool) -> Formal:
        at: dict[str, Any] = dict.fromkeys(("b", "c", "b_n"))
        for name, shape in (states | shapes).items():
            value = point.values.get(name, np.zeros(shape, object))
            along = point.directions.get(name, np.zeros(shape, object))
            at[name] = point.origin.get(name, 0) + each(
                lambda v, d: curve.number(v, 2 * curve.order, d if moved else 0), value, along
            )
        found, _ = loss_and_prediction(curve.numbers, model, at, y)
        return found if isinstance(found, Formal) else Formal(series([found], 2 * curve.order))

    difference = (loss(moved=True) - loss(moved=False)).plain("the derivative")
    return [difference[curve.order + k] for k in range(curve.order)]  # (Z3)


def times_direction(curve: Curve, found: dict[str, Any], point: Point) -> list[fmpq]:
    """Σ gradient · d for all gradients found: its coefficients up to s^(order − 1)."""

    def product(gradient: Any, along: fmpq) -> Any:
        return (gradient if isinstance(gradient, Formal) else rational(gradient)) * along

    total: Any = fmpq(0)
    for name, along in point.directions.items():
        if found.get(name) is not None:
            total = total + each(product, found[name], along).sum()
    if isinstance(total, Formal):
        return [total.plain("a gradient")[k] for k in range(curve.order)]
    return [total] + [fmpq(0)] * (curve.order - 1)


def only_found(point: Point, found: dict[str, Any]) -> Point:
    """The point with directions for what was found alone."""
    kept = {name: d for name, d in point.directions.items() if found.get(name) is not None}
    still = {name: 0 * d for name, d in point.directions.items() if name not in kept}
    return point._replace(directions=still | kept)


# Part one: polynomials, decided on all small shapes.

POLYNOMIAL = Curve(start=0, order=1)


def cubic_pair(module: ModuleType) -> Any:
    """The cubic as an activation of the module's own."""
    return module.activations.Activation(cubic, cubic_slope)


def degree_at(module: ModuleType, case: Case, point: Point) -> int:
    """The largest degree, in all coordinates and directions, of what is compared there."""
    y = filled(point.y.shape, lambda: Degree(1))
    variant = case.variant(point.turned(lambda _: Degree(1)), y, cubic_pair(module))
    found = results(module, variant)
    gradients = [found[name] for name in point.directions if found.get(name) is not None]
    by_hand = max(entry.degree for gradient in gradients for entry in gradient.flat)
    at: dict[str, Any] = dict.fromkeys(("b", "c", "b_n")) | {
        name: filled(value.shape, lambda: Degree(1)) for name, value in point.directions.items()
    }
    at.setdefault("h0", filled((len(point.y), at["V"].shape[1]), lambda: Degree(0)))
    nothing = Numbers(*[lambda _: Degree(0)] * len(Numbers._fields))
    loss, _ = loss_and_prediction(nothing, case.model._replace(option=cubic), at, y)
    # A direction has degree 1; the derivative of L is of one degree less than L.
    return int(max(by_hand + 1, loss.degree))


def prove_polynomials(
    name: str,
    module: ModuleType,
    *,
    shapes: tuple[Sizes, ...] | None = None,
    points: int = 1,
    seed: int = 0,
) -> Certificate:
    """Decide, for each shape, that the module's gradients are the derivatives of the loss.

    The shapes are `SHAPES` unless given. Four identities a shape: with biases and h0 or without,
    and both losses that are polynomials, each at `points` random points.
    Raises TypeError or ValueError where `points` is no integer from 1.
    """
    require_at_least(1, "points", points)
    rng, degree, done, error = random.Random(seed), 0, 0, 0.0
    for sizes, full, loss in product(shapes or SHAPES, (True, False), LOSSES):
        case = Case("rnn", "", loss, sizes, full=full, far=False)
        where = f"{sizes}, {loss}, {'with' if full else 'without'} biases and h0"
        for number in range(points):
            here = module, case, random_point(rng, case)
            if number == 0:
                refuted, own = refutation(where, degree_at, *here)
                degree = max(degree, own or 0)
            if refuted is None:
                refuted, _ = refutation(where, agree, *here)
            if refuted is not None:
                return Certificate(name, done, points, degree, 0.0, refuted)
        error += 2.0 ** (points * (log2(own or 1) - log2(SET_SIZE)))  # (Z4)
        done += 1
    return Certificate(name, done, points, degree, log10(error))


def agree(module: ModuleType, case: Case, point: Point) -> None:
    """Raises Differs where the polynomials do not have the same value at the point."""
    variant = case.variant(point.turned(lambda value: value), point.y, cubic_pair(module))
    model = case.model._replace(option=cubic)
    targets = each(lambda value: POLYNOMIAL.number(value, 2), point.y)
    require_equal(POLYNOMIAL, model, results(module, variant), point, targets)


def require_equal(
    curve: Curve, model: Model, found: dict[str, Any], point: Point, y: Array
) -> None:
    """Raises Differs where gradient times direction is not the derivative in that direction."""
    given = only_found(point, found)
    by_hand, exact = times_direction(curve, found, given), derivative_along(curve, model, given, y)
    if by_hand != exact:
        wrong = next(k for k in range(curve.order) if by_hand[k] != exact[k])
        raise Differs(
            f"in a random direction, the gradient is {relative(by_hand[wrong], exact[wrong])}"
            + (f", in the coefficient of s^{wrong}" if curve.order > 1 else "")
        )


def relative(found: fmpq, exact: fmpq) -> str:
    """How wrong it is, for a reader."""
    if exact == 0:
        return "not zero where the derivative is"
    ratio = found / exact
    return f"{int(ratio.p) / int(ratio.q):.6g} times the derivative"


# Part two: power series, on which everything runs as it is shipped.


MODULES = {"RNN": rnn, "LSTM": lstm, "GRU": gru}


def curve_of(case: Case) -> Curve:
    """Long enough that what comes from the first step is seen: V, T times W, x and ŷ − y."""
    return Curve(start=1, order=case.sizes.T + 4)


def targets_of(curve: Curve, case: Case, rng: random.Random, y: Array, terms: int) -> Array:
    """Targets that are no classes."""

    def target(value: fmpq) -> Formal:
        return (rng.choice((-2, 2)) if case.origin else 0) + curve.number(value, terms)

    return each(target, y)


def check_case(module: ModuleType, case: Case, seed: int) -> None:
    """Raises Differs where the power series of a gradient is not that of the derivative."""
    rng, curve = random.Random(f"{seed} {case}"), curve_of(case)
    point = random_point(rng, case)
    shape, targets = point.y.shape, rng.getrandbits(64)
    if case.loss == "softmax_cross_entropy":
        y = classes = np.eye(case.sizes.O, dtype=object)[
            filled(shape[:-1], lambda: rng.randrange(case.sizes.O)).astype(int)
        ]
    else:
        y, classes = (
            targets_of(curve, case, random.Random(targets), point.y, terms)
            for terms in (curve.order, 2 * curve.order)
        )
    variant = case.variant(point.turned(lambda value: curve.number(value, curve.order)), y)
    require_equal(curve, case.model, results(module, variant), point, classes)


def prove_series(
    name: str,
    module: ModuleType,
    *,
    chosen: tuple[Case, ...] | None = None,
    seed: int = 0,
) -> Certificate:
    """Compare power series of gradient and derivative for every option, loss and mode of a cell."""
    done, order, error = 0, 1, 0.0
    for case in chosen or tuple(cases(name.lower())):
        with as_many_terms_as(2 * curve_of(case).order):
            refuted, _ = refutation(str(case), check_case, module, case, seed)
        order = max(order, curve_of(case).order)
        if refuted is not None:
            return Certificate(name, done, 1, order, 0.0, refuted)
        error += curve_of(case).order / SET_SIZE  # (Z5)
        done += 1
    return Certificate(name, done, 1, order, log10(error))
