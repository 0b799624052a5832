"""The words of a name are true of the numbers: attention, normalisation, and sizes."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.mistakes.known_factors import is_also_another_size, list_factors
from bptt_verifier.report import Report
from tests.support.diagnosis import diagnose_numbers, plant
from tests.support.own_models import MODELS

RNG = np.random.default_rng(5)
X = RNG.normal(size=(5, 3))
PARAMS = {"W": RNG.normal(size=(3, 3)) / 2, "U": RNG.normal(size=(3, 3)) / 2}


def attend(p: Any, xp: Any, divide: Any, keep: Any) -> Any:
    """Sum up what a recurrent cell with an attention to the inputs reads."""
    inputs = xp.asarray(X, dtype=p["U"].dtype)
    memory = inputs @ p["U"]
    h, total = xp.zeros(3, dtype=inputs.dtype), 0.0
    for x in inputs:
        h = xp.tanh(p["W"] @ h + x)
        score = divide(memory @ h)
        alpha = xp.exp(score - score.max())
        alpha = alpha / alpha.sum()
        context = alpha @ keep(memory)
        total = total + (context**2).sum() + (h**3).sum()
    return total


def judge(divide: Any, keep: Any) -> Report:
    def gradients(p: Any) -> Any:
        with jax.enable_x64(True):
            found = jax.grad(lambda p: attend(p, jnp, divide, keep))(p)
            return {name: np.array(value) for name, value in found.items()}

    def loss(p: Any, xp: Any) -> Any:
        return attend(p, xp, lambda x: x / 5**0.5, lambda x: x)

    return verify_own_model(gradients, loss, PARAMS, cases=6)


@jax.custom_vjp
def divide_forward(x: Any) -> Any:
    return x / 5**0.5


divide_forward.defvjp(lambda x: (x / 5**0.5, None), lambda _, d: (d,))


@pytest.mark.slow
def test_a_missing_divisor_before_an_exponential_is_no_other_derivative() -> None:
    report = judge(divide_forward, lambda x: x)
    assert report.mistakes[0].name == "factor-missing", str(report)
    assert "another-function" not in str(report)
    assert "wrong-operand" not in str(report)


@pytest.mark.slow
def test_a_missing_path_to_a_memory_is_not_told_by_time() -> None:
    report = judge(lambda x: x / 5**0.5, jax.lax.stop_gradient)
    assert report.mistakes[0].name == "zero-gradient", str(report)
    assert "output-gradient-missing" not in str(report)


@pytest.mark.table(2)
@pytest.mark.parametrize(
    ("slope", "said"),
    [
        ("", "the derivative of sigmoid is missing: the gradient is passed on unchanged"),
        (" * -1", "the derivative of sigmoid is missing, and the sign is wrong"),
    ],
)
def test_a_sigmoid_without_a_slope_is_told_from_one_of_the_wrong_sign(
    slope: str, said: str
) -> None:
    loss, gradients, _, params = MODELS["gru"]
    change = "dz = dh * (h - n) * z * (1 - z)", f"dz = dh * (h - n){slope}"
    (found,) = diagnose_numbers(loss, params, plant(gradients, change))
    assert (found.name, found.details["alteration"]) == ("activation-derivative-missing", said)


@pytest.mark.parametrize(
    ("leaf", "shapes", "also"),
    [
        ((3, 4), [(7, 3), (7,), (4,)], False),  # time, stacked
        ((3, 7), [(7, 3), (4,)], True),
        ((3, 4), [(7, 7)], True),
        ((2, 2), [(7, 1, 2)], False),
        ((2, 2), [(7,), (1, 7, 1)], False),
    ],
)
def test_an_axis_that_may_be_time_is_no_other_size(leaf: Any, shapes: Any, also: bool) -> None:
    known: Any = SimpleNamespace(steps=7, program=SimpleNamespace(shapes={"W": leaf}))
    assert is_also_another_size(known, shapes) is also


def test_a_product_of_other_sizes_is_another_size() -> None:
    known: Any = SimpleNamespace(steps=6, program=SimpleNamespace(shapes={"W": (4, 4)}))
    assert is_also_another_size(known, [(2, 3)])


def test_one_over_a_size_comes_before_two_over_twice_that_size() -> None:
    shapes = [(6, 4)], [(3, 4)]
    operations = [SimpleNamespace(name="add", inputs=(), shapes=each) for each in shapes]
    program = SimpleNamespace(operations=operations, constants={}, shapes={"W": (6, 4)})
    known: Any = SimpleNamespace(program=program, steps=1)
    words = {round(each.value(None), 9): each.words for each in list_factors(known)}
    assert words[round(1 / 3, 9)].startswith("1/3, one over")
    assert words[6.0].startswith("6, a size")
    assert words[round(-1 / 3, 9)].startswith("−1/3, minus one over")
