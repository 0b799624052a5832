"""The user's settings for floating-point errors and warnings hold for the user's code alone."""

import warnings
from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify, verify_own_model
from manual_bptt import rnn
from tests.support.square import W, right, square


def with_settings(p, x, y):
    np.exp(np.float32(1000))  # overflows
    return tuple(rnn.value_and_grad(rnn.Params(*p), x, y)[1][:3])


def own_gradients(p):
    overflowing = np.exp(-1e3 * p["W"][0, 0])
    return right(p) | {"loss": float(square(p, np)) + min(0, overflowing)}


@pytest.mark.table(2)
@pytest.mark.parametrize("kind", ["errors", "warnings"])
def test_the_users_settings_hold_for_the_users_code_alone(kind: str) -> None:
    seen = []

    def gradients(p, x, y):
        seen.append((np.geterr()["over"], warnings.filters[0][0]))
        return with_settings(p, x, y)

    def verified() -> Any:
        report = verify(gradients, examples=4)
        own = verify_own_model(
            own_gradients, lambda p, xp: xp.sum(xp.tanh(p["W"]) ** 2), W, cases=8
        )
        assert own, str(own)
        return report

    with warnings.catch_warnings(), np.errstate(all="raise" if kind == "errors" else "warn"):
        warnings.simplefilter("error" if kind == "warnings" else "ignore")
        report = verified()
        assert np.geterr()["over"] == ("raise" if kind == "errors" else "warn")
    assert seen[0] == ("raise", "ignore") if kind == "errors" else ("warn", "error")
    assert report
    (said,) = (note for note in report.notes if "Your function raised" in note)
    line = with_settings.__code__.co_firstlineno + 1
    assert "under your settings" in said
    assert str(line) in said or "test_contract" in said


def test_settings_that_a_call_makes_end_with_it() -> None:
    def gradients(p, x, y):
        np.seterr(all="raise")
        warnings.simplefilter("error")
        return tuple(rnn.value_and_grad(rnn.Params(*p), x, y)[1][:3])

    before = np.geterr(), list(warnings.filters)
    assert verify(gradients, examples=4)
    assert (np.geterr(), list(warnings.filters)) == before
