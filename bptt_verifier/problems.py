"""Random problems on which mistakes show.

Mistakes hide where weights are tiny, zero or symmetric, where sizes coincide, and where the
sequence is one step long. Weights here have a standard deviation of about one over the square root
of the number of inputs, every size is drawn on its own, and one step is one length among others.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jax_reference.padded import Capacity
from manual_bptt.rnn import Params

Array = np.ndarray[Any, np.dtype[Any]]

ACTIVATIONS = ("tanh", "relu", "sigmoid", "identity")
LOSSES = ("mse", "half_sse")
LARGEST = Capacity(T=12, B=4, D=6, H=6, O=4)


class Sizes(NamedTuple):
    """Steps, batch, inputs, hidden units, outputs."""

    T: int
    B: int
    D: int
    H: int
    O: int

    def __str__(self) -> str:
        return " ".join(f"{letter}={size}" for letter, size in self._asdict().items())


class Problem(NamedTuple):
    """One point at which gradients are compared."""

    params: Params
    x: Float[Array, "T B D"]
    y: Float[Array, "B O"]
    h0: Float[Array, "B H"] | None
    activation: str
    loss: str

    @property
    def sizes(self) -> Sizes:
        """The five sizes."""
        (T, B, D), (O, H) = self.x.shape, self.params.V.shape
        return Sizes(T, B, D, H, O)


def with_values(
    rng: np.random.Generator,
    sizes: Sizes,
    *,
    dtype: Any = np.float64,
    activation: str = "tanh",
    loss: str = "mse",
    bias: bool = False,
    initial_state: bool = False,
    spread: float = 1.0,
    target_scale: float = 1.0,
) -> Problem:
    """A problem of these sizes with normal values.

    `spread` is the standard deviation of W times √H; `target_scale` is that of y: a large one makes
    large gradients, which shows clipping.
    """
    T, B, D, H, O = sizes

    def normal(*shape: int, scale: float = 1.0) -> Array:
        return (scale * rng.normal(size=shape)).astype(dtype)

    params = Params(
        U=normal(H, D, scale=1 / np.sqrt(D)),
        W=normal(H, H, scale=spread / np.sqrt(H)),
        V=normal(O, H, scale=1 / np.sqrt(H)),
        b=normal(H, scale=0.5) if bias else None,
        c=normal(O, scale=0.5) if bias else None,
    )
    x = normal(T, B, D)
    y = normal(B, O, scale=target_scale)
    return Problem(params, x, y, normal(B, H) if initial_state else None, activation, loss)


def draw(seed: int, case: int, dtype: Any = np.float64, largest: Capacity = LARGEST) -> Problem:
    """Random problem number `case` of a seed: sizes, activation, loss, biases, h0 and values."""
    rng = np.random.default_rng([seed, case])
    return with_values(
        rng,
        Sizes(*(int(rng.integers(1, most + 1)) for most in largest)),
        dtype=dtype,
        activation=str(rng.choice(ACTIVATIONS)),
        loss=str(rng.choice(LOSSES)),
        bias=bool(rng.integers(2)),
        initial_state=bool(rng.integers(2)),
        spread=rng.uniform(0.5, 1.5),
        target_scale=float(rng.choice([1.0, 10.0])),
    )


def simple(problem: Problem) -> Problem:
    """The problem with every number rounded to one digit after the point, and none of them zero."""

    def rounded(values: Array | None) -> Any:
        if values is None:
            return None
        near = np.round(values, 1)
        return np.where(near == 0, values.dtype.type(0.1), near)

    params = Params(*(rounded(w) for w in problem.params))
    x, y = rounded(problem.x), rounded(problem.y)
    return problem._replace(params=params, x=x, y=y, h0=rounded(problem.h0))
