"""Every mistake in a model of one's own has its name, in any layout and in both precisions."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.mistakes import in_products
from bptt_verifier.program.precision import use_float64
from bptt_verifier.report import Mistake
from tests.support.diagnosis import diagnose_numbers, plant
from tests.support.further_models import MODELS, PLANTED
from tests.support.profiles import by_turns

Changes = tuple[tuple[str, str], ...]


def diagnose(model: str, changes: Changes, dtype: Any = np.float64) -> tuple[Mistake, ...]:
    loss, gradients, _, params = MODELS[model]
    return diagnose_numbers(loss, params, plant(gradients, *changes), dtype)


EACH = [(model, *planted) for model, each in PLANTED.items() for planted in each]


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_wrong_without_a_change(model: str) -> None:
    assert diagnose(model, ()) == ()


@pytest.mark.table(9)
@pytest.mark.parametrize(
    ("each", "dtype"),
    by_turns(EACH, (np.float64, np.float32)),
    ids=lambda value: value.__name__ if isinstance(value, type) else " ".join(value[:3]),
)
def test_a_mistake_is_named(each: tuple[str, str, str, Changes], dtype: type) -> None:
    model, name, _, changes = each
    found = diagnose(model, changes, dtype)
    assert [mistake.name for mistake in found] == [name], found


@pytest.mark.rest
def test_one_mistake_at_four_gates_names_all_of_its_places() -> None:
    (_, _, changes) = PLANTED["peepholes"][0]
    (mistake,) = diagnose("peepholes", changes)
    assert len(mistake.details["places"]) == 4
    assert "at 4 places" in mistake.explanation


@pytest.mark.parametrize("kept", [1, 2, 4])
def test_truncation_at_every_loss_is_named_with_the_number_of_steps(kept: int) -> None:
    loss, gradients, _, params = MODELS["sequence"]

    def truncated(p: Any) -> dict[str, Any]:
        total = {name: np.zeros_like(value) for name, value in p.items()}
        for last in range(STEPS):
            whole = plant(
                gradients,
                ("own = p", f"own = (t == {last}) * p"),
                ('G["V"] +=', f'G["V"] += (t == {last}) *'),
                ('later = p["W"].T @ a', f'later = p["W"].T @ a * (t > {last - kept})'),
            )(p)
            total = {name: total[name] + whole[name] for name in total}
        return total

    STEPS = params["x"].shape[0]
    found = diagnose_numbers(loss, params, truncated)
    assert [mistake.name for mistake in found] == ["truncated"], found
    assert found[0].details["steps"] == kept


def test_outputs_that_the_loss_does_not_use_change_no_diagnosis() -> None:
    x = np.random.default_rng(1).normal(size=(4, 2))

    def loss(p: Any, xp: Any) -> Any:
        h, outputs = xp.zeros(3), []
        for row in x:
            h = xp.tanh(p["U"] @ row + p["W"] @ h)
            outputs.append(p["V"] @ h)
        return xp.sum(outputs[-1] ** 2)

    def at_every_step(p: Any) -> dict[str, Any]:
        h = [np.zeros(3)]
        for row in x:
            h.append(np.tanh(p["U"] @ row + p["W"] @ h[-1]))
        dy = 2 * p["V"] @ h[-1]
        G = {"U": 0 * p["U"], "W": 0 * p["W"], "V": np.outer(dy, h[-1])}
        later = np.zeros(3)
        for t in (3, 2, 1, 0):
            a = (p["V"].T @ dy + later) * (1 - h[t + 1] ** 2)
            G["U"] += np.outer(a, x[t])
            G["W"] += np.outer(a, h[t])
            later = p["W"].T @ a
        return G

    params = {"U": np.ones((3, 2)), "W": np.ones((3, 3)), "V": np.ones((2, 3))}
    (mistake,) = diagnose_numbers(loss, params, at_every_step)
    assert mistake.name == "output-gradient-at-every-step"


def test_the_loss_of_the_last_state_at_every_step_is_named() -> None:
    x = np.random.default_rng(1).normal(size=(3, 2))

    def total(states: Any, p: Any, xp: Any) -> Any:
        return sum(xp.sum((p["V"] @ h - 1) ** 2) for h in states)

    def run(p: Any, xp: Any) -> list[Any]:
        states = [xp.zeros(3)]
        for row in x:
            states.append(xp.tanh(p["U"] @ row + p["W"] @ states[-1]))
        return states[1:]

    def at_every_step(p: Any) -> dict[str, Any]:
        with use_float64():
            found = jax.grad(lambda q: total(run(q, jnp), q, jnp))(p)
        return {name: np.asarray(value) for name, value in found.items()}

    params = {"U": np.ones((3, 2)), "W": np.ones((3, 3)), "V": np.ones((2, 3))}
    found = diagnose_numbers(lambda p, xp: total(run(p, xp)[-1:], p, xp), params, at_every_step)
    assert [mistake.name for mistake in found] == ["output-gradient-at-every-step"]


def test_a_weight_left_untransposed_is_named_where_vmap_does_not_repeat_the_first_state() -> None:
    x = np.random.default_rng(2).normal(size=(4, 3, 2))

    def run(p: Any, rows: Any, before: Any) -> Any:
        h = jnp.zeros(3)
        for row in rows:
            h = jnp.tanh(p["U"] @ row + before(p["W"], h))
        return p["v"] @ h

    @jax.custom_vjp
    def untransposed(W: Any, h: Any) -> Any:
        return W @ h

    def forward(W: Any, h: Any) -> Any:
        return W @ h, (W, h)

    def backward(kept: Any, d: Any) -> Any:
        W, h = kept
        return jnp.outer(d, h), W @ d

    untransposed.defvjp(forward, backward)

    def total(p: Any, before: Any) -> Any:
        return jnp.mean(jax.vmap(lambda rows: run(p, rows, before))(x) ** 2)

    def gradients(p: Any) -> dict[str, Any]:
        with use_float64():
            found = jax.grad(lambda q: total(q, untransposed))(p)
        return {name: np.asarray(value) for name, value in found.items()}

    params = {"U": np.ones((3, 2)), "W": np.ones((3, 3)), "v": np.ones(3)}
    (mistake,) = diagnose_numbers(lambda p, xp: total(p, jnp.matmul), params, gradients)
    assert mistake.name == "untransposed-recurrent-weight"


@pytest.mark.parametrize(
    ("leaf", "shapes", "square", "listed"),
    [
        ((), [(3, 3)] * 2, True, ["wrong-operand"]),
        ((), [(3, 3)] * 2, False, []),
        ((), [(3, 3), (2, 2)], True, []),
        ((0,), [(3, 3), (2, 3)], False, ["untransposed-output-weight"]),
    ],
)
def test_another_matrix_than_a_weight_is_transposed_where_it_is_square_and_alike(
    leaf: Any, shapes: Any, square: bool, listed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, answer in {"is_square": square, "name_operand": "a", "from_before": False,
                         "feeds_itself": False}.items():  # fmt: skip
        monkeypatch.setattr(in_products, name, lambda *given, answer=answer: answer)
    operations = [SimpleNamespace(shapes=[shape]) for shape in shapes]
    known: Any = SimpleNamespace(program=SimpleNamespace(operations=operations), leaf=leaf)
    found = in_products.list_transposition_mistakes(known, range(len(shapes)), 0, [0, 1])
    assert [each.name for each in found] == listed
