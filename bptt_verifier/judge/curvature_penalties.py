"""Penalties that a Hessian-vector product lacks, or has too much of: a multiple of the direction.

The Hessian of λ Σ W² is 2 λ times the identity, so a product without it lacks 2 λ times the
direction of W, whatever the rest of the loss is.
"""

from collections.abc import Sequence

import numpy as np

from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_comparisons import Found
from bptt_verifier.judge.kernel_explanations import EXPLAINED
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.sizes import root_mean_square

FEWEST = 3  # entries of a direction: an error of fewer is often a multiple of it
# What may be left of the error, and of the multiple between cases: an error that is no multiple of
# the direction leaves most of its size, in every case.
LEFT = 1 / EXPLAINED**2


def find_penalty(
    name: str, cases: Sequence[Found], every: Sequence[KernelCalls]
) -> tuple[str, str] | None:
    """Find the multiple of a direction by which a product is wrong in all cases, in words.

    None where more than a small part of the error is left, or where the multiples differ. The
    function is asked at the cases themselves: their neighbours have other directions.
    """
    argument, multiples = name[len("R{") : -1], list[float]()
    for case, calls in ((found.case, every[found.case.setting]) for found in cases):
        submitted = calls.ask(case.point, case.cotangents)
        if isinstance(submitted, Mistake) or np.size(case.cotangents.get(argument, ())) < FEWEST:
            return None
        exact = calls.pullback.pull_back([case.point], [case.cotangents]).gradients[name][0]
        error = submitted[name].astype(np.float64) - exact
        along = np.asarray(case.cotangents[argument], np.float64)
        multiples.append(float(np.vdot(error, along) / np.vdot(along, along)))
        left = root_mean_square(error - multiples[-1] * along)
        if not left < LEFT * root_mean_square(error):
            return None
    by = multiples[0]
    if any(not abs(each - by) <= LEFT * abs(by) for each in multiples):
        return None
    what = "lacks" if by < 0 else "has too much by"
    penalty = f"as of a penalty of {abs(by) / 2:.4g} times the sum of squares"
    return "weight-decay", f"the product {what} {abs(by):.4g} times the direction, {penalty}"
