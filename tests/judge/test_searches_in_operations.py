"""What a mistake in an operation has to explain, in numbers made by hand."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.judge import kernel_operations
from bptt_verifier.judge.kernel_cases import KernelCase
from bptt_verifier.judge.kernel_comparisons import Found
from bptt_verifier.judge.kernel_operations import (
    EVIDENT,
    POINTS,
    Search,
    change_cotangents,
    explains_most,
    find_in_settings,
    find_wrong_operation,
    prepare_beyond_noise,
    prepare_exact,
    prepare_search,
    trace_product,
)
from bptt_verifier.mistakes.effort import Effort
from bptt_verifier.reference.pullbacks import JaxPullback, TorchPullback
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.noise import SAFETY


def make_found(setting: int = 0, size: int = 2, dtype: Any = np.float32) -> Found:
    """What was found of two gradients of so many entries, of which that for w is wrong."""
    point = {"w": (np.arange(1, 1 + size) / 4).astype(dtype), "u": np.ones(1, dtype)}
    case = KernelCase(setting, 0, point, {"y": np.full(2, 0.5, dtype)})
    exact = {"w": np.zeros((16, size)), "u": np.zeros((16, 1))}
    submitted = {name: value.astype(dtype) for name, value in exact.items()}
    measured: Any = {n: SimpleNamespace(wrong=n == "w") for n in exact}
    return Found(case, submitted, exact, measured, {})


def name(line: str | None = "mine.py:3", what: str = "scaled") -> Mistake:
    return Mistake(what, "", {} if line is None else {"file_line": line})


@pytest.mark.parametrize("fits", [None, lambda *_: True])
def test_a_search_computes_in_float64_and_tells_nothing_of_overflow(
    fits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def find_single_mistake(*given: Any) -> Any:
        seen.append((given, jnp.ones(1).dtype, {*np.geterr().values()}))
        return "found"

    searches = "find_single_mistake", "find_only_fit"
    for each, used in zip(searches, (fits is None, fits is not None), strict=True):
        monkeypatch.setattr(kernel_operations, each, find_single_mistake if used else None)
    program, holds = SimpleNamespace(), lambda _: True
    given: Any = (program, ["a witness"], fits)
    with jax.enable_x64(False), np.errstate(all="raise"):
        found: Any = Search(*given).find(holds)
    assert found == "found"
    fit = () if fits is None else (fits,)
    assert seen == [((program, ["a witness"], *fit, holds), np.float64, {"ignore"})]


def search_with(found: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Search where this is found; return the mistakes, and the cases in their order."""
    asked: list[Any] = []

    def find(*given: Any) -> Any:
        asked.extend(given)
        return found()

    monkeypatch.setattr(kernel_operations, "find_in_settings", find)
    wrong = [make_found(0, 2), make_found(1, 5), make_found(2, 3)]
    calls: Any = ["calls"]
    mistakes = find_wrong_operation(calls, wrong, [make_found(3)])
    assert asked[0] == calls
    assert [each.case.setting for each in asked[2]] == [3]
    return mistakes, [each.case.setting for each in asked[1]]


def test_the_largest_wrong_case_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    mistakes, order = search_with(lambda: [name()], monkeypatch)
    assert order == [1, 2, 0]
    assert mistakes == (name(),)


def fail() -> Any:
    raise MemoryError


