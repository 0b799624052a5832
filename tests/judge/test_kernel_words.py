"""What a report on a wrong kernel says must be true: lengths, places in 16 bits, layouts, calls."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Report, Verdict, verify_vjp

BFLOAT16: Any = jnp.bfloat16


def draw(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def find_names(report: Report) -> list[str]:
    assert report.verdict is Verdict.DISAGREES, report
    return [mistake.name for mistake in report.mistakes]


def cross_entropy(x: Any, y: Any) -> Any:
    return jax.nn.logsumexp(x, 1) - jnp.take_along_axis(x, y[:, None], 1)[:, 0]


def clear_columns(first: int) -> Any:
    def backward(arguments: Any, d: Any) -> Any:
        x, y = arguments
        g = np.exp(x - x.max(1, keepdims=True))
        g /= g.sum(1, keepdims=True)
        g[np.arange(len(y)), y] -= 1
        g *= d[:, None]
        g[:, first:] = 0
        return g, None

    return backward


@pytest.mark.parametrize("first", [4, 5, 6])
def test_class_labels_are_no_lengths(first: int) -> None:
    labels = np.array([0, 3, 1, 2, 4, 0, 1, 3]) % first
    report = verify_vjp(clear_columns(first), cross_entropy, (draw(8, 7), labels), cases=1)
    assert find_names(report)[0] in {"wrong-range", "wrong-index"}, report


@pytest.mark.parametrize("heads", [2, 3, 4])
def test_a_mask_of_steps_is_no_length_of_another_axis(heads: int) -> None:
    on = np.array([1, 1, 0, 1, 1, 1, 0], np.int32)

    def forward(x: Any, on: Any) -> Any:
        return jnp.tanh(x) * on[:, None, None]

    def backward(arguments: Any, d: Any) -> Any:
        x, on = arguments
        g = d * on[:, None, None] * (1 - np.tanh(x) ** 2)
        g[:, 1] *= np.float32(1.3)
        return g, None

    report = verify_vjp(backward, forward, (draw(7, heads, 3), on), cases=1)
    assert find_names(report) == ["wrong-index"], report


def test_lengths_of_another_batch_leave_a_row_right() -> None:
    lengths = np.array([2, 4, 3])

    def forward(x: Any, lengths: Any) -> Any:
        return x * (np.arange(5) < lengths[:, None])

    def write_beyond(rows: Any) -> Any:
        def backward(arguments: Any, d: Any) -> Any:
            inside = np.arange(5) < arguments[1][:, None]
            inside[rows] = True
            return d * inside, None

        return backward

    given = draw(3, 5), lengths
    every = verify_vjp(write_beyond(slice(None)), forward, given, cases=1)
    assert find_names(every) == ["wrong-beyond-length"], every
    one = verify_vjp(write_beyond(0), forward, given, cases=1)
    assert find_names(one) != ["wrong-beyond-length"], one


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (0.5, "at indices 0 to 7 of axis 0"),
        (1.1, "at indices 0 to 7 of axis 0"),
        (1.05, "16 bits are too few to tell where"),
    ],
)
def test_sixteen_bits_tell_the_place_where_errors_are_far_beyond_rounding(
    factor: float, said: str
) -> None:
    def backward(arguments: Any, d: Any) -> Any:
        (x,) = (each.astype(np.float32) for each in arguments)
        g = d.astype(np.float32) * 2 * x
        g[:8] *= np.float32(factor)
        return (g.astype(arguments[0].dtype),)

    given = draw(11, seed=2)
    report = verify_vjp(backward, lambda x: x * x, (given.astype(BFLOAT16),))
    assert said in report.mistakes[0].explanation, report
    report = verify_vjp(backward, lambda x: x * x, (given,))
    assert "at indices 0 to 7 of axis 0" in report.mistakes[0].explanation


def read_as_packed(array: Any) -> Any:
    if array.flags.c_contiguous:
        return array
    return np.ndarray(array.shape, array.dtype, array.ravel(order="K").tobytes())


@pytest.mark.parametrize("packed", [("arguments",), ("cotangents",), ("arguments", "cotangents")])
def test_the_layout_of_cotangents_is_told_from_that_of_arguments(packed: Any) -> None:
    def backward(arguments: Any, d: Any) -> Any:
        x, s = arguments
        x = read_as_packed(x) if "arguments" in packed else x
        d = read_as_packed(d) if "cotangents" in packed else d
        t = np.tanh(x)
        return d * s * (1 - t * t), (d * t).sum(0)

    report = verify_vjp(backward, lambda x, s: jnp.tanh(x) * s, (draw(5, 4), draw(4)), cases=1)
    assert find_names(report) == ["depends-on-memory-layout"]
    assert f"for {' and '.join(packed)} in Fortran order" in report.mistakes[0].explanation


def sum_rows(lost: float, in_bfloat16: bool) -> Any:
    """A product of a matrix whose gradient is summed in a random order, without some rows."""
    rng = np.random.default_rng(7)

    def backward(arguments: Any, d: Any) -> Any:
        x, w = (each.astype(np.float32) for each in arguments)
        terms = d.astype(np.float32)[:, None] * x
        kept = terms[rng.random(len(x)) >= lost]
        total = np.zeros_like(w)
        for k in rng.permutation(len(kept)):
            total = total + kept[k]
            total = total.astype(BFLOAT16).astype(np.float32) if in_bfloat16 else total
        return (d[:, None].astype(np.float32) * w).astype(BFLOAT16), total.astype(BFLOAT16)

    return backward


@pytest.mark.table(3)
@pytest.mark.parametrize("lost", [0.1, 0.2, 0.3])
def test_updates_that_are_lost_at_random_in_16_bits_are_seen(lost: float) -> None:
    given = draw(20, 4, dtype=BFLOAT16), draw(4, seed=1, dtype=BFLOAT16)
    report = verify_vjp(sum_rows(lost, False), lambda x, w: x @ w, given)
    assert "not-deterministic" in find_names(report), report


@pytest.mark.rest
@pytest.mark.table(4)
@pytest.mark.parametrize("dtype", [BFLOAT16, np.float16])
@pytest.mark.parametrize("seed", range(6))
def test_one_update_that_is_lost_at_random_is_seen_at_every_seed(seed: int, dtype: Any) -> None:
    """Of 19 rows that add to 7, one is lost: a quarter of the pairs of calls show it."""
    rng = np.random.default_rng(seed)
    into = np.concatenate([np.arange(7), np.random.default_rng(8).integers(0, 7, 12)])

    def forward(x: Any, w: Any, into: Any) -> Any:
        return jnp.tanh(x)[into] * w[:, None]

    def backward(arguments: Any, d: Any) -> Any:
        x, w = (np.asarray(each, np.float32) for each in arguments[:2])
        d, h = np.asarray(d, np.float32), np.tanh(x)
        dh = np.zeros_like(x)
        kept = np.arange(len(into)) != rng.integers(len(into))
        np.add.at(dh, into[kept], (d * w[:, None])[kept])
        found = dh * (1 - h * h), (d * h[into]).sum(1)
        return *(g.astype(dtype) for g in found), None

    given = draw(7, 4, dtype=dtype), draw(19, seed=1, dtype=dtype), into
    report = verify_vjp(backward, forward, given, seed=seed)
    assert find_names(report)[0] == "not-deterministic", report


@pytest.mark.parametrize("start", [0, 1, 316, 549, 766])
def test_a_change_in_one_call_of_six_is_seen(start: int) -> None:
    """It is seen where calls differ, or where what it does leaves the verdict open.

    From the last three starts, the calls that are compared first do not differ, and the errors at
    neighbours are the only sign of it.
    """
    rng = np.random.default_rng(start)

    def backward(arguments: Any, d: Any) -> Any:
        (x,) = (np.asarray(each, np.float32) for each in arguments)
        g = 2 * np.asarray(d, np.float32) * x
        if rng.random() < 1 / 6:
            g[:4] = 0
        return (g.astype(BFLOAT16),)

    for seed in range(3):
        report = verify_vjp(backward, lambda x: x * x, (draw(12, dtype=BFLOAT16),), seed=seed)
        assert report.verdict is Verdict.DISAGREES, report


@pytest.mark.parametrize("rows", [20, 200])
@pytest.mark.parametrize("in_bfloat16", [False, True])
def test_sums_in_another_order_in_16_bits_are_deterministic(rows: int, in_bfloat16: bool) -> None:
    given = draw(rows, 4, dtype=BFLOAT16), draw(4, seed=1, dtype=BFLOAT16)
    report = verify_vjp(sum_rows(0.0, in_bfloat16), lambda x, w: x @ w, given)
    assert report.verdict is not Verdict.DISAGREES, report
    assert not report.mistakes, report


def test_text_speaks_of_no_map_that_it_does_not_draw() -> None:
    report = verify_vjp(lambda a, d: (1.5 * d,), lambda x: x * 1.0, (draw(3, 4, 5),), cases=1)
    assert "the map is along" in report.counterexample.sizes  # type: ignore[union-attr]
    assert "the map" not in str(report)
    assert "of x; ∂L/∂x is" in str(report)


@pytest.mark.parametrize("worst", [0, 24, 47])
@pytest.mark.parametrize("rows", [(), (3,)])
def test_the_numbers_shown_of_a_long_row_contain_its_worst_entry(
    worst: int, rows: tuple[int, ...]
) -> None:
    def backward(arguments: Any, cotangents: Any) -> Any:
        gradient = cotangents * (1 - np.tanh(arguments[0]) ** 2)
        gradient[..., worst] *= 1.5
        return (gradient,)

    x = np.random.default_rng(3).normal(size=(*rows, 48))
    report = verify_vjp(backward, jnp.tanh, (x,))
    case = report.counterexample
    assert case is not None
    errors = np.abs(np.subtract(case.yours, case.autodiff))
    assert errors.shape == (20,)
    first = {0: 0, 24: 14, 47: 28}[worst]
    assert int(np.argmax(errors)) == worst - first
    assert errors.max() > 1e-4
    assert f"entries {first} to {first + 19} of " in case.sizes
