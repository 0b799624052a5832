"""Guards of a kernel's questions, each with a kernel that it alone sees; a head, and e-prop."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Verdict, verify_vjp

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 5)).astype(np.float32)


@pytest.mark.parametrize("which", ["arguments", "cotangents"])
def test_a_vector_that_is_read_by_its_address_is_told_by_strided_views(which: str) -> None:
    """A vector has no Fortran order of its own."""

    def by_address(v: Any) -> Any:
        return np.lib.stride_tricks.as_strided(v, v.shape, (v.itemsize,))

    def backward(arguments: Any, d: Any) -> Any:
        (x,) = arguments
        x, d = (by_address(x), d) if which == "arguments" else (x, by_address(d))
        return (d * np.cos(x),)

    (mistake, *_) = verify_vjp(backward, jnp.sin, (X[0],), cases=1).mistakes
    assert mistake.name == "depends-on-memory-layout"
    assert f"for {which} that are strided views" in mistake.explanation


@pytest.mark.parametrize("which", ["arguments", "cotangents", "none"])
def test_an_array_that_is_read_without_the_signs_of_its_strides_is_told_by_reversed_views(
    which: str,
) -> None:
    def by_strides(v: Any) -> Any:
        return np.lib.stride_tricks.as_strided(v, v.shape, [abs(n) for n in v.strides])

    def backward(arguments: Any, d: Any) -> Any:
        x = by_strides(arguments[0]) if which == "arguments" else arguments[0]
        return ((by_strides(d) if which == "cotangents" else d) * np.cos(x),)

    report = verify_vjp(backward, jnp.sin, (X,), cases=1)
    if which == "none":
        assert report, report
        return
    (mistake, *_) = report.mistakes
    assert mistake.name == "depends-on-memory-layout"
    assert f"for {which} that are reversed views" in mistake.explanation


def test_what_scales_with_the_cotangents_and_does_not_add_up_is_not_linear() -> None:
    def backward(arguments: Any, d: Any) -> Any:
        size = np.sqrt((d**2).mean()) + np.float32(1e-10)
        return (np.cos(arguments[0]) * (d + np.float32(0.2) * d**3 / size**2),)

    (mistake, *_) = verify_vjp(backward, jnp.sin, (X,), cases=1).mistakes
    assert mistake.name == "not-linear-in-cotangents"
    assert "two parts of the cotangents do not add up" in mistake.explanation


def test_a_padding_of_zeros_where_nan_counts_as_zero_hides_no_leak() -> None:
    inside = np.arange(5) < np.array([5, 2, 3, 4])[:, None]

    def forward(x: Any, w: Any) -> Any:
        return jnp.sin(jnp.where(inside, x, 0) * w)

    def backward(arguments: Any, d: Any) -> Any:
        x, w = arguments
        slope = d * np.cos(np.where(inside, x, 0) * w)  # not masked below, where NaN counts as 0
        return np.where(inside, slope * w, 0), (slope * np.where(np.isnan(x), 0, x)).sum(0)

    found = verify_vjp(backward, forward, (X * inside, X[0] + 2), cases=1).mistakes
    said = [each.explanation for each in found if each.name == "padding-leaks"]
    assert "other numbers in the padding of x" in said[0]


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_the_wrong_head_of_an_attention_is_placed(dtype: Any) -> None:
    def attend(q: Any, k: Any, v: Any) -> Any:
        return jax.nn.softmax(jnp.einsum("bntd,bnsd->bnts", q, k), -1) @ v

    def backward(arguments: Any, d: Any) -> Any:
        q, k, v, d = (np.asarray(each, np.float32) for each in (*arguments, d))
        s = np.einsum("bntd,bnsd->bnts", q, k)
        p = np.exp(s - s.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        dp = np.einsum("bntd,bnsd->bnts", d, v)
        ds = p * (dp - (dp * p).sum(-1, keepdims=True))
        dq, dk = np.einsum("bnts,bnsd->bntd", ds, k), np.einsum("bnts,bntd->bnsd", ds, q)
        dq[:, 2] = 0
        return tuple(g.astype(dtype) for g in (dq, dk, np.einsum("bnts,bntd->bnsd", p, d)))

    given = tuple(RNG.normal(size=(2, 4, 5, 3)).astype(dtype) for _ in range(3))
    (mistake,) = verify_vjp(backward, attend, given, cases=1).mistakes
    assert mistake.name == "wrong-index"
    assert "at index 2 of axis 1" in mistake.explanation


def add_up(x: Any, W: Any) -> Any:
    """The states of h_t = tanh(x_t + W ∘ h_{t−1}), whose units do not depend on one another."""
    h, states = jnp.zeros(x.shape[1]), []
    for each in x:
        h = jnp.tanh(each + W * h)
        states.append(h)
    return jnp.stack(states)


def pull_back_online(arguments: Any, d: Any, carried: bool = True) -> Any:
    """E-prop: each step's signal times a trace, which leaves out what later states do to h_t."""
    x, W = (np.asarray(each, np.float64) for each in arguments)
    d, h, trace = np.asarray(d, np.float64), np.zeros(x.shape[1]), np.zeros(x.shape[1])
    dx, dW = np.zeros_like(x), np.zeros_like(W)
    for t, each in enumerate(x):
        new = np.tanh(each + W * h)
        slope = 1 - new**2
        trace = slope * (h + (W * trace if carried else 0))
        dx[t], dW, h = slope * d[t], dW + d[t] * trace, new
    return dx, dW


@pytest.mark.parametrize("carried", [True, False])
def test_e_prop_is_judged_against_its_own_definition(carried: bool) -> None:
    def backward(arguments: Any, d: Any) -> Any:
        return [g.astype(np.float32) for g in pull_back_online(arguments, d, carried)]

    given = X, (X[0] / 2).astype(np.float32)
    stated = verify_vjp(backward, add_up, given, reference=pull_back_online, cases=1)
    assert stated.verdict is (Verdict.AGREES if carried else Verdict.DISAGREES)
    assert any("stated gradient" in each for each in stated.notes) or not carried
    true = verify_vjp(backward, add_up, given, cases=1)
    assert true.verdict is Verdict.DISAGREES  # autodiff of the same function


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_entries_behind_a_relu_are_no_padding_of_a_kernel_that_passes_nan_on(dtype: Any) -> None:
    def forward(a: Any, W: Any) -> Any:
        return jnp.where(a > 0, a, 0) @ W

    def backward(arguments: Any, d: Any) -> Any:
        a, W = arguments
        return (d @ W.T) * (a > 0), np.maximum(a, 0).T @ d

    rng = np.random.default_rng(0)
    arguments = [rng.normal(size=shape).astype(dtype) for shape in ((6, 4), (4, 3))]
    assert verify_vjp(backward, forward, arguments).verdict is Verdict.AGREES


def test_weights_behind_a_gate_that_is_shut_are_no_padding() -> None:
    def forward(a: Any, x: Any, W: Any) -> Any:
        return jnp.where(a > 0, a * x, 0) @ W

    def backward(arguments: Any, d: Any) -> Any:
        a, x, W = arguments
        h, e = np.maximum(a, 0), d @ W.T
        return (a > 0) * x * e, h * e, (h * x).T @ d

    rng = np.random.default_rng(3)
    a, x, W = (rng.normal(size=shape).astype(np.float32) for shape in ((6, 4), (6, 4), (4, 3)))
    a[:, 1] = -np.abs(a[:, 1])  # so that W[1] has no gradient
    assert verify_vjp(backward, forward, (a, x, W)).verdict is Verdict.AGREES
