"""Numbers beyond the range of float64 inside a pull-back, and gradients that are made of them.

A product below 2⁻¹⁰⁷⁴ is zero, and the next factor may be as large: then a finite gradient has no
digit left. docs/derivation.md, section 17, (V15) and (V17).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import chain, count
from operator import and_
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.tolerance.noise import evaluate, uniform

Arrays = Mapping[str, Array]
Points = Sequence[Arrays]
# The outputs at points by name, stacked over the points.
Compute = Callable[[Points], Arrays]

STEP = 2.0**-20  # a relative change of arguments: differences keep half of their digits
BEND = 2.0**-13  # and one for second differences
AGREE = 2.0**-10  # the part in which differences and gradients may differ
ROUNDING = 2.0**-40  # and the part of the outputs, whose rounding the differences contain

# What stands for a number that float64 cannot hold. Libraries take all below 2⁻¹⁰²² for zero, and
# the products of these with numbers of ordinary size must be in range.
LEAST, LARGEST = 2.0**-1000, 2.0**1000
LOST = 2.0**-60  # the part of its largest entry that they may change in a gradient that is known
OF_ENTRIES = frozenset("mul div square integer_pow pow exp exp2 logistic erfc".split())
RUNNING = frozenset("reduce_prod cumprod".split())
SUMS_OF_PRODUCTS = frozenset("dot_general conv_general_dilated".split())
SUMS = frozenset("add add_any sub expm1 sinh cosh reduce_sum cumsum".split())


def list_unconfirmed(
    compute: Compute, points: Points, cotangents: Points, gradients: Arrays
) -> list[int]:
    """List the points at which differences of the outputs do not confirm the gradients. (V15)"""
    rng, found = np.random.default_rng(0), set[int]()
    every = {n: [{n: STEP * turn(point[n], rng)} for point in points] for n in gradients}
    moved = [move(points, steps, way) for steps in every.values() for way in (1, -1)]
    computed = compute([*chain.from_iterable(moved)])  # in few calls: each may take a while
    beside = iter(split_evenly(computed, len(moved)))
    for (name, gradient), upper, lower in zip(gradients.items(), beside, beside, strict=True):
        steps = every[name]
        for k, given in enumerate(cotangents):
            terms = [c * (upper[n][k] - lower[n][k]) / 2 for n, c in given.items()]
            outputs = [c * upper[n][k] for n, c in given.items()]
            expected = gradient[k] * steps[k][name]
            # (V15)
            allowed = AGREE * norm(expected) + ROUNDING * norm(*outputs)
            if abs(add(*terms) - add(expected)) > allowed:
                found.add(k)
    return sorted(found)


def list_unconfirmed_tangents(
    compute: Compute, points: Points, directions: Points, tangents: Arrays
) -> list[int]:
    """List the points at which differences of the outputs do not confirm their tangents. (V15)"""
    scales = list_scales(STEP, points, directions)
    upper, lower = compute_beside(compute, points, directions, scales)
    found = set[int]()
    for name, values in upper.items():
        for k, scale in enumerate(scales):
            expected = scale * tangents[f"tangent of {name}"][k]
            error = (values[k] - lower[name][k]) / 2 - expected
            if norm(error) > AGREE * norm(expected) + ROUNDING * norm(values[k]):
                found.add(k)
    return sorted(found)


def list_unconfirmed_products(
    compute: Compute, points: Points, directions: Points, products: Arrays
) -> list[int]:
    """List the points at which second differences of a loss do not confirm H v. (V15)"""
    scales = list_scales(BEND, points, directions)
    upper, lower = compute_beside(compute, points, directions, scales)
    found = []
    for name, losses in compute(points).items():
        for k, scale in enumerate(scales):
            along = {f"R{{{n}}}": v.astype(np.float64) for n, v in directions[k].items()}
            expected = [scale**2 * v * products[n][k] for n, v in along.items()]
            bend = add(upper[name][k], lower[name][k], -2 * losses[k])
            allowed = AGREE * norm(*expected) + ROUNDING * norm(losses[k])
            if abs(bend - add(*expected)) > allowed:
                found.append(k)
    return found


def turn(x: Array, rng: np.random.Generator) -> Array:
    """Give finite entries random signs, and zero to the others."""
    finite = np.where(np.isfinite(x), x, 0).astype(np.float64)
    turned: Array = finite * rng.choice([-1.0, 1.0], x.shape)
    return turned


def list_scales(part: float, points: Points, directions: Points) -> list[float]:
    """List how long directions are that change no argument by more than a part of its size."""
    return [
        part * min((norm(x[n]) / norm(v) for n, v in each.items() if norm(v)), default=0.0)
        for x, each in zip(points, directions, strict=True)
    ]


def compute_beside(
    compute: Compute, points: Points, directions: Points, scales: Sequence[float]
) -> tuple[Arrays, Arrays]:
    """Compute the outputs a step along the directions, and a step back."""
    steps = [
        {n: scale * v.astype(np.float64) for n, v in each.items()}
        for scale, each in zip(scales, directions, strict=True)
    ]
    return compute(move(points, steps, 1)), compute(move(points, steps, -1))


def move(points: Points, steps: Points, way: int) -> list[Arrays]:
    """Add steps to some of the arrays of points, or subtract them."""
    return [
        dict(point) | {n: point[n].astype(np.float64) + way * s for n, s in each.items()}
        for point, each in zip(points, steps, strict=True)
    ]


def split_evenly(outputs: Arrays, number: int) -> list[Arrays]:
    """Split outputs at many points into those of as many groups of points."""
    parts = {name: np.split(each, number) for name, each in outputs.items()}
    return [{name: each[k] for name, each in parts.items()} for k in range(number)]


def norm(*arrays: Array) -> float:
    """The Euclidean norm of all entries of arrays together."""
    sizes = [float(np.max(np.abs(x), initial=0.0)) for x in arrays]
    most = max(sizes, default=0.0)  # squares of it may leave float64
    if not 0 < most < np.inf:
        return most
    return most * float(np.sqrt(sum(np.sum((x.astype(np.float64) / most) ** 2) for x in arrays)))


def add(*arrays: Array) -> float:
    """The sum of all entries of arrays."""
    return float(sum(np.sum(x) for x in arrays))


def restore_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function in which numbers of float64 stand for all that its range excludes. (V17)"""

    def restored(*arguments: Any) -> Any:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        given, salt = jax.tree.leaves(arguments), jnp.uint64(1)
        results = evaluate(closed, given, salt, restore_result, count(1))
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return restored


