"""Both witnesses reproduce published values.

tests/support/published_numbers.json: the expected states of the recurrent exercises of Stanford's
CS231n, given there to 8 digits, batch-first and with the weights on the right, the LSTM's gates in
the order input, forget, output, candidate.
"""

import json
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from jax_reference import lstm as autodiff_lstm
from jax_reference import rnn as autodiff
from manual_bptt import lstm, rnn
from manual_bptt.rnn import Params
from tests.support.modules import ROOT

FILE = ROOT / "tests" / "support" / "published_numbers.json"
PUBLISHED = json.loads(FILE.read_text(encoding="utf-8"))
DIGITS = 0.5e-8  # the published values are rounded to 8 digits after the point


def array(spec: dict[str, Any]) -> np.ndarray:
    return np.linspace(*spec["linspace"], int(np.prod(spec["shape"]))).reshape(spec["shape"])


def states(
    witness: ModuleType, inputs: dict[str, np.ndarray], x: np.ndarray, h0: np.ndarray
) -> Any:
    params = Params(
        U=inputs["Wx"].T.copy(), W=inputs["Wh"].T.copy(), V=np.eye(len(inputs["Wh"])), b=inputs["b"]
    )
    if witness is rnn:
        return rnn.forward(params, x, h0)[1].h
    y = np.zeros((len(h0), len(params.V)))
    return np.asarray(autodiff.derivatives(params, x, y, h0).states.h)


WITNESSES = pytest.mark.parametrize("witness", [rnn, autodiff], ids=lambda m: m.__name__)


@WITNESSES
def test_one_step(witness: ModuleType) -> None:
    case = PUBLISHED["rnn_step"]
    inputs = {name: array(spec) for name, spec in case["inputs"].items()}
    found = states(witness, inputs, inputs["x"][None], inputs["h_prev"])
    assert np.abs(found[1] - np.array(case["expected_h"])).max() <= DIGITS


@WITNESSES
def test_a_sequence(witness: ModuleType) -> None:
    case = PUBLISHED["rnn_sequence"]
    inputs = {name: array(spec) for name, spec in case["inputs"].items()}
    x = inputs["x"].transpose(1, 0, 2).copy()
    found = states(witness, inputs, x, inputs["h0"])
    expected = np.array(case["expected_h"]).transpose(1, 0, 2)
    assert np.abs(found[1:] - expected).max() <= DIGITS


def test_a_state_that_is_off_in_the_eighth_digit_would_be_seen() -> None:
    case = PUBLISHED["rnn_step"]
    inputs = {name: array(spec) for name, spec in case["inputs"].items()}
    found = states(rnn, inputs, inputs["x"][None], inputs["h_prev"])
    assert np.abs(found[1] + 1e-7 - np.array(case["expected_h"])).max() > DIGITS


def lstm_states(
    witness: ModuleType,
    inputs: dict[str, np.ndarray],
    x: np.ndarray,
    h0: np.ndarray,
    c0: np.ndarray | None = None,
) -> tuple[Any, Any]:
    """h and c of every step; the gates' columns are brought into the order i, f, g, o."""

    def ours(packed: np.ndarray) -> np.ndarray:
        i, f, o, g = np.split(packed, 4, axis=-1)
        return np.concatenate([i, f, g, o], axis=-1).T.copy()

    H = len(inputs["Wh"])
    params = lstm.Params(ours(inputs["Wx"]), ours(inputs["Wh"]), np.eye(H), b=ours(inputs["b"]))
    if witness is lstm:
        trace = lstm.forward(params, x, h0, c0)[1]
        return trace.h, trace.cells
    found = autodiff_lstm.derivatives(params, x, np.zeros((len(h0), H)), h0, c0).states
    return np.asarray(found.h), np.asarray(found.cells)


LSTM_WITNESSES = pytest.mark.parametrize("witness", [lstm, autodiff_lstm], ids=lambda m: m.__name__)


@LSTM_WITNESSES
def test_one_step_of_the_lstm(witness: ModuleType) -> None:
    case = PUBLISHED["lstm_step"]
    inputs = {name: array(spec) for name, spec in case["inputs"].items()}
    h, c = lstm_states(witness, inputs, inputs["x"][None], inputs["h_prev"], inputs["c_prev"])
    assert np.abs(h[1] - np.array(case["expected_h"])).max() <= DIGITS
    assert np.abs(c[1] - np.array(case["expected_c"])).max() <= DIGITS


@LSTM_WITNESSES
def test_a_sequence_of_the_lstm(witness: ModuleType) -> None:
    case = PUBLISHED["lstm_sequence"]
    inputs = {name: array(spec) for name, spec in case["inputs"].items()}
    x = inputs["x"].transpose(1, 0, 2).copy()
    h, _ = lstm_states(witness, inputs, x, inputs["h0"])
    expected = np.array(case["expected_h"]).transpose(1, 0, 2)
    assert np.abs(h[1:] - expected).max() <= DIGITS
