"""Both witnesses train alike: exactly where arithmetic is exact, and to rounding elsewhere."""

from collections.abc import Callable
from fractions import Fraction
from functools import cache, partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import Problem
from bptt_verifier.tolerance import noise
from bptt_verifier.tolerance.bounds import INFLATION, RESOLVING, bounds
from jax_reference import padded, unrolled
from jax_reference import training as autodiff
from jax_reference.rnn import loss_of
from manual_bptt import rnn
from manual_bptt import training as manual
from manual_bptt.rnn import Params
from tests.support.agreement import same
from tests.support.training import RATE, SIZES, STEPS, WITNESSES, descend, gated

Array = np.ndarray[Any, np.dtype[Any]]


class RoundedError(Exception):
    """A number that float64 need not hold."""


class Dyadic:
    """An exact number on the way to which float64 rounds nothing, in any order of summation.

    It and all partial sums that lead to it are multiples of 2^-`places` and at most `size`. While
    size · 2^places ≤ 2⁵³, each of them is a float64 number.
    """

    def __init__(self, value: Any, size: Any = None, places: int | None = None) -> None:
        self.value = Fraction(value)
        self.size = abs(self.value) if size is None else size
        self.places = self.value.denominator.bit_length() - 1 if places is None else places
        if self.size * 2**self.places > 2**53:
            raise RoundedError

    def __add__(self, other: Any) -> "Dyadic":
        other = dyadic(other)
        places = max(self.places, other.places)
        return Dyadic(self.value + other.value, self.size + other.size, places)

    def __mul__(self, other: Any) -> "Dyadic":
        other = dyadic(other)
        places = self.places + other.places
        return Dyadic(self.value * other.value, self.size * other.size, places)

    def __sub__(self, other: Any) -> "Dyadic":
        return self + -1 * dyadic(other)

    def __pow__(self, other: int) -> "Dyadic":
        assert other == 2
        return self * self

    def __truediv__(self, other: int) -> "Dyadic":
        return self * Fraction(1, other)

    __radd__, __rmul__ = __add__, __mul__


def dyadic(number: Any) -> Dyadic:
    return number if isinstance(number, Dyadic) else Dyadic(number)


def each(function: Callable[[Any], Any], array: Any, dtype: Any) -> Array:
    return np.vectorize(function, otypes=[dtype])(array)


class History(NamedTuple):
    """The losses, and the parameters after every update, as far as nothing is rounded."""

    losses: list[float]
    params: list[Params]


def exact_history(problem: Problem, rate: Fraction) -> History:
    exact = problem.map_arrays(lambda array: each(Dyadic, array, object))
    params, history = exact.params, History([], [])
    try:
        while len(history.losses) < 10:
            value, gradient = rnn.value_and_grad(params, exact.x, exact.y, **exact.simple_options)
            history.losses.append(float(value.value))
            params = manual.updated(params, gradient, rate)
            history.params.append(
                Params(*(each(lambda n: float(n.value), weight, float) for weight in params))
            )
    except RoundedError:
        pass
    return history


def integer_problem(values: list[int]) -> Problem:
    supply = iter(values)

    def integers(*shape: int) -> Array:
        return np.array([next(supply) for _ in range(int(np.prod(shape)))], float).reshape(shape)

    params = Params(integers(2, 1), integers(2, 2), integers(1, 2), integers(2), integers(1))
    x, y, h0 = integers(2, 2, 1), integers(2, 1), integers(2, 2)
    return Problem("rnn", params, x, y, {"h0": h0}, {"activation": "identity"}, "half_sse")


@WITNESSES
@given(values=st.lists(st.integers(-1, 1), min_size=21, max_size=21), halvings=st.integers(0, 3))
def test_history_is_exact_as_long_as_arithmetic_is(
    witness: ModuleType, values: list[int], halvings: int
) -> None:
    problem, rate = integer_problem(values), Fraction(1, 2**halvings)
    exact = exact_history(problem, rate)
    assert len(exact.params) >= 1
    run = descend(witness, problem, learning_rate=rate, steps=len(exact.params))
    assert same(run.params, exact.params[-1])
    assert run.losses[: len(exact.losses)].tolist() == exact.losses


