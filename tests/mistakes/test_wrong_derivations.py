"""Wrong derivations in the shapes of public code get their names, and nine in ten get one."""

from itertools import chain

import numpy as np
import pytest

from tests.support import (
    composed_derivations,
    further_derivations,
    layout_derivations,
    looped_derivations,
    peephole_derivations,
)
from tests.support.diagnosis import diagnose_numbers
from tests.support.profiles import by_turns
from tests.support.wrong_derivations import MODELS, WRONG, Wrong, diagnose_wrong

OTHERS = (
    further_derivations.WRONG,
    looped_derivations.WRONG,
    composed_derivations.WRONG,
    peephole_derivations.WRONG,
    layout_derivations.WRONG,
)

TURNS = by_turns(WRONG, (np.float64, np.float32))


@pytest.mark.table(3)
@pytest.mark.parametrize("name", MODELS)
def test_the_derivations_are_right_as_they_stand(name: str) -> None:
    model = MODELS[name]
    assert diagnose_numbers(model.loss, model.params, model.gradients) == ()


@pytest.mark.table(39)
@pytest.mark.parametrize(
    ("each", "dtype"),
    TURNS,
    ids=[f"{n} {each.model} {dtype.__name__}" for n, (each, dtype) in enumerate(TURNS)],
)
def test_a_wrong_derivation_is_named(each: Wrong, dtype: type) -> None:
    (names,) = diagnose_wrong(each, dtype)
    assert names & {*each.names.split()}, names


def test_at_most_one_in_ten_has_no_name() -> None:
    every = [*WRONG, *chain(*OTHERS)]
    unknown = [each for each in every if each.names == "unknown"]
    assert len(every) >= 150
    assert len(unknown) <= len(every) / 10
