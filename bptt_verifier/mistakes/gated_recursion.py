"""The way back through an LSTM or a GRU as a list of equations that can be changed place by place.

Each equation is a sum of terms, each term a product of factors; as they stand, they are (S5) to
(S11), or (G6) to (G12), of docs/derivation.md. `gated_mistakes` changes them.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import CELLS, Variant
from bptt_verifier.tolerance.comparison import Array
from manual_bptt import losses
from manual_bptt.activations import ACTIVATIONS

FUNCTIONS = {
    "lstm": {"i": "σ", "f": "σ", "g": "tanh", "o": "σ"},
    "gru": {"r": "σ", "z": "σ", "n": "tanh"},
}
SLOPES = {"σ": ACTIVATIONS["sigmoid"], "tanh": ACTIVATIONS["tanh"]}

DH, DC = "∂L/∂h_t", "∂L/∂c_t"
FROM_NEXT = "∂L/∂c_{t→}"  # what comes from the next step alone
# What an equation hands to the step before, and what that step calls it.
CARRIED = {"∂L/∂h_{t-1}": DH, "∂L/∂c_{t-1}": FROM_NEXT}


class Term(NamedTuple):
    """A product, entry by entry; with `through`, W_kᵀ is applied to it, and `after` follows."""

    factors: tuple[str, ...]
    through: str = ""
    after: tuple[str, ...] = ()
    times: float = 1.0
    transposed: bool = True

    def __str__(self) -> str:
        several = len(self.factors) > 1
        inner = " ⊙ ".join(f"({f})" if several and " " in f else f for f in self.factors)
        if self.through:
            inner = f"W_{self.through}ᵀ " + (f"({inner})" if several else inner)
            inner = " ⊙ ".join([f"({inner})" if self.after else inner, *self.after])
        return inner


class Equation(NamedTuple):
    """One line of the way back at step t, by its tag in docs/derivation.md."""

    tag: str
    result: str
    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return f"{self.result} = {' + '.join(map(str, self.terms))}"


LSTM = (
    Equation("S5", DC, (Term((FROM_NEXT,)), Term((DH, "o_t", "tanh′(c_t)")))),
    Equation("S6", "δ_i", (Term((DC, "g_t", "σ′(a_{i,t})")),)),
    Equation("S7", "δ_f", (Term((DC, "c_{t-1}", "σ′(a_{f,t})")),)),
    Equation("S8", "δ_g", (Term((DC, "i_t", "tanh′(a_{g,t})")),)),
    Equation("S9", "δ_o", (Term((DH, "tanh(c_t)", "σ′(a_{o,t})")),)),
    Equation("S10", "∂L/∂c_{t-1}", (Term((DC, "f_t")),)),
    Equation("S11", "∂L/∂h_{t-1}", tuple(Term((f"δ_{k}",), k) for k in "ifgo")),
)
CANDIDATE = (
    Equation("G6", "δ_n", (Term((DH, "1 − z_t", "tanh′(a_{n,t})")),)),
    Equation("G7", "δ_z", (Term((DH, "h_{t-1} − n_t", "σ′(a_{z,t})")),)),
)
PAST = (Term((DH, "z_t")), Term(("δ_r",), "r"), Term(("δ_z",), "z"))
GRU_AFTER = (
    *CANDIDATE,
    Equation("G8", "δ_r", (Term(("δ_n", "W_n h_{t-1} + b_n", "σ′(a_{r,t})")),)),
    Equation("G12", "∂L/∂h_{t-1}", (*PAST, Term(("δ_n", "r_t"), "n"))),
)
GRU_BEFORE = (
    *CANDIDATE,
    Equation("G10", "δ_r", (Term(("δ_n",), "n", ("h_{t-1}", "σ′(a_{r,t})")),)),
    Equation("G12", "∂L/∂h_{t-1}", (*PAST, Term(("δ_n",), "n", ("r_t",)))),
)


class States(NamedTuple):
    """The forward pass in float64; `values` are those of every symbol, of step t at index t-1."""

    problem: Variant
    params: Any
    x: Array
    h: Array
    cells: Array | None
    values: dict[str, Array]
    W: dict[str, Array]  # by gate
    dy: Array

    @property
    def T(self) -> int:
        """The number of steps."""
        return len(self.x)

    @property
    def gates(self) -> tuple[str, ...]:
        """The gates' letters in the order in which they are packed."""
        return tuple(FUNCTIONS[self.problem.cell])

    @property
    def way_back(self) -> tuple[Equation, ...]:
        """The equations of one step back, in the order in which they are computed."""
        if self.problem.cell == "lstm":
            return LSTM
        return GRU_AFTER if self.problem.option["reset"] == "after" else GRU_BEFORE


