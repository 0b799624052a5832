"""Where no bound can tell, exact values decide; without the extra, nothing changes."""

import json
from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16

from bptt_verifier.judge import neighbours
from bptt_verifier.judge.verify import verify
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import Sizes
from bptt_verifier.reference import exact_values
from bptt_verifier.reference.exact_values import (
    Computed,
    combine_verdicts,
    decide,
    find_deviations,
    judge_deviation,
)
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict
from manual_bptt import gru, lstm
from tests.support.right_derivations import in_precision

RIGHT = in_precision(np.float16)("tanh")


@pytest.fixture(autouse=True)
def undecided_by_scatter(monkeypatch: pytest.MonkeyPatch) -> None:
    """In half precision the scatter of errors decides before exact values are asked."""
    monkeypatch.setattr(neighbours, "DECISIVE", 0)


def slightly_wrong(params: Any, x: Any, y: Any, h0: Any) -> dict[str, Any]:
    found = RIGHT(params, x, y, h0)
    return found | {"W": found["W"] * np.float16(1.03)}


def verdict_on_few(gradients: Any) -> Report:
    return verify(gradients, examples=12)


def test_a_derivation_in_half_precision_is_decided_by_exact_values() -> None:
    report = verdict_on_few(RIGHT)
    assert report.verdict is Verdict.AGREES
    assert set(report.certified) == set(report.parameters) == {"U", "W", "V", "h0"}
    assert all(0 < decision.deviation < 2**-6 for decision in report.certified.values())
    assert "exact values decided" in str(report)
    plain = json.loads(json.dumps(report.to_dict()))["certified"]["W"]
    assert plain["verdict"] == "agrees"
    assert plain["problems"] > 0


def test_a_wrong_one_whose_error_hides_below_the_bound_is_found() -> None:
    report = verdict_on_few(slightly_wrong)
    assert all(result.error <= 1 for result in report.parameters.values())
    assert report.verdict is Verdict.DISAGREES
    assert report.certified["W"].verdict is Verdict.DISAGREES
    assert report.certified["U"].verdict is Verdict.AGREES
    assert [mistake.details for mistake in report.mistakes] == [{"gradients": ["W"]}]


@pytest.mark.parametrize("gradients", [RIGHT, slightly_wrong])
def test_without_the_extra_nothing_changes(gradients: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_values, "find_spec", lambda name: None)
    report = verdict_on_few(gradients)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.certified == {}
    assert "is not testable: rounding alone" in str(report)


def test_where_a_bound_can_tell_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("asked")

    monkeypatch.setattr(exact_values, "decide", never)
    assert verify(in_precision(np.float64)("tanh"), examples=12).verdict is Verdict.AGREES


