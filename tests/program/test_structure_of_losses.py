"""The structure of a loss: its candidates for mistakes, layers, unused operations, activations."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.activations import find_activations, is_linear, slope_of
from bptt_verifier.program.backward import Change, backward
from bptt_verifier.program.numpy_code import over_jax
from bptt_verifier.program.paths import prune
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import Structure, structure
from bptt_verifier.program.trace import forward, trace
from bptt_verifier.reference.own_loss import to_scalar

T = 3
X = np.random.default_rng(0).normal(size=(T, 2))


def structure_of(loss: Any, **params: Any) -> Structure:
    with use_float64():
        return structure(prune(trace(loss, params)))


def stacked(p: Any, xp: Any) -> Any:
    below = [*X]
    for layer in range(2):
        h, states = xp.zeros(2), []
        for t in range(T):
            h = xp.tanh(below[t] + p["W"][layer] @ h)
            states.append(h)
        below = states
    return xp.sum(h)


def test_layers_of_one_loop_have_time_steps_of_their_own() -> None:
    known = structure_of(stacked, W=np.ones((2, 2, 2)))
    products = [g for g in known.groups if known.program.operations[g[0]].name == "dot_general"]
    assert known.steps == T
    assert [len(group) for group in products] == [T, T]


def test_tokens_that_are_read_equally_often_are_no_layers() -> None:
    def loss(p: Any, xp: Any) -> Any:
        h = xp.zeros(2)
        for token in (0, 1, 0, 1):
            h = xp.tanh(p["U"] @ p["E"][token] + p["W"] @ h)
        return xp.sum(h)

    known = structure_of(loss, E=np.ones((2, 2)), U=np.ones((2, 2)), W=np.ones((2, 2)))
    assert known.steps == 4


def test_operations_that_the_loss_does_not_need_are_removed() -> None:
    def loss(p: Any, xp: Any) -> Any:
        _ = xp.exp(p["a"])
        return xp.sum(p["a"] ** 2)

    known = structure_of(loss, a=np.ones(2))
    assert "exp" not in {operation.name for operation in known.program.operations}


@pytest.mark.parametrize(
    "tanh",
    [
        lambda z, xp: xp.tanh(z),
        lambda z, xp: (xp.exp(z) - xp.exp(-z)) / (xp.exp(z) + xp.exp(-z)),
        lambda z, xp: 2 / (1 + xp.exp(-2 * z)) - 1,
        lambda z, xp: 1 - 2 / (xp.exp(2 * z) + 1),
    ],
    ids=["tanh", "four exponentials", "sigmoid", "one exponential"],
)
def test_an_activation_is_found_and_differentiated_however_it_is_written(tanh: Any) -> None:
    params = {"W": np.array([[0.3, -1.2], [0.7, 0.4]])}
    known = structure_of(lambda p, xp: xp.sum(tanh(p["W"] @ X[0], xp) ** 2), **params)
    ends = [
        each
        for group in known.groups
        for each in find_activations(known, group)[-1:]
        if not is_linear(known, each[0])
    ]
    (z,) = [params["W"] @ X[0]]
    values = forward(known.program, params)
    slopes = [slope_of(known, each[0], values)[0] for each in ends]
    assert any(np.allclose(slope, 1 - np.tanh(z) ** 2, rtol=1e-12) for slope in slopes)


def test_changes_of_many_forms_are_made_in_one_sweep_as_they_are_alone() -> None:
    params = {"W": np.random.default_rng(2).normal(size=(2, 2, 2))}
    with use_float64():
        program = trace(stacked, params)
        values = forward(program, params)
        numbers = [k for k, each in enumerate(program.operations) if each.name == "dot_general"]
        number = numbers[-1]
        (slot,) = program.operations[number].outputs
        other = values[program.operations[number].inputs[1]]
        rows = [
            {(number, 0): Change(0, after=0.5)},
            {(number, 0): Change(0, before=np.array([1.0, 2.0]))},
            {(number, 0): Change(0, instead=((1, 2 * other),))},
            {(number, 0): Change(0, instead=((1, 3 * other),), after=2.0)},
            {(number, 0): Change(0, arriving=np.array([1.0, -1.0]))},
            {(number, 1): Change(1, after=0.0, send=((slot - 1, 1.0),))},
            {(number, 1): Change(1, through=lambda arriving: 7 * arriving[0])},
            {},
        ]
        together = backward(program, values, rows)
        for k, row in enumerate(rows):
            alone = backward(program, values, [row])
            assert np.array_equal(together["W"][k], alone["W"][0]), row
        assert len({together["W"][k].tobytes() for k in range(len(rows))}) >= len(rows) - 1


PARAMS = {"w": np.array([[0.5, -1.0]])}


def of_one_entry(p: Any, xp: Any = np) -> Any:
    return xp.tanh(p["w"] @ p["w"].T)  # of shape (1, 1), which the judge reshapes


@pytest.mark.parametrize("plain", [True, False])
def test_what_the_judge_adds_to_a_loss_is_no_candidate(plain: bool) -> None:
    with use_float64():
        if plain:
            program = trace(lambda p, _: over_jax(of_one_entry, PARAMS)(p), PARAMS)
        else:
            program = trace(lambda p, xp: to_scalar(of_one_entry(p, xp)), PARAMS)
    groups = structure(program).groups
    names = {program.operations[number].name for group in groups for number in group}
    assert names == {"dot_general", "tanh", "transpose"}
    assert program.operations[-1].name == "reshape"
