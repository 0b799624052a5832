"""The campaign of `bptt verify`: the built-in derivations on many examples, wherever they run."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bptt_verifier.commands.campaign_file import open_ledger, save, saving
from bptt_verifier.console.interrupts import INTERRUPTED, ending_by_exception
from bptt_verifier.console.terminal import progress_bar
from bptt_verifier.judge import cluster as on_cluster
from bptt_verifier.judge import workers as processes
from bptt_verifier.judge.builtin import BuiltinReport
from bptt_verifier.judge.campaign import Campaign, Execute, Ledger, run_campaign
from bptt_verifier.judge.workers import choose_execution

BAD_INPUT = 2


class Stopped(NamedTuple):
    """Why a campaign ended before its last example, in one sentence, and the exit code for it."""

    why: str
    code: int


def finish_file(
    path: Path | None, campaign: Campaign, found: Ledger, *, new: bool
) -> OSError | None:
    """Save the findings, or delete a `new` file that has none; return why it cannot be written."""
    try:
        if path is not None and new and not found.tally.cases:
            os.unlink(os.path.realpath(path))
        elif path is not None:
            save(path, campaign, found)
    except OSError as error:
        return error
    return None


def print_note(sentence: str) -> None:
    """Print a sentence on standard error."""
    print(f"bptt: {sentence}", file=sys.stderr)


@contextmanager
def executing(workers: int | None, cluster: str | None) -> Iterator[tuple[Execute, int]]:
    """Yield what executes a campaign, in processes or on a cluster, and the examples in a part."""
    if cluster is not None:
        with on_cluster.connected(cluster, workers) as execute:
            yield execute, on_cluster.TOGETHER
    else:
        number = 1 if workers is None else workers
        yield choose_execution(number, print_note), 1 if number == 1 else processes.TOGETHER


def compare_derivations(
    examples: int,
    campaign: Campaign,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> tuple[BuiltinReport, Stopped | None]:
    """Compare every built-in derivation; return the report, and why it ended early if it did.

    The report is the same wherever the examples are compared. Ctrl-C ends the campaign with a
    report on the examples that are done, and so does an OSError, such as that of a cluster that
    fails or a full disk. Where there are none, both are raised. Raises ValueError or OSError where
    the file of `checkpoint` does not fit. Whatever ends the campaign, the findings are saved.
    """
    found = open_ledger(checkpoint, campaign, examples, resume=resume)
    stopped = None
    try:
        with (
            executing(workers, cluster) as (execute, together),
            ending_by_exception(),
            progress_bar("verifying", examples) as progress,
        ):
            run_campaign(
                examples, campaign, execute, together=together, ledger=found,
                progress=lambda done: progress(done, examples),
                save=saving(checkpoint, campaign),
            )  # fmt: skip
    except KeyboardInterrupt:
        if not found.tally.cases:
            raise
        stopped = Stopped("interrupted", INTERRUPTED)
    except OSError as error:
        if not found.tally.cases:
            raise
        stopped = Stopped(str(error), BAD_INPUT)
    finally:
        failure = finish_file(checkpoint, campaign, found, new=not resume)
    stopped = stopped or (Stopped(str(failure), BAD_INPUT) if failure else None)
    if stopped is not None:
        goes_on = checkpoint is not None and failure is None
        kept = f"; --resume goes on from {checkpoint}" if goes_on else ""
        why = f"{stopped.why} after {found.tally.cases} of {examples} random problems{kept}"
        stopped = stopped._replace(why=why)
    return found.report(campaign), stopped
