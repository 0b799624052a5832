"""The line of the backward pass that makes a mistake: found by its numbers, guessed, or none."""

import linecache
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes import backward_lines, guessed_lines
from bptt_verifier.mistakes.backward_lines import find_multiple, write_flipped
from bptt_verifier.mistakes.evidence import Witness
from bptt_verifier.mistakes.own_diagnosis import diagnose
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.recording import record
from bptt_verifier.report import Mistake
from tests.support.diagnosis import trace_points

T, B, H = 4, 3, 4
X, Y = np.random.default_rng(3).normal(size=(2, T, B, H))
PARAMS = {name: np.ones((H, H)) for name in "UWV"}
HEADS_PARAMS = {name: np.ones((H, H)) for name in "UMS"}

RIGHT = """import numpy as np

def times(d, weight):
    return d @ weight

def gradients(p):
    h = [np.zeros((B, H))]
    for t in range(T):
        h.append(np.tanh(X[t] @ p["U"] + h[t] @ p["W"]))
    G = {name: np.zeros_like(value) for name, value in p.items()}
    later = np.zeros((B, H))
    for t in reversed(range(T)):
        dy = 2 * (h[t + 1] @ p["V"] - Y[t])
        G["V"] += h[t + 1].T @ dy
        dh = times(dy, p["V"].T) + later
        da = dh * (1 - h[t + 1] ** 2)
        G["U"] += X[t].T @ da
        G["W"] += h[t].T @ da
        later = times(da, p["W"].T)
    return G
"""
INLINE = RIGHT.replace('times(da, p["W"].T)', 'da @ p["W"].T')


def loss(p: Any, xp: Any) -> Any:
    h, total = xp.zeros((B, H)), 0.0
    for t in range(T):
        h = xp.tanh(X[t] @ p["U"] + h @ p["W"])
        total = total + xp.sum((h @ p["V"] - Y[t]) ** 2)
    return total


def write(path: Path, source: str) -> Callable[[Any], Any]:
    """Write a submission to a file, from which its lines are read, and run it."""
    path.write_text(source)
    linecache.checkcache(str(path))
    space: dict[str, Any] = {"T": T, "B": B, "H": H, "X": X, "Y": Y, "C": C}
    exec(compile(source, str(path), "exec"), space)
    gradients: Callable[[Any], Any] = space["gradients"]
    return gradients


def diagnose_file(
    path: Path, source: str, right: str, wrong: str, loss: Callable[..., Any] = loss
) -> tuple[Mistake, ...]:
    assert source.count(right) == 1
    gradients = write(path, source.replace(right, wrong))
    params = HEADS_PARAMS if loss is heads_loss else PARAMS
    program, points = trace_points(loss, tuple((n, v.shape) for n, v in params.items()), float)
    witnesses = []
    for _, wide, true in points:
        errors = {n: 2.0**-40 * np.max(np.abs(v)) * np.ones_like(v) for n, v in true.items()}
        witnesses.append(Witness(wide, gradients(wide), true, errors, True))
    with use_float64():
        return diagnose(program, witnesses, partial(record, gradients))


@pytest.mark.parametrize(
    ("right", "wrong", "expression", "correction"),
    [
        ('da @ p["W"].T', 'da @ p["W"]', 'da @ p["W"]', 'da @ p["W"].T'),
        ("h[t].T @ da", "h[t + 1].T @ da", "h[t + 1].T @ da", None),
        ("(1 - h[t + 1] ** 2)", "(1 - np.tanh(h[t + 1]) ** 2)", None, None),
    ],
)
def test_the_expression_that_computes_the_wrong_numbers_is_shown(
    tmp_path: Path, right: str, wrong: str, expression: str | None, correction: str | None
) -> None:
    (mistake,) = diagnose_file(tmp_path / "own.py", INLINE, right, wrong)
    found = mistake.details["backward"]
    line = next(n for n, text in enumerate(INLINE.splitlines(), 1) if right in text)
    assert found["file_line"] == f"{tmp_path / 'own.py'}:{line}"
    assert found["expression"] == (expression or f"dh * {wrong}")
    assert found["right"] == correction
    said = f"should be `{correction}`" if correction else "computes the wrong term"
    assert f"In your backward pass, `{found['expression']}`" in mistake.explanation
    assert said in mistake.explanation


