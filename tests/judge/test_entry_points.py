"""Entry points: what they refuse, what they hand on to the judge, and the call that they write."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import own_model
from bptt_verifier.judge import verify as entry
from bptt_verifier.judge.cells import CellSubject
from bptt_verifier.judge.verify import (
    add_origin,
    assert_own_model_verified,
    assert_verified,
    find_name,
    require_agreement,
    require_function,
    require_time,
    verify,
    verify_own_model,
)
from bptt_verifier.problems.extremes import SMALL
from bptt_verifier.reference import own_loss
from bptt_verifier.reference.case import CASES
from bptt_verifier.report import DerivationError, Report
from bptt_verifier.tolerance.comparison import Verdict


def gradients(params: Any, x: Any, y: Any, h0: Any) -> Any:
    return params


def loss(params: Any) -> Any:
    return params


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the judge is given, in the place of a verdict."""
    given: list[Any] = []

    def judge(*arguments: Any) -> Report:
        given.append(arguments)
        return Report("", Verdict.AGREES)

    monkeypatch.setattr(entry, "judge", judge)
    return given


def test_a_derivation_is_judged_by_its_options(judged: list[Any]) -> None:
    report = verify(gradients)
    ((function, cell, name, progress, timeout),) = judged
    assert function is gradients
    assert (name, timeout, progress(1, 2)) == ("gradients", None, None)
    assert (cell.cell, cell.option, cell.loss, cell.bias) == ("rnn", "tanh", "mse", False)
    assert (cell.examples, cell.seed, cell.sizes, cell.workers) == (200, 0, (), 1)
    assert cell.states.in_order == ("h0",)
    assert report.command == "verify(gradients, seed=0)"
    assert report.options == {
        "model": "rnn", "activation": "tanh", "reset": "after", "loss": "mse", "bias": False,
        "sizes": [], "examples": 200,
    }  # fmt: skip


def test_programs_are_loaded_before_the_judge_begins(
    judged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CellSubject, "load_programs", lambda cell: judged.append("loaded"))
    verify(gradients)
    assert judged[0] == "loaded"
    assert len(judged) == 2