@pytest.mark.parametrize(
    ("deviation", "size", "correct", "verdict"),
    [
        (0.0, 1.0, 0.0, Verdict.AGREES),
        (0.015, 1.0, 0.0, Verdict.AGREES),
        (2.0**-6, 1.0, 0.0, Verdict.AGREES),
        (0.5, 1.0, 0.5 / 16, Verdict.INCONCLUSIVE),
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
    assert judge_deviation(deviation, size, correct) is verdict


def test_one_disagreement_decides_and_no_verdict_is_inconclusive() -> None:
    assert combine_verdicts([]) is Verdict.INCONCLUSIVE
    assert combine_verdicts([Verdict.AGREES]) is Verdict.AGREES
    assert combine_verdicts([Verdict.AGREES, Verdict.DISAGREES]) is Verdict.DISAGREES


def test_three_times_as_much_may_be_no_mistake() -> None:
    """Some round toward zero, and errors of one sign add up."""
    assert judge_deviation(0.5, 1.0, 0.5 / 49, 48) is Verdict.DISAGREES
    assert judge_deviation(0.5, 1.0, 0.5 / 48, 48) is Verdict.INCONCLUSIVE


PROBLEM = with_values(
    np.random.default_rng(0), Sizes(2, 2, 2, 2, 2), cell="rnn", option="tanh", loss="mse"
)


def test_correct_deviations_are_those_of_the_format_and_one_rounding_at_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = exact_values.exact_values(PROBLEM, ("U", "W"))
    least = {name: 2.0**-11 * float(np.max(np.abs(value))) for name, value in exact.items()}
    half = find_deviations(PROBLEM, np.float16, exact)
    assert all(least[name] <= value < 20 * least[name] for name, value in half.items())
    single, brief = (find_deviations(PROBLEM, dtype, exact) for dtype in (np.float32, bfloat16))
    assert brief == {name: 2.0**16 * value for name, value in single.items()}
    assert {*half} == {*single} == {"U", "W"}
    assert find_deviations(PROBLEM, np.float16, {"other": np.ones(1)}) == {}
    found = [{"U": np.array([-2.0, 1.0])}] * 2  # by chance, nothing is rounded
    monkeypatch.setattr(exact_values, "run_correct_derivations", lambda *_: found)
    for dtype, unit in ((np.float16, 2.0**-11), (bfloat16, 2.0**-8)):
        assert find_deviations(PROBLEM, dtype, found[0]) == {"U": 2 * unit}


@pytest.mark.parametrize(("one_sided", "times"), [(["U"], 48), (["W"], 16), ([], 16)])
def test_what_is_off_by_more_than_correct_derivations_disagrees(
    one_sided: list[str], times: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = exact_values.exact_values(PROBLEM, ("U",))["U"]
    correct = np.max(np.abs(exact)) / 100
    monkeypatch.setattr(exact_values, "find_deviations", lambda *_: {"U": correct})
    for factor, verdict in ((0.99, Verdict.INCONCLUSIVE), (1.02, Verdict.DISAGREES)):
        yours = {"U": exact + times * correct * factor}
        given = Computed(PROBLEM, yours, np.float16)
        assert decide([given], ["U"], one_sided)["U"].verdict is verdict


# The gated cells.


def half(cell: str, **factors: float) -> Any:
    """A derivation in half precision, of which some gradients are multiplied."""
    module: Any = {"lstm": lstm, "gru": gru}[cell]

    def found(params: Any, x: Any, y: Any, h0: Any, c0: Any = None) -> dict[str, Any]:
        given = module.Params(*(w.astype(np.float16) for w in params))
        others = (array.astype(np.float16) for array in (x, y, h0, c0) if array is not None)
        value, gradients = module.gradients(given, *others)
        scaled = {name: np.float16(by) * getattr(gradients, name) for name, by in factors.items()}
        return {"loss": float(value)} | gradients._asdict() | scaled

    return found


CELLS = [pytest.param("lstm", marks=pytest.mark.slow), "gru"]


@pytest.mark.rest
@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_in_half_precision_is_decided_by_exact_values(cell: str) -> None:
    report = verify(half(cell), model=cell, examples=24)
    assert report.verdict is Verdict.AGREES, str(report)
    states = {"h0", "c0"} if cell == "lstm" else {"h0"}
    names = {"U", "W", "V", "x", "adjoints"} | states
    assert set(report.certified) == set(report.parameters) - {"loss"} == names
    assert {decision.verdict for decision in report.certified.values()} == {Verdict.AGREES}
    assert {report.parameters[name].verdict for name in names} == {Verdict.AGREES}
    assert "exact values decided: the worst relative error" in str(report)
    assert "not testable" not in str(report)


@pytest.mark.table(2)
@pytest.mark.parametrize("cell", CELLS)
def test_a_wrong_cell_whose_error_hides_below_the_bound_is_found(cell: str) -> None:
    report = verify(half(cell, W=1.03), model=cell, examples=24)
    assert all(result.error <= 1 for result in report.parameters.values())
    assert report.verdict is Verdict.DISAGREES
    assert report.certified["W"].verdict is Verdict.DISAGREES
    assert report.certified["U"].verdict is Verdict.AGREES
    assert [mistake.details for mistake in report.mistakes] == [{"gradients": ["W"]}]


@pytest.mark.rest
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("factor", [1.0, 1.03])
def test_without_the_extra_a_cell_stays_inconclusive(
    cell: str, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact_values, "find_spec", lambda name: None)
    report = verify(half(cell, W=factor), model=cell, examples=24)
    assert report.verdict is Verdict.INCONCLUSIVE, str(report)
    assert report.certified == {}
    assert "is not testable: rounding alone" in str(report)


@pytest.mark.rest
def test_where_a_cell_can_be_told_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("asked")

    def single(params: Any, x: Any, y: Any, h0: Any) -> Any:
        given = gru.Params(*(w.astype(np.float32) for w in params))
        value, found = gru.gradients(given, *(v.astype(np.float32) for v in (x, y, h0)))
        return {"loss": float(value)} | found._asdict()

    monkeypatch.setattr(exact_values, "decide", never)
    assert verify(single, model="gru", examples=12).verdict is Verdict.AGREES


def test_a_forward_pass_in_half_precision_is_still_held_to_the_stated_one() -> None:
    def doubled(params: Any, x: Any, y: Any, h0: Any) -> Any:
        found = half("gru")(params, x, y, h0)
        return found | {"loss": 2 * found["loss"]}

    report = verify(doubled, model="gru", examples=24)
    assert [mistake.name for mistake in report.mistakes] == ["forward-differs"]


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_below_the_smallest_numbers_accuse_nobody(cell: str) -> None:
    """The correct derivation's errors there are luck: half precision has nothing in between."""
    rng = np.random.default_rng(0)
    problem = with_values(rng, Sizes(2, 1, 1, 1, 1), cell=cell, bias=True, initial_state=True)
    tiny = problem._replace(params=problem.params._replace(V=np.full((1, 1), 2.0**-22)))
    yours = {"U": np.full(tiny.params.U.shape, 2.0**-19, np.float16)}
    found = decide([Computed(tiny, yours, np.float16)], ["U"])
    assert found["U"].verdict is Verdict.INCONCLUSIVE
