"""The gradients by real-time recurrent learning: forward only, no sweep back.

h_t depends on W directly, and through h_{t-1}. So the derivative ∂h_t/∂W is carried along with
h_t itself, and when the last step is done the gradient is there.
Source: Williams & Zipser 1989, "A learning algorithm for continually running fully recurrent
neural networks"; docs/derivation.md, (R1) to (R4).
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from manual_bptt import activations, losses
from manual_bptt.activations import Activation, Array
from manual_bptt.inputs import arguments
from manual_bptt.many_to_one import read_out
from manual_bptt.rnn import Params


class Sensitivities(NamedTuple):
    """∂h_t/∂U, ∂h_t/∂W and ∂h_t/∂b: first the state's index, then the weight's."""

    U: Shaped[Array, "B H H D"]
    W: Shaped[Array, "B H H H"]
    b: Shaped[Array, "B H H"]


def value_and_grad(
    params: Params,
    x: Shaped[Array, "T B D"],
    y: Shaped[Array, "B O"],
    h0: Shaped[Array, "B H"] | None = None,
    *,
    activation: str | Activation = "tanh",
    loss: str = "mse",
) -> tuple[Any, Params]:
    """The loss and its gradients with respect to the parameters, by the forward recursion.

    Subscripts: i and j for states, p and q for weights.
    Raises TypeError or ValueError naming the argument that does not fit.
    """
    (U, W, V, b, c), x, y, h, *_ = arguments(params, x, y, h0, loss=loss)
    phi, measure = activations.find(activation), losses.find(loss)
    _, B, D = x.shape
    H = len(W)
    one = np.eye(H, dtype=U.dtype)

    # h_0 depends on no weight.
    dh = Sensitivities(*(np.zeros((B, H, *size), U.dtype) for size in ((H, D), (H, H), (H,))))
    for x_t in x:
        a = x_t @ U.T + h @ W.T
        if b is not None:
            a = a + b
        da = Sensitivities(  # directly, and through h_{t-1}
            U=np.einsum("jp,bq->bjpq", one, x_t) + np.einsum("ji,bipq->bjpq", W, dh.U),  # (R1)
            W=np.einsum("jp,bq->bjpq", one, h) + np.einsum("ji,bipq->bjpq", W, dh.W),  # (R2)
            b=one + np.einsum("ji,bip->bjp", W, dh.b),  # (R3)
        )
        h = phi.function(a)
        slope = phi.derivative(a, h)
        dh = Sensitivities(*(np.einsum("bj,bj...->bj...", slope, d) for d in da))  # (R4)

    prediction = read_out(h, V, c)
    dy = measure.gradient(prediction, y)
    dL_dh = np.einsum("bo,oj->bj", dy, V)  # (B1)
    return measure.value(prediction, y), Params(
        U=np.einsum("bj,bjpq->pq", dL_dh, dh.U),  # (R5)  ∂L/∂h_T · ∂h_T/∂U, and likewise W and b
        W=np.einsum("bj,bjpq->pq", dL_dh, dh.W),
        V=np.einsum("bo,bh->oh", dy, h),  # (B6)
        b=None if b is None else np.einsum("bj,bjp->p", dL_dh, dh.b),
        c=None if c is None else dy.sum(axis=0),  # (B8)
    )
