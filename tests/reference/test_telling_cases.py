"""Which gradients of a case could show a mistake, and which are zero in every case."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.trace import forward, trace
from bptt_verifier.reference import zeros
from bptt_verifier.reference.selection import (
    is_telling,
    is_within_float32,
    list_telling,
    resolve,
)
from bptt_verifier.reference.zeros import UNBALANCE, find_zeros
from bptt_verifier.tolerance.bounds import RESOLVING
from tests.support.stated_cases import state_case, state_program

U = 2.0**-53


@pytest.mark.parametrize(
    ("value", "allowed", "resolution"),
    [
        ([0.5, -1.0], [2.0**-9, 2.0**-8], 2.0**-8),
        ([0.0, 0.0], [2.0**-9, 2.0**-8], np.nan),
        ([0.0, 0.0], [0.0, 0.0], np.nan),
        ([0.0, 0.0], [2.0**-9, np.inf], np.inf),  # nothing is known of it
        ([0.0, 1.0], [np.nan, 1.0], np.inf),
    ],
)
def test_the_resolution_is_the_largest_allowed_error_beside_the_largest_entry(
    value: Any, allowed: Any, resolution: float
) -> None:
    found = resolve(state_case({"w": value}, {"w": allowed}))
    np.testing.assert_array_equal(found["w"], resolution)


def test_a_case_tells_only_if_every_gradient_but_zeros_is_resolved() -> None:
    given = {"a": np.ones(1), "b": np.ones(1)}
    for a, b, telling in [(1.0, 1.0, True), (1.0, 0.9, False), (0.9, 1.0, False), (1.0, 0.0, True)]:
        limits = {"a": [RESOLVING], "b": [RESOLVING]}
        case = state_case({"a": [a], "b": [b]}, limits, given)
        assert is_telling(case) is telling
        assert list_telling(case) == [name for name, size in (("a", a), ("b", b)) if size == 1]
    assert not is_telling(state_case({"w": [0.0, 0.0]}, {"w": [1e-9, 1e-9]}))


def test_numbers_of_the_loss_or_the_gradient_are_within_half_of_the_largest_float32() -> None:
    half = float(np.finfo(np.float32).max) / 2
    for share, within in [(0.9, True), (1.0, True), (1.1, False)]:
        large, small = np.array([1.0, -share * half]), np.ones(1)
        others = [None, np.ones(2, int), np.array([np.inf])]  # an infinity is a mask
        assert is_within_float32(state_program(), [*others, large], {"w": small}) is within
        assert is_within_float32(state_program(), [*others, small], {"w": large}) is within
        assert is_within_float32(state_program(), [-large, small], {"w": small}) is within
        both = {"v": small, "w": large}
        assert is_within_float32(state_program(), [small], both) is within


@pytest.mark.parametrize(
    ("constant", "number", "within"),
    [
        (-1.1, -1.9, True), (-1.0, -1.1, False), (-np.inf, -1.1, True), (-1.1, 1.1, False),
        (0.5, -1.1, False),
    ],
)  # fmt: skip
def test_numbers_below_those_of_float32_are_masks_beside_a_constant_that_is_one(
    constant: float, number: float, within: bool
) -> None:
    half = float(np.finfo(np.float32).max) / 2
    slots = [np.array([1.0, constant * half]), np.array([number * half])]
    program = state_program(constants=[0])
    assert is_within_float32(program, slots, {"w": np.ones(1)}) is within
    assert not is_within_float32(program, slots, {"w": slots[1]})


@pytest.mark.parametrize(
    ("values", "allowed", "other", "zero"),
    [
        ([0.0, 0.0], [1e-9, 1e-9], 1.0, True),
        ([1e-9, -1e-9], [1e-9, 1e-9], 1.0, True),
        ([0.0, 1.0], [1e-9, 1e-9], 1.0, False),
        ([0.0, 0.0], [1.0, 1.0], 1.0, False),  # nothing could have been seen
        ([0.0, 0.0], [1e-4, 1e-4], 1.0, True),
        ([0.0, 0.0], [1e-4, 1e-4], 1e-3, False),  # too much beside the largest entry
        ([0.0, 0.0], [0.0, 1e-4], 1e-3, False),
        ([0.0, 0.0], [RESOLVING, RESOLVING], 1.0, True),
    ],
)
def test_a_gradient_is_zero_if_every_entry_is_in_every_case(
    values: Any, allowed: Any, other: float, zero: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zeros, "unbalance", lambda program, slots: {"w": np.ones(2)})
    given = {"w": np.ones(2), "v": np.ones(2)}
    limits, true = {"w": allowed, "v": [1e-9, 1e-9]}, {"v": [0.0, other]}
    cases = [state_case(true | {"w": each}, limits, given) for each in ([0.0, 0.0], values)]
    assert find_zeros([(state_program(), [])] * 2, cases) == ({"w"} if zero else set())


@pytest.mark.parametrize(
    ("clear", "vague", "zero"), [(4, 20, True), (3, 20, False), (3, 0, True), (2, 1, False)]
)
def test_cases_whose_rounding_hides_a_gradient_do_not_keep_it_from_being_zero(
    clear: int, vague: int, zero: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zeros, "unbalance", lambda program, slots: {"w": np.ones(2)})
    given, true = {"w": np.ones(2), "v": np.ones(2)}, {"w": [0.0, 0.0], "v": [0.0, 1.0]}
    cases = [
        state_case(true, {"w": [allowed, 0.0], "v": [1e-9, 1e-9]}, given)
        for allowed in [2 * RESOLVING] * vague + [1e-9] * clear
    ]
    points = [(state_program(), list[Any]())] * len(cases)
    assert find_zeros(points, cases) == ({"w"} if zero else set())


@pytest.mark.parametrize(
    ("moved", "zero"), [([0.0, 0.2], True), ([0.0, 0.1], False), ([0.0, 0.0], False)]
)
def test_terms_cancel_if_one_entry_exceeds_what_is_allowed_where_they_do_not(
    moved: Any, zero: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zeros, "unbalance", lambda program, slots: {"w": np.array(moved)})
    monkeypatch.setattr(zeros, "reaches", lambda program, name: True)
    given = {"w": np.ones(2), "v": np.ones(1)}
    case = state_case({"w": [0.0, 0.0], "v": [1e6]}, {"w": [0.1, 0.1], "v": [0.1]}, given)
    assert ("w" in find_zeros([(state_program(), [])], [case])) is zero


def test_each_operand_has_a_factor_of_its_own_near_one() -> None:
    given = {"w": np.ones(()), "v": np.ones(())}
    with use_float64():
        program = trace(lambda p, xp: p["w"] * p["v"], given)
        moved = zeros.unbalance(program, forward(program, given))
    w, v = (complex(moved[name].item()) for name in given)
    assert w != v
    for factor in (w, v):
        assert 0 < abs(factor - 1) <= 2.0**0.5 * UNBALANCE


def test_factors_that_show_which_terms_cancel_are_near_one_and_their_powers_beyond_rounding() -> (
    None
):
    assert 2.0**16 * U < UNBALANCE**6
    assert 0 < 2.0**0.5 * UNBALANCE < 2.0**-3


def list_zeros(loss: Any, decided: Any = (False, False), **params: Any) -> set[str]:
    """The gradients of a loss that are zero in every case, at the parameters and at 1.5 more."""
    given = {name: np.asarray(value, float) for name, value in params.items()}
    further = {name: value + 1.5 for name, value in given.items()}
    with use_float64():
        program = trace(loss, given)
        slots = [forward(program, each) for each in (given, further)]
    programs = [program._replace(decided=(0,) * each) for each in decided]
    true = {name: np.zeros_like(value) for name, value in given.items()} | {"c": np.ones(1)}
    allowed = {name: np.full_like(value, 1e-12) for name, value in true.items()}
    case = state_case(true, allowed, given | {"c": np.ones(1)})
    return {*find_zeros([*zip(programs, slots, strict=True)], [case, case])}


def test_cancelling_terms_and_absent_paths_are_zero_and_dead_units_and_branches_are_not() -> None:
    def normalised(p: Any, xp: Any) -> Any:
        a = p["W"] + p["b"]
        return ((a - xp.mean(a)) ** 3).sum()

    def of_one_unit(p: Any, xp: Any) -> Any:
        n = p["W"] - xp.mean(p["W"], keepdims=True)
        return xp.sum(n * p["γ"] + p["β"]) ** 2

    def chosen(p: Any, xp: Any) -> Any:  # the bias cancels in a − max a, and in the softmax
        a = p["W"] + p["b"]
        a = a - xp.max(a)
        return xp.log(xp.sum(xp.exp(a))) - a[0]

    def centred_twice(p: Any, xp: Any) -> Any:
        a = p["W"] + p["b"]
        a = a - xp.mean(a)
        a = a - xp.mean(a)
        return -xp.log(xp.exp(a[0] - xp.max(a)) / xp.sum(xp.exp(a - xp.max(a))))

    def attend(p: Any, xp: Any) -> Any:  # to equal entries, which are zero at the values given
        weights = xp.exp(p["b"] * p["q"] + xp.zeros(3))
        return xp.sum(weights / xp.sum(weights) * p["b"]) ** 2

    assert "q" in list_zeros(attend, q=[1.0], b=[0.0])
    assert "b" in list_zeros(normalised, W=[1.0, 2.0, 4.0], b=0.5)
    assert "b" in list_zeros(chosen, W=[1.0, 2.0, 4.0], b=0.5)
    assert "b" in list_zeros(centred_twice, W=[1.0, 2.0, 4.0], b=0.5)
    assert list_zeros(of_one_unit, W=[2.0], γ=[1.0], β=[0.5]) >= {"W", "γ"}
    assert "w" in list_zeros(lambda p, xp: xp.sum(p["v"] ** 2), w=[1.0], v=[1.0])
    for dead in (
        lambda p, xp: xp.maximum(p["w"] - 5, 0).sum() + p["v"].sum(),
        lambda p, xp: xp.where(p["w"] > 5, p["w"], 1.0).sum() + p["v"].sum(),
        lambda p, xp: (p["w"] * (p["v"] > 5)).sum() + p["v"].sum(),
    ):
        assert "w" not in list_zeros(dead, w=[1.0], v=[1.0])


def test_a_parameter_that_another_path_of_the_code_may_use_is_not_zero_for_certain() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(p["v"] ** 2)

    assert "w" in list_zeros(loss, decided=(False, False), w=[1.0], v=[1.0])
    assert "w" not in list_zeros(loss, decided=(True, True), w=[1.0], v=[1.0])
    assert "w" not in list_zeros(loss, decided=(False, True), w=[1.0], v=[1.0])
