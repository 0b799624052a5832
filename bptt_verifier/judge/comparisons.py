"""Calls of a submission at cases, and comparisons of its results with the reference."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

from bptt_verifier.judge.neighbours import are_numbers_of
from bptt_verifier.judge.subject import Compared, Copy, Subject, find_dtype
from bptt_verifier.judge.submission import (
    Breach,
    Submission,
    ask,
    make_breach,
    name_result,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import copies
from bptt_verifier.reference.case import Case
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.bounds import is_coarser
from bptt_verifier.tolerance.comparison import Comparison, compare, compare_all


def ask_twice(gradients: Submission, subject: Subject, case: Case) -> dict[str, Array] | Breach:
    """Call a submission twice at a case; return the results if both times they are the same."""
    first = ask_at(gradients, subject, case)
    second = first if isinstance(first, Breach) else ask_at(gradients, subject, case)
    if isinstance(first, Breach) or isinstance(second, Breach):
        return second
    if case.truth is None:  # nothing tells what rounding may change
        return first
    dtypes = find_dtypes(first, case)
    return find_difference(first, second, partial(find_truth, case, dtypes)) or first


def ask_at(
    gradients: Submission, subject: Subject, case: Case, copy: Copy = copies
) -> dict[str, Array] | Breach:
    """Call a submission at a case; return its results. `copy` chooses the arguments' layout.

    Where it raises at numbers in another format than that of the user's arguments, it gets them in
    the user's format: its own constants may have that one alone. A note says so.
    """
    found = ask(gradients, partial(subject.call, case, copy), subject.expect(case), case.label)
    raised = isinstance(found, Breach) and found.mistake.name == "raised"
    wide = subject.widen(case) if raised else None
    if wide is None:
        return found
    again = ask(gradients, partial(subject.call, wide, copy), subject.expect(wide), case.label)
    if isinstance(again, Breach):
        return found
    assert isinstance(found, Breach)
    said = f"{describe_formats(case, wide)} There, {found.event}."
    gradients.raised_by_format = gradients.raised_by_format or said
    return again


def find_difference(
    first: Mapping[str, Array],
    second: Mapping[str, Array],
    find_truth: Callable[[], tuple[Mapping[str, Array], Mapping[str, Array]]],
) -> Breach | None:
    """Find a difference between the results of two equal calls that rounding does not explain.

    Threads may add up in another order: two results are fine if they differ by the allowed error
    at most, or are both right within it. `find_truth` computes the true values and the allowed
    errors, and is called only where results differ.
    """
    for name, value in first.items():
        other = second.get(name)
        if other is not None:
            if np.array_equal(value, other, equal_nan=True):
                continue
            true, allowed = (arrays[name] for arrays in find_truth())
            with np.errstate(invalid="ignore", over="ignore"):
                right = [np.abs(each - true) <= allowed for each in (value, other)]
                if np.all((np.abs(value - other) <= allowed) | (right[0] & right[1])):
                    continue
        said = f"your function returned two different results for {name}"
        said += " when called twice with the same arguments."
        return make_breach("not-deterministic", said, gradients=[name])
    return None


def describe_formats(case: Case, accepted: Case) -> str:
    """Describe the format at which a submission raises, and the one that it accepts."""
    pairs = [(v.dtype, accepted.arguments[name].dtype) for name, v in case.arguments.items()]
    changed = [(before, after) for before, after in pairs if before != after]
    refused, given = (
        " and ".join({str(d): None for d in each}) for each in zip(*changed, strict=True)
    )
    rounded = any(is_coarser(after, before) for before, after in changed)
    same = "the same numbers rounded to" if rounded else "the same numbers in"
    return (
        f"Your function raised an exception at parameters in {refused} ({case.label}), and not at "
        f"{same} {given}, the format of the parameters given, which it got there."
    )


def find_wrong_loss(subject: Subject, case: Case, answer: dict[str, Array]) -> Mistake | None:
    """Find a returned loss that differs from JAX's, if the user's loss differs in NumPy and JAX."""
    named_loss = "loss" in case.arguments  # a parameter
    if subject.refusal is None or case.truth is None or "loss" not in answer or named_loss:
        return None
    values, allowed = find_truth(case, find_dtypes({"loss": answer["loss"]}, case))
    found = compare("loss", answer["loss"], values["loss"], allowed["loss"])
    return None if found.error <= 1 else describe_forward_difference(subject, case, found)


def find_truth(case: Case, dtypes: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Find the true value of each result at a case, and the error allowed in its format."""
    assert case.truth is not None
    values, allowed = {}, {}
    for dtype in dict.fromkeys(dtypes.values()):
        names = [name for name, each in dtypes.items() if each == dtype]
        known = case.truth(dtype, names)
        for name in names:
            values[name], allowed[name] = known.values[name], known.allowed[name]
    return values, allowed


