"""Numbers of a counterexample as people read them: few digits, and the row that matters."""

from math import isfinite
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.report.findings import Counterexample
from bptt_verifier.tolerance.comparison import find_symbol

MOST = 12  # entries that are shown whole; of more, the row with the worst one
CLOSE = 0.1  # relative error of a difference that rounded numbers may have


class ShownNumbers(NamedTuple):
    """The gradient or its row by name, the submission's numbers and the true ones, as text."""

    what: str
    yours: str
    autodiff: str


def count_digits(yours: float, true: float) -> int:
    """Count the significant digits with which the difference of two numbers can be seen.

    At 17 digits both are exact.
    """
    apart, digits = yours - true, 2

    def is_far() -> bool:
        rounded = float(f"{yours:.{digits}g}") - float(f"{true:.{digits}g}")
        return abs(rounded - apart) > CLOSE * abs(apart)

    while isfinite(apart) and is_far():
        digits += 1
    return digits


def write_numbers(values: Any, digits: int) -> str:
    """Write a number, or nested lists of numbers, with so many significant digits."""
    if isinstance(values, list):
        return f"[{', '.join(write_numbers(each, digits) for each in values)}]"
    return f"{values:.{digits}g}"


def show_numbers(case: Counterexample) -> ShownNumbers:
    """Show the gradient of a counterexample, or its row with the worst entry, in few digits."""
    errors, yours, true = map(np.array, (case.error_over_bound, case.yours, case.autodiff))
    if errors.shape != yours.shape:  # a map of the whole gradient, beside one row of it
        errors = np.nan_to_num(np.abs(yours - true))
    worst = np.unravel_index(int(np.argmax(errors)), errors.shape)
    digits = count_digits(float(yours[worst]), float(true[worst]))
    what = find_symbol(case.gradient)
    if yours.size > MOST and yours.ndim > 1:
        row = tuple(int(i) for i in worst[:-1])
        yours, true = yours[row], true[row]
        what += f"[{', '.join(map(str, row))}]"
    return ShownNumbers(what, *(write_numbers(each.tolist(), digits) for each in (yours, true)))