def test_of_a_function_with_several_callers_the_call_is_shown(tmp_path: Path) -> None:
    wrong = 'times(da, p["W"])'
    (mistake,) = diagnose_file(tmp_path / "own.py", RIGHT, 'times(da, p["W"].T)', wrong)
    assert mistake.details["backward"]["expression"] == wrong
    assert mistake.details["backward"]["right"] is None


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("+ later", "+ 0 * later"),
        ("dh * (1 - h[t + 1] ** 2)", "1 * dh"),
        ('da @ p["W"].T', '(da @ p["W"]) + 0 * (da @ p["W"].T)'),
        ('da @ p["W"].T', "np.frombuffer(da.tobytes()).reshape(B, H) @ p['W']"),
    ],
    ids=["a path is cut", "nothing is computed", "the right one occurs", "it cannot be recorded"],
)
def test_no_expression_is_shown_without_evidence(tmp_path: Path, right: str, wrong: str) -> None:
    found = diagnose_file(tmp_path / "own.py", INLINE, right, wrong)
    assert found
    assert all("backward" not in mistake.details for mistake in found)
    assert not any("In your backward pass" in mistake.explanation for mistake in found)


def test_an_array_is_found_in_any_layout_and_scale_but_not_by_chance() -> None:
    a = np.random.default_rng(0).normal(size=(3, 4))
    assert find_multiple(a.T, a) == pytest.approx(1)
    assert find_multiple(-2 * a.reshape(2, 6), a) == pytest.approx(-2)
    assert not find_multiple(a + 1e-7, a)
    assert not find_multiple(a[:2], a)
    assert not find_multiple(2 * a[0, :1], a[0, :1])  # any number is a multiple of another
    assert not find_multiple(a > 0, a)


@pytest.mark.parametrize(
    ("expression", "flip", "written"),
    [
        ("da @ W.T", (False, True), "da @ W"),
        ("da @ W", (False, True), "da @ W.T"),
        ("np.dot(W, da)", (True, False), "np.dot(W.T, da)"),
        ("W.T.dot(da)", (True, False), "W.dot(da)"),
        ("(a + b) @ W", (True, False), "(a + b).T @ W"),
        ("np.einsum('ij,j', W, da)", (True, False), ""),
        ("da @", (True, False), ""),
    ],
)
def test_a_product_is_written_with_operands_transposed(
    expression: str, flip: tuple[bool, bool], written: str
) -> None:
    assert write_flipped(expression, flip) == written


@pytest.mark.parametrize(
    ("right", "wrong", "expression"),
    [
        (" + later", "", "d @ weight"),
        (" + later", " + 2 * later", 'times(dy, p["V"].T) + 2 * later'),
        ('G["V"] += h[t + 1].T @ dy', 'G["V"] = h[t + 1].T @ dy', "h[t + 1].T @ dy"),
        ('G["W"] += h[t].T @ da', 'G["W"] -= h[t].T @ da', 'G["W"] -= h[t].T @ da'),
        ("    return G", '    G["U"] = G["U"] / 2\n    return G', 'G["U"] / 2'),
    ],
)
def test_the_line_that_has_the_wrong_gradient_is_guessed(
    right: str, wrong: str, expression: str, tmp_path: Path
) -> None:
    (mistake,) = diagnose_file(tmp_path / "wrong.py", INLINE, right, wrong)
    guess = mistake.details["backward_guess"]
    assert guess["expression"] == expression, mistake.explanation
    assert f"A guess: look at `{expression}`" in mistake.explanation
    assert "backward" not in mistake.details  # nothing is said for certain


