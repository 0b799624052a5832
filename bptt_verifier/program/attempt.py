"""Calls of the user's code, out of which nothing escapes but an answer or a failure."""

import inspect
import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array


class Failure(NamedTuple):
    """An exception of the user's code: what it said, and its innermost line in the user's file."""

    what: str
    exception: str
    file_line: str
    text: str


def attempt(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What the function returns, or a Failure; only Ctrl-C passes.

    Warnings and floating-point errors of the user's code are ignored.
    """
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return function(*arguments, **named)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's code may raise or exit as it likes
        return failure_of(error, function)


def failure_of(error: BaseException, function: Callable[..., Any]) -> Failure:
    """The exception, with the innermost line in the file that defines the function."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if code and frame.filename == code.co_filename]
    if code and not own:  # the call itself failed
        own = [traceback.FrameSummary(code.co_filename, code.co_firstlineno, code.co_name)]
    frame = (own or frames)[-1]
    kind, message = type(error).__name__, message_of(error)
    what = f"{kind}: {message}" if message else kind
    return Failure(what, kind, f"{frame.filename}:{frame.lineno}", frame.line or "")


def message_of(error: BaseException) -> str:
    """What an exception says, on one line that any terminal can show."""
    try:
        words = str(error).split()
    except Exception:  # an exception may fail to say what it is about
        return ""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(words))[:300]


def copies(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Fresh, writable, contiguous copies."""
    return {name: np.array(value) for name, value in arrays.items()}


def type_name(value: Any) -> str:
    """A value's type, as a message names it."""
    return "None" if value is None else type(value).__name__
