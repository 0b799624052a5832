"""Iterations of a loss to a fixed point, and how far from it they end.

The implicit function theorem differentiates the fixed point, and autodiff the steps to it: both are
the same to rounding where the iteration has converged, and only there. As many steps again show how
far that is (docs/derivation.md, section 10, (N12)).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import backward
from bptt_verifier.program.operations import Operation
from bptt_verifier.program.rounding import is_inexact
from bptt_verifier.program.source_lines import Place
from bptt_verifier.program.trace import UNROLLED, Params, Program, forward

LONG = 3  # steps of an iteration that should have converged, at least
# The last step of an iteration that converges moves what is read of it by at most this part of the
# largest value that it has had.
NEAR = 2.0**-4


class Iteration(NamedTuple):
    """A run of operations, from `start` to `end`, that repeats one step of `period` operations."""

    start: int
    end: int
    period: int

    @property
    def steps(self) -> int:
        """The number of whole steps."""
        return (self.end - self.start) // self.period


class Limit(NamedTuple):
    """The gradients of the fixed points of iterations, as many as there are.

    The last values are `apart` from the fixed points by this part of their largest entries, and
    values of the last step that the loss does not read by `inside`, if they converge. Where one of
    several steps has not converged, `converged` is false, and there are no gradients. A loop that
    ends `by_decision`, as of a tolerance, is meant to converge.
    """

    converged: bool
    gradients: dict[str, Array]
    apart: float = 0.0
    by_decision: bool = False
    inside: float = 0.0


class Dataflow(NamedTuple):
    """What each operation does and reads: equal ones have equal kinds, equal values equal names."""

    kinds: Array
    named: dict[int, Any]
    producer: dict[int, int]

    def are_same(self, one: int, other: int) -> bool:
        """Tell whether two slots are one, or constants of the same numbers."""
        return bool(self.named.get(one, one) == self.named.get(other, other))

    def reads_again(self, program: Program, number: int, period: int, operand: int) -> bool:
        """Tell whether an operation's operand is that of the next step, too."""
        later = number + period
        if later >= len(self.kinds) or self.kinds[later] != self.kinds[number]:
            return False
        operations = program.operations
        return self.are_same(operations[number].inputs[operand], operations[later].inputs[operand])


def follow_flow(program: Program) -> Dataflow:
    """Number what each operation does, and where it stands; name constants by what they hold."""
    known = dict[Any, int]()
    kinds = [known.setdefault(describe(each), len(known)) for each in program.operations]
    named = {
        slot: (value.shape, value.dtype.str, value.tobytes())
        for slot, value in program.constants.items()
        if isinstance(value, np.ndarray)
    }
    producer = {s: n for n, each in enumerate(program.operations) for s in each.outputs}
    return Dataflow(np.array(kinds, int), named, producer)


def describe(operation: Operation) -> Any:
    """Describe what an operation does to its operands, by its plain options and its moves."""
    plain = {n: v for n, v in operation.params.items() if isinstance(v, int | float | str | tuple)}
    moved = None if operation.moved is None else operation.moved.tobytes()
    what = operation.name, len(operation.inputs), repr(plain), moved, operation.shapes
    return *what, operation.where, operation.position


def find_iterations(program: Program) -> list[Iteration]:
    """Find the runs of operations that repeat one step on what they computed, short ones first.

    A loop over data reads other numbers at each step: it is none of these.
    """
    flow, found = follow_flow(program), list[Iteration]()
    for period in sorted(list_periods(flow.kinds)):
        for start, end in find_runs(flow.kinds[period:] == flow.kinds[:-period], period):
            found += follow_steps(program, flow, period, start, end)
    return found


def list_periods(kinds: Array) -> set[int]:
    """List the distances between operations of one kind."""
    order = np.argsort(kinds, kind="stable")
    same = np.diff(kinds[order]) == 0
    return {*np.diff(order)[same].tolist()}


def find_runs(repeats: Sequence[Any] | Array, least: int) -> Iterator[tuple[int, int]]:
    """Find where at least so many in a row are true."""
    padded = np.concatenate([[False], np.asarray(repeats, bool), [False]])
    ends = np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2)
    return ((start, end) for start, end in ends.tolist() if end - start >= least)


SAME, STARTING, OTHER = range(3)


def follow_steps(
    program: Program, flow: Dataflow, period: int, start: int, end: int
) -> Iterator[Iteration]:
    """Follow what a run of the same kinds of operations reads, and keep where that is the same."""
    reads = [compare_operands(program, flow, k, period) for k in range(start, end)]
    done = 0
    for first, last in find_runs([each != OTHER for each in reads], period):
        # Only the first step may read what no step before it has computed.
        starting = [k for k in range(first, last) if reads[k] == STARTING]
        begin = max([first + start, done, *(k + start - period + 1 for k in starting[-1:])])
        found = Iteration(begin, last + start + period, period)
        if last + start - begin >= period and reads_itself(program, flow, found):
            done = found.end
            yield found


