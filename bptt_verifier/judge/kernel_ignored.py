"""Gradients of a kernel that ignores cotangents: those of zeros, or of ones, in their place."""

from collections.abc import Sequence

import numpy as np

from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_cases import draw_neighbours
from bptt_verifier.judge.kernel_comparisons import Found
from bptt_verifier.judge.kernel_explanations import explains_numbers
from bptt_verifier.program.attempt import Failure, attempt


def follows_from_ignored(
    every: Sequence[KernelCalls], found: Sequence[Found], outputs: Sequence[str], seed: int
) -> bool:
    """Tell whether all that is wrong follows from the cotangents of outputs that are ignored.

    `found` are cases in which gradients are wrong, measured with `seed`. A kernel that ignores the
    cotangents of one of several outputs leaves its part out, and one that ignores all takes ones.
    """
    return all(follows_at(every[each.case.setting], each, outputs, seed) for each in found)


def follows_at(calls: KernelCalls, found: Found, outputs: Sequence[str], seed: int) -> bool:
    """Tell whether the gradients of one case are those of zeros or ones as these cotangents."""
    near = draw_neighbours(found.case, found.case.distance, seed)
    number = float(len(outputs) == len(found.case.cotangents))
    taken = [
        {n: np.full_like(c, number) if n in outputs else c for n, c in each.items()}
        for each in near.cotangents
    ]
    expected = attempt(calls.pullback.pull_back, near.points, taken)
    if isinstance(expected, Failure):
        return False
    wrong = [name for name in found.wrong if name in found.gradients]
    return all(explains_numbers(found, name, expected.gradients[name]) for name in wrong)
