"""The random models of the campaign: right where they should be, and wrong where they should be."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from campaign import submissions
from campaign.formulas import FUNCTIONS, SIGMOID, SOFTMAXES, draw_formulas
from campaign.mistakes import LINES, draw_wrong, list_changes, plant
from campaign.models import BACK, RUN, Model, derive, draw_model, run
from campaign.submissions import by_hand, by_jax, draw_right, loses_paths_where_given

SEED = 1
POOLINGS = "last", "mean", "attention", "every step"
HEADS = "mse", "half sse", "log cosh", "binary", "cross-entropy"


def find_model(wanted: Callable[[Model], bool]) -> Model:
    """The first small model that is as wanted."""
    drawn = (draw_model(SEED, number) for number in range(2000))
    return next(m for m in drawn if len(m.x) < 6 and len(m.layers) < 3 and wanted(m))


def has_layer(kind: str) -> Callable[[Model], bool]:
    return lambda model: kind in {layer.kind for layer in model.layers}


def ends_with(kind: str) -> Callable[[Model], bool]:
    return lambda model: kind in (model.pooling, model.head)


def differentiate(model: Model, params: Any) -> Any:
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):  # as for users
        return jax.grad(lambda p: run(model, p, jnp, model.formulas)[0])(params)


WANTED: dict[str, Callable[[Model], bool]] = {
    **{kind: has_layer(kind) for kind in RUN},
    "both directions": lambda model: any(len(layer.prefixes) > 1 for layer in model.layers),
    **{kind: ends_with(kind) for kind in (*POOLINGS, *HEADS)},
}


@pytest.mark.table(17)
@pytest.mark.parametrize("wanted", WANTED.values(), ids=WANTED)
def test_every_way_back_gives_the_gradients_of_autodiff(wanted: Callable[[Model], bool]) -> None:
    model = find_model(wanted)
    params = {name: value.astype(float) for name, value in model.settings[0].items()}
    rng = np.random.default_rng(0)
    f = draw_formulas(rng, model.formulas.activation)._replace(rotation="complex")
    found, true = derive(model, params, f), differentiate(model, params)
    for name in params:
        # 2²² roundoffs of the largest entry: thousands of operations, of a condition of thousands.
        size = np.max(np.abs(true[name])) + 1e-12
        np.testing.assert_allclose(found[name], true[name], rtol=0, atol=1e-9 * size, err_msg=name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_formulas_of_a_function_are_equal_and_so_are_those_of_its_slope(name: str) -> None:
    a = np.linspace(-3, 3, 14)
    function, step = FUNCTIONS[name], 1e-6
    first = next(iter(function.values.values()))
    # 45 roundoffs of numbers up to 3; differences lose ε² and 10⁻¹⁶ ÷ ε, of 10⁻⁶ each.
    for value in function.values.values():
        np.testing.assert_allclose(value(a, np), first(a, np), atol=1e-14)
    difference = (first(a + step, np) - first(a - step, np)) / (2 * step)
    for slope in function.slopes.values():
        np.testing.assert_allclose(slope(a, first(a, np)), difference, atol=1e-8)


def test_all_formulas_of_a_sigmoid_and_of_a_softmax_are_equal() -> None:
    a = np.linspace(-3, 3, 15).reshape(3, 5)
    for value in SIGMOID.values.values():  # 45 roundoffs: some five operations, of e^3 at most
        np.testing.assert_allclose(value(a, np), 1 / (1 + np.exp(-a)), rtol=1e-14)
    for softmax in SOFTMAXES.values():
        # The same: e^x has the absolute error of x, which is a difference of numbers up to 4.2.
        expected = np.exp(a) / np.exp(a).sum(axis=0)
        np.testing.assert_allclose(softmax(a, 0, np), expected, rtol=1e-14)


def test_a_seed_and_a_number_draw_one_model() -> None:
    one, same, other = draw_model(3, 7), draw_model(3, 7), draw_model(3, 8)
    assert one.label == same.label
    assert one.label != other.label
    for name, value in one.settings[0].items():
        np.testing.assert_array_equal(value, same.settings[0][name])


def test_models_of_all_sizes_and_kinds_are_drawn() -> None:
    models = [draw_model(0, number) for number in range(400)]
    kinds = {layer.kind for model in models for layer in model.layers}
    assert kinds == set(RUN)
    assert {model.pooling for model in models} == set(POOLINGS)
    assert {model.head for model in models} == set(HEADS)
    assert max(len(model.x) for model in models) > 50
    assert max(model.settings[0]["V"].shape[0] for model in models) > 64
    assert {len(model.settings) for model in models} == {1, 2}


PLANTED = [(kind, *line) for kind, lines in LINES.items() for line in lines]


@pytest.mark.parametrize(("kind", "right", "written"), PLANTED)
def test_every_line_of_the_table_can_be_written_otherwise(
    kind: str, right: str, written: str
) -> None:
    assert plant(BACK[kind], right, written).__name__ == BACK[kind].__name__


def test_a_text_that_does_not_occur_once_is_refused() -> None:
    with pytest.raises(ValueError, match="occurs 0 times"):
        plant(BACK["rnn"], "no such text", "")


def test_most_mistakes_change_the_gradients_and_their_twins_are_right() -> None:
    model = find_model(has_layer("rnn"))
    params, changed = model.settings[0], 0
    true = differentiate(model, {name: value.astype(float) for name, value in params.items()})
    for k in range(20):
        wrong = draw_wrong(model, np.random.default_rng(k))
        calls = [wrong.gradients({n: v.copy() for n, v in params.items()}) for _ in range(2)]
        right = wrong.right(params)
        changed += any(not np.array_equal(calls[1][name], right[name]) for name in params)
        for name in params:  # the twins are in float32: 10⁴ of its roundoffs
            np.testing.assert_allclose(right[name], true[name], rtol=1e-3, atol=1e-4)
    assert changed >= 12


def test_a_change_that_depends_on_calls_begins_anew_for_each_submission() -> None:
    model = find_model(has_layer("rnn"))
    params = model.settings[0]
    right = by_hand(model, model.formulas._replace(rotation="complex"), "hand")(params)
    for _ in range(2):
        changes = list_changes(model, np.random.default_rng(0))
        mistake = next(name for name in changes if "from the second call" in name)
        name, change = mistake.split()[0], changes[mistake]
        first, second = change(right, params), change(right, params)
        np.testing.assert_array_equal(first[name], right[name])
        np.testing.assert_array_equal(second[name], 0.9 * right[name])


def test_a_right_submission_is_finite_at_the_parameters_given() -> None:
    """In this model in float32, most formulas overflow there."""
    model = draw_model(20, 92)
    with np.errstate(all="ignore"):
        for k in range(3):
            gradients = draw_right(model, np.random.default_rng([20, 92, 0, k]), "hand")
            assert gradients is not None
            found = gradients(model.settings[0])
            assert all(np.isfinite(value).all() for value in found.values())


@pytest.mark.rest
def test_a_right_submission_loses_no_path_to_underflow_at_the_parameters_given() -> None:
    """In this model in float32, jax.grad of a plain softmax is wrong there, and finite."""
    model = draw_model(2202, 45)
    with jax.numpy_dtype_promotion("standard"):
        plain = by_jax(model, model.formulas._replace(softmax="plain"), "jax default")
        shifted = by_jax(model, model.formulas._replace(softmax="shifted"), "jax default")
        assert submissions.is_finite_where_given(model, plain)
        assert loses_paths_where_given(model, plain, shifted)
        drawn = draw_right(model, np.random.default_rng([2202, 45, 0, 7]), "jax default")
        assert drawn is not None
        assert not loses_paths_where_given(model, drawn, shifted)


@pytest.mark.parametrize(("share", "lost"), [(0.0, False), (0.4, False), (0.6, True)])
def test_a_path_is_lost_where_half_of_a_gradient_is(share: float, lost: bool) -> None:
    stated: Any = SimpleNamespace(settings=({"w": np.ones(2)}, {"w": np.array([1.0, -4.0])}))

    def less(p: Any) -> Any:
        return {"w": p["w"] * (1 - share), "b": np.ones(1)}

    def whole(p: Any) -> Any:
        return {"w": p["w"], "b": np.ones(1)}

    assert loses_paths_where_given(stated, less, whole) is lost


def test_no_right_submission_is_drawn_where_no_formula_is_finite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr(
        submissions, "is_finite_where_given", lambda model, found: asked.append(found)
    )
    drawn = draw_right(draw_model(SEED, 0), np.random.default_rng(0), "hand")
    assert drawn is None
    assert 0 < len(asked) <= submissions.DRAWS
