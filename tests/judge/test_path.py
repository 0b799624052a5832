"""The path from a submission to a report, step by step."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from bptt_verifier.judge.path import SubjectJudgement
from bptt_verifier.judge.submission import Submission
from bptt_verifier.tolerance.scatter import FAR
from tests.support.stated_cases import state_compared


def test_far_neighbours_are_asked_until_the_format_is_known() -> None:
    ones = {"w": np.ones(2)}
    found = state_compared({"w": np.full(2, 1.5)}, ones, {"w": np.full(2, 1e-9)})
    distances = list[float]()

    def displace(case: Any, number: int, distance: float) -> Any:
        distances.append(distance)
        return case

    subject: Any = SimpleNamespace(displace=displace, has_vanishing_steps=False)
    judgement = SubjectJudgement(Submission(lambda w: w), subject, "", lambda done, total: None)
    judgement.attempt = lambda case: found  # type: ignore[method-assign]
    assert judgement.learn_precision(found) is found
    assert {*distances} == {FAR}
    assert judgement.precision_known
    assert judgement.confirmed == ["w"]
