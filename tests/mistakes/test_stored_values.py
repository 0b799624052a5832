"""The place of a right value that `=` keeps where `+=` belongs is its assignment, or none."""

import linecache
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes import guessed_lines
from bptt_verifier.mistakes.evidence import Witness
from bptt_verifier.mistakes.own_diagnosis import diagnose
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.recording import record
from bptt_verifier.program.source_lines import Place
from bptt_verifier.report import Mistake
from tests.support.diagnosis import ones, trace_points

T, H = 5, 4
X, Y = np.random.default_rng(4).normal(size=(2, T, H))
SHAPES = ones(U=(H, H), W=(H, H), b=(H,))

SOURCE = """import numpy as np

class Of:
    def __init__(self, values):
        self.__dict__.update(values)

def gradients(p):
    h = [np.zeros(H)]
    for t in range(T):
        h.append(np.tanh(p["U"] @ X[t] + p["W"] @ h[t] + p["b"]))
    G = {name: np.zeros_like(value) for name, value in p.items()}
    g, layers = Of({"b": np.zeros(H)}), {"rnn": {"b": np.zeros(H)}}
    later = np.zeros(H)
    for t in reversed(range(T)):
        da = (2 * (h[t + 1] - Y[t]) + later) * (1 - h[t + 1] ** 2)
        G["U"] += np.outer(da, X[t]); G["W"] += np.outer(da, h[t]); KEEP
        later = p["W"].T @ da
    return RESULT
"""


def loss(p: Any, xp: Any) -> Any:
    h, total = xp.zeros(H), 0.0
    for t in range(T):
        h = xp.tanh(p["U"] @ X[t] + p["W"] @ h + p["b"])
        total = total + xp.sum((h - Y[t]) ** 2)
    return total


def diagnose_kept(path: Path, keep: str, result: str = "G") -> Mistake:
    """Diagnose a backward pass that keeps the gradient of b so."""
    path.write_text(SOURCE.replace("KEEP", keep).replace("RESULT", result))
    linecache.checkcache(str(path))
    space: dict[str, Any] = {"T": T, "H": H, "X": X, "Y": Y}
    exec(compile(path.read_text(), str(path), "exec"), space)
    gradients: Callable[[Any], Any] = space["gradients"]
    shapes = tuple((name, value.shape) for name, value in SHAPES.items())
    program, points = trace_points(loss, shapes, np.dtype(float))
    witnesses = []
    for _, wide, true in points:
        errors = {n: np.full_like(v, 2.0**-40 * np.max(np.abs(v))) for n, v in true.items()}
        witnesses.append(Witness(wide, gradients(wide), true, errors, True))
    with use_float64():
        (found,) = diagnose(program, witnesses, partial(record, gradients))
    return found


KEPT = {
    "an entry of a dict": ('G["b"] = da', "G"),
    "a copy": ('G["b"] = da.copy()', "G"),
    "an attribute": ("g.b = da", 'G | {"b": g.b}'),
    "a dict of dicts": ('layers["rnn"]["b"] = da', 'G | {"b": layers["rnn"]["b"]}'),
    "a variable": ("db = np.array(da)", 'G | {"b": db}'),
}


@pytest.mark.parametrize("name", KEPT)
def test_the_place_of_a_value_that_is_kept_is_its_assignment(tmp_path: Path, name: str) -> None:
    keep, result = KEPT[name]
    found = diagnose_kept(tmp_path / "kept.py", keep, result)
    assert found.name == "bias-part-missing", found.explanation
    assert found.details["backward_guess"]["expression"] == keep, found.explanation
    assert f"look at `{keep}`" in found.explanation
    assert "np.outer" not in found.explanation


def test_of_several_assignments_the_one_of_the_parameter_is_told(tmp_path: Path) -> None:
    found = diagnose_kept(tmp_path / "kept.py", 'last = da; G["b"] = da')
    assert found.details["backward_guess"]["expression"] == 'G["b"] = da'
    found = diagnose_kept(tmp_path / "kept.py", "one = da; two = one; last = da", 'G | {"b": two}')
    assert found.name == "bias-part-missing"
    assert "backward_guess" not in found.details, found.explanation


def test_no_place_is_told_where_a_right_value_is_handed_on(tmp_path: Path) -> None:
    found = diagnose_kept(tmp_path / "kept.py", "G.update(b=da)")
    assert found.name == "bias-part-missing"
    assert "backward_guess" not in found.details, found.explanation


def test_without_the_rule_an_operation_that_reads_the_value_is_accused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guessed_lines, "is_used", lambda recorded, number: False)
    found = diagnose_kept(tmp_path / "kept.py", 'G["b"] = da')
    assert found.details["backward_guess"]["expression"].startswith("np.outer")


def test_a_gradient_that_equals_another_has_no_line_of_its_own(tmp_path: Path) -> None:
    found = diagnose_kept(tmp_path / "kept.py", 'G["b"] += da', 'G | {"W": G["U"]}')
    assert found.name == "wrong-operand", found.explanation
    assert "backward_guess" not in found.details, found.explanation


def test_a_place_in_a_file_that_is_no_python_is_not_searched(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("d = a * b\ndef (\n")
    assert guessed_lines.find_stored(Place(str(path), 1, 4, 9), "b") is None
    assert guessed_lines.find_stored(None, "b") is None
    path = tmp_path / "alone.py"
    path.write_text("d = a * b\nG['b'] = d\n")
    found = guessed_lines.find_stored(Place(str(path), 1, 4, 9), "b")
    assert found is not None
    assert found.expression == "G['b'] = d"
