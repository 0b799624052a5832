"""Questions that a lazy kernel fails, each with a finding of its own.

Each asks the kernel again, with cotangents, arguments or memory that are changed in a way whose
effect on the gradients is known.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bptt_verifier.judge.kernel_answers import TWICE, Question
from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_memory import OF_MEMORY
from bptt_verifier.judge.kernel_places import list_some
from bptt_verifier.problems.kernel_draws import is_mask
from bptt_verifier.problems.problem import Array
from bptt_verifier.reference.point_arrays import Arrays
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.sizes import root_mean_square

SCALES = 4.0, 0.25, -1.0  # by which no number is rounded
PARTS = 2.0, 0.5, -1.0, 0.0, 1.0  # of a cotangent, whose rest is no rounded number either
OF_PARTS = 2.0  # the largest of them
OF_CALLS = frozenset("unwritten-output not-deterministic depends-on-calls".split())
IGNORING = "ignores-cotangents"
REMAINDER = 2.0**-18  # of a gradient, that zero cotangents may give: an ε of 10⁻⁶, nearly fourfold
FILLS = 7.0, -7.0, 0.3  # put in padding: of both signs, and small, as relu, clip and threshold pass
ORDERS = 8  # of other arguments, in each of which half of the gates are open
UNCHANGED = 1e-9  # relative change of an exact gradient that is rounding in float64


def find_lazy_answer(
    question: Question, asked: Sequence[Callable[[Question], Mistake | None]]
) -> tuple[Mistake, ...]:
    """Ask some questions; return the first finding, if there is one."""
    for each in asked:
        found = each(question)
        if found is not None and found.name not in OF_CALLS:
            found = each(question.allow_rounding())
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
            return Mistake(IGNORING, said, {"outputs": names})
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
        if scaled is None or not is_finite(scaled):
            continue
        if name := question.differs(scaled, {n: factor * v for n, v in answer.items()}, factor):
            said = (
                f"cotangents times {factor:g} do not give {factor:g} times the gradient for {name}."
            )
            return Mistake("not-linear-in-cotangents", said, {"gradients": [name]})
    shares = {n: np.resize(PARTS, v.shape).astype(v.dtype) for n, v in given.items()}
    parts = [
        question.ask(cotangents={n: v * shares[n] for n, v in given.items()}),
        question.ask(cotangents={n: v * (1 - shares[n]) for n, v in given.items()}),
    ]
    if all(each is not None and is_finite(each) for each in parts):
        total = {n: parts[0][n] + parts[1][n] for n in answer}
        if name := question.differs(total, answer, OF_PARTS, rounded=True):
            said = f"two parts of the cotangents do not add up to the gradient for {name}."
            return Mistake("not-linear-in-cotangents", said, {"gradients": [name]})
    return None


def is_finite(arrays: Arrays) -> bool:
    """Tell whether all numbers are finite; beyond a format's largest, nothing is linear."""
    return all(np.isfinite(value).all() for value in arrays.values())


def find_remainder(question: Question, zero: Arrays) -> str:
    """Find a gradient that is not zero for cotangents of zeros; empty if all are.

    Zeros have no rounding errors in any format: what is left may be an ε, as of a logarithm.
    """
    for name, value in zero.items():
        size = max(question.find_size(name), REMAINDER * root_mean_square(question.answer[name]))
        if not np.all(np.abs(value) <= np.minimum(TWICE * question.tolerance[name], size)):
            return name
    return ""


def find_mixed_rows(question: Question) -> Mistake | None:
    """Change indices of an argument where that changes no exact gradient at the others.

    Of a wrong kernel, cotangents are changed as well, and any two indices are told apart.
    """
    before = question.pull_back()
    for name, value in question.case.point.items():
        for axis, size in enumerate(value.shape):
            for moved in list_moved(size, question.wrong):
                point = change_indices(question.case.point, question.other.point, name, axis, moved)
                found = find_influence(question, before, name, [(name, axis)], moved, point=point)
                if found is not None:
                    return found
    given = question.case.cotangents
    for name, value in given.items() if question.wrong else ():
        for axis, size in enumerate(value.shape):
            axes = [(of, g.shape) for of, g in before.items()]
            places = [(of, k) for of, shape in axes for k, n in enumerate(shape) if n == size]
            for moved in list_moved(size, question.wrong):
                other = change_indices(given, question.other.cotangents, name, axis, moved)
                what = f"the cotangent of {name}"
                found = find_influence(question, before, what, places, moved, cotangents=other)
                if found is not None:
                    return found
    return None


def list_moved(size: int, wrong: Collection[str]) -> list[Array]:
    """List which indices of an axis are changed together: the first one, or by bits of a number.

    By the bits, of any two indices one is changed without the other.
    """
    index = np.arange(size)
    bits = range((size - 1).bit_length() if size else 0)
    return [(index >> bit) % 2 == 0 for bit in bits] if wrong else [index == 0][: size - 1]


def change_indices(
    arrays: Arrays, others: Arrays, name: str, axis: int, moved: Array
) -> dict[str, Array]:
    """Take one array's numbers from others at some indices of an axis."""
    shape = [-1 if k == axis else 1 for k in range(arrays[name].ndim)]
    return dict(arrays) | {name: np.where(moved.reshape(shape), others[name], arrays[name])}


