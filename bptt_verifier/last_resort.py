"""What the judge does before it says inconclusive: it asks for the exact values.

A bound that is too large says nothing, but the exact gradient does. A result within a small part of
it agrees, because a mistake would have moved it by more. A result further off than that, and much
further than every correct derivation in the same number format, is wrong. Between the two, rounding
itself destroys the result, and nothing can be said. Source: docs/certification.md, section 4.
Used where python-flint, from the extra `certify`, is installed, and on small problems only.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from bptt_verifier.bounds import RESOLVING
from bptt_verifier.comparison import Array, Verdict
from bptt_verifier.noise import SAFETY
from bptt_verifier.problems import Problem
from bptt_verifier.report import Decision, Mistake, Report
from manual_bptt import jacobian_sum, rnn, rtrl
from manual_bptt.rnn import Params

PROBLEMS = 8  # the smallest ones are asked about; each costs one forward pass an entry
LARGEST_SIZE = 2000  # T B H of a problem that is small enough


Case = tuple[Problem, dict[str, Array], Any]


def available() -> bool:
    """Whether the exact values can be had."""
    return find_spec("flint") is not None


def in_dtype(problem: Problem, dtype: Any) -> Problem:
    """The problem with its numbers rounded to a dtype."""

    def cast(value: Array | None) -> Any:
        return None if value is None else value.astype(dtype)

    return problem._replace(
        params=Params(*map(cast, problem.params)),
        x=cast(problem.x),
        y=cast(problem.y),
        h0=cast(problem.h0),
    )


def of_correct_derivations(problem: Problem, dtype: Any) -> list[dict[str, Array]]:
    """What the three built-in derivations give in this number format."""
    params, x, y, h0, activation, loss = in_dtype(problem, dtype)
    named: dict[str, Any] = {"activation": activation, "loss": loss}
    with np.errstate(over="ignore", invalid="ignore"):
        everything = rnn.gradients(params, x, y, h0, **named)[1]._asdict()
        others = [m.value_and_grad(params, x, y, h0, **named)[1] for m in (jacobian_sum, rtrl)]
    return [everything, *(found._asdict() for found in others)]


def verdict_on(deviation: float, size: float, correct: float) -> Verdict:
    """Of one gradient in one problem, from largest deviations and the largest exact entry.

    `correct` is the largest deviation of any correct derivation; NaN among them decides nothing.
    """
    if not (size > 0 and np.isfinite(correct)):
        return Verdict.INCONCLUSIVE
    if deviation <= RESOLVING * size:
        return Verdict.AGREES
    return Verdict.DISAGREES if not deviation <= SAFETY * correct else Verdict.INCONCLUSIVE


def decide(cases: list[Case], names: list[str]) -> dict[str, Decision]:
    """Verdicts on these gradients, from the exact values of the smallest problems."""
    from bptt_verifier.enclosures import Undecided, certify  # noqa: PLC0415 - needs an extra

    def size(case: Case) -> int:
        T, B, _, H, _ = case[0].sizes
        return T * B * H

    small = sorted((case for case in cases if size(case) <= LARGEST_SIZE), key=size)
    verdicts: dict[str, list[Verdict]] = {name: [] for name in names}
    worst = dict.fromkeys(names, 0.0)
    for problem, yours, dtype in small[:PROBLEMS]:
        params, x, y, h0, activation, loss = problem
        asked = tuple(name for name in names if name in yours)
        try:
            exact = certify(params, x, y, h0, activation=activation, loss=loss, names=asked)
        except Undecided:
            continue
        correct = of_correct_derivations(problem, dtype)
        for name in asked:
            middle = exact[name].nearest.astype(np.float64)
            largest = float(np.max(np.abs(middle)))
            off = largest_deviation(yours[name], middle)
            best = [largest_deviation(each[name], middle) for each in correct if name in each]
            found = verdict_on(off, largest, max(best, default=np.nan))
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


def decided(report: Report, cases: list[Case]) -> Report:
    """The report where no comparison of some gradients could have shown a mistake.

    Where the exact values can be had, they decide. A case is a problem, what they gave for it by
    name, and the dtype that they computed in.
    """
    vague = [n for n, r in report.parameters.items() if r.verdict is Verdict.INCONCLUSIVE]
    told = f"No comparison of {', '.join(vague)} could have shown a mistake"
    found: dict[str, Decision] = {}
    if available():
        found = decide(cases, [name for name in vague if name not in ("loss", "prediction")])
    settled = {
        name: result._replace(verdict=found[name].verdict) if name in found else result
        for name, result in report.parameters.items()
    }
    report = report._replace(parameters=settled)
    verdicts = {found[name].verdict if name in found else Verdict.INCONCLUSIVE for name in vague}
    if Verdict.DISAGREES in verdicts:
        wrong = [n for n, decision in found.items() if decision.verdict is Verdict.DISAGREES]
        mistake = Mistake(
            "unknown",
            f"the exact values of {', '.join(wrong)} are further off than rounding in this number "
            "format takes any correct derivation.",
            {"gradients": wrong},
        )
        note = f"{told}; exact values decided."
        return report._replace(
            verdict=Verdict.DISAGREES, mistakes=(mistake,), notes=(note,), certified=found
        )
    if verdicts == {Verdict.AGREES}:
        worst = max(decision.deviation for decision in found.values())
        note = (
            f"{told}; their exact values decided: the worst error is {worst:.2g} of the gradient."
        )
        return report._replace(notes=(note,), certified=found)
    note = f"{told}; try more --examples."
    return report._replace(verdict=Verdict.INCONCLUSIVE, notes=(note,), certified=found)
