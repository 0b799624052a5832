"""Repeated calls at the end, which show what equal calls in order do not.

A submission may be wrong from its second call on, at some calls, after an exception, for arguments
in another memory layout, where an output buffer keeps what the memory held before, or where the
parameters have changed in place or by little, as in training, and what it has kept is of the values
before.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import cycle, islice, takewhile
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.judge.raised_draws import PATIENCE
from bptt_verifier.judge.subject import Compared, Copy, Subject
from bptt_verifier.judge.submission import Breach, name_result
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import copies
from bptt_verifier.program.decisions import UntraceableError
from bptt_verifier.program.idle_calls import has_threads, interrupt_idle
from bptt_verifier.reference.case import Case
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.comparison import compare

CASES = 6  # cases that are repeated in every way, one of eight at most
MOST_ZEROS = 12  # cases with zeros in other gradients that are repeated in poisoned memory
FEW = 2  # such cases where something is wrong anyway
BEFORE, AWAY = 0.75, 0.0625  # times its values, and for zeros, before it changes in place
ALONE = 16  # parameters that change alone
FAILING = 3  # failing cases that are asked once more
RAISING = 2  # values at which the loss raises an exception, where gradients are asked for, too
RUN = 50  # calls in a row, of which one may be wrong, unless they take long
SECONDS = 1.0  # for these
POISON = (0xFF, 0x7F)  # of every byte: NaN, or a huge number, in every precision
UNWRITTEN = "unwritten-output"
HUGE = 1e30  # as no unpoisoned result is
SMALL_BLOCKS = range(8, 1025, 8)  # bytes; NumPy keeps freed blocks of each of these sizes
LARGE_BLOCKS = (2**12, 2**15)  # bytes; the allocator cuts smaller ones from these
BLOCKS = 8  # freed blocks of each size
# Another order of sums changes the rounding of a right answer, by about as much as its error. A
# change counts from eight allowed errors and eight times the error of the other answer, or more
# where the arguments are not quite the same.
BEYOND_ROUNDING = 8.0
SMALL_CHANGE = 2.0**-10  # part of the largest entry
NEARBY = 2.0**-20  # relative distance of values that are close, as to `np.allclose`
NEAR_CASES = 4  # cases whose neighbours are asked after them; two have to tell
ENOUGH = 2  # of them that follow before any is stale
MOVED = 2.0**10  # allowed errors, by which a gradient moves that tells

Ask = Callable[[Case, Copy], Compared | Breach]
DrawRaising = Callable[[Case], Iterator[Case]]


class Repetition(NamedTuple):
    """A way to repeat a call: copies of the arguments, and the finding if the result changes."""

    copy: Copy
    name: str
    change: str  # completes "your function changes the gradient for W …"
    ulps: int = 0  # by which the arguments differ from those of the first call
    on_object: bool = False  # on the object of a call before
    outside: bool = False  # after a call at values at which the loss raises an exception

    @property
    def beyond(self) -> float:
        """The change that counts, in allowed errors; each operation rounds by half an ulp."""
        return BEYOND_ROUNDING * (1 + 2 * self.ulps)


def list_poisoned(byte: int) -> Repetition:
    """The repetition with every byte of freed memory set to one value."""
    said = "with what freed memory holds (a buffer, as of np.empty, is not written everywhere)"
    return Repetition(partial(copy_and_poison, byte), UNWRITTEN, said)


def copy_and_poison(byte: int, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Copy the arguments, and leave freed blocks of these bytes to the next allocations."""
    copied = copies(arrays)
    sizes = {*SMALL_BLOCKS, *LARGE_BLOCKS, *(array.nbytes for array in copied.values())}
    blocks = [np.full(size, byte, np.uint8) for size in sizes for _ in range(BLOCKS)]
    del blocks
    return copied


