"""A kernel's answer at one case, and how far another right answer may be from it."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.judge.kernel_calls import Copy, KernelCalls
from bptt_verifier.judge.kernel_cases import KernelCase
from bptt_verifier.judge.kernel_comparisons import RESOLVED, Found
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.reference.point_arrays import Arrays
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.formats import find_unit, is_half
from bptt_verifier.tolerance.projections import COARSE
from bptt_verifier.tolerance.scatter import find_normal_ratio
from bptt_verifier.tolerance.sizes import find_sizes, root_mean_square

TWICE = 2.0  # two answers that are both right differ by twice the error of one
# Units by which sums in another order may change an answer to the same question, and in 16 bits.
SAME, SAME_IN_HALF = 64, 4
RANDOM = 2.0**-6  # a relative change from call to call that no order of sums makes
LARGEST = 4  # times that may be the change of one entry


class Question(NamedTuple):
    """A kernel's answer at one case, and how far another right answer may be from it.

    `elsewhere` are the answers so far at other arguments or cotangents. `wrong` are the gradients
    that are known to be wrong, whose errors say little of their rounding. `precise` are those whose
    errors scatter as in the arguments' own format, and `noisy` those with noise that no rounding
    makes. `undecided` tells whether errors leave a gradient without a verdict, or hide much, and
    `zero` are the gradients that are zero to rounding.
    """

    calls: KernelCalls
    case: KernelCase
    other: KernelCase
    answer: dict[str, Array]
    tolerance: dict[str, Array]
    elsewhere: list[dict[str, Array]]
    wrong: frozenset[str] = frozenset()
    precise: frozenset[str] = frozenset()
    noisy: frozenset[str] = frozenset()
    undecided: bool = False
    zero: frozenset[str] = frozenset()

    def ask(self, point: Arrays | None = None, cotangents: Arrays | None = None) -> Any:
        """Ask at the case, with other arguments or cotangents; the answers are in float64."""
        return self.ask_copies(np.array, point, cotangents)

    def ask_copies(
        self, copy: Copy, point: Arrays | None = None, cotangents: Arrays | None = None
    ) -> Any:
        """Ask at the case with copies of one kind; None where the kernel gives no answer."""
        given = self.case.cotangents if cotangents is None else cotangents
        answer = self.calls.ask(self.case.point if point is None else point, given, copy)
        if isinstance(answer, Mistake):
            return None
        found = {name: value.astype(np.float64) for name, value in answer.items()}
        if point is not None or cotangents is not None:
            self.elsewhere.append(found)
        return found

    def pull_back(self, point: Arrays | None = None, cotangents: Arrays | None = None) -> Any:
        """Pull back exactly, with other arguments or cotangents."""
        given = self.case.cotangents if cotangents is None else cotangents
        at = [self.case.point if point is None else point]
        found = self.calls.pullback.pull_back(at, [given]).gradients
        return {name: value[0] for name, value in found.items()}

    def keeps_zeros(self, point: Arrays | None = None) -> bool:
        """Tell whether autodiff gives NaN, and numbers where zeros are kept, at some arguments."""
        at = [self.case.point if point is None else point]
        return bool(self.calls.pullback.pull_back(at, [self.case.cotangents]).kept)

    def find_size(self, name: str) -> float:
        """Find the size of one unit in the last place of a gradient's typical entry."""
        like = [self.case.point[name]] if name in self.case.point else self.case.point.values()
        return max(find_unit(v.dtype) for v in like) * root_mean_square(self.answer[name])

    def imitate_sums(self, name: str) -> float:
        """Imitate rounding in a gradient; return its size, infinite where that fails.

        A sum of n terms errs by up to √n u of their sizes, as in any order of it.
        """
        coarsest = max((v.dtype for v in self.case.point.values()), key=find_unit)
        given = [self.case.point], [self.case.cotangents], coarsest
        found = attempt(self.calls.pullback.imitate_rounding, *given)
        if isinstance(found, Failure):
            return np.inf
        sizes = [root_mean_square(each) for each in found.gradients[name]]
        return max(sizes) if np.isfinite(sizes).all() else np.inf

    def allow_rounding(self) -> "Question":
        """Allow, in 32 and 64 bits, what rounding every operation does to each entry.

        Digits may be lost alike at all neighbours, in the exact gradient as well, and not in an
        answer to other cotangents.
        """
        given = [(each.point, each.cotangents) for each in (self.case, self.other)]
        points, cotangents = map(list, zip(*given, strict=True))
        coarsest = max((v.dtype for v in self.case.point.values()), key=find_unit)
        if is_half(coarsest):
            return self
        found = attempt(self.calls.pullback.imitate_rounding, points, cotangents, coarsest)
        if isinstance(found, Failure):
            return self
        times = find_normal_ratio(sum(v.size for v in self.answer.values()))
        sizes = {n: find_sizes(e).max(axis=0) for n, e in found.gradients.items()}
        wider = {n: limit + times * np.nan_to_num(sizes[n]) for n, limit in self.tolerance.items()}
        return self._replace(tolerance=wider)

    def differs(
        self, found: Arrays, expected: Arrays, factor: float = 1.0, *, rounded: bool = False
    ) -> str:
        """Find the gradient that is not as expected; empty if all are.

        Unless the other answer is `rounded` otherwise, a wrong gradient has a sharper limit: its
        mistake may scatter as rounding does.
        """
        factor = max(1.0, abs(factor))
        for name, value in expected.items():
            with np.errstate(invalid="ignore"):
                within = np.abs(found[name] - value) <= TWICE * factor * self.tolerance[name]
            if not np.all(within):
                if name in self.zero and self.is_rounding(found[name] - value, factor):
                    continue
                return name
            if name in self.wrong and not rounded and self.changes(name, found, expected, factor):
                return name
        return ""

    def is_rounding(self, change: Array, factor: float) -> bool:
        """Tell whether a change of a gradient of zeros is rounding of the terms that cancel in it.

        In another order of sums, none of its digits is the same. The terms are unknown, and taken
        to be as large as the largest gradient.
        """
        units = LARGEST * factor * (SAME_IN_HALF if self.is_coarse else SAME)
        largest = max(map(self.find_size, self.answer))
        return bool(np.abs(change).max(initial=0.0) <= units * largest)

    @property
    def is_coarse(self) -> bool:
        """Tell whether an argument has 16 bits."""
        return any(is_half(value.dtype) for value in self.case.point.values())

    def changes(self, name: str, found: Arrays, expected: Arrays, factor: float = 1.0) -> bool:
        """Tell whether a gradient changes by more than sums in another order explain."""
        change = np.abs(found[name] - expected[name])
        limit = factor * (SAME_IN_HALF if self.is_coarse else SAME) * self.find_size(name)
        return not (
            root_mean_square(change) <= limit and change.max(initial=0.0) <= LARGEST * limit
        )


