"""Wrong derivations of leaky, gated and normalised networks, and of fed back outputs, are named."""

import numpy as np
import pytest

from tests.support import recurrent_derivations
from tests.support.diagnosis import diagnose_numbers
from tests.support.profiles import by_turns
from tests.support.recurrent_derivations import MODELS, WRONG, Wrong, diagnose_wrong

TURNS = by_turns(WRONG, (np.float64, np.float32))


@pytest.mark.parametrize("name", MODELS)
def test_the_derivations_are_right_as_they_stand(name: str) -> None:
    loss, params = MODELS[name]
    right = getattr(recurrent_derivations, f"{name}_gradients")
    assert diagnose_numbers(loss, params, right) == ()


@pytest.mark.table(23)
@pytest.mark.parametrize(
    ("each", "dtype"),
    TURNS,
    ids=[f"{n} {each.model} {dtype.__name__}" for n, (each, dtype) in enumerate(TURNS)],
)
def test_a_wrong_derivation_is_named(each: Wrong, dtype: type) -> None:
    (names,) = diagnose_wrong(each, dtype)
    assert names & {*each.names.split()}, names
