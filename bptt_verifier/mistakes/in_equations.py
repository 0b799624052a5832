"""Mistakes in the backward pass of a cell, as changes of its equations, ∂L/∂ŷ or what is carried.

Changes are stored by place, so two mistakes can be made together where their places differ.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.equations import (
    CARRIED,
    CARRIED_CELL,
    DC,
    DH,
    EARLIER,
    FROM_NEXT,
    FUNCTIONS,
    LATER,
    SLOPES,
    UNTRANSPOSED,
    WRAPPED,
    Equation,
    States,
    Term,
    Way,
    look_up,
    name_delta,
)
from bptt_verifier.mistakes.single_gradients import transpose
from bptt_verifier.problems.problem import Array, Sizes
from bptt_verifier.report import Mistake


class EquationMistake(NamedTuple):
    """A mistake, and its changes of the backward pass, by place."""

    mistake: Mistake
    changes: dict[Any, Any]


def make_mistake(
    name: str, said: str, tag: str, changes: dict[Any, Any], **details: Any
) -> EquationMistake:
    """Make a mistake in the equation with this tag, in the words `said`."""
    return EquationMistake(Mistake(name, said, details, tag), changes)


OFF, WRAPS, OPERAND = "hidden-state-off-by-one", "negative-index-wraps-around", "wrong-operand"
MISSING = "activation-derivative-missing"
ACTIVATED = "activation-derivative-of-activated-value"


def shift_symbol(symbol: str) -> list[tuple[str, ...]]:
    """List the rows of a symbol that is used at another step."""
    return [(symbol, OFF, symbol + EARLIER, symbol + LATER), (symbol, WRAPS, symbol + WRAPPED)]


# A symbol, the name of a mistake, and the wrong symbols; an empty one where the factor is missing.
SUBSTITUTES: dict[str, list[tuple[str, ...]]] = {
    "rnn": [
        ("φ′(a_t)", MISSING, "", "φ′(a_t), but 1 at the last step"),
        ("φ′(a_t)", MISSING, "1, but φ′(a_T) at the last step"),
        ("φ′(a_t)", ACTIVATED, "φ′(h_t)"),
        ("δ_t", MISSING, DH),
        *shift_symbol("φ′(a_t)"),
    ],
    "lstm": [
        ("c_{t-1}", OPERAND, "h_{t-1}", "tanh(c_{t-1})", "g_t"),
        ("tanh(c_t)", OPERAND, "c_t"),
        ("tanh(c_t)", OFF, "tanh(c_{t-1})"),
        ("tanh(c_t)", OPERAND, "h_t", ""),
        ("tanh′(c_t)", MISSING, ""),
        ("tanh′(c_t)", ACTIVATED, "tanh′(tanh(c_t))"),
        ("tanh′(c_t)", OFF, "tanh′(c_{t-1})"),
        ("tanh′(c_t)", OPERAND, "σ′(c_t)"),
        (DC, OPERAND, DH, FROM_NEXT),
        (DH, OPERAND, DC),
    ],
    "gru": [
        ("h_{t-1} − n_t", "sign-flipped", "n_t − h_{t-1}"),
        ("h_{t-1} − n_t", OPERAND, "h_{t-1}", "n_t", "−n_t"),
        ("h_{t-1} − n_t", OFF, "h_t − n_t"),
        ("h_{t-1} − n_t", WRAPS, "h_{t-1} − n_t (at t = 1: h_T)"),
        ("h_{t-1} − n_t", OPERAND, ""),
        ("W_n h_{t-1} + b_n", "bias-part-missing", "W_n h_{t-1}"),
        ("W_n h_{t-1} + b_n", OFF, "W_n h_t + b_n"),
        ("W_n h_{t-1} + b_n", OPERAND, "h_{t-1}", "a_{n,t}", "n_t", ""),
        ("δ_n", OPERAND, DH),
    ],
}


@cache
def list_substitutes(cell: str) -> dict[str, list[tuple[str, str]]]:
    """List the mistakes and wrong symbols for each symbol of a cell's equations."""
    rows: list[tuple[str, ...]] = []
    functions = FUNCTIONS[cell] if cell != "rnn" else {}
    for k, own in functions.items():
        others, a = [j for j in functions if j != k], f"a_{{{k},t}}"
        gate, slope, (other,) = f"{k}_t", f"{own}′({a})", SLOPES.keys() - {own}
        rows += [
            (slope, MISSING, ""),
            (slope, ACTIVATED, f"{own}′({gate})"),
            (slope, OPERAND, f"{other}′({a})", f"{other}′ with h = {gate}"),
            (slope, OPERAND, *(f"{functions[j]}′(a_{{{j},t}})" for j in others)),
            *shift_symbol(slope),
        ]
        for factor, opposite in ((gate, f"1 − {gate}"), (f"1 − {gate}", gate)):
            of_others = (factor.replace(gate, f"{j}_t") for j in others)
            rows += [(factor, OPERAND, "", opposite, *of_others, a), *shift_symbol(factor)]
    for s in "hc":
        before, last = f"{s}_{{t-1}}", f"(at t = 1: {s}_T)"
        rows += [
            (before, OFF, f"{s}_t", f"{s}_{{t-2}}", f"{s}_{{t-2}} (zero at t = 1)"),
            (before, WRAPS, f"{before} {last}", f"{s}_{{t-2}} {last}"),
            (before, OPERAND, f"{s}_0", ""),
        ]
    found: dict[str, list[tuple[str, str]]] = {}
    for symbol, name, *wrong in (*rows, *SUBSTITUTES[cell]):
        found.setdefault(symbol, []).extend((name, each) for each in wrong)
    return found


