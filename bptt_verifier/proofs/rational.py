"""Proofs over the rationals: every gradient equals the derivative of the loss exactly.

At a random rational point θ, the gradient times a random direction d is compared with the
coefficient of ε in the loss at θ + ε d, from power series on a separate forward pass. Both sides
are polynomials: agreement proves their identity up to a computed probability of error. Sources:
Schwartz 1980, "Fast probabilistic algorithms for verification of polynomial identities"; Zippel
1979, "Probabilistic algorithms for sparse polynomials"; docs/certification.md, section 1.
Needs python-flint, which is in the extra `certify`.
"""

import random
from collections.abc import Callable
from functools import partial
from itertools import product
from math import log2, log10
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import LOSSES, Array, Sizes
from bptt_verifier.proofs.cases import ProofCase, cases, fill
from bptt_verifier.proofs.extras import require_flint
from bptt_verifier.proofs.forward_pass import ForwardPass, Numbers, loss_and_prediction, map_entries
from bptt_verifier.proofs.power_series import Degree, PowerSeries, keep_terms, rational, series
from bptt_verifier.proofs.run import WrongGradient, refute, run_module
from manual_bptt import gru, jacobian_sum, lstm, rnn, rtrl
from manual_bptt.inputs import require_at_least

require_flint()

from flint import fmpq  # noqa: E402 - after the check

SHAPES = tuple(Sizes(*each) for each in product(range(1, 5), *[range(1, 4)] * 4))
LARGEST_NUMERATOR, DENOMINATOR = 2**62, 7
SET_SIZE = 2 * LARGEST_NUMERATOR + 1  # number of rationals a coordinate is drawn from
DERIVATIONS = {"adjoint recursion": rnn, "jacobian sum": jacobian_sum, "forward recursion": rtrl}


def cubic(a: Any) -> Any:
    """φ(z) = z − z³/3."""
    return a - a * a * a / 3


def cubic_slope(a: Any, h: Any) -> Any:
    """φ′(z) = 1 − z²."""
    return 1 - a * a


class Certificate(NamedTuple):
    """The result of the identity tests on one derivation.

    `degree` is the largest degree of the polynomials compared. `log10_error` bounds the probability
    that any of the identities is false although every point agreed. `refuted` is the first
    evidence against the derivation, with the place, or None.
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
    """One of the `SET_SIZE` rationals, uniformly at random."""
    return fmpq(rng.randint(-LARGEST_NUMERATOR, LARGEST_NUMERATOR), DENOMINATOR)


class ProofPoint(NamedTuple):
    """A problem's numbers and a direction, by name; the ε_t are zero and have a direction."""

    values: dict[str, Array]
    directions: dict[str, Array]
    y: Array
    origin: dict[str, int] = {}  # noqa: RUF012 - never modified

    def map_values(self, number: Callable[[fmpq], Any]) -> dict[str, Array]:
        """The values, converted to numbers of another kind, plus the origin."""
        return {
            name: self.origin.get(name, 0) + map_entries(number, value)
            for name, value in self.values.items()
        }


def random_point(rng: random.Random, case: ProofCase) -> ProofPoint:
    """A point and a direction, every coordinate drawn independently."""
    shapes, number = case.shapes, partial(rational_number, rng)
    values = {name: fill(shape, number) for name, shape in shapes.items() if name != "adjoints"}
    directions = {name: fill(shape, number) for name, shape in shapes.items()}
    T, B, _, _, O = case.sizes
    y = fill((T, B, O) if case.outputs == "every" else (B, O), number)
    return ProofPoint(values, directions, y, case.origin)


# The derivative in direction d, from the forward pass alone.


class SeriesCurve(NamedTuple):
    """The rule that makes a series of v and d: v s^start + d s^order, where (s^order)² = 0.

    With order 1 and start 0 it is v + ε d. Otherwise the point itself is a power series, and so are
    the gradients, which are compared up to s^(order − 1).
    """

    start: int
    order: int

    @property
    def numbers(self) -> Numbers:
        """The operations of series; the `constant` of one drops the terms from s^order on."""

        def constant(z: PowerSeries) -> PowerSeries:
            kept = [z.terms[k] for k in range(self.order)]
            return PowerSeries(series(kept, 2 * self.order), z.power, z.base)

        return Numbers(sign=lambda z: z.sign(), constant=constant)

    def number(self, value: Any, terms: int, direction: Any = 0) -> PowerSeries:
        """The series of one coordinate, with `terms` terms."""
        coefficients = [fmpq(0)] * terms
        coefficients[self.start] = fmpq(value)
        if terms > self.order:
            coefficients[self.order] += direction
        return PowerSeries(series(coefficients, terms))


