"""Summands of a value: the operations whose results are added to it."""

from typing import Any

import numpy as np

from bptt_verifier.mistakes.operation_mistakes import list_summands
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import trace


def list_names(loss: Any) -> list[tuple[str, float]]:
    """List the summands of the argument of the tanh in a loss, by operation and sign."""
    with use_float64():
        known = structure(trace(loss, {"w": np.ones(3)}))
    operations = known.program.operations
    ((number, tanh),) = ((k, each) for k, each in enumerate(operations) if each.name == "tanh")
    found = list_summands(known, tanh.inputs[0], {(number, 0)})
    return sorted((operations[k].name, sign) for k, sign in found)


def test_summands_have_the_signs_of_all_differences_around_them() -> None:
    def loss(params: Any, jnp: Any) -> Any:
        w = params["w"]
        return jnp.sum(jnp.tanh(jnp.sin(w) - (jnp.cos(w) - jnp.exp(w))))

    assert list_names(loss) == [("cos", -1), ("exp", 1), ("sin", 1)]


def test_a_summand_has_no_sign_where_something_else_reads_a_sum_with_it() -> None:
    def loss(params: Any, jnp: Any) -> Any:
        w = params["w"]
        inner = jnp.cos(w) - jnp.exp(w)
        return jnp.sum(jnp.tanh(jnp.sin(w) + inner) * inner)

    assert list_names(loss) == [("cos", 0), ("exp", 0), ("sin", 1)]


def test_a_sum_that_is_added_to_itself_has_summands_without_a_sign() -> None:
    def loss(params: Any, jnp: Any) -> Any:
        once = jnp.sin(params["w"])
        return jnp.sum(jnp.tanh(once + once))

    assert {sign for _, sign in list_names(loss)} == {0}
