"""Mistakes in the weights of frequencies, in the Fourier transform of real numbers.

The transform of n real numbers keeps the first n // 2 + 1 frequencies: each stands for two, but for
the first, and the last where n is even. So the adjoint of the inverse transform has a factor 2
there beside the transform, and the adjoint of the transform has 1/2 beside the inverse one
(docs/derivation.md, section 10).
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from bptt_verifier.mistakes.expressions import quote_expression
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    OperationMistake,
    repeat_changes,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import Change
from bptt_verifier.program.structure import Structure

KINDS = ("IRFFT", "RFFT")


def list_frequency_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List transforms of real numbers whose frequencies are all weighed alike, or the last one."""
    every = [group for group in known.groups if find_kind(known, group[0])]
    sets = [[group] for group in every]
    sets += [[g for g in every if find_kind(known, g[0]) == kind] for kind in KINDS]
    sets += [every]
    distinct = dict.fromkeys(tuple(sorted(n for group in some for n in group)) for some in sets)
    for numbers in [each for each in distinct if each]:
        what = quote_expression(known, numbers[-1])
        if len({known.group_of[number] for number in numbers}) > 1:
            what += " and in that of the other transforms of real numbers"
        said = f"in the gradient of {what},"
        for name, last, words in (
            (
                "factor-missing",
                False,
                "all frequencies are weighed alike, though most stand for two",
            ),
            ("factor-twice", True, "the last frequency, which stands for one, is weighed for two"),
        ):
            changes = weigh_frequencies(known, numbers, last)
            if changes:
                same = partial(repeat_changes, changes)
                yield OperationMistake(name, f"{said} {words}", numbers[0], same)


def find_kind(known: Structure, number: int) -> str | None:
    """Find which transform of real numbers an operation is; None for any other operation."""
    operation = known.program.operations[number]
    kind = getattr(operation.params.get("fft_type"), "name", "")
    return kind if operation.name == "fft" and kind in KINDS else None


def weigh_frequencies(known: Structure, numbers: Sequence[int], last: bool) -> Changes:
    """Take the weights of frequencies out; with `last`, give the last one the weight of others."""
    changes = Changes()
    for number in numbers:
        operation = known.program.operations[number]
        count = int(operation.params["fft_lengths"][-1])
        missing = make_weights(count, last)
        if (missing == 1).all():
            continue
        # Where the adjoint of the inverse transform lacks 2, that of the transform lacks 1/2.
        if find_kind(known, number) == "IRFFT":
            changes[number, 0] = Change(0, after=missing)
        else:
            changes[number, 0] = Change(0, before=1 / missing)
    return changes


def make_weights(count: int, last: bool) -> Array:
    """Make what the weights of a transform of so many numbers are multiplied by."""
    weights = np.ones(count // 2 + 1)
    if last:
        weights[-1] = 1.0 if count % 2 else 2.0
    else:
        weights[1 : (count + 1) // 2] = 0.5
    return weights
