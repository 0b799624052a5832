"""No result is the gradient of an array that holds gradients, or an optimiser's memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.gradient_buffers import find_memories
from bptt_verifier.program.own_calls import ArrayPlace
from tests.support.readings import read, require_comparison

STEP = """
def both(x, y, state):
    h = np.tanh(W @ x + R @ state + B)
    e = h - y
    da = e * (1 - h * h)
    GRADIENTS
    RETURN
both(draw(3), draw(4), draw(4))
"""
HELD = """
class Param:
    def __init__(self, v):
        self.v, self.d, self.m = v, 0 * v, 0 * v
w, r, b = Param(draw(4, 3)), Param(draw(4, 4)), Param(draw(4))
"""
HELD += STEP.replace("W @", "w.v @").replace("R @", "r.v @").replace("B)", "b.v)")
HELD = HELD.replace(
    "GRADIENTS", "w.d, r.d, b.d = np.outer(da, x) * FACTOR, np.outer(da, state), da"
)
NO_MEMORY = HELD.replace(", self.m = v, 0 * v, 0 * v", " = v, 0 * v")
NAMED = "W, R, b = draw(4, 3), draw(4, 4), draw(4)\nvW, vR, vb = 0 * W, 0 * R, 0 * b" + STEP
NAMED = NAMED.replace("B)", "b)").replace(
    "GRADIENTS", "dW, dR, db = np.outer(da, x) * FACTOR, np.outer(da, state), da"
)
LAST = "return e @ e / 2, 1.0 * h"


@pytest.mark.parametrize(
    ("text", "returns"),
    [
        (HELD, LAST),
        (HELD, f"{LAST}, np.array(e)"),
        (NO_MEMORY, LAST),
        (NAMED, "return e @ e / 2, dW, dR, db, 1.0 * h"),
    ],
)
def test_a_state_that_is_returned_is_no_gradient_of_a_buffer(
    text: str, returns: str, tmp_path: Path
) -> None:
    require_comparison(tmp_path, "both", text, returns, "; returned, and not compared: item")


def test_a_parameter_beside_others_is_no_memory(tmp_path: Path) -> None:
    text = NAMED.replace("vW, vR, vb", "u, c, k").replace("+ b)", "+ b + k)")
    found = read(tmp_path, "both", text, "return e @ e / 2, dW, dR, db, db + np.zeros(4)")
    assert {*found.params} == {"W", "R", "b", "k"}


def test_memories_are_told_by_their_holder_or_their_name() -> None:
    def find(found: Any, *paths: Any) -> Any:
        places = {".".join(p): ArrayPlace("self", p, p, np.ones(2)) for p in paths}
        return find_memories(places, found)

    held = [("b", each) for each in ("v", "d", "m")]
    assert find({"b.v": ("self", "b", "d")}, *held, ("c", "m")) == {"b.d", "b.m"}
    named = [(each,) for each in ("W", "dW", "mW", "W_cache", "U", "mU", "k")]
    assert find({"W": ("self", "dW")}, *named) == {"dW", "mW", "W_cache"}