@pytest.mark.parametrize(
    "found",
    [
        lambda: (),
        lambda: (name(), name()),
        lambda: (name(None),),
        lambda: (name(f"{kernel_operations.__file__}:99"),),
        fail,
    ],
    ids=["none", "two", "no line", "a line of the judge", "an exception"],
)
def test_a_name_is_one_at_a_line_of_the_user(
    found: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert search_with(found, monkeypatch)[0] == ()


class Elsewhere:
    """What has to hold at another size, or with other cotangents."""

    def __init__(self, *given: Any, is_right: bool = False) -> None:
        assert jnp.ones(1).dtype == np.float64
        assert {*np.geterr().values()} == {"ignore"}
        self.given = (*given, is_right)

    def gives_numbers(self, made: str) -> bool:
        """Tell whether a mistake holds with the other cotangents, of the search ("g", "h")."""
        assert self.given == (("a program", "pruned"), "h", False)
        return made != "fits with these cotangents alone"


FITTING = "fits", "fits here alone", "fits with these cotangents alone"


class Prepared(tuple[Any, ...]):
    """A search in which three mistakes fit, of which others may be found not to hold."""

    __slots__ = ()
    program = "a program"

    def find(self, holds: Any) -> Any:
        return tuple(made for made in FITTING if holds(made))


class Asked(NamedTuple):
    """What was asked: settings, what has to hold elsewhere, and searches with other cotangents."""

    settings: list[int]
    elsewhere: list[Any]
    again: list[int]


def find_from(
    prepared: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    wrong: int = 2,
    effort: int = 99,
    other: Any = None,
) -> tuple[Any, Asked]:
    """Find in settings whose searches are these; return the mistakes and what was asked."""
    asked = Asked([], [], [])
    left = iter(prepared)

    def prepare_search(calls: Any, found: Found) -> Any:
        assert calls == f"calls {found.case.setting}"
        if found.case.number:
            asked.again.append(found.case.setting)
            return other
        asked.settings.append(found.case.setting)
        return next(left)

    def change_cotangents(every: Any, found: Found) -> Found:
        return found._replace(case=found.case._replace(number=1))

    def hold_at(elsewhere: Any, program: Any) -> Any:
        asked.elsewhere.append(([each.given for each in elsewhere], program))
        return lambda made: made != "fits here alone"

    class Short(Effort):
        """The effort for so many searches."""

        def goes_on(self, tried: int = 0) -> bool:
            return len(asked.settings) < effort

    for each in (prepare_search, change_cotangents, hold_at):
        monkeypatch.setattr(kernel_operations, each.__name__, each)
    monkeypatch.setattr(kernel_operations, "OtherSize", Elsewhere)
    monkeypatch.setattr(kernel_operations, "find_effort", Short)
    monkeypatch.setattr(kernel_operations, "prune", lambda program: (program, "pruned"))
    monkeypatch.setattr(kernel_operations, "leave_out_reshapes", lambda program: program)
    found = [make_found(k) for k in range(len(prepared))]
    every: Any = [f"calls {k}" for k in range(len(prepared))]
    with jax.enable_x64(False), np.errstate(all="raise"):
        mistakes = find_in_settings(every, found[:wrong], found[wrong:])
    return mistakes, asked


def test_a_mistake_has_to_explain_all_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = [Prepared(each) for each in ("ab", "cd", "ef")]
    mistakes, asked = find_from([*searches, None], monkeypatch)
    assert asked.settings == [0, 1, 2, 3]
    assert asked.elsewhere == [([("c", "d", False), ("e", "f", True)], "a program")]
    assert mistakes == ("fits", "fits with these cotangents alone")
    assert find_from([None, *searches], monkeypatch)[0] == ()


def test_it_has_to_hold_with_other_cotangents_too(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = [Prepared(each) for each in ("ab", "cd")]
    mistakes, asked = find_from(searches, monkeypatch, other=Prepared("gh"))
    assert mistakes == ("fits",)
    assert asked.again == [0]  # once, of the case in which it was sought


def test_other_cotangents_have_the_dtypes_of_those_of_the_case_whose_arguments_stay() -> None:
    found = make_found()
    given = {"y": np.full(2, 0.5, np.float32), "z": np.ones((2, 3), np.float64)}
    found = found._replace(case=found.case._replace(cotangents=given))
    calls: Any = Calls(1.0)
    case = change_cotangents([calls], found).case
    assert case.point is found.case.point
    for name, value in given.items():
        other = case.cotangents[name]
        assert (other.shape, other.dtype) == (value.shape, value.dtype)
        assert np.all(other != value)


def test_no_search_is_prepared_without_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    searches = [Prepared(each) for each in ("ab", "cd", "ef")]
    mistakes, asked = find_from(searches, monkeypatch, effort=2)
    assert (mistakes, asked.settings) == ((), [0, 1])
    assert find_from(searches, monkeypatch, effort=3)[1].settings == [0, 1, 2]


def make_pullback(kind: type, **known: Any) -> Any:
    """A pull-back that nothing was prepared for."""
    pullback = object.__new__(kind)
    vars(pullback).update(known)
    return pullback


def test_operations_are_known_of_what_jax_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_operations, "prepare_exact", lambda *given: ("exact", *given))
    monkeypatch.setattr(kernel_operations, "prepare_beyond_noise", lambda *given: ("half", *given))
    small, large = (make_pullback(JaxPullback, is_small=each) for each in (True, False))
    for found, how in ((make_found(), "exact"), (make_found(dtype=np.float16), "half")):
        for pullback in (small, make_pullback(TorchPullback, traced=small)):
            calls: Any = SimpleNamespace(pullback=pullback)
            prepared: Any = prepare_search(calls, found)
            assert prepared == (how, calls, small, found)
        for pullback in (large, SimpleNamespace(is_small=True)):
            calls = SimpleNamespace(pullback=pullback)
            assert prepare_search(calls, found) is None
    found = make_found()
    mixed = found._replace(submitted=found.submitted | {"u": np.zeros((16, 1), np.float16)})
    assert prepare_search(SimpleNamespace(pullback=small), mixed)[0] == "half"  # type: ignore[arg-type, index]


UNIT = 2.0**-24  # of float32


class Calls:
    """A kernel for L = Σ w²/2 + u whose gradient for w is (1 + error) w, for u 1 + error."""

    def __init__(self, error: Any, dtype: Any = np.float32, failing: int = 99) -> None:
        self.error, self.dtype, self.failing = error, dtype, failing
        self.points: list[Any] = []
        self.arguments = SimpleNamespace(leaves=make_found(dtype=dtype).case.point)
        self.pullback = SimpleNamespace(excluding=frozenset(), pull_back=self.pull_back)

    def ask(self, point: Any, cotangents: Any) -> Any:
        assert cotangents["y"].tolist() == [0.5, 0.5]
        self.points.append(point)
        if len(self.points) > self.failing:
            return Mistake("raised", "", {})
        wrong = (1 + self.error) * point["w"].astype(np.float64)
        return {"w": wrong.astype(self.dtype), "u": (1 + 0 * point["u"]).astype(self.dtype)}

    def pull_back(self, points: Any, cotangents: Any) -> Any:
        assert len(points) == len(cotangents)
        exact = {n: np.stack([p[n].astype(np.float64) ** (n == "w") for p in points]) for n in "wu"}
        return SimpleNamespace(gradients=exact)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing gives a text."""
    monkeypatch.setattr(kernel_operations, "trace_product", lambda *_: "a program")


@pytest.mark.usefixtures("traced")
def test_a_mistake_in_32_bits_gives_the_numbers_at_three_points() -> None:
    calls: Any = Calls(1.0)
    search: Any = prepare_exact(calls, calls.pullback, make_found())
    assert (search.program, search.fits, len(search.witnesses)) == ("a program", None, POINTS)
    assert len({float(each["w"][0]) for each in calls.points}) == POINTS
    for point, witness in zip(calls.points, search.witnesses, strict=True):
        w = point["w"].astype(np.float64)
        assert {each.dtype for each in witness.point.values()} == {np.dtype(np.float64)}
        assert np.array_equal(witness.point["w"], w)
        assert np.array_equal(witness.submitted["w"], 2 * w)
        assert np.array_equal(witness.reference["w"], w)
        assert witness.reference["w"].shape == (2,)
        assert np.array_equal(witness.allowed["w"], np.full(2, SAFETY * UNIT * np.abs(w).max()))
        assert witness.fails is True


@pytest.mark.usefixtures("traced")
def test_an_error_near_rounding_has_no_name() -> None:
    """Powers of two, so that the error of 2^-14 on 64 times 16 units of the last place is exact."""
    found, least = make_found(), EVIDENT * SAFETY * UNIT
    for error, evident in ((least, True), (0.9 * least, False), (-least, True)):
        calls: Any = Calls(error, np.float64)
        calls.ask = lambda point, given, calls=calls: {
            n: g.astype(np.float32) for n, g in Calls.ask(calls, point, given).items()
        }
        calls.arguments.leaves = {"w": np.array([1.0, 2.0]), "u": np.ones(1)}
        kernel_cases = [KernelCase(0, 0, calls.arguments.leaves, found.case.cotangents)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernel_operations, "draw_cases", lambda *_, c=kernel_cases: c)
            search = prepare_exact(calls, calls.pullback, found)
        assert (search is not None) is evident


@pytest.mark.usefixtures("traced")
def test_a_right_gradient_beside_a_wrong_one_is_within_rounding() -> None:
    calls: Any = Calls(1.0)
    right = make_found()._replace(gradients={"u": SimpleNamespace(wrong=True)})  # type: ignore[dict-item]
    assert prepare_exact(calls, calls.pullback, right) is None
    empty: Any = Calls(1.0)
    empty.arguments.leaves = {"w": np.zeros(0, np.float32), "u": np.ones(1, np.float32)}
    search: Any = prepare_exact(empty, empty.pullback, make_found())
    assert search.witnesses[0].allowed["w"].shape == (0,)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("failing", [0, 2, 15])
def test_a_kernel_that_breaks_the_contract_has_no_name_here(failing: int) -> None:
    calls: Any = Calls(1.0, np.float16, failing)
    half = make_found(dtype=np.float16)
    assert prepare_beyond_noise(calls, calls.pullback, half) is None
    if failing < POINTS:
        calls = Calls(1.0, np.float32, failing)
        assert prepare_exact(calls, calls.pullback, make_found()) is None


@pytest.mark.usefixtures("traced")
def test_a_mistake_in_16_bits_leaves_rounding_at_the_neighbours() -> None:
    calls: Any = Calls(1.0, np.float16)
    search: Any = prepare_beyond_noise(calls, calls.pullback, make_found(dtype=np.float16))
    assert (
        len(search.witnesses) == len(calls.points) == make_found(dtype=np.float16).case.neighbours
    )
    assert search.program == "a program"
    w = np.stack([each["w"].astype(np.float64) for each in calls.points])
    assert len({*w[:, 0]}) > 1
    for k, witness in enumerate(search.witnesses):
        assert np.array_equal(witness.point["w"], w[k])
        assert witness.submitted["w"].dtype == np.float64
        assert np.array_equal(witness.reference["w"], w[k])
        assert np.array_equal(witness.allowed["w"], np.zeros(2))
        assert np.array_equal(witness.allowed["u"], np.zeros(1))
        assert witness.fails is True
    every = range(len(w))
    ones = np.ones((len(w), 1))
    assert search.fits({"w": 2 * w, "u": ones}, every)
    assert search.fits({"w": 2 * w[:1]}, [0])
    assert search.fits({"w": 2 * w[2:4]}, [2, 3])
    assert search.fits({"w": w, "u": ones}, every) is False
    assert search.fits({"w": 2 * w, "u": 2 * ones}, every) is False
    assert search.fits({"u": 2 * ones, "w": 2 * w}, every) is False
    assert search.fits({"w": 2.1 * w}, [*every]) is False


@pytest.mark.usefixtures("traced")
def test_only_of_a_wrong_gradient_most_is_to_be_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_operations, "explains_most", lambda *_: False)
    calls: Any = Calls(1.0, np.float16)
    search: Any = prepare_beyond_noise(calls, calls.pullback, make_found(dtype=np.float16))
    assert search.fits({"u": np.ones((1, 1))}, [0])
    assert search.fits({"w": 2.0 * calls.points[0]["w"][None]}, [0]) is False


@pytest.mark.usefixtures("traced")
def test_rounding_is_that_of_the_coarser_of_result_and_argument(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(kernel_operations, "explains_most", lambda *_: True)

    def leaves_rounding(*given: Any) -> bool:
        seen.append(given[3])
        return True

    monkeypatch.setattr(kernel_operations, "leaves_rounding", leaves_rounding)
    calls: Any = Calls(1.0, np.float32)
    search: Any = prepare_beyond_noise(calls, calls.pullback, make_found(dtype=np.float16))
    assert search.fits({"w": np.ones((1, 2))}, [0])
    assert seen == [np.float16]


def test_an_explanation_leaves_a_sixteenth_of_a_mistake_at_most() -> None:
    """The mistake is 16 in each entry; of 2048 in float16, so that sums there would round."""
    exact = np.full(3, 2048.0)
    for left, explained in ((0.0, True), (1.0, True), (1.25, False), (-1.25, False)):
        expected = exact + 16
        assert explains_most(expected + left, expected, exact) is explained
    assert explains_most(np.full(3, 2064, np.float16), np.full(3, 2064.5), exact + 0.5 - 15.5)


def test_the_loss_of_a_search_is_the_product_of_outputs_and_cotangents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = make_found()
    case = found.case._replace(
        cotangents={"y": np.array([2, 3], np.float32), "z": np.array(5, np.float32)}
    )
    seen: list[Any] = []

    def trace(start: Any) -> Any:
        seen.append((start, jnp.ones(1).dtype))
        return lambda params: {"y": params["w"], "z": 7.0 * params["u"][0], "n": jnp.arange(3)}

    monkeypatch.setattr(
        kernel_operations, "trace", lambda loss, start: (loss(start), loss(start, None), start)
    )
    slopes = {"w": np.ones(2)}
    monkeypatch.setattr(kernel_operations, "forward", lambda program, start: (program, start))
    monkeypatch.setattr(kernel_operations, "backward", lambda program, values: slopes)
    monkeypatch.setattr(kernel_operations, "keep_zeros_of", lambda program: ("kept", program))
    pullback: Any = SimpleNamespace(trace=trace)
    with jax.enable_x64(False):
        found_twice: Any = trace_product(pullback, found._replace(case=case))
    ((start, dtype),) = seen
    assert dtype == np.float64
    assert {each.dtype for each in start.values()} == {np.dtype(np.float64)}
    assert [float(each) for each in found_twice[:2]] == [2 / 4 + 3 / 2 + 5 * 7] * 2
    assert found_twice[2] is start
    slopes["u"] = np.array([1, np.nan])
    kept: Any = trace_product(pullback, found._replace(case=case))
    assert kept[0] == "kept"
