"""Truncations of the gradient of each step's loss by itself, as two nested loops make them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

from bptt_verifier.mistakes.in_time import cut_at, find_initial_edges
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    Edge,
    FindChanges,
    OperationMistake,
    Values,
    change_edges,
    change_nothing,
    merge_at,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import Change, backward
from bptt_verifier.program.structure import Structure

WINDOWED = 24  # longest sequence whose truncations at every loss are tried


def list_windows(known: Structure) -> Iterator[OperationMistake]:
    """List truncations of the gradient of every step's loss by itself, after a number of steps.

    An initial state that is a parameter belongs to the first step, or is one step before it, or
    gets what is left over where the steps of a window end.
    """
    steps, edges = known.steps, known.carried
    if not edges or not 2 < steps <= WINDOWED:
        return
    initial = find_initial_edges(known)
    ends = [[], initial] if initial else [[]]
    segments = [make_segments(known, int(not before), before) for before in ends]
    for kept in range(steps - 1):
        many = f"{kept} step{'' if kept == 1 else 's'}"
        said = f"the gradient of each step's loss goes back {many}, and no further"
        sums = [
            partial(combine_segments, each, weigh_segments(known, int(not before), kept))
            for each, before in zip(segments, ends, strict=True)
        ]
        for whole in sums if kept else ():
            yield OperationMistake(
                "truncated", said, edges[0][0], change_nothing, {"steps": kept}, whole=whole
            )
        if initial:
            end = f"{said}; what is left goes to the initial state, from whatever step"
            whole = partial(hand_to_initial, known, sums[0], kept)
            yield OperationMistake(
                "truncated", end, edges[0][0], change_nothing, {"steps": kept}, whole=whole
            )


def weigh_segments(known: Structure, first: int, kept: int) -> dict[tuple[int, ...], int]:
    """Find the weights of segments with which windows of so many steps back sum up."""
    # A pair of steps at distance d is in kept + 1 − d windows of length kept + 1, and in
    # kept − d of length kept: the difference counts those with d ≤ kept once.
    weights: dict[tuple[int, ...], int] = {(): 1}
    for start in range(first - 1 - kept, known.steps):
        end = start + kept + 1
        for bounds, sign in (((start, end), 1), ((start + 1, end), -1)):
            inside = tuple(sorted({t for t in bounds if first <= t < known.steps}))
            weights[inside] = weights.get(inside, 0) + sign
    return weights


def hand_to_initial(
    known: Structure,
    windows: Callable[[Values, Sequence[FindChanges]], Mapping[str, Array]],
    kept: int,
    values: Values,
    made: Sequence[FindChanges] = (),
) -> dict[str, Array]:
    """Give what the window of each step's loss leaves over to the initial state.

    The loss of step t alone is that of the steps up to t without those up to t − 1.
    """
    others, rows = merge_at(values, made), list[Changes]()
    edges = [*find_initial_edges(known), *known.carried]
    for t in range(known.steps):
        start = t - kept
        for end in (t + 1, t):
            cut = change_edges(cut_at(known, edges, [end]), after=0.0)(values)
            handed = hand_on(known, start) if 0 < start < end else {}
            rows.append(others | cut | handed)
    found = backward(known.program, values, rows)
    slots = {known.program.operations[n].inputs[k] for n, k in find_initial_edges(known)}
    names = {known.leaf[slot] for slot in slots if slot in known.leaf}
    return {
        name: found[name][::2].sum(axis=0) - found[name][1::2].sum(axis=0) if name in names else g
        for name, g in windows(values, made).items()
    }


def hand_on(known: Structure, step: int) -> Changes:
    """Give what is carried into this step to the initial state, not to the state before it."""
    changes: Changes = {}
    operations = known.program.operations
    for first, operand in find_initial_edges(known):
        slot = operations[first].inputs[operand]
        for number, k in cut_at(known, known.carried, [step]):
            if known.group_of[number] == known.group_of[first] and k == operand:
                changes[number, k] = Change(k, after=0.0, also=(slot,))
    return changes


def list_unfinished_sweeps(known: Structure) -> Iterator[OperationMistake]:
    """List backward passes over the last steps alone; nothing comes from the steps before them."""
    initial = find_initial_edges(known)
    if not known.carried or known.steps < 3:
        return
    for first in range(1, known.steps):
        before = [(n, k) for n in known.step if known.step[n] < first for k in known.active(n)]
        kept = known.steps - first
        name = "first-step-skipped" if first == 1 else "truncated"
        said = f"the backward pass goes through the last {kept} of {known.steps} steps alone"
        cut = change_edges(before, after=0.0)
        number = known.carried[0][0]
        if first > 1:
            yield OperationMistake(name, said, number, cut, {"steps": kept})
        if initial:
            said += "; what it carries then is the gradient of the initial state"
            handed = partial(stop_at, known, before, first)
            yield OperationMistake(name, said, number, handed, {"steps": kept})


def stop_at(known: Structure, before: Sequence[Edge], first: int, values: Values) -> Changes:
    """Cut everything before a step, and give what it carries back to the initial state."""
    return change_edges(before, after=0.0)(values) | hand_on(known, first)


def make_segments(
    known: Structure, first: int, initial: Sequence[Edge]
) -> Callable[[Values, Sequence[FindChanges]], Mapping[tuple[int, ...], Any]]:
    """Make the function that computes gradients with the carried states cut at one or two steps.

    Other mistakes may be made as well.
    """
    bounds: list[tuple[int, ...]] = [
        b for count in range(3) for b in combinations(range(first, known.steps), count)
    ]
    found: dict[int, tuple[Values, Mapping[tuple[int, ...], Any]]] = {}

    def compute(values: Values, made: Sequence[FindChanges]) -> Mapping[tuple[int, ...], Any]:
        edges, others = [*initial, *known.carried], merge_at(values, made)
        cuts = [change_edges(cut_at(known, edges, b), after=0.0)(values) for b in bounds]
        rows = backward(known.program, values, [others | cut for cut in cuts])
        return {b: {name: rows[name][k] for name in rows} for k, b in enumerate(bounds)}

    def segments(values: Values, made: Sequence[FindChanges]) -> Mapping[tuple[int, ...], Any]:
        if made:
            return compute(values, made)
        if id(values) not in found:
            found[id(values)] = values, compute(values, ())
        return found[id(values)][1]

    return segments


def combine_segments(
    segments: Callable[[Values, Sequence[FindChanges]], Mapping[tuple[int, ...], Any]],
    weights: Mapping[tuple[int, ...], int],
    values: Values,
    made: Sequence[FindChanges] = (),
) -> dict[str, Array]:
    """Sum the gradients of segments with these weights."""
    each = segments(values, made)
    return {
        name: sum(weight * each[bounds][name] for bounds, weight in weights.items() if weight)
        for name in each[()]
    }