class Swept(NamedTuple):
    """What the way back leaves: ∂L/∂ŷ, ∂L/∂h_t and ∂L/∂c_t at index t, the packed δ_t at t-1."""

    states: States
    dy: Array
    dh: Array
    dc: Array
    adjoints: Array


# A value at step t, from those of all steps.
EARLIER, WRAPPED = " of the step before", " of the step before, of step T at t = 1"
LATER = " of the step after"
SHIFTS: dict[str, Callable[[Array], Array]] = {
    EARLIER: lambda v: np.concatenate([v[:1], v[:-1]]),
    WRAPPED: lambda v: np.roll(v, 1, axis=0),
    LATER: lambda v: np.concatenate([v[1:], v[-1:]]),
}


def value(s: States, symbol: str) -> Array:
    """The values (T, B, H) of a symbol of the forward pass."""
    if symbol in s.values:
        return s.values[symbol]
    suffix = next(suffix for suffix in SHIFTS if symbol.endswith(suffix))
    return SHIFTS[suffix](s.values[symbol.removesuffix(suffix)])


def of_a_state(letter: str, s: Array) -> dict[str, Array]:
    """The values of h or c, of the states 0 to T, as the steps see them."""
    return {
        f"{letter}_{{t-1}}": s[:-1],
        f"{letter}_t": s[1:],
        f"{letter}_{{t-2}}": np.concatenate([s[:1], s[:-2]]),
        f"{letter}_{{t-2}} (zero at t = 1)": np.concatenate([0 * s[:1], s[:-2]]),
        f"{letter}_{{t-1}} (at t = 1: {letter}_T)": np.concatenate([s[-1:], s[1:-1]]),
        f"{letter}_{{t-2}} (at t = 1: {letter}_T)": np.concatenate([s[-1:], s[:-2]]),
        f"{letter}_0": np.repeat(s[:1], len(s) - 1, axis=0),
    }


def forward(problem: Variant) -> States:
    """The forward pass of a problem, and ∂L/∂ŷ, in float64 whatever its dtype."""

    def wide(found: Array | None) -> Any:
        return None if found is None else found.astype(np.float64)

    params = type(problem.params)(*map(wide, problem.params))
    first = {name: wide(state) for name, state in problem.first.items()}
    x = wide(problem.x)
    prediction, trace = CELLS[problem.cell].forward(params, x, **first, **problem.option)
    dy = losses.find(problem.loss).gradient(prediction, wide(problem.y))
    functions = FUNCTIONS[problem.cell]
    a, gates = (
        dict(zip(functions, np.split(v, len(functions), -1), strict=True)) for v in trace[1:3]
    )
    values = {"x_t": x, **of_a_state("h", trace.h)}
    for k, own in functions.items():
        values |= {f"{k}_t": gates[k], f"1 − {k}_t": 1 - gates[k], f"a_{{{k},t}}": a[k]}
        for name, phi in SLOPES.items():
            h = phi.function(a[k])
            values[f"{name}′(a_{{{k},t}})"] = phi.derivative(a[k], h)
            # The other function's φ′ as a formula of h, given this one's h.
            values[f"{name}′ with h = {k}_t"] = phi.derivative(a[k], gates[k])
        phi = SLOPES[own]
        values[f"{own}′({k}_t)"] = phi.derivative(gates[k], phi.function(gates[k]))
    cells = getattr(trace, "cells", None)
    if cells is not None:
        c, tanh, sigmoid = cells[1:], SLOPES["tanh"], SLOPES["σ"]
        tanh_c = np.tanh(c)
        values |= of_a_state("c", cells) | {
            "tanh(c_t)": tanh_c,
            "tanh(c_{t-1})": np.tanh(cells[:-1]),
            "tanh′(c_t)": tanh.derivative(c, tanh_c),
            "tanh′(c_{t-1})": tanh.derivative(cells[:-1], np.tanh(cells[:-1])),
            "tanh′(tanh(c_t))": tanh.derivative(tanh_c, np.tanh(tanh_c)),
            "σ′(c_t)": sigmoid.derivative(c, sigmoid.function(c)),
        }
    else:
        h, n = trace.h, gates["n"]
        bias = 0 if params.b_n is None else params.b_n
        values |= {
            "W_n h_{t-1} + b_n": trace.recurrent,
            "W_n h_{t-1}": trace.recurrent - bias,
            "W_n h_t + b_n": h[1:] @ np.split(params.W, 3)[2].T + bias,
            "h_{t-1} − n_t": h[:-1] - n,
            "n_t − h_{t-1}": n - h[:-1],
            "h_t − n_t": h[1:] - n,
            "h_{t-1} − n_t (at t = 1: h_T)": np.concatenate([h[-1:], h[1:-1]]) - n,
        }
    W = dict(zip(functions, np.split(params.W, len(functions)), strict=True))
    return States(problem, params, x, trace.h, cells, values, W, dy)


