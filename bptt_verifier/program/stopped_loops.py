"""Loops of a loss that end by a tolerance, and what they compute by further steps.

The loss is traced again, and the decision that ends a loop is turned around for some steps. So the
steps need not be alike: one with momentum, a line search, a secant that learns its slopes
(docs/derivation.md, section 10, (N12)).
"""

import ast
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bptt_verifier.program import trace as tracing
from bptt_verifier.program.backward import backward
from bptt_verifier.program.decisions import Decisions, UntraceableError
from bptt_verifier.program.fixed_points import (
    NEAR,
    Limit,
    describe,
    find_change,
)
from bptt_verifier.program.rounding import is_inexact
from bptt_verifier.program.source_lines import Place, is_of_user, place_of_frame
from bptt_verifier.program.trace import Params, Program, forward, takes_path

LEAST = 16  # further steps of a loop that has taken few
HALVINGS = 5  # of the number of further steps, where that many give no finite numbers
LONGER = 4  # times the operations that a trace may have
MOST = 4  # decisions of which it is tried whether they end a loop

Site = tuple[Place, ...]  # what the user's frames evaluate, the innermost first
Trace = Callable[[Decisions], Program | None]


class Asked(NamedTuple):
    """A decision of a trace: where it is made, and how; `number` is that of its traced value."""

    site: Site
    number: int
    outcome: bool
    turned: bool


class Steered(Decisions):
    """Decisions of a trace, turned around where they would end a loop.

    `endings` are the outcomes that end loops. A loop takes as many further steps as it has taken,
    `LEAST` at least, halved some times. Meanwhile `usual` decisions are what they always are. No
    more loops take further steps than are `expected`, if that is known. One that counts its endings
    is `patient`: it takes no more steps until one is another outcome.
    """

    def __init__(
        self,
        endings: Mapping[Site, bool] | None = None,
        usual: Mapping[Site, bool] | None = None,
        halved: int = 0,
        patient: bool = False,
        expected: Mapping[Site, int] | None = None,
    ) -> None:
        super().__init__(LONGER)
        self.loops, self.expected = Counter[Site](), expected or {}
        self.endings, self.usual, self.halved = endings or {}, usual or {}, halved
        self.patient, self.counted = patient, set[Site]()
        self.asked = list[Asked]()
        self.taken = Counter[Site]()  # steps of the loop that is running
        self.left = dict[Site, int]()  # further steps

    def note(self, value: Any, outcome: Any) -> Any:
        """Note a decision, behind an operation that marks where it is made; return what it is."""
        if not isinstance(outcome, bool):
            return super().note(value, outcome)
        super().note(~jnp.asarray(value), not outcome)
        site = find_site()
        steered = self.steer(site, outcome)
        number = len(self.values) - 1
        self.asked.append(Asked(site, number, outcome, steered != outcome))
        return steered

    def steer(self, site: Site, outcome: bool) -> bool:
        """Turn an outcome around where a loop is to take further steps.

        Raises UntraceableError where it does not end after them, or more loops do.
        """
        if site not in self.endings:
            return self.usual.get(site, outcome) if self.left else outcome
        if site not in self.left:
            if outcome != self.endings[site]:
                self.counted.discard(site)
                self.taken[site] += 1
                return outcome
            if site in self.counted:
                return outcome
            self.loops[site] += 1
            if self.loops[site] > self.expected.get(site, self.loops[site]):
                raise UntraceableError("more loops end than before they took further steps")
            self.left[site] = max(1, max(self.taken[site], LEAST) >> self.halved)
        self.left[site] -= 1
        if self.left[site] >= 0:
            return not self.endings[site]
        if outcome == self.endings[site]:
            del self.left[site], self.taken[site]
            self.counted |= {site} if self.patient else set()
        elif -self.left[site] > max(self.taken[site], LEAST):
            raise UntraceableError("a loop does not end that has taken further steps")
        return outcome


def find_site() -> Site:
    """Find what each of the user's frames evaluates, within one call of the loss."""
    found, frame, before = list[Place](), sys._getframe(1), None
    while frame is not None and frame.f_code.co_filename != tracing.__file__:
        code, at = frame.f_code, frame.f_lasti
        # One function that calls itself is at one place; the test of a `while` stands twice in it.
        if is_of_user(code.co_filename) and (code, at) != before:
            place = place_of_frame(frame)
            found += [place] if found[-1:] != [place] else []
        before = code, at
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(found)


