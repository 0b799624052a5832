"""The check of the built-in derivations: it agrees, and it would notice if it did not."""

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.builtin import (
    AUTODIFF,
    CELL_DERIVATIONS,
    DERIVATIONS,
    Comparer,
    Subjects,
    Yardstick,
    compare_cases,
    derive_hvp,
    derive_jvp,
    make_derivation,
    verify_builtin,
)
from bptt_verifier.judge.tally import Tally
from bptt_verifier.problems.cached import collect_content
from bptt_verifier.problems.draws import draw, with_values
from bptt_verifier.problems.problem import ALL_LOSSES, LARGEST, Problem, Sizes
from bptt_verifier.tolerance.bounds import Bounds
from bptt_verifier.tolerance.comparison import Comparison, Verdict, find_symbol
from manual_bptt import rnn, rtrl
from manual_bptt.tangents import Direction
from tests.support.planting import B3, DC, Mistake, planted
from tests.support.seeds import seed_without_evidence_for_W


@pytest.mark.table(2)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
def test_every_gradient_of_every_derivation_is_listed_and_agrees(dtype: type) -> None:
    done: list[int] = []
    report = verify_builtin(60, seed=3, dtype=dtype, progress=done.append)
    assert report.verdict is Verdict.AGREES
    assert done == list(range(1, 61))
    listed = {(row.derivation, row.gradient) for row in report.rows}
    parameters = ("loss", "U", "W", "V", "b", "c")
    assert listed == {("adjoint recursion", name) for name in Bounds._fields} | {
        (name, gradient)
        for name in ("jacobian sum", "forward recursion")
        for gradient in parameters
    } | {(cell, name) for cell in CELL_DERIVATIONS for name in Bounds._fields} | {
        ("LSTM", "c0"),
        ("GRU", "b_n"),
        ("forward mode", "R{loss}"),
    } | {
        ("Hessian-vector product", f"R{{{name}}}")
        for name in Bounds._fields
        if name not in ("loss", "prediction")
    }
    detailed = {(row.derivation, row.gradient, row.loss) for row in report.by_loss}
    assert detailed >= {
        (cell, gradient, loss)
        for cell in CELL_DERIVATIONS
        for gradient in ("U", "W", "V", "b", "c", "x", "h0", "adjoints")
        for loss in ALL_LOSSES
    }
    for row in report.rows:
        assert 1 <= row.conclusive <= row.cases <= 60
        assert 0 <= row.worst.comparison.error <= 1


def test_the_report_as_json_holds_every_row_and_every_shape() -> None:
    report = verify_builtin(10, seed=1)
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["verdict"] == "agrees"
    assert plain["examples"] == len(plain["shapes"]) == 10
    assert len(plain["rows"]) == len(report.rows)
    assert all(0 <= row["worst_error_over_bound"] <= 1 for row in plain["rows"])
    assert {row.get("loss") for row in plain["rows"]} == {None}
    assert {row["loss"] for row in plain["by_loss"]} <= set(ALL_LOSSES)
    shapes = plain["shapes"]
    assert plain["rows"][0]["largest_shape"] == max(shapes, key=lambda shape: prod(shape.values()))
    assert all(
        1 <= shape[k] <= most for shape in plain["shapes"] for k, most in LARGEST._asdict().items()
    )


def test_the_same_seed_draws_the_same_problems_and_another_seed_others() -> None:
    once, again, other = (verify_builtin(5, seed=seed) for seed in (2, 2, 4))
    assert collect_content(tuple(once.rows)) == collect_content(tuple(again.rows))
    assert once.to_dict() == again.to_dict()
    assert once.shapes != other.shapes


def test_every_size_of_one_is_drawn_and_every_largest_one() -> None:
    shapes = [draw(0, case).sizes for case in range(200)]
    for k, most in enumerate(LARGEST):
        assert {1, most} <= {sizes[k] for sizes in shapes}