def restore_result(equation: Any, given: Sequence[Any], results: list[Any], mark: Any) -> list[Any]:
    """Put a number of float64 in the place of a result that its range excludes. (V17)"""
    name, primitive, params = equation.primitive.name, equation.primitive, equation.params
    if name not in OF_ENTRIES | RUNNING | SUMS_OF_PRODUCTS | SUMS:
        return results
    (result,), operands = results, [jnp.asarray(each) for each in given]
    if result.dtype != jnp.float64:
        return results
    size, share = jnp.abs(result), 0.75 + uniform(jnp.zeros(()), mark) / 4
    if name in OF_ENTRIES | RUNNING:  # what is zero or infinite makes numbers that are no loss
        is_regular = reduce(and_, [jnp.isfinite(each) & (each != 0) for each in operands])
    else:
        is_regular = reduce(and_, [jnp.all(jnp.isfinite(each)) for each in operands])
    if name in RUNNING:
        is_regular = primitive.bind(is_regular.astype(jnp.float64), **params) != 0
    overflows, vanishes = is_regular & jnp.isinf(size), is_regular & (size < LEAST)
    if name in SUMS_OF_PRODUCTS:
        least = [jnp.min(jnp.abs(x), initial=jnp.inf, where=x != 0) for x in operands]
        vanishes &= least[0] * least[1] < LEAST
    if name not in SUMS:  # a difference of numbers of float64 is one of them
        result = jnp.where(vanishes, result + share * LEAST, result)
    return [jnp.where(overflows, jnp.sign(result) * share * LARGEST, result)]


def is_lost(gradient: Array, restored: Array) -> bool:
    """Tell whether a gradient is made of numbers that float64 cannot hold."""
    # (V17)
    return not norm(restored - gradient) <= LOST * norm(gradient)
