"""Questions that a lazy kernel fails, each with a finding of its own.

Each asks the kernel again, with cotangents, arguments or memory that are changed in a way whose
effect on the gradients is known.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.judge.kernel_calls import Copy, KernelCalls
from bptt_verifier.judge.kernel_cases import KernelCase
from bptt_verifier.judge.kernel_comparisons import Found
from bptt_verifier.judge.repetition import (
    HUGE,
    POISON,
    copy_and_poison,
    copy_in_fortran_order,
    copy_with_strides,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.reference.pullbacks import Arrays
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.formats import find_unit
from bptt_verifier.tolerance.projections import root_mean_square

TWICE = 2.0  # two answers that are both right differ by twice the error of one
SCALES = 4.0, 0.25  # powers of two, by which no number is rounded
OF_CALLS = frozenset("unwritten-output not-deterministic depends-on-calls".split())
RANDOM = 2.0**-6  # a relative change from call to call that no order of sums makes
COARSE_NOISE = 64  # units of the dtype that it has to exceed as well
EVIDENT_BITS = 24  # of numbers that are equal in two answers, at least, if it is not by chance
REMAINDER = 2.0**-18  # of a gradient, that zero cotangents may give in any format
UNCHANGED = 1e-9  # relative change of an exact gradient that is rounding in float64


class Question(NamedTuple):
    """A kernel's answer at one case, and how far another right answer may be from it.

    `elsewhere` are the answers so far at other arguments or cotangents.
    """

    calls: KernelCalls
    case: KernelCase
    other: KernelCase
    answer: dict[str, Array]
    tolerance: dict[str, Array]
    elsewhere: list[dict[str, Array]]

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

    def find_size(self, name: str) -> float:
        """Find the size of one unit in the last place of a gradient's typical entry."""
        like = [self.case.point[name]] if name in self.case.point else self.case.point.values()
        return max(find_unit(v.dtype) for v in like) * root_mean_square(self.answer[name])

    def differs(self, found: Arrays, expected: Arrays, factor: float = 1.0) -> str:
        """Find the gradient that is not as expected; empty if all are."""
        for name, value in expected.items():
            limit = TWICE * max(1.0, factor) * self.tolerance[name]
            with np.errstate(invalid="ignore"):
                if not np.all(np.abs(found[name] - value) <= limit):
                    return name
        return ""


def prepare_question(calls: KernelCalls, found: Found, other: KernelCase) -> Question | None:
    """Ask a kernel at a case, whose errors are known. `other` is any other case."""
    tolerance = {name: each.limit for name, each in found.nearest.gradients.items()}
    question = Question(calls, found.case, other, {}, tolerance, [])
    answer = question.ask()
    return None if answer is None else question._replace(answer=answer)


def find_lazy_answer(
    question: Question, asked: Sequence[Callable[[Question], Mistake | None]]
) -> tuple[Mistake, ...]:
    """Ask some questions; return the first finding, if there is one."""
    for each in asked:
        found = each(question)
        if found is not None:
            # What changes from call to call anyway is no answer to a question.
            again = question.ask()
            name = "" if again is None else question.differs(again, question.answer)
            if name and found.name not in OF_CALLS:
                said = f"the gradient for {name} changes from one call to another."
                found = Mistake("depends-on-calls", said, {"gradients": [name]})
            said = f"{found.explanation[:-1]}, with {question.case.label}."
            return (found._replace(explanation=said),)
    return ()


def find_stale_entries(question: Question) -> Mistake | None:
    """Call at another case in between, and find entries that hold what its answer has there.

    A device's allocator hands out blocks that were used before, and what is not written in them
    keeps it. An earlier answer to the same question is no evidence: a kernel that changes from
    call to call may return it again. Where all entries are those of an earlier answer, it may be
    kept on purpose, and a few numbers of 16 bits may be equal by chance.
    """
    question.ask(question.other.point, question.other.cotangents)
    again = question.ask()
    bits = -np.log2(max(find_unit(v.dtype) for v in question.case.point.values()))
    for name, before in question.answer.items() if again is not None else ():
        value = again[name].ravel()
        changed = np.flatnonzero((value != before.ravel()) & ~np.isnan(value))
        change = np.abs(value - before.ravel())[changed].max(initial=0.0)
        if change <= COARSE_NOISE * question.find_size(name):
            continue  # sums in another order
        if len(changed) == len(value) or len(changed) * bits < EVIDENT_BITS:
            continue
        earlier = (each.ravel() for answer in question.elsewhere for each in answer.values())
        if any(
            changed[-1] < len(each) and np.array_equal(each[changed], value[changed])
            for each in earlier
        ):
            said = (
                f"{len(changed)} of {len(value)} entries of the gradient for {name} hold what an "
                "earlier call left in memory: they are not written."
            )
            return Mistake("unwritten-output", said, {"gradients": [name]})
    return None


