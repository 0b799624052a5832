"""A subject: the model whose gradients a submission computes, with its cases and diagnosis."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.judge.judgement import find_largest_shapes
from bptt_verifier.judge.submission import Breach, Call, Expected, Submission
from bptt_verifier.mistakes.evidence import Witness
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import copies
from bptt_verifier.program.fixed_points import Limit
from bptt_verifier.reference.case import Case
from bptt_verifier.reference.exact_values import Computed
from bptt_verifier.report import Curve, Mistake, Size
from bptt_verifier.tolerance.comparison import Comparison, Verdict, find_coarsest_dtype

OF_FORWARD = ("loss", "prediction")  # results of the forward pass, which are compared first


class Compared(NamedTuple):
    """Results of a submission at one case, with true values, allowed errors and comparisons.

    `dtypes` has the format in which each result is judged.
    """

    case: Case
    submitted: dict[str, Array]
    dtypes: dict[str, Any]
    values: dict[str, Array]
    allowed: dict[str, Array]
    comparisons: list[Comparison]

    @property
    def fails(self) -> bool:
        """True if any gradient is outside its allowed error."""
        return any(found.verdict is Verdict.DISAGREES for found in self.comparisons)

    @property
    def agrees(self) -> bool:
        """True if all gradients are within their allowed errors, and these are small enough."""
        return all(found.verdict is Verdict.AGREES for found in self.comparisons)

    @property
    def gradients(self) -> list[str]:
        """The names of the gradients; a parameter may be called as a result of the forward pass."""
        return [n for n in self.submitted if n not in OF_FORWARD or n in self.case.arguments]

    def witness(self, point: Any, names: Iterable[str]) -> Witness:
        """Select the gradients of these names, which a mistake must explain, at a point."""
        every, known = (self.submitted, self.values, self.allowed), self.submitted.keys()
        returned = [name for name in names if name in known]
        submitted, true, allowed = ({n: arrays[n] for n in returned} for arrays in every)
        return Witness(point, submitted, true, allowed, self.fails)


# Call the submission at a case and compare its results; None where it breaks the contract.
Try = Callable[[Case], Compared | None]
# Copy the arguments of a case, in a layout of its own.
Copy = Callable[[Mapping[str, Array]], dict[str, Array]]


class Subject(ABC):
    """The model of a submission, as the judge sees it."""

    notes: tuple[str, ...] = ()  # sentences for every report, such as omitted cases
    refusal: str | None = None  # why no verdict is possible, if none is
    raised = False  # true if an exception of the user's loss is why
    doubt: str | None = None  # why agreement would show too little, if it would
    zeros: frozenset[str] = frozenset()  # gradients that are zero, to rounding, at any point
    # True if an entry may be a single step, so that none is too small to matter beside the largest.
    has_vanishing_steps = False
    # The format of the parameters given, which the submission may be written for; None for none.
    format_given: Any = None
    # The format that the stated model rounds to inside, as it stands; None for none.
    precision: Any = None

    @property
    @abstractmethod
    def stated(self) -> str:
        """The forward pass to differentiate, as a message names it."""

    def may_leave(self, cases: Sequence[Case], error: float) -> bool:
        """Tell whether a solver without a trace may leave this error, relative to a gradient."""
        return False

    @property
    @abstractmethod
    def total(self) -> int:
        """The number of cases and probes, for a progress bar."""

    @abstractmethod
    def call(self, case: Case, copy: Copy = copies) -> Call:
        """Copy the arguments of a case for one call of the submission."""

    @abstractmethod
    def expect(self, case: Case) -> Expected:
        """Describe what the submission has to return at a case."""

    @abstractmethod
    def draw_contract_cases(self) -> Iterable[Case]:
        """Choose the cases at which the submission is called twice before numbers are compared."""

    @abstractmethod
    def draw_cases(self) -> Iterable[Case]:
        """Draw the cases at which gradients are compared."""

    @abstractmethod
    def displace(self, case: Case, number: int, distance: float) -> Case:
        """Make a neighbour of a case at a relative distance, with the true values there.

        Nothing is allowed for errors.
        """

    def scale_values(self, case: Case, factors: Sequence[float]) -> Iterable[Case]:
        """Scale the values of a drawn case, to tell an overflow from a wrong formula.

        Nothing is known of the true values there. Empty where no case is judged with its values
        alone in doubt: the parameters given are the user's, and cells are drawn within bounds.
        """
        return ()

    def follow_loss(
        self, submission: Submission, case: Case, answer: dict[str, Array] | Breach
    ) -> Submission | None:
        """Find the submission that calls the loss first, where its `answer` depends on that."""
        return None

    def may_be_outside(self, case: Case) -> bool:
        """Tell whether the values of a case are drawn without regard to where a formula holds."""
        return False

    def draws_zeros(self, case: Case) -> bool:
        """Tell whether arguments of a case are zero that are not as they were given."""
        return False

    def is_extreme(self, case: Case) -> bool:
        """Tell whether arguments of a case are scaled by a large number, or by zero."""
        return False

    def widen(self, case: Case) -> Case | None:
        """Give the arguments of a case the user's own format; None where they have it."""
        return None

    def draw_probes(self) -> Iterable[Case]:
        """Draw the cases that show single steps: column t of ∂L/∂U is δ_t."""
        return ()

    def draw_extreme_cases(self) -> Iterable[Case]:
        """Draw further cases, at which gradients are compared if all others agree."""
        return ()

    def compute_ahead(self) -> None:  # noqa: B027  # most subjects have nothing to compute
        """Start computing what extreme cases need, while others are compared; never waits."""

    def find_largest_sizes(self, cases: Iterable[Case]) -> dict[str, Size]:
        """Find the largest shape of each argument in these cases, or size, by its letter."""
        return find_largest_shapes(case.arguments for case in cases)

    def describe_unseen(self, compared: Sequence[Compared]) -> Iterable[str]:
        """Describe what no case could have shown, where the submission agrees at all of these."""
        return ()

    def draw_far_cases(self, case: Case) -> Iterator[tuple[int, Case]]:
        """Draw a case at larger values, each with its factor, as long as the truth is finite."""
        return iter(())

    def draw_in_sets(self, case: Case) -> tuple[str, Iterator[Case]]:
        """Describe special sets that arguments of a case are in, and draw cases in these.

        Empty where they are in none.
        """
        return "", iter(())

    def draw_raising(self, case: Case) -> Iterator[Case]:
        """Draw other values of a case at which the stated model raises an exception.

        Nothing is known of the true values there.
        """
        return iter(())

    def describe_failing(self, compared: Sequence[Compared]) -> Iterable[str]:
        """Describe at which of these cases the submission disagrees, where that is to be known."""
        return ()

    def find_limits(self, case: Case) -> Iterator[Limit]:
        """Find the gradients of the fixed points that the loss iterates to, by kinds of loops."""
        return iter(())

    def find_iterated(self, case: Case) -> frozenset[Any]:
        """Find the places of the operations in iterations of the loss at a case."""
        return frozenset()

    def describe_iteration(self, case: Case) -> str:
        """Describe where an iteration of the loss is; empty where that is not known."""
        return ""

    def differentiate_unguarded(self, case: Case) -> list[dict[str, Array]]:
        """Differentiate the loss without its guards, in some ways; empty where it has none."""
        return []

    def describe_guard(self, case: Case) -> str:
        """Describe where a guard of the loss is; empty where that is not known."""
        return ""

    def differentiate_unrounded(self, case: Case) -> tuple[dict[str, Array], str]:
        """Differentiate what the loss rounds, and describe where it last does; empty if nowhere."""
        return {}, ""

    def doubt_far(self, compared: Sequence[Compared]) -> list[str]:
        """Say so where gradients may be meant to hold near the parameters given alone."""
        return []

    def differentiate_traced(self, case: Case) -> dict[str, Array]:
        """Differentiate by autodiff where the reference is another one, and autodiff has one."""
        return {}

    def contradict(self, number: int, case: Case) -> str | None:
        """Describe what contradicts the reference at case `number`, if anything does."""
        return None

    def name_model_of_loss(self, case: Case, value: float) -> str:
        """Name another known model that has this loss; empty if none has."""
        return ""

    @abstractmethod
    def shrink(self, attempt: Try, failing: Compared) -> Compared:
        """Find a simpler case that fails, or return the failing one."""

    @abstractmethod
    def describe_sizes(self, found: Compared) -> str:
        """Describe the sizes of a counterexample."""

    def write_case(self, found: Compared) -> str:
        """Write a case as an option takes it; empty where only its arrays make it again."""
        return ""

    @abstractmethod
    def reproduce(self, found: Compared) -> str:
        """Write the line that calls the submission at this case."""

    @abstractmethod
    def diagnose(
        self, attempt: Try, cases: Sequence[Compared], probes: Sequence[Compared]
    ) -> tuple[Mistake, ...]:
        """Find the mistakes that explain the failing cases and probes; empty where none do."""

    def chart_steps(self, cases: Sequence[Compared]) -> tuple[Curve, ...]:
        """Chart the errors of single steps in failing cases, where there are no probes."""
        return ()

    def choose_for_exact_values(self, compared: Sequence[Compared]) -> Iterator[Computed]:
        """Choose the results to compare with exact values, the cheapest first."""
        return iter(())


def find_dtype(name: str, submitted: dict[str, Array], case: Case, precision: Any = None) -> Any:
    """Find the coarsest dtype of a result and of the argument that it belongs to.

    The loss may be a Python number: it is as coarse as all arguments and all gradients are.
    `precision` is the format in which the submission computes, if it is known to be coarser.
    """
    every = [*case.arguments.values()]
    argument = case.arguments.get(name)
    related = every if argument is None else [argument]
    if name == "loss" and argument is None:
        related = [*related, *find_finest_gradient(submitted, case)]
    return find_coarsest_dtype(submitted[name], *related, precision=precision)


def find_finest_gradient(submitted: dict[str, Array], case: Case) -> list[Array]:
    """Find the gradient of the finest dtype, zeros not counted; none where there is none.

    One gradient or a prediction may be rounded when it is returned, whatever computed the loss.
    """
    every = [v for n, v in submitted.items() if n not in OF_FORWARD or n in case.arguments]
    every = [v for v in every if v.any()] or every
    return sorted(every, key=lambda value: float(np.finfo(value.dtype).eps))[:1]
