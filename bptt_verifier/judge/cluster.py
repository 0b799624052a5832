"""Verification of the built-in derivations on a cluster of Dask, here or on other machines.

Dask gives the parts of a worker that it has lost to another. A few parts for each worker are
submitted at a time, so that a campaign of any length needs little memory on any machine.
"""

import logging
import os
import time
from asyncio import CancelledError
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib import import_module
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any

from bptt_verifier.judge.campaign import Campaign, Execute, Keep, Remaining, compare_cases
from bptt_verifier.judge.tally import Tally
from bptt_verifier.proofs.extras import require
from bptt_verifier.report.versions import find_versions

LOCAL = "local"  # in place of an address: a cluster of this machine
TOGETHER = 500  # examples in a part, about a second's work
WAITING = 4  # parts for each thread that are submitted before they are asked for
POLL_INTERVAL = 2.0  # seconds between two questions for the number of workers
PATIENCE = 60.0  # seconds without any worker
TRIES = 3  # so many times a part is submitted again where its workers ended
TIMEOUT = 10  # seconds to reach the scheduler, and to fetch one result


class ClusterFailed(ConnectionError):  # noqa: N818 - an event
    """The cluster cannot go on; the message is one sentence."""


def compare_with(versions: dict[str, str], campaign: Campaign, cases: range) -> Tally:
    """Compare on a worker. Raises ClusterFailed unless it has these versions."""
    found = find_versions()
    for name, number in versions.items():
        if found[name] != number:
            raise ClusterFailed(
                f"--cluster: expected {name} {number} on every worker, found {found[name]}"
            )
    return compare_cases(campaign, cases)


@contextmanager
def connected(address: str, workers: int | None) -> Iterator[Execute]:
    """Connect to the scheduler at an address, or start a cluster here; yield what executes there.

    A cluster here has so many workers, by default one for each processor. Raises MissingExtra
    without Dask, ValueError where `workers` is given with an address, and ClusterFailed where no
    scheduler answers.
    """
    require("distributed", "distributed, of Dask", "--cluster", "cluster")
    if address != LOCAL and workers is not None:
        raise ValueError(f"--workers: expected --cluster {LOCAL} with it, found {address}")
    dask: Any = import_module("distributed")
    with ExitStack() as opened:
        silenced = logging.getLogger("distributed")
        opened.callback(silenced.setLevel, silenced.level)
        silenced.setLevel(logging.CRITICAL)  # it reports every worker that ends
        place: Any = address
        if address == LOCAL:
            number = (os.cpu_count() or 1) if workers is None else workers
            place = opened.enter_context(
                dask.LocalCluster(
                    n_workers=number, threads_per_worker=1, dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                )
            )  # fmt: skip
        try:
            client = dask.Client(place, timeout=TIMEOUT, set_as_default=False)
        except (OSError, ValueError) as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            expected = f"expected a scheduler of Dask at {address}, found none"
            raise ClusterFailed(f"--cluster: {expected}: {why}") from None
        yield partial(execute_on, opened.enter_context(client))


def execute_on(client: Any, campaign: Campaign, remaining: Remaining, keep: Keep) -> None:
    """Have the workers of a cluster compare all parts, and keep the findings as they come.

    Raises ClusterFailed where there is no worker for a minute, where the scheduler ends, where a
    part ends every worker that has it, and where a worker has other versions.
    """
    parts, finished = remaining(), SimpleQueue[Any]()
    waiting: dict[Any, range] = {}
    lost = Counter[range]()
    compare = partial(compare_with, find_versions(), campaign)

    def submit(cases: range) -> None:
        with asking_scheduler():
            future = client.submit(compare, cases, pure=False)
            waiting[future] = cases
            future.add_done_callback(finished.put)

    polled, seen, threads = 0.0, time.monotonic(), 0
    while True:
        now = time.monotonic()
        if now - polled > POLL_INTERVAL:
            threads = count_threads(client)
            polled, seen = now, now if threads else seen
        if not threads and now - seen > PATIENCE:
            raise ClusterFailed(f"--cluster: expected a worker within {PATIENCE:.0f} s, found none")
        for cases in islice(parts, max(0, WAITING * max(threads, 1) - len(waiting))):
            submit(cases)
        if not waiting:
            return
        try:
            future = finished.get(timeout=POLL_INTERVAL)
        except Empty:
            continue
        cases = waiting.pop(future)
        found = fetch(future)
        if isinstance(found, Tally):
            keep(cases, found)
            continue
        threads = count_threads(client)
        if found is not None or threads:  # without workers the result can only be lost
            require_retry(found, cases, lost)
        if future.status == "finished":  # the result is there, and did not come in time
            waiting[future] = cases
            finished.put(future)
        else:
            submit(cases)


def fetch(future: Any) -> Tally | BaseException | None:
    """Fetch the tally of a part, or what ended the part; None if its result did not come.

    A result is with the worker that computed it until it is fetched. Where that worker has ended,
    Dask has the part computed again, if there is another one.
    """
    if future.status == "finished":
        with suppress(Exception, CancelledError):  # the status then tells what happened
            found: Tally = future.result(timeout=TIMEOUT)
            return found
    if future.status != "error":
        return None
    error: BaseException = future.exception()
    return error


def count_threads(client: Any) -> int:
    """Count the threads of all workers. Raises ClusterFailed where the scheduler has ended."""
    with asking_scheduler():
        return sum(client.nthreads().values())


@contextmanager
def asking_scheduler() -> Iterator[None]:
    """Inside, an error of the connection to the scheduler is raised as ClusterFailed."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or type(error).__name__ == "ClosedClientError":
            raise ClusterFailed(
                "--cluster: expected the scheduler to stay, found it gone"
            ) from error
        raise


def require_retry(error: BaseException | None, cases: range, lost: Counter[range]) -> None:
    """Count a part as lost, with its result for None; raise ClusterFailed if it is lost too often.

    Raises ClusterFailed as well where the part was ended by anything but the end of its workers.
    """
    if isinstance(error, ClusterFailed):
        raise error
    if error is not None and type(error).__name__ != "KilledWorker":
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ClusterFailed(f"--cluster: expected workers that can run this package, found {what}")
    lost[cases] += 1
    if lost[cases] > TRIES:
        why = "its result was lost each time" if error is None else "each that had them ended"
        raise ClusterFailed(
            f"--cluster: expected workers that stay, found none for the random problems "
            f"{cases.start} to {cases.stop - 1}: {why}"
        )
