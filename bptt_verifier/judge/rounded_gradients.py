"""Gradients whose entries are multiples of one number, as rounding to decimals leaves them.

Such errors scatter as those of a short format do. But the numbers of a format lie closer together
where they are smaller, and those that `//` or an array of integers leaves do not.
"""

from collections.abc import Sequence

import numpy as np

from bptt_verifier.judge.subject import Compared
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.comparison import find_symbol

STEPS = [10.0**-k for k in range(9)]
# The entries that tell, as multiples of the step: float32 has others in between. Where all entries
# have as few binary digits as half precision has, only those tell between which it has others, too.
TELLING, OF_FEW_DIGITS, DIGITS = (8, 2**20), (8, 128), 11
SEVERAL = 12  # of them, at least
EXACT = 2.0**-48  # a multiple differs from one by rounding alone
LEAST = 2.0**-6  # times the step: the error that is usual, at least


def find_rounded(compared: Sequence[Compared]) -> Mistake | None:
    """Find a gradient that is rounded to multiples of 1, of 0.1, or of another power of ten."""
    names = dict.fromkeys(name for found in compared for name in found.gradients)
    for name in names:
        step = find_step(compared, name)
        if step is not None:
            of = "whole numbers" if step == 1 else f"multiples of {step:g}"
            said = (
                f"all entries of {find_symbol(name)} are {of}, and those of the derivative are not"
            )
            return Mistake("rounded-gradient", said, {"gradients": [name], "step": step})
    return None


def find_step(compared: Sequence[Compared], name: str) -> float | None:
    """Find the number of which all entries of a gradient are multiples; None if it is not rounded.

    It is the largest one that is a power of ten, and rounds or truncates the true entries.
    """
    every = [found for found in compared if name in found.submitted and name in found.values]
    if not every:
        return None
    yours, true = (
        np.concatenate([np.ravel(values[name]).astype(np.float64) for values in each])
        for each in ([found.submitted for found in every], [found.values for found in every])
    )
    if not (np.isfinite(yours).all() and np.isfinite(true).all()):
        return None
    mantissas = np.frexp(yours)[0] * 2.0**DIGITS
    least, most = OF_FEW_DIGITS if np.all(mantissas == np.rint(mantissas)) else TELLING
    for step in STEPS:
        multiples = yours / step
        if np.any(np.abs(multiples - np.rint(multiples)) > EXACT * np.abs(multiples)):
            continue
        errors = np.abs(yours - true) / step
        telling = (np.abs(multiples) >= least) & (np.abs(multiples) <= most)
        usual = float(np.median(errors[telling])) if telling.sum() >= SEVERAL else 0.0
        return step if usual >= LEAST and np.max(errors) <= 1 + LEAST else None
    return None
