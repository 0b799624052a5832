"""Mistakes in the way back through an LSTM or a GRU: what somebody's numbers would be.

A mistake leaves a term or a factor of an equation of `gated_recursion` out, puts another factor in
its place, or is one of those that the RNN's way back can make as well. What is changed is kept by
place, so that two mistakes go together where their places differ. Mistakes in single gradients are
in `gated_leaf_mistakes`.
"""

from collections.abc import Iterator, Sequence
from functools import cache, partial
from itertools import combinations, permutations
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.gated_recursion import (
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
    value,
)
from bptt_verifier.mistakes.recursions import Candidate, recursions
from bptt_verifier.problems.problem import Variant
from bptt_verifier.report.report import Mistake
from bptt_verifier.tolerance.comparison import Array

# What may stand in the place of a factor, by the name of that mistake.

OFF, WRAPS, OPERAND = "hidden-state-off-by-one", "negative-index-wraps-around", "wrong-operand"
MISSING = "activation-derivative-missing"
ACTIVATED = "activation-derivative-of-activated-value"


@cache
def instead(cell: str) -> dict[str, list[tuple[str, str]]]:
    """Symbols by the symbol whose place they take; an empty one where it is missing."""
    functions = FUNCTIONS[cell]
    found: dict[str, list[tuple[str, str]]] = {}
    shifts = [(OFF, EARLIER), (OFF, LATER), (WRAPS, WRAPPED)]
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


def candidates(s: States, longest: int) -> Iterator[Candidate]:
    """Those in the equations, then those that the RNN's way back can make as well."""
    for line in s.way_back:
        yield from in_terms(line)
    for line in s.way_back:
        yield from in_factors(line, s.problem.cell)
    if s.problem.cell == "lstm":
        yield from earlier_cell(*s.way_back)
    yield Candidate(
        Mistake(
            "untransposed-recurrent-weight",
            "every gate's block of W is used where its transpose belongs.",
            {},
            s.way_back[-1].tag,
        ),
        {"weight": True},
    )
    for one, other in combinations(s.gates, 2):
        swapped = {one: other, other: one}
        yield Candidate(
            Mistake(
                OPERAND,
                f"δ_{one} and δ_{other} are packed in each other's place.",
                {"gates": [one, other]},
                s.way_back[-1].tag,
            ),
            {"order": tuple(swapped.get(k, k) for k in s.gates)},
        )
    yield from as_in_the_rnn(s, longest)


def in_terms(line: Equation) -> Iterator[Candidate]:
    """Terms that are left out, doubled, of the wrong sign, or go through the wrong weight."""

    def candidate(name: str, said: str, changes: dict[Any, Any], **details: Any) -> Candidate:
        return Candidate(Mistake(name, f"{said}; right is {line}.", details, line.tag), changes)

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
        ) -> Candidate:
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
        if term.through:
            yield other(
                "untransposed-recurrent-weight",
                f"W_{term.through} is used where its transpose belongs",
                term._replace(transposed=False),
                gate=term.through,
            )
            gates = {t.through for t in line.terms if t.through} - {term.through}
            for k in sorted(gates):
                said = f"W_{k} is used where W_{term.through} belongs"
                yield other(OPERAND, said, term._replace(through=k), used=f"W_{k}")
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
                    f"{factor} multiplies on the wrong side of W_{term.through}ᵀ",
                    moved,
                    factor=factor,
                )


def in_factors(line: Equation, cell: str) -> Iterator[Candidate]:
    """Factors that are missing, or have another in their place."""
    for i, term in enumerate(line.terms):
        for symbol in (*term.factors, *term.after):
            for name, other in instead(cell).get(symbol, ()):
                itself = other in (line.result, CARRIED.get(line.result))
                if itself or (not other and term.factors == (symbol,)):
                    continue
                put = partial(put_for, symbol, other)
                written = term._replace(factors=put(term.factors), after=put(term.after))
                said = (
                    f"{other} is used where {symbol} belongs" if other else f"{symbol} is missing"
                )
                yield Candidate(
                    Mistake(
                        name,
                        f"{said}; right is {line}.",
                        {"belongs": symbol, "used": other or None},
                        line.tag,
                    ),
                    {(line.tag, i): (written,)},
                )


