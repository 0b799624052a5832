"""The file of a campaign: what `bptt verify` has compared so far, as JSON."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bptt_verifier.console.files import replacing, require_writable
from bptt_verifier.judge.campaign import LISTED, Campaign, Ledger
from bptt_verifier.judge.tally import Row, Tally, Worst
from bptt_verifier.problems.problem import Sizes
from bptt_verifier.report.versions import find_versions
from bptt_verifier.tolerance.comparison import Comparison

SAVE_EVERY = 5.0  # seconds


def to_json(campaign: Campaign, ledger: Ledger) -> str:
    """Write the findings of a campaign as JSON. Floats come back bit for bit."""
    tally, done = ledger.findings
    plain = {
        "campaign": campaign._asdict(),
        "versions": find_versions(),
        "done": [[part.start, part.stop] for part in done],
        "cases": tally.cases,
        "rows": list(tally.rows.values()),
        "shapes": list(ledger.list_shapes().items()),
    }
    return json.dumps(plain) + "\n"


def save(path: Path, campaign: Campaign, ledger: Ledger) -> None:
    """Write the findings to a file, whole or not at all. Raises OSError as `replacing` does."""
    with replacing(path) as file:
        file.write(to_json(campaign, ledger).encode())


def parse(text: str) -> tuple[dict[str, Any], Ledger]:
    """Parse a file: what it must have in common with a run, and the findings. Raises if damaged."""
    plain = json.loads(text)
    rows = [parse_row(*row) for row in plain["rows"]]
    shapes = {case: Sizes(*sizes) for case, sizes in plain["shapes"]}
    done = tuple(range(start, stop) for start, stop in plain["done"])
    listed = not done or done[-1].stop <= LISTED
    if sum(map(len, done)) != plain["cases"] or (listed and len(shapes) != plain["cases"]):
        raise ValueError("examples that do not add up")
    campaign = Campaign(**plain["campaign"])
    return campaign._asdict() | plain["versions"], Ledger(Tally(rows, shapes, plain["cases"]), done)


def parse_row(*fields: Any) -> Row:
    """Parse a row; JSON has lists for tuples."""
    row = Row(*fields)
    case, (name, error, entry, *numbers) = row.worst
    worst = Worst(case, Comparison(name, error, tuple(entry), *numbers))
    return row._replace(worst=worst, largest=Sizes(*row.largest))


def open_ledger(path: Path | None, campaign: Campaign, examples: int, *, resume: bool) -> Ledger:
    """Load the findings to go on from, if the run is to `resume`, or create the file of a new one.

    Raises ValueError or OSError where there is no file to resume from, where it is of another
    campaign or other versions, and where a new campaign would overwrite a file.
    """
    if path is None and resume:
        raise ValueError("--resume: expected --checkpoint FILE with it, found none")
    require_writable("--checkpoint", path, replaced=True)
    if path is None:
        return Ledger()
    if not resume:
        create(path, campaign)
        return Ledger()
    if not path.exists():
        raise FileNotFoundError(f"--resume: expected the file of a campaign, found no file {path}")
    try:
        before, ledger = parse(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        expected = "expected the file of a campaign of bptt verify, found a damaged or another file"
        raise ValueError(f"{path}: {expected}") from error
    for name, value in (campaign._asdict() | find_versions()).items():
        if before.get(name) != value:
            option = f"--{name}" if name in Campaign._fields else name
            raise ValueError(f"{option}: expected {before.get(name)} as in {path}, found {value}")
    if ledger.done and ledger.done[-1].stop > examples:
        least = ledger.done[-1].stop
        raise ValueError(f"--examples: expected at least {least} as in {path}, found {examples}")
    return ledger


def create(path: Path, campaign: Campaign) -> None:
    """Create the file of a campaign that has compared nothing yet, unless another run has."""
    try:
        with open(os.path.realpath(path), "x", encoding="utf-8") as file:
            file.write(to_json(campaign, Ledger()))
    except FileExistsError:
        expected = "expected a new file, or --resume to go on from it"
        raise FileExistsError(f"--checkpoint: {expected}, found {path}") from None


def saving(path: Path | None, campaign: Campaign) -> Callable[[Ledger], None]:
    """A function that saves findings to a file, now and then."""
    last = time.monotonic()

    def save_now_and_then(ledger: Ledger) -> None:
        nonlocal last
        if path is not None and time.monotonic() - last > SAVE_EVERY:
            save(path, campaign, ledger)
            last = time.monotonic()

    return save_now_and_then
