"""Single time steps: every δ_t, read off ∂L/∂U at one-hot inputs, relative to its own size. (B4)"""

from typing import NamedTuple

import numpy as np

from bptt_verifier.report import StepResult
from bptt_verifier.tolerance.bounds import RESOLVING
from bptt_verifier.tolerance.comparison import Array, Verdict


class Steps(NamedTuple):
    """How the adjoints of one probe compare: relative to the size of each δ_t."""

    relative: Array
    allowed: Array
    error: Array  # the worst entry of each step in units of its own allowed error


def compare_steps(yours: Array, reference: Array, bound: Array) -> Steps:
    """Their ∂L/∂U (G, T) against the adjoints (T, G) and what is allowed of these."""
    difference = np.abs(yours.T.astype(np.float64) - reference)
    size = np.max(np.abs(reference), axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return Steps(
            np.where(size > 0, difference.max(axis=1) / size, 0.0),
            np.where(size > 0, bound.max(axis=1) / size, np.inf),
            np.max(np.where(difference > 0, difference / bound, 0.0), axis=1),
        )


def summarise_steps(all_steps: list[Steps]) -> tuple[StepResult, ...]:
    """δ_t over all probes, for each t the worst."""
    results = []
    for t in range(len(all_steps[0].error)):
        worst = max(all_steps, key=lambda steps: steps.error[t])
        able = min(all_steps, key=lambda steps: steps.allowed[t])
        if worst.error[t] > 1:
            verdict = Verdict.DISAGREES
        elif able.allowed[t] <= RESOLVING:
            verdict, worst = Verdict.AGREES, worst if worst.error[t] > 0 else able
        else:
            verdict, worst = Verdict.INCONCLUSIVE, able
        results.append(
            StepResult(t + 1, verdict, float(worst.relative[t]), float(worst.allowed[t]))
        )
    return tuple(results)
