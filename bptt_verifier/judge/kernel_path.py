"""The path from a kernel to a report, the same for pull-backs, push-forwards and Hessians."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from bptt_verifier.judge.conclusion import show_numbers, summarise_parameters
from bptt_verifier.judge.judgement import (
    Judgement,
    add_count,
    count_compared,
    find_largest_shapes,
)
from bptt_verifier.judge.kernel_answers import Question, prepare_question
from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_cases import (
    KernelCase,
    count_tests,
    draw_cases,
    prepare_cotangents,
)
from bptt_verifier.judge.kernel_comparisons import (
    OVERFLOW,
    RESOLVED,
    Found,
    compare_kernel,
    settle_doubts,
)
from bptt_verifier.judge.kernel_memory import OF_MEMORY, describe_indeterminacy, is_unwritten
from bptt_verifier.judge.kernel_places import draw_map
from bptt_verifier.judge.kernel_questions import EVERY, find_lazy_answer
from bptt_verifier.judge.undecided import accept_zeros
from bptt_verifier.judge.verify import require_function
from bptt_verifier.report import Counterexample, Mistake, ParameterResult, Report, write_count
from bptt_verifier.tolerance.comparison import Array, Comparison, Verdict, find_symbol, overall
from manual_bptt.inputs import require_at_least

CASES = 3  # cases of each setting: the arguments given, and drawn ones
FURTHER = 6  # cases of each setting at most, if a gradient is left without a verdict
SHOWN = 20  # entries of a row that a report shows
VAGUE = frozenset(("unknown", "noise-beyond-rounding"))  # which say less than a failed question


def require_settings(functions: Mapping[str, Any], cases: int, seed: int) -> None:
    """Raise TypeError or ValueError unless these are functions, a number of cases and a seed."""
    for name, each in functions.items():
        require_function(each, name)
    require_at_least(1, "cases", cases)
    require_at_least(0, "seed", seed)


class KernelJudgement(Judgement):
    """The judgement of one kernel at the cases of all settings.

    `given` are the cotangents, or the direction, of the first setting's first case, and `number`
    counts the cases of each setting. A subclass says what differs: the questions, and the words.
    """

    questions: ClassVar[Sequence[Callable[[Question], Mistake | None]]] = EVERY
    call: ClassVar[str]  # the call that yields the report again, without its options

    def __init__(
        self, name: str, every: Sequence[KernelCalls], given: Any, number: int, seed: int
    ) -> None:
        self.name = name
        self.every, self.given, self.number, self.seed = every, given, number, seed
        self.tests = number * sum(map(count_tests, every))
        self.found: list[Found] = []
        self.left_out: list[str] = []
        self.asked: list[Question] = []
        self.called: list[dict[str, Array]] = []  # the arguments of all cases
        self.lazy: tuple[Mistake, ...] = ()  # the question that the kernel fails

    @abstractmethod
    def describe(self) -> Iterable[str]:
        """Describe what was found: the notes of the report."""

    @abstractmethod
    def explain(self) -> Iterable[Mistake]:
        """Name what is wrong, or say where it is wrong."""

    def describe_search(self) -> Iterable[str]:
        """Describe how the search for a name ended; empty where there is none."""
        return ()

    def reword(self, mistake: Mistake) -> Mistake:
        """Speak of a finding as fits what is judged."""
        return mistake

    @property
    def steps(self) -> Sequence[Callable[[], Report | None]]:
        """The comparisons at the cases of all settings, in which the contract is checked."""
        return [partial(self.compare_setting, *each) for each in enumerate(self.every)]

    def conclude(self) -> Report:
        """Ask what a lazy kernel fails, put the verdicts together, and explain what is wrong."""
        breach = self.compare_further() if self.found else None
        if breach is not None:
            return breach
        omitted = (
            *describe_overflow(self.left_out), *describe_outputs(self.found),
            *describe_kept_zeros(self.found), *describe_enlarged(self.found),
        )  # fmt: skip
        if not self.found:
            return self.report(Verdict.INCONCLUSIVE, notes=omitted)
        # Noise answers no other question than that of calls and memory.
        answers = (
            find_lazy_answer(each, OF_MEMORY if each.noisy else self.questions)
            for each in self.asked
        )
        self.lazy = lazy = tuple(map(self.reword, next(filter(None, answers), ())))
        parameters = summarise_kernel(self.found)
        verdict = overall(each.verdict for each in parameters.values())
        changing = () if lazy else filter(None, map(describe_indeterminacy, self.asked))
        notes = *omitted, *self.describe(), *changing
        report = self.report(Verdict.DISAGREES if lazy else verdict, *lazy, notes=notes)
        report = report._replace(parameters=parameters)
        if verdict is not Verdict.DISAGREES:
            return report
        call = f"{self.call}, seed={self.seed}, cases={self.number})"
        every = [*self.explain()]
        named = [each for each in every if not (lazy and each.name in VAGUE)]
        example = show_worst(self.found, self.every, call)
        left = describe_unnamed([*lazy, *named], [each for each in every if each not in named])
        notes = *report.notes, *self.describe_search(), *left
        return report._replace(mistakes=(*lazy, *named), counterexample=example, notes=notes)

    def report(self, verdict: Verdict, *mistakes: Mistake, notes: Sequence[str] = ()) -> Report:
        """Report a verdict, how many cases could tell, and the largest shapes of all calls."""
        every, zeros = self.found, find_zeros(self.found)
        compared = (compare_gradient(each, n) for each in every for n in each.gradients)
        telling = count_compared((each for each in compared if each.name not in zeros), RESOLVED)
        return Report(
            self.name, verdict, mistakes, cases=len(every),
            notes=add_count(notes, [write_count(telling, len(every))], verdict),
            largest_sizes=find_largest_shapes(self.called),
        )  # fmt: skip

    def compare_further(self) -> Report | None:
        """Compare at further cases as long as the errors of all gradients leave some open.

        A breach of the contract there is reported, as at the first cases. The resolution is that
        of the case in which it is sharpest, and what shows rounding inside is taken from all cases
        together.
        """
        self.found = settle_doubts(self.found)
        settings = [k for k, calls in enumerate(self.every) if calls.arguments.leaves]
        for number in range(self.number + 1, self.number + 1 + FURTHER):
            results = summarise_kernel(self.found)
            open_ones = [n for n, each in results.items() if each.verdict is Verdict.INCONCLUSIVE]
            if not open_ones or overall(r.verdict for r in results.values()) is Verdict.DISAGREES:
                return None
            for setting in settings:
                calls = self.every[setting]
                given = prepare_cotangents(calls, self.given if setting == 0 else None, self.seed)
                *_, case = draw_cases(setting, calls, given, number + 1, self.seed)
                self.called.append(case.point)
                here = compare_kernel(calls, case, 2 * self.tests, self.seed, open_ones)
                counted = self.count_case(calls, case, here)
                if isinstance(counted, Report):
                    return counted
            self.found = settle_doubts(self.found)
        return None

    def compare_setting(self, setting: int, calls: KernelCalls) -> Report | None:
        """Compare at the cases of one setting; report a breach of the contract."""
        given = prepare_cotangents(calls, self.given if setting == 0 else None, self.seed)
        cases = [*draw_cases(setting, calls, given, self.number + 1, self.seed)]
        compared: list[Found] = []
        for case in cases[: self.number]:
            self.called.append(case.point)
            here = self.count_case(calls, case, compare_kernel(calls, case, self.tests, self.seed))
            if isinstance(here, Report):
                return here
            compared += [here] if here is not None else []
        last = next((each for each in compared[::-1] if not each.wrong), (*compared[-1:], None)[0])
        question = None if last is None else prepare_question(calls, last, cases[-1], compared)
        self.asked += [question] if question is not None else []
        return None

    def count_case(
        self, calls: KernelCalls, case: KernelCase, here: Found | Mistake
    ) -> Found | Report | None:
        """Count a case as compared or as left out; report a breach of the contract in it."""
        if isinstance(here, Found):
            self.found.append(here)
            return here
        if here.details.get(OVERFLOW):
            self.left_out.append(case.label)
            return None
        if here.name == "not-finite" and is_unwritten(calls, case):
            said = "what is not finite changes with what freed memory holds"
            here = Mistake("unwritten-output", f"{here.explanation[:-1]}; {said}.", here.details)
        return self.report(Verdict.DISAGREES, self.reword(here))


def describe_unnamed(given: Sequence[Mistake], dropped: Sequence[Mistake]) -> Iterable[str]:
    """Say which gradients are wrong without a finding that is given on them."""
    named, left = (
        list(dict.fromkeys(name for each in part for name in list_results(each)))
        for part in (given, dropped)
    )
    unnamed = [find_symbol(name) for name in left if name not in named]
    if unnamed:
        yield (
            f"The cause of what is wrong in {', '.join(unnamed)} was not found; it may be that of "
            "the finding above."
        )


def list_results(mistake: Mistake) -> Sequence[str]:
    """List the gradients or results that a finding is about."""
    every: Sequence[str] = mistake.details.get("gradients") or mistake.details.get("results", ())
    return every


def describe_overflow(cases: Sequence[str]) -> tuple[str, ...]:
    """Say which cases were left out, and what helps."""
    if not cases:
        return ()
    return (
        f"Left out: {', '.join(cases)}. The exact gradient is not finite there, or it or a number "
        "inside is too near the largest one of its format, or what it is computed from is too "
        "small or large for float64; other or smaller arguments or cotangents help.",
    )


def describe_enlarged(found: Sequence[Found]) -> tuple[str, ...]:
    """Say at which cases the kernel was compared at larger cotangents, and why."""
    return tuple(
        f"With {each.case.label}, numbers inside may underflow. Your results were compared at "
        f"2^{each.case.enlarged} times the cotangents or tangents given, which changes no other "
        "rounding."
        for each in found
        if each.case.enlarged
    )


def describe_kept_zeros(found: Sequence[Found]) -> tuple[str, ...]:
    """Say that the reference keeps zeros where autodiff gives NaN, if it does in a case."""
    if not any(each.keeps_zeros for each in found):
        return ()
    return (
        "jax.grad of the forward pass is NaN: it multiplies a cotangent of zero by an infinite "
        "slope, such as that of a square root that a mask leaves out. The reference takes the "
        "product for zero.",
    )


def describe_outputs(found: Sequence[Found]) -> Iterable[str]:
    """Say of which outputs some entries are not compared, and what helps."""
    where: dict[str, list[str]] = {}
    for each in found:
        for name in sorted(each.overflowing | each.nearest.overflowing):
            where.setdefault(name, []).append(each.case.label)
    for name, labels in where.items():
        yield (
            f"Your {name} is not finite, or 1 / ∞, where its format may overflow. These entries "
            f"are not compared, with {', '.join(labels)}; smaller arguments help."
        )


def summarise_kernel(found: Sequence[Found]) -> dict[str, ParameterResult]:
    """Find the worst entry of each gradient over all cases, and the verdict on it.

    A gradient that is zero at all cases, such as that of W at T = 1, is right if the kernel's is
    zero to rounding, unless there is no other. One whose errors may be a mistake is not right.
    """
    comparisons = (compare_gradient(each, name) for each in found for name in each.gradients)
    parameters = accept_zeros(summarise_parameters(comparisons, RESOLVED), find_zeros(found))
    unsure = {name for each in found for name in each.unsure}
    return {
        name: result._replace(verdict=Verdict.INCONCLUSIVE)
        if name in unsure and result.verdict is Verdict.AGREES
        else result
        for name, result in parameters.items()
    }


def compare_gradient(found: Found, name: str) -> Comparison:
    """Compare one gradient at one case: its worst entry, and its largest error of any kind."""
    measured = found.gradients[name]
    with np.errstate(all="ignore"):
        place = int(np.argmax(np.nan_to_num(np.abs(measured.mean) / measured.limit)))
    entry = tuple(int(i) for i in np.unravel_index(place, measured.mean.shape))
    yours, exact = (float(each[name][(0, *entry)]) for each in (found.submitted, found.exact))
    limit = float(measured.limit[entry])
    excess = max(measured.excess, found.noisy.get(name, 0.0))
    return Comparison(name, excess, entry, yours, exact, limit, measured.resolution)


def find_zeros(found: Sequence[Found]) -> list[str]:
    """List the gradients that are zero, to rounding, in all cases; none if that is all of them."""
    every = dict.fromkeys(name for each in found for name in each.gradients)
    testable = {
        name
        for each in found
        for name, measured in each.gradients.items()
        if np.isfinite(measured.resolution)
    }
    return [name for name in every if name not in testable] if testable else []


def choose_shown(worst: int, length: int) -> range:
    """Choose the entries of a row that a report shows: at most `SHOWN`, around the worst one."""
    start = max(0, min(worst - SHOWN // 2, length - SHOWN))
    return range(start, min(start + SHOWN, length))


def show_worst(found: Sequence[Found], every: Sequence[KernelCalls], call: str) -> Counterexample:
    """Show the worst gradient of all cases: the row of its worst entry, and a map of its errors.

    `call` yields the report again.
    """
    pairs = [(each, name) for each in found for name in each.wrong]
    worst, name = max(pairs, key=lambda pair: pair[0].gradients[pair[1]].excess)
    measured = worst.gradients[name]
    submitted, exact = worst.submitted[name][0].astype(np.float64), worst.exact[name][0]
    drawn = draw_map(worst.nearest.gradients[name])
    errors = np.abs(measured.mean) / measured.limit
    place = np.unravel_index(int(np.argmax(np.nan_to_num(errors))), errors.shape)
    row = tuple(map(int, place[:-1]))
    leaves = every[worst.case.setting].arguments.leaves.items()
    shapes = " ".join(f"{leaf}={value.shape}" for leaf, value in leaves)
    shown = choose_shown(int(place[-1]) if place else 0, exact.shape[-1] if place else 1)
    parts = [f"row {list(row)}"] if row else []
    if place and len(shown) < exact.shape[-1]:
        parts.insert(0, f"entries {shown.start} to {shown.stop - 1}")
    where = f", {' of '.join([*parts, name])}" if parts else ""
    yours, true = (
        np.atleast_1d(each[row])[shown.start : shown.stop] for each in (submitted, exact)
    )
    along = drawn.describe(exact.ndim)
    sizes = ", ".join(filter(None, [f"{worst.case.label}, {shapes}{where}", along]))
    return show_numbers(sizes, name, (yours, true, drawn.errors), call)
