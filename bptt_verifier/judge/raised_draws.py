"""Draws at which a submission raises an exception, as it may outside of its formula's domain.

It has not raised at the parameters given, and the loss does not raise at these draws. Or parameters
are zero there, where code may have nothing to divide by, or to loop over. Nothing is
compared there. docs/derivation.md, section 10.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from bptt_verifier.judge.comparisons import ask_at
from bptt_verifier.judge.subject import Compared, Subject
from bptt_verifier.judge.submission import Breach, Submission, make_breach
from bptt_verifier.judge.undecided import count_cases, count_conclusive
from bptt_verifier.program.decisions import UntraceableError
from bptt_verifier.program.idle_calls import interrupt_idle
from bptt_verifier.reference.case import Case
from bptt_verifier.reference.selection import ENOUGH
from bptt_verifier.tolerance.comparison import find_symbol

PATIENCE = 5.0  # seconds that a call may take at values which are not the user's own


def describe_raised(raised: Sequence[Breach]) -> Iterator[str]:
    """Describe in how many cases a submission raised an exception, and the first of them."""
    if raised:
        first = raised[0]
        were = "was" if len(raised) == 1 else "were"
        there = (
            "there, under settings of your own for floating-point errors"
            if first.by_settings
            else "there, and not at the parameters given"
        )
        yield (
            f"{count_cases(len(raised))} {were} left out: {first.mistake.explanation} {there}. "
            f"{first.notes[0]}"
        )


def describe_zeroed(zeroed: Sequence[Breach]) -> Iterator[str]:
    """Describe in how many cases with zeros a submission breaks the contract, and the first."""
    if zeroed:
        were = "was" if len(zeroed) == 1 else "were"
        said = zeroed[0].event
        yield (
            f"{count_cases(len(zeroed))} in which parameters are zero {were} left out: {said}. "
            f"{zeroed[0].notes[0]}"
        )


def ask_at_zeros(submission: Submission, subject: Subject, case: Case) -> Breach | None:
    """Ask whether a submission breaks the contract in a case with zeros, for some seconds at most.

    None where it does not, and in all other cases. A loop that ends where a number is large enough
    may not end at zero.
    """
    if not subject.draws_zeros(case):
        return None
    found: Any = None
    with suppress(UntraceableError), interrupt_idle(PATIENCE):
        found = ask_at(submission, subject, case)
    if found is None or (isinstance(found, Breach) and is_interrupted(found)):
        return make_breach("raised", f"a call of your function did not end within {PATIENCE:g} s")
    return found if isinstance(found, Breach) else None


def is_interrupted(breach: Breach) -> bool:
    """Tell whether the judge has raised the exception, in code that did not end."""
    return bool(breach.mistake.details.get("exception") == UntraceableError.__name__)


def doubt_few(
    subject: Subject, raised: Sequence[Breach], cases: Sequence[Compared]
) -> Iterator[str]:
    """Describe the gradients in which too few of the cases left could have shown a mistake."""
    telling = count_conclusive(subject, cases)
    enough = min(ENOUGH, subject.total)
    few = [find_symbol(name) for name, number in telling.items() if number < enough]
    if raised and few:
        yield (
            f"A mistake in {', '.join(few)} would have been seen in too few of the cases in which "
            "your function raises nothing."
        )


def doubt_missing(subject: Subject, cases: Sequence[Compared]) -> Iterator[str]:
    """Describe the numbers among the parameters of which no gradient is returned."""
    known = {name for found in cases for name in found.gradients}
    every = dict.fromkeys(name for found in cases for name in subject.expect(found.case).names)
    missing = [name for name in every if name not in known]
    if missing:
        yield (
            f"You return no gradient of {', '.join(missing)}, in params as a float. Return it if "
            "this is a parameter; if it is data, take it out of params."
        )
