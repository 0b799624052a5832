"""The backward pass of each cell as a list of equations that can be changed place by place.

An equation is a sum of terms, and a term is a product of factors. The unchanged equations are (B2)
and (B3), (S5) to (S11), and (G6) to (G12) of docs/derivation.md. `in_equations` changes them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import CELLS, Array, Problem, Sizes
from manual_bptt import activations, losses
from manual_bptt.activations import ACTIVATIONS

# The function of each gate; the plain RNN counts as one gate without a letter.
FUNCTIONS = {
    "rnn": {"": "φ"},
    "lstm": {"i": "σ", "f": "σ", "g": "tanh", "o": "σ"},
    "gru": {"r": "σ", "z": "σ", "n": "tanh"},
}
SLOPES = {"σ": ACTIVATIONS["sigmoid"], "tanh": ACTIVATIONS["tanh"]}

DH, DC = "∂L/∂h_t", "∂L/∂c_t"
FROM_NEXT = "∂L/∂c_{t→}"  # the part of ∂L/∂c_t that comes from step t+1
# The gradients carried to the step before, and the symbols that they have there.
CARRIED_CELL = "∂L/∂c_{t-1}"
CARRIED = {"∂L/∂h_{t-1}": DH, CARRIED_CELL: FROM_NEXT}


def name_delta(gate: str) -> str:
    """Name the adjoint of a gate: δ_i, …, or δ_t of the plain RNN."""
    return f"δ_{gate}" if gate else "δ_t"


def name_weight(gate: str) -> str:
    """Name the block of W that belongs to a gate."""
    return f"W_{gate}" if gate else "W"


class Term(NamedTuple):
    """A product, entry by entry; then a product with the transposed weight and factors `after`."""

    factors: tuple[str, ...]
    weight: str = ""
    after: tuple[str, ...] = ()
    times: float = 1.0
    transposed: bool = True

    def __str__(self) -> str:
        several = len(self.factors) > 1
        inner = " ⊙ ".join(f"({f})" if several and " " in f else f for f in self.factors)
        if self.weight:
            inner = f"{self.weight}ᵀ " + (f"({inner})" if several else inner)
            inner = " ⊙ ".join([f"({inner})" if self.after else inner, *self.after])
        return inner


class Equation(NamedTuple):
    """One equation of the backward pass at step t, with its tag in docs/derivation.md."""

    tag: str
    result: str
    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return f"{self.result} = {' + '.join(map(str, self.terms))}"


RNN = (
    Equation("B2", "δ_t", (Term((DH, "φ′(a_t)")),)),
    Equation("B3", "∂L/∂h_{t-1}", (Term(("δ_t",), "W"),)),
)
LSTM = (
    Equation("S5", DC, (Term((FROM_NEXT,)), Term((DH, "o_t", "tanh′(c_t)")))),
    Equation("S6", "δ_i", (Term((DC, "g_t", "σ′(a_{i,t})")),)),
    Equation("S7", "δ_f", (Term((DC, "c_{t-1}", "σ′(a_{f,t})")),)),
    Equation("S8", "δ_g", (Term((DC, "i_t", "tanh′(a_{g,t})")),)),
    Equation("S9", "δ_o", (Term((DH, "tanh(c_t)", "σ′(a_{o,t})")),)),
    Equation("S10", "∂L/∂c_{t-1}", (Term((DC, "f_t")),)),
    Equation("S11", "∂L/∂h_{t-1}", tuple(Term((f"δ_{k}",), f"W_{k}") for k in "ifgo")),
)
CANDIDATE = (
    Equation("G6", "δ_n", (Term((DH, "1 − z_t", "tanh′(a_{n,t})")),)),
    Equation("G7", "δ_z", (Term((DH, "h_{t-1} − n_t", "σ′(a_{z,t})")),)),
)
PAST = (Term((DH, "z_t")), Term(("δ_r",), "W_r"), Term(("δ_z",), "W_z"))
GRU_AFTER = (
    *CANDIDATE,
    Equation("G8", "δ_r", (Term(("δ_n", "W_n h_{t-1} + b_n", "σ′(a_{r,t})")),)),
    Equation("G12", "∂L/∂h_{t-1}", (*PAST, Term(("δ_n", "r_t"), "W_n"))),
)
GRU_BEFORE = (
    *CANDIDATE,
    Equation("G10", "δ_r", (Term(("δ_n",), "W_n", ("h_{t-1}", "σ′(a_{r,t})")),)),
    Equation("G12", "∂L/∂h_{t-1}", (*PAST, Term(("δ_n",), "W_n", ("r_t",)))),
)


class States(NamedTuple):
    """The forward pass in float64; `values` has every symbol, with step t at index t-1."""

    problem: Problem
    params: Any
    x: Array
    h: Array
    values: dict[str, Array]
    W: dict[str, Array]  # by name
    dy: Array

    @property
    def T(self) -> int:
        """The number of steps."""
        return len(self.x)

    @property
    def sizes(self) -> Sizes:
        """The five sizes."""
        return self.problem.sizes

    @property
    def gates(self) -> tuple[str, ...]:
        """The gates' letters in the order in which they are packed."""
        return tuple(FUNCTIONS[self.problem.cell])

    @property
    def equations(self) -> tuple[Equation, ...]:
        """The equations of one step of the backward pass, in the order of computation."""
        if self.problem.cell == "gru":
            return GRU_AFTER if self.problem.option["reset"] == "after" else GRU_BEFORE
        return {"rnn": RNN, "lstm": LSTM}[self.problem.cell]


