"""The campaign's run: judge the submissions of one model after another, and keep what was found.

The submissions of a model share its loss, which is traced, compiled and differentiated once. Each
model is a line of JSON, so that a run goes on where an earlier one was stopped.
"""

import json
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bptt_verifier.judge.own_model import OwnSubject
from bptt_verifier.judge.path import judge
from bptt_verifier.program.attempt import use_own_settings
from bptt_verifier.reference.case import Case
from bptt_verifier.reference.own_loss import prepare
from bptt_verifier.reference.own_model import OwnModel
from bptt_verifier.reference.points import draw_parameters
from bptt_verifier.report import Report
from bptt_verifier.tolerance.bounds import RESOLVING
from campaign.mistakes import Wrong, draw_wrong
from campaign.models import Model, draw_model
from campaign.submissions import Gradients, choose_style, draw_right

POINTS = 6  # further points at which a mistake is measured, for each setting
EXCESS = 1 + 2.0**-40  # in units of the resolution, which may be that error itself, rounded
DIAGNOSED = 1  # wrong submissions of a model whose mistake is searched for

# The formats of all results, or of those that are returned in it.
JUDGED_IN = re.compile(
    r"(?:You return \w+ numbers for (?P<which>.*?)(?: where|, as) .*)?judged in (?P<format>\w+)"
)

Row = dict[str, Any]


