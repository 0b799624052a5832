"""Submissions that are wrong at some calls, in some layouts or by luck of the memory are named."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify, verify_own_model
from manual_bptt import lstm, rnn
from tests.support.derivations import derivation
from tests.support.square import W, right, square

Gradients = Callable[..., Any]


def rnn_gradients(params: Any, x: Any, y: Any) -> dict[str, Any]:
    found = rnn.value_and_grad(rnn.Params(*params), x, y)[1]
    return {"U": found.U, "W": found.W, "V": found.V}


def wrong_at(calls: Callable[[int], bool], gradients: Gradients) -> Gradients:
    """Scale the last gradient at the calls of these numbers, of which the first is 1."""
    count = 0

    def counting(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        found = dict(gradients(*arguments))
        last = list(found)[-1]
        return found | {last: found[last] * (1.01 if calls(count) else 1.0)}

    return counting


CALLS: dict[str, Callable[[int], bool]] = {
    "late": lambda n: n > 24 + 4,
    "the fiftieth": lambda n: n % 50 == 0,
    "first ones": lambda n: 2 < n < 8,
}


@pytest.mark.parametrize("when", CALLS)
def test_a_result_that_changes_from_call_to_call_is_named(when: str) -> None:
    report = verify_own_model(wrong_at(CALLS[when], right), square, W)
    assert [m.name for m in report.mistakes] == ["depends-on-calls"], str(report)
    assert report.mistakes[0].details["gradients"] == ["W"]


@pytest.mark.parametrize("every", [11, 29, 31, *range(36, 39), 43, 47, 49])
def test_one_wrong_call_of_so_many_is_a_matter_of_calls_alone(every: int) -> None:
    report = verify_own_model(wrong_at(lambda n: n % every == 0, right), square, W)
    (mistake,) = report.mistakes
    assert mistake.name == "depends-on-calls", str(report)
    assert "from one call to another" in mistake.explanation, str(report)


def test_a_cell_that_is_wrong_at_every_fiftieth_call_is_named() -> None:
    report = verify(wrong_at(lambda n: n % 50 == 0, rnn_gradients), examples=60)
    assert [m.name for m in report.mistakes] == ["depends-on-calls"], str(report)


def keep_by(key: Callable[..., Any], gradients: Gradients) -> Gradients:
    """Give the last gradients again where a key of the arguments is that of the call before."""
    last: list[Any] = [None, None]

    def keeping(*arguments: Any) -> Any:
        now = key(*arguments)
        if last[0] is None or not (now is last[0] or now == last[0]):
            last[:] = now, dict(gradients(*arguments))
        return {name: value.copy() for name, value in last[1].items()}

    return keeping


class Same:
    """A key that is equal to another if both are of the same arrays."""

    def __init__(self, *arrays: Any) -> None:
        self.arrays = arrays

    def __eq__(self, other: Any) -> bool:
        pairs = zip(self.arrays, other.arrays, strict=True)
        return all(one is another for one, another in pairs)

    __hash__ = None  # type: ignore[assignment]


KEYS: dict[str, Callable[..., Any]] = {
    "the same x": lambda params, x, y: Same(x),
    "the same parameters": lambda params, x, y: Same(*params),
    "the values of some": lambda params, x, y: [v.tobytes() for v in (params[1], params[2], x, y)],
}


@pytest.mark.parametrize("key", KEYS)
def test_what_is_kept_while_parameters_change_in_place_is_stale(key: str) -> None:
    report = verify(keep_by(KEYS[key], rnn_gradients), examples=8)
    assert [m.name for m in report.mistakes] == ["depends-on-calls"], str(report)
    assert "other values in the same arrays" in report.mistakes[0].explanation
    by_all = keep_by(lambda params, x, y: [v.tobytes() for v in (*params, x, y)], rnn_gradients)
    assert verify(by_all, examples=8).verdict.value == "agrees"


def keep_all_by(names: str, gradients: Gradients) -> Gradients:
    """Keep the gradients at all values of these arguments, whatever the others are."""
    kept: dict[Any, Any] = {}

    def keeping(params: Any, x: Any, y: Any) -> Any:
        values = params._asdict() | {"x": x, "y": y}
        key = tuple(values[name].tobytes() for name in names)
        if key not in kept:
            kept[key] = dict(gradients(params, x, y))
        return {name: value.copy() for name, value in kept[key].items()}

    return keeping


OF_OTHERS = [pytest.param(n, marks=pytest.mark.rest) for n in ("xy", "W", "xyUV", "yWV")]


@pytest.mark.parametrize("names", ["x", "xyUW", "UWVxy", *OF_OTHERS])
def test_what_is_kept_for_all_values_of_some_arguments_is_stale(names: str) -> None:
    report = verify(keep_all_by(names, rnn_gradients), examples=8, timeout=0)
    right = {*names} == {*"UWVxy"}
    assert (report.verdict.value == "agrees") is right, str(report)


X, Y = np.linspace(-1.0, 1.0, 6).reshape(3, 2), np.array([0.3, -0.2, 0.9])
BIASED = {"W": np.array([[0.4, -0.7], [0.2, 0.5]]), "b": np.zeros(2), "v": np.array([0.8, -0.3])}


def biased_loss(p: Any, xp: Any) -> Any:
    return xp.sum((xp.tanh(X @ p["W"] + p["b"]) @ p["v"] - Y) ** 2)


@pytest.mark.parametrize(("names", "stale"), [("W", True), ("Wv", True), ("Wb", False)])
def test_states_that_are_kept_whatever_a_bias_is_are_stale_though_it_begins_at_zero(
    names: str, stale: bool
) -> None:
    kept: dict[Any, Any] = {}

    def gradients(p: Any) -> Any:
        key = tuple(p[name].tobytes() for name in names)
        h = kept.setdefault(key, np.tanh(X @ p["W"] + p["b"]))
        e = 2 * (h @ p["v"] - Y)
        da = np.outer(e, p["v"]) * (1 - h * h)
        return {"W": X.T @ da, "b": da.sum(0), "v": h.T @ e}

    report = verify_own_model(gradients, biased_loss, BIASED, cases=4)
    assert [m.name for m in report.mistakes] == ["depends-on-calls"] * stale, str(report)


class Close(Same):
    """A key that is equal to another of close values."""

    def __eq__(self, other: Any) -> bool:
        pairs = zip(self.arrays, other.arrays, strict=True)
        return all(one.shape == two.shape and np.allclose(one, two) for one, two in pairs)

    __hash__ = None  # type: ignore[assignment]


def round_values(digits: int) -> Callable[..., Any]:
    return lambda params, x, y: [np.round(v, digits).tobytes() for v in (*params, x, y)]


@pytest.mark.parametrize(
    ("key", "stale"),
    [
        (lambda params, x, y: Close(*(np.copy(v) for v in (*params, x, y))), True),
        (round_values(3), True),
        (round_values(15), False),
        (lambda params, x, y: [np.copy(v).tobytes() for v in (*params, x, y)], False),
    ],
    ids=["close", "rounded", "rounded finely", "equal"],
)
def test_what_is_kept_for_close_values_is_stale(key: Callable[..., Any], stale: bool) -> None:
    report = verify(keep_by(key, rnn_gradients), examples=8)
    assert [m.name for m in report.mistakes] == ["depends-on-calls"] * stale, str(report)
    if stale:
        assert "too little at values close to those" in report.mistakes[0].explanation


def test_gradients_of_an_own_model_that_are_kept_by_identity_are_named() -> None:
    report = verify_own_model(keep_by(lambda p: Same(p["W"]), right), square, W, cases=4)
    assert [m.name for m in report.mistakes] == ["depends-on-calls"], str(report)


@pytest.mark.parametrize("cell", ["rnn", "own model"])
def test_a_submission_that_an_exception_leaves_wrong_is_named(cell: str) -> None:
    failed = False

    def gradients(*arguments: Any) -> Any:
        nonlocal failed
        try:
            found = (rnn_gradients if cell == "rnn" else right)(*arguments)
        except Exception:
            failed = True
            raise
        return found | {"W": found["W"] * (1.01 if failed else 1.0)}

    if cell == "rnn":
        report = verify(gradients, examples=8)
    else:
        report = verify_own_model(gradients, square, W, cases=4)
    assert [m.name for m in report.mistakes] == ["depends-on-calls"], str(report)
    assert "after a call that raised an exception" in report.mistakes[0].explanation


def fourth_powers(p: Any) -> Any:
    if np.any(p["W"] <= 0):
        raise ValueError("W: expected positive numbers")
    return np.sum(p["W"] ** 4)


def text_of_fourth_powers(p: Any) -> float:
    return float(str(fourth_powers(p)))  # which has no trace


@pytest.mark.parametrize("raises", [True, False])
@pytest.mark.parametrize("loss", [fourth_powers, text_of_fourth_powers])
def test_a_submission_that_values_outside_of_the_loss_leave_wrong_is_named(
    loss: Any, raises: bool
) -> None:
    outside = False

    def gradients(p: Any) -> Any:
        nonlocal outside
        if (p["W"] <= 0).any():
            outside = True
            if raises:
                raise ValueError("W: expected positive numbers")
        return {"W": 4 * p["W"] ** 3 * (1.01 if outside else 1.0)}

    report = verify_own_model(gradients, loss, {"W": np.array([0.5, 1.5])}, cases=8)
    assert [m.name for m in report.mistakes] == ["depends-on-calls"], str(report)
    changed = "after a call that raised an exception" if raises else "from one call to another"
    assert changed in report.mistakes[0].explanation


def as_rows(array: Any) -> Any:
    """Read the memory of an array as if its rows were contiguous."""
    base = array if array.base is None else array.base
    return np.frombuffer(base.tobytes("A"), array.dtype)[: array.size].reshape(array.shape)


def as_written(array: Any) -> Any:
    """Read an array by its strides, without their signs."""
    strides = [abs(stride) for stride in array.strides]
    return np.lib.stride_tricks.as_strided(array, array.shape, strides)


def by_address(array: Any) -> Any:
    """Read memory from the address of the first entry, unless a stride is too large for that."""
    copied = np.array(array, order="C")
    if np.any(np.array(array.strides) > copied.strides):
        return copied
    memory = (ctypes.c_char * array.nbytes).from_address(array.ctypes.data)
    return np.frombuffer(memory, array.dtype).reshape(array.shape).copy()


def as_it_stands(array: Any) -> Any:
    """Read an array by its strides."""
    return np.lib.stride_tricks.as_strided(array, array.shape, array.strides)


REVERSED = {"strides without signs": as_written, "by address": by_address}
LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "Fortran order": lambda a: a if a.flags.c_contiguous else a.reshape(a.shape, order="A") * 1.01,
    "strided": lambda a: as_rows(a) if not a.flags.forc else a,
    "in order of memory": lambda a: a.ravel("K").reshape(a.shape),
}


@pytest.mark.parametrize("read", LAYOUTS)
def test_a_submission_that_assumes_a_memory_layout_is_named(read: str) -> None:
    def of_cell(params: Any, x: Any, y: Any) -> Any:
        return rnn_gradients(params, LAYOUTS[read](x), y)

    def of_own_model(p: Any) -> Any:
        return right({"W": LAYOUTS[read](p["W"])})

    for report in (
        verify(of_cell, examples=8),
        verify_own_model(of_own_model, square, W, cases=4),
    ):
        assert [m.name for m in report.mistakes] == ["depends-on-memory-layout"], str(report)


@pytest.mark.parametrize("read", REVERSED)
def test_a_submission_that_is_wrong_for_reversed_views_alone_is_named(read: str) -> None:
    def of_cell(params: Any, x: Any, y: Any) -> Any:
        return rnn_gradients(params, REVERSED[read](x), y)

    def of_own_model(p: Any) -> Any:
        return right({"W": REVERSED[read](p["W"])})

    for report in (
        verify(of_cell, examples=8),
        verify_own_model(of_own_model, square, W, cases=4),
    ):
        (mistake,) = report.mistakes
        assert mistake.name == "depends-on-memory-layout", str(report)
        assert "for arguments that are reversed views, as x[::-1] is, for" in mistake.explanation


def test_a_submission_that_reads_strides_with_their_signs_is_right() -> None:
    def of_cell(params: Any, x: Any, y: Any) -> Any:
        return rnn_gradients(params, as_it_stands(x), y)

    assert verify(of_cell, examples=8)
    report = verify_own_model(lambda p: right({"W": as_it_stands(p["W"])}), square, W, cases=4)
    assert report
    assert not any("was not compared" in note for note in report.notes)


def test_an_exception_for_another_layout_is_a_note_and_no_mistake() -> None:
    def gradients(params: Any, x: Any, y: Any) -> Any:
        if not x.flags.c_contiguous:
            raise ValueError("C order, please")
        return rnn_gradients(params, x, y)

    report = verify(gradients, examples=8)
    assert report
    assert "ValueError: C order, please" in " ".join(report.notes)


@pytest.fixture
def make_empty(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """`np.empty_like` of memory that is zero until some is poisoned."""
    poisoned = False
    full = np.full

    def filling(shape: Any, value: Any, dtype: Any = None) -> Any:
        nonlocal poisoned
        poisoned = poisoned or dtype is np.uint8
        return full(shape, value, dtype)

    monkeypatch.setattr(np, "full", filling)
    return lambda array: np.empty_like(array) if poisoned else np.zeros_like(array)


def test_memory_that_happens_to_be_zero_hides_no_unwritten_output(make_empty: Any) -> None:
    def gradients(params: Any, x: Any, y: Any) -> Any:
        found = rnn_gradients(params, x, y)
        W = make_empty(found["W"])
        W[1:] = found["W"][1:]
        W[0] += found["W"][0]
        return found | {"W": W}

    with np.errstate(all="ignore"):
        report = verify(gradients, examples=8)
    assert [m.name for m in report.mistakes] == ["unwritten-output"], str(report)


@pytest.mark.extreme
def test_an_output_that_is_not_written_where_it_is_zero_is_named(make_empty: Any) -> None:
    def gradients(params: Any, x: Any, y: Any) -> Any:
        found, used = rnn_gradients(params, x, y), x.any(axis=(0, 1))
        U = make_empty(found["U"])
        U[:, used] = found["U"][:, used]
        return found | {"U": U}

    with np.errstate(all="ignore"):
        report = verify(gradients, examples=8)
    assert [m.name for m in report.mistakes] == ["unwritten-output"], str(report)


@pytest.mark.rest
def test_sums_in_another_order_at_each_call_and_layout_are_no_mistake() -> None:
    rng = np.random.default_rng(0)

    def shuffled(params: Any, x: Any, y: Any) -> Any:
        order = rng.permutation(len(y))
        return rnn_gradients(params, x[:, order].copy(), y[order])

    def shuffled_lstm(params: Any, x: Any, y: Any, h0: Any, c0: Any) -> Any:
        o = rng.permutation(len(y))
        found = derivation(lstm, "lstm")(params, x[:, o].copy(), y[o], h0[o], c0[o])
        back = np.argsort(o)
        rows = {name: found[name][back] for name in ("h0", "c0", "prediction") if name in found}
        sequences = {n: found[n][:, back] for n in ("x", "adjoints") if n in found}
        return found | rows | sequences

    def by_layout(params: Any, x: Any, y: Any) -> Any:
        back = slice(None, None, 1 if x.flags.c_contiguous else -1)
        return rnn_gradients(params, x[:, back].copy(), y[back])

    assert verify(shuffled, examples=8)
    assert verify(shuffled_lstm, model="lstm", examples=8)
    assert verify(by_layout, examples=8)


def test_repetitions_are_few_calls() -> None:
    count = 0

    def counting(p: Any) -> Any:
        nonlocal count
        count += 1
        return right(p)

    assert verify_own_model(counting, square, W, cases=8)
    assert 8 + 50 < count <= 8 + 50 + 19 + 4 + 4  # the last are at close values and at large ones


@pytest.mark.rest
def test_a_function_that_takes_none_for_an_argument_ends_in_a_verdict() -> None:
    def gradients(params: dict[str, Any]) -> dict[str, Any]:
        return {"p": 2 * np.ones(3) if params["p"].dtype == object else 2 * params["p"]}

    report = verify_own_model(gradients, lambda p, xp: xp.sum(p["p"] ** 2), {"p": np.ones(3)})
    assert report, str(report)
