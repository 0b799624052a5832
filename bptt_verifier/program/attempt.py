"""Calls of the user's code, out of which nothing escapes but an answer or a failure."""

import dis
import inspect
import signal
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.program.blas_threads import use_one_thread_of_torch
from bptt_verifier.program.decisions import UntraceableError
from bptt_verifier.program.source_lines import Place, is_of_judge, is_of_library, is_of_user
from bptt_verifier.tolerance.comparison import Array

# Exceptions by which Python refuses code as it is written.
MISTAKES_OF_CODE = (AttributeError, LookupError, NameError, NotImplementedError, TypeError)
# Exceptions that say nothing of values: to end, or to end a trace.
ENDING = (SystemExit, KeyboardInterrupt, GeneratorExit, UntraceableError)
CHECKS = ("asarray_chkfinite", "_check_finite")  # functions of NumPy and SciPy
INSTALLED = {"site-packages", "dist-packages"}  # folders of packages that are not the user's
OF_MATH = ("math domain error", "expected a ")  # what Python's `math` says of a number


class Failure(NamedTuple):
    """An exception of the user's code: what it said, and its innermost line in the user's file.

    `by_settings` is true if it may have been raised only because floating-point errors or warnings
    are exceptions under the user's settings. `where` has the expression and its place. `of_values`
    is true if the values may be why: a statement of the user's raised it, or arithmetic did.
    """

    what: str
    exception: str
    file_line: str
    text: str
    by_settings: bool = False
    where: str = ""
    of_values: bool = False

    @property
    def raised_by_user(self) -> bool:
        """True if a line of the user's code raised it, not one of a library."""
        return is_of_user(self.file_line)

    @property
    def said(self) -> str:
        """What was said, and the expression of the user's that raised it, if it was one."""
        return f"{self.what} at {self.where}" if self.raised_by_user else self.what


class CodeRaisedError(ValueError):
    """The user's code raised an exception, or exited, before it could be judged."""


class Settings(NamedTuple):
    """The user's treatment of floating-point errors and warnings, without what is only printed."""

    errors: Any = {"all": "ignore"}  # noqa: RUF012 - never modified
    filters: Any = ()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Apply these settings for a while; whatever the code inside sets ends with it."""
        with warnings.catch_warnings(), np.errstate(**self.errors):
            warnings.simplefilter("ignore")
            filters: Any = warnings.filters
            filters[:0] = self.filters
            yield


MUTED = Settings()
USERS = ContextVar("USERS", default=MUTED)


@contextmanager
def use_own_settings() -> Iterator[None]:
    """Use the judge's own treatment of floating-point errors and warnings, and keep the user's.

    PyTorch has one thread meanwhile, for the judge's many calls of small problems.
    """
    errors = {k: "ignore" if v == "print" else v for k, v in np.geterr().items()}
    filters = [
        (action if action == "error" else "ignore", *others) for action, *others in warnings.filters
    ]
    token = USERS.set(Settings(errors, filters))
    try:
        with (
            warnings.catch_warnings(),
            np.errstate(all="warn", under="ignore"),
            use_one_thread_of_torch(),
        ):
            filter_own_warnings()
            yield
    finally:
        USERS.reset(token)


def filter_own_warnings() -> None:
    """Ignore warnings about the judge's own arithmetic."""
    warnings.simplefilter("ignore")


def attempt(
    function: Callable[..., Any], *arguments: Any, settings: Settings = MUTED, **named: Any
) -> Any:
    """What the function returns, or a Failure; only Ctrl-C passes.

    Unless `settings` says otherwise, warnings and floating-point errors are ignored.
    """
    try:
        with settings.hold():
            return function(*arguments, **named)
    except BaseException as error:  # the user's code may raise or exit as it likes
        if is_interrupt(error):
            raise
        return failure_of(error, function)


def is_interrupt(error: BaseException) -> bool:
    """Tell Ctrl-C from a KeyboardInterrupt that a statement of the user's code raises."""
    if type(error) is not KeyboardInterrupt:
        return False
    innermost = [*walk_frames(error.__traceback__)][-1:]
    handler = getattr(signal.getsignal(signal.SIGINT), "__code__", None)
    return not any(
        is_of_user(frame.f_code.co_filename) and raises_at(frame.f_code, at)
        for frame, at in innermost
        if frame.f_code is not handler
    )