def test_one_wrong_derivation_among_right_ones_makes_the_report_disagree(tmp_path: Path) -> None:
    wrong = planted(Mistake("W where Wᵀ belongs", "rnn.py", B3, B3 + ".T"), tmp_path)
    report = verify_builtin(
        20,
        derivations={"right": make_derivation(rtrl), "wrong": make_derivation(wrong)},
        cell_derivations={},
        tangent_derivations={},
    )
    assert report.verdict is Verdict.DISAGREES
    verdicts = {(row.derivation, row.gradient): row.verdict for row in report.rows}
    assert verdicts["right", "W"] is verdicts["wrong", "V"] is Verdict.AGREES
    assert verdicts["wrong", "W"] is verdicts["wrong", "adjoints"] is Verdict.DISAGREES


def test_a_derivation_that_is_right_in_all_cases_but_one_disagrees() -> None:
    calls = 0

    def right_but_once(problem: Problem) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        found = make_derivation(rnn)(problem)
        return found | {"W": 2 * found["W"]} if calls == 7 else found

    report = verify_builtin(
        20, derivations={"almost": right_but_once}, cell_derivations={}, tangent_derivations={}
    )
    row = next(row for row in report.rows if row.gradient == "W")
    assert row.verdict is Verdict.DISAGREES
    assert row.worst.case == 6
    worst = row.worst.comparison
    assert worst.yours == pytest.approx(2 * worst.reference)


def test_nan_disagrees() -> None:
    def not_a_number(problem: Problem) -> dict[str, Any]:
        return {"W": np.full_like(problem.params.W, np.nan)}

    report = verify_builtin(
        3, derivations={"nan": not_a_number}, cell_derivations={}, tangent_derivations={}
    )
    assert report.verdict is Verdict.DISAGREES


def test_agreement_on_zeros_alone_is_inconclusive() -> None:
    report = verify_builtin(
        1,
        seed=seed_without_evidence_for_W(),
        derivations={"rtrl": make_derivation(rtrl)},
        cell_derivations={},
        tangent_derivations={},
    )
    verdicts = {row.gradient: row.verdict for row in report.rows}
    assert verdicts["W"] is Verdict.INCONCLUSIVE
    assert verdicts["U"] is Verdict.AGREES
    assert report.verdict is Verdict.INCONCLUSIVE


def test_numbers_of_examples_and_seeds_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="seed: expected at least 0, found -1"):
        verify_builtin(examples=1, seed=-1)
    with pytest.raises(ValueError, match="examples: expected at least 1, found 0"):
        verify_builtin(0, derivations=DERIVATIONS)


def test_a_wrong_cell_makes_the_report_disagree(tmp_path: Path) -> None:
    wrong = planted(
        Mistake("c counted twice", "lstm.py", DC, f"dc = dc + {DC[5:]}", "lstm"), tmp_path
    )
    report = verify_builtin(
        12,
        derivations={},
        cell_derivations=CELL_DERIVATIONS | {"LSTM": make_derivation(wrong)},
        tangent_derivations={},
    )
    verdicts = {(row.derivation, row.gradient): row.verdict for row in report.rows}
    assert verdicts["LSTM", "W"] is Verdict.DISAGREES
    assert verdicts["LSTM", "V"] is verdicts["GRU", "W"] is Verdict.AGREES
    assert report.verdict is Verdict.DISAGREES


def test_a_wrong_tangent_makes_the_report_disagree() -> None:
    def without_its_last_digits(problem: Problem, direction: Direction) -> dict[str, Any]:
        found = derive_hvp(problem, direction)
        return found | {"W": found["W"] * (1 + 1e-9)}

    report = verify_builtin(
        4,
        derivations={},
        cell_derivations={},
        tangent_derivations={"forward mode": derive_jvp, "wrong": without_its_last_digits},
    )
    verdicts = {(row.derivation, row.gradient): row.verdict for row in report.rows}
    assert verdicts["wrong", "R{W}"] is Verdict.DISAGREES
    assert verdicts["wrong", "R{U}"] is verdicts["forward mode", "R{loss}"] is Verdict.AGREES
    assert [find_symbol(row.gradient) for row in report.rows][:2] == ["R{L}", "R{∂L/∂U}"]


