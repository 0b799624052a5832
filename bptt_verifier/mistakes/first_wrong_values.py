"""The expressions of a submission that its first wrong values come from.

With a mistake, and without it, the adjoints of a loss and their sums are known. A value of the
submission is wrong if it is one of those with the mistake and none of those without it. What leads
to a right value is right; what comes after a wrong one says nothing. So the mistake lies between
the right values and the first wrong ones (docs/derivation.md, section 10).
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.backward_lines import NEAR, TELLING, find_multiple
from bptt_verifier.mistakes.operation_mistakes import Changes
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import change_rows, resolve, sweep_back
from bptt_verifier.program.operations import pass_back
from bptt_verifier.program.recording import Recorded
from bptt_verifier.program.structure import Structure

USES = 4  # uses of a value of whose terms every sum is known, at most


class AlikeArrays(NamedTuple):
    """The arrays of one size, in the order of their norms."""

    norms: list[float]
    arrays: list[Array]

    def holds(self, wanted: Array) -> bool:
        """Tell whether one of these arrays has the numbers of another, in any layout."""
        norm = float(np.linalg.norm(wanted))
        first = bisect_left(self.norms, norm * (1 - NEAR))
        for found, array in zip(self.norms[first:], self.arrays[first:], strict=True):
            if found > norm * (1 + NEAR):
                return False
            if is_same(array, wanted):
                return True
        return False


class Traces(NamedTuple):
    """What is known of a submission's values: the first wrong ones, and those that are suspect.

    `wrong` are all operations with a wrong value, `first` those that no other leads to, and
    `suspect` those that may have made them so, by the first value that they lead to.
    """

    wrong: frozenset[int]
    first: tuple[int, ...]
    suspect: dict[int, frozenset[int]]


def trace_wrong_values(
    known: Structure, values: Sequence[Any], changes: Changes, recorded: Sequence[Recorded]
) -> Traces:
    """Trace the wrong values of a submission with a mistake back to what may have made them.

    A value that is right for one adjoint and wrong for another, such as that which lacks a factor,
    is neither.
    """
    right = sweep_back(known.program, values)
    wrong = sweep_back(known.program, values, [changes])
    forward = [np.asarray(v[0]) for v in values if v is not None and len(v)]
    pairs = [*pair_numbers(known, values, changes, right, wrong)]
    rights = collect([*forward, *(one for one, _ in pairs)])
    wrongs = collect(other for one, other in pairs if not is_same(one, other))
    made = {slot: k for k, each in enumerate(recorded) for slot in each.operation.outputs}
    before = [{made[s] for s in each.operation.inputs if s in made} for each in recorded]

    bad, good, ambiguous = set[int](), set[int](), set[int]()
    for k, each in enumerate(recorded):
        value = each.value
        if not is_telling(value):
            continue
        in_right, in_wrong = holds(rights, value), holds(wrongs, value)
        if in_right and not in_wrong:
            good.add(k)
        elif in_wrong and not in_right:
            bad.add(k)
        elif in_wrong:
            ambiguous.add(k)
    tainted, first = set[int](), list[int]()
    for k, sources in enumerate(before):
        if sources & tainted:
            tainted.add(k)
        elif k in bad:
            tainted.add(k)
            first.append(k)
    if not first:
        # Every wrong value is a right one of something else: the last of them is in its place.
        first = [*sorted(ambiguous)[-1:]]
    cleared = set[int]()
    for k in good:
        cleared |= ancestors(k, before, cleared)
    suspect = {k: frozenset(ancestors(k, before, cleared) - cleared | {k}) for k in first}
    return Traces(frozenset(bad), tuple(first), suspect)


def ancestors(
    number: int, before: Sequence[set[int]], known: Iterable[int] = frozenset()
) -> set[int]:
    """Find an operation and those whose values lead to it, up to `known` ones."""
    known, found, border = known if isinstance(known, set) else {*known}, set[int](), [number]
    while border:
        each = border.pop()
        if each not in found and each not in known:
            found.add(each)
            border += before[each]
    return found


def pair_numbers(
    known: Structure,
    values: Sequence[Any],
    changes: Changes,
    right: Sequence[Any],
    wrong: Sequence[Any],
) -> Iterator[tuple[Array, Array]]:
    """Pair the adjoints, and sums of what each use passes back, without a mistake and with it."""
    for slot, found in enumerate(right):
        other = wrong[slot]
        if found is None:
            continue
        yield found[0], np.zeros_like(found[0]) if other is None else other[0]
        uses = sorted(known.users.get(slot, ()), reverse=True)
        if len(uses) < 2 or any(changes[e].also or changes[e].send for e in uses if e in changes):
            continue
        terms = [
            (
                pass_term(known, values, {}, right, edge),
                pass_term(known, values, changes, wrong, edge),
            )
            for edge in uses
        ]
        shape = np.shape(found[0])
        if any(np.shape(term) != shape for pair in terms for term in pair):
            continue
        places = range(len(terms))
        few = len(terms) <= USES
        # The terms of a weight are added from the last step to the first; a residual path, or what
        # another layer passes back, is added to the sum of all others.
        sizes = range(1, len(terms)) if few else (1, len(terms) - 1)
        chosen = [each for size in sizes for each in combinations(places, size)]
        chosen += [] if few else [tuple(range(k)) for k in range(2, len(terms) - 1)]
        for each in chosen:
            yield sum(terms[k][0] for k in each), sum(terms[k][1] for k in each)  # type: ignore[misc]


def pass_term(
    known: Structure,
    values: Sequence[Any],
    changes: Changes,
    cotangents: Sequence[Any],
    edge: tuple[int, int],
) -> Array:
    """Pass what arrives at one use of a value back to it, with a mistake."""
    number, operand = edge
    equation = known.program.operations[number]
    given = [values[slot] for slot in equation.inputs]
    outputs = [values[slot] for slot in equation.outputs]
    arriving = [cotangents[slot] for slot in equation.outputs]
    nothing = np.zeros(given[operand].shape[1:])
    if any(ct is None for ct in arriving):
        return nothing
    with np.errstate(all="ignore"):
        term = pass_back(equation, given, outputs, arriving)[operand]
        if term is None:
            return nothing
        if edge in changes:
            here = resolve(changes[edge], cotangents, 0)
            term = change_rows(equation, given, outputs, arriving, term, [0], [here])
    return np.asarray(term[0])


def collect(arrays: Iterable[Array]) -> dict[int, AlikeArrays]:
    """Collect arrays of telling numbers by their size."""
    by_size: dict[int, list[tuple[float, Array]]] = {}
    for array in arrays:
        if is_telling(array):
            by_size.setdefault(array.size, []).append((float(np.linalg.norm(array)), array))
    found = {}
    for size, pairs in by_size.items():
        pairs.sort(key=lambda pair: pair[0])
        found[size] = AlikeArrays([norm for norm, _ in pairs], [array for _, array in pairs])
    return found


def holds(numbers: dict[int, AlikeArrays], value: Array) -> bool:
    """Tell whether a value has the numbers of one of these arrays."""
    return value.size in numbers and numbers[value.size].holds(value)


def is_same(found: Array, wanted: Array) -> bool:
    """Tell whether an array holds the numbers of another, in any layout."""
    return found.size == wanted.size and abs(find_multiple(found, wanted) - 1) <= NEAR


def is_telling(found: Array) -> bool:
    """Tell whether numbers are no trivial ones, which several expressions have."""
    return bool(
        found.dtype.kind in "fc"
        and found.size > 1
        and np.isfinite(found).all()
        and np.ptp(found.real) > 0
        and (found.size > TELLING or np.unique(np.abs(found)).size > 1)
    )
