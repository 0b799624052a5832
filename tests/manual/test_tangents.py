"""Forward mode and Hessian-vector products are right for every option."""

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt_verifier.judge.builtin import compare_tangents, derive_hvp, derive_jvp
from bptt_verifier.problems.draws import draw_direction, with_values
from bptt_verifier.problems.problem import ACTIVATIONS, ALL_LOSSES, Array, Problem, Sizes
from bptt_verifier.strategies import integer_problems, problems
from jax_reference import tangents as autodiff
from manual_bptt import rnn, tangents
from manual_bptt.activations import ACTIVATIONS as FUNCTIONS
from manual_bptt.activations import Activation
from manual_bptt.tangents import Direction

MOVED = Direction._fields
OPTIONS = list(product(ACTIVATIONS, ALL_LOSSES, ("last", "every"), (False, True)))


def drawn(seed: int, *, activation: str, loss: str, outputs: str, ragged: bool) -> Problem:
    return with_values(
        np.random.default_rng(seed), Sizes(4, 3, 2, 3, 2),
        option=activation, loss=loss, outputs=outputs, ragged=ragged, bias=True, initial_state=True,
    )  # fmt: skip


def moved_by(problem: Problem, direction: Direction, far: Any) -> Problem:
    """The problem, moved along the direction."""
    params = type(problem.params)(*(
        None if w is None else w + far * getattr(direction, name)
        for name, w in problem.params._asdict().items()
    ))  # fmt: skip
    x, first = problem.x + far * direction.x, {"h0": problem.first["h0"] + far * direction.h0}
    return problem._replace(params=params, x=x, first=first)


def differentiate(problem: Problem) -> tuple[Any, rnn.Gradients]:
    given = problem.params, problem.x, problem.y, problem.first["h0"]
    return rnn.gradients(*given, **problem.batch, loss=problem.loss)


def inner(left: Any, right: Any) -> Any:
    pairs = [(getattr(left, name), getattr(right, name)) for name in MOVED]
    return sum((a * b).sum() for a, b in pairs if a is not None and b is not None)


def run(function: Any, problem: Problem, direction: Direction) -> Any:
    given = problem.params, direction, problem.x, problem.y, problem.first.get("h0")
    return function(*given, **problem.batch, loss=problem.loss)


@pytest.mark.parametrize(("activation", "loss", "outputs", "ragged"), OPTIONS)
def test_the_tangents_are_the_differences_of_loss_and_gradient(
    activation: str, loss: str, outputs: str, ragged: bool
) -> None:
    problem = drawn(5, activation=activation, loss=loss, outputs=outputs, ragged=ragged)
    wide = problem.map_arrays(lambda v: v if v.dtype.kind == "i" else v.astype(np.longdouble))
    full: Any = draw_direction(0, 0, wide)
    direction = Direction(*(part / 8 for part in full))
    # Differences at h and 2h are off by h⁴/30 times a fifth derivative, and by rounding, ε/h. With
    # h = ε^⅕ both are some ε^⅘; the factor 2¹⁰ is for derivatives and gradients of that size.
    epsilon = np.finfo(np.longdouble).eps
    h, near = epsilon ** (1 / np.longdouble(5)), 2**10 * float(epsilon) ** 0.8
    at = {n: differentiate(moved_by(wide, direction, n * h)) for n in (-2, -1, 1, 2)}

    def difference(of: Any) -> Any:
        return (8 * (of(at[1]) - of(at[-1])) - (of(at[2]) - of(at[-2]))) / (12 * h)

    value, tangent = run(tangents.jvp, wide, direction)
    assert value == differentiate(wide)[0]
    assert abs(tangent - difference(lambda each: each[0])) <= near
    found = run(tangents.hvp, wide, direction)
    for name in found._fields:
        known = difference(lambda each, name=name: getattr(each[1], name))
        assert np.abs(getattr(found, name) - known).max() <= near, name


@pytest.mark.slow
@given(problem=problems(), seed=st.integers(0, 99))
def test_the_tangents_are_within_their_bound(problem: Problem, seed: int) -> None:
    direction = draw_direction(seed, 0, problem)
    comparer = compare_tangents(problem, direction)
    for derive in (derive_jvp, derive_hvp):
        for compared in comparer(derive(problem, direction)):
            assert compared.error <= 1, str(compared)


def thirds(values: Array) -> Array:
    return np.vectorize(lambda v: Fraction(int(v), 3), otypes=[object])(values)


