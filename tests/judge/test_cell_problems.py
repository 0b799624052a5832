"""The problems and cases of a cell, by what every one of them has to be; no truth is computed."""

from collections.abc import Iterator
from functools import partial
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import cells
from bptt_verifier.judge.cells import (
    FRESH,
    GROWTH,
    LONG,
    PROBE,
    PROBES,
    QUICK,
    READABLE,
    SPREADS,
    TARGETS,
    TWICE,
    CellSubject,
)
from bptt_verifier.judge.first_states import TakenStates
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.extremes import LARGE, LARGE_PROBLEMS, MODERATE, SMALL
from bptt_verifier.problems.problem import LARGEST, Sizes
from bptt_verifier.tolerance.scatter import DISTANCE
from manual_bptt.activations import ACTIVATIONS
from tests.support.cell_subjects import WITH_STATE, subject


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Truths that are named after the function that finds them."""
    for name in ("truth", "measure_truth", "large_truth", "find_values"):
        monkeypatch.setattr(cells, name, partial(find, name))
    monkeypatch.setattr(cells, "prefetch_truths", prefetch)


def find(how: str, problem: Any, *asked: Any) -> Any:
    return how, problem


def prefetch(problems: Any) -> Iterator[Any]:
    return ((problem, partial(find, "ahead", problem)) for problem in problems)


def find_how(case: Any) -> str:
    """The function that finds the truth of a case, after a check that it is this problem's."""
    how, problem = case.truth()
    assert problem is case.point
    return str(how)


def test_the_stated_model_has_an_option_where_the_cell_has_one() -> None:
    assert subject().stated == "the stated model (rnn, tanh, mse)"
    assert subject().has_vanishing_steps  # so that no entry is too small to matter
    assert subject(omitted=["a sentence"]) == subject()
    assert subject("lstm", "").stated == "the stated model (lstm, mse)"


def test_sizes_for_a_diagnosis_differ_and_long_ones_are_beyond_small_ones() -> None:
    assert len({*FRESH[0]}) == len({*FRESH[1]}) == 5
    assert any(each.O == each.H for each in FRESH)
    assert any(each.B == 1 and each.D == each.H for each in FRESH)
    assert any(each.O == 1 for each in FRESH)
    assert LONG.B == 1
    assert LONG.T > LARGEST.T
    assert LONG.D > LARGEST.D
    assert PROBE.T == PROBE.D
    assert all(size <= most for size, most in zip(READABLE, LARGEST, strict=True))


@pytest.mark.parametrize(("cell", "option"), [("rnn", "relu"), ("gru", "after"), ("lstm", "")])
def test_as_many_cases_are_drawn_as_are_announced(cell: str, option: str) -> None:
    found = subject(cell, option, WITH_STATE, sizes=(SMALL, SMALL))
    drawn = [*found.draw_cases()], [*found.draw_probes()], found.small_extremes
    large = LARGE_PROBLEMS + 3 * 2  # each with and without the state
    assert found.total == sum(map(len, drawn)) + 2 * large
    alone = subject(cell, option, sizes=(SMALL, SMALL))
    without = [*alone.draw_cases()], [*alone.draw_probes()], alone.small_extremes
    assert alone.total == sum(map(len, without)) + large
    assert len(drawn[0]) == 3 + (4 if cell == "rnn" else 0)
    assert len(drawn[1]) == len(SPREADS) * PROBES * 2
    assert {find_how(case) for case in (*drawn[0], *drawn[1])} == {"ahead"}


def test_a_problem_has_the_options_of_the_model_and_the_states_that_are_taken() -> None:
    both = TakenStates(in_order=("c0",), by_name=("h0",))
    rng = np.random.default_rng(0)
    for states, bias in ((both, True), (TakenStates(("c0",)), False), (TakenStates(), False)):
        drawn = subject("lstm", "", states, bias=bias, loss="half_sse").draw_problem(
            rng, SMALL, np.float32, target_scale=100.0
        )
        assert [*drawn.first] == [*states.all]
        assert (drawn.cell, drawn.loss, drawn.option) == ("lstm", "half_sse", {})
        assert (drawn.params.b is not None) is bias
        assert drawn.x.dtype == np.float32
        assert np.abs(drawn.y).max() > 20
    assert (
        subject("rnn", "relu").draw_problem(rng, SMALL, np.float64).option["activation"] == "relu"
    )


BEYOND = Sizes(T=13, B=1, D=1, H=1, O=1)


