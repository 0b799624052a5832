"""Questions that a lazy kernel fails, each with a finding of its own."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Verdict, verify_vjp
from bptt_verifier.judge.kernel_answers import Question
from bptt_verifier.judge.kernel_memory import (
    describe_indeterminacy,
    find_noise,
    find_stale_entries,
    is_unwritten,
)
from tests.support.kernels import backward_of, draw_rnn, rnn

X = np.random.default_rng(0).normal(size=(3, 4))
W = np.random.default_rng(1).normal(size=4)
LENGTHS = np.array([4, 2, 3])
INSIDE = np.arange(4) < LENGTHS[:, None]


def forward(x: Any, w: Any) -> Any:
    """Two outputs, of which rows are independent and what is beyond LENGTHS is not read."""
    inside = jnp.where(INSIDE, x, 0)
    return {"rows": jnp.sin(inside * w), "sums": inside.sum(axis=1)}


def right(arguments: Any, cotangents: Any) -> Any:
    """The gradients of `forward`."""
    x, w = arguments
    x = np.where(INSIDE, x, 0)
    slope = cotangents["rows"] * np.cos(x * w)
    return np.where(INSIDE, slope * w + cotangents["sums"][:, None], 0), (slope * x).sum(axis=0)


class Counting:
    """A kernel that is wrong from its 46th call on."""

    calls = 0

    def __call__(self, arguments: Any, cotangents: Any) -> Any:
        dx, dw = right(arguments, cotangents)
        self.calls += 1
        return dx, dw * (2 if self.calls > 45 else 1)


class Remembering:
    """A kernel that keeps the first w it was given with each cotangent's sign."""

    def __init__(self) -> None:
        self.kept: dict[bytes, Any] = {}

    def __call__(self, arguments: Any, cotangents: Any) -> Any:
        dx, dw = right(arguments, cotangents)
        last, self.kept[b""] = self.kept.get(b"", dw), dw
        return dx, dw + 0.1 * (np.abs(last - dw) > 0.5)


class Drawing:
    """A kernel whose result is drawn anew at each call."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __call__(self, arguments: Any, cotangents: Any) -> Any:
        dx, dw = right(arguments, cotangents)
        return dx, dw * self.rng.normal(1, 0.3, dw.shape)


def ignoring(*names: str) -> Any:
    """A kernel that takes some cotangents as ones."""

    def backward(arguments: Any, cotangents: Any) -> Any:
        return right(arguments, cotangents | {n: np.ones_like(cotangents[n]) for n in names})

    return backward


def clipping(arguments: Any, cotangents: Any) -> Any:
    dx, dw = right(arguments, cotangents)
    return dx, np.clip(dw, -3, 3)


def constant(arguments: Any, cotangents: Any) -> Any:
    dx, dw = right(arguments, cotangents)
    return dx, dw + 0.5


def homogeneous(arguments: Any, cotangents: Any) -> Any:
    """Scales with positive factors, and adds what two masks leave, but is not linear."""
    dx, dw = right(arguments, cotangents)
    return dx, dw + 0.1 * np.abs(cotangents["rows"]).sum(axis=0)


class Accumulating:
    """A kernel that adds to what it returned before."""

    total = 0.0

    def __call__(self, arguments: Any, cotangents: Any) -> Any:
        dx, dw = right(arguments, cotangents)
        self.total = self.total + dw
        return dx, self.total


class Keeping:
    """A kernel that keeps the first w it is given, and reads no other."""

    kept: Any = None

    def __call__(self, arguments: Any, cotangents: Any) -> Any:
        self.kept = arguments[1].copy() if self.kept is None else self.kept
        return right((arguments[0], self.kept), cotangents)


class Lagging:
    """A kernel with a small part of what it was given at the call before."""

    last = 0.0

    def __call__(self, arguments: Any, cotangents: Any) -> Any:
        dx, dw = right(arguments, cotangents)
        last, self.last = self.last, 0.02 * arguments[1]
        return dx, dw + last


def unwritten(arguments: Any, cotangents: Any) -> Any:
    dx, dw = right(arguments, cotangents)
    found = np.empty_like(dw)
    found[:-1] = dw[:-1]
    return dx, found


class OnDevice:
    """A kernel whose outputs are in blocks of a device's pool, the first rows of one unwritten."""

    def __init__(self, missing: str) -> None:
        self.missing, self.free = missing, [np.zeros(X.size), np.zeros(X.size)]

    def __call__(self, arguments: Any, cotangents: Any) -> Any:
        blocks = [self.free.pop(), self.free.pop()]
        found = right(arguments, cotangents)
        for name, block, value in zip("xw", blocks, found, strict=True):
            start = value[:1].size if name == self.missing else 0
            block[start : value.size] = value.ravel()[start:]
        self.free = blocks
        return [b[: v.size].reshape(v.shape).copy() for b, v in zip(blocks, found, strict=True)]


