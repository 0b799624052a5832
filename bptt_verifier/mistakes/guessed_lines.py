"""The line of a submission that a mistake is probably in: where its first wrong values arise.

Where no expression computes a wrong term of its own, as where a term is left out, the place to
look at lies between the last right values and the first wrong ones. It is found by its numbers,
and is a guess; where several lines are possible, all are listed.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.backward_lines import TELLING, find_place
from bptt_verifier.mistakes.expressions import find_target
from bptt_verifier.mistakes.first_wrong_values import Traces, is_same
from bptt_verifier.mistakes.operation_mistakes import Changes
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import is_scale, sweep_back
from bptt_verifier.program.recording import Recorded
from bptt_verifier.program.source_lines import Place
from bptt_verifier.program.structure import Structure

GUESS = "A guess: look at"  # how the sentence begins
LINES = 3  # lines that a guess lists, at most
LONGEST = 70  # characters of an expression that a guess quotes, at most


class Guess(NamedTuple):
    """The expressions that a mistake may be in, in order, and what the only one computes."""

    places: tuple[Place, ...]
    what: str

    def __str__(self) -> str:
        *others, last = (f"`{shorten(p.expression)}` ({p.at_column})" for p in self.places)
        shown = f"{', '.join(others)} or {last}" if others else last
        if len(self.places) > 1:
            why = "the mistake is probably in one of them"
            return f"{GUESS} {shown} of your backward pass: {why}."
        return f"{GUESS} {shown} of your backward pass, which computes {self.what}."

    @property
    def writes_entries(self) -> bool:
        """Tell whether every line writes entries of an array, as `d[i] += g` does."""
        return all(writes_entries(place.text) for place in self.places)

    @property
    def details(self) -> dict[str, Any]:
        """The first place as the details of a mistake have it, and the other ones."""
        found = [
            {
                "file_line": str(place),
                "column": place.first_column,
                "expression": place.expression,
            }
            for place in self.places
        ]
        return found[0] | ({"alternatives": found[1:]} if len(found) > 1 else {})


def writes_entries(line: str) -> bool:
    """Tell whether a line assigns to entries of an array, adds to them, or calls `add.at`."""
    try:
        (statement,) = ast.parse(line).body
    except (SyntaxError, ValueError):
        return False
    match statement:
        case ast.Assign(targets):
            return any(isinstance(target, ast.Subscript) for target in targets)
        case ast.AugAssign(target):
            return isinstance(target, ast.Subscript)
        case ast.Expr(ast.Call(ast.Attribute())):
            return True
    return False


def shorten(expression: str) -> str:
    """Shorten a long expression."""
    return expression if len(expression) <= LONGEST else f"{expression[:LONGEST]}…"


def guess_line(
    known: Structure,
    values: Sequence[Any],
    changes: Changes,
    recorded: Sequence[Recorded],
    traces: Traces,
) -> Guess | None:
    """Guess the expressions in which a mistake may be, as its first wrong values tell.

    None where there are many, or where the first wrong value is the sum of right ones, of which one
    got its name elsewhere. Nor is there a guess at a factor that the submission divides another
    gradient by: it may have to do so at any later line. Nor at one of the terms of a sum that a
    function returns to a loop, where the caller does not add it.
    """
    if divides_elsewhere(changes, recorded):
        return None
    if traces.first and traces.wrong.isdisjoint(traces.first):
        number = find_maker(recorded, traces.first[0])
        if is_used(recorded, number):
            # The value is right of something else, and is kept as it is in another's place.
            back = sweep_back(known.program, values, [changes])
            value, leaves = recorded[number].value, known.program.leaves.items()
            names = [n for n, s in leaves if is_same(value, back[s][0])]
            stored = find_stored(recorded[number].place, names[0]) if names else None
            return Guess((stored,), f"∂L/∂{names[0]}") if stored else None
    lines = [set(list_suspects(recorded, traces, [k])) for k in traces.first]
    common = set[tuple[str, int]].intersection(*lines) if lines else set[tuple[str, int]]()
    if not 0 < len(common) <= LINES:
        return None
    found = list_suspects(recorded, traces, traces.first)
    places = tuple(found[line] for line in sorted(common))
    first = recorded[traces.first[0]]
    if first.place and not any((p.file, p.line) == first.place[:2] for p in places):
        # The mistake is in a function or in what it is called with.
        places = (*places, first.place)
    if len(places) > 1:
        return Guess(places, "")
    right = sweep_back(known.program, values)
    starts = {slot for number, _ in changes for slot in known.program.operations[number].outputs}
    arriving = [right[slot][0] for slot in starts if right[slot] is not None]
    for given in first.given:
        if any(is_same(given, each) for each in arriving):
            name, line = name_value(given, recorded[: traces.first[0]])
            # In a loop, what the same line assigned to an entry has gone to another entry since.
            entry = name.partition("[")[0] if line == (places[0].file, places[0].line) else ""
            if name and (entry or not mentions(places[0].expression, name)):
                place = find_assignment(places[0], name, entry)
                return Guess((place,), "a gradient that is wrong") if place else None
    wrong = sweep_back(known.program, values, [changes])
    names = [n for n, s in known.program.leaves.items() if is_same(first.value, wrong[s][0])]
    summed = any(len(known.users[known.program.leaves[name]]) > 1 for name in names)
    if summed and is_returned_to_loop(first, places):
        return None
    return Guess(places, f"∂L/∂{names[0]}" if names else "a gradient that is wrong")


def find_maker(recorded: Sequence[Recorded], number: int) -> int:
    """Find the operation that makes the numbers which another one only moves, as an outer product.

    It moves a vector into a column.
    """
    made = {slot: k for k, each in enumerate(recorded) for slot in each.operation.outputs}
    while True:
        each = recorded[number]
        pairs = zip(each.operation.inputs, each.given, strict=True)
        sources = [made[s] for s, given in pairs if s in made and is_same(given, each.value)]
        if not sources or sources[0] >= number:
            return number
        number = sources[0]


def is_used(recorded: Sequence[Recorded], number: int) -> bool:
    """Tell whether other operations read the result of an operation."""
    results = {*recorded[number].operation.outputs}
    return any(not results.isdisjoint(each.operation.inputs) for each in recorded[number + 1 :])


def find_stored(place: Place | None, name: str) -> Place | None:
    """Find the assignment that keeps the variable of an expression, as it is, as a gradient.

    None where there is none in the function, or where several may be the one of this name.
    """
    variable = find_target_in_line(place) if place is not None else ""
    if place is None or not variable:
        return None
    try:
        tree = ast.parse("".join(place.lines))
    except (SyntaxError, ValueError):
        return None
    functions = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.FunctionDef) and n.lineno <= place.line <= (n.end_lineno or n.lineno)
    ]
    inside: ast.AST = max(functions, key=lambda n: n.lineno, default=tree)
    found = [
        node
        for node in ast.walk(inside)
        if isinstance(node, ast.Assign) and is_copy(node.value, variable)
    ]
    word = ([each for each in re.findall(r"\w+", name) if not each.isdigit()] or [name])[-1]
    named = [n for n in found if any(word in ast.unparse(target) for target in n.targets)]
    if len(named or found) != 1:
        return None
    ((node,),) = (named or found,)
    ends = node.end_col_offset if node.end_lineno == node.lineno else 0
    return Place(place.file, node.lineno, node.col_offset, ends or 0)


def find_target_in_line(place: Place) -> str:
    """Find the variable that one of the statements of a line assigns an expression to."""
    try:
        body = ast.parse(place.text).body
    except (SyntaxError, ValueError):
        return ""
    for statement in body:
        match statement:
            case ast.Assign([ast.Name(variable)], value) if (
                ast.get_source_segment(place.text, value) == place.expression
            ):
                return variable
    return ""


def is_copy(value: ast.expr, variable: str) -> bool:
    """Tell whether an expression is a variable, or a copy of it."""
    match value:
        case ast.Name(found):
            return found == variable
        case ast.Call(ast.Attribute(ast.Name(found), "copy"), []):
            return found == variable
        case ast.Call(ast.Attribute(ast.Name(), "array" | "copy" | "asarray"), [ast.Name(found)]):
            return found == variable
    return False


def divides_elsewhere(changes: Changes, recorded: Sequence[Recorded]) -> bool:
    """Tell whether a mistake is one factor, and some gradient of a submission is divided by it.

    A change of sign is no such factor: most code has one.
    """
    factors = {change.after if is_scale(change) else 0.0 for change in changes.values()}
    factor = factors.pop() if len(factors) == 1 else 0.0
    if factor in (0.0, 1.0, -1.0):
        return False
    scaled = (e for e in recorded if e.operation.name in {"mul", "div"} and e.value.size > 1)
    return any(is_same(factor * e.value, given) for e in scaled for given in e.given)


def is_returned_to_loop(made: Recorded, places: Sequence[Place]) -> bool:
    """Tell whether the only place is in a called function, has no loop there, and keeps nothing.

    What it computes reaches a gradient only by what the caller does with it.
    """
    if len(made.operation.where) < 2 or len(places) > 1:
        return False
    (place,), (inside, *_) = places, made.operation.where
    if (place.file, place.line) != (inside.file, inside.line) or keeps(place.text):
        return False
    try:
        nodes = [*ast.walk(ast.parse("".join(place.lines)))]
    except (SyntaxError, ValueError):
        return False
    around = [n for n in nodes if isinstance(n, ast.FunctionDef | ast.For | ast.While)
              and n.lineno <= place.line <= (n.end_lineno or n.lineno)]  # fmt: skip
    return bool(around) and isinstance(max(around, key=lambda n: n.lineno), ast.FunctionDef)


def keeps(line: str) -> bool:
    """Tell whether a line writes to an entry or an attribute, which outlives the call."""
    try:
        (statement,) = ast.parse(line).body
    except (SyntaxError, ValueError):
        return False
    stored = (getattr(n, "ctx", None) for n in ast.walk(statement) if not isinstance(n, ast.Name))
    return any(isinstance(each, ast.Store) for each in stored)


def list_suspects(
    recorded: Sequence[Recorded], traces: Traces, first: Sequence[int]
) -> dict[tuple[str, int], Place]:
    """List the lines that may have made these first wrong values, each with its expression."""
    chains: dict[Place | None, set[Any]] = {}
    for k in traces.wrong:
        chains.setdefault(recorded[k].place, set()).add(recorded[k].operation.where)

    def locate(k: int) -> Place | None:
        # Of a function whose value is wrong at several calls, the line inside; otherwise the call.
        inside = len(chains.get(recorded[k].place, ())) > 1
        return recorded[k].place if inside else find_place(recorded[k], recorded)

    found: dict[tuple[str, int], Place] = {}
    suspect = {k for each in first for k in traces.suspect[each]}
    lines = {(p.file, p.line) for k in suspect if (p := locate(k)) is not None}
    for k in sorted(suspect | traces.wrong):
        place = locate(k)
        if place is None or not place.end_column or (place.file, place.line) not in lines:
            continue
        longest = found.setdefault((place.file, place.line), place)
        if len(place.expression) > len(longest.expression):
            found[place.file, place.line] = place
    return found


def is_suspect(place: Place, recorded: Sequence[Recorded], traces: Traces) -> bool:
    """Tell whether a line may have made a first wrong value, and does not only come after one."""
    return (place.file, place.line) in list_suspects(recorded, traces, traces.first)


def name_value(value: Array, recorded: Sequence[Recorded]) -> tuple[str, tuple[str, int]]:
    """Name the variable to which a submission assigns a value, and the line; empty if none."""
    for each in reversed(recorded):
        if is_same(each.value, value):
            place = each.place
            return ("", ("", 0)) if place is None else (find_entry(place), (place.file, place.line))
    return "", ("", 0)


def find_entry(place: Place) -> str:
    """Find the variable that a line assigns its expression to, or the entry that it adds to."""
    try:
        body = ast.parse(place.text).body
    except (SyntaxError, ValueError):
        return ""
    match body:
        case [ast.AugAssign(ast.Subscript() as target)]:
            return ast.unparse(target)
    return find_target(place)


def mentions(expression: str, name: str) -> bool:
    """Tell whether an expression contains a variable."""
    return re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", expression) is not None


def find_assignment(place: Place, name: str, entry: str = "") -> Place | None:
    """Find the one line that assigns a variable, as it is, to one that an expression reads.

    That of an `entry` of an array is assigned to another entry of it.
    """

    def reads(target: ast.expr) -> bool:
        if entry and isinstance(target, ast.Subscript):
            return ast.unparse(target.value) == entry
        return mentions(place.expression, ast.unparse(target))

    found = list[Place]()
    for number, line in enumerate(place.lines, 1):
        try:
            body = ast.parse(line.strip()).body
        except (SyntaxError, ValueError):
            continue
        match body:
            case [ast.Assign([target], value)] if ast.unparse(value) == name and reads(target):
                start = len(line) - len(line.lstrip())
                ends = len(line.encode()[:start]) + (body[0].end_col_offset or 0)
                found.append(Place(place.file, number, start, ends))
    return found[0] if len(found) == 1 else None


def guess_gradient_line(submitted: Array, name: str, recorded: Sequence[Recorded]) -> Guess | None:
    """Guess the expression that computes a gradient which is wrong after the backward pass."""
    places = [*list_places(submitted, recorded)] if is_telling(submitted, True) else []
    if not places:
        return None
    number, place = places[-1]
    if is_used(recorded, number):  # as it is, it may be the gradient of something else
        stored = find_stored(recorded[number].place, name)
        place = stored or place
    return Guess((place,), f"∂L/∂{name}")


def list_places(wanted: Array, recorded: Sequence[Recorded]) -> Iterator[tuple[int, Place]]:
    """List the expressions whose value is an array that none of its operands is, and where."""
    for number, each in enumerate(recorded):
        if is_same(each.value, wanted) and not any(is_same(given, wanted) for given in each.given):
            place = find_place(each, recorded)
            if place is not None and place.end_column:
                yield number, place


def is_telling(found: Array, of_parameter: bool) -> bool:
    """Tell whether numbers are no trivial ones, which several expressions have."""
    many = of_parameter or found.size > TELLING
    return bool(many and np.isfinite(found).all() and (np.ptp(found) > 0 or found.size == 1))
