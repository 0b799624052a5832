"""Formats at work inside a kernel, as errors made by hand show them."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.judge import kernel_formats
from bptt_verifier.judge.kernel_cases import KernelCase, Neighbours
from bptt_verifier.judge.kernel_comparisons import IMITATED, Found
from bptt_verifier.judge.kernel_formats import (
    BOTH,
    LEAST,
    MOST,
    ONCE,
    OTHER_FORMAT,
    OTHER_SIZE,
    SOME,
    STAY,
    Roundings,
    describe_coarse_noise,
    describe_formats,
    describe_half_noise,
    describe_scatter,
    find_dtype,
    group_gradients,
    measure_responses,
    name_format,
    round_arguments,
)
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.formats import round_once
from bptt_verifier.tolerance.projections import COARSE, Noise
from bptt_verifier.tolerance.scatter import IN_HALF

UNIT = 2.0**-24  # the unit roundoff of float32
K, N = 64, 40
SIGNS = np.random.default_rng(0).choice([-1.0, 1.0], (K, N))
EXACT = np.random.default_rng(1).uniform(1, 2, (K, N))


def with_noise(relative: float = 0.0, of_rounding: float = 0.0, unit: float = UNIT) -> Any:
    return SimpleNamespace(noise=Noise(relative, unit, 0.0, of_rounding))


def find(errors: Any = 0.0, setting: int = 0, dtype: Any = np.float32, **gradients: Any) -> Found:
    """What was found of gradients with these errors, in a dtype."""
    case = KernelCase(setting, 0, {n: np.ones(2, dtype) for n in gradients}, {"y": np.ones(1)})
    submitted = {name: (EXACT + errors).astype(dtype) for name in gradients}
    exact = dict.fromkeys(gradients, EXACT)
    return Found(case, submitted, exact, gradients, {})


# Groups and their words.


def test_a_group_of_gradients_is_named_with_its_range() -> None:
    one, two = Roundings("", ["w"], [2.04]), Roundings("", ["w", "v"], [3.0, 1.5])
    assert (one.of, one.size) == ("gradient for w", "2")
    assert (two.of, two.size) == ("gradients for w, v", "1.5 to 3")
    assert Roundings("", ["w", "v"], [2.01, 2.02]).size == "2"


def test_gradients_are_grouped_in_the_case_in_which_their_errors_are_largest() -> None:
    first = find(w=with_noise(of_rounding=2.0), v=with_noise(of_rounding=9.0))
    second = find(setting=1, w=with_noise(of_rounding=4.0), v=with_noise(of_rounding=1.0))
    third = find(w=with_noise(of_rounding=4.0), u=with_noise(of_rounding=1.0))
    asked = list[Any]()

    def describe(calls: Any, found: Any, names: Any) -> Any:
        asked.append((calls, found, names))
        return {name: "one" if name in "wu" else "other" for name in names}

    every: Any = ["first", "second"]
    groups = [*group_gradients(every, [first, second, third], describe)]
    assert asked == [("second", second, ["w"]), ("first", first, ["v"]), ("first", third, ["u"])]
    assert groups == [Roundings("one", ["w", "u"], [4.0, 1.0]), Roundings("other", ["v"], [9.0])]


def test_errors_of_a_gradient_in_float64_are_in_roundings_to_its_dtype() -> None:
    found = find(w=with_noise(relative=0.82 * UNIT))
    every: Any = [None]
    (group,) = group_gradients(every, [found], lambda *_: {"w": ""})
    assert group.ratios == [pytest.approx(0.82 / ONCE)]
    # Errors up to a unit, of root mean square 1 / √3, of mantissas m with a mean of m⁻² of ½.
    assert pytest.approx((1 / 3 * 1 / 2) ** 0.5, abs=0.005) == ONCE


def test_what_is_said_of_each_kind_of_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    coarse, half = dict[str, str](), dict[str, str]()
    monkeypatch.setattr(kernel_formats, "describe_coarse_noise", lambda *_: coarse)
    monkeypatch.setattr(kernel_formats, "describe_half_noise", lambda *_: half)

    def describe() -> list[str]:
        every: Any = [None]
        return [*describe_formats(every, [find(w=with_noise(of_rounding=3.0))])]

    assert describe() == []
    for said in ("bfloat16", "TF32 or float16", "float32", BOTH):
        coarse["w"] = said
        (note,) = describe()
        assert note.startswith(
            f"Factors or sums are evidently rounded to {said} inside: the errors"
        )
        assert "errors of the gradient for w are 3 times those" in note
    coarse["w"] = OTHER_FORMAT
    (note,) = describe()
    assert f"not evidently rounding to fewer bits inside: {OTHER_FORMAT}. Truncation" in note
    assert "and so may an approximation of a function such as tanh in that format" in note
    coarse.clear()
    half["w"] = ""
    (note,) = describe()
    assert note.startswith("Sums or states inside are evidently rounded to 16 bits: the errors of")
    half["w"] = SOME
    (note,) = describe()
    assert f"not evidently rounding of sums or states: {SOME}. Digits that cancel" in note


# Errors that stay, or are at some entries alone.


def test_errors_stay_beyond_eight_times_the_variance_of_their_mean() -> None:
    noise = SIGNS - SIGNS.mean(axis=0)
    scatter = np.sqrt((noise**2).sum(axis=0).mean() / (K - 1))
    rounding = np.full(N, 1e-3)
    limit = float(scatter * (8 / K) ** 0.5)
    assert describe_scatter(noise + 1.001 * limit, rounding) == STAY
    assert describe_scatter(noise + 0.999 * limit, rounding) == ""


def test_nine_of_ten_entries_with_rounding_have_errors_beyond_it() -> None:
    rounding = np.where(np.arange(N) < 20, 0.5, 0.0)
    for beyond, said in ((18, ""), (17, SOME)):
        sizes = np.where(np.arange(N) < beyond, 0.6, 0.4)
        assert describe_scatter(SIGNS * sizes - (SIGNS * sizes).mean(axis=0), rounding) == said
    assert describe_scatter(0 * SIGNS, 0 * rounding) == ""
    sizes = np.full(N, 0.5)  # as large as the rounding, and not beyond it
    assert describe_scatter(np.tile([[1.0], [-1]], (8, N)) * sizes, np.full(N, 0.5)) == SOME


# Formats.


def test_a_format_fits_between_a_quarter_and_four_times_its_response() -> None:
    for form, said in (
        ("bfloat16", "bfloat16"),
        ("TF32", "TF32 or float16"),
        ("float32", "float32"),
    ):
        assert name_format(LEAST, {form: 1.0}) == name_format(MOST, {form: 1.0}) == said
        assert name_format(0.99 * LEAST, {form: 1.0}) == name_format(1.01 * MOST, {form: 1.0}) == ""
    both = {"bfloat16": 8.0, "TF32": 1.0, "float32": 1e-4}
    assert name_format(3.0, both) == BOTH
    assert name_format(8.0, both) == "bfloat16"
    assert name_format(1.0, both) == "TF32 or float16"
    assert name_format(3.0, {"bfloat16": 8.0, "float32": 3.0}) == "bfloat16"
    assert name_format(0.0, {"bfloat16": 0.0}) == ""


def test_arguments_and_cotangents_are_rounded_to_bits() -> None:
    near = Neighbours([{"x": np.array([1.0, 1.3])}] * 2, [{"y": np.array([2.6])}] * 2)
    rounded = round_arguments(near, 3)
    assert [each["x"].tolist() for each in rounded.points] == [[1, 1.25]] * 2
    assert [each["y"].tolist() for each in rounded.cotangents] == [[2.5]] * 2


def test_the_response_is_the_change_with_rounded_arguments() -> None:
    def pull_back(points: Any, cotangents: Any) -> Any:
        return SimpleNamespace(gradients={"x": np.stack([p["x"] * 3 for p in points])})

    near = Neighbours([{"x": np.array([1 + 2.0**-9])}], [{"y": np.ones(1)}])
    calls: Any = SimpleNamespace(pullback=SimpleNamespace(pull_back=pull_back))
    found = measure_responses(calls, near, pull_back(*near).gradients)
    assert found == {
        "bfloat16": {"x": 3 * 2.0**-9}, "TF32": {"x": 0.0}, "float32": {"x": 0.0},
    }  # fmt: skip


class Coarse:
    """The errors of w at neighbours between which rounding to any format is another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = list[Any]()
        self.monkeypatch = monkeypatch
        self.far: Any = None
        self.drawn: Any = None

    def draw(self, case: Any, distance: float, seed: int) -> Any:
        self.drawn = distance, seed

    def describe(
        self,
        errors: Any,
        response: float = 0.0,
        relative: float = 17 * UNIT,
        dtype: Any = np.float32,
    ) -> Any:
        found = find(dtype=dtype, w=with_noise(relative), v=with_noise(16 * UNIT))
        far = self.far or find(w=None)._replace(submitted={"w": EXACT + errors})

        def measure(calls: Any, case: Any, *given: Any) -> Any:
            self.asked.append((case, given))
            return far

        responses = {"bfloat16": {"w": response}, "TF32": {"w": 0.0}, "float32": {"w": 0.0}}
        self.monkeypatch.setattr(kernel_formats, "measure_at", measure)
        self.monkeypatch.setattr(kernel_formats, "draw_neighbours", self.draw)
        self.monkeypatch.setattr(kernel_formats, "measure_responses", lambda *_: responses)
        calls: Any = None
        return describe_coarse_noise(calls, found, ["w", "v"])


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> Coarse:
    return Coarse(monkeypatch)


