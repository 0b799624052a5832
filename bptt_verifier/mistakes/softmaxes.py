"""Mistakes in a softmax, and the shift by the largest score, which no derivation differentiates."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.mistakes.evidence import Evidence
from bptt_verifier.mistakes.in_patterns import AROUND, ancestors, producers
from bptt_verifier.mistakes.in_softmax_uses import list_softmax_uses
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    Edge,
    OperationMistake,
    Values,
    make_pullback,
    scale_edges,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import Change, backward
from bptt_verifier.program.structure import Structure, structure
from bptt_verifier.program.trace import Program

WEIGHTS = 3  # weights of a count in the loss that are tried, at most


def detach_shifts(program: Program, evidence: Sequence[Evidence]) -> Program:
    """Make constants of the largest scores that are subtracted from scores.

    The right gradient does not depend on them, and a derivation does not differentiate them; what
    a mistake passes back through them would be no part of it. Nothing is done where the gradients
    of a case do depend on them.
    """
    known, shifts = structure(program), dict[int, int]()
    for equation in program.operations:
        if equation.name == "sub":
            scores, largest = (ancestors(known, slot, AROUND) for slot in equation.inputs)
            for source in producers(known, largest, "reduce_max"):
                if ancestors(known, program.operations[source].inputs[0], AROUND) & scores:
                    shifts[program.operations[source].outputs[0]] = source
    if not shifts:
        return program
    shapes = {slot: program.operations[source].shapes[0] for slot, source in shifts.items()}
    constants = {slot: np.zeros(shape) for slot, shape in shapes.items()}
    detached = program._replace(constants=program.constants | constants)
    for case in evidence:
        found = backward(detached, case.forward)
        if not all(is_near(case, name, found[name][0]) for name in case.wanted):
            return program
    return detached


def is_near(case: Evidence, name: str, found: Array) -> bool:
    """Tell whether a gradient differs from the true one by rounding in float64, or little more."""
    off = np.max(np.abs(found - case.reference[name]), initial=0.0)
    return bool(off <= 1e-9 * case.find_size(name))


def list_softmax_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List mistakes in a softmax: its diagonal alone, no denominator, its slope once more."""
    operations = known.program.operations
    for group in known.groups:
        equation = operations[group[0]]
        if equation.name == "div":
            above, below = (ancestors(known, slot, AROUND | {"add"}) for slot in equation.inputs)
            sums = producers(known, below, "reduce_sum")
            if not producers(known, above, "exp") or not any(
                producers(known, ancestors(known, operations[k].inputs[0], AROUND), "exp")
                for k in sums
            ):
                continue
            diagonal = partial(keep_diagonal, known, group)
            said = "of the softmax's Jacobian only the diagonal p (1 − p) is used, without −p_i p_k"
            yield OperationMistake("softmax-diagonal", said, group[0], diagonal, {}, ("diagonal",))
            said = (
                "the sum in the denominator of the softmax is differentiated as if it were constant"
            )
            edges = [(number, 1) for number in group]
            found = scale_edges("softmax-denominator", said, edges, 0.0)
            yield found._replace(family=("denominator",))
            scores = list_scores(known, group)
            if len(scores) == len(group):
                yield from list_softmax_uses(known, group, scores)
            axes = tuple(operations[sums[0]].params["axes"])
            yield from list_unweighted_sums(known, group, axes)
            yield from list_wrong_sums(known, group, axes)
            yield from list_fixed_sums(known, group)
        elif is_log_softmax(known, group[0]):
            said = "the sum in the denominator of the softmax is differentiated as if it were"
            said += " constant, so the gradient of the scores lacks its term with p"
            found = scale_edges("softmax-denominator", said, [(k, 1) for k in group], 0.0)
            yield found._replace(family=("log denominator",))
            yield from list_fixed_sums(known, group)
        elif equation.name == "exp":
            sums = [
                user
                for k in group
                for user, _ in known.users.get(operations[k].outputs[0], ())
                if operations[user].name == "reduce_sum"
            ]
            if len(sums) == len(group):
                changes = partial(scale_by_softmax_slope, known, group, sums)
                said = "the derivative p (1 − p) of the softmax is applied once more"
                name = "activation-derivative-twice"
                yield OperationMistake(name, said, group[0], changes, {}, (name, "softmax"))
                yield from list_wrong_axes(known, group, sums)


def list_scores(known: Structure, group: Sequence[int]) -> list[int]:
    """List the scores of which each quotient of a group is the softmax, as far as they are one."""
    found = list[int]()
    for number in group:
        above = ancestors(known, known.program.operations[number].inputs[0], AROUND | {"add"})
        found += [find_scores(known, k) for k in producers(known, above, "exp")]
    return found


