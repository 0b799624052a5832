"""The failing case that a report shows is small, simple, and can be made again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier import Verdict, verify
from bptt_verifier.report import nine_digits
from manual_bptt import lstm
from tests.support.derivations import derivation
from tests.support.planting import GATED_MISTAKES, MISTAKES, planted


def run(line: str, submission: Any) -> Any:
    """What the line of a report that calls the submission again returns."""
    scope: dict[str, Any] = {"gradients": submission}
    setup, _, call = line.rpartition("print(")
    exec(setup.rpartition(";")[0], scope)
    return eval(f"({call}", scope)


@pytest.mark.table(3)
@pytest.mark.parametrize(
    ("cell", "name", "sizes"),
    [
        ("rnn", "W where Wᵀ belongs", "T=1 B=1 D=1 H=2 O=1, rnn, tanh, mse"),
        pytest.param(
            *("lstm", "tanh′ of the cell missing", "T=1 B=1 D=1 H=1 O=1, lstm, mse"),
            marks=pytest.mark.slow,
        ),
        ("gru", "z where 1 − z belongs", "T=1 B=1 D=1 H=1 O=1, gru, after, mse"),
    ],
)
def test_the_smallest_failing_case_is_small_and_can_be_made_again(
    cell: str, name: str, sizes: str, tmp_path: Path
) -> None:
    table = MISTAKES if cell == "rnn" else GATED_MISTAKES
    mistake = next(m for m in table if (m.name, m.suspect) == (name, cell))
    wrong = derivation(planted(mistake, tmp_path), cell)
    case = verify(wrong, model=cell, bias=cell != "rnn", examples=40).counterexample
    assert case is not None
    assert case.sizes.startswith(sizes)
    states = {"h0", "c0"} if cell == "lstm" else {"h0"}
    biases = {"rnn": set(), "lstm": {"b", "c"}, "gru": {"b", "c", "b_n"}}[cell]
    assert set(case.arrays) == {"U", "W", "V", "x", "y", *biases, *states}
    assert all(np.array_equal(np.round(v, 1), v) for v in case.arrays.values())
    # The report shows nine digits.
    found = run(case.reproduce, wrong)[case.gradient]
    np.testing.assert_array_equal(nine_digits(found), case.yours)
    assert not np.allclose(case.yours, case.autodiff)


def test_a_state_that_is_a_keyword_is_one_in_the_line_that_makes_the_case_again() -> None:
    def negative(params, x, y, *, h0=None, c0=None):
        found = lstm.gradients(lstm.Params(*params), x, y, h0, c0)[1]
        return found._asdict() | {"c0": -found.c0}

    report = verify(negative, model="lstm", bias=True, examples=12)
    assert [m.name for m in report.mistakes] == ["sign-flipped"]
    assert report.counterexample is not None
    run(report.counterexample.reproduce, negative)


@pytest.mark.rest
def test_a_mistake_that_no_small_case_shows_is_caught_and_shown_on_a_larger_one() -> None:
    right = derivation(lstm, "lstm")

    def with_three_outputs(params, x, y, h0, c0):
        found = right(params, x, y, h0, c0)
        return found if y.shape[1] < 3 else found | {"V": 2 * found["V"]}

    report = verify(with_three_outputs, model="lstm", bias=True, examples=24)
    assert report.verdict is Verdict.DISAGREES
    case = report.counterexample
    assert case is not None
    assert "T=1 B=1 D=1 H=1 O=3" in case.sizes
    np.testing.assert_array_equal(
        nine_digits(run(case.reproduce, with_three_outputs)["V"]), case.yours
    )
