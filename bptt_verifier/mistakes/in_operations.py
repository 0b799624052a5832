"""Mistakes in the derivative of one operation of a loss.

A mistake changes the same operation at every time step, or at some steps only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.program.backward import Change
from bptt_verifier.program.operations import UNARY, pass_back
from bptt_verifier.program.structure import (
    Structure,
    chains,
    elementwise,
    following,
    from_before,
    slope_of,
)

Edge = tuple[int, int]  # an operation, and the operand that its cotangent is passed back to
Values = Sequence[Any]
Changes = dict[Edge, Change]

LINEAR = frozenset("neg copy add sub mul".split())  # of one variable, and constants
ORDINAL = "first second third fourth fifth sixth".split()


class OperationMistake(NamedTuple):
    """A mistake by its stable name, in words, and the changes that it makes at a point.

    `equation` is the operation that a report shows.
    """

    name: str
    alteration: str
    equation: int
    changes: Callable[[Values], Changes]
    details: Mapping[str, Any] = {}


def change_edges(edges: Sequence[Edge], **how: Any) -> Callable[[Values], Changes]:
    """Make the same `Change` on each of these edges, at any point."""
    return lambda values: {edge: Change(edge[1], **how) for edge in edges}


def scale_edges(
    name: str, said: str, edges: Sequence[Edge], by: float, at: Edge | None = None, **details: Any
) -> OperationMistake:
    """Scale what is passed back on these edges; a report shows the first of them, or `at`."""
    number, _ = at or edges[0]
    return OperationMistake(name, said, number, change_edges(edges, after=by), details)


def read_slots(slots: Sequence[int | None]) -> Callable[[Values], list[Any]]:
    """Read the values of these slots at a point; None where there is no slot."""
    return lambda values: [None if slot is None else values[slot] for slot in slots]


def name_operand(operand: int) -> str:
    """Name an operand: "first operand", "second operand" …"""
    return f"{ORDINAL[operand] if operand < len(ORDINAL) else f'{operand + 1}th'} operand"


def list_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List every mistake in one operation, the more specific names first."""
    yield from list_recurrence_mistakes(known)
    yield from list_conjugate_mistakes(known)
    yield from list_single_conjugate_mistakes(known)
    for group in known.groups:
        yield from list_activation_mistakes(known, group)
        if known.program.operations[group[0]].name in {"dot_general", "mul"}:
            for operand in known.active(*group):
                yield from list_product_mistakes(known, group, operand)
    yield from list_output_mistakes(known)
    yield from list_step_mistakes(known)
    # Where cutting a path has the same effect in several places, the one nearest to the loss.
    for group in reversed(known.groups):
        yield from list_broadcast_mistakes(known, group)
        yield from list_path_mistakes(known, group)


def list_recurrence_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List mistakes that drop the gradient carried between steps, or count it twice."""
    carried, steps = known.carried, known.steps
    if not carried:
        return
    dropped, between = "recurrent-path-dropped", "passed back from one step to the one before"
    yield scale_edges(dropped, f"nothing is {between}", carried, 0.0, path="all")
    by_group: dict[tuple[int, ...], list[Edge]] = {}
    for group in known.groups:
        for operand in known.active(*group):
            edges = [(number, operand) for number in group if (number, operand) in carried]
            if edges and len(edges) < len(carried):
                by_group[(*group, operand)] = edges
    for edges in by_group.values():
        path = name_operand(edges[0][1])
        alteration = f"nothing is passed back to the step before through its {path}"
        yield scale_edges(dropped, alteration, edges, 0.0, path=path)
    for first in range(1, steps):
        edges = [edge for edge in carried if known.step[edge[0]] == first]
        name = "first-step-skipped" if first == 1 else "truncated"
        alteration = f"nothing is passed back beyond the last {steps - first} of {steps} steps"
        shown = (edges or carried)[0]
        yield scale_edges(name, alteration, edges, 0.0, shown, steps=steps - first)
    yield scale_edges("path-counted-twice", f"what is {between} is counted twice", carried, 2.0)


def list_conjugate_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List the mistake of conjugating no complex factor, with constant factors or without.

    That is for a derivation by ∂L/∂Re z + i ∂L/∂Im z. In JAX's cotangents, with −i, a missing
    conjugate is one too many.
    """
    constants = known.program.constants

    def is_unit(slot: int) -> bool:
        """True for a factor such as i, which joins a real and an imaginary part."""
        return slot in constants and not np.any(constants[slot].real)

    every, varying = list[Edge](), list[Edge]()
    for edges, factors in list_complex_edges(known):
        every += [] if factors and all(map(is_unit, factors)) else edges
        varying += [] if factors and all(slot in constants for slot in factors) else edges
    for edges in (every, varying):
        if edges:
            said = "no complex factor is conjugated in the backward pass"
            changes = partial(conjugate_factors, known, edges)
            yield OperationMistake("conjugate-missing", said, edges[0][0], changes)


