"""A format is said to be at work inside only where the errors are those of rounding to it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Report, Verdict, verify_vjp
from bptt_verifier.judge import kernel_formats
from bptt_verifier.judge.kernel_formats import BOTH, SOME, STAY, describe_scatter, name_format
from tests.support.kernels import backward_of, draw_rnn, rnn

BFLOAT16: Any = jnp.bfloat16


def attention(q: Any, k: Any, v: Any) -> Any:
    return jax.nn.softmax(q @ k.T, -1) @ v


def attend_back(leave_out: float = 0.0, sums: Any = None, of_scores: float = 0.0) -> Any:
    """Pull back through attention without small numbers, or with one sum in another format."""

    def backward(arguments: Any, d: Any) -> Any:
        q, k, v = (np.asarray(each, np.float32) for each in arguments)
        d = np.asarray(d, np.float32)
        scores = q @ k.T
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        p = np.where(p < leave_out, 0, p)
        ds = p * (d @ v.T - (d * (p @ v)).sum(-1, keepdims=True))
        ds = np.where(np.abs(ds) < of_scores, 0, ds)
        dk = ds.T @ q if sums is None else ds.astype(sums).T @ q.astype(sums)
        found = ds @ k, dk, p.T @ d
        return tuple(g.astype(a.dtype) for g, a in zip(found, arguments, strict=True))

    return backward


def judge(dtype: Any, **changes: Any) -> Report:
    drawn = (np.random.default_rng(seed).normal(size=(9, 9)) / 1.5 for seed in range(3))
    given = tuple(each.astype(dtype) for each in drawn)
    return verify_vjp(attend_back(**changes), attention, given)


@pytest.mark.parametrize(
    "changes",
    [{"leave_out": 1e-2}, {"of_scores": 1e-2}, {"of_scores": 3e-2}],
    ids=["probabilities", "scores", "more scores"],
)
def test_a_threshold_in_bfloat16_is_no_rounding_of_sums(changes: Any) -> None:
    report = judge(BFLOAT16, **changes)
    assert "evidently rounded to 16 bits" not in str(report), report
    assert "they are alike at neighbouring points" in report.notes[0], report


def test_a_threshold_in_float32_is_no_format() -> None:
    report = judge(np.float32, of_scores=1e-2)
    assert not any("evidently rounded to" in note for note in report.notes), report


@pytest.mark.parametrize(
    ("sums", "said"),
    [(np.float16, "TF32 or float16"), (BFLOAT16, "bfloat16")],
    ids=["float16", "bfloat16"],
)
def test_a_sum_in_16_bits_inside_float32_is_stated_first_of_its_gradient(
    sums: Any, said: str
) -> None:
    report = judge(np.float32, sums=sums)
    assert report.verdict is Verdict.AGREES
    first = report.notes[0]
    assert first.startswith(f"Factors or sums are evidently rounded to {said} inside"), report
    assert "gradient for k are" in first
    assert "times those of rounding the exact gradient once" in first
    assert "would have been seen" in report.notes[1]


def test_a_right_kernel_says_nothing_of_formats() -> None:
    report = judge(np.float32)
    assert not any("evidently" in note for note in report.notes), report


def truncate_factors(a: Any, b: Any) -> Any:
    cut = (
        (np.asarray(x, np.float32).copy().view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
        for x in (a, b)
    )
    return np.matmul(*cut)


def test_truncation_to_tf32_is_told_from_rounding() -> None:
    def backward(arguments: Any, d: Any) -> Any:
        x, W = arguments
        da = d * (1 - np.tanh(x @ W) ** 2)
        return truncate_factors(da, W.T), truncate_factors(x.T, da)

    rng = np.random.default_rng(0)
    given = tuple(rng.normal(size=s).astype(np.float32) for s in ((6, 5), (5, 4)))
    report = verify_vjp(backward, lambda x, W: jnp.tanh(x @ W), given, cases=1)
    assert report.verdict is Verdict.AGREES
    assert "scatter as rounding to TF32 or float16 does, and are alike" in report.notes[0]


def test_random_errors_beyond_rounding_every_operation_are_no_rounding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng, right = np.random.default_rng(0), backward_of(rnn)

    def backward(arguments: Any, d: Any) -> Any:
        found = right(arguments, d)
        noise = [g.astype(np.float64) * rng.normal(size=g.shape) for g in found]
        return tuple((g + 0.07 * n).astype(g.dtype) for g, n in zip(found, noise, strict=True))

    monkeypatch.setattr("bptt_verifier.judge.kernel_path.find_lazy_answer", lambda *_: ())
    report = verify_vjp(backward, rnn, draw_rnn(BFLOAT16), cases=1)
    assert "they are larger than rounding every operation makes" in report.notes[0], report


def test_scatter_around_zero_in_nearly_all_entries_may_be_rounding() -> None:
    rng = np.random.default_rng(0)
    errors = rng.uniform(-1, 1, (32, 20))
    rounding = np.full(20, 0.3)
    assert describe_scatter(errors, rounding) == ""
    assert describe_scatter(errors + 0.4, rounding) == STAY
    assert describe_scatter(errors * (np.arange(20) < 15), rounding) == SOME


def test_one_error_that_all_entries_share_scatters_around_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = np.random.default_rng(0).normal(size=(300, 16, 1)) * np.ones(9)
    called = [describe_scatter(errors, np.zeros(9)) for errors in shared]
    assert sum(map(bool, called)) <= 9  # 1.3 % of them are expected
    monkeypatch.setattr(kernel_formats, "STAYING", 1.0)
    called = [describe_scatter(errors, np.zeros(9)) for errors in shared]
    assert sum(map(bool, called)) > 60


def test_a_scatter_between_two_formats_names_both() -> None:
    responses = {"bfloat16": 8.0, "TF32": 1.0, "float32": 2.0**-13}
    named = [name_format(scatter, responses) for scatter in (0.1, 0.5, 3.0, 9.0, 40.0)]
    assert named == ["", "TF32 or float16", BOTH, "bfloat16", ""]
