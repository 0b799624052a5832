"""A mistake of the computation as a whole is named beside one in an operation or a gradient."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.program.precision import use_float64
from tests.support.diagnosis import diagnose_numbers, plant
from tests.support.further_models import MODELS, RETURN

Gradients = Callable[[Any], dict[str, Any]]
UNTRANSPOSED = ('later = p["W"].T @ a', 'later = p["W"] @ a')


def truncate(gradients: Any, steps: int, kept: int, *changes: tuple[str, str]) -> Gradients:
    """Sum the gradients of each step's loss that goes back so many steps."""

    def truncated(p: Any) -> dict[str, Any]:
        total = {name: np.zeros_like(value) for name, value in p.items()}
        for last in range(steps):
            only = (
                ("own = p", f"own = (t == {last}) * p"),
                ('G["V"] +=', f'G["V"] += (t == {last}) *'),
                ("dh = own + later", f"dh = own + later * (t >= {last - kept})"),
            )
            found = plant(gradients, *only, *changes)(p)
            total = {name: total[name] + found[name] for name in total}
        return total

    return truncated


def test_truncation_at_every_loss_is_named_beside_another_mistake() -> None:
    loss, gradients, _, params = MODELS["sequence"]
    wrong = truncate(gradients, params["x"].shape[0], 2, UNTRANSPOSED)
    found = diagnose_numbers(loss, params, wrong)
    assert {mistake.name for mistake in found} == {"truncated", "untransposed-recurrent-weight"}


def test_an_ignored_constant_is_named_beside_another_mistake() -> None:
    loss, gradients, _, params = MODELS["embedded"]
    epsilon = "    ds = q * (dq - (dq * q).sum(1, keepdims=True))\n", "    ds = (q - CLASSES) / 3\n"
    found = diagnose_numbers(loss, params, plant(gradients, epsilon, ("(1 - h**2)", "(1 - h)")))
    assert {mistake.name for mistake in found} == {
        "epsilon-ignored", "activation-derivative-incomplete",
    }  # fmt: skip


X = np.random.default_rng(1).normal(size=(3, 2))


def run(p: Any, xp: Any) -> list[Any]:
    states = [xp.zeros(3)]
    for row in X:
        states.append(xp.tanh(p["U"] @ row + p["W"] @ states[-1]))
    return states[1:]


def total(states: Any, p: Any, xp: Any) -> Any:
    return sum(xp.sum((p["V"] @ h - 1) ** 2) for h in states)


@jax.custom_vjp
def identity(x: Any) -> Any:
    return x


identity.defvjp(lambda x: (x, x), lambda x, ct: ((1 - x**2) * ct,))


@pytest.mark.rest
def test_the_loss_of_the_last_state_at_every_step_is_named_beside_another_mistake() -> None:
    def steep(p: Any) -> list[Any]:
        states = [jnp.zeros(3)]
        for row in X:
            h = jnp.tanh(p["U"] @ row + p["W"] @ states[-1])
            states.append(identity(h))  # the slope of the tanh once more
        return states[1:]

    def wrong(p: Any) -> dict[str, Any]:
        with use_float64():
            found = jax.grad(lambda q: total(steep(q), q, jnp))(p)
        return {name: np.asarray(value) for name, value in found.items()}

    params = {"U": np.ones((3, 2)), "W": np.ones((3, 3)), "V": np.ones((2, 3))}
    found = diagnose_numbers(lambda p, xp: total(run(p, xp)[-1:], p, xp), params, wrong)
    assert {mistake.name for mistake in found} == {
        "output-gradient-at-every-step", "activation-derivative-twice",
    }  # fmt: skip


def scale_down(p: Any, g: Any) -> Any:
    norm = np.sqrt(sum(np.sum(value**2) for value in g.values()))
    return {name: value * min(1, 0.1 / norm) for name, value in g.items()}


@pytest.mark.table(5)
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("clipped", scale_down),
        ("constant-factor", lambda p, g: {k: v / 3 for k, v in g.items()}),
        ("weight-decay", lambda p, g: {k: v + 0.01 * p[k] for k, v in g.items()}),
        ("sign-flipped", lambda p, g: {k: -v for k, v in g.items()}),
        ("update-returned", lambda p, g: {k: p[k] - 0.1 * v for k, v in g.items()}),
    ],
)
@pytest.mark.parametrize(
    ("other", "text"),
    [
        ("untransposed-recurrent-weight", ('dz @ p["W"].T', 'dz @ p["W"]')),
        ("transposed-gradient", (RETURN, '    G["W"] = G["W"].T\n    return G\n')),
    ],
)
def test_what_is_done_to_all_gradients_is_named_beside_another_mistake(
    name: str, change: Any, other: str, text: tuple[str, str]
) -> None:
    loss, gradients, _, params = MODELS["attention"]
    wrong = plant(gradients, text)
    found = diagnose_numbers(loss, params, lambda p: change(p, wrong(p)))
    assert sorted(mistake.name for mistake in found) == sorted([name, other]), found
