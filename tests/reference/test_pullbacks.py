"""Pull-backs of small functions whose gradients are known, and the order of what they ask."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.program.arguments import read_settings
from bptt_verifier.reference import pullbacks
from bptt_verifier.reference.point_arrays import Pulled
from bptt_verifier.reference.pullbacks import (
    REMEDY,
    JaxPullback,
    Pullback,
    require_float64,
)
from bptt_verifier.tolerance.formats import find_largest, find_smallest
from bptt_verifier.tolerance.noise import SAMPLES
from tests.support.pullbacks import prepare


def multiply(x: Any, y: Any) -> Any:
    return {"p": x * y, "s": x + y, "n": jnp.arange(3)}


X, Y = np.array([1.0, 2, 3]), np.array([4.0, 5, 6])
POINTS = [{"x": X, "y": Y}, {"x": 2 * X, "y": Y}, {"x": X, "y": 3 * Y}]
COTANGENTS = [{"p": k * np.ones(3), "s": np.array([0.0, 1, 0])} for k in (1.0, 2, 3)]


def check(pulled: Pulled, count: int, start: int = 0) -> None:
    """Check the outputs and gradients of `multiply` at some points."""
    assert [*pulled.outputs] == ["p", "s"]
    chosen = slice(start, start + count)
    for k, (at, c) in enumerate(zip(POINTS[chosen], COTANGENTS[chosen], strict=True)):
        np.testing.assert_allclose(pulled.outputs["p"][k], at["x"] * at["y"])
        np.testing.assert_allclose(pulled.outputs["s"][k], at["x"] + at["y"])
        np.testing.assert_allclose(pulled.gradients["x"][k], c["p"] * at["y"] + c["s"])
        np.testing.assert_allclose(pulled.gradients["y"][k], c["p"] * at["x"] + c["s"])
    assert all(len(each) == count for each in pulled.named.values())
    assert pulled.outputs["p"].dtype == np.float64


def test_cotangents_are_pulled_back_at_each_point_in_float64() -> None:
    pullback = prepare(multiply, X.astype(np.float32), Y)
    assert type(pullback) is JaxPullback
    assert [*pullback.outputs] == ["p", "s"]
    assert [*pullback.structure] == ["p", "s", "n"]
    check(pullback.pull_back(POINTS, COTANGENTS), 3)


def test_a_number_is_an_argument_as_well() -> None:
    pullback = prepare(lambda x, s: x * s, X, 2.0)
    assert type(pullback) is JaxPullback
    pulled = pullback.pull_back([{"x": X, "s": np.array(2.0)}], [{"output": np.ones(3)}])
    assert pulled.gradients["x"].tolist() == [[2, 2, 2]]
    assert pulled.gradients["s"].tolist() == [6]


def test_fewer_points_of_small_arguments_are_computed_by_what_is_compiled() -> None:
    pullback = prepare(multiply, X, Y)
    check(pullback.pull_back(POINTS[:2], COTANGENTS[:2]), 2)
    check(pullback.pull_back(POINTS[1:2], COTANGENTS[1:2]), 1, 1)
    assert [*pullback.compiled] == [(2, False)]
    check(pullback.pull_back(POINTS, COTANGENTS), 3)
    check(pullback.pull_back(POINTS[:2], COTANGENTS[:2]), 2)
    assert [*pullback.compiled] == [(2, False), (3, False)]
    check(pullback.compute(POINTS[:1], COTANGENTS[:1], keeps=True), 1)
    assert [*pullback.compiled][2:] == [(1, True)]
    check(pullback.compute_carefully(POINTS[1:2], COTANGENTS[1:2]), 1, 1)
    assert np.array_equal(pullback.compute_outputs(POINTS[:1], COTANGENTS[:1])["p"], [X * Y])
    assert len(pullback.compiled) == 3
    pullback.is_small = False
    check(pullback.pull_back(POINTS[:1], COTANGENTS[:1]), 1)
    assert [*pullback.compiled][3:] == [(1, False)]


def test_what_is_compiled_for_most_points_serves_fewer() -> None:
    pullback = prepare(multiply, X, Y)
    for count in (1, 3, 2):
        check(pullback.pull_back(POINTS[:count], COTANGENTS[:count]), count)
    assert [*pullback.compiled] == [(1, False), (3, False)]


def test_arguments_of_4096_entries_together_are_small() -> None:
    for size, small in ((4095, True), (4096, False)):
        assert prepare(lambda x, y: x.sum() + y, np.ones(size), np.ones(1)).is_small is small


@pytest.mark.parametrize(("operations", "unrolled"), [(100, False), (101, True)])
def test_a_hundred_operations_without_a_loop_are_compiled(operations: int, unrolled: bool) -> None:
    def chain(x: Any) -> Any:
        for _ in range(operations):
            x = jnp.sin(x)
        return x

    def loop(x: Any) -> Any:
        return jax.lax.fori_loop(0, 3, lambda _, y: jnp.sin(y), chain(x))

    for forward in (chain, loop):
        pullback = prepare(forward, X)
        assert pullback.structure.shape == (3,)
        assert pullback.is_unrolled is (unrolled and forward is chain)


def test_outputs_keep_the_order_of_the_users_mapping() -> None:
    pullback = prepare(lambda x: {"z": x, "a": 2 * x}, X)
    assert [*pullback.structure] == [*pullback.outputs] == ["z", "a"]
    assert pullback.structure["a"].shape == (3,)


# Zeros that are kept, and quotients.


def find_root(x: Any) -> Any:
    """The root of what is positive, whose slope at zero is infinite."""
    return jnp.where(x > 0, jnp.sqrt(x), 0.0)


def test_zeros_are_kept_at_the_points_at_which_autodiff_gives_nan() -> None:
    pullback = prepare(find_root, X)
    points = [{"x": np.array([4.0, 9])}, {"x": np.array([4.0, -1])}, {"x": np.array([0.25, 9])}]
    given = [{"output": np.ones(2)}] * 3
    pulled = pullback.pull_back(points, given)
    assert [*pulled.kept] == [1]
    expected = [[1 / 4, 1 / 6], [1 / 4, 0], [1, 1 / 6]]
    np.testing.assert_allclose(pulled.gradients["x"], expected)
    assert pullback.has_kept
    assert pullback.needs_kept_zeros(points, given)
    assert not pullback.needs_kept_zeros(points[:1], given[:1])
    fresh = prepare(find_root, X)
    assert not fresh.pull_back(points[:1], given[:1]).kept
    assert not fresh.has_kept
    assert not fresh.needs_kept_zeros(points, given)  # which has not been found out yet


def test_a_gradient_with_kept_zeros_is_nan_at_a_kink() -> None:
    pulled = prepare(lambda x: jnp.where(x != 0, jnp.sqrt(jnp.abs(x)), 0.0), X).pull_back(
        [{"x": np.array([4.0, 0, 9])}, {"x": np.array([4.0, 9, 1])}],
        [{"output": np.ones(3)}] * 2,
    )
    assert [*pulled.kept] == [0]
    assert np.isnan(pulled.gradients["x"][0]).all()  # beside 0, the slope is large
    np.testing.assert_allclose(pulled.gradients["x"][1], [1 / 4, 1 / 6, 1 / 2])


def test_nan_stays_where_an_output_or_the_gradient_with_kept_zeros_is_nan() -> None:
    pullback = prepare(jnp.sqrt, X)
    points = [{"x": np.array([4.0, -1])}, {"x": np.array([4.0, 9])}]
    pulled = pullback.pull_back(points, [{"output": np.ones(2)}] * 2)
    assert [*pulled.kept] == []
    assert np.isnan(pulled.gradients["x"][0, 1])
    np.testing.assert_allclose(pulled.gradients["x"][1], [1 / 4, 1 / 6])
    assert not pullback.has_kept


def test_with_care_all_points_are_differentiated_so_that_no_divisor_is_squared() -> None:
    pullback = prepare(lambda x, y: x / y, X, Y)
    points = [{"x": np.array([3.0, 4]) * 1e200, "y": np.array([2.0, 5]) * 1e200}] * 2
    given = [{"output": np.ones(2)}] * 2
    expected = -1e-200 * np.array([3 / 4, 4 / 25])
    assert not pullback.pull_back(points, given).gradients["y"].any()  # y² is infinite
    assert not pullback.needs_kept_zeros(points, given)
    careful = pullback.compute_carefully(points, given)
    np.testing.assert_allclose(careful.gradients["y"], [expected] * 2)
    pullback.is_careful = True
    pulled = pullback.pull_back(points, given)
    np.testing.assert_allclose(pulled.gradients["y"], [expected] * 2)
    assert [*pulled.kept] == []
    assert not pullback.has_kept
    assert pullback.needs_kept_zeros(points, given) is True


# Confirmation by differences.


class Stated(Pullback):
    """A pull-back through x² in whose place other gradients are given."""

    def __init__(self, careful: Any = (), restored: Any = (), unconfirmed: Any = ()) -> None:
        self.is_careful = False
        self.careful, self.restored, self.unconfirmed = careful, restored, [*unconfirmed]
        self.asked = list[str]()

    def find_structure(self) -> Any:
        return X

    def pull_back(self, points: Any, cotangents: Any) -> Pulled:
        return Pulled(self.compute_outputs(points, cotangents), {})

    def compute_outputs(self, points: Any, cotangents: Any) -> Any:
        return {"y": np.stack([p["x"] ** 2 for p in points])}

    def compute_carefully(self, points: Any, cotangents: Any) -> Pulled:
        self.asked.append("careful")
        return Pulled({}, {"x": np.array(self.careful, float)})

    def restore_numbers(self, points: Any, cotangents: Any) -> Pulled:
        self.asked.append("restored")
        return Pulled({}, {"x": np.array(self.restored, float)})

    def imitate_rounding(self, points: Any, cotangents: Any, dtype: Any) -> Pulled:
        raise NotImplementedError

    def find_overflows(self, points: Any, cotangents: Any, largest: float) -> Pulled:
        raise NotImplementedError


class Listed(Stated):
    """Differences confirm all but the points that are listed, call by call."""

    def list_unconfirmed(self, points: Any, cotangents: Any, gradients: Any) -> list[int]:
        return self.unconfirmed.pop(0)


def confirm(pullback: Stated) -> Any:
    pulled = Pulled({}, {"x": np.array([[1.0], [2], [3]])})
    found = pullback.confirm([], [], pulled)
    assert found is pulled
    return found.gradients["x"].ravel().tolist()


CAREFUL = [[10], [20], [30]]


def test_what_differences_confirm_is_asked_no_further() -> None:
    pullback = Listed(unconfirmed=[[]])
    assert confirm(pullback) == [1, 2, 3]
    assert (pullback.asked, pullback.is_careful) == ([], False)


def test_what_care_confirms_is_taken_and_all_further_points_are_treated_so() -> None:
    pullback = Listed(CAREFUL, unconfirmed=[[0, 1], [2]])
    assert confirm(pullback) == [10, 20, 3]
    assert (pullback.asked, pullback.is_careful) == (["careful"], True)
    pullback.unconfirmed = [[0], [0]]
    pullback.restored = CAREFUL
    confirm(pullback)
    assert pullback.is_careful is True


def test_what_no_one_confirms_is_nan_where_numbers_are_lost() -> None:
    pullback = Listed(CAREFUL, [[10], [21], [31]], [[0, 1], [0, 1, 2]])
    lost, *others = reversed(confirm(pullback)[:2])
    assert np.isnan(lost)
    assert others == [1]
    assert (pullback.asked, pullback.is_careful) == (["careful", "restored"], False)
    part = Listed(CAREFUL, [[10], [21], [30]], [[0, 1, 2], [1, 2]])
    first, second, third = confirm(part)
    assert np.isnan(second)
    assert (first, third) == (10, 3)
    assert part.is_careful is True


def test_differences_of_the_outputs_tell_wrong_gradients() -> None:
    points, given = [{"x": X}, {"x": 2 * X}], [{"y": np.ones(3)}] * 2
    pullback, right = Stated(), np.stack([2 * X, 4 * X])
    assert pullback.list_unconfirmed(points, given, {"x": right}) == []
    wrong = right * np.array([[1.0], [1.1]])
    assert pullback.list_unconfirmed(points, given, {"x": wrong}) == [1]


# Numbers in the place of others.

ONES = [{"output": np.ones(3)}, {"output": np.ones(3)}]
AT = [{"x": X}, {"x": X + 0.5}]


def test_numbers_are_restored_with_kept_zeros() -> None:
    at, given = [{"x": np.array([4.0, -1])}], [{"output": np.ones(2)}]
    restored = prepare(find_root, X).restore_numbers(at, given)
    np.testing.assert_allclose(restored.gradients["x"], [[1 / 4, 0]])


def test_numbers_are_restored_without_the_structure_of_the_outputs() -> None:
    (setting,) = read_settings((X,), jnp.sin)
    restored = JaxPullback(jnp.sin, setting).restore_numbers(AT[:1], ONES[:1])
    np.testing.assert_allclose(restored.gradients["x"], [np.cos(X)])
    assert JaxPullback(jnp.sin, setting).is_unrolled is False


@pytest.mark.table(2)
@pytest.mark.parametrize("unrolled", [False, True])
def test_numbers_below_the_range_are_restored(unrolled: bool) -> None:
    pullback = prepare(lambda x: (x * 1e-200) * (x * 1e-200) * 1e300, X)
    pullback.is_unrolled = unrolled
    assert not pullback.pull_back(AT, ONES).outputs["output"].any()
    restored = pullback.restore_numbers(AT, ONES)
    assert np.all(restored.outputs["output"] > 0)
    assert np.all(restored.gradients["x"] > 0)
    ordinary = prepare(lambda x: x * x, X)
    ordinary.is_unrolled = unrolled
    np.testing.assert_allclose(
        ordinary.restore_numbers(AT, ONES).gradients["x"], [2 * X, 2 * X + 1]
    )


def test_errors_of_rounding_are_the_same_with_and_without_a_compilation() -> None:
    pullback = prepare(lambda x: x * x, X)
    compiled = pullback.imitate_rounding(AT, ONES, np.float32)
    assert compiled.gradients["x"].shape == compiled.outputs["output"].shape == (SAMPLES, 2, 3)
    pullback.is_unrolled = True
    unrolled = pullback.imitate_rounding(AT, ONES, np.float32)
    for name, errors in compiled.named.items():
        np.testing.assert_allclose(errors, unrolled.named[name], atol=1e-14)
        assert np.all(np.abs(errors).max(axis=(1, 2)) > 2.0**-28)  # in each sample
        assert np.all(np.abs(errors) <= 4 * 2.0**-24 * 2 * 12.25)
        assert len({float(each.flat[0]) for each in errors}) == SAMPLES


@pytest.mark.parametrize(("dtype", "elementary"), [(np.float16, 1), (np.float32, 16)])
def test_the_format_that_is_imitated_has_its_range(
    dtype: Any, elementary: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    forms = list[Any]()

    def add_errors(at: Any, form: Any, keeps: bool) -> Any:
        forms.append((form, keeps))
        return lambda salt, unit, at, back: ({"y": np.float64(salt) * unit}, {})

    pullback = prepare(lambda x: x, X)
    monkeypatch.setattr(pullback, "add_errors", add_errors)
    found = pullback.imitate_rounding(AT, ONES, dtype)
    ((form, keeps),) = forms
    unit = np.finfo(dtype).eps / 2
    assert tuple(form)[:4] == (
        unit, elementary, find_smallest(dtype) / unit, find_largest(dtype),
    )  # fmt: skip
    assert keeps is False
    np.testing.assert_allclose(found.outputs["y"], unit * np.arange(1, SAMPLES + 1))


def test_what_is_compiled_with_errors_is_compiled_once() -> None:
    pullback = prepare(lambda x: x * x, X)
    first = pullback.imitate_rounding(AT, ONES, np.float32)
    again = pullback.imitate_rounding(AT, ONES, np.float32)
    assert np.array_equal(first.gradients["x"], again.gradients["x"])
    assert len(pullback.noisy) == 1
    (known,) = pullback.noisy.values()
    assert known is pullback.add_errors(None, *next(iter(pullback.noisy)))


def test_results_that_depend_on_a_large_number_are_found() -> None:
    pullback = prepare(lambda x: jnp.stack([x[0] * 1000, x[1] * 1, x[2] / 1000 * 2]), X)
    at = [{"x": np.array([4.0, 5, 6])}, {"x": np.array([5.0, 5001, 5001])}]
    found = pullback.find_overflows(at, ONES, 4500.0)
    assert found.outputs["output"].tolist() == [[False] * 3, [True, True, False]]
    assert found.outputs["output"].dtype == bool


# What can be run, and in float64.


def test_what_raises_is_told_in_one_sentence() -> None:
    def fail(x: Any) -> Any:
        raise OSError("no file")

    with pytest.raises(
        ValueError,
        match=r"forward: expected a function of these arguments, which raised OSError: no file$",
    ):
        prepare(fail, X)


def test_a_conversion_to_fewer_bits_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="the forward pass converts float64 to float32") as caught:
        prepare(lambda x: (x.astype(jnp.float32) * 2).astype(jnp.float64), X)
    assert REMEDY in str(caught.value)
    with pytest.raises(ValueError, match=REMEDY):
        prepare(lambda x: np.float32(1) * x.astype(np.float32) if float(x[0]) else x, X)


def test_outputs_are_floats_of_64_bits() -> None:
    outputs = {"y": X, "n": np.arange(2)}
    assert require_float64(outputs) is outputs
    with pytest.raises(ValueError, match="expected a function that returns arrays of floats"):
        require_float64({"n": np.arange(2)})
    with pytest.raises(ValueError, match=r"^z is float32 where all arguments are float64: leave"):
        require_float64({"y": X, "z": X.astype(np.float32)})


def test_the_libraries_are_tried_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[str]()

    def kind(name: str, said: str) -> Any:
        class Tried:
            def __init__(self, forward: Any, arguments: Any) -> None:
                tried.append(name)

            @property
            def structure(self) -> Any:
                if said:
                    raise ValueError(said)
                return X

        return Tried

    def ask(jax_says: str, numpy_says: str, torch: Any = None, names: bool = False) -> Any:
        tried.clear()
        monkeypatch.setattr(pullbacks, "JaxPullback", kind("jax", jax_says))
        monkeypatch.setattr(pullbacks, "NumpyPullback", kind("numpy", numpy_says))
        monkeypatch.setattr(pullbacks, "TorchPullback", kind("torch", "of torch"))
        monkeypatch.setattr(pullbacks, "find_torch", lambda: torch)
        monkeypatch.setattr(pullbacks.torch_losses, "names_torch", lambda _: names)
        return prepare(abs, X)

    ask("", "")
    assert tried == ["jax"]
    ask("no", "")
    assert tried == ["jax", "numpy"]
    for says, said in (
        (("no", "none"), "none"),
        ((REMEDY, "none"), REMEDY),
        (("no", REMEDY), REMEDY),
    ):
        with pytest.raises(ValueError, match=f"which raised ValueError: {said}$"):
            ask(*says)
    with pytest.raises(ValueError, match=r"which raised ValueError: none$"):
        ask("no", "none", torch=SimpleNamespace())
    assert tried == ["jax", "numpy", "torch"]
    with pytest.raises(ValueError, match=r"which raised ValueError: of torch$"):
        ask("", "", names=True)
    assert tried == ["torch"]
    monkeypatch.setattr(pullbacks, "is_tensor", lambda each: True)
    with pytest.raises(ValueError, match="none; the arguments are tensors: state the function in"):
        ask("no", "none", torch=SimpleNamespace())
    assert tried == ["torch", "jax", "numpy"]
