"""Random inputs of a cell as fractions, and the gradients that Rocq and manual_bptt compute there.

In place of tanh and σ stand the functions of proofs/rationals.v: quadratic, or lines at T = 3.
"""

import random
import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

from bptt_verifier.proofs.theorems import find_coqc
from manual_bptt import gru, jacobian_sum, lstm, rnn, rtrl
from manual_bptt.activations import Activation, Array
from tests.support.rocq import print_answers

CELLS: dict[str, ModuleType] = {"rnn": rnn, "lstm": lstm, "gru": gru}
GATES = {
    "rnn": (),
    "lstm": ("input", "forget", "candidate", "output"),
    "gru": ("reset", "update", "candidate"),
}
WHOLE = [Fraction(n) for n in (-2, -1, 1, 2, 3)]
VALUES = [*WHOLE, Fraction(1, 2), Fraction(-2, 3)]
CURVED = 2  # the longest sequence with quadratic functions: digits grow with 10^T
PRINTED = re.compile(r"\(\(?(-?\d+)\)?(?:%Z)?, (\d+)(?:%positive)?\)")


def quadratic(k: Fraction, l: Fraction, m: Fraction) -> Activation:
    """k + l z + m z² and its derivative, of z, not of the value."""
    return Activation(lambda a: k + l * a + m * a * a, lambda a, h: l + 2 * m * a)


TAU = quadratic(Fraction(0), Fraction(1), Fraction(1))
SIGMA = quadratic(Fraction(1), Fraction(2), Fraction(-1))
TAU_LINE = quadratic(Fraction(0), Fraction(2), Fraction(0))
SIGMA_LINE = quadratic(Fraction(1), Fraction(-3), Fraction(0))