def list_single_conjugate_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List the mistake of not conjugating the complex factor of one operation."""
    for edges, _ in list_complex_edges(known):
        number, operand = edges[0]
        said = f"what its {name_operand(operand)} is multiplied by is not conjugated"
        changes = partial(conjugate_factors, known, edges)
        yield OperationMistake("conjugate-missing", said, number, changes)


def list_complex_edges(known: Structure) -> Iterator[tuple[list[Edge], list[int]]]:
    """List the operands that get complex multiples of a cotangent, and the factors of products."""
    operations = known.program.operations
    for group in known.groups:
        operation = operations[group[0]]
        product = operation.name in {"mul", "dot_general"}
        smooth = product or operation.name in {*UNARY, "div", "integer_pow"}
        if not smooth or not np.issubdtype(operation.dtypes[0], np.complexfloating):
            continue
        for operand in known.active(*group):
            factors = [operations[k].inputs[1 - operand] for k in group] if product else []
            yield [(number, operand) for number in group], factors


def conjugate_factors(known: Structure, edges: Sequence[Edge], values: Values) -> Changes:
    """Conjugate what these operands' cotangents are multiplied by."""
    found = ((edge, conjugate_factor(known, edge, values)) for edge in edges)
    return {edge: change for edge, change in found if change is not None}


def conjugate_factor(known: Structure, edge: Edge, values: Values) -> Change | None:
    """Conjugate what one operation multiplies a cotangent by, where it is complex."""
    number, operand = edge
    operation = known.program.operations[number]
    given = [values[slot] for slot in operation.inputs]
    if operation.name in {"mul", "dot_general"}:
        return Change(operand, instead=((1 - operand, np.conj(given[1 - operand])),))
    if given[operand].shape[1:] != operation.shapes[0]:
        return None
    ones = np.ones((1, *operation.shapes[0]), complex)
    outputs = [values[slot] for slot in operation.outputs]
    (slope,) = pass_back(operation, given, outputs, [ones])[operand]
    return Change(operand, slope=np.conj(slope))


