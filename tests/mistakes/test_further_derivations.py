"""Mistakes of further kinds get their names, in further shapes of public code."""

import pytest

from tests.support.diagnosis import diagnose_numbers
from tests.support.further_derivations import MODELS, WRONG, diagnose_further
from tests.support.wrong_derivations import Wrong


@pytest.mark.table(6)
@pytest.mark.parametrize("name", MODELS)
def test_the_derivations_are_right_as_they_stand(name: str) -> None:
    model = MODELS[name]
    assert diagnose_numbers(model.loss, model.params, model.gradients) == ()


@pytest.mark.table(3)
@pytest.mark.parametrize("each", WRONG, ids=[f"{n} {each.model}" for n, each in enumerate(WRONG)])
def test_a_wrong_derivation_is_named(each: Wrong) -> None:
    (names,) = diagnose_further(each)
    assert names & {*each.names.split()}, names
