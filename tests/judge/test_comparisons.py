"""A submission is called at a case, and its results are compared with what the case states."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.comparisons import (
    ask_twice,
    compare_at,
    find_forward_difference,
    find_wrong_loss,
)
from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.submission import Breach, Submission
from tests.support.stated_cases import state_case, state_compared, state_subject

CASE = state_case({"w": np.ones(2), "loss": 3.0}, {"w": np.full(2, 0.25), "loss": 0.5})
SUBJECT = state_subject(CASE)


def answer_with(*results: Any) -> tuple[Submission, Iterator[Any]]:
    """A submission that gives these results, one at each call, and those that are left."""
    left = iter(results)

    def gradients(w: Any) -> Any:
        found = next(left)
        return found() if callable(found) else {"w": np.array(found)}

    return Submission(gradients), left


def fail() -> Any:
    raise ValueError("too late")


@pytest.mark.parametrize("case", [CASE, CASE._replace(truth=None)], ids=["known", "unknown"])
def test_two_equal_answers_are_one(case: Any) -> None:
    found = ask_twice(answer_with([1.0, 2.0], [1.0, 2.0])[0], SUBJECT, case)
    assert isinstance(found, dict)
    assert found["w"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("case", [CASE, CASE._replace(truth=None)], ids=["known", "unknown"])
def test_a_breach_at_either_call_is_one(case: Any) -> None:
    for answers, unread in [((fail, [0, 0]), 1), (([1.0, 1.0], fail), 0)]:
        submission, left = answer_with(*answers)
        found = ask_twice(submission, SUBJECT, case)
        assert isinstance(found, Breach)
        assert found.mistake.name == "raised"
        assert len(list(left)) == unread


def test_two_answers_that_differ_beyond_what_is_allowed_are_a_breach() -> None:
    found = ask_twice(answer_with([1.0, 1.0], [1.0, 2.0])[0], SUBJECT, CASE)
    assert isinstance(found, Breach)
    assert found.mistake.name == "not-deterministic"


@pytest.mark.parametrize(("loss", "wrong"), [(3.5, False), (3.75, True), (5.0, True)])
def test_a_loss_beyond_what_is_allowed_is_another(loss: float, wrong: bool) -> None:
    found = find_wrong_loss(SUBJECT, CASE, {"loss": np.array(loss)})
    assert (found is not None) is wrong
    if found is not None:
        assert found.name == "forward-differs"
        assert f"your loss is {loss:g}, and that of the model is 3. It is" in found.explanation


def test_a_loss_is_compared_only_where_there_is_one_of_the_users_in_numpy_and_a_reference() -> None:
    wrong = {"loss": np.array(5.0)}
    assert find_wrong_loss(state_subject(CASE), CASE, wrong) is not None
    in_agreement = state_subject(CASE)
    in_agreement.refusal = None
    assert find_wrong_loss(in_agreement, CASE, wrong) is None
    assert find_wrong_loss(SUBJECT, CASE._replace(truth=None), wrong) is None
    assert find_wrong_loss(SUBJECT, CASE, {"w": np.ones(2)}) is None
    parameter = CASE._replace(arguments={"loss": np.ones(())})
    assert find_wrong_loss(SUBJECT, parameter, wrong) is None


def test_a_number_that_is_not_finite_is_a_breach_where_every_error_is_bounded() -> None:
    given = answer_with([np.nan, 1.0])[0], answer_with([np.nan, 1.0])[0]
    breach = compare_at(given[0], SUBJECT, CASE)
    assert isinstance(breach, Breach)
    assert "found nan at entry [0], where autodiff gives 1." in breach.mistake.explanation
    undecided = state_case({"w": np.ones(2)}, {"w": np.array([np.inf, 0.25])})
    found = compare_at(given[1], SUBJECT, undecided)
    assert isinstance(found, Compared)
    assert not found.fails


@pytest.mark.parametrize(("name", "more"), [("loss", " It is the loss 3.75."), ("prediction", "")])
def test_a_forward_pass_differs_where_a_loss_or_prediction_does(name: str, more: str) -> None:
    for value, wrong in [(3.5, False), (3.75, True)]:
        true = {"w": np.ones(1), name: np.array(3.0)}
        allowed = {"w": np.full(1, 0.25), name: np.array(0.5)}
        submitted = {"w": np.full(1, 9.0), name: np.array(value)}
        found = find_forward_difference(SUBJECT, state_compared(submitted, true, allowed))
        assert (found is not None) is wrong
        if found is not None:
            said = f"your {name} is 3.75, and that of the model is 3.{more}"
            assert found.explanation.endswith(said)
