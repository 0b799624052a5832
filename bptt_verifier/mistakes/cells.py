"""Diagnose a submission for a cell: RNN, LSTM or GRU."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np

from bptt_verifier.mistakes import cell_gradients
from bptt_verifier.mistakes.equations import EQUATIONS, States, Sweep, forward, sweep
from bptt_verifier.mistakes.evidence import SLACK, Evidence, Witness, make_evidence
from bptt_verifier.mistakes.forward_passes import OtherForwardPass, list_forward_passes
from bptt_verifier.mistakes.hypotheses import Match
from bptt_verifier.mistakes.identity import ByIdentity
from bptt_verifier.mistakes.in_equations import (
    EquationMistake,
    changes_fixed_entries,
    list_mistakes,
    merge_changes,
)
from bptt_verifier.mistakes.other_names import add_names
from bptt_verifier.mistakes.search import FEW, explain, match_each, try_mistakes
from bptt_verifier.mistakes.single_gradients import Finding, restrict
from bptt_verifier.problems.problem import Array, Problem
from bptt_verifier.report import Mistake

# Products cancel within a step, so the largest entry of a row scales its rounding errors. In ∂L/∂U
# it is that of a column, which may be one step alone: steps differ in size.
AXES = dict.fromkeys(cell_gradients.NAMES, -1) | {"U": 0}


def gather_evidence(witness: Witness, other: OtherForwardPass | None = None) -> Evidence:
    """Make evidence of a witness, with its own forward pass or another one."""
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
    """Rank a witness: failing before others, float64 before float32, small before large."""
    T, B, D, H, _ = witness.point.sizes
    return not witness.fails, witness.point.x.dtype == np.float32, T * B * (D + H)


class CellHypotheses:
    """The mistakes in the backward pass of a cell and in its single gradients."""

    names = cell_gradients.NAMES
    batch = 1
    factors = cell_gradients.CELL_FACTORS
    others = 1000  # more than a cell has

    def __init__(self, witnesses: Sequence[Witness], *, pairs: bool = True) -> None:
        self.witnesses = sorted(witnesses, key=rank_by_cost)
        self.evidence = [gather_evidence(witness) for witness in self.witnesses]
        self.longest = max(witness.point.sizes.T for witness in witnesses)
        self.with_pairs = pairs
        self.first_backs = ByIdentity[EquationMistake, Sweep]()  # of single ones at the first case

    @cached_property
    def single(self) -> list[EquationMistake]:
        """All mistakes in the equations, the likely ones first."""
        return [*list_mistakes(self.evidence[0].forward, self.longest)]

    @property
    def tiers(self) -> list[list[EquationMistake]]:
        """All mistakes in the equations, as one tier."""
        return [self.single]

    def match(
        self, case: Evidence, made: Sequence[tuple[EquationMistake, ...]]
    ) -> list[frozenset[str]]:
        """Find the gradients of a case that each of these combinations explains."""
        return match_each(self, case, made)

    def sweep_back(
        self, case: Evidence, made: Sequence[tuple[EquationMistake, ...]]
    ) -> list[Sweep]:
        """Run the backward pass with each of these combinations."""
        return [self.back(case, each) for each in made]

    def back(self, case: Evidence, made: tuple[EquationMistake, ...]) -> Sweep:
        """Run the backward pass with one combination; keep it if the search needs it again."""
        way, alone = merge_changes(made), len(made) == 1 and case is self.evidence[0]
        assert way is not None
        if not alone:
            return sweep(case.forward, way)
        if made[0] not in self.first_backs:
            self.first_backs[made[0]] = sweep(case.forward, way)
        return self.first_backs[made[0]]

    def list_fitted(self, matches: Sequence[Match]) -> list[EquationMistake]:
        """List none: the mistakes in the equations have known factors."""
        return []

    def list_rarest(self) -> list[EquationMistake]:
        """List none: the mistakes in the equations have been listed."""
        return []

    def list_pairs(
        self, evidence: Sequence[Evidence], matches: Sequence[Match]
    ) -> Iterator[tuple[EquationMistake, EquationMistake]]:
        """List pairs of mistakes in different places, without the many truncations and clippings.

        Pairs that cannot explain the first cases, by the effect of each alone, are left out.
        """
        if not self.with_pairs:
            return
        often = [each for each in self.single if each.mistake.name not in ("truncated", "clipped")]
        plausible = make_pair_filter(self, evidence[:FEW])
        for pair in combinations(often, 2):
            if merge_changes(pair) is not None and plausible(*pair):
                yield pair

    def list_partners(
        self, made: EquationMistake, matches: Sequence[Match]
    ) -> Iterator[tuple[EquationMistake, EquationMistake]]:
        """List pairs of this mistake and another one in another place."""
        return ((made, m.made) for m in matches if merge_changes((made, m.made)) is not None)

    def list_findings(
        self, name: str, evidence: Sequence[Evidence], backs: Sequence[Sweep]
    ) -> Iterator[Finding]:
        """List the mistakes in one gradient, given a backward pass at each case."""
        return cell_gradients.list_findings(name, evidence, backs, self.longest)

    def read_parameter(self, name: str, back: Sweep) -> Array | None:
        """Read the weight or bias of this name; None for an input."""
        weights = self.witnesses[0].point.weights
        return cell_gradients.read_weight(name, back) if name in weights else None

    def find_other_forward_pass(self) -> tuple[Mistake, ...]:
        """Find a different forward pass whose correct gradients are the submission's."""
        if len({tuple(witness.point.first) for witness in self.witnesses}) > 1:
            return ()  # another forward pass would be another one without an initial state
        others = (list_forward_passes(witness.point) for witness in self.witnesses)
        for variant in zip(*others, strict=True):
            pairs = zip(self.witnesses, variant, strict=True)
            if all(not try_mistakes(self, [gather_evidence(w, o)], ()).wrong for w, o in pairs):
                return (variant[0].mistake,)
        return ()

    def find_equation(self, name: str) -> str | None:
        """Find the tag of a gradient's equation in docs/derivation.md."""
        return EQUATIONS[self.witnesses[0].point.cell].get(name)

    def count_places(self, made: EquationMistake) -> int:
        """Count the places of a mistake: each has one."""
        return 1

    def is_generic(self, made: EquationMistake) -> bool:
        """Return False: each mistake in the equations has an effect of its own."""
        return False

    def choose(self, made: Iterator[EquationMistake], first: Mistake | None) -> Mistake | None:
        """Choose the first, which is the likely one, and state the other names."""
        every = map(self.describe, made)
        first = first or next(every, None)
        return first and add_names(first, every)

    def describe(self, made: EquationMistake, names: Sequence[str] = ()) -> Mistake:
        """Return the description, which every mistake in the equations has."""
        return restrict(made.mistake, names)