# A value at step t, from those of all steps.
EARLIER, WRAPPED = " of the step before", " of the step before, of step T at t = 1"
LATER = " of the step after"
SHIFTS: dict[str, Callable[[Array], Array]] = {
    EARLIER: lambda v: np.concatenate([v[:1], v[:-1]]),
    WRAPPED: lambda v: np.roll(v, 1, axis=0),
    LATER: lambda v: np.concatenate([v[1:], v[-1:]]),
}


def look_up(s: States, symbol: str) -> Array:
    """Look up the values (T, B, H) of a symbol of the forward pass."""
    if symbol in s.values:
        return s.values[symbol]
    suffix = next(suffix for suffix in SHIFTS if symbol.endswith(suffix))
    return SHIFTS[suffix](s.values[symbol.removesuffix(suffix)])


def compute_state_symbols(letter: str, s: Array) -> dict[str, Array]:
    """Compute the symbols of the states 0 to T of h or c, at each step."""
    return {
        f"{letter}_{{t-1}}": s[:-1],
        f"{letter}_t": s[1:],
        f"{letter}_{{t-2}}": np.concatenate([s[:1], s[:-2]]),
        f"{letter}_{{t-2}} (zero at t = 1)": np.concatenate([0 * s[:1], s[:-2]]),
        f"{letter}_{{t-1}} (at t = 1: {letter}_T)": np.concatenate([s[-1:], s[1:-1]]),
        f"{letter}_{{t-2}} (at t = 1: {letter}_T)": np.concatenate([s[-1:], s[:-2]]),
        f"{letter}_0": np.repeat(s[:1], len(s) - 1, axis=0),
    }


def compute_rnn_symbols(problem: Problem, a: Array, h: Array) -> dict[str, Array]:
    """Compute the symbols of the plain RNN."""
    phi = activations.find(problem.option["activation"])
    slope = phi.derivative(a, h[1:])
    one = np.ones_like(slope)
    return {
        "a_t": a,
        "a_{t-1} (h_0 at t = 1)": np.concatenate([h[:1], a[:-1]]),
        "φ′(a_t)": slope,
        "φ′(h_t)": phi.derivative(h[1:], phi.function(h[1:])),
        "φ′(a_t), but 1 at the last step": np.concatenate([slope[:-1], one[-1:]]),
        "1, but φ′(a_T) at the last step": np.concatenate([one[:-1], slope[-1:]]),
        "φ′(a_{t-1}), but 1 at t = 1": np.concatenate([one[:1], slope[:-1]]),
    }


def compute_gate_symbols(problem: Problem, a: Array, gates: Array) -> dict[str, Array]:
    """Compute the symbols of the gates of an LSTM or a GRU."""
    functions = FUNCTIONS[problem.cell]
    values: dict[str, Array] = {}
    for k, a_k, gate in zip(
        functions, *(np.split(v, len(functions), -1) for v in (a, gates)), strict=True
    ):
        values |= {f"{k}_t": gate, f"1 − {k}_t": 1 - gate, f"a_{{{k},t}}": a_k}
        for name, phi in SLOPES.items():
            values[f"{name}′(a_{{{k},t}})"] = phi.derivative(a_k, phi.function(a_k))
            # The slope of either function, computed from the output of this gate.
            values[f"{name}′ with h = {k}_t"] = phi.derivative(a_k, gate)
        phi = SLOPES[functions[k]]
        values[f"{functions[k]}′({k}_t)"] = phi.derivative(gate, phi.function(gate))
    return values


def compute_cell_symbols(cells: Array) -> dict[str, Array]:
    """Compute the symbols of the cell state of an LSTM."""
    c, tanh, sigmoid = cells[1:], SLOPES["tanh"], SLOPES["σ"]
    tanh_c = np.tanh(c)
    return compute_state_symbols("c", cells) | {
        "tanh(c_t)": tanh_c,
        "tanh(c_{t-1})": np.tanh(cells[:-1]),
        "tanh′(c_t)": tanh.derivative(c, tanh_c),
        "tanh′(c_{t-1})": tanh.derivative(cells[:-1], np.tanh(cells[:-1])),
        "tanh′(tanh(c_t))": tanh.derivative(tanh_c, np.tanh(tanh_c)),
        "σ′(c_t)": sigmoid.derivative(c, sigmoid.function(c)),
    }


