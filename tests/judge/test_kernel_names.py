"""A mistake in an operation is named only if its words are true, in every setting that is wrong."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Report, Verdict, verify_vjp
from bptt_verifier.judge import kernel_operations
from bptt_verifier.mistakes import other_sizes


def draw(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def recur(a: Any, b: Any) -> Any:
    h, every = jnp.zeros(b.shape[1:]), []
    for t in range(a.shape[0]):
        h = a[t] * h + b[t]
        every.append(h)
    return jnp.stack(every)


def recur_back(cut: int) -> Any:
    """Pull back through a linear recurrence without a carry between chunks."""

    def backward(arguments: Any, d: Any) -> Any:
        a, b = arguments
        h = [np.zeros_like(b[0])]
        for t in range(len(a)):
            h.append(a[t] * h[-1] + b[t])
        da, db, dh = np.zeros_like(a), np.zeros_like(b), np.zeros_like(b[0])
        for t in reversed(range(len(a))):
            dh = dh + d[t]
            db[t], da[t] = dh, dh * h[t]
            dh = a[t] * dh if t % cut else np.zeros_like(dh)
        return da, db

    return backward


def list_settings(*lengths: int) -> list[Any]:
    rng = np.random.default_rng(0)
    return [
        (rng.uniform(0.8, 0.99, (T, 2)).astype(np.float32), draw(T, 2, seed=T)) for T in lengths
    ]


def describe(report: Report) -> str:
    assert report.verdict is Verdict.DISAGREES, report
    return " ".join(mistake.explanation for mistake in report.mistakes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cut", "lengths"), [(16, (1, 17, 40)), (16, (17, 40)), (5, (6, 12)), (7, (15, 8))]
)
def test_chunks_are_named_as_chunks_in_settings_that_they_hardly_fill(
    cut: int, lengths: tuple[int, ...]
) -> None:
    report = verify_vjp(recur_back(cut), recur, list_settings(*lengths), cases=1)
    assert f"no gradient is passed on beyond chunks of {cut} steps" in describe(report), report
    assert "last 1 of" not in describe(report)


@pytest.mark.rest
def test_a_statement_of_one_size_is_asked_at_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel with two mistakes, one for each setting, has no name that explains both."""

    def backward(arguments: Any, d: Any) -> Any:
        return recur_back(4 if len(d) > 10 else 3)(arguments, d)

    settings = list_settings(8, 12)
    report = verify_vjp(backward, recur, settings, cases=1)
    assert "chunks of" not in describe(report), report
    monkeypatch.setattr(other_sizes.OtherSize, "explains", lambda *_: True)
    report = verify_vjp(backward, recur, settings, cases=1)
    assert "chunks of 4 steps" in describe(report), report


@pytest.mark.rest
@pytest.mark.parametrize(("cut", "lengths"), [(4, (4, 5)), (5, (6, 5)), (3, (4, 2, 3))])
def test_a_statement_has_to_be_true_in_settings_that_are_right(
    cut: int, lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut before the last step would be wrong in the settings of one chunk."""
    settings = list_settings(*lengths)
    report = verify_vjp(recur_back(cut), recur, settings, cases=1)
    assert "last 1 of" not in describe(report), report
    monkeypatch.setattr(kernel_operations, "hold_at", lambda *_: lambda made: True)
    report = verify_vjp(recur_back(cut), recur, settings, cases=1)
    assert f"last 1 of {cut + 1}" in describe(report), report


def test_a_mistake_that_changes_nothing_in_one_setting_is_named() -> None:
    """A single step has no carry, and a right gradient whatever is done with it."""
    report = verify_vjp(recur_back(1), recur, list_settings(1, 6), cases=1)
    assert "no gradient is passed on" in describe(report), report


def choose_two(x: Any, G: Any) -> Any:
    z = x @ G
    top = jnp.take_along_axis(z, jnp.argsort(-z, 1)[:, :2], 1)
    return jax.nn.softmax(top, 1)


def test_broadcasts_inside_a_softmax_are_no_steps() -> None:
    def backward(arguments: Any, d: Any) -> Any:
        x, G = arguments
        z = x @ G
        top = np.argsort(-z, 1)[:, :2]
        p = np.asarray(jax.nn.softmax(np.take_along_axis(z, top, 1), 1))
        dz = np.zeros_like(z)
        np.put_along_axis(dz, top, p * d, 1)
        return dz @ G.T, x.T @ dz

    said = describe(verify_vjp(backward, choose_two, (draw(8, 4), draw(4, 5, seed=1)), cases=1))
    assert "sum in the denominator of the softmax" in said
    assert "step" not in said


def filter_causally(x: Any, w: Any) -> Any:
    K, T = w.shape[1], x.shape[1]
    padded = jnp.pad(x, ((0, 0), (K - 1, 0)))
    return sum(w[:, k : k + 1] * padded[:, k : k + T] for k in range(K))


def test_a_filter_in_reverse_order_is_no_input_of_another_step() -> None:
    def backward(arguments: Any, d: Any) -> Any:
        x, w = arguments
        K, T = w.shape[1], x.shape[1]
        padded = np.pad(x, ((0, 0), (K - 1, 0)))
        after = np.pad(d, ((0, 0), (0, K - 1)))
        dx = sum(w[:, k : k + 1] * after[:, k : k + T] for k in range(K))
        dw = np.stack([(d * padded[:, k : k + T]).sum(1) for k in range(K)], 1)
        return dx, dw

    report = verify_vjp(backward, filter_causally, (draw(3, 13), draw(3, 4, seed=1)), cases=1)
    assert "in reverse order" in describe(report), report
    assert "wrong-operand" in {mistake.name for mistake in report.mistakes}
    assert "input-off-by-one" not in str(report)


@pytest.mark.parametrize(("forward", "name"), [
    (lambda x, w: jnp.tanh(x) * w, "sum-part-missing"),
    (lambda x, w: jnp.tanh(x) + w, "bias-part-missing"),
])  # fmt: skip
def test_a_part_of_the_sum_of_a_scale_is_no_part_of_a_bias(forward: Any, name: str) -> None:
    def backward(arguments: Any, d: Any) -> Any:
        x, w = arguments
        scaled = name == "sum-part-missing"
        dx = d * (1 - np.tanh(x) ** 2) * (w if scaled else 1)
        return dx, (d * (np.tanh(x) if scaled else 1))[:1].sum((0, 1))

    report = verify_vjp(backward, forward, (draw(3, 7, 8), draw(8, seed=1)), cases=1)
    assert [mistake.name for mistake in report.mistakes] == [name], report


@pytest.mark.rest
def test_a_mistake_is_named_where_a_mask_leaves_an_infinite_slope_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Autodiff of the stated function gives NaN where a < 0, and so would its operations. (N8)"""

    def forward(a: Any, w: Any) -> Any:
        return jnp.where(a > 0, jnp.sqrt(a), 0.0) * jnp.tanh(w)

    def backward(arguments: Any, d: Any) -> Any:
        a, w = arguments
        root, y = np.sqrt(np.maximum(a, 0)), np.tanh(w)
        return np.where(a > 0, d * y / (2 * np.where(a > 0, root, 1)), 0), d * root

    rng = np.random.default_rng(0)
    a, w = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    report = verify_vjp(backward, forward, (a, w), cases=1)
    assert "activation-derivative-missing" in {each.name for each in report.mistakes}, report
    monkeypatch.setattr(kernel_operations, "keep_zeros_of", lambda program: program)
    report = verify_vjp(backward, forward, (a, w), cases=1)
    assert "activation-derivative-missing" not in {each.name for each in report.mistakes}
