"""A name must explain failing cases of every kind: with and without states, of all sizes."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify
from bptt_verifier.judge.cells import FIRST, KINDS, choose_kinds
from bptt_verifier.judge.subject import Compared
from bptt_verifier.problems.problem import Sizes
from bptt_verifier.reference.case import Case
from bptt_verifier.tolerance.comparison import compare
from manual_bptt import rnn

USUAL = Sizes(5, 2, 3, 4, 2)


def fail(sizes: Sizes = USUAL, first: tuple[str, ...] = ("h0",), wrong: str = "W") -> Compared:
    point: Any = SimpleNamespace(sizes=sizes, first=dict.fromkeys(first))
    comparisons = [compare(wrong, np.ones(1), np.zeros(1), np.full(1, 1e-9))]
    return Compared(Case("", {}, point, None), {}, {}, {}, {}, comparisons)


@pytest.mark.parametrize(
    "other",
    [
        fail(first=()),
        fail(USUAL._replace(T=200)),
        fail(USUAL._replace(B=33)),
        fail(USUAL._replace(T=1)),
        fail(wrong="U"),
    ],
    ids=["without states", "long", "wide", "one step", "another gradient"],
)
def test_a_case_of_another_kind_is_chosen_wherever_it_stands(other: Compared) -> None:
    cases = [*(fail() for _ in range(9)), other]
    assert choose_kinds(cases) == [*cases[:FIRST], other]


def test_no_more_than_so_many_kinds_are_chosen() -> None:
    cases = [
        fail(USUAL._replace(T=T, B=B)) for T in (1, 5, 200) for B in (2, 33, 200) for _ in "ab"
    ]
    cases += [fail(wrong=name) for name in "UVbc"]
    assert len(choose_kinds(cases)) == FIRST + KINDS


@pytest.mark.slow
def test_one_name_does_not_stand_for_two_mistakes_in_different_kinds_of_cases() -> None:
    def gradients(p: Any, x: Any, y: Any) -> Any:
        _, g = rnn.value_and_grad(p, x, y)
        V = 2 * g.V if x.dtype == np.float32 else g.V
        return g._replace(W=-g.W, V=V)

    report = verify(gradients, examples=4)
    assert [mistake.name for mistake in report.mistakes] != ["sign-flipped"], str(report)