def test_the_truth_of_a_case_is_found_on_demand() -> None:
    chosen, rng = subject(states=WITH_STATE), np.random.default_rng(0)
    small, large = (chosen.draw_problem(rng, each, np.float64) for each in (SMALL, BEYOND))
    case = chosen.make_case(small)
    assert [*case.arguments] == ["U", "W", "V", "x", "y", "h0"]
    assert case.label == f"{SMALL}, float64"
    assert case.arguments["h0"] is small.first["h0"]
    assert [find_how(chosen.make_case(each)) for each in (small, large)] == [
        "truth", "measure_truth",
    ]  # fmt: skip
    assert [find_how(chosen.make_large_case(each)) for each in (small, large)] == [
        "truth", "large_truth",
    ]  # fmt: skip
    assert find_how(chosen.make_case(small, partial(find, "given", small))) == "given"


def test_a_call_has_the_states_in_the_places_where_they_are_taken() -> None:
    states = TakenStates(in_order=("h0",), by_name=("c0",))
    chosen = subject("lstm", "", states)
    case = chosen.make_case(chosen.draw_problem(np.random.default_rng(0), SMALL, np.float64))
    call = chosen.call(case, lambda arrays: {n: value + 1 for n, value in arrays.items()})
    params, x, y, h0 = call.arguments
    assert np.array_equal(params.W, case.arguments["W"] + 1)
    for found, name in ((x, "x"), (y, "y"), (h0, "h0"), (call.named["c0"], "c0")):
        assert np.array_equal(found, case.arguments[name] + 1)
    assert [*call.named] == ["c0"]
    assert call.arrays()["x"] is x


@pytest.mark.parametrize("bias", [True, False])
def test_optional_results_are_those_that_the_model_has(bias: bool) -> None:
    chosen = subject("rnn", "tanh", WITH_STATE, bias=bias)
    point = chosen.draw_problem(np.random.default_rng(0), SMALL, np.float32)
    expected = chosen.expect(chosen.make_case(point))
    names = ("U", "W", "V", "b", "c")[: 5 if bias else 3]
    assert expected.names == names
    assert expected.in_order[len(names)] == names
    assert {"x", "h0", "prediction", "loss", *names} <= expected.shapes.keys()
    assert ("b" in expected.shapes) is ("c" in expected.shapes) is bias
    assert expected.shapes["W"] == (SMALL.H, SMALL.H)
    assert expected.dtype == np.float32


