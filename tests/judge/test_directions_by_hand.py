"""Parts of the judgement of forward modes and Hessians, without a stated function to trace."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from bptt_verifier.judge import directions
from bptt_verifier.judge.directions import (
    CurvatureJudgement,
    DirectionCalls,
    DirectionJudgement,
    PushforwardJudgement,
    assert_hvp_verified,
    assert_jvp_verified,
    explain,
    join,
    list_wrong_directions,
    read_direction,
    read_tangents,
)
from bptt_verifier.judge.kernel_cases import KernelCase
from bptt_verifier.judge.kernel_comparisons import Found
from bptt_verifier.program.arguments import read_arguments
from bptt_verifier.reference.pushforwards import Curvature
from bptt_verifier.report import Mistake
from tests.support.measurements import make_measurement, make_slices

OUTPUTS = {"y": np.ones(2), "z": np.ones((1, 2))}
Y, Z = np.array([1.0, 2]), np.array([[3.0, 4]])
READ = {"tangent of y": Y.tolist(), "tangent of z": Z.tolist()}


def read(result: Any, outputs: Any = OUTPUTS) -> Any:
    return {name: value.tolist() for name, value in read_tangents(result, outputs).items()}


def test_tangents_are_read_by_name_or_in_order() -> None:
    assert read({"z": Z, "y": Y}) == read((Y, Z)) == READ
    one = {"y": OUTPUTS["y"]}
    for wrapped in (Y, (Y,), {"other": Y}):
        assert read(wrapped, one) == {"tangent of y": Y.tolist()}
    tangents = read_tangents(Y, one)
    assert tangents["tangent of y"] is not Y


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"y": Y}, r"z: expected shape \(1, 2\), found None"),
        ({"y": Y, "w": Z}, r"z: expected shape \(1, 2\), found None"),
        ((Y, Y), r"z: expected shape \(1, 2\), found \(2,\)"),
        ((Z,), r"y: expected shape \(2,\), found None"),
        ((Y, Z, Z), r"y: expected shape \(2,\), found None"),
    ],
    ids=["one is missing", "another name", "another shape", "one alone", "too many"],
)
def test_tangents_that_do_not_fit_are_refused(result: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"^the tangent of {said}$"):
        read(result)


def calls_of(function: Any, pullback: Any = None) -> Any:
    arguments = read_arguments((Y, np.array([1, 2])))
    pullback = pullback or SimpleNamespace(computed=OUTPUTS, results={"tangent of y": Y})
    pullback.arguments = arguments
    return DirectionCalls(function, pullback)


def test_a_function_gets_a_direction_in_the_structure_of_the_arguments() -> None:
    given: list[Any] = []

    def function(arguments: Any, direction: Any) -> Any:
        given.append(direction)
        return {"y": 2 * direction[0], "z": Z}

    calls = calls_of(function)
    assert calls.results == {"tangent of y": Y}
    point, along = {"arguments[0]": Y}, {"arguments[0]": 3 * Y}
    found = calls.ask(point, along)
    assert found["tangent of y"].tolist() == [6, 12]
    assert calls.call_once(point, along)["y"].tolist() == [6, 12]
    assert [each.tolist() for each in given[0]] == [[3, 6], [1, 2]]
    failing = calls_of(lambda *_: 1 / 0)
    found = failing.call_once(point, along)
    assert (found.name, found.details) == ("raised", {"exception": "ZeroDivisionError"})
    assert found.explanation.startswith(
        "your function raised ZeroDivisionError: division by zero. It"
    )


def test_products_with_a_hessian_are_read_as_gradients_are() -> None:
    curved: Any = type("Curved", (Curvature,), {})
    curved.__abstractmethods__ = frozenset()
    calls = calls_of(lambda *_: None, pullback=object.__new__(curved))
    assert [*calls.read((Z[0], None))] == ["R{arguments[0]}"]


def test_a_direction_has_the_structure_of_the_arguments() -> None:
    arguments = read_arguments((Y, Z))
    assert read_direction((Y, Z), arguments)["arguments[1]"].tolist() == Z.tolist()
    with pytest.raises(
        ValueError, match=r"^direction: expected the structure and shapes of the arg"
    ):
        read_direction((Y, Y), arguments)


# Words.

RIGHT, ZERO = (
    make_measurement([0.0])._replace(slices=(make_slices(None, [0.0], limit=limit),))
    for limit in (0.01, np.inf)
)
WRONG = make_measurement([9.0])


def find(setting: int = 0, **results: Any) -> Found:
    case = KernelCase(setting, 0, {"x": Y}, {"x": Y, "s": Z})
    numbers: Any = dict.fromkeys(results, np.ones((2, 1)))
    return Found(case, numbers, numbers, results, {})


def judgement_of(found: Any) -> Any:
    judgement: Any = object.__new__(DirectionJudgement)
    judgement.every, judgement.found, judgement.tests = "every", found, 5
    return judgement


def test_what_would_have_been_seen_is_said_of_right_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directions, "describe_resolution", lambda found: f"gradient {len(found)}")
    cases = [find(**{"tangent of y": RIGHT}), find(**{"tangent of y": WRONG})]
    assert [*judgement_of(cases).describe()] == ["result 1"]
    assert [*judgement_of(cases[1:]).describe()] == []
    both = find(**{"tangent of y": RIGHT, "R{w}": ZERO})
    (_, zeros) = judgement_of([both]).describe()
    assert zeros == f"Zero, to rounding, in all cases: {join(['R{w}'])}; yours must be, too."


def test_a_finding_speaks_of_tangents_and_products() -> None:
    def reword(said: str) -> str:
        found: str = judgement_of([]).reword(Mistake("", said, {})).explanation
        return found

    assert reword("the gradient for tangent of y changes") == "the tangent of y changes"
    assert reword("the gradient for R{w} changes") == "R{w} changes"


def test_all_cases_are_there_where_wrong_ones_are_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(directions, "explain", lambda *given: given)
    right, wrong = find(**{"tangent of y": RIGHT}), find(**{"tangent of y": WRONG})
    assert judgement_of([right, wrong]).explain() == ("every", [right, wrong], 5)


# What is wrong.


class Judged:
    """A function that is asked once and twice along its direction, and wrong directions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer: Any = lambda along: {"y": along["x"], "z": along["s"]}
        self.moving: list[str] = []
        self.asked, self.directions = list[Any](), list[Any]()
        self.names: Any = lambda name: ("kind", "it is wrong")
        self.pullback: Any = None
        monkeypatch.setattr(directions, "list_wrong_directions", lambda *_: self.moving)
        monkeypatch.setattr(directions, "name_gradient", self.name)

    def name(self, name: str, known: Any, every: Any) -> Any:
        settings = [[each.case.setting for each in cases] for cases in known[:2]]
        self.asked.append((name, *settings))
        return self.names(name)

    def ask(self, point: Any, along: Any) -> Any:
        self.directions.append(along["x"].tolist())
        return self.answer(along)

    def explain(self, *found: Found) -> Any:
        never: Any = SimpleNamespace(ask=None)
        return explain([never, self] * 2, found, 5)  # type: ignore[list-item]


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Judged:
    return Judged(monkeypatch)


