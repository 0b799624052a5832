"""The hypotheses of mistakes in one subject, as the search for a name asks for them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from bptt_verifier.mistakes.evidence import Evidence
from bptt_verifier.mistakes.single_gradients import Factor, Finding
from bptt_verifier.problems.problem import Array
from bptt_verifier.report import Mistake

Made = tuple[Any, ...]  # a combination of mistakes in the backward pass


class Back(Protocol):
    """The result of one backward pass, right or wrong, at one case."""

    def gradient(self, name: str) -> Array:
        """Compute the gradient of this name from it."""


class BackwardPass(NamedTuple):
    """The gradients of one backward pass at one case, by name, and the parameters."""

    values: Mapping[str, Array]
    params: Mapping[str, Array]

    def gradient(self, name: str) -> Array:
        """Look up the gradient of this name."""
        return self.values[name]


class Match(NamedTuple):
    """A mistake in the backward pass, and the gradients of the first case that it explains."""

    made: Any
    names: frozenset[str]


class Hypotheses(Protocol):
    """The mistakes that can be made in one subject."""

    @property
    def names(self) -> Sequence[str]:
        """The gradients, in the order of a report."""

    @property
    def tiers(self) -> Iterable[Sequence[Any]]:
        """All mistakes in the backward pass, in tiers, the likely ones first."""

    @property
    def batch(self) -> int:
        """Number of combinations of mistakes that are tried at once."""

    @property
    def factors(self) -> Sequence[Factor]:
        """The factors of a gradient that are often wrong."""

    @property
    def others(self) -> int:
        """Number of mistakes that are tried for another name, where one is found."""

    def sweep_back(self, case: Evidence, made: Sequence[Made]) -> Sequence[Back]:
        """Run the backward pass with each of these combinations of mistakes."""

    def match(self, case: Evidence, made: Sequence[Made]) -> Sequence[frozenset[str]]:
        """Find the gradients of a case that each of these combinations explains."""

    def list_fitted(self, matches: Sequence[Match]) -> Sequence[Any]:
        """List mistakes with a factor that is read from the submitted numbers."""

    def list_rarest(self) -> Sequence[Any]:
        """List mistakes that are tried alone and not beside another, where no other explains."""

    def list_pairs(
        self, evidence: Sequence[Evidence], matches: Sequence[Match]
    ) -> Iterator[tuple[Any, Any]]:
        """List pairs of mistakes in the backward pass, the likely ones first."""

    def list_partners(self, made: Any, matches: Sequence[Match]) -> Iterator[tuple[Any, Any]]:
        """List pairs of this mistake and another one in other places, as other names allow."""

    def list_findings(
        self, name: str, evidence: Sequence[Evidence], backs: Sequence[Any]
    ) -> Iterator[Finding]:
        """List the mistakes in one gradient alone, given a backward pass at each case."""

    def read_parameter(self, name: str, back: Any) -> Array | None:
        """Read the parameter of this name, given a backward pass; None where it is none."""

    def find_other_forward_pass(self) -> tuple[Mistake, ...]:
        """Find a different forward pass whose correct gradients are the submission's."""

    def find_equation(self, name: str) -> str | None:
        """Find the tag of a gradient's equation in docs/derivation.md, if it has one."""

    def is_generic(self, made: Any) -> bool:
        """Tell whether many other mistakes have the effect of this one."""

    def count_places(self, made: Any) -> int:
        """Count the places of a mistake that is made at several; one for any other."""

    def choose(self, made: Iterator[Any], first: Mistake | None) -> Mistake | None:
        """Choose one of the mistakes that explain everything; None where there are none.

        The choice is `first`, if it is given. Its explanation states the others.
        """

    def describe(self, made: Any, names: Sequence[str] = ()) -> Mistake:
        """Describe a mistake in the backward pass as a report does; in these gradients alone."""
