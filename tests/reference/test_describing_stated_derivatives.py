"""What is said of a program that states derivatives, and where it is seen to do so."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bptt_verifier.reference.stated_derivatives import (
    UNCONFIRMED,
    describe_stated,
    describe_stated_in_jax,
    hold_stopped,
    is_stated_in_numpy,
    list_stated,
    states_rules,
)

STOP, RULE = "stop_gradient", "custom_jvp_call"


class Place(NamedTuple):
    """An expression of the user's code, and where it stands."""

    expression: str
    at_column: str


def program(*operations: tuple[str, str]) -> Any:
    """A program of operations with these names, at one expression each, or at none."""
    made = []
    for name, expression in operations:
        place = Place(expression, f"line {expression}")
        made.append(SimpleNamespace(name=name, params={}, where=(place,) if expression else ()))
    return SimpleNamespace(operations=made)


@pytest.mark.parametrize(
    ("operations", "said"),
    [
        ([(STOP, "a"), ("tanh", "b")], "stops gradients at `a` (line a)"),
        ([(RULE, "a"), ("tanh", "b")], "has a derivative of its own at `a` (line a)"),
        ([(RULE, "b"), (STOP, "a")], "stops gradients at `a` (line a), `b` (line b)"),
        ([(STOP, "")], "stops gradients"),
        ([(STOP, ""), (RULE, "b")], "has a derivative of its own at `b` (line b)"),
        ([(STOP, each) for each in "aabcd"],
         "stops gradients at `a` (line a), `b` (line b), `c` (line c)"),
    ],
)  # fmt: skip
def test_the_first_three_places_are_listed_after_a_word_on_what_is_stated(
    operations: Any, said: str
) -> None:
    assert list_stated(program(*operations)) == said


def test_a_loss_that_states_a_derivative_in_jax_alone_is_two_functions() -> None:
    assert describe_stated_in_jax(None) == ""
    assert describe_stated_in_jax(program(("tanh", "b"))) == ""
    for name in (STOP, RULE):
        stated = program(("tanh", "b"), (name, "a"))
        assert f" In JAX, the loss {list_stated(stated)}, " in describe_stated_in_jax(stated)


def test_differences_confirm_stopped_values_and_no_other_derivative() -> None:
    for name, confirmed in [(STOP, True), (RULE, False)]:
        said = describe_stated(program((name, "a"), ("tanh", "b")), by_autograd=False)
        assert said.startswith(f"The loss {list_stated(program((name, 'a')))}, and that is ")
        assert "its derivative by jax.grad," in said
        assert ("differences confirm it" in said) is confirmed
        assert (UNCONFIRMED in said) is not confirmed
    said = describe_stated(program((STOP, "a")), by_autograd=True)
    assert said.startswith("The loss stops gradients (`detach` or `no_grad`), and that is ")
    assert "its derivative by torch.autograd," in said


def replace_slope(a: Any) -> Any:
    own = jax.custom_jvp(jnp.tanh)
    own.defjvp(lambda primals, tangents: (jnp.tanh(*primals), tangents[0]))
    return own(a)


@pytest.mark.parametrize(
    ("inner", "states"), [(jnp.tanh, False), (lax.stop_gradient, True), (replace_slope, True)]
)
def test_the_body_of_a_loop_may_state_a_derivative(inner: Any, states: bool) -> None:
    def scan(w: Any) -> Any:
        return lax.scan(lambda h, _: (inner(w * h), None), w, length=3)[0]

    equations = jax.make_jaxpr(scan)(1.0).eqns
    operations = [SimpleNamespace(name=e.primitive.name, params=e.params) for e in equations]
    assert states_rules(SimpleNamespace(operations=operations)) is states  # type: ignore[arg-type]


def test_a_loss_of_a_namespace_is_asked_with_numpy_and_may_raise() -> None:
    point = {"w": np.ones(2)}

    def loss(p: Any, xp: Any, numpy: bool) -> Any:
        return lax.stop_gradient(1.0) if (xp is np) is numpy else xp.sum(p["w"])

    def fail(p: Any, xp: Any) -> Any:
        lax.stop_gradient(1.0)
        raise ValueError("after that")

    assert is_stated_in_numpy(lambda p, xp: loss(p, xp, numpy=True), point)
    assert not is_stated_in_numpy(lambda p, xp: loss(p, xp, numpy=False), point)
    assert is_stated_in_numpy(fail, point)


def test_stopped_values_are_held_in_float64_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    held: Any = SimpleNamespace(operations=(), constants={}, result=0)
    held._replace = lambda **_: held
    monkeypatch.setattr(
        "bptt_verifier.reference.stated_derivatives.forward", lambda program, point: [point["w"]]
    )
    compute = hold_stopped(held, {"w": np.ones(())})
    assert compute({"w": np.array(2.0), "v": np.ones(3)}) == 2
    for coarse in ("w", "v"):
        given = {"w": np.array(2.0), "v": np.ones(3)}
        assert compute(given | {coarse: given[coarse].astype(np.float32)}) is None
