"""Bounds on the rounding error of a correct tangent: of the loss and of every gradient.

A running error analysis of forward mode and of Hessian-vector products. Every quantity is a pair:
a bound on the sum of the absolute products in it, and a bound on its error. Derived in
docs/derivation.md, section 18, (E15) and (E16). The forward pass is that of `bounds`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.tolerance.bounds import (
    ELEMENTARY,
    INFLATION,
    Array,
    Bounds,
    absolute,
    bound_forward,
    find_extent,
    find_format,
    gamma,
)
from jax_reference.rnn import Derivatives


class SecondDerivative(NamedTuple):
    """Constants of φ″: μ, max |φ‴|, and the errors of its evaluation in units of ε and of u."""

    ratio: float
    change: float
    of_function: float
    of_arithmetic: float


SECOND_DERIVATIVES = {
    "tanh": SecondDerivative(2, 2, 6, 16),
    "sigmoid": SecondDerivative(1, 1 / 8, 3, 16),
    "relu": SecondDerivative(0, 0, 0, 0),
    "identity": SecondDerivative(0, 0, 0, 0),
}


class Uncertain(NamedTuple):
    """A bound on the sum of the absolute products in a quantity, and a bound on its error."""

    size: Any
    error: Any

    def map(self, function: Callable[[Array], Array]) -> "Uncertain":
        """The pair with a function applied to both arrays, such as the transpose."""
        return Uncertain(function(self.size), function(self.error))

    def at(self, where: int | slice) -> "Uncertain":
        """The pair at one index, or at several, of the first axis."""
        return Uncertain(self.size[where], self.error[where])


class Arithmetic(NamedTuple):
    """Sums of products of uncertain quantities, in a format with unit roundoff u. (E15)."""

    u: float
    tiny: float

    def total(self, count: int, *products: Uncertain) -> Uncertain:
        """The sum of exact products, which rounds like `count` products."""
        size, error = (sum(each) for each in zip(*products, strict=True))
        return Uncertain(
            size,
            error + gamma(count + 3, self.u) * size + 2 * count * self.tiny,  # (E15)
        )


def times(left: Uncertain, right: Uncertain) -> Uncertain:
    """The product of two quantities, entry by entry, before rounding."""
    error = left.size * right.error + left.error * right.size  # (E15)
    return Uncertain(left.size * right.size, error)


def into(left: Uncertain, right: Uncertain) -> Uncertain:
    """The product of two matrices, before rounding."""
    error = left.size @ right.error + left.error @ right.size  # (E15)
    return Uncertain(left.size @ right.size, error)


def exact(values: Any) -> Uncertain:
    """A quantity without error, such as a weight; an absent bias is zero."""
    size = np.asarray(absolute(values))
    return Uncertain(size, np.zeros_like(size))


# A bound that overflows is infinite: inconclusive.
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def bound_tangents(
    params: Any,
    direction: Any,
    x: Array,
    y: Array,
    reference: Derivatives,
    *,
    dtype: Any,
    activation: str = "tanh",
    loss: str = "mse",
) -> Bounds:
    """Bounds on |computed − exact| for the tangents of all that `bounds` covers, in its layout.

    `direction` has the fields U, W, V, b, c, x and h0; None is zero. (D1) to (D13), by (E15).
    """
    form, extent = find_format(dtype), find_extent(params, x)
    u, tiny, most = form
    rules, tangent = Arithmetic(u, tiny), SECOND_DERIVATIVES[activation]
    forward = bound_forward(params, x, y, reference.states, form, extent, activation, loss)
    U, W, V, X = (exact(each) for each in (*params[:3], x))
    (T, B, D), (O, H) = X.size.shape, V.size.shape
    zeros = {
        "U": (H, D),
        "W": (H, H),
        "V": (O, H),
        "b": (H,),
        "c": (O,),
        "x": (T, B, D),
        "h0": (B, H),
    }
    moved = {
        name: exact(np.zeros(shape) if (part := getattr(direction, name)) is None else part)
        for name, shape in zeros.items()
    }
    h = Uncertain(forward.h, forward.err_h)
    slope = Uncertain(forward.slope + forward.err_slope, forward.err_slope)
    epsilon = ELEMENTARY * u
    rounded = tangent.of_function * epsilon + tangent.of_arithmetic * u
    second = Uncertain(
        tangent.ratio * slope.size,
        tangent.change * forward.err_a  # (E16)
        + rounded * (forward.h[1:] if activation == "sigmoid" else 1),
    )
    transposed = {n: each.map(np.transpose) for n, each in {"U": U, "W": W, "V": V}.items()}
    moved_T = {name: moved[name].map(np.transpose) for name in "UWV"}

    # Forward: the tangents of a_t and h_t.
    moved_h, moved_a = [moved["h0"]], []
    for t in range(1, T + 1):
        at, before = t - 1, h.at(t - 1)
        direct = [
            into(X.at(at), moved_T["U"]),
            into(moved["x"].at(at), transposed["U"]),
            into(before, moved_T["W"]),
            moved["b"],
        ]
        through = into(moved_h[-1], transposed["W"])
        moved_a.append(rules.total(2 * D + 2 * H + 1, *direct, through))
        moved_h.append(rules.total(1, times(slope.at(at), moved_a[-1])))

    # The output and the loss.
    last = h.at(-1)
    moved_y = rules.total(
        2 * H + 1, into(last, moved_T["V"]), into(moved_h[-1], transposed["V"]), moved["c"]
    )
    dy = Uncertain(forward.kappa * forward.r, forward.err_dy)
    moved_dy = rules.total(1, times(exact(forward.kappa), moved_y))
    value = rules.total(B * O, times(dy, moved_y).map(np.sum))

    # Backward: the adjoints with their tangents.
    dh = rules.total(O, into(dy, V))
    moved_dh = rules.total(2 * O, into(dy, moved["V"]), into(moved_dy, V))
    delta: list[Any] = [None] * T
    moved_delta: list[Any] = [None] * T
    for at in reversed(range(T)):
        here, curved = (each.at(at) for each in (slope, second))
        delta[at] = rules.total(1, times(dh, here))
        moved_delta[at] = rules.total(
            3, times(moved_dh, here), times(times(dh, curved), moved_a[at])
        )
        dh = rules.total(H, into(delta[at], W))
        moved_dh = rules.total(2 * H, into(delta[at], moved["W"]), into(moved_delta[at], W))

    def stacked(steps: list[Uncertain]) -> Uncertain:
        return Uncertain(*(np.concatenate(each) for each in zip(*steps, strict=True)))

    def over_time(*pairs: tuple[Uncertain, Uncertain]) -> Array:
        products = [into(left.map(np.transpose), right) for left, right in pairs]
        bound: Array = rules.total(len(pairs) * len(pairs[0][0].size), *products).error
        return bound

    def rows(of: Uncertain) -> Uncertain:
        return of.map(lambda each: each.reshape(-1, each.shape[-1]))

    deltas, moved_deltas, ones = stacked(delta), stacked(moved_delta), exact(np.ones((T * B, 1)))
    before = rows(h.at(slice(-1)))
    moved_before = stacked(moved_h[:-1])
    gradient_of_x = rules.total(2 * H, into(deltas, moved["U"]), into(moved_deltas, U))
    found = Bounds(
        loss=np.asarray(value.error),
        prediction=moved_y.error,
        U=over_time((moved_deltas, rows(X)), (deltas, rows(moved["x"]))),
        W=over_time((moved_deltas, before), (deltas, moved_before)),
        V=over_time((moved_dy, last), (dy, moved_h[-1])),
        b=over_time((moved_deltas, ones))[:, 0],
        c=over_time((moved_dy, exact(np.ones((B, 1)))))[:, 0],
        x=gradient_of_x.error.reshape(T, B, D),
        h0=moved_dh.error,
        adjoints=moved_deltas.error.reshape(T, B, H),
    )
    sizes = [value, *moved_a, moved_y, *delta, *moved_delta, dh, moved_dh, gradient_of_x]
    largest = max(float(np.max(each.size)) for each in sizes)
    if not largest * (1 + X.size.max() + h.size.max()) < most:
        return Bounds(*(np.full_like(bound, np.inf) for bound in found))  # it may overflow
    return Bounds(*(np.where(np.isnan(e), np.inf, e * INFLATION) for e in found))