def list_mistakes(s: States, longest: int) -> Iterator[EquationMistake]:
    """List every mistake in the backward pass of a cell, the likely ones first.

    Truncation is tried up to `longest` steps.
    """
    for line in s.equations:
        yield from list_term_mistakes(line)
    for line in s.equations:
        yield from list_factor_mistakes(line, s.problem.cell)
    yield from list_joint_mistakes(s)
    yield from list_output_mistakes(s)
    yield from list_carry_mistakes(s, longest)
    yield from list_step_mistakes(s)


def list_joint_mistakes(s: States) -> Iterator[EquationMistake]:
    """List the mistakes that change several places of the equations at once."""
    tag = s.equations[-1].tag
    if s.problem.cell == "rnn":
        said = "δ_t is multiplied by φ′(a_{t-1}) before the product with Wᵀ"
        said += "; the Hadamard product comes after it."
        changes = {
            ("B2", 0): (Term((DH, "1, but φ′(a_T) at the last step")),),
            ("B3", 0): (Term(("δ_t", "φ′(a_{t-1}), but 1 at t = 1"), "W"),),
        }
        yield make_mistake("activation-derivative-before-matrix-product", said, "B2", changes)
        said = "∂L/∂h_t is multiplied by φ′(a_t) after the product with Wᵀ, not before it."
        changes = {("B3", 0): (Term((DH,), "W", ("φ′(a_t)",)),)}
        yield make_mistake("activation-derivative-after-matrix-product", said, "B3", changes)
        return
    if s.problem.cell == "lstm":
        yield shift_cell(*s.equations)
    said = "every gate's block of W is used where its transpose belongs."
    yield make_mistake("untransposed-recurrent-weight", said, tag, {"weight": True})
    for one, other in combinations(s.gates, 2):
        swapped = {one: other, other: one}
        said = f"{name_delta(one)} and {name_delta(other)} are packed in each other's place."
        order = tuple(swapped.get(k, k) for k in s.gates)
        yield make_mistake(OPERAND, said, tag, {"order": order}, gates=[one, other])


def shift_cell(of_c: Equation, *rest: Equation) -> EquationMistake:
    """Use tanh(c_{t-1}) in both places where tanh(c_t) belongs."""
    of_o = next(line for line in rest if line.result == "δ_o")
    right, used = "tanh(c_t)", "tanh(c_{t-1})"
    said = f"{used} is used where {right} belongs; the equations are {of_c}, and {of_o}."
    changes = {
        (of_c.tag, 1): (replace_symbol("tanh′(c_t)", "tanh′(c_{t-1})", of_c.terms[1]),),
        (of_o.tag, 0): (replace_symbol(right, used, of_o.terms[0]),),
    }
    return make_mistake(OFF, said, of_c.tag, changes, belongs=right, used=used)


def list_term_mistakes(line: Equation) -> Iterator[EquationMistake]:
    """List mistakes that omit terms, double one, flip its sign, or use a wrong weight."""
    carried = line.result in CARRIED
    # Without both terms of ∂L/∂c_t nothing comes from the next step either: the second is enough.
    for size in range(1, len(line.terms) + (carried or len(line.terms) == 1)):
        for out in combinations(range(len(line.terms)), size):
            past = carried or any(FROM_NEXT in line.terms[i].factors for i in out)
            texts = [str(line.terms[i]) for i in out]
            said = f"{' + '.join(texts)} {'are' if size > 1 else 'is'} left out"
            said = f"{line.result} is zero" if size == len(line.terms) else said
            said = f"{said}; the equation is {line}."
            name = "recurrent-path-dropped" if past else "zero-gradient"
            changes = {(line.tag, i): () for i in out}
            yield make_mistake(name, said, line.tag, changes, terms=texts)
    for i in range(len(line.terms)):
        yield from list_changed_terms(line, i)


