"""Mistakes in the way back through a cell: every place of its equations, written wrongly.

A mistake leaves a term or a factor of an equation of `equations` out, puts another factor in its
place, or enters where ∂L/∂ŷ comes in and where a step hands on to the one before. What is changed
is kept by place, so that two mistakes go together where their places differ.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import combinations
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.equations import (
    CARRIED,
    DC,
    DH,
    EARLIER,
    FROM_NEXT,
    FUNCTIONS,
    LATER,
    SLOPES,
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
    """A mistake, and what stands in the places of the way back where it is made."""

    mistake: Mistake
    changes: dict[Any, Any]


# What may stand in the place of a factor, by the name of that mistake.

OFF, WRAPS, OPERAND = "hidden-state-off-by-one", "negative-index-wraps-around", "wrong-operand"
MISSING = "activation-derivative-missing"
ACTIVATED = "activation-derivative-of-activated-value"


@cache
def list_substitutes(cell: str) -> dict[str, list[tuple[str, str]]]:
    """Symbols, by the symbol whose place they take; an empty one where it is missing."""
    functions = FUNCTIONS[cell]
    found: dict[str, list[tuple[str, str]]] = {}
    shifts = [(OFF, EARLIER), (OFF, LATER), (WRAPS, WRAPPED)]
    if cell == "rnn":
        return {
            "φ′(a_t)": [
                (MISSING, ""),
                (MISSING, "φ′(a_t), but 1 at the last step"),
                (MISSING, "1, but φ′(a_T) at the last step"),
                (ACTIVATED, "φ′(h_t)"),
                *((name, "φ′(a_t)" + shift) for name, shift in shifts),
            ]
        }
    for k, own in functions.items():
        others = [j for j in functions if j != k]
        gate, slope, (other,) = f"{k}_t", f"{own}′(a_{{{k},t}})", SLOPES.keys() - {own}
        found[slope] = [
            (MISSING, ""),
            (ACTIVATED, f"{own}′({gate})"),
            (OPERAND, f"{other}′(a_{{{k},t}})"),
            (OPERAND, f"{other}′ with h = {gate}"),
            *((OPERAND, f"{functions[j]}′(a_{{{j},t}})") for j in others),
            *((name, slope + shift) for name, shift in shifts),
        ]
        for factor, opposite in ((gate, f"1 − {gate}"), (f"1 − {gate}", gate)):
            found[factor] = [
                (OPERAND, ""),
                (OPERAND, opposite),
                *((OPERAND, factor.replace(gate, f"{j}_t")) for j in others),
                (OPERAND, f"a_{{{k},t}}"),
                *((name, factor + shift) for name, shift in shifts),
            ]
    for s in "hc":
        found[f"{s}_{{t-1}}"] = [
            (OFF, f"{s}_t"),
            (OFF, f"{s}_{{t-2}}"),
            (OFF, f"{s}_{{t-2}} (zero at t = 1)"),
            (WRAPS, f"{s}_{{t-1}} (at t = 1: {s}_T)"),
            (WRAPS, f"{s}_{{t-2}} (at t = 1: {s}_T)"),
            (OPERAND, f"{s}_0"),
            (OPERAND, ""),
        ]
    if cell == "lstm":
        found["c_{t-1}"] += [(OPERAND, "h_{t-1}"), (OPERAND, "tanh(c_{t-1})"), (OPERAND, "g_t")]
        found["tanh(c_t)"] = [
            (OPERAND, "c_t"),
            (OFF, "tanh(c_{t-1})"),
            (OPERAND, "h_t"),
            (OPERAND, ""),
        ]
        found["tanh′(c_t)"] = [
            (MISSING, ""),
            (ACTIVATED, "tanh′(tanh(c_t))"),
            (OFF, "tanh′(c_{t-1})"),
            (OPERAND, "σ′(c_t)"),
        ]
        found[DC] = [(OPERAND, DH), (OPERAND, FROM_NEXT)]
        found[DH] = [(OPERAND, DC)]
    else:
        found["h_{t-1} − n_t"] = [
            ("sign-flipped", "n_t − h_{t-1}"),
            (OPERAND, "h_{t-1}"),
            (OPERAND, "n_t"),
            (OFF, "h_t − n_t"),
            (WRAPS, "h_{t-1} − n_t (at t = 1: h_T)"),
            (OPERAND, ""),
        ]
        found["W_n h_{t-1} + b_n"] = [
            ("bias-part-missing", "W_n h_{t-1}"),
            (OFF, "W_n h_t + b_n"),
            (OPERAND, "h_{t-1}"),
            (OPERAND, "a_{n,t}"),
            (OPERAND, "n_t"),
            (OPERAND, ""),
        ]
        found["δ_n"] = [(OPERAND, DH)]
    return found


# Every single mistake.


def list_mistakes(s: States, longest: int) -> Iterator[EquationMistake]:
    """Every mistake in the way back of a cell, the likely ones first.

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
    """One mistake that is made in several places of the equations at once."""
    tag = s.equations[-1].tag
    if s.problem.cell == "rnn":
        yield EquationMistake(
            Mistake(
                "activation-derivative-before-matrix-product",
                "δ_t is multiplied by φ′(a_{t-1}) before the product with Wᵀ; the Hadamard product "
                "comes after it.",
                {},
                "B2",
            ),
            {
                ("B2", 0): (Term((DH, "1, but φ′(a_T) at the last step")),),
                ("B3", 0): (Term(("δ_t", "φ′(a_{t-1}), but 1 at t = 1"), "W"),),
            },
        )
        return
    if s.problem.cell == "lstm":
        yield from list_earlier_cell_mistakes(*s.equations)
    said = "every gate's block of W is used where its transpose belongs."
    yield EquationMistake(Mistake("untransposed-recurrent-weight", said, {}, tag), {"weight": True})
    for one, other in combinations(s.gates, 2):
        swapped = {one: other, other: one}
        said = f"{name_delta(one)} and {name_delta(other)} are packed in each other's place."
        yield EquationMistake(
            Mistake(OPERAND, said, {"gates": [one, other]}, tag),
            {"order": tuple(swapped.get(k, k) for k in s.gates)},
        )