def by_address(arguments: Any, cotangents: Any) -> Any:
    """Read a matrix as if it were contiguous."""
    x, w = arguments
    x = np.lib.stride_tricks.as_strided(x, x.shape, (4 * x.itemsize, x.itemsize))
    return right((x, w), cotangents)


def leaking(arguments: Any, cotangents: Any) -> Any:
    dx, dw = right(arguments, cotangents)
    return dx, dw + 0 * arguments[0].sum(axis=0)


def averaging(arguments: Any, cotangents: Any) -> Any:
    dx, dw = right(arguments, cotangents)
    d = cotangents["sums"][:, None]
    return dx + np.where(INSIDE, d * arguments[0][:1].mean(), 0), dw


LAZY: dict[str, tuple[Callable[..., Any], str, str]] = {
    "all cotangents ignored": (ignoring("rows", "sums"), "ignores-cotangents", "the cotangents"),
    "one output ignored": (ignoring("sums"), "ignores-cotangents", "that of sums"),
    "clipped": (clipping, "not-linear-in-cotangents", "cotangents times"),
    "a constant added": (constant, "not-linear-in-cotangents", "zero cotangents give"),
    "homogeneous": (homogeneous, "not-linear-in-cotangents", "cotangents times -1 do not give"),
    "a sum never cleared": (Accumulating(), "depends-on-calls", "grows with every call"),
    "an argument kept": (Keeping(), "depends-on-calls", "no gradient changes with w"),
    "a little of the last call": (Lagging(), "depends-on-calls", "after a call with other numbers"),
    "by address": (by_address, "depends-on-memory-layout", "Fortran order"),
    "NaN in padding": (leaking, "padding-leaks", "NaN in the padding of x"),
    "rows mixed": (averaging, "rows-influence-one-another", "other indices of axis 0"),
    "after another call": (Remembering(), "depends-on-calls", "after a call with other numbers"),
    "random": (Drawing(), "not-deterministic", "called twice"),
    "wrong later": (Counting(), "depends-on-calls", "from one call to another"),
    "unwritten on a device": (OnDevice("w"), "unwritten-output", "1 of 4 entries"),
    "a row unwritten on a device": (OnDevice("x"), "unwritten-output", "4 of 12 entries"),
    "unwritten": (unwritten, "unwritten-output", "is not written everywhere"),
}


@pytest.mark.table(3)
@pytest.mark.parametrize(("backward", "name", "said"), LAZY.values(), ids=LAZY)
def test_a_lazy_kernel_gets_the_finding_of_its_question(
    backward: Any, name: str, said: str
) -> None:
    report = verify_vjp(backward, forward, (X, W), cases=1)
    assert report.verdict is Verdict.DISAGREES
    assert report.mistakes[0].name == name, report
    assert said in report.mistakes[0].explanation


def in_half(backward: Any) -> Any:
    """The same kernel with arguments and gradients in bfloat16."""

    def narrow(arguments: Any, cotangents: Any) -> Any:
        wide = {name: each.astype(np.float32) for name, each in cotangents.items()}
        found = backward([each.astype(np.float32) for each in arguments], wide)
        return tuple(each.astype(jnp.bfloat16) for each in found)

    return narrow


@pytest.mark.table(2)
@pytest.mark.parametrize("backward", [clipping, Accumulating(), Keeping()])
def test_a_mistake_that_scatters_hides_no_answer_in_16_bits(backward: Any) -> None:
    given = X.astype(jnp.bfloat16), W.astype(jnp.bfloat16)
    lazy = {getattr(each, "__name__", type(each).__name__): name for each, name, _ in LAZY.values()}
    name = getattr(backward, "__name__", type(backward).__name__)
    report = verify_vjp(in_half(backward), forward, given, cases=1)
    assert report.mistakes[0].name == lazy[name], report


