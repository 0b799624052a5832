"""Cases in float32 decide nothing where parameters are given in float64, and agree there."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.narrow_draws import (
    doubt_narrow,
    doubt_overflow,
    is_finite,
    is_right_as_given,
    leave_out_narrow,
)
from bptt_verifier.judge.neighbours import list_failing
from bptt_verifier.judge.one_case import compare_case
from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.submission import Submission, make_breach
from bptt_verifier.judge.unconverged import SEVERAL, Kept
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.stated_cases import state_compared

ONES = {"w": np.ones(2)}


def state_found(dtype: Any, error: float = 0.0) -> Compared:
    found = state_compared({"w": np.ones(2) + error}, ONES, {"w": np.full(2, 1e-6)})
    return found._replace(case=found.case._replace(arguments={"w": np.ones(2, dtype)}))


def state_subject(given: Any = np.float64) -> Any:
    def widen(case: Any) -> Any:
        wide = {name: value.astype(given) for name, value in case.arguments.items()}
        same = case.arguments["w"].dtype == given
        return None if same else case._replace(arguments=wide)

    return SimpleNamespace(
        widen=widen, zeros=frozenset(), has_vanishing_steps=False,
        displace=lambda case, number, distance: case,
    )  # fmt: skip


def attempt(case: Any) -> Compared:
    """A submission that is right in float64 alone."""
    single = case.arguments["w"].dtype == np.float32
    return state_found(case.arguments["w"].dtype, 0.5 * single)


WRONG, RIGHT = state_found(np.float32, 0.5), state_found(np.float64)


@pytest.mark.parametrize(
    ("found", "given", "right"),
    [
        (WRONG, np.float64, True),
        (WRONG, np.float32, False),
        (state_found(np.float64, 0.5), np.float64, False),
        (state_found(np.float32), np.float64, False),
    ],
)
def test_gradients_are_right_in_the_format_given(found: Compared, given: Any, right: bool) -> None:
    subject = state_subject(given)
    assert is_right_as_given(attempt, subject, found) is right
    assert not is_right_as_given(lambda case: None, subject, found)
    assert not is_right_as_given(lambda case: found, subject, found)
    right_again = is_right_as_given(
        lambda case: state_found(case.arguments["w"].dtype), subject, found
    )
    assert not right_again  # at a later call in float32, too
    assert (doubt_narrow(attempt, subject, found) != []) is right


def leave_out(compared: list[Compared], excuse: Any = lambda rest: None) -> Any:
    return leave_out_narrow(attempt, state_subject(), compared, excuse)


def test_cases_in_float32_are_left_out_where_several_others_agree() -> None:
    kept = leave_out([WRONG, *[RIGHT] * SEVERAL])
    assert kept is not None
    assert len(kept.compared) == len(kept.allowed) == len(kept.settled) == SEVERAL
    assert not kept.fails
    said = "In 1 case your gradients are wrong in float32, and right at the same numbers in the for"
    assert kept.notes[0].startswith(said)
    assert kept.notes[1].startswith("4 of 4 cases could")
    for compared in (
        [WRONG, *[RIGHT] * (SEVERAL - 1)],
        [RIGHT] * SEVERAL,
        [WRONG, state_found(np.float64, 0.5), *[RIGHT] * SEVERAL],
    ):
        assert leave_out(compared) is None


def test_cases_in_float32_are_left_out_beside_others_that_something_else_excuses() -> None:
    other = state_found(np.float64, 0.5)
    rest = [other, *[RIGHT] * SEVERAL]
    asked = list[Any]()

    def excuse(compared: Any) -> Any:
        asked.append(compared)
        return Kept(rest[1:], rest[1:], rest[1:], ("The others are left out.",))

    kept = leave_out([WRONG, *rest], excuse)
    assert asked == [rest]
    assert len(kept.compared) == SEVERAL
    assert kept.notes[1:] == ("The others are left out.",)
    few = Kept(rest[2:], rest[2:], rest[2:], ())
    assert leave_out([WRONG, *rest], lambda compared: few) is None
    fails = Kept(rest, rest, rest, ())
    assert leave_out([WRONG, *rest], lambda compared: fails) is None
    assert leave_out(rest, lambda compared: few) is None  # none is in float32


def test_what_scatters_like_rounding_in_float32_is_not_left_out() -> None:
    def scatter(case: Any) -> Compared:
        single = case.arguments["w"].dtype == np.float32
        sign = -1.0 if case.label.endswith(("1", "3", "5", "7", "9")) else 1.0
        return state_found(case.arguments["w"].dtype, 1e-5 * sign * single)

    subject, compared = state_subject(), [scatter(WRONG.case), *[RIGHT] * SEVERAL]
    subject.displace = lambda case, number, distance: case._replace(label=str(number))
    assert list_failing(compared[0])
    assert leave_out_narrow(scatter, subject, compared, lambda rest: None) is None


@pytest.mark.parametrize(
    ("answer", "finite"),
    [
        ({"w": np.ones(2), "b": np.ones(1)}, True),
        ({"w": np.array([1.0, np.inf]), "b": np.ones(1)}, False),
        ({"w": np.ones(2), "b": np.full(1, np.nan)}, False),
        (make_breach("raised", "it raised", {}), False),
    ],
)
def test_all_results_of_a_call_are_finite(answer: Any, finite: bool) -> None:
    assert is_finite(answer) is finite


def test_nothing_is_doubted_at_a_case_in_the_format_given() -> None:
    given = state_subject()
    assert doubt_overflow(Submission(lambda w: {"w": w}), given, RIGHT.case) == []


FAR = np.array([3.8e8, 1.2e8])


def loss(p: Any) -> Any:
    return np.sum(1e20 * p["r"] / (p["r"] @ p["r"]) ** 1.5)


def gradients(p: Any, factor: float = 1.0) -> Any:
    r, square = p["r"], p["r"] @ p["r"]
    found = 1e20 * (1 / square**1.5 - 3 * factor * r * np.sum(r) / square**2.5)
    return {"r": found}


def judge(factor: float, dtype: Any) -> Report:
    return verify_own_model(lambda p: gradients(p, factor), loss, {"r": FAR.astype(dtype)})


@pytest.mark.parametrize(
    ("factor", "dtype", "verdict"),
    [
        (1.0, np.float64, Verdict.AGREES),
        pytest.param(1.001, np.float64, Verdict.DISAGREES, marks=pytest.mark.rest),
        pytest.param(1.0, np.float32, Verdict.DISAGREES, marks=pytest.mark.rest),
    ],
)
def test_a_power_that_overflows_in_float32_alone_is_right_as_given(
    factor: float, dtype: Any, verdict: Verdict
) -> None:
    report = judge(factor, dtype)
    assert report.verdict is verdict, str(report)
    said = any("are wrong in float32, and right at the same" in note for note in report.notes)
    assert said is (verdict is Verdict.AGREES)


def test_at_a_case_in_float32_alone_it_is_inconclusive() -> None:
    report = compare_case(gradients, loss, {"r": FAR}, "2,near")
    assert report.verdict is report.parameters["r"].verdict is Verdict.INCONCLUSIVE
    assert report.notes[0].startswith("Here your gradients are wrong in float32, and right")
    report = compare_case(lambda p: gradients(p, 1.1), loss, {"r": FAR}, "2,near")
    assert report.verdict is Verdict.DISAGREES


@pytest.mark.parametrize(
    ("dtype", "verdict"), [(np.float64, Verdict.AGREES), (np.float32, Verdict.DISAGREES)]
)
def test_what_is_not_finite_in_float32_alone_is_right_as_given(
    dtype: Any, verdict: Verdict
) -> None:
    """The sixth power of 1e-10 is zero in float32."""

    def energy(p: Any) -> Any:
        s6 = (1.16e-19 / (p["r"] @ p["r"])) ** 3
        return s6**2 - s6

    def force(p: Any) -> Any:
        square = p["r"] @ p["r"]
        with np.errstate(all="ignore"):
            s6 = 1.16e-19**3 / square**3
            return {"r": (-12 * s6**2 + 6 * s6) / square * p["r"]}

    given = {"r": np.array([3.9e-10, 1.1e-10], dtype)}
    report = verify_own_model(force, energy, given, cases=8)
    assert report.verdict is verdict, str(report)
    said = any("smaller, or in float64. With case" in note for note in report.notes)
    assert said is (verdict is Verdict.AGREES)
    assert [each.name for each in report.mistakes] == ["not-finite"] * (not said)


@pytest.mark.parametrize(("case", "verdict"), [("2,near", "inconclusive"), ("0", "agrees")])
def test_at_a_case_that_is_not_finite_in_float32_alone_it_is_inconclusive(
    case: str, verdict: str
) -> None:
    def energy(p: Any) -> Any:
        return np.sum(1.0 / (p["r"] @ p["r"]) ** 1.5) * 1e-30

    def force(p: Any) -> Any:
        with np.errstate(all="ignore"):
            square = p["r"] @ p["r"]
            inverse = 1.0 / square**3
            return {"r": -3e-30 * p["r"] * inverse * square**0.5}

    report = compare_case(force, energy, {"r": np.array([3.9e-10, 1.1e-10])}, case)
    assert report.verdict is Verdict(verdict), str(report)
    begin = "Here your results are not finite in float32, and finite at the same numbers"
    assert any(note.startswith(begin) for note in report.notes) is (verdict == "inconclusive")


@pytest.mark.slow
def test_the_parameters_given_are_never_left_out() -> None:
    """One of them may be given in float32."""

    def power(p: Any) -> Any:
        return 1e-3 * np.sum(p["w"] ** 2) + 1e6 * np.sum((np.abs(p["n"]) + 1.0) ** -0.5)

    def slopes(p: Any) -> Any:
        n, one = p["n"], p["n"].dtype.type(1)
        found = n.dtype.type(-0.5e6) * (np.abs(n) + one) / (np.abs(n) + one) ** 2.5
        return {"w": 2e-3 * p["w"], "n": found * np.sign(n)}

    n = np.array([1e15, 2e16])
    report = verify_own_model(slopes, power, {"w": FAR / 1e9, "n": n.astype(np.float32)}, cases=8)
    assert report.verdict is Verdict.DISAGREES
    assert verify_own_model(slopes, power, {"w": FAR / 1e9, "n": n}).verdict is Verdict.AGREES
