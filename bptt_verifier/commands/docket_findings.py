"""What a run finds of an entry of the docket: verdict, errors, counterexample, certificate."""

from collections.abc import Iterator
from contextlib import nullcontext
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.commands.docket_training import describe_training
from bptt_verifier.docket.entry import Kind
from bptt_verifier.judge.exact_identity import (
    ExactComparison,
    certify_definition,
    certify_identity,
)
from bptt_verifier.judge.processes import started_workers
from bptt_verifier.judge.published import (
    ROUNDING,
    DocketCase,
    is_as_stated,
    judge_entry,
    measure_defined_errors,
    measure_errors,
    read_entry,
)
from bptt_verifier.judge.small_sizes import find_smallest
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict, find_symbol

UNDECIDED = (
    "Rational arithmetic decides nothing here: it takes code of arithmetic, products, tanh, exp, "
    "log and sqrt, at small sizes, and knows no relation between values but tanh(−a) = −tanh(a) "
    "and exp(−a) = 1 / exp(a)."
)
SHOWN = 8  # numbers of a counterexample that fit a line
# Of so many entries, those on these models, half of the work, go to a second process.
MANY, HANDED = 20, ("lstm", "rnn")


class DocketRow(NamedTuple):
    """An entry, the report on it, and the relative errors of its gradients on ordinary data.

    `errors` are those against the gradient, `defined_errors` those against what the entry says
    that the claim is exactly; `identity` and `definition` say whether it is either, without
    rounding, or are None where rational arithmetic cannot run the entry.
    """

    case: DocketCase
    report: Report
    errors: dict[str, float]
    defined_errors: dict[str, float]
    identity: ExactComparison | None = None
    definition: ExactComparison | None = None

    @property
    def as_defined(self) -> bool:
        """True if the claim is what the entry says that it is exactly, or if that says nothing."""
        found = self.defined_errors.values()
        small = [error < ROUNDING for error in found]  # False where an error is not a number
        return not self.case.entry.exactly or (bool(small) and all(small))

    @property
    def as_stated(self) -> bool:
        """True if the report is what the entry states, and no certificate contradicts it."""
        stated = is_as_stated(self.case.entry, self.report) and self.as_defined
        return stated and (self.case.entry.kind is Kind.RIGHT or not self.is_equal)

    @property
    def is_equal(self) -> bool:
        """True if the claim is the derivative of the loss in rational arithmetic."""
        return self.identity is not None and self.identity.refuted is None

    @property
    def refuted(self) -> str:
        """The gradient by which rational arithmetic refutes the claim, if numbers refute it too.

        That it differs with free values says nothing of a claim that numbers find right.
        """
        if self.identity is None or self.report.verdict is not Verdict.DISAGREES:
            return ""
        return self.identity.refuted or ""

    @property
    def certificate(self) -> str:
        """What rational arithmetic decides, in a word for the table."""
        if self.is_equal:
            return "equal"
        kept = self.definition is not None and self.definition.refuted is None
        if self.case.entry.kind is Kind.AS_DEFINED and kept:
            return "as defined"
        return "refuted" if self.refuted else "–"

    @property
    def word(self) -> str:
        """The verdict in the table: the judge's, or that the claim is right as defined."""
        kind = self.case.entry.kind
        return kind if self.as_stated and kind is Kind.AS_DEFINED else str(self.report.verdict)

    @property
    def mistake(self) -> str:
        """The names of the mistakes that the judge finds, if it finds any."""
        return ", ".join(m.name for m in self.report.mistakes if m.name != "unknown")


def judge_entries(names: list[str]) -> Iterator[DocketRow]:
    """Judge the entries of these names, one by one; of many, a second process takes a part."""
    with nullcontext() if len(names) < MANY else started_workers(1) as pool:
        handed = [name for name in names if pool and read_entry(name).entry.model in HANDED]
        waiting = {name: pool.submit(find_all, name) for name in handed if pool}
        for name in names:
            found = attempt(waiting.pop(name).result) if name in waiting else None
            # A worker that was killed has found nothing: its entries are judged here.
            found = find_all(name) if found is None or isinstance(found, Failure) else found
            yield DocketRow(read_entry(name), *found)


def find_all(name: str) -> tuple[Any, ...]:
    """Find what a row has besides the entry, all of which can be sent between processes."""
    case = read_entry(name)
    measured = (attempt(measure, case) for measure in (measure_errors, measure_defined_errors))
    errors = [{} if isinstance(each, Failure) else each for each in measured]
    return judge_entry(case), *errors, *certify_entry(case)


