"""The allowed errors of a traced loss and its gradient, measured by adding rounding errors.

A measurement is trusted where it is earned: without errors the program gives the gradient of
jax.grad, and the samples are finite and respond to errors in proportion to their size.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import backward
from bptt_verifier.program.operations import BINARY, MOVES, TESTS, UNARY
from bptt_verifier.program.rounding import PROPORTION, RoundingErrors, is_inexact
from bptt_verifier.program.saturation import find_saturating
from bptt_verifier.program.trace import DIGITS, Params, Program, forward, list_terms
from bptt_verifier.tolerance.noise import AMPLIFY, SAFETY, SAMPLES

# Operations with a rule in NumPy; JAX evaluates others in another way for errors than without.
RULES = frozenset(
    "concatenate stack split select_n convert_element_type integer_pow dot_general"
    " reduce_sum reduce_max reduce_min".split()
) | {*UNARY, *BINARY, *MOVES, *TESTS}
AMPLIFIED = AMPLIFY * 2.0**-53  # the size of the errors that stand for those of float64
PAIRS = 2  # such samples, each with the random numbers of another


class Samples(NamedTuple):
    """The size of the errors of the samples, and their rows; and rows with `smaller` errors."""

    size: float
    rows: slice
    smaller: slice


def plan_samples(roundoffs: Sequence[float]) -> tuple[Samples, RoundingErrors]:
    """Plan the samples that imitate the coarsest roundoff; errors below float64's are amplified."""
    unit = max(roundoffs)
    size = max(unit, AMPLIFIED)
    # Only what is scaled down again has to be in proportion.
    pairs = PAIRS if size > min(roundoffs) else 0
    sizes = [size] * SAMPLES + [size / PROPORTION] * pairs
    samples = Samples(size, slice(0, SAMPLES), slice(SAMPLES, len(sizes)))
    draws = np.array([*range(SAMPLES), *range(pairs)])
    return samples, RoundingErrors(np.array(sizes), np.full(len(sizes), unit), draws)


def add_exact_sample(errors: RoundingErrors) -> RoundingErrors:
    """Add a last sample with errors of size zero: the exact values, without a pass of their own."""
    assert errors.sizes is not None
    assert errors.units is not None
    assert errors.draws is not None
    sizes, units, draws = errors.sizes, errors.units, errors.draws
    return errors._replace(
        sizes=np.append(sizes, 0.0), units=np.append(units, units[-1]),
        draws=np.append(draws, draws[0]), exact=True,
    )  # fmt: skip


def is_float64(program: Program) -> bool:
    """Tell whether a program computes in float64 alone, by operations that have rules in NumPy.

    In a coarser format a sample is not rounded, and its exact value is.
    """
    return all(
        (each.name in RULES or each.moved is not None)
        and all(dtype == np.float64 or not is_inexact(dtype) for dtype in each.dtypes)
        for each in program.operations
    )


def allow(samples: Array, value: Array, planned: Samples, unit: float, *, alone: bool) -> Array:
    """The allowed error of each entry; infinite where the samples do not support one (N2).

    Where they are not `alone` for this unit roundoff, a response that is not linear supports none.
    """
    with np.errstate(all="ignore"):
        deviations = samples - value
        furthest = np.max(np.abs(deviations[planned.rows]), axis=0)
        scale, scaled = unit / planned.size, unit < planned.size
        # A deviation above an eighth of the result is not proportional to the added errors, so it
        # cannot be scaled down to smaller ones.
        if scaled and not np.max(furthest) <= 0.125 * np.max(np.abs(value)):
            scale = 1.0 if alone else np.inf
        allowed = SAFETY * (furthest * scale + unit * np.abs(value))
        trusted = np.isfinite(furthest) & np.isfinite(allowed)
        if scaled:
            smaller = PROPORTION * deviations[planned.smaller]
            few = deviations[planned.rows][: len(smaller)]
            # Evaluating the samples rounds, too.
            own = SAFETY * PROPORTION * (2.0**-53 * np.max(np.abs(value)) + np.finfo(float).tiny)
            trusted &= (np.abs(smaller - few) <= furthest / 2 + own).all(axis=0)
    return np.where(trusted, allowed, np.inf)


def gradient_and_noise(
    program: Program,
    params: Params,
    roundoffs: Sequence[float],
    reference: Mapping[str, Any],
    seed: int = 0,
) -> list[tuple[float, dict[str, Array]]]:
    """The allowed errors of the loss and of every gradient entry, for each roundoff.

    They are infinite in gradients that differ from the `reference`, which is jax.grad's. The rule
    is that of `noise.measure_error`, (N1) and (N2). The samples of the coarsest roundoff serve the
    others as well, where the response to them is in proportion everywhere.
    """
    alone = partial(measure, program, params, reference=reference, seed=seed)
    if not is_float64(program):  # it rounds in formats of its own
        return [found for unit in roundoffs for found in alone([unit])]
    return [
        found if are_finite(found) or unit == max(roundoffs) else alone([unit])[0]
        for unit, found in zip(roundoffs, alone(roundoffs), strict=True)
    ]


def are_finite(measured: tuple[float, dict[str, Array]]) -> bool:
    """Tell whether the errors of a loss and of its gradients are all finite."""
    of_loss, gradients = measured
    return bool(np.isfinite(of_loss)) and all(np.isfinite(e).all() for e in gradients.values())


def leaves_out_errors(program: Program, values: Sequence[Any], size: float) -> bool:
    """Tell whether errors of this size are left out of a term where float64's own are not."""
    for operation in program.operations:
        for slot in list_terms(program, operation, values):
            total = np.abs(values[operation.outputs[0]][-1])
            most = np.abs(values[slot][-1]) / DIGITS
            if ((size * total > most) & (AMPLIFIED * total <= most)).any():
                return True
    return False


def measure(
    program: Program,
    params: Params,
    roundoffs: Sequence[float],
    reference: Mapping[str, Any],
    seed: int,
) -> list[tuple[float, dict[str, Array]]]:
    """The same by the samples of the coarsest roundoff alone."""
    planned, errors = plan_samples(roundoffs)
    errors = errors._replace(rng=np.random.default_rng(seed))
    together = is_float64(program)
    errors = add_exact_sample(errors) if together else errors
    saturating = find_saturating(program)
    bounds = {number: each.bound for number, each in saturating.items()}
    noisy = forward(program, params, errors, bounds)
    moved = backward(program, noisy, errors=errors, saturating=saturating)
    exact, clean = noisy, moved
    if not together:
        exact = forward(program, params)
        clean = backward(program, exact)
    assert errors.draws is not None
    count, alone = len(errors.draws), len(roundoffs) == 1
    unlike = not alone and leaves_out_errors(program, exact, planned.size)

    def measure_one(samples: Array, value: Array, unit: float) -> Array:
        samples = np.broadcast_to(samples, (count, *value.shape))  # a constant is one row
        if unlike and unit < max(roundoffs):
            return np.full(value.shape, np.inf)
        return allow(samples, value, planned, unit, alone=alone)

    measured = []
    for unit in roundoffs:
        of_loss = float(measure_one(noisy[program.result], exact[program.result][-1], unit))
        gradients = {}
        for name in program.leaves:
            allowed = measure_one(moved[name], clean[name][-1], unit)
            # Both are as far from the exact gradient as rounding may take them.
            with np.errstate(all="ignore"):
                same = np.abs(clean[name][-1] - np.asarray(reference[name])) <= 2 * allowed
            gradients[name] = allowed if same.all() else np.full(allowed.shape, np.inf)
        measured.append((of_loss, gradients))
    return measured
