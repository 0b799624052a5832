"""The campaign of `bptt verify`: the built-in derivations on many examples, wherever they run."""

from pathlib import Path
from typing import NamedTuple

from bptt_verifier.commands.campaign_file import load_to_resume, save, saving
from bptt_verifier.console.interrupts import INTERRUPTED, ending_by_exception
from bptt_verifier.console.terminal import progress_bar
from bptt_verifier.judge.builtin import BuiltinReport
from bptt_verifier.judge.campaign import Campaign, Ledger, run_campaign
from bptt_verifier.judge.workers import TOGETHER, choose_execution


class Stopped(NamedTuple):
    """Why a campaign ended before its last example, in one sentence, and the exit code for it."""

    why: str
    code: int


def verify_derivations(
    examples: int,
    campaign: Campaign,
    *,
    workers: int = 1,
    cluster: str | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> tuple[BuiltinReport, Stopped | None]:
    """Compare every built-in derivation; return the report, and why it ended early if it did.

    The report is the same wherever the examples are compared. Ctrl-C ends the campaign with a
    report on the examples that are done. Raises KeyboardInterrupt where there are none, and
    ValueError or OSError where the file of `checkpoint` does not fit.
    """
    found = load_to_resume(checkpoint, campaign, examples, resume=resume) or Ledger()
    stopped = None
    try:
        with ending_by_exception(), progress_bar("verifying", examples) as progress:
            run_campaign(
                examples, campaign, choose_execution(workers),
                together=1 if workers == 1 else TOGETHER,
                ledger=found,
                progress=lambda done: progress(done, examples),
                save=saving(checkpoint, campaign),
            )  # fmt: skip
    except KeyboardInterrupt:
        if not found.tally.cases:
            raise
        stopped = Stopped("interrupted", INTERRUPTED)
    if checkpoint is not None:
        save(checkpoint, campaign, found)
    if stopped is not None:
        kept = "" if checkpoint is None else f"; --resume goes on from {checkpoint}"
        why = f"{stopped.why} after {found.tally.cases} of {examples} random problems{kept}"
        stopped = stopped._replace(why=why)
    return found.report(campaign), stopped
