"""Mistakes that one gradient makes on its own, given a right way back through time.

Each is the gradient that results, as a function of the sweep, and is seen in that gradient alone.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bptt_verifier.mistakes.recursions import FACTORS, Swept, sizes_of
from bptt_verifier.problems.problem import Sizes
from bptt_verifier.report.report import Mistake
from bptt_verifier.tolerance.comparison import Array


def transposed(g: Array) -> Array:
    """The transpose, where it has the same shape."""
    return g.T if g.ndim == 2 and g.shape[0] == g.shape[1] else g


def outer(left: Array, right: Array) -> Array:
    """Σ_t Σ_b left_t right_tᵀ."""
    total: Array = np.einsum("tbh,tbk->hk", left, right)
    return total


def gradient(s: Swept, name: str) -> Array:
    """The right gradient of this name, given the sweep: (B3) to (B9)."""
    x, h, U = s.states.x, s.states.h, s.states.params.U
    rules: dict[str, Callable[[], Array]] = {
        "U": lambda: outer(s.adjoints, x),
        "W": lambda: outer(s.adjoints, h[:-1]),
        "V": lambda: np.einsum("bo,bh->oh", s.dy, h[-1]),
        "b": lambda: s.adjoints.sum(axis=(0, 1)),
        "c": lambda: s.dy.sum(axis=0),
        "x": lambda: s.adjoints @ U,
        "h0": lambda: s.dh[0],
        "adjoints": lambda: s.adjoints,
    }
    return rules[name]()


EQUATIONS = {
    "U": "B4", "W": "B5", "V": "B6", "b": "B7", "c": "B8", "x": "B9", "h0": "B3", "adjoints": "B2",
}  # fmt: skip
GRADIENTS = tuple(EQUATIONS)

Leaf = tuple[str, str, Callable[[Any], Array]]  # name, explanation, the gradient that results


def later(values: Array) -> Array:
    """What stands at t+1 moved to t; zero at the end."""
    return np.concatenate([values[1:], np.zeros_like(values[:1])])


def earlier(values: Array) -> Array:
    """What stands at t-1 moved to t; zero at the beginning."""
    return np.concatenate([np.zeros_like(values[:1]), values[:-1]])


# fmt: off
OF_U: list[Leaf] = [
    ("input-off-by-one", "x_{t-1} is used where x_t belongs", lambda s: outer(s.adjoints[1:], s.states.x[:-1])),
    ("input-off-by-one", "x_{t+1} is used where x_t belongs", lambda s: outer(s.adjoints[:-1], s.states.x[1:])),
    ("negative-index-wraps-around", "x_{t-1} is used where x_t belongs, and the index −1 wraps around to the last input", lambda s: outer(s.adjoints, np.roll(s.states.x, 1, axis=0))),
]
OF_W: list[Leaf] = [
    ("hidden-state-off-by-one", "h_t is used where h_{t-1} belongs", lambda s: outer(s.adjoints, s.states.h[1:])),
    ("hidden-state-off-by-one", "h_{t-2} is used where h_{t-1} belongs", lambda s: outer(s.adjoints[1:], s.states.h[:-2])),
    ("negative-index-wraps-around", "at t = 1 the index −1 wraps around: h_T is used where h_0 belongs", lambda s: outer(s.adjoints, np.concatenate([s.states.h[-1:], s.states.h[1:-1]]))),
    ("negative-index-wraps-around", "h_{t-2} is used where h_{t-1} belongs, and the index −1 wraps around to the last state", lambda s: outer(s.adjoints, np.concatenate([s.states.h[-1:], s.states.h[:-2]]))),
    ("wrong-operand", "the pre-activation a_{t-1} is used where the state h_{t-1} belongs", lambda s: outer(s.adjoints, np.concatenate([s.states.h[:1], s.states.a[:-1]]))),
    ("wrong-operand", "the pre-activation a_t is used where the state h_{t-1} belongs", lambda s: outer(s.adjoints, s.states.a)),
    ("wrong-operand", "h_0 is used at every step where h_{t-1} belongs", lambda s: outer(s.adjoints, np.repeat(s.states.h[:1], s.states.T, axis=0))),
]
OF_V_IN_ANY_CELL: list[Leaf] = [
    ("hidden-state-off-by-one", "h_{T-1} is used where h_T belongs", lambda s: np.einsum("bo,bh->oh", s.dy, s.states.h[-2])),
    ("wrong-operand", "h_0 is used where h_T belongs", lambda s: np.einsum("bo,bh->oh", s.dy, s.states.h[0])),
    ("wrong-operand", "h_1 is used where h_T belongs", lambda s: np.einsum("bo,bh->oh", s.dy, s.states.h[1])),
    ("output-gradient-at-every-step", "∂L/∂ŷ h_tᵀ is summed over all steps, but only h_T is seen by the output", lambda s: np.einsum("bo,tbh->oh", s.dy, s.states.h[1:])),
]
OF_V: list[Leaf] = [
    *OF_V_IN_ANY_CELL,
    ("wrong-operand", "the pre-activation a_T is used where the state h_T belongs", lambda s: np.einsum("bo,bh->oh", s.dy, s.states.a[-1])),
]
OF_B: list[Leaf] = [
    ("bias-part-missing", "only the first sequence of the batch contributes", lambda s: s.adjoints[:, 0].sum(axis=0)),
]
OF_C: list[Leaf] = [
    ("bias-part-missing", "only the first sequence of the batch contributes", lambda s: s.dy[0]),
    ("bias-part-missing", "only the last sequence of the batch contributes", lambda s: s.dy[-1]),
]
OF_X: list[Leaf] = [
    ("untransposed-recurrent-weight", "U or W is applied untransposed", lambda s: s.adjoints @ transposed(s.states.params.U)),
    ("input-off-by-one", "δ_{t+1} is used where δ_t belongs", lambda s: later(s.adjoints) @ s.states.params.U),
    ("input-off-by-one", "δ_{t-1} is used where δ_t belongs", lambda s: earlier(s.adjoints) @ s.states.params.U),
    ("activation-derivative-missing", "∂L/∂h_t is used where δ_t belongs", lambda s: s.dh[1:] @ s.states.params.U),
]
OF_H0: list[Leaf] = [
    ("wrong-operand", "δ_1 is returned where Wᵀ δ_1 belongs", lambda s: s.adjoints[0]),
    ("wrong-operand", "∂L/∂h_1 is returned where ∂L/∂h_0 belongs", lambda s: s.dh[1]),
    ("untransposed-recurrent-weight", "W is used where Wᵀ belongs", lambda s: s.adjoints[0] @ s.states.params.W.T),
]
OF_ADJOINTS: list[Leaf] = [
    ("wrong-operand", "∂L/∂h_t is returned where δ_t belongs", lambda s: s.dh[1:]),
    ("first-step-skipped", "δ_1 is zero", lambda s: np.concatenate([0 * s.adjoints[:1], s.adjoints[1:]])),
    ("last-step-skipped", "δ_T is zero", lambda s: np.concatenate([s.adjoints[:-1], 0 * s.adjoints[-1:]])),
    ("hidden-state-off-by-one", "the adjoints are returned in reverse order of time", lambda s: s.adjoints[::-1]),
]
# fmt: on


Said = tuple[str, str, dict[str, Any], Any]  # name, explanation, details, the gradient
Rule = Callable[[Any, str], Array]  # the right gradient of a name, from a sweep


def of_any(name: str, sizes: Sizes, yours: Array, right: Rule) -> Iterator[Said]:
    """Mistakes that any gradient can make; a clipping value is read from `yours`."""
    yield "zero-gradient", "every entry is zero", {}, lambda s: 0 * right(s, name)
    yield "sign-flipped", "the sign is wrong", {}, lambda s: -right(s, name)
    for factor_name, factor in FACTORS.items():
        yield (
            "constant-factor",
            f"every entry is {factor_name} times what it should be",
            {"factor": factor_name, "value": factor(sizes)},
            lambda s, factor=factor: factor(sizes_of(s.states)) * right(s, name),
        )
    limit = float(np.max(np.abs(yours), initial=0.0))
    if limit > 0:
        yield (
            "clipped",
            f"the gradient is clipped to ±{limit:.6g}; return what is derived, and clip afterwards",
            {"value": limit},
            lambda s: np.clip(right(s, name), -limit, limit),
        )


def sums_over_time(name: str, longest: int, right: Rule) -> Iterator[Said]:
    """Mistakes in the sum over time of a weight's or bias' gradient: which steps are summed."""

    def part(steps: slice, s: Any) -> Array:
        kept = np.zeros_like(s.adjoints)
        kept[steps] = s.adjoints[steps]
        return right(s._replace(adjoints=kept), name)

    missing = "bias-part-missing" if name.startswith("b") else "missing-time-sum"
    for which, steps in (("last", slice(-1, None)), ("first", slice(0, 1))):
        yield (
            missing,
            f"the sum over time is missing: only the {which} step is kept",
            {"kept": which},
            lambda s, steps=steps: part(steps, s),
        )
    yield "first-step-skipped", "the first step is left out", {}, lambda s: part(slice(1, None), s)
    yield "last-step-skipped", "the last step is left out", {}, lambda s: part(slice(0, -1), s)
    for kept in range(2, longest):
        yield (
            "truncated",
            f"only the last {kept} steps are summed",
            {"steps": kept},
            lambda s, kept=kept: part(slice(-kept, None), s),
        )


def mistake_in(name: str, kind: str, explanation: str, equation: str, **details: Any) -> Mistake:
    """What is said of a mistake in one gradient."""
    said = f"in ∂L/∂{name}, {explanation}." if name != "adjoints" else f"{explanation}."
    return Mistake(kind, said, {"gradient": name, **details}, equation)


def leaves(name: str, sizes: Sizes, yours: Array, *, longest: int) -> Iterator[tuple[Mistake, Any]]:
    """Every mistake that one gradient can make on its own, and the gradient that results.

    `yours` is the gradient found on the failing case.
    """
    own: dict[str, list[Leaf]] = {
        "U": OF_U, "W": OF_W, "V": OF_V, "b": OF_B, "c": OF_C, "x": OF_X, "h0": OF_H0,
        "adjoints": OF_ADJOINTS,
    }  # fmt: skip
    found = [*of_any(name, sizes, yours, gradient)]
    if name in "UWV":
        found.append(
            (
                "transposed-gradient",
                "the result is transposed; it shows where the matrix is square",
                {},
                lambda s: transposed(gradient(s, name)),
            )
        )
    found += [(kind, said, {}, way) for kind, said, way in own[name]]
    if name in "UWb":
        found += sums_over_time(name, longest, gradient)
        found.append(
            (
                "activation-derivative-missing",
                "∂L/∂h_t is used where δ_t belongs",
                {},
                lambda s: gradient(s._replace(adjoints=s.dh[1:]), name),
            )
        )
    for kind, said, details, way in found:
        yield mistake_in(name, kind, said, EQUATIONS[name], **details), way