ONE = find(1, **{"tangent of y": WRONG, "tangent of z": RIGHT})
TWO = find(3, **{"tangent of y": WRONG, "tangent of z": WRONG})


def test_results_with_the_same_mistake_are_named_together(judged: Judged) -> None:
    right = find(3, **{"tangent of y": RIGHT, "tangent of z": RIGHT})
    (mistake,) = judged.explain(right, ONE, TWO)
    assert judged.asked == [("tangent of y", [1, 3], [3]), ("tangent of z", [3], [3])]
    assert judged.directions == [[1, 2], [2, 4]]
    names = ["tangent of y", "tangent of z"]
    assert (mistake.name, mistake.details) == ("kind", {"results": names, "moving": []})
    assert mistake.explanation == f"in {join(names)}, it is wrong."
    judged.names = lambda name: (name, "it is wrong")
    assert len(judged.explain(ONE, TWO)) == 2


def test_the_arguments_whose_direction_alone_is_wrong_are_named(judged: Judged) -> None:
    for moving, said in ((["x"], " where x moves."), (["x", "s"], "wrong."), ([], "wrong.")):
        judged.moving = moving
        (mistake,) = judged.explain(ONE)
        assert mistake.explanation.endswith(said)
        assert mistake.details["moving"] == moving


def test_a_penalty_is_looked_for_in_products_with_the_hessian_alone(
    judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Any]()
    penalty: Any = ("weight-decay", "it lacks a penalty")

    def look(name: str, cases: Any, every: Any) -> Any:
        asked.append((name, [each.case.setting for each in cases]))
        return penalty

    monkeypatch.setattr(directions, "find_penalty", look)
    right = find(3, **{"tangent of y": RIGHT})
    assert judged.explain(right, ONE)[0].name == "kind"
    assert not asked
    judged.pullback = Mock(spec=Curvature)
    assert judged.explain(right, ONE)[0].name == "weight-decay"
    assert asked == [("tangent of y", [1])]
    penalty = None
    assert judged.explain(right, ONE)[0].name == "kind"


@pytest.mark.parametrize(
    ("change", "linear"),
    [(0.0, True), (0.9 * 2.0**-6, True), (2.0**-5, False), (-(2.0**-5), False)],
)
def test_twice_the_direction_gives_twice_the_result(
    judged: Judged, change: float, linear: bool
) -> None:
    def answer(along: Any) -> Any:
        factor = 1 + change * (along["x"][0] == 2)
        return {"z": along["s"], "y": along["x"] * np.array([1, factor])}

    judged.answer = answer
    (mistake,) = judged.explain(ONE)
    assert (mistake.name == "kind") == linear
    if not linear:
        assert mistake.name == "not-linear-in-direction"
        assert mistake.details == {"results": ["tangent of y"]}
        said = "twice the direction does not give twice the result."
        assert mistake.explanation == f"{join(['tangent of y'])}: {said}"


