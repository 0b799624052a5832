"""Sides of conditions that the calls of a function take, of the user's own code alone.

A trace function of Python sees which lines follow the test of a condition, or which instructions
where both stand on one line. A function is traced as long as one of its conditions has a side that
no call has taken. A condition is about data if it reads numbers that differ from call to call.
"""

import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from functools import update_wrapper
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.conditions import Condition, find_conditions
from bptt_verifier.program.source_lines import is_of_user
from bptt_verifier.program.torch_tensors import to_array

WATCHED = "bptt_watches_lines"  # an attribute of functions whose calls are watched
EVENTS = 2_000_000  # of the trace function, in some seconds; beyond, nothing is said
LOOKS = 64  # at the numbers of a condition, until they have differed
ENTRIES, ITEMS, DEPTH = 256, 16, 2  # of arrays, and of structures of them, that are compared
LISTED = 5  # branches in a sentence
SIDES = {False: "the condition is false", True: "the condition is true"}
# The branches of a library are not the user's to try.
INSTALLED = tuple(sysconfig.get_paths()[name] + os.sep for name in ("purelib", "platlib"))


class Traced(NamedTuple):
    """The conditions of a function, and where each is tested or true: lines, or instructions."""

    conditions: tuple[Condition, ...]
    by_instruction: bool
    tests: dict[int, frozenset[int]]  # the numbers of the conditions that are being tested
    bodies: tuple[frozenset[int], ...]
    placed: frozenset[int]  # instructions that have a place in the source


class TakenSides:
    """The sides that calls take of each condition, and whether the condition is about data."""

    def __init__(self) -> None:
        self.codes: dict[CodeType, Traced | None] = {}  # None of code without such conditions
        self.taken: dict[Condition, set[bool]] = {}
        self.looks: dict[Condition, list[bytes]] = {}  # the numbers that it read at first
        self.differing, self.flagged = set[Condition](), set[Condition]()
        self.events, self.calls, self.complete = 0, 0, True

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Make a function that notes the sides that its calls take; one that is watched stays."""
        if attempt(getattr, function, WATCHED, False) is True:
            return function

        def call(*arguments: Any, **named: Any) -> Any:
            tracing = sys.gettrace()
            if not self.is_open() or tracing is not None:
                self.complete &= not self.is_open() or tracing == self.enter  # or a debugger's
                return function(*arguments, **named)
            self.calls += 1
            of_threads: Any = threading.gettrace()
            sys.settrace(self.enter)
            threading.settrace(self.enter)
            try:
                return function(*arguments, **named)
            finally:
                sys.settrace(None)
                threading.settrace(of_threads)

        attempt(update_wrapper, call, function)  # an object may raise where it is asked for a name
        return call

    def is_open(self) -> bool:
        """True if a side may still be taken that no call has taken, as far as is known."""
        return self.complete and (self.calls < 2 or bool([*self.list_open()]))

    def list_open(self) -> Iterator[Condition]:
        """List the conditions that were reached and have a side that no call has taken."""
        return (each for each, sides in self.taken.items() if len(sides) < 2)

    def enter(self, frame: FrameType, event: str, _: Any) -> Any:
        """Choose whether the steps of a frame are noted."""
        self.events += 1
        code = frame.f_code
        if code not in self.codes:
            self.codes[code] = prepare(code)
        traced = self.codes[code]
        if traced is None or not self.complete:
            return None
        if all(len(self.taken.get(each, ())) == 2 for each in traced.conditions):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = (
            traced.by_instruction,
            not traced.by_instruction,
        )
        return self.follow(traced)

    def follow(self, traced: Traced) -> Callable[[FrameType, str, Any], Any]:
        """Make the trace function of one frame."""
        last: frozenset[int] = frozenset()
        wanted = "opcode" if traced.by_instruction else "line"

        def step(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal last
            self.events += 1
            if self.events > EVENTS:
                self.complete = False
                return None
            if event != wanted:
                return step
            at = frame.f_lasti if traced.by_instruction else frame.f_lineno
            if traced.by_instruction and at not in traced.placed:
                return step
            now = traced.tests.get(at, frozenset())
            for each in last - now:
                self.taken[traced.conditions[each]].add(at in traced.bodies[each])
            for each in now - last:
                condition = traced.conditions[each]
                self.taken.setdefault(condition, set())
                self.look(condition, frame)
            last = now
            return step

        return step

    def look(self, condition: Condition, frame: FrameType) -> None:
        """Look at the numbers that a condition reads, until they have differed."""
        seen = self.looks.setdefault(condition, [])
        if condition in self.differing or condition in self.flagged or len(seen) >= LOOKS:
            return
        space = frame.f_globals | frame.f_locals
        if any(space.get(name, 0) is None or isinstance(space.get(name), bool)
               for name in condition.flags):  # fmt: skip
            self.flagged.add(condition)
        here = b"".join(digest(find_value(space, *chain)) for chain in condition.names)
        seen.append(here if not seen else b"")
        if here != seen[0]:
            self.differing.add(condition)

    def list_untaken(self) -> list[str]:
        """List the sides that no call has taken, of conditions about data, with their places."""
        if not self.complete:
            return []
        return [
            f"`{each.place.expression}` ({each.place}): {SIDES[not side]}"
            for each in self.list_open()
            if each in self.differing and each not in self.flagged
            for side in self.taken[each]
            if (not side) in each.sides
        ]

    def describe(self, what: str) -> list[str]:
        """Describe the branches of the loss, or of the gradients, that no call has taken."""
        untaken = self.list_untaken()
        if not untaken:
            return []
        more = f", and {len(untaken) - LISTED} more" if len(untaken) > LISTED else ""
        listed = "; ".join(untaken[:LISTED])
        return [f"No case takes these branches of {what}: {listed}{more}."]


def prepare(code: CodeType) -> Traced | None:
    """Find the conditions of a function, and where they are; None without any of the user's."""
    file = code.co_filename
    if not is_of_user(file) or file.startswith(INSTALLED):
        return None
    every = find_conditions(file)
    places = list(code.co_positions()) if every else []
    starts = {2 * k: (line, column) for k, (line, _, column, _) in enumerate(places)
              if line is not None and column is not None}  # fmt: skip
    held = [each for each in every if any(each.test.holds(at) for at in starts.values())]
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    own = tuple(each for each in held if not any(is_within(each, part) for part in inner))
    if not own:
        return None
    by_instruction = any(each.shares_lines for each in own)
    if by_instruction:
        spots = starts
    else:
        spots = {line: (line, 0) for line, *_ in places if line is not None}
    tests, bodies = dict[int, frozenset[int]](), list[frozenset[int]]()
    for number, each in enumerate(own):
        for at, position in spots.items():
            if holds(each.test, position, by_instruction):
                tests[at] = tests.get(at, frozenset()) | {number}
        bodies.append(frozenset(a for a, p in spots.items() if holds(each.body, p, by_instruction)))
    return Traced(own, by_instruction, tests, (*bodies,), frozenset(starts))


