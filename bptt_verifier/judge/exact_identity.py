"""Exact identities: whether a claim of the docket is the derivative, decided without rounding.

The code of an entry runs on the exact numbers of `proofs/free_values.py`, on which a claim and the
derivative of its loss are rational functions. Two different ones of which the difference has
degree d are equal at a random point of a set of n numbers for each variable with probability d/n
at most (Schwartz 1980, Zippel 1979).
"""

from collections.abc import Callable, Mapping
from math import log10
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.judge.published import DocketCase
from bptt_verifier.judge.small_sizes import parse_with_bases, read_sizes, run_with_sizes
from bptt_verifier.judge.weights import WEIGHTS
from bptt_verifier.problems.problem import CELLS, Sizes, list_shapes
from bptt_verifier.proofs.forward_pass import ForwardPass, Numbers, loss_and_prediction
from bptt_verifier.proofs.free_values import (
    LARGEST,
    FreeNumber,
    FreeValues,
    draw_array,
    move_along,
    read_array,
)

SIZES = Sizes(T=5, B=1, D=2, H=2, O=1)  # of a cell; T is longer than any truncation
NUMBERS = Numbers(sign=lambda z: z, constant=lambda z: z)  # that loss has no branches
Point = dict[str, Any]
Loss = Callable[[Point], Any]


class ExactComparison(NamedTuple):
    """The outcome: which functions had free values, a degree, log₁₀ of the chance of an error.

    `degree` bounds the sum of degrees in (Z10). `refuted` names the first gradient that is not
    equal, or is None.
    """

    functions: list[str]
    degree: int
    log10_error: float
    refuted: str | None = None


class ExactCase(NamedTuple):
    """A claim and its loss at a random point, as exact numbers.

    `held_loss` is that of which the claim is the derivative, and `change` what makes the claim from
    the gradient, if the entry says that it is another vector.
    """

    values: FreeValues
    weights: Point
    claimed: Mapping[str, Any]
    loss: Loss
    held_loss: Loss | None = None
    change: Callable[[Point], Point] | None = None


def run_exactly(values: FreeValues, file: Path, sizes: dict[str, int]) -> dict[str, Any]:
    """Run the file of an entry; return the names that it defines, with exact data."""
    names = run_with_sizes(file, sizes)
    for name, value in names.items():
        if isinstance(value, np.ndarray) and value.dtype == np.float64:
            names[name] = read_array(values, value)
    return names


def evaluate_exactly(case: DocketCase, seed: int = 0) -> ExactCase:
    """Evaluate a claim and its loss at a random rational point.

    A cell's data are drawn too; those of an own model remain what they are. Where a claim is
    clipped, numbers are below 4, so that clipping changes some entries and others not, and sizes
    are halved, because arithmetic with these numbers is slow.
    """
    entry, file, clipped = case.entry, Path(case.module.__file__), hasattr(case.module, "change")
    values = FreeValues(seed, scale=LARGEST // 4 if clipped else 1)
    sizes = read_sizes(parse_with_bases(file)) if clipped else {}
    names = run_exactly(values, file, {name: -(-size // 2) for name, size in sizes.items()})
    held = names.get("held_loss")
    if not entry.model:
        shapes = {name: np.shape(value) for name, value in names["params"].items()}
        weights = {name: draw_array(values, shape) for name, shape in shapes.items()}
        return ExactCase(
            values, weights, names["gradients"](dict(weights)), names["loss"],
            held and (lambda p: held(p, weights)), names.get("change"),
        )  # fmt: skip
    shapes = list_shapes(entry.model, SIZES)
    fields = CELLS[entry.model].Params._fields
    given = fields if entry.bias else [name for name in fields if name in "UWV"]
    weights = {name: draw_array(values, shapes[name]) for name in given}
    x, y = draw_array(values, shapes["x"]), draw_array(values, shapes["prediction"])
    as_given = WEIGHTS[len(weights)]
    returned = names["gradients"](as_given(**weights), x, y)
    if not isinstance(returned, Mapping):
        returned = dict(zip(weights, returned, strict=True))
    absent: Point = dict.fromkeys(("b", "c", "b_n")) | {
        name: np.zeros(shapes[name], object) for name in ("h0", "c0", "adjoints")
    }
    option = entry.activation if entry.model == "rnn" else entry.reset
    forward = ForwardPass(entry.model, option, "mse")
    return ExactCase(
        values, weights, returned,
        lambda p: loss_and_prediction(NUMBERS, forward, absent | {"x": x} | p, y)[0],
        held and (lambda p: held(as_given(**p), as_given(**weights), x, y)), names.get("change"),
    )  # fmt: skip


def differentiate_along(case: ExactCase, loss: Loss, direction: Point) -> FreeNumber:
    """Differentiate a loss along a direction."""
    found: FreeNumber = loss(move_along(case.weights, direction)).slope
    return found


def differentiate_all(case: ExactCase) -> Point:
    """Differentiate the loss by every entry of every weight."""
    gradient, zero = {}, case.values.read(0)
    for name, value in case.weights.items():
        gradient[name] = np.empty(value.shape, object)
        for entry in np.ndindex(value.shape):
            along = {o: np.full(each.shape, zero) for o, each in case.weights.items()}
            along[name][entry] += 1
            gradient[name][entry] = differentiate_along(case, case.loss, along)
    return gradient


def compare_along(
    case: ExactCase, direction: Point, derivative: Callable[[Point], FreeNumber]
) -> FreeNumber:
    """Compute Σ claimed · d less the derivative along d."""
    terms = [np.sum(case.claimed[name] * along) for name, along in direction.items()]
    difference: FreeNumber = sum(terms) - derivative(direction)
    return difference


def compare_exactly(case: ExactCase, derivative: Callable[[Point], FreeNumber]) -> ExactComparison:
    """Compare a claim with a derivative along a random direction (Z10).

    Where they differ, each gradient is compared by itself, to name the first that is not equal.
    """
    direction = {name: draw_array(case.values, v.shape) for name, v in case.weights.items()}
    difference = compare_along(case, direction, derivative)
    degree = difference.top + case.values.collisions
    functions = sorted({function for function, _ in case.values.found})
    if difference.value == 0:
        chance = log10(degree) - log10(2 * LARGEST)  # (Z10)
        return ExactComparison(functions, degree, chance)
    for name in direction:
        alone = {other: along * (other == name) for other, along in direction.items()}
        if compare_along(case, alone, derivative).value != 0:
            break
    return ExactComparison(functions, degree, 0.0, name)


def certify_identity(case: DocketCase, seed: int = 0) -> ExactComparison:
    """Decide exactly whether a claim is the gradient of its entry's loss."""
    exact = evaluate_exactly(case, seed)
    return compare_exactly(exact, lambda along: differentiate_along(exact, exact.loss, along))


def certify_definition(case: DocketCase, seed: int = 0) -> ExactComparison:
    """Decide exactly whether a claim is what its entry says that it is exactly."""
    exact = evaluate_exactly(case, seed)
    held = exact.held_loss
    if held is not None:
        return compare_exactly(exact, lambda along: differentiate_along(exact, held, along))
    assert exact.change is not None
    changed = exact.change(differentiate_all(exact))
    return compare_exactly(
        exact, lambda along: sum(np.sum(changed[name] * d) for name, d in along.items())
    )
