"""Pairs of a cell's mistakes are ruled out before they are tried, but never one that is made."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.cells import CellHypotheses, make_pair_filter
from bptt_verifier.mistakes.equations import RNN, UNTRANSPOSED, Term, forward
from bptt_verifier.mistakes.evidence import SLACK, Evidence, Witness
from bptt_verifier.mistakes.in_equations import (
    EquationMistake,
    changes_fixed_entries,
    list_mistakes,
    make_mistake,
    merge_changes,
)
from bptt_verifier.mistakes.search import explain
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import Problem, Sizes
from tests.support.profiles import deep

B2 = RNN[0].terms[0]
CELLS = [("rnn", "tanh"), ("lstm", ""), ("gru", "after"), ("gru", "before")]


def drawn(cell: str, option: str, sizes: Sizes, *, seed: int = 0, first: bool = True) -> Problem:
    rng = np.random.default_rng(seed)
    return with_values(rng, sizes, cell=cell, option=option, bias=True, initial_state=first)


def hypotheses(problem: Problem, wrong: Any = lambda right: right) -> CellHypotheses:
    """Of a submission whose gradients are these; the right ones are computed in float64."""
    nothing = Witness(problem, {}, {}, {}, True)
    (right,) = CellHypotheses([nothing]).sweep_back(CellHypotheses([nothing]).evidence[0], [()])
    names = (*problem.weights, "x", *problem.first, "adjoints")
    gradients = {name: np.array(right.gradient(name)) for name in names}
    # The same sums of float64, of fewer than 2¹⁰ terms: far below 2⁻⁴⁰ of the largest.
    allowed = {n: np.full_like(v, 2.0**-40 * np.max(np.abs(v))) for n, v in gradients.items()}
    return CellHypotheses([Witness(problem, wrong(gradients), gradients, allowed, True)])


def given_by(known: CellHypotheses, *made: EquationMistake) -> dict[str, Any]:
    """The gradients that a backward pass with these mistakes gives."""
    (back,) = known.sweep_back(known.evidence[0], [made])
    return {name: np.array(back.gradient(name)) for name in known.evidence[0].wanted}


@pytest.mark.table(5)
@pytest.mark.parametrize("first", [True, False], ids=["states", "zero states"])
@pytest.mark.parametrize("T", [1, 3])
@pytest.mark.parametrize(("cell", "option"), CELLS)
def test_no_two_mistakes_that_give_the_numbers_are_ruled_out(
    cell: str, option: str, T: int, first: bool
) -> None:
    problem = drawn(cell, option, Sizes(T, 2, 2, 2, 2), seed=T, first=first)
    known = hypotheses(problem)
    pairs = [p for p in combinations(known.single, 2) if merge_changes(p) is not None]
    rng = np.random.default_rng(T)
    if not deep():
        pairs = [pairs[i] for i in rng.choice(len(pairs), min(100, len(pairs)), replace=False)]
    for pair in pairs:
        of_pair = hypotheses(problem, lambda right, pair=pair: given_by(known, *pair))
        (exact,) = of_pair.evidence
        # As far off as what was submitted may be from what the two mistakes give.
        wanted = {
            name: each._replace(
                submitted=each.submitted + 0.99 * SLACK * rng.choice([-1, 1]) * each.allowed
            )
            for name, each in exact.wanted.items()
        }
        off: Evidence = exact._replace(wanted=wanted)
        plausible = make_pair_filter(of_pair, [off])
        assert plausible(*pair), [each.mistake.explanation for each in pair]


def test_most_pairs_are_ruled_out_by_what_each_does_alone() -> None:
    problem = drawn("lstm", "", Sizes(1, 2, 2, 2, 2))
    known = hypotheses(problem, lambda right: right | {"U": 1.0005 * right["U"]})
    plausible = make_pair_filter(known, known.evidence)
    pairs = [*combinations(known.single, 2)]
    assert sum(plausible(*pair) for pair in pairs) < len(pairs) / 2


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("gru", "h_t is used where h_{t-1} belongs; the equation is δ_r"),  # h_0 is zero
        ("lstm", "∂L/∂c_t is used where ∂L/∂h_t belongs; the equation is δ_o"),
        ("lstm", "δ_i and δ_f are packed in each other's place"),
    ],
)
def test_what_opens_a_path_for_another_mistake_changes_no_fixed_entries(
    cell: str, said: str
) -> None:
    option = "before" if cell == "gru" else ""
    states = forward(drawn(cell, option, Sizes(3, 2, 2, 2, 2), first=False))
    single = [*list_mistakes(states, 3)]
    (found,) = (each for each in single if each.mistake.explanation.startswith(said))
    assert not changes_fixed_entries(found, [states])
    assert any(changes_fixed_entries(each, [states]) for each in single)


def test_a_zero_in_any_of_the_cases_is_one_that_a_mistake_may_open() -> None:
    with_state, without = (
        forward(drawn("gru", "before", Sizes(3, 2, 2, 2, 2), first=first))
        for first in (True, False)
    )
    said = "h_t is used where h_{t-1} belongs; the equation is δ_r"
    (found,) = (
        each for each in list_mistakes(with_state, 3) if each.mistake.explanation.startswith(said)
    )
    assert changes_fixed_entries(found, [with_state])
    assert not changes_fixed_entries(found, [with_state, without])


@pytest.mark.parametrize("after", [(), ("φ′(a_t)",)], ids=["no slope", "slope after the product"])
def test_what_is_carried_may_lack_the_transpose_and_the_slope(after: tuple[str, ...]) -> None:
    problem = drawn("rnn", "tanh", Sizes(3, 2, 2, 3, 2))
    changes = {("B3", 0): (Term(("∂L/∂h_t",), "W", after),), (UNTRANSPOSED, "B3", 0): True}
    planted = make_mistake("planted", "W ∂L/∂h_t is carried", "B3", changes)
    known = hypotheses(problem, lambda right: given_by(hypotheses(problem), planted))
    where = "after-matrix-product" if after else "missing"
    expected = {"untransposed-recurrent-weight", f"activation-derivative-{where}"}
    assert {mistake.name for mistake in explain(known, known.evidence)} == expected


def test_a_sign_that_two_steps_flip_back_rules_no_pair_out() -> None:
    known = hypotheses(drawn("rnn", "tanh", Sizes(3, 2, 2, 2, 2)))
    flipped = [
        m for m in known.single if [*m.changes.values()] == [(Term(B2.factors, times=-1.0),)]
    ]
    assert [changes_fixed_entries(m, [known.evidence[0].forward]) for m in flipped] == [False]
