"""Loops that end by a decision take further steps, and lead to the fixed point."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program import stopped_loops
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.backward import backward
from bptt_verifier.program.decisions import Decisions, UntraceableError
from bptt_verifier.program.fixed_points import NEAR
from bptt_verifier.program.numpy_code import over_jax
from bptt_verifier.program.paths import Paths
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.source_lines import Place
from bptt_verifier.program.stopped_loops import (
    LEAST,
    MOST,
    Longer,
    Steered,
    continue_loops,
    leaves_loop,
)
from bptt_verifier.program.trace import Program, forward

A = 0.3 * np.random.default_rng(1).normal(size=(3, 3))
W = {"w": np.array([0.4, -0.7, 0.5])}
Loss = Callable[[Any], Any]


def settle(p: Any, tolerance: float = 1e-4) -> Any:
    z = np.zeros(3)
    while True:
        new = np.tanh(A @ z + p["w"])
        if np.linalg.norm(new - z) < tolerance:
            return new
        z = new


def with_momentum(p: Any) -> Any:
    """Steps that depend on their number."""
    z, before, k = np.zeros(3), np.zeros(3), 0
    while k < 200:
        ahead = z + k / (k + 3) * (z - before)
        before, z = z, ahead - 0.3 * (ahead - np.tanh(A @ ahead + p["w"]))
        done = np.linalg.norm(z - before) < 1e-5
        k += 1
        if done:
            break
    return z


def with_secants(p: Any) -> Any:
    """Broyden's method divides by differences that become zero."""

    def residual(z: Any) -> Any:
        return z - np.tanh(A @ z + p["w"])

    z, inverse = np.zeros(3), np.eye(3)
    value = residual(z)
    for _ in range(50):
        step = -inverse @ value
        z = z + step
        before, value = value, residual(z)
        if np.linalg.norm(value) < 1e-6:
            break
        change = inverse @ (value - before)
        inverse = inverse + np.outer(step - change, step @ inverse) / (step @ change)
    return z


def with_shorter_steps(p: Any) -> Any:
    """Steps that are halved until a residual shrinks."""

    def residual(z: Any) -> Any:
        return z - np.tanh(A @ z + p["w"])

    z = np.zeros(3)
    while np.linalg.norm(residual(z)) > 1e-5:
        size = 4.0
        while np.linalg.norm(residual(z - size * residual(z))) > np.linalg.norm(residual(z)):
            size = size / 2
        z = z - size * residual(z)
    return z


def is_small(change: Any) -> bool:
    return bool(np.max(np.abs(change)) < 1e-4)


def ask_function(p: Any) -> Any:
    z = np.zeros(3)
    for _ in range(100):
        new = np.tanh(A @ z + p["w"])
        if is_small(new - z):
            break
        z = new
    return new


def ask_either(p: Any) -> Any:
    """The first of two reasons is never one before the loop ends."""
    z = np.zeros(3)
    while True:
        new = np.tanh(A @ z + p["w"])
        if np.max(np.abs(new - z)) < 1e-6 or np.linalg.norm(new - z) < 1e-4:
            return new
        z = new


def take_few(p: Any) -> Any:
    """As many further steps as the loop has taken would exceed its limit."""
    z = np.zeros(3)
    for _ in range(12):
        new = np.tanh(A @ z + p["w"])
        done = np.max(np.abs(new - z)) < 1e-4
        z = new
        if done:
            break
    return z


def insist(p: Any) -> Any:
    """Too many further steps raise an exception."""
    z = np.zeros(3)
    for _ in range(14):
        new = np.tanh(A @ z + p["w"])
        if np.max(np.abs(new - z)) < 1e-4:
            return new
        z = new
    raise RuntimeError("it has not converged")


def begin_near(p: Any) -> Any:
    """The loop takes no step."""
    z = 1 + 0.01 * p["w"] / 2
    while np.max(np.abs(z**2 - 1 - 0.01 * p["w"])) > 1e-2:
        z = z - (z**2 - 1 - 0.01 * p["w"]) / (2 * z)
    return z