def leaves_loop(site: Site) -> bool:
    """Tell whether a decision may leave a loop: not that of an `if` without `break` or `return`."""
    try:
        place = site[0]
        tree = ast.parse("".join(place.lines))
    except (IndexError, SyntaxError, ValueError):  # an installed loss has no frames of the user's
        return True
    branches = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If | ast.IfExp | ast.comprehension)
        for test in (node.ifs if isinstance(node, ast.comprehension) else [node.test])
        if test.lineno <= place.line <= (test.end_lineno or test.lineno)
    ]
    leaving = ast.Break | ast.Return | ast.Raise
    return all(any(isinstance(n, leaving) for n in ast.walk(node)) for node in branches)


class Longer(NamedTuple):
    """A loss whose loops take further steps, beside the same without: programs traced alike.

    Slots of both that are read after a loop are `pairs`, `added` the places of the operations of
    further steps, and `endings` the outcomes that end these loops, by where they are. They are
    `patient` where several endings in a row end them.
    """

    program: Program
    longer: Program
    pairs: list[tuple[int, int]]
    added: frozenset[tuple[Place, ...]]
    endings: dict[Site, bool]
    patient: bool = False

    def find_limit(self, params: Params) -> Limit | None:
        """Find the gradients with further steps; None where they are far from those without."""
        values, moved = forward(self.program, params), forward(self.longer, params)
        apart = self.measure_change(values, moved)
        if not apart <= NEAR:
            return None
        gradients = {name: value[0] for name, value in backward(self.longer, moved).items()}
        return Limit(True, gradients, apart, by_decision=True)

    def has_path(self, params: Params) -> bool:
        """Tell whether the loss makes the same decisions at these parameters, with both."""
        return all(takes_path(program, params) for program in (self.program, self.longer))

    def measure_change(self, values: Sequence[Any], moved: Sequence[Any]) -> float:
        """Measure by what part further steps change what is read after a loop; NaN is one of it."""
        pairs = [
            (values[one], moved[other])
            for one, other in self.pairs
            if is_inexact(values[one].dtype)
        ]
        if not all(np.isfinite(after).all() for _, after in pairs):
            return np.nan
        return max((find_change(after, before) for before, after in pairs), default=0.0)


def continue_loops(
    trace: Trace,
    params: Params,
    known: Mapping[Site, bool] | None = None,
    *,
    patient: bool = False,
) -> Longer | None:
    """Trace a loss whose loops take further steps; None if it has no loop that converges.

    `trace` returns the program of the loss at these parameters by given decisions, or None. Loops
    with `known` endings are tried first, all at once, and `patient` ones.
    """
    plain = Steered()
    program = trace(plain)
    if program is None:
        return None
    outcomes = dict[Site, list[bool]]()
    for each in plain.asked:
        outcomes.setdefault(each.site, []).append(each.outcome)
    usual = {site: made[0] for site, made in outcomes.items() if len({*made}) == 1}

    def take(endings: Mapping[Site, bool]) -> Longer | None:
        others = {site: made for site, made in usual.items() if site not in endings}
        return take_further_steps(trace, params, (program, plain.asked), endings, others, patient)

    again = {site: ending for site, ending in (known or {}).items() if site in outcomes}
    found = take(again) if again else None
    if found is not None:
        return found
    # Others may count, or set what a `while` tests. A loop that has never decided in two ways is
    # one that was not entered.
    tried = sorted(outcomes, key=lambda site: (not leaves_loop(site), site in usual))[:MOST]
    single = {site: take({site: outcomes[site][-1]}) for site in tried}
    converging = {site: each for site, each in single.items() if each is not None}
    if len(converging) <= 1:
        return next(iter(converging.values()), None)
    return take({site: outcomes[site][-1] for site in converging})


