"""Products whose gradient is computed with data that the loss does not read, as X for Â X."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.evidence import Witness
from bptt_verifier.mistakes.in_other_arrays import collect_data, list_alignments
from bptt_verifier.mistakes.own_diagnosis import diagnose
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.recording import record
from bptt_verifier.report import Mistake
from tests.support.diagnosis import ones, plant_in_file, trace_points

rng = np.random.default_rng(5)
N, D, H, T = 5, 3, 4, 3

# A graph network of two layers, in rows.

A = rng.random((N, N)) + np.eye(N)
X, Y = rng.normal(size=(N, D)), rng.normal(size=(N, 2))


def graph_loss(p: Any, xp: Any) -> Any:
    AX = A @ X
    return xp.sum((A @ xp.tanh(AX @ p["W"]) @ p["V"] - Y) ** 2)


def graph_gradients(p: Any) -> Any:
    AX = A @ X
    h = np.tanh(AX @ p["W"])
    do = 2 * (A @ h @ p["V"] - Y)
    da = A.T @ (do @ p["V"].T) * (1 - h**2)
    return {"W": AX.T @ da, "V": (A @ h).T @ do}


# A recurrent network in columns, whose inputs are whitened first, and a forecast of the last state.

RAW = rng.normal(size=(T, D))
SCALE = rng.normal(size=(D, D))


def whitened_run(p: Any, xp: Any) -> Any:
    h = [xp.zeros(H)]
    for t in range(T):
        h.append(xp.tanh(p["U"] @ (SCALE @ RAW[t]) + p["W"] @ h[t]))
    return h


def whitened_loss(p: Any, xp: Any) -> Any:
    return (p["v"] @ whitened_run(p, xp)[-1] - 1) ** 2


def whitened_gradients(p: Any) -> Any:
    h, G = whitened_run(p, np), {k: np.zeros_like(v) for k, v in p.items()}
    dy = 2 * (p["v"] @ h[T] - 1)
    G["v"] = dy * h[T]
    dh = dy * p["v"]
    for t in reversed(range(T)):
        da = dh * (1 - h[t + 1] ** 2)
        G["U"] += np.outer(da, SCALE @ RAW[t])
        G["W"] += np.outer(da, h[t])
        dh = p["W"].T @ da
    return G


# A linear regression on smoothed columns of data, with the data in columns.

COLUMNS = rng.normal(size=(D, N))


def smoothed_loss(p: Any, xp: Any) -> Any:
    return xp.mean((p["W"] @ (COLUMNS @ A) - Y.T) ** 2)


def smoothed_gradients(p: Any) -> Any:
    smoothed = COLUMNS @ A
    d = 2 * (p["W"] @ smoothed - Y.T) / Y.size
    return {"W": d @ smoothed.T}


GRAPH = graph_loss, graph_gradients, ones(W=(D, H), V=(H, 2))
WHITENED = whitened_loss, whitened_gradients, ones(U=(H, D), W=(H, H), v=(H,))
SMOOTHED = smoothed_loss, smoothed_gradients, ones(W=(2, D))
PLANTED: list[tuple[Any, str, str]] = [
    (GRAPH, "AX.T @ da", "X.T @ da"),
    (WHITENED, "np.outer(da, SCALE @ RAW[t])", "np.outer(da, RAW[t])"),
    (SMOOTHED, "d @ smoothed.T", "d @ COLUMNS.T"),
]


def diagnose_recorded(model: Any, path: Path, *changes: tuple[str, str]) -> tuple[Mistake, ...]:
    """Diagnose gradients with these texts of their source changed, which a file has."""
    loss, function, params = model
    gradients = plant_in_file(function, path, *changes)
    program, points = trace_points(loss, tuple((n, v.shape) for n, v in params.items()), float)
    witnesses = []
    for _, wide, true in points:
        errors = {n: 2.0**-40 * np.max(np.abs(v)) * np.ones_like(v) for n, v in true.items()}
        witnesses.append(Witness(wide, gradients(wide), true, errors, True))
    with use_float64():
        return diagnose(program, witnesses, partial(record, gradients))


@pytest.mark.parametrize("model", [GRAPH, WHITENED, SMOOTHED])
def test_nothing_is_wrong_without_a_change(model: Any, tmp_path: Path) -> None:
    assert diagnose_recorded(model, tmp_path / "own.py") == ()


@pytest.mark.table(3)
@pytest.mark.parametrize(("model", "right", "wrong"), PLANTED)
def test_other_data_are_named(model: Any, right: str, wrong: str, tmp_path: Path) -> None:
    (found,) = diagnose_recorded(model, tmp_path / "own.py", (right, wrong))
    assert found.name == "wrong-operand"
    assert f"is computed with other data, in `{wrong}`, where" in found.explanation


def test_what_another_factor_makes_wrong_as_well_is_not_other_data(tmp_path: Path) -> None:
    changes = ("AX.T @ da", "X.T @ np.cos(da)")
    (found,) = diagnose_recorded(GRAPH, tmp_path / "own.py", changes)
    assert found.name == "unknown"


def test_data_are_read_in_the_order_of_the_loss_and_against_it_transposed_or_not() -> None:
    one, other = np.ones((2, 3)), np.zeros((2, 3))
    right = [np.zeros((3, 2)), np.zeros((3, 2))]
    forward, backward = list_alignments([one, other], right)
    assert [each.max() for each in forward] == [1, 0]
    assert [each.max() for each in backward] == [0, 1]
    assert {each.shape for each in [*forward, *backward]} == {(3, 2)}
    assert [len(each) for each in list_alignments([one], right)] == [2]
    assert [*list_alignments([one, other, one], right)] == []
    assert [*list_alignments([np.ones(5)], right)] == []


def test_what_depends_on_the_parameters_is_no_data(tmp_path: Path) -> None:
    gradients = plant_in_file(graph_gradients, tmp_path / "own.py")
    with use_float64():
        found = collect_data(record(gradients, GRAPH[2]), len(GRAPH[2]))
    read = {(place.expression, value.shape) for place, values in found for value in values}
    assert ("AX.T @ da", (D, N)) in read
    assert ("AX.T @ da", (N, H)) not in read
    assert not any(shape == (H, 2) for _, shape in read)
