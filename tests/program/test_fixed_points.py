"""Which loops of a loss are iterations to a fixed point, and how far from it they end."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.backward import backward
from bptt_verifier.program.fixed_points import (
    LONG,
    NEAR,
    Iteration,
    contains,
    continue_iterations,
    find_change,
    find_iterations,
    find_limit,
    find_place,
    find_runs,
    is_near,
    list_numbers,
)
from bptt_verifier.program.numpy_code import over_jax
from bptt_verifier.program.paths import Paths
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.trace import Program, forward, trace

X = np.array([0.7, -0.4])
DATA = np.random.default_rng(0).normal(size=(40, 2))
PARAMS = {"w": np.full(2, 0.3)}


def iterate(p: Any, xp: Any, steps: int = 40) -> Any:
    z = xp.zeros(2)
    for _ in range(steps):
        z = xp.tanh(p["w"] * z + X)
    return z


def from_parameters(p: Any, xp: Any, steps: int = 2) -> Any:
    z = p["w"]
    for _ in range(steps):
        z = z - 0.3 * (2 * z - X)
    return z


def read_data(p: Any, xp: Any) -> Any:
    z = xp.zeros(2)
    for x in DATA:
        z = xp.tanh(p["w"] * z + x)
    return z


def read_parameters(p: Any, xp: Any) -> Any:
    z = xp.zeros(2)
    for t in range(40):
        z = xp.tanh(0.3 * z + p["w"][t % 2])
    return z


def solve_twice(p: Any, xp: Any) -> Any:
    total = 0.0
    for scale in (1.0, -3.0):
        z = xp.zeros(2)
        for _ in range(40):
            z = xp.tanh(p["w"] * z + scale * X)
        total = total + z
    return total


def read_states(p: Any, xp: Any) -> Any:
    """The second loop has steps as long as those of the first, whose states it reads."""
    h, states, total = X, [], xp.zeros(2)
    for x in DATA[:6]:
        h = xp.tanh(p["w"] * h + x)
        states.append(h)
    for h in states:
        total = total + p["w"] * xp.sin(h)
    return total


def take_newton_steps(p: Any, xp: Any, inner: int = 6, outer: int = 3) -> Any:
    """Implicit Euler for x' = −w x³, without an operation between the inner iterations."""
    x = X
    for _ in range(outer):
        z = x
        for _ in range(inner):
            z = z - (z - x + p["w"] * z**3) / (1 + 3 * p["w"] * z**2)
        x = z
    return x


def stop_in_the_middle(p: Any, xp: Any) -> Any:
    """The residual of a last, unfinished step is computed, and read by nothing."""
    z = p["w"]
    for k in range(6):
        residual = z - xp.cos(z)
        if k == 5:
            break
        z = z - 0.5 * residual
    return z


def remember_two(p: Any, xp: Any) -> Any:
    z, before = p["w"], X
    for _ in range(20):
        z, before = xp.tanh(0.5 * z - 0.2 * before), z
    return z


def trace_sum(state: Callable[[Any, Any], Any]) -> Program:
    with use_float64():
        return trace(lambda p, xp: xp.sum(state(p, xp)), PARAMS)


@pytest.mark.parametrize(
    ("state", "steps"),
    [
        (iterate, [40]),
        (from_parameters, [2]),
        (lambda p, xp: from_parameters(p, xp, 1), []),
        (solve_twice, [40, 40]),
        (remember_two, [18]),
        (take_newton_steps, [5, 6, 6]),
        (read_data, []),
        (read_states, []),
        (read_parameters, [19]),  # of two alternating lines
        (lambda p, xp: p["w"], []),
    ],
    ids="constants parameters once two memory nested data states alternating none".split(),
)
def test_an_iteration_repeats_one_step_on_what_it_has_computed(state: Any, steps: Any) -> None:
    program = trace_sum(state)
    found = find_iterations(program)
    shortest = [each for each in found if not any(contains(each, other) for other in found)]
    assert [each.steps for each in sorted(shortest)] == steps
    for each in shortest:
        assert any(text in find_place(program, each)[0].text for text in ("z = ", "z, before = "))