def call_itself(p: Any, z: Any = np.zeros(3), k: int = 0) -> Any:  # noqa: B008 - never modified
    """A loop without a statement of its own."""
    new = z + (1 - 0.5 / (k + 1)) * (np.tanh(A @ z + p["w"]) - z)
    if np.linalg.norm(new - z) < 1e-4:
        return new
    return call_itself(p, new, k + 1)


def step_in_time(p: Any) -> Any:
    """Each implicit step is a loop of its own."""
    h = states = np.zeros(3)
    for _ in range(4):
        z = h
        while True:
            new = h + 0.2 * (np.tanh(A @ z + p["w"]) - z)
            if np.linalg.norm(new - z) < 1e-5:
                break
            z = new
        h = new
        states = states + h
    return states


def solve_two(p: Any) -> Any:
    return settle(p) + ask_function({"w": 2 * p["w"]})


RIGHT = [
    settle, ask_function, ask_either, take_few, insist, begin_near, with_momentum, with_secants,
    step_in_time, solve_two, call_itself, pytest.param(with_shorter_steps, marks=pytest.mark.rest),
]  # fmt: skip


def square(state: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def loss(p: Any) -> Any:
        return np.sum(state(p) ** 2)

    return loss


def continue_loss(state: Callable[[Any], Any], **known: Any) -> tuple[Longer | None, list[Steered]]:
    """Trace a loss with further steps; also returns the decisions of all traces."""
    paths, made = Paths(partial(over_jax, square(state))), list[Steered]()

    def trace(decisions: Decisions) -> Program | None:
        assert isinstance(decisions, Steered)
        made.append(decisions)
        found = attempt(paths.retrace, W, decisions=decisions)
        return None if isinstance(found, Failure) else found

    with use_float64():
        return continue_loops(trace, W, **known), made


def differentiate(program: Program) -> Any:
    """Autodiff's gradient of a loss as it stands."""
    with use_float64():
        return backward(program, forward(program, W))["w"][0]


def step_in_complex(state: Callable[[Any], Any]) -> Any:
    """The gradient by complex steps of the loss with these states."""
    moved = ({"w": W["w"] + 1e-30j * each} for each in np.eye(3))
    return np.array([np.imag(square(state)(p)) * 1e30 for p in moved])


def iterate(p: Any) -> Any:
    z = np.zeros(3)
    for _ in range(200):
        z = np.tanh(A @ z + p["w"])
    return z


def take_root(p: Any) -> Any:
    return np.sqrt(1 + 0.01 * p["w"])


def solve_two_exactly(p: Any) -> Any:
    return iterate(p) + iterate({"w": 2 * p["w"]})


EXACT: dict[Any, Callable[[Any], Any]] = {
    begin_near: take_root,
    solve_two: solve_two_exactly,
}


def step_exactly(p: Any) -> Any:
    h = states = np.zeros(3)
    for _ in range(4):
        z = h
        for _ in range(30):
            z = h + 0.2 * (np.tanh(A @ z + p["w"]) - z)
        h = z
        states = states + h
    return states


@pytest.mark.parametrize("state", RIGHT, ids=lambda state: state.__name__)
def test_further_steps_lead_to_the_gradient_of_the_fixed_point(state: Any) -> None:
    found, _ = continue_loss(state)
    assert found is not None
    exact = EXACT.get(state, step_exactly if state is step_in_time else iterate)
    true, before = step_in_complex(exact), differentiate(found.program)
    with use_float64():
        limit = found.find_limit(W)
        assert found.has_path(W)
    assert limit is not None
    assert 1e-12 < limit.apart < 1e-4
    error = np.max(np.abs(limit.gradients["w"] - true))
    assert error <= np.max(np.abs(before - true)) / 16
    assert found.added
    assert all(site[0].file == __file__ for site in found.endings)


def grow(p: Any) -> Any:
    """An integration up to a size is none to a fixed point."""
    h = np.ones(3)
    while np.sum(h) < 20:
        h = h + 0.2 * (h + p["w"])
    return h


def rectify(p: Any) -> Any:
    """A decision in each step of a loop over the entries ends none."""
    found = 0.0
    for w in p["w"]:
        if w > 0:
            found = found + w
    return found


def shrink(p: Any) -> Any:
    """A number of halvings is no iteration to a fixed point."""
    h, size = p["w"], 1.0
    while np.sum(h**2) > 0.1:
        h, size = h / 2, size / 2
    return h * size


def ask_once(p: Any) -> Any:
    return np.tanh(p["w"]) if np.sum(p["w"]) > 0 else np.sin(p["w"])


@pytest.mark.parametrize("state", [grow, rectify, shrink, ask_once, lambda p: p["w"]])
def test_what_is_no_iteration_takes_no_further_steps(state: Any) -> None:
    found, _ = continue_loss(state)
    assert found is None


def test_a_loss_that_cannot_be_traced_again_takes_none() -> None:
    assert continue_loops(lambda decisions: None, W) is None


def count_endings(p: Any) -> Any:
    """The loop ends after three small steps in a row, whose size depends on their number."""
    z, small, k = np.zeros(3), 0, 0
    while small < 3:
        k += 1
        new = z + (1 - 0.5 / k) * (np.tanh(A @ z + p["w"]) - z)
        if np.linalg.norm(new - z) < 1e-4:
            small += 1
        else:
            small = 0
        z = new
    return z


def raise_flag(p: Any) -> Any:
    z, done = np.zeros(3), False
    while not done:
        new = np.tanh(A @ z + p["w"])
        if np.linalg.norm(new - z) < 1e-4:
            done = True
        z = new
    return np.tanh(z)


def raise_flag_exactly(p: Any) -> Any:
    return np.tanh(iterate(p))


@pytest.mark.parametrize(
    ("state", "exact", "patient"),
    [(count_endings, iterate, True), (raise_flag, raise_flag_exactly, False)],
)
def test_a_decision_may_count_or_set_what_ends_the_loop(
    state: Any, exact: Any, patient: bool
) -> None:
    found, _ = continue_loss(state)
    assert found is not None
    assert found.patient is patient
    true, before = step_in_complex(exact), differentiate(found.program)
    with use_float64():
        limit = found.find_limit(W)
    assert limit is not None
    assert limit.by_decision
    error = np.max(np.abs(limit.gradients["w"] - true))
    assert error <= np.max(np.abs(before - true)) / 16
    again, made = continue_loss(state, known=found.endings, patient=patient)
    assert again is not None
    assert len(made) == 2
    lines = inspect.getsourcelines(state)
    inside = range(lines[1], lines[1] + len(lines[0]) - 1)  # not what follows the loop
    assert all(where[0].line in inside for where in found.added)


def test_known_endings_are_tried_first() -> None:
    first, made = continue_loss(solve_two)
    assert first is not None
    assert len(first.endings) == 2
    again, fewer = continue_loss(solve_two, known=first.endings)
    assert again is not None
    assert len(fewer) == 2 < len(made)
    assert again.endings == first.endings
    other, made_again = continue_loss(settle, known=first.endings)  # of another loss
    assert other is not None
    assert len(made_again) == 2


def test_few_decisions_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopped_loops, "HALVINGS", 1)

    def ask_often(p: Any) -> Any:
        total = 0.0
        while np.sum(total) > 9 + np.sum(p["w"]):
            total = total + 1
        while np.sum(total) > 8 + np.sum(p["w"]):
            total = total + 1
        while np.sum(total) > 7 + np.sum(p["w"]):
            total = total + 1
        while np.sum(total) > 6 + np.sum(p["w"]):
            total = total + 1
        while np.sum(total) > 5 + np.sum(p["w"]):
            total = total + 1
        return total * p["w"]

    _, made = continue_loss(ask_often)
    assert len({tuple(each.endings) for each in made if each.endings}) == MOST


