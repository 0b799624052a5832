"""Random pairs of known mistakes: both names in nine cases of ten, and no other ones."""

import itertools

import pytest

from tests.support.random_pairs import classify, diagnose_pair, draw_pairs


@pytest.mark.slow
def test_most_random_pairs_get_both_names() -> None:
    kinds = [
        classify(pair, diagnose_pair(pair)) for pair in itertools.islice(draw_pairs(seed=0), 100)
    ]
    assert kinds.count("unknown") <= 10
    assert kinds.count("other") <= 3