def test_runs_are_as_long_as_asked_and_end_with_the_sequence() -> None:
    flags = [True, False, True, True, False, True, True, True]
    assert [*find_runs(flags, 2)] == [(2, 4), (5, 8)]
    assert [*find_runs(flags, 3)] == [(5, 8)]
    assert [*find_runs([], 1)] == []


@pytest.mark.parametrize(
    ("state", "longer"),
    [
        (iterate, lambda p, xp: iterate(p, xp, 79)),
        (from_parameters, lambda p, xp: from_parameters(p, xp, 4)),
        (take_newton_steps, lambda p, xp: take_newton_steps(p, xp, 12)),
    ],
    ids="constants parameters nested".split(),
)
def test_a_continued_iteration_is_the_loss_with_more_steps(state: Any, longer: Any) -> None:
    program, expected = trace_sum(state), trace_sum(longer)
    every = find_iterations(program)
    chosen = [each for each in every if not any(contains(each, other) for other in every)]
    continued, renamed = continue_iterations(program, chosen, 99)
    assert renamed
    once, _ = continue_iterations(program, chosen, 1)
    added = len(once.operations) - len(program.operations)
    assert added == sum(each.period for each in chosen)
    params = {"w": np.array([0.4, 0.9])}
    with use_float64():
        values, right = forward(continued, params), forward(expected, params)
        # Iterations that begin with constants are traced from their second step on.
        near = 1e-15 if state is not take_newton_steps else 1e-12
        assert abs(values[continued.result] - right[expected.result]) <= near
        found, true = backward(continued, values)["w"], backward(expected, right)["w"]
    np.testing.assert_allclose(found, true, rtol=1e-11)


def measure(state: Callable[[Any, Any], Any], w: Any) -> Any:
    program = trace_sum(state)
    with use_float64():
        return find_limit(program, find_iterations(program), {"w": np.array(w)})


def differentiate(state: Callable[[Any, Any], Any], w: Any) -> Any:
    program = trace_sum(state)
    with use_float64():
        return backward(program, forward(program, {"w": np.array(w)}))["w"][0]


@pytest.mark.parametrize(("weight", "converged"), [(0.3, True), (-4.0, False), (1e200, True)])
def test_an_iteration_converges_where_its_step_contracts(weight: float, converged: bool) -> None:
    found = measure(iterate, [0.1, weight])
    assert found.converged is converged
    assert bool(found.gradients) is converged
    if converged:
        assert found.apart < 1e-9
        true = differentiate(iterate, [0.1, weight])
        np.testing.assert_allclose(found.gradients["w"], true, atol=1e-12)


def test_the_limit_is_the_gradient_of_further_steps() -> None:
    """z = (w − x/2) (0.4)ᵏ + x/2: its slope is (0.4)ᵏ, and the fixed point is x/2."""

    def descend(p: Any, xp: Any) -> Any:
        return from_parameters(p, xp, 8)

    found = measure(descend, [2.0, 2.0])
    np.testing.assert_allclose(found.gradients["w"], 0.4**16)
    end = (2 - X / 2) * (0.4**8 - 0.4**16)
    apart = np.max(np.abs(end)) / np.max(np.abs(X / 2))
    assert found.apart == pytest.approx(apart, rel=1e-2)


def test_a_short_iteration_that_diverges_has_not_converged() -> None:
    def diverge(p: Any, xp: Any, steps: int) -> Any:
        z = p["w"]
        for _ in range(steps):
            z = 3 * z - X
        return z

    assert measure(lambda p, xp: diverge(p, xp, LONG), [0.3, 0.3]).converged is False
    assert measure(lambda p, xp: diverge(p, xp, LONG - 1), [0.3, 0.3]).converged is True


