"""Lines of the user's code that its calls execute, and the branches that no call takes.

A trace function of Python notes each step from one line of a function to the next. The two sides of
an `if` are two such steps, unless its body stands on the same line.
"""

import ast
import linecache
import os
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from types import CodeType, FrameType
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.own_results import SHOWN
from bptt_verifier.program.source_lines import Place, is_of_user
from bptt_verifier.program.torch_tensors import to_array

LISTED = 5  # branches in a sentence
SECONDS = 3.0  # for calls that are watched; beyond, nothing is said about branches
# The branches of a library are not the user's to try.
INSTALLED = tuple(sysconfig.get_paths()[name] + os.sep for name in ("purelib", "platlib"))
Steps = set[tuple[int, int]]  # from one line to another, or to 0: the function returns


class ExecutedLines:
    """The steps from line to line of the user's functions, in the calls of one of them."""

    def __init__(self) -> None:
        self.steps: dict[CodeType, Steps | None] = {}  # None of code that is not the user's
        self.left, self.complete = SECONDS, True

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Make a function that notes the steps of its calls."""

        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            if self.left <= 0 or sys.gettrace() is not None:  # a debugger has the trace function
                self.complete = False
                return function(*arguments, **named)
            start = time.process_time()
            sys.settrace(self.enter)
            try:
                return function(*arguments, **named)
            finally:
                sys.settrace(None)
                self.left -= time.process_time() - start

        return call

    def enter(self, frame: FrameType, event: str, _: Any) -> Any:
        """Choose whether the steps of a frame are noted."""
        code = frame.f_code
        if code not in self.steps:
            file = code.co_filename
            noted = is_of_user(file) and not file.startswith(INSTALLED)
            self.steps[code] = set() if noted else None
        steps, last = self.steps[code], frame.f_lineno
        if steps is None:
            return None

        def step(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal last
            if event == "line":
                steps.add((last, frame.f_lineno))
                last = frame.f_lineno
            elif event == "return":
                steps.add((last, 0))
            return step

        return step

    def list_untaken(self) -> list[str]:
        """List the branches that no call takes, with their places; none if not all were watched."""
        by_file: dict[str, Steps] = {}
        for code, steps in self.steps.items():
            by_file.setdefault(code.co_filename, set()).update(steps or ())
        if not self.complete:
            return []
        return [said for file, steps in by_file.items() for said in find_untaken(file, steps)]


def find_untaken(file: str, steps: Steps) -> Iterator[str]:
    """Find the conditions and loops of a file that were reached, and always went the same way."""
    tree = attempt(ast.parse, "".join(linecache.getlines(file)))
    for node in () if isinstance(tree, Failure) else ast.walk(tree):
        if not isinstance(node, ast.If | ast.While | ast.For):
            continue
        head = node.iter if isinstance(node, ast.For) else node.test
        lines = range(node.lineno, (head.end_lineno or head.lineno) + 1)
        body = range(node.body[0].lineno, (node.body[-1].end_lineno or 0) + 1)
        ways = {after in body for before, after in steps if before in lines and after not in lines}
        if body.start in lines or len(ways) != 1 or is_constant(head):
            continue
        place = Place(file, head.lineno, head.col_offset, find_end(head))
        if isinstance(node, ast.If) or (isinstance(node, ast.While) and ways == {False}):
            yield f"`{place.expression}` ({place}) is {'always' if True in ways else 'never'} true"
        elif isinstance(node, ast.For) and ways == {False}:
            yield f"the loop over `{place.expression}` ({place}) makes no step"


def is_constant(node: ast.expr) -> bool:
    """True if no data change an expression, such as `True`, `[]` or `range(0)`."""
    called = [each.func for each in ast.walk(node) if isinstance(each, ast.Call)]
    names = [each for each in ast.walk(node) if isinstance(each, ast.Name)]
    return all(each in called and each.id == "range" for each in names)


def find_end(node: ast.expr) -> int:
    """Find the column where an expression ends; 0 where it goes on in another line."""
    return (node.end_col_offset or 0) if node.end_lineno == node.lineno else 0


def describe_data(data: Mapping[str, Any], lines: ExecutedLines) -> tuple[str, ...]:
    """Describe what the data of the user's code, the same in every case, leave untried."""
    notes, untaken = list[str](), lines.list_untaken()
    if data:
        names = ", ".join([*data][:SHOWN])
        notes.append(f"Only the parameters vary: every case has the same data, {names}.")
    if untaken:
        more = f"; and {len(untaken) - LISTED} more" if len(untaken) > LISTED else ""
        listed = "; ".join(untaken[:LISTED])
        notes.append(
            f"A mistake in a branch that these data never take is not seen: {listed}{more}."
        )
    uniform = [
        f"{name} ({values.flat[0]:g})"
        for name, values in ((name, np.asarray(to_array(value))) for name, value in data.items())
        if values.size > 1 and (values == values.flat[0]).all()
    ]
    if uniform:
        listed = ", ".join(uniform[:SHOWN])
        notes.append(f"The same number everywhere, which may hide a mistake: {listed}.")
    return tuple(notes)
