"""The derivations on exact rationals and power series, and mistakes that this would show."""

import json
import math
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from flint import ctx, fmpq
from hypothesis import given
from hypothesis import strategies as st

from bptt_verifier.commands import prove as prove_command
from bptt_verifier.problems.problem import Sizes
from bptt_verifier.proofs import rational as rational_proof
from bptt_verifier.proofs import symbolic as symbolic_proof
from bptt_verifier.proofs import symbolic_tangents
from bptt_verifier.proofs import tangents as tangent_proof
from bptt_verifier.proofs.cases import LONG, SMALL, ProofCase, cases
from bptt_verifier.proofs.power_series import Degree, PowerSeries, keep_terms, series
from bptt_verifier.proofs.rational import (
    DERIVATIONS,
    MODULES,
    SET_SIZE,
    SHAPES,
    prove_polynomials,
    prove_series,
    rational_number,
)
from manual_bptt import rnn
from tests.support.planting import GATED_MISTAKES, MISTAKES, Mistake, planted
from tests.support.profiles import deep

FEW = SHAPES if deep() else (*SHAPES[::23], SHAPES[-1])


@pytest.mark.table(3)
@pytest.mark.parametrize("name", DERIVATIONS)
def test_every_gradient_is_the_derivative_of_the_loss_polynomial(name: str) -> None:
    proved = prove_polynomials(name, DERIVATIONS[name], shapes=FEW)
    assert proved.refuted is None
    assert proved.identities == 4 * len(FEW)
    assert proved.log10_error < -13


def test_all_shapes_are_those_that_are_claimed() -> None:
    assert len(SHAPES) == len(set(SHAPES)) == 324
    assert max(SHAPES) == Sizes(4, 3, 3, 3, 3)


@pytest.mark.parametrize(("T", "degree"), [(1, 14), (2, 44), (3, 134), (4, 404)])
def test_the_degree_that_is_computed_is_the_one_by_hand(T: int, degree: int) -> None:
    # deg h_t = 3 (1 + deg h_{t-1}), and L is the square of a product of V and h_T.
    by_hand = 1
    for _ in range(T):
        by_hand = 3 * (1 + by_hand)
    assert 2 * (1 + by_hand) == degree
    assert prove_polynomials("", rnn, shapes=(Sizes(T, 1, 2, 2, 1),)).degree == degree


def test_the_probability_of_error_is_that_of_schwartz_and_zippel() -> None:
    shape = (Sizes(1, 1, 1, 1, 1),)
    once, twice = (prove_polynomials("", rnn, shapes=shape, points=n) for n in (1, 2))
    # Logarithms below 64, of which rounding moves every operation by at most a part 2u.
    rounding = 8 * 64 * 2.0**-53
    assert abs(once.log10_error - math.log10(4 * 14 / SET_SIZE)) <= rounding
    assert abs(twice.log10_error - math.log10(4 * (14 / SET_SIZE) ** 2)) <= rounding
    with pytest.raises(ValueError, match="points: expected at least 1, found 0"):
        prove_polynomials("", rnn, points=0)


def test_coordinates_are_drawn_from_the_whole_set() -> None:
    drawn = [rational_number(random.Random(seed)) for seed in range(50)]
    assert len(set(drawn)) == 50
    assert {value.q for value in drawn} <= {1, 7}
    assert {value > 0 for value in drawn} == {True, False}
    assert max(abs(value) for value in drawn) > 2**61 // 7


FAST = {"rnn": 12, "lstm": 5, "gru": 10}


@pytest.mark.parametrize("name", MODULES)
def test_power_series_of_gradient_and_derivative_agree(name: str) -> None:
    chosen = tuple(cases(name.lower()))
    chosen = chosen if deep() else (*chosen[:: FAST[name.lower()]], chosen[-1])
    proved = prove_series(name, MODULES[name], chosen=chosen)
    assert proved.refuted is None
    assert proved.identities == len(chosen)
    assert proved.degree == LONG.T + 4


def test_the_models_of_the_series_go_through_every_loss_mode_and_option() -> None:
    for cell, count in {"rnn": 169, "lstm": 43, "gru": 85}.items():
        found = list(cases(cell))
        assert len(found) == count
        assert len({(str(case), case.full, case.large_residuals) for case in found}) == count


TRIED = MISTAKES + GATED_MISTAKES if deep() else (MISTAKES + GATED_MISTAKES)[::2]


@pytest.mark.table(11)
@pytest.mark.parametrize("mistake", TRIED, ids=lambda m: f"{m.suspect}: {m.name}")
def test_a_planted_mistake_is_refuted(mistake: Mistake, tmp_path: Any) -> None:
    module = planted(mistake, tmp_path)
    refuted = None
    if mistake.suspect in ("rnn", "jacobian_sum", "rtrl"):
        pair = Sizes(4, 2, 2, 2, 2), Sizes(4, 2, 2, 2, 1)
        refuted = prove_polynomials("", module, shapes=pair).refuted
    if refuted is None and mistake.suspect in ("rnn", "lstm", "gru"):
        refuted = prove_series(mistake.suspect.upper(), module, chosen=telling(mistake)).refuted
    assert refuted is not None


