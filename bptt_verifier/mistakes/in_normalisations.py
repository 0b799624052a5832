"""Mistakes in the means of a normalisation's derivative: over other axes, or without a factor.

The derivative of n = (a − μ) / σ passes d back as (d − mean(d) − n mean(d ⊙ n)) / σ, where both
means are over the axes of μ and σ. A batch normalisation has others than a layer normalisation.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations
from math import prod
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.in_patterns import (
    AROUND,
    ROOTED,
    ancestors,
    producers,
    repeat_along_axes,
)
from bptt_verifier.mistakes.operation_mistakes import Changes, OperationMistake, Values
from bptt_verifier.program.backward import Change
from bptt_verifier.program.structure import Structure, shape_of

NAME = "normalisation-over-wrong-axis"
MEANS = ("mean(d)", "mean(d ⊙ n)")  # as the derivative has them
FEW = 3  # axes of which every set is tried

Axes = tuple[int, ...]


class Normalisation(NamedTuple):
    """The operations of one normalisation: the quotient, the sum of the mean, that of the variance.

    `mean` is None for a root mean square. `root` computes σ or its inverse, and `centred` is the
    operand that is divided by σ.
    """

    number: int
    centred: int
    mean: int | None
    variance: int
    root: int
    axes: Axes


def list_wrong_normalisations(known: Structure) -> Iterator[OperationMistake]:
    """List derivatives of normalisations with a mean, or both, over other axes."""
    found = [each for n in range(len(known.program.operations)) for each in find_at(known, n)]
    groups: dict[Any, list[Normalisation]] = {}
    for each in found:
        key = known.group_of[each.number], each.axes, shape_of(known, each.centred)
        groups.setdefault(key, []).append(each)
    for (_, own, shape), group in groups.items():
        yield from list_wrong_terms(known, group)
        for axes in list_axes(shape or ()):
            if axes == own:
                continue
            sets = [[MEANS[0]], [MEANS[1]], [*MEANS]] if group[0].mean is not None else [[MEANS[1]]]
            for which in sets:
                yield from list_ways(known, group, which, axes)


def list_wrong_terms(
    known: Structure, group: Sequence[Normalisation]
) -> Iterator[OperationMistake]:
    """List derivatives of normalisations whose last term lacks n, or has another mean."""
    if group[0].mean is None:
        return
    right = "where the derivative of the normalisation n is (d − mean(d) − n mean(d ⊙ n)) / σ"
    for name, words, combine in (
        ("factor-missing", "mean(d ⊙ n)", lambda first, second, n: first + second + 0 * n),
        ("wrong-operand", "n mean(d)", lambda first, second, n: first + n * first),
    ):
        said = f"your gradient uses (d − mean(d) − {words}) / σ, {right}"
        changes = partial(average_over, known, group, (), (), False, False, combine)
        yield OperationMistake(name, said, group[0].number, changes, {}, (name, words))


def list_axes(shape: Sequence[int]) -> list[Axes]:
    """List the sets of axes that a mean may be over; of many axes, each alone and all."""
    long = [axis for axis, size in enumerate(shape) if size > 1]
    if len(long) < 2:
        return []
    counts = range(1, len(long)) if len(long) <= FEW else (1,)
    every = tuple(range(len(shape)))
    return [*(axes for count in counts for axes in combinations(long, count)), every]


def add_terms(first: Any, second: Any, n: Any) -> Any:
    """Add the terms of a normalisation's derivative: the means of d, and of d ⊙ n times n."""
    return first + n * second


def list_ways(
    known: Structure, group: Sequence[Normalisation], which: Sequence[str], axes: Axes
) -> Iterator[OperationMistake]:
    """List ways to take means over wrong axes: of d or of d / σ, over as many entries or others."""
    own = " and ".join(map(str, group[0].axes))
    where = f"axis {axes[0]}" if len(axes) == 1 else f"axes {' and '.join(map(str, axes))}"
    where = "all axes" if len(axes) == len(shape_of(known, group[0].centred) or ()) else where
    centred = " − mean(d)" if group[0].mean is not None else ""  # a root mean square is not
    said = f"{' and '.join(which)} in the derivative (d{centred} − n mean(d ⊙ n)) / σ of the"
    said += f" normalisation n {'is' if len(which) == 1 else 'are'} over {where}, where"
    said += f" axis {own} belongs" if len(group[0].axes) == 1 else f" axes {own} belong"
    for inside in (False, True):
        for as_many in (False, True):
            changes = partial(average_over, known, group, which, axes, inside, as_many, add_terms)
            details = {"axes": [*axes]}
            yield OperationMistake(NAME, said, group[0].number, changes, details)


