"""Operations of a traced loss: their values, and the cotangents that they pass back, in NumPy.

The JAX primitives common in losses have rules here; JAX itself evaluates and differentiates the
others. Every array has a leading axis, for samples of rounding errors or for mistaken gradients.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple

import jax
import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.source_lines import Place
from bptt_verifier.tolerance.bounds import ELEMENTARY
from bptt_verifier.tolerance.noise import ARITHMETIC, EXACT


class Operation(NamedTuple):
    """An operation that depends on the parameters; operands and results are slots of values.

    `moved` is not None where the operation only moves numbers: entry i of the result is entry
    moved[i] of the operand, both flattened.
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


class RoundingErrors(NamedTuple):
    """Rounding errors to add, with one unit roundoff for each sample; none by default."""

    sizes: Array | None = None
    rng: np.random.Generator | None = None

    def add(self, q: Any, magnitude: Any) -> Any:
        """Add an error of this magnitude, in units of the roundoff, to each sample of `q` (N1)."""
        if self.sizes is None or self.rng is None:
            return q
        sizes = align(self.sizes, np.ndim(q) - 1)
        xi = (2 * self.rng.random((len(sizes), *np.shape(q)[1:]), np.float32) - 1) * sizes
        return q + xi * magnitude


EXACTLY = RoundingErrors()

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
    "abs":      (np.abs,                         lambda x, y: np.sign(x)),
    "sign":     (np.sign,                        lambda x, y: np.zeros_like(x)),
    "copy":     (np.copy,                        lambda x, y: np.ones_like(x)),
}  # fmt: skip

# Elementwise operations with two operands: z = f(x, y), and both slopes.
BINARY: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "add":      (np.add,      lambda x, y, z: 1.0,           lambda x, y, z: 1.0),
    "add_any":  (np.add,      lambda x, y, z: 1.0,           lambda x, y, z: 1.0),
    "sub":      (np.subtract, lambda x, y, z: 1.0,           lambda x, y, z: -1.0),
    "mul":      (np.multiply, lambda x, y, z: y,             lambda x, y, z: x),
    "div":      (np.divide,   lambda x, y, z: 1 / y,         lambda x, y, z: -z / y),
    "max":      (np.maximum,  lambda x, y, z: larger(x, y),  lambda x, y, z: larger(y, x)),
    "min":      (np.minimum,  lambda x, y, z: larger(y, x),  lambda x, y, z: larger(x, y)),
    "pow":      (np.power,    lambda x, y, z: y * x**(y-1),  lambda x, y, z: z * np.log(x)),
}  # fmt: skip


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


def align(x: Array, rank: int) -> Array:
    """A scalar reshaped to broadcast with arrays of this rank; other arrays unchanged."""
    return x.reshape(len(x), *[1] * rank) if x.ndim == 1 else x


