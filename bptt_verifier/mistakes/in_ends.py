"""Mistakes in the last sum of a forward recursion over paths, which lacks one of its end states.

The loss of CTC is −log of a sum over the paths that end in the last label or in the blank after it.
A backward recursion that begins at one of them has too few paths; the softmax p of the gradient
p − y is kept as it is, though the y of a step no longer add up to 1.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from bptt_verifier.mistakes.expressions import quote_expression
from bptt_verifier.mistakes.in_patterns import AROUND, ancestors, producers
from bptt_verifier.mistakes.operation_mistakes import (
    SUMS,
    Changes,
    Edge,
    OperationMistake,
    Values,
    merge,
)
from bptt_verifier.mistakes.softmaxes import is_log_softmax
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import Change, sweep_back
from bptt_verifier.program.structure import Structure

MOST = 4  # end states of a sequence, at most
ORDINAL = "first second third fourth".split()
LOGARITHMS = frozenset(["log", "log1p"])


class EndTerm(NamedTuple):
    """A term of a logarithm: the edges that read its score, and the mask of its entry.

    The mask is for several scores in one operand.
    """

    logarithm: int
    edges: tuple[Edge, ...]
    mask: Array | None = None


def list_end_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List sums of end states that pass nothing back to one of them."""
    softmaxes = [n for group in known.groups for n in group if is_log_softmax(known, group[0])]
    own = {k for n in softmaxes for k in find_logarithms_of(known, n)}
    ends = (
        [terms for terms in find_end_terms(known) if terms[0].logarithm not in own]
        if softmaxes
        else []
    )
    name = "sum-part-missing"
    for k in range(max(map(len, ends), default=0)):
        cut = [terms[k] for terms in ends if k < len(terms)]
        what = quote_expression(known, cut[-1].logarithm)
        said = f"the {ORDINAL[k]} of {len(ends[-1])} end states in {what} gets no gradient, and the"
        said += " softmax p of the gradient p − y is kept"
        changes = partial(cut_end, known, cut, softmaxes)
        yield OperationMistake(name, said, cut[-1].logarithm, changes, {}, (name, "end", k))


def find_end_terms(known: Structure) -> list[list[EndTerm]]:
    """Find the terms of each logarithm of a sum of exponentials that no exponential follows."""
    operations, found = known.program.operations, list[list[EndTerm]]()
    for number in find_last_logarithms(known):
        terms = list[EndTerm]()
        border = [operations[number].inputs[0]]
        while border:
            source = known.producer.get(border.pop(0), -1)
            if source < 0:
                continue
            operation = operations[source]
            if operation.name in SUMS | {"reduce_sum"}:
                border[:0] = operation.inputs
            elif operation.name == "exp":
                two = operations[number].name == "log1p"
                terms += list_two(known, number, source) if two else [
                    EndTerm(number, (edge,), mask) for edge, mask in list_entries(known, source)
                ]  # fmt: skip
        if 1 < len(terms) <= MOST:
            found.append(terms)
    return found


def list_two(known: Structure, number: int, exponential: int) -> list[EndTerm]:
    """List the terms of log(eˣ + eʸ) = max(x, y) + log(1 + exp(−|x − y|)), as `logaddexp` has it.

    Each score is read by the maximum and by the difference, and by a sum where they are infinite.
    """
    operations = known.program.operations
    above = ancestors(known, operations[exponential].inputs[0], frozenset(["neg", "abs"]))
    for source in producers(known, above, "sub"):
        scores = operations[source].inputs
        readers = [
            [(n, k) for n, k in known.users[slot] if {*operations[n].inputs} == {*scores}]
            for slot in scores
        ]
        names = {operations[n].name for n, _ in readers[0]}
        if scores[0] != scores[1] and "max" in names:
            return [EndTerm(number, tuple(edges)) for edges in readers]
    return []


def find_logarithms_of(known: Structure, number: int) -> list[int]:
    """Find the logarithms of the denominator of a softmax."""
    return producers(
        known, ancestors(known, known.program.operations[number].inputs[1], AROUND), "log"
    )


def find_last_logarithms(known: Structure) -> list[int]:
    """Find the logarithms from which the loss is computed without a further exponential."""
    followed, found = set[int](), list[int]()
    for number in reversed(range(len(known.program.operations))):
        operation = known.program.operations[number]
        if operation.name == "exp" or not followed.isdisjoint(operation.outputs):
            followed.update(operation.inputs)
        elif operation.name in LOGARITHMS:
            found.append(number)
    return found[::-1]


def list_entries(known: Structure, number: int) -> list[tuple[Edge, Array | None]]:
    """List the entries of an exponential's scores, before anything is subtracted from them."""
    operations = known.program.operations
    source = known.producer.get(operations[number].inputs[0], -1)
    shifted = source >= 0 and operations[source].name == "sub"
    edge = (source, 0) if shifted else (number, 0)
    shape = operations[number].shapes[0]
    count = int(np.prod(shape))
    if count == 1:
        return [(edge, None)]
    masks = (1.0 - np.eye(count)[k].reshape(shape) for k in range(min(count, MOST + 1)))
    return [(edge, mask) for mask in masks]


def cut_end(
    known: Structure,
    cut: Sequence[EndTerm],
    softmaxes: Sequence[int],
    values: Values,
) -> Changes:
    """Pass nothing back to some scores, and to the sums of softmaxes what is right."""
    kept: Changes = {}
    right = sweep_back(known.program, values)
    for number in softmaxes:
        arriving = right[known.program.operations[number].outputs[0]]
        if arriving is not None:
            kept[number, 1] = Change(1, arriving=arriving[0])
    ends = {
        edge: Change(edge[1], after=0.0 if term.mask is None else term.mask)
        for term in cut
        for edge in term.edges
    }
    return merge([kept, ends])
