"""The structure of a traced loss: what is a candidate for a mistake, and what is not."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.numpy_code import over_jax
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import trace
from bptt_verifier.reference.own_loss import to_scalar

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
