"""The least that a training step does, in the order of a step: a limit with elementwise work.

The matrix products of `numpy_steps.products` and `jax_steps.products`, each after the one whose
result it needs, and between them the operations on single numbers that no step can do outside its
two loops. What can be computed for all steps at once is left out, but for one pass over the gates.
The numbers have the sizes of a step's, but mean nothing.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.contenders import Contender, Setting, Step, Unavailable, fastest, timed_once
from benchmarks.numpy_steps import require_numpy
from bptt_verifier.problems.problem import GATES, Problem

Array = Any
# The gates in the order of o, f, i, g; z, r, n. Slopes of this size keep the adjoints' size.
SLOPES = {"rnn": 1.0, "lstm": 0.95, "gru": 0.45}


def draw_slopes(problem: Problem, rng: np.random.Generator) -> Array:
    """Draw stand-ins for the slopes, (T, B, G, H), with which no adjoint vanishes or explodes."""
    (T, B, _), H, G = problem.x.shape, problem.params.W.shape[1], GATES[problem.cell]
    around_one = rng.uniform(0.9, 1.1, (T, B, G, H))
    return (SLOPES[problem.cell] * around_one).astype(problem.x.dtype)


def step_forward(
    cell: str, a: Array, products: Array | None, h: Array, c: Array, after: Array, spare: Array
) -> None:
    """One step forward in place: gates a (G, B, H) of σ, the last one of tanh; h_t into `after`.

    `products` are those of h_{t-1} with W, None at the first step. Both have the opposite sign for
    the gates of σ, because σ(a) = 1 / (1 + e⁻ᵃ): a step turns the sign of W once.
    """
    sigmoids, candidate = a[:-1], a[-1]
    apart = cell == "gru"  # r stands before the product of the candidate
    if products is not None:
        np.add(*(sigmoids, products[:-1], sigmoids) if apart else (a, products, a))
    if cell != "rnn":
        np.exp(sigmoids, sigmoids)
        np.add(sigmoids, 1, sigmoids)
        np.divide(1, sigmoids, sigmoids)
    if products is not None and apart:
        np.multiply(a[1], products[-1], spare)
        np.add(candidate, spare, candidate)
    if cell == "rnn":
        np.tanh(candidate, after)
        return
    np.tanh(candidate, candidate)
    if cell == "gru":
        np.subtract(h, candidate, spare)
        np.multiply(a[0], spare, spare)
        np.add(candidate, spare, after)
        return
    np.multiply(a[1], c, c)
    np.multiply(a[2], candidate, spare)
    np.add(c, spare, c)
    np.tanh(c, spare)
    np.multiply(a[0], spare, after)


def step_back(cell: str, a: Array, dh: Array, dc: Array, h: Array, spare: Array) -> None:
    """One step back in place: slopes a (G, B, H) become adjoints; h stands in for other factors."""
    if cell != "lstm":
        np.multiply(a, dh, a)
        if cell == "gru":
            np.multiply(dh, h, dh)  # past the gates
        return
    np.multiply(dh, h, spare)
    np.add(dc, spare, dc)
    np.multiply(a[1:], dc, a[1:])
    np.multiply(a[0], dh, a[0])
    np.multiply(dc, h, dc)


def least_step(problem: Problem, *, gates_first: bool) -> Step:
    """The step in NumPy, its gates in arrays of their own or side by side in rows."""
    (T, B, D), (O, H), dtype = problem.x.shape, problem.params.V.shape, problem.x.dtype
    cell, G = problem.cell, GATES[problem.cell]
    U, W, V = problem.params.U, problem.params.W, problem.params.V
    rng = np.random.default_rng(0)
    x, dy = problem.x.reshape(T * B, D), rng.normal(size=(B, O)).astype(dtype)
    slopes = draw_slopes(problem, rng)
    if gates_first:
        slopes = np.ascontiguousarray(np.moveaxis(slopes, 2, 0))
    a, h = np.empty_like(slopes), np.zeros((T + 1, B, H), dtype)
    every = a if gates_first else np.moveaxis(a, 2, 0)  # (G, T, B, H)
    c, dh, dc, spare = np.zeros((4, B, H), dtype)
    products = np.empty((G, B, H) if gates_first else (B, G * H), dtype)
    of_gates = products if gates_first else np.moveaxis(products.reshape(B, G, H), 1, 0)
    W_T, W_back = np.empty((G, H, H), dtype), W.reshape(G, H, H)
    prediction, dU, dW, dV = np.empty_like(dy), np.empty_like(U), np.empty_like(W), np.empty_like(V)
    U_of, dU_of, dW_of = U.reshape(G, H, D), dU.reshape(G, H, D), dW.reshape(G, H, H)

    def step(state: Any, rate: float) -> tuple[Any, Any]:
        if gates_first:
            np.copyto(W_T, np.swapaxes(W_back, 1, 2))
            for gate in range(G):
                np.dot(x, U_of[gate].T, out=a[gate].reshape(T * B, H))
        else:
            np.dot(x, U.T, out=a.reshape(T * B, G * H))
        c[...] = 0
        for t in range(T):
            if t and gates_first:
                np.matmul(h[t], W_T, out=products)
            elif t:
                np.dot(h[t], W.T, out=products)
            step_forward(cell, every[:, t], of_gates if t else None, h[t], c, h[t + 1], spare)
        np.dot(h[T], V.T, out=prediction)
        np.copyto(a, slopes)  # the pass over the gates that makes slopes of them
        np.dot(dy, V, out=dh)
        dc[...] = 0
        for t in range(T - 1, -1, -1):
            step_back(cell, every[:, t], dh, dc, h[t], spare)
            if not t:
                break
            into = spare if cell == "gru" else dh
            if gates_first:
                np.matmul(a[:, t], W_back, out=products)
                np.add.reduce(products, out=into)
            else:
                np.dot(a[t].reshape(B, G * H), W, out=into)
            if cell == "gru":
                np.add(dh, spare, dh)
        np.dot(dy.T, h[T], out=dV)
        before = h[1:T].reshape(-1, H)
        if gates_first:
            for gate in range(G):
                np.dot(a[gate].reshape(T * B, H).T, x, out=dU_of[gate])
                np.dot(a[gate, 1:].reshape(-1, H).T, before, out=dW_of[gate])
        else:
            np.dot(a.reshape(T * B, G * H).T, x, out=dU)
            np.dot(a[1:].reshape(-1, G * H).T, before, out=dW)
        return None, state

    return step


def limit_in_order(name: str, problem: Problem, setting: Setting) -> Contender:
    """The least that a step does in NumPy, in the faster of two layouts; it has no gradients."""
    require_numpy(problem, setting)
    steps = (least_step(problem, gates_first=gates_first) for gates_first in (False, True))
    chosen = fastest([partial(step, None, 0.0) for step in steps])
    return Contender(name, lambda: None, lambda state, rate: (chosen()[0], state), parameters=None)


def next_state(cell: str, a: Array, product: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """h_t and c_t by the pre-activations a of x_t (B, G, H) and the product of h_{t-1} with W."""
    product = product.reshape(a.shape)
    if cell == "rnn":
        return jnp.tanh(a + product)[:, 0], c
    if cell == "gru":
        z, r = (jax.nn.sigmoid((a + product)[:, gate]) for gate in (0, 1))
        candidate = jnp.tanh(a[:, 2] + r * product[:, 2])
        return candidate + z * (h - candidate), c
    a = a + product
    o, f, i = (jax.nn.sigmoid(a[:, gate]) for gate in range(3))
    c = f * c + i * jnp.tanh(a[:, 3])
    return o * jnp.tanh(c), c


def adjoint(cell: str, slopes: Array, dh: Array, dc: Array, h: Array) -> tuple[Array, Array, Array]:
    """δ_t by the slopes (B, G, H), what dh hands on past the gates, and ∂L/∂c_{t-1}."""
    if cell != "lstm":
        return slopes * dh[:, None], dh * h if cell == "gru" else jnp.zeros_like(dh), dc
    dc = dc + dh * h
    delta = slopes * jnp.concatenate([dh[:, None], jnp.repeat(dc[:, None], 3, axis=1)], axis=1)
    return delta, jnp.zeros_like(dh), dc * h


def least_program(problem: Problem, *, in_place: bool) -> Callable[..., Any]:
    """The step in JAX, as a function of params, x, y, slopes and Δᵀ (G H, T B).

    The sums over time take Δᵀ in place of the adjoints, in the layout of the compiled steps, but
    not before the loop back has ended. `in_place` loops index the array of all steps instead of
    scanning over it.
    """
    (T, B, D), H, cell = problem.x.shape, problem.params.W.shape[1], problem.cell
    G = GATES[cell]

    def take(array: Any, at: Any) -> Any:
        return jax.lax.dynamic_index_in_dim(array, at, keepdims=False) if in_place else at

    def run(params: Any, x: Any, y: Any, slopes: Any, delta: Any) -> Any:
        U, W, V, *_ = params
        W_T, x = W.T, x.reshape(T * B, D)
        a = (x @ U.T).reshape(T, B, G, H)

        def forward(carry: Any, at: Any) -> tuple[Any, Any]:
            h, c = carry
            carry = next_state(cell, take(a, at), h @ W_T, h, c)
            return carry, carry[0]

        def back(carry: Any, at: Any) -> tuple[Any, None]:
            dh, dc = carry
            slopes_t, h_t = (take(slopes, at), take(h, at)) if in_place else at
            delta_t, past, dc = adjoint(cell, slopes_t, dh, dc, h_t)
            return (past + delta_t.reshape(B, G * H) @ W, dc), None

        zero, steps = jnp.zeros((B, H), x.dtype), jnp.arange(T)
        (last, _), h = jax.lax.scan(forward, (zero, zero), steps if in_place else a)
        prediction = last @ V.T
        dy = prediction - y
        over = steps[1:] if in_place else (slopes[1:], h[1:])
        (dh, _), _ = jax.lax.scan(back, (dy @ V, zero), over, reverse=True)
        wait: Any = jax.lax.optimization_barrier
        delta, dh = wait((delta, dh))
        return dh, prediction, dy.T @ last, delta @ x, delta @ h.reshape(T * B, H)

    return run


def limit_jit_in_order(name: str, problem: Problem, setting: Setting) -> Contender:
    """The least that a step does in XLA, in the faster of two programs; it has no gradients."""
    if setting.gpu:
        raise Unavailable("a GPU is compared with one large product and one large copy")
    rng = np.random.default_rng(0)
    (T, B, _), H = problem.x.shape, problem.params.W.shape[1]
    delta = rng.normal(size=(GATES[problem.cell] * H, T * B)).astype(problem.x.dtype)
    slopes = draw_slopes(problem, rng)
    given = jax.device_put((problem.params, problem.x, problem.y, slopes, delta), setting.device)

    def program(in_place: bool) -> Callable[[], Any]:
        run = least_program(problem, in_place=in_place)
        return partial(jax.jit(run).lower(*given).compile(), *given)

    programs, seconds = timed_once(lambda: [program(in_place) for in_place in (True, False)])
    chosen = fastest(programs, jax.block_until_ready)
    return Contender(
        name,
        start=lambda: None,
        step=lambda state, rate: (chosen(), state),
        parameters=None,
        wait=jax.block_until_ready,
        compile_seconds=seconds,
    )
