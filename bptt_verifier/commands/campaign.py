"""The campaign of `bptt verify`: the built-in derivations on many examples, wherever they run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bptt_verifier.commands.campaign_file import load_to_resume, save, saving
from bptt_verifier.console.interrupts import INTERRUPTED, ending_by_exception
from bptt_verifier.console.terminal import progress_bar
from bptt_verifier.judge import cluster as on_cluster
from bptt_verifier.judge import workers as processes
from bptt_verifier.judge.builtin import BuiltinReport
from bptt_verifier.judge.campaign import Campaign, Execute, Ledger, run_campaign
from bptt_verifier.judge.cluster import ClusterFailed
from bptt_verifier.judge.workers import choose_execution

BAD_INPUT = 2


class Stopped(NamedTuple):
    """Why a campaign ended before its last example, in one sentence, and the exit code for it."""

    why: str
    code: int


@contextmanager
def executing(workers: int | None, cluster: str | None) -> Iterator[tuple[Execute, int]]:
    """Yield what executes a campaign, in processes or on a cluster, and the examples in a part."""
    if cluster is not None:
        with on_cluster.connected(cluster, workers) as execute:
            yield execute, on_cluster.TOGETHER
    else:
        number = 1 if workers is None else workers
        yield choose_execution(number), 1 if number == 1 else processes.TOGETHER


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
    report on the examples that are done. Raises KeyboardInterrupt where there are none, and
    ValueError or OSError where the file of `checkpoint` does not fit, or the cluster fails.
    """
    found = load_to_resume(checkpoint, campaign, examples, resume=resume) or Ledger()
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
    except ClusterFailed as error:
        if not found.tally.cases:
            raise
        stopped = Stopped(str(error), BAD_INPUT)
    if checkpoint is not None:
        save(checkpoint, campaign, found)
    if stopped is not None:
        kept = "" if checkpoint is None else f"; --resume goes on from {checkpoint}"
        why = f"{stopped.why} after {found.tally.cases} of {examples} random problems{kept}"
        stopped = stopped._replace(why=why)
    return found.report(campaign), stopped
