"""Which mistake reproduces somebody's numbers: by hypothesis, on all cases, or not at all.

Every candidate is a derivation. One is named only if, within the allowed error, it gives all of
their gradients on the failing case and on fresh ones; then pairs are tried; else the honest answer
is `unknown`. What can be wrong in a model's way back and in its single gradients are its
`Hypotheses`; those of the plain RNN are at the end of this file.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple, Protocol

import numpy as np

from bptt_verifier.mistakes.recursions import (
    RIGHT,
    Candidate,
    Recursion,
    forward,
    other_forward_passes,
    recursions,
    sweep,
)
from bptt_verifier.mistakes.single_gradients import GRADIENTS, gradient, leaves
from bptt_verifier.problems.problem import Problem, Sizes
from bptt_verifier.reference.autodiff import Truth
from bptt_verifier.report.report import Mistake
from bptt_verifier.tolerance.comparison import Array

# A candidate is not the reference, and its rounding is not the one that was bounded.
SLACK = 8
FEW = 4  # cases on which a candidate is tried before it is on all


class Wanted(NamedTuple):
    """One gradient of theirs, and how far a candidate may be from it."""

    yours: Array
    allowed: Array
    relative: float
    axis: int


class Evidence(NamedTuple):
    """The forward pass of a case, and what a candidate must give, by name."""

    states: Any
    sizes: Sizes
    wanted: dict[str, Wanted]

    @property
    def cheapest_first(self) -> list[str]:
        """The names of the gradients, the small ones first."""
        return sorted(self.wanted, key=lambda name: self.wanted[name].yours.size)

    def explains(self, name: str, candidate: Array) -> bool:
        """Whether the candidate's gradient is theirs, entry by entry."""
        if candidate.shape != self.wanted[name].yours.shape:
            return False
        return bool(self.within(name, candidate, SLACK, candidate).all())

    def within(self, name: str, candidate: Array, slack: float, rounded: Array) -> Array:
        """Which entries of the candidate's gradient are theirs, where this one was rounded."""
        yours, allowed, relative, axis = self.wanted[name]
        scale = np.max(np.abs(rounded), axis=axis, keepdims=True)
        near: Array = np.abs(yours - candidate) <= slack * np.maximum(allowed, relative * scale)
        return near


def evidence_of(
    states: Any,
    sizes: Sizes,
    yours: Mapping[str, Array],
    truth: Mapping[str, Array],
    allowed: Mapping[str, Array],
) -> Evidence:
    """A case as evidence: their gradients, the true ones, and the errors that were allowed."""
    wanted = {}
    for name, found in yours.items():
        size = np.abs(truth[name])
        told = size > 0
        relative = float(np.median(allowed[name][told] / size[told])) if told.any() else 0.0
        relative = max(relative, 2 * sizes.T * float(np.finfo(found.dtype).eps))  # steps round
        # Products cancel within a step, and so in the rows of a gradient; the columns of ∂L/∂U may
        # be single steps of very different size.
        axis = 0 if name == "U" else -1
        wanted[name] = Wanted(found.astype(np.float64), allowed[name], relative, axis)
    return Evidence(states, sizes, wanted)


class Hypothesis(Protocol):
    """A mistake in the way back."""

    @property
    def mistake(self) -> Mistake:
        """What is said of it."""


class Hypotheses(NamedTuple):
    """What can be wrong in one model: its way back, and single gradients given a way back.

    `made` are the mistakes in the way back that are tried together: none, single ones, pairs.
    `put_together` is None where two want the same place. One is `in_place` if it changes the same
    entries of the gradients, whatever else is wrong.
    """

    names: Sequence[str]
    made: Callable[[], Iterable[tuple[Hypothesis, ...]]]
    put_together: Callable[[tuple[Any, ...]], Any]
    sweep: Callable[[Any, Any], Any]
    gradient: Callable[[Any, str], Array]
    leaves: Callable[[str, Sizes, Array], Iterator[tuple[Mistake, Callable[[Any], Array]]]]
    in_place: Callable[[Any], bool] = lambda made: False


