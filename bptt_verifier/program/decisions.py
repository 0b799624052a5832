"""Decisions of a loss by values: an `if` on a traced number, a mask that selects entries.

A traced loss follows the branch that is taken at the point at hand. Another point takes the same
path through the code if it gives the same outcomes.
"""

import logging
import opcode
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from bptt_verifier.program.source_lines import Place, is_of_user, place_of_frame
from bptt_verifier.tolerance.comparison import Array

# Beyond this, tracing and evaluating it on every path takes minutes, and differences are faster.
OPERATIONS, SECONDS = 10_000, 10.0
REMAINDER = 6  # the argument of the instruction BINARY_OP for %


class UntraceableError(BaseException):
    """The reason why the user's code cannot be traced.

    It is no Exception, so that an `except Exception` in that code does not catch it.
    `place` is the expression of the user's code, if it is known.
    """

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.place = find_place()


class Decisions:
    """The decisions of one trace: traced values, and their outcomes at the point at hand."""

    def __init__(self, longer: int = 1) -> None:
        """Collect decisions; a trace that is `longer` may have that many times the operations."""
        self.most, self.limit = longer * OPERATIONS, longer * SECONDS
        self.operations, self.start = 0, 0.0
        self.values: list[Any] = []
        self.outcomes: list[Array] = []
        self.places: list[Place | None] = []
        self.comparisons: dict[Any, Any] = {}

    def count_operation(self) -> None:
        """Count an operation. Raises UntraceableError where a trace becomes too long."""
        # What imports PyTorch's tracer comes before the first, and other processes do not count.
        self.start = self.start if self.operations else time.thread_time()
        self.operations += 1
        if self.operations > self.most or time.thread_time() - self.start > self.limit:
            raise UntraceableError(f"its trace has too many operations, {self.operations} so far")

    def note(self, value: Any, outcome: Any) -> Any:
        """Note a traced value on which the path depends, with its outcome; return the outcome."""
        self.values.append(value)
        self.outcomes.append(np.array(outcome))
        self.places.append(find_place())
        return outcome


CURRENT: ContextVar[Decisions] = ContextVar("CURRENT")


def find_trace_limit() -> float:
    """Find the processor time, in seconds, that the trace being made may take; 0 without one."""
    decisions = CURRENT.get(None)
    return 0.0 if decisions is None else decisions.limit


@contextmanager
def note_decisions(decisions: Decisions | None = None) -> Iterator[Decisions]:
    """Collect the decisions of one trace, in these if they are given."""
    token = CURRENT.set(decisions := decisions or Decisions())
    try:
        yield decisions
    finally:
        CURRENT.reset(token)


def find_frame() -> Any:
    """Find the innermost frame of the user's code, or None."""
    frame: Any = sys._getframe(1)
    while frame is not None and not is_of_user(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def find_place() -> Place | None:
    """Find the expression of the user's code that is being evaluated."""
    frame = find_frame()
    return None if frame is None else place_of_frame(frame)


def is_formatting() -> bool:
    """True if the user's code evaluates an expression such as `"%f" % number`, or logs a number."""
    inner: Any = sys._getframe(1)
    while inner is not None and not is_of_user(inner.f_code.co_filename):
        if inner.f_globals.get("__name__") == logging.__name__:
            return True
        inner = inner.f_back
    frame = find_frame()
    if frame is None or frame.f_lasti < 0:
        return False
    code, operation = frame.f_code.co_code, frame.f_lasti
    instruction = opcode.opname[code[operation]], code[operation + 1]
    return instruction == ("BINARY_OP", REMAINDER)
