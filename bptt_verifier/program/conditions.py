"""Conditions in Python code: the tests of `if`, `while` and conditional expressions.

A condition counts if numbers can decide it, which those of `if clip is None`, `if mode == "train"`
and `if x.ndim == 1` cannot, and if it is no guard. A side that only raises an exception or prints
does not count.
"""

import ast
import linecache
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.source_lines import Place

Position = tuple[int, int]  # a line and a column, as in `ast`

# What an expression reads of a value that is no number computed from it.
OF_LAYOUT = frozenset("shape ndim size dtype itemsize nbytes strides device training".split())
OF_TYPES = frozenset("len isinstance issubclass hasattr callable type id".split())
GUARDS = frozenset("isfinite isnan isinf".split())  # calls that ask for numbers to refuse
SHOWING = frozenset("print warn warning info debug error write log".split())  # calls that only tell
NO_NUMBERS = (ast.Is, ast.IsNot, ast.In, ast.NotIn)


class Span(NamedTuple):
    """A part of a source file, from its first position to before its last."""

    first: Position
    last: Position

    def holds(self, position: Position) -> bool:
        """True if a position is in it."""
        return self.first <= position < self.last


class Condition(NamedTuple):
    """One condition: its place, its test, what runs where it is true, and what its numbers are.

    `names` are the variables that may hold numbers, each with the attributes that are read of it,
    and `flags` all variables. The `sides` are those that count. The body of one that `shares_lines`
    begins on a line of the test.
    """

    place: Place
    test: Span
    body: Span
    names: tuple[tuple[str, ...], ...]
    flags: tuple[str, ...]
    sides: tuple[bool, ...]
    shares_lines: bool


@lru_cache(maxsize=64)
def find_conditions_of(file: str, source: str) -> tuple[Condition, ...]:
    """Find the conditions of a source text that count."""
    tree = attempt(ast.parse, source)
    if isinstance(tree, Failure):
        return ()
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.If | ast.While | ast.IfExp):
            continue
        names = [*dict.fromkeys(list_numbers(node.test))]
        sides = list_sides(node)
        if not names or not sides:
            continue
        test, body = node.test, node.body if isinstance(node.body, list) else [node.body]
        end_column = (test.end_col_offset or 0) if test.end_lineno == test.lineno else 0
        flags = (each.id for each in ast.walk(test) if isinstance(each, ast.Name))
        place = Place(file, test.lineno, test.col_offset, end_column)
        shares = isinstance(node, ast.IfExp) or body[0].lineno <= (test.end_lineno or 0)
        spans = find_span(test, test), find_span(body[0], body[-1])
        found.append(Condition(place, *spans, (*names,), (*dict.fromkeys(flags),), sides, shares))
    return (*found,)


def find_conditions(file: str) -> tuple[Condition, ...]:
    """Find the conditions of a file that count; none where its source is not known."""
    return find_conditions_of(file, "".join(linecache.getlines(file)))


def find_sides(place: Place) -> tuple[bool, ...]:
    """Find the sides that count of the condition that is tested at a place; none elsewhere.

    A part of a test decides on one side alone, which is not known.
    """
    position = place.line, place.column
    every = [each for each in find_conditions(place.file) if each.test.holds(position)]
    if not every:
        return ()
    found = max(every, key=lambda each: each.test.first)  # the innermost
    is_whole = found.place[1:] == place[1:]
    return found.sides if is_whole or len(found.sides) == 2 else ()


def find_span(first: Any, last: Any) -> Span:
    """Find the part of the source from one node to the end of another."""
    return Span((first.lineno, first.col_offset), (last.end_lineno, last.end_col_offset))


def list_numbers(node: ast.expr) -> Iterator[tuple[str, ...]]:
    """List the variables of an expression that may hold numbers, each with its attributes."""
    if isinstance(node, ast.Compare):
        operands = [node.left, *node.comparators]
        constants = [each.value for each in operands if isinstance(each, ast.Constant)]
        if any(isinstance(each, NO_NUMBERS) for each in node.ops):
            return
        if any(each is None or isinstance(each, str | bool) for each in constants):
            return
    if isinstance(node, ast.Attribute | ast.Name):
        chain: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            if inner.attr in OF_LAYOUT:
                return
            chain.insert(0, inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            yield inner.id, *chain
            return
        yield from list_numbers(inner)
        return
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in OF_TYPES:
            return
        if isinstance(node.func, ast.Attribute):  # a method, of what may be numbers
            yield from list_numbers(node.func.value)
        for each in (*node.args, *(keyword.value for keyword in node.keywords)):
            yield from list_numbers(each)
        return
    if isinstance(node, ast.Subscript):  # an index decides nothing
        yield from list_numbers(node.value)
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield from list_numbers(child)


def list_sides(node: Any) -> tuple[bool, ...]:
    """List the sides of a condition that count: none of a guard, and no end of a loop."""
    for each in ast.walk(node.test):
        if isinstance(each, ast.Call) and name_call(each) in GUARDS:
            return ()
    if isinstance(node, ast.IfExp):
        return False, True
    if isinstance(node, ast.While):
        return (True,)
    if tells_only(node.body):  # and goes on as if it were not there
        return (False,) if node.orelse and not tells_only(node.orelse) else ()
    return (True,) if node.orelse and tells_only(node.orelse) else (False, True)


def tells_only(body: list[ast.stmt]) -> bool:
    """True if statements end in an exception, or only print, log or do nothing."""
    if isinstance(body[-1], ast.Raise):
        return True
    return all(
        isinstance(each, ast.Pass | ast.Assert)
        or (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
        or (
            isinstance(each, ast.Expr)
            and isinstance(each.value, ast.Call)
            and name_call(each.value) in SHOWING
        )
        for each in body
    )


def name_call(node: ast.Call) -> str:
    """Name the function or method of a call, without what it is of; empty if it has no name."""
    return getattr(node.func, "attr", "") or getattr(node.func, "id", "")