def reads_itself(program: Program, flow: Dataflow, each: Iteration) -> bool:
    """Tell whether what differs between the last two steps was computed by the run itself.

    A loop over the states of another one, whose steps are as long, reads each at the same distance.
    """
    operations, last = program.operations, range(each.end - each.period, each.end)
    pairs = ((operations[k - each.period].inputs, operations[k].inputs) for k in last)
    return all(
        flow.are_same(before, after) or flow.producer[after] >= each.start
        for one, other in pairs
        for before, after in zip(one, other, strict=True)
    )


def compare_operands(program: Program, flow: Dataflow, number: int, period: int) -> int:
    """Compare what an operation reads with what that of the next step reads."""
    found, operations = SAME, program.operations
    one, other = operations[number].inputs, operations[number + period].inputs
    for operand, (before, after) in enumerate(zip(one, other, strict=True)):
        if flow.are_same(before, after):
            continue
        source, later = flow.producer.get(before, -1), flow.producer.get(after, -1)
        if source >= 0 and later == source + period:
            continue
        if later < number or flow.reads_again(program, number + period, period, operand):
            return OTHER  # such as the state that another run begins with
        found = STARTING
    return found


def find_place(program: Program, each: Iteration) -> tuple[Place, ...]:
    """Find the line at which the last step of an iteration ends, and the calls that lead to it."""
    (read,) = list_read(program, [each])
    producer = {s: operation for operation in program.operations for s in operation.outputs}
    return producer[read[-1][0]].where if read else ()


def find_limit(program: Program, iterations: Sequence[Iteration], params: Params) -> Limit:
    """Find the gradients where all iterations of a loss have reached their fixed points.

    Those inside of others come first: where they converge, what repeats them is no iteration. One
    that does not may be a part of a step that does.
    """
    values, read = forward(program, params), list_read(program, iterations)
    chosen, far = list[Iteration](), list[Iteration]()
    for each, slots in zip(iterations, read, strict=True):
        if not slots or any(overlap(each, other) for other in chosen):
            continue
        if all(is_near([values[slot] for slot in steps]) for steps in slots):
            chosen.append(each)
        elif each.steps >= LONG and not any(contains(each, other) for other in iterations):
            far.append(each)
    if any(not any(contains(other, each) for other in chosen) for each in far):
        return Limit(False, {})
    if not chosen:
        # One that only decides may have ended without what it looked for.
        unread = (each for each, slots in zip(iterations, read, strict=True) if not slots)
        return Limit(not any(each.steps >= LONG for each in unread), {})
    every = [steps for each in chosen for steps in read[iterations.index(each)]]
    ends = {steps[0] for steps in every}
    kept = {steps[1]: steps[0] for steps in every if steps[0] in steps[1:]}
    for most in list_numbers(max(each.steps for each in chosen)):
        continued, later = continue_iterations(program, chosen, most, kept)
        moved = forward(continued, params)
        if all(np.isfinite(moved[later[slot]]).all() for slot in ends):
            break  # a secant through two equal points has no slope
    apart = max(find_change(moved[later[slot]], values[slot]) for slot in ends)
    carried = (slot for each in chosen for slot in list_carried(program, each))
    changes = [find_change(moved[later[slot]], values[slot]) for slot in carried]
    inside = max((each for each in changes if each <= NEAR), default=0.0)
    gradients = {name: value[0] for name, value in backward(continued, moved).items()}
    return Limit(True, gradients, apart, inside=inside)


def list_carried(program: Program, each: Iteration) -> Iterator[int]:
    """List the slots of an iteration's last step that a further one would read."""
    operations, last = program.operations, range(each.end - each.period, each.end)
    read = {slot for number in last for slot in operations[number].inputs}
    for number in last:
        before, after = operations[number - each.period], operations[number]
        for one, other, dtype in zip(before.outputs, after.outputs, after.dtypes, strict=True):
            if one in read and is_inexact(dtype):
                yield other


def list_numbers(steps: int) -> list[int]:
    """List numbers of further steps: as many as there are, half of them, and so on down to one."""
    return [steps >> k for k in range(steps.bit_length())]


def overlap(one: Iteration, other: Iteration) -> bool:
    """Tell whether two runs share operations."""
    return one.start < other.end and other.start < one.end


def contains(one: Iteration, other: Iteration) -> bool:
    """Tell whether the steps of one run contain another run, or parts of it."""
    return one.period > other.period and overlap(one, other)


