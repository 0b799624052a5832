"""A gallery of kernels in NumPy: stated functions, right backward passes, and mistakes in them.

Each kernel computes in float32, or float64 where its arguments are, and returns their dtype. A
mistake is a set of names that the kernel's code asks for.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = Any
CHUNK = 16


class Exhibit(NamedTuple):
    """A kernel: its stated function, backward, arguments, and what the judge says of mistakes."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    draw: Callable[[Any], tuple[Any, ...]]
    mistakes: dict[str, str]

    def right(self) -> Callable[[Any, Any], Any]:
        """The right kernel."""
        return self.wrong("")

    def wrong(self, mistake: str) -> Callable[[Any, Any], Any]:
        """The kernel with a mistake."""
        return partial(call_wide, partial(self.backward, mistake=mistake))


def call_wide(
    backward: Callable[..., Any], arguments: Any, cotangents: Any, kind: Any = np.ndarray
) -> Any:
    """Call a backward pass on wider arrays, and round its results to the arguments' dtypes.

    The floating arrays are of a `kind`, such as one with products in TF32.
    """
    wide, given = (
        jax.tree.map(lambda x: widen(x).view(kind) if x.dtype.kind != "i" else x, each)
        for each in (arguments, cotangents)
    )
    found = backward(wide, given)
    return tuple(
        None if new is None else np.asarray(new, old.dtype)
        for new, old in zip(found, arguments, strict=True)
    )


def widen(value: Array) -> Array:
    """Convert 16 bits to float32; other dtypes stay."""
    return value.astype(np.float32) if value.dtype.itemsize == 2 else value.copy()


def draw(dtype: Any, **shapes: tuple[int, ...]) -> tuple[Any, ...]:
    """Normal arrays of these shapes, scaled by the width of matrices."""
    rng = np.random.default_rng(7)
    return tuple(
        (rng.normal(size=s) / (1 if len(s) > 2 else s[-1] ** 0.5)).astype(dtype)
        for s in shapes.values()
    )


# A tanh RNN by jax.custom_vjp, in the dtypes of its arguments or with sums in float32.


def make_custom_rnn(mistake: str = "") -> Callable[..., Any]:
    """The states of a tanh RNN, with a backward written by hand."""

    def run(x: Array, U: Array, W: Array) -> Any:
        def step(h: Array, each: Array) -> Any:
            h = jnp.tanh(each @ U.T + h @ W.T)
            return h, h

        return jax.lax.scan(step, jnp.zeros((x.shape[1], len(W)), x.dtype), x)[1]

    def pull(kept: Any, d: Array) -> Any:
        (x, U, W), h = kept
        before = jnp.concatenate([0 * h[:1], h[:-1]])

        def step(dh: Array, each: Any) -> Any:
            d, h = each
            da = (dh + d) * (1 - h**2)
            return da @ (W.T if mistake == "W is not transposed" else W), da

        das = jax.lax.scan(step, 0 * d[0], (d, h), reverse=True)[1]
        return das @ U, jnp.einsum("tbh,tbd->hd", das, x), jnp.einsum("tbh,tbk->hk", das, before)

    def save(x: Array, U: Array, W: Array) -> Any:
        h = run(x, U, W)
        return h, ((x, U, W), h)

    function = jax.custom_vjp(run)
    function.defvjp(save, pull)
    return function


# A linear recurrence in chunks: h_t = a_t h_{t-1} + x_t.


def recur(a: Array, x: Array) -> Array:
    """All states of the linear recurrence."""
    return jax.lax.scan(lambda h, each: (each[0] * h + each[1],) * 2, 0 * x[0], (a, x))[1]


