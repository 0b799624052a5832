"""Verification of the built-in derivations by several processes.

Each example depends on the seed and its number alone, and the report is made of the findings in the
order of the examples. So it is the same whatever the number of workers, and the examples of a
worker that was killed are simply compared again.
"""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, NamedTuple

from bptt_verifier.judge import builtin
from bptt_verifier.judge.builtin import BuiltinReport, CaseFindings, Subjects
from manual_bptt.inputs import require_at_least

TOGETHER = 50  # examples that a worker is given at a time
POOLS = 5  # so many times workers are started anew before the rest is left to this process


class Campaign(NamedTuple):
    """What a worker has to know: the seed, the precision, and the reference."""

    seed: int
    dtype: str
    certified: bool = False


def choose_subjects(campaign: Campaign) -> Subjects:
    """All built-in derivations, compared with autodiff or, `certified`, with exact values."""
    derivations, cell_derivations = builtin.DERIVATIONS, builtin.CELL_DERIVATIONS
    tangents = builtin.TANGENT_DERIVATIONS
    if not campaign.certified:
        return Subjects(derivations, cell_derivations, tangents, builtin.AUTODIFF)
    from bptt_verifier.judge import certified as exact  # noqa: PLC0415 - needs an extra

    return Subjects(
        derivations | exact.COMPILED_DERIVATIONS,
        cell_derivations | exact.COMPILED_CELL_DERIVATIONS,
        tangents,
        exact.CERTIFIED,
    )


def compare_cases(campaign: Campaign, cases: range) -> list[CaseFindings]:
    """Compare all derivations on these examples."""
    subjects = choose_subjects(campaign)
    return [builtin.compare_case(case, campaign.seed, campaign.dtype, subjects) for case in cases]


def prepare_worker() -> None:
    """Leave Ctrl-C to the parent, and end as soon as the parent has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()


@contextmanager
def started_workers(number: int) -> Iterator[ProcessPoolExecutor]:
    """Workers that are ended at once where an exception, such as Ctrl-C, ends the block."""
    pool = ProcessPoolExecutor(number, mp_context=get_context("spawn"), initializer=prepare_worker)
    try:
        yield pool
    except BaseException:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        raise
    pool.shutdown()


def verify_with_workers(
    examples: int,
    campaign: Campaign,
    workers: int,
    progress: Callable[[int], None] = lambda done: None,
    *,
    together: int = TOGETHER,
) -> BuiltinReport:
    """The report of `verify_builtin` on all built-in derivations, by so many processes.

    With one worker this process does the work. `progress` is called with the number of examples
    done. Raises TypeError or ValueError where `examples` or `workers` is no integer from 1.
    """
    require_at_least(1, "examples", examples)
    require_at_least(1, "workers", workers)
    subjects, found = choose_subjects(campaign), dict[int, list[CaseFindings]]()
    parts = {
        start: range(start, min(start + together, examples))
        for start in range(0, examples, together)
    }

    def keep(start: int, findings: list[CaseFindings]) -> None:
        found[start] = findings
        progress(sum(map(len, found.values())))

    for _ in range(POOLS if workers > 1 else 0):
        try:
            run_pool(
                {start: cases for start, cases in parts.items() if start not in found},
                campaign, workers, keep,
            )  # fmt: skip
            break
        except BrokenProcessPool:  # a worker was killed: what it had is done by others
            continue
    for start, cases in parts.items():
        if start not in found:
            keep(start, compare_cases(campaign, cases))
    in_order = [case for start in parts for case in found[start]]
    return builtin.make_report(in_order, campaign.seed, campaign.dtype, subjects)


def run_pool(
    parts: dict[int, range],
    campaign: Campaign,
    workers: int,
    keep: Callable[[int, list[CaseFindings]], None],
) -> None:
    """Have workers compare the parts, and keep the findings of each as they come.

    Raises BrokenProcessPool where a worker is killed, after all that has come is kept.
    """
    with started_workers(min(workers, len(parts))) as pool:
        waiting: dict[Future[Any], int] = {
            pool.submit(compare_cases, campaign, cases): start for start, cases in parts.items()
        }
        broken = None
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                start = waiting.pop(future)
                try:
                    keep(start, future.result())
                except BrokenProcessPool as error:
                    broken = error
        if broken is not None:
            raise broken
