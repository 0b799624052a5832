"""What a loss is called with and returns: settings, a namespace or none, and one number."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.attempt import Failure
from bptt_verifier.reference.scalar_loss import (
    find_settings,
    give_jax_arrays,
    ignore_namespace,
    refuses_arrays,
    require_one_value,
    to_scalar,
)

ONES, HALVES = {"W": np.ones((2, 2))}, {"W": np.full((3, 3), 0.5)}


def of_one_setting(params: Any, np: Any) -> Any:
    """Compute the loss of one setting."""
    return np.sum(params["W"] ** 2)


def of_two_layers(params: Any, np: Any) -> Any:
    """Compute the loss of a model of two layers."""
    return np.sum(params[0]["W"]) + np.sum(params[1]["W"])


def test_a_loss_in_plain_numpy_is_given_a_namespace_as_well() -> None:
    loss = ignore_namespace(lambda params: 2 * params)
    assert loss(21, None) == 42
    assert loss.__name__ == "<lambda>"


def test_a_mapping_or_another_structure_is_one_setting() -> None:
    for given in (ONES, (np.ones(2), np.ones(3)), [ONES, np.ones(2)]):
        (tree,) = find_settings(of_one_setting, given)
        assert tree.params is given


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_dicts_is_one_setting_each_unless_the_loss_takes_it(kind: Any) -> None:
    given = kind([ONES, HALVES])
    trees = find_settings(of_one_setting, given)
    assert [tree.params for tree in trees] == [ONES, HALVES]
    (whole,) = find_settings(of_two_layers, given)
    assert [*whole.leaves] == ["params[0].W", "params[1].W"]
    (plain,) = find_settings(lambda p: of_two_layers(p, np), given)  # type: ignore[arg-type, misc]
    assert plain.params is given


@pytest.mark.parametrize(
    "returned",
    [
        lambda p: np.array([np.sum(p[0]["W"]), 1.0]),
        len,
        lambda p: np.zeros(0),
    ],
    ids=["two numbers", "an integer", "none"],
)
def test_a_loss_takes_a_list_only_if_it_returns_one_real_number(returned: Any) -> None:
    assert len(find_settings(lambda p, _: returned(p), [ONES, HALVES])) == 2


def test_settings_have_the_same_names() -> None:
    def of_both(params: Any, np: Any) -> Any:
        return np.sum(params["W"]) if "W" in params else np.sum(params["U"])

    with pytest.raises(ValueError, match="params: expected the same names in every setting"):
        find_settings(of_both, [ONES, {"U": np.ones(2)}])


def test_parameters_that_a_loss_modifies_stay_as_they_are() -> None:
    def of_changed(params: Any, _: Any) -> Any:
        params[0]["W"] *= 0
        return params[0]["W"].sum()

    given = [{"W": np.ones(2)}]
    find_settings(of_changed, given)
    assert given[0]["W"].all()


def returns_a_pair(p: Any) -> Any:
    loss, accuracy = p.sum(), 0.5
    return loss, accuracy


def test_a_loss_of_several_values_is_refused_by_their_names() -> None:
    with pytest.raises(ValueError, match="found a tuple of loss, accuracy; return the loss"):
        require_one_value((1.0, 0.5), returns_a_pair)
    for several, said in (((1.0, 2.0, 3.0), "a tuple of 3 values"), ({"L": 1.0}, "a dict of 1")):
        with pytest.raises(ValueError, match=f"loss: expected a real scalar, found {said}"):
            require_one_value(several, len)


def test_one_value_and_a_failure_are_not_refused() -> None:
    for found in (1.0, np.ones(1), Failure("ValueError", "ValueError", "", "")):
        require_one_value(found, len)


def test_a_loss_of_one_entry_has_no_axes() -> None:
    assert to_scalar(1.5) == 1.5
    assert np.shape(to_scalar(np.array([[1.5]], np.float32))) == ()
    assert to_scalar(np.float64(2.0)).dtype == np.float64


@pytest.mark.parametrize("count", [int, np.int8, lambda n: np.array([[n]]), jnp.int32])
def test_a_loss_that_counts_becomes_a_number_with_a_derivative(count: Any) -> None:
    found = to_scalar(count(3))
    assert jnp.issubdtype(found.dtype, jnp.floating)
    assert float(found) == 3


LOOKED_UP = {"E": np.linspace(-1, 1, 12).reshape(6, 2), "W": np.array([[0.4, -0.3], [0.2, 0.5]])}


def look_up(p: Any) -> Any:
    """Compute the loss of a scan that takes rows of E; NumPy's arrays take none by tracers."""

    def step(h: Any, i: Any) -> Any:
        return jnp.tanh(p["W"] @ h + p["E"][i]), None

    return jnp.sum(jax.lax.scan(step, jnp.zeros(2), np.array([1, 3, 3, 0]))[0] ** 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.0, "agrees"), pytest.param(1.01, "disagrees", marks=pytest.mark.slow)],
)
def test_a_loss_in_jax_that_its_user_differentiates_alone_is_judged(
    factor: float, verdict: str
) -> None:
    def gradients(p: Any) -> Any:
        found = jax.grad(look_up)({name: jnp.asarray(value) for name, value in p.items()})
        return {"E": np.asarray(found["E"]), "W": factor * np.asarray(found["W"])}

    with pytest.raises(jax.errors.TracerArrayConversionError):
        look_up(LOOKED_UP)
    report = verify_own_model(gradients, look_up, LOOKED_UP, cases=2)
    assert report.verdict.value == verdict, str(report)


def test_arrays_of_jax_are_given_only_where_numpys_are_refused() -> None:
    def raising(p: Any, xp: Any) -> Any:
        raise TypeError(f"{p} {xp}")

    assert refuses_arrays(ignore_namespace(look_up), LOOKED_UP)
    assert not refuses_arrays(raising, LOOKED_UP)
    assert not refuses_arrays(lambda p, xp: xp.sum(p["W"]), LOOKED_UP)
    given = give_jax_arrays(lambda p, xp: (p, xp))({"W": np.ones(2), "k": 3}, np)
    assert isinstance(given[0]["W"], jax.Array)
    assert (given[0]["k"], given[1]) == (3, np)
