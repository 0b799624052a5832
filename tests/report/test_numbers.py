"""Numbers of a counterexample: as few digits as show the difference, and the row that matters."""

from math import inf, nan

import numpy as np
import pytest

from bptt_verifier.report import Counterexample, ParameterResult
from bptt_verifier.report.numbers import count_digits, show_numbers, write_numbers
from bptt_verifier.report.text import format_result
from bptt_verifier.tolerance.comparison import Verdict


@pytest.mark.parametrize(
    ("yours", "true", "digits"),
    [
        (0.00750637803, -0.321052462, 2),
        (2.0, 1.0, 2),
        (1.234567, 1.234, 5),
        (1.0000000001, 1.0, 11),
        (1.0, 1.0, 2),
        (1 + 2**-52, 1.0, 17),
        (inf, 1.0, 2),
        (nan, 1.0, 2),
        (0.0, 1e-300, 2),
        (1.15, 1.0, 3),
        (1.023, 1.0, 4),
        (1.058, 1.0, 3),
    ],
)
def test_a_difference_is_shown_with_as_few_digits_as_will_do(
    yours: float, true: float, digits: int
) -> None:
    assert count_digits(yours, true) == digits
    assert f"{yours:.{digits}g}" != f"{true:.{digits}g}" or yours == true


def test_numbers_are_written_as_nested_lists() -> None:
    assert write_numbers([[0.123, -4.56], [7.0, 1e-9]], 2) == "[[0.12, -4.6], [7, 1e-09]]"
    assert write_numbers(0.5, 2) == "0.5"


def make_case(yours: np.ndarray, true: np.ndarray) -> Counterexample:
    errors = np.abs(yours - true).tolist()
    return Counterexample("T=2", {}, "W", yours.tolist(), true.tolist(), errors, "")


def test_a_small_gradient_is_shown_whole() -> None:
    found = show_numbers(make_case(np.array([[0.5, 0.25]]), np.array([[0.5, 0.75]])))
    assert found == ("∂L/∂W", "[[0.5, 0.25]]", "[[0.5, 0.75]]")


def test_twelve_entries_are_shown_whole_and_thirteen_by_their_row() -> None:
    for size, what in ((12, "∂L/∂W"), (13, "∂L/∂W[0]")):
        assert show_numbers(make_case(np.ones((size, 1)), np.zeros((size, 1)))).what == what


def test_of_a_large_gradient_the_row_with_the_worst_entry_is_shown() -> None:
    true = np.arange(24.0).reshape(2, 3, 4)
    yours = true.copy()
    yours[1, 2, 3] += 1
    found = show_numbers(make_case(yours, true))
    assert found == ("∂L/∂W[1, 2]", "[20, 21, 22, 24]", "[20, 21, 22, 23]")
    long = np.zeros(50)
    assert show_numbers(make_case(long, long + 1)).what == "∂L/∂W"


def test_the_errors_may_be_a_map_of_more_than_the_numbers() -> None:
    found = make_case(np.array([5.0, 1.111]), np.array([5.0, 1.115]))
    shown = show_numbers(found._replace(error_over_bound=[[0.0] * 5, [9.0] * 5]))
    assert shown == ("∂L/∂W", "[5, 1.111]", "[5, 1.115]")


def test_wrong_numbers_of_the_table_have_few_digits_and_right_ones_four() -> None:
    wrong = ParameterResult(Verdict.DISAGREES, 9.0, (0,), 1 / 3, 2 / 3, 1e-9, 3, 1e-9)
    assert format_result("W", wrong)[3:5] == ("0.33", "0.67")
    right = wrong._replace(verdict=Verdict.AGREES)
    assert format_result("W", right)[3:5] == ("0.3333", "0.6667")