def test_every_option_is_handed_on_and_written(judged: list[Any]) -> None:
    report = verify(
        gradients, model="gru", reset="before", loss="half_sse", bias=True, sizes=[{"T": 50}],
        examples=3, seed=4, workers=2, timeout=1.5, subject="mine",
    )  # fmt: skip
    ((_, cell, name, _, timeout),) = judged
    assert (name, timeout) == ("mine", 1.5)
    assert (cell.cell, cell.option, cell.loss, cell.bias) == ("gru", "before", "half_sse", True)
    assert (cell.examples, cell.seed, cell.workers) == (3, 4, 2)
    assert cell.sizes == (SMALL._replace(T=50),)
    assert report.command == (
        "verify(gradients, model='gru', reset='before', loss='half_sse', bias=True, "
        "sizes=[{'T': 50}], examples=3, seed=4)"
    )
    verify(gradients, model="lstm")
    assert (judged[1][1].cell, judged[1][1].option) == ("lstm", "")
    verify(gradients, activation="relu")
    assert judged[2][1].option == "relu"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "cnn"}, "model: expected one of rnn, lstm, gru, found 'cnn'"),
        ({"loss": "max"}, "loss: expected one of"),
        ({"reset": "never"}, "reset: expected one of"),
        ({"activation": "swish"}, "activation: expected one of tanh, "),
        ({"model": "lstm", "activation": "relu"}, "activation: expected one of tanh, found 'relu'"),
        ({"examples": 0}, "examples: "),
        ({"seed": -1}, "seed: "),
        ({"workers": 0}, "workers: "),
        ({"timeout": -1}, "timeout: expected seconds from 0, or None, found -1"),
        ({"sizes": [{"Q": 1}]}, "sizes: "),
    ],
)
def test_options_that_are_none_are_refused(judged: list[Any], options: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        verify(gradients, **options)
    assert judged == []


def test_the_least_examples_seeds_workers_and_seconds_are_taken(judged: list[Any]) -> None:
    verify(gradients, examples=1, seed=0, workers=1, timeout=0)
    assert len(judged) == 1


def test_an_own_model_is_judged_at_its_cases(
    judged: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[Any] = []

    def prepare(*given: Any, **options: Any) -> Any:
        prepared.append((given, options))
        return "model"

    monkeypatch.setattr(own_loss, "prepare", prepare)
    monkeypatch.setattr(own_model, "OwnSubject", lambda *given: given)
    params = {"W": np.ones(2)}
    report = verify_own_model(gradients, loss, params)
    ((given, options),) = prepared
    assert given == (loss, params)
    assert (options["seed"], options["cases"], options["progress"](1, 2)) == (0, CASES, None)
    function, own, name, progress, timeout = judged[0]
    asked = "model", gradients, loss
    assert (function, own, name, timeout) == (gradients, asked, "your model", None)
    assert progress is options["progress"]
    assert report.command == "verify_own_model(gradients, loss, params, seed=0)"
    report = verify_own_model(gradients, loss, params, cases=2, seed=3, subject="mine")
    assert (prepared[1][1]["seed"], prepared[1][1]["cases"], judged[1][2]) == (3, 2, "mine")
    assert report.command == "verify_own_model(gradients, loss, params, cases=2, seed=3)"
    with pytest.raises(TypeError, match=r"^gradients: expected a function, found int"):
        verify_own_model(3, loss, params)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^timeout: "):
        verify_own_model(gradients, loss, params, timeout=-1)


def test_what_is_no_function_and_no_time_is_refused() -> None:
    require_function(len)
    with pytest.raises(TypeError, match=r"^gradients: expected a function, found list"):
        require_function([])
    with pytest.raises(TypeError, match=r"^forward: expected a function, found NoneType"):
        require_function(None, "forward")
    with pytest.raises(TypeError, match=r"^gradients:"):
        verify(3)  # type: ignore[arg-type]
    for time in (None, 0, 0.0, 2.5):
        require_time(time)
    for other in (True, False, "1", -0.1):
        with pytest.raises(ValueError, match="timeout: expected seconds from 0, or None, found"):
            require_time(other)


def test_a_function_has_its_name_or_that_of_its_kernel() -> None:
    class Raising:
        def __getattr__(self, name: str) -> Any:
            raise OSError(name)

    assert find_name(gradients) == "gradients"
    named: Any = SimpleNamespace(name="my kernel")
    assert find_name(named) == "my kernel"
    both: Any = SimpleNamespace(__name__="own", name="my kernel")
    assert find_name(both) == "own"
    for nameless in (SimpleNamespace(name=3), Raising()):
        each: Any = nameless
        assert find_name(each) == "your derivation"
        assert find_name(each, "your kernel") == "your kernel"


def take(first: Any, second: Any, *, cases: int = 3, sizes: Any = (), limit: Any = None) -> Any:
    return first


def test_the_call_has_what_differs_from_the_defaults() -> None:
    def write(arguments: list[str], **options: Any) -> str:
        return add_origin(Report("", Verdict.AGREES), take, arguments, options, 5).command

    assert write(["a", "b"]) == "take(a, b, seed=5)"
    assert write(["<lambda>", "b c"]) == "take(first, second, seed=5)"
    assert write(["a", "b", "cotangents=c"]) == "take(a, b, cotangents=c, seed=5)"
    assert write(["a"], cases=3, sizes=[], limit=0) == "take(a, seed=5)"
    assert (
        write(["a"], cases=0, sizes=[1], limit=2) == "take(a, cases=0, sizes=[1], limit=2, seed=5)"
    )
    report = add_origin(Report("", Verdict.AGREES), take, ["a"], {"cases": 3}, 5)
    assert (report.seed, report.options) == (5, {"cases": 3})
    assert report.versions


@pytest.mark.parametrize("verdict", [Verdict.DISAGREES, Verdict.INCONCLUSIVE])
def test_a_report_that_does_not_agree_is_raised(verdict: Verdict) -> None:
    right, report = Report("", Verdict.AGREES), Report("", verdict)
    assert require_agreement(right) is right
    with pytest.raises(DerivationError) as caught:
        require_agreement(report)
    assert caught.value.report is report


@pytest.mark.parametrize("name", ["verify", "verify_own_model"])
def test_a_traceback_ends_where_the_user_calls(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asserts: Any = {"verify": assert_verified, "verify_own_model": assert_own_model_verified}[name]
    places = (gradients,) if name == "verify" else (gradients, loss, {})
    report = Report("", Verdict.AGREES)
    monkeypatch.setattr(entry, name, lambda *given, **options: report)
    assert asserts(*places, seed=1) is report
    monkeypatch.setattr(entry, name, lambda *given, **options: Report("", Verdict.DISAGREES))
    with pytest.raises(DerivationError) as caught:
        asserts(*places)
    hidden = [each.name for each in caught.traceback if each.ishidden(caught)]
    assert hidden == [asserts.__name__, "require_agreement"]