def put_for(symbol: str, other: str, factors: tuple[str, ...]) -> tuple[str, ...]:
    """The factors with one symbol replaced, or left out."""
    return tuple(found for f in factors if (found := other if f == symbol else f))


def earlier_cell(of_c: Equation, *rest: Equation) -> Iterator[Candidate]:
    """tanh(c_{t-1}) in both places where tanh(c_t) belongs."""
    of_o = next(line for line in rest if line.result == "δ_o")
    slope, gate = of_c.terms[1], of_o.terms[0]
    yield Candidate(
        Mistake(
            OFF,
            f"tanh(c_{{t-1}}) is used where tanh(c_t) belongs; right is {of_c}, and {of_o}.",
            {"belongs": "tanh(c_t)", "used": "tanh(c_{t-1})"},
            of_c.tag,
        ),
        {
            (of_c.tag, 1): (
                slope._replace(factors=put_for("tanh′(c_t)", "tanh′(c_{t-1})", slope.factors)),
            ),
            (of_o.tag, 0): (
                gate._replace(factors=put_for("tanh(c_t)", "tanh(c_{t-1})", gate.factors)),
            ),
        },
    )


# Places of the RNN's way back that these have too.
SHARED = {"output", "output_weight", "adjoint", "carried", "left"}
EQUATIONS = {
    "lstm": {"B2": "S6", "B3": "S11", "B4": "S12"},
    "gru": {"B2": "G6", "B3": "G12", "B4": "G15"},
}


def as_in_the_rnn(s: States, longest: int) -> Iterator[Candidate]:
    """What can go wrong with ∂L/∂ŷ, with what is handed on, and with single steps."""
    results = [line.result for line in s.way_back if line.result in CARRIED]
    for found, changes in recursions(s.problem.sizes, longest):
        if not changes.keys() <= SHARED:
            continue
        equation = EQUATIONS[s.problem.cell].get(str(found.equation), found.equation)
        mistake = found._replace(equation=equation)
        carried = changes.get("carried")
        others = {place: change for place, change in changes.items() if place != "carried"}
        if carried is None:
            yield Candidate(mistake, others)
            continue
        yield Candidate(mistake, others | {("carried", result): carried for result in results})
        if len(results) == 1:
            continue
        for result in results:
            of_c = CARRIED[result] == FROM_NEXT
            if of_c and mistake.name.startswith("output-gradient"):
                continue  # no output's gradient enters a cell
            said = of_the_cell(mistake.explanation) if of_c else mistake.explanation
            alone = mistake._replace(
                explanation=f"in {result} alone, {said}", details={**mistake.details, "in": result}
            )
            yield Candidate(alone, others | {("carried", result): carried})


def of_the_cell(said: str) -> str:
    """What is said of h and its way back, said of the cell."""
    for of_h, of_c in ((DH, FROM_NEXT), ("Wᵀ δ_t", f"{DC} ⊙ f_t"), ("h_t", "c_t")):
        said = said.replace(of_h, of_c)
    return said


def put_together(made: tuple[Candidate, ...]) -> Way | None:
    """The way back with all of these mistakes, or None where two want the same place."""
    way: dict[Any, Any] = {}
    for candidate in made:
        if way.keys() & candidate.changes.keys():
            return None
        way |= candidate.changes
    return way


def made_together(single: Sequence[Candidate], *, pairs: bool) -> Iterator[tuple[Candidate, ...]]:
    """No mistake, each one, then each pair, but for truncations and clipping, which are many."""
    yield ()
    yield from ((candidate,) for candidate in single)
    if not pairs:
        return
    often = [each for each in single if each.mistake.name not in ("truncated", "clipped")]
    yield from combinations(often, 2)