def copy_in_fortran_order(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Copy the arguments, with the first axis contiguous instead of the last."""
    return {name: np.array(value, order="F") for name, value in arrays.items()}


def copy_with_strides(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Copy the arguments into every second entry of larger arrays, whose others are 1."""
    copied = {}
    for name, value in arrays.items():
        larger = np.ones([2 * size for size in value.shape], value.dtype)
        every_second: tuple[Any, ...] = (..., *[slice(None, None, 2)] * value.ndim)
        copied[name] = larger[every_second]  # an array also without axes
        copied[name][...] = value
    return copied


def copy_backwards(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Copy the arguments into views that go backwards on all axes, as x[::-1] does on one.

    As many ones are behind the entries in memory: what reads on from the first entry, as if the
    array was contiguous, reads these.
    """
    copied = {}
    for name, value in arrays.items():
        larger = np.ones(2 * value.size, value.dtype)
        forwards = larger[: value.size].reshape(value.shape)
        backwards: tuple[Any, ...] = (..., *[slice(None, None, -1)] * value.ndim)
        copied[name] = forwards[backwards]
        copied[name][...] = value
    return copied


def copy_all_but_one(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Copy the arguments, with None in the place of y or of the last one."""
    last = "y" if "y" in arrays else list(arrays)[-1]
    return copies(arrays) | {last: np.array(None)}


class HeldArrays:
    """Arrays that hold the arguments at every call, some of them at other values for a while.

    Zeros, as of biases, have other values then, too.

    The values are some ulps away from those of every other call, so that nothing is kept for equal
    ones. Arguments in another format, as where a submission takes one alone, have arrays of their
    own.
    """

    def __init__(self, arrays: Mapping[str, Array], ulps: int) -> None:
        self.arrays, self.ulps = copies(arrays), ulps

    def write(self, changed: Sequence[str], arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Write the values into the arrays that are held, other ones for those changed."""
        for name, value in arrays.items():
            if self.arrays[name].dtype != value.dtype:
                self.arrays[name] = np.empty_like(value)
            moved = move_largest(value, self.ulps)
            before = np.where(moved == 0, AWAY, BEFORE * moved) if name in changed else moved
            self.arrays[name][...] = before
        return {**self.arrays}


def move_largest(values: Array, ulps: int) -> Array:
    """Copy numbers, with the largest moved away from zero; zeros stay, which may be kinks."""
    moved = values.copy()
    if moved.any():
        largest = np.unravel_index(np.argmax(np.abs(moved)), moved.shape)
        moved[largest] *= 1 + ulps * np.finfo(moved.dtype).eps
    return moved


AGAIN = Repetition(copies, "depends-on-calls", "from one call to another")
AFTER_ERROR = AGAIN._replace(change="after a call that raised an exception")
IN_PLACE = AGAIN._replace(change="after a call with other values in the same arrays")
ON_OBJECT = AGAIN._replace(
    change="at a later call on the same object, after one with other values", on_object=True
)
LAYOUT = "depends-on-memory-layout"
LAYOUTS = (
    Repetition(copy_in_fortran_order, LAYOUT, "for arguments in Fortran order"),
    Repetition(copy_with_strides, LAYOUT, "for arguments that are strided views"),
    Repetition(copy_backwards, LAYOUT, "for arguments that are reversed views, as x[::-1] is"),
)


def no_cases(case: Case) -> Iterator[Case]:
    """Draw no values at which a loss raises an exception: no loss is known to."""
    return iter(())


def is_raised(breach: Breach) -> bool:
    """Tell whether an exception of the submission's is the breach."""
    return breach.mistake.name == "raised"


def find_dependence(
    compared: Sequence[Compared],
    ask: Ask,
    ask_on_object: Ask | None = None,
    draw_raising: DrawRaising = no_cases,
) -> tuple[Mistake | None, tuple[str, ...]]:
    """Ask for some cases again; return how a result changes, and notes on what was raised.

    `ask` calls the submission at a case, with the given copies of its arguments, and
    `ask_on_object` does so on an object that has been called before, if there is one.
    `draw_raising` draws values of a case at which the loss raises an exception.
    """
    notes: dict[str, None] = {}
    for found, repetition in draw_repetitions(compared, ask, draw_raising):
        asking = ask_on_object if repetition.on_object else ask
        if asking is None:
            continue
        again = asking(found.case, repetition.copy)
        if isinstance(again, Breach) and is_raised(again) and repetition in LAYOUTS:
            notes[f"It was not compared {repetition.change}: {again.event}."] = None
            continue
        if isinstance(again, Breach) and is_raised(again) and repetition.outside:
            said = f"After a call at values at which the loss raises an exception, {again.event}."
            notes[said] = None
            break  # it may have refused to go on
        change = describe_change(found, again, repetition)
        if change is not None and not comes_of_values(found, again, repetition, asking):
            if repetition in LAYOUTS:
                change = blame_calls(found, again, repetition, asking) or change
            return change, ()
    if compared and has_threads():
        notes["No call after an exception was tried, since your code runs threads."] = None
    return None, tuple(notes)


def blame_calls(
    first: Compared, again: Compared | Breach, repetition: Repetition, ask: Ask
) -> Mistake | None:
    """Blame the number of calls for a change in a layout, if that changes nothing once more.

    So it does if another call in the usual layout changes as well.
    """
    once_more, usual = ask(first.case, repetition.copy), ask(first.case, copies)
    by_layout = describe_change(first, once_more, repetition) is not None
    by_layout &= describe_change(first, usual, AGAIN) is None
    return None if by_layout else describe_change(first, again, AGAIN)


def find_stale(subject: Subject, compared: Sequence[Compared], ask: Ask) -> Mistake | None:
    """Find gradients that stay what they were at a call with close values.

    Each case is asked before its neighbour, since a cache may hold one result alone. Entries tell
    whose true values move by far more than they may err. Two cases have to be stale. Others may
    follow: zeros, as of biases, move by more than what `np.allclose` calls close.
    """
    found, asked = list[Mistake](), 0
    for first in compared[:: max(1, len(compared) // NEAR_CASES)][:NEAR_CASES]:
        ask(first.case, copies)
        again = ask(subject.displace(first.case, 0, NEARBY), copies)
        if isinstance(again, Breach):
            return None
        stale = [find_unmoved(first, again, name) for name in first.gradients]
        telling = [each for each in stale if each is not None]
        asked += bool(telling)
        found += [each for each in telling if isinstance(each, Mistake)][:1]
        if asked == ENOUGH and not found:
            return None
    return found[0] if len(found) > 1 else None


def find_unmoved(first: Compared, again: Compared, name: str) -> Mistake | bool | None:
    """Find an entry that does not follow the true one; False if all do, None where none tells."""
    with np.errstate(all="ignore"):
        move = again.values[name] - first.values[name]
        error = again.submitted[name] - again.values[name]
        known = first.allowed[name] + np.abs(first.submitted[name] - first.values[name])
        known = known + again.allowed[name]
        telling = np.abs(move) > MOVED * known
        stale = telling & (np.abs(error) > np.abs(move) / 2)
    if not stale.any():
        return False if telling.any() else None
    entry = tuple(map(int, np.unravel_index(np.argmax(np.abs(move) * stale), move.shape)))
    made = again.submitted[name][entry] - first.submitted[name][entry]
    where = f"entry {list(entry)}" if entry else "it"
    said = (
        f"your function changes {name_result(name)} too little at values close to those of the "
        f"call before: {where} moves by {made:.3g}, where {move[entry]:.3g} belongs. What it keeps "
        f"of a call may be used for other values than those. With {first.case.label}."
    )
    return Mistake("depends-on-calls", said, {"gradients": [name], "entry": list(entry)})


def comes_of_values(
    first: Compared, again: Compared | Breach, repetition: Repetition, ask: Ask
) -> bool:
    """Tell whether a small change comes of values that are some ulps away, not of their arrays.

    A minimiser inside takes another step then. What is kept of other values differs by more.
    """
    if not repetition.ulps or isinstance(again, Breach):
        return False
    changes = (
        np.max(np.abs(again.submitted[name] - value), initial=0.0)
        <= SMALL_CHANGE * np.max(np.abs(value), initial=0.0)
        for name, value in first.submitted.items()
    )
    if not all(changes):
        return False

    def move(arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {name: move_largest(value, repetition.ulps) for name, value in arrays.items()}

    fresh = ask(first.case, move)
    alike = not isinstance(fresh, Breach)
    return alike and describe_change(again, fresh, repetition._replace(ulps=0)) is None


def draw_repetitions(
    compared: Sequence[Compared],
    ask: Ask,
    draw_raising: DrawRaising = no_cases,
) -> Iterator[tuple[Compared, Repetition]]:
    """Choose cases and ways to repeat them, in another order than before."""
    if not compared:
        return
    wrong = [found for found in compared if found.fails]
    cases = FEW if wrong else CASES
    chosen = compared[:: max(8, -(-len(compared) // cases))]
    zeros = {key: found for found in compared if any(key := find_zeros(found))}
    for found in [*chosen, *[*zeros.values()][:MOST_ZEROS]]:
        yield from ((found, list_poisoned(byte)) for byte in POISON)
    for found in [*wrong[:FAILING], *reversed(chosen)]:
        yield found, AGAIN
    end, ran = time.monotonic() + SECONDS, len(compared) > 2 * RUN  # what is compared is called
    in_turn = islice(cycle(chosen), 0 if ran else RUN)
    yield from ((found, AGAIN) for found in takewhile(lambda _: time.monotonic() < end, in_turn))
    largest = max(compared, key=count_entries)  # code may take another path at large sizes
    for found in {id(each): each for each in [*chosen, largest]}.values():
        yield from ((found, layout) for layout in LAYOUTS)
    if not has_threads():
        first = chosen[0].case
        outside = ((each, copies) for each in islice(draw_raising(first), RAISING))
        for case, copy in ((first, copy_all_but_one), *outside):
            answer: Compared | Breach | None = None
            with suppress(UntraceableError), interrupt_idle(PATIENCE):
                answer = ask(case, copy)
            raised = answer is None or (isinstance(answer, Breach) and is_raised(answer))
            way = AFTER_ERROR if raised else AGAIN
            yield chosen[0], way._replace(outside=case is not first)
    for ulps, (found, changes) in enumerate(list_changes(chosen), 1):
        held = HeldArrays(found.case.arguments, ulps)
        for changed in changes:
            ask(found.case, partial(held.write, changed))  # whatever comes of it
        yield found, IN_PLACE._replace(copy=partial(held.write, ()), ulps=ulps)
    yield from ((found, ON_OBJECT) for found in chosen)


def count_entries(found: Compared) -> int:
    """Count the entries of all arguments of a case."""
    return sum(value.size for value in found.case.arguments.values())


def list_changes(chosen: Sequence[Compared]) -> Iterator[tuple[Compared, list[list[str]]]]:
    """List cases with the parameters that have other values in the calls before: all, or then one.

    What is kept for the same arrays, or for the same values of some, even with what is kept for all
    values before, is stale where others change.
    Where calls take long, not all parameters change alone.
    """
    names = [[n for n in found.gradients if n in found.case.arguments] for found in chosen]
    yield from ((found, [every]) for found, every in zip(chosen, names, strict=True))
    end = time.monotonic() + SECONDS
    alone = ((chosen[0], [names[0], [name]]) for name in names[0][:ALONE])
    yield from takewhile(lambda _: time.monotonic() < end, alone)


def find_zeros(found: Compared) -> tuple[int, ...]:
    """Tell of each true gradient whether no, some or all entries are zero, as 0, 1 or 2.

    A submission may leave zeros unwritten.
    """
    zeros = [found.values[name] == 0 for name in found.gradients]
    return tuple(int(each.any()) + int(each.all()) for each in zeros)


def describe_change(
    first: Compared, again: Compared | Breach, repetition: Repetition
) -> Mistake | None:
    """Describe how a result differs from that of the first call, beyond what rounding explains."""
    poisoned = repetition.name == UNWRITTEN
    if isinstance(again, Breach):
        if poisoned and again.mistake.name != "not-finite":
            return None  # which the next repetitions show
        said = f"Called again, {again.event}."
        return make_finding("its result", repetition, first.case, said, again.mistake.details)
    before = {comparison.name: comparison for comparison in first.comparisons}
    for name, value in again.submitted.items():
        if name not in before:
            continue
        after = compare(name, value, first.values[name], first.allowed[name])
        if poisoned and abs(after.yours) < HUGE:
            continue
        right, wrong = sorted((before[name], after), key=lambda each: each.error)
        if wrong.error > repetition.beyond * max(1.0, right.error):
            values = [float(found.submitted[name][wrong.entry]) for found in (first, again)]
            where = f"entry {list(wrong.entry)}" if wrong.entry else "it"
            said = f"At first, {where} was {values[0]:.9g}, and then {values[1]:.9g}."
            details = {"gradients": [name], "entry": list(wrong.entry)}
            return make_finding(name_result(name), repetition, first.case, said, details)
    return None


def make_finding(
    result: str, repetition: Repetition, case: Case, said: str, details: dict[str, Any]
) -> Mistake:
    """Make the finding that a result changes between two calls with the same values."""
    same = f"values within {repetition.ulps} ulps" if repetition.ulps else "the same values"
    start = f"your function changes {result} {repetition.change}, for {same} of all"
    return Mistake(repetition.name, f"{start} arguments. {said} With {case.label}.", details)
