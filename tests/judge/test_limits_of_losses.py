"""What the user's own model as a subject knows of iterations, guards and solvers in its loss."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import own_model
from bptt_verifier.judge.own_model import OwnSubject
from bptt_verifier.program.source_lines import Place
from bptt_verifier.reference.case import Case
from bptt_verifier.reference.points import Point

PARAMS = {"w": np.ones(2)}


def case(number: int = 1, value: float = 1.0) -> Any:
    return Case("a case", {"w": np.full(2, value, np.float32)}, Point(number), None)


def place(line: int) -> tuple[Place, ...]:
    return (Place(__file__, line, 0, 0),)


class Operation:
    def __init__(self, line: int) -> None:
        self.where = place(line) if line else ()


def program(*lines: int, decided: Any = ()) -> Any:
    """A program whose operations are at these lines; 0 stands for none."""
    return SimpleNamespace(operations=[Operation(line) for line in lines], decided=decided)


def loop(start: int, end: int) -> Any:
    return SimpleNamespace(start=start, end=end)


def subject(found: Any = None, **changed: Any) -> Any:
    """A subject whose loss has this program at every point."""
    model = {
        "cases": (), "params": (PARAMS,), "trees": (), "notes": (), "refusal": None, "doubt": None,
        "zeros": frozenset(), "loss_raised": False, "narrow": False, "black_box": None,
        "loss": lambda params: 0.0, "find_program": lambda params, setting: found, "paths": (),
    }  # fmt: skip
    return OwnSubject(SimpleNamespace(**(model | changed)))


def test_a_subject_knows_nothing_before_it_is_asked() -> None:
    fresh = subject()
    assert (fresh.limits, fresh.longer, fresh.iterations) == ({}, {}, {})
    assert (fresh.endings, fresh.patient, fresh.precision) == ({}, False, None)
    assert fresh.without[0] == 0
    assert subject(narrow=True).precision == np.float32


@pytest.mark.parametrize(("number", "outside"), [(0, False), (1, True), (2, True)])
def test_all_but_the_parameters_given_may_be_outside(number: int, outside: bool) -> None:
    assert subject().may_be_outside(case(number)) is outside


@pytest.mark.parametrize("arrays", [False, True])
def test_numbers_may_be_data_where_parameters_are_no_arrays(arrays: bool) -> None:
    tree = SimpleNamespace(arrays=arrays, numbers=("lam",), read=None, paths={})
    known = subject(trees=(tree,), in_torch=False)
    assert known.expect(case()).numbers == (() if arrays else ("lam",))


@pytest.mark.parametrize(
    ("loss", "namespace", "of_calls", "followed"),
    [
        (abs, False, False, True),
        (None, False, False, False),
        (abs, True, False, False),
        (abs, False, True, False),
    ],
)
def test_a_loss_is_called_first_that_is_the_users_own_in_plain_numpy(
    loss: Any, namespace: bool, of_calls: bool, followed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_model, "follow_loss", lambda *given: given)
    known = subject(in_numpy=not namespace)
    known.loss, known.gradients = (
        loss,
        SimpleNamespace(**{own_model.OF_CALLS: 1} if of_calls else {}),
    )
    one = case()
    found = known.follow_loss("submission", one, "answer")
    assert found == (("submission", known, loss, one, "answer") if followed else None)


# A solver in a loss without a trace.


@pytest.mark.parametrize(
    ("error", "rough", "left"),
    [
        (2.0**-20, (), True),
        (2.0**-20 * 1.01, (), False),
        (2.0**-20 * 1.01, (1.0,), True),
        (2.0**-20 * 1.01, (2.0,), True),
        (2.0**-20 * 1.01, (3.0,), False),  # two points are asked
        (2.0**-10, (1.0,), True),
        (2.0**-10 * 1.01, (1.0, 2.0), False),
        (np.nan, (1.0, 2.0), False),
    ],
)
def test_a_solver_leaves_more_where_the_loss_jumps(
    error: float, rough: Sequence[float], left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = SimpleNamespace(loss="the loss")

    def is_rough(loss: Any, point: Any) -> bool:
        assert loss == "the loss"
        assert point["w"].dtype == np.float64
        if point["w"][0] == 2.0 and 2.0 not in rough:
            raise ValueError("no")  # which says nothing
        return point["w"][0] in rough

    monkeypatch.setattr(own_model, "is_rough", is_rough)
    cases = [case(value=value) for value in (1.0, 2.0, 3.0)]
    assert subject(black_box=box).may_leave(cases, error) is left
    assert subject().may_leave(cases, 0.0) is False


def test_autodiff_is_asked_beside_differences_where_it_has_a_trace() -> None:
    def follow(arguments: Any, setting: int) -> Any:
        if arguments["w"][0] == 2:
            raise ValueError("no")
        return SimpleNamespace(slopes={"w": [1.0, 2.0]})

    traced = subject(black_box="box", paths=("path",), follow=follow)
    found = traced.differentiate_traced(case())
    assert isinstance(found["w"], np.ndarray)
    assert found["w"].tolist() == [1, 2]
    assert traced.differentiate_traced(case(value=2.0)) == {}
    for other in (
        subject(black_box="box", follow=follow),
        subject(paths=("path",), follow=follow),
        subject(),
    ):
        assert other.differentiate_traced(case()) == {}


# Iterations.


def watch_iterations(monkeypatch: pytest.MonkeyPatch, *loops: Any) -> list[Any]:
    """Make the search for iterations find these; return the programs that are searched."""
    searched = list[Any]()

    def find(program: Any) -> list[Any]:
        searched.append(program)
        return [*loops]

    monkeypatch.setattr(own_model, "find_iterations", find)
    return searched


def test_the_iterations_of_a_program_are_sought_once(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = program(1, 2, 0, 3, 4)
    searched = watch_iterations(monkeypatch, loop(1, 4))
    known = subject(steps)
    for _ in range(2):
        assert known.find_iterations(case()) == (steps, [loop(1, 4)])
    assert searched == [steps]
    assert known.iterated == {place(2), place(3)}
    assert subject().find_iterations(case()) == (None, [])


def test_operations_of_iterations_are_known_by_their_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch_iterations(monkeypatch, loop(1, 4))
    steps = program(1, 2, 0, 3, 4)
    known = subject(steps)
    assert known.find_iterated(case()) == {place(2), place(3)}
    known.longer[id(steps)] = [SimpleNamespace(added={place(9)})]
    assert known.find_iterated(case()) == {place(2), place(3), place(9)}
    assert subject().find_iterated(case()) == frozenset()


def test_a_path_without_an_iteration_has_the_places_of_those_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch_iterations(monkeypatch)
    steps = program(1, 2, 3)
    known = subject(steps)
    assert known.find_iterated(case()) == frozenset()
    known.iterated = {place(2), place(7)}
    assert known.find_iterated(case()) == {place(2)}
    known.longer[id(steps)] = [SimpleNamespace(added={place(9)})]
    assert known.find_iterated(case()) == {place(9)}


@pytest.mark.parametrize(
    ("loops", "sites", "line"),
    [
        ([], [], 0),
        ([loop(0, 2)], [], 2),
        ([loop(0, 3), loop(1, 2)], [], 2),  # the inner one
        ([loop(0, 1), loop(1, 3)], [], 3),  # the last one
        ([], [()], 0),
        ([], [(), place(8)], 8),
        ([loop(0, 2)], [place(8)], 2),
    ],
)
def test_an_iteration_is_described_by_its_last_step(
    loops: list[Any], sites: list[Any], line: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch_iterations(monkeypatch, *loops)

    def contains(one: Any, other: Any) -> bool:
        return one is not other and one.start <= other.start and other.end <= one.end

    monkeypatch.setattr(own_model, "contains", contains)
    monkeypatch.setattr(
        own_model, "find_place", lambda program, run: program.operations[run.end - 1].where
    )
    steps = program(1, 2, 3)
    known = subject(steps)
    known.longer[id(steps)] = [SimpleNamespace(endings=dict.fromkeys(sites))]
    (where,) = place(line) if line else [None]
    said = f" at `{where.text}` ({where})" if where else ""
    assert known.describe_iteration(case()) == said
    assert subject().describe_iteration(case()) == ""


def test_the_limit_at_a_case_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, asked = program(1, 2), list[Any]()

    def find_limit(program: Any, iterations: Any, point: Any) -> Any:
        assert point["w"].dtype == np.float64
        asked.append(program)
        return f"limit {len(asked)}"

    monkeypatch.setattr(own_model, "find_limit", find_limit)
    watch_iterations(monkeypatch, loop(0, 1))
    known, one, other = subject(steps), case(1), case(2)
    found = [[*known.find_limits(each)] for each in (one, one, other)]
    assert found == [["limit 1"], ["limit 1"], ["limit 2"]]
    assert [each for each, _ in known.limits.values()] == [one, other]
    assert [*subject().find_limits(one)] == []
    watch_iterations(monkeypatch)
    assert [*subject(steps).find_limits(one)] == []


@pytest.mark.parametrize(
    ("decided", "further", "found"),
    [((), "further", ["limit"]), ((1,), "further", ["limit", "further"]), ((1,), None, ["limit"])],
)
def test_loops_that_decisions_end_have_a_limit_of_their_own(
    decided: Any, further: Any, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_model, "find_limit", lambda *given: "limit")
    watch_iterations(monkeypatch, loop(0, 1))
    known = subject(program(1, 2, decided=decided))
    known.find_further = lambda program, case: further
    assert [*known.find_limits(case())] == found


class Further:
    """A path with further steps, of points of one value."""

    def __init__(self, value: float) -> None:
        self.value, self.endings, self.patient = value, {("site", value): True}, True
        self.added = {place(int(value))}

    def has_path(self, params: Any) -> bool:
        assert params["w"].dtype == np.float64
        return bool(params["w"][0] == self.value)

    def find_limit(self, params: Any) -> str:
        return f"limit at {params['w'][0]:g} of {self.value:g}"


def test_further_steps_are_known_by_their_path_and_end_as_those_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = list[tuple[Any, bool]]()

    def go_on(trace: Any, params: Any, endings: Any, *, patient: bool) -> Any:
        asked.append((dict(endings), patient))
        trace("decisions")
        return Further(params["w"][0])

    retraced = list[Any]()
    monkeypatch.setattr(own_model, "continue_loops", go_on)
    known = subject(retrace=lambda params, setting, decisions: retraced.append(decisions))
    steps = program(1, 2)
    values = [(1.0, "1 of 1"), (1.0, "1 of 1"), (2.0, "2 of 2"), (1.0, "1 of 1")]
    for value, said in values:
        assert known.find_further(steps, case(value=value)) == f"limit at {said}"
    first = {("site", 1.0): True}
    assert asked == [({}, False), (first, True)]
    assert known.endings == first | {("site", 2.0): True}
    assert known.iterated == {place(1), place(2)}
    assert retraced == ["decisions"] * 2


def test_loops_are_sought_in_vain_at_two_points_of_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Any]()
    monkeypatch.setattr(own_model, "continue_loops", lambda *given, **more: asked.append(1))
    known, steps, others = subject(retrace=lambda *given: None), program(1), program(2)
    for each in (steps, steps, steps, others, steps):
        assert known.find_further(each, case()) is None
    assert len(asked) == 3


# Guards and rounding.


def test_guards_are_taken_out_of_the_program_at_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = program(1, 2, 3)
    monkeypatch.setattr(own_model, "find_guards", lambda program: ["first", "second", "last"])
    monkeypatch.setattr(
        own_model, "differentiate_unguarded", lambda program, guards, params: [guards, params]
    )
    monkeypatch.setattr(own_model, "describe_place", lambda program, guard: f"at {guard}")
    guards, params = subject(steps).differentiate_unguarded(case())
    assert guards == ["first", "second", "last"]
    assert params["w"].dtype == np.float64
    assert subject(steps).describe_guard(case()) == "at last"
    assert subject().differentiate_unguarded(case()) == []
    monkeypatch.setattr(own_model, "find_guards", lambda program: [])
    assert subject(steps).differentiate_unguarded(case()) == []


def test_what_is_rounded_is_differentiated_if_that_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def differentiate(program: Any, params: Any) -> Any:
        if params["w"][0] == 2:
            raise ValueError("no")
        return {"w": params["w"]}

    monkeypatch.setattr(own_model, "differentiate_unrounded", differentiate)
    monkeypatch.setattr(own_model, "describe_last", lambda program: " at a line")
    known = subject(program(1))
    slopes, where = known.differentiate_unrounded(case())
    assert slopes["w"].dtype == np.float64
    assert where == " at a line"
    assert known.differentiate_unrounded(case(value=2.0)) == ({}, " at a line")
    assert subject().differentiate_unrounded(case()) == ({}, "")
