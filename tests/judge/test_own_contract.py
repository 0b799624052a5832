"""A submission for an own model that breaks its contract gets a verdict that says so."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Verdict, verify_own_model
from tests.support.square import W, right, square


def modifying(p: Any) -> Any:
    found = right(p)
    p["W"] -= 0.1 * found["W"]
    return found


def removing(p: Any) -> Any:
    return {"W": right(p)["W"] + 0 * p.pop("W")}


def leaving(p: Any) -> Any:
    raise SystemExit(3)


def failing(p: Any) -> Any:
    return {"W": p["W"] @ p["missing"]}


def not_a_number(p: Any) -> Any:
    return {"W": right(p)["W"] * np.array([[1, np.nan], [1, 1]])}


noise = np.random.default_rng(0)


def masking(p: Any) -> Any:
    return {"W": np.ma.masked_array(2 * p["W"], [[False, True], [False, False]])}


OWN_BREACHES = {
    "returns nothing": (lambda p: None, "wrong-shape", "returned None: expected the gradients by"),
    "returns a list": (lambda p: [1.0], "wrong-shape", "returned list of 1 values: expected"),
    "other names": (lambda p: {"w": p["W"]}, "wrong-shape", "named W: expected W, found w"),
    "other shape": (
        lambda p: {"W": p["W"][0]},
        "wrong-shape",
        "expected shape (2, 2), found (2,)",
    ),
    "strings": (lambda p: {"W": "abc"}, "wrong-shape", "expected an array of floats, found dtype"),
    "masked": (masking, "wrong-shape", "expected numbers, found 1 masked entries"),
    "objects": (lambda p: {"W": object()}, "wrong-shape", "array of floats, found object"),
    "complex": (lambda p: {"W": 1j * p["W"]}, "wrong-shape", "found dtype complex128"),
    "ragged": (lambda p: {"W": [[1.0], [1.0, 2.0]]}, "wrong-shape", "array of floats, found list"),
    "modifies": (modifying, "inputs-modified", "modified its argument W"),
    "removes": (removing, "inputs-modified", "modified its argument W"),
    "random": (lambda p: {"W": noise.normal(size=(2, 2))}, "not-deterministic", "called twice"),
    "exits": (leaving, "raised", "SystemExit: 3"),
    "raises": (failing, "raised", "KeyError: 'missing'"),
    "NaN": (not_a_number, "not-finite", "found nan at entry [0, 1]"),
    "other loss": (lambda p: right(p) | {"loss": 0.0}, "forward-differs", "your loss is 0"),
}


@pytest.mark.parametrize("case", OWN_BREACHES)
def test_a_breach_of_an_own_model_is_a_verdict(case: str) -> None:
    gradients, name, sentence = OWN_BREACHES[case]
    report = verify_own_model(gradients, square, W, cases=3)
    assert report.verdict is Verdict.DISAGREES
    assert [mistake.name for mistake in report.mistakes] == [name]
    assert sentence in report.mistakes[0].explanation
    json.dumps(report.to_dict())
    str(report)


def test_gradients_that_are_no_function_are_refused_for_every_kind_of_model() -> None:
    with pytest.raises(TypeError, match="gradients: expected a function, found int"):
        verify_own_model(3, square, W)


def test_an_exception_of_an_own_model_is_shown_with_its_line() -> None:
    report = verify_own_model(failing, square, W, cases=1)
    line = failing.__code__.co_firstlineno + 1
    assert report.notes[-1].startswith(
        f'It was raised at `p["missing"]` ({__file__}:{line}:27), with'
    )
    assert Path(__file__).name in str(report)


def test_a_name_that_an_own_model_lacks_is_reported_as_not_checked() -> None:
    report = verify_own_model(lambda p: right(p) | {"prediction": 3, "dW": 1}, square, W, cases=4)
    assert report
    assert "Not checked: prediction, dW." in " ".join(report.notes)


@pytest.mark.rest
@pytest.mark.parametrize(("factor", "verdict"), [(1.0, Verdict.AGREES), (1.01, Verdict.DISAGREES)])
@pytest.mark.parametrize(
    ("given", "refused", "same"),
    [("float64", "float32", "the same numbers in float64"),
     ("float32", "float64", "the same numbers rounded to float32")],
)  # fmt: skip
def test_code_that_takes_the_format_of_its_parameters_alone_gets_the_same_numbers_in_it(
    given: str, refused: str, same: str, factor: float, verdict: Verdict
) -> None:
    def gradients(p: Any) -> Any:
        if p["a"].dtype != given:
            raise TypeError(f"the constants are {given}")
        return {"a": p["a"].dtype.type(factor) * np.cos(p["a"])}

    params = {"a": np.ones(3, given)}
    report = verify_own_model(gradients, lambda p, xp: xp.sum(xp.sin(p["a"])), params)
    assert report.verdict is verdict, str(report)
    (note,) = [note for note in report.notes if "raised an exception" in note]
    before, after = note.split(" (case ")
    assert before == f"Your function raised an exception at parameters in {refused}"
    said = f"), and not at {same}, the format of the parameters given, which it got there. There, "
    assert f"{said}your function raised TypeError: the constants are {given} at `raise" in after


def test_code_that_raises_at_the_format_of_its_parameters_raises() -> None:
    def gradients(p: Any) -> Any:
        if p["a"].dtype != np.float64:
            raise TypeError("the constants are float64")
        return {"a": np.cos(p["a"])}

    given = {"a": np.ones(3, np.float32)}
    report = verify_own_model(gradients, lambda p, xp: xp.sum(xp.sin(p["a"])), given)
    assert [mistake.name for mistake in report.mistakes] == ["raised"]


@pytest.mark.rest
@pytest.mark.parametrize("wrong", [1.0, 1.01])
@pytest.mark.parametrize(("scale", "decided"), [(3e-37, False), (1e-25, True)])
def test_right_float32_code_of_a_tiny_loss_is_not_called_wrong(
    scale: float, decided: bool, wrong: float
) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(64, n)).astype(np.float32) for n in (8, 1))

    def loss(p: Any) -> Any:
        x_, y_ = (jnp.asarray(each, p["W"].dtype) for each in (x, y))
        return scale * jnp.mean((jnp.tanh(x_ @ p["W"].T) @ p["V"].T - y_) ** 2)

    compiled = jax.jit(jax.grad(loss))  # in XLA, which flushes small numbers to zero

    def gradients(p: Any) -> Any:
        found = {name: np.array(value) for name, value in compiled(p).items()}
        found["W"] *= np.float32(wrong)
        return found

    shapes = {"W": (16, 8), "V": (1, 16)}
    params = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    report = verify_own_model(gradients, loss, params)
    expected = Verdict.INCONCLUSIVE
    if decided:
        expected = Verdict.AGREES if wrong == 1.0 else Verdict.DISAGREES
    assert report.verdict is expected, str(report)
