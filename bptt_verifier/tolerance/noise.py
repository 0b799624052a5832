"""Measured rounding errors: the same computation with random rounding errors added.

A rigorous bound grows with |W| where the gradient grows with W: on long sequences it is too large.
There the allowed error is the spread of samples with a pseudo-random error, as large as rounding
may be, after every operation that JAX traces. Sources: Parker 1997, "Monte Carlo Arithmetic";
Higham & Mary 2019, "A New Approach to Probabilistic Rounding Error Analysis", for the √n of a sum
of n terms; docs/derivation.md, section 10.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from bptt_verifier.tolerance.bounds import ELEMENTARY

SAMPLES = 8
AMPLIFY = 2.0**10  # least size of the added errors, in units of float64's own roundoff
SAFETY = 16  # allowed error ÷ largest deviation among the samples

# Operations that move, select or negate numbers, and do not round.
EXACT = frozenset(
    "neg transpose reshape broadcast_in_dim select_n slice dynamic_slice dynamic_update_slice"
    " gather squeeze expand_dims concatenate stack unstack split pad rev copy copy_p max min"
    " reduce_max reduce_min abs sign stop_gradient iota convert_element_type clamp floor ceil"
    " round real imag complex conj sort top_k cummax cummin scatter reduce_precision".split()
)
# Calls, and the parameter that has the function; remat2 is jax.checkpoint in newer versions.
INLINED = dict.fromkeys(("jit", "checkpoint", "remat2"), "jaxpr")
INLINED |= dict.fromkeys(("closed_call", "custom_jvp_call", "custom_vjp_call"), "call_jaxpr")
# Compiles in a third of the time, and runs as fast: for functions that run a few times.
UNOPTIMISED = {"xla_backend_optimization_level": 0}

ARITHMETIC = frozenset("add sub mul div add_any sqrt integer_pow square".split())
# Elementary functions of each entry; they round in units of that entry.
ELEMENTWISE = frozenset(
    "tanh exp exp2 expm1 log log1p sin cos tan asin acos atan atan2 sinh cosh asinh acosh atanh"
    " pow rsqrt cbrt rem erf erfc erf_inv lgamma digamma igamma igammac reduce_prod".split()
)
# Factorisations with two factors in one matrix: a triangle, and what has a diagonal of ones.
PACKED = frozenset("lu geqrf".split())
# Functions that are written with exponentials as well, and what shifts the argument of one.
BY_EXPONENTIALS = frozenset("tanh logistic".split())
EXTREMA = frozenset("max min reduce_max reduce_min cummax cummin".split())


class Underflow(NamedTuple):
    """What a format loses of small numbers: each below `smallest`, and each such term of a sum.

    `unit` is the unit roundoff of that format, in which the losses are measured.
    """

    smallest: float
    unit: float


class Roundoff(NamedTuple):
    """The rounding errors of a format to imitate.

    `unit` is its unit roundoff. In such units, an elementary function may err by `elementary` of
    its value, and a number that is too small for the format by `smallest`. A number beyond
    `largest` errs by up to `beyond` times itself: it may be anything up to twice itself, or NaN.
    Another formula may have an exponential that overflows, of a number beyond `exponent`, or a
    square, of a part of a difference beyond `root`. `underflow` is what small numbers may lose.
    """

    unit: Any
    elementary: float = ELEMENTARY
    smallest: float = 0.0
    largest: float = float("inf")
    beyond: float = 1.0
    exponent: float = float("inf")
    root: float = float("inf")
    underflow: Underflow | None = None


ANY_FORMAT = Roundoff(0.0)  # one of unlimited range
# What becomes of the results of an operation: of the equation, its operands, the results and a mark
# that belongs to this operation in this step of each loop.
Change = Callable[[Any, Sequence[Any], list[Any], Any], list[Any]]


@jax.jit  # traced once for each shape, not for each of the hundred calls
def uniform(values: Array, salt: Array) -> Array:
    """Pseudo-random numbers in [−1, 1]: the splitmix64 hash of each value's place and the salt."""
    places = jnp.arange(1, values.size + 1, dtype=jnp.uint64).reshape(values.shape)
    z = places * jnp.uint64(0x9E3779B97F4A7C15) ^ salt
    z = (z ^ (z >> 30)) * jnp.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> 27)) * jnp.uint64(0x94D049BB133111EB)
    number: Array = (z ^ (z >> 31)).astype(jnp.int64).astype(jnp.float64)
    return number / 2.0**63