class RationalInput(NamedTuple):
    """The arguments of one gradient, gates packed, and the cotangents of all T outputs."""

    cell: str
    params: dict[str, Array]  # without what is absent
    x: Array
    states: dict[str, Array]
    g: Array
    every: bool  # an output at every step, or g zero at all but the last
    reset: str
    truncation: int | None = None

    @property
    def functions(self) -> tuple[Activation, Activation]:
        """What stands in place of tanh and σ: curved up to T = 2."""
        return (TAU, SIGMA) if len(self.x) <= CURVED else (TAU_LINE, SIGMA_LINE)

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of all gradients, in the order in which both sides list them."""
        weights = ("U", "W", "V", "b", "c", "h0", "x")
        return {
            "rnn": weights,
            "lstm": (*weights[:6], "c0", "x"),
            "gru": (*weights[:4], "b_n", *weights[4:]),
        }[self.cell]


def draw_input(rng: random.Random, cell: str) -> RationalInput:
    """Draw sizes up to T = 3 and 2 otherwise, options, and small fractions.

    A gated cell at more than one step has whole numbers: its denominators would have as many digits
    as its numerators, and Rocq divides both by their greatest common divisor after every operation.
    With curved functions in two steps it has one unit.
    """
    T, (B, D, H, O) = rng.randint(1, 3), (rng.randint(1, 2) for _ in range(4))
    values = WHOLE if GATES[cell] and T > 1 else VALUES
    if GATES[cell] and T == CURVED:
        H = 1
    rows = H * max(1, len(GATES[cell]))

    def draw(*shape: int) -> Array:
        entries = [rng.choice(values) for _ in range(int(np.prod(shape)))]
        return np.array(entries, dtype=object).reshape(shape)

    params = {"U": draw(rows, D), "W": draw(rows, H), "V": draw(O, H)}
    biases = {"b": draw(rows), "c": draw(O)} | ({"b_n": draw(H)} if cell == "gru" else {})
    params |= {name: value for name, value in biases.items() if rng.random() < 0.7}
    states = {name: draw(B, H) for name in (("h0", "c0") if cell == "lstm" else ("h0",))}
    every, g = rng.random() < 0.5, draw(T, B, O)
    if not every:
        g[:-1] = Fraction(0)
    reset = rng.choice(gru.RESETS) if cell == "gru" else ""
    truncation = None if every or rng.random() < 0.5 else rng.randint(1, T)
    return RationalInput(cell, params, draw(T, B, D), states, g, every, reset, truncation)


def gradients_by_hand(given: RationalInput, monkeypatch: pytest.MonkeyPatch) -> dict[str, Array]:
    """The gradients of manual_bptt, those that it returns."""
    module = CELLS[given.cell]
    options: dict[str, Any] = {"outputs": "every" if given.every else "last"}
    tau, sigma = given.functions
    if given.cell == "rnn":
        options["activation"] = tau
    else:
        monkeypatch.setattr(module, "TANH", tau)
        monkeypatch.setattr(module, "SIGMOID", sigma)
    if given.cell == "gru":
        options["reset"] = given.reset
    params = module.Params(**given.params)
    _, trace = module.forward(params, given.x, *given.states.values(), **options)
    cotangents = given.g if given.every else given.g[-1]
    found = module.backward(params, trace, cotangents, truncation=given.truncation)
    return {name: getattr(found, name) for name in given.fields if getattr(found, name) is not None}


def fraction_term(value: Fraction) -> str:
    """A fraction in Rocq."""
    return f"fraction ({value.numerator}) {value.denominator}"


def table_term(A: Array) -> str:
    """A matrix as a list of rows; a vector is one row."""
    rows = ("; ".join(map(fraction_term, row)) for row in np.atleast_2d(A))
    return "[:: " + "; ".join(f"[:: {row}]" for row in rows) + "]"


def sequence_term(A: Array) -> str:
    """A matrix for every step."""
    return "[:: " + "; ".join(map(table_term, A)) + "]"


def weight_term(cell: str, A: Array, packed: bool) -> str:
    """A weight; one whose rows are those of all gates as a function of the gate."""
    if not (packed and GATES[cell]):
        return table_term(A)
    blocks = zip(GATES[cell], np.split(A, len(GATES[cell])), strict=True)
    cases = " | ".join(f"{cell}.{gate} => {table_term(block)}" for gate, block in blocks)
    return f"(fun gate => match gate with {cases} end)"


def sizes(given: RationalInput) -> tuple[int, int, int, int, int]:
    """T, B, D, H and O."""
    return (*given.x.shape, given.states["h0"].shape[1], given.g.shape[2])


def shapes(given: RationalInput) -> dict[str, tuple[int, ...]]:
    """The shape of each gradient."""
    T, B, D, H, O = sizes(given)
    rows = H * max(1, len(GATES[given.cell]))
    found = {"U": (rows, D), "W": (rows, H), "V": (O, H), "b": (rows,), "b_n": (H,), "c": (O,)}
    found |= {"h0": (B, H), "c0": (B, H), "x": (T, B, D)}
    return {name: found[name] for name in given.fields}


def params_term(given: RationalInput) -> str:
    """The parameters, initial states and inputs in Rocq; an absent bias is zero."""
    terms = []
    for name, shape in shapes(given).items():
        value = (given.params | given.states | {"x": given.x}).get(name)
        if value is None:
            value = np.full(shape, Fraction(0))
        packed = name in ("U", "W", "b")
        terms.append(
            sequence_term(value) if name == "x" else weight_term(given.cell, value, packed)
        )
    constructor = "Params" if given.cell == "rnn" else "ListParams"
    return f"(@{given.cell}_lists.{constructor} Qc_comRingType {' '.join(terms)})"


def functions_term(given: RationalInput) -> str:
    """The functions in place of σ and tanh, with their derivatives."""
    line = "" if len(given.x) <= CURVED else "_line"
    names = ("tau",) if given.cell == "rnn" else ("sigma", "tau")
    return " ".join(f"{name}{line} {name}{line}'" for name in names)


def question(given: RationalInput) -> str:
    """The command with which Rocq computes and prints all gradients."""
    (T, *others), lists = sizes(given), f"{given.cell}_lists."
    prefix, of_list = ("", "") if given.cell == "rnn" else ("l", "list_")
    name = of_list + ("gradient" if given.truncation is None else "truncated")
    results = []
    for field in given.fields[:-1]:
        projection = f"{lists}{prefix}{field} r"
        if field in ("U", "W", "b") and GATES[given.cell]:
            results += [f"{projection} {given.cell}.{gate}" for gate in GATES[given.cell]]
        else:
            results.append(projection)
    place = f"gru.{given.reset}" if given.cell == "gru" else ""
    return (
        f"Eval vm_compute in let r := @{lists}{name} Qc_comRingType {functions_term(given)} "
        f"{' '.join(map(str, others))} {place} {T} {params_term(given)} {sequence_term(given.g)} "
        f"{given.truncation or ''} in plain ([:: {'; '.join(results)}] ++ {lists}{prefix}x r).\n"
    )


def preamble(*files: str) -> str:
    """The imports of a text of questions, and how the answers are printed."""
    return (
        "From mathcomp Require Import all_ssreflect all_algebra.\n"
        f"From Bptt Require Import rationals.\nFrom Bptt Require {' '.join(files)}.\n"
        "From Coq Require Import ZArith QArith Qcanon.\n"
        "Set Printing Width 1000000.\nSet Printing Depth 1000000.\n"
    )


def gradients_in_rocq(inputs: Iterable[RationalInput], folder: Path) -> list[dict[str, Array]]:
    """The gradients of the theorems, by the compiled files of a folder, for inputs of one cell."""
    inputs = list(inputs)
    cell = inputs[0].cell
    text = preamble(cell, f"{cell}_lists") + "".join(map(question, inputs))
    answers = zip(inputs, print_answers(find_coqc(), text, folder), strict=True)
    return [dict(split_numbers(answer, shapes(given))) for given, answer in answers]


def split_numbers(answer: str, shapes: dict[str, tuple[int, ...]]) -> Iterable[tuple[str, Array]]:
    """Give each gradient its part of all numbers that Rocq printed, in its own shape."""
    numbers = [Fraction(int(n), int(d)) for n, d in PRINTED.findall(answer)]
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        part, numbers = numbers[:size], numbers[size:]
        yield name, np.array(part, dtype=object).reshape(shape)
    assert numbers == []


def other_ways_by_hand(given: RationalInput) -> dict[str, dict[str, Array]]:
    """∂L/∂U, ∂L/∂W and ∂L/∂b of an RNN with one output, by manual_bptt's two other derivations."""
    params, h0 = rnn.Params(**given.params), given.states["h0"]
    options: dict[str, Any] = {"activation": given.functions[0]}
    terms = jacobian_sum.terms(params, given.x, given.g[-1], h0, **options)
    # The loss half_sse has the gradient ŷ − y: with this target it is the cotangent.
    target = rnn.predict(params, given.x, h0, **options) - given.g[-1]
    _, carried = rtrl.value_and_grad(params, given.x, target, h0, loss="half_sse", **options)
    return {
        "jacobian_sum": {name: getattr(terms, name).sum(axis=0) for name in "UWb"},
        "rtrl": {name: getattr(carried, name) for name in "UWb" if name in given.params},
    }


def other_ways_in_rocq(
    inputs: Iterable[RationalInput], folder: Path
) -> list[dict[str, dict[str, Array]]]:
    """The same by the definitions of the theorems, computed by the compiled files of a folder."""
    inputs, ways = list(inputs), ("jacobian_sum", "rtrl")
    text = preamble("rnn_lists", *(f"{way}_lists" for way in ways))
    for given in inputs:
        T, *others = sizes(given)
        arguments = (
            f"Qc_comRingType {functions_term(given)} {' '.join(map(str, others))} {T} net "
            f"{table_term(given.g[-1])}"
        )
        for way in ways:
            results = (f"@{way}_lists.list_{way}_{name} {arguments}" for name in "UWb")
            text += f"Eval vm_compute in let net := {params_term(given)} in "
            text += f"plain [:: {'; '.join(results)}].\n"
    answers = iter(print_answers(find_coqc(), text, folder))
    found = []
    for given in inputs:
        expected = {name: shapes(given)[name] for name in "UWb"}
        found.append({way: dict(split_numbers(next(answers), expected)) for way in ways})
    return found
