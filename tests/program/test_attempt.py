"""What is known of an exception that the user's code raises."""

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg

from bptt_verifier.program.attempt import Failure, attempt, is_of_values
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