def test_a_line_that_is_certain_is_no_guess(tmp_path: Path) -> None:
    change = 'da @ p["W"].T', 'da @ p["W"]'
    (mistake,) = diagnose_file(tmp_path / "wrong.py", INLINE, *change)
    assert "backward" in mistake.details
    assert "backward_guess" not in mistake.details
    assert "A guess" not in mistake.explanation


def test_a_line_whose_value_nothing_reads_is_not_guessed(tmp_path: Path) -> None:
    source = INLINE.replace(" + later\n", ' + later\n        same = dy @ p["V"].T\n')
    (mistake,) = diagnose_file(tmp_path / "wrong.py", source, " + later\n", "\n")
    guess = mistake.details["backward_guess"]
    assert "same" not in str(guess)
    assert 'dy @ p["V"].T' not in str(guess)


def leaky_loss(p: Any, xp: Any) -> Any:
    h, total = xp.zeros((B, H)), 0.0
    for t in range(T):
        h = 0.5 * h + xp.tanh(X[t] @ p["U"] + h @ p["W"])
        total = total + xp.sum((h @ p["V"] - Y[t]) ** 2)
    return total


LEAKY = """import numpy as np

def gradients(p):
    h, a = [np.zeros((B, H))], []
    for t in range(T):
        a.append(np.tanh(X[t] @ p["U"] + h[t] @ p["W"]))
        h.append(0.5 * h[t] + a[t])
    G = {name: np.zeros_like(value) for name, value in p.items()}
    kept = np.zeros((B, H))
    for t in reversed(range(T)):
        dy = 2 * (h[t + 1] @ p["V"] - Y[t])
        G["V"] += h[t + 1].T @ dy
        dh = kept + dy @ p["V"].T
        dc = dh * (1 - a[t] ** 2)
        parts = np.concatenate([X[t], h[t]], axis=1)
        joined = parts.T @ dc
        G["U"] += joined[:H]
        G["W"] += joined[H:]
        through = dc @ p["W"].T
        rest = 0.5 * dh
        kept = through + rest
    return G
"""


@pytest.mark.parametrize(
    ("right", "wrong", "expressions"),
    [
        ("rest = 0.5 * dh", "rest = dh", ["rest = dh"]),
        ("rest = 0.5 * dh", "rest = -0.5 * dh", ["-0.5 * dh"]),
        ("kept = through + rest", "kept = through - rest", ["through - rest"]),
        ("(1 - a[t] ** 2)", "(1 - np.tanh(a[t]) ** 2)", ["dh * (1 - np.tanh(a[t]) ** 2)"]),
        ("through = dc @ p", "through = dh @ p", ["dh @ p"]),
    ],
)
def test_the_line_is_told_from_those_that_come_after_it(
    right: str, wrong: str, expressions: list[str], tmp_path: Path
) -> None:
    diagnosed = diagnose_file(tmp_path / "wrong.py", LEAKY, right, wrong, leaky_loss)
    assert diagnosed
    for mistake in diagnosed:
        found = mistake.details.get("backward") or mistake.details.get("backward_guess")
        assert found is not None, mistake.explanation
        lines = [found, *found.get("alternatives", [])]
        assert len(lines) == len(expressions), mistake.explanation
        for line, expression in zip(lines, expressions, strict=True):
            assert line["expression"].startswith(expression), mistake.explanation


HEADS = """import numpy as np

def gradients(p):
    h = np.tanh(X[0] @ p["U"])
    m, s = h @ p["M"][:, :3] + p["M"][0, :3], h @ p["S"][:, :3] + p["S"][0, :3]
    G = {name: np.zeros_like(value) for name, value in p.items()}
    dm = m * np.exp(s) / B
    ds = 0.5 * np.exp(s) * m ** 2 / B
    dh = 0
    for name, d in (("M", dm), ("S", ds)):
        G[name][:, :3] += h.T @ d
        G[name][0, :3] += d.sum(0)
        dh = dh + d @ p[name][:, :3].T
    G["U"] += X[0].T @ (dh * (1 - h ** 2))
    return G
"""


