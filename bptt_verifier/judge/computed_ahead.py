"""What a verdict on a cell will need: loaded or computed while other cases are compared."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bptt_verifier.problems.problem import Problem
from bptt_verifier.reference.autodiff import LargeReference, load_programs, start_large_reference

LOADING = 2  # threads; the loading itself needs no Python
LOADERS = "bptt loader"  # how the names of these threads begin


class LargeReferences:
    """References of large problems, of which JAX computes one after the other, not on demand.

    `started` are those that it has computed, and one at most that it is computing, which keeps the
    memory small.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems, self.started = problems, list[LargeReference]()

    def advance(self) -> None:
        """Start the next one if JAX has computed the last; never wait."""
        if len(self.started) == len(self.problems):
            return
        if self.started:
            last = self.started[-1]
            if not last.is_there:
                return
            last()  # without its padding, before there is another
        self.started.append(start_large_reference(self.problems[len(self.started)]))


def load_programs_of(random: Problem, probe: Problem, large: Problem) -> None:
    """Load the programs for such problems in threads, where they are kept; never wait.

    To load them takes longer than to compute with them. The verdict waits where it needs one.
    """
    pool = ThreadPoolExecutor(LOADING, LOADERS)
    load_programs(random, pool)
    load_programs(probe, pool)
    load_programs(large, pool, measured=False)
    pool.shutdown(wait=False)
