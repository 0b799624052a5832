"""The bound of docs/derivation.md, section 18, on tangents, evaluated one entry at a time.

Every line is (E15) for one of the equations (D1) to (D13), in plain numbers and loops. It shares no
code with `bptt_verifier.tolerance.tangent_bounds` but the forward pass of section 9, which
`stated_bound` states.
"""

from math import inf
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Problem
from bptt_verifier.tolerance.bounds import ForwardErrors

INFLATION = 1 + 2**-10


class Pair(NamedTuple):
    """The size of an entry, and its error."""

    size: float
    error: float


def pairs(sizes: Any, errors: Any = None) -> Any:
    """Arrays of pairs; without errors, those of exact numbers."""
    sizes = np.abs(np.float64(sizes))
    found = np.empty(sizes.shape, object)
    for at in np.ndindex(sizes.shape):
        found[at] = Pair(float(sizes[at]), 0.0 if errors is None else float(errors[at]))
    return found


def multiply(factors: tuple[Pair, ...]) -> Pair:
    """The product of some factors, the first two at first."""
    size, error = factors[0]
    for other in factors[1:]:
        size, error = size * other.size, size * other.error + error * other.size
    return Pair(size, error)


class Sums:
    """Sums of products (E15), and the largest of them."""

    def __init__(self, dtype: Any) -> None:
        self.u, self.nu = float(np.finfo(dtype).eps) / 2, float(np.finfo(dtype).smallest_normal)
        self.largest = 0.0

    def add(self, *products: tuple[Pair, ...]) -> Pair:
        """Add products of one or two factors, and of three, which round as two products do."""
        n = sum(max(1, len(factors) - 1) for factors in products)
        found = [multiply(factors) for factors in products]
        size, error = (sum(each) for each in zip(*found, strict=True))
        gamma = (n + 3) * self.u / (1 - (n + 3) * self.u) if (n + 3) * self.u < 1 else inf
        self.largest = max(self.largest, size)
        return Pair(size, error + gamma * size + 2 * n * self.nu)


