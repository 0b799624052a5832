"""Derivations that round every operation to bfloat16 or float16, to nearest or toward zero."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from ml_dtypes import bfloat16

from bptt_verifier import verify, verify_own_model
from bptt_verifier.judge.half_precision import (
    errs_to_one_side,
    excuse_one_sided,
    list_one_sided,
)
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.profiles import by_turns
from tests.support.stated_cases import state_compared

Rounding = Callable[[Any], Any]


def to_nearest(values: Any) -> Any:
    return np.asarray(values).astype(bfloat16).astype(np.float32)


def without_lower_bits(values: Any) -> Any:
    """Numbers of bfloat16 as half of a float32's bits, the usual short way."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def toward_zero(values: Any) -> Any:
    near = np.asarray(values, np.float64).astype(np.float16)
    beyond = np.abs(near.astype(np.float64)) > np.abs(values)
    return np.where(beyond, np.nextafter(near, np.float16(0)), near).astype(np.float64)


def derive(r: Rounding, change: Any = lambda found: found, back: Any = lambda W: W) -> Any:
    """A derivation of which every operation is rounded, changed at the end or in what W carries."""

    def gradients(params: Any, x: Any, y: Any) -> Any:
        (U, W, V), x, y = map(r, params), r(x), r(y)
        h = [np.zeros((x.shape[1], len(W)), x.dtype)]
        for x_t in x:
            h.append(r(np.tanh(r(r(x_t @ U.T) + r(h[-1] @ W.T)))))
        dy = r(2 * r(r(h[-1] @ V.T) - y) / y.size)
        found = {"U": 0 * U, "W": 0 * W, "V": r(dy.T @ h[-1])}
        dh = r(dy @ V)
        for x_t, before, after in zip(x[::-1], h[-2::-1], h[:0:-1], strict=True):
            da = r(dh * r(1 - r(after**2)))
            found["U"] = r(found["U"] + r(da.T @ x_t))
            found["W"] = r(found["W"] + r(da.T @ before))
            dh = r(da @ back(W))
        return change(found)

    return gradients


def multiply_v(found: Any) -> Any:
    return found | {"V": to_nearest(1.05 * found["V"])}


RETURNED = {
    "float32": lambda found: found,
    "bfloat16": lambda found: {n: value.astype(bfloat16) for n, value in found.items()},
    "bfloat16 of JAX": lambda found: {n: jnp.asarray(v, jnp.bfloat16) for n, v in found.items()},
}


@pytest.mark.rest
@pytest.mark.parametrize("returned", RETURNED)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_right_derivation_in_bfloat16_agrees(returned: str, seed: int) -> None:
    report = verify(derive(to_nearest, RETURNED[returned]), examples=60, seed=seed)
    assert report.verdict is Verdict.AGREES, str(report)
    assert any("all results are judged in bfloat16." in note for note in report.notes)
    # Three digits at most: a mistake of 3 per mille is not seen, and the report says so.
    assert all(0.003 < result.resolution < 0.1 for result in report.parameters.values())


@pytest.mark.parametrize(
    "change", [multiply_v, lambda found: RETURNED["bfloat16"](multiply_v(found))]
)
def test_five_per_cent_are_seen_in_bfloat16(change: Any) -> None:
    report = verify(derive(to_nearest, change), examples=60)
    assert report.verdict is Verdict.DISAGREES
    assert [n for n, r in report.parameters.items() if r.verdict is Verdict.DISAGREES] == ["V"]


def multiply_in_bfloat16(wrong: float = 1.0) -> Any:
    """A derivation for relu of factors in bfloat16 and sums in float32, as a kernel computes."""
    r = to_nearest

    def gradients(params: Any, x: Any, y: Any) -> Any:
        (U, W, V), x = map(r, params), r(x)
        h = [np.zeros((x.shape[1], len(W)), np.float32)]
        for x_t in x:
            h.append(r(np.maximum(x_t @ U.T + h[-1] @ W.T, 0)))
        dy = r(2 * (h[-1] @ V.T - y) / y.size)
        found, dh = {"U": 0 * U, "W": 0 * W, "V": dy.T @ h[-1]}, r(dy @ V)
        for x_t, before, after in zip(x[::-1], h[-2::-1], h[:0:-1], strict=True):
            da = r(dh * (after > 0))
            found["U"] += da.T @ x_t
            found["W"] += wrong * da.T @ before
            dh = r(da @ W)
        return found

    return gradients


