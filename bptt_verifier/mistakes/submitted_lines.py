"""Lines of the submission that a mistake is in: recorded at one case, then found or guessed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bptt_verifier.mistakes.backward_lines import RECORDED, Line, find_line
from bptt_verifier.mistakes.evidence import Evidence
from bptt_verifier.mistakes.first_wrong_values import is_same, trace_wrong_values
from bptt_verifier.mistakes.guessed_lines import (
    Guess,
    guess_gradient_line,
    guess_line,
    is_suspect,
)
from bptt_verifier.mistakes.operation_mistakes import Changes
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.recording import Recorded
from bptt_verifier.program.structure import Structure
from bptt_verifier.program.trace import Program
from bptt_verifier.report import Mistake

Record = Callable[[Mapping[str, Array]], Sequence[Recorded]]


def record_operations(program: Program, case: Evidence, record: Record) -> list[Recorded]:
    """Record the operations of the submission at a case; none of a long or a failing one."""
    if len(program.operations) > RECORDED:
        return []
    params = {name: case.forward[slot][0] for name, slot in program.leaves.items()}
    found = attempt(record, params)
    return [] if isinstance(found, Failure) else [*found]


def add_gradient_line(
    mistake: Mistake, gradients: Mapping[str, Array], recorded: Sequence[Recorded]
) -> Mistake:
    """Add where the submission probably computes the one gradient that a mistake is in.

    `gradients` are the submitted ones. Nothing is added to a mistake in an operation of the loss,
    whose line is found by `find_mistaken_line`.
    """
    names: Sequence[str] = mistake.details.get("gradients") or ()
    if "alteration" in mistake.details or len(names) != 1 or not recorded:
        return mistake
    submitted = gradients.get(names[0])
    others = [value for name, value in gradients.items() if name != names[0]]
    if submitted is None or any(is_same(submitted, other) for other in others):
        return mistake  # what computes these numbers may compute the other gradient
    guess = guess_gradient_line(submitted, names[0], recorded)
    if not guess:
        return mistake
    details = mistake.details | {"backward_guess": guess.details}
    return mistake._replace(explanation=f"{mistake.explanation} {guess}", details=details)


def find_mistaken_line(
    known: Structure,
    values: Sequence[Any],
    changed: Changes,
    recorded: Sequence[Recorded],
    writes: bool,
) -> Line | Guess | None:
    """Find the expression of the submission that makes the changes of a mistake, or guess it.

    `values` are those of the forward pass; `writes` asks for a guess where an entry is written.
    """
    given = values, changed, recorded
    traces = trace_wrong_values(known, *given)
    line = find_line(known.program, *given)
    if line is not None and is_suspect(line.place, recorded, traces):
        return line
    guess = guess_line(known, *given, traces)
    return guess if guess is None or not writes or guess.writes_entries else None