def telling(mistake: Mistake) -> tuple[ProofCase, ...] | None:
    """The models that show it, where going through all of them would take long."""
    if mistake.name.startswith("truncated"):
        return (ProofCase("rnn", "tanh", "half_sse", LONG),)
    if mistake.file == "losses.py" and mistake.suspect != "rnn" and not deep():
        option = "after" if mistake.suspect == "gru" else ""
        return tuple(
            ProofCase(mistake.suspect, option, loss, SMALL)
            for loss in ("mae", "huber", "softmax_cross_entropy", "binary_cross_entropy")
        )
    return None


# The numbers themselves.


def power_series(*coefficients: Any, terms: int = 6) -> PowerSeries:
    return PowerSeries(series([fmpq(c) for c in coefficients], terms))


def coefficients_of(value: PowerSeries, terms: int = 6) -> list[Fraction]:
    return [Fraction(int(value.terms[k].p), int(value.terms[k].q)) for k in range(terms)]


def test_functions_of_series_have_the_coefficients_of_the_textbook() -> None:
    s = power_series(0, 1)
    F = Fraction
    with keep_terms(6):
        assert coefficients_of(s.tanh()) == [0, 1, 0, F(-1, 3), 0, F(2, 15)]
        assert coefficients_of(s.exp()) == [1, 1, F(1, 2), F(1, 6), F(1, 24), F(1, 120)]
        assert coefficients_of(s.log1p()) == [0, 1, F(-1, 2), F(1, 3), F(-1, 4), F(1, 5)]
        assert coefficients_of(1 / (1 - s)) == [1] * 6


def test_series_are_ordered_by_their_first_term() -> None:
    s = power_series(0, 1)
    assert 0 < s < power_series(fmpq(1, 10**9))
    assert -s < 0 < s * s < s
    assert abs(-s) == s
    assert max(s, 2 * s, -s) == 2 * s
    assert not (s - s).sign()
    with pytest.raises(TypeError, match="cannot be hashed"):
        hash(s)


def test_a_logarithm_is_carried_until_exp_meets_it() -> None:
    s = power_series(0, 1)
    with keep_terms(6):
        two = (2 + s).log()
        assert two.power == 1
        assert two.base == 2
        assert two.exp() == 2 + s
        assert (s - two).exp() * (2 + s) == s.exp()
        with pytest.raises(TypeError, match="found one with a logarithm"):
            two * two
        with pytest.raises(TypeError, match="a comparison: expected a series"):
            two > s  # noqa: B015
        with pytest.raises(TypeError, match="found those of two"):
            two + (3 + s).log()
        with pytest.raises(TypeError, match="a whole multiple of a logarithm, found 1/2"):
            (two / 2).exp()


def test_what_python_flint_had_before_the_series_it_has_afterwards() -> None:
    before = ctx.cap
    with pytest.raises(ValueError, match="on purpose"), keep_terms(3):
        raise ValueError("on purpose")
    assert ctx.cap == before


@given(st.integers(0, 50), st.integers(0, 50))
def test_degrees_add_and_the_larger_one_wins(m: int, n: int) -> None:
    a, b = Degree(m), Degree(n)
    assert (a * b).degree == m + n
    assert (a + b).degree == (a - b).degree == max(m, n)
    assert (1 + a).degree == (2 * a / 3).degree == (-a).degree == m
    assert (a**3).degree == 3 * m
    assert (np.array([[a, b]], object) @ np.array([[b], [a]], object))[0, 0].degree == m + n


# The command.


@pytest.fixture
def no_rocq(monkeypatch) -> None:
    """A machine on which the theorems cannot be checked."""
    monkeypatch.setattr("shutil.which", lambda name: None)


@pytest.mark.rest
@pytest.mark.usefixtures("no_rocq")
def test_prove_prints_what_is_proved_and_writes_it(bptt, monkeypatch, tmp_path) -> None:
    options = {"rnn": "tanh", "lstm": "", "gru": "after"}
    models = tangent_proof.series_cases()
    free_cases = symbolic_tangents.free_tangent_cases()
    for kind in (rational_proof, symbolic_proof, tangent_proof):
        monkeypatch.setattr(kind, "SHAPES", SHAPES[:3])
    monkeypatch.setattr(tangent_proof, "series_cases", lambda: models[:1])
    monkeypatch.setattr(symbolic_tangents, "free_tangent_cases", lambda: free_cases[-2:-1])
    monkeypatch.setattr(
        rational_proof, "cases", lambda cell: [ProofCase(cell, options[cell], "mse", SMALL)]
    )
    monkeypatch.setattr(symbolic_proof, "own_cases", lambda cell: ())
    ended = bptt("prove", "--json", str(tmp_path / "out.json"))
    assert ended.code == 0
    assert "12 identities, degree ≤ 14" in ended.out
    assert "not checked: the theorems need Rocq" in ended.out
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert written["holds"]
    assert len(written["rows"]) == 15
    assert {row["derivation"] for row in written["rows"][-3:]} == {"JVP and HVP"}


@pytest.mark.usefixtures("no_rocq")
def test_prove_ends_with_1_where_something_is_refuted(bptt, monkeypatch) -> None:
    row = prove_command.ProofRow("rnn", "rationals", "0 identities", "", "T=1: Differs: wrong", {})
    monkeypatch.setattr(prove_command, "proofs", lambda points, seed: iter([row]))
    ended = bptt("prove")
    assert ended.code == 1
    assert "rnn: T=1: Differs: wrong" in ended.out
