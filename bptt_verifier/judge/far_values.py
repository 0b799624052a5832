"""Values far beyond those of the cases, at which a submission overflows and the loss does not.

No verdict depends on them: a formula may be meant for smaller values. docs/derivation.md,
section 10.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from bptt_verifier.judge.comparisons import ask_at
from bptt_verifier.judge.subject import Compared, Subject
from bptt_verifier.judge.submission import Breach, Submission


def describe_overflow(
    submission: Submission, subject: Subject, compared: Sequence[Compared]
) -> Iterator[str]:
    """Say where gradients are not finite, the first time that those of the loss are."""
    asked = Submission(submission.gradients)  # whatever it raises here is no note of the report
    every = (each for each in compared if not each.case.single)
    found = next((f for f in every if any(map(np.any, f.case.arguments.values()))), None)
    if found is None:
        return
    for factor, case in subject.draw_far_cases(found.case):
        answer = ask_at(asked, subject, case)
        if isinstance(answer, Breach):
            return  # it may refuse such values
        lost = [n for n in found.gradients if n in answer and not np.isfinite(answer[n]).all()]
        if lost:
            yield (
                f"At {factor} times the values of {found.case.label}, your numbers for "
                f"{', '.join(lost)} are not finite, and autodiff's are: a number inside overflows. "
                "The verdict does not depend on it."
            )
            return
