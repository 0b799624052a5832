"""Mistakes of loops in loops, of guards at the ends of time and of lookups get their names."""

import pytest

from tests.support.diagnosis import diagnose_numbers, plant
from tests.support.looped_derivations import MODELS, WRONG
from tests.support.wrong_derivations import Wrong


@pytest.mark.table(3)
@pytest.mark.parametrize("name", MODELS)
def test_the_derivations_are_right_as_they_stand(name: str) -> None:
    model = MODELS[name]
    assert diagnose_numbers(model.loss, model.params, model.gradients) == ()


@pytest.mark.table(2)
@pytest.mark.parametrize("each", WRONG, ids=[f"{n} {each.model}" for n, each in enumerate(WRONG)])
def test_a_wrong_derivation_is_named(each: Wrong) -> None:
    model = MODELS[each.model]
    wrong = plant(model.gradients, *each.changes)
    (mistake,) = diagnose_numbers(model.loss, model.params, wrong)
    names = {mistake.name, *mistake.details.get("or", ())}
    assert names & {*each.names.split()}, names
