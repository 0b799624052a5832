"""The order in which pairs of mistakes are tried: likely ones first, by four criteria."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np

from bptt_verifier.problems.problem import Array

PAIRS = 3 * 2**13  # pairs of mistakes that are tried, at most
LIKELIEST = 2**13  # pairs that are likely by the sum of effects, or as common mistakes, at most
FIRSTS = 64  # mistakes whose partners are ranked, at most
SMALLEST = 1e-10  # squared relative error that counts as none: effects are kept in float32


def rank_by_count(
    counts: Sequence[int], before: int, left: Array, common: int
) -> Iterator[tuple[int, int]]:
    """Rank pairs: those with a mistake that explains more gradients than none does come first.

    Of mistakes that explain equally many, those come first that leave less of the error. The first
    `common` mistakes are its partners before the others are.
    """
    order = sorted(range(len(counts)), key=lambda i: (counts[i] <= before, -counts[i], left[i], i))
    common = min(common, len(counts))
    for partners in (range(common), range(common, len(counts))):
        for k, i in enumerate(order):
            done = set(order[: k + 1])
            yield from ((min(i, j), max(i, j)) for j in partners if j not in done)


def rank_by_row(alone: Array, squared: Array, together: Array) -> Iterator[tuple[int, int]]:
    """Rank pairs by one mistake of each, which is tried beside many others before the next one is.

    Where mistakes lie on one path, their effects do not add up. Then one of the two still leaves
    less of the error than most others do, by the mean logarithm or by the sum of squares, and the
    other one leaves less beside it than half of all do; the second half comes last.
    """
    orders = (np.argsort(each, kind="stable").tolist() for each in (alone, squared))
    firsts = [*dict.fromkeys(chain.from_iterable(zip(*orders, strict=True)))][:FIRSTS]
    partners = np.argsort(together[firsts], axis=1, kind="stable")
    half = (len(alone) + 1) // 2
    for columns in (partners[:, :half], partners[:, half:]):
        for i, others in zip(firsts, columns.tolist(), strict=True):
            yield from ((min(i, j), max(i, j)) for j in others if j != i)


def rank_by_order(count: int) -> Iterator[tuple[int, int]]:
    """Rank pairs of the mistakes that are listed first, which are the likely ones."""
    yield from islice(((i, j) for j in range(count) for i in range(j)), LIKELIEST)


def measure_error(
    error: Array, effects: Array, parts: Sequence[slice]
) -> tuple[Array, Array, Array]:
    """Measure what mistakes leave of the error: each alone, its squares, and every two together.

    That is the mean logarithm over the gradients, of which each is a part of the vectors: one that
    is explained exactly counts more than many that are explained nearly. The second is the sum of
    squares of what each leaves alone.
    """
    alone, together = np.zeros(len(effects)), np.zeros((len(effects), len(effects)))
    squared = np.zeros(len(effects))
    for part in parts:
        e, f = error[part].astype(np.float64), effects[:, part].astype(np.float64)
        with np.errstate(all="ignore"):  # an error of 1e300 is infinite here
            size = float(e @ e) or 1.0
            one = np.sum(f**2, axis=1) - 2 * f @ e + float(e @ e)
            two = one[:, None] + one[None, :] - float(e @ e) + 2 * f @ f.T
            squared += one
            alone += np.log(np.maximum(one, 0) / size + SMALLEST) / len(parts)
            together += np.log(np.maximum(two, 0) / size + SMALLEST) / len(parts)
    return alone, squared, together


def rank_by_effect(together: Array) -> Iterator[tuple[int, int]]:
    """Rank pairs by how much the sum of both effects leaves of the submission's error."""
    if len(together) < 2:
        return
    left = together.copy()
    left[np.tril_indices(len(left))] = np.inf
    flat = left.ravel()
    count = min(LIKELIEST, flat.size)
    first = np.argpartition(flat, count - 1)[:count]
    for place in first[np.argsort(flat[first])]:
        if np.isfinite(flat[place]):
            i, j = divmod(int(place), len(left))
            yield i, j