def compute_candidate_symbols(
    params: Any, h: Array, n: Array, recurrent: Array
) -> dict[str, Array]:
    """Compute the symbols of a GRU that combine the candidate and the state."""
    bias = 0 if params.b_n is None else params.b_n
    return {
        "W_n h_{t-1} + b_n": recurrent,
        "W_n h_{t-1}": recurrent - bias,
        "W_n h_t + b_n": h[1:] @ np.split(params.W, 3)[2].T + bias,
        "h_{t-1} − n_t": h[:-1] - n,
        "n_t − h_{t-1}": n - h[:-1],
        "−n_t": -n,
        "h_t − n_t": h[1:] - n,
        "h_{t-1} − n_t (at t = 1: h_T)": np.concatenate([h[-1:], h[1:-1]]) - n,
    }


def forward(problem: Problem) -> States:
    """Run the forward pass of a problem and compute ∂L/∂ŷ, in float64 whatever its dtype."""
    wide = problem.map_arrays(lambda values: values.astype(np.float64))
    params, x = wide.params, wide.x
    prediction, trace = CELLS[problem.cell].forward(params, x, **wide.first, **problem.option)
    dy = losses.find(problem.loss).gradient(prediction, wide.y)
    values = {"x_t": x, **compute_state_symbols("h", trace.h)}
    cells = getattr(trace, "cells", None)
    if problem.cell == "rnn":
        values |= compute_rnn_symbols(problem, trace.a, trace.h)
    else:
        values |= compute_gate_symbols(problem, trace.a, trace.gates)
    if cells is not None:
        values |= compute_cell_symbols(cells)
    if problem.cell == "gru":
        values |= compute_candidate_symbols(params, trace.h, values["n_t"], trace.recurrent)
    functions = FUNCTIONS[problem.cell]
    blocks = np.split(params.W, len(functions))
    W = dict(zip(map(name_weight, functions), blocks, strict=True))
    return States(problem, params, x, trace.h, values, W, dy)


class Sweep(NamedTuple):
    """A backward pass: ∂L/∂ŷ; ∂L/∂h_t and ∂L/∂c_t at index t; the packed δ_t at index t-1."""

    states: States
    dy: Array
    dh: Array
    dc: Array
    adjoints: Array

    def gradient(self, name: str) -> Array:
        """Compute the gradient of this name from the sweep."""
        return GRADIENTS[name](self)


Way = Mapping[Any, Any]  # the changes of a backward pass, by place
UNTRANSPOSED = "untransposed"  # with a tag and a term's number: the place of the weight's transpose


def sweep(s: States, way: Way) -> Sweep:
    """Run the backward pass with these changes."""

    def as_it_is(*given: Any) -> Any:
        return given[-1]

    def change_terms(line: Equation) -> list[Term]:
        written = [
            (term, (UNTRANSPOSED, line.tag, i) in way)
            for i, own in enumerate(line.terms)
            for term in way.get((line.tag, i), (own,))
        ]
        return [term._replace(transposed=not wrong) for term, wrong in written]

    dy = way["output"](s) if "output" in way else s.dy
    V = way["output_weight"](s) if "output_weight" in way else s.params.V
    adjoint, left = way.get("adjoint", as_it_is), way.get("left", as_it_is)
    deltas = [name_delta(k) for k in s.gates]
    order = [name_delta(k) for k in way.get("order", s.gates)]
    untransposed = way.get("weight", False)
    weights = {k: W_k.T if untransposed else W_k for k, W_k in s.W.items()}
    lines = [(line.result, change_terms(line)) for line in s.equations]
    symbols = {f for _, terms in lines for term in terms for f in (*term.factors, *term.after)}
    given = {f: look_up(s, f) for f in symbols if not f.startswith(("∂", "δ"))}

    last = dy @ V
    nothing = np.zeros_like(last)
    dh, dc = np.zeros_like(s.h), np.zeros_like(s.h)
    adjoints = np.zeros((*s.h[1:].shape[:2], len(order) * s.h.shape[2]))
    above = {DH: last, FROM_NEXT: nothing}
    for t in range(s.T, 0, -1):
        now = {symbol: values[t - 1] for symbol, values in given.items()} | above
        for result, terms in lines:
            if result not in CARRIED:
                now[result] = sum_terms(terms, now, weights, nothing)
        packed = [adjoint(s, t, now[name]) for name in order]
        now |= zip(deltas, packed, strict=True)
        adjoints[t - 1] = np.concatenate(packed, axis=-1)
        dh[t], dc[t] = now[DH], now.get(DC, nothing)
        for result, terms in lines:
            if result in CARRIED:
                found = sum_terms(terms, now, weights, nothing)
                carried, into = way.get(("carried", result)), CARRIED[result]
                if carried:
                    found = carried(s, t, found, now[into], last if into == DH else nothing)
                above[into] = found
    dh[0], dc[0] = above[DH], above[FROM_NEXT]
    return Sweep(s, dy, dh, dc, left(s, adjoints))


