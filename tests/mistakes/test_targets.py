"""Targets of other rows are named, however the loss picks them from the scores of all steps."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.in_leaks import find_leaky_step
from bptt_verifier.mistakes.in_targets import find_source
from bptt_verifier.program.structure import Structure, structure
from tests.support.diagnosis import diagnose_numbers, trace_points
from tests.support.profiles import by_turns

N, T, D, H, K = 3, 4, 2, 3, 4
X = np.random.default_rng(2).normal(size=(N, T, D))
CLASSES = np.array([[0, 3, 1, 2], [1, 0, 2, 2], [2, 1, 0, 3]])
TARGETS = np.eye(K)[CLASSES]
PARAMS = {"U": np.ones((D, H)), "W": np.ones((H, H)), "V": np.ones((H, K))}


def run(p: Any, xp: Any) -> Any:
    h, states = xp.zeros((N, H)), []
    for t in range(T):
        h = xp.tanh(X[:, t] @ p["U"] + h @ p["W"])
        states.append(h)
    return xp.stack(states, axis=1)


def log_sum(p: Any, xp: Any) -> Any:
    """The scores of the targets are subtracted from the logarithm of the sum."""
    s = run(p, xp) @ p["V"]
    total = xp.log(xp.sum(xp.exp(s), axis=2))
    return xp.mean(total - s[np.arange(N)[:, None], np.arange(T), CLASSES])


def one_hot(p: Any, xp: Any) -> Any:
    """The targets are one-hot rows."""
    e = xp.exp(run(p, xp) @ p["V"])
    q = e / xp.sum(e, axis=2, keepdims=True)
    return -xp.mean(xp.sum(TARGETS * xp.log(q), axis=2))


def flat(p: Any, xp: Any) -> Any:
    """The rows of all sequences at all steps are one axis."""
    e = xp.exp((run(p, xp) @ p["V"]).reshape(N * T, K))
    q = e / xp.sum(e, axis=1, keepdims=True)
    return -xp.mean(xp.log(q[np.arange(N * T), CLASSES.reshape(-1)]))


def columns(p: Any, xp: Any) -> Any:
    """The classes come first."""
    s = xp.swapaxes(run(p, xp) @ p["V"], 1, 2)
    logp = s - xp.log(xp.sum(xp.exp(s), axis=1, keepdims=True))
    return -xp.sum(TARGETS.transpose(0, 2, 1) * logp) / (N * T)


def derive(y: Any) -> Callable[[Any], dict[str, Any]]:
    """Make a derivation with these targets."""

    def gradients(p: Any) -> dict[str, Any]:
        h = run(p, np)
        e = np.exp(h @ p["V"])
        ds = (e / e.sum(axis=2, keepdims=True) - y) / (N * T)
        G = {k: np.zeros_like(v) for k, v in p.items()}
        G["V"] = np.einsum("nth,ntk->hk", h, ds)
        dh, later = ds @ p["V"].T, np.zeros((N, H))
        for t in reversed(range(T)):
            da = (dh[:, t] + later) * (1 - h[:, t] ** 2)
            G["U"] += X[:, t].T @ da
            G["W"] += h[:, t - 1].T @ da if t else 0
            later = da @ p["W"].T
        return G

    return gradients


def lack(axis: int, index: int) -> Any:
    y = TARGETS.copy()
    np.moveaxis(y, axis, 0)[index] = 0
    return y


SHIFTED = np.roll(TARGETS, -1, axis=1)
WRONG = {
    "next step": SHIFTED,
    "next step, none at the last": SHIFTED * (np.arange(T) < T - 1)[:, None],
    "previous step": np.roll(TARGETS, 1, axis=1),
    "another sequence": np.roll(TARGETS, 1, axis=0),
    "sequences reversed": TARGETS[::-1],
    "none at the last step": lack(1, -1),
    "none at the first step": lack(1, 0),
    "none in the last sequence": lack(0, -1),
    "first sequence in all": np.broadcast_to(TARGETS[0], TARGETS.shape),
    "all sequences in each": np.broadcast_to(TARGETS.max(axis=0), TARGETS.shape),
}
FORMS = log_sum, one_hot, flat, columns
TURNS = by_turns([(form, kind) for kind in WRONG for form in FORMS], (np.float64, np.float32))


@pytest.mark.parametrize("loss", FORMS, ids=lambda f: f.__name__)
def test_nothing_is_wrong_with_the_targets_of_the_loss(loss: Any) -> None:
    assert diagnose_numbers(loss, PARAMS, derive(TARGETS)) == ()


@pytest.mark.table(5)
@pytest.mark.parametrize(
    ("each", "dtype"),
    TURNS,
    ids=[f"{form.__name__}, {kind}, {dtype.__name__}" for (form, kind), dtype in TURNS],
)
def test_targets_of_other_rows_are_named(each: tuple[Any, str], dtype: type) -> None:
    loss, kind = each
    (found,) = diagnose_numbers(loss, PARAMS, derive(WRONG[kind]), dtype)
    assert found.name == "wrong-operand"
    assert "p − y" in found.explanation


def find_structure(loss: Callable[..., Any]) -> Structure:
    shapes = tuple((name, value.shape) for name, value in PARAMS.items())
    program, _ = trace_points(loss, shapes, np.dtype(float))
    return structure(program)


def has_source(loss: Callable[..., Any]) -> bool:
    known = find_structure(loss)
    return any(find_source(known, group) is not None for group in known.groups)


@pytest.mark.parametrize("loss", FORMS, ids=lambda f: f.__name__)
def test_what_targets_are_picked_from_is_found(loss: Any) -> None:
    assert has_source(loss)


def test_entries_of_what_is_no_softmax_are_no_targets() -> None:
    def picked(p: Any, xp: Any) -> Any:
        return xp.sum(run(p, xp)[np.arange(N), 0, np.arange(H)] ** 2)

    def over_all(p: Any, xp: Any) -> Any:
        e = xp.exp(run(p, xp) @ p["V"])
        return -xp.sum(xp.log((e / xp.sum(e))[np.arange(N)[:, None], np.arange(T), CLASSES]))

    def masked(p: Any, xp: Any) -> Any:
        e = xp.exp(run(p, xp) @ p["V"])
        return xp.sum((e / xp.sum(e, axis=2, keepdims=True)) * (1 - TARGETS))

    assert not any(map(has_source, (picked, over_all, masked)))


@pytest.mark.parametrize(("inside", "found"), [(1.0, True), (0.0, False)])
def test_a_step_is_leaky_only_where_its_state_is_inside_of_the_brackets(
    inside: float, found: bool
) -> None:
    def loss(p: Any, xp: Any) -> Any:
        h = xp.zeros((N, H))
        for t in range(T):
            f = xp.tanh(X[:, t] @ p["U"] + h @ p["W"])
            h = h + 0.2 * (f - h if inside else f)
        return xp.sum(h @ p["V"])

    known = find_structure(loss)
    numbers = range(len(known.program.operations))
    assert any(find_leaky_step(known, number) for number in numbers) == found