@given(problem=integer_problems().map(lambda p: p.map_arrays(thirds)), seed=st.integers(0, 2**32))
def test_on_fractions_the_hessian_is_symmetric_and_linear_and_the_jvp_is_the_gradients(
    problem: Problem, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    arrays = problem.weights | {"x": problem.x, "h0": np.empty((problem.sizes.B, problem.sizes.H))}
    d, e = (  # without biases where there are none
        Direction(**{n: thirds(rng.integers(-3, 4, part.shape)) for n, part in arrays.items()})
        for _ in range(2)
    )
    Hd, He = run(tangents.hvp, problem, d), run(tangents.hvp, problem, e)
    assert inner(e, Hd) == inner(d, He)
    arrays = {name: getattr(d, name) for name in arrays}
    both = Direction(**{name: 2 * part - 3 * getattr(e, name) for name, part in arrays.items()})
    of_both = run(tangents.hvp, problem, both)
    for name in of_both._fields:
        if getattr(of_both, name) is not None:
            assert (getattr(of_both, name) == 2 * getattr(Hd, name) - 3 * getattr(He, name)).all()
    given = problem.params, problem.x, problem.y, problem.first.get("h0")
    value, gradient = rnn.gradients(*given, **problem.batch, loss=problem.loss)
    assert run(tangents.jvp, problem, d) == (value, inner(gradient, d))


def test_the_twins_agree_on_unequal_lengths_and_outputs_at_every_step() -> None:
    problem = drawn(
        1, activation="sigmoid", loss="softmax_cross_entropy", outputs="every", ragged=True
    )
    direction = draw_direction(0, 0, problem)._replace(h0=None)
    own, other = (run(each, problem, direction) for each in (tangents.hvp, autodiff.hvp))
    values, tangent = run(autodiff.jvp, problem, direction)
    assert np.asarray(tangent) == pytest.approx(run(tangents.jvp, problem, direction)[1], rel=1e-12)
    assert np.asarray(values) == pytest.approx(run(tangents.jvp, problem, direction)[0], rel=1e-12)
    for name in own._fields:
        # Sums of some hundred products of numbers near 1, each rounded to 2⁻⁵³.
        assert np.asarray(getattr(other, name)) == pytest.approx(getattr(own, name), abs=1e-12), (
            name
        )


def test_parameters_alone_are_a_direction() -> None:
    problem = drawn(2, activation="tanh", loss="mse", outputs="last", ragged=False)
    alone = Direction(**problem.params._asdict())
    for found, known in zip(
        *(run(tangents.hvp, problem, d) for d in (problem.params, alone)), strict=True
    ):
        assert np.array_equal(found, known)


@pytest.mark.parametrize("twin", [tangents, autodiff], ids=["manual", "autodiff"])
@pytest.mark.parametrize("name", ["jvp", "hvp"])
@pytest.mark.parametrize(
    ("direction", "message"),
    [
        ({}, "direction: expected Direction(U, W, V, b, c, x, h0), found dict"),
        (Direction(U=np.ones((2, 2))), "direction.U: expected shape (3, 2) as U, found (2, 2)"),
        (Direction(c=np.ones(2)), "direction.c: expected None as in params, found ndarray"),
        (Direction(W=np.full((3, 3), np.nan)), "direction.W: expected finite values, found nan at (0, 0)"),
        (Direction(x=np.ones((4, 3, 2), np.float32)), "direction.x: expected dtype float64 as in U, found float32"),
        (Direction(h0=np.ones((3, 3), int)), "direction.h0: expected a floating dtype, found int64"),
    ],
)  # fmt: skip
def test_a_direction_that_does_not_fit_is_refused_in_one_sentence(
    twin: Any, name: str, direction: Any, message: str
) -> None:
    problem = with_values(np.random.default_rng(3), Sizes(4, 3, 2, 3, 2))
    with pytest.raises((TypeError, ValueError)) as caught:
        run(getattr(twin, name), problem, direction)
    assert str(caught.value) == message


def test_an_activation_without_second_derivative_has_a_jvp_and_no_hvp() -> None:
    problem = drawn(4, activation="tanh", loss="mse", outputs="last", ragged=False)
    direction = draw_direction(0, 0, problem)
    tanh = FUNCTIONS["tanh"]
    pair: Any = Activation(tanh.function, tanh.derivative)
    own = problem._replace(option={"activation": pair})
    assert run(tangents.jvp, own, direction) == run(tangents.jvp, problem, direction)
    with pytest.raises(
        ValueError, match=r"^activation: expected one with a second_derivative, found None$"
    ):
        run(tangents.hvp, own, direction)
    flat: Any = Activation(tanh.function, tanh.derivative, lambda a, h: np.zeros(3))
    with pytest.raises(ValueError, match=r"expected second_derivative\(a, h\) of shape"):
        run(tangents.hvp, problem._replace(option={"activation": flat}), direction)


def test_the_padding_of_a_direction_is_not_looked_at() -> None:
    problem = drawn(6, activation="tanh", loss="mse", outputs="every", ragged=True)
    direction = draw_direction(0, 0, problem)
    dirty = np.array(direction.x)
    dirty[np.isnan(problem.x)] = np.nan
    assert np.isnan(dirty).any()
    for name in ("jvp", "hvp"):
        clean, padded = (
            run(getattr(tangents, name), problem, direction._replace(x=x))
            for x in (direction.x, dirty)
        )
        assert all(np.array_equal(a, b) for a, b in zip(clean, padded, strict=True))