def certify_entry(case: DocketCase) -> list[ExactComparison | None]:
    """Decide in rational arithmetic whether a claim is the gradient, and what its entry says."""
    wanted = [certify_identity, certify_definition if case.entry.exactly else None]
    found = [certify and attempt(certify, case) for certify in wanted]
    return [None if isinstance(each, Failure) else each for each in found]


def list_errors(errors: dict[str, float]) -> str:
    """List the relative errors that exceed rounding, by gradient."""
    if not errors:
        return "not measured"
    found = {name: error for name, error in errors.items() if error > ROUNDING}
    listed = ", ".join(f"{find_symbol(name)} {error:.2g}" for name, error in found.items())
    return listed or "none beyond rounding"


def describe_errors(row: DocketRow) -> list[str]:
    """Describe the relative errors against the gradient, and against what the claim is exactly."""
    lines = [f"Relative error on ordinary data: {list_errors(row.errors)}."]
    if row.case.entry.exactly:
        found = list_errors(row.defined_errors)
        lines.append(f"Against {row.case.entry.exactly}: {found}.")
    return lines


def write_digits(values: Any, digits: int = 3) -> str:
    """Write nested lists of numbers with so many significant digits."""
    if isinstance(values, list):
        return f"[{', '.join(write_digits(each, digits) for each in values)}]"
    return f"{values:.{digits}g}"


def write_apart(claimed: Any, true: Any) -> tuple[str, str]:
    """Write two lists of numbers with three digits, or with as many as tell them apart."""
    for digits in range(3, 18):
        texts = write_digits(claimed, digits), write_digits(true, digits)
        if texts[0] != texts[1]:
            break
    return texts


def describe_counterexample(row: DocketRow) -> list[str]:
    """Describe the smallest failing case; list the numbers where they are few.

    An own model's sizes are made smaller here; the judge leaves them as they are.
    """
    if row.report.counterexample is None:
        return []
    if row.case.entry.model:
        case = row.report.counterexample
        return describe_values(case.sizes, case.gradient, case.yours, case.autodiff, "autodiff")
    small = attempt(find_smallest, row.case)
    if small is None or isinstance(small, Failure):
        return []
    sizes = " ".join(f"{letter}={size}" for letter, size in small.sizes.items())
    claimed, true = small.claimed.tolist(), small.true.tolist()
    return describe_values(sizes, small.gradient, claimed, true, "complex steps")


def describe_values(sizes: str, gradient: str, claimed: Any, true: Any, by: str) -> list[str]:
    """Describe a failing case by its sizes, and by one gradient of it if the numbers are few."""
    lines = [f"Smallest failing case: {sizes or 'single numbers'}."]
    if prod(np.shape(claimed)) <= SHOWN:
        by_claim, by_other = write_apart(claimed, true)
        lines.append(
            f"There {find_symbol(gradient)} is {by_claim} by the claim and {by_other} by {by}."
        )
    return lines


def describe_equality(found: ExactComparison, other: str) -> str:
    """Describe a certificate: a claim is equal to another vector in rational arithmetic."""
    free = ", ".join(found.functions)
    free = f", with the values of {free} as free variables" if free else ""
    return (
        f"Certificate, in rational arithmetic: the claim equals {other} at a random rational point"
        f"{free}. If they were two functions, the chance of that would be below "
        f"10^{ceil(found.log10_error)}."
    )


def describe_certificates(row: DocketRow) -> list[str]:
    """Describe what rational arithmetic decides of a claim, as far as it does."""
    lines = []
    if row.refuted:
        lines.append(
            f"In rational arithmetic the claim is refuted: {find_symbol(row.refuted)} is "
            "another number at a random rational point."
        )
    for found, other in (
        (row.identity, "the derivative of the loss"), (row.definition, row.case.entry.exactly),
    ):  # fmt: skip
        if found is not None and found.refuted is None:
            lines.append(describe_equality(found, other))
    return lines or [UNDECIDED]


def describe_findings(row: DocketRow) -> list[str]:
    """Describe the size of the error, the smallest failing case, exact values, and training."""
    found = [*describe_errors(row), *describe_counterexample(row), *describe_certificates(row)]
    training = attempt(describe_training, row.case)
    return [line for line in [*found, training] if line and not isinstance(line, Failure)]