NOISE = 2.0**-9 * EXACT * SIGNS


def test_noise_of_a_coarser_format_is_named(coarse: Coarse) -> None:
    assert coarse.describe(NOISE, response=2.0**-8) == {"w": "bfloat16"}
    ((_, given),) = coarse.asked
    assert given == (IN_HALF, 1, 0)
    assert coarse.drawn == (IN_HALF, 0)  # at the same neighbours
    assert coarse.describe(NOISE) == {"w": OTHER_FORMAT}


def test_noise_of_the_own_format_and_of_16_bits_is_not_described(coarse: Coarse) -> None:
    assert coarse.describe(NOISE, relative=16 * UNIT) == {}
    assert coarse.describe(NOISE, dtype=np.float16) == {}
    assert coarse.asked == []
    coarse.far = Mistake("raised", "It was raised.", {})
    assert coarse.describe(NOISE) == {}


def test_errors_that_stay_are_said_to_scatter_as_a_format_as_well(coarse: Coarse) -> None:
    staying = NOISE + 2.0**-9 * EXACT
    assert coarse.describe(staying) == {"w": STAY}
    (said,) = coarse.describe(staying, response=2.0**-8).values()
    assert (
        said
        == "they scatter as rounding to bfloat16 does, and are alike at neighbouring points as well"
    )
    size = float(np.sqrt((NOISE**2).mean()))
    assert "bfloat16" in str(coarse.describe(staying, response=size / 3.9))
    some = NOISE * (np.arange(N) < 20)
    assert coarse.describe(some, response=2.0**-8) == {"w": SOME}