def stated_tangent_bound(
    problem: Problem, direction: Any, forward: ForwardErrors, dtype: Any
) -> tuple[dict[str, Any], float]:
    """The bound on every tangent, by name, and the largest size of a number inside."""
    T, B, D, H, O = problem.sizes
    activation, sums = problem.option["activation"], Sums(dtype)
    add, u = sums.add, sums.u
    batch, hidden, inputs, outputs = range(B), range(H), range(D), range(O)
    U, W, V = (pairs(problem.weights[name]) for name in "UWV")
    x, h = pairs(problem.x), pairs(forward.h, forward.err_h)
    dU, dW, dV, db, dc, dx, dh0 = (
        pairs(np.zeros(shape) if getattr(direction, name) is None else getattr(direction, name))
        for name, shape in (
            ("U", (H, D)), ("W", (H, H)), ("V", (O, H)), ("b", (H,)), ("c", (O,)),
            ("x", (T, B, D)), ("h0", (B, H)),
        )
    )  # fmt: skip
    slope = pairs(forward.slope + forward.err_slope, forward.err_slope)
    ratio, change = {"tanh": (2, 2), "sigmoid": (1, 1 / 8)}.get(activation, (0, 0))
    rounded: dict[str, Any] = {
        "tanh": 6 * 16 * u + 16 * u,
        "sigmoid": (3 * 16 * u + 16 * u) * forward.h[1:],
    }
    second = pairs(  # (E16)
        ratio * (forward.slope + forward.err_slope),
        np.broadcast_to(change * forward.err_a + rounded.get(activation, 0), slope.shape),
    )

    moved_h, moved_a = np.empty((T + 1, B, H), object), np.empty((T, B, H), object)
    moved_h[0] = dh0
    for t, n, i in np.ndindex(T, B, H):
        moved_a[t, n, i] = add(  # (D1)
            *((dU[i, j], x[t, n, j]) for j in inputs), *((U[i, j], dx[t, n, j]) for j in inputs),
            *((dW[i, j], h[t, n, j]) for j in hidden),
            *((W[i, j], moved_h[t, n, j]) for j in hidden), (db[i],),
        )  # fmt: skip
        moved_h[t + 1, n, i] = add((slope[t, n, i], moved_a[t, n, i]))  # (D2)

    dy, kappa = pairs(forward.kappa * forward.r, forward.err_dy), Pair(float(forward.kappa), 0.0)
    moved_y, moved_dy = np.empty((B, O), object), np.empty((B, O), object)
    for n, o in np.ndindex(B, O):
        moved_y[n, o] = add(  # (D3)
            *((dV[o, i], h[T, n, i]) for i in hidden),
            *((V[o, i], moved_h[T, n, i]) for i in hidden), (dc[o],),
        )  # fmt: skip
        moved_dy[n, o] = add((kappa, moved_y[n, o]))
    value = add(*((dy[n, o], moved_y[n, o]) for n in batch for o in outputs))  # (D4)

    dh, moved_dh = (np.empty((T + 1, B, H), object) for _ in range(2))
    delta, moved_delta = (np.empty((T, B, H), object) for _ in range(2))
    for n, i in np.ndindex(B, H):
        dh[T, n, i] = add(*((V[o, i], dy[n, o]) for o in outputs))
        moved_dh[T, n, i] = add(  # (D5)
            *((dV[o, i], dy[n, o]) for o in outputs),
            *((V[o, i], moved_dy[n, o]) for o in outputs),
        )
    for t in reversed(range(T)):
        for n, i in np.ndindex(B, H):
            here = t, n, i
            delta[here] = add((dh[t + 1, n, i], slope[here]))
            moved_delta[here] = add(  # (D6)
                (moved_dh[t + 1, n, i], slope[here]),
                (dh[t + 1, n, i], second[here], moved_a[here]),
            )
        for n, i in np.ndindex(B, H):
            dh[t, n, i] = add(*((W[j, i], delta[t, n, j]) for j in hidden))
            moved_dh[t, n, i] = add(  # (D7)
                *((dW[j, i], delta[t, n, j]) for j in hidden),
                *((W[j, i], moved_delta[t, n, j]) for j in hidden),
            )

    every, one, inside = [(t, n) for t in range(T) for n in batch], Pair(1.0, 0.0), sums.largest

    def over(first: Any, last: Any, other: Any, moved: Any, i: int, j: int) -> Pair:
        return add(
            *((first[t, n, i], last[t, n, j]) for t, n in every),
            *((other[t, n, i], moved[t, n, j]) for t, n in every),
        )

    found = {
        "loss": value,
        "prediction": moved_y,
        "U": [[over(moved_delta, x, delta, dx, i, j) for j in inputs] for i in hidden],  # (D8)
        "W": [[over(moved_delta, h, delta, moved_h, i, j) for j in hidden] for i in hidden],  # (D9)
        "V": [  # (D10)
            [
                add(*((moved_dy[n, o], h[T, n, i]) for n in batch),
                    *((dy[n, o], moved_h[T, n, i]) for n in batch))
                for i in hidden
            ]
            for o in outputs
        ],
        "b": [add(*((moved_delta[t, n, i], one) for t, n in every)) for i in hidden],  # (D11)
        "c": [add(*((moved_dy[n, o], one) for n in batch)) for o in outputs],  # (D12)
        "x": [  # (D13)
            [
                [
                    add(*((dU[i, j], delta[t, n, i]) for i in hidden),
                        *((U[i, j], moved_delta[t, n, i]) for i in hidden))
                    for j in inputs
                ]
                for n in batch
            ]
            for t in range(T)
        ],
        "h0": moved_dh[0],
        "adjoints": moved_delta,
    }  # fmt: skip
    inside = max(inside, float(np.max(np.array(found["x"], float)[..., 0])))
    bounds = {}
    for name, each in found.items():
        entries = each.tolist() if isinstance(each, np.ndarray) else each
        bounds[name] = INFLATION * np.array(entries, float)[..., 1]
    return bounds, inside
