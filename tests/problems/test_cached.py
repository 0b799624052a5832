"""Cached answers: found again by content, bit for bit, and read-only."""

import copy
from fractions import Fraction

import jax
import numpy as np
import pytest

from bptt_verifier.problems.cached import Recent, cached_by_content, collect_content
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import Sizes
from bptt_verifier.reference.autodiff import measure_reference


@pytest.mark.table(3)
@pytest.mark.parametrize(("cell", "option"), [("rnn", "tanh"), ("lstm", ""), ("gru", "before")])
def test_the_reference_of_a_problem_is_cached_and_read_only(cell: str, option: str) -> None:
    sizes = Sizes(3, 2, 2, 3, 2)
    problem = with_values(
        np.random.default_rng(0), sizes, cell=cell, option=option, bias=True, initial_state=True
    )
    found = measure_reference(problem)
    assert measure_reference(copy.deepcopy(problem)) is found
    arrays = [each for each in jax.tree.leaves(found) if isinstance(each, np.ndarray)]
    assert len(arrays) >= 2 * 10
    assert not any(array.flags.writeable for array in arrays)


def test_problems_are_one_only_if_every_bit_and_option_is() -> None:
    problem = with_values(
        np.random.default_rng(0), Sizes(3, 2, 2, 3, 2), cell="gru", initial_state=True
    )
    nearby, x = problem.params.W.copy(), problem.x
    nearby[0, 0] = np.nextafter(nearby[0, 0], np.inf)
    others = [
        problem._replace(params=problem.params._replace(W=nearby)),
        problem._replace(x=x.astype(np.float32)),
        problem._replace(x=x.astype(x.dtype.newbyteorder())),
        problem._replace(x=x.reshape(x.shape[1], x.shape[0], x.shape[2])),
        problem._replace(loss="huber"),
        problem._replace(first={}),
        problem._replace(y=-np.zeros_like(problem.y)),
        problem._replace(y=np.zeros_like(problem.y)),
        problem._replace(y=np.vectorize(Fraction, otypes=[object])(np.ones(problem.y.shape))),
        problem._replace(truncation=1),
    ]
    seen = {collect_content(each) for each in [problem, *others]}
    assert len(seen) == 1 + len(others)
    assert collect_content(copy.deepcopy(problem)) == collect_content(problem)
    assert collect_content(problem._replace(x=np.asfortranarray(x))) == collect_content(problem)


def test_so_many_answers_are_kept_and_no_more() -> None:
    asked: list[int] = []

    @cached_by_content(2)
    def noted(number: int) -> int:
        asked.append(number)
        return number

    for number in (1, 2, 1, 3, 1, 2):
        assert noted(number) == number
    assert asked == [1, 2, 3, 2]


def test_of_values_by_key_the_ones_asked_for_last_are_kept() -> None:
    known = Recent[str](2)
    assert [known.keep(n, name) for n, name in enumerate("ab")] == ["a", "b"]
    assert known.find(0) == "a"
    known.keep(2, "c")
    assert [known.find(n) for n in range(3)] == ["a", None, "c"]
