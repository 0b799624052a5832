"""Bounds on the rounding error of a correct gradient: a running error analysis.

Derived in docs/derivation.md, section 9, after Higham, Accuracy and Stability of Numerical
Algorithms (2nd ed., 2002), chapters 2 and 3. The bounds need only the forward pass of the
reference; they contain no gradient.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float
from ml_dtypes import finfo

if TYPE_CHECKING:  # JAX takes half a second
    from jax_reference.rnn import Derivatives, States

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


class Format(NamedTuple):
    """A floating format: its unit roundoff, smallest normal number and largest number.

    Of a block of problems each is an array (n, 1, 1).
    """

    u: Any
    tiny: Any
    largest: Any


class Extent(NamedTuple):
    """The sizes of a problem, and which entries of padded arrays are its own.

    `hidden` is 1 at its steps, sequences and units, and `outputs` at its predictions; both are 0 in
    the padding. The padding of time comes first: h_0 is at `first` of the time axis. Of a block of
    problems each size is an array (n, 1, 1), and `first` an index of time and problem.
    """

    T: Any
    B: Any
    D: Any
    H: Any
    O: Any
    hidden: Any = 1.0
    outputs: Any = 1.0
    first: Any = 0


class Bounds(NamedTuple):
    """Error bounds for every entry of every result, in the shapes of the results.

    Of a block of n problems each has an axis more, which is that before the last two of matrices.
    """

    loss: Float[Array, "*n"]
    prediction: Float[Array, "*n B O"]
    U: Float[Array, "*n H D"]
    W: Float[Array, "*n H H"]
    V: Float[Array, "*n O H"]
    b: Float[Array, "*n H"]
    c: Float[Array, "*n O"]
    x: Float[Array, "T *n B D"]
    h0: Float[Array, "*n B H"]
    adjoints: Float[Array, "T *n B H"]


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

    err_a: Float[Array, "T *n B H"]
    slope: Float[Array, "T *n B H"]
    err_slope: Float[Array, "T *n B H"]
    err_h: Float[Array, "T+1 *n B H"]
    h: Float[Array, "T+1 *n B H"]
    err_y: Float[Array, "*n B O"]
    r: Float[Array, "*n B O"]
    kappa: Any
    err_loss: Any
    err_dy: Float[Array, "*n B O"]


def gamma(n: Any, u: Any) -> Any:
    """The relative error of a sum of n products."""
    return np.divide(n * u, np.maximum(1 - n * u, 0))  # (E1), infinite from n u = 1 on


def absolute(weights: Any) -> Any:
    """The sizes of weights in float64; 0 for an absent bias."""
    return 0.0 if weights is None else np.abs(np.asarray(weights, np.float64))


def describe_dtype(dtype: Any) -> Any:
    """Describe the limits of a floating dtype as np.finfo does, those of bfloat16 included."""
    return finfo(dtype)  # type: ignore[no-untyped-call]


def is_coarser(dtype: Any, other: Any) -> bool:
    """Tell whether a floating dtype has fewer digits than another one."""
    return bool(describe_dtype(dtype).eps > describe_dtype(other).eps)


def find_format(dtype: Any) -> Format:
    """Find what the bounds depend on in a floating dtype."""
    form = describe_dtype(dtype)
    return Format(float(form.eps) / 2, float(form.smallest_normal), float(form.max))


def find_extent(params: Any, x: Array) -> Extent:
    """Find the sizes of a problem without padding."""
    return Extent(*x.shape, *np.shape(params.V)[::-1])


def bound_forward(
    params: Any,
    x: Array,
    y: Array,
    states: "States",
    form: Format,
    extent: Extent,
    activation: str,
    loss: Any,
) -> ForwardErrors:
    """Bound the errors of the forward pass, of the loss and of ∂L/∂ŷ. Equations (E1) to (E8)."""
    u, tiny, _ = form
    lipschitz, curvature, rounds = SMOOTHNESS[activation]
    epsilon = ELEMENTARY * u if rounds else 0.0
    absU, absW, absV, absb, absc = (absolute(getattr(params, name)) for name in "UWVbc")
    a, h, D, H, N = states.a, states.h, extent.D, extent.H, extent.B * extent.O
    inside = np.broadcast_to(extent.hidden, a.shape)

    # (E2) with h̄ = |h| + 2 Δh multiplied out: the factor of |W| Δh is 1 + 2 γ, and the terms
    # without Δh are computed for all steps at once.
    reference_h, slope_here = np.abs(h), slope_at(activation, a, h[1:]) * inside
    into = absolute(x) @ absU.mT + absb + reference_h[:-1] @ absW.mT
    err_here = (gamma(D + H + 2, u) * into + 2 * (D + H) * tiny) * inside
    carry_over = 1 + 2 * gamma(D + H + 2, u)
    err_function = (epsilon * reference_h[1:] + tiny) * inside
    err_h, err_a, slope = np.zeros_like(h), np.empty_like(a), np.empty_like(a)
    for t in range(1, len(a) + 1):
        err_a[t - 1] = carry_over * (err_h[t - 1] @ absW.mT) + err_here[t - 1]  # (E2)
        reached = slope_here[t - 1] + 2 * curvature * err_a[t - 1]
        slope[t - 1] = np.minimum(lipschitz, reached)  # (E3)
        if activation == "relu":
            near = np.abs(a[t - 1]) <= 2 * err_a[t - 1]
            slope[t - 1][near] = inside[t - 1][near]
        err_h[t] = (1 + 2 * epsilon) * slope[t - 1] * err_a[t - 1] + err_function[t - 1]  # (E4)
    abs_h = reference_h + 2 * err_h
    err_slope = curvature * err_a  # (E5), first part
    if activation == "relu":
        err_slope[np.abs(a) <= 2 * err_a] = 1
    elif activation == "tanh":
        err_slope += 2 * epsilon + 4 * u
    elif activation == "sigmoid":
        err_slope += (epsilon + 4 * u) * abs_h[1:]
    err_slope *= inside

    through_V = err_h[-1] @ absV.mT
    err_y = through_V + gamma(H + 2, u) * (abs_h[-1] @ absV.mT + absc) + 2 * H * tiny  # (E6)
    err_y = err_y * extent.outputs
    r = np.abs(states.prediction - np.asarray(y, np.float64))
    abs_r = r + 2 * err_y
    kappa = np.where(np.asarray(loss) == "mse", 2 / N, 1.0)
    err_squares = 2 * r * err_y + 3 * err_y**2 + gamma(N + 5, u) * abs_r**2
    err_loss = kappa / 2 * err_squares.sum(axis=(-2, -1), keepdims=True) + N * tiny  # (E7)
    err_dy = (kappa * (err_y + gamma(4, u) * abs_r) + 4 * tiny) * extent.outputs  # (E8)
    return ForwardErrors(
        err_a, slope, err_slope, err_h, abs_h, err_y, abs_r, kappa, err_loss, err_dy
    )


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
    """
    form, extent = find_format(dtype), find_extent(params, x)
    return bound_results(params, x, y, reference.states, form, extent, activation, loss)


