"""Each time step is judged by the probe that shows most of it."""

import numpy as np
import pytest

from bptt_verifier.judge.steps import Steps, compare_steps, summarise_steps
from bptt_verifier.tolerance.comparison import Verdict

REFERENCE = np.array([[1.0, -2.0], [0.0, 4.0], [0.0, 0.0]])  # δ_t of two units at three steps
BOUND = np.array([[0.02, 0.01], [0.0, 0.1], [0.5, 0.25]])


def steps_of(relative: list[float], allowed: list[float]) -> Steps:
    off, bound = np.array(relative), np.array(allowed)
    return Steps(off, bound, off / bound)


def test_errors_are_relative_to_the_largest_entry_of_the_step() -> None:
    errors = np.array([[0.01, -0.04], [0.0, 0.1], [0.0, 0.0]])
    found = compare_steps((REFERENCE + errors).T.astype(np.float32), REFERENCE, BOUND)
    # float32 rounds numbers near 1 by 2⁻²⁴, which is 6e-6 of an error of 0.01.
    np.testing.assert_allclose(found.relative, [0.02, 0.025, 0.0], rtol=1e-5)
    np.testing.assert_allclose(found.allowed, [0.01, 0.025, np.inf])
    np.testing.assert_allclose(found.error, [4.0, 1.0, 0.0], rtol=1e-5)


def test_small_steps_and_zeros_without_error_are_no_exception() -> None:
    reference = np.array([[0.5, 0.25], [0.0, 0.0]])
    errors = np.array([[0.125, 0.0], [0.0, 0.0]])
    found = compare_steps((reference + errors).T, reference, 0.01 * reference)
    np.testing.assert_array_equal(found.relative, [0.25, 0.0])
    np.testing.assert_array_equal(found.allowed, [0.01, np.inf])


def test_an_error_where_none_is_allowed_and_one_where_the_step_is_zero_are_seen() -> None:
    errors = np.array([[0.0, 0.0], [1e-9, 0.0], [0.0, 1.0]])
    found = compare_steps((REFERENCE + errors).T, REFERENCE, BOUND)
    np.testing.assert_array_equal(found.error, [0.0, np.inf, 4.0])
    np.testing.assert_array_equal(found.relative[2:], [0.0])


@pytest.mark.parametrize(
    ("probes", "verdict", "relative", "allowed"),
    [
        ([([0.15], [0.1]), ([0.0], [0.01])], Verdict.DISAGREES, 0.15, 0.1),
        ([([0.1], [0.1]), ([0.0], [0.02])], Verdict.INCONCLUSIVE, 0.0, 0.02),
        ([([0.001], [0.1]), ([0.002], [2.0**-6])], Verdict.AGREES, 0.002, 2.0**-6),
        ([([0.0], [0.1]), ([0.0], [0.01])], Verdict.AGREES, 0.0, 0.01),
        ([([0.03], [0.1]), ([0.001], [0.01])], Verdict.AGREES, 0.03, 0.1),
    ],
    ids=["worst fails", "none is sharp", "sharp enough", "no error at all", "worst is shown"],
)
def test_a_step_disagrees_by_its_worst_probe_and_agrees_by_its_sharpest(
    probes: list[tuple[list[float], list[float]]], verdict: Verdict, relative: float, allowed: float
) -> None:
    (found,) = summarise_steps([steps_of(*probe) for probe in probes])
    assert found == (1, verdict, relative, allowed)


def test_steps_are_counted_from_one() -> None:
    found = summarise_steps([steps_of([0.0, 0.5, 0.0], [0.01, 0.01, 1.0])])
    assert [each[0] for each in found] == [1, 2, 3]
    assert [each[1] for each in found] == [Verdict.AGREES, Verdict.DISAGREES, Verdict.INCONCLUSIVE]
