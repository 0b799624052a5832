"""Changes between two results: what became faster or slower, with its significance."""

from typing import NamedTuple

from rich.table import Table

from benchmarks.intervals import Interval, change
from benchmarks.machine import differences
from benchmarks.results import Result, Timing
from benchmarks.table import title


class Change(NamedTuple):
    """A contender's ratio to the baseline, new over old; above 1 it became faster."""

    timing: Timing
    ratio: Interval

    @property
    def significant(self) -> bool:
        """True if the interval excludes 1."""
        return self.ratio.low > 1 or self.ratio.high < 1


def changes(old: Result, new: Result) -> list[Change]:
    """The changes of every contender that both results measured at the same size.

    The baseline is left out. Ratios within each run are compared, and never seconds across runs,
    because a machine's speed changes from hour to hour.
    """
    if (old.model, old.baseline) != (new.model, new.baseline):
        return []
    found = []
    for timing in new.timings:
        before = next((t for t in old.timings if t[:3] == timing[:3]), None)
        bases = [r.beside(timing, r.baseline) for r in (old, new)]
        if before is None or None in bases or timing.contender == new.baseline:
            continue
        pairs = []
        for base, own in zip(bases, (before, timing), strict=True):
            assert base is not None
            together = min(len(base.seconds), len(own.seconds))
            pairs.append((base.seconds[:together], own.seconds[:together]))
        found.append(Change(timing, change(pairs[0], pairs[1])))
    return found


def warnings(old: Result, new: Result) -> list[str]:
    """The reasons why two results are not comparable, a sentence each."""
    found = []
    if old.model != new.model:
        found.append(f"model: then {old.model}, now {new.model}")
    if old.baseline != new.baseline:
        found.append(f"baseline: then {old.baseline}, now {new.baseline}")
    return found + differences(old.machine, new.machine)


def changes_table(old: Result, new: Result) -> Table:
    """A table of the changes, with intervals."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("size", "contender"):
        table.add_column(heading, no_wrap=True)
    for heading in (f"× {new.baseline}, now ÷ then", "verdict"):
        table.add_column(heading, no_wrap=True, justify="right")
    for found in changes(old, new):
        verdict = "as before"
        if found.significant:
            verdict = "faster" if found.ratio.value > 1 else "slower"
        table.add_row(title(found.timing.where), found.timing.contender, str(found.ratio), verdict)
    return table
