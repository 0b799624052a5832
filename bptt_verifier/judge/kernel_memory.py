"""Questions about a kernel's calls and memory: equal numbers have to give equal gradients."""

from collections.abc import Callable
from functools import partial

import numpy as np

from bptt_verifier.judge.kernel_answers import RANDOM, TWICE, Question
from bptt_verifier.judge.kernel_calls import Copy, KernelCalls
from bptt_verifier.judge.kernel_cases import KernelCase
from bptt_verifier.judge.repetition import (
    HUGE,
    POISON,
    copy_and_poison,
    copy_backwards,
    copy_in_fortran_order,
    copy_with_strides,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.reference.point_arrays import Arrays
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.formats import find_unit, is_half
from bptt_verifier.tolerance.projections import APPROXIMATE
from bptt_verifier.tolerance.sizes import root_mean_square

# Where one call in five differs from another by more than sums in another order, 40 further ones
# miss it with probability 0.8⁴⁰ = 1.3 · 10⁻⁴, and 10 miss with 0.1 that there is one.
CALLS, FIRST_CALLS = 40, 10
GROWING = 6  # answers in a row that grow by equal steps
ALIKE = 0.9  # of the entries that change, at least
FEW = 3  # such entries show it, also of a gradient that may be right
VISIBLE = 2.0**-8  # such a change where the arguments' own format is at work inside
OWN = 2.0**-12  # of an entry, by which nearly all change, as later steps alone would not
COARSE_NOISE = 64  # units of the dtype that it has to exceed as well
# In 16 bits, where no number is rounded to a coarser format inside: digits that cancel in another
# formula, of terms 16 times as large as the result.
COARSE_IN_HALF = 16
TINY = 0x11  # of every byte: a small number in every format
EVIDENT_BITS = 24  # of numbers that are equal in two answers, at least, if it is not by chance


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
    """Call twice with the same arguments, after a call with them.

    Sums in another order change by rounding, which is imitated where no gradient differs more.
    """
    _, before, again = (question.ask() for _ in range(3))
    if before is None or again is None:
        return None
    growing = find_growth(question, before, again)
    if growing:
        said = (
            f"the gradient for {growing} grows with every call with the same numbers: each adds to "
            "what the one before left."
        )
        return Mistake("depends-on-calls", said, {"gradients": [growing]})
    name = question.differs(again, before) or find_noise(question, before, again)
    name = name or find_rare_noise(question, before, changed=is_changed(before, again))
    if not name:
        return None
    said = f"the gradient for {name} changes when the kernel is called twice with the same numbers."
    return Mistake("not-deterministic", said, {"gradients": [name]})


def find_rare_noise(question: Question, before: Arrays, *, changed: bool) -> str:
    """Call on, and find a gradient that changes by more than in the first calls; empty if none.

    A kernel that always gives the same numbers is asked a few times, unless its errors leave a
    gradient undecided, or scatter so much that they may be its own: one call in several may be
    another one.
    """
    furthest, changes = dict(before), dict.fromkeys(before, 0.0)
    for number in range(CALLS):
        if number >= FIRST_CALLS and not (changed or question.undecided):
            break
        again = question.ask()
        if again is None:
            return ""
        changed = changed or is_changed(before, again)
        for name, value in before.items():
            change = root_mean_square(again[name] - value)
            if change > changes[name]:
                furthest[name], changes[name] = again[name], change
    return find_noise(question, before, furthest)


def is_changed(before: Arrays, again: Arrays) -> bool:
    """Tell whether any number of two answers differs."""
    return not all(np.array_equal(again[n], v, equal_nan=True) for n, v in before.items())


def find_noise(question: Question, before: Arrays, again: Arrays) -> str:
    """Find a gradient that changes by more than sums in another order explain; empty if none does.

    A number that is rounded to a coarser format inside may turn a change of its last bit into one
    of that format. That is ruled out where half of the gradients are as precise as the arguments,
    and where the noise is none of rounding.
    """
    half = any(is_half(value.dtype) for value in question.case.point.values())
    known = question.precise | question.noisy
    own_format = not half and 2 * len(known) >= len(before)
    for name, value in before.items():
        change = np.abs(again[name] - value)
        size = root_mean_square(change)
        changed = change > OWN * np.abs(value)
        everywhere = np.count_nonzero(changed) >= ALIKE * max(1, int(np.count_nonzero(value)))
        least = VISIBLE if own_format and name not in question.precise and everywhere else RANDOM
        least = APPROXIMATE if name in question.noisy else least
        units = COARSE_IN_HALF if half else COARSE_NOISE
        large = size > max(least * root_mean_square(value), units * question.find_size(name))
        if large and size > TWICE * question.imitate_sums(name):
            return name
    return ""


def find_growth(question: Question, before: Arrays, again: Arrays) -> str:
    """Find a gradient whose entries grow from call to call; empty if none does.

    Each answer is within a step of a straight line from the first to the last.
    """
    if all((again[name] == value).all() for name, value in before.items()):
        return ""
    answers = [before, again, *(question.ask() for _ in range(GROWING - 2))]
    for name in before if None not in answers else ():
        values = np.array([each[name] for each in answers])
        step = (values[-1] - values[0]) / (GROWING - 1)
        line = values[0] + np.arange(GROWING).reshape(-1, *[1] * step.ndim) * step
        alike = (np.abs(values - line) <= np.abs(step)).all(axis=0)[step != 0]
        grown = question.changes(name, answers[-1], before) and alike.mean() >= ALIKE
        if grown and (name in question.wrong or alike.sum() >= FEW):
            return name
    return ""


def describe_indeterminacy(question: Question) -> str:
    """Describe how two answers to the same question differ; empty if they do not."""
    again = question.ask()
    changes = {
        name: root_mean_square(again[name] - value) / root_mean_square(value)
        for name, value in question.answer.items()
        if again is not None and (again[name] != value).any() and value.any()
    }
    if not changes:
        return ""
    name = max(changes, key=lambda each: changes[each])
    unit = max(find_unit(value.dtype) for value in question.case.point.values())
    cause = "Sums in another order may do that."
    if changes[name] > COARSE_NOISE * unit:
        cause = (
            f"That is {changes[name] / unit:.2g} roundings to the dtype of the arguments: random "
            "numbers, digits that cancel, or rounding to fewer bits inside of sums in another "
            "order."
        )
    return (
        f"Two calls with the same numbers give different gradients: that for {name} changes by "
        f"{changes[name]:.2g} of its size (root mean square). {cause}"
    )


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


def is_unwritten(calls: KernelCalls, case: KernelCase) -> bool:
    """Tell whether numbers of an answer are those that freed memory held."""
    huge, tiny = (
        calls.ask(case.point, case.cotangents, partial(copy_one, partial(copy_and_poison, byte)))
        for byte in (POISON[1], TINY)
    )
    if isinstance(huge, Mistake) or isinstance(tiny, Mistake):
        return False
    with np.errstate(invalid="ignore"):
        return any(
            bool(np.any(np.isfinite(small) & ~(np.abs(huge[name].astype(np.float64)) < HUGE)))
            for name, value in tiny.items()
            for small in [value.astype(np.float64)]
        )


def find_dependence_on_calls(question: Question) -> Mistake | None:
    """Call at another case in between.

    Of a kernel that always gives the same numbers otherwise, small changes count as well.
    """
    before, same = question.ask(), question.ask()
    question.ask(question.other.point, question.other.cotangents)
    again = question.ask()
    if again is None or before is None or same is None:
        return None
    name = question.differs(again, question.answer)
    if not name and all(np.array_equal(same[n], before[n]) for n in before):
        name = next((n for n in before if question.changes(n, again, before)), "")
    if not name:
        return None
    said = f"the gradient for {name} changes after a call with other numbers."
    return Mistake("depends-on-calls", said, {"gradients": [name]})


def find_dependence_on_layout(question: Question) -> Mistake | None:
    """Call with arrays in other layouts: arguments, cotangents, or both."""
    for words, copies in (
        ("in Fortran order", copy_in_fortran_order), ("that are strided views", copy_with_strides),
        ("that are reversed views", copy_backwards),
    ):  # fmt: skip
        one = partial(copy_one, copies)
        name = find_change(question, one, one)
        if name:
            alone = {
                "arguments": find_change(question, one, np.array),
                "cotangents": find_change(question, np.array, one),
            }
            which = [what for what, found in alone.items() if found] or [*alone]
            said = f"the gradient for {name} changes for {' and '.join(which)} {words}."
            return Mistake("depends-on-memory-layout", said, {"gradients": [name]})
    return None


def find_change(question: Question, of_arguments: Copy, of_cotangents: Copy) -> str:
    """Find a gradient that changes with such copies of what is given; empty if none does."""
    cotangents = {id(value) for value in question.case.cotangents.values()}

    def copy(value: Array) -> Array:
        return of_cotangents(value) if id(value) in cotangents else of_arguments(value)

    again = question.ask_copies(copy)
    return "" if again is None else question.differs(again, question.answer, rounded=True)


def find_unread_argument(question: Question) -> Mistake | None:
    """Find an argument that a kernel does not read, which is right at the case.

    It has the argument from elsewhere. A wrong kernel may have left out the factors alone.
    """
    return None if question.wrong else find_kept_argument(question)


def find_kept_argument(question: Question) -> Mistake | None:
    """Change one argument on which the gradients depend, and find that no number changes."""
    if not any(value.any() for value in question.answer.values()):
        return None
    before = question.pull_back()
    for name in question.case.point:
        point = dict(question.case.point) | {name: question.other.point[name]}
        changed = question.pull_back(point)
        known = all(np.isfinite(value).all() for value in changed.values())
        if not known or not question.differs(changed, before):
            continue
        again = question.ask(point)
        if again is None or any(
            not np.array_equal(again[n], v, equal_nan=True) for n, v in question.answer.items()
        ):
            continue
        said = (
            f"no gradient changes with {name}: it is kept from an earlier call, or taken from "
            "elsewhere than the arguments."
        )
        return Mistake("depends-on-calls", said, {"arguments": [name]})
    return None


OF_MEMORY = (
    find_unwritten, find_stale_entries, find_indeterminacy, find_dependence_on_calls,
    find_dependence_on_layout, find_unread_argument,
)  # fmt: skip