def hides_much(found: Found) -> bool:
    """Tell whether a gradient has no sharp limit, or errors that may be those of random numbers."""
    known = (each for each in found.gradients.values() if np.isfinite(each.resolution))
    return any(each.resolution > RESOLVED or each.noise.relative > RANDOM for each in known)


def prepare_question(
    calls: KernelCalls, found: Found, other: KernelCase, compared: Iterable[Found]
) -> Question | None:
    """Ask a kernel at a case, whose errors are known. `other` is any other case.

    `compared` are the cases that were compared, of which any may leave a gradient undecided.
    """
    tolerance = {name: each.limit for name, each in found.nearest.gradients.items()}
    wrong = frozenset(found.wrong)
    noises = {name: each.noise for name, each in found.nearest.gradients.items()}
    precise = frozenset(n for n, each in noises.items() if each.relative <= COARSE * each.unit)
    noisy = frozenset(found.noisy)
    undecided = any(bool(each.unsure) or hides_much(each) for each in compared)
    zero = frozenset(n for n, m in found.gradients.items() if not np.isfinite(m.resolution))
    question = Question(
        calls, found.case, other, {}, tolerance, [], wrong, precise, noisy, undecided, zero
    )
    answer = question.ask()
    return None if answer is None else question._replace(answer=answer)