def list_changed_terms(line: Equation, i: int) -> Iterator[EquationMistake]:
    """List mistakes that put a wrong term in the place of the i-th."""
    term, doubled = line.terms[i], line.terms[i]._replace(times=2.0)

    def other(name: str, said: str, *terms: Term, **details: Any) -> EquationMistake:
        said = f"{said}; the equation is {line}."
        return make_mistake(name, said, line.tag, {(line.tag, i): terms}, **details)

    yield other("sign-flipped", f"{term} has the wrong sign", term._replace(times=-1.0))
    if line.result in CARRIED or len(line.terms) > 1:
        yield other("path-counted-twice", f"{term} is counted twice", doubled)
    else:
        said = f"{line.result} is twice what it should be"
        yield other("constant-factor", said, doubled, factor="2", value=2.0)
    if line.result == "∂L/∂c_{t-1}":
        said = f"{DC} itself is added: the path through c_t is counted twice"
        yield other("path-counted-twice", said, term, Term((DC,)))
    if not term.weight:
        return
    said = f"{term.weight} is used where its transpose belongs; the equation is {line}."
    wrong = {(UNTRANSPOSED, line.tag, i): True}  # a place of its own, beside the factors
    name = "untransposed-recurrent-weight"
    yield make_mistake(name, said, line.tag, wrong, weight=term.weight)
    for k in sorted({t.weight for t in line.terms if t.weight} - {term.weight}):
        said = f"{k} is used where {term.weight} belongs"
        yield other(OPERAND, said, term._replace(weight=k), used=k)
    for factor in (*term.factors[1:], *term.after):
        inner = tuple(f for f in term.factors if f != factor)
        outer = tuple(f for f in term.after if f != factor)
        if factor in term.after:
            moved = term._replace(factors=(*inner, factor), after=outer)
        else:
            moved = term._replace(factors=inner, after=(*outer, factor))
        name = "activation-derivative-before-matrix-product" if "′" in factor else OPERAND
        said = f"{factor} multiplies on the wrong side of {term.weight}ᵀ"
        yield other(name, said, moved, factor=factor)


def list_factor_mistakes(line: Equation, cell: str) -> Iterator[EquationMistake]:
    """List mistakes that omit a factor, or use another in its place."""
    for i, term in enumerate(line.terms):
        for symbol in (*term.factors, *term.after):
            for name, other in list_substitutes(cell).get(symbol, ()):
                # Nothing comes from the step after the last: ∂L/∂c_{t→} in (S10) would drop it.
                itself = other == line.result or (line.result, other) == (CARRIED_CELL, FROM_NEXT)
                if itself or (not other and term.factors == (symbol,)):
                    continue
                said = (
                    f"{other} is used where {symbol} belongs" if other else f"{symbol} is missing"
                )
                said = f"{said}; the equation is {line}."
                changes = {(line.tag, i): (replace_symbol(symbol, other, term),)}
                details = {"belongs": symbol, "used": other or None}
                yield make_mistake(name, said, line.tag, changes, **details)