# A bound that overflows is infinite: inconclusive.
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def bound_results(
    params: Any,
    x: Float[Array, "T *n B D"],
    y: Float[Array, "*n B O"],
    states: "States",
    form: Format,
    extent: Extent,
    activation: str,
    loss: Any,
) -> Bounds:
    """Bounds for one problem, or for a block of problems of one activation at once.

    In a block, parameters and y have an axis for the problem before their last two, to which
    biases are padded by an axis of length one; x and the states have it behind that of time. The
    arrays are padded with zeros as `extent` says. `loss` is a name, or names in an array (n, 1, 1).
    Equations (E1) to (E12) and (E14).
    """
    u, tiny, largest_number = form
    forward = bound_forward(params, x, y, states, form, extent, activation, loss)
    _, slope, err_slope, err_h, abs_h, err_y, abs_r, kappa, err_loss, err_dy = forward
    absU, absW, absV = (absolute(weights) for weights in params[:3])
    absx = absolute(x)
    T, B, _, H, O, _, _, first = extent
    N, steps, inside = B * O, len(absx), np.broadcast_to(extent.hidden, slope.shape)

    g = kappa * abs_r @ absV
    err_g = (err_dy @ absV + gamma(O + 2, u) * g + 2 * O * tiny) * inside[-1]  # (E9)
    upstream = g.sum(axis=(-2, -1), keepdims=True)
    s = slope + err_slope
    err_s, gamma_back, floor = err_slope + gamma(3, u) * s, gamma(H + 3, u), 3 * tiny * inside
    # At each t, ḡ_t, Δg_t and e_t, and the same times the slope: δ̄_t and Δδ_t.
    carried, through = np.empty((steps + 1, 3, *g.shape)), np.empty((steps, 3, *g.shape))
    carried[-1] = g, err_g, inside[-1]
    added = np.stack([np.zeros_like(g), 2 * H * tiny * inside[-1], inside[-1]])
    for t in range(steps, 0, -1):
        np.multiply(s[t - 1], carried[t], out=through[t - 1])  # (E10)
        through[t - 1, 1] += err_s[t - 1] * carried[t, 0] + floor[t - 1]  # (E10)
        np.matmul(through[t - 1], absW, out=carried[t - 1])  # (E11)
        carried[t - 1, 1] += gamma_back * carried[t - 1, 0]  # (E11)
        carried[t - 1] += added  # (E11), and e_{t-1} of (E14)
    delta, err_delta = through[:, 0], through[:, 1]
    reaches = (carried[1:, 2] * inside).sum(axis=(0, -2, -1), keepdims=True)[0]

    m = T * B + B * H + O * H + 4
    size = 1 + find_largest(absx) + find_largest(abs_h)
    largest = (1 + upstream) * (1 + reaches) * size
    lost = 2 * m * tiny * largest  # (E14)
    total = err_delta + gamma(m, u) * delta  # the factor of |x| and of |h| in (E12)

    def rows(steps: Array) -> Array:
        return steps.swapaxes(0, -3).reshape(*steps.shape[1:-2], -1, steps.shape[-1])

    def over_time(left: Array, right: Array) -> Array:
        return rows(left).mT @ rows(right)  # one product for Σ_t

    of_outputs = err_dy + gamma(m, u) * kappa * abs_r
    found = Bounds(
        loss=err_loss,
        prediction=err_y,
        U=over_time(total, absx) + lost,
        W=over_time(total, abs_h[:-1]) + over_time(delta, err_h[:-1]) + lost,  # (E12)
        V=of_outputs.mT @ abs_h[-1] + (kappa * abs_r).mT @ err_h[-1] + lost,
        b=total.sum(axis=(0, -2), keepdims=True)[0] + lost,
        c=of_outputs.sum(axis=-2, keepdims=True) + lost,
        x=total @ absU + lost,
        h0=carried[:, 1][first],
        adjoints=err_delta,
    )
    every = (
        largest,
        N * find_largest(abs_r[None]) ** 2,
        *map(find_largest, (absU[None], absV[None])),
    )
    overflow = np.where(np.maximum.reduce(every) < largest_number, 0.0, np.inf)  # it may overflow
    found = Bounds(*(np.where(np.isnan(e), np.inf, e * INFLATION + overflow) for e in found))
    return found._replace(loss=found.loss[..., 0, 0], b=found.b[..., 0, :], c=found.c[..., 0, :])


def find_largest(steps: Float[Array, "T *n B H"]) -> Float[Array, "*n 1 1"]:
    """Find the largest entry of each problem."""
    largest: Array = steps.max(axis=(0, -2, -1), keepdims=True)[0]
    return largest