def failure_of(error: BaseException, function: Callable[..., Any]) -> Failure:
    """The exception, with the innermost line in the file that defines the function.

    If that is the judge's, it is the innermost line of the user's, where there is one.
    """
    code = find_code(function)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if code and frame.filename == code.co_filename]
    if code and is_of_judge(code.co_filename):
        own = [frame for frame in frames if is_of_user(frame.filename)] or own
    if code and not own:  # the call itself failed
        own = [traceback.FrameSummary(code.co_filename, code.co_firstlineno, code.co_name)]
    frame = (own or [frame for frame in frames if is_of_user(frame.filename)] or frames)[-1]
    end = frame.end_colno if frame.end_lineno == frame.lineno else 0
    place = Place(frame.filename, frame.lineno or 0, frame.colno or 0, end or 0)
    if isinstance(error, UntraceableError) and error.place is not None:
        place = error.place  # a helper may be in another file
    kind, message = type(error).__name__, message_of(error)
    what = f"{kind}: {message}" if message else kind
    by_settings = isinstance(error, FloatingPointError | Warning)
    expression = printable(place.expression)
    where = f"`{expression}` ({place.at_column})" if expression else str(place)
    return Failure(
        what,
        kind,
        str(place._replace(file=frame.filename, line=frame.lineno or 0)),
        frame.line or "",
        by_settings,
        where,
        is_of_values(error),
    )


def describe_line(file: Path, error: BaseException, names: Collection[str]) -> str:
    """Describe the innermost line, in a file or in one of its folder, at which it cannot be run."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [(each.filename, each.lineno, each.line) for each in frames]
    if isinstance(error, SyntaxError) and error.filename:
        lines.append((error.filename, error.lineno, error.text))
    folder = file.resolve().parent
    beside = [
        (name, number, line)
        for name, number, line in lines
        if name in names or (is_of_user(name) and is_beside(Path(name), folder))
    ]
    if not beside:
        return ""
    name, number, line = beside[-1]
    text = printable((line or "").strip())
    place = "" if name in names else f"{Path(name).relative_to(folder)}:{number}"
    if not (text and place):
        return f" at `{text}`" if text else f" at {place}" if place else ""
    return f" at `{text}` ({place})"


def is_beside(file: Path, folder: Path) -> bool:
    """Tell whether a file is in a folder, and not of a package that is installed there."""
    return file.is_relative_to(folder) and INSTALLED.isdisjoint(file.parts)


def find_raised_by_user(error: BaseException) -> Failure | None:
    """Find an exception that the judge has not raised itself, if the user's code has.

    It is the user's where the innermost frame that is not of a library is.
    """
    files = [frame.f_code.co_filename for frame, _ in walk_frames(error.__traceback__)]
    inner = next((file for file in reversed(files) if not is_of_library(file)), "")
    return failure_of(error, attempt) if inner and is_of_user(inner) else None


def is_of_values(error: BaseException) -> bool:
    """Tell whether the values that code was given may be why it raised an exception.

    A statement `raise` or `assert` of the user's raised it, or arithmetic did. A wrong name, type,
    index or shape is a mistake of the code, whatever the values are.
    """
    excepted = isinstance(error, (*ENDING, *MISTAKES_OF_CODE))
    arithmetic = isinstance(error, ArithmeticError) or type(error).__name__.endswith("LinAlgError")
    if excepted or arithmetic or message_of(error).startswith(OF_MATH):
        return not excepted
    # What a library raises of shapes is a mistake of the code. Few of its functions check values.
    innermost = [*walk_frames(error.__traceback__)][-1:]
    codes = [(frame.f_code, at) for frame, at in innermost if asks_for_values(frame.f_code)]
    return any(raises_at(code, at) for code, at in codes)


def raises_at(code: CodeType, at: int) -> bool:
    """Tell whether the instruction at a place in code is a statement `raise` or `assert`."""
    return code.co_code[at] == dis.opmap["RAISE_VARARGS"]


def asks_for_values(code: CodeType) -> bool:
    """True for code of the user's, and for that of a library which checks values alone."""
    checks = code.co_name in CHECKS or "distributions" in code.co_filename
    return checks or is_of_user(code.co_filename)


def walk_frames(trace: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    """Yield the frames of a traceback, the innermost last, and the instruction that each is at."""
    while trace is not None:
        yield trace.tb_frame, trace.tb_lasti
        trace = trace.tb_next


def find_code(function: Callable[..., Any]) -> Any:
    """Find the code of a function, of what it wraps or of an object's `__call__`, or None."""
    with suppress(Exception):  # any attribute of the user's object may raise
        inner = inspect.unwrap(getattr(function, "func", function))
        method = inner if hasattr(inner, "__code__") else type(inner).__call__
        return getattr(method, "__code__", None)
    return None


def message_of(error: BaseException) -> str:
    """What an exception says, on one line that any terminal can show."""
    try:
        words = str(error).split()
    except BaseException as another:  # an exception may fail to say what it is about
        if is_interrupt(another):
            raise
        return ""
    return printable(" ".join(words))


def printable(text: str) -> str:
    """Shorten a text of the user's to what any terminal can show."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:300])[:300]


def copies(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Fresh, writable, contiguous copies."""
    return {name: np.array(value) for name, value in arrays.items()}


def type_name(value: Any) -> str:
    """A value's type, as a message names it."""
    return "None" if value is None else type(value).__name__
