"""The effort of a search for a name: its time limit, and the progress that it reports.

The limit is on processor time, so that a busy machine finds what a quiet one does.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

PATIENCE = 4  # seconds that pass, at most, for each second of the processor


class Effort:
    """The time that a search may take, in seconds, and what it has tried so far.

    These are seconds of the processor in the thread that searches. Where it gets less than one in
    `PATIENCE` of them, the search ends nevertheless, since a person waits.
    `ended` is true once the search has asked for more time than it has. `progress` is called with
    the number of hypotheses that have been tried, and that of those listed so far.
    """

    def __init__(
        self,
        seconds: float | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.seconds, self.progress = seconds, progress
        self.start, self.began, self.ended = time.thread_time(), time.monotonic(), False
        self.tried = self.listed = 0

    def list(self, number: int) -> None:
        """Note that this many more hypotheses are to be tried."""
        self.listed += number

    def goes_on(self, tried: int = 0) -> bool:
        """Note that this many more have been tried; tell whether time is left for others."""
        self.tried += tried
        self.listed = max(self.listed, self.tried)
        self.progress(self.tried, self.listed)
        if self.seconds is not None:
            used, passed = time.thread_time() - self.start, time.monotonic() - self.began
            self.ended |= used >= self.seconds or passed >= PATIENCE * self.seconds
        return not self.ended


EFFORT = ContextVar[Effort]("EFFORT")


def find_effort() -> Effort:
    """Find the effort of the search at hand; one without a limit, where none is set."""
    return EFFORT.get(None) or Effort()


@contextmanager
def limit_effort(
    seconds: float | None, progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[Effort]:
    """Limit the searches inside to this many seconds from now; None: without a limit."""
    effort = Effort(seconds, progress)
    token = EFFORT.set(effort)
    try:
        yield effort
    finally:
        EFFORT.reset(token)