def derivative_along(
    curve: SeriesCurve, model: ForwardPass, point: ProofPoint, y: Array
) -> list[fmpq]:
    """Coefficients of Σ ∂L/∂θ d at the point, up to s^(order − 1)."""
    shapes = {name: value.shape for name, value in point.directions.items()}
    states = dict.fromkeys(("h0", "c0"), (shapes["x"][1], shapes["V"][1]))

    def loss(moved: bool) -> PowerSeries:
        at: dict[str, Any] = dict.fromkeys(("b", "c", "b_n"))
        for name, shape in (states | shapes).items():
            value = point.values.get(name, np.zeros(shape, object))
            along = point.directions.get(name, np.zeros(shape, object))
            at[name] = point.origin.get(name, 0) + map_entries(
                lambda v, d: curve.number(v, 2 * curve.order, d if moved else 0), value, along
            )
        found, _ = loss_and_prediction(curve.numbers, model, at, y)
        if isinstance(found, PowerSeries):
            return found
        return PowerSeries(series([found], 2 * curve.order))

    difference = (loss(moved=True) - loss(moved=False)).plain("the derivative")
    return [difference[curve.order + k] for k in range(curve.order)]  # (Z3)


def gradient_along(curve: SeriesCurve, found: dict[str, Any], point: ProofPoint) -> list[fmpq]:
    """Coefficients of Σ gradient · d over all gradients found, up to s^(order − 1)."""

    def product(gradient: Any, along: fmpq) -> Any:
        return (gradient if isinstance(gradient, PowerSeries) else rational(gradient)) * along

    total: Any = fmpq(0)
    for name, along in point.directions.items():
        if found.get(name) is not None:
            total = total + map_entries(product, found[name], along).sum()
    if isinstance(total, PowerSeries):
        return [total.plain("a gradient")[k] for k in range(curve.order)]
    return [total] + [fmpq(0)] * (curve.order - 1)


# Part one: polynomials, at all small shapes.

POLYNOMIAL = SeriesCurve(start=0, order=1)


def cubic_activation(module: ModuleType) -> Any:
    """The cubic as an `Activation` of the module."""
    return module.activations.Activation(cubic, cubic_slope)


def degree_at(module: ModuleType, case: ProofCase, point: ProofPoint) -> int:
    """The largest degree, in all coordinates and directions, of both sides of the identity."""
    y = fill(point.y.shape, lambda: Degree(1))
    problem = case.problem(point.map_values(lambda _: Degree(1)), y, cubic_activation(module))
    found = run_module(module, problem)
    gradients = [found[name] for name in point.directions if found.get(name) is not None]
    by_hand = max(entry.degree for gradient in gradients for entry in gradient.flat)
    at: dict[str, Any] = dict.fromkeys(("b", "c", "b_n")) | {
        name: fill(value.shape, lambda: Degree(1)) for name, value in point.directions.items()
    }
    at.setdefault("h0", fill((len(point.y), at["V"].shape[1]), lambda: Degree(0)))
    unused = Numbers(*[lambda _: Degree(0)] * len(Numbers._fields))
    loss, _ = loss_and_prediction(unused, case.forward_pass._replace(option=cubic), at, y)
    # A direction has degree 1, and the derivative of L has one degree less than L.
    return int(max(by_hand + 1, loss.degree))


def prove_polynomials(
    name: str,
    module: ModuleType,
    *,
    shapes: tuple[Sizes, ...] | None = None,
    points: int = 1,
    seed: int = 0,
) -> Certificate:
    """Test, for each shape, whether the module's gradients are the derivatives of the loss.

    The shapes are `SHAPES` unless given. Each shape has four identities: with and without biases
    and h0, and both losses that are polynomials. Each is tested at `points` random points.
    Raises TypeError or ValueError where `points` is no integer from 1.
    """
    require_at_least(1, "points", points)
    rng, degree, done, error = random.Random(seed), 0, 0, 0.0
    for sizes, full, loss in product(shapes or SHAPES, (True, False), LOSSES):
        case = ProofCase("rnn", "", loss, sizes, full=full, large_residuals=False)
        where = f"{sizes}, {loss}, {'with' if full else 'without'} biases and h0"
        for number in range(points):
            here = module, case, random_point(rng, case)
            if number == 0:
                refuted, own = refute(where, degree_at, *here)
                degree = max(degree, own or 0)
            if refuted is None:
                refuted, _ = refute(where, require_polynomials_agree, *here)
            if refuted is not None:
                return Certificate(name, done, points, degree, 0.0, refuted)
        error += 2.0 ** (points * (log2(own or 1) - log2(SET_SIZE)))  # (Z4)
        done += 1
    return Certificate(name, done, points, degree, log10(error))