def list_activation_mistakes(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List mistakes that omit an activation's derivative, or take it at the activated value."""
    for links in chains(known, group):
        if {known.program.operations[number].name for number in links[0]} <= LINEAR:
            continue
        changes = [partial(replace_slopes, known, links, activated) for activated in (False, True)]
        missing = "its derivative is missing: what arrives is passed back as it is"
        yield OperationMistake("activation-derivative-missing", missing, links[0][-1], changes[0])
        yield OperationMistake(
            "activation-derivative-of-activated-value",
            "its derivative is taken at the value that it returned instead of the one it was given",
            links[0][-1],
            changes[1],
        )


def replace_slopes(
    known: Structure, links: Sequence[Sequence[int]], activated: bool, values: Values
) -> Changes:
    """Replace the slope of each chain by that at its result, if `activated`, or by one."""
    changes: Changes = {}
    for link in links:
        output = values[known.program.operations[link[-1]].outputs[0]]
        with np.errstate(all="ignore"):
            slope = slope_of(known, link, values, output)[0] if activated else 1.0
        for number in link:
            operand = known.active(number)[0]
            changes[number, operand] = Change(operand, slope=slope if number == link[-1] else 1.0)
    return changes


def list_product_mistakes(
    known: Structure, group: Sequence[int], operand: int
) -> Iterator[OperationMistake]:
    """List mistakes that compute one operand's gradient with a wrong value of the other.

    That is the other operand transposed, of another step, or not activated.
    """
    operations = known.program.operations
    inputs = [operations[number].inputs for number in group]
    own, other = ([each[k] for each in inputs] for k in (operand, 1 - operand))

    def use(
        what: str, values_of: Callable[[Values], list[Any]], name: str = "wrong-operand"
    ) -> OperationMistake:
        alteration = f"the gradient of its {name_operand(operand)} is computed with {what}"
        changes = partial(replace_other_operand, known, group, operand, values_of)
        return OperationMistake(name, alteration, group[0], changes)

    if operations[group[0]].name == "dot_general":
        yield from list_transposition_mistakes(known, group, operand, other)
        yield from list_order_mistakes(known, group, operand, own)
    state = any(slot in known.producer for slot in other)
    off_by_one = "hidden-state-off-by-one" if state else "input-off-by-one"
    for slots, label, what in list_shifts(known, other):
        yield use(what, read_slots(slots), label or off_by_one)
    sources = [known.producer.get(slot) for slot in other]
    producers = [source for source in sources if source is not None]
    if producers and all(elementwise(known, source) for source in producers):
        before = [
            slot if source is None else operations[source].inputs[known.active(source)[0]]
            for slot, source in zip(other, sources, strict=True)
        ]
        yield use("the value before the activation instead of the one after it", read_slots(before))
    if len(producers) == len(sources) and {operations[k].name for k in producers} == {"mul"}:
        for factors in zip(*(operations[source].inputs for source in producers), strict=True):
            yield use("one factor of a product instead of the product", read_slots(factors))
    if operations[group[0]].name == "mul":
        yield use("that operand itself instead of the other", read_slots(own))


def replace_other_operand(
    known: Structure,
    group: Sequence[int],
    operand: int,
    values_of: Callable[[Values], Sequence[Any]],
    values: Values,
) -> Changes:
    """Replace the other operand of every product by these values; None contributes nothing."""
    result: Changes = {}
    for number, value in zip(group, values_of(values), strict=True):
        true = values[known.program.operations[number].inputs[1 - operand]]
        if value is None:
            result[number, operand] = Change(operand, after=0.0)
        elif value.shape == true.shape:
            result[number, operand] = Change(operand, instead=((1 - operand, value),))
    return result


def list_transposition_mistakes(
    known: Structure, group: Sequence[int], operand: int, slots: Sequence[int]
) -> Iterator[OperationMistake]:
    """List the mistake of leaving a square weight untransposed."""
    shapes = {known.program.operations[number].shapes[0] for number in group}
    if slots[0] not in known.leaf or len(shapes) > 1:
        return
    recurrent = any(from_before(known, number, operand) for number in group)

    def transpose(values: Values) -> list[Any]:
        weights = [values[slot] for slot in slots]
        return [weight.swapaxes(-1, -2) if weight.ndim == 3 else weight for weight in weights]

    name = f"untransposed-{'recurrent' if recurrent else 'output'}-weight"
    weight = f"the weight in its {name_operand(1 - operand)}"
    changes = partial(replace_other_operand, known, group, operand, transpose)
    yield OperationMistake(
        name, f"{weight} is not transposed in the backward pass", group[0], changes
    )


def list_order_mistakes(
    known: Structure, group: Sequence[int], operand: int, slots: Sequence[int]
) -> Iterator[OperationMistake]:
    """List mistakes that apply an activation's derivative on the wrong side of the weight."""
    sources = [known.producer.get(slot) for slot in slots]
    numbers = [source for source in sources if source is not None]
    if not numbers or slots[-1] in known.leaf or not all(elementwise(known, k) for k in numbers):
        return
    for links in chains(known, numbers):

        def changes(values: Values, links: Any = links) -> Changes:
            by_end = {link[-1]: link for link in links}
            result: Changes = {}
            for number, source in zip(group, sources, strict=True):
                if source is None:
                    continue
                with np.errstate(all="ignore"):
                    slope = slope_of(known, by_end[source], values)[0]
                    inverse = np.where(slope == 0, 0.0, 1 / slope)
                if slope.shape == known.program.operations[number].shapes[0]:
                    result[number, operand] = Change(operand, before=slope, after=inverse)
            return result

        yield OperationMistake(
            "activation-derivative-before-matrix-product",
            "the activation's derivative is applied before the product with the weight, not after",
            group[0],
            changes,
        )


def list_shifts(
    known: Structure, slots: Sequence[int]
) -> Iterator[tuple[Sequence[int | None], str, str]]:
    """List the slots of other steps, with the name of that mistake (or none) and its words."""
    if len(slots) < 2 or any(slot in known.leaf for slot in slots):
        return
    after = following(known, slots[-1], slots[-2])
    following_step, previous = "the value of the next step", "the value of the previous step"
    yield [*slots[1:], after], "", following_step
    yield [*slots[1:], slots[-1]], "", following_step
    yield [None, *slots[:-1]], "", previous
    wraps = "negative-index-wraps-around"
    first = "the last value at the first step, as index −1 would give"
    for last in {slots[-1], after} - {None}:
        yield [last, *slots[1:]], wraps, first
        yield [last, *slots[:-1]], wraps, f"{previous}, and {first}"


def list_output_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List mistakes that pass the output's gradient to other states than the last."""
    operations = known.program.operations
    every, wrong = "output-gradient-at-every-step", "output-gradient-at-wrong-step"
    for group in known.groups:
        if len(group) != known.steps or known.steps < 2:
            continue
        outputs = [operations[number].outputs[0] for number in group]
        for number, operand in known.users.get(outputs[-1], ()):
            if number in known.step:
                continue
            gradient = f"the gradient of its {name_operand(operand)} is passed back to"
            for slots, factor, name, where in (
                (outputs[:-1], None, every, "the state of every step"),
                (outputs[:1], 0.0, wrong, "the state of the first step"),
                (outputs[-2:-1], 0.0, wrong, "the state before the last"),
            ):
                changes = change_edges([(number, operand)], after=factor, also=tuple(slots))
                yield OperationMistake(name, f"{gradient} {where}", number, changes)


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
    last, steps = known.steps - 1, known.steps
    vectors = {
        name for name, shape in known.program.shapes.items() if max(shape, default=1) == prod(shape)
    }
    every = [edge for found in edges.values() for edge in found]
    for label, chosen in [("every weight", every), *edges.items()] if every else ():
        for name, kept, alteration in (
            ("missing-time-sum", {last}, "only the last step is kept in the sum over time"),
            ("missing-time-sum", {0}, "only the first step is kept in the sum over time"),
            ("first-step-skipped", set(range(1, steps)), "the first step is missing in the sum"),
            ("last-step-skipped", set(range(last)), "the last step is missing in the sum"),
        ):
            left_out = [edge for edge in chosen if known.step[edge[0]] not in kept]
            details = {"kept": sorted(k + 1 for k in kept)} if name == "missing-time-sum" else {}
            named, said = "bias-part-missing" if label in vectors else name, f"for {label}, "
            yield scale_edges(named, said + alteration, left_out, 0.0, chosen[0], **details)
    for name, k in (("first-step-skipped", 0), ("last-step-skipped", last)):
        numbers = [number for number in known.step if known.step[number] == k]
        chosen = [(number, operand) for number in numbers for operand in known.active(number)]
        if not chosen:
            continue
        left_out = [edge for edge in chosen if edge not in known.carried]
        yield scale_edges(name, f"step {k + 1} contributes nothing", left_out, 0.0, chosen[0])


def list_broadcast_mistakes(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List mistakes that sum one entry only over the axis along which a parameter is broadcast."""
    operations = known.program.operations
    shape = operations[group[0]].shapes[0]
    if len({operations[number].shapes[0] for number in group}) > 1:
        return
    for operand in known.active(*group):
        if operations[group[0]].inputs[operand] not in known.leaf:
            continue
        for axis, size in enumerate(shape):
            for part, index in (("first", 0), ("last", -1)) if size > 1 else ():
                mask = np.zeros(shape)
                mask[(slice(None),) * axis + (index,)] = 1
                said = f"of the sum over {size} entries only the {part} reaches the parameter"
                changes = change_edges([(number, operand) for number in group], before=mask)
                yield OperationMistake("bias-part-missing", said, group[0], changes)


def list_path_mistakes(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List mistakes that cut or scale what is passed back to one operand, or to all."""
    active = known.active(*group)
    zero, scaled, flipped = "zero-gradient", "constant-factor", "sign-flipped"
    for operand in active:
        edges = [(number, operand) for number in group]
        path = f"what is passed back to its {name_operand(operand)}"
        yield scale_edges(zero, f"{path} is zero", edges, 0.0)
        yield scale_edges("path-counted-twice", f"{path} is counted twice", edges, 2.0)
        yield scale_edges(flipped, f"{path} has the wrong sign", edges, -1.0)
        yield scale_edges(scaled, f"{path} is halved", edges, 0.5, factor=0.5)
        uses = (("first", edges[:1], edges[1:]), ("last", edges[-1:], edges[:-1]))
        for word, one, rest in uses if len(group) > 1 else ():
            yield scale_edges(f"{word}-step-skipped", f"{path} is zero at its {word} use", one, 0.0)
            yield scale_edges(zero, f"{path} is zero but at its {word} use", rest, 0.0)
    if len(active) > 1:
        edges = [(number, operand) for number in group for operand in active]
        yield scale_edges(flipped, "its derivative has the wrong sign", edges, -1.0)
        yield scale_edges(scaled, "its derivative is twice too large", edges, 2.0, factor=2.0)
        yield scale_edges(scaled, "its derivative is halved", edges, 0.5, factor=0.5)