def list_term_mistakes(line: Equation) -> Iterator[EquationMistake]:
    """Terms that are left out, doubled, of the wrong sign, or go through the wrong weight."""

    def candidate(name: str, said: str, changes: dict[Any, Any], **details: Any) -> EquationMistake:
        return EquationMistake(
            Mistake(name, f"{said}; right is {line}.", details, line.tag), changes
        )

    carried, several = line.result in CARRIED, len(line.terms) > 1
    places = range(len(line.terms))
    # Without both terms of ∂L/∂c_t nothing comes from the next step either: the second is enough.
    for size in range(1, len(line.terms) + (carried or not several)):
        for out in combinations(places, size):
            past = carried or any(FROM_NEXT in line.terms[i].factors for i in out)
            texts = [str(line.terms[i]) for i in out]
            said = f"{' + '.join(texts)} {'are' if size > 1 else 'is'} left out"
            yield candidate(
                "recurrent-path-dropped" if past else "zero-gradient",
                f"{line.result} is zero" if size == len(line.terms) else said,
                {(line.tag, i): () for i in out},
                terms=texts,
            )
    for i, term in enumerate(line.terms):

        def other(
            name: str, said: str, *terms: Term, at: Any = (line.tag, i), **details: Any
        ) -> EquationMistake:
            return candidate(name, said, {at: terms}, **details)

        yield other("sign-flipped", f"{term} has the wrong sign", term._replace(times=-1.0))
        if carried or several:
            yield other("path-counted-twice", f"{term} is counted twice", term._replace(times=2.0))
        else:
            yield other(
                "constant-factor", f"{line.result} is twice what it should be",
                term._replace(times=2.0), factor="2", value=2.0,
            )  # fmt: skip
        if line.result == "∂L/∂c_{t-1}":
            said = f"{DC} itself is added: the path through c_t is counted twice"
            yield other("path-counted-twice", said, term, Term((DC,)))
        if term.weight:
            yield other(
                "untransposed-recurrent-weight",
                f"{term.weight} is used where its transpose belongs",
                term._replace(transposed=False),
                weight=term.weight,
            )
            weights = {t.weight for t in line.terms if t.weight} - {term.weight}
            for k in sorted(weights):
                said = f"{k} is used where {term.weight} belongs"
                yield other(OPERAND, said, term._replace(weight=k), used=k)
            for factor in (*term.factors[1:], *term.after):
                slope = "′" in factor
                inner = tuple(f for f in term.factors if f != factor)
                outer = tuple(f for f in term.after if f != factor)
                moved = (
                    term._replace(factors=(*inner, factor), after=outer)
                    if factor in term.after
                    else term._replace(factors=inner, after=(*outer, factor))
                )
                yield other(
                    "activation-derivative-before-matrix-product" if slope else OPERAND,
                    f"{factor} multiplies on the wrong side of {term.weight}ᵀ",
                    moved,
                    factor=factor,
                )