def list_read(program: Program, iterations: Sequence[Iteration]) -> list[list[list[int]]]:
    """List the slots of each iteration that are read after it, with those of its other steps.

    What is read comes first, then the last step and those before. It is the result of the last
    step, or of one alone: a loss may keep the best. Numbers that are counted or compared do not
    converge.
    """
    operations = program.operations
    last = {slot: n for n, each in enumerate(operations) for slot in each.inputs}
    last[program.result] = len(operations)
    found = list[list[list[int]]]()
    for each in iterations:
        found.append([])
        for number in range(each.end - each.period, each.end):
            steps = range(number, each.start - 1, -each.period)
            for k, dtype in enumerate(operations[number].dtypes):
                slots = [operations[at].outputs[k] for at in steps]
                read = [slot for slot in slots if last.get(slot, -1) >= each.end]
                if read and is_inexact(dtype) and (read[0] == slots[0] or len(read) == 1):
                    found[-1].append(slots if read[0] == slots[0] else [*read, *slots])
    return found


def is_near(steps: Sequence[Any]) -> bool:
    """Tell whether the last two of these values, the last one first, are nearly the same."""
    largest = max(np.max(np.abs(value), initial=0.0) for value in steps)
    with np.errstate(invalid="ignore"):
        return bool(np.max(np.abs(steps[0] - steps[1]), initial=0.0) <= NEAR * largest < np.inf)


def find_change(value: Any, before: Any) -> float:
    """Find the largest change of a value, relative to its largest entry."""
    with np.errstate(all="ignore"):
        change = np.max(np.abs(value - before), initial=0.0)
        return float(change / np.max(np.abs(value), initial=0.0)) if change else 0.0


def continue_iterations(
    program: Program,
    iterations: Sequence[Iteration],
    most: int,
    kept: Mapping[int, int] | None = None,
) -> tuple[Program, dict[int, int]]:
    """Repeat the last step of iterations before their values are read.

    It is repeated as often as an iteration has steps, and no more often than `most`. Also returns
    the slot in the longer program of each value of a last step, and of those that are `kept` in its
    place, each by that of the last step.
    """
    flow, operations, used = follow_flow(program), list[Operation](), program.slots
    renamed, ends = dict[int, int](), {each.end: each for each in iterations}
    for number in range(len(program.operations) + 1):
        if number in ends:
            added, last = repeat_last_step(program, flow, ends[number], renamed, used, most)
            operations += added
            used += sum(len(each.outputs) for each in added)
            renamed |= last
            renamed |= {slot: last[of] for of, slot in (kept or {}).items() if of in last}
        if number < len(program.operations):
            operation = program.operations[number]
            inputs = tuple(renamed.get(slot, slot) for slot in operation.inputs)
            operations.append(operation._replace(inputs=inputs))
    result = renamed.get(program.result, program.result)
    return program._replace(operations=tuple(operations), result=result, slots=used), renamed


def repeat_last_step(
    program: Program,
    flow: Dataflow,
    each: Iteration,
    renamed: Mapping[int, int],
    used: int,
    most: int,
) -> tuple[list[Operation], dict[int, int]]:
    """Repeat the last step of an iteration; also returns the last slots by those of the last step.

    What differs between the last two steps was computed by the iteration, and moves on by a step.
    So does an entry that a mask keeps as it was, such as one of a row that has converged before
    others.
    """
    operations, period, added = program.operations, each.period, list[Operation]()
    slots = {number: operations[number].outputs for number in range(each.end)}
    times = min(each.steps, most, max(1, UNROLLED // period))
    for number in range(each.end, each.end + times * period):
        model = each.end - period + (number - each.end) % period
        inputs = list[int]()
        operands = operations[model - period].inputs, operations[model].inputs
        for before, slot in zip(*operands, strict=True):
            if flow.are_same(before, slot):
                inputs.append(renamed.get(slot, slot))
            else:
                source = flow.producer[slot]
                output = operations[source].outputs.index(slot)
                inputs.append(slots[source + number - model][output])
        keeps = operations[model - period].outputs[0]
        if operations[model].name == "select_n" and keeps in operations[model].inputs[1:]:
            new = [n for n, slot in enumerate(operations[model].inputs) if n and slot != keeps]
            inputs = [inputs[0], *[inputs[new[0] if new else 1]] * (len(inputs) - 1)]
        outputs = operations[model].outputs
        slots[number] = tuple(range(used, used + len(outputs)))
        used += len(outputs)
        added.append(operations[model]._replace(inputs=tuple(inputs), outputs=slots[number]))
    last = {
        slot: new
        for number in range(each.end - period, each.end)
        for slot, new in zip(
            operations[number].outputs, slots[number + times * period], strict=True
        )
    }
    return added, last
