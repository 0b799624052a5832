"""Mistakes of further kinds get their names, in further shapes of public code."""

import numpy as np
import pytest

from tests.support import composed_derivations, further_derivations, looped_derivations
from tests.support.diagnosis import diagnose_numbers
from tests.support.own_models import Model
from tests.support.profiles import by_turns
from tests.support.wrong_derivations import Wrong, diagnose_planted

TABLES = further_derivations, looped_derivations, composed_derivations
MODELS = {name: model for table in TABLES for name, model in table.MODELS.items()}
WRONG = [each for table in TABLES for each in table.WRONG]


def test_the_tables_have_models_of_their_own() -> None:
    assert len(MODELS) == sum(len(table.MODELS) for table in TABLES)


@pytest.mark.table(6)
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_derivations_are_right_as_they_stand(model: Model) -> None:
    assert diagnose_numbers(model.loss, model.params, model.gradients) == ()


@pytest.mark.table(5)
@pytest.mark.parametrize(
    ("each", "dtype"),
    by_turns(WRONG, (np.float64, np.float32)),
    ids=lambda value: value.__name__ if isinstance(value, type) else value.model,
)
def test_a_wrong_derivation_is_named(each: Wrong, dtype: type) -> None:
    (names,) = diagnose_planted(MODELS[each.model], each, dtype)
    assert names & {*each.names.split()}, names
