"""Wrong derivations in the shapes of public code get their names, and nine in ten get one."""

import numpy as np
import pytest

from tests.support.diagnosis import diagnose_numbers
from tests.support.profiles import by_turns
from tests.support.wrong_derivations import MODELS, WRONG, Wrong, diagnose_wrong


@pytest.mark.table(3)
@pytest.mark.parametrize("name", MODELS)
def test_the_derivations_are_right_as_they_stand(name: str) -> None:
    model = MODELS[name]
    assert diagnose_numbers(model.loss, model.params, model.gradients) == ()


@pytest.mark.table(24)
@pytest.mark.parametrize(
    ("each", "dtype"),
    by_turns(WRONG, (np.float64, np.float32)),
    ids=lambda value: value.__name__ if isinstance(value, type) else value.model,
)
def test_a_wrong_derivation_is_named(each: Wrong, dtype: type) -> None:
    (names,) = diagnose_wrong(each, dtype)
    assert names & {*each.names.split()}, names


def test_at_most_one_in_ten_has_no_name() -> None:
    unknown = [each for each in WRONG if each.names == "unknown"]
    assert len(WRONG) >= 60
    assert len(unknown) <= len(WRONG) / 10
