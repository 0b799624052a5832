"""One statement is enough where two calls in one line make the same mistake."""

from typing import Any

import numpy as np

from tests.support.diagnosis import diagnose_numbers

A, B = np.linspace(0.3, 1.0, 6), np.linspace(-0.8, 1.1, 6)
PARAMS = {"u": np.zeros(4), "v": np.zeros(4)}


def pad(x: Any, xp: Any) -> Any:
    return xp.concatenate([np.zeros(2), x])


def loss(p: Any, xp: Any) -> Any:
    f, g = xp.tanh(A * pad(p["u"], xp)), xp.tanh(B * pad(p["v"], xp))
    return xp.sum(f**2) + xp.sum(g**3)


def cut_wrongly(p: Any) -> Any:
    f, g = np.tanh(A * pad(p["u"], np)), np.tanh(B * pad(p["v"], np))
    du, dv = A * 2 * f * (1 - f**2), B * 3 * g**2 * (1 - g**2)
    return {"u": du[:4], "v": dv[:4]}


def test_two_calls_in_one_line_are_one_statement() -> None:
    found = diagnose_numbers(loss, PARAMS, cut_wrongly)
    assert [each.name for each in found] == ["parts-exchanged"]
    assert "`f, g = xp.tanh(A * pad(" in found[0].explanation