def take_further_steps(
    trace: Trace,
    params: Params,
    plain: tuple[Program, Sequence[Asked]],
    endings: Mapping[Site, bool],
    usual: Mapping[Site, bool],
    patient: bool,
) -> Longer | None:
    """Trace a loss some of whose loops take further steps; None if these change other values.

    It takes fewer of them where what is read is not finite, as by a secant through equal points.
    """
    values = forward(plain[0], params)
    expected = Counter(each.site for each in plain[1] if each.outcome == endings.get(each.site))
    for counts, halved in product((patient, not patient), range(HALVINGS)):
        steered = Steered(endings, usual, halved, counts, expected)
        longer = trace(steered)
        if longer is None:
            continue  # such as a matrix that becomes singular
        if len(longer.operations) <= len(plain[0].operations):
            return None  # an `if` in a loop of another kind
        found = compare_programs(plain, (longer, steered.asked), endings)
        if found is None:
            continue
        apart = found.measure_change(values, forward(longer, params))
        if not np.isnan(apart):
            return found._replace(patient=counts) if apart <= NEAR else None
    return None


def compare_programs(
    plain: tuple[Program, Sequence[Asked]],
    further: tuple[Program, Sequence[Asked]],
    endings: Mapping[Site, bool],
) -> Longer | None:
    """Pair what is read after each end of a loop; None if that is not the same operations."""
    ends, later = (find_ends(*each, endings) for each in (plain, further))
    program, longer = plain[0], further[0]
    if not ends or len(ends) != len(later):
        return None
    pairs = list[tuple[int, int]]()
    for one, other in zip(ends, later, strict=True):
        # A loop that has taken as many steps as it may ends without a decision, within a step.
        start = other.stop - len(one)
        found = pair_read((program, one), (longer, range(start, other.stop)))
        if start < other.start or found is None:
            return None
        pairs += found
    if find_producers(program).get(program.result, -1) < ends[-1].start:
        pairs.append((program.result, longer.result))
    runs = zip(further[1], find_runs(longer, further[1]), strict=True)
    tail = later[-1].stop - len(ends[-1])  # after the last loop, which may end within a step
    added = frozenset(
        longer.operations[number].where
        for each, run in runs
        if each.turned
        for number in run
        if number < tail and longer.operations[number].where
    )
    return Longer(program, longer, pairs, added, {**endings})


def find_ends(
    program: Program, asked: Sequence[Asked], endings: Mapping[Site, bool]
) -> list[range]:
    """Find the operations after each end of a loop, up to the next decision of one.

    The last loop may end without a decision, which the last one then stands for.
    """
    found = list[range]()
    chosen = [each for each in asked if each.site in endings]
    runs = find_runs(program, chosen)
    for each, run in zip(chosen, runs, strict=True):
        if each is chosen[-1] or (each.outcome == endings[each.site] and not each.turned):
            found.append(run)
    return found


def find_runs(program: Program, asked: Sequence[Asked]) -> list[range]:
    """Find the operations after each decision, up to the next one or to the end."""
    producers, starts = find_producers(program), list[int]()
    for each in asked:
        before = starts[-1] if starts else 0
        starts.append(max(before, producers.get(program.decided[each.number], -1) + 1))
    return [range(*each) for each in pairwise([*starts, len(program.operations)])]


def find_producers(program: Program) -> dict[int, int]:
    """Find the number of the operation that computes each slot."""
    return {slot: n for n, each in enumerate(program.operations) for slot in each.outputs}


def pair_read(
    one: tuple[Program, range], other: tuple[Program, range]
) -> list[tuple[int, int]] | None:
    """Pair what runs of operations of two programs read; None if they are not the same ones."""
    pairs, inside = list[tuple[int, int]](), dict[int, int]()
    for number, later in zip(one[1], other[1], strict=True):
        operation, again = one[0].operations[number], other[0].operations[later]
        if describe(operation) != describe(again):
            return None
        for slot, after in zip(operation.inputs, again.inputs, strict=True):
            if slot in one[0].constants and after in other[0].constants:
                continue  # such as a number of steps
            if slot not in inside:
                pairs.append((slot, after))
            elif inside[slot] != after:
                return None
        inside |= zip(operation.outputs, again.outputs, strict=True)
    return pairs if not {after for _, after in pairs} & {*inside.values()} else None
