"""Parts of one flat vector of parameters: which are right, and which are wrong."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.parts import find_parts
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import trace
from tests.support.diagnosis import diagnose_numbers

X = np.random.default_rng(1).normal(size=(4, 2))
H = 3
SIZE = 2 * H + H * H + H


def run(U: Any, W: Any, v: Any, xp: Any) -> Any:
    h = xp.zeros(H)
    for x in X:
        h = xp.tanh(U @ x + W @ h)
    return (v @ h) ** 2


def by_offsets(p: Any, xp: Any) -> Any:
    i, theta = 0, p["theta"]
    Wx = theta[i : i + 2 * H].reshape(H, 2)
    i += 2 * H
    Wh = theta[i : i + H * H].reshape(H, H)
    i += H * H
    wo = theta[i:]
    return run(Wx, Wh, wo, xp)  # fmt: skip


def at_once(p: Any, xp: Any) -> Any:
    t = p["theta"]
    Wx, Wh, wo = t[:6].reshape(H, 2), t[6:15].reshape(H, H), t[15:]
    return run(Wx, Wh, wo, xp)


def without_names(p: Any, xp: Any) -> Any:
    t = p["theta"]
    return run(t[:6].reshape(H, 2), t[6:15].reshape(H, H), t[15:], xp)


def overlapping(p: Any, xp: Any) -> Any:
    a, b = p["theta"][:10], p["theta"][8:]
    return xp.sum(a**2) + xp.sum(b**3)


def by_step(p: Any, xp: Any) -> Any:
    h = 0.0
    for t in range(SIZE):
        h = xp.tanh(h + p["theta"][t])
    return h


def strided(p: Any, xp: Any) -> Any:
    a, b = p["theta"][::2], p["theta"][1::2]
    return xp.sum(a**2) + xp.sum(b**3)


def find_names(loss: Callable[..., Any]) -> list[str]:
    with use_float64():
        known = structure(trace(loss, {"theta": np.ones(SIZE)}))
    return [part.name for part in find_parts(known, "theta")]


@pytest.mark.parametrize("loss", [by_offsets, at_once])
def test_a_part_has_the_name_that_the_source_gives_it(loss: Callable[..., Any]) -> None:
    assert find_names(loss) == ["Wx", "Wh", "wo"]


def test_a_part_without_a_name_is_told_by_its_range() -> None:
    assert find_names(without_names) == ["theta[0:6]", "theta[6:15]", "theta[15:18]"]


@pytest.mark.parametrize("loss", [overlapping, by_step, strided])
def test_what_is_no_unpacking_has_no_parts(loss: Callable[..., Any]) -> None:
    assert find_names(loss) == []


def gradients(p: Any) -> Any:
    """Compute the right gradient of `by_offsets`."""
    U, W, v = p["theta"][:6].reshape(H, 2), p["theta"][6:15].reshape(H, H), p["theta"][15:]
    h = [np.zeros(H)]
    for x in X:
        h.append(np.tanh(U @ x + W @ h[-1]))
    dU, dW, d = np.zeros_like(U), np.zeros_like(W), 2 * (v @ h[-1]) * v
    for t in reversed(range(4)):
        d = d * (1 - h[t + 1] ** 2)
        dU, dW, d = dU + np.outer(d, X[t]), dW + np.outer(d, h[t]), W.T @ d
    return {"theta": np.concatenate([dU.ravel(), dW.ravel(), 2 * (v @ h[-1]) * h[-1]])}


@pytest.mark.table(2)
@pytest.mark.parametrize(
    ("wrong", "name"),
    [(lambda g: 3 * g[6:15], "constant-factor"), (lambda g: g[6:15] ** 2, "unknown")],
)
def test_a_report_says_which_parts_are_right(wrong: Callable[[Any], Any], name: str) -> None:
    def submitted(p: Any) -> Any:
        right = gradients(p)["theta"]
        return {"theta": np.concatenate([right[:6], wrong(right), right[15:]])}

    params = {"theta": np.ones(SIZE)}
    assert diagnose_numbers(by_offsets, params, gradients) == ()
    (found,) = diagnose_numbers(by_offsets, params, submitted)
    said = "Of the parts of ∂L/∂theta, `Wx` and `wo` are right, and `Wh` is wrong."
    assert (found.name, said in found.explanation) == (name, True), found


def test_where_every_part_is_wrong_none_is_listed() -> None:
    def submitted(p: Any) -> Any:
        return {"theta": -gradients(p)["theta"]}

    (found,) = diagnose_numbers(by_offsets, {"theta": np.ones(SIZE)}, submitted)
    assert "Of the parts" not in found.explanation