def test_arithmetic_stays_exact_beyond_the_first_step_and_not_for_ever() -> None:
    counts = [
        len(exact_history(integer_problem(list(values)), Fraction(1, 4)).losses)
        for values in np.random.default_rng(0).integers(-1, 2, size=(50, 21))
    ]
    assert np.median(counts) >= 2
    assert 3 in counts


def test_a_number_that_would_be_rounded_is_noticed() -> None:
    assert (Dyadic(2**26) * Dyadic(2**26) + 2**52).value == 2**53
    with pytest.raises(RoundedError):
        Dyadic(2**26) * Dyadic(2**26) + 2**52 + 1
    with pytest.raises(RoundedError):
        (Dyadic(2**53) - 2**53) + 1  # the result is small, the way there is not
    with pytest.raises(RoundedError):
        Dyadic(2**52) + Fraction(1, 4)


class Allowed(NamedTuple):
    """How far a history may be from the exact one: each loss, and all parameters as one vector."""

    losses: Array
    params: float


def flat(params: Any) -> Array:
    return np.concatenate([np.ravel(weight) for weight in params if weight is not None])


def allowed(problem: Problem, before: list[Params], dtypes: tuple[Any, Any]) -> Allowed:
    """How far apart histories in these two dtypes may be, around the parameters `before` each step.

    Each may be as far from the exact history as follows, and they may be on opposite sides.

    Gradient descent is the map θ ↦ θ − η g(θ). A computed step adds a rounding error e_k to it,

        ‖e_k‖ ≤ η ‖Δg_k‖ + u (‖θ_k‖ + 2 η ‖g_k‖),

    Δg from section 9 of docs/derivation.md and the rest from the product and the difference in the
    update. The error E so far goes through the derivative of the map, with H the Hessian of L:

        E_{k+1} ≤ ‖I − η H_k‖ E_k + ‖e_k‖,    |ΔL_k| ≤ ‖g_k‖ E_k + ½ ‖H_k‖ E_k² + Δ(L_k).

    The norms are Euclidean. That H is not constant and that this is itself evaluated in floating
    point is of higher order, and covered by the same factor as in section 9.
    """
    x, y, h0, options = problem.x, problem.y, problem.h0, problem.option | {"loss": problem.loss}
    with jax.enable_x64(True):
        _, unravel = ravel_pytree(problem.params)

        def objective(theta: Any) -> Any:
            return loss_of(unravel(theta), x, y, h0, 0.0, **options)[0]

        hessian_of = jax.jit(jax.hessian(objective))
    errors: list[Any] = [0.0, 0.0]
    losses = []
    for params in before:
        theta = flat(params)
        with jax.enable_x64(True):
            hessian = np.asarray(hessian_of(theta))
        reference = padded.derivatives(params, x, y, h0, **options)
        slope = np.linalg.norm(flat(getattr(reference, name) for name in problem.weights))
        curvature = np.linalg.norm(hessian, 2)
        stretch = np.linalg.norm(np.eye(len(theta)) - RATE * hessian, 2)
        losses.append(0.0)
        for which, dtype in enumerate(dtypes):
            rounding = bounds(params, x, y, reference, dtype=dtype, **options)
            error = errors[which]
            losses[-1] += slope * error + curvature * error**2 / 2 + float(rounding.loss)
            noise = np.linalg.norm(flat(getattr(rounding, name) for name in problem.weights))
            update = np.finfo(dtype).eps / 2 * (np.linalg.norm(theta) + 2 * RATE * slope)
            errors[which] = stretch * error + RATE * noise + update
    return Allowed(np.array(losses) * INFLATION, float(sum(errors)) * INFLATION)


def cast(problem: Problem, dtype: Any) -> Problem:
    """The same numbers in a dtype that holds them."""
    return problem.map_arrays(lambda array: array.astype(dtype))


class Truth(NamedTuple):
    """A problem, its history in the longest precision there is, and what rounding may do to it."""

    problem: Problem
    params: Params
    losses: Array
    allowed: Allowed

    def excess(self, run: Any) -> float:
        """The error of a run in units of what is allowed; the worse of losses and parameters."""
        distance = np.linalg.norm(flat(run.params) - flat(self.params))
        losses = np.abs(run.losses[:-1] - self.losses) / self.allowed.losses
        return max(float(distance) / self.allowed.params, float(losses.max()))