Way = Mapping[Any, Any]  # what is changed, by place


def sweep(s: States, way: Way) -> Swept:
    """Back through time, with these changes."""

    def as_it_is(*given: Any) -> Any:
        return given[-1]

    dy = way["output"](s) if "output" in way else s.dy
    V = way["output_weight"](s) if "output_weight" in way else s.params.V
    adjoint, left = way.get("adjoint", as_it_is), way.get("left", as_it_is)
    order = [f"δ_{k}" for k in way.get("order", s.gates)]
    untransposed = way.get("weight", False)
    weights = {k: W_k.T if untransposed else W_k for k, W_k in s.W.items()}
    lines = [
        (
            line.result,
            [t for i, own in enumerate(line.terms) for t in way.get((line.tag, i), (own,))],
        )
        for line in s.way_back
    ]
    symbols = {f for _, terms in lines for term in terms for f in (*term.factors, *term.after)}
    given = {f: value(s, f) for f in symbols if not f.startswith(("∂", "δ"))}

    last = dy @ V
    nothing = np.zeros_like(last)
    dh, dc = np.zeros_like(s.h), np.zeros_like(s.h)
    adjoints = np.zeros((*s.h[1:].shape[:2], len(order) * s.h.shape[2]))
    above = {DH: last, FROM_NEXT: nothing}
    for t in range(s.T, 0, -1):
        now = {symbol: values[t - 1] for symbol, values in given.items()} | above
        for result, terms in lines:
            if result not in CARRIED:
                now[result] = sum((product(term, now, weights) for term in terms), nothing)
        packed = [adjoint(s, t, now[name]) for name in order]
        now |= {f"δ_{k}": delta for k, delta in zip(s.gates, packed, strict=True)}
        adjoints[t - 1] = np.concatenate(packed, axis=-1)
        dh[t], dc[t] = now[DH], now.get(DC, nothing)
        for result, terms in lines:
            if result in CARRIED:
                found = sum((product(term, now, weights) for term in terms), nothing)
                carried, into = way.get(("carried", result)), CARRIED[result]
                if carried:
                    found = carried(s, t, found, now[into], last if into == DH else nothing)
                above[into] = found
    dh[0], dc[0] = above[DH], above[FROM_NEXT]
    return Swept(s, dy, dh, dc, left(s, adjoints))


def product(term: Term, now: Mapping[str, Array], weights: Mapping[str, Array]) -> Array:
    """One term at one step."""
    found = term.times * now[term.factors[0]]
    for factor in term.factors[1:]:
        found = found * now[factor]
    if term.through:
        W_k = weights[term.through]
        found = found @ (W_k if term.transposed else W_k.T)
    for factor in term.after:
        found = found * now[factor]
    return found
