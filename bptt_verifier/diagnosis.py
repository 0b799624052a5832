"""Which mistake reproduces somebody's numbers: by hypothesis, on all cases, or not at all.

Every candidate is a derivation. One is named only if, within the allowed error, it gives all of
their gradients on the failing case and on fresh ones; then pairs are tried; else the honest answer
is `unknown`.
"""

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np

from bptt_verifier.comparison import Array
from bptt_verifier.leaf_mistakes import GRADIENTS, gradient, leaves
from bptt_verifier.mistakes import (
    RIGHT,
    Candidate,
    Recursion,
    States,
    Swept,
    forward,
    other_forward_passes,
    recursions,
    sweep,
)
from bptt_verifier.oracle import Truth
from bptt_verifier.problems import Problem
from bptt_verifier.report import Mistake

# A candidate is not the reference, and its rounding is not the one that was bounded.
SLACK = 8


class Case(NamedTuple):
    """A problem, the reference for it, and what their derivation gave."""

    problem: Problem
    truth: Truth
    yours: dict[str, Array]


class Wanted(NamedTuple):
    """One gradient of theirs, and how far a candidate may be from it."""

    yours: Array
    allowed: Array
    relative: float
    axis: int


class Evidence(NamedTuple):
    """A case with its forward pass, and what a candidate must give, by name."""

    case: Case
    states: States
    wanted: dict[str, Wanted]

    def explains(self, name: str, candidate: Array) -> bool:
        """Whether the candidate's gradient is theirs, entry by entry."""
        yours, allowed, relative, axis = self.wanted[name]
        scale = np.max(np.abs(candidate), axis=axis, keepdims=True)
        within = np.abs(yours - candidate) <= SLACK * np.maximum(allowed, relative * scale)
        return bool(within.all())


def evidence_of(case: Case, states: States) -> Evidence:
    """The case as evidence, with the states of some forward pass."""
    wanted = {}
    for name, yours in case.yours.items():
        allowed, size = case.truth.allowed[name], np.abs(case.truth.values[name])
        told = size > 0
        relative = float(np.median(allowed[told] / size[told])) if told.any() else 0.0
        eps = float(np.finfo(yours.dtype).eps)
        relative = max(relative, 2 * len(case.problem.x) * eps)  # every step rounds
        # Products cancel within a step, and so in the rows of a gradient; the columns of ∂L/∂U may
        # be single steps of very different size.
        axis = 0 if name == "U" else -1
        wanted[name] = Wanted(yours.astype(np.float64), allowed, relative, axis)
    return Evidence(case, states, wanted)


def diagnose(cases: list[Case]) -> tuple[Mistake, ...]:
    """The mistake, or the two mistakes, that reproduce every number of every case.

    The first case is the failing one. An empty result stands for `unknown`.
    """
    evidence = [evidence_of(case, forward(case.problem)) for case in cases]
    longest = max(len(case.problem.x) for case in cases)
    if with_leaves(evidence, RIGHT, longest, most=0) is not None:
        return ()  # so slightly wrong that it cannot be told from right here
    single = list(recursions(cases[0].problem.sizes, longest))
    best: tuple[Mistake, ...] = ()
    for made in all_of(single):
        if best and len(made) >= len(best):
            break  # no way back with more mistakes in it can need fewer in all
        if made == (single[0], single[1]) and (other := another_forward_pass(cases, longest)):
            return other
        way = put_together(made)
        found = with_leaves(evidence, way, longest, most=2 - len(made)) if way else None
        if found is not None:
            mistakes = (*(candidate.mistake for candidate in made), *found)
            if mistakes and (not best or len(mistakes) < len(best)):
                best = mistakes
    return best


def another_forward_pass(cases: list[Case], longest: int) -> tuple[Mistake, ...]:
    """The one difference in the forward pass that explains everything, if there is one."""
    variants = [list(other_forward_passes(case.problem)) for case in cases]
    for others in zip(*variants, strict=True):
        evidence = [
            evidence_of(case, forward(other))
            for case, (_, other) in zip(cases, others, strict=True)
        ]
        if with_leaves(evidence, RIGHT, longest, most=0) is not None:
            return (others[0][0],)
    return ()


def all_of(single: list[Candidate]) -> Iterator[tuple[Candidate, ...]]:
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


def with_leaves(
    evidence: list[Evidence], way: Recursion, longest: int, most: int
) -> tuple[Mistake, ...] | None:
    """Mistakes of single gradients that, with this way back, explain everything.

    None where some gradient stays unexplained, or where more than `most` would be needed. The same
    mistake in several gradients counts once.
    """
    # What they return on some problems only explains nothing.
    names = [name for name in GRADIENTS if all(name in each.wanted for each in evidence)]
    swept: list[Swept] = []
    wrong: set[str] = set()
    for each in evidence:
        back = sweep(each.states, way)
        wrong |= {name for name in names if not each.explains(name, gradient(back, name))}
        if wrong and most == 0:
            return None
        swept.append(back)
    explanations: list[list[Mistake]] = []
    for name in sorted(wrong, key=names.index):
        failing = evidence[0].case
        possible = [
            mistake
            for mistake, result in leaves(name, failing.problem.sizes, longest, failing.yours[name])
            if all(
                each.explains(name, result(back))
                for each, back in zip(evidence, swept, strict=True)
            )
        ]
        if not possible:
            return None
        explanations.append(possible)
    return fewest(sorted(wrong, key=names.index), explanations, most)


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
    return mistake.name, repr(sorted(details.items())) + mistake.explanation.partition(", ")[2]


def joined(mistake: Mistake, names: list[str]) -> Mistake:
    """The mistake with all the gradients in which it is made."""
    if len(names) == 1:
        return mistake
    explanation = mistake.explanation.replace(
        f"in ∂L/∂{mistake.details['gradient']}, ",
        "in " + " and ".join(f"∂L/∂{name}" for name in names) + ", ",
    )
    details = {**mistake.details, "gradient": names}
    return mistake._replace(explanation=explanation, details=details)