def in_place(candidate: Candidate, *, seen: Sequence[States]) -> bool:
    """Whether a mistake changes the same entries of the gradients, whatever else is wrong.

    So it does unless it moves them, or waits for a large one, or opens a way for what else is
    wrong: it brings a derivative to where another stood, or a factor to where a zero was in one of
    the cases `seen`.
    """
    own = {(line.tag, i): term for line in seen[0].way_back for i, term in enumerate(line.terms)}

    def derivatives(*terms: Term) -> set[str]:
        return {f for term in terms for f in term.factors if f.startswith(("∂", "δ"))}

    def opens(right: Term, written: tuple[Term, ...]) -> bool:
        values = {*right.factors, *right.after} - derivatives(right)
        closed = not all(value(s, symbol).all() for s in seen for symbol in values)
        return closed or not derivatives(*written) <= derivatives(right)

    changes = candidate.changes
    return (
        "order" not in changes
        and candidate.mistake.name != "clipped"
        and not any(opens(own[place], changes[place]) for place in own.keys() & changes.keys())
    )


# Other forward passes.


class Other(NamedTuple):
    """Another forward pass: the problem that it is, and how theirs packs the gates.

    `gates` are, for each gate, the place of its rows in theirs; the gradients in `free` may be
    anything.
    """

    mistake: Mistake
    problem: Variant
    gates: tuple[int, ...]
    signs: tuple[int, ...]
    free: frozenset[str] = frozenset()


def other_forward_passes(problem: Variant) -> Iterator[Other]:
    """Forward passes that are not the stated one."""
    functions, params = FUNCTIONS[problem.cell], problem.params
    gates = tuple(range(len(functions)))
    as_they_are = (gates, (1,) * len(gates))

    def differs(said: str, **details: Any) -> Mistake:
        return Mistake("forward-differs", f"your forward pass differs: {said}.", details)

    for name in problem.first:
        first = {state: value for state, value in problem.first.items() if state != name}
        found = differs(f"{name} is ignored, and it starts at zero")
        yield Other(found, problem._replace(first=first), *as_they_are, frozenset({name}))
    for name in ("b", "c", "b_n"):
        bias = getattr(params, name, None)
        if bias is not None:
            without = params._replace(**{name: np.zeros_like(bias)})
            found = differs(f"the bias {name} is left out")
            yield Other(found, problem._replace(params=without), *as_they_are)
    found = differs("the inputs are read backwards in time")
    in_either_order = frozenset({"x", "adjoints"})
    yield Other(found, problem._replace(x=problem.x[::-1]), *as_they_are, in_either_order)
    if problem.cell == "gru":
        reset = {"after": "before", "before": "after"}[problem.option["reset"]]
        found = differs(f"its reset gate acts {reset} the product with W_n", reset=reset)
        yield Other(found, problem._replace(option={"reset": reset}), *as_they_are)
        found = differs("it is h_t = z_t ⊙ n_t + (1 − z_t) ⊙ h_{t-1}, with z_t for 1 − z_t")
        negated = (1, -1, 1)  # 1 − σ(a) = σ(−a)
        yield Other(found, rearranged(problem, gates, negated), gates, negated)
    for order in permutations(gates):
        if order != gates:
            letters = ", ".join(k for _, k in sorted(zip(order, functions, strict=True)))
            found = differs(f"its gates are packed in the order {letters}", gates=letters)
            yield Other(found, rearranged(problem, order, as_they_are[1]), order, as_they_are[1])


def rearranged(problem: Variant, order: tuple[int, ...], signs: tuple[int, ...]) -> Variant:
    """The problem whose k-th gate has the rows of gate order[k] of this one, with a sign."""
    packed = {
        name: in_order(rows, order, signs)
        for name in ("U", "W", "b")
        if (rows := getattr(problem.params, name)) is not None
    }
    return problem._replace(params=problem.params._replace(**packed))


def in_order(packed: Array, order: tuple[int, ...], signs: tuple[int, ...], axis: int = 0) -> Array:
    """The gates' blocks in another order, with signs."""
    blocks = np.split(packed, len(order), axis=axis)
    return np.concatenate(
        [sign * blocks[k] for k, sign in zip(order, signs, strict=True)], axis=axis
    )
