"""A submission is called at a case, and its results are compared with what the case states."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.comparisons import (
    ask_at,
    ask_twice,
    compare_at,
    describe_formats,
    find_dtypes,
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


def test_an_entry_that_is_not_finite_is_a_breach_where_its_allowed_error_is() -> None:
    case = state_case({"w": np.ones(2)}, {"w": np.array([1.0, np.inf])})
    for answer, entry in [([np.inf, 1.0], [0]), ([1.0, np.inf], None)]:
        found = compare_at(answer_with(answer)[0], state_subject(case), case)
        assert isinstance(found, Breach) is (entry is not None)
        if isinstance(found, Breach):
            assert (found.mistake.name, found.dtype) == ("not-finite", np.float64)
            assert found.mistake.details["entry"] == entry


def test_two_answers_that_differ_beyond_what_is_allowed_are_a_breach() -> None:
    found = ask_twice(answer_with([1.0, 1.0], [1.0, 2.0])[0], SUBJECT, CASE)
    assert isinstance(found, Breach)
    assert found.mistake.name == "not-deterministic"


def state_formats(label: str = "a case", **formats: str) -> Any:
    """A case with arguments in these formats, of which each is one."""
    ones = {name: np.ones(2, each) for name, each in formats.items()}
    return state_case(ones, ones, ones)._replace(label=label)


class Choosing:
    """A submission that raises at all formats but one, and then gives its argument or more."""

    def __init__(self, accepted: str, **more: Any) -> None:
        self.accepted, self.more = accepted, more
        self.submission = Submission(self)

    def __call__(self, w: Any) -> Any:
        if w.dtype != self.accepted:
            raise TypeError(f"refused {w.dtype}")
        return {"w": w} | self.more


SINGLE, DOUBLE = state_formats("float32", w="float32"), state_formats("float64", w="float64")


def widen(case: Any) -> Any:
    return DOUBLE if case.arguments["w"].dtype == "float32" else None


def test_what_raises_at_a_format_gets_the_numbers_in_the_users_and_the_first_is_noted() -> None:
    subject, choosing = state_subject(SINGLE), Choosing("float64")
    subject.widen = widen
    for label in ("first", "second"):
        found = ask_at(choosing.submission, subject, SINGLE._replace(label=label))
        assert isinstance(found, dict)
        assert found["w"].dtype == np.float64
    first = describe_formats(SINGLE._replace(label="first"), DOUBLE)
    (note,) = choosing.submission.notes
    assert note.startswith(f"{first} There, your function raised ")
    assert " at `raise " in note
    assert f"({__file__}:" in note


@pytest.mark.parametrize(
    ("submission", "calls", "breach"),
    [
        (Choosing("float32"), 1, ""),
        (Choosing("float32", w=np.ones(3)), 1, "wrong-shape"),
        (Choosing("float16"), 2, "raised"),
    ],
)
def test_only_what_raises_is_asked_again_and_only_success_is_another_answer(
    submission: Choosing, calls: int, breach: str
) -> None:
    subject = state_subject(SINGLE)
    subject.widen = widen
    found = ask_at(submission.submission, subject, SINGLE)
    assert (submission.submission.calls, submission.submission.notes) == (calls, ())
    assert (found.mistake.name if isinstance(found, Breach) else "") == breach
    if breach == "raised":
        assert isinstance(found, Breach)
        assert "refused float32" in found.mistake.explanation


@pytest.mark.parametrize(
    ("before", "after", "refused", "got"),
    [
        ({"w": "f4"}, {"w": "f8"}, "float32", "in float64"),
        ({"w": "f8"}, {"w": "f4"}, "float64", "rounded to float32"),
        ({"w": "f8", "b": "f4"}, {"w": "f4", "b": "f4"}, "float64", "rounded to float32"),
        ({"w": "f8", "b": "f8"}, {"w": "f4", "b": "f4"}, "float64", "rounded to float32"),
        ({"w": "f8", "b": "f2"}, {"w": "f4", "b": "f8"}, "float64 and float16",
         "rounded to float32 and float64"),
        ({"w": "f8"}, {"w": ">f8"}, "float64", "in >f8"),  # the other order of bytes
    ],
)  # fmt: skip
def test_numbers_are_rounded_where_one_of_the_formats_has_fewer_digits(
    before: dict[str, str], after: dict[str, str], refused: str, got: str
) -> None:
    assert describe_formats(state_formats(**before), state_formats(**after)) == (
        f"Your function raised an exception at parameters in {refused} (a case), and not at the "
        f"same numbers {got}, the format of the parameters given, which it got there."
    )


def test_a_result_is_judged_in_the_coarsest_format_of_it_and_its_argument() -> None:
    results = {n: np.ones(2, d) for n, d in {"w": "f8", "b": "f4", "v": "f8", "loss": "f8"}.items()}
    case = state_formats(w="f8", b="f8", v="f2")
    named = {name: str(each) for name, each in find_dtypes(results, case).items()}
    assert named == {"w": "float64", "b": "float32", "v": "float16", "loss": "float16"}
    inside = find_dtypes(results, case, np.float32)  # what computes in float32
    assert [str(each) for each in inside.values()] == ["float32", "float32", "float16", "float16"]


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


def test_what_raises_is_not_compared() -> None:
    breach = compare_at(answer_with(fail)[0], SUBJECT, CASE)
    assert isinstance(breach, Breach)
    assert breach.mistake.name == "raised"


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
