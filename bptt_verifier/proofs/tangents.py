"""Proofs of forward mode and Hessian-vector products, over the rationals and power series.

At a random point θ and in two random directions d and e, the tangent of the loss along d is
compared with a coefficient of L(θ + ε d), and the products ⟨e, H d⟩ and ⟨d, H e⟩ with one of

    L(θ + ε (d + e)) − L(θ + ε d) − L(θ + ε e) + L(θ),

from power series on a separate forward pass. Sources: those of `rational`, and docs/derivation.md,
section 18. Needs python-flint, which is in the extra `certify`.
"""

import random
from functools import partial
from itertools import product
from math import log2, log10
from types import ModuleType
from typing import Any

import numpy as np

from bptt_verifier.problems.problem import LOSSES, Array, Problem, Sizes
from bptt_verifier.proofs.cases import ProofCase, cases, fill
from bptt_verifier.proofs.forward_pass import ForwardPass, loss_and_prediction, map_entries
from bptt_verifier.proofs.power_series import Degree, PowerSeries, keep_terms, rational, series
from bptt_verifier.proofs.rational import (
    POLYNOMIAL,
    SET_SIZE,
    Certificate,
    ProofPoint,
    SeriesCurve,
    cubic,
    cubic_slope,
    curve_of,
    draw_targets,
    random_point,
)
from bptt_verifier.proofs.run import WrongGradient, copy_arrays, refute, require_unmodified

SHAPES = tuple(Sizes(*each) for each in product((1, 2, 3), (1, 2), (1, 2), (1, 2, 3), (1, 2)))
PRODUCTS = ("the tangent of the loss", "⟨e, H d⟩", "⟨d, H e⟩")


def cubic_curvature(a: Any, h: Any) -> Any:
    """φ″(z) = −2 z of φ(z) = z − z³/3."""
    return -2 * a


def as_exact(value: Any) -> Any:
    """The value, or the rational that is a float of NumPy's, such as the 1/4 of a mean."""
    return value if isinstance(value, PowerSeries | Degree) else rational(value)


def move_by_hand(
    module: ModuleType, problem: Problem, d: dict[str, Array], e: dict[str, Array]
) -> list[Any]:
    """The three `PRODUCTS` by the module's `jvp` and `hvp`.

    Raises Inconsistent where a function modifies its arguments, and whatever the module raises.
    """
    given = problem.params, problem.x, problem.y, problem.first, d, e
    before = copy_arrays(*given)
    options = {**problem.batch, **problem.first, "loss": problem.loss}
    along_d, along_e = (module.Direction(**each) for each in (d, e))
    at = problem.params, problem.x, problem.y

    def inner(along: Any, other: dict[str, Array]) -> Any:
        found = module.hvp(at[0], along, *at[1:], **options)
        pairs = [(map_entries(as_exact, getattr(found, name)), other[name]) for name in other]
        return sum((product * part).sum() for product, part in pairs)

    _, tangent = module.jvp(at[0], along_d, *at[1:], **options)
    products = [tangent, inner(along_d, e), inner(along_e, d)]
    require_unmodified("arguments", before, *given)
    return products


def move_exactly(
    curve: SeriesCurve,
    model: ForwardPass,
    point: ProofPoint,
    e: dict[str, Array],
    shapes: dict[str, tuple[int, ...]],
    y: Array,
) -> list[list[Any]]:
    """Coefficients of the three `PRODUCTS` up to s^(order − 1), from the forward pass alone."""
    order = curve.order
    numbers = curve.numbers._replace(constant=lambda z: z)  # nothing is truncated
    shapes = {"h0": (shapes["x"][1], shapes["V"][1])} | shapes

    def loss_along(*directions: dict[str, Array]) -> PowerSeries:
        at: dict[str, Any] = dict.fromkeys(("b", "c", "b_n"))
        for name, shape in shapes.items():
            zeros = np.zeros(shape, object)
            along = sum((each.get(name, zeros) for each in directions), zeros)
            at[name] = point.origin.get(name, 0) + map_entries(
                lambda v, d: curve.number(v, 3 * order, d), point.values.get(name, zeros), along
            )
        found, _ = loss_and_prediction(numbers, model, at, y)
        return found if isinstance(found, PowerSeries) else PowerSeries(series([found], 3 * order))

    nowhere, along_d, along_e, along_both = (
        loss_along(*each) for each in ((), (point.directions,), (e,), (point.directions, e))
    )
    tangent = (along_d - nowhere).plain("the tangent")
    mixed = (along_both - along_d - along_e + nowhere).plain("the product")
    by_name = [
        [tangent[order + k] for k in range(order)],  # (Z3)
        [mixed[2 * order + k] for k in range(order)],  # (Z7)
    ]
    return [*by_name, by_name[1]]