class Drawn:
    """Draws that are noted in the place of problems."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[Any] = []
        monkeypatch.setattr(
            CellSubject, "draw_problem", lambda _, *given, **scales: self.note(*given, **scales)
        )

    def note(self, rng: Any, sizes: Sizes, dtype: Any, **scales: Any) -> Any:
        self.seen.append((sizes, np.dtype(dtype), scales, rng.integers(10**9)))
        return SimpleNamespace(number=len(self.seen) - 1)


def test_random_problems_have_all_sizes_scales_and_both_precisions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = Drawn(monkeypatch)
    assert len([*subject().draw_random_problems(range(300))]) == 300
    sizes = np.array([each[0] for each in drawn.seen])
    assert [*sizes.min(0)] == [1] * 5
    assert [*sizes.max(0)] == [*LARGEST]
    assert [each[1] for each in drawn.seen[:4]] == [np.float64, np.float32] * 2
    spreads = [each[2]["spread"] for each in drawn.seen]
    assert 0.5 <= min(spreads) < 0.52
    assert 1.48 < max(spreads) <= 1.5
    assert {each[2]["target_scale"] for each in drawn.seen} == {*TARGETS}
    first = drawn.seen[:]
    drawn.seen.clear()
    [*subject().draw_random_problems(range(7, 9))]
    assert drawn.seen == first[7:9]  # whichever problems come before
    [*subject(seed=2).draw_random_problems(range(7, 8))]
    assert drawn.seen[2] != first[7]


def test_contract_cases_are_the_first_random_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    for examples in (2, TWICE, 9):
        cases = [*subject(examples=examples).draw_contract_cases()]
        assert len(cases) == min(TWICE, examples)
        (first,) = subject().draw_random_problems(range(1))
        assert np.array_equal(cases[0].point.x, first.x)


def test_references_are_shared_with_workers_if_there_are_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cells, "share_truths", lambda *given: given)
    given: Any = subject(workers=2, omitted=["a sentence"]).find_truths()
    draw, number, workers = given
    assert (number, workers) == (3, 2)
    assert draw.__self__.omitted == []  # a list that grows here is not sent with each part
    assert len([*subject(workers=1).find_truths()]) == 3


@pytest.mark.parametrize(("option", "bias"), [*product(("tanh", "relu"), (True, False))])
@pytest.mark.parametrize("states", [WITH_STATE, TakenStates()], ids=["with h0", "without h0"])
def test_one_unit_after_the_other_is_active_in_the_states_of_a_probe(
    option: str, bias: bool, states: TakenStates
) -> None:
    drawn = [*subject("rnn", option, states, bias=bias).draw_state_probes()]
    assert [each.x.dtype for each in drawn] == [np.float64, np.float32] * 2
    sizes = [float(np.abs(each.params.W).max()) for each in drawn]
    assert max(sizes[:2]) < min(sizes[2:]) / 5
    assert not np.array_equal(drawn[0].params.V.astype(np.float32), drawn[1].params.V)
    H, phi = LARGEST.H, ACTIVATIONS[option].function
    for problem in drawn:
        assert problem.sizes == (H, 1, H, H, 2)
        assert problem.y.shape == (1, 2)
        state = np.zeros(H) if not problem.first else problem.first["h0"][0]
        assert np.array_equal(state, np.eye(H)[0] / 2 if problem.first else np.zeros(H))
        units = np.finfo(problem.x.dtype).eps * 10
        for t in range(1, H + 1):
            a = problem.params.U @ problem.x[t - 1, 0] + problem.params.W @ state
            a = a + (0 if problem.params.b is None else problem.params.b)
            wanted = np.full(H, -1.0 if option == "relu" else 0.0)
            wanted[t % H] = 1
            np.testing.assert_allclose(a, wanted, atol=units)
            state = phi(wanted.astype(problem.x.dtype))


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_probes_have_one_hot_inputs_and_weights_drawn_for_them(cell: str) -> None:
    drawn = [*subject(cell, {"rnn": "tanh", "gru": "after"}[cell]).draw_one_hot_problems()]
    for number, problem in enumerate(drawn):
        assert problem.sizes == PROBE
        assert np.array_equal(problem.x[:, 0], np.eye(PROBE.T))
        assert problem.params.U.shape == ({"rnn": 1, "gru": 3}[cell] * PROBE.H, PROBE.D)
        assert 0.8 < problem.params.U.std() < 1.2
        dtype = (np.float64, np.float32)[number % 2]
        assert problem.x.dtype == problem.params.U.dtype == dtype
        if cell == "gru":
            spread = problem.params.W.std() * np.sqrt(PROBE.H)
            assert spread == pytest.approx(SPREADS[number // (2 * PROBES)], rel=0.35)
    assert len({each.params.V[0, 0] for each in drawn}) == len(drawn)


def test_neighbours_are_near_and_differ() -> None:
    chosen = subject(states=WITH_STATE)
    case = next(iter(chosen.draw_contract_cases()))
    near = [chosen.displace(case, number, DISTANCE) for number in (0, 1, 1)]
    assert np.array_equal(near[1].point.params.U, near[2].point.params.U)
    assert not np.array_equal(near[0].point.params.U, near[1].point.params.U)
    for name, value in near[0].arguments.items():
        given = case.arguments[name]
        assert (np.abs(value - given) <= 2 * DISTANCE * np.abs(given)).all()
        assert not np.array_equal(value, given)
    assert find_how(near[0]) == "find_values"


def test_extreme_problems_are_tried_without_each_choice_of_optional_states(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cells, "draw_degenerate_problems", lambda draw, seed: ["degenerate", seed])
    monkeypatch.setattr(cells, "draw_padded_problem", lambda draw, seed: seed)
    monkeypatch.setattr(cells, "draw_problems_of_large_values", lambda draw, seed: ["large", seed])
    both = TakenStates(by_name=("h0", "c0"), optional=("h0", "c0"))
    found: Any = subject("lstm", "", both).small_extremes
    assert found[:5] == ("degenerate", 1, 1, "large", 1)
    assert [tuple(each.first) for each in found[5:]] == [("c0",)] * 4 + [("h0",)] * 4 + [()] * 4
    assert [(each.sizes, each.x.dtype) for each in found[5:9]] == [
        (sizes, dtype) for sizes in FRESH[:2] for dtype in (np.float64, np.float32)
    ]
    assert len(subject().small_extremes) == 5
    assert len(subject(option="relu").small_extremes) == 4  # at its kink


def draw_extremes(
    seconds: dict[Sizes, float],
    monkeypatch: pytest.MonkeyPatch,
    start_at: float = 0.0,
    **more: Any,
) -> tuple[CellSubject, list[Any], list[Any]]:
    """Draw extreme cases for a submission that needs so long; return what references started."""
    clock, started = [0.0], list[Any]()

    def start(problem: Any) -> Any:
        started.append(problem.sizes)
        return partial(wait, problem.sizes)

    def wait(sizes: Sizes) -> None:
        started.append(("there", sizes))
        clock[0] = start_at

    monkeypatch.setattr(cells, "start_large_reference", start)
    monkeypatch.setattr(cells.time, "thread_time", lambda: clock[0])
    monkeypatch.setattr(CellSubject, "small_extremes", ())
    chosen, cases = subject(**more), list[Any]()
    for case in chosen.draw_extreme_cases():
        cases.append(case)
        clock[0] = start_at + seconds.get(case.point.sizes, 0.0)
    return chosen, cases, started


WIDE, NARROW = SMALL._replace(H=LARGE.H), SMALL._replace(O=LARGE.O)


@pytest.mark.extreme
@pytest.mark.parametrize(
    ("seconds", "tried"),
    [
        ({MODERATE: QUICK}, True),
        ({MODERATE: 2 * QUICK, WIDE: 1.0}, False),
        ({MODERATE: 2 * QUICK, WIDE: 1.0, NARROW: 1.0 / GROWTH}, True),
        ({MODERATE: 2 * QUICK, WIDE: 1.0, NARROW: 0.9 / GROWTH}, False),
        ({MODERATE: QUICK, WIDE: 1.0}, True),
    ],
)
def test_all_sizes_are_large_together_where_that_needs_no_minutes(
    seconds: dict[Sizes, float], tried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, cases, _ = draw_extremes(seconds, monkeypatch)
    sizes = [case.point.sizes for case in cases]
    assert (Sizes(*LARGE) in sizes) is tried
    assert len(sizes) == LARGE_PROBLEMS - (not tried)
    assert {find_how(case) for case in cases} == {"large_truth"}
    omitted = (
        "T=200 B=33 D=33 H=65 O=33 together were not tried, because your code needs 0.06 s with "
        "T=96 B=16 D=16 H=32 O=16. The option `sizes` tries them."
    )
    assert chosen.notes == (() if tried else (omitted,))


@pytest.mark.extreme
def test_the_time_before_a_call_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {MODERATE: QUICK / 2, WIDE: 1000.0}
    _, cases, _ = draw_extremes(seconds, monkeypatch, start_at=64.0)
    assert len(cases) == LARGE_PROBLEMS


@pytest.mark.extreme
def test_the_next_large_reference_starts_before_this_one_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, cases, started = draw_extremes({}, monkeypatch)
    sizes = [case.point.sizes for case in cases[:-1]]
    expected: list[Any] = []
    for number, each in enumerate(sizes):
        expected += [*sizes[number : number + 2], each, ("there", each)]
    assert started == expected


@pytest.mark.extreme
def test_sizes_of_the_user_come_last_and_small_extremes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = Sizes(2, 3, 4, 5, 1)
    _, cases, _ = draw_extremes({}, monkeypatch, sizes=(asked, BEYOND))
    assert [case.point.sizes for case in cases[LARGE_PROBLEMS:]] == [asked] * 3 + [BEYOND] * 3
    assert [find_how(case) for case in cases[-4:]] == ["truth"] + ["large_truth"] * 3
    small = with_values(np.random.default_rng(0), SMALL)
    monkeypatch.setattr(CellSubject, "small_extremes", (small,))
    assert next(iter(subject().draw_extreme_cases())).point is small


def test_programs_are_loaded_for_the_first_problem_of_each_kind_and_references_advance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded, advanced = list[Any](), list[bool]()
    large = SimpleNamespace(problems=("a", "b"), advance=lambda: advanced.append(True))
    monkeypatch.setattr(cells, "load_programs_of", lambda *given: loaded.append(given))
    monkeypatch.setattr(CellSubject, "large_references", large)
    chosen = subject()
    chosen.load_programs()
    ((random, probe, first_large),) = loaded
    assert first_large == "a"
    assert np.array_equal(random.x, next(iter(chosen.draw_contract_cases())).point.x)
    assert np.array_equal(probe.params.U, next(chosen.draw_one_hot_problems()).params.U)
    assert not advanced
    chosen.compute_ahead()
    assert advanced == [True]