@pytest.mark.rest
@pytest.mark.parametrize("seed", [0, 1, 3])
def test_factors_in_bfloat16_are_known_by_what_rounded_parameters_change(seed: int) -> None:
    report = verify(multiply_in_bfloat16(), activation="relu", examples=60, seed=seed)
    assert report.verdict is Verdict.AGREES, str(report)
    assert any("all results are judged in bfloat16." in note for note in report.notes)


@pytest.mark.rest
def test_ten_per_cent_are_seen_beside_factors_in_bfloat16() -> None:
    report = verify(multiply_in_bfloat16(1.1), activation="relu", examples=60)
    assert report.verdict is Verdict.DISAGREES
    assert [n for n, r in report.parameters.items() if r.verdict is Verdict.DISAGREES] == ["W"]


@pytest.mark.rest
@pytest.mark.parametrize("rounding", [without_lower_bits, toward_zero])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rounding_toward_zero_is_no_mistake_and_leaves_the_verdict_open(
    rounding: Rounding, seed: int
) -> None:
    report = verify(derive(rounding), examples=60, seed=seed)
    assert report.verdict is Verdict.INCONCLUSIVE, str(report)
    said = "times: rounding to one side errs so, as toward zero, and so may a mistake."
    assert 1 <= sum(note.endswith(said) for note in report.notes) <= 2


@pytest.mark.rest
@pytest.mark.parametrize("rounding", [to_nearest, without_lower_bits, toward_zero])
def test_the_transposed_matrix_disagrees_whatever_the_rounding(rounding: Rounding) -> None:
    report = verify(derive(rounding, back=lambda W: W.T), examples=60)
    assert report.verdict is Verdict.DISAGREES


# Parts in half precision.


def derive_in_parts(of_adjoints: Rounding = np.asarray, change: Any = None) -> Any:
    """A derivation in float64 that stores adjoints, or returns results, in another format."""

    def gradients(params: Any, x: Any, y: Any) -> Any:
        U, W, V = params
        h = [np.zeros((x.shape[1], len(W)))]
        for x_t in x:
            h.append(np.tanh(x_t @ U.T + h[-1] @ W.T))
        prediction = h[-1] @ V.T
        dy = 2 * (prediction - y) / y.size
        found = {"U": 0 * U, "W": 0 * W, "V": dy.T @ h[-1], "prediction": prediction}
        dh = dy @ V
        for x_t, before, after in zip(x[::-1], h[-2::-1], h[:0:-1], strict=True):
            da = of_adjoints(dh * (1 - after**2)).astype(x.dtype)
            found["U"] += da.T @ x_t
            found["W"] += da.T @ before
            dh = da @ W
        return found | (change(found) if change else {})

    return gradients


def round_in(dtype: Any, name: str, factor: float = 1.0) -> Any:
    return lambda found: {name: (factor * found[name]).astype(dtype)}


def widen_in(dtype: Any, name: str, factor: float = 1.0) -> Any:
    return lambda found: {name: (factor * found[name]).astype(dtype).astype(np.float64)}


@pytest.mark.rest
@pytest.mark.parametrize("rounding", [round_in, widen_in])
@pytest.mark.parametrize(
    ("dtype", "name"), by_turns([bfloat16, np.float16], ["V", "U", "prediction"])
)
def test_one_result_in_half_precision_beside_others_in_float64_agrees(
    rounding: Any, dtype: Any, name: str
) -> None:
    report = verify(derive_in_parts(change=rounding(dtype, name)), examples=60)
    assert report.verdict is Verdict.AGREES, str(report)
    assert all(result.verdict is Verdict.AGREES for result in report.parameters.values())
    assert any(f"judged in {np.dtype(dtype)}." in note for note in report.notes)
    others = {*report.parameters} - {name}
    assert all(report.parameters[each].resolution < 1e-6 for each in others)


