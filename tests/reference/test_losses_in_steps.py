"""A loss whose derivative is zero in every case, although it differs between them, makes steps."""

from collections import Counter
from collections.abc import Callable
from signal import SIGINT, raise_signal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.attempt import CodeRaisedError
from bptt_verifier.reference import own_loss
from bptt_verifier.reference.own_loss import describe_steps, prepare, use_differences
from bptt_verifier.reference.own_model import OwnModel
from tests.support.stated_cases import state_case

PARAMS = {"w": np.array([0.5, 2.0])}


PLAIN = SimpleNamespace(last="")


def state(
    value: float,
    slopes: Any = (0.0, 0.0),
    allowed: Any = (0.0, 0.0),
    setting: int = 0,
    noise: float = 1e-12,
    program: Any = PLAIN,
    raises: bool = False,
) -> Any:
    """A case of this loss, which its one parameter is, with true slopes and a loss's noise."""
    known = slopes if isinstance(slopes, dict) else {"w": slopes}
    case = state_case(known, dict.fromkeys(known, allowed), dict.fromkeys(known, np.array(value)))
    return SimpleNamespace(
        truth=case.truth, arguments=case.arguments, point=SimpleNamespace(setting=setting),
        noise=lambda: noise, program=program, raises=raises,
    )  # fmt: skip


def describe(monkeypatch: pytest.MonkeyPatch, *cases: Any, settings: int = 1) -> str:
    """Describe the steps of a loss at these cases."""

    def loss(p: Any, xp: Any) -> Any:
        if any(each.raises for each in cases if each.arguments["w"] == p["w"]):
            raise ValueError("no")
        return p["w"]

    def find_program(params: Any, setting: int) -> Any:
        return next(each.program for each in cases if each.arguments is params)

    monkeypatch.setattr(own_loss, "states_rules", lambda p: getattr(p, "rules", False))
    monkeypatch.setattr(own_loss, "states_stops", lambda p: getattr(p, "stops", False))
    monkeypatch.setattr(own_loss, "describe_last", lambda p: p.last)
    model: Any = SimpleNamespace(
        params=(PARAMS,) * settings, cases=cases, loss=loss, find_program=find_program
    )
    return describe_steps(model)


