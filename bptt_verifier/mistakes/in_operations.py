"""Mistakes in differentiating the operations of a loss.

Each changes the derivative of one operation, at all time steps together or at one of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.program.operations import Operation
from bptt_verifier.program.structure import (
    Structure,
    chains,
    elementwise,
    following,
    from_before,
    slope_of,
)
from bptt_verifier.program.trace import Change

Values = Sequence[Any]
Changes = dict[tuple[int, int], Change]

LINEAR = frozenset("neg copy add sub mul".split())  # of one variable, and constants

ORDINAL = "first second third fourth fifth sixth".split()


class OperationMistake(NamedTuple):
    """A mistake by its stable name: what is done wrongly, where, and what that changes.

    `equation` is the operation that a report shows; `changes` are those of one point.
    """

    name: str
    alteration: str
    equation: int
    changes: Callable[[Values], Changes]
    details: Mapping[str, Any] = {}


def cut(edges: Sequence[tuple[int, int]], factor: Any = 0.0) -> Callable[[Values], Changes]:
    """The same factor on every one of these (equation, operand)."""
    return lambda values: {edge: Change(edge[1], after=factor) for edge in edges}


def always(changes: Changes) -> Callable[[Values], Changes]:
    """Changes that do not depend on the point."""
    return lambda values: changes


def read_slots(slots: Sequence[int | None]) -> Callable[[Values], list[Any]]:
    """The values of these slots (None where there is none)."""
    return lambda values: [None if slot is None else values[slot] for slot in slots]


def ordinal(operand: int) -> str:
    """`first`, `second` … operand."""
    return ORDINAL[operand] if operand < len(ORDINAL) else f"{operand + 1}th"


def list_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """Every mistake with one operation, the more particular names first."""
    yield from list_recurrence_mistakes(known)
    for group in known.groups:
        yield from list_activation_mistakes(known, group)
        yield from list_product_mistakes(known, group)
    yield from list_output_mistakes(known)
    yield from list_step_mistakes(known)
    # Of several places where a path may be cut to the same effect, the one nearest to the loss.
    for group in reversed(known.groups):
        yield from list_broadcast_mistakes(known, group)
        yield from list_path_mistakes(known, group)


def list_recurrence_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """What is carried from step to step: dropped, or dropped at one step."""
    carried, steps = known.carried, known.steps
    if not carried:
        return
    every = "nothing is passed back from one step to the one before"
    yield OperationMistake(
        "recurrent-path-dropped", every, carried[0][0], cut(carried), {"path": "all"}
    )
    by_group: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for group in known.groups:
        for operand in known.active(*group):
            edges = [(number, operand) for number in group if (number, operand) in carried]
            if edges and len(edges) < len(carried):
                by_group[(*group, operand)] = edges
    for edges in by_group.values():
        yield OperationMistake(
            "recurrent-path-dropped",
            f"nothing is passed back to the step before through its {ordinal(edges[0][1])} operand",
            edges[0][0],
            cut(edges),
            {"path": f"{ordinal(edges[0][1])} operand"},
        )
    for first in range(1, steps):
        edges = [edge for edge in carried if known.step[edge[0]] == first]
        kept = steps - first
        skipped = first == 1
        yield OperationMistake(
            "first-step-skipped" if skipped else "truncated",
            f"nothing is passed back beyond the last {kept} of {steps} steps",
            edges[0][0] if edges else carried[0][0],
            cut(edges),
            {"steps": kept},
        )
    yield OperationMistake(
        "path-counted-twice",
        "what is passed back from one step to the one before is counted twice",
        carried[0][0],
        cut(carried, 2.0),
    )


def list_activation_mistakes(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """The derivative of a function of one variable, alone or as several operations."""
    for links in chains(known, group):
        names = {known.program.operations[number].name for number in links[0]}
        if names <= LINEAR:
            continue

        def replaced(values: Values, links: Any = links, at_output: bool = False) -> Changes:
            changes: Changes = {}
            for link in links:
                output = values[known.program.operations[link[-1]].outputs[0]]
                with np.errstate(all="ignore"):
                    slope = slope_of(known, link, values, output)[0] if at_output else 1.0
                for number in link:
                    operand = known.active(number)[0]
                    changes[number, operand] = Change(
                        operand, slope=slope if number == link[-1] else 1.0
                    )
            return changes

        yield OperationMistake(
            "activation-derivative-missing",
            "its derivative is missing: what arrives is passed back as it is",
            links[0][-1],
            replaced,
        )
        yield OperationMistake(
            "activation-derivative-of-activated-value",
            "its derivative is taken at the value that it returned instead of the one it was given",
            links[0][-1],
            partial(replaced, at_output=True),
        )


def list_product_mistakes(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """A product whose other operand is a wrong one: transposed, of another step, not activated."""
    equations = known.program.operations
    name = equations[group[0]].name
    if name not in {"dot_general", "mul"}:
        return
    for operand in known.active(*group):
        other = 1 - operand
        slots = [equations[number].inputs[other] for number in group]
        mine = [equations[number].inputs[operand] for number in group]
        if name == "dot_general":
            yield from list_transposition_mistakes(known, group, operand, slots)
            yield from list_order_mistakes(known, group, operand, mine)
        state = any(slot in known.producer for slot in slots)
        wrong = "hidden-state-off-by-one" if state else "input-off-by-one"
        for values_of, label, alteration in list_shifts(known, slots):
            yield OperationMistake(
                label or wrong,
                f"the gradient of its {ordinal(operand)} operand is made with {alteration}",
                group[0],
                replace_other_operand(equations, group, operand, values_of),
            )
        sources = [known.producer.get(slot) for slot in slots]
        if any(source is not None for source in sources) and all(
            source is None or elementwise(known, source) for source in sources
        ):
            inputs = [
                slot if source is None else equations[source].inputs[known.active(source)[0]]
                for slot, source in zip(slots, sources, strict=True)
            ]
            yield OperationMistake(
                "wrong-operand",
                f"the gradient of its {ordinal(operand)} operand is made with the value before the "
                "activation instead of the one after it",
                group[0],
                replace_other_operand(equations, group, operand, read_slots(inputs)),
            )
        if all(source is not None and equations[source].name == "mul" for source in sources):
            for factor in (0, 1):
                inputs = [
                    equations[source].inputs[factor] for source in sources if source is not None
                ]
                yield OperationMistake(
                    "wrong-operand",
                    f"the gradient of its {ordinal(operand)} operand is made with one factor of a "
                    "product instead of the product",
                    group[0],
                    replace_other_operand(equations, group, operand, read_slots(inputs)),
                )
        if name == "mul":
            yield OperationMistake(
                "wrong-operand",
                f"the gradient of its {ordinal(operand)} operand is made with that operand itself "
                "instead of the other",
                group[0],
                replace_other_operand(equations, group, operand, read_slots(mine)),
            )


def replace_other_operand(
    equations: Sequence[Operation],
    group: Sequence[int],
    operand: int,
    values_of: Callable[[Values], Sequence[Any]],
) -> Callable[[Values], Changes]:
    """The other operand of every product replaced by these values (None: contributes nothing)."""

    def changes(values: Values) -> Changes:
        result: Changes = {}
        for number, value in zip(group, values_of(values), strict=True):
            true = values[equations[number].inputs[1 - operand]]
            if value is None:
                result[number, operand] = Change(operand, after=0.0)
            elif value.shape == true.shape:
                result[number, operand] = Change(operand, instead=((1 - operand, value),))
        return result

    return changes


def list_transposition_mistakes(
    known: Structure, group: Sequence[int], operand: int, slots: Sequence[int]
) -> Iterator[OperationMistake]:
    """A square weight that is not transposed on the way back."""
    shapes = {known.program.operations[number].shapes[0] for number in group}
    square = slots[0] in known.leaf and len(shapes) == 1
    recurrent = any(from_before(known, number, operand) for number in group)
    if square:
        yield OperationMistake(
            "untransposed-recurrent-weight" if recurrent else "untransposed-output-weight",
            f"the weight in its {ordinal(1 - operand)} operand is not transposed on the way back",
            group[0],
            replace_other_operand(
                known.program.operations,
                group,
                operand,
                lambda values: [
                    values[slot].swapaxes(-1, -2) if values[slot].ndim == 3 else values[slot]
                    for slot in slots
                ],
            ),
        )


def list_order_mistakes(
    known: Structure, group: Sequence[int], operand: int, slots: Sequence[int]
) -> Iterator[OperationMistake]:
    """The slope of the activation, applied on the wrong side of the recurrent weight."""
    equations = known.program.operations
    sources = [known.producer.get(slot) for slot in slots]
    numbers = [source for source in sources if source is not None]
    if not numbers or not all(elementwise(known, source) for source in numbers):
        return
    if slots[-1] in known.leaf:
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
                if slope.shape == equations[number].shapes[0]:
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
) -> Iterator[tuple[Callable[[Values], list[Any]], str, str]]:
    """The operands of every step, replaced by those of another."""
    if len(slots) < 2 or any(slot in known.leaf for slot in slots):
        return
    after = following(known, slots[-1], slots[-2])

    what = "the value of the {} step"
    yield read_slots([*slots[1:], after]), "", what.format("next")
    yield read_slots([*slots[1:], slots[-1]]), "", what.format("next")
    yield read_slots([None, *slots[:-1]]), "", what.format("previous")
    wraps = "negative-index-wraps-around"
    first = "the last value at the first step, as index −1 would give"
    for last in {slots[-1], after} - {None}:
        yield read_slots([last, *slots[1:]]), wraps, first
        yield read_slots([last, *slots[:-1]]), wraps, what.format("previous") + ", and " + first


def list_output_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """The gradient of the output, handed to other states than the last."""
    equations = known.program.operations
    for group in known.groups:
        if len(group) != known.steps or known.steps < 2:
            continue
        outputs = [equations[number].outputs[0] for number in group]
        for number, operand in known.users.get(outputs[-1], ()):
            if number in known.step:
                continue
            edge = (number, operand)
            for slots, factor, name, alteration in (
                (outputs[:-1], None, "output-gradient-at-every-step", "to the state of every step"),
                (
                    outputs[:1],
                    0.0,
                    "output-gradient-at-wrong-step",
                    "to the state of the first step",
                ),
                (
                    outputs[-2:-1],
                    0.0,
                    "output-gradient-at-wrong-step",
                    "to the state before the last",
                ),
            ):
                change = Change(operand, after=factor, also=tuple(slots))
                yield OperationMistake(
                    name,
                    f"the gradient of its {ordinal(operand)} operand is handed {alteration}",
                    number,
                    always({edge: change}),
                )


def list_step_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """Steps whose direct contribution to the weights is missing, of one weight or of all."""
    if known.steps < 2:
        return
    edges: dict[str, list[tuple[int, int]]] = {}
    for number in known.step:
        for operand, slot in enumerate(known.program.operations[number].inputs):
            name = known.leaf.get(slot)
            source = known.producer.get(slot)
            if name is not None and source not in known.step:
                edges.setdefault(name, []).append((number, operand))
    last, steps = known.steps - 1, known.steps
    vectors = {
        name for name, shape in known.program.shapes.items() if max(shape, default=1) == prod(shape)
    }
    every = [edge for found in edges.values() for edge in found]
    for label, chosen in [("every weight", every), *((f"{n}", e) for n, e in edges.items())]:
        for name, kept, alteration in (
            ("missing-time-sum", {last}, "only the last step is kept in the sum over time"),
            ("missing-time-sum", {0}, "only the first step is kept in the sum over time"),
            ("first-step-skipped", set(range(1, steps)), "the first step is missing in the sum"),
            ("last-step-skipped", set(range(last)), "the last step is missing in the sum"),
        ):
            yield OperationMistake(
                "bias-part-missing" if label in vectors else name,
                f"for {label}, {alteration}",
                chosen[0][0],
                cut([edge for edge in chosen if known.step[edge[0]] not in kept]),
                {"kept": sorted(k + 1 for k in kept)} if name == "missing-time-sum" else {},
            )
    for name, k in (("first-step-skipped", 0), ("last-step-skipped", last)):
        chosen = [
            (number, operand)
            for number in known.step
            if known.step[number] == k
            for operand in known.active(number)
        ]
        left = [edge for edge in chosen if edge not in known.carried]
        yield OperationMistake(name, f"step {k + 1} contributes nothing", chosen[0][0], cut(left))


def list_broadcast_mistakes(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """A parameter that is broadcast, fed by the first or last part of what it met."""
    equation = known.program.operations[group[0]]
    shape = equation.shapes[0]
    for operand in known.active(*group):
        if equation.inputs[operand] not in known.leaf:
            continue
        if len({known.program.operations[number].shapes[0] for number in group}) > 1:
            continue
        for axis, size in enumerate(shape):
            for part, index in (("first", 0), ("last", size - 1)):
                if size < 2:
                    continue
                mask = np.zeros(shape)
                mask[(slice(None),) * axis + (index,)] = 1
                changes = {(number, operand): Change(operand, before=mask) for number in group}
                yield OperationMistake(
                    "bias-part-missing",
                    f"of the sum over {size} entries only the {part} reaches the parameter",
                    group[0],
                    always(changes),
                )


def list_path_mistakes(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """One operand's path cut, counted twice, or scaled; the same at the first or last use only."""
    active = known.active(*group)
    for operand in active:
        edges = [(number, operand) for number in group]
        path = f"what is passed back to its {ordinal(operand)} operand"
        for factor, name, alteration in (
            (0.0, "zero-gradient", f"{path} is zero"),
            (2.0, "path-counted-twice", f"{path} is counted twice"),
            (-1.0, "sign-flipped", f"{path} has the wrong sign"),
            (0.5, "constant-factor", f"{path} is halved"),
        ):
            details = {"factor": factor} if name == "constant-factor" else {}
            yield OperationMistake(name, alteration, group[0], cut(edges, factor), details)
        if len(group) > 1:
            for word, one in (("first", edges[:1]), ("last", edges[-1:])):
                alteration = f"{path} is zero at its {word} use"
                yield OperationMistake(f"{word}-step-skipped", alteration, one[0][0], cut(one))
                alteration = f"{path} is zero but at its {word} use"
                left = [edge for edge in edges if edge not in one]
                yield OperationMistake("zero-gradient", alteration, left[0][0], cut(left))
    if len(active) > 1:
        for factor, name, alteration in (
            (-1.0, "sign-flipped", "its derivative has the wrong sign"),
            (2.0, "constant-factor", "its derivative is twice too large"),
            (0.5, "constant-factor", "its derivative is halved"),
        ):
            edges = [(number, operand) for number in group for operand in active]
            details = {"factor": factor} if name == "constant-factor" else {}
            yield OperationMistake(name, alteration, group[0], cut(edges, factor), details)
