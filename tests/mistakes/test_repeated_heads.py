"""Keys that several query heads look up: an axis of heads is no time."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes import in_operations, in_sums
from bptt_verifier.mistakes.in_sums import list_step_mistakes
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import trace
from bptt_verifier.report import Mistake
from tests.support.diagnosis import diagnose_planted, ones

rng = np.random.default_rng(6)
G = 2  # query heads of a key
Q, C = rng.normal(size=(4, 3, 2)), rng.normal(size=(4, 3, 2))


def attend(p: Any, xp: Any) -> Any:
    total = 0.0
    for h in range(len(Q)):
        s = (Q[h] @ p["W"]) @ p["k"][h // G].T
        total = total + xp.sum(xp.tanh(s) @ p["v"][h // G] * C[h])
    return total


def attend_back(p: Any) -> Any:
    g = {n: np.zeros_like(x) for n, x in p.items()}
    for h in range(len(Q)):
        q, j = Q[h] @ p["W"], h // G
        y = np.tanh(q @ p["k"][j].T)
        ds = (C[h] @ p["v"][j].T) * (1 - y * y)
        dk, dv = ds.T @ q, y.T @ C[h]
        g["k"][j] += dk
        g["v"][j] += dv
        g["W"] += Q[h].T @ ds @ p["k"][j]
    return g


GROUPED = attend, attend_back, ones(W=(2, 2), k=(2, 3, 2), v=(2, 3, 2))


def explain(*changes: tuple[str, str]) -> Mistake:
    (found,) = diagnose_planted(GROUPED, *changes)
    return found


@pytest.mark.parametrize(
    ("changes", "row", "which"),
    [
        (('g["k"][j] += dk', 'g["k"][j] = dk'), "k", "only its last update"),
        (('g["v"][j] += dv', 'g["v"][j] = dv'), "v", "only its last update"),
        (('g["k"][j] += dk', 'g["k"][j] += dk * (h % G == 0)'), "k", "its first lookup"),
    ],
)
def test_the_gradient_of_one_head_of_a_group_is_that_of_a_repeated_index(
    changes: tuple[str, str], row: str, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = explain(changes)
    assert found.name == "repeated-index"
    assert f'a row of `p["{row}"]`' in found.explanation or f"`{row}`" in found.explanation
    assert which in found.explanation
    assert "step" not in found.explanation
    for module in (in_sums, in_operations):
        monkeypatch.setattr(module, "keeps_one_lookup", lambda *given: False)
    assert explain(changes).name == "missing-time-sum"


def project(p: Any, xp: Any) -> Any:
    total = 0.0
    for h in range(len(Q)):
        total = total + xp.sum(xp.tanh(Q[h] @ p["W"]) * C[h])
    return total


def project_back(p: Any) -> Any:
    g = np.zeros_like(p["W"])
    for h in range(len(Q)):
        g += Q[h].T @ (C[h] * (1 - np.tanh(Q[h] @ p["W"]) ** 2))
    return {"W": g}


def test_a_weight_of_all_heads_is_summed_over_iterations() -> None:
    (found,) = diagnose_planted((project, project_back, ones(W=(2, 2))), ("g += Q", "g = Q"))
    assert found.name == "missing-time-sum"
    assert "only the last iteration is kept in the sum over those of the loop" in found.explanation


def layers(p: Any, xp: Any) -> Any:
    """Two layers at every step, which the state of no other step reaches."""
    total = 0.0
    for q in Q:
        y = q
        for k in range(2):
            y = xp.tanh(y @ p["W"][k])
        total = total + xp.sum(y)
    return total


def test_rows_that_are_looked_up_by_turns_are_layers_at_steps() -> None:
    with use_float64():
        known = structure(trace(layers, ones(W=(2, 2, 2))))
    said = [each.alteration for each in list_step_mistakes(known)]
    assert any("in the gradient of W, only the last iteration" in each for each in said)
