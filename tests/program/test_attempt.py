"""What is known of an exception that the user's code raises."""

import math
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg

from bptt_verifier.program.attempt import (
    Failure,
    attempt,
    describe_line,
    find_raised_by_user,
    is_beside,
    is_interrupt,
    is_of_values,
)
from bptt_verifier.program.decisions import UntraceableError


class NotPositive(Exception):  # noqa: N818 - a user's name
    """An exception of the user's own."""


class Abort(BaseException):
    """One that a user's `except Exception` does not catch."""


class SolverLinAlgError(RuntimeError):
    """A stand-in for what a library in C raises of a singular system."""


def state(error: BaseException) -> Callable[[], Any]:
    def raising() -> None:
        raise error

    return raising


def state_again() -> None:
    try:
        np.zeros(2) + np.zeros(3)
    except ValueError as error:
        raise NotPositive from error


def assert_positive() -> None:
    x = -1.0
    assert x > 0


def raise_at_settings() -> Any:
    with np.errstate(all="raise"):
        return np.sqrt(np.array(-1.0))


OF_VALUES: dict[str, Callable[[], Any]] = {
    "a ValueError": state(ValueError("s must be positive")),
    "one of the user's": state(NotPositive()),
    "one of the user's that is no Exception": state(Abort()),
    "a RuntimeError": state(RuntimeError("the iteration diverges")),
    "one of a library": state(SolverLinAlgError("singular")),
    "one for another": state_again,
    "an assertion": assert_positive,
    "floating-point settings": raise_at_settings,
    "a division": lambda: 1 / 0,
    "an overflow": lambda: math.exp(1e4),
    "a domain": lambda: math.log(-1.0),
    "a factorisation": lambda: np.linalg.cholesky(-np.eye(2)),
    "a factorisation of SciPy": lambda: scipy.linalg.cho_factor(-np.eye(2)),
    "no number": lambda: scipy.linalg.cho_factor(np.full((2, 2), np.nan)),
}
OF_CODE: dict[str, Callable[[], Any]] = {
    "a name": lambda: missing,  # type: ignore[name-defined]
    "a key": lambda: dict[str, int]()["W"],
    "an index": lambda: np.zeros(1)[1],
    "an attribute": lambda: None.T,  # type: ignore[attr-defined]
    "a type": lambda: 1 + "1",  # type: ignore[operator]
    "shapes": lambda: np.zeros(2) + np.zeros(3),
    "a shape": lambda: np.zeros(3).reshape(2, 2),
    "shapes in a library": lambda: np.stack([np.zeros(2), np.zeros(3)]),
    "a number of parts in a library": lambda: np.split(np.zeros(5), 2),
    "a text": lambda: int("one"),
    "what is not written": state(NotImplementedError("for negative values")),
    "a type that is stated": state(TypeError("expected an array")),
    "an exit that is stated": state(SystemExit(1)),
    "an exit": sys.exit,
    "the end of a generator": state(GeneratorExit()),
    "a trace that ends": state(UntraceableError("too long")),
}


@pytest.mark.parametrize("raising", OF_VALUES.values(), ids=OF_VALUES)
def test_a_statement_or_arithmetic_may_raise_for_what_values_are(
    raising: Callable[[], Any],
) -> None:
    found = attempt(raising)
    assert isinstance(found, Failure)
    assert found.of_values


@pytest.mark.parametrize("raising", OF_CODE.values(), ids=OF_CODE)
def test_a_wrong_name_type_index_or_shape_is_a_mistake_whatever_values_are(
    raising: Callable[[], Any],
) -> None:
    found = attempt(raising)
    assert isinstance(found, Failure)
    assert not found.of_values


def test_nothing_is_known_of_values_where_a_failure_does_not_say_so() -> None:
    assert not Failure("an exit", "SystemExit", "model.py:1", "exit()").of_values


def test_an_exception_that_nothing_has_raised_says_nothing_of_values() -> None:
    assert not is_of_values(ValueError("s must be positive"))


def catch(function: Callable[..., Any], *given: Any) -> BaseException:
    try:
        function(*given)
    except BaseException as error:
        return error
    raise AssertionError


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def test_a_keyboard_interrupt_that_code_states_is_one_of_its_exceptions() -> None:
    found = attempt(state(KeyboardInterrupt("stop")))
    assert isinstance(found, Failure)
    assert found.what == "KeyboardInterrupt: stop"
    assert f"at `raise error` ({__file__}:" in found.said


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_passes_whatever_handles_it() -> None:
    def handle(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(press_ctrl_c)
    before = signal.signal(signal.SIGINT, handle)
    try:
        with pytest.raises(KeyboardInterrupt):
            attempt(press_ctrl_c)
    finally:
        signal.signal(signal.SIGINT, before)
    assert is_interrupt(KeyboardInterrupt())
    assert not is_interrupt(ValueError())


def test_what_a_library_raises_alone_has_no_line_of_the_user() -> None:
    failure = Failure("ValueError: no", "ValueError", f"{np.__file__}:1", "", where="np.py:1")
    assert (failure.said, failure.raised_by_user) == ("ValueError: no", False)
    failure = failure._replace(file_line="model.py:1", where="`1 / 0` (model.py:1:1)")
    assert failure.said == "ValueError: no at `1 / 0` (model.py:1:1)"


def test_a_line_is_shown_up_to_three_hundred_characters() -> None:
    space: dict[str, Any] = {}
    exec(compile(f"def f():\n    [{'0, ' * 1000}][9999]\n", "long.py", "exec"), space)
    found = attempt(space["f"])
    assert isinstance(found, Failure)
    assert len(found.where) < 400


def test_an_exception_is_the_users_where_the_innermost_frame_of_no_library_is() -> None:
    for raising in (state(ValueError("no")), lambda: np.zeros(2) + np.zeros(3)):
        found = find_raised_by_user(catch(raising))
        assert found is not None
        assert __file__ in found.where
    assert find_raised_by_user(catch(is_beside, None, None)) is None  # of the judge's code
    assert find_raised_by_user(catch(math.floor, "a")) is not None
    assert find_raised_by_user(ValueError()) is None


def test_a_file_is_beside_another_unless_it_is_installed_there() -> None:
    folder = Path("home")
    assert is_beside(folder / "parts" / "a.py", folder)
    assert not is_beside(folder / ".venv" / "site-packages" / "a.py", folder)
    assert not is_beside(Path("other/a.py"), folder)


def test_the_innermost_line_of_a_file_or_of_one_beside_it_is_described() -> None:
    here, error = Path(__file__), catch(state(ValueError("no")))
    assert describe_line(here, error, {__file__}) == " at `raise error`"
    line = state.__code__.co_firstlineno + 2
    assert (
        describe_line(here.parent / "m.py", error, ()) == f" at `raise error` ({here.name}:{line})"
    )
    assert describe_line(Path("/elsewhere/m.py"), error, ()) == ""
    assert describe_line(here, ValueError("no"), {__file__}) == ""
    without_text = SyntaxError("no", (__file__, 7, 1, None))
    assert describe_line(here.parent / "m.py", without_text, ()) == f" at {here.name}:7"
    assert describe_line(here, without_text, {__file__}) == ""
