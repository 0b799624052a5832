"""Targets for the hand-derived step, and whether a result reaches them.

Each target is computed from the samples of a committed result, so that docs/performance.md claims
no more than was measured.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.intervals import Interval, geometric_mean
from benchmarks.results import Result, Timing
from benchmarks.suites import QUICK, TINY
from benchmarks.table import decimal, short
from bptt_verifier.problems.problem import Sizes

BY_HAND = ("manual", "manual-jit")
ALL_BY_HAND = (*BY_HAND, "manual-jit-in-shares")
ARRAYS = 2.2  # temporary memory in arrays of (T, B, H)
SLOWER = 1.5  # how many times as long a step with checkpoints may take
OVER_AUTODIFF = 1.25  # the speed of the compiled step relative to autodiff
MICROSECONDS = 12.0  # a step of the tiny model in a compiled loop


class Target(NamedTuple):
    """A target: the goal, the finding, the size of the worst finding, and whether it is reached."""

    wanted: str
    found: str
    where: str
    reached: bool

    @property
    def verdict(self) -> str:
        """The verdict in a word or two."""
        return "reached" if self.reached else "falls short"


def least(
    result: Result,
    contender: str,
    ratio: Callable[[Timing], Interval | None],
    wanted: Callable[[Timing], float | None],
) -> list[tuple[Timing, float, float]]:
    """(timing, ratio, goal) for every timing with a goal, sorted by ratio ÷ goal."""
    found = []
    for timing in result.timings:
        if timing.contender == contender:
            value, goal = ratio(timing), wanted(timing)
            if value is not None and goal is not None:
                found.append((timing, value.value, goal))
    return sorted(found, key=lambda each: each[1] / each[2])


OVER = (
    ("manual-jit", "autodiff", OVER_AUTODIFF),
    ("manual-jit", "autodiff-hoisted", 1.1),
    ("manual", "torch", 1.0),
)
MEAN = 1.2  # of manual-jit over autodiff-hoisted, over all sizes


def ratio_targets(result: Result) -> list[Target]:
    """The targets of speed relative to others, at every size."""
    found = []
    for contender, other, goal in OVER:

        def ratio(timing: Timing, to: str = other) -> Interval | None:
            return result.ratio(timing, to)

        def everywhere(_: Timing, wanted: float = goal) -> float:
            return wanted

        ratios = least(result, contender, ratio, everywhere)
        if not ratios:
            continue
        timing, value, _ = ratios[0]
        wanted = f"{contender} over {other}: at least {goal} at every size"
        reached = sum(each >= goal for _, each, _ in ratios)
        shown = f"{ratio(timing)}; reached at {reached} of {len(ratios)} sizes"
        found.append(Target(wanted, shown, short(timing.sizes), value >= goal))
        if other == "autodiff-hoisted":
            mean = geometric_mean([value for _, value, _ in ratios])
            wanted = f"{contender} over {other}: at least {MEAN} in the geometric mean"
            found.append(Target(wanted, f"{mean:.2f}", "all sizes", mean >= MEAN))
    return found


def wanted_share(sizes: Sizes | None) -> float | None:
    """The goal for the NumPy step's share of the limit, by H; None for small H."""
    H = 0 if sizes is None else sizes.H
    return 0.9 if H >= 512 else {256: 0.85, 128: 0.7}.get(H)


def share_targets(result: Result) -> list[Target]:
    """The targets of the share of the limit."""
    return [
        Target(
            f"manual: at least {goal} of the limit at H = {timing.sizes.H}",
            f"{value:.2f}",
            short(timing.sizes),
            value >= goal,
        )
        for timing, value, goal in least(
            result, "manual", result.share_of_limit, lambda timing: wanted_share(timing.sizes)
        )
        if timing.sizes is not None
    ]


def further_share_targets(result: Result) -> list[Target]:
    """The targets of the share of the limit at sizes outside the quick suite."""
    further = [timing for timing in result.timings if timing.sizes not in QUICK]
    return share_targets(result._replace(timings=further))


def memory_targets(result: Result, arrays_wanted: float = ARRAYS, cell: str = "") -> list[Target]:
    """The targets of temporary memory, in (T, B, H) arrays."""
    found = []
    for contender in BY_HAND:
        arrays = [
            (t.state_arrays, t)
            for t in result.timings
            if t.contender == contender and t.state_arrays is not None
        ]
        if arrays:
            most, timing = max(arrays, key=lambda each: each[0])
            within = sum(value <= arrays_wanted for value, _ in arrays)
            found.append(
                Target(
                    f"{cell}{contender}: temporary memory of at most {arrays_wanted} "
                    f"(T, B, H) arrays",
                    f"{most:.2f}; within at {within} of {len(arrays)} sizes",
                    short(timing.sizes),
                    most <= arrays_wanted,
                )
            )
    return found


