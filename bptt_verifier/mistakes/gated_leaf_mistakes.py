"""Mistakes that one gradient of an LSTM or a GRU makes on its own, given a right way back.

The twin of `leaf_mistakes`: what any gradient can make is there, what has to do with gates is here.
"""

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import numpy as np

from bptt_verifier.mistakes.gated_mistakes import OFF, OPERAND, WRAPS
from bptt_verifier.mistakes.gated_recursion import States, Swept, value
from bptt_verifier.mistakes.single_gradients import (
    OF_B,
    OF_C,
    OF_U,
    OF_V_IN_ANY_CELL,
    Leaf,
    Said,
    earlier,
    later,
    mistake_in,
    of_any,
    outer,
    sums_over_time,
    transposed,
)
from bptt_verifier.problems.problem import Sizes
from bptt_verifier.report.report import Mistake
from bptt_verifier.tolerance.comparison import Array

EQUATIONS = {
    "lstm": {"U": "S12", "W": "S13", "b": "S14", "x": "S15", "h0": "S11", "c0": "S10"},
    "gru": {"U": "G15", "W": "G13", "b": "G16", "b_n": "G18", "x": "G17", "h0": "G12"},
}
OF_THE_OUTPUT = {"V": "B6", "c": "B8"}
NAMES = ("U", "W", "V", "b", "c", "b_n", "x", "h0", "c0", "adjoints")

# By gate: the factors of what W_k multiplied, and those beside δ_k of the adjoint of that product.
Met = dict[str, tuple[tuple[str, ...], tuple[str, ...]]]


def how_met(states: States) -> Met:
    """What stands in (S13), or in (G13) and (G14)."""
    met: Met = dict.fromkeys(states.gates, (("h_{t-1}",), ()))
    if states.problem.cell == "gru":
        after = states.problem.option["reset"] == "after"
        met["n"] = (("h_{t-1}",), ("r_t",)) if after else (("r_t", "h_{t-1}"), ())
    return met


def deltas(s: Swept) -> dict[str, Array]:
    """δ_t of each gate."""
    H = s.dh.shape[-1]
    return {k: s.adjoints[:, :, i * H : (i + 1) * H] for i, k in enumerate(s.states.gates)}


def times(s: Swept, found: Array, factors: tuple[str, ...]) -> Array:
    """The values of all steps, times those of some symbols."""
    for factor in factors:
        found = found * value(s.states, factor)
    return found


def of_W(s: Swept, met: Met) -> Array:
    """Each gate's δᵂ_t q_tᵀ, summed over time."""
    parts = [
        outer(times(s, delta, met[k][1]), times(s, np.ones(()), met[k][0]))
        for k, delta in deltas(s).items()
    ]
    return np.concatenate(parts)


def of_b_n(s: Swept, beside: tuple[str, ...]) -> Array:
    """δᵂ_t of the candidate, summed over time."""
    total: Array = times(s, deltas(s)["n"], beside).sum(axis=(0, 1))
    return total


RIGHT: dict[str, Callable[[Swept], Array]] = {
    "U": lambda s: outer(s.adjoints, s.states.x),
    "W": lambda s: of_W(s, how_met(s.states)),
    "V": lambda s: np.einsum("bo,bh->oh", s.dy, s.states.h[-1]),
    "b": lambda s: s.adjoints.sum(axis=(0, 1)),
    "c": lambda s: s.dy.sum(axis=0),
    "b_n": lambda s: of_b_n(s, how_met(s.states)["n"][1]),
    "x": lambda s: s.adjoints @ s.states.params.U,
    "h0": lambda s: s.dh[0],
    "c0": lambda s: s.dc[0],
    "adjoints": lambda s: s.adjoints,
}


def gradient(s: Swept, name: str) -> Array:
    """The right gradient of this name, given the sweep."""
    return RIGHT[name](s)


def of_gates(states: States, name: str) -> Iterator[Said]:
    """The gates' parts of one gradient in each other's place, or each transposed."""
    axis, gates = (-1 if name == "adjoints" else 0), states.gates

    def parts(s: Swept) -> list[Array]:
        return np.split(gradient(s, name), len(gates), axis=axis)

    places = tuple(range(len(gates)))
    of_another = [
        tuple(k if place == i else place for place in places)
        for i in places
        for k in places
        if i != k
    ]
    for order in (*of_another, *list(permutations(places))[1:]):
        used = {gates[i]: gates[k] for i, k in enumerate(order) if i != k}
        yield (
            OPERAND,
            ", ".join(f"the part of {k} stands where that of {i} belongs" for i, k in used.items()),
            {"used": used},
            lambda s, order=order: np.concatenate([parts(s)[k] for k in order], axis=axis),
        )
    if name in "UW":
        yield (
            "transposed-gradient",
            "each gate's part is transposed; it shows where it is square",
            {},
            lambda s: np.concatenate([transposed(part) for part in parts(s)]),
        )