def replace_symbol(symbol: str, other: str, term: Term) -> Term:
    """Replace one symbol among the factors of a term; an empty `other` omits it."""

    def replace(factors: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(found for f in factors if (found := other if f == symbol else f))

    return term._replace(factors=replace(term.factors), after=replace(term.after))


COUNTS = {
    "B": "the size of the batch", "O": "the number of outputs", "T": "the number of steps",
    "H": "the number of hidden units",
}  # fmt: skip

# Factors that a gradient may be off by, as functions of the sizes.
FACTORS: dict[str, Callable[[Sizes], float]] = {
    "2":       lambda n: 2.0,          "1/2":     lambda n: 0.5,
    "B":       lambda n: n.B,          "1/B":     lambda n: 1 / n.B,
    "O":       lambda n: n.O,          "1/O":     lambda n: 1 / n.O,
    "B O":     lambda n: n.B * n.O,    "1/(B O)": lambda n: 1 / (n.B * n.O),
    "B/2":     lambda n: n.B / 2,      "O/2":     lambda n: n.O / 2,
    "B O/2":   lambda n: n.B * n.O / 2,
    "2/B":     lambda n: 2 / n.B,      "2/O":     lambda n: 2 / n.O,
    "2/(B O)": lambda n: 2 / (n.B * n.O),
    "T":       lambda n: n.T,          "1/T":     lambda n: 1 / n.T,
    "H":       lambda n: n.H,          "1/H":     lambda n: 1 / n.H,
}  # fmt: skip


def explain_factor(words: str) -> str:
    """Explain the letters of a factor: O (the number of outputs)."""
    letters = [letter for letter in COUNTS if letter in words]
    meaning = ", ".join(f"{letter} is {COUNTS[letter]}" for letter in letters)
    return f"{words} ({meaning})" if meaning else words


def list_output_mistakes(s: States) -> Iterator[EquationMistake]:
    """List mistakes that scale ∂L/∂ŷ, flip its sign, or use V untransposed."""
    for words, factor in FACTORS.items():
        said = f"every gradient is {explain_factor(words)} times what it should be"
        said += ": ∂L/∂ŷ and the stated loss differ by that factor."
        changes = {"output": lambda s, factor=factor: s.dy * factor(s.sizes)}
        details = {"factor": words, "value": factor(s.sizes)}
        yield make_mistake("constant-factor", said, "L2", changes, **details)
    said = "every gradient has the wrong sign: ∂L/∂ŷ is taken as y − ŷ."
    yield make_mistake("sign-flipped", said, "L2", {"output": lambda s: -s.dy})
    said = "V is used where Vᵀ belongs when the output gradient enters; it shows where O = H."
    untransposed = {"output_weight": lambda s: transpose(s.params.V)}
    yield make_mistake("untransposed-output-weight", said, "B1", untransposed)


# The gradient carried to the step before, from the states, t, the right one, ∂L/∂h_t or ∂L/∂c_t,
# and Vᵀ ∂L/∂ŷ (zero for c).
Carry = Callable[[States, int, Array, Array, Array], Array]


def stop_after(kept: int) -> Carry:
    """Carry nothing beyond this number of steps."""
    return lambda s, t, g, dh, last: g if s.T - t + 1 < kept else np.zeros_like(g)


def clip_to(limit: float) -> Carry:
    """Clip the gradient that is carried."""
    return lambda s, t, g, dh, last: np.clip(g, -limit, limit)


def start_one_step_early(s: States, t: int, g: Array, dh: Array, last: Array) -> Array:
    """Carry Vᵀ ∂L/∂ŷ from step T, as if the loss depended on h_{T-1}."""
    return last if t == s.T else g


class CarryMistake(NamedTuple):
    """A mistake in the carried gradient; "B3" stands for the cell's own equation of it."""

    name: str
    said: str
    carried: Carry
    details: Mapping[str, Any] = MappingProxyType({})
    equation: str = "B3"


def list_wrong_carries(longest: int) -> Iterator[CarryMistake]:
    """List the mistakes in the carried gradient, in terms of h."""
    said = "nothing is carried back"
    said += ": only the last step contributes, as if h_T did not depend on h_{T-1}."
    yield CarryMistake("recurrent-path-dropped", said, lambda s, t, g, dh, last: np.zeros_like(g))
    name, said = "output-gradient-at-every-step", "∂L/∂ŷ enters at every step"
    said += ", but the loss sees the last state only."
    yield CarryMistake(name, said, lambda s, t, g, dh, last: g + last, equation="B1")
    name, said = "output-gradient-at-wrong-step", "∂L/∂ŷ enters one step too early in time"
    said += ": ∂L/∂h_{T-1} = Vᵀ ∂L/∂ŷ is set, and nothing is carried from step T."
    yield CarryMistake(name, said, start_one_step_early, equation="B1")
    said = "∂L/∂h_t itself is added to Wᵀ δ_t: the path through h_t is counted twice."
    yield CarryMistake("path-counted-twice", said, lambda s, t, g, dh, last: g + dh)
    said = "Wᵀ δ_t is added twice at every step."
    yield CarryMistake("path-counted-twice", said, lambda s, t, g, dh, last: 2 * g)
    for kept in range(2, longest):
        said = f"the sweep stops after {kept} steps: earlier steps contribute nothing."
        yield CarryMistake("truncated", said, stop_after(kept), {"steps": kept})
    for limit in (0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0):
        said = f"∂L/∂h_t is clipped to ±{limit:g} inside the sweep"
        said += "; clip what is returned, not what is derived."
        yield CarryMistake("clipped", said, clip_to(limit), {"value": limit})


def list_carry_mistakes(s: States, longest: int) -> Iterator[EquationMistake]:
    """List mistakes in the carried gradient: of h and c together, and of each alone."""
    lines = [line for line in s.equations if line.result in CARRIED]
    for name, said, carried, details, equation in list_wrong_carries(longest):
        tag = lines[-1].tag if equation == "B3" else equation
        changes = {("carried", line.result): carried for line in lines}
        yield make_mistake(name, said, tag, changes, **details)
        for line in lines if len(lines) > 1 else ():
            of_c = CARRIED[line.result] == FROM_NEXT
            if of_c and name.startswith("output-gradient"):
                continue  # no output's gradient enters a cell
            alone = f"in {line.result} alone, {rephrase_for_c(said) if of_c else said}"
            changes = {("carried", line.result): carried}
            yield make_mistake(name, alone, tag, changes, **details, **{"in": line.result})


def rephrase_for_c(said: str) -> str:
    """Rewrite a sentence about h as one about the LSTM's c."""
    for of_h, of_c in ((DH, FROM_NEXT), ("Wᵀ δ_t", f"{DC} ⊙ f_t"), ("h_t", "c_t")):
        said = said.replace(of_h, of_c)
    return said


def list_step_mistakes(s: States) -> Iterator[EquationMistake]:
    """List mistakes that leave the first or last step out of the sweep, or of the sums."""
    delta = next(line.tag for line in s.equations if line.result.startswith("δ"))
    sums = {"rnn": "B4", "lstm": "S12", "gru": "G15"}[s.problem.cell]
    carries = [("carried", line.result) for line in s.equations if line.result in CARRIED]

    def zero_at(step: Callable[[States], int]) -> Callable[[States, int, Array], Array]:
        return lambda s, t, d: np.zeros_like(d) if t == step(s) else d

    first, last = "first-step-skipped", "last-step-skipped"
    said = "δ_1 is zero: the sweep ends one step early."
    yield make_mistake(first, said, delta, {"adjoint": zero_at(lambda s: 1)})
    said = "δ_1 is left out of every sum, although it is carried on to ∂L/∂h_0."
    without = {"left": lambda s, adjoints: np.concatenate([0 * adjoints[:1], adjoints[1:]])}
    yield make_mistake(first, said, sums, without)
    said = "δ_T is left out of every sum, although it is carried back."
    without = {"left": lambda s, adjoints: np.concatenate([adjoints[:-1], 0 * adjoints[-1:]])}
    yield make_mistake(last, said, sums, without)
    said = "the sweep begins at step T-1: δ_T is zero, and ∂L/∂h_T is taken for ∂L/∂h_{T-1}."
    early = dict.fromkeys(carries, start_one_step_early)
    yield make_mistake(last, said, delta, {"adjoint": zero_at(lambda s: s.T), **early})


def merge_changes(made: Sequence[EquationMistake]) -> Way | None:
    """Merge the changes of several mistakes; None where two change the same place."""
    way: dict[Any, Any] = {}
    for each in made:
        if way.keys() & each.changes.keys():
            return None
        way |= each.changes
    return way


def changes_fixed_entries(mistake: EquationMistake, seen: Sequence[States]) -> bool:
    """True if the mistake alters a fixed set of entries, independent of any second mistake.

    False if it moves entries or alters large ones only; if it flips a sign, which two steps flip
    back; if it puts a derivative in the place of another; or if it replaces a factor that is zero
    somewhere in the cases `seen`, because a second mistake can then show in the entries that were
    zero.
    """
    own = {(line.tag, i): term for line in seen[0].equations for i, term in enumerate(line.terms)}

    def derivatives(*terms: Term) -> set[str]:
        return {f for term in terms for f in term.factors if f.startswith(("∂", "δ"))}

    def opens(right: Term, written: tuple[Term, ...]) -> bool:
        values = {*right.factors, *right.after} - derivatives(right)
        closed = not all(look_up(s, symbol).all() for s in seen for symbol in values)
        flipped = any(term.times < 0 for term in written)
        return closed or flipped or not derivatives(*written) <= derivatives(right)

    changes = mistake.changes
    changed = {place[1:] if place[0] == UNTRANSPOSED else place for place in changes}
    return (
        "order" not in changes
        and mistake.mistake.name != "clipped"
        and not any(opens(own[k], changes.get(k, (own[k],))) for k in own.keys() & changed)
    )
