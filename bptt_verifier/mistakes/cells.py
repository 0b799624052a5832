"""What can be wrong in a derivation of a cell, RNN, LSTM and GRU alike."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np

from bptt_verifier.mistakes import cell_gradients
from bptt_verifier.mistakes.equations import EQUATIONS, States, Swept, forward, sweep
from bptt_verifier.mistakes.evidence import SLACK, Evidence, Witness, evidence_of
from bptt_verifier.mistakes.forward_passes import OtherForwardPass, other_forward_passes
from bptt_verifier.mistakes.in_equations import (
    EquationMistake,
    changes_fixed_entries,
    every_mistake,
    put_together,
)
from bptt_verifier.mistakes.search import FEW, explanation, tried
from bptt_verifier.mistakes.single_gradients import Finding
from bptt_verifier.problems.problem import Array, Problem
from bptt_verifier.report import Mistake

# Rounding errors grow along the rows of a gradient, as products cancel within a step; the columns
# of ∂L/∂U may be single steps of very different size.
AXES = dict.fromkeys(cell_gradients.NAMES, -1) | {"U": 0}


def as_evidence(witness: Witness, other: OtherForwardPass | None = None) -> Evidence:
    """A witness as evidence, of the forward pass of its problem or of another one."""
    problem: Problem = witness.point
    if other is None:
        return evidence_of(forward(problem), problem.sizes.T, witness, AXES)
    arranged = witness._replace(
        submitted=other.arrange(witness.submitted),
        reference=other.arrange(witness.reference),
        allowed=other.arrange(witness.allowed, signed=False),
    )
    return evidence_of(forward(other.problem), problem.sizes.T, arranged, AXES)


def cheapest_first(witness: Witness) -> tuple[bool, bool, int]:
    """Failing witnesses first, then those in float64, then the small ones."""
    T, B, D, H, _ = witness.point.sizes
    return not witness.fails, witness.point.x.dtype == np.float32, T * B * (D + H)


class CellHypotheses:
    """What can be wrong in the way back of a cell and in its single gradients."""

    names = cell_gradients.NAMES
    batch = 1

    def __init__(self, witnesses: Sequence[Witness], *, pairs: bool = True) -> None:
        self.witnesses = sorted(witnesses, key=cheapest_first)
        self.evidence = [as_evidence(witness) for witness in self.witnesses]
        self.longest = max(witness.point.sizes.T for witness in witnesses)
        self.with_pairs = pairs
        self.first_backs: dict[int, Swept] = {}  # of single mistakes at the first case

    @cached_property
    def single(self) -> list[EquationMistake]:
        """Every mistake in the equations, the likely ones first."""
        return [*every_mistake(self.evidence[0].forward, self.longest)]

    def backs(self, case: Evidence, made: Sequence[tuple[EquationMistake, ...]]) -> list[Swept]:
        """The sweep back with each of these combinations."""
        return [self.back(case, each) for each in made]

    def back(self, case: Evidence, made: tuple[EquationMistake, ...]) -> Swept:
        """The sweep back with one combination, which is kept where the search asks for it again."""
        way = put_together(made)
        assert way is not None
        if len(made) != 1 or case is not self.evidence[0]:
            return sweep(case.forward, way)
        key = id(made[0])
        if key not in self.first_backs:
            self.first_backs[key] = sweep(case.forward, way)
        return self.first_backs[key]

    def pairs(
        self, evidence: Sequence[Evidence]
    ) -> Iterator[tuple[EquationMistake, EquationMistake]]:
        """Pairs of mistakes in different places, but for truncations and clipping, which are many.

        Those are left out that cannot explain the first cases together, by what each does alone.
        """
        if not self.with_pairs:
            return
        often = [each for each in self.single if each.mistake.name not in ("truncated", "clipped")]
        plausible = plausible_pairs(self, evidence[:FEW])
        for pair in combinations(often, 2):
            if put_together(pair) is not None and plausible(*pair):
                yield pair

    def of_one_gradient(
        self, name: str, evidence: Sequence[Evidence], backs: Sequence[Swept]
    ) -> Iterator[Finding]:
        """Mistakes of one gradient, given a way back."""
        return cell_gradients.of_one_gradient(name, evidence, backs, self.longest)

    def another_forward_pass(self) -> tuple[Mistake, ...]:
        """The difference in the forward pass with which the right way back explains everything."""
        others = [[*other_forward_passes(witness.point)] for witness in self.witnesses]
        for variant in zip(*others, strict=True):
            pairs = zip(self.witnesses, variant, strict=True)
            if all(not tried(self, [as_evidence(w, o)], ()).wrong for w, o in pairs):
                return (variant[0].mistake,)
        return ()

    def equation_of(self, name: str) -> str | None:
        """The equation of a gradient in docs/derivation.md."""
        return EQUATIONS[self.witnesses[0].point.cell].get(name)

    def mistake(self, made: EquationMistake) -> Mistake:
        """What a report says of a mistake."""
        return made.mistake


class Effect(NamedTuple):
    """The entries of some cases that one mistake changes, and those that it explains, as bits."""

    changed: int
    explained: int


def plausible_pairs(
    known: CellHypotheses, cases: Sequence[Evidence]
) -> Callable[[EquationMistake, EquationMistake], bool]:
    """Tell whether two mistakes may explain cases together, from what each does alone.

    Where both change a fixed set of entries, an entry that one of them leaves as it is must be
    explained by the other.
    """
    states: list[States] = [case.forward for case in cases]
    compared = [(case, [n for n in known.names if n in case.wanted]) for case in cases]

    def gradients(*made: EquationMistake) -> list[Array]:
        backs = [(known.backs(case, [made])[0], names) for case, names in compared]
        return [back.gradient(name) for back, names in backs for name in names]

    wanted = [case.wanted[name] for case, names in compared for name in names]
    right = gradients()
    every = as_bits(np.ones(found.shape, bool) for found in right)
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
        changed = as_bits(v != was for v, was in zip(found, right, strict=True))
        return Effect(changed, as_bits(near))

    def plausible(one: EquationMistake, other: EquationMistake) -> bool:
        a, b = effect(one), effect(other)
        if a is None or b is None:
            return True
        return a.changed | b.explained == every == b.changed | a.explained

    return plausible


def as_bits(masks: Iterable[Array]) -> int:
    """Masks as the digits of one number."""
    return int.from_bytes(np.packbits(np.concatenate([mask.ravel() for mask in masks])).tobytes())


def diagnose(witnesses: Sequence[Witness]) -> tuple[Mistake, ...]:
    """The mistakes that give all the submission's numbers; empty where none do, nor two.

    What fails at some sizes only, and is no single mistake, is unknown: any other name would be
    that of one size.
    """
    if not witnesses:
        return ()
    partly = wrong_at_some_sizes(witnesses)
    known = CellHypotheses(witnesses, pairs=not partly)
    return explanation(known, known.evidence) or partly


def wrong_at_some_sizes(witnesses: Sequence[Witness]) -> tuple[Mistake, ...]:
    """Unknown, with the sizes that fail; empty where all fail that have several steps."""
    failing = {witness.point.sizes for witness in witnesses if witness.fails}
    others = {witness.point.sizes for witness in witnesses} - failing
    if all(sizes.T == 1 for sizes in others):
        return ()
    wrong, right = (" and ".join(map(str, sorted(sizes))) for sizes in (failing, others))
    wrong_in, right_in = (
        {str(witness.point.x.dtype) for witness in witnesses if witness.fails is fails}
        for fails in (True, False)
    )
    only = "at these sizes only"
    if not wrong_in & right_in:  # the sizes may have nothing to do with it
        only = f"in {' and '.join(wrong_in)} or at these sizes only"
        wrong, right = (
            f"{sizes} in {' and '.join(dtypes)}"
            for sizes, dtypes in ((wrong, wrong_in), (right, right_in))
        )
    said = (
        f"your numbers are wrong with {wrong}, and not with {right}: no mistake that the judge "
        f"knows shows {only}."
    )
    details = {"failing": [sizes._asdict() for sizes in sorted(failing)]}
    return (Mistake("unknown", said, details),)
