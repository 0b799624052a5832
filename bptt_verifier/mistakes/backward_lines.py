"""The line of a submission that computes the wrong term of a named mistake.

A mistake changes what an operation of the loss passes back to an operand. If the submission
computes these wrong numbers at one expression, at every step, and computes the right ones nowhere,
that expression is where the mistake is made. Nothing is said where the numbers leave a doubt.
"""

import ast
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.corrections import find_transposed, split_product, write_atom
from bptt_verifier.mistakes.operation_mistakes import Changes
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import change_rows, is_scale, resolve, sweep_back
from bptt_verifier.program.operations import matrices, pass_back
from bptt_verifier.program.recording import Recorded
from bptt_verifier.program.source_lines import Place
from bptt_verifier.program.trace import Program

NEAR = 1e-9  # relative distance of two computations of one number in float64, at most
TELLING = 3  # entries of an array that may be a multiple of another by chance, at most
RECORDED = 1000  # operations of a loss whose backward pass is recorded, at most


class PassedBack(NamedTuple):
    """What an operation passes back to one operand: with the mistake, and without it there.

    Where a mistake skips operations, the right numbers are not known at one operand. `others` are
    what it passes back to its other operands.
    """

    wrong: Array
    right: Array | None
    arriving: Array
    others: tuple[Array, ...] = ()


class Line(NamedTuple):
    """The expression that computes a wrong term, and how it should read, if that is known."""

    place: Place
    right: str = ""

    def __str__(self) -> str:
        said = f"In your backward pass, `{self.place.expression}` ({self.place.at_column})"
        what = f" should be `{self.right}`." if self.right else " computes the wrong term."
        return said + what

    @property
    def details(self) -> dict[str, Any]:
        """The place and the right expression as the details of a mistake have them."""
        return {
            "file_line": str(self.place), "column": self.place.first_column,
            "expression": self.place.expression, "right": self.right or None,
        }  # fmt: skip


def find_line(
    program: Program, values: Sequence[Any], changes: Changes, recorded: Sequence[Recorded]
) -> Line | None:
    """Find the expression of a submission that computes what a mistake passes back."""
    lines: dict[tuple[str, int, int], Line] = {}
    by_size: dict[int, list[Recorded]] = {}
    for each in recorded:
        by_size.setdefault(each.value.size, []).append(each)
    for term in list_terms(program, values, changes):
        alike = by_size.get(term.wrong.size, [])
        if term.right is not None and any(find_multiple(e.value, term.right) for e in alike):
            return None
        makers = [each for each in alike if makes(each, term.wrong)]
        places = {find_place(each, recorded) for each in makers}
        place = places.pop() if len(places) == 1 else None
        if place is None or not place.end_column:
            return None
        made = makers[0]
        factor = find_multiple(made.value, term.wrong)
        right = ""
        # A line that computes another term of the same numbers as well, as 2 G u for (G + Gᵀ) u,
        # is right in a part.
        shared = any(find_multiple(made.value, other) for other in term.others)
        if term.right is not None and place == made.place and not shared:
            right = correct_product(made, np.asarray(factor * term.right))
        line = Line(place, right)
        lines.setdefault((place.file, place.line, place.column), line)
    rights = {line.right for line in lines.values()}
    return next(iter(lines.values())) if len(lines) == 1 and len(rights) == 1 else None


def find_place(made: Recorded, recorded: Sequence[Recorded]) -> Place | None:
    """Find the expression that computes a value: of a function of several callers, the call."""
    where = made.operation.where
    chains = {each.operation.where for each in recorded if each.operation.where[:1] == where[:1]}
    return where[1] if len(chains) > 1 and len(where) > 1 else made.place