AT = SimpleNamespace(last=" at `np.round(l)`")


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        ([state(1.0), state(2.0)], "in all 2 cases, although the loss differs between them: it "
         "counts, or is rounded. Let it return what it rounds."),
        ([state(1.0), state(2.0, program=AT)], "it is rounded at `np.round(l)`."),
        ([state(1.0), state(1.0)], ""),
        ([state(1.0)], ""),
        ([], ""),
        ([state(1.0, (0.0, 1.0)), state(2.0)], ""),  # one entry is not zero
        ([state(1.0), state(2.0, (1e-9, 0.0))], ""),
        ([state(1.0, {"w": (1.0, 0.0), "b": (0.0, 0.0)}), state(2.0)], ""),  # of one of two
        ([state(1.0, (1e-9, 0.0), (1e-9, 0.0)), state(2.0)], "in all 2 cases"),  # to rounding
        ([state(1.0), state(2.0, program=None)], ""),
        ([state(1.0), state(2.0, program=SimpleNamespace(last="", rules=True))], ""),
        ([state(1.0), state(2.0, program=SimpleNamespace(last="", stops=True))], ""),
        # A difference counts beyond twice the largest noise of a loss.
        ([state(1.0), state(2.0, noise=0.25)], "in all 2 cases"),
        ([state(1.0), state(2.0, noise=0.4)], "in all 2 cases"),
        ([state(1.0), state(2.0, noise=0.5)], ""),
        ([state(1.0, noise=0.5), state(2.0)], ""),
        ([state(1.0), state(2.0, noise=np.inf)], ""),
        ([state(1.0), state(2.0, raises=True)], ""),
        ([state(1.0), state(3.0), state(2.0, raises=True)], "in all 3 cases"),
        # Losses of two settings are two losses.
        ([state(1.0), state(2.0, setting=1)], ""),
        ([state(1.0), state(2.0, setting=1), state(3.0, setting=1)], "in all 3 cases"),
    ],
)  # fmt: skip
def test_steps_are_described_where_a_loss_differs_without_a_derivative(
    cases: list[Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = describe(monkeypatch, *cases, settings=2)
    assert isinstance(found, str)
    assert said in found
    assert bool(found) is bool(said)


# The loss beside its trace.


def square(p: Any, xp: Any) -> Any:
    return xp.sum(p["w"] ** 2)


@pytest.mark.parametrize(
    ("in_torch", "refusal", "rounds", "narrow"),
    [
        (True, None, True, True),
        (True, None, False, False),
        (True, "No case.", True, False),
        (False, None, True, False),
    ],
)
def test_a_model_of_torch_is_narrow_if_it_rounds_inside(
    in_torch: bool, refusal: str | None, rounds: bool, narrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_loss, "takes_tensors", lambda loss, trees: in_torch)
    monkeypatch.setattr(own_loss, "over_arrays", lambda loss, trees: loss)
    monkeypatch.setattr(own_loss, "describe_cut", lambda *given: None)
    monkeypatch.setattr(own_loss, "rounds_inside", lambda *given: rounds)
    monkeypatch.setattr(
        own_loss, "check_and_trace", lambda model, *given: model._replace(refusal=refusal)
    )
    assert prepare(square, PARAMS).narrow is narrow
    assert not OwnModel(square, (PARAMS,), 0).narrow


def test_a_loss_of_steps_has_no_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_loss, "is_rounded", lambda *given: True)
    found = use_differences(OwnModel(square, (PARAMS,), 0), "It prints.", 4, lambda *given: None)
    assert found.refusal is not None
    assert found.refusal.startswith("It prints. Its values make steps")


@pytest.mark.parametrize("settings", [1, 2, 3])
@pytest.mark.parametrize("cases", [1, 4, 5])
def test_settings_share_the_cases_and_the_first_has_the_more(
    settings: int, cases: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares, raising = list[int](), list[Callable[..., bool]]()

    class Select:
        def __init__(self, setting: Any) -> None:
            raising.append(setting.raises)

        def select(self, share: int, advance: Any) -> Any:
            shares.append(share)
            return SimpleNamespace(cases=(), left_out=Counter(), omitted={}, raising=())

    monkeypatch.setattr(own_loss, "Selector", Select)
    monkeypatch.setattr(own_loss, "trace_loss", lambda model, given: SimpleNamespace())
    monkeypatch.setattr(own_loss, "describe_places", lambda paths: "")
    monkeypatch.setattr(own_loss, "describe_left_out", lambda selections: ())

    def loss(p: Any, xp: Any) -> Any:
        if p["w"][0] < 0:
            raise ValueError("no")
        return xp.sum(p["w"])

    inside, outside = PARAMS, {"w": np.array([-1.0, 2.0])}
    given = (inside, *[outside] * (settings - 1))
    own_loss.trace_and_select(OwnModel(loss, given, 0), cases, lambda *given: None)
    assert len(shares) == settings
    assert sum(shares) == max(cases, settings)
    assert shares == sorted(shares, reverse=True)
    assert raising[0](outside) is True
    assert raising[0](inside) is False
    # Where the parameters given raise in NumPy, nothing is left out for that.
    assert all(each(outside) is False for each in raising[1:])


# The path at a point.


class OnePath:
    """The paths of a loss, of which one is known, or which fail."""

    def __init__(self, fails: BaseException | None = None) -> None:
        self.fails, self.asked = fails, list[Any]()
        self.known, self.keeps_zeros = (), False

    def follow(self, point: Any, *, limited: bool) -> Any:
        self.asked.append(limited)
        if isinstance(self.fails, KeyboardInterrupt):
            raise_signal(SIGINT)
        if self.fails is not None:
            raise self.fails
        return SimpleNamespace(path=SimpleNamespace(program="the program"), point=point)

    def retrace(self, point: Any, *, decisions: Any) -> Any:
        if self.fails is not None:
            raise self.fails
        return "retraced", decisions, point


def with_path(path: Any) -> OwnModel:
    return OwnModel(square, (PARAMS,), 0, paths=(path,))


def test_a_point_is_followed_though_no_further_path_is_traced() -> None:
    path = OnePath()
    narrow = {"w": np.ones(2, np.float32)}
    found: Any = with_path(path).follow(narrow, 0)
    assert found.point["w"].dtype == np.float64
    assert path.asked == [False]


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (ValueError("no"), CodeRaisedError, r"loss\(params, numpy\) raised ValueError: no"),
        (SystemExit(3), CodeRaisedError, "raised SystemExit: 3"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
@pytest.mark.usefixtures("interruptible")
def test_what_a_loss_raises_is_named_and_ctrl_c_ends_all(
    error: BaseException, raised: type[BaseException], said: str | None
) -> None:
    with pytest.raises(raised, match=said):
        with_path(OnePath(error)).follow(PARAMS, 0)


def test_decisions_that_a_loss_cannot_take_have_no_trace() -> None:
    model: Any = with_path(OnePath())
    assert model.retrace(PARAMS, 0, "decided")[:2] == ("retraced", "decided")
    assert with_path(OnePath(ValueError("no"))).retrace(PARAMS, 0, ()) is None  # type: ignore[arg-type]


def test_a_path_is_followed_where_none_or_several_are_known() -> None:
    model: Any = with_path(OnePath())
    assert model.find_program(PARAMS, 0) == "the program"