def explanation(
    known: Hypotheses,
    evidence: Sequence[Evidence],
    another: Callable[[], tuple[Mistake, ...]],
) -> tuple[Mistake, ...]:
    """The mistake, or the two mistakes, that reproduce every number of every case.

    The first case is the failing one; `another` says which forward pass theirs is, and is asked
    when no single mistake is it. An empty result stands for `unknown`.
    """
    if with_leaves(known, evidence, known.put_together(()), most=0) is not None:
        return ()  # so slightly wrong that it cannot be told from right here
    best: tuple[Mistake, ...] = ()
    asked = False
    may_be: Callable[[Hypothesis, Hypothesis], bool] | None = None
    for made, most in attempts(known.made()):
        if best and len(made) + (most if made else 0) >= len(best):
            break  # no later attempt can need fewer
        if made and len(made) + most == 2 and not asked:
            asked = True
            if other := another():
                return other
        way = known.put_together(made)
        if way is None:
            continue
        if len(made) == 2:
            may_be = may_be or plausible(known, evidence[:FEW])
            if not may_be(*made):
                continue
        if any(with_leaves(known, evidence[:few], way, most) is None for few in (1, FEW)):
            continue
        found = with_leaves(known, evidence, way, most)
        if found is not None:
            mistakes = (*(each.mistake for each in made), *found)
            if mistakes and (not best or len(mistakes) < len(best)):
                best = mistakes
    return best


def attempts(
    together: Iterable[tuple[Hypothesis, ...]],
) -> Iterator[tuple[tuple[Hypothesis, ...], int]]:
    """Mistakes in the way back, and how many of single gradients may go with them.

    Up to two of gradients alone, then one in the way back; then one of each, and two in the way
    back, where pairs are tried at all.
    """
    single: list[tuple[Hypothesis, ...]] = []
    for made in together:
        if len(made) == 2:
            yield from ((each, 1) for each in single)
            single = []
        elif made:
            single.append(made)
        yield made, 0 if made else 2


class Alone(NamedTuple):
    """What one mistake does to some cases: a bit for each entry of their gradients."""

    changed: int
    explained: int


def plausible(
    known: Hypotheses, cases: Sequence[Evidence]
) -> Callable[[Hypothesis, Hypothesis], bool]:
    """Whether two mistakes in the way back may explain cases together, from what each does alone.

    Where both are in place, an entry that one of them leaves as it is must be explained by the
    other.
    """
    asked = [(case, [name for name in known.names if name in case.wanted]) for case in cases]

    def given_by(*made: Hypothesis) -> list[Array]:
        swept = [(known.sweep(c.states, known.put_together(made)), names) for c, names in asked]
        return [known.gradient(back, name) for back, names in swept for name in names]

    wanted = [(case, name) for case, names in asked for name in names]
    right = given_by()
    every = bits(np.ones(found.shape, bool) for found in right)
    seen: dict[int, Alone | None] = {}  # by id: whoever asks keeps the mistakes

    def alone(made: Hypothesis) -> Alone | None:
        if id(made) not in seen:
            seen[id(made)] = effect(made) if known.in_place(made) else None
        return seen[id(made)]

    def effect(made: Hypothesis) -> Alone:
        found = given_by(made)
        # Twice the slack: the two together may round as what is up to that far from theirs.
        near = (
            case.within(name, v, 2 * SLACK, case.wanted[name].yours)
            for (case, name), v in zip(wanted, found, strict=True)
        )
        return Alone(bits(v != was for v, was in zip(found, right, strict=True)), bits(near))

    def both(one: Hypothesis, other: Hypothesis) -> bool:
        a, b = alone(one), alone(other)
        if a is None or b is None:
            return True
        return a.changed | b.explained == every == b.changed | a.explained

    return both


def bits(masks: Iterable[Array]) -> int:
    """Masks as the digits of one number."""
    return int.from_bytes(np.packbits(np.concatenate([mask.ravel() for mask in masks])).tobytes())


def same_in_all(
    known: Hypotheses, variants: Iterable[Iterable[tuple[Mistake, Evidence]]]
) -> tuple[Mistake, ...]:
    """The first difference in the forward pass with which the right way back explains all cases.

    A variant's cases are asked for one by one, and no further than the first that contradicts.
    """
    right = known.put_together(())
    for cases in variants:
        mistakes = []
        for mistake, case in cases:
            if with_leaves(known, [case], right, most=0) is None:
                break
            mistakes.append(mistake)
        else:
            return tuple(mistakes[:1])
    return ()


