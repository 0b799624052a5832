"""The path from a submission to a report, step by step."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import path
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


@pytest.mark.parametrize(("error", "known"), [(1e-3, True), (0.5, False)])
def test_the_format_is_sought_again_where_the_scatter_explains_whole_results(
    error: float, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ones, allowed = {"w": np.ones(2)}, {"w": np.full(2, 1e-9)}
    found = state_compared({"w": 1 + error * np.ones(2)}, ones, allowed)
    after = state_compared({"w": 1 + error * np.ones(2)}, ones, {"w": np.ones(2)})
    subject: Any = SimpleNamespace()
    judgement = SubjectJudgement(Submission(lambda w: w), subject, "", lambda done, total: None)
    monkeypatch.setattr(path, "weigh", lambda *given, far: after)
    assert judgement.learn_precision(found) is found
    assert judgement.precision_known is known
    assert judgement.confirmed == []


def test_nothing_is_computed_ahead_of_extreme_cases_once_a_case_fails() -> None:
    ones, allowed = {"w": np.ones(2)}, {"w": np.full(2, 1e-9)}
    agreeing, failing = (state_compared({"w": ones["w"] + d}, ones, allowed) for d in (0, 0.5))
    asked, shown = list[str](), list[int]()
    subject: Any = SimpleNamespace(compute_ahead=lambda: asked.append("next"), total=7)
    judgement = SubjectJudgement(
        Submission(lambda w: w), subject, "", lambda done, total: shown.append(total)
    )
    for found in (agreeing, agreeing, failing, agreeing):
        judgement.advance(found)
    assert asked == ["next"] * 2
    assert shown == [7] * 4
