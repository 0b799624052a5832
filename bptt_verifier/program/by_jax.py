"""Operations evaluated and differentiated by JAX, compiled once for each kind of operation.

A program uses them for primitives without a rule in NumPy, loops and conditionals included.
Rounding errors are added to the operations inside, as `tolerance.noise` does.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.rounding import RoundingErrors, find_smallest, is_inexact
from bptt_verifier.tolerance.noise import ANY_FORMAT, UNOPTIMISED, Roundoff, Underflow, add_noise

Apply = Callable[..., list[Any]]  # the results of an operation at its operands


def bind(primitive: Any, params: dict[str, Any], *operands: Any) -> list[Any]:
    """Apply a primitive to operands; it keeps its own derivative, if it has one."""
    bound = primitive.bind(*operands, **primitive.get_bind_params(params))
    return list(bound) if primitive.multiple_results else [bound]


def bind_in(dtypes: Sequence[Any], primitive: Any, params: Any, *operands: Any) -> list[Any]:
    """Apply a primitive to operands converted to these dtypes; errors may have widened them."""
    pairs = zip(operands, dtypes, strict=True)
    converted = [jnp.asarray(x, dtype) if is_inexact(dtype) else x for x, dtype in pairs]
    return bind(primitive, dict(params), *converted)


def make_apply(
    primitive: Any, params: dict[str, Any], dtypes: tuple[Any, ...], shapes: tuple[Any, ...]
) -> Apply:
    """Make the function of an operation; equal operations share it, and what is compiled of it.

    Operations of newer versions of JAX may be equal though their operands differ in shape.
    """
    try:
        return share_apply(dtypes, primitive, tuple(sorted(params.items())), shapes)
    except TypeError:  # parameters without a hash
        return partial(bind_in, dtypes, primitive, params)


@lru_cache(maxsize=1024)
def share_apply(dtypes: Any, primitive: Any, params: Any, shapes: Any) -> Apply:
    """Make the function of an operation with these parameters, or return the earlier one."""
    del shapes  # they only tell operations apart
    return partial(bind_in, dtypes, primitive, params)


@lru_cache(maxsize=1024)
def make_pull_back(apply: Apply, smooth: tuple[int, ...], operands: int) -> Apply:
    """Make the function from operands and cotangents of results to those of smooth operands."""

    def pull_back(*arrays: Any) -> list[Any]:
        given = list(arrays[:operands])

        def function(*chosen: Any) -> list[Any]:
            for i, value in zip(smooth, chosen, strict=True):
                given[i] = value
            return [q for q in apply(*given) if is_inexact(q.dtype)]

        results, pull = jax.vjp(function, *(given[i] for i in smooth))
        pairs = zip(arrays[operands:], results, strict=True)
        return list(pull([ct.astype(q.dtype) for ct, q in pairs]))

    return pull_back


@lru_cache(maxsize=1024)
def compile_samples(function: Apply, axes: tuple[int | None, ...], form: Roundoff | None) -> Any:
    """Compile a function for many samples, which share the arrays whose axis is None.

    They have the errors of a `form`, if one is given.
    """
    if form is not None:
        run, axes = add_noise(function, form), (0, 0, *axes)
        return jax.jit(jax.vmap(run, axes), compiler_options=UNOPTIMISED)
    if any(axis is not None for axis in axes):
        return jax.jit(jax.vmap(function, axes), compiler_options=UNOPTIMISED)
    return jax.jit(lambda *arrays: [q[None] for q in function(*arrays)])


def run_samples(function: Apply, arrays: Sequence[Any], errors: RoundingErrors) -> list[Array]:
    """Evaluate a function for every sample: arrays with one row are the same in all."""
    axes = tuple(None if len(x) == 1 else 0 for x in arrays)
    given = [x[0] if axis is None else x for x, axis in zip(arrays, axes, strict=True)]
    form = None
    if errors.sizes is not None:
        assert errors.units is not None
        unit = float(errors.units.max())
        form = ANY_FORMAT._replace(underflow=Underflow(find_smallest(unit), unit))
        given = [errors.draw_salts(), errors.sizes, *given]
    found = compile_samples(function, axes, form)(*given)
    return [np.asarray(q) for q in found]


def evaluate_by_jax(apply: Apply, given: Sequence[Array], errors: RoundingErrors) -> list[Array]:
    """Evaluate an operation without a rule in NumPy."""
    return run_samples(apply, given, errors)


def pass_back_by_jax(
    apply: Apply,
    given: Sequence[Array],
    outputs: Sequence[Array],
    cotangents: Sequence[Array | None],
    errors: RoundingErrors,
) -> list[Any]:
    """The cotangents of an operation without a rule in NumPy, by `jax.vjp`; None: no derivative."""
    smooth = tuple(i for i, x in enumerate(given) if is_inexact(x.dtype))
    results = [i for i, q in enumerate(outputs) if is_inexact(q.dtype)]
    if not smooth or all(cotangents[i] is None for i in results):
        return [None] * len(given)
    arriving = [cotangents[i] for i in results]
    shapes = [(1, *outputs[i].shape[1:]) for i in results]
    passed = [np.zeros(s) if ct is None else ct for ct, s in zip(arriving, shapes, strict=True)]
    pull_back = make_pull_back(apply, smooth, len(given))
    pulled = dict(zip(smooth, run_samples(pull_back, [*given, *passed], errors), strict=True))
    return [pulled.get(i) for i in range(len(given))]