def add_error(
    equation: Any, inputs: Sequence[Any], result: Any, salt: Any, roundoff: Roundoff
) -> Any:
    """Add an error to the result of one operation; to both parts of a complex one (N1)."""
    if result.dtype not in (jnp.float64, jnp.complex128):
        return result
    size = magnitude(equation, inputs, result, roundoff.elementary)
    if roundoff.underflow is not None:
        size += measure_lost(equation, inputs, result, size, roundoff.underflow)
    inverted = equation.primitive.name == "integer_pow"  # 1 / x², by way of x²
    return move(result, size, salt, roundoff.unit, roundoff[2:5], inverted)


def measure_lost(
    equation: Any, inputs: Sequence[Any], result: Any, size: Any, underflow: Underflow
) -> Any:
    """Measure what underflow may take of the result of one operation, in units of u."""
    terms = count_terms(equation, inputs, result)
    if terms is None:
        return jnp.minimum(jnp.abs(result), underflow.smallest) / underflow.unit
    terms = jnp.maximum(1, terms)
    sizes = size / terms**0.5  # the sum of the sizes of all terms
    return jnp.minimum(sizes, terms * underflow.smallest) / underflow.unit  # (N11)


@partial(jax.jit, static_argnums=(4, 5))  # one call where nothing is compiled around it
def move(
    result: Any, size: Any, salt: Any, unit: Any, limits: tuple[float, float, float], inverted: bool
) -> Any:
    """Add an error of a number of units; `limits` are the format's smallest, largest and beyond."""
    smallest, largest, beyond = limits
    error = unit * size
    error = jnp.where(jnp.isfinite(error), error, 0.0)
    if smallest:
        error += unit * jnp.where(result == 0, 0.0, smallest)
    if largest < jnp.inf:
        most = jnp.abs(result)
        if inverted:
            most = jnp.maximum(most, 1 / most)
        exceeds = (most > largest) & jnp.isfinite(most) & (unit > 0)
        error = jnp.where(exceeds, beyond * jnp.abs(result), error)
    in_real_part = error * uniform(result.real, salt)
    if result.dtype == jnp.float64:
        return result + in_real_part
    return result + lax.complex(in_real_part, error * uniform(result.real, ~salt))


def add_errors(roundoff: Roundoff) -> Change:
    """Make the change of results that adds errors, as large as rounding to a format may be."""

    def change(equation: Any, given: Sequence[Any], results: list[Any], mark: Any) -> list[Any]:
        name = equation.primitive.name
        if name not in EXACT:
            results = [add_error(equation, given, each, mark, roundoff) for each in results]
        return spoil_overflows(name, given, results, roundoff)

    return change


def spoil_overflows(
    name: str, given: Sequence[Any], results: Sequence[Any], roundoff: Roundoff
) -> list[Any]:
    """Put NaN where another formula has an exponential or a square that may overflow.

    What is beyond the format itself stands for an infinity, as in a mask: an exponent that is
    negative, a part of a difference of either sign.
    """
    limit = roundoff.root if name == "sub" else roundoff.exponent
    if limit == jnp.inf:
        return [*results]
    inside = given if name in {"sub", *BY_EXPONENTIALS} else results if name in EXTREMA else ()
    for each in inside:
        if each.dtype == jnp.float64:
            size = jnp.abs(each)
            mask = size if name == "sub" else -each
            beyond = (size > limit) & (size < jnp.inf) & (mask <= roundoff.largest)
            results = [jnp.where(beyond, jnp.nan, result) for result in results]
    return [*results]


