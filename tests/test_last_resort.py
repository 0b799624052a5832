"""Where no bound can tell, exact values decide; without the extra, nothing changes."""

import json
from typing import Any

import numpy as np
import pytest
from right_derivations import in_precision

from bptt_verifier import last_resort
from bptt_verifier.comparison import Verdict
from bptt_verifier.judge import verify
from bptt_verifier.last_resort import together, verdict_on
from bptt_verifier.report import Report

RIGHT = in_precision(np.float16)("tanh")


def slightly_wrong(params: Any, x: Any, y: Any, h0: Any) -> dict[str, Any]:
    found = RIGHT(params, x, y, h0)
    return found | {"W": found["W"] * np.float16(1.03)}


def judged(gradients: Any) -> Report:
    return verify(gradients, examples=12)


def test_a_derivation_in_half_precision_is_decided_by_exact_values() -> None:
    report = judged(RIGHT)
    assert report.verdict is Verdict.AGREES
    assert set(report.certified) == set(report.parameters) == {"U", "W", "V", "h0"}
    assert all(0 < decision.deviation < 2**-6 for decision in report.certified.values())
    assert "exact values decided" in str(report)
    plain = json.loads(json.dumps(report.to_dict()))["certified"]["W"]
    assert plain["verdict"] == "agrees"
    assert plain["problems"] > 0


def test_a_wrong_one_whose_error_hides_below_the_bound_is_found() -> None:
    report = judged(slightly_wrong)
    assert all(result.error <= 1 for result in report.parameters.values())
    assert report.verdict is Verdict.DISAGREES
    assert report.certified["W"].verdict is Verdict.DISAGREES
    assert report.certified["U"].verdict is Verdict.AGREES
    assert [mistake.details for mistake in report.mistakes] == [{"gradients": ["W"]}]


@pytest.mark.parametrize("gradients", [RIGHT, slightly_wrong])
def test_without_the_extra_nothing_changes(gradients: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_resort, "find_spec", lambda name: None)
    report = judged(gradients)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.certified == {}
    assert "try more --examples" in str(report)


def test_where_a_bound_can_tell_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("asked")

    monkeypatch.setattr(last_resort, "decide", never)
    assert verify(in_precision(np.float64)("tanh"), examples=12).verdict is Verdict.AGREES


@pytest.mark.parametrize(
    ("deviation", "size", "correct", "verdict"),
    [
        (0.0, 1.0, 0.0, Verdict.AGREES),
        (0.015, 1.0, 0.0, Verdict.AGREES),
        (0.016, 1.0, 0.0009, Verdict.DISAGREES),
        (0.016, 1.0, 0.002, Verdict.INCONCLUSIVE),  # rounding takes correct ones as far
        (np.inf, 1.0, 0.002, Verdict.DISAGREES),
        (0.0, 0.0, 0.0, Verdict.INCONCLUSIVE),  # nothing could have shown a mistake
        (1.0, 0.0, 0.0, Verdict.INCONCLUSIVE),
        (0.0, 1.0, np.inf, Verdict.INCONCLUSIVE),
        (0.0, 1.0, np.nan, Verdict.INCONCLUSIVE),
    ],
)
def test_the_rule(deviation: float, size: float, correct: float, verdict: Verdict) -> None:
    assert verdict_on(deviation, size, correct) is verdict


def test_one_disagreement_decides_and_no_verdict_is_inconclusive() -> None:
    assert together([]) is Verdict.INCONCLUSIVE
    assert together([Verdict.AGREES]) is Verdict.AGREES
    assert together([Verdict.AGREES, Verdict.DISAGREES]) is Verdict.DISAGREES
