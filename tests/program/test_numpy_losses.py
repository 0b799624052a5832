"""Forward passes in plain NumPy are traced unmodified, with the gradients of differences."""

from typing import Any

import jax
import numpy as np
import pytest

from bptt_verifier.program.backward import backward
from bptt_verifier.program.numpy_code import over_jax
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.trace import Program, forward, trace
from tests.support import more_numpy_losses, numpy_losses
from tests.support.numpy_losses import LOSSES
from tests.support.own_models import MODELS


def difference(loss: Any, params: Any, along: Any) -> float:
    """The derivative along a direction by central differences, extrapolated."""

    def slope(step: float) -> float:
        above, below = (
            float(loss({name: value + sign * along[name] for name, value in params.items()}))
            for sign in (step, -step)
        )
        return (above - below) / (2 * step)

    return (4 * slope(1e-4) - slope(2e-4)) / 3


@pytest.mark.table(3)
@pytest.mark.parametrize("name", LOSSES)
def test_a_forward_pass_is_traced_as_it_stands(name: str) -> None:
    loss, params = LOSSES[name]
    rng = np.random.default_rng(3)
    along = {key: rng.normal(size=value.shape) for key, value in params.items()}
    expected = float(loss({key: value.copy() for key, value in params.items()}))
    with use_float64():
        scalar = over_jax(loss, params)
        program = trace(lambda p, _: scalar(p), params)
        values = forward(program, params)
        found = backward(program, values)
    assert abs(float(values[program.result][0]) - expected) <= 1e-13 * (1 + abs(expected))
    slope = sum(float(np.sum(found[key][0] * along[key])) for key in params)
    assert abs(slope - difference(loss, params, along)) <= 1e-7 * (1 + abs(slope))
    # Each operation is at an expression of the user's file.
    places = [operation.where[0] for operation in program.operations]
    files = {numpy_losses.__file__, more_numpy_losses.__file__}
    assert {place.file for place in places} <= files
    assert all(place.expression for place in places)


@pytest.mark.parametrize("name", MODELS)
def test_plain_numpy_and_jax_have_the_same_program(name: str) -> None:
    loss, params = MODELS[name].loss, MODELS[name].params
    with use_float64():
        in_jax = trace(loss, params)
        plain = over_jax(lambda p: loss(p, np), params)
        in_numpy = trace(lambda p, _: plain(p), params)

    def list_names(program: Program) -> list[str]:
        # NumPy computes x ** 2 as a square.
        return [each.name.replace("integer_pow", "square") for each in program.operations]

    assert list_names(in_numpy) == list_names(in_jax)
    innermost = [[each.where[0] for each in p.operations] for p in (in_numpy, in_jax)]
    assert innermost[0] == innermost[1]


@pytest.mark.rest
def test_jax_differentiates_a_forward_pass() -> None:
    loss, params = LOSSES["softmax_at_every_step_in_buffers"]
    along = {key: np.ones(value.shape) for key, value in params.items()}
    with use_float64():
        program = trace(lambda p, _: over_jax(loss, params)(p), params)
        found = jax.grad(over_jax(loss, params))(params)
        by_hand = backward(program, forward(program, params))
    for key in params:
        assert np.allclose(found[key], by_hand[key][0], rtol=1e-12, atol=0)
    slope = sum(float(np.sum(value[0])) for value in by_hand.values())
    assert abs(slope - difference(loss, params, along)) <= 1e-7 * (1 + abs(slope))


def test_a_trace_leaves_the_users_modules_as_they_were() -> None:
    before = dict(vars(numpy_losses))
    loss, params = LOSSES["stacked_layers_of_classes"]
    with use_float64():
        jax.make_jaxpr(over_jax(loss, params))(params)
    assert vars(numpy_losses) == before
    assert numpy_losses.np is np
    assert "float" not in vars(numpy_losses)
