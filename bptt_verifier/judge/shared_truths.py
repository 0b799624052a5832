"""References of random problems, which worker processes compute ahead of the submission's calls.

The submission itself is called by one process, in the order of the problems. So it may be a lambda
or a method of an object in a notebook, what it keeps from call to call is judged as without
workers, and where it raises, hangs or ends its process, it does so as without workers. The rest of
a comparison takes four times as long as the call of a small network.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from multiprocessing import current_process
from typing import Any

import numpy as np

from bptt_verifier.judge.processes import POOLS, WAITING, started_workers
from bptt_verifier.problems.problem import LOSSES, Problem
from bptt_verifier.reference.autodiff import (
    has_derived_bound,
    measure_truth,
    prefetch_truths,
    truth,
)
from bptt_verifier.reference.case import FindTruth, Truth
from jax_reference import blocks

TOGETHER = 4 * blocks.SIZE  # problems that a worker is given at a time

Draw = Callable[[range], Iterable[Problem]]  # the problems of these numbers
# The names of the results in each format, by the format of the problem.
FormatsAsked = dict[Any, dict[Any, tuple[str, ...]]]
ProblemAndTruths = tuple[Problem, dict[Any, Truth]]  # a problem, and its truth in each format


def share_truths(draw: Draw, number: int, workers: int) -> Iterator[tuple[Problem, FindTruth]]:
    """Yield the first problems with their truths, in order, while workers compute those after them.

    This process computes truths while the workers start, and those of a worker that was killed;
    also the rest, where pool after pool breaks. The workers compute what the caller has asked for
    so far; whatever else it asks for is computed here.
    """
    starts = range(0, number, TOGETHER)
    remaining = deque(range(start, min(start + TOGETHER, number)) for start in starts)
    asked: FormatsAsked = {}
    broken = POOLS if current_process().daemon else 0  # which may start no processes
    yield from find_here(draw, remaining.popleft(), asked)
    while remaining and broken < POOLS:
        try:
            for found in run_pool(draw, remaining, asked, min(workers, len(remaining))):
                broken = 0
                yield from found
        except (BrokenProcessPool, OSError):  # a worker was killed, or none could start
            broken += 1
    for cases in remaining:
        yield from find_here(draw, cases, asked)


def run_pool(
    draw: Draw, remaining: deque[range], asked: FormatsAsked, workers: int
) -> Iterator[Iterable[tuple[Problem, FindTruth]]]:
    """Yield the remaining parts in order, and remove each once it has been taken.

    Raises BrokenProcessPool where a worker is killed; OSError where none can be started.
    """
    with started_workers(workers, warm_up, draw, copy_asked(asked)) as pool:
        ready, waiting = pool.submit(int), deque[Future[list[ProblemAndTruths]]]()
        while remaining:
            if ready.done():
                for cases in islice(remaining, len(waiting), WAITING * workers):
                    waiting.append(pool.submit(find_in_worker, draw, cases, copy_asked(asked)))
            if waiting:
                found = waiting.popleft().result()
                yield [(each[0], partial(find_prepared, *each)) for each in found]
            else:
                yield find_here(draw, remaining[0], asked)
            remaining.popleft()


def find_here(draw: Draw, cases: range, asked: FormatsAsked) -> Iterator[tuple[Problem, FindTruth]]:
    """Yield problems with truths of this process, and note what is asked of them."""
    for problem, known in prefetch_truths(draw(cases)):
        formats = asked.setdefault(problem.x.dtype, {})
        yield problem, partial(note_and_find, formats, known)


def note_and_find(
    formats: dict[Any, tuple[str, ...]], known: FindTruth, dtype: Any, names: Collection[str]
) -> Truth:
    """Note the format and the names for which a truth is asked, and find it."""
    dtype = np.dtype(dtype)
    formats[dtype] = tuple(dict.fromkeys((*formats.get(dtype, ()), *names)))
    return known(dtype, names)


def find_in_worker(draw: Draw, cases: range, asked: FormatsAsked) -> list[ProblemAndTruths]:
    """Find the truths of problems in all formats, for all names that have been asked for."""
    found = []
    for problem, known in prefetch_truths(draw(cases)):
        formats = asked.get(problem.x.dtype, {})
        truths = {dtype: select(known(dtype, names), names) for dtype, names in formats.items()}
        found.append((problem, truths))
    return found


def find_prepared(
    problem: Problem, prepared: Mapping[Any, Truth], dtype: Any, names: Collection[str]
) -> Truth:
    """Find the truth among those of a worker, or compute it if other results are asked for."""
    known = prepared.get(np.dtype(dtype))
    if known is None or not known.values.keys() >= set(names):
        return truth(problem, dtype, names)
    return known


def select(known: Truth, names: Collection[str]) -> Truth:
    """Select the results of these names."""
    return Truth(*({name: arrays[name] for name in names} for arrays in known))


def copy_asked(asked: FormatsAsked) -> FormatsAsked:
    """Copy what has been asked for so far, which may grow while a worker is told."""
    return {dtype: dict(formats) for dtype, formats in asked.items()}


def warm_up(draw: Draw, asked: FormatsAsked) -> None:
    """Compile all programs that the truths of these problems need."""
    found = find_in_worker(draw, range(TOGETHER), asked)
    problem, _ = found[0]
    if has_derived_bound(problem):  # in place of a bound that cannot decide
        measure_truth(problem, problem.x.dtype, (), len(LOSSES))
