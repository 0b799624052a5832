"""Gradients that read what the loss has kept are judged after a call of the loss."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.after_loss import NOTE, follow_loss, is_same
from bptt_verifier.judge.comparisons import ask_at, ask_twice
from bptt_verifier.judge.one_case import compare_case
from bptt_verifier.judge.own_model import OwnSubject
from bptt_verifier.judge.submission import Submission, make_breach
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.reference.own_loss import prepare
from bptt_verifier.reference.points import Point
from bptt_verifier.tolerance.comparison import Verdict

X, Y = np.random.default_rng(0).normal(size=(6, 3)), np.linspace(-1, 1, 6)
PARAMS = {"w": np.array([0.3, -0.5, 0.8])}
KEPT: dict[str, Any] = {}
CALLS: list[int] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    KEPT.clear()
    CALLS.clear()


def keep_states(p: Any) -> Any:
    KEPT["h"], KEPT["w"] = np.tanh(X @ p["w"]), p["w"].copy()
    return 0.5 * np.sum((KEPT["h"] - Y) ** 2)


def read_states(p: Any) -> Any:
    return {"w": X.T @ ((KEPT["h"] - Y) * (1 - KEPT["h"] ** 2))}


def read_twice_the_states(p: Any) -> Any:
    return {"w": 2 * read_states(p)["w"]}


def compute_states(p: Any) -> Any:
    h = np.tanh(X @ p["w"])
    return {"w": X.T @ ((h - Y) * (1 - h**2))}


def count_calls(p: Any) -> Any:
    """Right at the first two calls, and another one at each after them."""
    CALLS.append(1)
    return {"w": compute_states(p)["w"] * max(1, len(CALLS) - 1)}


def accumulate(p: Any) -> Any:
    """Right at the first call, and the sum of all calls afterwards."""
    CALLS.append(1)
    return {"w": compute_states(p)["w"] * len(CALLS)}


def check_states(p: Any) -> Any:
    """Refuse what is kept of other parameters."""
    if not np.array_equal(KEPT.get("w"), p["w"]):
        raise ValueError("call the loss first")
    return read_states(p)


def refuse(p: Any) -> Any:
    raise ValueError("never right")


@pytest.mark.parametrize(
    ("gradients", "follows"),
    [
        (read_states, True),
        (read_twice_the_states, True),
        (compute_states, False),
        (count_calls, False),
        (accumulate, False),
        (check_states, True),
        (refuse, False),
    ],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
@pytest.mark.parametrize("called", [False, True], ids=["fresh", "called"])
def test_the_loss_is_called_first_where_gradients_depend_on_its_last_call(
    gradients: Callable[[Any], Any], follows: bool, called: bool
) -> None:
    if called:
        keep_states(PARAMS)
    before = dict(KEPT)
    own = OwnSubject(prepare(keep_states, PARAMS, cases=1), gradients, keep_states)
    case = own.model.make_case(Point(0))
    submission = Submission(gradients)
    answer = ask_twice(submission, own, case)
    found = own.follow_loss(submission, case, answer)
    assert (found is not None) is follows
    assert KEPT.keys() == before.keys()
    assert all(KEPT[name] is before[name] for name in before)
    if found is not None:
        assert found.notes == (NOTE,)
        right = ask_twice(found, own, case)
        assert isinstance(right, dict)
        factor = 2 if gradients is read_twice_the_states else 1
        np.testing.assert_allclose(right["w"], factor * compute_states(PARAMS)["w"], rtol=1e-13)


def test_nothing_is_asked_where_no_loss_of_numbers_alone_is_known() -> None:
    def with_namespace(p: Any, xp: Any) -> Any:
        return keep_states(p)

    def with_calls(p: Any) -> Any:
        return read_states(p)

    with_calls.of_parameters = with_calls  # type: ignore[attr-defined]
    model = prepare(keep_states, PARAMS, cases=1)
    case = model.make_case(Point(0))
    for gradients, loss in [
        (read_states, None), (read_states, with_namespace), (with_calls, keep_states),
    ]:  # fmt: skip
        own = OwnSubject(model, gradients, loss)
        submission = Submission(gradients)
        answer = ask_twice(submission, own, case)
        assert own.follow_loss(submission, case, answer) is None


def test_zero_parameters_are_moved_too() -> None:
    zeros = {"w": np.zeros(3)}
    own = OwnSubject(prepare(keep_states, zeros, cases=1), read_states, keep_states)
    submission, case = Submission(read_states), own.model.make_case(Point(0))
    answer = ask_twice(submission, own, case)
    found = follow_loss(submission, own, keep_states, case, answer)
    assert found is not None


def test_answers_are_the_same_number_by_number() -> None:
    one, other = {"w": np.array([1.0, np.nan])}, {"w": np.array([1.0, 2.0])}
    assert is_same(one, one)
    assert not is_same(one, other)
    assert is_same(one, other) is False
    assert not is_same(one, {**one, "b": np.ones(1)})
    assert not is_same({**one, "b": np.ones(1)}, {**one, "b": np.zeros(1)})
    raised, different = make_breach("raised", "a"), make_breach("raised", "b")
    assert is_same(raised, raised)
    assert not is_same(raised, different)
    assert is_same(raised, one) is is_same(one, raised) is False


def test_gradients_that_change_at_every_call_do_not_read_the_loss() -> None:
    def drift(p: Any) -> Any:
        CALLS.append(1)
        here = np.array_equal(KEPT["w"], PARAMS["w"])
        return {"w": read_states(p)["w"] * (1 + here * len(CALLS))}

    keep_states(PARAMS)
    own = OwnSubject(prepare(keep_states, PARAMS, cases=1), drift, keep_states)
    submission, case = Submission(drift), own.model.make_case(Point(0))
    answer = ask_at(submission, own, case)
    assert follow_loss(submission, own, keep_states, case, answer) is None


@pytest.mark.parametrize(
    ("gradients", "verdict", "names"),
    [
        (read_states, Verdict.AGREES, []),
        pytest.param(
            read_twice_the_states,
            Verdict.DISAGREES,
            ["factor-missing"],
            marks=pytest.mark.rest,
            id="twice",
        ),
    ],
)
def test_a_report_says_that_the_loss_is_called_first(
    gradients: Any, verdict: Verdict, names: list[str]
) -> None:
    report = verify_own_model(gradients, keep_states, PARAMS, cases=4, timeout=5)
    assert report.verdict is verdict
    assert NOTE in report.notes
    assert [found.name for found in report.mistakes[:1]] == names
    assert compare_case(gradients, keep_states, PARAMS, "0").verdict is verdict


def test_gradients_that_read_what_a_random_loss_keeps_are_undecided() -> None:
    rng = np.random.default_rng(0)

    def drop(p: Any) -> Any:
        KEPT["mask"] = rng.random(6) < 0.8
        KEPT["h"] = np.tanh(X @ p["w"]) * KEPT["mask"]
        return 0.5 * np.sum((KEPT["h"] - Y) ** 2)

    def read_mask(p: Any) -> Any:
        return {"w": X.T @ ((KEPT["h"] - Y) * (1 - KEPT["h"] ** 2) * KEPT["mask"])}

    report = verify_own_model(read_mask, drop, PARAMS, cases=4)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "returns another number when it is called again" in " ".join(report.notes)
    refused = verify_own_model(refuse, drop, PARAMS, cases=4)
    assert refused.verdict is Verdict.DISAGREES
    assert [each.name for each in refused.mistakes] == ["raised"]