def list_factor_mistakes(line: Equation, cell: str) -> Iterator[EquationMistake]:
    """Factors that are missing, or have another in their place."""
    for i, term in enumerate(line.terms):
        for symbol in (*term.factors, *term.after):
            for name, other in list_substitutes(cell).get(symbol, ()):
                itself = other in (line.result, CARRIED.get(line.result))
                if itself or (not other and term.factors == (symbol,)):
                    continue
                put = partial(replace_symbol, symbol, other)
                written = term._replace(factors=put(term.factors), after=put(term.after))
                said = (
                    f"{other} is used where {symbol} belongs" if other else f"{symbol} is missing"
                )
                yield EquationMistake(
                    Mistake(
                        name,
                        f"{said}; right is {line}.",
                        {"belongs": symbol, "used": other or None},
                        line.tag,
                    ),
                    {(line.tag, i): (written,)},
                )


def replace_symbol(symbol: str, other: str, factors: tuple[str, ...]) -> tuple[str, ...]:
    """The factors with one symbol replaced, or left out."""
    return tuple(found for f in factors if (found := other if f == symbol else f))


def list_earlier_cell_mistakes(of_c: Equation, *rest: Equation) -> Iterator[EquationMistake]:
    """tanh(c_{t-1}) in both places where tanh(c_t) belongs."""
    of_o = next(line for line in rest if line.result == "δ_o")
    slope, gate = of_c.terms[1], of_o.terms[0]
    yield EquationMistake(
        Mistake(
            OFF,
            f"tanh(c_{{t-1}}) is used where tanh(c_t) belongs; right is {of_c}, and {of_o}.",
            {"belongs": "tanh(c_t)", "used": "tanh(c_{t-1})"},
            of_c.tag,
        ),
        {
            (of_c.tag, 1): (
                slope._replace(
                    factors=replace_symbol("tanh′(c_t)", "tanh′(c_{t-1})", slope.factors)
                ),
            ),
            (of_o.tag, 0): (
                gate._replace(factors=replace_symbol("tanh(c_t)", "tanh(c_{t-1})", gate.factors)),
            ),
        },
    )


# Where ∂L/∂ŷ comes in.

# Factors that a gradient may be off by, as functions of the sizes.
FACTORS: dict[str, Callable[[Sizes], float]] = {
    "2": lambda n: 2.0,
    "1/2": lambda n: 0.5,
    "B": lambda n: n.B,
    "1/B": lambda n: 1 / n.B,
    "O": lambda n: n.O,
    "1/O": lambda n: 1 / n.O,
    "B O": lambda n: n.B * n.O,
    "1/(B O)": lambda n: 1 / (n.B * n.O),
    "B/2": lambda n: n.B / 2,
    "O/2": lambda n: n.O / 2,
    "B O/2": lambda n: n.B * n.O / 2,
    "2/B": lambda n: 2 / n.B,
    "2/O": lambda n: 2 / n.O,
    "2/(B O)": lambda n: 2 / (n.B * n.O),
    "T": lambda n: n.T,
    "1/T": lambda n: 1 / n.T,
    "H": lambda n: n.H,
    "1/H": lambda n: 1 / n.H,
}


