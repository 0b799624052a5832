"""Pairs of a cell's mistakes are ruled out before they are tried, but never one that is made."""

from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes import gated_leaf_mistakes, gated_mistakes, gated_recursion
from bptt_verifier.mistakes.search import SLACK, Evidence, Hypotheses, evidence_of, plausible
from bptt_verifier.problems.problem import Sizes, Variant, variant_with_values
from tests.support.profiles import deep

CELLS = [("lstm", ""), ("gru", "after"), ("gru", "before")]


def known_of(variant: Variant) -> tuple[Hypotheses, gated_recursion.States, list[Any]]:
    """What can be wrong in the way back of a problem, its forward pass, and the single mistakes."""
    states = gated_recursion.forward(variant)
    known = Hypotheses(
        gated_leaf_mistakes.NAMES,
        tuple,
        gated_mistakes.put_together,
        gated_recursion.sweep,
        gated_leaf_mistakes.gradient,
        lambda *asked: iter(()),
        partial(gated_mistakes.in_place, seen=[states]),
    )
    return known, states, list(gated_mistakes.candidates(states, variant.sizes.T))


def given_by(known: Hypotheses, states: gated_recursion.States, way: Any) -> dict[str, Any]:
    """The gradients that a way back gives."""
    problem = states.problem
    weights = [n for n, w in problem.params._asdict().items() if w is not None]
    swept = known.sweep(states, way)
    names = (*weights, "x", *problem.first, "adjoints")
    return {name: np.array(known.gradient(swept, name)) for name in names}


def as_evidence(states: gated_recursion.States, yours: dict[str, Any], right: Any) -> Evidence:
    # The same sums of float64, of fewer than 2¹⁰ terms: far below 2⁻⁴⁰ of the largest.
    allowed = {n: np.full_like(v, 2.0**-40 * np.max(np.abs(v))) for n, v in right.items()}
    return evidence_of(states, states.problem.sizes, yours, right, allowed)


@pytest.mark.parametrize("first", [True, False], ids=["states", "zero states"])
@pytest.mark.parametrize("T", [1, 3])
@pytest.mark.parametrize(("cell", "option"), CELLS)
def test_no_two_mistakes_that_give_the_numbers_are_ruled_out(
    cell: str, option: str, T: int, first: bool
) -> None:
    rng = np.random.default_rng(T)
    variant = variant_with_values(
        rng, cell, Sizes(T, 2, 2, 2, 2), option=option, bias=True, initial_state=first
    )
    known, states, single = known_of(variant)
    pairs = [pair for pair in combinations(single, 2) if known.put_together(pair) is not None]
    if not deep():
        pairs = [pairs[i] for i in rng.choice(len(pairs), 100, replace=False)]
    right = given_by(known, states, known.put_together(()))
    for pair in pairs:
        exact = as_evidence(states, given_by(known, states, known.put_together(pair)), right)
        # As far off as what they gave may be from what the two mistakes give.
        wanted = {
            name: each._replace(
                yours=each.yours + 0.99 * SLACK * rng.choice([-1, 1]) * each.allowed
            )
            for name, each in exact.wanted.items()
        }
        possible = plausible(known, [exact._replace(wanted=wanted)])
        assert possible(*pair), [each.mistake.explanation for each in pair]


def test_most_pairs_are_ruled_out_by_what_each_does_alone() -> None:
    variant = variant_with_values(np.random.default_rng(0), "lstm", Sizes(1, 2, 2, 2, 2), bias=True)
    known, states, single = known_of(variant)
    right = given_by(known, states, known.put_together(()))
    yours = right | {"U": 1.0005 * right["U"]}
    possible = plausible(known, [as_evidence(states, yours, right)])
    pairs = [*combinations(single, 2)]
    assert sum(possible(*pair) for pair in pairs) < len(pairs) / 2


@pytest.mark.parametrize(
    ("opens", "said"),
    [
        ("gru", "h_t is used where h_{t-1} belongs; right is δ_r"),  # h_0 is zero
        ("lstm", "∂L/∂c_t is used where ∂L/∂h_t belongs; right is δ_o"),
        ("lstm", "δ_i and δ_f are packed in each other's place"),
    ],
)
def test_what_opens_a_way_for_another_mistake_is_not_in_place(opens: str, said: str) -> None:
    option = "before" if opens == "gru" else ""
    variant = variant_with_values(
        np.random.default_rng(0), opens, Sizes(3, 2, 2, 2, 2), option=option, initial_state=False
    )
    known, _, single = known_of(variant)
    (found,) = (each for each in single if each.mistake.explanation.startswith(said))
    assert not known.in_place(found)
    assert any(known.in_place(each) for each in single)


def test_a_zero_in_any_of_the_cases_is_one_that_a_mistake_may_open() -> None:
    with_state, without = (
        gated_recursion.forward(
            variant_with_values(
                np.random.default_rng(0),
                "gru",
                Sizes(3, 2, 2, 2, 2),
                option="before",
                initial_state=first,
            )
        )
        for first in (True, False)
    )
    said = "h_t is used where h_{t-1} belongs; right is δ_r"
    (found,) = (
        each
        for each in gated_mistakes.candidates(with_state, 3)
        if each.mistake.explanation.startswith(said)
    )
    assert gated_mistakes.in_place(found, seen=[with_state])
    assert not gated_mistakes.in_place(found, seen=[with_state, without])
