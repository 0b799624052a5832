"""The steps of a judgement, and what its report says was tried: sizes and telling cases."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod

from bptt_verifier.report import Report, Size
from bptt_verifier.report.findings import COUNTED
from bptt_verifier.tolerance.comparison import Array, Comparison, Verdict


class Judgement(ABC):
    """The steps from a submission to its report, the same for functions and kernels.

    Each step returns a report where it ends the judgement, else None.
    """

    @property
    @abstractmethod
    def steps(self) -> Sequence[Callable[[], Report | None]]:
        """The steps in order: the contract, the comparisons, further questions."""

    @abstractmethod
    def conclude(self) -> Report:
        """Report on what the steps have found."""

    def judge(self) -> Report:
        """Take the steps, and conclude unless one of them has ended the judgement."""
        ended = next((found for step in self.steps if (found := step()) is not None), None)
        return self.conclude() if ended is None else ended


def find_largest_shapes(every: Iterable[Mapping[str, Array]]) -> dict[str, Size]:
    """Find the largest shape of each array by its name, axis by axis.

    Of shapes with different numbers of axes it is the one with the most entries.
    """
    largest: dict[str, tuple[int, ...]] = {}
    for arrays in every:
        for name, value in arrays.items():
            known: tuple[int, ...] = largest.setdefault(name, value.shape)
            if len(known) == value.ndim:
                largest[name] = tuple(map(max, known, value.shape))
            elif value.size > prod(known):
                largest[name] = value.shape
    return {**largest}


def count_compared(comparisons: Iterable[Comparison], resolving: float) -> dict[str, int]:
    """Count the comparisons that could have shown a mistake, by the name of the gradient."""
    telling: dict[str, int] = {}
    for each in comparisons:
        shown = each.resolution <= resolving or each.verdict is Verdict.DISAGREES
        telling[each.name] = telling.get(each.name, 0) + shown
    return telling


def add_count(notes: Sequence[str], count: Sequence[str], verdict: Verdict) -> tuple[str, ...]:
    """Add a count to notes, of which the last is the reason where the report is inconclusive."""
    place = len(notes) - (verdict is Verdict.INCONCLUSIVE and bool(notes))
    return (*notes[:place], *count, *notes[place:])


def is_counted(notes: Iterable[str]) -> bool:
    """True if a note says how many cases could have shown a mistake."""
    return any(note.endswith(COUNTED) for note in notes)
