"""A subject: what is judged, and everything that the judge does not know about it.

The judge knows the order of the questions and how to read the answers; it does not know what a
gate is. A subject supplies its cases, its probes and its hypotheses, and calls the submission.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from bptt_verifier.judge.submission import Call, Expected
from bptt_verifier.mistakes.evidence import Witness
from bptt_verifier.problems.problem import Array
from bptt_verifier.reference.case import Case
from bptt_verifier.reference.exact_values import Computed
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.comparison import Comparison, Verdict, coarsest

OF_FORWARD = ("loss", "prediction")  # results of the forward pass, about which the judge asks first


class Compared(NamedTuple):
    """A submission's results at one case, what is true and allowed there, and how they compare."""

    case: Case
    submitted: dict[str, Array]
    values: dict[str, Array]
    allowed: dict[str, Array]
    comparisons: list[Comparison]

    @property
    def fails(self) -> bool:
        """Whether any gradient is outside its allowed error."""
        return any(found.verdict is Verdict.DISAGREES for found in self.comparisons)

    def witness(self, point: Any, names: Iterable[str]) -> Witness:
        """What a mistake must explain: the gradients of these names at a point."""
        every = self.submitted, self.values, self.allowed
        submitted, true, allowed = ({n: arrays[n] for n in names} for arrays in every)
        return Witness(point, submitted, true, allowed, self.fails)


# Asks the submission at a case and compares; None where it breaks the contract there.
Try = Callable[[Case], Compared | None]


class Subject(ABC):
    """What is judged. Only what a subject has to say for itself is abstract."""

    notes: tuple[str, ...] = ()  # sentences that belong on every report, such as what was left out
    refusal: str | None = None  # why nothing can be decided, where that is so

    @property
    @abstractmethod
    def stated(self) -> str:
        """Name the forward pass whose gradient is claimed, as a message does."""

    @property
    @abstractmethod
    def total(self) -> int:
        """Count the cases and probes, for a progress bar."""

    @abstractmethod
    def call(self, case: Case) -> Call:
        """Copy the arguments of a case as the submission takes them."""

    @abstractmethod
    def expect(self, case: Case) -> Expected:
        """Describe what the submission has to return at a case."""

    @abstractmethod
    def draw_contract_cases(self) -> Iterable[Case]:
        """Choose the cases at which the submission is asked twice before numbers are compared."""

    @abstractmethod
    def draw_cases(self) -> Iterable[Case]:
        """Draw the cases at which gradients are compared."""

    def draw_probes(self) -> Iterable[Case]:
        """Make the cases on which single steps show: column t of ∂L/∂U is δ_t."""
        return ()

    def contradict(self, number: int, case: Case) -> str | None:
        """Say what contradicts the reference at case `number`, if anything does."""
        return None

    def name_model_of_loss(self, case: Case, value: float) -> str:
        """Say which other model has this loss, if a known one does."""
        return ""

    @abstractmethod
    def shrink(self, attempt: Try, failing: Compared) -> Compared:
        """Find a simpler case that fails, or return the failing one."""

    @abstractmethod
    def describe_sizes(self, found: Compared) -> str:
        """Say what a counterexample's sizes are."""

    @abstractmethod
    def reproduce(self, found: Compared) -> str:
        """Write the line that calls the submission at a case again."""

    @abstractmethod
    def diagnose(
        self, attempt: Try, cases: Sequence[Compared], probes: Sequence[Compared]
    ) -> tuple[Mistake, ...]:
        """Name the mistakes, from the cases and probes that fail; empty where none fits."""

    def choose_for_exact_values(self, compared: Sequence[Compared]) -> Iterator[Computed]:
        """Choose what exact values are asked of, in the order in which it is worth it."""
        return iter(())


def find_dtype(name: str, submitted: dict[str, Array], case: Case) -> Any:
    """The coarsest dtype of a result and of the argument that it belongs to.

    A loss may be a Python number whatever it was computed in: it has the coarsest dtype of all.
    """
    every = case.arguments.values()
    if name == "loss":
        return coarsest(*submitted.values(), *every)
    argument = case.arguments.get(name)
    return coarsest(submitted[name], *(every if argument is None else [argument]))
