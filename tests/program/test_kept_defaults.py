"""Defaults in which a function keeps what it has computed, and functions that are defaults."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.kept_defaults import list_kept_defaults
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.readings import read, require_comparison


def list_defaults_of(signature: str) -> list[Any]:
    """List the defaults that a function of this signature may fill."""
    space: dict[str, Any] = {"np": np}
    exec(f"def f({signature}): ...", space)
    return list_kept_defaults(space["f"].__code__, space)


@pytest.mark.parametrize(
    ("signature", "kept"),
    [
        ("x, hist=[]", [[]]),
        ("x, *, seen={}, n=3", [{}]),
        (
            "x, seen=set(), cache={'n': [0, None, ('a', b'b')]}",
            [set(), {"n": [0, None, ("a", b"b")]}],
        ),
        ("x, pair=(), n=0, name='', f=len", []),
        ("x, params={'W': np.ones(2)}", []),
        ("x, params={'w': [0.5]}", []),
        ("x, layers=[object()]", []),
        ("x, y", []),
    ],
)
def test_a_container_without_numbers_that_may_be_parameters_is_one_of_all_calls(
    signature: str, kept: list[Any]
) -> None:
    assert list_defaults_of(signature) == kept


def test_the_function_of_a_call_is_the_one_of_its_code() -> None:
    space: dict[str, Any] = {}
    exec("def f(x, hist=[]): ...", space)
    code = space["f"].__code__
    exec("def f(x, other=[]): ...", space)
    assert list_kept_defaults(code, space) == []
    assert list_kept_defaults(code, space | {"f": 1}) == []
    assert list_kept_defaults(code, {}) == []


GROWING = """
W, U = draw(3, 3), draw(3, 2)
def step(x, y, hist=[], act=np.tanh, slope=lambda h: 1 - h * h):
    h = np.zeros(3); hs = [h]
    for one in x: h = act(U @ one + W @ h); hs.append(h)
    CLEAR
    hist.extend(hs)
    L = 0.5 * np.sum((h - y) ** 2); d = FACTOR * (h - y)
    dW, dU = np.zeros_like(W), np.zeros_like(U)
    for t in reversed(range(len(x))):
        da = d * slope(hist[t + 1]); d = W.T @ da
        dW += np.outer(da, hist[t]); dU += np.outer(da, x[t])
    RETURN
step(draw(4, 2), draw(3))
"""


def test_what_a_default_keeps_of_the_first_call_is_wrong_at_the_second(tmp_path: Path) -> None:
    returns = "return L, dW, dU"
    require_comparison(
        tmp_path, "step", GROWING.replace("CLEAR", "hist.clear()"), returns, "parameters: W, U"
    )
    found = read(tmp_path, "step", GROWING.replace("CLEAR", ""), returns)
    assert "hist" not in found.said
    report = verify_own_model(found.gradients, found.loss, found.params, cases=3)
    assert report.verdict is Verdict.DISAGREES


def test_a_function_of_numpy_that_is_an_argument_is_traced(tmp_path: Path) -> None:
    found = read(tmp_path, "step", GROWING.replace("CLEAR", "hist.clear()"), "return L, dW, dU")
    report = verify_own_model(found.gradients, found.loss, found.params, cases=2)
    assert report
    assert not any("cannot be traced" in note for note in report.notes)
