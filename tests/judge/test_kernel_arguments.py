"""Arguments, cotangents and gradients of kernels: by name where they have names, else in order."""

import re
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Verdict, verify_jvp, verify_vjp

X = np.random.default_rng(0).normal(size=4).astype(np.float32)
S = np.random.default_rng(1).normal(size=4).astype(np.float32)
NAMED = {"x": X, "s": S}  # which is not the order of the alphabet


def scale(x: Any, s: Any) -> Any:
    return x * s * s


def pull_back(*given: Any) -> tuple[Any, Any]:
    x, s, d = given
    return d * s * s, 2 * d * x * s


def of_mapping(make: Callable[..., Any]) -> Any:
    return lambda a, d: make(*pull_back(a["x"], a["s"], d))


def of_tuple(make: Callable[..., Any]) -> Any:
    return lambda a, d: make(*pull_back(*a, d))


Named = namedtuple("Named", "s x")

RIGHT = {
    "a tuple beside a mapping": (of_mapping(lambda dx, ds: (dx, ds)), NAMED),
    "a list beside a mapping": (of_mapping(lambda dx, ds: [dx, ds]), NAMED),
    "a mapping in another order": (of_mapping(lambda dx, ds: {"s": ds, "x": dx}), NAMED),
    "the values of a mapping": (lambda a, d: pull_back(*a.values(), d), NAMED),
    "a mapping beside a tuple": (of_tuple(lambda dx, ds: {"s": ds, "x": dx}), (X, S)),
    "a mapping of dx and ds": (of_tuple(lambda dx, ds: {"ds": ds, "dx": dx}), (X, S)),
    "a named tuple beside a tuple": (of_tuple(lambda dx, ds: Named(ds, dx)), (X, S)),
}


@pytest.mark.parametrize("form", RIGHT)
def test_gradients_are_read_by_name_and_in_the_order_of_the_arguments(form: str) -> None:
    backward, arguments = RIGHT[form]
    report = verify_vjp(backward, scale, arguments, cases=1)
    assert report, report
    assert [*report.parameters] == ["x", "s"]


@pytest.mark.parametrize("arguments", [NAMED, (X, S)], ids=["mapping", "tuple"])
@pytest.mark.parametrize("keys", ["xS", "sX", "ab"])
def test_a_misspelt_name_is_said_with_the_names_expected(keys: str, arguments: Any) -> None:
    def backward(a: Any, d: Any) -> Any:
        x, s = a.values() if isinstance(a, dict) else a
        return dict(zip(keys, pull_back(x, s, d), strict=True))

    (mistake,) = verify_vjp(backward, scale, arguments, cases=1).mistakes
    assert mistake.name == "wrong-shape"
    assert f"by name, of {', '.join(keys)}: expected" in mistake.explanation
    assert "with gradients of x, s" in mistake.explanation


def test_a_flat_sequence_of_gradients_is_in_the_order_of_a_nested_mapping() -> None:
    def backward(a: Any, d: Any) -> Any:
        return pull_back(a[0]["x"], a[0]["s"], d)

    assert verify_vjp(backward, lambda p: scale(p["x"], p["s"]), (NAMED,), cases=1)


def test_gradients_by_name_of_an_argument_whose_name_is_unknown_are_said() -> None:
    backward = of_tuple(lambda dx, ds: {"x": dx, "s": ds})
    (mistake,) = verify_vjp(backward, lambda *a: a[0] * a[1] ** 2, (X, S), cases=1).mistakes
    assert "with gradients of arguments[0], arguments[1]" in mistake.explanation


def test_cotangents_and_tangents_are_in_the_order_of_the_outputs() -> None:
    def forward(x: Any, s: Any) -> Any:
        return {"y": x * s, "a": 2 * x}

    def backward(a: Any, cotangents: Any) -> Any:
        dy, da = cotangents.values()
        return dy * a[1] + 2 * da, dy * a[0]

    assert verify_vjp(backward, forward, (X, S), cases=1)

    def push(a: Any, d: Any) -> Any:
        return [d[0] * a[1] + a[0] * d[1], 2 * d[0]]

    assert verify_jvp(push, forward, (X, S), cases=1)
    assert not verify_jvp(lambda a, d: push(a, d)[::-1], forward, (X, S), cases=1)


MASK = np.array([0, 2, 2, 0], np.float32)


