"""Another forward pass than the stated one is told from the gradients alone, or from the loss."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier import Verdict, verify
from manual_bptt import gru, lstm, rnn
from tests.support.derivations import derivation, without_loss
from tests.support.right_derivations import column_vectors_one_sequence_at_a_time


def pack_gates(order: str, packed: str) -> Any:
    """A right derivation that packs the gates in another order."""
    module: Any = lstm if len(order) == 4 else gru
    there = [packed.index(k) for k in order]

    def put(rows: Any, places: Any, axis: int = 0) -> Any:
        blocks = np.split(rows, len(order), axis=axis)
        return np.concatenate([blocks[k] for k in places], axis=axis)

    def gradients(params, x, y, states):
        U, W, V, b, *others = params
        ours = module.Params(put(U, there), put(W, there), V, put(b, there), *others)
        _, found = module.gradients(ours, x, y, *states)
        back = [order.index(k) for k in packed]
        packed_back = {name: put(getattr(found, name), back) for name in ("U", "W", "b")}
        return found._asdict() | packed_back | {"adjoints": put(found.adjoints, back, -1)}

    if len(order) == 4:
        return lambda params, x, y, h0, c0: gradients(params, x, y, (h0, c0))
    return lambda params, x, y, h0: gradients(params, x, y, (h0,))


def without_c0(params, x, y, h0, c0):
    return lstm.gradients(lstm.Params(*params), x, y, h0)[1]._asdict() | {"c0": 0 * c0}


def with_z_negated(params, x, y, h0):
    """z_t and 1 − z_t in each other's place: 1 − σ(a) = σ(−a)."""
    H = h0.shape[1]
    sign = np.ones(3 * H, x.dtype)
    sign[H : 2 * H] = -1
    U, W, V, b, c, b_n = params
    negated = gru.Params(sign[:, None] * U, sign[:, None] * W, V, sign * b, c, b_n)
    found = gru.gradients(negated, x, y, h0)[1]
    signed = {"U": sign[:, None] * found.U, "W": sign[:, None] * found.W, "b": sign * found.b}
    return found._asdict() | signed | {"adjoints": sign * found.adjoints}


def without_b_n(params, x, y, h0):
    found = gru.gradients(gru.Params(*params)._replace(b_n=0 * params.b_n), x, y, h0)[1]
    return found._asdict()


def backwards(params, x, y, h0):
    found = gru.gradients(gru.Params(*params), x[::-1], y, h0)[1]
    return found._asdict() | {"x": found.x[::-1], "adjoints": found.adjoints[::-1]}


def rnn_with_W_transposed(params, x, y, h0):
    given = rnn.Params(*params)._replace(W=params.W.T)
    return rnn.gradients(given, x, y, h0)[1]._asdict()


OTHERS = {
    "gates i, g, f, o": ("lstm", pack_gates("ifgo", "igfo"), "packed in the order i, g, f, o"),
    "gates z, r, n": ("gru", pack_gates("rzn", "zrn"), "packed in the order z, r, n"),
    "no c0": ("lstm", without_c0, "c0 is ignored"),
    "z for 1 − z": ("gru", with_z_negated, "with z_t for 1 − z_t"),
    "no b_n": ("gru", without_b_n, "the bias b_n is left out"),
    "reset before": ("gru", without_loss(derivation(gru, "gru", reset="before")), "acts before"),
    "backwards": ("gru", backwards, "backwards in time"),
    "relu": ("rnn", without_loss(derivation(rnn, activation="relu")), "its activation is relu"),
    "W transposed": ("rnn", rnn_with_W_transposed, "W is used transposed"),
}


@pytest.mark.rest
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_forward_pass_is_told_from_its_gradients_alone(other: tuple[str, Any, str]) -> None:
    cell, submission, said = other
    report = verify(submission, model=cell, bias=True, examples=12)
    assert [found.name for found in report.mistakes] == ["forward-differs"], str(report)
    assert said in report.mistakes[0].explanation


def test_another_loss_is_not_called_a_wrong_gradient() -> None:
    right = column_vectors_one_sequence_at_a_time("tanh")
    report = verify(right, activation="sigmoid", examples=20)
    assert [mistake.name for mistake in report.mistakes] == ["forward-differs"]
    assert "activation tanh with loss mse" in report.mistakes[0].explanation


def test_the_other_reset_is_told_from_its_loss() -> None:
    before = derivation(gru, "gru", reset="before")
    report = verify(before, model="gru", examples=20)
    assert [mistake.name for mistake in report.mistakes] == ["forward-differs"]
    assert "reset before with loss mse" in report.mistakes[0].explanation


@pytest.mark.rest
@pytest.mark.parametrize("module", [rnn, gru])
def test_a_prediction_that_is_returned_is_compared(module: Any) -> None:
    right = derivation(module, module.__name__.rpartition(".")[2])

    def with_prediction(factor: float) -> Any:
        def gradients(params, x, y, h0):
            prediction = factor * module.predict(module.Params(*params), x, h0)
            return right(params, x, y, h0) | {"prediction": prediction}

        return gradients

    model = module.__name__.rpartition(".")[2]
    assert verify(with_prediction(1.0), model=model, examples=8).verdict is Verdict.AGREES
    report = verify(with_prediction(2.0), model=model, examples=8)
    assert [mistake.name for mistake in report.mistakes] == ["forward-differs"]
    assert "your prediction is" in report.mistakes[0].explanation
