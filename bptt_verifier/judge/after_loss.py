"""Gradients that read what the loss has kept of its last call, as hidden states in a global.

Users call `loss(params)` first, and `gradients(params)` after it. The judge finds out by calls of
its own, and calls both in this order then; what the file's globals held is put back.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from bptt_verifier.judge.comparisons import ask_at
from bptt_verifier.judge.subject import Subject
from bptt_verifier.judge.submission import Breach, Submission
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import attempt
from bptt_verifier.program.kept_state import hold_globals
from bptt_verifier.reference.case import Case

ELSEWHERE, MOVED = 1.0625, 0.0625  # times the parameters, and added to them
Answer = dict[str, Array] | Breach
NOTE = (
    "Your gradients read what loss(params) has kept of its last call: the loss is called before "
    "each call of your gradients, with the same parameters."
)


def follow_loss(
    submission: Submission,
    subject: Subject,
    loss: Callable[..., Any],
    case: Case,
    answer: Answer,
) -> Submission | None:
    """Find the submission that calls the loss first; None where that changes nothing.

    `answer` is that of the submission alone. It depends on the loss's last call if it is another
    one after a call with other parameters, and the same again after each such call.
    """
    moved = {
        name: (ELSEWHERE * value + MOVED).astype(value.dtype)
        for name, value in case.arguments.items()
    }
    elsewhere = case._replace(arguments=moved)
    ask = Submission(submission.gradients)  # whose notes are not the user's

    def ask_after(point: Case) -> Answer:
        call = subject.call(point)
        attempt(loss, *call.arguments, **call.named)
        return ask_at(ask, subject, case)

    with hold_globals(loss):
        away = ask_after(elsewhere)
        if is_same(away, answer) and not isinstance(answer, Breach):
            return None
        here = ask_after(case)
        if isinstance(here, Breach):
            return None
        # What raises alone reads it in any case, also where the loss draws random numbers.
        raised = isinstance(answer, Breach) and answer.mistake.name == "raised"
        repeated = raised or (
            is_same(ask_after(elsewhere), away) and is_same(ask_after(case), here)
        )
    if not repeated or is_same(away, here):
        return None
    gradients = submission.gradients

    def call_both(*arguments: Any, **named: Any) -> Any:
        loss(*arguments, **named)
        return gradients(*arguments, **named)

    followed = Submission(call_both)
    followed.readings[NOTE] = None
    return followed


def is_same(one: Answer, other: Answer) -> bool:
    """Tell whether two answers are equal, number by number, or break the contract alike."""
    if isinstance(one, Breach) and isinstance(other, Breach):
        return one.mistake == other.mistake
    if isinstance(one, Breach) or isinstance(other, Breach):
        return False
    pairs = ((value, other.get(name)) for name, value in one.items())
    return one.keys() == other.keys() and all(
        np.array_equal(a, b, equal_nan=True) for a, b in pairs if b is not None
    )