def test_what_underflows_is_not_called_wrong() -> None:
    drawn = with_values(np.random.default_rng(0), Sizes(2, 1, 2, 2, 2), dtype=np.float32)
    params = drawn.params._replace(V=np.float32(1e-22) * drawn.params.V)
    tiny = drawn._replace(params=params, x=np.float32(1e-22) * drawn.x)
    compared = AUTODIFF.within_measured_error(tiny)(make_derivation(rnn)(tiny))
    (of_U,) = (each for each in compared if each.name == "U")
    assert 0 < abs(of_U.reference) < np.finfo(np.float32).smallest_normal
    assert of_U.yours != of_U.reference
    assert all(each.verdict is not Verdict.DISAGREES for each in compared)


Asked = list[tuple[str, Sizes]]  # what was asked of a yardstick, and the sizes of the problem


def make_recorder(asked: Asked) -> Yardstick:
    """A yardstick with which everything agrees, and that writes down what it is asked."""

    def record(question: str, problem: Problem) -> Comparer:
        asked.append((question, problem.sizes))
        return lambda found: [Comparison("loss", 0.0, (), 1.0, 1.0, 1.0, 0.0)]

    return Yardstick(
        "recorder",
        lambda problem: record("bound", problem),
        lambda problem: record("measured", problem),
        tangents=lambda problem, direction: record("tangents", problem),
        prepare=lambda problems: asked.extend(("prepare", each.sizes) for each in problems),
    )


def derive_nothing(problem: Problem, *direction: Direction) -> dict[str, Any]:
    return {}


PLAIN = {"hand": derive_nothing}
CELLS = dict.fromkeys(CELL_DERIVATIONS, derive_nothing)
ALONG = {"along": derive_nothing}


def count_cases(subjects: Subjects, cases: range) -> dict[str, int]:
    """How many of these examples each derivation is compared at."""
    tally = Tally()
    compare_cases(cases, 0, np.float64, subjects, tally)
    names = subjects.derivations | subjects.cell_derivations | subjects.tangent_derivations
    return {row.derivation: row.cases for row in tally.list_rows(names)}


def test_the_first_hundred_examples_and_every_fifth_have_a_cell_and_a_direction() -> None:
    found = count_cases(Subjects(PLAIN, CELLS, ALONG, make_recorder([])), range(97, 111))
    assert found.pop("hand") == 14
    assert found.pop("along") == 6  # 97, 98, 99, 100, 105, 110
    assert sum(found.values()) == 6


def test_a_reference_is_asked_only_for_what_is_compared() -> None:
    for subjects, expected in [
        (Subjects(PLAIN, {}, {}, AUTODIFF), {"prepare", "bound"}),
        (Subjects({}, CELLS, {}, AUTODIFF), {"measured"}),
        (Subjects({}, {}, ALONG, AUTODIFF), {"tangents"}),
    ]:
        asked: Asked = []
        count_cases(subjects._replace(yardstick=make_recorder(asked)), range(4))
        assert {question for question, _ in asked} == expected


def test_a_yardstick_without_tangents_compares_the_others() -> None:
    yardstick = make_recorder([])._replace(tangents=None)
    assert count_cases(Subjects(PLAIN, {}, ALONG, yardstick), range(3)) == {"hand": 3}


def test_every_problem_is_prepared_once_and_before_it_is_compared() -> None:
    asked: Asked = []
    count_cases(Subjects(PLAIN, {}, {}, make_recorder(asked)), range(150))
    prepared = [sizes for question, sizes in asked if question == "prepare"]
    assert prepared == [sizes for question, sizes in asked if question == "bound"]
    assert len(prepared) == 150
    questions = [question for question, _ in asked]
    for end in range(len(questions)):
        assert questions[:end].count("prepare") >= questions[:end].count("bound")


def test_two_hundred_examples_of_seed_zero_are_compared_unless_told_otherwise() -> None:
    report = verify_builtin(
        derivations=PLAIN, cell_derivations={}, tangent_derivations={}, yardstick=make_recorder([])
    )
    assert (report.examples, report.seed) == (200, 0)
    assert report.shapes == [draw(0, case).sizes for case in range(200)]