def is_log_softmax(known: Structure, number: int) -> bool:
    """Tell whether an operation subtracts the logarithm of a sum of exponentials from scores."""
    operations = known.program.operations
    if operations[number].name != "sub":
        return False
    slots = ancestors(known, operations[number].inputs[1], AROUND)
    for name in ("log", "reduce_sum"):
        sources = producers(known, slots, name)
        above = [ancestors(known, operations[k].inputs[0], AROUND) for k in sources]
        slots = {slot for each in above for slot in each}
    return bool(producers(known, slots, "exp"))


def keep_diagonal(known: Structure, group: Sequence[int], values: Values) -> Changes:
    """Multiply by 1 − p in the numerator, and pass back nothing through the denominator."""
    changes: Changes = {}
    for number in group:
        (slot,) = known.program.operations[number].outputs
        changes[number, 0] = Change(0, before=1 - values[slot][0])
        changes[number, 1] = Change(1, after=0.0)
    return changes


def list_unweighted_sums(
    known: Structure, group: Sequence[int], axes: tuple[int, ...]
) -> Iterator[OperationMistake]:
    """List mistakes in p ⊙ (g − Σ p ⊙ g) that leave out one p, or both."""
    sums, right = "softmax-denominator", "where the derivative of the softmax p is p (g − Σ p g)"
    for words, how, name in (
        ("p (g − Σ g)", "sum", sums),
        ("p (g − Σ g), summed over what is not masked", "unmasked", sums),
        ("p (g − mean of g)", "mean", sums),
        ("g − p Σ g", "log", sums),
        ("g", "none", "activation-derivative-missing"),
    ):
        changes = partial(subtract_sum, known, group, axes, how)
        said = f"your gradient uses {words}, {right}"
        yield OperationMistake(name, said, group[0], changes, {}, ("unweighted", how))


def subtract_sum(
    known: Structure, group: Sequence[int], axes: tuple[int, ...], how: str, values: Values
) -> Changes:
    """Subtract an unweighted sum or mean in what the numerator gets, and nothing below it."""
    operations, changes = known.program.operations, dict[Edge, Change]()
    along = tuple(axis + 1 for axis in axes)
    for number in group:
        (slot,) = operations[number].outputs
        pullback = make_pullback(operations[number], values)

        def through(arriving: Any, pullback: Any = pullback, p: Any = values[slot]) -> Any:
            with np.errstate(all="ignore"):
                g = arriving[0] / p if how in {"log", "none"} else arriving[0]
            summed = arriving[0] * (p > 0) if how == "unmasked" else arriving[0]
            total = np.sum(summed, axis=along, keepdims=True)
            if how == "none":
                total = 0.0
            if how == "mean":
                total = total / np.prod([p.shape[axis] for axis in along])
            return pullback([g - total])[0]

        changes[number, 0] = Change(0, through=through)
        changes[number, 1] = Change(1, after=0.0)
    return changes


