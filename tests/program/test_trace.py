"""A traced loss: its operations, their derivatives, time steps and source lines."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bptt_verifier.program import source_lines
from bptt_verifier.program.backward import Change, backward
from bptt_verifier.program.measured_errors import gradient_and_noise
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import (
    UNROLLED,
    Program,
    are_same_slopes,
    forward,
    trace,
)
from bptt_verifier.reference.scalar_loss import ignore_namespace
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
        ((_, allowed),) = gradient_and_noise(program, params, [2.0**-53], truth)
    for name, value in truth.items():
        assert (allowed[name] > 0).all()
        # Both are as far from the exact gradient as rounding may take them.
        assert (np.abs(found[name][0] - np.asarray(value)) <= 2 * allowed[name]).all()
        assert np.max(allowed[name] / np.abs(value)) < 1e-10


def complex_operations(p: Any, xp: Any) -> Any:
    a, b = p["a"], p["b"].T
    z = (a + 1j * b) * xp.exp(1j * b)
    w = xp.conj(z @ xp.transpose(z)) / (2.0 + 1j * a[:, :3]) - xp.tanh(z[:, 1:]) ** 3
    w = xp.concatenate([w, xp.stack([z[0, :3], w[1]])])[xp.array([0, 0, 3, 4])]
    w = xp.where(xp.real(w) > 0, w, xp.sqrt(2.0 + w)) + xp.cumsum(w, axis=0)
    f = xp.fft.ifft(xp.fft.fft(a, axis=1) * z, axis=1) + xp.fft.fft2(b)
    r = xp.fft.irfft(xp.fft.rfft(a) * 1j, n=4) * xp.angle(z)
    s = xp.linalg.solve(w[:3] + 4.0, f[:, 0])
    return xp.sum(xp.abs(w)) + xp.sum(xp.abs(f) ** 2 + r) + xp.sum(xp.imag(s)) + xp.var(z)


def steps(p: Any, xp: Any) -> Any:
    def step(h: Any, v: Any) -> Any:
        h = lax.cond(h[0, 0] > 0, lambda: xp.sin(h), lambda: h * v) @ p["a"] @ p["b"]
        return h, h[0] * v

    x = xp.linspace(0.5, 1.5, 5)
    h, out = lax.scan(step, xp.ones((2, 3)), x, reverse=True)
    last, _ = lax.scan(lambda c, row: (c * row[0] + row[1], None), p["a"][0], (p["a"], p["b"].T))
    again = lax.fori_loop(0, 3, lambda i, c: xp.tanh(c @ p["a"] @ p["b"]) * x[i], h)
    chosen = lax.switch(xp.argmax(p["a"][0]), [xp.sum, xp.max, lambda q: xp.sum(q**2), xp.min], out)
    return xp.sum(again) + xp.sum(out**2) + chosen + xp.sum(last)


def factorisations(p: Any, xp: Any) -> Any:
    square = p["a"] @ p["b"]
    symmetric = square @ square.T + xp.eye(3)
    values, vectors = xp.linalg.eigh(symmetric)
    left, singular, right = xp.linalg.svd(p["a"], full_matrices=False)
    return (
        xp.linalg.slogdet(square)[1]
        + xp.linalg.det(square)
        + xp.sum(xp.linalg.inv(symmetric) @ xp.linalg.cholesky(symmetric))
        + xp.sum((vectors * values**0.5) @ vectors.T)
        + xp.sum((left * singular) @ right)
        + xp.sum(xp.linalg.qr(p["a"].T)[1] ** 2)
    )


def places_and_integers(p: Any, xp: Any) -> Any:
    a, row = p["a"], p["a"][0]
    order = xp.argsort(row)
    taken = xp.take(p["b"][:, 0], order) * row[order] + xp.cumprod(row) + xp.roll(row, 1)
    padded = xp.pad(row, 2, mode="reflect")[:4] * xp.interp(
        row, xp.arange(-3.0, 4.0), xp.arange(7.0)
    )
    counted = (a * 4).astype(int) // 2 * a + xp.sum(a > 0) * xp.floor(a) * a
    found = p["b"][xp.searchsorted(xp.arange(4.0), row[1]), xp.argmax(row) % 3]
    set_ = row.at[1:3].set(p["b"][0, :2]).at[xp.array([0, 0])].add(row[:2])
    smooth = xp.convolve(row, p["b"][:, 1]) ** 2
    every = jax.vmap(lambda v: xp.sum(lax.cummax(v)) + jax.nn.logsumexp(v))(a)
    powers = xp.sum(row**0) + xp.sum(row**7) + xp.sum((1 + row**2) ** xp.array([0.5, 2, 0, -1]))
    parts = taken, padded, counted, set_, smooth, every, powers, xp.clip(row, -0.5, 0.5)
    return found + sum(xp.sum(part) for part in parts)


def narrow(p: Any, xp: Any) -> Any:
    inside = (p["a"].astype(xp.float32) @ p["b"].astype(xp.float32)) ** 2
    return xp.sum(xp.cumsum(inside).astype(xp.float64)) + xp.sum(p["a"])


@pytest.mark.table(3)
@pytest.mark.parametrize(
    "loss",
    [
        complex_operations,
        steps,
        narrow,
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in (factorisations, places_and_integers)
        ),
    ],
)
def test_unusual_operations_are_differentiated_as_jax_does(loss: Any) -> None:
    rng = np.random.default_rng(5)
    params = {"b": rng.normal(size=(4, 3)), "a": rng.normal(size=(3, 4))}
    with use_float64():
        program = trace(loss, params)
        found = backward(program, forward(program, params))
        truth = jax.jit(jax.grad(lambda p: loss(p, jnp)))(params)
        measured = gradient_and_noise(program, params, [2.0**-53, 2.0**-24], truth)
    near = 1e-5 if loss is narrow else 1e-10
    for name, value in truth.items():
        size = np.max(np.abs(value))
        assert np.max(np.abs(found[name][0] - np.asarray(value))) <= near / 10 * size
        for (_, allowed), most in zip(measured, (near, 0.1), strict=True):
            assert (allowed[name] > 0).any()
            assert np.max(allowed[name]) <= most * size


def test_a_weight_that_every_step_transposes_is_transposed_once() -> None:
    def loss(p: Any, xp: Any) -> Any:
        h = xp.ones((4, 2))
        for _ in range(3):
            h = h @ p["W"].T + p["R"].T[0]
            h = h + xp.transpose(p["K"], (2, 1, 0))[0, 1] * xp.transpose(p["K"], (0, 2, 1))[0, 1]
        return xp.sum(h)

    params: dict[str, Any] = {name: np.arange(4.0).reshape(2, 2) for name in "WR"}
    params["K"] = np.arange(8.0).reshape(2, 2, 2)
    with use_float64():
        program = trace(loss, params)
        found = backward(program, forward(program, params))
        truth = jax.grad(lambda p: loss(p, jnp))(params)
    assert sum(each.name == "transpose" for each in program.operations) == 4
    for name, value in truth.items():  # of integers, without rounding
        np.testing.assert_array_equal(found[name][0], value)


def test_parameters_reach_the_loss_in_the_order_given() -> None:
    seen: list[list[str]] = []

    def loss(p: Any, xp: Any) -> Any:
        seen.append([*p])
        return sum(xp.sum(p[name]) for name in p)

    with use_float64():
        program = trace(loss, {"z": np.ones(2), "a": np.ones(3), "m": np.ones(1)})
    assert seen == [["z", "a", "m"]]
    assert [*program.leaves] == ["z", "a", "m"]


def test_a_scan_is_a_loop_whose_steps_are_found() -> None:
    x = np.linspace(-1, 1, 6).reshape(6, 1)

    def loss(p: Any, xp: Any) -> Any:
        def step(h: Any, v: Any) -> Any:
            return xp.tanh(p["W"] @ h + v), None

        return xp.sum(lax.scan(step, xp.zeros(3), x)[0])

    with use_float64():
        known = structure(trace(loss, {"W": np.eye(3)}))
    assert known.steps == 6
    assert len(known.carried) == 5
    tanh = [each for each in known.program.operations if each.name == "tanh"]
    assert len(tanh) == 6
    assert {each.where[0].text for each in tanh} == {'return xp.tanh(p["W"] @ h + v), None'}


def test_a_loop_too_long_to_unroll_has_errors_inside() -> None:
    def loss(p: Any, xp: Any) -> Any:
        def step(c: Any, _: Any) -> Any:
            return c + xp.sin(c) * 1e-6 - p["a"] * 1e-6, None

        return xp.sum(lax.scan(step, p["a"], None, length=UNROLLED)[0])

    params = {"a": np.array([0.5, 1.0])}
    with use_float64():
        program = trace(loss, params)
        truth = jax.grad(lambda p: loss(p, jnp))(params)
        ((_, allowed),) = gradient_and_noise(program, params, [2.0**-53], truth)
    assert "scan" in [each.name for each in program.operations]
    # Rounding errors of a sum of n terms grow like √n.
    size = UNROLLED**0.5 * 2.0**-53
    assert (allowed["a"] > size).all()
    assert (allowed["a"] < 1000 * size).all()


def test_a_derivative_of_the_users_own_is_kept() -> None:
    @jax.custom_vjp
    def tripled(x: Any) -> Any:
        return 2.0 * x

    tripled.defvjp(lambda x: (2.0 * x, None), lambda _, g: (3.0 * g,))

    @jax.custom_jvp
    def softplus(x: Any) -> Any:
        return jnp.log1p(jnp.exp(x))

    softplus.defjvp(lambda x, t: (softplus(x[0]), jax.nn.sigmoid(x[0]) * t[0]))
    params = {"a": np.array([0.5, -1.0])}
    with use_float64():
        program = trace(lambda p, xp: xp.sum(tripled(softplus(p["a"]))), params)
        (found,) = backward(program, forward(program, params))["a"]
    np.testing.assert_allclose(found, 3 / (1 + np.exp([-0.5, 1.0])))
    # What has the derivative of its body is looked into, for the diagnosis.
    assert {"log1p", "custom_vjp_call"} <= {each.name for each in program.operations}


def test_what_a_loss_prints_is_no_operation() -> None:
    def loss(p: Any, xp: Any) -> Any:
        jax.debug.callback(lambda a: None, p["a"])
        return xp.sum(p["a"] ** 2)

    with use_float64():
        program = trace(loss, {"a": np.ones(2)})
        (found,) = backward(program, forward(program, {"a": np.ones(2)}))["a"]
    np.testing.assert_array_equal(found, [2.0, 2.0])


def test_a_change_alters_one_row_and_no_other() -> None:
    model = MODELS["char"]
    with use_float64():
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


def test_a_compiled_loss_has_the_locations_inside_of_it() -> None:
    """The judge calls it: the call has no place in the user's code."""

    @jax.jit
    def compiled(p: Any) -> Any:
        h = jnp.tanh(p["w"])
        return jnp.sum(jax.nn.log_softmax(h))

    with use_float64():
        found = trace(ignore_namespace(compiled), {"w": np.ones(3)}).operations
    lines = 'h = jnp.tanh(p["w"])', "return jnp.sum(jax.nn.log_softmax(h))"
    assert {each.where[0].text for each in found if each.where} == {*lines}
    last = [each for each in found if each.where and each.where[0].text == lines[1]]
    assert len({(each.position, each.where[0].column) for each in last}) > 2


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([1, np.nan], [1 + 1e-9, np.nan], True),
        ([1, np.inf], [1, np.inf], True),
        ([1, np.inf], [1, 2], False),
        ([np.inf], [-np.inf], False),
        ([5], [np.inf], False),
        ([1, np.nan], [1, 0], False),
        ([1, 0.5], [1, 0.501], False),
    ],
)
def test_slopes_are_the_same_to_rounding_where_they_are_finite(
    one: list[float], other: list[float], same: bool
) -> None:
    assert are_same_slopes(np.array(one, float), np.array(other, float)) is same