def list_terms(program: Program, values: Sequence[Any], changes: Changes) -> Iterator[PassedBack]:
    """List the terms that a mistake makes wrong, where they are wrong numbers of their own.

    A term of zeros, or the arriving gradient itself, is found anywhere. A right term may be scaled
    at any line after it, so a wrong factor has no line by its numbers, of however few entries.
    """
    cotangents = sweep_back(program, values, [changes])
    for (number, operand), change in changes.items():
        equation = program.operations[number]
        arriving = [cotangents[slot] for slot in equation.outputs]
        if change.also or arriving[0] is None or any(ct is None for ct in arriving):
            continue
        if is_scale(change):
            continue
        for slot, sent in change.send:
            term = PassedBack(arriving[0][0] * sent, None, arriving[0][0])
            if term.wrong.shape == values[slot].shape[1:] and is_telling(term):
                yield term
        if change.send:
            continue
        given = [values[slot] for slot in equation.inputs]
        outputs = [values[slot] for slot in equation.outputs]
        with np.errstate(all="ignore"):
            passed = pass_back(equation, given, outputs, arriving)
            true = passed[operand]
            if true is None:
                continue
            here = resolve(change, cotangents, 0)
            wrong = change_rows(equation, given, outputs, arriving, true, [0], [here])
        others = (each[0] for k, each in enumerate(passed) if k != operand and each is not None)
        term = PassedBack(wrong[0], true[0], arriving[0][0], (*others,))
        if is_telling(term):
            yield term


def is_telling(term: PassedBack) -> bool:
    """Tell whether the wrong numbers of a term are neither trivial nor the right ones."""
    others = [other for other in (term.right, term.arriving) if other is not None]
    finite = all(np.isfinite(each).all() for each in (term.wrong, *others))
    return bool(
        finite and term.wrong.any() and not any(find_multiple(term.wrong, x) for x in others)
    )


def makes(each: Recorded, wanted: Array) -> bool:
    """Tell whether an operation computes an array that none of its operands is."""
    return bool(find_multiple(each.value, wanted)) and not any(
        given.size == wanted.size and find_multiple(given, wanted) for given in each.given
    )


def find_multiple(found: Array, wanted: Array) -> float:
    """Find the factor by which an array is a multiple of another, in any layout; 0 if it is none.

    Arrays of few entries are multiples of each other by chance, so they have to be equal.
    """
    if found.size != wanted.size or found.dtype.kind not in "fc" or not found.size:
        return 0.0
    for one in (wanted, wanted.T):
        a, b = found.ravel(), one.ravel()
        power = float(np.abs(b @ b))
        factor = float(np.real(b @ a)) / power if power > 0 and a.size > TELLING else 1.0
        if factor and np.isfinite(factor):
            off = np.max(np.abs(a - factor * b))
            if off <= NEAR * np.max(np.abs(a)):
                return factor
    return 0.0


def correct_product(made: Recorded, right: Array) -> str:
    """Write a product of matrices with an operand transposed that gives the right numbers.

    Empty if no such product does, or several do.
    """
    if made.operation.name != "dot_general" or made.place is None:
        return ""
    left, other, _ = matrices(made.operation, *(x[None] for x in made.given))
    pair = left[0], other[0]
    if any(len(x) != 1 for x in pair):
        return ""
    a, b = (x[0] for x in pair)
    found = {
        written
        for flip in ((False, True), (True, False), (True, True))
        if (product := multiply(a, b, flip)) is not None
        and product.size == right.size
        and abs(find_multiple(product, right) - 1) <= NEAR
        and (written := write_flipped(made.place.expression, flip))
    }
    return found.pop() if len(found) == 1 else ""


def multiply(a: Array, b: Array, flip: tuple[bool, bool]) -> Array | None:
    """Multiply two matrices, each transposed or not; None where the sizes differ."""
    one, other = (x.T if turned else x for x, turned in zip((a, b), flip, strict=True))
    return one @ other if one.shape[1] == other.shape[0] else None


def write_flipped(expression: str, flip: tuple[bool, bool]) -> str:
    """Write a product with these operands transposed, or no longer; empty if it is none."""
    try:
        form = split_product(ast.parse(expression, mode="eval").body, expression)
    except SyntaxError:
        return ""
    if form is None:
        return ""
    product, _, *operands = form
    return product.format(*map(write_turned, operands, [expression] * 2, flip))


def write_turned(node: ast.expr, expression: str, turned: bool) -> str:
    """Write an operand, transposed if it is to be `turned`."""
    inner = find_transposed(node)
    if not turned:
        return write_atom(node, expression)
    return f"{write_atom(node, expression)}.T" if inner is None else write_atom(inner, expression)