def require_polynomials_agree(module: ModuleType, case: ProofCase, point: ProofPoint) -> None:
    """Raise WrongGradient where the two polynomials differ in value at the point."""
    values = point.map_values(lambda value: value)
    found = run_module(module, case.problem(values, point.y, cubic_activation(module)))
    targets = map_entries(lambda value: POLYNOMIAL.number(value, 2), point.y)
    model = case.forward_pass._replace(option=cubic)
    require_equal(POLYNOMIAL, model, found, point, targets)


def require_equal(
    curve: SeriesCurve, model: ForwardPass, found: dict[str, Any], point: ProofPoint, y: Array
) -> None:
    """Raise WrongGradient where gradient times direction is not the directional derivative."""
    directions = {  # zero for every gradient that the derivation does not return
        name: 0 * along if found.get(name) is None else along
        for name, along in point.directions.items()
    }
    given = point._replace(directions=directions)
    by_hand, exact = gradient_along(curve, found, given), derivative_along(curve, model, given, y)
    if by_hand != exact:
        wrong = next(k for k in range(curve.order) if by_hand[k] != exact[k])
        found_is = "not zero where the derivative is"
        if exact[wrong] != 0:
            ratio = by_hand[wrong] / exact[wrong]
            found_is = f"{int(ratio.p) / int(ratio.q):.6g} times the derivative"
        where = f", in the coefficient of s^{wrong}" if curve.order > 1 else ""
        raise WrongGradient(f"in a random direction, the gradient is {found_is}{where}")


# Part two: power series, on which the modules run with their own activations and losses.

MODULES = {"RNN": rnn, "LSTM": lstm, "GRU": gru}


def curve_of(case: ProofCase) -> SeriesCurve:
    """The curve whose order shows the first step's contribution: V, T times W, x and ŷ − y."""
    return SeriesCurve(start=1, order=case.sizes.T + 4)


def draw_targets(
    rng: random.Random, case: ProofCase, curve: SeriesCurve, y: Array, *terms: int
) -> list[Array]:
    """The targets as series with each number of terms, or classes, which are one-hot rows."""
    signs = random.Random(rng.getrandbits(64))
    if case.loss == "softmax_cross_entropy":
        chosen = fill(y.shape[:-1], lambda: rng.randrange(case.sizes.O)).astype(int)
        return [np.eye(case.sizes.O, dtype=object)[chosen]] * len(terms)
    center = fill(y.shape, lambda: signs.choice((-2, 2)) if case.origin else 0)
    return [center + map_entries(lambda v, n=n: curve.number(v, n), y) for n in terms]


def require_series_agree(module: ModuleType, case: ProofCase, seed: int) -> None:
    """Raise WrongGradient where the power series of a gradient and of the derivative differ."""
    rng, curve = random.Random(f"{seed} {case}"), curve_of(case)
    point = random_point(rng, case)
    y, classes = draw_targets(rng, case, curve, point.y, curve.order, 2 * curve.order)
    problem = case.problem(point.map_values(lambda value: curve.number(value, curve.order)), y)
    require_equal(curve, case.forward_pass, run_module(module, problem), point, classes)


def prove_series(
    name: str, module: ModuleType, *, chosen: tuple[ProofCase, ...] | None = None, seed: int = 0
) -> Certificate:
    """Compare power series of gradient and derivative for every option, loss and mode of a cell."""
    done, order, error = 0, 1, 0.0
    for case in chosen or tuple(cases(name.lower())):
        with keep_terms(2 * curve_of(case).order):
            refuted, _ = refute(str(case), require_series_agree, module, case, seed)
        order = max(order, curve_of(case).order)
        if refuted is not None:
            return Certificate(name, done, 1, order, 0.0, refuted)
        error += curve_of(case).order / SET_SIZE  # (Z5)
        done += 1
    return Certificate(name, done, 1, order, log10(error))
