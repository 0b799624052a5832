"""What the judge does before it says inconclusive: it asks for the exact values.

A bound that is too large says nothing, but the exact gradient does. A result within a small part of
it agrees, because a mistake would have moved it by more. A result further off than that, and much
further than every correct derivation in the same number format, is wrong. Between the two, rounding
itself destroys the result, and nothing can be said. Source: docs/certification.md, section 4.
Used where python-flint, from the extra `certify`, is installed, and on small problems only.
"""

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Variant, remembered
from bptt_verifier.report.report import Decision, Mistake, Report
from bptt_verifier.tolerance.bounds import RESOLVING
from bptt_verifier.tolerance.comparison import Array, Verdict
from bptt_verifier.tolerance.noise import SAFETY
from manual_bptt import gru, jacobian_sum, lstm, rnn, rtrl

PROBLEMS = 8  # so many are asked about; each costs one forward pass an entry
LARGEST_SIZE = 2000  # T B H of a problem that is small enough
CORRECT = {"rnn": (rnn, jacobian_sum, rtrl), "lstm": (lstm,), "gru": (gru,)}


class Case(NamedTuple):
    """A problem, what they gave for it by name, and the dtype that they computed in."""

    problem: Variant
    yours: dict[str, Array]
    dtype: Any

    @property
    def size(self) -> int:
        """T B H."""
        T, B, _, H, _ = self.problem.sizes
        return T * B * H


def available() -> bool:
    """Whether the exact values can be had."""
    return find_spec("flint") is not None


def in_dtype(problem: Variant, dtype: Any) -> Variant:
    """The problem with its numbers rounded to a dtype."""

    def cast(value: Array | None) -> Any:
        return None if value is None else value.astype(dtype)

    return problem._replace(
        params=type(problem.params)(*map(cast, problem.params)),
        x=cast(problem.x),
        y=cast(problem.y),
        first={name: cast(state) for name, state in problem.first.items()},
    )


def of_correct_derivations(problem: Variant, dtype: Any) -> list[dict[str, Array]]:
    """What the built-in derivations of this cell give in this number format."""
    given = in_dtype(problem, dtype)
    named: dict[str, Any] = {**given.first, **given.option, "loss": given.loss}
    derivations = [getattr(m, "gradients", m.value_and_grad) for m in CORRECT[problem.cell]]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        found = [each(given.params, given.x, given.y, **named)[1] for each in derivations]
    return [each._asdict() for each in found]


def verdict_on(deviation: float, size: float, correct: float) -> Verdict:
    """Of one gradient in one problem, from largest deviations and the largest exact entry.

    `correct` is the largest deviation of any correct derivation; NaN among them decides nothing.
    """
    if not (size > 0 and np.isfinite(correct)):
        return Verdict.INCONCLUSIVE
    if deviation <= RESOLVING * size:
        return Verdict.AGREES
    return Verdict.DISAGREES if not deviation <= SAFETY * correct else Verdict.INCONCLUSIVE


@remembered(4 * PROBLEMS)
def exact_values(problem: Variant, names: tuple[str, ...]) -> dict[str, Array]:
    """The float64 nearest to every entry of these gradients."""
    from bptt_verifier.proofs.enclosures import certify  # noqa: PLC0415 - needs an extra

    given: dict[str, Any] = problem.first | problem.options
    found = certify(problem.params, problem.x, problem.y, model=problem.cell, names=names, **given)
    return {name: enclosure.nearest.astype(np.float64) for name, enclosure in found.items()}


def decide(cases: Iterable[Case], names: list[str]) -> dict[str, Decision]:
    """Verdicts on these gradients, from the exact values of the first problems small enough."""
    from bptt_verifier.proofs.enclosures import Undecided  # noqa: PLC0415 - needs an extra

    small = (case for case in cases if case.size <= LARGEST_SIZE)
    verdicts: dict[str, list[Verdict]] = {name: [] for name in names}
    worst = dict.fromkeys(names, 0.0)
    for problem, yours, dtype in islice(small, PROBLEMS):
        asked = tuple(name for name in names if name in yours)
        try:
            exact = exact_values(problem, asked)
        except Undecided:
            continue
        correct = of_correct_derivations(problem, dtype)
        underflow = float(np.finfo(dtype).smallest_normal)
        for name in asked:
            largest = float(np.max(np.abs(exact[name])))
            off = largest_deviation(yours[name], exact[name])
            best = [largest_deviation(each[name], exact[name]) for each in correct if name in each]
            # A correct derivation may be lucky where numbers vanish, and another one is not.
            found = verdict_on(off, largest, max(best, default=np.nan) + underflow)
            if found is not Verdict.INCONCLUSIVE:
                verdicts[name].append(found)
                worst[name] = max(worst[name], off / largest)
    return {
        name: Decision(together(found), len(found), worst[name]) for name, found in verdicts.items()
    }


def largest_deviation(values: Array, exact: Array) -> float:
    """The largest |values − exact|; ∞ where a value is not finite."""
    off = np.abs(np.asarray(values, np.float64) - exact)
    return float(np.max(np.where(np.isnan(off), np.inf, off)))


def together(verdicts: list[Verdict]) -> Verdict:
    """One disagreement decides; then one agreement."""
    order: Callable[[Verdict], int] = [Verdict.DISAGREES, Verdict.AGREES].index
    return min(verdicts, key=order, default=Verdict.INCONCLUSIVE)


def vague(report: Report) -> list[str]:
    """The gradients of which no comparison could have shown a mistake."""
    return [n for n, r in report.parameters.items() if r.verdict is Verdict.INCONCLUSIVE]


def told(report: Report) -> str:
    """That there are such gradients, as a note begins."""
    return f"No comparison of {', '.join(vague(report))} could have shown a mistake"


def decided(report: Report, cases: Iterable[Case]) -> Report:
    """An inconclusive report after asking the exact values, where they can be had.

    `cases` come in the order in which they are worth asking about.
    """
    names, sentence = vague(report), told(report)
    found: dict[str, Decision] = {}
    if available():
        found = decide(cases, [name for name in names if name not in ("loss", "prediction")])
    settled = {
        name: result._replace(verdict=found[name].verdict) if name in found else result
        for name, result in report.parameters.items()
    }
    report = report._replace(parameters=settled)
    verdicts = {found[name].verdict if name in found else Verdict.INCONCLUSIVE for name in names}
    if Verdict.DISAGREES in verdicts:
        wrong = [n for n, decision in found.items() if decision.verdict is Verdict.DISAGREES]
        mistake = Mistake(
            "unknown",
            f"the exact values of {', '.join(wrong)} are further off than rounding in this number "
            "format takes any correct derivation.",
            {"gradients": wrong},
        )
        note = f"{sentence}; exact values decided."
        return report._replace(
            verdict=Verdict.DISAGREES, mistakes=(mistake,), notes=(note,), certified=found
        )
    if verdicts == {Verdict.AGREES}:
        worst = max(decision.deviation for decision in found.values())
        note = (
            f"{sentence}; their exact values decided: "
            f"the worst error is {worst:.2g} of the gradient."
        )
        return report._replace(verdict=Verdict.AGREES, notes=(note,), certified=found)
    told_apart = [n for n, decision in found.items() if decision.verdict is Verdict.AGREES]
    notes = (f"Exact values decided on {', '.join(told_apart)} alone.",) if told_apart else ()
    return report._replace(notes=(*report.notes, *notes), certified=found)