@pytest.mark.parametrize("written", [3, 4])
def test_what_changes_with_freed_memory_is_unwritten_even_if_it_is_not_finite(written: int) -> None:
    def ask(point: Any, cotangents: Any, copy: Any) -> Any:
        copy(np.zeros(4))
        found = np.empty(4)
        found[:written] = [1, 1, 1, np.nan][:written]
        return {"w": found}

    calls: Any = SimpleNamespace(ask=ask)
    case: Any = SimpleNamespace(point={}, cotangents={})
    assert is_unwritten(calls, case) == (written == 3)


def test_small_changes_from_call_to_call_are_stated_with_their_size() -> None:
    rng = np.random.default_rng(0)

    def noisy(arguments: Any, cotangents: Any) -> Any:
        dx, dw = right(arguments, cotangents)
        return dx, dw * rng.normal(1, size, dw.shape)

    size = 1e-13
    report = verify_vjp(noisy, forward, (X, W), cases=1)
    assert report, report
    said = "Two calls with the same numbers give different gradients: that for w changes by"
    assert said in " ".join(report.notes)
    size = 0.0
    assert said not in " ".join(verify_vjp(noisy, forward, (X, W), cases=1).notes)


def ask_again(dtype: Any, precise: str, imitated: float) -> tuple[Question, Any]:
    """A question with answers for x and w, and its kernel's imitated errors."""
    rng = np.random.default_rng(0)
    answer = {name: rng.normal(1, 0.1, 400) for name in "xw"}
    errors = SimpleNamespace(gradients={name: [imitated * each] for name, each in answer.items()})
    pullback = SimpleNamespace(imitate_rounding=lambda *_: errors)
    case: Any = SimpleNamespace(point={n: np.ones(400, dtype) for n in "xw"}, cotangents={})
    noisy = answer | {"x": answer["x"] * rng.normal(1, 0.01, 400)}
    calls: Any = SimpleNamespace(pullback=pullback, ask=lambda *_: noisy)
    question = Question(calls, case, case, answer, {}, [], precise=frozenset(precise))
    return question, noisy


def test_random_changes_of_a_hundredth_are_no_sums_in_another_order_in_float32() -> None:
    question, noisy = ask_again(np.float32, "w", 1e-6)
    assert find_noise(question, question.answer, noisy) == "x"


@pytest.mark.parametrize(
    ("dtype", "precise", "imitated"),
    [
        (jnp.bfloat16, "w", 1e-3),  # sums in 16 bits
        (np.float32, "", 1e-6),  # a coarser format may be at work inside
        (np.float32, "w", 0.1),  # digits cancel
        (np.float32, "w", np.nan),  # nothing is known of it
    ],
)
def test_what_sums_in_another_order_may_change_is_not_random(
    dtype: Any, precise: str, imitated: float
) -> None:
    question, noisy = ask_again(dtype, precise, imitated)
    assert not find_noise(question, question.answer, noisy)


def test_a_gradient_of_zeros_is_not_random() -> None:
    question, noisy = ask_again(np.float32, "w", 1e-6)
    zeros = {name: np.zeros(400) for name in noisy}
    assert not find_noise(question, zeros, zeros)


def test_what_changes_in_later_steps_alone_is_not_random() -> None:
    question, noisy = ask_again(np.float32, "w", 1e-6)
    noisy["x"][:100] = question.answer["x"][:100]
    assert not find_noise(question, question.answer, noisy)


def test_digits_that_cancel_are_not_random_however_much_they_change() -> None:
    question, noisy = ask_again(np.float32, "w", 10.0)
    assert not find_noise(question, question.answer, noisy | {"x": -noisy["x"]})


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_the_note_on_a_change_does_not_take_more_than_rounding_for_another_order(
    dtype: Any,
) -> None:
    question, _ = ask_again(dtype, "", 0)
    said = describe_indeterminacy(question)
    assert ("random numbers" in said) == (dtype == np.float32)
    assert ("Sums in another order may do that" in said) == (dtype != np.float32)


