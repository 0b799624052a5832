"""The gradients of many hypotheses against a submission's, all at once and one by one."""

import numpy as np
import pytest

from bptt_verifier.mistakes import evidence
from bptt_verifier.mistakes.evidence import FEW_ENTRIES, SLACK, Evidence, Wanted
from bptt_verifier.problems.problem import Array

SIZE = 5 * FEW_ENTRIES + 3
submitted = np.random.default_rng(0).normal(size=(SIZE, 2))
wanted = Wanted(submitted, np.full(submitted.shape, 1e-12), 1e-13, None)


def make_rows() -> Array:
    """Rows with the submission's gradient, nearly so, and not in one entry or in all of them."""
    rows = np.array([submitted] * 12)
    rows[1] += SLACK * 0.9e-12
    rows[2] *= 1 + 1e-11
    rows[3:7, 1, 0] += [1e-10, -1e-10, np.nan, np.inf]  # an entry between those compared first
    rows[7:10, 0, 0] += [1e-10, np.nan, -np.inf]  # the first entry of all
    rows[10] = 0.0
    rows[11, -1, -1] -= SLACK * 1.1e-12 * max(1.0, 0.1 * np.max(np.abs(submitted)))
    return rows


def test_rows_are_near_where_each_is_explained() -> None:
    rows, case = make_rows(), Evidence(None, {"W": submitted}, {"W": wanted})
    near = wanted.select_near(rows, SLACK)
    assert near.tolist() == [case.explains("W", row) for row in rows]
    assert near.tolist() == [True, True, *[False] * 10]


def test_a_large_gradient_allows_errors_in_proportion_to_its_size() -> None:
    large = wanted._replace(submitted=1e6 * submitted)
    off = np.zeros_like(submitted)
    off[3, 1] = 0.9 * SLACK * 1e-13 * np.max(np.abs(large.submitted))
    rows = large.submitted + np.array([off, -off, 2 * off])
    assert large.select_near(rows, SLACK).tolist() == [True, True, False]
    assert large.select_near(-rows, SLACK).tolist() == [False] * 3


def test_few_entries_leave_most_rows_out(monkeypatch: pytest.MonkeyPatch) -> None:
    compared, flatnonzero = list[int](), np.flatnonzero

    def count(near: Array) -> Array:
        compared.append(int(np.sum(near)))
        return flatnonzero(near)

    monkeypatch.setattr(evidence.np, "flatnonzero", count)
    rows = make_rows()
    wanted.select_near(rows, SLACK)
    assert compared == [8, 5]  # the finite ones, and those with the submission's first entries
