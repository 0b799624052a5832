"""Bounds on the rounding error of a correct gradient: a running error analysis.

Derived in docs/derivation.md, section 9, after Higham, Accuracy and Stability of Numerical
Algorithms (2nd ed., 2002), chapters 2 and 3. The bounds need only the forward pass of the
reference; they contain no gradient.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:  # JAX takes half a second
    from jax_reference.rnn import Derivatives

Array = np.ndarray[Any, np.dtype[Any]]

# Assumed error of tanh and sigmoid in units of u. docs/certification.md, section 3, measures it.
ELEMENTARY = 16
INFLATION = 1 + 2.0**-10  # for second-order terms and the rounding of the bounds themselves
RESOLVING = 2.0**-6  # a comparison is conclusive where bound ÷ largest gradient is at most this


class Smoothness(NamedTuple):
    """Constants of an activation: max |φ′|, max |φ″|, and whether computing φ rounds."""

    slope: float
    curvature: float
    rounds: bool


SMOOTHNESS = {
    "tanh": Smoothness(1, 4 / (3 * np.sqrt(3)), True),
    "sigmoid": Smoothness(1 / 4, 1 / (6 * np.sqrt(3)), True),
    "relu": Smoothness(1, 0, False),
    "identity": Smoothness(1, 0, False),
}


class Bounds(NamedTuple):
    """Error bounds for every entry of every result, in the shapes of the results."""

    loss: Float[Array, ""]
    prediction: Float[Array, "B O"]
    U: Float[Array, "H D"]
    W: Float[Array, "H H"]
    V: Float[Array, "O H"]
    b: Float[Array, " H"]
    c: Float[Array, " O"]
    x: Float[Array, "T B D"]
    h0: Float[Array, "B H"]
    adjoints: Float[Array, "T B H"]


def slope_at(activation: str, a: Array, h: Array) -> Array:
    """|φ′| at the states of the reference."""
    slope: Array
    if activation == "tanh":
        slope = (1 - h) * (1 + h)
    elif activation == "sigmoid":
        slope = h * (1 - h)
    else:
        slope = np.where(a > 0, 1.0, 0.0) if activation == "relu" else np.ones_like(a)
    return slope


class ForwardErrors(NamedTuple):
    """Error bounds of the forward pass, and bounds on the sizes of what the sweep back multiplies.

    Of a_t and of the slopes between exact and computed a_t; of h_t, φ′(a_t), ŷ and ∂L/∂ŷ. `h` and
    `r` bound |h_t| and |ŷ − y| of any computation, `kappa` r bounds |∂L/∂ŷ|.
    """

    err_a: Float[Array, "T B H"]
    slope: Float[Array, "T B H"]
    err_slope: Float[Array, "T B H"]
    err_h: Float[Array, "T+1 B H"]
    h: Float[Array, "T+1 B H"]
    err_y: Float[Array, "B O"]
    r: Float[Array, "B O"]
    kappa: float
    err_loss: Any
    err_dy: Float[Array, "B O"]


def gamma(n: int, u: float) -> float:
    """The relative error of a sum of n products."""
    return n * u / (1 - n * u) if n * u < 1 else np.inf  # (E1)


def absolute(weights: Any) -> Any:
    """The sizes of weights in float64; 0 for an absent bias."""
    return 0.0 if weights is None else np.abs(np.asarray(weights, np.float64))


def bound_forward(
    params: Any,
    x: Array,
    y: Array,
    reference: "Derivatives",
    dtype: Any,
    activation: str,
    loss: str,
) -> ForwardErrors:
    """Bound the errors of the forward pass, of the loss and of ∂L/∂ŷ. Equations (E1) to (E8)."""
    u = float(np.finfo(dtype).eps) / 2
    tiny = float(np.finfo(dtype).smallest_normal)
    lipschitz, curvature, rounds = SMOOTHNESS[activation]
    epsilon = ELEMENTARY * u if rounds else 0.0
    absU, absW, absV, absb, absc = (absolute(getattr(params, name)) for name in "UWVbc")
    absx = absolute(x)
    a, h = reference.states.a, reference.states.h
    (T, B, D), (O, H) = absx.shape, absV.shape
    N = B * O

    # (E2) with h̄ = |h| + 2 Δh multiplied out: the factor of |W| Δh is 1 + 2 γ, and the terms
    # without Δh are computed for all steps at once.
    reference_h, slope_here = np.abs(h), slope_at(activation, a, h[1:])
    into = absx @ absU.T + absb + reference_h[:-1] @ absW.T
    err_here = gamma(D + H + 2, u) * into + 2 * (D + H) * tiny
    carry_over = 1 + 2 * gamma(D + H + 2, u)
    err_function = epsilon * reference_h + tiny
    err_h, err_a, slope = np.zeros_like(h), np.empty_like(a), np.empty_like(a)
    for t in range(1, T + 1):
        err_a[t - 1] = carry_over * (err_h[t - 1] @ absW.T) + err_here[t - 1]  # (E2)
        reached = slope_here[t - 1] + 2 * curvature * err_a[t - 1]
        slope[t - 1] = np.minimum(lipschitz, reached)  # (E3)
        if activation == "relu":
            slope[t - 1][np.abs(a[t - 1]) <= 2 * err_a[t - 1]] = 1
        err_h[t] = (1 + 2 * epsilon) * slope[t - 1] * err_a[t - 1] + err_function[t]  # (E4)
    abs_h = reference_h + 2 * err_h
    err_slope = curvature * err_a  # (E5), first part
    if activation == "relu":
        err_slope[np.abs(a) <= 2 * err_a] = 1
    elif activation == "tanh":
        err_slope += 2 * epsilon + 4 * u
    elif activation == "sigmoid":
        err_slope += (epsilon + 4 * u) * abs_h[1:]

    through_V = err_h[T] @ absV.T
    err_y = through_V + gamma(H + 2, u) * (abs_h[T] @ absV.T + absc) + 2 * H * tiny  # (E6)
    r = np.abs(reference.states.prediction - np.asarray(y, np.float64))
    abs_r = r + 2 * err_y
    kappa = 2 / N if loss == "mse" else 1.0
    err_squares = 2 * r * err_y + 3 * err_y**2 + gamma(N + 5, u) * abs_r**2
    err_loss = kappa / 2 * err_squares.sum() + N * tiny  # (E7)
    err_dy = kappa * (err_y + gamma(4, u) * abs_r) + 4 * tiny  # (E8)
    return ForwardErrors(
        err_a, slope, err_slope, err_h, abs_h, err_y, abs_r, kappa, err_loss, err_dy
    )


@np.errstate(over="ignore", invalid="ignore")  # a bound that overflows is infinite: inconclusive
def bounds(
    params: Any,
    x: Float[Array, "T B D"],
    y: Float[Array, "B O"],
    reference: "Derivatives",
    *,
    dtype: Any,
    activation: str = "tanh",
    loss: str = "mse",
) -> Bounds:
    """Bounds on |computed − exact| for results in `dtype`, for any order of summation.

    `reference` holds the float64 states of the problem (params, x, y); `dtype` is a floating dtype.
    Equations (E1) to (E12) and (E14).
    """
    u = float(np.finfo(dtype).eps) / 2
    tiny = float(np.finfo(dtype).smallest_normal)
    forward = bound_forward(params, x, y, reference, dtype, activation, loss)
    _, slope, err_slope, err_h, abs_h, err_y, abs_r, kappa, err_loss, err_dy = forward
    absU, absW, absV = (absolute(weights) for weights in params[:3])
    absx = absolute(x)
    (T, B, _), (O, H) = absx.shape, absV.shape
    N = B * O

    g = kappa * abs_r @ absV
    err_g = err_dy @ absV + gamma(O + 2, u) * g + 2 * O * tiny  # (E9)
    upstream = g.sum()
    s = slope + err_slope
    err_s, gamma_back = err_slope + gamma(3, u) * s, gamma(H + 3, u)
    # At each t, ḡ_t, Δg_t and e_t, and the same times the slope: δ̄_t and Δδ_t.
    carried, through = np.empty((T + 1, 3, B, H)), np.empty((T, 3, B, H))
    carried[T] = g, err_g, np.ones_like(g)
    added = np.reshape([0, 2 * H * tiny, 1], (3, 1, 1))
    for t in range(T, 0, -1):
        np.multiply(s[t - 1], carried[t], out=through[t - 1])  # (E10)
        through[t - 1, 1] += err_s[t - 1] * carried[t, 0] + 3 * tiny  # (E10)
        np.matmul(through[t - 1], absW, out=carried[t - 1])  # (E11)
        carried[t - 1, 1] += gamma_back * carried[t - 1, 0]  # (E11)
        carried[t - 1] += added  # (E11), and e_{t-1} of (E14)
    delta, err_delta = through[:, 0], through[:, 1]
    err_g, reaches = carried[0, 1], carried[1:, 2].sum()

    m = T * B + B * H + O * H + 4
    largest = (1 + upstream) * (1 + reaches) * (1 + absx.max() + abs_h.max())
    lost = 2 * m * tiny * largest  # (E14)
    total = err_delta + gamma(m, u) * delta  # the factor of |x| and of |h| in (E12)

    def over_time(left: Array, right: Array) -> Array:
        return left.reshape(T * B, -1).T @ right.reshape(T * B, -1)  # one product for Σ_t

    found = Bounds(
        loss=np.asarray(err_loss),
        prediction=err_y,
        U=over_time(total, absx) + lost,
        W=over_time(total, abs_h[:-1]) + over_time(delta, err_h[:-1]) + lost,  # (E12)
        V=(err_dy + gamma(m, u) * kappa * abs_r).T @ abs_h[T] + (kappa * abs_r).T @ err_h[T] + lost,
        b=total.sum(axis=(0, 1)) + lost,
        c=(err_dy + gamma(m, u) * kappa * abs_r).sum(axis=0) + lost,
        x=total @ absU + lost,
        h0=err_g,
        adjoints=err_delta,
    )
    squares = N * abs_r.max() ** 2
    if not max(largest, squares, absU.max(), absV.max()) < float(np.finfo(dtype).max):
        return Bounds(*(np.full_like(bound, np.inf) for bound in found))  # it may overflow
    return Bounds(*(np.where(np.isnan(e), np.inf, e * INFLATION) for e in found))