def recur_backward(arguments: Any, d: Array, mistake: str) -> Any:
    """Its backward, one chunk after the other."""
    a, x = arguments
    h = np.zeros((len(x) + 1, *x.shape[1:]), x.dtype)
    for t in range(len(x)):
        h[t + 1] = a[t] * h[t] + x[t]
    da, dx, carry = np.zeros_like(a), np.zeros_like(x), np.zeros_like(x[0])
    starts = [*range(0, len(x), CHUNK)]
    if mistake == "the last chunk is left out":
        starts = starts[: len(x) // CHUNK]
    for start in reversed(starts):
        if mistake == "nothing is carried between chunks":
            carry = np.zeros_like(carry)
        for t in reversed(range(start, min(start + CHUNK, len(x)))):
            carry = carry + d[t]
            before = h[t] * (t == 0 or t != start) if mistake == "no state before a chunk" else h[t]
            dx[t], da[t] = carry, carry * before
            carry = carry * a[t]
    return da, dx


def draw_recurrence(dtype: Any, T: int = 40) -> tuple[Any, ...]:
    """Decays between 0 and 1, and inputs."""
    a, x = draw(dtype, a=(T, 2, 3), x=(T, 2, 3))
    return (1 / (1 + np.exp(-1 - a.astype(np.float64)))).astype(dtype), x


# A selective scan: h_t = exp(s_t A) h_{t-1} + s_t x_t B_t, y_t = C_t h_t.


def selective_scan(x: Array, s: Array, A: Array, B: Array, C: Array) -> Array:
    """The outputs of a selective scan of D channels with N states each."""

    def step(h: Array, each: Any) -> Any:
        x, s, B, C = each
        h = jnp.exp(s[:, None] * A) * h + (s * x)[:, None] * B
        return h, h @ C

    return jax.lax.scan(step, jnp.zeros(A.shape, A.dtype), (x, s, B, C))[1]


def selective_scan_backward(arguments: Any, dy: Array, mistake: str) -> Any:
    """Its backward, which computes the states again."""
    x, s, A, B, C = arguments
    h = np.zeros((len(x) + 1, *A.shape), A.dtype)
    decay = np.exp(s[:, :, None] * A)
    for t in range(len(x)):
        h[t + 1] = decay[t] * h[t] + (s[t] * x[t])[:, None] * B[t]
    found = [np.zeros_like(each) for each in arguments]
    dx, ds, dA, dB, dC = found
    dh = np.zeros_like(A)
    for t in reversed(range(len(x))):
        dh = dh + dy[t][:, None] * C[t]
        through = dh * decay[t] * h[t]
        dC[t], dB[t] = dy[t] @ h[t + 1], (s[t] * x[t]) @ dh
        dx[t] = s[t] * (dh @ B[t])
        ds[t] = x[t] * (dh @ B[t])
        if mistake != "the step size is not differentiated in the decay":
            ds[t] += (through * A).sum(axis=1)
        dA += s[t][:, None] * through
        dh = dh * decay[t] if mistake != "h is carried without its decay" else dh
    return found


def draw_selective_scan(dtype: Any) -> tuple[Any, ...]:
    """Positive step sizes and negative A."""
    T, D, N = 6, 3, 4
    x, s, A, B, C = draw(dtype, x=(T, D), s=(T, D), A=(D, N), B=(T, N), C=(T, N))
    positive = [(0.3 + np.abs(each.astype(np.float64))).astype(dtype) for each in (s, A)]
    return x, positive[0], -positive[1], B, C


# A minGRU: h_t = (1 − z_t) h_{t-1} + z_t V x_t with z_t = σ(Z x_t).


def min_gru(x: Array, Z: Array, V: Array) -> Any:
    """All states of a minGRU, and the last."""
    z, n = jax.nn.sigmoid(x @ Z.T), x @ V.T
    states = jax.lax.scan(
        lambda h, each: ((1 - each[0]) * h + each[0] * each[1],) * 2, 0 * n[0], (z, n)
    )[1]
    return {"states": states, "last": states[-1]}


def min_gru_backward(arguments: Any, cotangents: Any, mistake: str) -> Any:
    """Its backward."""
    x, Z, V = arguments
    z, n = 1 / (1 + np.exp(-x @ Z.T)), x @ V.T
    h = np.zeros((len(x) + 1, *n.shape[1:]), x.dtype)
    for t in range(len(x)):
        h[t + 1] = (1 - z[t]) * h[t] + z[t] * n[t]
    dx, dZ, dV = (np.zeros_like(each) for each in arguments)
    dh = np.zeros_like(h[0])
    if mistake != "the last state's cotangent is not added":
        dh = dh + cotangents["last"]
    for t in reversed(range(len(x))):
        dh = dh + cotangents["states"][t]
        dn, da = dh * z[t], dh * (n[t] - h[t]) * z[t] * (1 - z[t])
        if mistake == "early steps are left out" and t < 2:
            break
        dZ, dV = dZ + da.T @ x[t], dV + dn.T @ x[t]
        dx[t] = da @ Z + dn @ V
        dh = dh * (1 - z[t])
    return dx, dZ, dV


# Layer norm in the cell: h_t = tanh(γ norm(U x_t + W h_{t-1})).


def norm_rnn(x: Array, U: Array, W: Array, gain: Array) -> Array:
    """All states of an RNN with layer norm."""

    def step(h: Array, each: Array) -> Any:
        a = each @ U.T + h @ W.T
        a = a - a.mean(axis=1, keepdims=True)
        h = jnp.tanh(gain * a / jnp.sqrt((a**2).mean(axis=1, keepdims=True) + 1e-3))
        return h, h

    return jax.lax.scan(step, jnp.zeros((x.shape[1], len(W)), x.dtype), x)[1]


def norm_rnn_backward(arguments: Any, d: Array, mistake: str) -> Any:
    """Its backward."""
    x, U, W, gain = arguments
    h = np.zeros((len(x) + 1, x.shape[1], len(W)), x.dtype)
    size, norm = [], []
    for t in range(len(x)):
        a = x[t] @ U.T + h[t] @ W.T
        a = a - a.mean(axis=1, keepdims=True)
        size.append(np.sqrt((a**2).mean(axis=1, keepdims=True) + a.dtype.type(1e-3)))
        norm.append(a / size[t])
        h[t + 1] = np.tanh(gain * norm[t])
    found = [np.zeros_like(each) for each in arguments]
    dh = np.zeros_like(h[0])
    for t in reversed(range(len(x))):
        dh = dh + d[t]
        do = dh * (1 - h[t + 1] ** 2)
        found[3] += (do * norm[t]).sum(axis=0)
        dn = do * gain
        da = dn - norm[t] * (dn * norm[t]).mean(axis=1, keepdims=True)
        if mistake != "the mean is not differentiated":
            da = da - dn.mean(axis=1, keepdims=True)
        da = da / size[t]
        found[0][t] = da @ U
        found[1] += da.T @ x[t]
        found[2] += da.T @ h[t]
        dh = da @ W
    return found


# A tanh RNN over tokens, with sequences of unequal lengths.


def token_rnn(E: Array, W: Array, tokens: Array, lengths: Array) -> Array:
    """The states of an RNN over embedded tokens, zero beyond the length of each sequence."""

    def step(h: Array, each: Any) -> Any:
        token, t = each
        h = jnp.where((t < lengths)[:, None], jnp.tanh(E[token] + h @ W.T), h)
        return h, jnp.where((t < lengths)[:, None], h, 0)

    steps = (jnp.asarray(tokens), jnp.arange(len(tokens)))
    return jax.lax.scan(step, jnp.zeros((tokens.shape[1], len(W)), E.dtype), steps)[1]


def token_rnn_backward(arguments: Any, d: Array, mistake: str) -> Any:
    """Its backward."""
    E, W, tokens, lengths = arguments
    T, B = tokens.shape
    inside = np.arange(T)[:, None] < lengths
    h = np.zeros((T + 1, B, len(W)), E.dtype)
    for t in range(T):
        h[t + 1] = np.where(inside[t][:, None], np.tanh(E[tokens[t]] + h[t] @ W.T), h[t])
    dE, dW, dh = np.zeros_like(E), np.zeros_like(W), np.zeros_like(h[0])
    for t in reversed(range(T)):
        here = inside[t][:, None] | (mistake == "padded steps count")
        dh = dh + np.where(here, d[t], 0)
        da = np.where(here, dh * (1 - h[t + 1] ** 2), 0)
        if mistake == "a repeated token is counted once":
            dE[tokens[t]] += da
        else:
            np.add.at(dE, tokens[t], da)
        dW += da.T @ h[t]
        dh = np.where(here, da @ W, dh)
    return dE, dW, None, None


def draw_tokens(dtype: Any) -> tuple[Any, ...]:
    """Embeddings, weights, tokens that repeat, and lengths."""
    E, W = draw(dtype, E=(6, 4), W=(4, 4))
    tokens = np.array([[1, 1, 2], [3, 3, 3], [0, 5, 2], [4, 4, 4], [1, 2, 2]])
    return E, W, tokens, np.array([5, 2, 3])


def draw_inputs(dtype: Any, *weights: str, T: int = 5) -> tuple[Any, ...]:
    """Inputs and weights of a cell."""
    shapes = {name: (4, 4) if name == "W" else (4, 3) for name in weights}
    return draw(dtype, x=(T, 2, 3), **shapes)


def draw_norm_rnn(dtype: Any) -> tuple[Any, ...]:
    """Inputs, weights and a gain near 1."""
    return *draw_inputs(dtype, "U", "W"), np.array([0.9, 1.2, 1.1, 0.8]).astype(dtype)


GALLERY = {
    "a linear recurrence in chunks": Exhibit(
        recur, recur_backward, draw_recurrence,
        {
            "the last chunk is left out": "zero from index 32, a multiple of 32, to the end",
            "no state before a chunk": "at multiples of 16",
            "nothing is carried between chunks": "beyond chunks of 16 steps",
        },
    ),
    "a selective scan": Exhibit(
        selective_scan, selective_scan_backward, draw_selective_scan,
        {
            "the step size is not differentiated in the decay": "at `s[:, None] * A`",
            "h is carried without its decay": "jnp.exp(s[:, None] * A) * h`",
        },
    ),
    "a minGRU": Exhibit(
        min_gru, min_gru_backward, lambda dtype: draw_inputs(dtype, "Z", "V"),
        {
            "the last state's cotangent is not added": "do not depend on that of last",
            "early steps are left out": "the last 3 of 5 steps alone",
        },
    ),
    "layer norm in the cell": Exhibit(
        norm_rnn, norm_rnn_backward, draw_norm_rnn,
        {"the mean is not differentiated": "the mean of the normalisation"},
    ),
    "an RNN over tokens of unequal lengths": Exhibit(
        token_rnn, token_rnn_backward, draw_tokens,
        {
            "padded steps count": "gradient",
            "a repeated token is counted once": "at `E[token]`",
        },
    ),
}  # fmt: skip
