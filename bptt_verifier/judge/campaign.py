"""A campaign: the comparison of many examples of the built-in derivations, in parts.

Each example depends on the seed and its number alone, and parts are added up in any order. So the
report is the same whoever compares a part; a part that is lost is compared again, and a campaign
that was stopped goes on where it was.
"""

from bisect import bisect
from collections.abc import Callable, Iterator
from typing import NamedTuple

from bptt_verifier.judge import builtin
from bptt_verifier.judge.builtin import BuiltinReport, Subjects
from bptt_verifier.judge.tally import Tally
from bptt_verifier.problems.problem import Sizes
from manual_bptt.inputs import require_at_least

LISTED = 100_000  # examples; the report of more does not list the sizes of each


class Campaign(NamedTuple):
    """What decides an example besides its number: the seed, the precision, and the reference."""

    seed: int
    dtype: str
    certified: bool = False


Remaining = Callable[[], Iterator[range]]  # the parts that are not done
Keep = Callable[[range, Tally], None]  # takes the findings of one part
Execute = Callable[[Campaign, Remaining, Keep], None]  # has all parts compared, wherever


def choose_subjects(campaign: Campaign) -> Subjects:
    """All built-in derivations, compared with autodiff or, `certified`, with exact values."""
    derivations, cell_derivations = builtin.DERIVATIONS, builtin.CELL_DERIVATIONS
    tangents = builtin.TANGENT_DERIVATIONS
    if not campaign.certified:
        return Subjects(derivations, cell_derivations, tangents, builtin.AUTODIFF)
    from bptt_verifier.judge import certified as exact  # noqa: PLC0415 - needs an extra

    return Subjects(
        derivations | exact.COMPILED_DERIVATIONS,
        cell_derivations | exact.COMPILED_CELL_DERIVATIONS,
        tangents,
        exact.CERTIFIED,
    )


def compare_cases(campaign: Campaign, cases: range) -> Tally:
    """Compare all derivations on these examples."""
    subjects, tally = choose_subjects(campaign), Tally()
    builtin.compare_cases(cases, campaign.seed, campaign.dtype, subjects, tally)
    if cases.stop > LISTED:
        tally.shapes.clear()
    return tally


def execute_here(campaign: Campaign, remaining: Remaining, keep: Keep) -> None:
    """Compare all parts in this process."""
    for cases in remaining():
        keep(cases, compare_cases(campaign, cases))


class Ledger:
    """What a campaign has found so far: the examples that are done, and their tally."""

    def __init__(self, tally: Tally | None = None, done: tuple[range, ...] = ()) -> None:
        self.findings = Tally() if tally is None else tally, done

    @property
    def tally(self) -> Tally:
        """The tally of all examples that are done."""
        return self.findings[0]

    @property
    def done(self) -> tuple[range, ...]:
        """The examples that are done, as ranges that do not touch, in order."""
        return self.findings[1]

    def keep(self, cases: range, tally: Tally) -> None:
        """Add the findings of one part, unless they are there already."""
        if any(cases.start in part for part in self.done):
            return
        # In one assignment: Ctrl-C finds both or neither.
        self.findings = self.tally.merged(tally), insert(self.done, cases)

    def remaining(self, examples: int, together: int) -> Iterator[range]:
        """Yield the parts that are not done yet, each of `together` examples at most."""
        ends = (*(part.start for part in self.done), examples)
        for before, after in zip((range(0), *self.done), ends, strict=True):
            end = min(after, examples)
            for start in range(before.stop, end, together):
                yield range(start, min(start + together, end))

    def list_shapes(self) -> dict[int, Sizes]:
        """The sizes of the examples that are done, in order; empty where they are very many.

        The shapes of the tally may have more: those of a part whose sum Ctrl-C has ended.
        """
        tally, done = self.findings
        listed = done if not done or done[-1].stop <= LISTED else ()
        return {case: tally.shapes[case] for part in listed for case in part}

    def report(self, campaign: Campaign) -> BuiltinReport:
        """Make the report on the examples that are done."""
        tally, _ = self.findings
        whole = Tally(tally.rows.values(), self.list_shapes(), tally.cases)
        return builtin.make_report(whole, campaign.seed, campaign.dtype, choose_subjects(campaign))


def insert(done: tuple[range, ...], cases: range) -> tuple[range, ...]:
    """Insert a part into ranges that do not touch, and join those that then do."""
    place = bisect(done, cases.start, key=lambda part: part.start)
    before, after = list(done[:place]), list(done[place:])
    if before and before[-1].stop == cases.start:
        cases = range(before.pop().start, cases.stop)
    if after and after[0].start == cases.stop:
        cases = range(cases.start, after.pop(0).stop)
    return (*before, cases, *after)


def run_campaign(
    examples: int,
    campaign: Campaign,
    execute: Execute,
    *,
    together: int,
    ledger: Ledger | None = None,
    progress: Callable[[int], None] = lambda done: None,
    save: Callable[[Ledger], None] = lambda ledger: None,
) -> BuiltinReport:
    """Have all examples compared that `ledger` lacks; return the report on all.

    After each part `progress` is called with the number of examples done, and `save` with the
    ledger. Where an exception such as Ctrl-C ends the campaign, `ledger` has all parts that were
    done. Raises TypeError or ValueError where `examples` is no integer from 1, and what
    `execute` raises.
    """
    require_at_least(1, "examples", examples)
    found = Ledger() if ledger is None else ledger

    def keep(cases: range, tally: Tally) -> None:
        found.keep(cases, tally)
        progress(found.tally.cases)
        save(found)

    execute(campaign, lambda: found.remaining(examples, together), keep)
    return found.report(campaign)
