"""The transpose test: a forward mode and a pull-back of one function agree without a reference."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import DerivationError, Verdict, assert_transpose_verified, verify_transpose
from bptt_verifier.tolerance.pairings import measure_additivity, pair
from tests.support.kernels import backward_of, draw_rnn, rnn, rnn_in_tf32, within

SMALL = {"T": 3, "B": 2, "D": 2, "H": 3}


def along(function: Any) -> Any:
    compiled = jax.jit(lambda at, direction: jax.jvp(function, at, direction)[1])

    def moved(arguments: Any, direction: Any) -> Any:
        with jax.enable_x64(arguments[0].dtype == np.float64):
            return jax.tree.map(np.array, compiled(tuple(arguments), tuple(direction)))

    return moved


PRECISIONS = {
    "float64": (np.float64, rnn),
    "float32": (np.float32, rnn),
    "bfloat16": (jnp.bfloat16, within(rnn, np.float32)),
    "float16 throughout": (np.float16, within(rnn, np.float16)),
}


@pytest.mark.parametrize(("dtype", "function"), PRECISIONS.values(), ids=PRECISIONS)
def test_the_two_modes_of_one_function_agree(dtype: Any, function: Any) -> None:
    report = verify_transpose(along(function), backward_of(function), draw_rnn(dtype, **SMALL))
    assert report.verdict is Verdict.AGREES, report
    assert len(report.parameters) == 6
    assert "What both get wrong alike is not seen." in str(report)


def test_the_block_that_is_wrong_is_named() -> None:
    def nine_tenths(number: int, found: list[Any]) -> list[Any]:
        return [each * (0.9 if k == number else 1) for k, each in enumerate(found)]

    backward = backward_of(within(rnn, np.float32), partial(nine_tenths, 2))
    arguments = draw_rnn(jnp.bfloat16, **SMALL)
    with pytest.raises(DerivationError, match=r"∂outputs\[0\]/∂arguments\[2\]") as caught:
        assert_transpose_verified(along(within(rnn, np.float32)), backward, arguments)
    report = caught.value.report
    assert [mistake.name for mistake in report.mistakes] == ["not-transposed"]
    wrong = [n for n, each in report.parameters.items() if each.verdict is Verdict.DISAGREES]
    assert wrong == ["∂outputs[0]/∂arguments[2]", "∂outputs[1]/∂arguments[2]"]


def test_a_mistake_of_one_in_a_thousand_is_seen_in_float32() -> None:
    backward = backward_of(rnn, lambda found: [found[0] * 1.001, *found[1:]])
    report = verify_transpose(along(rnn), backward, draw_rnn(np.float32, **SMALL), cases=1)
    assert report.verdict is Verdict.DISAGREES, report


@pytest.mark.rest
@pytest.mark.parametrize("number", [0, 1, 2])
def test_one_per_cent_is_seen_in_bfloat16_with_sums_in_float32(number: int) -> None:
    def scale(found: list[Any]) -> list[Any]:
        return [each * (1.01 if k == number else 1) for k, each in enumerate(found)]

    function = within(rnn, np.float32)
    report = verify_transpose(
        along(function), backward_of(function, scale), draw_rnn(jnp.bfloat16), cases=2
    )
    assert report.verdict is Verdict.DISAGREES, report


def test_results_that_are_rounded_once_show_one_per_cent_however_many_terms_there_are() -> None:
    rng, unit = np.random.default_rng(0), 2.0**-8
    J, v, w = rng.normal(size=(20, 20)), rng.normal(size=20), rng.normal(size=20)
    w = np.where(J @ v < 0, -np.abs(w), np.abs(w))
    v, w = (each * (1 + 2.0**-4 * rng.uniform(-1, 1, (32, 20))) for each in (v, w))
    sides = [((x @ A).astype(jnp.bfloat16), y) for x, A, y in ((v, J.T, w), (w, J, v))]
    for factor, wrong in ((1.0, False), (1.01, True), (1 + 2 * unit, False)):
        scaled = (factor * (w @ J)).astype(jnp.bfloat16), v
        assert pair(sides[0], scaled, unit, 6).wrong is wrong, factor
    scaled = (1.01 * (w @ J)).astype(jnp.bfloat16), v
    assert not pair(sides[0], scaled, 4 * unit, 6).wrong


def test_a_hessian_is_its_own_transpose() -> None:
    A = np.array([[2.0, 1.0], [0.5, 3.0]])

    def product(matrix: Any, arguments: Any, direction: Any) -> Any:
        return (matrix @ direction[0],)

    arguments = (np.array([0.3, -0.7]),)
    symmetric, other = partial(product, A + A.T), partial(product, A)
    assert verify_transpose(symmetric, symmetric, arguments)
    assert verify_transpose(other, other, arguments).verdict is Verdict.DISAGREES


def test_zeros_of_both_are_no_evidence() -> None:
    def nothing(arguments: Any, given: Any) -> Any:
        return [np.zeros_like(each) for each in arguments]

    report = verify_transpose(nothing, nothing, draw_rnn(np.float64, **SMALL), cases=1)
    assert report.verdict is Verdict.INCONCLUSIVE
    right = backward_of(lambda *at: at)
    one_sided = verify_transpose(nothing, right, draw_rnn(np.float64, **SMALL), cases=1)
    assert one_sided.verdict is Verdict.DISAGREES


def test_what_is_raised_or_is_not_finite_has_a_name() -> None:
    arguments, right = draw_rnn(np.float64, **SMALL), along(lambda *at: at)
    backward = backward_of(lambda *at: at)
    for jvp, vjp, name in (
        (lambda a, d: 1 // 0, backward, "raised"),
        (right, lambda a, c: 1 // 0, "raised"),
        (lambda a, d: [each * np.nan for each in d], backward, "not-finite"),
        (right, lambda a, c: c[:1], "wrong-shape"),
    ):
        report = verify_transpose(jvp, vjp, arguments, cases=1)
        assert [mistake.name for mistake in report.mistakes] == [name], report


def test_rounding_is_never_called_a_difference_and_one_per_cent_is() -> None:
    wrong = 0
    for draw in range(1000):
        rng = np.random.default_rng(draw)
        J, *near = (rng.normal(size=size) for size in ((4, 5), 5, 4))
        v, w = (each * (1 + 2.0**-10 * rng.uniform(-1, 1, (16, len(each)))) for each in near)
        exact = [(v @ J.T, w), (w @ J, v)]
        noisy = [
            ((side * (1 + 2.0**-12 * rng.uniform(-1, 1, side.shape))).astype(np.float32), each)
            for side, each in exact
        ]
        wrong += pair(noisy[0], noisy[1], 2.0**-12, 6).wrong
        seen = pair(exact[0], (1.01 * exact[1][0], v), 0.0, 6)
        assert seen.wrong or seen.size < 0.1, seen  # where the terms of the product do not cancel
    assert wrong == 0


def test_a_wrong_linear_function_has_no_noise() -> None:
    J, v, w = np.ones((2, 3)), {"v": np.arange(3.0)}, np.array([True, False, True])
    values = [{"y": J @ np.where(kept, v["v"], 0)} for kept in (True, w, ~w)]
    assert measure_additivity(*values) == 0
    values[0]["y"] = values[0]["y"] * (1 + 2.0**-10)
    assert measure_additivity(*values) == pytest.approx(2.0**-10, rel=2.0**-9)


@pytest.mark.slow
def test_tf32_inside_is_rounding() -> None:
    arguments = draw_rnn(np.float32, T=3, B=2, D=4, H=8)
    report = verify_transpose(along(rnn), backward_of(rnn_in_tf32), arguments)
    assert report.verdict is not Verdict.DISAGREES, report
