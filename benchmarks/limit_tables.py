"""Tables of the limits suite: each target beside what was found and what a step could reach."""

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.results import IN_ORDER, JIT_IN_ORDER, LIMIT, LIMITS, Result
from benchmarks.table import across, decimal, interval, markdown, short
from benchmarks.targets import (
    ALL_BY_HAND,
    OVER_AUTODIFF,
    wanted_gated_share,
    wanted_of_torch,
    wanted_share,
)
from bptt_verifier.problems.problem import Sizes

REACHED, SHORT, BEYOND = "reached", "falls short", "beyond the limit"


class Comparison(NamedTuple):
    """A comparison with a target: steps by hand and limits, both relative to another contender."""

    heading: str
    by_hand: tuple[str, ...]
    limits: tuple[str, ...]
    to: str
    wanted: Callable[[str, Sizes], float | None]  # by the cell and the size


def wanted_of_limit(cell: str, sizes: Sizes) -> float | None:
    """The goal for the share that `manual` has of its products alone."""
    return wanted_share(sizes) if cell == "rnn" else wanted_gated_share(sizes)


COMPARISONS = (
    Comparison("Share of the limit", ("manual",), (IN_ORDER,), LIMIT, wanted_of_limit),
    Comparison(
        "Speed ÷ autodiff", ("manual-jit", "manual-jit-in-shares"), (JIT_IN_ORDER,), "autodiff",
        lambda *_: OVER_AUTODIFF,
    ),
    Comparison(
        "Speed ÷ torch", ALL_BY_HAND, ("limit", "limit-jit", IN_ORDER, JIT_IN_ORDER), "torch",
        wanted_of_torch,
    ),
)  # fmt: skip


def compare(result: Result, comparison: Comparison) -> str:
    """The table of a comparison, with a row for each size that has a target."""
    names = [
        name for name in (*comparison.by_hand, *comparison.limits) if name in result.contenders()
    ]
    rows = []
    for place in result.places():
        sizes = place[0]
        goal = None if sizes is None else comparison.wanted(result.model, sizes)
        found = {t.contender: result.ratio(t, comparison.to) for t in result.at(place)}
        if goal is not None:
            by_hand = [r.value for n in comparison.by_hand if (r := found.get(n)) is not None]
            limits = [r.value for n in comparison.limits if (r := found.get(n)) is not None]
            rows.append(
                [
                    short(sizes), *(interval(found.get(name)) for name in names), decimal(goal),
                    decide(by_hand, limits, goal),
                ]
            )  # fmt: skip
    return markdown(["B, T, D, H, O", *names, "target", "verdict"], rows)


def decide(by_hand: list[float], limits: list[float], goal: float) -> str:
    """Decide whether a target is reached, falls short, or is beyond every limit."""
    if max(by_hand, default=0.0) >= goal:
        return REACHED
    return BEYOND if limits and max(limits) < goal else SHORT


def limit_tables(result: Result) -> list[str]:
    """All tables of a result: the comparisons, the times and the memory."""
    parts = [f"{each.heading}:\n\n{compare(result, each)}" for each in COMPARISONS]
    for dtype in dict.fromkeys(dtype for _, dtype in result.places()):
        names = result.contenders()
        parts.append(f"A step, {dtype}:\n\n{across(result, 'step', names, dtype)}")
        shown = [name for name in names if name not in {"torch", *LIMITS}]
        table = across(result, "arrays", shown, dtype)
        parts.append(f"Temporary memory in (T, B, H) arrays, {dtype}:\n\n{table}")
    return parts
