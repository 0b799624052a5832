"""A torch.autograd.Function of an LSTM layer, written by hand, and mistakes in it."""

from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# By mistake, what is said of it.
MISTAKES = {
    "the cell state is not carried": "no gradient is passed on to the step before",
    "the forget gate has the old state's slope": "jax.nn.sigmoid(f)",
}


def lstm(x: Any, U: Any, W: Any) -> Any:
    """All states of an LSTM without biases, gates in the order i, f, g, o, and its last cell."""
    H = W.shape[1]

    def step(states: Any, each: Any) -> Any:
        h, c = states
        a = each @ U.T + h @ W.T
        i, f, g, o = (a[:, k * H : (k + 1) * H] for k in range(4))
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zero = jnp.zeros((x.shape[1], H), x.dtype)
    (_, c), states = jax.lax.scan(step, (zero, zero), x)
    return states, c


def make_lstm(mistake: str = "") -> Any:
    """The kernel as a function of tensors; it computes in float32 or wider."""
    torch: Any = import_module("torch")

    class Layer(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(context: Any, x: Any, U: Any, W: Any) -> Any:
            dtype = x.dtype
            x, U, W = (each if dtype == torch.float64 else each.float() for each in (x, U, W))
            h = c = torch.zeros(x.shape[1], W.shape[1], dtype=x.dtype)
            states, cells, gates = [h], [c], []
            for each in x:
                i, f, g, o = (each @ U.T + h @ W.T).chunk(4, 1)
                i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
                c = f * c + i * g
                h = o * c.tanh()
                states, cells, gates = [*states, h], [*cells, c], [*gates, (i, f, g, o)]
            context.kept = x, U, W, states, cells, gates, dtype
            return torch.stack(states[1:]).to(dtype), c.to(dtype)

        @staticmethod
        def backward(context: Any, d: Any, dc: Any) -> Any:
            x, U, W, states, cells, gates, dtype = context.kept
            d, dc = d.to(x.dtype), dc.to(x.dtype)
            dx, dU, dW = (torch.zeros_like(each) for each in (x, U, W))
            dh = torch.zeros_like(states[0])
            for t in reversed(range(len(x))):
                (i, f, g, o), bent = gates[t], cells[t + 1].tanh()
                dh = dh + d[t]
                dc = dc + dh * o * (1 - bent**2)
                slope = f * (1 - f)
                if mistake == "the forget gate has the old state's slope":
                    slope = f
                da = torch.cat(
                    [dc * g * i * (1 - i), dc * cells[t] * slope,
                     dc * i * (1 - g**2), dh * bent * o * (1 - o)], 1,
                )  # fmt: skip
                dx[t], dU, dW = da @ U, dU + da.T @ x[t], dW + da.T @ states[t]
                dh, dc = da @ W, dc * f * (mistake != "the cell state is not carried")
            return dx.to(dtype), dU.to(dtype), dW.to(dtype)

    return Layer.apply


def draw_lstm(dtype: Any, T: int = 4, B: int = 2, D: int = 3, H: int = 4) -> tuple[Any, ...]:
    """Inputs and weights in a dtype."""
    rng = np.random.default_rng(2)
    shapes = (T, B, D), (4 * H, D), (4 * H, H)
    return tuple((0.6 * rng.normal(size=shape)).astype(dtype) for shape in shapes)
