"""Values far beyond those of the cases, at which a submission overflows and the loss does not.

No verdict depends on them: a formula may be meant for smaller values. Nor may the calls last long,
whose steps may be as many as the values are large. docs/derivation.md, section 10.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from bptt_verifier.judge.comparisons import ask_at
from bptt_verifier.judge.subject import Compared, Subject
from bptt_verifier.judge.submission import Breach, Submission
from bptt_verifier.program.idle_calls import interrupt_idle

MOST = 2.0  # seconds of a call, after which it is interrupted
LONGER, SHORT = 4.0, 0.125  # times the duration of the call before, and seconds more


def describe_overflow(
    submission: Submission, subject: Subject, compared: Sequence[Compared]
) -> Iterator[str]:
    """Say where gradients are not finite, the first time that those of the loss are."""
    asked = Submission(submission.gradients)  # whatever it raises here is no note of the report
    every = (each for each in compared if not each.case.single)
    found = next((f for f in every if any(map(np.any, f.case.arguments.values()))), None)
    if found is None:
        return
    longest = np.inf
    for factor, case in chain([(1, found.case)], subject.draw_far_cases(found.case)):
        began = time.monotonic()
        with interrupt_idle(MOST):
            answer = ask_at(asked, subject, case)
        seconds = time.monotonic() - began
        if isinstance(answer, Breach) or seconds > longest:
            return  # it may refuse such values, or take steps in proportion to them
        longest = LONGER * seconds + SHORT
        lost = [n for n in found.gradients if n in answer and not np.isfinite(answer[n]).all()]
        if lost:
            yield (
                f"At {factor} times the values of {found.case.label}, your numbers for "
                f"{', '.join(lost)} are not finite, and autodiff's are: a number inside overflows. "
                "The verdict does not depend on it."
            )
            return
