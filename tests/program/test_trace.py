"""A traced loss: its operations, their derivatives, time steps and source lines."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verifier.program import source_lines
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import (
    Change,
    Program,
    backward,
    forward,
    gradient_and_noise,
    trace,
)
from tests.support import own_models
from tests.support.own_models import MODELS


def program_of(model: str) -> Program:
    with use_float64():
        return trace(MODELS[model].loss, MODELS[model].params)


def many_operations(p: Any, xp: Any) -> Any:
    a, b = p["a"], p["b"]
    parts = xp.split(xp.concatenate([a, b.T], axis=1), 2, axis=1)
    c = xp.where(parts[0] > 0, parts[0], xp.expm1(parts[0])) @ b
    d = xp.stack([c, c[::-1]])[:, :, None, 1:]
    e = xp.einsum("ij,jk->ik", a, b) + xp.max(a, axis=1, keepdims=True)
    f = xp.maximum(e, 0.1) ** 3 / (1 + xp.abs(e)) + xp.minimum(a[:, :3], b[:3]) ** 2
    g = xp.sqrt(1 + xp.square(f)) * xp.sin(f) - xp.cos(f) + xp.log1p(xp.exp(-f))
    h = xp.cumsum(a, axis=0) + xp.clip(a, -0.5, 0.5)
    i = a[np.array([0, 2, 2])] + a[np.array([1, 0, 2]), np.array([1, 1, 3])][:, None]
    j = xp.exp2(a) + xp.sort(a, axis=0) + xp.power(2.0 + a**2, 1.5)
    first, _, third, _ = xp.unstack(a, axis=1)
    d = d * xp.sum(first * third)
    return xp.sum(d) + xp.sum(g) + xp.mean(h * i) + xp.sum(xp.log(2 + j**2)) + xp.min(c)


def test_every_operation_is_differentiated_as_jax_does() -> None:
    rng = np.random.default_rng(4)
    params = {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=(4, 3))}
    with jax.enable_x64(True):
        program = trace(many_operations, params)
        found = backward(program, forward(program, params))
        truth = jax.jit(jax.grad(lambda p: many_operations(p, jnp)))(params)
        ((_, allowed),) = gradient_and_noise(program, params, [2.0**-53])
    for name, value in truth.items():
        assert (allowed[name] > 0).all()
        # Both are as far from the exact gradient as rounding may take them.
        assert (np.abs(found[name][0] - np.asarray(value)) <= 2 * allowed[name]).all()
        assert np.max(allowed[name] / np.abs(value)) < 1e-10


def test_a_change_alters_one_row_and_no_other() -> None:
    model = MODELS["char"]
    with jax.enable_x64(True):
        program = trace(model.loss, model.params)
        values = forward(program, model.params)
        edge = structure(program).carried[-1]
        rows = backward(program, values, [{}, {edge: Change(edge[1], after=0.0)}])
        (clean,) = backward(program, values)["Whh"]
    np.testing.assert_array_equal(rows["Whh"][0], clean)
    assert not np.allclose(rows["Whh"][1], clean)


def test_steps_and_what_is_carried_are_found() -> None:
    for model, steps, carried in (("char", 5, 4), ("batch", 5, 4), ("lstm", 5, 8), ("gru", 5, 16)):
        known = structure(program_of(model))
        assert known.steps == steps
        assert len(known.carried) == carried


def test_source_locations_are_those_of_the_loss() -> None:
    program = program_of("batch")
    tanh = next(equation for equation in program.operations if equation.name == "tanh")
    assert tanh.where[0].text == "h = xp.tanh(a)"
    assert tanh.where[0].file == own_models.__file__
    assert not any(place.file.startswith(source_lines.HERE) for place in tanh.where)
