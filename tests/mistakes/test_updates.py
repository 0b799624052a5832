"""Updates and weight decay in the place of a gradient are named for every cell."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.cells import CellHypotheses, diagnose
from bptt_verifier.mistakes.evidence import Witness
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import Sizes
from tests.support import own_models
from tests.support.diagnosis import diagnose_numbers

CELLS = [("rnn", "tanh"), ("lstm", ""), ("gru", "after")]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("weight-decay", lambda g, w: g + 0.05 * w),
        ("update-returned", lambda g, w: -0.1 * g),
        ("update-returned", lambda g, w: w - 0.01 * g),
        ("sign-flipped", lambda g, w: -g),
    ],
    ids=["decay", "update", "updated", "ascent"],
)
@pytest.mark.parametrize(("cell", "option"), CELLS)
def test_what_is_made_of_a_gradient_is_named(
    cell: str, option: str, name: str, change: Callable[[Any, Any], Any]
) -> None:
    witnesses = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        problem = with_values(
            rng, Sizes(3, 2, 2, 3, 2), cell=cell, option=option, bias=True, initial_state=True
        )
        known = CellHypotheses([Witness(problem, {}, {}, {}, True)])
        (right,) = known.sweep_back(known.evidence[0], [()])
        true = {n: np.array(right.gradient(n)) for n in problem.weights}
        allowed = {n: np.full_like(v, 2.0**-40 * np.max(np.abs(v))) for n, v in true.items()}
        wrong = {n: change(value, problem.weights[n]) for n, value in true.items()}
        witnesses.append(Witness(problem, wrong, true, allowed, True))
    assert [mistake.name for mistake in diagnose(witnesses)] == [name]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", ["W1", "W2", "b3"])
def test_a_parameter_that_is_returned_has_no_learning_rate(name: str, dtype: type) -> None:
    loss, right, _, params = own_models.MODELS["plain"]
    (found,) = diagnose_numbers(loss, params, lambda p: right(p) | {name: p[name]}, dtype)
    assert (found.name, found.details["rate"]) == ("update-returned", 0.0)
    assert "the parameter itself is returned, in the place of its gradient" in found.explanation
    assert "learning rate" not in found.explanation


@pytest.mark.parametrize("dtype", [np.float64, pytest.param(np.float32, marks=pytest.mark.rest)])
@pytest.mark.parametrize(
    ("name", "at", "said"),
    [
        ("W1", (0, ...), "at `[0]` alone, as by a weight decay"),
        ("W1", (..., 2), "at `[:, 2]` alone, as by a weight decay"),
        ("b2", (slice(1, None),), "everywhere but at `[0]`, as by a weight decay"),
        ("W2", (..., slice(None, -1)), "everywhere but at `[:, 4]`, as by a weight decay"),
    ],
)
def test_a_decay_at_one_index_of_an_axis_is_named(
    name: str, at: Any, said: str, dtype: type
) -> None:
    loss, right, _, params = own_models.MODELS["plain"]

    def gradients(p: Any) -> Any:
        part = np.zeros_like(p[name])
        part[at] = p[name][at]
        return right(p) | {name: right(p)[name] + 0.25 * part}

    (found,) = diagnose_numbers(loss, params, gradients, dtype)
    assert found.name == "weight-decay"
    assert found.details["decay"] == pytest.approx(0.25, rel=2.0**-17)  # of numbers in float32
    assert said in found.explanation
    assert "0.25 times the parameter is added" in found.explanation


def test_a_penalty_without_a_gradient_is_missing_where_the_loss_has_it() -> None:
    loss, right, _, params = own_models.MODELS["plain"]

    def penalised(p: Any, xp: Any) -> Any:
        return loss(p, xp) + 0.5 * xp.sum(p["W2"][1:] ** 2)

    (found,) = diagnose_numbers(penalised, params, right)
    assert (found.name, found.details["decay"]) == ("weight-decay", -1.0)
    said = "1 times the parameter is missing everywhere but at `[0]`, as of a penalty in the loss"
    assert said in found.explanation


@pytest.mark.parametrize("at", [[0, 1], [1, 3]])
def test_a_decay_at_two_of_five_indices_has_no_such_name(at: list[int]) -> None:
    loss, right, _, params = own_models.MODELS["plain"]

    def gradients(p: Any) -> Any:
        part = np.zeros_like(p["b2"])
        part[at] = p["b2"][at]
        return right(p) | {"b2": right(p)["b2"] + 0.25 * part}

    assert "weight-decay" not in {each.name for each in diagnose_numbers(loss, params, gradients)}


def test_a_wrong_factor_of_a_multiple_of_the_parameter_is_no_decay() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return 0.5 * p["w"][0] ** 2 + xp.sum(xp.sin(p["w"][1:]))

    def gradients(p: Any) -> Any:
        w = p["w"]
        return {"w": np.concatenate([2 * w[:1], np.cos(w[1:])])}

    (found,) = diagnose_numbers(loss, {"w": np.ones(3)}, gradients)
    assert found.name == "factor-missing"