def test_a_right_kernel_passes_every_question() -> None:
    assert verify_vjp(right, forward, (X, W))
    assert verify_vjp(backward_of(rnn), rnn, draw_rnn(np.float16, T=2), cases=1)


@pytest.mark.parametrize("left", [False, True])
def test_entries_are_unwritten_only_if_they_hold_an_answer_to_other_numbers(left: bool) -> None:
    here, there = ({"x": np.linspace(start, 1, 8)} for start in (0.25, 0.5))
    wrong, memory = np.array([7.0, 7, 0, 0, 0, 0, 0, 0]), np.zeros(8)
    wrong_calls = iter([True, False, True])

    class Calls:
        @staticmethod
        def ask(point: Any, cotangents: Any, copy: Any) -> Any:
            value = point["x"] + (wrong if next(wrong_calls) and not left else 0)
            if left and point is here:
                value[:3] = memory[:3]
            memory[:] = value
            return {"x": value}

    case, other = (SimpleNamespace(point=point, cotangents={}) for point in (here, there))
    parts: Any = Calls, case, other, {"x": here["x"]}, {}, []
    question = Question(*parts)
    question.ask()
    found = find_stale_entries(question)
    assert (found is not None and found.name == "unwritten-output") == left


def test_sizes_that_were_not_tried_are_stated() -> None:
    given = np.linspace(1, 2, 32)
    backward = lambda arguments, d: (d * np.cos(arguments[0]),)  # noqa: E731
    note = "All sizes of axis 0 of x are multiples of 16"
    assert note in str(verify_vjp(backward, jnp.sin, (given,), cases=1))
    assert note not in str(verify_vjp(backward, jnp.sin, [(given,), (given[:7],)], cases=1))


@pytest.mark.parametrize(("added", "right"), [(0.01, False), (1e-6, True)])
def test_zero_cotangents_give_zero_in_16_bits_but_for_an_epsilon(added: float, right: bool) -> None:
    def backward(arguments: Any, d: Any) -> Any:
        found = d.astype(np.float32) * np.cos(arguments[0].astype(np.float32)) + added
        return (found.astype(jnp.bfloat16),)

    x = np.linspace(-1, 1, 9).astype(jnp.bfloat16)
    report = verify_vjp(backward, jnp.sin, (x,), cases=1)
    names = [mistake.name for mistake in report.mistakes]
    assert names == ([] if right else ["not-linear-in-cotangents"])


def test_a_change_that_the_exact_gradient_has_is_no_influence_of_another_row() -> None:
    def forward(x: Any) -> Any:
        return x + 1e-10 * (x[:1] * x) ** 2

    def backward(arguments: Any, d: Any) -> Any:
        (x,) = arguments
        found = d + 2e-10 * d * x[0] ** 2 * x
        found[0] += 2e-10 * (d * x**2).sum() * x[0]
        return (found,)

    assert verify_vjp(backward, forward, (np.array([1.0, 2, 3]),), cases=1)


def test_nan_in_the_place_of_a_padded_entry_itself_is_no_leak() -> None:
    def forward(x: Any) -> Any:
        return x * jnp.clip(x, 0, 1)

    def backward(arguments: Any, d: Any) -> Any:
        (x,) = arguments
        return (d * (np.clip(x, 0, 1) + x * ((x > 0) & (x < 1))),)

    assert verify_vjp(backward, forward, (np.array([-2.0, -1, 0.5, 2]),), cases=1)


@pytest.mark.parametrize("features", [3, 5, 8, 13])
def test_rounding_in_gradients_of_zeros_is_no_leak(features: int) -> None:
    """One score has a softmax of 1: its gradient is zero but for rounding, times any number."""

    def attend(q: Any, k: Any, v: Any) -> Any:
        return jax.nn.softmax(q @ k.T, -1) @ v

    def backward(arguments: Any, d: Any) -> Any:
        q, k, v = arguments
        ds = d @ v.T - (d * v)[:, ::-1].sum(-1, keepdims=True)
        return ds @ k, ds.T @ q, d

    rng = np.random.default_rng(0)
    given = tuple(rng.normal(size=(1, features)).astype(np.float32) for _ in range(3))
    report = verify_vjp(backward, attend, given, cases=1)
    assert report.verdict is Verdict.AGREES, report