def list_output_mistakes(s: States) -> Iterator[EquationMistake]:
    """∂L/∂ŷ off by a factor or a sign, or brought in through V untransposed."""
    for words, factor in FACTORS.items():
        said = (
            f"every gradient is {words} times what it should be: ∂L/∂ŷ and the stated loss differ "
            "by that factor."
        )
        yield EquationMistake(
            Mistake("constant-factor", said, {"factor": words, "value": factor(s.sizes)}, "L2"),
            {"output": lambda s, factor=factor: s.dy * factor(s.sizes)},
        )
    said = "every gradient has the wrong sign: ∂L/∂ŷ is taken as y − ŷ."
    yield EquationMistake(Mistake("sign-flipped", said, {}, "L2"), {"output": lambda s: -s.dy})
    said = "V is used where Vᵀ belongs when the output gradient enters; it shows where O = H."
    yield EquationMistake(
        Mistake("untransposed-output-weight", said, {}, "B1"),
        {"output_weight": lambda s: transpose(s.params.V)},
    )


# What one step hands on to the one before, and the gradient through the output, by step.
Carry = Callable[[States, int, Array, Array, Array], Array]


def stop_after(kept: int) -> Carry:
    """Nothing is handed on beyond so many steps."""
    return lambda s, t, g, dh, last: g if s.T - t + 1 < kept else np.zeros_like(g)


def clip_to(limit: float) -> Carry:
    """What is handed on is clipped."""
    return lambda s, t, g, dh, last: np.clip(g, -limit, limit)


class CarryMistake(NamedTuple):
    """A mistake in what a step hands on; "B3" stands for the cell's own equation of that."""

    name: str
    said: str
    carried: Carry
    details: Mapping[str, Any] = MappingProxyType({})
    equation: str = "B3"


def list_wrong_carries(longest: int) -> Iterator[CarryMistake]:
    """Every mistake in what a step hands on to the one before, in the words of h."""
    yield CarryMistake(
        "recurrent-path-dropped",
        "nothing is carried back: only the last step contributes, as if h_T did not depend on "
        "h_{T-1}.",
        lambda s, t, g, dh, last: np.zeros_like(g),
    )
    yield CarryMistake(
        "output-gradient-at-every-step",
        "∂L/∂ŷ enters at every step, but the loss sees the last state only.",
        lambda s, t, g, dh, last: g + last,
        equation="B1",
    )
    yield CarryMistake(
        "output-gradient-at-wrong-step",
        "∂L/∂ŷ enters one step too early in time: ∂L/∂h_{T-1} = Vᵀ ∂L/∂ŷ is set, and nothing is "
        "carried from step T.",
        lambda s, t, g, dh, last: last if t == s.T else g,
        equation="B1",
    )
    yield CarryMistake(
        "path-counted-twice",
        "∂L/∂h_t itself is added to Wᵀ δ_t: the path through h_t is counted twice.",
        lambda s, t, g, dh, last: g + dh,
    )
    yield CarryMistake(
        "path-counted-twice",
        "Wᵀ δ_t is added twice at every step.",
        lambda s, t, g, dh, last: 2 * g,
    )
    for kept in range(2, longest):
        yield CarryMistake(
            "truncated",
            f"the sweep stops after {kept} steps: earlier steps contribute nothing.",
            stop_after(kept),
            {"steps": kept},
        )
    for limit in (0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0):
        yield CarryMistake(
            "clipped",
            f"∂L/∂h_t is clipped to ±{limit:g} inside the sweep; clip what is returned, not what "
            "is derived.",
            clip_to(limit),
            {"value": limit},
        )


