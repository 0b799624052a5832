"""The search: the fewest mistakes for all gradients, and pairs ranked by their effects."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes import own_models as own_hypotheses
from bptt_verifier.mistakes.coincidences import is_coincidence
from bptt_verifier.mistakes.evidence import Witness, make_evidence
from bptt_verifier.mistakes.operation_mistakes import OperationMistake, can_merge, merge
from bptt_verifier.mistakes.other_names import add_names
from bptt_verifier.mistakes.own_models import OwnHypotheses
from bptt_verifier.mistakes.pair_order import (
    measure_error,
    rank_by_count,
    rank_by_effect,
    rank_by_row,
)
from bptt_verifier.mistakes.search import cover
from bptt_verifier.mistakes.single_gradients import Finding
from bptt_verifier.program.backward import Change, backward
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.trace import forward, trace
from bptt_verifier.report import Mistake
from tests.support import own_models
from tests.support.diagnosis import diagnose_numbers, plant
from tests.support.further_models import MODELS
from tests.support.own_mistakes import planted


@pytest.mark.parametrize(
    ("possible", "chosen"),
    [
        ({"U": "ab", "W": "b"}, [("b", ["U", "W"])]),
        ({"U": "a", "W": "ab", "V": "b"}, [("a", ["U", "W"]), ("b", ["V"])]),
        ({"U": "a", "W": "b", "V": "c"}, [("a", ["U"]), ("b", ["W"]), ("c", ["V"])]),
        ({"U": "a", "W": "a", "V": "c", "b": "d"}, [("a", ["U", "W"]), ("c", ["V"]), ("d", ["b"])]),
    ],
)
def test_the_fewest_kinds_cover_all_gradients(possible: Any, chosen: Any) -> None:
    listed = {name: [(kind, None) for kind in kinds] for name, kinds in possible.items()}
    assert cover(listed) == chosen


def test_pairs_whose_effects_add_up_to_the_error_come_first() -> None:
    effects = np.random.default_rng(0).normal(size=(30, 12)).astype(np.float32)
    error = effects[7] + effects[21] + 1e-3
    _, _, together = measure_error(error, effects, [slice(0, 12)])
    assert next(rank_by_effect(together)) == (7, 21)
    assert [*rank_by_effect(together[:1, :1])] == []


def test_a_gradient_that_is_explained_exactly_counts_more_than_a_smaller_error() -> None:
    effects = np.random.default_rng(0).normal(size=(30, 12)).astype(np.float32)
    error, parts = effects[7] + effects[21], [slice(0, 3), slice(3, 12)]
    error[3:] *= 3  # both mistakes amplify each other there
    effects[:2] = error / 2 + 0.1  # these are nearer in every entry
    _, _, together = measure_error(error, effects, parts)
    assert next(rank_by_effect(together)) == (7, 21)


def test_a_promising_mistake_meets_its_best_partners_early_though_their_effects_do_not_add() -> (
    None
):
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(200, 12)).astype(np.float32)
    error = effects[150] + 0.7 * effects[199] + 0.3 * effects[198]
    alone, squared, together = measure_error(error, effects, [slice(0, 12)])
    order = [*rank_by_row(alone, squared, together)]
    assert order.index((150, 199)) < 20
    assert all(i < j for i, j in order)
    assert {k for pair in order[:99] for k in pair} > {150, 198, 199}
    assert [*rank_by_row(alone[:1], squared[:1], together[:1, :1])] == []


def test_a_mistake_that_leaves_little_of_the_error_meets_every_other_one() -> None:
    rng = np.random.default_rng(0)
    alone, squared, together = rng.random(9), rng.random(9), rng.random((9, 9))
    alone[4], squared[7] = -1, -1  # each is the first by one of the two measures
    order = [*rank_by_row(alone, squared, together)]
    half = [pair for i in (4, 7) for pair in order if i in pair]
    assert {k for pair in half for k in pair} == {*range(9)}
    assert all(4 in pair for pair in order[:4])
    assert all(7 in pair for pair in order[5:8])
    assert {*order} == {(i, j) for j in range(9) for i in range(j)}


SLOPE_OF_SIGMOID = "(1 - h[t + 1] ** 2)", "h[t + 1] * (1 - h[t + 1])"
LAST_STEP_ALONE = "dh = own + later", "dh = own * (t == STEPS - 1) + later"


@pytest.mark.rest
def test_two_mistakes_on_one_path_are_both_named() -> None:
    loss, gradients, _, params = MODELS["sequence"]
    wrong = plant(gradients, SLOPE_OF_SIGMOID, LAST_STEP_ALONE)
    found = diagnose_numbers(loss, params, wrong)
    names = ["activation-derivative-of-another-function", "output-gradient-missing"]
    assert sorted(mistake.name for mistake in found) == names


@pytest.mark.rest
def test_a_factor_on_a_path_is_read_beside_a_gradient_that_is_clipped() -> None:
    loss, gradients, _, params = MODELS["sequence"]
    wrong = plant(gradients, ('own = p["V"]', 'own = 0.37 * p["V"]'))
    found = diagnose_numbers(
        loss, params, lambda p: (g := wrong(p)) | {"U": np.clip(g["U"], -0.3, 0.3)}
    )
    assert [(m.name, m.details.get("factor")) for m in found] == [
        ("constant-factor", 0.37), ("clipped", None),
    ]  # fmt: skip


@pytest.mark.rest
def test_a_clipped_gradient_is_named_beside_another_mistake_though_one_case_has_one_number() -> (
    None
):
    loss, gradients, _, params = MODELS["normalised"]
    wrong = plant(gradients, ("dn - dn.mean() - n", "dn - n"))
    found = diagnose_numbers(
        loss, params, lambda p: (g := wrong(p)) | {"g": np.clip(g["g"], -0.01, 0.01)}
    )
    names = ["clipped", "normalisation-path-missing"]
    assert sorted(mistake.name for mistake in found) == names


def test_beside_a_promising_mistake_the_common_ones_are_tried_first() -> None:
    order = [*rank_by_count([2, 1, 3, 2], 1, [0.0, 0.0, 0.0, -1.0], common=2)]
    assert order[:5] == [(0, 2), (1, 2), (0, 3), (1, 3), (0, 1)]
    assert sorted(order) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]


def test_an_infinite_gradient_explains_nothing() -> None:
    true = np.ones(3)
    witness = Witness(None, {"b": 2 * true}, {"b": true}, {"b": 1e-12 * true}, True)
    case = make_evidence(None, 1, witness, {"b": None})
    assert case.explains("b", 2 * true)
    assert not case.explains("b", np.array([np.inf, 2, 2]))
    assert not case.explains("b", np.array([np.nan, 2, 2]))


@pytest.mark.parametrize("scale", [1e300, 1e-310])
def test_gradients_near_the_limits_of_float64_are_diagnosed(scale: float) -> None:
    def wrong(p: Any) -> dict[str, Any]:
        return {"a": scale * p["a"] * np.array([2.0, 3.0, 5.0])}

    params = {"a": np.ones(3)}
    (mistake,) = diagnose_numbers(lambda p, xp: scale * xp.sum(p["a"] ** 2), params, wrong)
    assert mistake.name == "unknown"


def test_a_mistake_in_one_gradient_alone_is_named_with_that_gradient() -> None:
    loss, gradients, _, params = MODELS["sequence"]
    change = ('G["V"] +=', 'G["V"] ='), ('G["U"] +=', 'G["U"] =')
    (mistake,) = diagnose_numbers(loss, params, plant(gradients, *change))
    assert mistake.explanation.startswith("in ∂L/∂U and ∂L/∂V only: ")
    assert mistake.details["gradients"] == ["U", "V"]


STEP_ALONE = ('G["W"][layer] +=', 'G["W"][layer] ='), ('G["U"][layer] +=', 'G["U"][layer] =')


def test_the_weights_of_the_state_may_lack_the_sum_over_time_together() -> None:
    loss, gradients, _, params = MODELS["stacked"]
    (mistake,) = diagnose_numbers(loss, params, plant(gradients, *STEP_ALONE))
    assert mistake.name == "missing-time-sum"
    assert (
        "in the gradient of the weights of the state, only the first step is kept"
        in mistake.explanation
    )


def test_two_mistakes_that_amplify_each_other_are_both_named() -> None:
    loss, gradients, _, params = MODELS["sequence"]
    slope = "(1 - h[t + 1] ** 2)", "(1 - (h[t] if t else 0 * h[t]) ** 2)"
    clip = 'later = p["W"].T @ a', 'later = np.clip(p["W"].T @ a, -0.1, 0.1)'
    found = diagnose_numbers(loss, params, plant(gradients, slope, clip))
    assert sorted(mistake.name for mistake in found) == ["clipped", "hidden-state-off-by-one"]


@pytest.mark.rest
def test_two_common_mistakes_are_both_named_though_neither_explains_a_gradient() -> None:
    loss, _, _, params = own_models.MODELS["tagger"]
    changes = ("* (1 - h[t + 1] ** 2)", "* 1"), ('@ p["S"] + dnext', '@ p["S"]')
    found = diagnose_numbers(loss, params, planted("tagger", *changes))
    names = sorted(mistake.name for mistake in found)
    assert names == ["activation-derivative-missing", "recurrent-path-dropped"]


def test_two_mistakes_in_the_backward_pass_are_both_named() -> None:
    loss, gradients, _, params = MODELS["normalised"]
    change = ('p["W"].T @ da', 'p["W"] @ da'), ("(1 - h**2)", "(1 - np.tanh(h) ** 2)")
    found = diagnose_numbers(loss, params, plant(gradients, *change))
    assert sorted(mistake.name for mistake in found) == [
        "activation-derivative-of-activated-value",
        "untransposed-recurrent-weight",
    ]


@pytest.mark.rest
def test_two_mistakes_in_what_one_operand_gets_are_both_named() -> None:
    loss, gradients, _, params = MODELS["sequence"]
    change = 'later = p["W"].T @ a', 'later = p["W"] @ a * (t != 3)'
    found = diagnose_numbers(loss, params, plant(gradients, change))
    assert sorted(mistake.name for mistake in found) == [
        "truncated",
        "untransposed-recurrent-weight",
    ]


def test_a_number_scales_what_another_mistake_passes_back_and_sends() -> None:
    edge, slope, array = (3, 1), np.array([2.0, 3.0]), np.array([5.0])
    zero = {edge: Change(1, after=0.0)}
    other = {edge: Change(1, after=2.0, send=((7, slope),)), (4, 0): Change(0, before=slope)}
    assert can_merge(zero, other)
    assert can_merge(other, zero)
    for every in ([zero, other], [other, zero]):
        merged = merge(every)
        assert merged[edge].after == 0
        assert merged[edge].send[0][1].tolist() == [0, 0]
        assert merged[4, 0] is other[4, 0]
    assert not can_merge(other, {edge: Change(1, after=array)})
    assert not can_merge(zero, {edge: Change(1, after=2.0, also=(7,))})
    assert can_merge(zero, {(4, 1): Change(1, before=slope)})


def test_another_name_that_gives_the_same_numbers_is_told() -> None:
    loss, gradients, _, params = MODELS["sequence"]
    # Without the slope in what is carried, each loss reaches the step before it and no other.
    change = 'later = p["W"].T @ a', 'later = p["W"].T @ (own * (1 - h[t + 1] ** 2))'
    (mistake,) = diagnose_numbers(loss, params, plant(gradients, change))
    names = {mistake.name, *mistake.details["or"]}
    assert names >= {"truncated", "recurrent-path-dropped"}
    assert "Or " in mistake.explanation


LAST_STEP = 'g["W"] += h[t]', 'g["W"] += (t < STEPS - 1) * h[t]'


def test_another_name_from_a_later_tier_is_told() -> None:
    loss, _, _, params = own_models.MODELS["batch"]
    (mistake,) = diagnose_numbers(loss, params, planted("batch", LAST_STEP))
    assert mistake.name == "last-step-skipped"
    assert mistake.details["or"] == ["output-gradient-missing"]
    assert " Or output-gradient-missing: " in mistake.explanation


def test_layers_of_several_sizes_are_no_states_of_which_each_has_the_loss() -> None:
    x, y = np.array([[0.2, -0.4, 0.9], [0.5, 0.1, -0.3]]), np.array([[0.1, 0.7], [0.4, -0.2]])

    def loss(p: Any, xp: Any) -> Any:
        h = x
        for layer, name in enumerate("UV"):
            h = h @ p[name] + p["b" + name]
            h = h if layer else xp.tanh(h)
        return xp.sum((h - y) ** 2)

    def gradients(p: Any) -> Any:
        h = np.tanh(x @ p["U"] + p["bU"])
        d = 2 * (h @ p["V"] + p["bV"] - y)
        a = d @ p["V"].T  # the slope is missing
        return {"U": x.T @ a, "bU": a.sum(axis=0), "V": h.T @ d, "bV": d.sum(axis=0)}

    shapes = {"U": (3, 4), "bU": (4,), "V": (4, 2), "bV": (2,)}
    params = {name: np.ones(shape) for name, shape in shapes.items()}
    found = diagnose_numbers(loss, params, gradients)
    assert [mistake.name for mistake in found] == ["activation-derivative-missing"], found


def test_other_names_are_sought_among_so_many_mistakes_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss, _, _, params = own_models.MODELS["batch"]
    monkeypatch.setattr(OwnHypotheses, "others", 0)
    (mistake,) = diagnose_numbers(loss, params, planted("batch", LAST_STEP))
    assert mistake.name == "last-step-skipped"
    assert "or" not in mistake.details


def test_a_mistake_in_an_operation_is_told_beside_one_in_gradients_alone() -> None:
    loss, _, _, params = own_models.MODELS["plain"]
    change = " / len(POINTS)", ""
    (mistake,) = diagnose_numbers(loss, params, planted("plain", change))
    assert mistake.name == "factor-missing"  # the more specific one
    assert mistake.details["or"] == ["constant-factor"]


def test_an_explanation_describes_two_other_names_and_the_details_have_all() -> None:
    first, *others = (Mistake(name, f"{name} said.", {}) for name in ("a", "b", "c", "d"))
    found = add_names(add_names(first, [first, others[0]]), others)
    assert found.explanation == ("a said. Or b: b said. Or c: c said. Or d, with the same numbers.")
    assert found.details["or"] == ["b", "c", "d"]


def test_a_bias_of_which_one_step_is_kept_is_no_row_that_is_looked_up() -> None:
    loss, _, _, params = own_models.MODELS["tagger"]
    wrong = planted("tagger", ("db += da.sum(axis=0)", "db = da.sum(axis=0)"))
    (mistake,) = diagnose_numbers(loss, params, wrong)
    assert mistake.name == "bias-part-missing"
    assert mistake.explanation.endswith("only the first step is kept in the sum over time.")


def make_known() -> OwnHypotheses:
    """Make the hypotheses of a small loss, with right gradients as evidence."""

    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(xp.tanh(p["W"] @ p["x"]) ** 2)

    params = {"W": np.ones((2, 2)), "x": np.array([0.3, 0.4])}
    with use_float64():
        program = trace(loss, params)
        values = forward(program, params)
        true = {name: found[0] for name, found in backward(program, values).items()}
        witness = Witness(
            params, true, true, {n: 1e-12 * np.ones_like(v) for n, v in true.items()}, True
        )
        return OwnHypotheses(program, [make_evidence(values, 1, witness, dict.fromkeys(true))])


def test_a_mistake_that_makes_no_sense_in_a_program_explains_nothing() -> None:
    known = make_known()
    (edge,) = [i for i, each in enumerate(known.program.operations) if each.name == "tanh"]
    change = {(edge, 0): Change(0, after=np.ones(7))}  # a factor of another shape
    foolish = OperationMistake("foolish", "", 0, lambda values: change, {}, ())
    with use_float64():
        made = [(each,) for each in next(iter(known.tiers))][:3]
        rows = known.sweep_rows(known.evidence[0], [made[0], (foolish,), *made[1:]])
        alone = known.sweep_rows(known.evidence[0], made)
        explained = known.match(known.evidence[0], [(foolish,)])
    for name, found in rows.items():
        assert np.isnan(found[1]).all()
        np.testing.assert_array_equal(found[[0, 2, 3]], alone[name])
    assert explained == [frozenset()]


def test_a_sweep_has_no_more_rows_than_the_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_hypotheses, "IN_CACHE", 9)  # the largest array has four numbers
    known, swept = make_known(), list[int]()
    assert known.batch == 256

    def sweep(program: Any, values: Any, rows: Any) -> Any:
        swept.append(len(rows))
        return backward(program, values, rows)

    monkeypatch.setattr(own_hypotheses, "backward", sweep)
    with use_float64():
        made = [(each,) for each in next(iter(known.tiers))][:5]
        rows = known.sweep_rows(known.evidence[0], made)
        alone = [known.sweep_all(known.evidence[0], [each]) for each in made]
    assert swept == [2, 1, 2, *[1] * 5]
    for name, found in rows.items():
        np.testing.assert_array_equal(found, np.concatenate([each[name] for each in alone]))


def test_a_weight_of_many_products_and_constants_leave_a_sweep_as_many_rows() -> None:
    """The cotangent of W is written once, and that of x never; a W used once counts as a value."""
    x = np.ones((500, 3))

    def loss(p: Any, xp: Any, steps: int) -> Any:
        h = xp.sum(x) * xp.ones(3)
        for _ in range(steps):
            h = xp.tanh(p["W"] @ h)[:3]
        return xp.sum(h)

    for steps, largest in ((1, 600), (2, 200)):
        params = {"W": np.ones((200, 3))}
        with use_float64():
            program = trace(partial(loss, steps=steps), params)
            values = forward(program, params)
            right = {name: found[0] for name, found in backward(program, values).items()}
            witness = Witness(params, right, right, right, True)
            known = OwnHypotheses(program, [make_evidence(values, 1, witness, {"W": None})])
        assert known.at_once == own_hypotheses.IN_CACHE // largest


def test_single_mistakes_are_swept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    known = make_known()
    with use_float64():
        made = [(each,) for each in next(iter(known.tiers))][:5]
        known.match(known.evidence[0], made)
        fresh = known.split_rows(known.evidence[0], known.sweep_rows(known.evidence[0], made), 5)
        monkeypatch.setattr(known, "sweep_rows", None)
        kept = known.sweep_back(known.evidence[0], made)
    for one, other in zip(kept, fresh, strict=True):
        np.testing.assert_array_equal(one.gradient("W"), other.gradient("W"))


def test_two_mistakes_in_a_gradient_that_give_the_same_numbers_are_both_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(xp.sin(p["a"])) + xp.sum(xp.sin(p["b"]))

    def list_two(name: str, evidence: Any, backs: Any) -> Any:
        for word, factor in (("one", 2.5), ("zero-gradient", 2.5), ("two", 2.5), ("three", 3.0)):
            yield Finding(word, f"{word} of them", {}, partial(scale, factor, name))

    def scale(factor: float, name: str, back: Any) -> Any:
        return factor * back.gradient(name)

    monkeypatch.setattr(OwnHypotheses, "list_findings", lambda _, *of: list_two(*of))
    params = {"a": np.ones(3), "b": np.ones(2)}
    (mistake,) = diagnose_numbers(
        loss, params, lambda p: {n: 2.5 * np.cos(v) for n, v in p.items()}
    )
    assert mistake.explanation == (
        "in ∂L/∂a and ∂L/∂b, one of them. Or two: two of them."
        " Or zero-gradient: zero-gradient of them."
    )
    assert mistake.details["or"] == ["two", "zero-gradient"]


def test_a_factor_that_has_a_name_is_no_second_explanation() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(xp.sin(p["a"]))

    (mistake,) = diagnose_numbers(loss, {"a": np.ones(3)}, lambda p: {"a": -np.cos(p["a"])})
    assert mistake.name == "sign-flipped"
    assert "or" not in mistake.details


@pytest.mark.parametrize(
    ("name", "factor", "gradients", "places", "expected"),
    [
        ("constant-factor", "0.429", "aW", 2, True),
        ("constant-factor", "0.429", "aW", 1, False),  # one mistake, and any factor
        ("constant-factor", "0.429", "a", 2, False),  # in some gradients only
        ("constant-factor", "5, the number of steps,", "aW", 2, False),
        ("sign-flipped", None, "aW", 2, False),
    ],
)
def test_an_unexplained_factor_of_all_gradients_is_a_coincidence_beside_a_set_of_places(
    name: str, factor: str | None, gradients: str, places: int, expected: bool
) -> None:
    words = [SimpleNamespace(words="2"), SimpleNamespace(words="5, the number of steps,")]
    known: Any = SimpleNamespace(factors=words, count_places=lambda made: places)
    case: Any = SimpleNamespace(wanted=dict.fromkeys("aW"))
    details = {"gradients": [*gradients], "factor": factor}
    assert is_coincidence(known, case, None, Mistake(name, "", details)) == expected
