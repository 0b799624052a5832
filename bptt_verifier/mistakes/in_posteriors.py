"""Mistakes in a term or factor of posterior probabilities, in what one operand of a step gets.

A forward recursion such as α_t = log Σ exp(α_{t−1} + A) + e_t has the gradients of pairs of states
exp(α_{t−1} + A + e_t + β_t − log Z), and a scaled one divides by the sum of each step. Code that
writes the pairs in a line of its own may leave out a term or take that of another step.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.expressions import name_operand
from bptt_verifier.mistakes.in_patterns import AROUND, ancestors, producers
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    OperationMistake,
    Values,
    make_pullback,
)
from bptt_verifier.program.backward import Change
from bptt_verifier.program.structure import Structure, find_starts, from_before

VALUES = 8  # values of a step that are tried, at most
SHIFTS = AROUND | {"sub", "abs"}  # SciPy's logsumexp takes the absolute value of the sum
BESIDE = ((-1, "before"), (1, "after"))


class StepFactor(NamedTuple):
    """A value of every step by its slot, in words, and the axes that it is a sum over.

    The factor of a sum s is 1 / s. Without axes the value is the logarithm of its factor.
    `operand` is where a quotient has the sum, or a sum the logarithm.
    """

    by_step: Mapping[int, int]
    words: str
    operand: int
    axes: tuple[int, ...] = ()


def list_posterior_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List factors of one path in a step that are missing, doubled, or those of another step."""
    in_time = [group for group in known.groups if is_in_time(known, group)]
    terms, scales = list_terms(known, in_time), list_scales(known, in_time)
    for group in in_time:
        name = known.program.operations[group[-1]].name
        columns: list[StepFactor] = []
        if name in {"add", "sub"} and terms and is_exponent(known, group[-1]):
            columns = terms
        elif name in {"dot_general", "mul"}:
            columns = scales
        if name == "add" and is_exponent(known, group[-1]):
            yield from list_independent_pairs(known, group)
        # One operand of a forward recursion is what the step before added or divided last.
        columns = [each for each in columns if find_before(known, group[-1], each) is not None]
        for operand in known.active(*group) if columns else ():
            for column in columns[:VALUES]:
                yield from list_wrong_factors(known, group, operand, column)


