"""References are found once for equal problems, and absent biases cost nothing."""

import numpy as np
import pytest

from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import CELLS, Problem, Sizes
from bptt_verifier.reference import autodiff
from bptt_verifier.reference.autodiff import measure_reference, start_reference, truth
from bptt_verifier.reference.blocks import ReferenceBlock
from tests.support.profiles import deep

BEYOND = Sizes(13, 1, 2, 2, 1)  # the capacity


def draw(cell: str, sizes: Sizes, bias: bool) -> Problem:
    return with_values(np.random.default_rng(0), sizes, cell=cell, bias=bias)


@pytest.mark.rest
@pytest.mark.parametrize("cell", CELLS if deep() else ["rnn", "gru"])
def test_an_absent_bias_takes_no_compilation_of_its_own_and_has_no_gradient(cell: str) -> None:
    without = draw(cell, BEYOND, bias=False)
    zeros = {n: 0 * w for n, w in draw(cell, BEYOND, bias=True).weights.items() if n not in "UWV"}
    with_zeros = without._replace(params=without.params._replace(**zeros))
    expected = measure_reference(with_zeros)
    compiled = autodiff._measure_at_its_size.jitted._cache_size()
    for found, other in zip(measure_reference(without), expected, strict=True):
        assert [n for n in zeros if getattr(found, n) is not None] == []
        for name in ("loss", "U", "W", "V", "x", "h0", "adjoints"):
            assert np.array_equal(getattr(found, name), getattr(other, name)), name
    assert autodiff._measure_at_its_size.jitted._cache_size() == compiled


def test_a_derived_bound_is_computed_once_and_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = draw("rnn", Sizes(9, 2, 3, 4, 2), bias=True)
    bound = start_reference(problem).derive_allowed(np.float16)
    before = dict(bound)
    monkeypatch.setattr(ReferenceBlock, "derive_bounds", None)
    allowed = truth(problem, np.float16).allowed
    assert any(allowed[name] is not before[name] for name in before)  # too large to decide
    assert start_reference(problem).derive_allowed(np.float16) is bound
    assert all(bound[name] is before[name] for name in before)
    assert not any(array.flags.writeable for array in bound.values())
