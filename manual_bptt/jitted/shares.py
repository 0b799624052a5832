"""The training step in shares of the batch, which the processors of one device compute at once.

XLA does most of what stands between two products on one processor. In shares, each processor does
all of the steps of its own sequences: each share is a program of its own, run by a thread of its
own. Then their losses and gradients are added up. Unlike `parallel`, it needs no other devices, and
no share waits for another before its end. Source: docs/derivation.md, section 15.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise
from typing import Any

import jax
from jax import Array, lax
from jaxtyping import Float, Int, Shaped

from manual_bptt.activations import Array as NumPyArray
from manual_bptt.inputs import require_at_least
from manual_bptt.jitted import parallel, step
from manual_bptt.jitted.losses import SUMS
from manual_bptt.jitted.step import Given, Model, Weights

Weighed = tuple[tuple[Array, Weights], Array]


def value_and_grad(
    params: Any,
    x: Float[Array | NumPyArray, "T B D"],
    y: Shaped[Array | NumPyArray, "*T B O"],
    h0: Float[Array | NumPyArray, "B H"] | None = None,
    c0: Float[Array | NumPyArray, "B H"] | None = None,
    *,
    shares: int = 2,
    activation: str = "tanh",
    reset: str = "after",
    loss: str = "mse",
    outputs: str = "last",
    lengths: Int[Array | NumPyArray, " B"] | None = None,
    truncation: int | None = None,
    checkpoint_every: int | None = None,
) -> tuple[Float[Array, ""], Any]:
    """The loss of the whole batch and its gradients, computed in shares of the batch.

    `params` are those of `rnn`, `lstm` or `gru`, told apart by the shape of W; the options are
    those of the cell's own `value_and_grad`. There are as many shares as sequences at most, and
    their sizes differ by one at most. Call it outside `jax.jit`, with arrays that have numbers: in
    one program XLA does not run the shares beside each other.
    Raises TypeError or ValueError naming the argument that does not fit.
    """
    require_at_least(1, "shares", shares)
    options = activation, reset, loss, outputs, lengths, truncation, checkpoint_every
    model, given = parallel.arguments(params, x, y, h0, c0, *options)
    B = given.x.shape[1]
    count = min(shares, B)
    edges = [B * p // count for p in range(count + 1)]
    even = B % count == 0

    def compute(part: tuple[int, int]) -> Weighed:
        wait: Any = jax.block_until_ready
        with step.precision(given):  # of this thread
            found: Weighed = wait(compiled_share(model, *part, even, given))
        return found

    first, *others = pairwise(edges)
    pending = [start_threads(count).submit(compute, part) for part in others]
    parts = [compute(first), *(each.result() for each in pending)]
    with step.precision(given):
        value, gradient = combined(model, parts)
    return value, model.parameters(*gradient[: len(model.parameters._fields)])


@cache
def start_threads(count: int) -> ThreadPoolExecutor:
    """Start the threads of a number of shares, of which the caller computes one, once."""
    return ThreadPoolExecutor(max(1, count - 1), thread_name_prefix="share")


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def compiled_share(model: Model[Any], start: int, end: int, even: bool, given: Given) -> Weighed:
    """The weighed loss and gradients of the sequences from `start` to `end`, compiled.

    They have no weights where all shares are `even`, that is, of the same size.
    """

    def cut(axis: int, values: Any) -> Any:
        return jax.tree.map(lambda v: lax.slice_in_dim(v, start, end, axis=axis), values)

    share = given._replace(
        x=cut(1, given.x), y=cut(1 if model.outputs == "every" else 0, given.y),
        first=cut(0, given.first), lengths=cut(0, given.lengths),
    )  # fmt: skip
    return parallel.weigh(model, share, 1 if even else end - start)


@partial(jax.jit, static_argnums=0)
def combined(model: Model[Any], parts: list[Weighed]) -> tuple[Array, Weights]:
    """The loss and the gradients of the batch, of those of its shares, compiled."""
    (found, N), *others = parts
    for weighed, n in others:
        found, N = jax.tree.map(lax.add, (found, N), (weighed, n))
    if model.loss in SUMS:
        return found
    mean: tuple[Array, Weights] = jax.tree.map(lambda each: each / N, found)  # (Q17)
    return mean
