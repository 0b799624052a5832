"""Roundings inside a loss: their derivative is zero, and derivations often leave them out."""

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.guards import Edge, describe_place, pass_through
from bptt_verifier.program.rounding import is_inexact
from bptt_verifier.program.trace import Params, Program

ROUNDINGS = frozenset("round floor ceil".split())
SIGNED = frozenset("select_n add".split())
CONVERSION = "convert_element_type"


def find_roundings(program: Program) -> dict[Edge, float]:
    """Find the operands that are rounded, and the slope of each if it were not.

    It is one where a number is rounded to a whole one, and zero of a remainder that is subtracted
    from what is divided, as in x − x mod c.
    """
    operations, found = program.operations, dict[Edge, float]()
    producer = find_producers(program)
    for number, each in enumerate(operations):
        if each.name in ROUNDINGS:
            found[number, 0] = 1.0
        subtracted = {*each.inputs[1:]} if each.name == "sub" else set[int]()
        for _ in range(2):  # the choice and the sum that give a remainder its divisor's sign
            made = [operations[producer[slot]] for slot in subtracted if slot in producer]
            subtracted = subtracted.union(*(m.inputs for m in made if m.name in SIGNED))
        for n in sorted(producer[slot] for slot in subtracted if slot in producer):
            if operations[n].name == "rem" and operations[n].inputs[0] == each.inputs[0]:
                found[n, 0] = 0.0
    return found


def find_conversions(program: Program) -> dict[int, Edge]:
    """Find the operations that convert integers to numbers, where these were numbers before.

    The operand that was converted to the integers is with each.
    """
    operations, producer = program.operations, find_producers(program)
    leaves = {*program.leaves.values()}
    found = dict[int, Edge]()
    for number, each in enumerate(operations):
        first = producer.get(each.inputs[0]) if each.name == CONVERSION else None
        if first is None or not is_inexact(each.dtypes[0]) or operations[first].name != CONVERSION:
            continue
        slot = operations[first].inputs[0]
        inexact = slot in producer and is_inexact(operations[producer[slot]].dtypes[0])
        if (slot in leaves or inexact) and not is_inexact(operations[first].dtypes[0]):
            found[number] = first, 0
    return found


def find_producers(program: Program) -> dict[int, int]:
    """Find the number of the operation that computes each slot."""
    return {slot: n for n, each in enumerate(program.operations) for slot in each.outputs}


def differentiate_unrounded(program: Program, params: Params) -> dict[str, Array]:
    """Differentiate what a loss rounds; empty where it rounds nothing.

    What is converted to integers and back is passed on as it was; other uses of the integers, as of
    an index, keep them.
    """
    operations, conversions = [*program.operations], find_conversions(program)
    for number, (first, operand) in conversions.items():
        slot = operations[first].inputs[operand]
        operations[number] = operations[number]._replace(inputs=(slot,))
    free = program._replace(operations=tuple(operations))
    slopes = find_roundings(free)
    return pass_through(free, slopes, params) if slopes or conversions else {}


def describe_last(program: Program) -> str:
    """Describe the last line that rounds, if any."""
    found = [*find_conversions(program).values(), *find_roundings(program)]
    return describe_place(program, max(found)) if found else ""