class Effect(NamedTuple):
    """The entries that one mistake changes, and those that it explains, as bits."""

    changed: int
    explained: int


def make_pair_filter(
    known: CellHypotheses, cases: Sequence[Evidence]
) -> Callable[[EquationMistake, EquationMistake], bool]:
    """Make a test of whether two mistakes can explain these cases, by the effect of each alone.

    Where both change a fixed set of entries, one mistake must explain every entry that the other
    leaves unchanged.
    """
    states: list[States] = [case.forward for case in cases]
    compared = [(case, [n for n in known.names if n in case.wanted]) for case in cases]

    def gradients(*made: EquationMistake) -> list[Array]:
        backs = [(known.sweep_back(case, [made])[0], names) for case, names in compared]
        return [back.gradient(name) for back, names in backs for name in names]

    wanted = [case.wanted[name] for case, names in compared for name in names]
    right = gradients()
    every = pack_bits(np.ones(found.shape, bool) for found in right)
    effects = ByIdentity[EquationMistake, Effect | None]()

    def effect(made: EquationMistake) -> Effect | None:
        if made not in effects:
            effects[made] = effect_alone(made) if changes_fixed_entries(made, states) else None
        return effects[made]

    def effect_alone(made: EquationMistake) -> Effect:
        found = gradients(made)
        # Twice the slack: the pair and the single mistake may each be off by the slack.
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
    """Pack masks into the bits of one number."""
    return int.from_bytes(np.packbits(np.concatenate([mask.ravel() for mask in masks])).tobytes())


def diagnose(witnesses: Sequence[Witness], *, several: bool = True) -> tuple[Mistake, ...]:
    """Find the mistakes that give the submission's numbers; empty where none do.

    Unless `several`, a single mistake is looked for, which is quick on large problems.
    If a submission fails at some sizes only, pairs of mistakes in the backward pass are not tried,
    since they would fit these sizes alone. Without another explanation, its mistake is unknown.
    """
    if not witnesses:
        return ()
    partly = find_failing_sizes(witnesses)
    known = CellHypotheses(witnesses, pairs=not partly)
    return explain(known, known.evidence, several=several) or partly


def find_failing_sizes(witnesses: Sequence[Witness]) -> tuple[Mistake, ...]:
    """Return an unknown mistake with the failing sizes; empty if all fail that have T > 1."""
    omitted = find_omitted_states(witnesses)
    if omitted:
        which = " and ".join(omitted)
        said = f"your numbers are wrong where {which} is not given, and right where it is."
        return (Mistake("unknown", said, {"omitted": omitted}),)
    failing = {witness.point.sizes for witness in witnesses if witness.fails}
    telling = [witness for witness in witnesses if witness.fails or can_tell(witness, witnesses)]
    others = {witness.point.sizes for witness in telling} - failing
    if all(sizes.T == 1 for sizes in others):
        return ()
    wrong, right = (" and ".join(map(str, sorted(sizes))) for sizes in (failing, others))
    said = f"your numbers are wrong with {wrong}, and right with {right}"
    said += ": no known mistake shows at these sizes only."
    details = {"failing": [sizes._asdict() for sizes in sorted(failing)]}
    return (Mistake("unknown", said, details),)


def can_tell(right: Witness, witnesses: Sequence[Witness]) -> bool:
    """True if a case with no error would show one as large as in each of those that fail.

    Rounding in half precision hides a mistake of some per cent in most cases.
    """
    errors: dict[str, float] = {}
    for each in (witness for witness in witnesses if witness.fails):
        for name, true in each.reference.items():
            error = np.abs(each.submitted[name] - true)
            if np.any(error > each.allowed[name]) and np.any(true):
                relative = float(np.max(error) / np.max(np.abs(true)))
                errors[name] = min(relative, errors.get(name, relative))
    return not errors or any(
        np.any(relative * np.abs(right.reference[name]) > right.allowed[name])
        for name, relative in errors.items()
        if name in right.reference
    )


def find_omitted_states(witnesses: Sequence[Witness]) -> list[str]:
    """Find the initial states that no failing case has and every other case has."""
    failing = [witness.point.first for witness in witnesses if witness.fails]
    others = [witness.point.first for witness in witnesses if not witness.fails]
    names = others[0] if others else {}
    return [
        name
        for name in names
        if all(name in first for first in others) and not any(name in first for first in failing)
    ]