def evaluate(
    equation: Operation, given: Sequence[Array], errors: RoundingErrors = EXACTLY
) -> list[Any]:
    """Evaluate one equation; returns its results."""
    name, params, shape = equation.name, equation.params, equation.shapes[0]
    q: Any
    results: list[Any] = []  # of an operation without a rule here
    if equation.moved is not None:
        x = given[0]
        return [x.reshape(len(x), -1)[:, equation.moved].reshape(len(x), *shape)]
    if name in UNARY:
        q = UNARY[name][0](given[0])
    elif name in BINARY:
        q = BINARY[name][0](*(align(x, len(shape)) for x in given))
    elif name == "integer_pow":
        q = given[0] ** float(params["y"])
    elif name in {"reduce_sum", "reduce_max", "reduce_min"}:
        axes = tuple(axis + 1 for axis in params["axes"])
        q = getattr(given[0], name.removeprefix("reduce_"))(axis=axes)
        if name != "reduce_sum":
            return [q]
        terms = given[0].size // len(given[0]) / max(1, prod(shape))
        return [errors.add(q, terms**0.5 * np.abs(given[0]).sum(axis=axes))]
    elif name == "dot_general":
        left, right, _ = matrices(equation, *given)
        q = (left @ right).reshape(-1, *shape)
        m = left.shape[-1] ** 0.5 * (np.abs(left) @ np.abs(right)).reshape(-1, *shape)
        return [errors.add(q, m)]
    elif name in {"concatenate", "stack"}:
        samples = max(len(x) for x in given)
        parts = [np.broadcast_to(x, (samples, *x.shape[1:])) for x in given]
        axis = params["dimension" if name == "concatenate" else "axis"] + 1
        return [(np.concatenate if name == "concatenate" else np.stack)(parts, axis=axis)]
    elif name == "split":
        ends = np.cumsum(params["sizes"])[:-1]
        return list(np.split(given[0], ends, axis=params["axis"] + 1))
    elif name == "select_n" and given[0].dtype == bool and len(given) == 3:
        return [np.where(align(given[0], len(shape)), given[2], given[1])]
    else:
        results = evaluate_by_jax(equation, given)
    if name == "div" and given[0].ndim == 1:
        # A reciprocal may be part of a sigmoid, which other code computes as a sum with a constant.
        return [errors.add(q, np.maximum(np.abs(q), np.abs(align(given[0], len(shape)))))]
    if name == "logistic":  # (N1)
        return [errors.add(q, np.maximum(ELEMENTARY * np.abs(q), 1.0))]
    factor = 0 if name in EXACT else 1 if name in ARITHMETIC else ELEMENTARY
    return [
        errors.add(q, factor * np.abs(q)) if factor and q.dtype == np.float64 else q
        for q in results or [q]
    ]


def evaluate_by_jax(equation: Operation, given: Sequence[Array]) -> list[Any]:
    """Evaluate an operation without a rule here by JAX."""
    samples = max(len(x) for x in given)
    full = [np.broadcast_to(x, (samples, *x.shape[1:])) for x in given]
    found = jax.vmap(partial(equation.primitive.bind, **equation.params))(*full)
    return [np.asarray(q) for q in (found if equation.primitive.multiple_results else [found])]


def pass_back(
    equation: Operation,
    given: Sequence[Array],
    outputs: Sequence[Array],
    cotangents: Sequence[Array | None],
    errors: RoundingErrors = EXACTLY,
) -> list[Any]:
    """The cotangent of every operand from those of the results; None: no derivative."""
    name, params = equation.name, equation.params
    ct, y = cotangents[0], outputs[0]
    if equation.moved is not None and ct is not None:
        return move_back(equation.moved, given, ct, errors)
    if name in UNARY and ct is not None:
        q = ct * UNARY[name][1](given[0], y)
        return [errors.add(q, 2 * np.abs(q))]
    if name in BINARY and ct is not None:
        x1, x2 = (align(x, ct.ndim - 1) for x in given)
        slopes = [slope(x1, x2, y) for slope in BINARY[name][1:]]
        pairs = zip(slopes, given, strict=True)
        exact = name[:3] in {"add", "sub"}
        return [sum_to_shape(ct * slope, x, errors, exact) for slope, x in pairs]
    if name == "integer_pow" and ct is not None:
        q = ct * params["y"] * given[0] ** float(params["y"] - 1)
        return [errors.add(q, 2 * np.abs(q))]
    if name == "convert_element_type":
        return [ct]
    if name.startswith("reduce_") and ct is not None and name[7:] in {"sum", "max", "min"}:
        axes = tuple(axis + 1 for axis in params["axes"])
        kept = np.expand_dims(ct, axes)
        if name == "reduce_sum":
            return [np.broadcast_to(kept, (len(kept), *given[0].shape[1:]))]
        chosen = given[0] == np.expand_dims(y, axes)
        return [kept * chosen / chosen.sum(axis=axes, keepdims=True)]
    if name == "dot_general" and ct is not None:
        left, right, back = matrices(equation, *given)
        stacked = ct.reshape(len(ct), left.shape[1], left.shape[2], right.shape[3])
        left_T, right_T = left.swapaxes(2, 3), right.swapaxes(2, 3)
        pair = [stacked @ right_T, left_T @ stacked]
        if errors.sizes is not None:
            sizes = [abs(stacked) @ abs(right_T), abs(left_T) @ abs(stacked)]
            terms = stacked.shape[3], stacked.shape[2]
            pair = [errors.add(q, n**0.5 * m) for q, n, m in zip(pair, terms, sizes, strict=True)]
        return [back(0, pair[0]), back(1, pair[1])]
    if name == "concatenate" and ct is not None:
        axis = params["dimension"] + 1
        ends = np.cumsum([x.shape[axis] for x in given])[:-1]
        return list(np.split(ct, ends, axis=axis))
    if name == "stack" and ct is not None:
        return list(np.moveaxis(ct, params["axis"] + 1, 0))
    if name == "split":
        parts = fill_missing(cotangents, outputs, max(len(c) for c in cotangents if c is not None))
        return [np.concatenate(parts, axis=params["axis"] + 1)]
    if name == "select_n" and ct is not None and given[0].dtype == bool and len(given) == 3:
        chosen = align(given[0], ct.ndim - 1)
        return [None, np.where(chosen, 0.0, ct), np.where(chosen, ct, 0.0)]
    return pass_back_by_jax(equation, given, outputs, cotangents)


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
        return np.asarray(ct if exact else errors.add(ct, 2 * np.abs(ct)))
    q, m = (np.sum(c, axis=met, keepdims=bool(shape)) for c in (ct, np.abs(ct)))
    terms = prod(ct.shape[axis] for axis in met)
    return np.asarray(errors.add(q, (2 + terms**0.5) * m))