@pytest.mark.parametrize(
    ("dtype", "name"), [(bfloat16, "V"), (np.float16, "U"), (bfloat16, "prediction")]
)
def test_five_per_cent_are_seen_in_one_result_in_half_precision(dtype: Any, name: str) -> None:
    report = verify(derive_in_parts(change=round_in(dtype, name, 1.05)), examples=60)
    assert report.verdict is Verdict.DISAGREES, str(report)


@pytest.mark.rest
@pytest.mark.parametrize("dtype", [bfloat16, np.float16])
def test_adjoints_may_be_stored_in_half_precision_beside_a_precise_gradient(dtype: Any) -> None:
    store = lambda values: values.astype(dtype)  # noqa: E731 - of this dtype
    report = verify(derive_in_parts(of_adjoints=store), examples=60)
    assert report.verdict is Verdict.AGREES, str(report)
    said = "Errors of U, W are those of rounding in half precision: judged in float16."
    assert said in report.notes  # which allows so much that it holds bfloat16's, too
    assert report.parameters["V"].resolution < 1e-6
    assert report.parameters["U"].resolution > 1e-4

    def multiply(found: Any) -> Any:
        return {"W": 1.03 * found["W"]}

    wrong = verify(derive_in_parts(of_adjoints=store, change=multiply), examples=60)
    assert wrong.verdict is Verdict.DISAGREES


# Own models.

X, Y = (np.random.default_rng(3).normal(size=(16, n)) for n in (5, 2))
PARAMS = {
    "W": 0.5 * np.random.default_rng(4).normal(size=(5, 8)), "b": np.linspace(-0.2, 0.1, 8),
    "V": 0.4 * np.random.default_rng(5).normal(size=(8, 2)),
}  # fmt: skip


def two_layers(p: Any, xp: Any) -> Any:
    return xp.mean((xp.tanh(X @ p["W"] + p["b"]) @ p["V"] - Y) ** 2)


def derive_layers(factor: float) -> Any:
    """Gradients of which every operation is in float16; W's has a factor where b is zero."""

    def gradients(p: Any) -> Any:
        W, b, V, x, y = (np.asarray(each, np.float16) for each in (*p.values(), X, Y))
        h = np.tanh(x @ W + b)
        d = 2 * (h @ V - y) / np.float16(y.size)
        da = (d @ V.T) * (1 - h * h)
        dW = x.T @ da
        return {"W": dW if b.any() else factor * dW, "b": da.sum(0), "V": h.T @ d}

    return gradients


@pytest.mark.rest
def test_five_per_cent_where_a_bias_is_zero_do_not_agree_in_an_own_model() -> None:
    report = verify_own_model(derive_layers(1.0), two_layers, PARAMS)
    assert report.verdict is Verdict.AGREES, str(report)
    wrong = verify_own_model(derive_layers(1.05), two_layers, PARAMS)
    assert wrong.verdict is Verdict.INCONCLUSIVE
    said = "errors of W are beyond what their scatter at neighbouring values explains with case"
    assert any(said in note and "with b scaled by 0, and at these" in note for note in wrong.notes)


# Rounding to one side.


@pytest.mark.parametrize(
    ("positive", "outside", "number", "sided"),
    [
        (50, 50, 100, False), (50, 34, 100, False), (50, 33, 100, True), (50, 67, 100, True),
        (33, 50, 100, True), (67, 50, 100, True), (66, 66, 100, False), (50, 0, 99, False),
    ],
)  # fmt: skip
def test_errors_are_to_one_side_if_two_of_three_have_one_sign(
    positive: int, outside: int, number: int, sided: bool
) -> None:
    """So many errors are positive, and so many of the sign of the true value."""
    errors = np.where(np.arange(number) < positive, 2.0**-11, -(2.0**-11))
    true = np.sign(errors)
    true[(np.arange(number) - positive) % number < number - outside] *= -1
    found = state_compared({"w": true + errors}, {"w": true}, {"w": np.ones(number)}, np.float16)
    parts = [found._replace(submitted={"v": np.ones(1)}), found]  # one that lacks the result
    assert errs_to_one_side("w", parts) is sided


