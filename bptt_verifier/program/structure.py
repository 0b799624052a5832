"""The structure of a loss: groups of equations, time steps, and the state carried between them.

Equations from one source expression form a group, and the k-th of them belongs to step k. That
determines which operands are states of the step before.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bptt_verifier.program.source_lines import Place
from bptt_verifier.program.trace import Program

# Operations that a state may go through before it meets its weight.
THROUGH = frozenset("mul concatenate stack".split())


LENGTHS = 4  # numbers of steps that are tried


class Structure(NamedTuple):
    """The structure of a program, independent of its numbers.

    `groups` are the equations by source expression and layer, in order. `steps` is the number of
    time steps, and `step` the time step of an equation. `producer` is the equation that computes a
    slot, and `users` are the (equation, operand) that read it. `carried` are the (equation,
    operand) that read a state of the step before. `leaf` is the parameter whose entries a slot
    holds. `group_of` is the number of an equation's group, and `layers` its weight. `callers` is
    the number of chains of calls that lead to an expression.
    """

    program: Program
    groups: tuple[tuple[int, ...], ...]
    steps: int
    step: dict[int, int]
    producer: dict[int, int]
    users: dict[int, list[tuple[int, int]]]
    carried: tuple[tuple[int, int], ...]
    leaf: dict[int, str]
    group_of: dict[int, int]
    layers: list[Any]
    callers: Counter[Place]

    def active(self, *numbers: int) -> list[int]:
        """The operands that depend on the parameters in at least one of these equations.

        An initial state is often a constant where later states are not.
        """
        constants, operations = self.program.constants, self.program.operations
        operands = [edge for number in numbers for edge in enumerate(operations[number].inputs)]
        return sorted({operand for operand, slot in operands if slot not in constants})


def structure(program: Program) -> Structure:
    """Find the groups, the time steps and the carried states of a program."""
    expressions: dict[Any, list[int]] = {}
    producer: dict[int, int] = {}
    users: dict[int, list[tuple[int, int]]] = {}
    leaf = {slot: name for name, slot in program.leaves.items()}
    parts: dict[int, Any] = {slot: name for name, slot in program.leaves.items()}
    for number, equation in enumerate(program.operations):
        # Where the line is unknown, equations of equal shapes and parameters form a group.
        where: Any = equation.where or (equation.shapes, *map(leaf.get, equation.inputs))
        # `zip(x, e)` takes parts of two parameters in one expression: they are two groups.
        part_of = leaf.get(equation.inputs[0]) if equation.moved is not None else None
        # `np.array(outputs)` stacks as many values as there are steps, which may differ by call.
        what = equation.name, len(equation.inputs), equation.position, part_of, where
        expressions.setdefault(what, []).append(number)
        for operand, slot in enumerate(equation.inputs):
            users.setdefault(slot, []).append((number, operand))
        for k, slot in enumerate(equation.outputs):
            producer[slot] = number
            if part_of is not None or (equation.name == "split" and equation.inputs[0] in leaf):
                leaf[slot] = leaf[equation.inputs[0]]
                moved = None if equation.moved is None else equation.moved.tobytes()
                parts[slot] = parts[equation.inputs[0]], k, moved
    layers = find_layers(program, parts, leaf, producer)
    groups = [group for each in expressions.values() for group in split_by_layer(each, layers)]
    groups.sort()
    group_of = {number: k for k, group in enumerate(groups) for number in group}
    repeated = select_repeated(program, groups)
    lengths = Counter(map(len, repeated))
    likely = sorted(lengths, key=lambda length: (lengths[length], length), reverse=True)
    steps, step, carried = 1, dict[int, int](), tuple[tuple[int, int], ...]()
    # The likely number of steps is the commonest. Where no states are carried in so many, it may be
    # that of the sequences, whose losses have more expressions than their steps.
    for length in likely[:LENGTHS]:
        if steps < length:
            found = find_steps(program, repeated, length, users)
            links = find_carried(program, found, producer, users, group_of)
            if links or not step:
                steps, step, carried = length, found, links
            if links:
                break
    # Only the judge's own additions to the loss, such as a reshape, have no place.
    placed = any(equation.where for equation in program.operations)
    known = [group for group in groups if program.operations[group[0]].where or not placed]
    ordered = tuple(map(tuple, known))
    callers = Counter(chain[0] for chain in {each.where for each in program.operations} if chain)
    return Structure(
        program, ordered, steps, step, producer, users, carried, leaf, group_of, layers, callers
    )


def select_repeated(program: Program, groups: Sequence[list[int]]) -> list[list[int]]:
    """Select the groups of equations that are repeated with the expression that they are in.

    A function of a library may use one operation twice, as a softmax broadcasts its maximum and its
    sum. A loop repeats most operations of an expression.
    """
    lengths: dict[Any, list[int]] = {}
    for group in groups:
        lengths.setdefault(program.operations[group[0]].where, []).append(len(group))

    def is_repeated(group: Sequence[int]) -> bool:
        where = program.operations[group[0]].where
        alone = lengths[where].count(1) if where else 0
        return len(group) > 1 and 2 * alone <= len(lengths[where])

    return [group for group in groups if is_repeated(group)]


def find_steps(
    program: Program,
    groups: Sequence[Sequence[int]],
    steps: int,
    users: Mapping[int, Sequence[tuple[int, int]]],
) -> dict[int, int]:
    """Find the time step of each equation, given the number of steps."""
    # An expression whose operand at the first step is constant has no equation at that step.
    step = {
        number: k + steps - len(group)
        for group in groups
        if len(group) == steps or len(group) == steps - 1 > 1
        for k, number in enumerate(group)
    }
    return step | find_steps_of_users(program, groups, step, steps, users)


def find_steps_of_users(
    program: Program,
    groups: Sequence[Sequence[int]],
    step: Mapping[int, int],
    steps: int,
    users: Mapping[int, Sequence[tuple[int, int]]],
) -> dict[int, int]:
    """Find the steps of expressions that are constant at the first step of every sequence.

    With two sequences, whose states are zero at the beginning, `[h, x]` has no equation at two
    steps. Its step is that of the equations that read it.
    """
    found: dict[int, int] = {}
    for group in sorted(groups, key=tuple, reverse=True):
        if not 1 < len(group) < steps - 1:
            continue
        own = list[int]()
        for number in group:
            readers = [user for slot in program.operations[number].outputs
                       for user, _ in users.get(slot, ())]  # fmt: skip
            known = {step.get(user, found.get(user, -1)) for user in readers}
            own += known if len(known) == 1 and -1 not in known else ()
        if len(own) == len(group) and own == sorted(set(own)):
            found |= dict(zip(group, own, strict=True))
    return found


def find_starts(known: Structure) -> list[int]:
    """Find the steps at which sequences begin, whose states are no results of the step before."""
    into = {known.step[number] for number, _ in known.carried}
    return [t for t in range(known.steps) if t not in into] if into else [0]


def find_carried(
    program: Program,
    step: Mapping[int, int],
    producer: Mapping[int, int],
    users: Mapping[int, Sequence[tuple[int, int]]],
    group_of: Mapping[int, int],
) -> tuple[tuple[int, int], ...]:
    """Find the operands that read a value of the step before, which is not a running sum."""

    def is_accumulated(slot: int) -> bool:
        """True if the value reaches the next use of its expression through sums alone."""
        start = group_of[producer[slot]]
        while len(users.get(slot, ())) == 1:
            ((number, _),) = users[slot]
            if program.operations[number].name not in {"add", "sub"}:
                return False
            if group_of[number] == start:
                return True
            slot = program.operations[number].outputs[0]
        return False

    return tuple(
        (number, operand)
        for number in step
        for operand, slot in enumerate(program.operations[number].inputs)
        if slot in producer
        and step.get(producer[slot], number) == step[number] - 1
        and not is_accumulated(slot)
    )


def find_layers(
    program: Program,
    parts: Mapping[int, Any],
    leaf: Mapping[int, str],
    producer: Mapping[int, int],
) -> list[Any]:
    """Find the weight in each equation, or in what it reads last.

    The same expression with another weight, or another part of one, is that of another layer. Of
    two parameters in a product, the weight has fewer parts: the other holds inputs.
    """
    distinct = Counter(name for name, _ in {(leaf[slot], part) for slot, part in parts.items()})
    layers: list[Any] = []
    for equation in program.operations:
        read = [slot for slot in equation.inputs if slot in parts]
        sources = sorted((producer[s] for s in equation.inputs if s in producer), reverse=True)
        if read and equation.name in {"dot_general", "mul"}:
            layers.append(parts[min(read, key=lambda slot: distinct[leaf[slot]])])
        else:  # a broadcast bias has no layer: that of the other operand
            known = (layers[k] for k in sources if layers[k] is not None)
            layers.append(next(known, None))
    return layers


def split_by_layer(group: list[int], layers: Sequence[Any]) -> list[list[int]]:
    """Split the equations of one expression by layer, where all layers are about as long."""
    by_layer: dict[Any, list[int]] = {}
    for number in group:
        by_layer.setdefault(layers[number], []).append(number)
    lengths = {len(each) for each in by_layer.values()}
    if min(lengths) < 2 or max(lengths) > min(lengths) + 1:
        return [group]
    return [*by_layer.values()]


def find_recurrent(known: Structure) -> tuple[tuple[int, int], ...]:
    """Find the operands that carry a state through time, and not from one layer to the next."""
    return () if has_layers_as_steps(known) else known.carried


def has_layers_as_steps(known: Structure) -> bool:
    """Tell whether the steps are the layers of a network, each with parameters of its own.

    Steps in time share a parameter, or read parts of one.
    """
    whole, operations = {*known.program.leaves.values()}, known.program.operations
    own = False
    for group in known.groups:
        for slots in zip(*(operations[number].inputs for number in group), strict=False):
            names = {known.leaf.get(slot) for slot in slots}
            if len(group) > 1 and len(names) == 1 and None not in names and group[0] in known.step:
                return False
            own |= len(group) > 1 and len({*slots} & whole) == len(group)
    return own


def from_before(known: Structure, number: int, operand: int) -> bool:
    """True if an operand is the state of the step before, or contains it as a factor or part."""
    if (number, operand) in known.carried:
        return True
    source = known.producer.get(known.program.operations[number].inputs[operand])
    if source is None or known.step.get(source) != known.step.get(number):
        return False
    equation = known.program.operations[source]
    shifted = equation.name in {"add", "sub"} and len(known.active(source)) == 1
    if equation.name not in THROUGH and equation.moved is None and not shifted:
        return False
    return any(from_before(known, source, i) for i in range(len(equation.inputs)))


def is_partial_sum(known: Structure, number: int, operand: int) -> bool:
    """True if an operand of a sum is the sum of an earlier iteration."""
    source = known.producer.get(known.program.operations[number].inputs[operand], -1)
    return source >= 0 and known.group_of[source] == known.group_of[number]


def following(known: Structure, last: int | None, before: int | None) -> int | None:
    """The slot of the state one step after `last`, from the same expression."""
    number = None if last is None else known.producer.get(last)
    earlier = None if before is None else known.producer.get(before)
    for group in known.groups:
        if number is not None and number in group and earlier in {*group, None}:
            later = group[group.index(number) + 1 :]
            if later:
                return known.program.operations[later[0]].outputs[0]
    return None


def shape_of(known: Structure, slot: int) -> tuple[int, ...] | None:
    """Find the shape of a slot's value."""
    program = known.program
    if slot in program.constants:
        return tuple(program.constants[slot].shape)
    if slot in known.producer:
        equation = program.operations[known.producer[slot]]
        return tuple(equation.shapes[equation.outputs.index(slot)])
    return tuple(program.shapes[known.leaf[slot]]) if slot in known.leaf else None