@pytest.mark.table(3)
@pytest.mark.parametrize("values", [MASK, MASK / 2, -1e9 * MASK])
def test_none_is_right_for_a_mask_in_floats(values: Any) -> None:
    def forward(x: Any, mask: Any) -> Any:
        return jnp.tanh(x) * mask

    def backward(a: Any, d: Any) -> Any:
        return d * a[1] * (1 - np.tanh(a[0]) ** 2), None

    report = verify_vjp(backward, forward, (X, values), cases=2)
    assert report, report
    assert [*report.parameters] == ["x"]
    assert any("mask is None" in note for note in report.notes)
    ones = np.ones(4, np.float32)
    assert verify_vjp(backward, forward, [(X, values), (X, ones)], cases=1)
    wrong = lambda a, d: (d * a[1], None)  # noqa: E731
    assert not verify_vjp(wrong, forward, (X, values), cases=1)
    (mistake,) = verify_vjp(backward, forward, (X, S), cases=1).mistakes  # S is no mask
    assert mistake.name == "zero-gradient"


def test_a_mask_that_has_a_gradient_is_differentiated() -> None:
    report = verify_vjp(of_tuple(lambda dx, ds: (dx, ds)), scale, (X, MASK), cases=1)
    assert [*report.parameters] == ["x", "s"]
    assert report, report


def test_cotangents_that_do_not_fit_the_outputs_are_said_by_name() -> None:
    backward = of_tuple(lambda dx, ds: (dx, ds))
    for given in (X, [X], (X,)):
        assert verify_vjp(backward, scale, (X, S), cotangents=given, cases=1)
    with pytest.raises(ValueError, match=r"^cotangents: .*, output, found y$"):
        verify_vjp(backward, scale, (X, S), cotangents={"y": X}, cases=1)
    with pytest.raises(ValueError, match=r"expected shape \(4,\) of output, found \(3,\)$"):
        verify_vjp(backward, scale, (X, S), cotangents=X[:3], cases=1)


NO_ARRAYS = "forward: expected a function that returns an array or a pytree of arrays, found "
NO_OUTPUTS = {
    "a generator": (lambda x, s: (a * b for a, b in ((x, s),)), f"{NO_ARRAYS}a generator"),
    "a string": (lambda x, s: "xs", f"{NO_ARRAYS}a str"),
    "an object inside": (lambda x, s: [x * s, object()], f"{NO_ARRAYS}a object at outputs[1]"),
    "nothing": (lambda x, s: None, "returns arrays of floats, found none"),
    "a count": (lambda x, s: {"n": 3}, "returns arrays of floats, found n of int"),
}


@pytest.mark.parametrize(("forward", "said"), NO_OUTPUTS.values(), ids=NO_OUTPUTS)
@pytest.mark.parametrize("library", [np, jnp])
def test_outputs_that_are_no_arrays_are_refused_in_one_sentence(
    forward: Any, said: str, library: Any
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        verify_vjp(lambda a, d: a, lambda x, s: forward(library.sin(x), s), (X, S))
    assert "jit" not in str(error.value)
    assert "\n" not in str(error.value)


NO_GRADIENTS = {
    "a generator": (lambda a, d: (g for g in pull_back(*a, d)), "a generator"),
    "an iterator": (lambda a, d: map(np.array, pull_back(*a, d)), "a map"),
    "nothing": (lambda a, d: None, "None"),
    "one for two": (lambda a, d: pull_back(*a, d)[0], "1 gradient"),
    "three for two": (lambda a, d: (*pull_back(*a, d), X), "3 gradients"),
}


@pytest.mark.parametrize(("backward", "found"), NO_GRADIENTS.values(), ids=NO_GRADIENTS)
def test_what_is_returned_for_gradients_is_named(backward: Any, found: str) -> None:
    (mistake,) = verify_vjp(backward, scale, (X, S), cases=1).mistakes
    said = f"your backward returned {found}: expected the structure of the arguments, with"
    assert mistake.name == "wrong-shape"
    assert mistake.explanation.startswith(f"{said} gradients of x, s.")


def test_none_is_the_gradient_of_one_argument_of_which_nothing_depends() -> None:
    right = verify_vjp(lambda a, d: (d, None), lambda x, s: 1 * x, (X, S), cases=1)
    assert right.verdict is Verdict.AGREES
    (mistake,) = verify_vjp(lambda a, d: (pull_back(*a, d)[0], None), scale, (X, S)).mistakes
    assert (mistake.name, mistake.details["gradients"]) == ("zero-gradient", ["s"])


def test_cotangents_of_whole_numbers_are_refused() -> None:  # which no part of them would be
    with pytest.raises(ValueError, match="cotangents: expected floating numbers for output, found"):
        verify_vjp(
            lambda a, d: pull_back(*a, d), scale, (X, S), cotangents=np.ones(4, int), cases=1
        )


def test_arguments_without_floating_numbers_are_named() -> None:
    said = r"each with entries, found s of float32 \(0,\), x of int64 \(4,\)"
    with pytest.raises(ValueError, match=said):
        verify_vjp(lambda a, d: a, scale, (X.astype(int), S[:0]))