def list_fixed_sums(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List mistakes in p (g − Σ p g), and in that of log p, whose sum is a fixed number.

    Where g is that of the logarithm of a probability, −p g are expected counts. Those of one label
    add up to 1 in a row, and those of a hidden state do not: n − p is no n − p Σ n.
    """
    of_log = known.program.operations[group[0]].name == "sub"
    right = "g − p Σ g of log p" if of_log else "p (g − Σ p g) of the softmax p"
    for number in list_weights(known):
        sign = "−" if number < 0 else ""
        said = (
            f"your gradient has {sign}{abs(number):.6g} in the place of the sum in the derivative"
        )
        said += f" {right}, as if the counts of each row added up to {abs(number):.6g}"
        changes = partial(fix_log_sum if of_log else fix_sum, known, group, number)
        family = "fixed sum", number, of_log
        yield OperationMistake("softmax-denominator", said, group[0], changes, {}, family)


def list_weights(known: Structure) -> list[float]:
    """List the weights that one count may have in the loss: ±1, and those of its averages."""
    operations, found = known.program.operations, {1.0: None}
    for group in known.groups:
        equation = operations[group[0]]
        if len(group) == 1 and equation.name in {"mul", "div"} and equation.shapes[0] == ():
            for slot in equation.inputs:
                value = float(np.ravel(known.program.constants.get(slot, 0.0))[0].real)
                if value > 0:
                    found[1 / value if equation.name == "div" else value] = None
    return [sign * value for value in [*found][:WEIGHTS] for sign in (-1, 1)]


def fix_sum(known: Structure, group: Sequence[int], number: float, values: Values) -> Changes:
    """Subtract a number from what the numerator gets, and nothing in the denominator."""
    changes: Changes = {}
    for each in group:
        pullback = make_pullback(known.program.operations[each], values)

        def through(arriving: Any, pullback: Any = pullback) -> Any:
            return pullback([arriving[0] - number])[0]

        changes[each, 0] = Change(0, through=through)
        changes[each, 1] = Change(1, after=0.0)
    return changes


def fix_log_sum(known: Structure, group: Sequence[int], number: float, values: Values) -> Changes:
    """Pass a number back to the logarithm of the denominator."""
    changes: Changes = {}
    for each in group:
        shape = values[known.program.operations[each].inputs[1]].shape[1:]

        def through(arriving: Any, shape: Any = shape) -> Any:
            return np.full((len(arriving[0]), *shape), -number)

        changes[each, 1] = Change(1, through=through)
    return changes


def list_wrong_sums(
    known: Structure, group: Sequence[int], own: tuple[int, ...]
) -> Iterator[OperationMistake]:
    """List mistakes in p ⊙ (g − Σ p ⊙ g) that sum over other axes than the softmax p does."""
    name, shape = "softmax-over-wrong-axis", known.program.operations[group[0]].shapes[0]
    long = [axis for axis, size in enumerate(shape) if size > 1]
    for axes in [*((axis,) for axis in long), tuple(range(len(shape)))] if len(long) > 1 else ():
        if axes != own:
            where = f"axis {axes[0]}" if len(axes) == 1 else "all axes"
            said = f"the sum in the derivative of the softmax p, p (g − Σ p g), is over {where}"
            said += f", where axis {' and '.join(map(str, own))} belongs"
            changes = partial(sum_jacobian_over, known, group, axes)
            yield OperationMistake(name, said, group[0], changes, {"axes": [*axes]}, ("sum", axes))


def sum_jacobian_over(
    known: Structure, group: Sequence[int], axes: tuple[int, ...], values: Values
) -> Changes:
    """Subtract sums over these axes in what the numerator gets, and nothing in the denominator."""
    operations, changes = known.program.operations, dict[Edge, Change]()
    for number in group:
        (slot,) = operations[number].outputs
        pullback = make_pullback(operations[number], values)

        def through(arriving: Any, pullback: Any = pullback, p: Any = values[slot]) -> Any:
            total = np.sum(p * arriving[0], axis=tuple(a + 1 for a in axes), keepdims=True)
            return pullback([arriving[0] - total])[0]

        changes[number, 0] = Change(0, through=through)
        changes[number, 1] = Change(1, after=0.0)
    return changes


def list_wrong_axes(
    known: Structure, group: Sequence[int], sums: Sequence[int]
) -> Iterator[OperationMistake]:
    """List mistakes that take a softmax over other axes, or over all of the scores."""
    operations, name = known.program.operations, "softmax-over-wrong-axis"
    axes, shape = tuple(operations[sums[0]].params["axes"]), operations[group[0]].shapes[0]
    alike = {(operations[k].shapes[0], tuple(operations[s].params["axes"])) for k, s in
             zip(group, sums, strict=True)}  # fmt: skip
    long = [axis for axis, size in enumerate(shape) if size > 1]
    if len(alike) > 1 or len(long) < 2:
        return
    others = [(axis,) for axis in long if (axis,) != axes] + [tuple(range(len(shape)))]
    for chosen in others:
        where = f"axis {chosen[0]}" if len(chosen) == 1 else "all axes"
        own = " and ".join(map(str, axes))
        said = (
            f"your gradient has a softmax over {where}, where that of the loss is over axis {own}"
        )
        changes = partial(sum_over, known, group, sums, chosen)
        yield OperationMistake(name, said, sums[0], changes, {"axes": [*chosen]}, (name, chosen))


def find_scores(known: Structure, number: int) -> int:
    """Find the scores of an exponential, before anything is subtracted from them."""
    operations, slot = known.program.operations, known.program.operations[number].inputs[0]
    while slot in known.producer and operations[known.producer[slot]].name == "sub":
        slot = operations[known.producer[slot]].inputs[0]
    return slot


def sum_over(
    known: Structure,
    group: Sequence[int],
    sums: Sequence[int],
    axes: tuple[int, ...],
    values: Values,
) -> Changes:
    """Divide what each sum passes back to the exponentials by sums over other axes instead."""
    operations, changes = known.program.operations, dict[Edge, Change]()
    for number, summed in zip(group, sums, strict=True):
        scores = values[find_scores(known, number)][0]
        if scores.shape != operations[number].shapes[0]:
            return {}
        e = np.exp(scores - scores.max())
        own = e.sum(axis=tuple(operations[summed].params["axes"]), keepdims=True)
        with np.errstate(all="ignore"):  # masked scores may leave no entry
            after = own / e.sum(axis=axes, keepdims=True)
        changes[summed, 0] = Change(0, after=after)
    return changes


def scale_by_softmax_slope(
    known: Structure, group: Sequence[int], sums: Sequence[int], values: Values
) -> Changes:
    """Multiply the cotangent of the scores by p (1 − p), where they are computed."""
    operations, changes = known.program.operations, dict[Edge, Change]()
    for number, summed in zip(group, sums, strict=True):
        e = values[operations[number].outputs[0]][0]
        axes = tuple(operations[summed].params["axes"])
        p = e / e.sum(axis=axes, keepdims=True)
        source = known.producer.get(find_scores(known, number))
        if source is None or operations[source].shapes[0] != p.shape:
            return {}
        for operand in known.active(source):
            changes[source, operand] = Change(operand, before=p * (1 - p))
    return changes
