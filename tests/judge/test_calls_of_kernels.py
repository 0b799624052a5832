"""Calls of a kernel, its cases and their neighbours, without a compilation."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.judge.kernel_calls import KernelCalls, list_arrays
from bptt_verifier.judge.kernel_cases import (
    KernelCase,
    count_tests,
    draw_cases,
    draw_neighbours,
    prepare_cotangents,
)
from bptt_verifier.program.arguments import read_arguments
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.scatter import DISTANCE, IN_HALF, NEIGHBOURS

X, N = np.arange(1.0, 4.0), np.array([1, 2])
Y = {"y": np.ones(3)}


class SignatureError(Exception):
    """As an adapter raises where it cannot call a kernel."""


class UnwrittenOutputError(Exception):
    """As an adapter raises where an output is not written."""


def prepare(backward: Any, given: Any = (X, N), structure: Any = Y, **known: Any) -> KernelCalls:
    """Prepare the calls of a kernel, whose stated function returns arrays like `structure`."""
    arguments = read_arguments(given)
    outputs = structure if isinstance(structure, dict) else {"outputs[0]": structure[0]}
    floating = {n: v for n, v in outputs.items() if v.dtype.kind == "f"}
    pullback: Any = SimpleNamespace(
        arguments=arguments, structure=structure, outputs=floating, excluding=frozenset()
    )
    backward.__dict__.update(known)
    return KernelCalls(backward, pullback)


def ask(backward: Any, **known: Any) -> Any:
    calls = prepare(backward, **known)
    return calls.ask(calls.arguments.leaves, Y)


def test_a_kernel_is_given_copies_and_the_gradients_are_read_by_name() -> None:
    given: list[Any] = []

    def backward(arguments: Any, cotangents: Any) -> Any:
        given.append((arguments, cotangents))
        return 2 * cotangents["y"], None

    found = ask(backward)
    assert {name: value.tolist() for name, value in found.items()} == {"arguments[0]": [2, 2, 2]}
    ((x, n), cotangents) = given[0]
    assert x is not X
    assert np.array_equal(x, X)
    assert np.array_equal(n, N)
    assert cotangents["y"] is not Y["y"]


def test_copies_are_made_as_is_asked() -> None:
    calls = prepare(lambda arguments, cotangents: (arguments[0] + cotangents["y"], None))
    (found,) = calls.ask(calls.arguments.leaves, Y, lambda value: value + 10).values()  # type: ignore[union-attr]
    assert found.tolist() == [22, 23, 24]


def fail(error: Exception) -> Any:
    def backward(arguments: Any, cotangents: Any) -> Any:
        raise error

    return backward


def test_what_a_kernel_raises_is_its_mistake() -> None:
    found = ask(fail(RuntimeError("no memory")))
    assert (found.name, found.details) == ("raised", {"exception": "RuntimeError"})
    assert found.explanation.startswith(
        "your backward raised RuntimeError: no memory. It was raised at"
    )
    found = ask(fail(UnwrittenOutputError("dx is not written")))
    assert (found.name, found.details) == ("unwritten-output", {})
    assert found.explanation == "dx is not written, whatever the memory held before."
    with pytest.raises(ValueError, match=r"^kernel: expected dx, found none$"):
        ask(fail(SignatureError("kernel: expected dx, found none")))


def test_gradients_that_do_not_fit_are_of_the_wrong_shape() -> None:
    found = ask(lambda *_: (np.ones(2), None))
    assert (found.name, found.details) == ("wrong-shape", {})
    assert found.explanation == "the gradient for arguments[0]: expected shape (3,), found (2,)."


@pytest.mark.parametrize("what", ["arguments", "cotangents"])
def test_what_is_given_has_to_stay_as_it_is(what: str) -> None:
    def backward(arguments: Any, cotangents: Any) -> Any:
        {"arguments": arguments[0], "cotangents": cotangents["y"]}[what][2] = 7
        return X, None

    found = ask(backward)
    assert (found.name, found.details) == ("inputs-modified", {"modified": what})
    assert found.explanation == f"your backward modified its {what}: expected them to be unchanged."


def test_data_have_to_stay_as_well_and_nan_is_equal_to_nan() -> None:
    def backward(arguments: Any, cotangents: Any) -> Any:
        arguments[1][0] = 9
        return X, None

    assert ask(backward).name == "inputs-modified"
    endless = ask(lambda *_: (X, None), given=(np.array([1, np.nan, 3]), N))
    assert not isinstance(endless, Mistake)
    assert N.tolist() == [1, 2]


def test_cotangents_are_arrays_like_the_first_argument() -> None:
    calls = prepare(lambda *_: None, (N, jnp.ones(2, jnp.float32)), (np.ones(2), np.ones(3, int)))
    first, data = calls.arrange({"outputs[0]": np.full(2, 5, np.float32)})
    assert isinstance(first, jnp.ndarray)
    assert first.tolist() == [5, 5]
    assert data.tolist() == [0, 0, 0]
    assert calls.results is calls.arguments.leaves
    assert calls.values is None


def test_own_outputs_are_computed_at_a_point() -> None:
    def values(arguments: Any) -> Any:
        arguments[0][0] = 5
        return {"y": 2 * arguments[0], "n": N}

    calls = prepare(lambda *_: None, values=values)
    found: Any = calls.compute_values(calls.arguments.leaves)
    assert {name: value.tolist() for name, value in found.items()} == {"y": [10, 4, 6]}
    assert calls.arguments.leaves["arguments[0]"].tolist() == [1, 2, 3]
    failing = prepare(lambda *_: None, values=lambda _: 1 / 0)
    found = failing.compute_values(failing.arguments.leaves)
    assert (found.name, found.details) == ("raised", {"exception": "ZeroDivisionError"})
    assert found.explanation.startswith(
        "your forward raised ZeroDivisionError: division by zero. It"
    )


def test_arrays_are_listed_as_copies_of_numbers() -> None:
    whole, half, flags = np.ones(2, np.int64), np.ones(2, jnp.bfloat16), np.array([True])
    listed = list_arrays({"b": [whole, half], "a": flags})
    assert [each.dtype for each in listed] == [np.int64, np.float64, bool]
    listed[0][0] = listed[2][0] = 0
    assert whole[0] == flags[0] == 1


# Cases and neighbours.


def test_a_case_is_named_by_its_number_and_setting() -> None:
    labels = [KernelCase(s, k, {}, {}).label for s in (0, 1) for k in (0, 2)]
    assert labels == [
        "the arguments given", "case 2", "the arguments given of setting 2", "case 2 of setting 2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("dtypes", "half"),
    [(("f4", "f8"), False), (("f8", "f2"), True), (("f2", "f2"), True)],
)
def test_neighbours_of_16_bits_are_further_away_and_twice_as_many(dtypes: Any, half: bool) -> None:
    case = KernelCase(0, 0, {str(k): np.ones(1, each) for k, each in enumerate(dtypes)}, {})
    assert case.distance == (IN_HALF if half else DISTANCE)
    assert case.neighbours == (2 * NEIGHBOURS if half else NEIGHBOURS)


def draw(seed: int = 0, setting: int = 0, excluding: Any = frozenset()) -> list[KernelCase]:
    calls = prepare(lambda *_: None, (X, np.array([0.0, -1e9, 0.5])))
    calls.pullback.__dict__["excluding"] = excluding
    return [*draw_cases(setting, calls, Y, 3, seed)]


def test_the_first_case_is_what_is_given_and_others_are_drawn_near_it() -> None:
    first, second, third = draw()
    assert (first.setting, [each.number for each in (first, second, third)]) == (0, [0, 1, 2])
    assert first.cotangents == Y
    assert np.array_equal(first.point["arguments[0]"], X)
    for one, other in ((first, second), (second, third)):
        for name in one.point:
            assert not np.array_equal(one.point[name], other.point[name])
        assert not np.array_equal(one.cotangents["y"], other.cotangents["y"])
    assert np.all(np.sign(second.point["arguments[0]"]) == np.sign(X))
    again, other_seed, setting = draw()[1], draw(seed=1)[1], draw(setting=1)[1]
    assert np.array_equal(again.point["arguments[0]"], second.point["arguments[0]"])
    for each in (other_seed, setting):
        assert not np.array_equal(each.point["arguments[0]"], second.point["arguments[0]"])
    assert setting.setting == 1


def test_numbers_that_stand_for_infinity_stay_in_cases_and_neighbours() -> None:
    for excluding, stays in ((frozenset({"arguments[1]"}), True), (frozenset(), False)):
        _, case, _ = draw(excluding=excluding)
        assert (case.point["arguments[1]"][1] == -1e9) == stays
        assert case.excluding == excluding
        points = draw_neighbours(case._replace(point=draw()[0].point), DISTANCE, 0).points
        assert all((p["arguments[1]"][1] == -1e9) == stays for p in points)


def test_neighbours_are_each_within_a_distance_and_differ() -> None:
    case = draw()[1]
    near, far = (draw_neighbours(case, distance, 0) for distance in (DISTANCE, 0.125))
    assert len(near.points) == len(near.cotangents) == NEIGHBOURS
    for drawn, distance in ((near, DISTANCE), (far, 0.125)):
        for every, at in ((drawn.points, case.point), (drawn.cotangents, case.cotangents)):
            for name, value in at.items():
                parts = np.array([each[name] / value - 1 for each in every])
                assert np.abs(parts).max() <= distance * (1 + 1e-9)
                assert np.abs(parts).max() > distance / 2
                assert len({float(part.flat[0]) for part in parts}) == NEIGHBOURS
    at_one = near.points[0]["arguments[0]"]
    for other in (
        draw_neighbours(case, DISTANCE, 1), draw_neighbours(case._replace(number=2), DISTANCE, 0),
        draw_neighbours(case._replace(setting=1), DISTANCE, 0),
    ):  # fmt: skip
        assert not np.array_equal(other.points[0]["arguments[0]"], at_one)
    assert np.array_equal(draw_neighbours(case, DISTANCE, 0).points[0]["arguments[0]"], at_one)
    scale = case.point["arguments[0]"]
    ratio = (far.points[0]["arguments[0]"] / scale - 1) / (at_one / scale - 1)
    assert not np.allclose(ratio, 0.125 / DISTANCE, rtol=0.01)  # drawn anew at each distance


# Cotangents.

OUTPUTS = {"a": np.ones(2), "b": np.ones((2, 2)), "n": N}


def read(given: Any) -> Any:
    found = prepare_cotangents(prepare(lambda *_: None, structure=OUTPUTS), given, 0)
    return {name: value.tolist() for name, value in found.items()}


def test_cotangents_are_read_by_name_or_in_the_order_of_the_outputs() -> None:
    a, b = np.full(2, 3.0), np.full((2, 2), 4.0)
    expected = {"a": a.tolist(), "b": b.tolist()}
    assert read({"b": b, "a": a}) == read((a, b)) == read({"a": a, "b": b, "n": N}) == expected
    assert [*read({"b": b, "a": a})] == ["a", "b"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"a": np.ones(2)}, "expected the structure of the outputs, a, b, found a$"),
        ({"a": np.ones(2), "c": np.ones(2)}, "found a, c$"),
        ((), "found none$"),
        (np.ones(2), "found output$"),
        ({"a": np.ones(3), "b": np.ones((2, 2))}, r"expected shape \(2,\) of a, found \(3,\)$"),
        ((np.ones(2), np.ones(2)), r"expected shape \(2, 2\) of b, found \(2,\)$"),
        ((np.ones(2), np.ones((2, 2), int)), r"expected floating numbers for b, found int64$"),
    ],
    ids=[
        "one is missing",
        "another name",
        "none",
        "one array",
        "shape of a",
        "shape of b",
        "integers",
    ],
)
def test_cotangents_of_another_structure_are_refused(given: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"^cotangents: .*{said}"):
        read(given)


def test_cotangents_are_drawn_in_the_dtypes_of_the_own_outputs_or_the_coarsest() -> None:
    given = np.ones(2, np.float32), np.ones(2, np.float16), np.ones(2)

    def find_dtypes(**known: Any) -> Any:
        calls = prepare(lambda *_: None, given, OUTPUTS, **known)
        found = prepare_cotangents(calls, None, 0)
        assert [found[n].shape for n in "ab"] == [(2,), (2, 2)]
        return [found[n].dtype for n in "ab"]

    assert find_dtypes() == [np.float16, np.float16]
    own = {"a": np.ones(2, np.float32), "c": np.ones(2)}
    assert find_dtypes(values=lambda _: own) == [np.float32, np.float16]
    assert find_dtypes(values=lambda _: 1 / 0) == [np.float16, np.float16]


def test_drawn_cotangents_depend_on_the_seed_and_are_not_those_of_a_case() -> None:
    calls = prepare(lambda *_: None, structure=OUTPUTS)
    first, again, other = (prepare_cotangents(calls, None, seed)["a"] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_tests_are_entries_slices_and_the_whole() -> None:
    calls = prepare(lambda *_: None, (np.ones((2, 3)), np.ones(4)))
    assert count_tests(calls) == (6 + 2 + 3 + 1) + (4 + 4 + 1)
