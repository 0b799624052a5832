"""Which parameters a loss depends on at some values, whatever the values are at hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.reach import reaches
from bptt_verifier.program.trace import trace

ONES, ZEROS, PART = np.ones(2), np.zeros(2), np.array([0.0, 1.0])


def find(loss: Any) -> bool:
    """Tell whether w (2,), in a loss with v (2,) and a constant, reaches it."""
    with use_float64():
        return reaches(trace(loss, {"w": ONES, "v": ONES}), "w")


PATHS: dict[str, tuple[Any, bool]] = {
    "a factor": (lambda w, v: w * ONES, True),
    "a factor of zero": (lambda w, v: w * ZEROS, False),
    "a factor of zero in part": (lambda w, v: w * PART, True),
    "the other part": (lambda w, v: (w * PART)[:1], False),
    "a term of zero": (lambda w, v: w + ZEROS, True),
    "a product of zero and a term": (lambda w, v: w + v * ZEROS, True),
    "a product of zero and a factor": (lambda w, v: w * (v * ZEROS), False),
    "a function of zero": (lambda w, v: w * jnp.tanh(v * ZEROS), False),
    "a function that is not zero at zero": (lambda w, v: w * jnp.exp(v * ZEROS), True),
    "a quotient of zero": (lambda w, v: (v * ZEROS) / w, False),
    "a quotient": (lambda w, v: w / v, True),
    "a divisor": (lambda w, v: v / w, True),
    "a square of zero": (lambda w, v: (w * ZEROS) ** 2, False),
    "a square": (lambda w, v: w**2, True),
    "a reciprocal": (lambda w, v: w**-2, True),
    "a sign": (lambda w, v: jnp.sign(w), False),
    "a sign beside it": (lambda w, v: jnp.sign(w) * w, True),
    "a comparison": (lambda w, v: (w > 0) * v, False),
    "a constant choice": (lambda w, v: jnp.where(PART > 0, v, w)[1:], False),
    "the other choice": (lambda w, v: jnp.where(PART > 0, v, w)[:1], True),
    "a choice by values": (lambda w, v: jnp.where(v > 9, w, v), True),
    "a difference": (lambda w, v: w - v, True),
    "a difference of itself": (lambda w, v: w - w, False),
    "of its two entries": (lambda w, v: w - w[::-1], True),
    "of its own copy": (lambda w, v: w[::-1] - w[::-1], False),
    "of its opposite": (lambda w, v: w - (-w), True),
    "of another function": (lambda w, v: w - jnp.real(w + 1j * v), True),
    "from the mean of one": (lambda w, v: w[:, None] - w[:, None].mean(1, keepdims=True), False),
    "from the largest of one": (lambda w, v: w[:, None] - w[:, None].max(1, keepdims=True), False),
    "from the mean of two": (lambda w, v: w - w.mean(), True),
    "a dead unit": (lambda w, v: jnp.maximum(w - 9, 0), True),
    "a clip": (lambda w, v: jnp.clip(w, 3, 4), True),
    "an imaginary part": (lambda w, v: jnp.imag(1j * w), True),
    "a loop": (lambda w, v: jax.lax.fori_loop(0, 3, lambda i, h: h * w, v), True),
    "a gather": (lambda w, v: w[jnp.argsort(v)], True),
    "an index": (lambda w, v: v[jnp.argsort(w)], False),
    "a running sum": (lambda w, v: jnp.cumsum(w), True),
    "a joined row that meets zeros": (
        lambda w, v: jnp.concatenate([v, v * 0.0]) @ jnp.concatenate([v, w]), False,
    ),
    "a joined row that meets numbers": (
        lambda w, v: jnp.concatenate([v, v]) @ jnp.concatenate([v, w]), True,
    ),
    "an inverse": (lambda w, v: jnp.linalg.inv(jnp.diag(w)), True),
}  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
def test_a_parameter_reaches_the_loss_unless_zeros_or_flat_functions_are_on_every_path(
    name: str,
) -> None:
    path, found = PATHS[name]
    assert find(lambda p, xp: jnp.sum(path(p["w"], p["v"]) * 1.0) + p["v"].sum()) is found


def test_the_weights_of_a_state_before_the_first_step_do_not_reach_the_loss() -> None:
    def loss(p: Any, xp: Any) -> Any:
        below = xp.tanh(p["v"])[None]  # a layer below, so that [x, h] is no constant
        joined = xp.concatenate([below, xp.zeros((1, 2))], axis=1)
        weights = xp.concatenate([xp.stack([p["v"], p["v"]]), xp.stack([p["w"], p["w"]])])
        return xp.sum(xp.tanh(joined @ weights))

    assert not find(loss)