def list_carry_mistakes(s: States, longest: int) -> Iterator[EquationMistake]:
    """Mistakes in what a step hands on to the one before: for h and c together, and for each."""
    lines = [line for line in s.equations if line.result in CARRIED]
    for name, said, carried, details, equation in list_wrong_carries(longest):
        tag = lines[-1].tag if equation == "B3" else equation
        yield EquationMistake(
            Mistake(name, said, dict(details), tag),
            {("carried", line.result): carried for line in lines},
        )
        for line in lines if len(lines) > 1 else ():
            of_c = CARRIED[line.result] == FROM_NEXT
            if of_c and name.startswith("output-gradient"):
                continue  # no output's gradient enters a cell
            words = rephrase_for_c(said) if of_c else said
            yield EquationMistake(
                Mistake(
                    name, f"in {line.result} alone, {words}", {**details, "in": line.result}, tag
                ),
                {("carried", line.result): carried},
            )


def rephrase_for_c(said: str) -> str:
    """What is said of h and its way back, said of the cell."""
    for of_h, of_c in ((DH, FROM_NEXT), ("Wᵀ δ_t", f"{DC} ⊙ f_t"), ("h_t", "c_t")):
        said = said.replace(of_h, of_c)
    return said


def list_step_mistakes(s: States) -> Iterator[EquationMistake]:
    """The first or the last step left out, of the sweep or of the sums that follow it."""
    delta = next(line.tag for line in s.equations if line.result.startswith("δ"))
    sums = {"rnn": "B4", "lstm": "S12", "gru": "G15"}[s.problem.cell]
    results = [line.result for line in s.equations if line.result in CARRIED]

    def zero_at(step: Callable[[States], int]) -> Callable[[States, int, Array], Array]:
        return lambda s, t, d: np.zeros_like(d) if t == step(s) else d

    def one_step_early(s: States, t: int, g: Array, dh: Array, last: Array) -> Array:
        return last if t == s.T else g

    left_out: tuple[tuple[str, str, str, dict[Any, Any]], ...] = (
        (
            "first-step-skipped",
            "δ_1 is zero: the sweep ends one step early.",
            delta,
            {"adjoint": zero_at(lambda s: 1)},
        ),
        (
            "first-step-skipped",
            "δ_1 is left out of every sum, although it is carried on to ∂L/∂h_0.",
            sums,
            {"left": lambda s, adjoints: np.concatenate([0 * adjoints[:1], adjoints[1:]])},
        ),
        (
            "last-step-skipped",
            "δ_T is left out of every sum, although it is carried back.",
            sums,
            {"left": lambda s, adjoints: np.concatenate([adjoints[:-1], 0 * adjoints[-1:]])},
        ),
        (
            "last-step-skipped",
            "the sweep begins at step T-1: δ_T is zero, and ∂L/∂h_T is taken for ∂L/∂h_{T-1}.",
            delta,
            {
                "adjoint": zero_at(lambda s: s.T),
                **{("carried", result): one_step_early for result in results},
            },
        ),
    )
    for name, said, equation, changes in left_out:
        yield EquationMistake(Mistake(name, said, {}, equation), changes)


# Several mistakes together.


def merge_changes(made: Sequence[EquationMistake]) -> Way | None:
    """The way back with all of these mistakes, or None where two want the same place."""
    way: dict[Any, Any] = {}
    for each in made:
        if way.keys() & each.changes.keys():
            return None
        way |= each.changes
    return way


def changes_fixed_entries(mistake: EquationMistake, seen: Sequence[States]) -> bool:
    """True if the mistake alters a fixed set of entries, independent of any second mistake.

    It does not if it moves entries, waits for large ones, or opens a path for a second mistake: it
    brings a derivative to where another stood, or a factor to where a zero was in one of the cases
    `seen`.
    """
    own = {(line.tag, i): term for line in seen[0].equations for i, term in enumerate(line.terms)}

    def derivatives(*terms: Term) -> set[str]:
        return {f for term in terms for f in term.factors if f.startswith(("∂", "δ"))}

    def opens(right: Term, written: tuple[Term, ...]) -> bool:
        values = {*right.factors, *right.after} - derivatives(right)
        closed = not all(look_up(s, symbol).all() for s in seen for symbol in values)
        return closed or not derivatives(*written) <= derivatives(right)

    changes = mistake.changes
    return (
        "order" not in changes
        and mistake.mistake.name != "clipped"
        and not any(opens(own[place], changes[place]) for place in own.keys() & changes.keys())
    )
