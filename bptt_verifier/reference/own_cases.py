"""Cases of an own model: autodiff's values at a point, and the errors measured there."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.measured_errors import gradient_and_noise
from bptt_verifier.program.paths import Followed
from bptt_verifier.program.precision import run_in_float64
from bptt_verifier.reference.case import Case, Truth
from bptt_verifier.tolerance.bounds import describe_dtype

FLOAT64, FLOAT32 = 2.0**-53, 2.0**-24
UNDECIDED = 2.0**100  # an error beyond what any submission returns, and finite


def widen(params: Mapping[str, Array]) -> dict[str, Array]:
    """Convert the parameters to float64."""
    return {name: value.astype(np.float64) for name, value in params.items()}


def make_case(
    followed: Followed,
    params: dict[str, Array],
    number: int,
    loss: Callable[..., Any],
) -> Case:
    """Make the case of a point: autodiff's values, and the error allowed in any precision.

    Errors are measured where they are asked for, after the submission has run. What it has left
    behind of the arrays of the `loss`, in another precision, is kept out.
    """
    wide, program = widen(params), followed.path.program
    value, slopes = followed.loss, followed.slopes
    values = {name: np.asarray(slopes[name]) for name in params}
    if "loss" not in params:
        values["loss"] = np.asarray(value)

    known: dict[float, tuple[float, dict[str, Array]]] = {}

    def measure(unit: float) -> tuple[float, dict[str, Array]]:
        if unit not in known:
            # What is measured for float32 first serves float64 as well, in one pass.
            units = (unit, FLOAT64) if unit > FLOAT64 and not known else (unit,)
            known.update(zip(units, measure_anew(units), strict=True))
        return known[unit]

    def measure_anew(units: tuple[float, ...]) -> list[tuple[float, dict[str, Array]]]:
        errors = attempt(
            run_in_float64,
            loss,
            lambda: gradient_and_noise(program, wide, units, slopes, seed=number),
        )
        if isinstance(errors, Failure):  # nothing is measured, so nothing is decided at this point
            nothing = {name: np.full(found.shape, np.inf) for name, found in values.items()}
            return [(np.inf, nothing)] * len(units)
        return [(of_loss, {"loss": np.asarray(of_loss), **each}) for of_loss, each in errors]

    def truth(dtype: Any, names: Collection[str] = ()) -> Truth:
        form = describe_dtype(dtype)
        unit, tiny, largest = float(form.eps) / 2, float(form.smallest_normal), float(form.max)
        # Errors in formats coarser than float32 are not measured, but grow with the unit.
        coarser = max(1.0, unit / FLOAT32)
        # Each precision is measured where it is asked for, which takes most of a verdict's time.
        single = measure(FLOAT32)[1] if unit > FLOAT64 else {}
        allowed = {
            # The reference has the error of float64, too; a number that underflows is lost.
            name: (single[name] * coarser if single else own) + own + 16 * tiny
            for name, own in measure(FLOAT64)[1].items()
        }
        # No result of this format is right where it cannot hold the value.
        for name, error in allowed.items():
            beyond = np.abs(np.asarray(values[name], np.float64)) > largest
            allowed[name] = np.where(beyond, np.inf, error)
        return Truth(values, allowed)

    return Case(f"case {number}", params, number, truth, lambda: 2 * measure(FLOAT64)[0])


def allow_beside_zeros(case: Case) -> Case:
    """Allow for what other formulas leave where an entry of a gradient is zero for a zero drawn.

    What is multiplied by it has no rounding, by which nothing is allowed. Where terms cancel
    instead, a part of them is left. A gradient that is zero in all entries decides nothing there.
    """
    known = case.truth
    assert known is not None

    def truth(dtype: Any, names: Collection[str] = ()) -> Truth:
        values, allowed = known(dtype, names)
        beside = dict(allowed)
        for name in case.arguments:
            sizes = np.abs(values[name])
            largest = np.max(sizes, initial=0.0)
            left = np.sqrt(float(describe_dtype(dtype).eps)) * largest if largest else UNDECIDED
            beside[name] = np.where(sizes == 0, np.maximum(allowed[name], left), allowed[name])
        return Truth(values, beside)

    return case._replace(truth=truth)
