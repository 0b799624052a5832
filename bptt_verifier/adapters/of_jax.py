"""Kernels of JAX: any function with a vector-Jacobian product, of `jax.custom_vjp` or not."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bptt_verifier.adapters.kernel import Kernel
from bptt_verifier.program.attempt import type_name
from bptt_verifier.tolerance.formats import is_floating

UNTYPED_VJP: Any = jax.vjp
OTHER = 0.5  # times the arguments: the second element of a batch, of `vmap` or `scan`


def from_jax(
    function: Callable[..., Any], *, jit: bool = False, vmap: bool = False, scan: bool = False
) -> Kernel:
    """Make a kernel of a function of JAX, which `jax.vjp` differentiates.

    With `jit`, it is compiled. With `vmap`, it is one element of two of a batch, and with `scan`
    one step of two, compiled as well: the rules that a custom primitive has for these are judged.
    Raises TypeError without a function.
    """
    if not callable(function):
        raise TypeError(f"function: expected a function, found {type_name(function)}")

    def call(arguments: Any) -> Any:
        named = isinstance(arguments, Mapping)
        return function(**arguments) if named else function(*arguments)

    def loop(batch: Any) -> Any:
        return lax.scan(lambda _, each: (None, call(each)), None, batch)[1]

    every: Any = loop if scan else jax.vmap(call)
    batched, vjp = vmap or scan, UNTYPED_VJP

    def pull_back(arguments: Any, cotangents: Any) -> Any:
        if not batched:
            alone = vjp(call, arguments)[1]
            return alone(cotangents)[0]
        pull = vjp(every, stack(arguments, OTHER))[1]
        return jax.tree.map(lambda each: each[0], pull(stack(cotangents, -OTHER))[0])

    def compute(arguments: Any) -> Any:
        if not batched:
            return call(arguments)
        return jax.tree.map(lambda each: each[0], every(stack(arguments, OTHER)))

    backward: Any = jax.jit(pull_back) if jit or batched else pull_back
    forward: Any = jax.jit(compute) if jit or batched else compute

    def pull_back_arrays(arguments: Any, cotangents: Any) -> Any:
        with jax.enable_x64(has_float64(arguments)):
            given = jax.tree.map(make_cotangent, cotangents)
            return jax.tree.map(np.asarray, backward(jax.tree.map(to_jax, arguments), given))

    def compute_arrays(arguments: Any) -> Any:
        with jax.enable_x64(has_float64(arguments)):
            return jax.tree.map(np.asarray, forward(jax.tree.map(to_jax, arguments)))

    return Kernel(pull_back_arrays, compute_arrays, getattr(function, "__name__", "your kernel"))


def has_float64(tree: Any) -> bool:
    """Tell whether a leaf is in float64, or the user computes in 64 bit anyway."""
    dtypes = [getattr(each, "dtype", None) for each in jax.tree.leaves(tree)]
    config: Any = jax.config
    return any(each == np.float64 for each in dtypes) or bool(config.jax_enable_x64)


def to_jax(value: Any) -> Any:
    """Convert an array to one of JAX; numbers of Python stay."""
    return jnp.asarray(value) if isinstance(value, np.ndarray) else value


def make_cotangent(value: Any) -> Any:
    """Convert a cotangent; that of an output that is not floating has no size."""
    array = np.asarray(value)
    return to_jax(array) if is_floating(array.dtype) else np.zeros(array.shape, jax.dtypes.float0)


def stack(tree: Any, factor: float) -> Any:
    """Stack each leaf with its multiple: a batch of two. Data are stacked with themselves."""

    def pair(value: Any) -> Any:
        if value.dtype == jax.dtypes.float0:
            return np.zeros((2, *value.shape), jax.dtypes.float0)
        array = jnp.asarray(value)
        other = array * array.dtype.type(factor) if is_floating(array.dtype) else array
        return jnp.stack([array, other])

    return jax.tree.map(pair, tree)
