"""Single time steps: every δ_t, from ∂L/∂U at one-hot inputs, with its relative error. (B4)"""

from typing import NamedTuple

import numpy as np

from bptt_verifier.report import StepResult
from bptt_verifier.tolerance.bounds import RESOLVING
from bptt_verifier.tolerance.comparison import Array, Verdict


class Steps(NamedTuple):
    """The errors of all adjoints of one probe, relative to the size of each δ_t."""

    relative: Array
    allowed: Array
    error: Array  # the worst entry of each step in units of its own allowed error


def compare_steps(submitted: Array, reference: Array, bound: Array) -> Steps:
    """Compare a submitted ∂L/∂U (G, T) with the adjoints (T, G) and their allowed errors."""
    difference = np.abs(submitted.T.astype(np.float64) - reference)
    size = np.max(np.abs(reference), axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return Steps(
            np.where(size > 0, difference.max(axis=1) / size, 0.0),
            np.where(size > 0, bound.max(axis=1) / size, np.inf),
            np.max(np.where(difference > 0, difference / bound, 0.0), axis=1),
        )


def summarise_steps(all_steps: list[Steps]) -> tuple[StepResult, ...]:
    """Summarise every δ_t by its worst probe."""
    results = []
    for t in range(len(all_steps[0].error)):
        worst = max(all_steps, key=lambda steps: steps.error[t])
        sharpest = min(all_steps, key=lambda steps: steps.allowed[t])
        if worst.error[t] > 1:
            verdict = Verdict.DISAGREES
        elif sharpest.allowed[t] <= RESOLVING:
            verdict, worst = Verdict.AGREES, worst if worst.error[t] > 0 else sharpest
        else:
            verdict, worst = Verdict.INCONCLUSIVE, sharpest
        relative, allowed = float(worst.relative[t]), float(worst.allowed[t])
        results.append(StepResult(t + 1, verdict, relative, allowed))
    return tuple(results)
