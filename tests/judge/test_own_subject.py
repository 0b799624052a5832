"""The user's own model as a subject: its cases, its messages, and what is shown of a failure."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import own_model
from bptt_verifier.judge.own_model import OwnSubject
from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.mistakes import own_models
from bptt_verifier.program.fixed_points import Iteration
from bptt_verifier.program.leaves import flatten
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.source_lines import Place
from bptt_verifier.reference.case import Case
from bptt_verifier.reference.points import Point
from bptt_verifier.tolerance.comparison import Comparison

PARAMS = {"W": np.ones((2, 3)), "b": np.ones(3, np.float32)}


def case(number: int, dtype: Any = np.float64, label: str = "case") -> Case:
    arguments = {name: value.astype(dtype) for name, value in PARAMS.items()}
    return Case(f"{label} {number}", arguments, Point(number), None)


def subject(gradients: Any = None, **changed: Any) -> OwnSubject:
    model = {
        "cases": (case(0), case(1)), "params": (PARAMS,), "trees": (flatten(PARAMS),), "notes": (),
        "refusal": None,
        "doubt": None, "zeros": frozenset(), "losses_differ": False, "seed": 7,
        "loss_raised": False, "in_torch": False,
        "find_program": lambda params, setting: "program",
        "loss": lambda params: 0.0, "narrow": False, "black_box": None,
    }  # fmt: skip
    return OwnSubject(SimpleNamespace(**(model | changed)), gradients)


def test_a_call_has_copies_and_sees_what_becomes_of_them() -> None:
    given = case(0)
    call = subject().call(given)
    (params,) = call.arguments
    params["W"] += 1
    del params["b"]
    assert list(call.arrays()) == ["W"]
    assert (given.arguments["W"] == 1).all()


def test_gradients_have_the_shapes_of_the_parameters_and_integers_the_finest_dtype() -> None:
    mixed = Case("", PARAMS, Point(0), None)
    expected = subject().expect(mixed)
    assert expected.names == ("W", "b")
    assert expected.shapes == {"loss": (), "W": (2, 3), "b": (3,)}
    assert expected.dtype == np.float64


def test_the_contract_is_tried_at_the_parameters_given() -> None:
    def points(**changed: Any) -> list[Any]:
        return [
            (each.label, each.point.number) for each in subject(**changed).draw_contract_cases()
        ]

    given = [("case 0", 0)]
    fallback = [("the parameters given", 0)]
    assert points() == given
    assert points(cases=(case(1),)) == fallback
    assert points(refusal="why") == fallback
    assert points(refusal="why", losses_differ=True) == given


def test_a_failure_is_described_by_the_line_that_repeats_it() -> None:
    for label, digits, written in [("case", None, ""), ("simple case", 1, ",digits=1")]:
        of_point = case(5, label=label)._replace(point=Point(5, digits=digits))
        assert of_point.point.label == f"{label} 5"
        failing = SimpleNamespace(case=of_point)
        assert subject().describe_sizes(failing) == f"{label} 5, W=(2, 3) b=(3,)"
        line = subject().reproduce(failing)
        call = f"compare_case(gradients, loss, params, '5{written}', seed=7)"
        assert line == f"from bptt_verifier import compare_case; print({call})"
        assert subject().write_case(failing) == f"5{written}"


def test_one_of_several_settings_is_named_by_its_place() -> None:
    of_setting = case(5)._replace(point=Point(5, setting=1))
    line = subject(params=(PARAMS, PARAMS)).reproduce(SimpleNamespace(case=of_setting))
    assert "'5,setting=2'" in line


def shrink(fails: Any, **changed: Any) -> Any:
    """The number, setting and digits of the simple case that is shown; None where there is none."""

    def attempt(tried: Any) -> Any:
        return None if tried[0] == 1 else SimpleNamespace(tried=tried, fails=fails(*tried))

    def make(point: Point) -> Any:
        return point.number, point.setting, point.digits

    given = case(0)._replace(point=Point(0, setting=len(changed.get("params", (0,))) - 1))
    failing: Any = SimpleNamespace(tried=None, fails=True, case=given)
    return subject(make_case=make, **changed).shrink(attempt, failing).tried


@pytest.mark.parametrize(
    ("first", "found"), [(3, (3, 0, 1)), (19, (19, 0, 1)), (20, None), (24, None)]
)
def test_the_first_simple_case_that_fails_is_shown(first: int, found: Any) -> None:
    assert shrink(lambda number, setting, digits: number >= first) == found


def test_values_of_two_decimals_are_tried_where_one_shows_nothing() -> None:
    assert shrink(lambda number, setting, digits: digits == 2) == (0, 0, 2)
    assert shrink(lambda number, setting, digits: digits == 2 and number > 4) is None


def test_a_smaller_setting_is_shown_if_it_fails_too() -> None:
    settings = [{"W": np.ones((size, size))} for size in (4, 2, 3, 1, 3)]
    assert shrink(lambda number, setting, digits: True, params=settings) == (0, 3, 1)
    assert shrink(lambda number, setting, digits: setting != 3, params=settings) == (0, 1, 1)
    # Two are tried, none of them as large as that of the failing case, and then this one.
    larger = [*settings[:4], {"W": np.ones((5, 5))}]
    assert shrink(lambda number, setting, digits: setting in (0, 2), params=larger) is None
    assert shrink(lambda *each: each[1] == 0, params=[settings[2], settings[4]]) is None
    assert shrink(lambda number, setting, digits: setting == 4, params=settings) == (0, 4, 1)
    assert shrink(lambda number, setting, digits: setting == 0, params=settings) is None


def test_the_witnesses_of_a_mistake_are_the_clearest_failures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(own_model, "diagnose", lambda program, witnesses, record: witnesses)
    special = list[int]()
    monkeypatch.setattr(
        own_model, "is_special", lambda own, found: found.case.point.number in special
    )

    def compared(each: Case) -> Any:
        return SimpleNamespace(
            case=each,
            comparisons=[],
            witness=lambda wide, params: (each.point.number, wide["b"].dtype, params["b"].dtype),
        )

    single, wide = np.dtype(np.float32), np.dtype(np.float64)
    cases = [case(0), case(2, np.float32), case(0, np.float32), case(3), case(1), case(4)]
    found: Any = subject().diagnose(None, [compared(each) for each in cases], [])
    assert found == [(3, wide, wide), (1, wide, wide), (4, wide, wide), (0, wide, wide)]
    found = subject().diagnose(None, [compared(each) for each in cases[:3]], [])
    assert found == [(0, wide, wide), (2, wide, single), (0, wide, single)]
    special += [3, 1]  # a value reaches a guard
    found = subject().diagnose(None, [compared(each) for each in cases], [])
    assert found == [(4, wide, wide), (0, wide, wide), (2, wide, single), (0, wide, single)]
    found = subject().diagnose(None, [compared(each) for each in cases[3:5]], [])
    assert found == [(3, wide, wide), (1, wide, wide)]


def diagnose_with(
    programs: dict[int, str | None], monkeypatch: pytest.MonkeyPatch
) -> tuple[str, list[int]]:
    """Who diagnoses which cases, where those of odd numbers have a setting of their own."""
    monkeypatch.setattr(own_model, "diagnose", lambda program, found, record: (program, found))
    monkeypatch.setattr(own_model, "diagnose_black_box", lambda found: ("differences", found))
    monkeypatch.setattr(own_model, "is_special", lambda own, found: False)
    cases: list[Any] = [
        SimpleNamespace(
            case=case(number)._replace(point=Point(number, setting=number % 2)),
            comparisons=[],
            witness=lambda wide, params, number=number: number,
        )
        for number in programs
    ]

    def find_program(params: Any, setting: int) -> Any:
        program = next(found)
        assert program == "differences" or program is None or str(setting) in program
        return program

    first = next(iter(programs)) % 2
    found = (programs[number] for number in programs if number % 2 == first)
    result: Any = subject(find_program=find_program).diagnose(None, cases, [])
    return result


def test_a_mistake_is_looked_for_in_one_setting_and_on_one_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    programs: dict[int, str | None] = {1: "1, a", 2: "0, a", 3: "1, b", 4: "0, b", 5: "1, a"}
    assert diagnose_with(programs, monkeypatch) == ("1, a", [1, 5])
    del programs[1]
    assert diagnose_with(programs, monkeypatch) == ("0, a", [2])
    assert diagnose_with({2: "0, a"}, monkeypatch) == ("0, a", [2])
    assert diagnose_with({4: None, 6: None}, monkeypatch) == ("differences", [4, 6])


def test_all_values_of_a_drawn_case_are_scaled_and_those_given_are_not() -> None:
    assert list(subject().scale_values(case(0), (0.5, 0.25))) == []
    drawn = Case("", PARAMS, Point(1), None)
    scaled = list(subject().scale_values(drawn, (0.5, 0.25)))
    for each, factor in zip(scaled, (0.5, 0.25), strict=True):
        assert {n: v.dtype for n, v in each.arguments.items()} == {"W": float, "b": np.float32}
        assert all((value == factor).all() for value in each.arguments.values())


def test_the_operations_of_a_function_are_recorded_and_none_without_one() -> None:
    params = {name: value.astype(float) for name, value in PARAMS.items()}
    gradients = lambda p: {"W": p["W"] * p["b"], "b": p["b"]}  # noqa: E731
    with use_float64():
        found = subject(gradients).record(0, params)
    names = [each.operation.name for each in found]
    assert names[-1] == "mul"
    assert found[-1].value.tolist() == np.ones((2, 3)).tolist()
    assert subject().record(0, params) == []


def test_an_iteration_is_where_a_step_ends_of_the_last_one_that_contains_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = [Place(__file__, line, 0, 0) for line in range(1, 5)]

    def describe(**places: list[Place]) -> str:
        every = {
            "one": Iteration(0, 4, 2),
            "two": Iteration(6, 10, 2),
            "both": Iteration(0, 20, 10),
        }
        known = {every[name]: where for name, where in places.items()}
        monkeypatch.setattr(own_model, "find_iterations", lambda program: [*known])
        monkeypatch.setattr(own_model, "find_place", lambda program, each: known[each])
        program = SimpleNamespace(operations=())
        own = subject(find_program=lambda params, setting: program)
        return own.describe_iteration(case(1))

    said = describe(one=lines[:1], two=lines[1:2], both=lines[2:])
    assert said == f" at `{lines[1].text}` ({lines[1]})"
    assert describe(both=lines[2:]) == f" at `{lines[2].text}` ({lines[2]})"
    assert describe(one=lines, two=[]) == ""  # where it is computed is not known
    assert describe() == ""


def test_no_iteration_is_known_of_a_loss_without_a_trace() -> None:
    black_box = subject(find_program=lambda params, setting: None)
    assert [*black_box.find_limits(case(1))] == []
    assert black_box.describe_iteration(case(1)) == ""


def test_a_subject_counts_its_cases() -> None:
    found = subject()
    assert found.total == 2
    assert found.draw_cases() is found.model.cases


@pytest.mark.rest
def test_a_search_for_a_name_that_fails_leaves_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Any:
        raise ValueError("shape mismatch")

    monkeypatch.setattr(OwnSubject, "diagnose", fail)
    params = {"w": np.array([0.5, 2.0])}
    report = verify_own_model(lambda p: {"w": p["w"]}, lambda p, xp: xp.sum(p["w"] ** 2), params)
    (mistake,) = report.mistakes
    assert mistake.name == "unknown"
    assert "search for a name raised ValueError: shape mismatch" in mistake.explanation


X, Y = np.random.default_rng(0).normal(size=(4, 5)), np.ones(2)


def compute_loss(params: Any) -> Any:
    h = np.zeros(2)
    for x in X:
        h = np.tanh(params["U"] @ x + params["W"] @ h)
    return ((h - Y) ** 2).sum()


def differentiate(params: Any, steps: tuple[int, ...] = (3, 2, 1, 0), later: int = 0) -> Any:
    """The gradients of these steps, with states of so many steps later in that of W."""
    states = [np.zeros(2)]
    for x in X:
        states.append(np.tanh(params["U"] @ x + params["W"] @ states[-1]))
    found = {name: np.zeros_like(value) for name, value in params.items()}
    dh = 2 * (states[-1] - Y)
    for t in steps:
        da = dh * (1 - states[t + 1] ** 2)
        found["U"] += np.outer(da, X[t])
        found["W"] += np.outer(da, states[t + later])
        dh = params["W"].T @ da
    return found


@pytest.mark.rest
def test_the_adjoints_that_wrong_gradients_imply_are_charted() -> None:
    params = {"U": np.full((2, 5), 0.3), "W": np.array([[0.5, -0.4], [0.3, 0.6]])}
    report = verify_own_model(
        partial(differentiate, steps=(3, 2, 1)), compute_loss, params, cases=2
    )
    (curve,) = report.curves
    assert curve.label == "implied by ∂L/∂U and ∂L/∂W"
    errors = zip(curve.relative_errors, curve.allowed, strict=True)
    assert [error > allowed for error, allowed in errors] == [True, False, False, False]
    assert report.steps == ()
    assert "implied by ∂L/∂U and ∂L/∂W" in report.to_html()


def test_the_terms_that_a_named_mistake_makes_wrong_are_charted() -> None:
    params = {"U": np.full((2, 5), 0.3), "W": np.array([[0.5, -0.4], [0.3, 0.6]])}
    report = verify_own_model(partial(differentiate, later=1), compute_loss, params, cases=2)
    assert [mistake.name for mistake in report.mistakes] == ["hidden-state-off-by-one"]
    (curve,) = report.curves
    assert curve.label == "∂L/∂W"
    assert min(curve.relative_errors) > curve.allowed[0]
    assert "Error of each term of a gradient, step by step" in report.to_html()
    assert "curves" not in report.to_dict()["mistake"]


@pytest.mark.rest
def test_a_chart_that_fails_costs_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Any:
        raise ValueError("shape mismatch")

    monkeypatch.setattr(own_models, "chart_terms", fail)

    def forget_slope(p: dict[str, Any]) -> dict[str, Any]:
        return {"U": np.outer(2 * np.tanh(p["U"] @ X[0]), X[0])}

    def loss(p: dict[str, Any]) -> Any:
        return (np.tanh(p["U"] @ X[0]) ** 2).sum()

    params = {"U": np.full((2, 5), 0.3)}
    report = verify_own_model(forget_slope, loss, params, cases=2)
    assert [mistake.name for mistake in report.mistakes] == ["activation-derivative-missing"]
    assert report.curves == ()


def compared(number: int, *wrong: str) -> Compared:
    """A case at which these gradients are wrong."""
    comparisons = [Comparison(name, 1e9, (0,), 1.0, 2.0, 1e-9, 1e-9) for name in wrong]
    return Compared(case(number), {}, {}, {}, {}, comparisons)


def test_each_wrong_gradient_is_wrong_in_a_case_that_a_name_must_explain() -> None:
    alike = [compared(number, "W") for number in range(6)]
    assert own_model.choose_witnesses(alike) == alike[:4]
    rare = compared(6, "W", "b")
    assert own_model.choose_witnesses([*alike, rare]) == [*alike[:3], rare]
    assert own_model.choose_witnesses([rare, *alike]) == [rare, *alike[:3]]


@pytest.mark.parametrize(
    ("dtypes", "finest"),
    [
        ((np.float32, np.float64, np.float16), np.float64), ((np.float16, np.float32), np.float32),
        ((), None),
    ],
)  # fmt: skip
def test_the_format_given_is_the_finest_of_the_parameters(dtypes: Any, finest: Any) -> None:
    given = {str(place): np.ones(1, dtype) for place, dtype in enumerate(dtypes)}
    assert subject(params=(given,)).format_given == finest


def test_what_was_drawn_in_float32_is_asked_in_the_formats_given() -> None:
    drawn = case(2, np.float32)
    found = subject().widen(drawn)
    assert found is not None
    assert {n: v.dtype for n, v in found.arguments.items()} == {"W": np.float64, "b": np.float32}
    assert found.point == drawn.point
    assert subject().widen(found) is None


def answered(number: int, *, fails: bool = False, near: bool = False) -> Any:
    """What was found at a case."""
    return SimpleNamespace(
        case=SimpleNamespace(point=Point(number, near)), fails=fails, agrees=not fails
    )


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        ("0, f1, f2, 3", "agree at the parameters given. They disagree at 2 of 3 cases"),
        ("0, n4, n5, f1", "given and at the 2 cases drawn near them. They disagree at 1 of 1"),
        ("0, 1, 2", None),
        ("f0, f1", None),
        ("0, f0, f1", None),  # in one of two settings
        ("0, fn4, n5, f1, 2", "given, and disagree at 2 of 4 other cases, also near them. A mis"),
        ("f0, fn4, f1", None),
        ("f1, f2", None),
        ("n4, f1", None),  # nothing is known of the parameters given
    ],
)
def test_gradients_that_agree_near_the_parameters_given_alone_may_be_meant_so(
    cases: str, said: str | None
) -> None:
    found = [
        answered(int(each.strip("fn")), fails="f" in each, near="n" in each)
        for each in cases.split(", ")
    ]
    described = [*subject().describe_failing(found)]
    assert len(described) == (said is not None)
    assert said is None or said in described[0]


@pytest.mark.parametrize(
    ("cases", "near"),
    [
        ("0, n4, f1", True),
        ("0, f1", False),
        ("n4, f1", False),
        ("0, n4, fn5, f1", False),
        ("f0, n4, f1", False),
    ],
)
def test_a_loss_without_a_trace_may_converge_near_the_parameters_given_alone(
    cases: str, near: bool
) -> None:
    found = [
        answered(int(each.strip("fn")), fails="f" in each, near="n" in each)
        for each in cases.split(", ")
    ]
    doubts = subject(black_box="box").doubt_far(found)
    assert len(doubts) == near
    assert all("at the 1 case drawn near them" in said for said in doubts)
    assert subject().doubt_far(found) == []


def test_a_chart_is_of_the_first_drawn_case_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_model, "chart_adjoints", lambda program, witness: (program, witness))

    def failing(number: int, dtype: Any = np.float64) -> Any:
        return SimpleNamespace(case=case(number, dtype), witness=lambda wide, params: number)

    cases = [failing(0), failing(2, np.float32), failing(3), failing(4)]

    def chart(cases: Any, **changed: Any) -> Any:
        return subject(**changed).chart_steps(cases)

    assert chart(cases) == ("program", 3)
    assert chart(cases[:2]) == ("program", 0)
    assert chart(cases, find_program=lambda params, setting: None) == ()


def test_none_as_the_gradient_of_a_tensor_that_is_not_used_is_zero() -> None:
    given, shapes = {"W": np.ones((2, 3)), "b": None}, {"W": (2, 3), "b": (3,)}
    expected = subject(in_torch=True).expect(Case("", PARAMS, Point(0), None))
    assert expected.read is not None
    read = expected.read(given)
    assert read["W"] is given["W"]
    assert read["b"].tolist() == [0, 0, 0]
    loss, read = own_model.read_unused(lambda result: result, shapes, (1.5, given))
    assert loss == 1.5
    assert read["b"].tolist() == [0, 0, 0]
    # What is no gradient of a parameter, or no mapping, is left to whoever reads it next.
    assert own_model.read_unused(lambda result: result, shapes, {"v": None}) == {"v": None}
    for other in ((given, given, given), [1.0, 2.0], None):
        assert own_model.read_unused(lambda result: result, shapes, other) is other


def test_a_submission_that_takes_tensors_is_recorded_over_arrays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(own_model, "record", lambda function, params: (function, params))
    monkeypatch.setattr(own_model, "over_arrays", lambda function, trees: (function, trees))
    tree: Any = SimpleNamespace(tensors=True)
    given = {"W": np.ones(1)}
    found: Any = own_model.record_submission(len, tree, given)
    assert found == ((len, [tree]), given)