@contextmanager
def quietly() -> Iterator[None]:
    """Ignore warnings of submissions, some of which overflow."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def judge_model(seed: int, number: int, right: int, wrong: int, seconds: float) -> Row:
    """Judge right and wrong submissions of the model of this number; return what was found."""
    begun, model = time.process_time(), draw_model(seed, number)
    row: Row = {"seed": seed, "number": number, "model": model.label, "submissions": []}
    with quietly():
        try:
            with use_own_settings():
                settings = model.settings
                given = [*settings] if len(settings) > 1 else settings[0]
                own = prepare(model.loss(), given, seed=number)
        except Exception as error:
            return row | {"verdict": f"raised {type(error).__name__}: {error}"}
        row |= {"prepared": seconds_since(begun), "cases": len(own.cases), "refusal": own.refusal}
        for k in range(right):
            style = choose_style(number, k)
            rng = np.random.default_rng([seed, number, 0, k])
            drawn = draw_right(model, rng, style)
            if drawn is not None:
                found = judge_one(own, drawn, 0.0)
                row["submissions"].append({"right": True, "what": style, **found})
        for k in range(wrong):
            found = judge_wrong(model, own, [seed, number, 1, k], seconds * (k < DIAGNOSED))
            row["submissions"].append(found)
    jax.clear_caches()  # type: ignore[no-untyped-call]
    return row | {"seconds": seconds_since(begun)}


def judge_wrong(model: Model, own: OwnModel, seeds: Sequence[int], seconds: float) -> Row:
    """Judge one wrong submission, and compare its error with the resolution that is stated."""

    def draw() -> Wrong:  # anew, with what it keeps between calls
        return draw_wrong(model, np.random.default_rng(seeds))

    found = judge_one(own, draw().gradients, seconds)
    row = {"right": False, "what": draw().mistake, **found}
    if found["verdict"] == "agrees":
        # A case in which the submission overflows is left out, and the report says so.
        left_out = any("left out: " in note and "not finite" in note for note in found["notes"])
        points = (
            draw_parameters(given, seed=seeds[1] + 1, case=3 * k + 1, near=bool(k % 2))
            for given in own.params
            for k in range(POINTS)
        )
        # The judge leaves a point out where the loss is not finite, and so does this measure.
        further = [Case("", each, 0, None) for each in points if np.isfinite(own.loss(each, np))]
        coarse = find_formats(found["notes"], found["resolution"])
        for name, cases in (
            ("in_cases", own.cases if not left_out else ()),
            ("elsewhere", further),
        ):
            row[name] = measure_excess(draw(), cases, found["resolution"], coarse)
    return row


def measure_excess(
    wrong: Wrong,
    cases: Sequence[Case],
    resolution: Mapping[str, float | None],
    coarse: Mapping[str, Any],
) -> float:
    """Measure the largest error of any gradient, in units of the resolution that is stated.

    The error is the distance from the right twin, relative to the twin's largest entry. Points in
    float32 are left out, where two right twins differ by more than a resolution of float64. So are
    cases where rounding hides a gradient that is judged in a `coarse` format, as the report says.
    """
    largest = 0.0
    for case in cases:
        point = case.arguments
        if any(value.dtype != np.float64 for value in point.values()):
            continue
        by_hand, by_twin = (
            each({name: np.array(value) for name, value in point.items()})
            for each in (wrong.gradients, wrong.right)
        )
        for name, least in resolution.items():
            if name in coarse and case.truth is not None:
                known = case.truth(coarse[name], [name])
                if hides(known.allowed[name], known.values[name]):
                    continue
            size = float(np.max(np.abs(by_twin[name])))
            apart = float(np.max(np.abs(by_hand[name].astype(float) - by_twin[name])))
            if least and np.isfinite(size) and size > 0 and not apart <= 0:
                largest = max(largest, np.nan_to_num(apart / size / least, nan=np.inf))
    return float(largest)


def find_formats(notes: Sequence[str], names: Iterable[str]) -> dict[str, Any]:
    """Find the formats that a report says it has judged gradients in, but for float64."""
    formats: dict[str, Any] = {}
    for note in notes:
        stated = JUDGED_IN.search(note)
        if stated is not None:
            which = {*names} if stated["which"] is None else {*stated["which"].split(", ")}
            formats |= dict.fromkeys(which & {*names}, np.dtype(stated["format"]))
    return formats


def hides(allowed: Any, true: Any) -> bool:
    """True if allowed errors hide a mistake in a gradient."""
    return not np.max(allowed) <= RESOLVING * np.max(np.abs(true))


def judge_one(own: OwnModel, gradients: Gradients, seconds: float) -> Row:
    """Judge one submission: its verdict, names, CPU seconds and resolutions."""
    begun = time.process_time()
    try:
        with use_own_settings():
            report = judge(gradients, OwnSubject(own, gradients), "the model", timeout=seconds)
    except Exception as error:  # a fault of the judge
        return {"verdict": f"raised {type(error).__name__}: {error}", "resolution": {}, "names": []}
    return {"seconds": seconds_since(begun), **describe(report)}


def describe(report: Report) -> Row:
    """What is kept of a report."""
    parameters = report.parameters.items()
    return {
        "verdict": str(report.verdict),
        "names": [mistake.name for mistake in report.mistakes],
        "worst": max((p.error for _, p in parameters), default=0.0),
        "resolution": {
            name: float(p.resolution) if np.isfinite(p.resolution) else None
            for name, p in parameters
        },
        "notes": [*report.notes, *(mistake.explanation for mistake in report.mistakes[:1])],
    }


def seconds_since(begun: float) -> float:
    """CPU seconds of this process since a moment."""
    return round(time.process_time() - begun, 2)


def read_rows(file: Path) -> list[Row]:
    """Read all lines so far; a line that was not finished is left out."""
    if not file.exists():
        return []
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def find_latest(rows: Sequence[Row], seed: int) -> dict[int, Row]:
    """Find the last line of each model of a seed."""
    return {row["number"]: row for row in rows if row["seed"] == seed}


def count(rows: Sequence[Row], right: bool) -> int:
    """Count the right or wrong submissions that were judged."""
    return sum(each["right"] is right for row in rows for each in row["submissions"])


def run_campaign(
    file: Path,
    seed: int,
    numbers: Iterator[int],
    enough: Callable[[Sequence[Row]], bool],
    judge_number: Callable[[int], Row],
    show: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Judge models until there are enough, and append each to a file; return the latest lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    latest = find_latest(read_rows(file), seed)
    for number in numbers:
        if enough([*latest.values()]):
            break
        row = judge_number(number)
        with file.open("a", encoding="utf-8") as lines:
            lines.write("\n" * (not ends_with_line(file)) + json.dumps(row, ensure_ascii=False))
            lines.write("\n")
        latest[number] = row
        show(row)
    return [*latest.values()]


def ends_with_line(file: Path) -> bool:
    """True if a file is empty or ends with a whole line."""
    return not file.exists() or not (text := file.read_bytes()) or text.endswith(b"\n")


def summarise(rows: Sequence[Row]) -> list[str]:
    """Summarise the latest lines of all models."""
    every = [each for row in rows for each in row["submissions"]]
    lines = []
    for right, kind in ((True, "right"), (False, "wrong")):
        chosen = [each for each in every if each["right"] is right]
        verdicts = Counter(each["verdict"].partition(" ")[0] for each in chosen)
        parts = ", ".join(f"{number} {verdict}" for verdict, number in sorted(verdicts.items()))
        lines.append(f"{len(chosen)} {kind}: {parts}")
    agreeing = [each for each in every if not each["right"] and each["verdict"] == "agrees"]
    for place in ("in_cases", "elsewhere"):
        above = sum(each[place] > EXCESS for each in agreeing)
        where = "at the judge's cases" if place == "in_cases" else "at other points"
        lines.append(f"{above} wrong ones agree with an error above the stated resolution, {where}")
    named = [each for each in every if not each["right"] and each["verdict"] == "disagrees"]
    unknown = sum(each["names"] == ["unknown"] for each in named)
    lines.append(f"{unknown} of {len(named)} wrong ones that disagree are unknown")
    seconds = [each["seconds"] for each in every if "seconds" in each]
    if seconds:
        middle, most = np.median(seconds), max(seconds)
        lines.append(f"CPU seconds of a verdict: median {middle:.2f}, largest {most:.1f}")
    refused = [row for row in rows if row.get("refusal") or "verdict" in row]
    lines.append(f"{len(rows)} models, {len(refused)} of them refused")
    return lines


def list_faults(row: Row) -> list[str]:
    """List what a reader should look at in a line: verdicts that may be wrong."""
    found = []
    for k, each in enumerate(row["submissions"]):
        if each["right"] and each["verdict"] != "agrees":
            found.append(f"{k} right, {each['what']}: {each['verdict']} {each['names']}")
        above = [f"{each[n]:.3g} {n}" for n in ("in_cases", "elsewhere") if each.get(n, 0) > EXCESS]
        if above:
            found.append(f"{k} wrong, {each['what']}: agrees with {', '.join(above)}")
        if each["verdict"] == "inconclusive" and not each["right"]:
            found.append(f"{k} wrong, {each['what']}: inconclusive")
    if row.get("refusal") or "verdict" in row:
        found.append(f"refused: {row.get('refusal') or row['verdict']}")
    return found
