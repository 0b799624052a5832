"""The accuracy report: honest numbers, and a page that one command writes."""

import json
from pathlib import Path

import numpy as np
import pytest

from bptt_verifier.commands import accuracy
from bptt_verifier.commands.accuracy import (
    CONTENDERS,
    DTYPES,
    HEADINGS,
    LENGTHS,
    NORMS,
    draw_problem,
    format_row,
    measure,
)
from tests.support.modules import ROOT

FACTOR = 200  # docs/certification.md: the bound is never more than so many times what was needed


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_error_is_above_its_bound_and_the_bound_is_not_looser_than_said(dtype: str) -> None:
    row = measure(0, 3, dtype, 5, 1.0)
    assert row.entries == 3 * (4 * 3 + 4 * 4 + 2 * 4)
    assert set(row.errors) == set(CONTENDERS)
    for errors in row.errors.values():
        assert 0 < errors.median <= errors.percentile_99 <= errors.worst
        assert 0 < errors.over_bound <= 1
    assert row.looseness <= FACTOR
    assert row.looseness == pytest.approx(1 / max(e.over_bound for e in row.errors.values()))
    assert len(format_row(row)) == len(HEADINGS)


def test_a_worse_implementation_has_larger_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = accuracy.contenders()

    def rounded(problem):
        found = asked["manual"](problem)
        return found._replace(W=found.W.astype(np.float32).astype(np.float64))

    monkeypatch.setattr(accuracy, "contenders", lambda: asked | {"manual-jit": rounded})
    errors = measure(0, 2, "float64", 5, 1.0).errors
    assert errors["manual-jit"].worst > 1e6 * errors["manual"].median
    assert errors["manual-jit"].over_bound > 1


def test_the_problems_have_the_norm_that_is_said() -> None:
    for norm in NORMS:
        problem = draw_problem(0, 1, "float32", 5, norm)
        assert problem.x.dtype == problem.params.W.dtype == np.float32
        # ‖W‖ moves by at most ‖ΔW‖_F ≤ u ‖W‖_F ≤ u √H ‖W‖ when W is rounded to float32, u = 2⁻²⁴.
        W = problem.params.W.astype(np.float64)
        assert abs(np.linalg.norm(W, 2) - norm) <= 1.01 * 2.0**-24 * np.sqrt(len(W)) * norm


def test_the_page_in_the_docs_is_what_the_command_writes() -> None:
    page = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    assert "`bptt accuracy --problems 10 --seed 0 --markdown docs/accuracy.md`" in page
    table = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line] for line in table]
    assert tuple(head) == HEADINGS
    expected = [(d, str(T), f"{n:g}") for d in DTYPES for T in LENGTHS for n in NORMS]
    assert [tuple(row[:3]) for row in rows] == expected
    assert all(float(row[-2]) <= 1 for row in rows)
    assert all(float(row[-1]) <= FACTOR for row in rows)
    said = (ROOT / "docs" / "certification.md").read_text(encoding="utf-8")
    assert f"never more than {FACTOR} times what was needed" in said


def test_the_command_prints_writes_and_draws(bptt, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(accuracy, "DTYPES", ("float64",))
    monkeypatch.setattr(accuracy, "LENGTHS", (5,))
    monkeypatch.setattr(accuracy, "NORMS", (1.0, 2.0))
    files = {
        o: tmp_path / f
        for o, f in {"--json": "a.json", "--markdown": "a.md", "--plot": "a.svg"}.items()
    }
    ended = bptt("accuracy", "--problems", "1", *(str(p) for pair in files.items() for p in pair))
    assert ended.code == 0
    assert "Typically " in ended.out
    written = json.loads(files["--json"].read_text(encoding="utf-8"))
    assert [row["norm"] for row in written["rows"]] == [1.0, 2.0]
    assert all(row["errors"]["autodiff"]["over_bound"] <= 1 for row in written["rows"])
    assert files["--markdown"].read_text(encoding="utf-8").count("\n| float64") == 2
    assert "<svg" in files["--plot"].read_text(encoding="utf-8")
