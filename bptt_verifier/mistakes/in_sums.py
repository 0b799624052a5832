"""Mistakes in the sums over time of weights, in one sequence or several."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import prod

from bptt_verifier.mistakes.expressions import name_operand, write_expression
from bptt_verifier.mistakes.in_products import find_part
from bptt_verifier.mistakes.operation_mistakes import (
    SUMS,
    Edge,
    OperationMistake,
    scale_edges,
)
from bptt_verifier.program.structure import Structure, find_starts, is_partial_sum

REPEATED = "every weight that is used at several steps"
# Operations in which a bias meets what it is added to.
ADDED = SUMS | {"broadcast_in_dim"}


def find_recurrent_weights(known: Structure, edges: Mapping[str, Sequence[Edge]]) -> set[str]:
    """Find the weights, given their uses, on which the carried states depend."""
    operations = known.program.operations
    needed = {operations[number].inputs[operand] for number, operand in known.carried}
    for equation in reversed(operations):
        if not needed.isdisjoint(equation.outputs):
            needed.update(equation.inputs)
    return {
        name
        for name, uses in edges.items()
        if any(not needed.isdisjoint(operations[number].outputs) for number, _ in uses)
    }


def list_sequence_sums(known: Structure) -> Iterator[tuple[str, set[int], str]]:
    """List parts of a sum over several sequences: names, the steps that are kept, and words."""
    starts, every = find_starts(known), set(range(known.steps))
    if len(starts) < 2:
        return
    ends = [*(t - 1 for t in starts[1:]), known.steps - 1]
    name, only = "missing-time-sum", "is kept in the sum"
    for words, kept in (
        (f"only the first step of the last sequence {only}", {starts[-1]}),
        (f"only the last step of the first sequence {only}", {ends[0]}),
        (f"only the last sequence {only}", {t for t in every if t >= starts[-1]}),
        (f"only the first sequence {only}", {t for t in every if t <= ends[0]}),
    ):
        yield name, kept, words
    yield "first-step-skipped", every - {*starts}, "the first step of every sequence is missing"
    yield "last-step-skipped", every - {*ends}, "the last step of every sequence is missing"


def list_step_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List mistakes that leave steps out of the sum over time, for one weight or for all."""
    if known.steps < 2:
        return
    edges: dict[str, list[Edge]] = {}
    for number in known.step:
        for operand, slot in enumerate(known.program.operations[number].inputs):
            name = known.leaf.get(slot)
            if name is not None and known.producer.get(slot) not in known.step:
                edges.setdefault(name, []).append((number, operand))
    loss_edges = edges  # what is used at one step alone, as an initial state, has no such sum
    edges = {n: u for n, u in edges.items() if len({known.step[number] for number, _ in u}) > 1}
    last, steps = known.steps - 1, known.steps
    vectors = {  # and added, as biases are
        name
        for name, shape in known.program.shapes.items()
        if max(shape, default=1) == prod(shape)
        and all(known.program.operations[n].name in ADDED for n, _ in edges.get(name, ()))
    }
    recurrent = find_recurrent_weights(known, edges)
    every = "every weight" if edges.keys() == known.program.leaves.keys() else REPEATED
    parts = ((every, {*edges}), ("the weights of the state", recurrent),
             ("the weights of the output", {*edges} - recurrent))  # fmt: skip
    sets = [
        (label, [edge for name in edges if name in part for edge in edges[name]])
        for k, (label, part) in enumerate(parts)
        if part and (k == 0 or 1 < len(part) < len(edges))
    ]
    # Without a state, a loop may be over heads as well as over time.
    one, every_one = ("step", "time") if known.carried else ("iteration", "those of the loop")
    only, lacks = (f"{verb} in the sum over {every_one}" for verb in ("is kept", "is missing"))
    kinds = [
        ("missing-time-sum", {last}, f"only the last {one} {only}"),
        ("missing-time-sum", {0}, f"only the first {one} {only}"),
        ("first-step-skipped", set(range(1, steps)), f"the first {one} {lacks}"),
        ("last-step-skipped", set(range(last)), f"the last {one} {lacks}"),
        *list_sequence_sums(known),
    ]
    if steps > 2:  # of a loop that begins or ends one step early
        before = last - 1
        kinds.append(("missing-time-sum", {1}, f"only the second {one} {only}"))
        kinds += [("missing-time-sum", {before}, f"only the last {one} but one {only}")][
            : before - 1
        ]
    for label, chosen in [*sets, *edges.items()]:
        for name, kept, alteration in kinds:
            left_out = [edge for edge in chosen if known.step[edge[0]] not in kept]
            if not known.carried and keeps_one_lookup(known, chosen, left_out):
                continue  # of repeated heads: list_lookup_mistakes says so
            details = {"kept": sorted(k + 1 for k in kept)} if name == "missing-time-sum" else {}
            named = "bias-part-missing" if label in vectors else name
            said = f"in the gradient of {label}, "
            yield scale_edges(named, said + alteration, left_out, 0.0, chosen[0], **details)
    yield from list_loss_mistakes(known, loss_edges)
    for name, k in (("first-step-skipped", 0), ("last-step-skipped", last)):
        numbers = [number for number in known.step if known.step[number] == k]
        chosen = [(number, operand) for number in numbers for operand in known.active(number)]
        if not chosen:
            continue
        left_out = [edge for edge in chosen if edge not in known.carried]
        said = f"step {k + 1} contributes nothing to any gradient"
        yield scale_edges(name, said, left_out, 0.0, chosen[0])