def find_at(known: Structure, number: int) -> Iterator[Normalisation]:
    """Find the normalisation whose quotient, or product with 1/σ, an operation is, if it is one."""
    operations = known.program.operations
    equation = operations[number]
    if equation.name not in {"div", "mul"}:
        return
    for slot, scaled in list(zip(equation.inputs, reversed(equation.inputs), strict=True))[
        equation.name == "div" :
    ]:
        reached = ancestors(known, slot, AROUND | ROOTED | {"div", "mul", "select_n"})
        roots = producers(known, reached, "sqrt") or producers(known, reached, "rsqrt")
        sums = producers(known, reached, "reduce_sum") if roots else []
        centred = producers(known, {scaled}, "sub")
        means = [
            source
            for k in centred
            for source in producers(
                known,
                ancestors(known, operations[k].inputs[1], AROUND | {"div", "mul"}),
                "reduce_sum",
            )
            if operations[source].inputs[0] == operations[k].inputs[0]
        ]
        sums = [each for each in sums if each not in means]
        shape = shape_of(known, scaled)
        if not sums or shape is None or equation.shapes[0] != shape:
            continue
        axes = tuple(operations[sums[0]].params["axes"])
        if shape_of(known, operations[sums[0]].inputs[0]) == shape and (
            not means or tuple(operations[means[0]].params["axes"]) == axes
        ):
            mean = means[0] if means else None
            yield Normalisation(number, scaled, mean, sums[0], roots[0], axes)


def average_over(
    known: Structure,
    group: Sequence[Normalisation],
    which: Sequence[str],
    axes: Axes,
    inside: bool,
    as_many: bool,
    combine: Callable[[Any, Any, Any], Any],
    values: Values,
) -> Changes:
    """Pass back what means over these axes give; `inside` of them is the division by σ.

    A sum is divided by the number of its entries, or by that of the right ones. `combine` adds both
    terms.
    """
    operations, changes = known.program.operations, Changes()
    for number, slot, mean, variance, root, own in group:
        with np.errstate(all="ignore"):
            sigma = np.sqrt(values[operations[root].inputs[0]])
        centred = values[slot]
        sigma = repeat_along_axes(known, operations[root].outputs[0], sigma)
        sigma = sigma.reshape(sigma.shape + (1,) * (centred.ndim - sigma.ndim))

        def take_mean(
            d: Any, what: str, n: Any = centred / sigma, sigma: Any = sigma, own: Axes = own
        ) -> Any:
            wrong = what in which
            over = axes if wrong else own
            size = prod(n.shape[axis + 1] for axis in (own if as_many else over))
            within = sigma if wrong and inside else 1.0
            summed = np.sum(d / within, axis=tuple(axis + 1 for axis in over), keepdims=True)
            return summed / size / (1.0 if wrong and inside else sigma)

        def pass_to_operand(
            arriving: Any, n: Any = centred / sigma, take_mean: Any = take_mean
        ) -> Any:
            (d,) = arriving
            return -combine(take_mean(d, MEANS[0]), take_mean(d * n, MEANS[1]), n) + 0 * d

        def pass_to_square(arriving: Any, sigma: Any = sigma, n: Any = centred / sigma,
                           take_mean: Any = take_mean) -> Any:  # fmt: skip
            (d,) = arriving
            return -take_mean(d * n, MEANS[1]) / (2 * sigma) + 0 * d

        result = operations[number].outputs[0]
        if mean is None:
            changes[variance, 0] = Change(0, through=pass_to_square, arriving_at=result)
        else:
            changes[mean, 0] = Change(0, through=pass_to_operand, arriving_at=result)
            changes[variance, 0] = Change(0, after=0.0)
    return changes
