"""Digits that are lost alike at all neighbours in float32 and float64: in saturated functions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Verdict, verify_vjp
from bptt_verifier.judge import kernel_comparisons
from bptt_verifier.judge.kernel_answers import Question
from bptt_verifier.tolerance.projections import find_kept

CASES = [
    (dtype, size, seed)
    for dtype, size in (
        (np.float32, 10.0), (np.float32, 20.0), (np.float32, 40.0),
        (np.float64, 40.0), (np.float64, 100.0), (np.float64, 400.0),
    )
    for seed in range(4)
]  # fmt: skip


def pull_back_softmax(x: Any, ct: Any) -> Any:
    """c − Σ p c, of which no digit is left where p is 1."""
    e = np.exp(x - x.max())
    p = e / e.sum()
    return p * (ct - (p * ct).sum())


def pull_back_by_differences(x: Any, ct: Any) -> Any:
    """The same without that loss: Σ pᵢ pⱼ (cᵢ − cⱼ), in more digits than float64."""
    x, ct = x.astype(np.longdouble), ct.astype(np.longdouble)
    e = np.exp(x - x.max())
    p = e / e.sum()
    return (p[:, None] * p * (ct[:, None] - ct)).sum(axis=1)


def draw_scores(dtype: Any, size: float, seed: int) -> Any:
    return (size * np.random.default_rng(seed).normal(size=5)).astype(dtype)


@pytest.mark.table(12)
@pytest.mark.parametrize(("dtype", "size", "seed"), CASES)
def test_a_right_softmax_of_scores_far_apart_is_not_called_wrong(
    dtype: Any, size: float, seed: int
) -> None:
    x = draw_scores(dtype, size, seed)
    for formula in (pull_back_softmax, pull_back_by_differences):

        def backward(arguments: Any, ct: Any, formula: Any = formula) -> Any:
            return (formula(arguments[0], ct).astype(dtype),)

        report = verify_vjp(backward, jax.nn.softmax, (x,), seed=seed)
        assert report.verdict is not Verdict.DISAGREES, report
    lost = verify_vjp(lambda a, ct: (pull_back_softmax(a[0], ct),), jax.nn.softmax, (x,), seed=seed)
    assert lost.verdict is Verdict.AGREES, lost


@pytest.mark.table(7)
@pytest.mark.parametrize(("dtype", "size", "seed"), CASES)
def test_a_wrong_one_does_not_agree(dtype: Any, size: float, seed: int) -> None:
    x = draw_scores(dtype, size, seed)
    for factor, normaliser in ((1.01, 1), (1, 0)):

        def backward(arguments: Any, ct: Any, factor: Any = factor, whole: Any = normaliser) -> Any:
            e = np.exp(arguments[0] - arguments[0].max())
            p = e / e.sum()
            return (dtype(factor) * p * (ct - dtype(whole) * (p * ct).sum()),)

        report = verify_vjp(backward, jax.nn.softmax, (x,), seed=seed)
        assert report.verdict is not Verdict.AGREES, report


def test_a_factor_on_entries_that_have_their_digits_is_not_excused() -> None:
    """1 − tanh² has none in float32 at 30, and the formula by exponentials has all."""
    x = (30 + np.random.default_rng(1).normal(size=6) / 2).astype(np.float32)

    def backward(arguments: Any, ct: Any, factor: float = 1.0) -> Any:
        a = arguments[0]
        return ((np.float32(factor) * ct * 4 / (np.exp(a) + np.exp(-a)) ** 2).astype(np.float32),)

    assert verify_vjp(backward, jnp.tanh, (x,)).verdict is Verdict.AGREES
    wrong = verify_vjp(lambda a, ct: backward(a, ct, 1.01), jnp.tanh, (x,))
    assert wrong.verdict is not Verdict.AGREES


def test_an_entry_that_follows_the_exact_gradient_has_its_digits() -> None:
    exact = np.linspace(1, 1.1, 16)[:, None] * np.ones((16, 4))
    factors, noise = np.array([0.01, -1.0, 0.01, -2.0]), np.array([0, 0, 1e-3, 0])
    errors = factors * exact + noise * np.random.default_rng(0).normal(size=exact.shape)
    assert find_kept(errors, exact, np.float32).tolist() == [True, False, False, True]
    assert not find_kept(errors, exact, jnp.bfloat16).any()


def test_rounding_is_imitated_only_where_errors_may_be_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    original = kernel_comparisons.imitate_rounding

    def note(*given: Any) -> Any:
        asked.append(True)
        return original(*given)

    monkeypatch.setattr(kernel_comparisons, "imitate_rounding", note)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    wrong = verify_vjp(lambda a, ct: (2 * ct * np.cos(a[0]),), jnp.sin, (x,))
    assert wrong.verdict is Verdict.DISAGREES
    assert not asked


def test_a_finding_of_a_question_that_rounding_explains_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At 400, parts of the cotangents lose other digits than the whole of them."""
    x = 400 + np.random.default_rng(0).normal(size=5)

    def judge() -> Any:
        return verify_vjp(lambda a, ct: (pull_back_softmax(a[0], ct),), jax.nn.softmax, (x,))

    assert judge().verdict is Verdict.AGREES
    monkeypatch.setattr(Question, "allow_rounding", lambda question: question)
    assert [mistake.name for mistake in judge().mistakes] == ["not-linear-in-cotangents"]
