"""A loss that stops gradients, or has a derivative of its own, is judged by that derivative."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.precision import isolate_float64
from bptt_verifier.program.trace import trace
from bptt_verifier.reference.own_loss import prepare
from bptt_verifier.reference.stated_derivatives import (
    hold_stopped,
    is_stated,
    states_rules,
    states_stops,
)
from bptt_verifier.tolerance.comparison import Verdict

torch: Any = import_module("torch") if find_spec("torch") else None

rng = np.random.default_rng(2)
T, H, D, K = 6, 3, 2, 2
x, y = rng.normal(size=(T, D)), rng.normal(size=T)
PARAMS = {
    "W": rng.normal(size=(H, H)) / 2, "U": rng.normal(size=(H, D)) / 2, "v": rng.normal(size=H)
}  # fmt: skip


def truncated(p: Any) -> Any:
    h, total = jnp.zeros(H), 0.0
    for t in range(T):
        h = lax.stop_gradient(h) if t % K == 0 else h
        h = jnp.tanh(p["W"] @ h + p["U"] @ x[t])
        total += (p["v"] @ h - y[t]) ** 2
    return total / T


def truncated_in_scan(p: Any) -> Any:
    def step(h: Any, given: Any) -> Any:
        number, x_t, y_t = given
        h = jnp.where(number % K == 0, lax.stop_gradient(h), h)
        h = jnp.tanh(p["W"] @ h + p["U"] @ x_t)
        return h, (p["v"] @ h - y_t) ** 2

    return jnp.mean(lax.scan(step, jnp.zeros(H), (np.arange(T), x, y))[1])


def truncated_in_torch(p: Any) -> Any:
    h, total = torch.zeros(H, dtype=torch.float64), 0.0
    for t in range(T):
        h = h.detach() if t % K == 0 else h
        h = torch.tanh(p["W"] @ h + p["U"] @ torch.tensor(x[t]))
        total += (p["v"] @ h - float(y[t])) ** 2
    return total / T


def sweep_back(p: Any, chunk: int) -> Any:
    """Sweep back through chunks of this many steps."""
    W, U, v = (np.asarray(p[name]) for name in "WUv")
    h = [np.zeros(H)]
    for t in range(T):
        h.append(np.tanh(W @ h[-1] + U @ x[t]))
    dW, dU, dv, dh = np.zeros_like(W), np.zeros_like(U), np.zeros_like(v), np.zeros(H)
    for t in reversed(range(T)):
        error = 2 * (v @ h[t + 1] - y[t]) / T
        dv += error * h[t + 1]
        da = (error * v + dh) * (1 - h[t + 1] ** 2)
        dW += np.outer(da, h[t])
        dU += np.outer(da, x[t])
        dh = W.T @ da if t % chunk else np.zeros(H)
    return {"W": dW, "U": dU, "v": dv}


STATED = "that is taken to be meant"


@pytest.mark.slow
@pytest.mark.parametrize("loss", [truncated, truncated_in_scan], ids=["loop", "scan"])
def test_truncation_that_the_loss_states_agrees_and_the_full_gradient_does_not(loss: Any) -> None:
    report = verify_own_model(lambda p: sweep_back(p, K), loss, PARAMS)
    assert report.verdict is Verdict.AGREES, str(report)
    assert sum(STATED in note for note in report.notes) == 1
    assert "lax.stop_gradient(h)" in str(report)
    for chunk in (T, 3):
        report = verify_own_model(lambda p, c=chunk: sweep_back(p, c), loss, PARAMS)  # type: ignore[misc]
        assert report.verdict is Verdict.DISAGREES, str(report)
        assert report.parameters["v"].verdict is Verdict.AGREES


@pytest.mark.skipif(torch is None, reason="torch is not installed")
def test_truncation_by_detach_agrees_and_the_full_gradient_does_not() -> None:
    tensors = {name: torch.tensor(value) for name, value in PARAMS.items()}

    def judge(chunk: int) -> Any:
        return verify_own_model(lambda p: sweep_back(p, chunk), truncated_in_torch, tensors)

    report = judge(K)
    assert report.verdict is Verdict.AGREES, str(report)
    assert "`detach` or `no_grad`" in str(report)
    assert judge(T).verdict is Verdict.DISAGREES


def stop_to_quantise(a: Any) -> Any:
    return a + lax.stop_gradient(jnp.round(4 * a) / 4 - a)


@jax.custom_vjp
def quantise(a: Any) -> Any:
    return jnp.round(4 * a) / 4


quantise.defvjp(lambda a: (quantise(a), None), lambda _, ct: (ct,))


@jax.custom_jvp
def quantise_forward(a: Any) -> Any:
    return jnp.round(4 * a) / 4


quantise_forward.defjvps(lambda dot, q, a: dot)


@pytest.mark.slow
@pytest.mark.parametrize("quantised", [stop_to_quantise, quantise, quantise_forward])
def test_a_straight_through_estimator_is_right_as_defined(quantised: Any) -> None:
    def loss(p: Any) -> Any:
        return jnp.mean((quantised(jnp.tanh(x @ p["W"])) @ p["v"] - y) ** 2)

    def judge(straight: float) -> Any:
        def gradients(p: Any) -> Any:
            t = np.tanh(x @ p["W"])
            q = np.round(4 * t) / 4
            error = 2 * (q @ p["v"] - y) / T
            return {"v": q.T @ error, "W": straight * x.T @ (np.outer(error, p["v"]) * (1 - t * t))}

        return verify_own_model(gradients, loss, {"W": PARAMS["U"].T, "v": PARAMS["v"]})

    report = judge(1.0)
    confirmed = quantised is stop_to_quantise  # a rule of its own may be a mistake
    assert report.verdict is (Verdict.AGREES if confirmed else Verdict.INCONCLUSIVE), str(report)
    assert STATED in str(report)
    assert ("stop_gradient(f(x) - x)" in str(report)) is not confirmed
    assert judge(0.0).verdict is Verdict.DISAGREES  # the derivative of what it computes


@pytest.mark.rest
def test_a_stop_that_changes_no_derivative_is_not_mentioned() -> None:
    def loss(p: Any) -> Any:
        z = x @ p["W"]
        shift = lax.stop_gradient(jnp.max(z))
        return jnp.log(jnp.sum(jnp.exp(z - shift))) + shift

    def gradients(p: Any) -> Any:
        e = np.exp(x @ p["W"])
        return {"W": x.T @ (e / e.sum())}

    report = verify_own_model(gradients, loss, {"W": PARAMS["U"].T})
    assert report.verdict is Verdict.AGREES, str(report)
    assert STATED not in str(report)


@pytest.mark.slow
def test_a_loss_of_a_namespace_that_stops_gradients_in_jax_alone_is_told_so() -> None:
    def loss(p: Any, xp: Any, both: bool = False) -> Any:
        h, total = xp.zeros(H), 0.0
        for t in range(T):
            if t % K == 0 and (both or xp is not np):
                h = lax.stop_gradient(h)
            h = xp.tanh(p["W"] @ h + p["U"] @ x[t])
            total += (p["v"] @ h - y[t]) ** 2
        return total / T

    report = verify_own_model(lambda p: sweep_back(p, K), loss, PARAMS)
    assert report.verdict is Verdict.INCONCLUSIVE
    said = str(report)
    assert "In JAX, the loss stops gradients at `lax.stop_gradient(h)`" in said
    assert "and in NumPy it does not: it is two functions with two derivatives" in said

    def in_both(p: Any, xp: Any) -> Any:  # as the sentence advises
        return loss(p, xp, both=True)

    assert verify_own_model(lambda p: sweep_back(p, K), in_both, PARAMS).verdict == "agrees"
    report = verify_own_model(lambda p: sweep_back(p, T), in_both, PARAMS)
    assert report.verdict is Verdict.DISAGREES


@pytest.mark.rest
def test_a_wrong_reference_is_in_doubt_though_the_loss_stops_gradients_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bptt_verifier.reference import own_loss  # noqa: PLC0415

    model = prepare(truncated, PARAMS, cases=2)
    case = model.cases[0]

    def altered(dtype: Any, names: Any = ()) -> Any:
        assert case.truth is not None
        known = case.truth(dtype, names)
        return known._replace(values=known.values | {"W": known.values["W"] * (1 + 1e-6)})

    with isolate_float64(model.loss):
        assert own_loss.confirm_stated(model, case) is not None
        assert own_loss.confirm_stated(model, case._replace(truth=altered)) is None


def test_stopped_values_stay_what_they_are_at_the_point() -> None:
    def loss(p: Any, _: Any) -> Any:
        return jnp.sum(p["w"] * lax.stop_gradient(p["w"]))

    point = {"w": np.array([2.0, 3.0])}
    with isolate_float64(loss):
        program = trace(loss, point)
        held = hold_stopped(program, point)
        assert (held(point), held({"w": np.array([4.0, 3.0])})) == (13.0, 17.0)
        assert held({"w": point["w"] + 0j}) is None
        assert (states_stops(program), states_rules(program)) == (True, False)

        def inside(p: Any, _: Any) -> Any:
            def halve(a: Any) -> Any:
                return lax.stop_gradient(a) / 2

            return jnp.sum(lax.while_loop(lambda a: jnp.sum(a) > 1, halve, p["w"]))

        program = trace(inside, point)
        assert (states_stops(program), states_rules(program)) == (False, True)


def test_what_states_a_derivative_is_seen_when_it_is_called() -> None:
    assert is_stated(lambda: lax.stop_gradient(1.0))
    assert is_stated(lambda: quantise(1.0))
    assert is_stated(lambda: quantise_forward(1.0))
    assert not is_stated(lambda: jnp.tanh(1.0))