def magnitude(equation: Any, inputs: Sequence[Any], output: Any, elementary: float) -> Any:
    """The largest rounding error of one operation, in units of u."""
    name, params = equation.primitive.name, equation.params
    terms = count_terms(equation, inputs, output)

    def of_sizes(terms: Any) -> Any:
        """The error of sums of `terms` terms: √terms times the sum of their sizes."""
        inexact = [jnp.issubdtype(x.dtype, jnp.inexact) for x in inputs]
        sizes = [
            jnp.abs(x).astype(x.dtype) if each else x
            for x, each in zip(inputs, inexact, strict=True)
        ]
        return jnp.maximum(1, terms) ** 0.5 * equation.primitive.bind(*sizes, **params).real

    if terms is not None:
        return of_sizes(terms)
    if name == "logistic":
        # Others write it as ½ + ½ tanh(a/2), whose sum rounds in units of the constant.
        return jnp.maximum(elementary * jnp.abs(output), 1.0)
    if name in ARITHMETIC:
        return jnp.abs(output)
    if name in ELEMENTWISE or output.size == 0:
        return elementary * jnp.abs(output)
    if name == "cumprod":
        return max(elementary, inputs[0].shape[params["axis"]]) * jnp.abs(output)
    # Factorisations and Fourier transforms round in units of their largest entry.
    axes = tuple(range(-min(output.ndim, 1 if name == "fft" else 2), 0))
    sizes = jnp.abs(output)
    largest = jnp.max(sizes, axis=axes, keepdims=True)
    if name in PACKED and output.ndim > 1:  # each factor in units of its own
        below = jnp.tril(jnp.ones(output.shape[-2:], bool), -1)
        above = jnp.max(jnp.triu(sizes), axis=axes, keepdims=True)
        largest = jnp.where(below, jnp.max(jnp.tril(sizes, -1), axis=axes, keepdims=True), above)
    return elementary * largest


def count_terms(equation: Any, inputs: Sequence[Any], output: Any) -> Any:
    """Count the terms of the sums that an operation computes; None if it computes none."""
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return prod(inputs[0].shape[axis] for axis in contracted)
    if name == "reduce_sum":
        return inputs[0].size // max(1, output.size)
    if name == "cumsum":
        return inputs[0].shape[params["axis"]]
    if name == "conv_general_dilated":
        return inputs[1].size
    if name in {"scatter-add", "scatter_add"}:
        # As many as are added at each place: one place may get all of them.
        start, places, updates = jnp.ones_like(inputs[0]), inputs[1], jnp.ones_like(inputs[2])
        return equation.primitive.bind(start, places, updates, **params).real
    return None


def evaluate(
    closed: ClosedJaxpr,
    inputs: Sequence[Any],
    salt: Array,
    change: Change,
    number: Iterator[int],
) -> list[Any]:
    """Evaluate a jaxpr with the results of every operation changed.

    `salt` chooses the changes, and `number` counts the operations that round, so that each is
    changed in a way of its own.
    """
    jaxpr: Jaxpr = closed.jaxpr
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values |= zip(jaxpr.invars, inputs, strict=True)

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        name, given = equation.primitive.name, [read(atom) for atom in equation.invars]
        if name in INLINED:
            inner = equation.params[INLINED[name]]
            inner = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
            results = evaluate(inner, given, salt, change, number)
        elif name == "cond":
            results = evaluate_cond(equation.params, given, salt, change, number)
        elif name == "scan":
            results = evaluate_scan(equation, given, salt, change, number)
        elif name == "while":
            results = evaluate_while(equation.params, given, salt, change, number)
        else:
            primitive: Any = equation.primitive
            bound = primitive.bind(*given, **primitive.get_bind_params(equation.params))
            results = list(bound) if primitive.multiple_results else [bound]
            own = 0 if name in EXACT else next(number)
            mark = salt + jnp.uint64(own * 0x9E3779B97F4A7C15 % 2**64)
            results = change(equation, given, results, mark)
        values |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def evaluate_cond(
    params: dict[str, Any],
    given: Sequence[Any],
    salt: Array,
    change: Change,
    number: Iterator[int],
) -> list[Any]:
    """Evaluate a conditional whose branches have independent errors."""
    which, *operands = given

    def branch_with_noise(branch: ClosedJaxpr, start: int) -> Callable[..., list[Any]]:
        return lambda *inputs: evaluate(branch, inputs, salt, change, count(start))

    branches = [branch_with_noise(branch, next(number) * 2**16) for branch in params["branches"]]
    return list(lax.switch(which, branches, *operands))