def heads_loss(p: Any, xp: Any) -> Any:
    h = xp.tanh(X[0] @ p["U"])
    m = h @ p["M"][:, :3] + p["M"][0, :3]
    s = h @ p["S"][:, :3] + p["S"][0, :3]
    return xp.sum(0.5 * m**2 * xp.exp(s)) / B


@pytest.mark.parametrize(
    ("right", "wrong", "expression"),
    [
        ("ds = 0.5 * ", "ds = -0.5 * ", "-0.5 * np.exp(s) * m ** 2 / B"),
        ("dm = m * np.exp(s) / B", "dm = -m * np.exp(s) / B", "-m * np.exp(s) / B"),
        ("dm = m * np.exp(s) / B", "dm = m / B", "m / B"),
    ],
)
def test_a_line_that_several_gradients_share_is_not_called_wrong(
    right: str, wrong: str, expression: str, tmp_path: Path
) -> None:
    (mistake,) = diagnose_file(tmp_path / "wrong.py", HEADS, right, wrong, heads_loss)
    found = mistake.details.get("backward") or mistake.details["backward_guess"]
    assert found["expression"] == expression, mistake.explanation
    assert "alternatives" not in found


PAIRS = """import numpy as np

def term(v, u):
    p = 1 / (1 + np.exp(-u @ v))
    return (p - 1) * u, (p - 1) * v

def gradients(p):
    G = {name: np.zeros_like(value) for name, value in p.items()}
    for t in range(T):
        gv, gu = term(p["M"][t], p["M"][T + t])
        G["M"][t] += gv / 7
        G["M"][T + t] += gu / 7
    return G
"""


def pairs_loss(p: Any, xp: Any) -> Any:
    """Pairs of words, each of one half of the vectors."""
    total = 0.0
    for t in range(T):
        total = total + xp.log(1 + xp.exp(-p["M"][t] @ p["M"][T + t])) / 7
    return total


@pytest.mark.parametrize("size", [3, 5])
def test_a_factor_that_another_gradient_is_divided_by_has_no_line(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = {"M": np.ones((2 * T, size))}
    monkeypatch.setitem(globals(), "PARAMS", params)
    found = diagnose_file(tmp_path / "pairs.py", PAIRS, "gv / 7", "gv", pairs_loss)
    assert found[0].name == "constant-factor", found
    assert not {"backward", "backward_guess"} & found[0].details.keys(), found
    monkeypatch.setattr(guessed_lines, "divides_elsewhere", lambda changes, recorded: False)
    monkeypatch.setattr(backward_lines, "is_scale", lambda change: False)
    found = diagnose_file(tmp_path / "pairs.py", PAIRS, "gv / 7", "gv", pairs_loss)
    assert {"backward", "backward_guess"} & found[0].details.keys(), found


CELLS = """import numpy as np

def gradients(p):
    f = 1 / (1 + np.exp(-X @ p["F"]))
    g = np.tanh(X @ p["G"])
    C = [np.zeros((B, H))]
    for t in range(T):
        C.append(f[t] * C[t] + g[t])
    dC, dF, dG = np.zeros((T, B, H)), np.zeros((H, H)), np.zeros((H, H))
    for t in reversed(range(T)):
        dC[t] += (1 - np.tanh(C[t + 1]) ** 2) * Y[t]
        df = C[t] * dC[t]
        if t > 0:
            dC[t - 1] = f[t] * dC[t]
        dF += X[t].T @ (df * f[t] * (1 - f[t]))
        dG += X[t].T @ (dC[t] * (1 - g[t] ** 2))
    return {"F": dF, "G": dG}
"""


def cells_loss(p: Any, xp: Any) -> Any:
    """A cell that forgets by a gate of the input alone."""
    c, total = xp.zeros((B, H)), 0.0
    for t in range(T):
        f = 1 / (1 + xp.exp(-X[t] @ p["F"]))
        c = f * c + xp.tanh(X[t] @ p["G"])
        total = total + xp.sum(xp.tanh(c) * Y[t])
    return total


def test_an_entry_that_is_copied_without_its_factor_is_guessed_where_it_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "PARAMS", {name: np.ones((H, H)) for name in "FG"})
    change = "dC[t - 1] = f[t] * dC[t]", "dC[t - 1] = dC[t]"
    (found,) = diagnose_file(tmp_path / "cells.py", CELLS, *change, cells_loss)
    assert found.name == "factor-missing", found
    assert found.details["backward_guess"]["expression"] == "dC[t - 1] = dC[t]"
    monkeypatch.setattr(guessed_lines, "find_entry", guessed_lines.find_target)
    (found,) = diagnose_file(tmp_path / "cells.py", CELLS, *change, cells_loss)
    assert found.details["backward_guess"]["expression"].startswith("dC[t] +=")