def find_indeterminacy(question: Question) -> Mistake | None:
    """Call twice with the same arguments.

    Sums in another order change by rounding. Where all noise is of a random number, it is large.
    """
    again = question.ask()
    if again is None:
        return None
    changed = [
        name
        for name, value in question.answer.items()
        if root_mean_square(again[name] - value) > RANDOM * root_mean_square(value)
        and root_mean_square(again[name] - value) > COARSE_NOISE * question.find_size(name)
    ]
    name = question.differs(again, question.answer) or next(iter(changed), "")
    if not name:
        return None
    said = f"the gradient for {name} changes when the kernel is called twice with the same numbers."
    return Mistake("not-deterministic", said, {"gradients": [name]})


def find_unwritten(question: Question) -> Mistake | None:
    """Call with freed memory full of NaN, or of huge numbers."""
    for byte in POISON:
        again = question.ask_copies(partial(copy_one, partial(copy_and_poison, byte)))
        name = "" if again is None else question.differs(again, question.answer)
        with np.errstate(invalid="ignore"):
            if name and not np.all(np.abs(again[name]) < HUGE):
                said = (
                    f"the gradient for {name} changes with what freed memory holds (a buffer, as "
                    "of np.empty, is not written everywhere)."
                )
                return Mistake("unwritten-output", said, {"gradients": [name]})
    return None


def copy_one(copies: Callable[[dict[str, Array]], dict[str, Array]], value: Array) -> Array:
    """Copy one array as a function does that copies several."""
    return copies({"": value})[""]


def find_dependence_on_calls(question: Question) -> Mistake | None:
    """Call at another case in between."""
    question.ask(question.other.point, question.other.cotangents)
    again = question.ask()
    name = "" if again is None else question.differs(again, question.answer)
    if not name:
        return None
    said = f"the gradient for {name} changes after a call with other numbers."
    return Mistake("depends-on-calls", said, {"gradients": [name]})


def find_dependence_on_layout(question: Question) -> Mistake | None:
    """Call with arrays in Fortran order, and with strided views."""
    fortran, strided = copy_in_fortran_order, copy_with_strides
    for words, copies in (("in Fortran order", fortran), ("that are strided views", strided)):
        again = question.ask_copies(partial(copy_one, copies))
        name = "" if again is None else question.differs(again, question.answer)
        if name:
            said = f"the gradient for {name} changes for arguments {words}."
            return Mistake("depends-on-memory-layout", said, {"gradients": [name]})
    return None


def find_ignored_cotangent(question: Question) -> Mistake | None:
    """Call with the cotangents of each output negated, and with all of them zero."""
    given = question.case.cotangents
    if all(not value.any() for value in question.answer.values()):
        return None
    for names in ([*given], *([name] for name in given)):
        changed = {n: -v if n in names else v for n, v in given.items()}
        again = question.ask(cotangents=changed)
        same = again is not None and all(
            np.array_equal(again[n], v, equal_nan=True) for n, v in question.answer.items()
        )
        if same and question.differs(question.pull_back(cotangents=changed), question.pull_back()):
            which = "the cotangents" if len(names) == len(given) else f"that of {names[0]}"
            said = f"the gradients do not depend on {which}: no number changes with its sign."
            name = "ignores-cotangents"
            return Mistake(name, said, {"outputs": names})
    return None


def find_nonlinearity(question: Question) -> Mistake | None:
    """Call with scaled cotangents, with two parts of them, and with zeros."""
    given, answer = question.case.cotangents, question.answer
    zero = question.ask(cotangents={n: np.zeros_like(v) for n, v in given.items()})
    if zero is not None and (name := find_remainder(question, zero)):
        said = f"zero cotangents give a gradient for {name} that is not zero."
        return Mistake("not-linear-in-cotangents", said, {"gradients": [name]})
    for factor in SCALES:
        scaled = question.ask(cotangents={n: v * v.dtype.type(factor) for n, v in given.items()})
        if scaled is None or not all(np.isfinite(v).all() for v in scaled.values()):
            continue
        if name := question.differs(scaled, {n: factor * v for n, v in answer.items()}, factor):
            said = (
                f"cotangents times {factor:g} do not give {factor:g} times the gradient for {name}."
            )
            return Mistake("not-linear-in-cotangents", said, {"gradients": [name]})
    parts = [
        question.ask(cotangents={n: keep_every_second(v, start) for n, v in given.items()})
        for start in (0, 1)
    ]
    if None not in parts:
        total = {n: parts[0][n] + parts[1][n] for n in answer}
        if name := question.differs(total, answer):
            said = f"two parts of the cotangents do not add up to the gradient for {name}."
            return Mistake("not-linear-in-cotangents", said, {"gradients": [name]})
    return None


