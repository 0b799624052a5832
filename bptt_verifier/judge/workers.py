"""Verification of the built-in derivations by several processes of this machine."""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from typing import Any

from bptt_verifier.judge.campaign import (
    Campaign,
    Execute,
    Keep,
    Remaining,
    compare_cases,
    execute_here,
)
from bptt_verifier.judge.processes import POOLS, WAITING, started_workers
from bptt_verifier.judge.tally import Tally
from manual_bptt.inputs import require_at_least

TOGETHER = 50  # examples that a worker is given at a time


def choose_execution(workers: int, note: Callable[[str], None] = lambda sentence: None) -> Execute:
    """Choose how a campaign is done by so many processes: by this one if it is one.

    `note` takes a sentence for the user if this process has to compare what others cannot.
    Raises TypeError or ValueError where `workers` is no integer from 1.
    """
    require_at_least(1, "workers", workers)
    return execute_here if workers == 1 else partial(execute_in_processes, workers, note)


def execute_in_processes(
    workers: int,
    note: Callable[[str], None],
    campaign: Campaign,
    remaining: Remaining,
    keep: Keep,
) -> None:
    """Have worker processes compare all parts; what a killed one had is compared by others.

    Where pool after pool breaks before it keeps a part, this process compares the rest.
    `note` is told so in a sentence.
    """
    broken = 0

    def keep_and_count(cases: range, tally: Tally) -> None:
        nonlocal broken
        broken = 0
        keep(cases, tally)

    while broken < POOLS:
        try:
            run_pool(remaining(), campaign, workers, keep_and_count)
            return
        except BrokenProcessPool:  # a worker was killed
            broken += 1
    note(
        f"--workers: expected processes that stay, found {POOLS} times in a row that one ended "
        "before any result came; this process compares the rest"
    )
    execute_here(campaign, remaining, keep)


def run_pool(parts: Iterator[range], campaign: Campaign, workers: int, keep: Keep) -> None:
    """Have workers compare the parts, and keep the findings of each as they come.

    Raises BrokenProcessPool where a worker is killed, once all finished parts are kept.
    """
    given = list(islice(parts, WAITING * workers))
    if not given:
        return
    with started_workers(min(workers, len(given))) as pool:
        waiting: dict[Future[Any], range] = {
            pool.submit(compare_cases, campaign, cases): cases for cases in given
        }
        broken = None
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in [each for each in waiting if each in done]:  # in the order of the parts
                cases = waiting.pop(future)
                try:
                    keep(cases, future.result())
                    if broken is None:
                        for more in islice(parts, 1):
                            waiting[pool.submit(compare_cases, campaign, more)] = more
                except BrokenProcessPool as error:
                    broken = error
        if broken is not None:
            raise broken
