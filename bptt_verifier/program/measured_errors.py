"""The allowed errors of a traced loss and its gradient, measured by adding rounding errors.

A measurement is trusted where it is earned: without errors the program gives the gradient of
jax.grad, and the samples are finite and respond to errors in proportion to their size.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import backward
from bptt_verifier.program.operations import BINARY, MOVES, TESTS, UNARY
from bptt_verifier.program.rounding import PROPORTION, RoundingErrors, is_inexact
from bptt_verifier.program.saturation import find_saturating
from bptt_verifier.program.trace import Params, Program, forward
from bptt_verifier.tolerance.noise import AMPLIFY, SAFETY, SAMPLES

# Operations with a rule in NumPy; JAX evaluates others in another way for errors than without.
RULES = frozenset(
    "concatenate stack split select_n convert_element_type integer_pow dot_general"
    " reduce_sum reduce_max reduce_min".split()
) | {*UNARY, *BINARY, *MOVES, *TESTS}
PAIRS = 2  # such samples, each with the random numbers of another


class Samples(NamedTuple):
    """The rows of the samples that imitate one unit roundoff, and of those with smaller errors."""

    unit: float
    size: float
    rows: slice
    smaller: slice


def plan_samples(roundoffs: Sequence[float]) -> tuple[list[Samples], RoundingErrors]:
    """Plan the samples for each roundoff; errors below float64's own are amplified."""
    groups, sizes, units, draws = [], list[float](), list[float](), list[int]()
    for number, unit in enumerate(roundoffs):
        size, start = max(unit, AMPLIFY * 2.0**-53), len(sizes)
        # Only what is scaled down again has to be in proportion.
        pairs = PAIRS if size > unit else 0
        middle, end = start + SAMPLES, start + SAMPLES + pairs
        groups.append(Samples(unit, size, slice(start, middle), slice(middle, end)))
        sizes += [size] * SAMPLES + [size / PROPORTION] * pairs
        units += [unit] * (SAMPLES + pairs)
        first = number * SAMPLES
        draws += [*range(first, first + SAMPLES), *range(first, first + pairs)]
    return groups, RoundingErrors(np.array(sizes), np.array(units), np.array(draws))


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


def allow(samples: Array, value: Array, group: Samples) -> Array:
    """The allowed error of each entry; infinite where the samples do not support one (N2)."""
    with np.errstate(all="ignore"):
        deviations = samples - value
        furthest = np.max(np.abs(deviations[group.rows]), axis=0)
        scale = group.unit / group.size
        # A deviation above an eighth of the result is not proportional to the added errors, so it
        # cannot be scaled down to smaller ones.
        if not np.max(furthest) <= 0.125 * np.max(np.abs(value)):
            scale = 1.0
        allowed = SAFETY * (furthest * scale + group.unit * np.abs(value))
        smaller = PROPORTION * deviations[group.smaller]
        few = deviations[group.rows][: len(smaller)]
        # Evaluating the samples rounds, too.
        own = SAFETY * PROPORTION * (2.0**-53 * np.max(np.abs(value)) + np.finfo(float).tiny)
        in_proportion = (np.abs(smaller - few) <= furthest / 2 + own).all(axis=0)
        trusted = np.isfinite(furthest) & in_proportion
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
    is that of `noise.measure_error`, (N1) and (N2).
    """
    groups, errors = plan_samples(roundoffs)
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
    count = len(errors.draws if errors.draws is not None else ())

    def measure(samples: Array, value: Array, group: Samples) -> Array:
        samples = np.broadcast_to(samples, (count, *value.shape))  # a constant is one row
        return allow(samples, value, group)

    measured = []
    for group in groups:
        of_loss = float(measure(noisy[program.result], exact[program.result][-1], group))
        gradients = {}
        for name in program.leaves:
            allowed = measure(moved[name], clean[name][-1], group)
            # Both are as far from the exact gradient as rounding may take them.
            with np.errstate(all="ignore"):
                same = np.abs(clean[name][-1] - np.asarray(reference[name])) <= 2 * allowed
            gradients[name] = allowed if same.all() else np.full(allowed.shape, np.inf)
        measured.append((of_loss, gradients))
    return measured
