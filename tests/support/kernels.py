"""Kernels to be judged: stated functions, and backward passes right and wrong, by JAX."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any


def rnn(x: Array, U: Array, W: Array) -> Any:
    """A tanh RNN with all its states and the last one, in jax.numpy."""
    return run_rnn(jnp.tanh, x, U, W)


def rnn_of_rounded_tanh(x: Array, U: Array, W: Array) -> Any:
    """The same RNN, with a tanh rounded from float64: that of float32 is an approximation."""
    return run_rnn(lambda a: jnp.tanh(a.astype(np.float64)).astype(a.dtype), x, U, W)


def run_rnn(activation: Callable[[Any], Any], x: Array, U: Array, W: Array) -> Any:
    """Run an RNN over a sequence, and return all its states and the last one."""
    h, states = jnp.zeros((x.shape[1], W.shape[0]), x.dtype), []
    for each in x:
        h = activation(each @ U.T + h @ W.T)
        states.append(h)
    return jnp.stack(states), h


def rnn_in_numpy(x: Array, U: Array, W: Array) -> Any:
    """The same RNN in plain NumPy."""
    states = np.zeros((len(x), x.shape[1], len(W)))
    h = np.zeros((x.shape[1], len(W)))
    for t in range(len(x)):
        states[t] = h = np.tanh(x[t] @ U.T + h @ W.T)
    return states, h


def draw_rnn(dtype: Any, T: int = 4, B: int = 3, D: int = 2, H: int = 5) -> tuple[Any, ...]:
    """Arguments of the RNN in a dtype."""
    rng = np.random.default_rng(3)
    sizes = ((T, B, D), 1.0), ((H, D), 0.6), ((H, H), 0.5)
    return tuple((scale * rng.normal(size=shape)).astype(dtype) for shape, scale in sizes)


def within(function: Callable[..., Any], inner: Any) -> Callable[..., Any]:
    """A function that computes in the dtype `inner`, and returns that of its first argument."""

    def narrow(*arguments: Any) -> Any:
        dtype = arguments[0].dtype
        found = function(*(each.astype(inner) for each in arguments))
        return jax.tree.map(lambda each: each.astype(dtype), found)

    return narrow


def backward_of(
    function: Callable[..., Any], change: Callable[[list[Any]], Any] = lambda gradients: gradients
) -> Callable[[Any, Any], Any]:
    """A backward pass by JAX, and what `change` makes of its gradients in float64."""
    compiled = jax.jit(lambda arguments, given: jax.vjp(function, *arguments)[1](given))

    def backward(arguments: Any, cotangents: Any) -> Any:
        with jax.enable_x64(arguments[0].dtype == np.float64):
            found = [np.array(each) for each in compiled(tuple(arguments), cotangents)]
        changed = change([each.astype(np.float64) for each in found])
        return tuple(new.astype(old.dtype) for new, old in zip(changed, found, strict=True))

    return backward


def rnn_in_tf32(x: Array, U: Array, W: Array) -> Any:
    """The RNN in float32, with the factors of every product rounded to TF32."""

    @jax.custom_jvp
    def short(a: Array) -> Array:
        return jax.lax.reduce_precision(a, 8, 10)

    short.defjvp(lambda primals, tangents: (short(*primals), short(*tangents)))

    @jax.custom_vjp
    def product(a: Array, b: Array) -> Array:
        return short(a) @ short(b)

    def pull(kept: Any, d: Array) -> Any:
        a, b = kept
        return short(d) @ short(b).T, short(a).T @ short(d)

    product.defvjp(lambda a, b: (product(a, b), (a, b)), pull)
    h, states = jnp.zeros((x.shape[1], W.shape[0]), x.dtype), []
    for each in x:
        h = jnp.tanh(product(each, U.T) + product(h, W.T))
        states.append(h)
    return jnp.stack(states), h