def truth_of(problem: Problem) -> Truth:
    state = cast(problem, np.longdouble)
    before, losses = [], []
    for _ in range(STEPS):
        before.append(cast(state, np.float64).params)
        run = descend(manual, state, steps=1)
        losses.append(run.losses[0])
        state = state._replace(params=run.params)
    between = allowed(cast(problem, np.float64), before, (problem.x.dtype, np.longdouble))
    return Truth(problem, state.params, np.array(losses), between)


@pytest.fixture(
    scope="module",
    params=[
        ("tanh", "mse", np.float64),
        ("sigmoid", "half_sse", np.float32),
    ],
    ids=lambda case: f"{case[0]}-{case[1]}-{case[2].__name__}",
)
def truth(request: pytest.FixtureRequest) -> Truth:
    activation, loss, dtype = request.param
    problem = with_values(
        np.random.default_rng(3), SIZES, dtype=dtype, option=activation, loss=loss,
        bias=loss == "half_sse", initial_state=True,
    )  # fmt: skip
    return truth_of(problem)


@WITNESSES
def test_history_is_the_same_to_rounding(witness: ModuleType, truth: Truth) -> None:
    run = descend(witness, truth.problem, steps=STEPS)
    assert truth.excess(run) <= 1
    moved = np.linalg.norm(flat(truth.params) - flat(truth.problem.params))
    assert truth.allowed.params <= RESOLVING * moved, "too wide a bound to be evidence"
    assert truth.allowed.losses.max() <= RESOLVING * truth.losses.min()


def test_a_history_that_is_slightly_wrong_is_noticed(truth: Truth) -> None:
    assert truth.excess(descend(manual, truth.problem, steps=STEPS, learning_rate=RATE * 1.001)) > 1
    late = descend(manual, truth.problem, steps=STEPS + 1)
    assert truth.excess(late._replace(losses=late.losses[:-1])) > 1
    params, bump = truth.problem.params, 1 + 2.0**-12
    bent = truth.problem._replace(params=params._replace(W=params.W * params.W.dtype.type(bump)))
    assert truth.excess(descend(manual, bent, steps=STEPS)) > 1


# The cells with gates.


@cache
def measured_history(model: str) -> Callable[..., Any]:
    """STEPS of gradient descent, and how far arithmetic of a given roundoff may take them."""
    whole = unrolled.Model(padded.CELLS[model].step, "after" if model == "gru" else None)
    objective = partial(unrolled.objective, model=whole, truncation=None)

    def history(params: Any, x: Any, y: Any, first: Any) -> Any:
        def step(weights: Any, _: None) -> Any:
            (loss, _), slope = jax.value_and_grad(objective, has_aux=True)(
                weights, x, first, 0.0, y, None
            )
            return jax.tree.map(lambda w, g: w - RATE * g, weights, slope), loss

        return jax.lax.scan(step, params, length=STEPS)

    return jax.jit(partial(noise.measure_error, history))


@pytest.mark.table(4)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize("model", ["lstm", "gru"])
def test_the_history_of_a_cell_with_gates_is_the_same_to_rounding(model: str, dtype: Any) -> None:
    problem = gated(model, dtype=dtype)
    exact = jax.tree.map(lambda leaf: leaf if leaf is model else np.float64(leaf), problem)
    roundoff = float(np.finfo(dtype).eps) / 2
    with jax.enable_x64(True):
        truth, room = jax.tree.map(np.asarray, measured_history(model)(roundoff, *exact[1:]))

    def excess(run: Any) -> float:
        off = jax.tree.map(
            lambda found, true, most: float((np.abs(found - true) / most).max()),
            (run.params, run.losses[:-1]), truth, room,
        )  # fmt: skip
        return max(jax.tree.leaves(off))

    for witness in (manual, autodiff):
        run = problem.descend(witness)
        assert {found.dtype for found in (*run.params, run.losses)} == {np.dtype(dtype)}
        assert type(run.params) is manual.CELLS[model].Params
        assert excess(run) <= 1
    assert excess(problem.descend(manual, learning_rate=RATE * 1.001)) > 1
    late = problem.descend(manual, steps=STEPS + 1)
    assert excess(late._replace(losses=late.losses[:-1])) > 1
    for part in range(len(problem.first)):  # neither first state may be lost
        first = [None if k == part else state for k, state in enumerate(problem.first)]
        assert excess(problem._replace(first=first).descend(manual)) > 1
