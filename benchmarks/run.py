"""A run: build the contenders of each size, compare them with the reference, time them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any

import jax

from benchmarks import machine, torch_steps
from benchmarks.agreement import GATE, WEAK, expected, require_agreement
from benchmarks.balanced import balanced
from benchmarks.ceilings import ceilings
from benchmarks.contenders import Builder, Contender, Setting, Unavailable
from benchmarks.measurement import SETTLING_GPU, rounds
from benchmarks.results import Result, Timing
from benchmarks.suites import Plan, Suite
from benchmarks.verifying import verification_rounds
from bptt_verifier.problems.problem import Problem, Sizes
from bptt_verifier.tolerance.comparison import find_symbol

LEAST = 3  # rounds, however long they take
Progress = Callable[[int, int], None]


class Measured:
    """The findings of a run so far; a run that ends early keeps all its rounds."""

    def __init__(self) -> None:
        self.timings: list[Timing] = []
        self.notes: list[str] = []
        self.ceilings: dict[str, float] = {}

    def note(self, sentence: str) -> None:
        """Add a note unless it is there already."""
        if sentence not in self.notes:
            self.notes.append(sentence)


@contextmanager
def configured(setting: Setting) -> Iterator[None]:
    """Set every library's switches for TF32 inside the block, and restore them after."""
    precision = "tensorfloat32" if setting.tf32 else "highest"
    with jax.default_matmul_precision(precision), torch_steps.configured(setting.tf32):
        yield


def built(
    builders: dict[str, Builder], problem: Problem, setting: Setting, measured: Measured
) -> list[Contender]:
    """Build the contenders; note the reason for each that is unavailable."""
    found = []
    for name, builder in builders.items():
        try:
            found.append(builder(name, problem, setting))
        except Unavailable as reason:
            measured.note(f"{name} is left out: {reason}")
    return found


def collect(
    found: Iterable[dict[str, float]],
    timing_of: Callable[[str, list[float]], Timing],
    measured: Measured,
    progress: Callable[[], None],
) -> None:
    """Collect the rounds into timings, also where an exception ends them."""
    samples: dict[str, list[float]] = {}
    try:
        for seconds in found:
            for name, value in seconds.items():
                samples.setdefault(name, []).append(value)
            progress()
    finally:
        measured.timings += [timing_of(name, values) for name, values in samples.items()]


def measure_place(
    sizes: Sizes,
    dtype: str,
    model: str,
    builders: dict[str, Builder],
    setting: Setting,
    measured: Measured,
    *,
    number: int,
    budget: float | None,
    seed: int,
    progress: Callable[[], None],
) -> None:
    """Check and time all contenders at one size.

    After `budget` seconds no further round begins, except the first `LEAST`. Raises Disagreement,
    before anything is timed, where a contender is wrong.
    """
    problem = balanced(model, sizes, dtype=dtype, seed=seed)
    with jax.enable_x64(dtype == "float64"), configured(setting):
        contenders = built(builders, problem, setting, measured)
        truth = expected(problem, tf32=setting.tf32, device=setting.device)
        least, gradient = truth.resolution
        if least > WEAK:
            measured.note(
                f"{GATE}{sizes} in {dtype} sees errors in {find_symbol(gradient)} from "
                f"{100 * least:.0f} % of its largest entry on"
            )
        errors = {
            contender.name: require_agreement(contender, problem, truth)
            for contender in contenders
            if contender.parameters is not None
        }
        by_name = {contender.name: contender for contender in contenders}

        def timing_of(name: str, seconds: list[float]) -> Timing:
            chosen = by_name[name]
            return Timing(
                name, sizes, dtype, seconds,
                chosen.compile_seconds, chosen.temporary_bytes, errors.get(name),
                chosen.exchanged_bytes,
            )  # fmt: skip

        begun = perf_counter()

        def enough(done: int) -> bool:
            return budget is not None and done >= LEAST and perf_counter() - begun > budget

        settling = SETTLING_GPU if setting.gpu else None
        found = rounds(contenders, number, seed=seed, enough=enough, settling=settling)
        collect(found, timing_of, measured, progress)


def measure(
    suite: Suite,
    plan: Plan,
    setting: Setting,
    measured: Measured,
    *,
    model: str = "rnn",
    number: int | None = None,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> None:
    """Measure a whole suite; `number` sets the rounds, without a time limit."""
    places = [(sizes, dtype) for dtype in plan.dtypes for sizes in plan.sizes]
    number_of_rounds = plan.rounds if number is None else number
    total = number_of_rounds * (1 if suite is Suite.VERIFY else len(places))
    if suite is Suite.VERIFY:
        done = iter(range(1, total + 1))
        collect(
            verification_rounds(number_of_rounds, seed=seed, note=measured.note),
            lambda name, seconds: Timing(name, None, "float64", seconds),
            measured,
            lambda: progress(next(done), total),
        )
        return
    for index, (sizes, dtype) in enumerate(places):
        finished = iter(range(index * number_of_rounds + 1, total + 1))
        measure_place(
            sizes, dtype, model, plan.contenders, setting, measured,
            number=number_of_rounds,
            budget=plan.seconds if number is None else None,
            seed=seed,
            progress=partial(advance, progress, finished, total),
        )  # fmt: skip
        progress((index + 1) * number_of_rounds, total)
    if setting.gpu:
        with configured(setting):
            for dtype in plan.dtypes:
                measured.ceilings |= ceilings(setting.device, dtype)


def advance(progress: Progress, finished: Any, total: int) -> None:
    """Advance the progress bar by one round."""
    progress(next(finished), total)


def result_of(
    suite: Suite, plan: Plan, model: str, seed: int, setting: Setting, measured: Measured
) -> Result:
    """The result: the measurements, with the description of the machine."""
    with configured(setting):
        described = machine.description(setting.device)
    return Result(
        str(suite), model, plan.baseline, seed, described,
        measured.timings, measured.notes, measured.ceilings,
    )  # fmt: skip