def find_influence(
    question: Question,
    before: Arrays,
    what: str,
    places: Sequence[tuple[str, int]],
    moved: Array,
    **changed: Arrays,
) -> Mistake | None:
    """Find a gradient that changes at other indices than those that were moved.

    `places` are gradients, each with an axis. Those are asked whose exact numbers at the other
    indices stay. A gradient of zeros, as that of a step function, depends on nothing.
    """
    exact, again = question.pull_back(**changed), None
    for name, axis in places:
        before_axis: tuple[Any, ...] = (slice(None),) * axis
        others, here = (*before_axis, ~moved), (*before_axis, moved)
        if not before[name].any() or not is_unchanged(exact[name][others], before[name][others]):
            continue
        again = question.ask(**changed) if again is None else again
        if again is None:
            return None
        expected = question.answer[name] + exact[name] - before[name]
        expected[here] = again[name][here]
        if question.differs(again, {name: expected}):
            indices = [int(i) for i in np.flatnonzero(moved)]
            which = "index" if len(indices) == 1 else "indices"
            said = (
                f"the gradient for {name} at other indices of axis {axis} changes with {which} "
                f"{list_some(indices)} of {what}, on which it does not depend."
            )
            return Mistake("rows-influence-one-another", said, {"gradients": [name]})
    return None


def find_leak(question: Question) -> Mistake | None:
    """Put NaN, or other numbers, where no gradient depends on an argument."""
    before = question.pull_back()
    if not any(gradient.any() for gradient in before.values()):
        return None
    sizes = {n: root_mean_square(question.tolerance[n]) for n in before}
    visible = {n for n, gradient in before.items() if root_mean_square(gradient) > sizes[n]}
    for name in question.case.point:
        padding = find_padding(question, name)
        if not padding.any() or not all(
            is_kept(
                question.pull_back(fill(question, name, padding, number)), before, name, padding
            )
            for number in FILLS
        ):
            continue
        for words, number in (("NaN", np.nan), ("other numbers", FILLS[0])):
            point = fill(question, name, padding, number)
            exact = question.pull_back(point)
            if not is_kept(exact, before, name, padding):
                continue
            if question.keeps_zeros(point) and not question.keeps_zeros():
                continue  # autodiff of the stated function itself gives NaN there alone
            again = question.ask(point)
            if again is None:
                continue
            expected = {n: g + exact[n] - before[n] for n, g in question.answer.items()}
            if np.isfinite(number):  # whose size rounding in a gradient of zeros may have
                expected = {n: g for n, g in expected.items() if n in visible or n == name}
            for arrays in (again, expected):  # NaN gives NaN in its own place
                arrays[name] = np.where(padding, question.answer[name], arrays[name])
            wrong = question.differs(again, expected)
            if wrong:
                said = (
                    f"{words} in the padding of {name}, on which nothing depends, change the "
                    f"gradient for {wrong}."
                )
                return Mistake("padding-leaks", said, {"gradients": [wrong], "argument": name})
    return None


def find_padding(question: Question, name: str) -> Array:
    """Find the entries of an argument on which nothing depends, whatever number is there.

    Their exact gradient is zero at both cases, with other numbers in their place, and with other
    arguments. So an entry that is zero behind a relu, or clipped, is none, and nor is one that a
    gate shuts off: NaN there changes what right code computes.
    """
    here = question.pull_back()[name] == 0
    there = question.pull_back(question.other.point, question.other.cotangents)[name] == 0
    padding = np.asarray(here & there)
    for number in FILLS if padding.any() else ():
        padding &= question.pull_back(fill(question, name, padding, number))[name] == 0
    for point in rearrange_others(question, name) if padding.any() else ():
        found = question.pull_back(point)[name]
        padding &= (found == 0) | ~np.isfinite(found)
    return padding


def rearrange_others(question: Question, name: str) -> Iterator[dict[str, Array]]:
    """Put the numbers of all other arguments in random order, with each sign by turns.

    So every gate may be open once. A mask of zeros and one number, or with −∞, is data, and stays.
    """
    rng = np.random.default_rng(0)
    given = question.case.point
    kept = {name, *question.case.excluding, *(n for n, v in given.items() if is_mask(v))}
    for k in range(ORDERS):
        yield {
            n: v if n in kept else (-1) ** k * rng.permutation(v.ravel()).reshape(v.shape)
            for n, v in given.items()
        }


def fill(question: Question, name: str, padding: Array, number: float) -> dict[str, Array]:
    """Put a number in the padding of one argument."""
    changed = question.case.point[name].copy()
    changed[padding] = number
    return dict(question.case.point) | {name: changed}


def is_kept(
    exact: Mapping[str, Array], before: Mapping[str, Array], name: str, padding: Array
) -> bool:
    """Tell whether exact gradients stay as they were, but for those of the padding itself."""
    return all(
        is_unchanged(exact[n][keep], before[n][keep])
        for n in exact
        for keep in [~padding if n == name else np.ones(exact[n].shape, bool)]
    )


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


EVERY = (
    *OF_MEMORY, find_ignored_cotangent, find_nonlinearity, find_mixed_rows, find_leak,
)  # fmt: skip