def of_weights(states: States) -> Iterator[Said]:
    """Another operand than the state that W met, for all gates or for one."""
    met, every = how_met(states), states.gates
    cells = ("c_{t-1}", "c_t", "tanh(c_{t-1})") if states.cells is not None else ()
    operands = [
        (OFF, "h_t"),
        (OFF, "h_{t-2}"),
        (OFF, "h_{t-2} (zero at t = 1)"),
        (WRAPS, "h_{t-1} (at t = 1: h_T)"),
        (WRAPS, "h_{t-2} (at t = 1: h_T)"),
        (OPERAND, "h_0"),
        *((OPERAND, cell) for cell in cells),
    ]
    for gates in (every, *((k,) for k in every)):
        where = "" if gates == every else f" in the part of {gates[0]}"
        for kind, other in operands:
            wrong: Met = {
                k: (tuple(other if f == "h_{t-1}" else f for f in met[k][0]), met[k][1])
                for k in gates
            }
            yield (
                kind,
                f"{other} is used where h_{{t-1}} belongs{where}",
                {"used": other},
                lambda s, wrong=wrong: of_W(s, met | wrong),
            )


def of_the_reset_gate(states: States, name: str) -> Iterator[Said]:
    """r_t forgotten, or multiplied where it does not belong, in the candidate's part."""
    met = how_met(states)
    if "n" not in met:
        return
    _, beside = met["n"]
    if name == "W":
        for said, other in (
            (f"r_t is forgotten beside {'δ_n' if beside else 'the state'}", (("h_{t-1}",), ())),
            ("r_t multiplies δ_n and not the state", (("h_{t-1}",), ("r_t",))),
            ("r_t multiplies the state and not δ_n", (("r_t", "h_{t-1}"), ())),
        ):
            if other != met["n"]:
                wrong: Met = {"n": other}
                yield OPERAND, said, {}, lambda s, wrong=wrong: of_W(s, met | wrong)
    elif name == "b_n":
        said = "r_t is forgotten beside δ_n" if beside else "δ_n is multiplied by r_t"
        yield OPERAND, said, {}, lambda s: of_b_n(s, () if beside else ("r_t",))
    elif name in ("U", "b", "x", "adjoints"):

        def multiplied(s: Swept) -> Array:
            parts = deltas(s) | {"n": times(s, deltas(s)["n"], ("r_t",))}
            return gradient(
                s._replace(adjoints=np.concatenate(list(parts.values()), axis=-1)), name
            )

        yield OPERAND, "δ_n is multiplied by r_t, which acts beside W_n alone", {}, multiplied


def of_x(states: States) -> Iterator[Said]:
    """δ_t of another step, or of some of the gates only."""
    for said, moved in (("δ_{t+1}", later), ("δ_{t-1}", earlier)):
        yield (
            "input-off-by-one",
            f"{said} is used where δ_t belongs",
            {},
            lambda s, moved=moved: moved(s.adjoints) @ s.states.params.U,
        )
    for k in states.gates:

        def through(s: Swept, k: str = k) -> Array:
            alone = [delta if gate == k else 0 * delta for gate, delta in deltas(s).items()]
            return gradient(s._replace(adjoints=np.concatenate(alone, axis=-1)), "x")

        yield OPERAND, f"only δ_{k} contributes", {"kept": k}, through
        yield (
            OPERAND,
            f"δ_{k} does not contribute",
            {"missing": k},
            lambda s, through=through: gradient(s, "x") - through(s),
        )


def of_first_states(states: States, name: str) -> Iterator[Said]:
    """∂L/∂h_0 or ∂L/∂c_0: of step 1, or of the other state."""
    letter = name[0]
    said = f"∂L/∂{letter}_1 is returned where ∂L/∂{letter}_0 belongs"
    yield OPERAND, said, {}, lambda s: (s.dh if name == "h0" else s.dc)[1]
    if states.cells is not None:
        other = "c0" if name == "h0" else "h0"
        yield OPERAND, f"∂L/∂{other} is returned", {"other": other}, lambda s: gradient(s, other)


OF_ADJOINTS: list[Leaf] = [
    ("first-step-skipped", "δ_1 is zero", lambda s: earlier(later(s.adjoints))),
    ("last-step-skipped", "δ_T is zero", lambda s: later(earlier(s.adjoints))),
    (OFF, "the adjoints are returned in reverse order of time", lambda s: s.adjoints[::-1]),
]
SHARED: dict[str, list[Leaf]] = {
    "U": OF_U, "V": OF_V_IN_ANY_CELL, "b": OF_B, "c": OF_C, "adjoints": OF_ADJOINTS,
}  # fmt: skip


def leaves(
    name: str, sizes: Sizes, yours: Array, *, states: States, longest: int
) -> Iterator[tuple[Mistake, Any]]:
    """Every mistake that one gradient can make on its own, and the gradient that results.

    `yours` is the gradient found on the failing case, and `states` say which cell it is.
    """
    found = [*of_any(name, sizes, yours, gradient)]
    found += [(kind, said, {}, way) for kind, said, way in SHARED.get(name, [])]
    if name == "V":
        of_V = "transposed-gradient", "the result is transposed; it shows where O = H"
        found.append((*of_V, {}, lambda s: transposed(gradient(s, "V"))))
    if name in ("U", "W", "b", "b_n"):
        found += sums_over_time(name, longest, gradient)
    if name == "W":
        found += of_weights(states)
    if name == "x":
        found += of_x(states)
    if name in ("h0", "c0"):
        found += of_first_states(states, name)
    if name in ("U", "W", "b", "adjoints"):
        found += of_gates(states, name)
    found += of_the_reset_gate(states, name)
    of_the_first_gate = next(line.tag for line in states.way_back if line.result[0] == "δ")
    equations = EQUATIONS[states.problem.cell] | OF_THE_OUTPUT | {"adjoints": of_the_first_gate}
    for kind, said, details, way in found:
        yield mistake_in(name, kind, said, equations[name], **details), way