def require_products_equal(order: int, found: list[Any], exact: list[list[Any]]) -> None:
    """Raise WrongGradient where a product by hand has other coefficients than the loss."""
    for name, own, known in zip(PRODUCTS, found, exact, strict=True):
        if isinstance(own, PowerSeries):
            coefficients = [own.plain("a product")[k] for k in range(order)]
        else:
            coefficients = [rational(own)] + [rational(0)] * (order - 1)
        if coefficients != known:
            raise WrongGradient(f"in random directions d and e, {name} is not that of the loss")


def draw_directions(rng: random.Random, case: ProofCase) -> tuple[ProofPoint, dict[str, Array]]:
    """A random point with a direction, and a second direction; neither moves an ε_t."""
    point, other = random_point(rng, case), random_point(rng, case)
    d, e = (
        {name: part for name, part in each.directions.items() if name != "adjoints"}
        for each in (point, other)
    )
    return point._replace(directions=d), e


# Part one: polynomials.


def require_polynomials_move(module: ModuleType, case: ProofCase, rng: random.Random) -> int:
    """Raise WrongGradient where the polynomials differ at a random point; return their degree."""
    point, e = draw_directions(rng, case)
    activation = module.activations.Activation(cubic, cubic_slope, cubic_curvature)
    problem = case.problem(point.map_values(lambda value: value), point.y, activation)
    found = move_by_hand(module, problem, point.directions, e)
    targets = map_entries(lambda value: POLYNOMIAL.number(value, 3), point.y)
    model = case.forward_pass._replace(option=cubic)
    exact = move_exactly(POLYNOMIAL, model, point, e, case.shapes, targets)
    require_products_equal(1, found, exact)

    def of_degree_one(arrays: dict[str, Array]) -> dict[str, Array]:
        return {name: fill(value.shape, lambda: Degree(1)) for name, value in arrays.items()}

    y = fill(point.y.shape, lambda: Degree(1))
    moved = of_degree_one(e)
    degrees = move_by_hand(
        module, case.problem(of_degree_one(point.values), y, activation), moved, moved
    )
    # A product has no larger degree than L: two derivatives, times two directions of degree 1. The
    # degree of L is that of its tangent by hand, in which a direction has replaced a coordinate.
    return int(max(each.degree for each in degrees))


def prove_tangent_polynomials(
    name: str, module: ModuleType, *, shapes: tuple[Sizes, ...] | None = None, seed: int = 0
) -> Certificate:
    """Test, for each shape, whether the module's tangents are derivatives of the loss.

    The shapes are `SHAPES` unless given; each has the four identities of `prove_polynomials`.
    """
    rng, degree, done, error = random.Random(seed), 0, 0, 0.0
    for sizes, full, loss in product(shapes or SHAPES, (True, False), LOSSES):
        case = ProofCase("rnn", "", loss, sizes, full=full, large_residuals=False)
        where = f"{sizes}, {loss}, {'with' if full else 'without'} biases and h0"
        refuted, own = refute(where, require_polynomials_move, module, case, rng)
        if refuted is not None:
            return Certificate(name, done, 1, degree, 0.0, refuted)
        degree, done = max(degree, own), done + 1
        error += 2.0 ** (log2(own) - log2(SET_SIZE))  # (Z4)
    return Certificate(name, done, 1, degree, log10(error))


# Part two: power series, on which the module runs with its own activations and losses.


def series_cases() -> tuple[ProofCase, ...]:
    """Every activation, loss and mode of the plain RNN but truncation."""
    return tuple(case for case in cases("rnn") if case.truncation is None)


def require_series_move(module: ModuleType, case: ProofCase, seed: int) -> None:
    """Raise WrongGradient where the power series of a tangent and of the derivative differ."""
    rng, curve = random.Random(f"{seed} {case}"), curve_of(case)
    point, e = draw_directions(rng, case)
    y, classes = draw_targets(rng, case, curve, point.y, curve.order, 3 * curve.order)
    problem = case.problem(point.map_values(partial(curve.number, terms=curve.order)), y)
    constant = partial(map_entries, lambda v: PowerSeries(series([v], curve.order)))
    constants = ({n: constant(v) for n, v in each.items()} for each in (point.directions, e))
    found = move_by_hand(module, problem, *constants)
    exact = move_exactly(curve, case.forward_pass, point, e, case.shapes, classes)
    require_products_equal(curve.order, found, exact)


def prove_tangent_series(
    name: str, module: ModuleType, *, chosen: tuple[ProofCase, ...] | None = None, seed: int = 0
) -> Certificate:
    """Compare power series of tangents and derivatives for every activation, loss and mode."""
    done, order, error = 0, 1, 0.0
    for case in chosen or series_cases():
        with keep_terms(3 * curve_of(case).order):
            refuted, _ = refute(str(case), require_series_move, module, case, seed)
        order = max(order, curve_of(case).order)
        if refuted is not None:
            return Certificate(name, done, 1, order, 0.0, refuted)
        error += curve_of(case).order / SET_SIZE  # (Z5)
        done += 1
    return Certificate(name, done, 1, order, log10(error))
