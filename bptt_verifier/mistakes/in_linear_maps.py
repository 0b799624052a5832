"""Mistakes in a product and a linear map that are applied in the wrong order.

With a linear map L, such as a difference along a grid, m ⊙ (L u) passes Lᵀ(m ⊙ λ) back to u, and
L(m ⊙ u) passes m ⊙ (Lᵀ λ). A derivation that takes the map for its own adjoint, and forgets that it
stands in the other order there, has the one for the other (docs/derivation.md, section 10).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from bptt_verifier.mistakes.expressions import name_operand, quote_expression
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    Edge,
    OperationMistake,
    Values,
    make_pullback,
)
from bptt_verifier.program.backward import Change
from bptt_verifier.program.structure import Structure, shape_of

HOPS = 24  # operations of a linear map, at most
SCALES = frozenset("mul div dot_general conv_general_dilated".split())  # linear beside a constant
ELEMENTWISE = frozenset("neg copy convert_element_type add sub mul div".split())
LINEAR = ELEMENTWISE | SCALES | frozenset("stack concatenate pad reduce_sum cumsum".split())


def list_exchanged_maps(known: Structure) -> Iterator[OperationMistake]:
    """List products beside a linear map whose order is that of the loss in the gradient, too."""
    operations = known.program.operations
    for group in known.groups:
        if operations[group[-1]].name != "mul":
            continue
        for operand in known.active(*group):
            factor = name_operand(known, group[-1], 1 - operand)
            for before in (True, False):
                # The first step may read a constant, which has no gradient.
                maps = {n: find_map(known, n, operand, before) for n in group}
                found = {number: edges for number, edges in maps.items() if edges}
                if group[-1] not in found:
                    continue
                last = found[group[-1]][0 if before else -1][0]
                said = (
                    f"the factor {factor} is applied {'after' if before else 'before'} the linear"
                )
                said += f" map that {quote_expression(known, last)} belongs to is passed back, not"
                said += f" {'before' if before else 'after'} it"
                changes = partial(exchange_order, known, found, operand)
                name = "wrong-operand"
                yield OperationMistake(name, said, group[0], changes, {}, (name, "map", before))
                if not before and len(known.active(group[-1])) > 1:
                    said += f", in the gradient of {name_operand(known, group[-1], operand)} alone"
                    alone = partial(exchange_alone, known, found, operand)
                    yield OperationMistake(name, said, group[0], alone, {}, (name, "map", "alone"))


def find_map(known: Structure, number: int, operand: int, before: bool) -> list[Edge]:
    """Find where the factor of a product goes if it changes sides with the linear map beside it.

    These are the operands that read the input of a map `before` the product; or those of the last
    operation of one after it. Empty where there is no map, or only one that commutes with factors.
    """
    equation = known.program.operations[number]
    slot, factor = equation.inputs[operand], equation.inputs[1 - operand]
    if not before:
        (slot,) = equation.outputs
    shape = shape_of(known, factor)
    if not shape or shape != shape_of(known, equation.inputs[operand]):
        return []
    return find_input(known, slot, shape) if before else find_result(known, slot, shape)


def find_input(known: Structure, result: int, shape: tuple[int, ...]) -> list[Edge]:
    """Find the operands that read the one value of a shape that a result is a linear map of."""
    operations, border, inside, moves = known.program.operations, {result}, set[int](), False
    for _ in range(HOPS):
        slot = max(border, key=lambda each: known.producer.get(each, -1))
        if len(border) == 1 and moves and shape_of(known, slot) == shape:
            return [edge for edge in known.users[slot] if edge[0] in inside]
        source = known.producer.get(slot, -1)
        if source < 0 or not is_linear_operation(known, source):
            return []
        readers = {number for number, _ in known.users[slot]}
        if inside and not readers <= inside:
            return []
        inside.add(source)
        moves |= operations[source].name not in ELEMENTWISE
        border.remove(slot)
        border |= {operations[source].inputs[k] for k in known.active(source)}
    return []


def find_result(known: Structure, start: int, shape: tuple[int, ...]) -> list[Edge]:
    """Find the operands of the operation that ends a linear map of a value, in this shape."""
    operations, moves, reached = known.program.operations, False, {start}
    edges = [*known.users.get(start, ())]
    for _ in range(HOPS):
        if not edges:
            return []
        number = min(number for number, _ in edges)
        equation = operations[number]
        active = known.active(number)
        if not is_linear_operation(known, number) or len(equation.outputs) != 1:
            return []
        if not reached.issuperset(equation.inputs[k] for k in active):
            return []
        edges = [edge for edge in edges if edge[0] != number]
        moves |= equation.name not in ELEMENTWISE
        (slot,) = equation.outputs
        reached.add(slot)
        if not edges and moves and equation.shapes[0] == shape:
            return [(number, k) for k in active]
        edges += known.users.get(slot, ())
    return []


def is_linear_operation(known: Structure, number: int) -> bool:
    """Tell whether an operation is linear in its operands that depend on the parameters."""
    equation, active = known.program.operations[number], known.active(number)
    if equation.name in SCALES:
        return len(active) == 1 and not (equation.name == "div" and active == [1])
    return equation.name in LINEAR or equation.moved is not None


def exchange_order(
    known: Structure, found: Mapping[int, Sequence[Edge]], operand: int, values: Values
) -> Changes:
    """Take the factor out of each product, and apply it on the other side of the map."""
    changes, operations = Changes(), known.program.operations
    for number, edges in found.items():
        factor = values[operations[number].inputs[1 - operand]][0]
        changes[number, operand] = Change(operand, slope=1.0)
        for reader, k in edges:
            before = reader > number
            changes[reader, k] = Change(k, before=factor) if before else Change(k, after=factor)
    return changes


def exchange_alone(
    known: Structure, found: Mapping[int, Sequence[Edge]], operand: int, values: Values
) -> Changes:
    """Do the same in what one operand of each product gets; the factor's own gradient is right.

    What arrives at the end of the map is kept when the sweep comes there, which is before it comes
    to the product; then the map passes it back once more, with the factor.
    """
    changes, operations = Changes(), known.program.operations
    for number, edges in found.items():
        factor, end = values[operations[number].inputs[1 - operand]][0], edges[0][0]
        (start,), pullbacks = operations[number].outputs, dict[int, Any]()
        reached = {start}
        for each in range(number + 1, end + 1):
            if not reached.isdisjoint(operations[each].inputs):
                reached.update(operations[each].outputs)
                pullbacks[each] = make_pullback(operations[each], values)
        kept = list[Any]()

        def keep(arriving: Any, kept: Any = kept, end: int = end, k: int = edges[0][1],
                 pullbacks: Any = pullbacks) -> Any:  # fmt: skip
            kept[:] = arriving
            return pullbacks[end](arriving)[k]

        def through(arriving: Any, kept: Any = kept, factor: Any = factor, start: int = start,
                    pullbacks: Any = pullbacks) -> Any:  # fmt: skip
            last = max(pullbacks)
            cotangents = {operations[last].outputs[0]: kept[0] * factor}
            for each in sorted(pullbacks, reverse=True):
                passed = pullbacks[each]([cotangents[operations[each].outputs[0]]])
                for slot, ct in zip(operations[each].inputs, passed, strict=True):
                    if ct is not None:
                        cotangents[slot] = cotangents.get(slot, 0) + ct
            return cotangents[start]

        changes[edges[0]] = Change(edges[0][1], through=keep)
        changes[number, operand] = Change(operand, through=through)
    return changes