@pytest.mark.parametrize("failing", [1.0, 2.0])
def test_an_answer_that_is_missing_is_not_asked_to_be_linear(
    judged: Judged, failing: float
) -> None:
    def answer(along: Any) -> Any:
        found = along["x"][0] == failing
        return Mistake("raised", "", {}) if found else {"y": np.ones(2)}

    judged.answer = answer
    assert judged.explain(ONE)[0].name == "kind"


def test_each_argument_is_moved_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Any]()

    def compare(calls: Any, case: Any, tests: int, seed: int) -> Any:
        asked.append({name: value.tolist() for name, value in case.cotangents.items()})
        assert (tests, seed) == (5, 0)
        if case.cotangents["s"].any():
            return Mistake("raised", "", {})
        return ONE if case.cotangents["x"].any() else find(w=RIGHT)

    monkeypatch.setattr(directions, "compare_kernel", compare)
    case = KernelCase(0, 0, {}, {"x": Y, "s": Z, "b": Y[:1] * 0})
    calls: Any = None
    assert list_wrong_directions(calls, case, 5) == ["x", "s"]
    assert asked[0] == {"x": [1, 2], "s": [[0, 0]], "b": [0]}
    assert asked[1] == {"x": [0, 0], "s": [[3, 4]], "b": [0]}


# Entry points.


class Noted:
    """The judgement in the place of both, which notes what it is given."""

    given: tuple[Any, ...] = ()

    def __init__(self, *given: Any) -> None:
        Noted.given = given

    def judge(self) -> Any:
        return "report"


def own(arguments: Any, direction: Any) -> Any:
    return direction


def stated(x: Any) -> Any:
    return x


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("prepare_pushforward", "prepare_curvature"):
        prepared = SimpleNamespace(arguments=read_arguments((Y,)), name=name)
        monkeypatch.setattr(directions, name, lambda stated, given, prepared=prepared: prepared)
    monkeypatch.setattr(directions, "add_origin", lambda *given: given)


@pytest.mark.parametrize(
    ("verify", "judgement", "names"),
    [
        ("verify_jvp", "PushforwardJudgement", ("jvp", "forward")),
        ("verify_hvp", "CurvatureJudgement", ("hvp", "loss")),
    ],
)
def test_what_is_given_is_judged_and_written(
    monkeypatch: pytest.MonkeyPatch, noted: None, verify: Any, judgement: str, names: Any
) -> None:
    kind, verify = type("Kind", (Noted,), {}), getattr(directions, verify)
    monkeypatch.setattr(directions, judgement, kind)
    report: Any = verify(own, stated, (Y,))
    assert report == ("report", verify, ["own", "stated", "arguments"], {"cases": 3}, 0)
    name, every, given, cases, seed = Noted.given
    assert (name, given, cases, seed) == ("own", None, 3, 0)
    (calls,) = every
    assert isinstance(calls, DirectionCalls)
    assert calls.pullback.name.endswith("forward" if "Push" in judgement else "curvature")  # type: ignore[attr-defined]
    report = verify(own, stated, (Y,), direction=(2 * Y,), cases=1, seed=4, subject="mine")
    assert report[2:] == (["own", "stated", "arguments", "direction=direction"], {"cases": 1}, 4)
    assert Noted.given[0] == "mine"
    assert Noted.given[2]["x" if "x" in Noted.given[2] else "arguments[0]"].tolist() == [2, 4]
    for k, said in enumerate(names):
        functions: Any = [own, stated]
        functions[k] = 3
        with pytest.raises(TypeError, match=f"^{said}:"):
            verify(*functions, (Y,))
    with pytest.raises(ValueError, match="cases"):
        verify(own, stated, (Y,), cases=0)


@pytest.mark.parametrize("name", ["jvp", "hvp"])
def test_the_report_is_returned_where_it_agrees(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    require: Any = {"jvp": assert_jvp_verified, "hvp": assert_hvp_verified}[name]
    monkeypatch.setattr(directions, f"verify_{name}", lambda *given, **options: (given, options))
    monkeypatch.setattr(directions, "require_agreement", lambda report: report)
    assert require(own, stated, (), seed=2) == ((own, stated, ()), {"seed": 2})

    def disagree(*given: Any, **options: Any) -> Any:
        raise ValueError("it disagrees")

    monkeypatch.setattr(directions, f"verify_{name}", disagree)
    with pytest.raises(ValueError, match="it disagrees") as caught:
        require(own, stated, ())
    hidden = [entry.name for entry in caught.traceback if entry.ishidden(caught)]
    assert hidden == [f"assert_{name}_verified"]
    assert PushforwardJudgement.call != CurvatureJudgement.call