def evaluate_while(
    params: dict[str, Any],
    given: Sequence[Any],
    salt: Array,
    change: Change,
    number: Iterator[int],
) -> list[Any]:
    """Evaluate a while loop whose steps have independent errors; its condition has none."""
    of_condition, of_body = params["cond_nconsts"], params["body_nconsts"]
    first = of_condition + of_body
    held, fixed = given[:of_condition], given[of_condition:first]
    start = next(number) * 2**16

    def goes_on(state: tuple[Any, list[Any]]) -> Any:
        return jaxpr_as_fun(params["cond_jaxpr"])(*held, *state[1])[0]

    def step(state: tuple[Any, list[Any]]) -> tuple[Any, list[Any]]:
        t, carry = state
        mark = salt + (t + 1) * jnp.uint64(0xD1B54A32D192ED03)
        results = evaluate(params["body_jaxpr"], [*fixed, *carry], mark, change, count(start))
        return t + 1, results

    return list(lax.while_loop(goes_on, step, (jnp.uint64(0), list(given[first:])))[1])


def constant_and_carried(scan: Any) -> tuple[int, int]:
    """The number of constant operands of a scan, and of operands carried from step to step.

    Versions of JAX name these counts differently, so they are derived from the ranks: sliced and
    stacked operands have one axis more outside the loop's body than inside.
    """
    body = scan.params["jaxpr"]

    def longer(outside: Sequence[Any], inside: Sequence[Any]) -> int:
        return sum(o.aval.ndim > i.ndim for o, i in zip(outside, inside, strict=True))

    carried = len(scan.outvars) - longer(scan.outvars, body.out_avals)
    return len(scan.invars) - longer(scan.invars, body.in_avals) - carried, carried


def evaluate_scan(
    equation: Any, given: Sequence[Any], salt: Array, change: Change, number: Iterator[int]
) -> list[Any]:
    """Evaluate a scan whose steps have independent errors."""
    params = equation.params
    consts, carried = constant_and_carried(equation)
    split = consts + carried
    fixed, first, sliced = given[:consts], list(given[consts:split]), list(given[split:])
    start = next(number) * 2**16

    def step(carry: list[Any], slices: tuple[Any, list[Any]]) -> tuple[list[Any], list[Any]]:
        t, each = slices
        mark = salt + (t.astype(jnp.uint64) + 1) * jnp.uint64(0xD1B54A32D192ED03)
        results = evaluate(params["jaxpr"], [*fixed, *carry, *each], mark, change, count(start))
        return results[:carried], results[carried:]

    steps = jnp.arange(params["length"])
    last, stacked = lax.scan(step, first, (steps, sliced), reverse=params["reverse"])
    return [*last, *stacked]


def add_noise(function: Callable[..., Any], form: Roundoff = ANY_FORMAT) -> Callable[..., Any]:
    """Turn `function(*arguments)` into a function of (salt, size, *arguments) with added errors.

    `size` is the unit roundoff to imitate, `salt` a uint64 that chooses the errors; `form` says
    what else the format does. JAX must be able to trace the function in float64, whose own rounding
    should be far below `size`.
    """

    def run(salt: Array, size: Array, *arguments: Any) -> Any:
        change = add_errors(form._replace(unit=size))
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        results = evaluate(closed, jax.tree.leaves(arguments), salt, change, count(1))
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return run


def measure_error(function: Callable[..., Any], roundoff: Any, *arguments: Any) -> tuple[Any, Any]:
    """`function(*arguments)`, and the allowed error of its results for this unit roundoff.

    Both are pytrees like the function's result. Call it inside `jax.jit` and with 64-bit JAX.
    """
    clean = function(*arguments)
    size = jnp.maximum(roundoff, AMPLIFY * 2.0**-53)
    salts = jnp.arange(1, SAMPLES + 1, dtype=jnp.uint64)
    moved = jax.vmap(lambda salt: add_noise(function)(salt, size, *arguments))(salts)

    def allowed(samples: Any, exact: Any) -> Any:
        furthest = jnp.max(jnp.abs(samples - exact), axis=0)
        linear = jnp.max(furthest) <= jnp.max(jnp.abs(exact)) / 8
        return SAFETY * furthest * jnp.where(linear, roundoff / size, 1.0)  # (N2)

    return clean, jax.tree.map(allowed, moved, clean)
