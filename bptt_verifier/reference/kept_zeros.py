"""Pull-backs in which a cotangent of zero stays zero, as where autodiff gives NaN, and their kinks.

docs/derivation.md, section 10, (N8).
"""

from collections.abc import Callable, Container, Mapping, Sequence

import numpy as np

from bptt_verifier.problems.kernel_draws import displace
from bptt_verifier.problems.problem import Array
from bptt_verifier.tolerance.noise import SAFETY

Arrays = Mapping[str, Array]
# A gradient in which zeros were kept changes by less than the part KINKED of its largest entry at
# points this near, or has a kink.
BESIDE, KINKED = 2.0**-20, 2.0**-8
TIMES = (3.0, 5.0, 7.0)  # cotangents times these round anew in every operation


def leave_out_kinks(
    compute: Callable[[Sequence[Arrays], Sequence[Arrays]], Arrays],
    points: Sequence[Arrays],
    cotangents: Sequence[Arrays],
    gradients: Arrays,
    kept: Sequence[int],
    excluding: Container[str] = (),
) -> None:
    """Put NaN where neighbours of the points `kept` have another gradient. (N8)

    `compute` pulls back with kept zeros, in float64. What is zero to rounding is another at every
    point: how far rounding takes a gradient shows in multiples of the cotangents.
    The arguments `excluding` scores hold a number that stands for −∞.
    """
    rng = np.random.default_rng(0)
    near = [
        {n: displace(x.astype(np.float64), BESIDE, rng, n in excluding) for n, x in point.items()}
        for point in points
    ]
    beside = compute(near, cotangents)
    rounding = dict.fromkeys(gradients, 0.0)
    for factor in TIMES:
        larger = [
            {n: factor * c.astype(np.float64) for n, c in each.items()} for each in cotangents
        ]
        for name, multiple in compute(near, larger).items():
            errors = np.abs(multiple / factor - beside[name])[[*kept]]
            rounding[name] = max(rounding[name], float(np.max(errors, initial=0.0)))
    for name, gradient in gradients.items():
        for k in kept:
            there, here = beside[name][k], gradient[k]
            largest = np.max(np.abs(here), initial=0.0)
            change = np.max(np.abs(there - here), initial=0.0)
            if not change <= KINKED * largest + SAFETY * rounding[name]:
                here[...] = np.nan


def has_nan(arrays: Arrays, k: int) -> bool:
    """Tell whether one of several stacked arrays has a NaN at point k."""
    return any(np.isnan(each[k]).any() for each in arrays.values())