def test_an_iteration_inside_of_another_counts_alone() -> None:
    """The outer steps move the state; their number is the loss's own."""
    found = measure(lambda p, xp: take_newton_steps(p, xp, 8, 5), [0.3, 0.5])
    assert found.converged
    assert found.apart < 1e-14
    assert found.gradients["w"].shape == (2,)


def test_what_does_not_converge_may_be_a_part_of_a_step_that_does() -> None:
    """The powers of z inside are no iteration that ends too early."""

    def add_powers(p: Any, xp: Any) -> Any:
        z = p["w"]
        for _ in range(12):
            total = 1.0
            for _ in range(4):
                total = 1 + 4 * z * total
            z = 0.2 + 0.005 * total
        return z

    found = measure(add_powers, [0.3, 0.4])
    assert found.converged
    assert 0 < found.apart < 1e-6
    true = differentiate(add_powers, [0.3, 0.4])
    np.testing.assert_allclose(found.gradients["w"], true, rtol=1e-5, atol=1e-8)


def test_a_step_may_read_values_of_several_steps_before() -> None:
    def remember_three(p: Any, xp: Any) -> Any:
        states = [p["w"], p["w"] * X, p["w"] + X]
        for _ in range(6):
            states.append(xp.tanh(0.2 * states[-1] - 0.1 * states[-3] + X))
        return states[-1]

    assert 0 < measure(remember_three, [0.3, 0.4]).apart < 0.1


def test_what_diverges_later_is_as_far_apart_as_it_grows() -> None:
    def grow(p: Any, xp: Any) -> Any:
        z = p["w"]
        for _ in range(5):
            z = z + 1e-3 * z**40
        return z

    assert measure(grow, [0.5, 1.05]).apart > 0.1


def test_fewer_steps_are_added_where_a_converged_iteration_has_no_further_one() -> None:
    """The line through two points of a secant method that are one has no slope."""

    def take_secants(p: Any, xp: Any) -> Any:
        before, z = p["w"] * 0 + 1, p["w"] * 0 + 2
        for _ in range(6):
            f, g = before**2 - p["w"], z**2 - p["w"]
            before, z = z, z - g * (z - before) / (g - f)
        return z

    found = measure(take_secants, [2.0, 3.0])
    assert found.converged
    assert 0 < found.apart < 1e-3
    np.testing.assert_allclose(found.gradients["w"], 0.5 / np.sqrt([2.0, 3.0]), rtol=1e-6)
    assert list_numbers(6) == [6, 3, 1]
    assert list_numbers(1) == [1]


def halve_rows(p: Any, xp: Any, steps: int = 30, masked: bool = True) -> Any:
    """Steps z := z/2 + w/4, of which a row takes no more once it moves by less than 10⁻³."""
    z, active = xp.array([1.0, 40.0]), xp.array([True, True])
    for _ in range(steps):
        new = 0.5 * z + 0.25 * p["w"]
        moved = abs(new - z)
        z = xp.where(active, new, z) if masked else new
        active = active & (moved > 1e-3)
    return z


def test_rows_that_a_mask_keeps_as_they_are_take_further_steps_too() -> None:
    found = measure(halve_rows, [0.3, 0.4])
    free = measure(lambda p, xp: halve_rows(p, xp, masked=False), [0.3, 0.4])
    assert found.converged
    # The last step of a row has moved it by less than 10⁻³, and as much is left.
    assert 2e-3 < found.apart < 1e-2
    assert free.apart < 1e-6
    np.testing.assert_allclose(found.gradients["w"], 0.5, rtol=1e-8)
    np.testing.assert_allclose(free.gradients["w"], 0.5, rtol=1e-12)


def keep_a_step(p: Any, xp: Any, kept: int, steps: int = 12, rate: float = 0.5) -> Any:
    """The state of one step, while later ones look for a better one in vain."""
    z, found = X, X
    for k in range(steps):
        z = rate * z + 0.25 * p["w"]
        found = z if k == kept else found
    return found