def sum_terms(
    terms: Sequence[Term], now: Mapping[str, Array], weights: Mapping[str, Array], nothing: Array
) -> Array:
    """Sum the terms of an equation at one step."""
    result = nothing
    for factors, weight, after, times, transposed in terms:
        found = now[factors[0]]
        for factor in factors[1:]:
            found = found * now[factor]
        if weight:
            found = found @ (weights[weight] if transposed else weights[weight].T)
        for factor in after:
            found = found * now[factor]
        result = result + (found if times == 1 else times * found)
    return result


# By gate: the factors of the operand of W_k, and the factors of the adjoint δᵂ_k beside δ_k.
Operands = dict[str, tuple[tuple[str, ...], tuple[str, ...]]]


def find_operands(states: States) -> Operands:
    """Find the factors in (B5), in (S13), or in (G13) and (G14)."""
    operands: Operands = dict.fromkeys(states.gates, (("h_{t-1}",), ()))
    if states.problem.cell == "gru":
        after = states.problem.option["reset"] == "after"
        operands["n"] = (("h_{t-1}",), ("r_t",)) if after else (("r_t", "h_{t-1}"), ())
    return operands


def outer(left: Array, right: Array) -> Array:
    """Sum the outer products: Σ_t Σ_b left_t right_tᵀ."""
    rows = left.shape[0] * left.shape[1]  # 0 where a sequence of one step is shifted by one
    found: Array = left.reshape(rows, left.shape[-1]).T @ right.reshape(rows, right.shape[-1])
    return found


def split_deltas(s: Sweep) -> dict[str, Array]:
    """Split the packed adjoints into δ_t of each gate."""
    H = s.dh.shape[-1]
    return {k: s.adjoints[:, :, i * H : (i + 1) * H] for i, k in enumerate(s.states.gates)}


def multiply(s: Sweep, found: Array, factors: tuple[str, ...]) -> Array:
    """Multiply the values of all steps by those of some symbols."""
    for factor in factors:
        found = found * look_up(s.states, factor)
    return found


def sum_for_W(s: Sweep, operands: Operands) -> Array:
    """Sum δᵂ_t q_tᵀ of each gate over time."""
    parts = []
    for k, delta in split_deltas(s).items():
        factors, beside = operands[k]
        parts.append(outer(multiply(s, delta, beside), multiply(s, np.ones(()), factors)))
    return np.concatenate(parts)


def sum_for_b_n(s: Sweep, beside: tuple[str, ...]) -> Array:
    """Sum δᵂ_t of the candidate over time."""
    found: Array = multiply(s, split_deltas(s)["n"], beside).sum(axis=(0, 1))
    return found


GRADIENTS: dict[str, Callable[[Sweep], Array]] = {
    "U": lambda s: outer(s.adjoints, s.states.x),
    "W": lambda s: sum_for_W(s, find_operands(s.states)),
    "V": lambda s: s.dy.T @ s.states.h[-1],
    "b": lambda s: s.adjoints.sum(axis=(0, 1)),
    "c": lambda s: s.dy.sum(axis=0),
    "b_n": lambda s: sum_for_b_n(s, find_operands(s.states)["n"][1]),
    "x": lambda s: s.adjoints @ s.states.params.U,
    "h0": lambda s: s.dh[0],
    "c0": lambda s: s.dc[0],
    "adjoints": lambda s: s.adjoints,
}
# Their equations in docs/derivation.md.
EQUATIONS = {
    "rnn": {"U": "B4", "W": "B5", "b": "B7", "x": "B9", "h0": "B3", "adjoints": "B2"},
    "lstm": {"U": "S12", "W": "S13", "b": "S14", "x": "S15", "h0": "S11", "c0": "S10"},
    "gru": {"U": "G15", "W": "G13", "b": "G16", "b_n": "G18", "x": "G17", "h0": "G12"},
}
EQUATIONS = {
    cell: {"V": "B6", "c": "B8", "adjoints": first} | EQUATIONS[cell]
    for cell, first in (("rnn", "B2"), ("lstm", "S6"), ("gru", "G6"))
}