STEPS = (
    RIGHT.replace(
        "def times",
        """def step(dh, x, before, h):
    da = dh * (1 - h ** 2)
    dU = x.T @ da
    return da, {"U": dU, "W": before.T @ da}

def times""",
    )
    .replace("        da = dh * (1 - h[t + 1] ** 2)\n", "")
    .replace('        G["U"] += X[t].T @ da\n', "        da, g = step(dh, X[t], h[t], h[t + 1])\n")
    .replace('        G["W"] += h[t].T @ da\n', "        for k in g:\n            G[k] += g[k]\n")
)


def test_a_right_term_that_a_function_returns_and_the_loop_does_not_add_is_not_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = "G[k] += g[k]", "G[k] = g[k]"
    (found,) = diagnose_file(tmp_path / "steps.py", STEPS, *change)
    assert found.name == "missing-time-sum", found
    assert not {"backward", "backward_guess"} & found.details.keys(), found
    monkeypatch.setattr(guessed_lines, "is_returned_to_loop", lambda made, places: False)
    (found,) = diagnose_file(tmp_path / "steps.py", STEPS, *change)
    assert found.details["backward_guess"]["expression"] == "x.T @ da"


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("self.dW = x.T @ da", True),
        ("G['W'] = x.T @ da", True),
        ("dW = x.T @ da", False),
        ("return x.T @ da", False),
        ('"dW": x.T @ da,', False),
    ],
)
def test_what_a_line_writes_to_an_entry_or_an_attribute_is_kept(line: str, kept: bool) -> None:
    assert guessed_lines.keeps(line) is kept


C = np.random.default_rng(5).normal(size=(B, B))
SIMILAR = """import numpy as np

def gradients(p):
    h = np.tanh(X[0] @ p["U"] + X[1] @ p["W"])
    u = h @ p["V"]
    g = C * np.exp(u @ u.T / 10) / 10
    du = (g + g.T) @ u
    da = du @ p["V"].T * (1 - h ** 2)
    return {"V": h.T @ du, "U": X[0].T @ da, "W": X[1].T @ da}
"""


def similarities_loss(p: Any, xp: Any) -> Any:
    u = xp.tanh(X[0] @ p["U"] + X[1] @ p["W"]) @ p["V"]
    return xp.sum(C * xp.exp(u @ u.T / 10))


def test_a_line_that_computes_two_terms_is_not_corrected_as_if_it_were_one(tmp_path: Path) -> None:
    path, right = tmp_path / "own.py", "(g + g.T) @ u"
    (mistake,) = diagnose_file(path, SIMILAR, right, "2 * g @ u", similarities_loss)
    assert mistake.name == "wrong-operand"
    assert mistake.details["backward"]["expression"] == "2 * g @ u"
    assert mistake.details["backward"]["right"] is None
    (mistake,) = diagnose_file(path, SIMILAR, right, "g @ u + g @ u", similarities_loss)
    assert mistake.details.get("backward", {}).get("right") is None
