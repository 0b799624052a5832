"""One mistake in gradients after another: both are named."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.compositions import Altered, list_first
from bptt_verifier.mistakes.hypotheses import BackwardPass
from tests.support.diagnosis import diagnose_numbers

Gradients = dict[str, Any]
PARAMS = {"a": np.ones(3), "W": np.ones((3, 3)), "b": np.ones((2, 2))}


def loss(p: Any, xp: Any) -> Any:
    return xp.sum(xp.sin(xp.sin(p["W"]) @ xp.sin(p["a"]))) + xp.sum(xp.sin(p["b"]) ** 3)


def right(p: Any) -> Gradients:
    inner = np.cos(np.sin(p["W"]) @ np.sin(p["a"]))
    return {
        "a": np.sin(p["W"]).T @ inner * np.cos(p["a"]),
        "W": np.outer(inner, np.sin(p["a"])) * np.cos(p["W"]),
        "b": 3 * np.sin(p["b"]) ** 2 * np.cos(p["b"]),
    }


def each(change: Callable[[Any], Any]) -> Callable[[Any, Gradients], Gradients]:
    return lambda p, g: {name: change(value) for name, value in g.items()}


def only(name: str, change: Callable[[Any], Any]) -> Callable[[Any, Gradients], Gradients]:
    return lambda p, g: g | {name: change(g[name])}


def scale_down(p: Any, g: Gradients) -> Gradients:
    norm = np.sqrt(sum(np.sum(value**2) for value in g.values()))
    return {name: value * min(1, 0.1 / norm) for name, value in g.items()}


def decay(p: Any, g: Gradients) -> Gradients:
    return {name: value + 0.01 * p[name] for name, value in g.items()}


def update(p: Any, g: Gradients) -> Gradients:
    return {name: p[name] - 0.05 * value for name, value in g.items()}


@pytest.mark.table(3)
@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        (only("W", np.transpose), scale_down, ["transposed-gradient", "clipped"]),
        (only("W", np.negative), update, ["sign-flipped", "update-returned"]),
        (only("b", lambda g: g / 2), decay, ["constant-factor", "weight-decay"]),
        (scale_down, update, ["clipped", "update-returned"]),
        (decay, each(lambda g: np.clip(g, -0.05, 0.05)), ["weight-decay", "clipped"]),
        (decay, each(lambda g: g / 7), ["weight-decay", "constant-factor"]),
        (each(lambda g: 3 * g), each(lambda g: np.clip(g, -0.05, 0.05)),
         ["constant-factor", "clipped"]),
        (each(lambda g: 1.37 * g), only("b", lambda g: np.clip(g, -0.01, 0.01)),
         ["constant-factor", "clipped"]),
        (update, only("W", np.transpose), ["update-returned", "transposed-gradient"]),
    ],
)  # fmt: skip
def test_both_are_named(first: Any, second: Any, names: list[str]) -> None:
    found = diagnose_numbers(loss, PARAMS, lambda p: second(p, first(p, right(p))))
    # Some commute: a transposed gradient has the same norm.
    assert sorted(mistake.name for mistake in found) == sorted(names), found


def test_a_change_that_no_two_mistakes_make_is_unknown() -> None:
    def wrong(p: Any) -> Gradients:
        return scale_down(p, only("b", lambda g: g + g**2)(p, right(p)))

    (mistake,) = diagnose_numbers(loss, PARAMS, wrong)
    assert mistake.name == "unknown"


def test_an_altered_backward_pass_has_the_rest_of_the_right_one() -> None:
    back = BackwardPass({"a": np.ones(2), "b": np.ones(3)}, {"a": np.zeros(2)})
    altered = Altered(back, {"a": lambda b: 2 * b.gradient("a")})
    assert altered.gradient("a").tolist() == [2, 2]
    assert altered.gradient("b").tolist() == [1, 1, 1]
    assert altered.params is back.params


def test_gradients_that_have_one_size_in_some_cases_alone_are_not_exchanged() -> None:
    one, other = ({"a": np.ones(n), "b": np.ones(2)} for n in (2, 3))
    backs = [BackwardPass(values, values) for values in (one, other)]
    listed = list_first(["a", "b"], backs, lambda name, back: None, [], [])
    assert "wrong-operand" not in {first.finding.name for first in listed}
    listed = list_first(["a", "b"], backs[:1], lambda name, back: None, [], [])
    assert "wrong-operand" in {first.finding.name for first in listed}