def find_remainder(question: Question, zero: Arrays) -> str:
    """Find a gradient that is not zero for cotangents of zeros; empty if all are.

    Zeros have no rounding errors in any format: what is left may be an ε, as of a logarithm.
    """
    for name, value in zero.items():
        size = max(question.find_size(name), REMAINDER * root_mean_square(question.answer[name]))
        if not np.all(np.abs(value) <= np.minimum(TWICE * question.tolerance[name], size)):
            return name
    return ""


def keep_every_second(values: Array, start: int) -> Array:
    """Keep every second entry, and zeros in the place of the others."""
    kept = np.zeros_like(values)
    kept.reshape(-1)[start::2] = values.reshape(-1)[start::2]
    return kept


def find_mixed_rows(question: Question) -> Mistake | None:
    """Change one index of an argument where that changes no exact gradient at the others."""
    before = question.pull_back()
    for name, value in question.case.point.items():
        for axis in range(value.ndim):
            if value.shape[axis] < 2:
                continue
            first: Any = (slice(None),) * axis + (slice(0, 1),)
            others: Any = (slice(None),) * axis + (slice(1, None),)
            changed = value.copy()
            changed[first] = question.other.point[name][first]
            point = dict(question.case.point) | {name: changed}
            if not is_unchanged(question.pull_back(point)[name][others], before[name][others]):
                continue
            again = question.ask(point)
            if again is None:
                continue
            limit = TWICE * question.tolerance[name][others]
            with np.errstate(invalid="ignore"):
                near = np.abs(again[name] - question.answer[name])[others] <= limit
            if not near.all():
                said = (
                    f"the gradient for {name} at other indices of axis {axis} changes with index 0 "
                    f"of {name}, on which it does not depend."
                )
                return Mistake("rows-influence-one-another", said, {"gradients": [name]})
    return None


def find_leak(question: Question) -> Mistake | None:
    """Put NaN, or other numbers, where no gradient depends on an argument."""
    before = question.pull_back()
    for name, value in question.case.point.items():
        padding = find_padding(question, name)
        if not padding.any():
            continue
        for words, number in (("NaN", np.nan), ("other numbers", 7.0)):
            changed = value.copy()
            changed[padding] = number
            point = dict(question.case.point) | {name: changed}
            exact = question.pull_back(point)
            if not all(
                is_unchanged(exact[n][keep], before[n][keep])
                for n in exact
                for keep in [~padding if n == name else np.ones(exact[n].shape, bool)]
            ):
                continue
            again = question.ask(point)
            if again is None:
                continue
            again[name] = np.where(padding, question.answer[name], again[name])
            wrong = question.differs(again, question.answer)
            if wrong:
                said = (
                    f"{words} in the padding of {name}, on which nothing depends, change the "
                    f"gradient for {wrong}."
                )
                return Mistake("padding-leaks", said, {"gradients": [wrong], "argument": name})
    return None


def find_padding(question: Question, name: str) -> Array:
    """Find the entries of an argument whose exact gradient is zero at both cases."""
    here = question.pull_back()[name] == 0
    there = question.pull_back(question.other.point, question.other.cotangents)[name] == 0
    return np.asarray(here & there)


def is_unchanged(found: Array, before: Array) -> bool:
    """Tell whether exact numbers are the same to rounding in float64."""
    size = float(np.abs(before).max(initial=0.0))
    return bool(np.allclose(found, before, UNCHANGED, UNCHANGED * size))


def list_untried_sizes(every: Sequence[KernelCalls]) -> Iterator[str]:
    """Describe axes whose sizes are multiples of 16 in all settings."""
    shapes = [calls.arguments.leaves for calls in every]
    even = [
        f"axis {axis} of {name}"
        for name, value in shapes[0].items()
        for axis in range(value.ndim)
        if all(
            name not in each
            or axis >= each[name].ndim
            or (each[name].shape[axis] >= 16 and each[name].shape[axis] % 16 == 0)
            for each in shapes
        )
    ]
    if even:
        yield (
            f"All sizes of {', '.join(even)} are multiples of 16: a setting of other sizes would "
            "show what is wrong in an incomplete tile."
        )


# Those about memory and calls, which concern any function.
OF_MEMORY = (
    find_unwritten, find_stale_entries, find_indeterminacy, find_dependence_on_calls,
    find_dependence_on_layout,
)  # fmt: skip
EVERY = (
    *OF_MEMORY, find_ignored_cotangent, find_nonlinearity, find_mixed_rows, find_leak,
)  # fmt: skip