def test_an_entry_has_noise_beyond_its_own_format_and_a_sixteenth_of_all(coarse: Coarse) -> None:
    few = np.arange(N) < 10
    for part, said in ((1.1, "bfloat16"), (0.9, SOME)):
        errors = np.where(few, part / COARSE, 1.0) * NOISE
        size = np.sqrt((errors**2).mean() / (NOISE**2).mean())
        errors = np.where(few, part * size / COARSE, 1.0) * NOISE
        assert coarse.describe(errors, response=2.0**-8) == {"w": said}
        own = np.where(few, part * COARSE * UNIT, 40 * UNIT) * EXACT * SIGNS
        assert (coarse.describe(own) == {"w": SOME}) == (said == SOME)


# 16 bits.


class Half:
    """Errors in 16 bits, and those of rounding every operation."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = list[Any]()
        self.imitated: Any = 1.0
        near = Neighbours([*range(9)], [*range(9)])  # type: ignore[arg-type]
        self.drawn: Any = None

        def draw(case: Any, distance: float, seed: int) -> Any:
            self.drawn = distance == case.distance, seed
            return near

        monkeypatch.setattr(kernel_formats, "draw_neighbours", draw)

    def imitate_rounding(self, points: Any, cotangents: Any, dtype: Any) -> Any:
        self.asked.append((points, cotangents, dtype))
        if self.imitated is None:
            raise ValueError("the operations are unknown")
        errors = np.full((2, 3, N), self.imitated)
        return SimpleNamespace(gradients={"w": errors, "v": errors})

    def describe(
        self, errors: Any, of_rounding: float = 3.0, dtype: Any = jnp.bfloat16, of_v: float = 0.0
    ) -> Any:
        calls: Any = SimpleNamespace(pullback=self)
        found = find(
            dtype=dtype, w=with_noise(of_rounding=of_rounding), v=with_noise(of_rounding=of_v)
        )
        exact = round_once(EXACT, dtype)
        submitted = {n: (exact + errors).astype(dtype) for n in "wv"}
        found = found._replace(submitted=submitted, exact={"w": EXACT, "v": EXACT})
        return describe_half_noise(calls, found, ["w", "v"])


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> Half:
    return Half(monkeypatch)


SEVERAL = 2.0**-5 * SIGNS  # four units in the last place of numbers from 1 to 2 in bfloat16


def test_several_roundings_in_16_bits_are_rounding_of_sums(half: Half) -> None:
    assert half.describe(SEVERAL) == {"w": ""}
    assert half.asked == [([*range(IMITATED)], [*range(IMITATED)], jnp.bfloat16)]
    assert half.drawn == (True, 0)
    assert half.describe(SEVERAL, of_v=9.0) == {"w": "", "v": ""}


def test_rounding_is_imitated_in_the_coarsest_of_the_formats(half: Half) -> None:
    found = find(dtype=np.float16, w=with_noise(of_rounding=3.0), v=with_noise(of_rounding=3.0))
    found.case.point["v"] = np.ones(2, jnp.bfloat16)
    errors = {"w": SEVERAL / 8, "v": SEVERAL}
    submitted = {n: (EXACT + e).astype(found.case.point[n].dtype) for n, e in errors.items()}
    calls: Any = SimpleNamespace(pullback=half)
    described = describe_half_noise(calls, found._replace(submitted=submitted), ["w", "v"])
    assert described == {"w": "", "v": ""}
    assert half.asked[0][2] == jnp.bfloat16


def test_errors_as_large_as_those_of_rounding_every_operation_are_rounding(half: Half) -> None:
    exact, half.imitated = np.full((K, N), 1.5), 2.0**-5
    found = find(dtype=jnp.bfloat16, w=with_noise(of_rounding=3.0))
    submitted = {"w": (exact + SEVERAL).astype(jnp.bfloat16)}
    calls: Any = SimpleNamespace(pullback=half)
    found = found._replace(submitted=submitted, exact={"w": exact})
    assert describe_half_noise(calls, found, ["w"]) == {"w": ""}


def test_one_rounding_or_a_wider_format_is_not_described(half: Half) -> None:
    assert half.describe(SEVERAL, of_rounding=2.99) == {}
    assert half.describe(SEVERAL, dtype=np.float32) == {}
    assert half.asked == []


def test_errors_larger_than_rounding_every_operation_are_of_another_size(half: Half) -> None:
    half.imitated = 2.0**-5
    size = float(np.sqrt(((round_once(EXACT, jnp.bfloat16) + SEVERAL - EXACT) ** 2).mean()))
    half.imitated = 1.01 * size
    assert half.describe(SEVERAL) == {"w": ""}
    half.imitated = 0.99 * size
    assert half.describe(SEVERAL) == {"w": OTHER_SIZE}
    half.imitated = None
    assert half.describe(SEVERAL) == {"w": ""}


def test_errors_that_stay_or_are_at_some_entries_are_not_imitated(half: Half) -> None:
    assert half.describe(SEVERAL + 2.0**-5) == {"w": STAY}
    assert half.describe(SEVERAL * (np.arange(N) < 20)) == {"w": SOME}
    assert half.asked == []


def test_an_entry_errs_by_more_than_another_rounding_of_the_result(half: Half) -> None:
    rounding = np.sqrt(((round_once(EXACT, jnp.bfloat16) - EXACT) ** 2).mean(axis=0))
    found = find(dtype=jnp.bfloat16, w=with_noise(of_rounding=3.0))
    calls: Any = SimpleNamespace(pullback=half)
    for part, said in ((1.01, ""), (0.99, SOME)):
        errors = part * 2.0**0.5 * rounding * SIGNS
        errors -= errors.mean(axis=0)
        errors *= part * 2.0**0.5 * rounding / np.sqrt((errors**2).mean(axis=0))
        wide: Any = SimpleNamespace(
            astype=lambda _, e=errors: EXACT + e, dtype=np.dtype(jnp.bfloat16)
        )
        assert describe_half_noise(calls, found._replace(submitted={"w": wide}), ["w"]) == {
            "w": said
        }


def test_the_coarser_dtype_of_a_gradient_and_its_argument() -> None:
    found = find(dtype=np.float16, w=None)
    assert find_dtype(found, "w") == np.float16
    assert find_dtype(found._replace(submitted={"w": EXACT}), "w") == np.float16
