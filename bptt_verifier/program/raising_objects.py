"""Objects of the user's code that raise an exception where they are read as arrays."""

from collections.abc import Iterator
from typing import Any

from bptt_verifier.program.attempt import Failure, attempt, type_name


def raised_by_user(failure: Any) -> bool:
    """True for an exception that a line of the user's code raised, not one of a library."""
    return isinstance(failure, Failure) and failure.raised_by_user


def find_raised(value: Any, failure: Any = None) -> Failure | None:
    """Find the exception for which an object is no array; None where its code raised none.

    `failure` is that of NumPy, which hides the exceptions of some methods. What an iterator would
    yield is not asked for.
    """
    questions = (
        lambda: getattr(value, "shape", None),
        lambda: len(value),
        lambda: isinstance(value, Iterator) or next(iter(value), None),  # all may be endless
    )
    for found in (failure, *map(attempt, questions)):
        if raised_by_user(found):
            return found  # type: ignore[no-any-return]
    return None


def describe_value(value: Any, raised: Failure | None) -> str:
    """Describe an object by its type, and what it has raised."""
    return type_name(value) + (f", which raised {raised.what}" if raised else "")
