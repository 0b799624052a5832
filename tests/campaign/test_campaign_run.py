"""The campaign's run goes on where it was stopped, and counts what was found."""

import json
from itertools import count as count_up
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from campaign.mistakes import Wrong
from campaign.run import (
    count,
    find_formats,
    find_latest,
    judge_model,
    list_faults,
    measure_excess,
    read_rows,
    run_campaign,
    summarise,
)
from tests.support.stated_cases import state_case


def make_row(number: int, *submissions: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    return {"seed": seed, "number": number, "model": "rnn", "submissions": [*submissions]}


RIGHT = {"right": True, "what": "hand", "verdict": "agrees", "names": [], "seconds": 1.0}
ACCUSED = RIGHT | {"verdict": "disagrees", "names": ["clipped"]}
SEEN = RIGHT | {"right": False, "verdict": "disagrees", "names": ["unknown"], "seconds": 3.0}
UNSEEN = RIGHT | {"right": False, "in_cases": 0.0, "elsewhere": 7.0}
SMALL = RIGHT | {"right": False, "in_cases": 1 + 2.0**-50, "elsewhere": 0.9}


def test_a_run_goes_on_where_an_earlier_one_was_stopped(tmp_path: Path) -> None:
    file, judged = tmp_path / "build" / "campaign.jsonl", list[int]()

    def judge_number(number: int) -> dict[str, Any]:
        judged.append(number)
        return make_row(number, RIGHT, SEEN)

    def go_on(models: int) -> int:
        known = find_latest(read_rows(file), 0)
        numbers = (number for number in count_up() if number not in known)
        rows = run_campaign(file, 0, numbers, lambda r: count(r, True) >= models, judge_number)
        return len(rows)

    assert go_on(2) == 2
    with file.open("a") as lines:
        lines.write('{"seed": 0, "number": 2, "mod')  # stopped while it wrote
    assert go_on(4) == 4
    assert judged == [0, 1, 2, 3]
    assert [*find_latest(read_rows(file), 0)] == [0, 1, 2, 3]
    assert go_on(4) == 4
    assert judged == [0, 1, 2, 3]


def test_the_last_line_of_a_model_counts_and_other_seeds_do_not(tmp_path: Path) -> None:
    file = tmp_path / "campaign.jsonl"
    rows = [make_row(0, ACCUSED), make_row(0, RIGHT), make_row(1, RIGHT, seed=5)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [*find_latest(read_rows(file), 0).values()] == [make_row(0, RIGHT)]


def test_a_summary_counts_false_alarms_and_errors_that_were_not_seen() -> None:
    rows = [make_row(0, RIGHT, ACCUSED, SEEN), make_row(1, UNSEEN, SMALL)]
    assert summarise(rows) == [
        "2 right: 1 agrees, 1 disagrees",
        "3 wrong: 2 agrees, 1 disagrees",
        "0 wrong ones agree with an error above the stated resolution, at the judge's cases",
        "1 wrong ones agree with an error above the stated resolution, at other points",
        "1 of 1 wrong ones that disagree are unknown",
        "CPU seconds of a verdict: median 1.00, largest 3.0",
        "2 models, 0 of them refused",
    ]


def test_the_faults_of_a_model_are_false_alarms_and_unseen_errors() -> None:
    assert list_faults(make_row(0, RIGHT, SEEN, SMALL)) == []
    assert len(list_faults(make_row(0, ACCUSED, UNSEEN))) == 2
    assert list_faults(make_row(0) | {"refusal": "the loss differs"}) == [
        "refused: the loss differs"
    ]


@pytest.mark.parametrize(("factor", "excess"), [(1.0, 0.0), (1.01, 2.0), (np.nan, np.inf)])
def test_an_error_is_measured_in_units_of_the_stated_resolution(
    factor: float, excess: float
) -> None:
    def right(p: Any) -> dict[str, Any]:
        return {"W": 2 * p["W"]}

    wrong = Wrong("", lambda p: {"W": 2 * factor * p["W"]}, right)
    point = {"W": np.array([1.0, -4.0])}
    for allowed, hidden in [(1e-3, False), (0.2, True)]:
        case = state_case(right(point), {"W": np.full(2, allowed)}, point)
        for coarse in ({}, {"W": np.float32}, {"V": np.float32}):
            found = measure_excess(wrong, [case], {"W": 0.005}, coarse)
            assert found == pytest.approx(0.0 if hidden and "W" in coarse else excess)


@pytest.mark.parametrize(
    ("note", "formats"),
    [
        ("Your errors are those of rounding to float32: all results are judged in float32.",
         {"U": "float32", "V": "float32"}),
        ("You return float16 numbers for V, x where arguments are finer: judged in float16.",
         {"V": "float16"}),
        ("You return float32 numbers for U, as the parameters given are: judged in float32, also "
         "where the judge draws finer ones.", {"U": "float32"}),
        ("24 of 24 cases could have shown a mistake in every gradient.", {}),
    ],
)  # fmt: skip
def test_the_formats_that_gradients_are_judged_in_are_those_that_a_report_states(
    note: str, formats: dict[str, str]
) -> None:
    assert find_formats([note], ["U", "V"]) == formats


@pytest.mark.slow
def test_a_model_is_judged_right_and_wrong() -> None:
    row = judge_model(0, 1, 3, 3, 0.5)
    right = [each for each in row["submissions"] if each["right"]]
    assert [each["verdict"] for each in right] == ["agrees"] * 3
    assert len(row["submissions"]) == 6
    json.dumps(row)
