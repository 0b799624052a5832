"""Explanations of a whole wrong gradient of a kernel: zero, a factor, or a transposition.

One holds if it leaves nothing but rounding in the cases that are wrong, and if no other case that
can tell contradicts it.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.judge.kernel_comparisons import Found, find_result_dtype
from bptt_verifier.mistakes.single_gradients import count_square_parts, transpose_parts
from bptt_verifier.problems.problem import Array
from bptt_verifier.tolerance.formats import find_unit
from bptt_verifier.tolerance.projections import measure
from bptt_verifier.tolerance.sizes import find_factors, root_mean_square

ROUNDINGS = 4  # units of the dtype that an explanation may leave of a gradient
EXPLAINED = 16  # in a coarser format, this part of the mistake that it explains
COARSEST = 2.0**-8  # the unit of bfloat16, to which a number may be rounded inside

Change = Callable[[Array], Array]


def list_explanations(name: str, cases: Sequence[Found]) -> Iterator[tuple[str, str, Change]]:
    """List what may be wrong with one whole gradient, each with the gradient that it gives."""
    first = cases[0]
    exact, submitted = first.exact[name], first.submitted[name].astype(np.float64)
    yield "zero-gradient", "every entry is zero", np.zeros_like
    yield "sign-flipped", "the sign is wrong", np.negative
    factor = float(find_factors(submitted, exact, None))
    if factor:
        said = f"every entry is {factor:.4g} times what it should be"
        yield "constant-factor", said, lambda g: factor * g
    if exact.ndim >= 3 and exact.shape[-1] == exact.shape[-2]:
        yield "transposed-gradient", "it is transposed", lambda g: g.swapaxes(-1, -2)
    parts = count_square_parts(exact.shape[1:])
    if parts:
        said = f"each of its {parts} square parts is transposed"
        yield "transposed-gradient", said, transpose_parts


def explains(found: Found, name: str, change: Change) -> bool:
    """Tell whether a changed gradient leaves nothing but rounding."""
    return explains_numbers(found, name, change(found.exact[name]))


def explains_numbers(found: Found, name: str, expected: Array) -> bool:
    """Tell whether an expected gradient leaves nothing but rounding."""
    submitted, exact = found.submitted[name], found.exact[name]
    return leaves_rounding(
        submitted, expected, exact, find_result_dtype(name, submitted, found.case)
    )


def leaves_rounding(submitted: Array, expected: Array, exact: Array, dtype: Any) -> bool:
    """Tell whether an expected gradient leaves nothing but rounding of the submitted one.

    Of one point alone, the size of what is left decides.
    """
    errors = submitted.astype(np.float64) - expected
    if not expected.any():
        return not errors.any()
    mistake = root_mean_square(expected - exact)
    rounding = ROUNDINGS * find_unit(dtype) * root_mean_square(expected)
    if not root_mean_square(errors) <= max(rounding, mistake / EXPLAINED):
        return False
    return len(errors) < 2 or not measure(errors, expected, dtype, 10 * errors[0].size).wrong


def contradicts(found: Found, name: str, change: Change) -> bool:
    """Tell whether a case shows that an explanation does not hold in it.

    It does if the error, projected on the exact gradient, is another one than the explanation
    makes, by more than rounding may do. Of one number, every error is a factor: it contradicts a
    factor if what this leaves is more than rounding to the coarsest format.
    """
    exact, whole = found.exact[name], found.gradients[name].slices[0]
    if not exact.any():
        return False
    expected = change(exact)
    every = tuple(range(1, exact.ndim))
    projected = float(find_factors(expected - exact, exact, every).mean())
    if abs(float(whole.factor[0]) - projected) > float(whole.limit[0]):
        return True
    left = root_mean_square(found.submitted[name].astype(np.float64) - expected)
    rounding = ROUNDINGS * COARSEST * root_mean_square(expected)
    most = max(rounding, root_mean_square(expected - exact) / EXPLAINED)
    return is_one_number(exact) and left > most


def describe_changing_factor(name: str, cases: Sequence[Found], others: Sequence[Found]) -> str:
    """Describe a gradient with a factor of its own in each case; empty where it has none.

    `others` are cases in which the gradient is not found wrong.
    """
    every = sorted((*cases, *others), key=lambda each: (each.case.setting, each.case.number))
    testable = [each for each in every if np.isfinite(each.gradients[name].resolution)]
    if not all(map(partial(is_multiple, name=name), testable)):
        return ""
    known = [(find_factor(each, name), each.gradients[name].resolution) for each in testable]
    if not any(abs(a - b) > by + of for a, by in known for b, of in known):
        return ""
    factors = ", ".join(f"{factor:.4g}" for factor, _ in known)
    which = "its one entry" if is_one_number(cases[0].exact[name]) else "every entry"
    return f"{which} is multiplied by a number that is another in each case ({factors})"


def find_factor(found: Found, name: str) -> float:
    """Find what a gradient is multiplied by, in the projection on the exact one."""
    return 1.0 + float(found.gradients[name].slices[0].factor[0])


def is_multiple(found: Found, name: str) -> bool:
    """Tell whether a gradient is a multiple of the exact one, as one number always is."""
    factor = find_factor(found, name)
    return is_one_number(found.exact[name]) or explains(found, name, lambda g: factor * g)


def is_one_number(gradient: Array) -> bool:
    """Tell whether a gradient, of one point or more, has a single entry."""
    return gradient.size == len(gradient)
