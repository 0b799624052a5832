"""Exact identities: polynomial claims of the docket are decided without rounding."""

from fractions import Fraction

import numpy as np
import pytest

from bptt_verifier.judge.exact_identity import (
    LARGEST,
    WEIGHTS,
    certify_identity,
    differentiate_exactly,
)
from bptt_verifier.judge.published import list_entries, read_entry
from bptt_verifier.tolerance.comparison import Verdict

POLYNOMIAL = [name for name in list_entries() if read_entry(name).entry.degree]
RIGHT = [name for name in POLYNOMIAL if read_entry(name).entry.verdict is Verdict.AGREES]


def test_the_derivative_of_a_polynomial_of_degree_six_is_exact() -> None:
    def loss(p):
        w = p["w"][0]
        return 3 * w**6 - 5 * w**5 + w**2 / 4 + 7 * w

    found = differentiate_exactly(loss, {"w": np.array([2.0])}, "w", (0,))
    assert found == Fraction(18 * 2**5 - 25 * 2**4 + 1 + 7)


@pytest.mark.parametrize("name", POLYNOMIAL)
def test_exact_values_decide_as_the_entry_states(name: str) -> None:
    case = read_entry(name)
    found = certify_identity(case, points=4)
    assert (found.refuted is None) is (case.entry.verdict is Verdict.AGREES)
    assert case.module.x.dtype == np.float64
    assert not np.array_equal(case.module.x, np.rint(case.module.x))  # as it was


def test_a_hundred_points_leave_a_chance_below_one_in_ten_to_the_ten() -> None:
    assert certify_identity(read_entry("d2l-immediate")).log10_error < -10


def test_an_error_far_below_every_tolerance_is_refuted() -> None:
    case = read_entry("d2l-immediate")
    right = case.module.gradients

    def wrong(p):
        return {name: value * (1 + 2.0**-50) for name, value in right(p).items()}

    case.module.gradients = wrong
    assert "the claim gives" in (certify_identity(case, points=1).refuted or "")


@pytest.mark.parametrize("name", RIGHT)
def test_no_value_needs_more_than_53_bits(name: str) -> None:
    # All of one sign, so that nothing cancels; no parameter is larger than this.
    module = read_entry(name).module
    module.x, module.y = np.full_like(module.x, 2.0), np.full_like(module.y, -2.0)
    most = float(LARGEST + max(WEIGHTS))
    params = {key: np.full(value.shape, most) for key, value in module.params.items()}
    assert module.loss(params) < 2.0**46
    assert max(float(np.max(value)) for value in module.gradients(params).values()) < 2.0**43
