"""Operations of a traced loss: their values, and the cotangents that they pass back, in NumPy.

The JAX primitives common in losses have rules here; JAX itself evaluates and differentiates the
others. Every array has a leading axis, for samples of rounding errors or for mistaken gradients.
The cotangent of a complex z is ∂L/∂Re z − i ∂L/∂Im z, as in JAX, so no rule takes a conjugate.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.by_jax import Apply, evaluate_by_jax, pass_back_by_jax
from bptt_verifier.program.rounding import EXACTLY, RoundingErrors, align, is_inexact
from bptt_verifier.program.source_lines import Place
from bptt_verifier.tolerance.bounds import ELEMENTARY
from bptt_verifier.tolerance.noise import ARITHMETIC, EXACT

Block = tuple[slice, ...]
FEW_NUMBERS = 2**12  # numbers that are moved, of which the block is kept


class Operation(NamedTuple):
    """An operation that depends on the parameters; operands and results are slots of values.

    `moved` is not None where the operation only moves numbers: entry i of the result is entry
    moved[i] of the operand, both flattened. `dtypes` are those of the results, and `apply`
    evaluates the operation in JAX. One that `keeps_zeros` passes a cotangent of zero back as zero,
    whatever its slope is.
    """

    name: str
    primitive: Any
    params: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    where: tuple[Place, ...]
    position: tuple[int, ...]
    moved: Array | None
    dtypes: tuple[Any, ...]
    apply: Apply
    keeps_zeros: bool = False


def slope_of_abs(x: Array, y: Array) -> Any:
    """The slope of |x|, which is 1 at a real zero and 0 at a complex one, as in JAX."""
    if np.iscomplexobj(x):
        return np.conj(x) / np.where(y == 0, 1.0, y)
    return np.where(x >= 0, 1.0, -1.0)


# Elementwise operations with one operand: y = f(x), and the slope as a function of x and y.
UNARY: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "neg":      (lambda x: -x,                   lambda x, y: -np.ones_like(x)),
    "tanh":     (np.tanh,                        lambda x, y: 1 - y * y),
    "logistic": (lambda x: 1 / (1 + np.exp(-x)), lambda x, y: y * (1 - y)),
    "exp":      (np.exp,                         lambda x, y: y),
    "exp2":     (np.exp2,                        lambda x, y: y * np.log(2)),
    "expm1":    (np.expm1,                       lambda x, y: y + 1),
    "log":      (np.log,                         lambda x, y: 1 / x),
    "log1p":    (np.log1p,                       lambda x, y: 1 / (1 + x)),
    "sin":      (np.sin,                         lambda x, y: np.cos(x)),
    "cos":      (np.cos,                         lambda x, y: -np.sin(x)),
    "sqrt":     (np.sqrt,                        lambda x, y: 0.5 / y),
    "rsqrt":    (lambda x: 1 / np.sqrt(x),       lambda x, y: -0.5 * y / x),
    "square":   (np.square,                      lambda x, y: 2 * x),
    "abs":      (np.abs,                         slope_of_abs),
    "real":     (np.real,                        lambda x, y: np.ones_like(x)),
    "imag":     (np.imag,                        lambda x, y: np.full_like(x, -1j)),
    "sign":     (np.sign,                        lambda x, y: np.zeros_like(x)),
    "copy":     (np.copy,                        lambda x, y: np.ones_like(x)),
}  # fmt: skip


def join_parts(x: Array, y: Array) -> Any:
    """Complex numbers of these real and imaginary parts."""
    return x + 1j * y


# Elementwise operations with two operands: z = f(x, y), and both slopes.
BINARY: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "add":      (np.add,      lambda x, y, z: 1.0,           lambda x, y, z: 1.0),
    "add_any":  (np.add,      lambda x, y, z: 1.0,           lambda x, y, z: 1.0),
    "sub":      (np.subtract, lambda x, y, z: 1.0,           lambda x, y, z: -1.0),
    "mul":      (np.multiply, lambda x, y, z: y,             lambda x, y, z: x),
    "div":      (np.divide,   lambda x, y, z: 1 / y,         lambda x, y, z: -z / y),
    "max":      (np.maximum,  lambda x, y, z: larger(x, y),  lambda x, y, z: larger(y, x)),
    "min":      (np.minimum,  lambda x, y, z: larger(y, x),  lambda x, y, z: larger(x, y)),
    "pow":      (np.power,    lambda x, y, z: y * x**(y-1),  lambda x, y, z: slope_of_power(x, z)),
    "complex":  (join_parts,  lambda x, y, z: 1.0,           lambda x, y, z: 1j),
}  # fmt: skip

# Elementwise operations without a derivative.
TESTS: dict[str, Callable[..., Any]] = {
    "gt": np.greater, "ge": np.greater_equal, "lt": np.less, "le": np.less_equal,
    "eq": np.equal, "ne": np.not_equal, "and": np.bitwise_and, "or": np.bitwise_or,
    "is_finite": np.isfinite,
}  # fmt: skip


def has_slope(name: str, x: Array) -> bool:
    """True for the operations of `UNARY`; the sign of a complex number has no slope."""
    return name in UNARY and not (name == "sign" and np.iscomplexobj(x))


def slope_of_power(x: Array, z: Array) -> Any:
    """The slope of z = x ** y with respect to y; 0 at x = 0, as in JAX."""
    return np.where(x == 0, 0.0, z * np.log(np.where(x == 0, 1.0, x)))


def larger(x: Array, y: Array) -> Any:
    """1 where x > y, ½ where both are equal, as in JAX."""
    return np.where(x == y, 0.5, np.where(x > y, 1.0, 0.0))


def take_slice(x: Array, params: dict[str, Any], _: tuple[int, ...]) -> Array:
    """The operation slice."""
    strides = params["strides"] or (1,) * x.ndim
    ends = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return x[tuple(slice(*end) for end in ends)]


def broadcast(x: Array, params: dict[str, Any], shape: tuple[int, ...]) -> Array:
    """The operation broadcast_in_dim."""
    aligned = [1] * len(shape)
    for size, axis in zip(x.shape, params["broadcast_dimensions"], strict=True):
        aligned[axis] = size
    return np.broadcast_to(x.reshape(aligned), shape)


# Operations that move the numbers of one operand, for an array without a leading axis.
MOVES: dict[str, Callable[[Array, dict[str, Any], tuple[int, ...]], Any]] = {
    "reshape":          lambda x, params, shape: x.reshape(shape),
    "squeeze":          lambda x, params, shape: x.reshape(shape),
    "expand_dims":      lambda x, params, shape: x.reshape(shape),
    "transpose":        lambda x, params, shape: x.transpose(params["permutation"]),
    "rev":              lambda x, params, shape: np.flip(x, params["dimensions"]),
    "slice":            take_slice,
    "broadcast_in_dim": broadcast,
}  # fmt: skip
WITHOUT_COPIES = frozenset(MOVES) - {"broadcast_in_dim"}


def matrices(equation: Operation, left: Array, right: Array) -> tuple[Array, Array, Any]:
    """The operands of a dot_general as stacks of matrices, and the inverse of the reshaping."""
    (contract, batch) = equation.params["dimension_numbers"]
    orders, shapes, stacked = [], [], []
    for operand, (x, k, b) in enumerate(zip((left, right), contract, batch, strict=True)):
        free = [axis for axis in range(x.ndim - 1) if axis not in {*k, *b}]
        parts = [b, free, k] if operand == 0 else [b, k, free]
        order = [0] + [axis + 1 for part in parts for axis in part]
        sizes = [prod(x.shape[axis + 1] for axis in part) for part in parts]
        orders.append(order)
        shapes.append([x.shape[axis] for axis in order[1:]])
        stacked.append(x.transpose(order).reshape(len(x), *sizes))

    def back(operand: int, x: Array) -> Array:
        return x.reshape(len(x), *shapes[operand]).transpose(np.argsort(orders[operand]))

    return stacked[0], stacked[1], back


def evaluate(
    equation: Operation, given: Sequence[Array], errors: RoundingErrors = EXACTLY
) -> list[Any]:
    """Evaluate one equation; returns its results."""
    name, params, shape = equation.name, equation.params, equation.shapes[0]
    dtype = equation.dtypes[0]
    errors = errors.in_precision(dtype)
    q: Any
    if name == "transpose":
        return [given[0].transpose([0, *(axis + 1 for axis in params["permutation"])])]
    if equation.moved is not None:
        x = given[0]
        block = find_block(equation.moved, x.shape[1:])
        taken = x.reshape(len(x), -1)[:, equation.moved] if block is None else x[block]
        return [taken.reshape(len(x), *shape)]
    if name in {"concatenate", "stack"}:
        samples = max(len(x) for x in given)
        parts = [np.broadcast_to(x, (samples, *x.shape[1:])) for x in given]
        axis = params["dimension" if name == "concatenate" else "axis"] + 1
        return [(np.concatenate if name == "concatenate" else np.stack)(parts, axis=axis)]
    if name == "split":
        ends = np.cumsum(params["sizes"])[:-1]
        return list(np.split(given[0], ends, axis=params["axis"] + 1))
    if name == "select_n":
        which, *choices = (align(x, len(shape)) for x in given)
        q = choices[-1]
        for number, choice in reversed([*enumerate(choices[:-1])]):
            q = np.where(which <= number, choice, q)
        return [q]
    if name in TESTS:
        return [TESTS[name](*(align(x, len(shape)) for x in given))]
    if not is_inexact(dtype):  # NumPy divides and converts integers in other ways
        return evaluate_by_jax(equation.apply, given, EXACTLY)
    if name == "convert_element_type":
        return [convert(given[0], dtype, errors)]
    if has_slope(name, given[0]):
        q = UNARY[name][0](given[0])
    elif name == "conj":
        return [np.conj(given[0])]
    elif name in BINARY:
        q = BINARY[name][0](*(align(x, len(shape)) for x in given))
    elif name == "integer_pow":
        q = given[0] ** float(params["y"])
    elif name in {"reduce_sum", "reduce_max", "reduce_min"}:
        axes = tuple(axis + 1 for axis in params["axes"])
        q = getattr(given[0], name.removeprefix("reduce_"))(axis=axes)
        if name != "reduce_sum":
            return [q]
        if errors.sizes is None:
            return [q]
        terms = given[0].size // len(given[0]) / max(1, prod(shape))
        return [errors.add(q, measure_sum(errors.measure(given[0]).sum(axis=axes), terms, errors))]
    elif name == "dot_general":
        left, right, _ = matrices(equation, *given)
        q = (left @ right).reshape(-1, *shape)
        if errors.sizes is None:
            return [q]
        m = (errors.measure(left) @ errors.measure(right)).reshape(-1, *shape)
        return [errors.add(q, measure_sum(m, left.shape[-1], errors))]
    else:
        return evaluate_by_jax(equation.apply, given, errors)
    if errors.sizes is None or name in EXACT:
        return [q]
    m = errors.measure(q)
    if name == "div" and given[0].ndim == 1:
        # A reciprocal may be part of a sigmoid, which other code computes as a sum with a constant.
        return [errors.add(q, np.maximum(m, errors.measure(align(given[0], len(shape)))))]
    if name == "logistic":  # (N1)
        return [errors.add(q, np.maximum(ELEMENTARY * m, 1.0))]
    return [errors.add(q, m if name in ARITHMETIC else ELEMENTARY * m)]


def measure_sum(sizes: Any, terms: float, errors: RoundingErrors) -> Any:
    """Measure the error of sums of `terms` terms, of which `sizes` are the sums of their sizes."""
    return terms**0.5 * sizes + errors.measure_lost(sizes, terms)


def convert(x: Array, dtype: Any, errors: RoundingErrors) -> Any:
    """Convert to a floating-point dtype; with errors, a coarser one rounds without a conversion."""
    if np.iscomplexobj(x) and not np.issubdtype(dtype, np.complexfloating):
        x = x.real
    if errors.sizes is None or not is_inexact(x.dtype):
        return x.astype(dtype)
    narrower = np.finfo(dtype).eps > np.finfo(x.dtype).eps
    return errors.add(x, errors.measure(x)) if narrower else x


def pass_back(
    equation: Operation,
    given: Sequence[Array],
    outputs: Sequence[Array],
    cotangents: Sequence[Array | None],
    errors: RoundingErrors = EXACTLY,
    wanted: Sequence[bool] | None = None,
) -> list[Any]:
    """The cotangent of every operand from those of the results; None: no derivative.

    It is None, too, where sums, products and quotients have operands that are not `wanted`. The
    errors of products of matrices are not added: `measure_products` has their magnitudes.
    """
    name, params = equation.name, equation.params
    ct, y = cotangents[0], outputs[0]
    if wanted is None:
        wanted = [True] * len(given)
    errors = errors.in_precision(equation.dtypes[0])
    if name == "transpose" and ct is not None:
        order = [0, *(axis + 1 for axis in np.argsort(params["permutation"]))]
        return [ct.transpose(order)]
    if equation.moved is not None and ct is not None:
        return move_back(equation.moved, given, ct, errors)
    if name == "conj" and ct is not None:
        return [np.conj(ct)]
    if has_slope(name, given[0]) and ct is not None:
        q = multiply(equation, ct, UNARY[name][1](given[0], y))
        return [errors.add(q, 2 * errors.measure(q)) if errors.sizes is not None else q]
    if name in BINARY and ct is not None:
        x1, x2 = (align(x, ct.ndim - 1) for x in given)
        exact = name[:3] in {"add", "sub"} or name == "complex"
        return [
            sum_to_shape(multiply(equation, ct, slope(x1, x2, y)), x, errors, exact)
            if each
            else None
            for slope, x, each in zip(BINARY[name][1:], given, wanted, strict=True)
        ]
    if name == "integer_pow" and ct is not None:
        q = multiply(equation, ct, slope_of_integer_power(given[0], params["y"]))
        return [errors.add(q, 2 * errors.measure(q)) if errors.sizes is not None else q]
    if name == "convert_element_type":
        return [ct]
    if name.startswith("reduce_") and ct is not None and name[7:] in {"sum", "max", "min"}:
        axes = tuple(axis + 1 for axis in params["axes"])
        kept = np.expand_dims(ct, axes)
        if name == "reduce_sum":
            return [np.broadcast_to(kept, (len(kept), *given[0].shape[1:]))]
        # Not `y`, to which an error may have been added since.
        extreme = getattr(given[0], name[7:])(axis=axes, keepdims=True)
        chosen = given[0] == extreme
        return [kept * chosen / chosen.sum(axis=axes, keepdims=True)]
    if name == "dot_general" and ct is not None:
        return multiply_back(equation, given, ct, wanted)
    if name == "concatenate" and ct is not None:
        axis = params["dimension"] + 1
        ends = np.cumsum([x.shape[axis] for x in given])[:-1]
        return list(np.split(ct, ends, axis=axis))
    if name == "stack" and ct is not None:
        return list(np.moveaxis(ct, params["axis"] + 1, 0))
    if name == "split":
        parts = fill_missing(cotangents, outputs, max(len(c) for c in cotangents if c is not None))
        return [np.concatenate(parts, axis=params["axis"] + 1)]
    if name == "select_n" and ct is not None:
        which, last = align(given[0], ct.ndim - 1), len(given) - 2
        chosen = np.minimum(np.maximum(which, 0), last)
        return [None, *(np.where(chosen == k, ct, 0.0) for k in range(last + 1))]
    back = pass_back_by_jax(equation.apply, given, outputs, cotangents, errors)
    if equation.keeps_zeros and ct is not None:
        return [each if each is None else np.where(ct == 0, 0.0, each) for each in back]
    return back


def multiply(equation: Operation, ct: Array, slope: Any) -> Array:
    """Multiply a cotangent by a slope; one of zero stays zero where the operation keeps zeros."""
    passed = np.asarray(ct * slope)
    return np.where(ct == 0, 0.0, passed) if equation.keeps_zeros else passed  # (N8)


def multiply_back(
    equation: Operation, given: Sequence[Array], ct: Array, wanted: Sequence[bool]
) -> list[Any]:
    """The cotangents of both factors of a dot_general."""
    left, right, back = matrices(equation, *given)
    stacked = ct.reshape(len(ct), left.shape[1], left.shape[2], right.shape[3])
    of_left = back(0, stacked @ right.swapaxes(2, 3)) if wanted[0] else None
    return [of_left, back(1, left.swapaxes(2, 3) @ stacked) if wanted[1] else None]


def measure_products(
    equation: Operation,
    given: Sequence[Array],
    ct: Array,
    errors: RoundingErrors,
    wanted: Sequence[bool],
) -> list[Any]:
    """The magnitudes of the rounding errors in the cotangents of both factors of a dot_general."""
    sizes = [errors.measure(x) for x in given]
    found = multiply_back(equation, sizes, errors.measure(ct), wanted)
    left, right, _ = matrices(equation, *sizes)
    coarser, terms = errors.compare_unit(equation.dtypes[0]), (right.shape[3], left.shape[2])
    own = errors.in_precision(equation.dtypes[0])
    for operand, n in enumerate(terms):
        if wanted[operand]:
            size = measure_sum(found[operand], n, own)
            found[operand] = size if coarser is None else size * align(coarser, size.ndim - 1)
    return found


def slope_of_integer_power(x: Array, y: int) -> Any:
    """The slope of x ** y, which is 0 everywhere for y = 0."""
    return y * x ** float(y - 1) if y else np.zeros_like(x)


def fill_missing(
    cotangents: Sequence[Array | None], outputs: Sequence[Array], samples: int
) -> list[Array]:
    """The cotangents of these results for every sample, zero where there is none."""
    return [
        np.broadcast_to(0.0 if ct is None else ct, (samples, *q.shape[1:]))
        for ct, q in zip(cotangents, outputs, strict=True)
    ]


def sum_to_shape(ct: Array, x: Array, errors: RoundingErrors, exact: bool) -> Array:
    """Sum a cotangent over the axes along which the operand `x` was broadcast."""
    shape = x.shape[1:]
    met = tuple(
        axis + 1
        for axis in range(ct.ndim - 1)
        if not shape or (shape[axis] == 1 and ct.shape[axis + 1] > 1)
    )
    if not met:
        known = exact or errors.sizes is None
        return np.asarray(ct if known else errors.add(ct, 2 * errors.measure(ct)))
    q = np.sum(ct, axis=met, keepdims=bool(shape))
    if errors.sizes is None:
        return np.asarray(q)
    m = np.sum(errors.measure(ct), axis=met, keepdims=bool(shape))
    terms = prod(ct.shape[axis] for axis in met)
    return np.asarray(errors.add(q, 2 * m + measure_sum(m, terms, errors)))


def move_back(moved: Array, given: Sequence[Array], ct: Array, errors: RoundingErrors) -> list[Any]:
    """Move every cotangent back to its operand's entry; cotangents of copies are added."""
    shape, rest = given[0].shape[1:], [None] * (len(given) - 1)
    block = find_block(moved, shape)
    if block is not None:
        placed = np.zeros((len(ct), *shape), np.result_type(ct, np.float64))
        placed[block] = ct.reshape(placed[block].shape)
        return [placed, *rest]
    flat, size = ct.reshape(len(ct), -1), prod(shape)

    def collected(numbers: Array) -> Array:
        offsets = np.arange(len(numbers))[:, None] * size + moved
        if np.iscomplexobj(numbers):
            return np.asarray(collected(numbers.real) + 1j * collected(numbers.imag))
        total = np.bincount(offsets.ravel(), numbers.ravel(), minlength=len(numbers) * size)
        return total.reshape(len(numbers), *shape)

    copies = len(moved) / max(1, size)
    q = collected(flat)
    if copies > 1 and errors.sizes is not None:
        q = errors.add(q, measure_sum(collected(errors.measure(flat)), copies, errors))
    return [q, *rest]


def find_block(moved: Array, shape: tuple[int, ...]) -> Block | None:
    """Find the block of an operand of this shape that is moved in its order; None if it is none.

    A block is what a slice takes, after the axis of the samples. It is taken and put back many
    times faster than single entries are.
    """
    if len(moved) > FEW_NUMBERS:
        return compare_block(moved, shape)
    return find_block_again(moved.tobytes(), moved.dtype.str, shape)


@lru_cache(1024)
def find_block_again(numbers: bytes, dtype: str, shape: tuple[int, ...]) -> Block | None:
    """Find the block of few numbers: every step takes the same slices, in every sweep."""
    return compare_block(np.frombuffer(numbers, dtype), shape)


def compare_block(moved: Array, shape: tuple[int, ...]) -> Block | None:
    """Compare numbers with those of the block between the first and the last of them."""
    if not len(moved):
        return None
    corners = np.unravel_index(moved[[0, -1]], shape) if shape else ()
    block = (slice(None), *(slice(int(first), int(last) + 1) for first, last in corners))
    entries = np.arange(prod(shape)).reshape(1, *shape)[block]
    return block if np.array_equal(entries.ravel(), moved) else None
