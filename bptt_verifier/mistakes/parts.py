"""The parts of one flat vector of parameters, as a model unpacks them, and which are wrong."""

import ast
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from bptt_verifier.mistakes.evidence import Evidence
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.source_lines import Place
from bptt_verifier.program.structure import Structure

MOST = 24  # parts of a vector, at most
NAMED = frozenset("reshape squeeze expand_dims transpose".split())  # between a part and its name


class Part(NamedTuple):
    """A part of a vector: its name in the source, or its range, and its entries."""

    name: str
    first: int
    last: int


def describe_parts(known: Structure, evidence: Sequence[Evidence], wrong: Sequence[str]) -> str:
    """Describe which parts of flat vectors are right, and which are wrong; empty where all are."""
    said = []
    for name in wrong:
        parts = find_parts(known, name)
        masks = [~case.wanted[name].within(case.reference[name], 1.0, case.reference[name])
                 for case in evidence if name in case.wanted]  # fmt: skip
        off: Array = np.logical_or.reduce(masks)
        bad = [part.name for part in parts if off[part.first : part.last + 1].any()]
        good = [part.name for part in parts if part.name not in bad]
        if bad and good:
            verbs = ["is" if len(names) == 1 else "are" for names in (good, bad)]
            said.append(
                f"Of the parts of ∂L/∂{name}, {join(good)} {verbs[0]} right,"
                f" and {join(bad)} {verbs[1]} wrong."
            )
    return " ".join(said)


def join(names: Sequence[str]) -> str:
    """Join names: "`Wx`, `Wh` and `b`"."""
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} and {last}" if others else last


def find_parts(known: Structure, name: str) -> list[Part]:
    """Find the parts that a loss takes of a flat vector; none where they overlap, or are steps."""
    slot, shape = known.program.leaves[name], known.program.shapes[name]
    found = list[Part]()
    for number in sorted({user for user, _ in known.users.get(slot, ())}):
        moved = known.program.operations[number].moved
        if len(shape) != 1 or moved is None or number in known.step or not moved.size:
            return []
        first, last = int(moved[0]), int(moved[-1])
        if not np.array_equal(moved, np.arange(first, last + 1)):
            return []
        found.append(Part(find_name(known, number) or f"{name}[{first}:{last + 1}]", first, last))
    found = sorted(
        {(part.first, part.last): part for part in found}.values(), key=lambda p: p.first
    )
    apart = all(one.last < other.first for one, other in pairwise(found))
    named = len({part.name for part in found}) == len(found)
    return found if apart and named and 1 < len(found) <= MOST else []


def find_name(known: Structure, number: int) -> str:
    """Find the variable that a part is assigned to, perhaps reshaped; empty where it is unknown."""
    operations = known.program.operations
    while True:
        for place in operations[number].where[:1]:
            found = find_variable(place)
            if found:
                return found
        readers = {
            user for out in operations[number].outputs for user, _ in known.users.get(out, ())
        }
        if len(readers) != 1 or operations[min(readers)].name not in NAMED:
            return ""
        number = min(readers)


def find_variable(place: Place) -> str:
    """Find the variable that one of the statements in a line assigns an expression to."""
    try:
        statements = ast.parse(place.text).body
    except (SyntaxError, ValueError):
        return ""
    for statement in statements:
        match statement:
            case ast.Assign([ast.Tuple(targets)], ast.Tuple(values)) if len(targets) == len(values):
                pairs = [*zip(targets, values, strict=True)]
            case ast.Assign([target], value):
                pairs = [(target, value)]
            case _:
                continue
        for target, value in pairs:
            if ast.get_source_segment(place.text, value) == place.expression:
                return ast.get_source_segment(place.text, target) or ""
    return ""
