"""Findings: everything that verifying a submission yields, as immutable values."""

from collections.abc import Mapping
from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.report.links import link_to_mistake
from bptt_verifier.tolerance.comparison import Array, Verdict

SHOWN = 6  # sizes in the first line of a report
Size = int | tuple[int, ...]
COUNTED = "could have shown a mistake in every gradient."  # the end of a note


class Curve(NamedTuple):
    """Errors step by step, for t = 1 … T, relative to the right values, and the allowed ones.

    The quantity is that of δ_t in one probe of a cell; own models may have another.
    """

    label: str
    relative_errors: tuple[float, ...]
    allowed: tuple[float, ...]
    quantity: str = "adjoint δ"


class Mistake(NamedTuple):
    """A named mistake: its stable name, a sentence that explains it, the equation it violates.

    `curves` are the errors that it makes step by step, where they are known.
    """

    name: str
    explanation: str
    details: dict[str, Any]
    equation: str | None = None
    curves: tuple[Curve, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; the curves are pictures."""
        plain = self._asdict()
        del plain["curves"]
        return {**plain, "link": link_to_mistake(self.name)}


class ParameterResult(NamedTuple):
    """The worst entry of one gradient over all cases; `error` is in units of `allowed`.

    `resolution` is the smallest error, relative to the largest entry of the gradient, that would
    have been seen at any entry, in the sharpest case.
    """

    verdict: Verdict
    error: float
    entry: tuple[int, ...]
    yours: float
    autodiff: float
    allowed: float
    cases: int
    resolution: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "verdict": str(self.verdict), "worst_error_over_bound": self.error,
            "entry": list(self.entry), "yours": self.yours, "autodiff": self.autodiff,
            "bound": self.allowed, "cases": self.cases,
            "resolution": self.resolution if isfinite(self.resolution) else None,
        }  # fmt: skip


class StepResult(NamedTuple):
    """The worst relative error of δ_t over all probes, and the allowed one of that probe."""

    t: int
    verdict: Verdict
    relative_error: float
    allowed: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        error, bound = self.relative_error, self.allowed
        return {"t": self.t, "verdict": str(self.verdict), "relative_error": error, "bound": bound}


OF_MAP = "the map is along"  # begins what is said of a map of errors, which text does not draw


class Counterexample(NamedTuple):
    """The smallest failing case found: its arrays, both gradients, and a line to reproduce it.

    `case` is what `--case` takes, if that makes the case again.
    """

    sizes: str
    arrays: dict[str, Any]
    gradient: str
    yours: list[Any]
    autodiff: list[Any]
    error_over_bound: list[Any]
    reproduce: str
    case: str = ""

    @property
    def sizes_alone(self) -> str:
        """The case and its sizes, without what is said of the map of errors."""
        return self.sizes.partition(f", {OF_MAP}")[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return self._asdict()


class Decision(NamedTuple):
    """The verdict on one gradient by exact values, and the worst deviation over all problems.

    `deviation` is the largest error over the largest entry of the exact gradient.
    """

    verdict: Verdict
    problems: int
    deviation: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return self._asdict() | {"verdict": str(self.verdict)}


class Findings(NamedTuple):
    """The verdict on one submission, and the evidence.

    `mistakes` holds the mistakes that explain the numbers: none, one, or two together.
    `first_wrong_step` is the first one going backward from the output. `certified` holds the
    gradients that only exact values decided. `notes` are sentences on what the verdict does not
    tell: what could not be compared, where an exception was raised. `largest_sizes` has the largest
    T, B, D, H and O at which a derivation of a cell was called, and the largest shapes of the
    arguments of other functions. `raised` is true if the submission
    raised an exception, which ended the judgement. `seed`, `options` and `versions` are those of
    the run, and `command` gives the same report again.
    """

    subject: str
    verdict: Verdict
    mistakes: tuple[Mistake, ...] = ()
    first_wrong_step: int | None = None
    parameters: dict[str, ParameterResult] = {}  # noqa: RUF012 - never modified
    steps: tuple[StepResult, ...] = ()
    curves: tuple[Curve, ...] = ()
    cases: int = 0
    counterexample: Counterexample | None = None
    notes: tuple[str, ...] = ()
    certified: dict[str, Decision] = {}  # noqa: RUF012 - never modified
    largest_sizes: dict[str, Size] = {}  # noqa: RUF012 - never modified
    raised: bool = False
    seed: int | None = None
    options: dict[str, Any] = {}  # noqa: RUF012 - never modified
    versions: dict[str, str] = {}  # noqa: RUF012 - never modified
    command: str = ""

    @property
    def case_shown(self) -> str:
        """What the counterexample is: a failing case, or the one that was asked for."""
        fails = self.verdict is Verdict.DISAGREES
        return "The smallest failing case" if fails else "The case that was compared"

    @property
    def tried(self) -> str:
        """The number of cases, and the largest sizes among them, or of calls where none ended."""
        every = [f"{name}={size}" for name, size in self.largest_sizes.items()]
        more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
        sizes = " ".join(every[:SHOWN]) + more
        if not self.cases:
            return f"0 cases, calls up to {sizes}" if sizes else "0 cases, no sizes compared"
        return f"{self.cases} case{'s' * (self.cases != 1)}" + (f" up to {sizes}" if sizes else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        first, others = self.mistakes[:1], self.mistakes[1:]
        mistake = {**first[0].to_dict(), "and": [m.to_dict() for m in others]} if first else None
        return {
            "subject": self.subject, "verdict": str(self.verdict), "mistake": mistake,
            "first_wrong_step": self.first_wrong_step,
            "parameters": {name: result.to_dict() for name, result in self.parameters.items()},
            "steps": [step.to_dict() for step in self.steps], "cases": self.cases,
            "largest_sizes": self.largest_sizes,
            "counterexample": self.counterexample.to_dict() if self.counterexample else None,
            "notes": list(self.notes),
            "certified": {name: found.to_dict() for name, found in self.certified.items()},
            "seed": self.seed, "options": self.options, "versions": self.versions,
            "command": self.command,
        }  # fmt: skip


def write_count(telling: Mapping[str, int], cases: int) -> str:
    """Write how many cases could have shown a mistake, from the counts of each gradient."""
    return f"{min(telling.values(), default=0)} of {cases} case{'s' * (cases != 1)} {COUNTED}"


def nine_digits(values: Array) -> Array:
    """Round to nine significant digits, however small the values are."""
    return np.array([float(f"{value:.9g}") for value in values.flat]).reshape(values.shape)


def shortest(values: Array) -> Array:
    """Convert to float64 by the shortest decimals that tell each value from others of its dtype."""
    return np.array([float(str(value)) for value in values.flat]).reshape(values.shape)