def list_independent_pairs(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List posteriors of pairs of states that are products of those of single states.

    What arrives at the exponents is P[i, j], the posterior of a pair times the gradient of log Z.
    Its sums over j and over i are those of the single states, and its sum is the factor.
    """
    shape = known.program.operations[group[-1]].shapes[0]
    active, last = known.active(*group), group[-1]
    # The scores of the states before are one term, which a softmax of one step has not.
    recursive = any(from_before(known, last, operand) for operand in active)
    if len(shape) < 2 or shape[-1] != shape[-2] or not recursive:
        return
    for operand in active:
        whose = name_operand(known, group[-1], operand)
        said = f"the gradient passed on to {whose} has the product of the posteriors of two states,"
        said += " where the posterior of the pair belongs"
        changes = partial(multiply_marginals, known, group, operand)
        name = "wrong-operand"
        yield OperationMistake(name, said, group[0], changes, {}, (name, "posterior", "product"))


def multiply_marginals(
    known: Structure, group: Sequence[int], operand: int, values: Values
) -> Changes:
    """Pass back the product of the sums of what arrives over its last axis and the one before."""
    changes, operations = Changes(), known.program.operations
    for number in group:
        pullback = make_pullback(operations[number], values)

        def through(arriving: Any, pullback: Any = pullback) -> Any:
            pairs = arriving[0]
            one, other = pairs.sum(-1, keepdims=True), pairs.sum(-2, keepdims=True)
            with np.errstate(all="ignore"):
                product = one * other / pairs.sum((-2, -1), keepdims=True)
            return pullback([product])[operand]

        changes[number, operand] = Change(operand, through=through)
    return changes


def list_wrong_factors(
    known: Structure, group: Sequence[int], operand: int, column: StepFactor
) -> Iterator[OperationMistake]:
    """List mistakes in the factor of a column, in what an operand gets at every step."""
    whose, what = name_operand(known, group[-1], operand), column.words
    kind = "the term {} of the exponent" if not column.axes else "the division by {}"
    ways = [
        ("factor-missing", f"lacks {kind.format(what)}", -1, 0),
        ("factor-twice", f"has {kind.format(what)} twice", 1, 0),
        *(
            ("wrong-operand", f"has {what} of the step {which} it, not its own, in {{}}", -1, by)
            for by, which in BESIDE
        ),
    ]
    for name, how, power, by in ways:
        said = f"the gradient passed on to {whose} at each step {how}"
        said = said.format("an exponent" if not column.axes else "a denominator")
        changes = partial(scale_steps, known, group, operand, column, power, by)
        yield OperationMistake(name, said, group[0], changes, {}, (name, "posterior", by))


def scale_steps(
    known: Structure,
    group: Sequence[int],
    operand: int,
    column: StepFactor,
    power: int,
    by: int,
    values: Values,
) -> Changes:
    """Multiply what an operand gets by a power of the factor of its step.

    With `by`, the factor of a step beside it takes the place of that which is left out; where there
    is none, the step stays as it is.
    """
    changes, starts = Changes(), find_starts(known)
    for number in group:
        step, shape = known.step[number], known.program.operations[number].shapes[0]
        own = other = column.by_step.get(step)
        if by < 0:
            other = find_before(known, number, column)
        elif by > 0:
            other = column.by_step.get(step + 1) if step + 1 not in starts else None
        if own is None or other is None:
            continue
        with np.errstate(all="ignore"):
            factor = read_factor(values[own][0], column) ** float(power)
            if by:
                factor = factor * read_factor(values[other][0], column)
        shorter = np.ndim(factor) <= len(shape)
        pairs = zip(reversed(np.shape(factor)), reversed(shape), strict=False)
        if not shorter or any(one not in (1, size) for one, size in pairs):
            return {}
        changes[number, operand] = Change(operand, before=factor)
    return changes


def find_before(known: Structure, number: int, column: StepFactor) -> int | None:
    """Find the value of a column at the step before, where an operand of this step is computed.

    The first step of a sequence is often computed in a line of its own, whose terms may be in
    another order: the term is that of the same array.
    """
    operations, own = known.program.operations, column.by_step.get(known.step[number])
    for slot in operations[number].inputs if own is not None else ():
        name = "div" if column.axes else "add"
        for source in producers(known, ancestors(known, slot, AROUND), name):
            terms = operations[source].inputs
            if column.axes:
                below = ancestors(known, terms[column.operand], AROUND)
                sums = producers(known, below, "reduce_sum")
                return operations[sums[0]].outputs[0] if sums else None
            alike = [each for each in terms if find_array(known, each) == find_array(known, own)]
            return alike[0] if len(alike) == 1 else terms[column.operand]
    return None


def find_array(known: Structure, slot: int | None) -> int | None:
    """Find the array that a value is an entry or a row of; itself where it is none."""
    while slot in known.producer:
        source = known.program.operations[known.producer[slot]]
        if source.moved is None and source.name not in AROUND:
            break
        slot = source.inputs[0]
    return slot


def read_factor(value: Any, column: StepFactor) -> Any:
    """Compute the factor that a value stands for."""
    return 1 / np.expand_dims(value, column.axes) if column.axes else np.exp(value)


def is_in_time(known: Structure, group: Sequence[int]) -> bool:
    """Tell whether every operation of a group has a time step of its own."""
    return len(group) > 1 and all(number in known.step for number in group)


def is_exponent(known: Structure, number: int) -> bool:
    """Tell whether a log-sum-exp is taken of what an operation computes."""
    return find_log_sum(known, number) is not None


def find_log_sum(known: Structure, number: int) -> int | None:
    """Find the logarithm of the sum of the exponentials of a result; None where there is none."""
    border = [*known.program.operations[number].outputs]
    for name in ("exp", "reduce_sum", "log"):
        found = follow(known, border, name)
        if found is None:
            return None
        border = [*known.program.operations[found].outputs]
    return found


def follow(known: Structure, border: Sequence[int], name: str) -> int | None:
    """Follow slots to the operation of this name, through shifts and changes of shape."""
    operations = known.program.operations
    for _ in range(4):
        users = sorted({user for slot in border for user, _ in known.users.get(slot, ())})
        for user in users:
            if operations[user].name == name:
                return user
        through = [user for user in users if operations[user].name in SHIFTS]
        border = [slot for user in through for slot in operations[user].outputs]
    return None


def list_terms(known: Structure, in_time: Sequence[Sequence[int]]) -> list[StepFactor]:
    """List the values that are added to the logarithms of sums, at every step."""
    operations, found = known.program.operations, dict[tuple[int, ...], StepFactor]()
    for group in in_time:
        if operations[group[-1]].name != "add":
            continue
        for operand in (0, 1):
            # A term beside a logarithm of a sum, not the largest score that was subtracted.
            above = ancestors(known, operations[group[-1]].inputs[1 - operand], AROUND | {"add"})
            beside = bool(producers(known, above, "log"))
            own = [operations[number].inputs[operand] for number in group]
            shifted = producers(known, ancestors(known, own[-1], AROUND), "reduce_max")
            if beside and not shifted and len({*own}) > 1:
                by_step = {known.step[n]: slot for n, slot in zip(group, own, strict=True)}
                words = name_operand(known, group[-1], operand)
                found[tuple(own)] = StepFactor(by_step, words, operand)
    return [*found.values()]


def list_scales(known: Structure, in_time: Sequence[Sequence[int]]) -> list[StepFactor]:
    """List the sums by which the steps divide, as a scaled forward recursion does.

    The last quotient of a sequence may be unused, and its sum is not: the loss is of the sums.
    """
    operations, found = known.program.operations, dict[int, StepFactor]()
    for number in [group[-1] for group in known.groups if operations[group[-1]].name == "div"]:
        below = ancestors(known, operations[number].inputs[1], AROUND)
        for source in producers(known, below, "reduce_sum"):
            group = known.groups[known.group_of[source]]
            if group in in_time:
                by_step = {known.step[n]: operations[n].outputs[0] for n in group}
                axes = tuple(operations[source].params["axes"])
                words = name_operand(known, number, 1)
                found[group[0]] = StepFactor(by_step, words, 1, axes)
    return [*found.values()]
