"""Mistakes in the derivative of a softmax for one use of its probabilities alone.

A loss often has two terms, such as −log p and an entropy Σ p log p. What one of them passes back to
the scores is p (g − Σ p g), and a derivation may have p g there (docs/derivation.md, section 10).
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import quote_expression
from bptt_verifier.mistakes.operation_mistakes import Changes, Edge, OperationMistake, Values
from bptt_verifier.program.backward import Change
from bptt_verifier.program.operations import pass_back
from bptt_verifier.program.structure import Structure, shape_of

# Operations on each entry, whose slope is what they pass back of ones.
ENTRYWISE = frozenset("mul div log square integer_pow neg".split())


def list_softmax_uses(
    known: Structure, group: Sequence[int], scores: Sequence[int]
) -> Iterator[OperationMistake]:
    """List softmaxes whose derivative lacks its sum in what the uses in one line pass back.

    `scores` are the slots of which each quotient of the group is the softmax.
    """
    operations = known.program.operations
    by_line: dict[Any, list[tuple[Edge, int, int]]] = {}
    for number, score in zip(group, scores, strict=True):
        (slot,) = operations[number].outputs
        if shape_of(known, score) != operations[number].shapes[0]:
            return
        for user, operand in known.users.get(slot, ()):
            line = tuple((each.file, each.line) for each in operations[user].where[:1])
            by_line.setdefault(line, []).append(((user, operand), slot, score))
    for edges in by_line.values() if len(by_line) > 1 else ():
        users = sorted({user for (user, _), _, _ in edges})
        if not {operations[user].name for user in users} <= ENTRYWISE:
            continue
        use, first = quote_expression(known, users[-1]), users[0]
        for words, whole in (("p g", False), ("g", True)):
            said = f"your gradient uses {words} for the gradient g that {use} passes back to the "
            said += "softmax p, where p (g − Σ p g) belongs"
            changes = partial(leave_sum_out, known, edges, whole)
            yield OperationMistake("softmax-denominator", said, first, changes, {}, ("use", words))


def leave_sum_out(
    known: Structure, edges: Sequence[tuple[Edge, int, int]], whole: bool, values: Values
) -> Changes:
    """Pass p g back to the scores, or g as a `whole`, for what these uses of a softmax p give."""
    changes: Changes = {}
    for (number, operand), slot, score in edges:
        equation = known.program.operations[number]
        given = [values[each] for each in equation.inputs]
        outputs = [values[each] for each in equation.outputs]
        if outputs[0].shape != values[slot].shape:
            return {}
        with np.errstate(all="ignore"):
            slope = pass_back(equation, given, outputs, [np.ones_like(outputs[0])])[operand]
        sent = ((score, slope[0] * (1.0 if whole else values[slot][0])),)
        changes[number, operand] = Change(operand, after=0.0, send=sent)
    return changes