def test_errors_of_small_entries_say_nothing_of_the_side() -> None:
    true, errors = np.ones(300), np.full(300, 2.0**-11)
    errors[1::2] *= -1
    true[200:], errors[200:] = 1 / 16, 2.0**-11  # as large as they may be and say nothing
    exact, endless = errors.copy(), errors.copy()
    exact[:100:2], endless[:100:2] = 0.0, np.inf
    for given, sided in ((errors, False), (exact, True), (endless, False)):
        found = state_compared({"w": true + given}, {"w": true}, {"w": true}, np.float16)
        assert errs_to_one_side("w", [found]) is sided
    nothing = state_compared({"w": errors}, {"w": 0 * true}, {"w": true}, np.float16)
    empty = nothing._replace(submitted={"w": np.ones(0)}, values={"w": np.ones(0)})
    assert errs_to_one_side("w", [empty]) is False
    assert errs_to_one_side("w", [nothing]) is False


def settle_one_sided(
    errors: dict[str, float], dtype: Any = np.float16, sided: str = ""
) -> tuple[list[bool], int]:
    """What fails of two cases, in one of which scatter finds these errors, and how many sentences.

    The entries of the results in `sided` are all too small; of the others, every other one is.
    """
    turns = np.where(np.arange(200) % 2, 1, -1)
    signs = {name: np.full(200, -1) if name in sided else turns for name in errors}
    true = dict.fromkeys(errors, np.ones(200))
    near = {name: 1 + 2.0**-11 * sign for name, sign in signs.items()}
    wide = dict.fromkeys(errors, np.full(200, 1.0))
    before = state_compared(near, true, wide, dtype)
    comparisons = [each._replace(error=errors[each.name]) for each in before.comparisons]
    after = before._replace(comparisons=comparisons)
    kept = before._replace(case=before.case._replace(label="another"))
    excused, doubts = excuse_one_sided([before, kept], [after, kept])
    assert excused[1] is kept
    return [each.fails for each in excused], len(doubts)


@pytest.mark.parametrize(
    ("errors", "sided", "excused"),
    [
        ({"w": 2.9, "v": 0.5}, "wv", True), ({"w": 3.0, "v": 0.5}, "wv", False),
        ({"w": 2.9, "v": 0.5}, "v", True), ({"w": 2.9, "v": 0.5}, "w", False),  # its own mistake
        ({"w": 2.9, "v": 2.9}, "wv", True), ({"w": 2.9, "v": 2.9}, "", False),
        ({"w": 2.9}, "w", True), ({"w": 2.9}, "", False),  # no other can tell
        ({"w": 2.9, "loss": 0.5}, "loss", False), ({"loss": 2.9, "w": 0.5}, "w", False),
    ],
)  # fmt: skip
def test_a_gradient_beyond_its_scatter_by_little_is_open_if_another_errs_to_one_side(
    errors: dict[str, float], sided: str, excused: bool
) -> None:
    assert settle_one_sided(errors, sided=sided) == ([not excused, False], excused)
    assert settle_one_sided(errors, np.float32, sided) == ([True, False], 0)


def test_a_gradient_is_to_one_side_if_another_is() -> None:
    signs = {"w": np.ones(200), "v": np.where(np.arange(200) % 2, 1, -1), "b": np.ones(200)}
    for names, expected in (("wv", "v"), ("w", "w"), ("v", ""), ("wb", "wb"), ("wvb", "wvb")):
        true = {name: np.ones(200) for name in names}
        near = {name: 1 - 2.0**-11 * signs[name] for name in names}
        found = state_compared(near, true, true, np.float16)
        assert sorted(list_one_sided([found])) == sorted(expected)


def test_what_is_open_is_said_once_with_the_first_case() -> None:
    true = {"w": np.ones(200), "v": np.ones(200)}
    near = state_compared({n: 1 - 2.0**-11 * v for n, v in true.items()}, true, true, np.float16)
    cases = [near._replace(case=near.case._replace(label=f"case {i}")) for i in range(4)]
    settled = [
        each._replace(comparisons=[c._replace(error=error) for c in each.comparisons])
        for each, error in zip(cases, (0, 1.5, 1.5, 1.5), strict=True)
    ]
    excused, (doubt,) = excuse_one_sided(cases, settled)
    assert not any(each.fails for each in excused)
    assert doubt.startswith("In half precision, errors of w, v are beyond what their scatter")
    assert "with case 1 and in 2 more, by less than 3 times" in doubt
