"""Diagnose a submission for a loss that cannot be traced, from single gradients alone."""

from collections.abc import Iterator, Sequence
from typing import Any

from bptt_verifier.mistakes.evidence import Evidence, Witness, make_evidence
from bptt_verifier.mistakes.hypotheses import BackwardPass, Match
from bptt_verifier.mistakes.penalties import list_partial_decays
from bptt_verifier.mistakes.search import explain
from bptt_verifier.mistakes.single_gradients import (
    Factor,
    Finding,
    list_clippings,
    list_common_findings,
    list_update_findings,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.report import Mistake


class SingleHypotheses:
    """The mistakes in single gradients, after a backward pass that is right."""

    tiers: Sequence[Sequence[Any]] = ()
    batch = 1
    others = 0

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.factors = [make_factor(words, number) for words, number in FACTORS.items()]

    def sweep_back(self, case: Evidence, made: Sequence[tuple[Any, ...]]) -> list[BackwardPass]:
        """Return the right gradients: no mistake in the backward pass is tried."""
        return [BackwardPass(case.reference, case.forward) for _ in made]

    def match(self, case: Evidence, made: Sequence[tuple[Any, ...]]) -> list[frozenset[str]]:
        """Find nothing: no mistake in the backward pass is tried."""
        return [frozenset() for _ in made]

    def list_fitted(self, matches: Sequence[Match]) -> Sequence[Any]:
        """List none: no mistake in the backward pass is tried."""
        return ()

    def list_rarest(self) -> Sequence[Any]:
        """List none: no mistake in the backward pass is tried."""
        return ()

    def list_pairs(
        self, evidence: Sequence[Evidence], matches: Sequence[Match]
    ) -> Iterator[tuple[Any, Any]]:
        """List none: no mistake in the backward pass is tried."""
        return iter(())

    def list_partners(self, made: Any, matches: Sequence[Match]) -> Iterator[tuple[Any, Any]]:
        """List none: no mistake in the backward pass is tried."""
        return iter(())

    def list_findings(
        self, name: str, evidence: Sequence[Evidence], backs: Sequence[BackwardPass]
    ) -> Iterator[Finding]:
        """List the mistakes in one gradient."""
        yield from list_update_findings(name, evidence[0], backs[0], self.read_parameter)
        yield from list_partial_decays(name, evidence, backs, self.read_parameter)
        clippings = list_clippings(name, evidence, self.names)
        yield from list_common_findings(name, evidence, backs, self.factors, clippings)

    def read_parameter(self, name: str, back: BackwardPass) -> Array:
        """Read the parameter of this name."""
        return back.params[name]

    def find_other_forward_pass(self) -> tuple[Mistake, ...]:
        """Find none: the user's loss is the forward pass."""
        return ()

    def find_equation(self, name: str) -> str | None:
        """Find none: docs/derivation.md has no equations of the user's model."""
        return None

    def count_places(self, made: Any) -> int:
        """Count the places of a mistake: each has one."""
        return 1

    def is_generic(self, made: Any) -> bool:
        """Return False: no mistake in the backward pass is tried."""
        return False

    def choose(self, made: Iterator[Any], first: Mistake | None) -> Mistake | None:
        """Choose the first: no mistake in the backward pass is tried."""
        return first

    def describe(self, made: Any, names: Sequence[str] = ()) -> Mistake:
        """Raise AssertionError: no mistake in the backward pass is tried, so none is found."""
        raise AssertionError("a black box has no mistakes in the backward pass")


FACTORS = {"2": 2.0, "1/2": 0.5, "−2": -2.0, "−1/2": -0.5}


def make_factor(words: str, number: float) -> Factor:
    """Make a known wrong factor."""
    return Factor(words, lambda back: number)


def diagnose_black_box(witnesses: Sequence[Witness]) -> tuple[Mistake, ...]:
    """Find the mistakes in single gradients that give the submission's numbers."""
    names = [*witnesses[0].reference]
    axes = dict.fromkeys(names)
    evidence = [make_evidence(witness.point, 1, witness, axes) for witness in witnesses]
    return explain(SingleHypotheses(names), evidence)
