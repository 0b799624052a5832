"""A mistake without a name has a place, or none is claimed."""

import re
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes import own_models
from bptt_verifier.mistakes.evidence import Evidence, Witness, make_evidence
from bptt_verifier.mistakes.places import (
    AdjointError,
    describe_wrong_part,
    find_expressions,
    fit_everywhere,
    list_places,
    measure_adjoints,
)
from bptt_verifier.program import numpy_code
from bptt_verifier.program.backward import Change, sweep_back
from bptt_verifier.program.paths import prune
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import Structure, structure
from bptt_verifier.program.trace import forward, trace
from tests.support.diagnosis import diagnose_numbers, plant, trace_points
from tests.support.further_models import MODELS
from tests.support.profiles import deep
from tests.support.unnamed_mistakes import count_places

Changes = dict[tuple[int, int], Change]


@pytest.fixture(autouse=True)
def few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try few pairs of mistakes: none of them explains what is planted here."""
    monkeypatch.setattr(own_models, "PAIRS", 500)


@lru_cache
def structure_of(model: str) -> tuple[Structure, list[Any]]:
    loss, _, _, params = MODELS[model]
    shapes = tuple((name, np.shape(value)) for name, value in params.items())
    program, points = trace_points(loss, shapes, np.dtype(float))
    return structure(prune(program)), points


def collect(known: Structure, points: Any, changes: Changes) -> tuple[list[Evidence], list[Any]]:
    """Collect the evidence of a sweep with these changes, and its cotangents."""
    evidence, sweeps = [], []
    for _, wide, true in points:
        values = forward(known.program, wide)
        sweeps.append(
            (sweep_back(known.program, values, [changes]), sweep_back(known.program, values))
        )
        leaves = known.program.leaves.items()
        submitted = {name: sweeps[-1][0][slot][0] for name, slot in leaves}
        allowed = {n: 2.0**-43 * np.max(np.abs(v)) * np.ones_like(v) for n, v in true.items()}
        witness = Witness(wide, submitted, true, allowed, True)
        evidence.append(make_evidence(values, known.steps, witness, dict.fromkeys(true)))
    return evidence, sweeps


def is_off(wrong: Any, true: Any) -> bool:
    return bool(np.max(np.abs(wrong - true)) > 1e-3 * np.max(np.abs(true)))


@pytest.mark.parametrize("model", ["sequence", "stacked", "attention", "normalised", "directions"])
def test_adjoints_are_called_wrong_or_right_only_where_they_are(model: str) -> None:
    known, points = structure_of(model)
    rng, claimed = np.random.default_rng(len(model)), 0
    for _ in range(20):
        number = int(rng.integers(len(known.program.operations)))
        operand = int(rng.choice(known.active(number)))
        factors = rng.uniform(0.3, 2.0, known.program.operations[number].shapes[0])
        evidence, sweeps = collect(
            known, points, {(number, operand): Change(operand, before=factors)}
        )
        wrong = [
            name
            for name in evidence[0].wanted
            if not all(case.explains(name, case.reference[name]) for case in evidence)
        ]
        said = " ".join(list_places(known, evidence, wrong))
        if "which gradient of" not in said:
            continue
        claimed += 1
        for expression in find_expressions(known):
            fit = fit_everywhere(known, evidence, expression)
            for slot, state in fit[1].items() if fit else ():
                if state is not None:
                    assert state == any(is_off(one[slot], true[slot]) for one, true in sweeps), said
    assert claimed or model in {"normalised", "directions", "stacked", "attention"}


@pytest.mark.parametrize("step", [2, 4] if deep() else [4])
def test_the_first_wrong_step_is_found_going_backward(step: int) -> None:
    loss, gradients, _, params = MODELS["sequence"]
    change = "dh = own + later", f"dh = (own + later) * (1 + (t == {step - 1}) * np.arange(H) ** 2)"
    (mistake,) = diagnose_numbers(loss, params, plant(gradients, change))
    assert mistake.name == "unknown"
    assert "∂L/∂V is right." in mistake.explanation
    found = re.search(r"at step (\d) of 6", mistake.explanation)
    assert found is not None, mistake.explanation
    assert int(found[1]) == step
    assert 'p["U"] @ p["x"][t] + p["W"]' in mistake.explanation


def test_a_gradient_that_is_wrong_alone_says_nothing_of_adjoints() -> None:
    loss, gradients, _, params = MODELS["sequence"]
    change = 'G["h0"] = later', 'G["h0"] = later; G["V"] *= np.array([[1.0], [1.3]])'
    (mistake,) = diagnose_numbers(loss, params, plant(gradients, change))
    assert mistake.name == "unknown"
    assert "∂L/∂V is wrong in row 1 only." in mistake.explanation
    assert "which gradient of" not in mistake.explanation


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([(1, 2)], "at the entry [1, 2]"),
        ([(1, 0), (1, 2)], "in row 1"),
        ([(0, 2), (1, 2), (2, 2), (3, 2)], "in column 2"),
        ([(i, j) for i in range(4) for j in range(3)], ""),
    ],
)
def test_the_wrong_part_of_a_gradient_is_described(places: Any, said: str) -> None:
    true = np.ones((4, 3))
    wrong = true.copy()
    for place in places:
        wrong[place] = 2.0
    witness = Witness(None, {"W": wrong}, {"W": true}, {"W": 1e-12 * true}, True)
    assert describe_wrong_part("W", [make_evidence(None, 1, witness, {"W": None})]) == said


@pytest.mark.parametrize(
    ("shape", "row", "said"),
    [
        ((3, 1, 3), slice(None), ""),
        ((1, 3), 0, ""),
        ((3, 1, 3), 2, "in row 2"),
        ((2, 1), 1, "at the entry [1, 0]"),
    ],
)
def test_a_place_on_an_axis_of_length_one_is_none(
    shape: tuple[int, ...], row: Any, said: str
) -> None:
    true = np.ones(shape)
    wrong = true.copy()
    wrong[row, ..., : max(1, shape[-1] - 1)] = 2.0  # not of every entry
    witness = Witness(None, {"W": wrong}, {"W": true}, {"W": 1e-12 * true}, True)
    assert describe_wrong_part("W", [make_evidence(None, 1, witness, {"W": None})]) == said


def test_the_number_of_pairs_that_were_tried_is_said() -> None:
    loss, gradients, _, params = MODELS["sequence"]
    change = 'G["h0"] = later', 'G["h0"] = later + p["h0"] ** 2'
    (mistake,) = diagnose_numbers(loss, params, plant(gradients, change))
    tried, total = mistake.details["pairs"]
    assert 0 < tried <= total
    assert f"{tried} likeliest of {total} pairs" in mistake.explanation


SPOILED = 'G["V"] *= 1 + G["V"] ** 2'


def test_what_a_known_mistake_explains_in_part_is_said() -> None:
    loss, gradients, _, params = MODELS["sequence"]
    change = ('p["W"].T @ a', 'p["W"] @ a'), ('G["h0"] = later', f'G["h0"] = later; {SPOILED}')
    (mistake,) = diagnose_numbers(loss, params, plant(gradients, *change))
    assert mistake.name == "unknown"
    said = "All but ∂L/∂V would be explained by untransposed-recurrent-weight: the line"
    assert said in mistake.explanation


@pytest.mark.parametrize(
    "changes",
    [
        [("dh = own + later", "dh = (own + later) * np.array([1.1, 0.7, 1.6])")],
        pytest.param([('G["h0"] = later', f'G["h0"] = later; {SPOILED}')], marks=pytest.mark.slow),
        pytest.param([('p["W"].T @ a', 'p["W"] @ a + a**2')], marks=pytest.mark.slow),
    ],
    ids=["all adjoints", "one gradient alone", "one path"],
)
def test_no_part_is_explained_where_no_known_mistake_was_made(changes: Any) -> None:
    loss, gradients, _, params = MODELS["sequence"]
    (mistake,) = diagnose_numbers(loss, params, plant(gradients, *changes))
    assert mistake.name == "unknown"
    assert "would be explained" not in mistake.explanation


def test_the_adjoints_of_all_steps_are_measured_where_gradients_determine_them() -> None:
    known, points = structure_of("sequence")
    right, _ = collect(known, points, {})
    measured = measure_adjoints(known, right[0])
    assert measured
    for gradients, errors in measured:
        assert gradients.startswith("∂L/∂")
        assert len(errors) == known.steps
        assert all(error.wrong is False for error in errors)
    wrong = right[0]._replace(
        wanted={
            name: each._replace(submitted=each.submitted * 2)
            for name, each in right[0].wanted.items()
        }
    )
    for _, errors in measure_adjoints(known, wrong):
        assert [error.relative for error in errors] == pytest.approx([1.0] * known.steps)
        assert all(error.wrong for error in errors)


@pytest.mark.parametrize(("relative", "wrong"), [(1e-6, False), (5e-4, None), (2e-3, True)])
def test_an_adjoint_is_wrong_right_or_neither(relative: float, wrong: bool | None) -> None:
    assert AdjointError(relative, 1e-5).wrong is wrong


@pytest.mark.parametrize("count", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_the_place_of_a_mistake_without_a_name_is_right_or_not_claimed(count: int) -> None:
    places = count_places(count, seed=5)
    assert places["wrong"] == 0
    assert places["right"] > 0


@pytest.mark.parametrize("kept", [np.array([0.37, -1.21, 2.03]), np.array([-1e303, 1e-3, 4e175])])
def test_a_gradient_that_differs_by_the_same_numbers_everywhere_is_said_to(kept: Any) -> None:
    def gradients(p: Any) -> Any:
        return {"a": 3 * p["a"] ** 2, "b": 3 * p["b"] ** 2 + kept}

    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(p["a"] ** 3) + xp.sum(p["b"] ** 3)

    params = {"a": np.ones(3), "b": np.ones(3)}
    (found,) = diagnose_numbers(loss, params, gradients)
    said = "Your ∂L/∂b differs from the true one by the same numbers in every case"
    assert found.name == "unknown"
    assert said in found.explanation

    def scaled(p: Any) -> Any:
        return {"a": 3 * p["a"] ** 2, "b": 3 * p["b"] ** 2 + kept * p["a"]}

    (found,) = diagnose_numbers(loss, params, scaled)
    assert "same numbers in every case" not in found.explanation


def test_a_gradient_of_what_is_only_counted_implies_a_wrong_adjoint() -> None:
    x = np.array([0.3, -1.2, 0.7])

    def loss(p: Any) -> Any:
        return np.sum((10 * (p["W"] @ x)).astype(int)) / 10 + p["v"]

    params = {"W": np.arange(9.0).reshape(3, 3) / 4, "v": np.array(0.5)}
    with use_float64():
        program = trace(lambda p, _: numpy_code.over_jax(loss, params)(p), params)
    known, true = structure(prune(program)), {"W": np.zeros((3, 3)), "v": np.array(1.0)}
    submitted = true | {"W": np.outer([0.4, 0.2, 0.9], x)}
    allowed = {name: np.full_like(value, 1e-14) for name, value in true.items()}
    witness = Witness(params, submitted, true, allowed, True)
    with use_float64():
        values = forward(known.program, params)
    evidence = [make_evidence(values, known.steps, witness, dict.fromkeys(true))]
    (expression,) = (each for each in find_expressions(known) if "W" in each.weights)
    with use_float64():
        fit = fit_everywhere(known, evidence, expression)
    assert fit == (expression, dict.fromkeys(expression.slots, True))