def test_a_step_that_is_kept_has_the_limit_of_the_last_one() -> None:
    found = measure(lambda p, xp: keep_a_step(p, xp, 8), [0.6, 0.8])
    assert found.converged
    assert 1e-4 < found.apart < 1e-2
    np.testing.assert_allclose(found.gradients["w"], 0.5, rtol=1e-3)
    assert not measure(lambda p, xp: keep_a_step(p, xp, 2), [0.6, 0.8]).converged
    assert not measure(lambda p, xp: keep_a_step(p, xp, 2, rate=-1.1), [0.6, 0.8]).converged


def test_states_that_are_all_read_are_no_step_that_is_kept() -> None:
    """The sum over a trajectory is of its states, as far as they are from where it ends."""

    def add_up(p: Any, xp: Any) -> Any:
        z, total = X, []
        for _ in range(30):
            z = 0.5 * z + 0.25 * p["w"]
            total.append(z)
        return sum(total)

    found = measure(add_up, [0.6, 0.8])
    assert found.converged
    assert found.apart < 1e-8
    np.testing.assert_allclose(found.gradients["w"], differentiate(add_up, [0.6, 0.8]), rtol=1e-6)


def test_an_iteration_that_is_not_read_has_not_converged() -> None:
    """So ends a search that kept what it began with."""

    def lose(p: Any) -> Any:
        z = 2.0 * X
        for _ in range(steps):
            z = np.cos(p["w"] * z)
            if np.sum(z) > 9:
                break
        return np.sum(p["w"] ** 2)

    found = dict[int, Any]()
    for steps in (LONG - 1, LONG):
        with use_float64():
            program = Paths(lambda point: over_jax(lose, point)).retrace(PARAMS)
            found[steps] = find_limit(program, find_iterations(program), PARAMS)
    assert found[LONG - 1].converged
    assert not found[LONG].converged


def test_values_that_the_loss_does_not_read_may_be_further_from_their_limits() -> None:
    """The Rayleigh quotient of a symmetric matrix is twice as precise as its eigenvector."""
    matrix = np.array([[2.0, 1.0], [1.0, 3.0]])

    def find_eigenvalue(p: Any, xp: Any) -> Any:
        v = p["w"]
        for _ in range(9):
            u = matrix @ v
            v = u / xp.sqrt(xp.sum(u * u))
            value = v @ matrix @ v
        return value

    found = measure(find_eigenvalue, [0.6, 0.8])
    assert found.converged
    assert found.inside > 100 * found.apart > 0
    assert measure(iterate, [0.1, 0.3]).inside == pytest.approx(0.0, abs=1e-12)


def test_what_an_unfinished_step_computes_is_no_part_of_the_iteration() -> None:
    found = measure(stop_in_the_middle, [0.6, 0.8])
    assert found.converged
    assert 1e-6 < found.apart < 1e-2


def test_values_are_near_where_the_last_step_moves_them_by_little() -> None:
    history = [np.array([1.0 + move]) for move in (0.0, 4 * NEAR, 3.0)]
    assert is_near(history)
    assert not is_near([history[0] - 0.01, *history[1:]])
    assert not is_near([np.array([np.inf])] * 2)
    assert not is_near([np.array([np.nan])] * 2)
    assert is_near([np.zeros(1)] * 2)


def test_changes_are_relative_to_the_largest_entry() -> None:
    assert find_change(np.array([4.0, 0.0]), np.array([4.0, -1.0])) == 0.25
    assert find_change(np.zeros(2), np.zeros(2)) == 0.0


def test_iterations_contain_shorter_ones_at_the_same_place_alone() -> None:
    outer, inner, later = Iteration(0, 40, 10), Iteration(2, 8, 2), Iteration(40, 44, 2)
    assert contains(outer, inner)
    assert not contains(inner, outer)
    assert not contains(outer, later)
    assert not contains(outer, outer)