def find_dtypes(submitted: dict[str, Array], case: Case, precision: Any = None) -> dict[str, Any]:
    """Find the format in which each result is judged."""
    return {name: np.dtype(find_dtype(name, submitted, case, precision)) for name in submitted}


def compare_at(
    gradients: Submission,
    subject: Subject,
    case: Case,
    copy: Copy = copies,
    precision: Any = None,
    rounded: Collection[str] = (),
    inside: Mapping[str, Any] = MappingProxyType({}),
) -> Compared | Breach:
    """Call a submission at a case, and compare its results with the reference.

    `precision` is the format in which the submission computes, if it is coarser than its results'.
    A result in `rounded` is taken as returned in half precision where its numbers are of such a
    format. `inside` gives the format of some gradients, by name; a gradient that is returned in a
    coarser one is judged in that.
    """
    submitted = ask_at(gradients, subject, case, copy)
    if isinstance(submitted, Breach):
        return submitted
    formats = dict(inside)
    for name in submitted.keys() & rounded:
        if are_numbers_of(submitted[name], bfloat16):
            formats[name] = bfloat16
        elif are_numbers_of(submitted[name], np.float16):
            submitted[name] = submitted[name].astype(np.float16)
    dtypes = find_dtypes(submitted, case, precision)
    dtypes |= {
        n: np.dtype(f) for n, f in formats.items() if n in dtypes and is_coarser(f, dtypes[n])
    }
    values, allowed = find_truth(case, dtypes)
    finite = np.isfinite(np.concatenate([value.ravel() for value in submitted.values()])).all()
    for name, value in () if finite else submitted.items():
        unexpected = ~np.isfinite(value) & np.isfinite(allowed[name])
        if unexpected.any():
            entry = tuple(int(i) for i in np.argwhere(unexpected)[0])
            where = f" at entry {list(entry)}" if entry else ""
            said = (
                f"{name_result(name)}: expected finite numbers as autodiff finds, found "
                f"{value[entry]}{where}, where autodiff gives {values[name][entry]:.6g}."
            )
            details = {"gradients": [name], "entry": list(entry)}
            breach = make_breach("not-finite", said, f"With {case.label}.", **details)
            return breach._replace(dtype=dtypes[name])
    comparisons = compare_all(submitted, values, allowed)
    return Compared(case, submitted, dtypes, values, allowed, comparisons)


def find_forward_difference(subject: Subject, found: Compared) -> Mistake | None:
    """Find a returned loss or prediction that is not the stated model's."""
    for comparison in found.comparisons:
        if comparison.name not in found.gradients and comparison.error > 1:
            return describe_forward_difference(subject, found.case, comparison)
    return None


def describe_forward_difference(subject: Subject, case: Case, found: Comparison) -> Mistake:
    """Describe a loss or prediction that is not the stated model's."""
    other = subject.name_model_of_loss(case, found.yours) if found.name == "loss" else ""
    said = (
        f"your forward pass differs: your {found.name} is {found.yours:.12g}, and that of "
        f"{subject.stated} is {found.reference:.12g}.{other}"
    )
    return Mistake("forward-differs", said, {"yours": found.yours, "stated": found.reference})