def holds(span: Any, position: tuple[int, int], by_instruction: bool) -> bool:
    """True if an instruction is in a part of the source, or if the part has its line."""
    if by_instruction:
        return bool(span.holds(position))
    return bool(span.first[0] <= position[0] <= span.last[0])


def is_within(condition: Condition, code: CodeType) -> bool:
    """True if a condition is tested in an inner function."""
    if code.co_filename != condition.place.file:
        return False
    lines = [line for *_, line in code.co_lines() if line is not None]
    if not lines or not min(lines) <= condition.place.line <= max(lines):
        return False
    starts = ((line, column) for line, _, column, _ in code.co_positions())
    return any(None not in at and condition.test.holds(at) for at in starts)  # type: ignore[arg-type]


def find_value(space: dict[str, Any], name: str, *attributes: str) -> Any:
    """Find the value of a variable, or of an attribute of it; None where that would run code."""
    value = space.get(name)
    for each in attributes:
        fields = getattr(type(value), "_fields", ())
        if isinstance(value, tuple) and each in fields:
            value = value[fields.index(each)]
        elif isinstance(getattr(value, "__dict__", None), dict) and each in value.__dict__:
            value = value.__dict__[each]
        else:
            break  # a method, or a property: what it is of has the numbers
    return value


def digest(value: Any, depth: int = 0) -> bytes:
    """Digest the floats and truth values in a number, an array, or a structure; else empty."""
    if isinstance(value, float | np.floating | np.bool_):
        return repr(value).encode()
    if isinstance(value, dict | list | tuple):
        items = [*(value.values() if isinstance(value, dict) else value)][:ITEMS]
        return b"".join(digest(each, depth + 1) for each in items) if depth < DEPTH else b""
    if value is None or not hasattr(value, "dtype"):
        return b""
    array = attempt(lambda: np.asarray(to_array(value)))
    if isinstance(array, Failure) or array.dtype.kind not in "fcb":
        return b""
    return bytes(np.ascontiguousarray(array.ravel()[:ENTRIES]).tobytes())
