"""Products whose gradient is computed with any other value of the loss in an operand's place.

Likely values are among the common mistakes (`in_products`, `in_factors`). Here is every value that
a step computes or reads, earlier or later than the product, and that of the steps beside it.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from bptt_verifier.mistakes.expressions import name_operand, name_result, quote_expression
from bptt_verifier.mistakes.in_other_arrays import list_submitted_data
from bptt_verifier.mistakes.in_products import rebuild_operands, replace_other_operand
from bptt_verifier.mistakes.operation_mistakes import OperationMistake, read_slots
from bptt_verifier.program.activations import find_activations
from bptt_verifier.program.recording import Recorded
from bptt_verifier.program.structure import Structure, shape_of

PRODUCTS = frozenset(["mul", "dot_general"])
BESIDE = {-1: "previous", 1: "next"}  # steps


class Column(NamedTuple):
    """The slots of one value by time step, and its name in the loss."""

    slots: dict[int, int]
    name: str

    def read(self, steps: Sequence[int], by: int) -> list[int | None]:
        """Find the slots of these steps, or of so many later; None where there is none."""
        return [self.slots.get(t + by) for t in steps]


def list_other_values(
    known: Structure, recorded: Sequence[Recorded] = ()
) -> Iterator[OperationMistake]:
    """List every value in the place of an operand, of the same step or of one beside it.

    Beyond the first or the last step, either nothing is passed back, or the right value is used.
    Data that the recorded submission reads come first.
    """
    yield from list_submitted_data(known, recorded)
    operations, columns = known.program.operations, list_columns(known)
    for group in known.groups:
        if operations[group[0]].name not in PRODUCTS or not is_in_time(known, group):
            continue
        steps = [known.step[number] for number in group]
        for operand in known.active(*group):
            slots = [operations[number].inputs[1 - operand] for number in group]
            if slots[-1] in known.leaf:
                continue
            shape, this = shape_of(known, slots[-1]), name_operand(known, group[-1], operand)
            right = name_operand(known, group[-1], 1 - operand)
            tried = set[tuple[int | None, ...]]({tuple(slots)})
            for column in columns:
                last = column.slots.get(steps[-1])
                if last is None or not shape or shape_of(known, last) != shape:
                    continue
                own = last == slots[-1]
                for found, where in list_readings(column, steps, slots):
                    if tuple(found) in tried:
                        continue
                    tried.add(tuple(found))
                    name = "hidden-state-off-by-one" if own else "wrong-operand"
                    belongs = "" if own else f", where {right} belongs"
                    what = f"the value of {column.name} in the {where} iteration"
                    said = f"the gradient of {this} is computed with "
                    said += (what if where else column.name) + belongs
                    changes = partial(
                        replace_other_operand, known, group, operand, read_slots(found)
                    )
                    yield OperationMistake(name, said, group[0], changes)
            yield from list_other_factors(known, group, operand, columns)


def list_other_factors(
    known: Structure, group: Sequence[int], operand: int, columns: Sequence[Column]
) -> Iterator[OperationMistake]:
    """List values in the place of one factor of an operand that is a product, such as r ⊙ h."""
    operations = known.program.operations
    slots = [operations[number].inputs[1 - operand] for number in group]
    sources = [known.producer.get(slot, -1) for slot in slots]
    if -1 in sources or {operations[source].name for source in sources} != {"mul"}:
        return
    steps, this = [known.step[number] for number in group], name_operand(known, group[-1], operand)
    for part in (0, 1):
        own = [operations[source].inputs[part] for source in sources]
        right, shape = name_operand(known, sources[-1], part), shape_of(known, own[-1])
        for column in columns:
            found = column.read(steps, 0)
            if found == own or None in found or shape_of(known, found[-1] or 0) != shape:
                continue
            said = f"the gradient of {this} is computed with {column.name}, where {right} belongs"
            rebuild = partial(rebuild_operands, known, slots, part, found)
            changes = partial(replace_other_operand, known, group, operand, rebuild)
            yield OperationMistake("wrong-operand", said, group[0], changes)


def list_readings(
    column: Column, steps: Sequence[int], right: Sequence[int]
) -> Iterator[tuple[list[int | None], str]]:
    """List the slots of a column at these steps and beside them, and the word for the step."""
    yield column.read(steps, 0), ""
    for by, where in BESIDE.items():
        found = column.read(steps, by)
        yield found, where
        pairs = zip(found, right, strict=True)
        yield [own if slot is None else slot for slot, own in pairs], where


def list_columns(known: Structure) -> list[Column]:
    """List the values of every step that a product reads, or that an activation reads or yields."""
    operations, found = known.program.operations, dict[tuple[tuple[int, int], ...], Column]()

    def add(group: Sequence[int], slots: Sequence[int], name: str) -> None:
        by_step = {known.step[number]: slot for number, slot in zip(group, slots, strict=True)}
        key = tuple(by_step.items())
        # What is the same at every step is a weight, or a number.
        if len({*slots}) > 1 and key not in found:
            found[key] = Column(by_step, name)

    for group in known.groups:
        if not is_in_time(known, group):
            continue
        if operations[group[0]].name in PRODUCTS:
            for operand in (0, 1):
                slots = [operations[number].inputs[operand] for number in group]
                add(group, slots, name_operand(known, group[-1], operand))
        for each in find_activations(known, group)[-1:]:
            numbers = [known.producer.get(one.start, one.end) for one in each]
            if all(number in known.step for number in numbers):
                name = quote_expression(known, numbers[-1])
                add([one.end for one in each], [one.start for one in each], name)
            ends = [one.end for one in each]
            results = [operations[end].outputs[0] for end in ends]
            target = name_result(known, each[-1])
            add(
                ends, results, f"`{target}`" if target != "y" else quote_expression(known, ends[-1])
            )
    return [*found.values()]


def is_in_time(known: Structure, group: Sequence[int]) -> bool:
    """Tell whether every operation of a group has a time step of its own."""
    return len(group) > 1 and all(number in known.step for number in group)
