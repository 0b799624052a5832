"""What the judge says of somebody's derivation: a verdict, a mistake, a place, the numbers.

`str(report)` is a screenful of plain text, `report.to_dict()` plain values for JSON, and
`report.to_html()` a page that needs nothing but itself.
"""

from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.report import page
from bptt_verifier.tolerance.comparison import SYMBOLS, Array, Verdict


class Mistake(NamedTuple):
    """A mistake with a stable name, in one sentence, and the equation to look at."""

    name: str
    explanation: str
    details: dict[str, Any]
    equation: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "name": self.name,
            "explanation": self.explanation,
            "details": self.details,
            "equation": self.equation,
        }


class ParameterResult(NamedTuple):
    """The worst entry of one gradient over all cases; `error` in units of what is `allowed`."""

    verdict: Verdict
    error: float
    entry: tuple[int, ...]
    yours: float
    autodiff: float
    allowed: float
    cases: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "verdict": str(self.verdict),
            "worst_error_over_bound": self.error,
            "entry": list(self.entry),
            "yours": self.yours,
            "autodiff": self.autodiff,
            "bound": self.allowed,
            "cases": self.cases,
        }


class StepResult(NamedTuple):
    """δ_t over all probes: the worst error relative to its own size, and what was allowed there."""

    t: int
    verdict: Verdict
    relative_error: float
    allowed: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "t": self.t,
            "verdict": str(self.verdict),
            "relative_error": self.relative_error,
            "bound": self.allowed,
        }


class Curve(NamedTuple):
    """One probe of single steps, for the picture: relative error and bound for t = 1 … T."""

    label: str
    relative_errors: tuple[float, ...]
    allowed: tuple[float, ...]


def nine_digits(values: Array) -> Array:
    """The values to nine significant digits, however small they are."""
    rounded = [float(f"{value:.9g}") for value in values.flat]
    return np.array(rounded).reshape(values.shape)


class Counterexample(NamedTuple):
    """The smallest case found that fails: its arrays, both gradients, and how to make it again."""

    sizes: str
    arrays: dict[str, Any]
    gradient: str
    yours: list[Any]
    autodiff: list[Any]
    error_over_bound: list[Any]
    reproduce: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return self._asdict()


class Decision(NamedTuple):
    """What exact values say of one gradient: the verdict, and the worst deviation over problems.

    `deviation` is the largest error as a part of the largest entry of the exact gradient.
    """

    verdict: Verdict
    problems: int
    deviation: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return self._asdict() | {"verdict": str(self.verdict)}


class Report(NamedTuple):
    """The verdict on one derivation.

    `mistakes` is empty where nothing is wrong; two where only two together explain the numbers.
    `first_wrong_step` is the first one going backward from the output. `certified` holds what only
    the exact values decided. `notes` are sentences that
    a verdict alone would not say: what could not be compared, where an exception was raised.
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

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        first, others = self.mistakes[:1], self.mistakes[1:]
        mistake = {**first[0].to_dict(), "and": [m.to_dict() for m in others]} if first else None
        return {
            "subject": self.subject,
            "verdict": str(self.verdict),
            "mistake": mistake,
            "first_wrong_step": self.first_wrong_step,
            "parameters": {name: result.to_dict() for name, result in self.parameters.items()},
            "steps": [step.to_dict() for step in self.steps],
            "cases": self.cases,
            "counterexample": self.counterexample.to_dict() if self.counterexample else None,
            "notes": list(self.notes),
            "certified": {name: found.to_dict() for name, found in self.certified.items()},
        }

    def __str__(self) -> str:
        """A screenful: verdict, mistake, table by parameter, smallest failing case."""
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The lines of `str(report)`."""
        lines = [f"{self.verdict}: {self.subject}, {self.cases} cases"]
        for mistake in self.mistakes:
            where = f" See ({mistake.equation}) in docs/derivation.md." if mistake.equation else ""
            lines += ["", f"{mistake.name}: {mistake.explanation}{where}"]
        if self.first_wrong_step is not None:
            lines += ["", f"Going backward, δ_{self.first_wrong_step} is the first that is wrong."]
        lines += ["", *self.notes] if self.notes else []
        if self.parameters:
            head = ("gradient", "worst error ÷ bound", "entry", "yours", "autodiff", "verdict")
            rows = [
                (
                    SYMBOLS.get(name, f"∂L/∂{name}"),
                    f"{result.error:.3g}",
                    ", ".join(map(str, result.entry)) or "–",
                    f"{result.yours:.9g}",
                    f"{result.autodiff:.9g}",
                    str(result.verdict),
                )
                for name, result in self.parameters.items()
            ]
            widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
            lines += [""]
            lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in [head, *rows]]
        if self.steps:
            wrong = [step for step in self.steps if step.verdict is Verdict.DISAGREES]
            worst = max(self.steps, key=lambda step: step.relative_error / step.allowed)
            lines += [
                "",
                f"Single steps: {len(wrong)} of {len(self.steps)} adjoints δ_t disagree; "
                f"the worst is δ_{worst.t}, off by {worst.relative_error:.2g} of its own size "
                f"(allowed {worst.allowed:.2g}).",
            ]
        if self.counterexample:
            case = self.counterexample
            symbol = SYMBOLS.get(case.gradient, f"∂L/∂{case.gradient}")
            lines += ["", f"The smallest failing case: {case.sizes}; {symbol} is"]
            lines += [f"  yours     {case.yours}", f"  autodiff  {case.autodiff}"]
            lines += [f"Reproduce: {case.reproduce}"]
        return lines

    def to_html(self) -> str:
        """The same as one page with pictures, which needs no network."""
        return page.page(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return page.body(self)


class DerivationError(AssertionError):
    """A derivation that was not verified; the message is the report, which is also `.report`."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report