def test_a_limit_is_one_only_near_the_last_values() -> None:
    found, _ = continue_loss(settle)
    assert found is not None
    with use_float64():
        assert not found.has_path({"w": np.full(3, 5.0)})  # it takes fewer steps there
        far = found._replace(pairs=[(found.program.result, found.program.leaves["w"])])
        apart = found.measure_change([np.ones(1)] * 99, [np.full(1, 1 / (1 - 0.9 * NEAR))] * 999)
        assert apart == pytest.approx(0.9 * NEAR)
        assert np.isnan(found.measure_change([np.ones(1)] * 99, [np.full(1, np.nan)] * 999))
        assert far.find_limit(W) is None


def steer(steered: Steered, outcomes: list[bool], site: Any = ()) -> list[bool]:
    return [steered.steer(site, outcome) for outcome in outcomes]


@pytest.mark.parametrize("ending", [False, True])
def test_a_decision_that_ends_a_loop_is_turned_around(ending: bool) -> None:
    going = not ending
    steered = Steered({(): ending})
    assert steer(steered, [going] * 3) == [going] * 3
    assert steer(steered, [ending] * LEAST) == [going] * LEAST
    assert steer(steered, [going, ending]) == [going, ending]  # it ends where it may
    assert steer(steered, [ending] * (LEAST + 1)) == [going] * LEAST + [ending]  # the next one
    many = 2 * LEAST
    assert steer(steered, [going] * many + [ending] * many) == [going] * 2 * many
    assert steer(steered, [ending]) == [ending]
    halved = Steered({(): ending}, halved=2)
    assert steer(halved, [ending] * (LEAST // 4 + 1)) == [going] * (LEAST // 4) + [ending]
    counted = Steered({(): ending}, halved=9, patient=True)
    outcomes = [going] + [ending] * 3 + [going, ending, ending]
    assert steer(counted, outcomes) == [going, going, ending, ending, going, going, ending]
    few = Steered({(): ending}, halved=9, expected={(): 1})
    assert steer(few, [ending, ending]) == [going, ending]
    with pytest.raises(UntraceableError, match="more loops end"):
        few.steer((), ending)
    endless = Steered({(): ending})
    assert steer(endless, [ending] * LEAST + [going] * LEAST) == [going] * 2 * LEAST
    with pytest.raises(UntraceableError, match="does not end"):
        endless.steer((), going)
    least = Steered({(): ending}, halved=9)
    assert steer(least, [ending] * 2) == [going, ending]


def test_a_decision_that_is_always_the_same_is_kept_while_a_loop_takes_further_steps() -> None:
    loop, usual, free = (Place("a.py", n, 0, 1) for n in range(3))
    steered = Steered({(loop,): True}, {(usual,): False}, halved=9)
    assert steered.steer((usual,), True) is True
    assert steered.steer((loop,), True) is False
    assert steered.steer((usual,), True) is False
    assert steered.steer((free,), True) is True
    assert steered.steer((loop,), True) is True
    assert steered.steer((usual,), True) is True


LINES = """\
while norm > tolerance:
    if a > 0: b = 1
    if done: break
    c = 1 if a > 0 else 2
    d = [e for e in f if e > 0]
    ready = norm < 1
    if wrong:
        for g in f:
            raise ValueError
    elif a > 1:
        b = 2
"""


@pytest.mark.parametrize(
    ("line", "may"),
    [(1, True), (2, False), (3, True), (4, False), (5, False), (6, True), (7, True), (10, False)],
)
def test_an_if_without_a_way_out_ends_no_loop(tmp_path: Any, line: int, may: bool) -> None:
    file = tmp_path / "loops.py"
    file.write_text(LINES)
    assert leaves_loop((Place(str(file), line, 0, 1),)) is may


def test_what_cannot_be_read_may_end_a_loop(tmp_path: Any) -> None:
    file = tmp_path / "cell.py"
    file.write_text("%matplotlib inline\nif a: pass\n")
    assert leaves_loop((Place(str(file), 2, 0, 1),))
    assert leaves_loop((Place(str(tmp_path / "none.py"), 2, 0, 1),))
    assert leaves_loop(())


def test_integers_are_noted_as_they_are() -> None:
    steered = Steered()
    assert partial(steered.note, np.array(3))(3) == 3
    assert steered.asked == []
    assert steered.outcomes == [3]
