"""Losses that raise an exception outside of their domain, as one of positive parameters may."""

import math
import re
import signal
from typing import Any

import numpy as np
import pytest

from bptt_verifier import compare_case, verify_own_model
from bptt_verifier.judge.neighbours import ask_neighbours
from bptt_verifier.judge.own_model import OwnSubject
from bptt_verifier.program.attempt import CodeRaisedError
from bptt_verifier.reference.own_loss import prepare
from bptt_verifier.reference.points import Point

PARAMS = {"a": np.array([1.5, 0.7]), "b": np.array(2.0)}


def loss(p: Any) -> Any:
    assert min(*p["a"], p["b"]) > 0, "parameters must be positive"
    return np.sum(p["b"] * np.log(p["a"]) - p["a"] ** 2)


def raising(p: Any) -> Any:
    if min(*p["a"], p["b"]) <= 0:
        raise SystemExit("not positive")
    return loss(p)


def untraced(p: Any) -> Any:
    b = float(p["b"])  # a number of Python's, which JAX does not follow
    if not b > 0:
        raise ValueError("b must be positive")
    return np.sum(p["a"] ** 2) * np.exp(-b)


def gradients(p: Any) -> dict[str, Any]:
    return {"a": p["b"] / p["a"] - 2 * p["a"], "b": np.sum(np.log(p["a"]))}


def unguarded(p: Any, xp: Any) -> Any:
    """A loss in which what JAX traces passes the assertion."""
    if type(p["b"]) in (np.ndarray, np.float64) and p["b"] < 1.5:
        raise ValueError("b must be 1.5 or more")
    return xp.sum(p["a"] ** 2) * xp.exp(-p["b"])


def of_unguarded(p: Any) -> dict[str, Any]:
    if p["b"] < 1.5:
        raise ValueError("b must be 1.5 or more")
    return of_untraced(p)


def of_untraced(p: Any) -> dict[str, Any]:
    e = np.exp(-p["b"])
    return {"a": 2 * p["a"] * e, "b": -np.sum(p["a"] ** 2) * e}


@pytest.mark.parametrize(
    ("stated", "right"),
    [
        pytest.param(loss, gradients, marks=pytest.mark.slow),
        pytest.param(raising, gradients, marks=pytest.mark.slow),
        pytest.param(untraced, of_untraced, marks=pytest.mark.rest),
    ],
)
def test_a_wrong_gradient_disagrees_though_simple_points_are_outside(
    stated: Any, right: Any
) -> None:
    assert str(verify_own_model(right, loss=stated, params=PARAMS).verdict) == "agrees"

    def wrong(p: Any) -> dict[str, Any]:
        return right(p) | {"b": -right(p)["b"]}

    report = verify_own_model(wrong, loss=stated, params=PARAMS)
    assert str(report.verdict) == "disagrees"
    assert [each.name for each in report.mistakes] == ["sign-flipped"]


@pytest.mark.parametrize(("stated", "right"), [(loss, gradients), (untraced, of_untraced)])
def test_a_case_outside_of_the_domain_is_told_by_what_the_loss_raises(
    stated: Any, right: Any
) -> None:
    def judge_all() -> None:
        for number in range(20):
            compare_case(right, stated, PARAMS, f"{number},digits=1")

    with pytest.raises(CodeRaisedError, match=r"raised \w+: \w+ must be positive"):
        judge_all()


def test_neighbours_outside_of_the_domain_are_left_out() -> None:
    def bounded(p: Any) -> Any:
        assert p["a"][0] >= 1.5
        return np.sum(p["a"] ** 2) * p["b"]

    model = prepare(bounded, PARAMS, cases=1)
    subject, case = OwnSubject(model, gradients), model.make_case(Point(0))
    found: Any = ask_neighbours(lambda each: each, subject, case, 2.0**-6)  # type: ignore[arg-type, return-value]
    assert 0 < len(found) < 16
    assert all(each.arguments["a"][0] >= 1.5 for each in found)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_in_a_loss_ends_the_judge() -> None:
    model = prepare(loss, PARAMS, cases=1)
    with pytest.raises(KeyboardInterrupt), model.name_loss():
        signal.raise_signal(signal.SIGINT)
    said = re.escape("loss(params) raised KeyboardInterrupt: no at `raise Keyboard")
    with pytest.raises(CodeRaisedError, match=said), model.name_loss():
        raise KeyboardInterrupt("no")
    said = re.escape("loss(params) raised SystemExit: 3 at ")
    with pytest.raises(CodeRaisedError, match=said), model.name_loss():
        raise SystemExit(3)


@pytest.mark.slow
def test_cases_at_which_the_loss_raises_in_numpy_alone_are_left_out() -> None:
    report = verify_own_model(of_unguarded, loss=unguarded, params=PARAMS)
    assert str(report.verdict) == "agrees"
    said = r"\d+ draws were left out: the loss raises an exception there\."
    assert any(re.fullmatch(said, note) for note in report.notes)
    assert report.cases == 24
    wrong = verify_own_model(
        lambda p: of_unguarded(p) | {"a": p["a"]}, loss=unguarded, params=PARAMS
    )
    assert str(wrong.verdict) == "disagrees"


@pytest.mark.parametrize("everywhere", [True, False])
def test_no_verdict_is_possible_where_the_loss_raises_at_the_parameters_given(
    everywhere: bool,
) -> None:
    def failing(p: Any, xp: Any) -> Any:
        known = isinstance(p["b"], np.ndarray | np.generic)
        if known and (everywhere or p["b"] == PARAMS["b"]):
            raise ValueError("not here")
        return xp.sum(p["a"] ** 2) * xp.exp(-p["b"])

    model = prepare(failing, PARAMS, cases=24)
    assert model.refusal is not None
    assert "raised ValueError: not here" in model.refusal


def opaque(p: Any) -> Any:
    """A loss that no library follows, of parameters that are differentiated by differences."""
    if p["b"] <= 1.5:
        raise ValueError("b must be above 1.5")
    return math.exp(-float(str(p["b"]))) * sum(float(str(a)) ** 2 for a in p["a"])


@pytest.mark.rest
def test_a_draw_at_which_a_loss_raises_that_is_not_traced_is_left_out() -> None:
    report = verify_own_model(of_untraced, loss=opaque, params=PARAMS)
    assert str(report.verdict) == "agrees"
    assert any("left out, because the loss raises an exception there." in n for n in report.notes)
    assert report.cases > 1
    wrong = verify_own_model(lambda p: of_untraced(p) | {"a": p["a"]}, loss=opaque, params=PARAMS)
    assert str(wrong.verdict) == "disagrees"


def test_a_loss_that_is_not_traced_and_raises_at_the_parameters_given_gives_no_verdict() -> None:
    params = PARAMS | {"b": np.array(1.0)}
    report = verify_own_model(of_untraced, loss=opaque, params=params)
    assert str(report.verdict) == "inconclusive"
    assert "b must be above 1.5" in str(report)


def test_a_draw_at_which_a_loss_raises_is_said_to_raise() -> None:
    report = verify_own_model(gradients, loss=loss, params=PARAMS)
    said = r"\d+ draws were left out: the loss raises an exception there\."
    assert any(re.fullmatch(said, note) for note in report.notes)
