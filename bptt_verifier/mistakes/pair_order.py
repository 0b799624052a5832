"""The order in which pairs of mistakes are tried: likely ones first, by two criteria."""

from collections.abc import Iterator, Sequence

import numpy as np

from bptt_verifier.problems.problem import Array

PAIRS = 2**13  # pairs of mistakes that are tried, at most


def rank_by_count(counts: Sequence[int], before: int) -> Iterator[tuple[int, int]]:
    """Rank pairs: those with a mistake that explains more gradients than none does come first."""
    order = sorted(range(len(counts)), key=lambda i: (counts[i] <= before, -counts[i], i))
    for k, i in enumerate(order):
        done = set(order[: k + 1])
        yield from ((min(i, j), max(i, j)) for j in range(len(counts)) if j not in done)


def rank_by_effect(error: Array, effects: Array) -> Iterator[tuple[int, int]]:
    """Rank pairs by how far the sum of both effects is from the submission's error."""
    if len(effects) < 2:
        return
    effects = effects.astype(np.float64)
    alone = np.sum(effects**2, axis=1) - 2 * effects @ error
    left = alone[:, None] + alone[None, :] + 2 * effects @ effects.T
    left[np.tril_indices(len(effects))] = np.inf
    flat = left.ravel()
    count = min(PAIRS, flat.size)
    first = np.argpartition(flat, count - 1)[:count]
    for place in first[np.argsort(flat[first])]:
        if np.isfinite(flat[place]):
            i, j = divmod(int(place), len(effects))
            yield i, j
