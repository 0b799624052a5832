"""The order in which pairs of mistakes are tried: likely ones first, by three criteria."""

from collections.abc import Iterator, Sequence

import numpy as np

from bptt_verifier.problems.problem import Array

PAIRS = 2**14  # pairs of mistakes that are tried, at most
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


def rank_by_partner(alone: Array, together: Array) -> Iterator[tuple[int, int]]:
    """Rank pairs by the rank of one mistake alone, times that of the other beside it.

    Where mistakes lie on one path, their effects do not add up. Then one of the two still leaves
    less of the error than most others do, and so does the other one beside it.
    """
    firsts = np.argsort(alone, kind="stable")[:FIRSTS]
    partners = np.argsort(together[firsts], axis=1, kind="stable")
    product = np.outer(np.arange(len(firsts)) + 1, np.arange(len(alone)) + 1)
    for place in np.argsort(product, axis=None, kind="stable"):
        row, rank = divmod(int(place), len(alone))
        i, j = int(firsts[row]), int(partners[row, rank])
        if i != j:
            yield min(i, j), max(i, j)


def rank_by_order(count: int) -> Iterator[tuple[int, int]]:
    """Rank pairs of the mistakes that are listed first, which are the likely ones."""
    yield from ((i, j) for j in range(count) for i in range(j))


def measure_error(error: Array, effects: Array, parts: Sequence[slice]) -> tuple[Array, Array]:
    """Measure what mistakes leave of the error: each alone, and every two together.

    That is the mean logarithm over the gradients, of which each is a part of the vectors: one that
    is explained exactly counts more than many that are explained nearly.
    """
    alone, together = np.zeros(len(effects)), np.zeros((len(effects), len(effects)))
    for part in parts:
        e, f = error[part].astype(np.float64), effects[:, part].astype(np.float64)
        size = float(e @ e) or 1.0
        one = np.sum(f**2, axis=1) - 2 * f @ e + float(e @ e)
        two = one[:, None] + one[None, :] - float(e @ e) + 2 * f @ f.T
        alone += np.log(np.maximum(one, 0) / size + SMALLEST) / len(parts)
        together += np.log(np.maximum(two, 0) / size + SMALLEST) / len(parts)
    return alone, together


def rank_by_effect(together: Array) -> Iterator[tuple[int, int]]:
    """Rank pairs by how much the sum of both effects leaves of the submission's error."""
    if len(together) < 2:
        return
    left = together.copy()
    left[np.tril_indices(len(left))] = np.inf
    flat = left.ravel()
    count = min(PAIRS // 2, flat.size)
    first = np.argpartition(flat, count - 1)[:count]
    for place in first[np.argsort(flat[first])]:
        if np.isfinite(flat[place]):
            i, j = divmod(int(place), len(left))
            yield i, j
