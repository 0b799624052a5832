"""Random outputs and targets as fractions, and the losses that Rocq and manual_bptt compute there.

In place of exp, log and σ stand the quadratic functions of proofs/rationals.v.
"""

import random
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from bptt_verifier.proofs.theorems import find_coqc
from manual_bptt import losses
from manual_bptt.activations import Array
from tests.support.fractions_in_rocq import (
    PRINTED,
    SIGMA,
    TAU,
    VALUES,
    fraction_term,
    preamble,
    table_term,
)
from tests.support.rocq import print_answers

# The losses in Rocq: their functions besides ν, and those of their gradients.
ARGUMENTS = {
    "mse": ("nu", "nu"),
    "half_sse": ("half", ""),
    "mae": ("maximum nu", "sign nu"),
    "huber": ("maximum nu half", "maximum nu"),
    "softmax_cross_entropy": ("maximum tau sigma nu", "maximum tau sigma nu"),
    "binary_cross_entropy": ("maximum tau sigma nu", "sigma nu"),
}
GRADIENTS = {"softmax_cross_entropy": "softmax", "binary_cross_entropy": "binary"}


as_fractions = np.vectorize(Fraction, otypes=[object])


class LossInput(NamedTuple):
    """The prediction and the target of a loss."""

    loss: str
    prediction: Array
    y: Array


def draw_loss_input(rng: random.Random, loss: str) -> LossInput:
    """Draw up to 3 rows of up to 3 fractions; some residuals are zero."""
    rows, columns = rng.randint(1, 3), rng.randint(1, 3)

    def draw() -> Array:
        entries = [rng.choice(VALUES) for _ in range(rows * columns)]
        return np.array(entries, dtype=object).reshape(rows, columns)

    return LossInput(loss, draw(), draw())


def losses_by_hand(given: LossInput, monkeypatch: pytest.MonkeyPatch) -> tuple[Fraction, Array]:
    """The loss and ∂L/∂ŷ of manual_bptt."""
    functions: dict[str, Any] = {"exp": TAU.function, "log": SIGMA.function}
    functions["log1p"] = lambda a: SIGMA.function(1 + a)
    # Of fractions, these two return whole numbers, whose quotients would be floats.
    functions["sign"] = lambda r: as_fractions(np.sign(r))
    functions["clip"] = lambda *given: as_fractions(np.clip(*given))
    monkeypatch.setattr(losses, "np", SimpleNamespace(**(vars(np) | functions)))
    monkeypatch.setattr(losses, "logistic", SIGMA.function)
    return losses.value_and_gradient(given.loss, given.prediction, given.y)


def loss_question(given: LossInput) -> str:
    """The command with which Rocq computes and prints the loss and its gradient."""
    rows, columns = given.y.shape
    mean = rows if given.loss == "softmax_cross_entropy" else rows * columns
    value, gradient = ARGUMENTS[given.loss]
    name = f"list_{GRADIENTS.get(given.loss, given.loss)}_gradient"
    arguments = [table_term(given.prediction), table_term(given.y)]

    def call(function: str, functions: str) -> str:
        sizes = f"{rows} {columns}"
        return f"@{function} Qc_comRingType {functions} {sizes} {' '.join(arguments)}"

    return (
        f"Eval vm_compute in let nu := {fraction_term(Fraction(1, mean))} in "
        f"let half := fraction 1 2 in plain [:: [:: [:: {call(f'list_{given.loss}', value)}]]; "
        f"{call(name, gradient)}].\n"
    )


def losses_in_rocq(inputs: Iterable[LossInput], folder: Path) -> list[tuple[Fraction, Array]]:
    """The losses of the theorems and their gradients, by the compiled files of a folder."""
    inputs = list(inputs)
    text = preamble("losses_lists") + "Import losses_lists.\n" + "".join(map(loss_question, inputs))
    found = []
    answers = print_answers(find_coqc(), text, folder)
    for given, answer in zip(inputs, answers, strict=True):
        value, *entries = [Fraction(int(n), int(d)) for n, d in PRINTED.findall(answer)]
        found.append((value, np.array(entries, dtype=object).reshape(given.y.shape)))
    return found
