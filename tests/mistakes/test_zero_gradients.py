"""A gradient that is zero at any point explains no factor of it, and has a reason."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.mistakes.evidence import Evidence, Wanted, Witness, make_evidence
from bptt_verifier.mistakes.known_factors import scale_path
from bptt_verifier.mistakes.operation_mistakes import OperationMistake
from bptt_verifier.mistakes.single_gradients import write_factor
from bptt_verifier.report import Mistake
from tests.support.diagnosis import diagnose_numbers, ones

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 2))
LEAST = 1e-11  # allowed errors of a gradient whose terms cancel


def centred(p: Any, xp: Any) -> Any:
    a = X @ p["W"] + p["b"]
    n = a - xp.mean(a, axis=0)
    return xp.sum((xp.tanh(p["g"] * n) - Y) ** 2)


def shifted(p: Any, xp: Any) -> Any:
    z = (X @ p["W"]).T + p["b"]
    e = xp.exp(z)
    return -xp.sum(xp.log(e / xp.sum(e, axis=1, keepdims=True)) * Y.T)


def find_gradients(p: Any) -> tuple[dict[str, Any], Any]:
    """The right gradients of the centred loss, and what passes back to the normalised values."""
    a = X @ p["W"] + p["b"]
    n = a - a.mean(0)
    h = np.tanh(p["g"] * n)
    d = 2 * (h - Y) * (1 - h**2)
    dn = d * p["g"]
    return {"W": X.T @ (dn - dn.mean(0)), "b": 0 * p["b"], "g": (d * n).sum(0)}, dn


def judge(wrong: Callable[[Any, Any], Any]) -> tuple[Mistake, ...]:
    def gradients(p: Any) -> Any:
        found, dn = find_gradients(p)
        return found | {"b": np.broadcast_to(wrong(p, dn), p["b"].shape).copy()}

    shapes = ones(W=(3, 2), b=(2,), g=(2,))
    return diagnose_numbers(centred, shapes, gradients, least=LEAST)


NUMBERS: dict[str, Callable[[Any, Any], Any]] = {
    "a constant": lambda p, dn: 5e-9,
    "large constants": lambda p, dn: np.array([0.3, -2.0]),
    "another constant": lambda p, dn: 1e-6,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_no_factor_explains_numbers_in_the_place_of_zero(name: str) -> None:
    (found,) = judge(NUMBERS[name])
    assert found.name == "unknown", found.explanation
    assert "or" not in found.details
    why = "∂L/∂b is zero for all values of the parameters, and yours is not: the loss does not"
    why += " depend on b. `a - xp.mean(a, axis=0)` (test_zero_gradients.py:"
    assert why in found.explanation
    assert "does not change with it." in found.explanation


def test_the_sum_without_the_path_of_the_mean_has_its_name_alone() -> None:
    (found,) = judge(lambda p, dn: dn.sum(0))
    assert found.name == "normalisation-path-missing", found.explanation
    assert "or" not in found.details
    assert "the loss does not depend on b" in found.explanation


def test_a_factor_on_a_path_that_cancels_explains_nothing_alone() -> None:
    found = judge(lambda p, dn: 0.37 * dn.sum(0))
    assert "path-counted-twice" not in [each.name for each in found]
    assert not any("path-counted-twice" in each.details.get("or", ()) for each in found)
    assert "the loss does not depend on b" in found[0].explanation


def test_a_wrong_sign_in_all_gradients_is_found_beside_a_gradient_of_zero() -> None:
    def gradients(p: Any) -> Any:
        found, dn = find_gradients(p)
        da = dn + dn.mean(0)
        return found | {"W": X.T @ da, "b": da.sum(0)}

    (found,) = diagnose_numbers(centred, ones(W=(3, 2), b=(2,), g=(2,)), gradients, least=LEAST)
    assert found.name == "sign-flipped", found.explanation


def test_a_shift_of_a_softmax_cancels_in_the_quotient() -> None:
    def gradients(p: Any) -> Any:
        z = (X @ p["W"]).T + p["b"]
        q = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        d = Y.T.sum(1, keepdims=True) * q - Y.T
        return {"W": (d @ X).T, "b": p["b"] * 0 + 1e-5}

    (found,) = diagnose_numbers(shifted, ones(W=(3, 2), b=(2, 1)), gradients, least=LEAST)
    assert "`e / xp.sum(e, axis=1, keepdims=True)`" in found.explanation
    assert "the loss does not depend on b" in found.explanation
    assert found.name == "unknown", found.explanation


@pytest.mark.rest
def test_what_a_running_maximum_takes_from_all_it_passes_on_itself() -> None:
    def stabilised(p: Any, xp: Any) -> Any:
        m, total = np.full(2, -1e38), 0.0
        for x_t in X:
            a = x_t @ p["W"] + p["b"]
            highest = xp.maximum(m, a)
            total, m = total + xp.sum(xp.exp(a - highest) * (1 + x_t[0])), m * 0 + highest
        return total

    def gradients(p: Any) -> Any:
        (grad,) = (jax.grad(lambda q: stabilised(q, jnp))(p),)
        return {"W": np.asarray(grad["W"]), "b": np.full(2, 0.3)}

    (found,) = diagnose_numbers(stabilised, ones(W=(3, 2), b=(2,)), gradients, least=LEAST)
    assert "does not depend on b. `a - highest` (" in found.explanation
    assert "xp.maximum" not in found.explanation


def test_a_parameter_itself_in_the_place_of_zero_is_an_update() -> None:
    (found,) = judge(lambda p, dn: p["b"])
    assert found.name == "update-returned"


def test_the_gradient_of_another_parameter_in_the_place_of_zero_is_named() -> None:
    (found,) = judge(lambda p, dn: find_gradients(p)[0]["g"])
    assert found.name == "wrong-operand"


def test_zero_is_not_the_gradient_of_a_parameter_that_cancels() -> None:
    def gradients(p: Any) -> Any:
        return find_gradients(p)[0] | {"g": 0 * p["g"]}

    (found,) = diagnose_numbers(centred, ones(W=(3, 2), b=(2,), g=(2,)), gradients, least=LEAST)
    assert "wrong-operand" not in (found.name, *found.details.get("or", ()))


def test_a_report_has_no_resolution_of_a_gradient_that_is_zero() -> None:
    def gradients(p: Any) -> Any:
        return find_gradients(p)[0]

    params = {"W": X[:3, :2].copy(), "b": np.array([0.7, -0.4]), "g": np.array([1.1, 0.6])}
    report = verify_own_model(gradients, centred, params, cases=8)
    assert report, str(report)
    assert report.to_dict()["parameters"]["b"]["resolution"] is None
    assert report.to_dict()["parameters"]["g"]["resolution"] < 1e-9
    assert any("of ∂L/∂b pass as zero" in note for note in report.notes)


def test_what_is_zero_to_rounding_says_nothing_of_how_errors_grow() -> None:
    true = np.array([3e-15, -1e-16])
    witness = Witness(None, {"b": true + 5e-9}, {"b": true}, {"b": np.full(2, 1e-12)}, True)
    case = make_evidence(None, 1, witness, {"b": None})
    assert case.wanted["b"].relative == 2 * np.finfo(float).eps
    assert case.is_zero("b", true)
    assert not case.is_zero("b", true + 9e-12)
    assert not case.explains("b", true)
    assert case.find_size("b") == pytest.approx(1e-12 / (2 * np.finfo(float).eps))


def test_the_size_of_a_gradient_is_its_largest_entry_where_it_has_one() -> None:
    wanted = Wanted(np.ones(2), np.full(2, 1e-12), 1e-13, None)
    assert Evidence(None, {"b": np.array([2.0, -3.0])}, {"b": wanted}).find_size("b") == 3
    exact = wanted._replace(allowed=np.zeros(2))
    assert Evidence(None, {"b": np.zeros(2)}, {"b": exact}).find_size("b") == 1


def test_a_factor_near_one_is_written_by_its_distance() -> None:
    assert write_factor(1 + 3.3e-7, 6) == "1 + 3.3e-07"
    assert write_factor(1 - 2e-4, 6) == "1 − 0.0002"
    assert [write_factor(each, 6) for each in (0.5, 1.0, 1.25)] == ["0.5", "1", "1.25"]
    made = OperationMistake("cut", "no gradient is passed on to `h`", 0, lambda values: {})
    said = scale_path(made, 1 + 2e-8).alteration
    assert said.endswith("passed on to `h` is multiplied by 1 + 2e-08, where its factor is 1")