def move_back(moved: Array, given: Sequence[Array], ct: Array, errors: RoundingErrors) -> list[Any]:
    """Move every cotangent back to its operand's entry; cotangents of copies are added."""
    shape = given[0].shape[1:]
    flat, size = ct.reshape(len(ct), -1), prod(shape)

    def collected(numbers: Array) -> Array:
        offsets = np.arange(len(ct))[:, None] * size + moved
        total = np.bincount(offsets.ravel(), numbers.ravel(), minlength=len(ct) * size)
        return total.reshape(len(ct), *shape)

    copies = len(moved) / max(1, size)
    q = collected(flat)
    if copies > 1:
        q = errors.add(q, copies**0.5 * collected(np.abs(flat)))
    return [q, *[None] * (len(given) - 1)]


def pass_back_by_jax(
    equation: Operation,
    given: Sequence[Array],
    outputs: Sequence[Array],
    cotangents: Sequence[Array | None],
) -> list[Any]:
    """The cotangents of an operation without a rule here, by `jax.vjp`."""
    smooth = [i for i, x in enumerate(given) if x.dtype == np.float64]
    results = [i for i, q in enumerate(outputs) if q.dtype == np.float64]
    if not smooth or not results:
        return [None] * len(given)
    arriving = [cotangents[i] for i in results]
    samples = max(len(c) for c in (*arriving, *given) if c is not None)
    full = [np.broadcast_to(x, (samples, *x.shape[1:])) for x in given]
    passed = fill_missing(arriving, [outputs[i] for i in results], samples)

    def one(operands: list[Any], cts: list[Any]) -> Any:
        def function(*chosen: Any) -> list[Any]:
            replaced = dict(enumerate(operands)) | dict(zip(smooth, chosen, strict=True))
            bound = equation.primitive.bind(*replaced.values(), **equation.params)
            return [bound[i] for i in results] if equation.primitive.multiple_results else [bound]

        return jax.vjp(function, *(operands[i] for i in smooth))[1](cts)

    pulled = dict(zip(smooth, jax.vmap(one)(full, passed), strict=True))
    return [np.asarray(pulled[i]) if i in pulled else None for i in range(len(given))]
