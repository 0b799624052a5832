"""Mistakes in the sums over time of weights, in one sequence or several."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from bptt_verifier.mistakes.expressions import name_operand
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
    kinds = [
        ("missing-time-sum", {last}, "only the last step is kept in the sum over time"),
        ("missing-time-sum", {0}, "only the first step is kept in the sum over time"),
        (
            "first-step-skipped",
            set(range(1, steps)),
            "the first step is missing in the sum over time",
        ),
        ("last-step-skipped", set(range(last)), "the last step is missing in the sum over time"),
        *list_sequence_sums(known),
    ]
    if steps > 2:  # of a loop that begins or ends one step early
        only, before = "is kept in the sum over time", last - 1
        kinds.append(("missing-time-sum", {1}, f"only the second step {only}"))
        kinds += [("missing-time-sum", {before}, f"only the last step but one {only}")][
            : before - 1
        ]
    for label, chosen in [*sets, *edges.items()]:
        for name, kept, alteration in kinds:
            left_out = [edge for edge in chosen if known.step[edge[0]] not in kept]
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
            said = f"{value} is read at {len(steps)} steps, and its gradient has only the part of"
            said += f" the {word} one"
            yield scale_edges("missing-time-sum", said, left_out, 0.0, edges[0], kept=[kept + 1])