def checkpoint_targets(result: Result) -> list[Target]:
    """The targets of the time with checkpoints relative to the time without."""
    found = []
    for contender in BY_HAND:
        for timing in result.timings:
            plain = result.ratio(timing, contender)
            if timing.contender == f"{contender}-checkpointed" and plain is not None:
                slower = 1 / plain.value
                found.append(
                    Target(
                        f"{timing.contender}: at most {SLOWER} times the time without checkpoints",
                        f"{slower:.2f}, {decimal(timing.state_arrays, 4)} (T, B, H) arrays",
                        short(timing.sizes),
                        slower <= SLOWER,
                    )
                )
    return found


def loop_targets(result: Result) -> list[Target]:
    """The targets of a tiny model's step in a compiled loop, in microseconds."""
    return [
        Target(
            f"{timing.contender}: at most {MICROSECONDS:g} µs a step",
            f"{timing.median * 1e6:.1f} µs",
            short(timing.sizes),
            timing.median * 1e6 <= MICROSECONDS,
        )
        for timing in result.timings
        if timing.contender == "manual-jit-loop" and timing.sizes == TINY
    ]


def wanted_of_torch(cell: str, sizes: Sizes) -> float:
    """The goal for the fastest step by hand relative to PyTorch."""
    return 1.0 if cell != "lstm" or sizes.H <= 64 else 0.95


def best_by_hand(result: Result) -> list[Target]:
    """The fastest step by hand against PyTorch, for a cell with gates."""
    goals = {
        timing.sizes: wanted_of_torch(result.model, timing.sizes)
        for timing in result.timings
        if timing.contender in ALL_BY_HAND and timing.sizes is not None
    }
    found = []
    for sizes, goal in goals.items():
        ratios = [
            ratio.value
            for timing in result.timings
            if timing.sizes == sizes and timing.contender in ALL_BY_HAND
            and (ratio := result.ratio(timing, "torch")) is not None
        ]  # fmt: skip
        if ratios:
            found.append((max(ratios), goal, sizes))
    if not found:
        return []
    value, goal, sizes = min(found, key=lambda each: each[0] / each[1])
    reached = sum(each >= wanted for each, wanted, _ in found)
    wanted = "at least 1" if result.model == "gru" else "at least 1 up to H = 64 and 0.95 above"
    return [
        Target(
            f"{result.model.upper()}, the fastest step by hand over torch: {wanted}",
            f"{value:.2f}; reached at {reached} of {len(found)} sizes",
            short(sizes),
            value >= goal,
        )
    ]


GATED_SHARES = {64: 0.6, 128: 0.75, 512: 0.85, 1024: 0.85}
GATED_ARRAYS = {"lstm": 8.2, "gru": 7.2}


def wanted_gated_share(sizes: Sizes | None) -> float | None:
    """The goal for the share of the limit that the NumPy step of a cell with gates has, by H."""
    return GATED_SHARES.get(0 if sizes is None else sizes.H)


def gated_targets(result: Result) -> list[Target]:
    """The targets of a cell with gates: against PyTorch, autodiff and the limit, and of memory."""
    cell = result.model.upper()
    shares = least(
        result,
        "manual",
        result.share_of_limit,
        lambda timing: wanted_gated_share(timing.sizes),
    )
    ratios = least(
        result,
        "manual-jit",
        lambda timing: result.ratio(timing, "autodiff"),
        lambda _: OVER_AUTODIFF,
    )
    return [
        *best_by_hand(result),
        *(
            Target(
                f"{cell}, manual-jit over autodiff: at least {OVER_AUTODIFF} at every size",
                f"{value:.2f}; reached at {sum(v >= OVER_AUTODIFF for _, v, _ in ratios)} of "
                f"{len(ratios)} sizes",
                short(timing.sizes),
                value >= goal,
            )
            for timing, value, goal in ratios[:1]
        ),
        *(
            Target(
                f"{cell}, manual: at least {goal} of the limit at H = {timing.sizes.H}",
                f"{value:.2f}",
                short(timing.sizes),
                value >= goal,
            )
            for timing, value, goal in shares
            if timing.sizes is not None
        ),
        *memory_targets(result, GATED_ARRAYS[result.model], f"{cell}, "),
    ]


OF_SUITE: dict[str, Sequence[Callable[[Result], list[Target]]]] = {
    "quick": (ratio_targets, share_targets, memory_targets),
    "full": (further_share_targets,),
    "steps": (loop_targets,),
    "checkpoint": (checkpoint_targets,),
}


def targets(result: Result) -> list[Target]:
    """All targets that a result of this suite and cell covers."""
    if result.model != "rnn":
        return gated_targets(result) if result.suite == "quick" else []
    return [target for of in OF_SUITE.get(result.suite, ()) for target in of(result)]
