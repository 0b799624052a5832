"""Mistakes in a softmax, of rows and columns, shifted by its largest score and not."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.evidence import Witness, make_evidence
from bptt_verifier.mistakes.softmaxes import detach_shifts
from bptt_verifier.program.backward import backward
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.trace import Program, forward, trace
from tests.support.diagnosis import diagnose_numbers

X = np.random.default_rng(0).normal(size=(3, 2))
ROWS, LABELS = np.arange(3), np.array([3, 0, 1])
PARAMS = {"W": np.ones((2, 4))}


def cross_entropy(scores: Any, xp: Any, kind: str) -> Any:
    """Of three rows of four scores, or of as many columns, written in one of the usual ways."""
    axis, every = (0, (LABELS, ROWS)) if "columns" in kind else (1, (ROWS, LABELS))
    if "shifted" in kind:
        scores = scores - xp.max(scores, axis=axis, keepdims=True)
    e = xp.exp(scores)
    if "logarithms" in kind:
        return -xp.mean((scores - xp.log(xp.sum(e, axis=axis, keepdims=True)))[every])
    return -xp.mean(xp.log((e / xp.sum(e, axis=axis, keepdims=True))[every]))


KINDS = ["rows", "shifted rows", "shifted rows of logarithms", "columns", "shifted columns"]


@pytest.mark.table(4)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", ["the other axis", "all axes", "none", "plus", "no p"])
def test_a_softmax_over_other_axes_is_named(kind: str, wrong: str) -> None:
    columns = "columns" in kind

    def loss(p: Any, xp: Any) -> Any:
        scores = X @ p["W"]
        return cross_entropy(scores.T if columns else scores, xp, kind)

    def gradients(p: Any) -> dict[str, Any]:
        e = np.exp(X @ p["W"])
        axis = {"the other axis": 0, "all axes": None}.get(wrong, 1)
        dz = e / np.sum(e, axis=axis, keepdims=True)
        dz *= wrong != "no p"
        dz[ROWS, LABELS] += 1 if wrong == "plus" else -1
        return {"W": X.T @ dz / 3}

    others = {"none": [], "plus": ["sign-flipped"], "no p": ["softmax-denominator"]}
    expected = others.get(wrong, ["softmax-over-wrong-axis"])
    found = diagnose_numbers(loss, PARAMS, gradients)
    assert [mistake.name for mistake in found] == expected, found


def detach(loss: Any) -> tuple[Program, Program]:
    with use_float64():
        program = trace(loss, PARAMS)
        point = {"W": np.random.default_rng(1).normal(size=(2, 4))}
        values = forward(program, point)
        true = {name: value[0] for name, value in backward(program, values).items()}
    witness = Witness(point, true, true, {"W": 1e-12 * np.ones((2, 4))}, True)
    case = make_evidence(values, 1, witness, {"W": None})
    return program, detach_shifts(program, [case])


def test_what_is_subtracted_for_safety_is_detached() -> None:
    program, found = detach(lambda p, xp: cross_entropy(X @ p["W"], xp, "shifted rows"))
    assert len(found.constants) == len(program.constants) + 1


def test_a_largest_score_that_the_loss_depends_on_is_not_detached() -> None:
    def loss(p: Any, xp: Any) -> Any:
        scores = X @ p["W"]
        return xp.sum((scores - xp.max(scores, axis=1, keepdims=True)) ** 2)

    program, found = detach(loss)
    assert found is program
