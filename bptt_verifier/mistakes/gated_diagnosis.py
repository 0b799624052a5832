"""Which mistake in an LSTM's or a GRU's way back gives somebody's numbers: the table is asked.

The search is that of `diagnosis`; what it tries is in `gated_mistakes` and `gated_leaf_mistakes`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from bptt_verifier.mistakes.gated_leaf_mistakes import NAMES, gradient, leaves
from bptt_verifier.mistakes.gated_mistakes import (
    Other,
    candidates,
    in_order,
    in_place,
    made_together,
    other_forward_passes,
    put_together,
)
from bptt_verifier.mistakes.gated_recursion import forward, sweep
from bptt_verifier.mistakes.search import (
    FEW,
    Evidence,
    Hypotheses,
    evidence_of,
    explanation,
    same_in_all,
)
from bptt_verifier.problems.problem import Variant
from bptt_verifier.report.report import Mistake
from bptt_verifier.tolerance.comparison import Array

PACKED = {"U": 0, "W": 0, "b": 0, "adjoints": -1}  # gradients that hold all gates, along this axis


class Witness(NamedTuple):
    """A point, what they gave there, what autodiff gives, what was allowed, whether it fails."""

    problem: Variant
    yours: Mapping[str, Array]
    reference: Mapping[str, Array]
    allowed: Mapping[str, Array]
    fails: bool

    @property
    def place(self) -> tuple[bool, bool, int]:
        """Failing ones first, then those in float64, then the small ones."""
        T, B, D, H, _ = self.problem.sizes
        return not self.fails, self.problem.x.dtype == np.float32, T * B * (D + H)

    @property
    def evidence(self) -> Evidence:
        """Of the stated forward pass."""
        states = forward(self.problem)
        return evidence_of(states, self.problem.sizes, self.yours, self.reference, self.allowed)

    def against(self, other: Other) -> Evidence:
        """Of another one, with their gradients as it packs the gates."""

        def arranged(found: Mapping[str, Array], signs: tuple[int, ...]) -> dict[str, Array]:
            return {
                name: in_order(v, other.gates, signs, PACKED[name]) if name in PACKED else v
                for name, v in found.items()
                if name not in other.free
            }

        return evidence_of(
            forward(other.problem),
            self.problem.sizes,
            arranged(self.yours, other.signs),
            arranged(self.reference, other.signs),
            arranged(self.allowed, (1,) * len(other.gates)),
        )


def diagnose(witnesses: Sequence[Witness]) -> tuple[Mistake, ...]:
    """The mistakes that give all their numbers; empty where none of the table do, nor two.

    What fails at some sizes only, and is no single mistake of the table, is unknown: any other name
    would be that of one size.
    """
    if not witnesses:
        return ()
    witnesses = sorted(witnesses, key=lambda witness: witness.place)
    longest = max(witness.problem.sizes.T for witness in witnesses)
    evidence = [witness.evidence for witness in witnesses]
    states, partly = evidence[0].states, at_some_sizes(witnesses)
    known = Hypotheses(
        NAMES,
        partial(made_together, list(candidates(states, longest)), pairs=not partly),
        put_together,
        sweep,
        gradient,
        partial(leaves, states=states, longest=longest),
        partial(in_place, seen=[each.states for each in evidence[:FEW]]),
    )

    def another() -> tuple[Mistake, ...]:
        others = [[*other_forward_passes(witness.problem)] for witness in witnesses]
        variants = (
            ((other.mistake, w.against(other)) for w, other in zip(witnesses, each, strict=True))
            for each in zip(*others, strict=True)
        )
        return same_in_all(known, variants)

    found = explanation(known, evidence, another)
    return found or partly


def at_some_sizes(witnesses: Sequence[Witness]) -> tuple[Mistake, ...]:
    """Unknown, with the sizes at which they fail; empty where they fail at all of several steps."""
    failing = {witness.problem.sizes for witness in witnesses if witness.fails}
    others = {witness.problem.sizes for witness in witnesses} - failing
    if all(sizes.T == 1 for sizes in others):
        return ()
    wrong, right = (" and ".join(map(str, sorted(sizes))) for sizes in (failing, others))
    return (
        Mistake(
            "unknown",
            f"your numbers are wrong with {wrong}, and not with {right}: no mistake that the judge "
            "knows shows at these sizes only.",
            {"failing": [sizes._asdict() for sizes in sorted(failing)]},
        ),
    )
