"""What can be wrong in a derivation of a cell, RNN, LSTM and GRU alike."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np

from bptt_verifier.mistakes import cell_gradients
from bptt_verifier.mistakes.equations import EQUATIONS, States, Swept, forward, sweep
from bptt_verifier.mistakes.evidence import SLACK, Evidence, Witness, make_evidence
from bptt_verifier.mistakes.forward_passes import OtherForwardPass, list_forward_passes
from bptt_verifier.mistakes.in_equations import (
    EquationMistake,
    changes_fixed_entries,
    list_mistakes,
    merge_changes,
)
from bptt_verifier.mistakes.search import FEW, explain, try_mistakes
from bptt_verifier.mistakes.single_gradients import Finding
from bptt_verifier.problems.problem import Array, Problem
from bptt_verifier.report import Mistake

# Rounding errors grow along the rows of a gradient, as products cancel within a step; the columns
# of ∂L/∂U may be single steps of very different size.
AXES = dict.fromkeys(cell_gradients.NAMES, -1) | {"U": 0}


def gather_evidence(witness: Witness, other: OtherForwardPass | None = None) -> Evidence:
    """A witness as evidence, of the forward pass of its problem or of another one."""
    problem: Problem = witness.point
    if other is None:
        return make_evidence(forward(problem), problem.sizes.T, witness, AXES)
    arranged = witness._replace(
        submitted=other.arrange(witness.submitted),
        reference=other.arrange(witness.reference),
        allowed=other.arrange(witness.allowed, signed=False),
    )
    return make_evidence(forward(other.problem), problem.sizes.T, arranged, AXES)


def rank_by_cost(witness: Witness) -> tuple[bool, bool, int]:
    """Failing witnesses first, then those in float64, then the small ones."""
    T, B, D, H, _ = witness.point.sizes
    return not witness.fails, witness.point.x.dtype == np.float32, T * B * (D + H)


class CellHypotheses:
    """What can be wrong in the way back of a cell and in its single gradients."""

    names = cell_gradients.NAMES
    batch = 1

    def __init__(self, witnesses: Sequence[Witness], *, pairs: bool = True) -> None:
        self.witnesses = sorted(witnesses, key=rank_by_cost)
        self.evidence = [gather_evidence(witness) for witness in self.witnesses]
        self.longest = max(witness.point.sizes.T for witness in witnesses)
        self.with_pairs = pairs
        self.first_backs: dict[int, Swept] = {}  # of single mistakes at the first case

    @cached_property
    def single(self) -> list[EquationMistake]:
        """Every mistake in the equations, the likely ones first."""
        return [*list_mistakes(self.evidence[0].forward, self.longest)]

    def sweep_back(
        self, case: Evidence, made: Sequence[tuple[EquationMistake, ...]]
    ) -> list[Swept]:
        """The sweep back with each of these combinations."""
        return [self.back(case, each) for each in made]

    def back(self, case: Evidence, made: tuple[EquationMistake, ...]) -> Swept:
        """The sweep back with one combination, which is kept where the search asks for it again."""
        way = merge_changes(made)
        assert way is not None
        if len(made) != 1 or case is not self.evidence[0]:
            return sweep(case.forward, way)
        key = id(made[0])
        if key not in self.first_backs:
            self.first_backs[key] = sweep(case.forward, way)
        return self.first_backs[key]

    def list_pairs(
        self, evidence: Sequence[Evidence]
    ) -> Iterator[tuple[EquationMistake, EquationMistake]]:
        """Pairs of mistakes in different places, but for truncations and clipping, which are many.

        Those are left out that cannot explain the first cases together, by what each does alone.
        """
        if not self.with_pairs:
            return
        often = [each for each in self.single if each.mistake.name not in ("truncated", "clipped")]
        plausible = make_pair_filter(self, evidence[:FEW])
        for pair in combinations(often, 2):
            if merge_changes(pair) is not None and plausible(*pair):
                yield pair

    def list_findings(
        self, name: str, evidence: Sequence[Evidence], backs: Sequence[Swept]
    ) -> Iterator[Finding]:
        """Mistakes of one gradient, given a way back."""
        return cell_gradients.list_findings(name, evidence, backs, self.longest)

    def find_other_forward_pass(self) -> tuple[Mistake, ...]:
        """The difference in the forward pass with which the right way back explains everything."""
        others = [[*list_forward_passes(witness.point)] for witness in self.witnesses]
        for variant in zip(*others, strict=True):
            pairs = zip(self.witnesses, variant, strict=True)
            if all(not try_mistakes(self, [gather_evidence(w, o)], ()).wrong for w, o in pairs):
                return (variant[0].mistake,)
        return ()

    def find_equation(self, name: str) -> str | None:
        """The equation of a gradient in docs/derivation.md."""
        return EQUATIONS[self.witnesses[0].point.cell].get(name)

    def describe(self, made: EquationMistake) -> Mistake:
        """What a report says of a mistake."""
        return made.mistake


class Effect(NamedTuple):
    """The entries of some cases that one mistake changes, and those that it explains, as bits."""

    changed: int
    explained: int


def make_pair_filter(
    known: CellHypotheses, cases: Sequence[Evidence]
) -> Callable[[EquationMistake, EquationMistake], bool]:
    """Tell whether two mistakes may explain cases together, from what each does alone.

    Where both change a fixed set of entries, an entry that one of them leaves as it is must be
    explained by the other.
    """
    states: list[States] = [case.forward for case in cases]
    compared = [(case, [n for n in known.names if n in case.wanted]) for case in cases]

    def gradients(*made: EquationMistake) -> list[Array]:
        backs = [(known.sweep_back(case, [made])[0], names) for case, names in compared]
        return [back.gradient(name) for back, names in backs for name in names]

    wanted = [case.wanted[name] for case, names in compared for name in names]
    right = gradients()
    every = pack_bits(np.ones(found.shape, bool) for found in right)
    effects: dict[int, Effect | None] = {}  # by identity: the caller keeps the mistakes

    def effect(made: EquationMistake) -> Effect | None:
        if id(made) not in effects:
            effects[id(made)] = effect_alone(made) if changes_fixed_entries(made, states) else None
        return effects[id(made)]

    def effect_alone(made: EquationMistake) -> Effect:
        found = gradients(made)
        # Twice the slack: the two together may round as what is up to that far from submitted.
        near = (
            each.within(v, 2 * SLACK, each.submitted) for each, v in zip(wanted, found, strict=True)
        )
        changed = pack_bits(v != was for v, was in zip(found, right, strict=True))
        return Effect(changed, pack_bits(near))

    def plausible(one: EquationMistake, other: EquationMistake) -> bool:
        a, b = effect(one), effect(other)
        if a is None or b is None:
            return True
        return a.changed | b.explained == every == b.changed | a.explained

    return plausible


def pack_bits(masks: Iterable[Array]) -> int:
    """Masks as the digits of one number."""
    return int.from_bytes(np.packbits(np.concatenate([mask.ravel() for mask in masks])).tobytes())


def diagnose(witnesses: Sequence[Witness]) -> tuple[Mistake, ...]:
    """The mistakes that give all the submission's numbers; empty where none do, nor two.

    What fails at some sizes only, and is no single mistake, is unknown: any other name would be
    that of one size.
    """
    if not witnesses:
        return ()
    partly = find_failing_sizes(witnesses)
    known = CellHypotheses(witnesses, pairs=not partly)
    return explain(known, known.evidence) or partly


def find_failing_sizes(witnesses: Sequence[Witness]) -> tuple[Mistake, ...]:
    """Unknown, with the sizes that fail; empty where all fail that have several steps."""
    failing = {witness.point.sizes for witness in witnesses if witness.fails}
    others = {witness.point.sizes for witness in witnesses} - failing
    if all(sizes.T == 1 for sizes in others):
        return ()
    wrong, right = (" and ".join(map(str, sorted(sizes))) for sizes in (failing, others))
    said = (
        f"your numbers are wrong with {wrong}, and not with {right}: no mistake that the judge "
        "knows shows at these sizes only."
    )
    details = {"failing": [sizes._asdict() for sizes in sorted(failing)]}
    return (Mistake("unknown", said, details),)