def keeps_one_lookup(known: Structure, edges: Sequence[Edge], left_out: Sequence[Edge]) -> bool:
    """Tell whether one lookup of each row is kept, where lookups of one row follow one another.

    So a key is looked up by all query heads of its group, as `k[h // 2]`. Steps of time that look
    up the rows of several layers do so by turns, and one row of all steps has a number.
    """
    lookups = {edge: find_lookup(known, edge) for edge in sorted(edges)}
    if None in lookups.values():
        return False
    found = {edge: number for edge, number in lookups.items() if number is not None}
    outputs = {edge: known.program.operations[number].outputs[0] for edge, number in found.items()}
    rows = {edge: find_part(known, slot) for edge, slot in outputs.items()}
    distinct, ordered = {*rows.values()}, [*rows.values()]
    blocks = 1 + sum(one != other for one, other in pairwise(ordered))
    kept = [row for edge, row in rows.items() if edge not in left_out]
    one_each = len(kept) == len({*kept}) == len(distinct) == blocks
    return one_each and (blocks > 1 or all(has_variable(known, n) for n in found.values()))


def find_lookup(known: Structure, edge: Edge) -> int | None:
    """Find the operation that looks up what an edge reads of a parameter; None if it reads all."""
    operations, found = known.program.operations, None
    number: int | None = edge[0]
    slot = operations[edge[0]].inputs[edge[1]]
    if operations[edge[0]].moved is None:
        number = known.producer.get(slot)
    while number is not None and operations[number].moved is not None:
        found, number = number, known.producer.get(operations[number].inputs[0])
    return found if found is not None and operations[found].inputs[0] in known.leaf else None


def has_variable(known: Structure, number: int) -> bool:
    """Tell whether the index of a lookup has a variable, as `k[h // 2]` and not `W[0]`."""
    found = ast.parse(write_expression(known, number) or "()", mode="eval").body
    return isinstance(found, ast.Subscript) and any(
        isinstance(node, ast.Name) for node in ast.walk(found.slice)
    )


def find_terms(known: Structure) -> list[Edge]:
    """Find the terms of the running sum that a loss over all steps is, in the order of time."""
    operations, slot = known.program.operations, known.program.result
    # A mean, a sign, or a weight of the loss follows the sum.
    while slot in known.producer:
        number = known.producer[slot]
        active = known.active(number)
        if operations[number].name in {"add", "sub"} and len(active) == 2:
            break
        if len(active) != 1:
            return []
        slot = operations[number].inputs[active[0]]
    terms = list[Edge]()
    while slot in known.producer and operations[known.producer[slot]].name in {"add", "sub"}:
        number = known.producer[slot]
        sums = [k for k in known.active(number) if is_partial_sum(known, number, k)]
        terms += [(number, k) for k in known.active(number) if k not in sums[:1]]
        if not sums:
            break
        slot = operations[number].inputs[sums[0]]
    return sorted(terms) if len(terms) == known.steps > 1 else []


def list_loss_mistakes(
    known: Structure, weights: Mapping[str, Sequence[Edge]]
) -> Iterator[OperationMistake]:
    """List mistakes that keep or leave out the loss of one step, and one term of its gradient.

    A loop over the steps of each loss, in a loop over the losses, that assigns and does not add
    keeps one term of both sums.
    """
    terms = find_terms(known)
    if not terms:
        return
    last, name = known.steps - 1, "missing-time-sum"
    for word, k in (("first", 0), ("last", last)):
        others = terms[:k] + terms[k + 1 :]
        said = f"the gradient is that of the loss of the {word} step alone"
        yield scale_edges(name, said, others, 0.0, terms[k], kept=[k + 1])
        said = f"the gradient lacks the loss of the {word} step"
        yield scale_edges(f"{word}-step-skipped", said, [terms[k]], 0.0)
        for label, edges in weights.items():
            for which, t in (("first", 0), ("last", last)):
                if k == 0 < t:
                    continue
                rest = [edge for edge in edges if known.step[edge[0]] != t]
                said = f"in the gradient of {label}, of the loss of the {word} step, only the"
                said += f" {which} step is kept in the sum over time"
                at = next((e for e in edges if known.step[e[0]] == t), edges[0])
                yield scale_edges(name, said, [*others, *rest], 0.0, at, kept=[t + 1])


def list_use_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List values of several uses at every step of which one step alone is passed back.

    A decoder reads the states of an encoder in the scores and in the context of every step.
    """
    for slot, uses in known.users.items():
        edges = [edge for edge in uses if edge[0] in known.step]
        steps = sorted({known.step[number] for number, _ in edges})
        several = len({known.group_of[number] for number, _ in edges}) > 1 < len(steps)
        outside = slot not in known.leaf and known.producer.get(slot, -1) not in known.step
        if not several or not outside or slot in known.program.constants:
            continue
        for word, kept in (("first", steps[0]), ("last", steps[-1])):
            left_out = [edge for edge in edges if known.step[edge[0]] != kept]
            value = name_operand(known, *edges[0])
            where = "at {} steps" if known.carried else "in {} iterations"
            said = f"{value} is read {where.format(len(steps))}, and its gradient has only the"
            said += f" part of the {word} one"
            yield scale_edges("missing-time-sum", said, left_out, 0.0, edges[0], kept=[kept + 1])