def with_leaves(
    known: Hypotheses, evidence: Sequence[Evidence], way: Any, most: int
) -> tuple[Mistake, ...] | None:
    """Mistakes of single gradients that, with this way back, explain everything.

    None where some gradient stays unexplained, or where more than `most` would be needed. The same
    mistake in several gradients counts once.
    """
    names = [name for name in known.names if any(name in each.wanted for each in evidence)]
    swept: list[Any] = []
    wrong: set[str] = set()
    for each in evidence:
        back = known.sweep(each.states, way)
        for name in each.cheapest_first:
            if name in names and not each.explains(name, known.gradient(back, name)):
                if most == 0:
                    return None
                wrong.add(name)
        swept.append(back)
    explanations: dict[str, list[Mistake]] = {}
    shared: set[Any] | None = None  # if one mistake has to do, all these gradients make the same
    giving_of = {
        name: [(e, back) for e, back in zip(evidence, swept, strict=True) if name in e.wanted]
        for name in wrong
    }
    # The small ones first.
    for name in sorted(wrong, key=lambda name: giving_of[name][0][0].wanted[name].yours.size):
        giving = giving_of[name]
        first = giving[0][0]
        possible = [
            mistake
            for mistake, result in known.leaves(name, first.sizes, first.wanted[name].yours)
            if (shared is None or kind(mistake) in shared)
            and all(each.explains(name, result(back)) for each, back in giving)
        ]
        if not possible:
            return None
        explanations[name] = possible
        shared = {kind(mistake) for mistake in possible} if most == 1 else None
    in_order = sorted(wrong, key=names.index)
    return fewest(in_order, [explanations[name] for name in in_order], most)


def fewest(
    wrong: list[str], explanations: list[list[Mistake]], most: int
) -> tuple[Mistake, ...] | None:
    """The fewest kinds of mistakes that explain every wrong gradient, or None if over `most`."""
    kinds = {kind(mistake): mistake for possible in explanations for mistake in possible}
    for count in range(most + 1):
        for chosen in combinations(kinds, count):
            if all(any(kind(m) in chosen for m in possible) for possible in explanations):
                return tuple(
                    joined(
                        kinds[each],
                        [
                            name
                            for name, possible in zip(wrong, explanations, strict=True)
                            if any(kind(m) == each for m in possible)
                        ],
                    )
                    for each in chosen
                )
    return None


def kind(mistake: Mistake) -> tuple[str, str]:
    """What makes two mistakes in different gradients the same one."""
    details = {key: value for key, value in mistake.details.items() if key != "gradient"}
    return mistake.name, repr(sorted(details.items())) + without_place(mistake)


def without_place(mistake: Mistake) -> str:
    """The explanation, but for the gradient in which the mistake is made."""
    return mistake.explanation.removeprefix(f"in ∂L/∂{mistake.details['gradient']}, ")


def joined(mistake: Mistake, names: list[str]) -> Mistake:
    """The mistake with all the gradients in which it is made."""
    if len(names) == 1:
        return mistake
    where = " and ".join("δ_t" if name == "adjoints" else f"∂L/∂{name}" for name in names)
    explanation = f"in {where}, {without_place(mistake)}"
    details = {**mistake.details, "gradient": names}
    return mistake._replace(explanation=explanation, details=details)


# The plain RNN.


class Case(NamedTuple):
    """A problem, the reference for it, and what their derivation gave."""

    problem: Problem
    truth: Truth
    yours: dict[str, Array]

    def against(self, problem: Problem) -> Evidence:
        """Their numbers as evidence of the forward pass of a problem."""
        truth = self.truth
        return evidence_of(forward(problem), problem.sizes, self.yours, truth.values, truth.allowed)


def diagnose(cases: list[Case]) -> tuple[Mistake, ...]:
    """What `explanation` says of a derivation of the plain RNN; the first case is a failing one."""
    sizes, longest = cases[0].problem.sizes, max(len(case.problem.x) for case in cases)
    single = list(recursions(sizes, longest))
    known = Hypotheses(
        GRADIENTS,
        partial(none_one_or_two, single),
        put_together,
        sweep,
        gradient,
        partial(leaves, longest=longest),
    )

    def another() -> tuple[Mistake, ...]:
        others = [[*other_forward_passes(case.problem)] for case in cases]
        variants = (
            ((mistake, c.against(other)) for c, (mistake, other) in zip(cases, each, strict=True))
            for each in zip(*others, strict=True)
        )
        return same_in_all(known, variants)

    return explanation(known, [case.against(case.problem) for case in cases], another)


def none_one_or_two(single: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """No mistake in the way back, then each one, then each pair."""
    yield ()
    yield from ((candidate,) for candidate in single)
    yield from combinations(single, 2)


def put_together(made: tuple[Candidate, ...]) -> Recursion | None:
    """The way back with all of these mistakes, or None where two want the same place."""
    way: Recursion | None = RIGHT
    for candidate in made:
        way = candidate.put_into(way) if way is not None else None
    return way
