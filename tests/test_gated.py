"""Derivations of the project's LSTM and GRU are judged as those of its RNN are."""

from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from planting import GATED_MISTAKES, planted
from typer.testing import CliRunner

from bptt_verifier import Verdict, stated_cells, verify
from bptt_verifier.command_line import app
from bptt_verifier.gated import ORDINARY, Cell, contract, setting
from bptt_verifier.submission import Broken, States, states_taken
from manual_bptt import gru, lstm

MODULES = {"lstm": lstm, "gru": gru}


def derivation(module: ModuleType, cell: str, **options: Any) -> Any:
    def of_lstm(params, x, y, h0, c0):
        value, found = module.gradients(module.Params(*params), x, y, h0, c0)
        return {"loss": value} | found._asdict()

    def of_gru(params, x, y, h0):
        value, found = module.gradients(module.Params(*params), x, y, h0, **options)
        return {"loss": value} | found._asdict()

    return {"lstm": of_lstm, "gru": of_gru}[cell]


@pytest.mark.parametrize(
    ("cell", "bias", "options"), [("lstm", True, {}), ("gru", False, {"reset": "before"})]
)
def test_a_right_derivation_agrees_at_every_step(
    cell: str, bias: bool, options: dict[str, str]
) -> None:
    yours = derivation(MODULES[cell], cell, **options)
    report = verify(yours, model=cell, bias=bias, **options)
    assert report.verdict is Verdict.AGREES, str(report)
    states = ["h0", "c0"] if cell == "lstm" else ["h0"]
    weights = ["U", "W", "V", *(["b", "c"] if bias else [])]
    assert list(report.parameters) == [*weights, "x", *states]
    assert {step.verdict for step in report.steps} == {Verdict.AGREES}
    assert len(report.steps) == 30


@pytest.mark.parametrize(
    ("written", "called", "line", "first_wrong_step"),
    [
        ("tanh′ of the cell missing", "activation-derivative-missing", "tanh_c = xp.tanh(c)", 30),
        ("cell index −1 wraps around", "unknown", None, 1),
        ("z where 1 − z belongs", "wrong-operand", "h = (1 - z) * n + z * h", 30),
    ],
)
def test_a_mistake_is_named_with_its_line_and_first_wrong_step(
    written: str, called: str, line: str | None, first_wrong_step: int, tmp_path: Path
) -> None:
    mistake = next(m for m in GATED_MISTAKES if m.name == written)
    yours = derivation(planted(mistake, tmp_path), mistake.suspect)
    report = verify(yours, model=mistake.suspect)
    assert report.verdict is Verdict.DISAGREES
    assert [found.name for found in report.mistakes] == [called]
    assert report.first_wrong_step == first_wrong_step
    assert line is None or line in str(report)


@pytest.mark.parametrize("cell", MODULES)
@pytest.mark.parametrize("loss", ["mse", "half_sse"])
@pytest.mark.parametrize("reset", ["after", "before"])
def test_the_stated_forward_pass_is_that_of_the_cell(cell: str, loss: str, reset: str) -> None:
    """To rounding: T (D + H + 8) operations on numbers below 4, each within 4 u of itself."""
    states = ("h0", "c0") if cell == "lstm" else ("h0",)
    at = setting(Cell(cell, loss, True, reset, states), ORDINARY[0], 1)
    module = MODULES[cell]
    params = module.Params(*(at.given[name] for name in at.cell.weights))
    option = {"reset": reset} if cell == "gru" else {}
    first = [at.given[state] for state in at.cell.states]
    value, _ = module.value_and_grad(params, at.given["x"], at.y, *first, loss=loss, **option)
    T, _, D, H, _ = at.sizes
    allowed = T * (D + H + 8) * 4 * 2.0**-53 * max(4.0, float(value)) * H
    assert abs(at.loss(at.given, np) - value) <= allowed


def test_what_breaks_the_contract_is_a_verdict() -> None:
    def modifies(params, x, y, h0, c0):
        c0 += 1
        return derivation(lstm, "lstm")(params, x, y, h0, c0)

    def without_V(params, x, y):
        return {"U": params.U, "W": params.W}

    def raises(params, x, y):
        raise IndexError("nothing there")

    def leaves(params, x, y):
        raise SystemExit(0)

    for yours, name, sentence in [
        (leaves, "raised", "SystemExit"),
        (lambda params, x, y: ([1, [2, 3]], {}), "wrong-shape", "cannot be read"),
        (modifies, "inputs-modified", "your function modified its argument c0"),
        (without_V, "wrong-shape", "no gradient named V"),
        (raises, "raised", "IndexError: nothing there"),
    ]:
        report = verify(yours, model="lstm")
        assert report.verdict is Verdict.DISAGREES
        assert [mistake.name for mistake in report.mistakes] == [name]
        assert sentence in report.mistakes[0].explanation
    assert Path(__file__).name in str(verify(raises, model="lstm"))


def test_only_what_is_returned_is_asked_for() -> None:
    cell = Cell("lstm", "mse", False, "after", ())
    at = setting(cell, ORDINARY[0], 0)
    found = contract(lambda params, x, y: (params.U, params.W, params.V), at)
    assert found == ("U", "W", "V")
    assert isinstance(contract(lambda params, x, y: 1, at), Broken)


def test_a_state_is_passed_in_its_place_or_by_its_name() -> None:
    def bound(params, x, y, bias, h0): ...

    for yours, expected in [
        (lambda params, x, y: 0, States()),
        (lambda params, x, y, start: 0, States(("h0",))),
        (lambda params, x, y, h0, c0: 0, States(("h0", "c0"))),
        (lambda params, x, y, c0: 0, States(("c0",))),
        (lambda params, x, y, *, h0=None, c0=None: 0, States((), ("h0", "c0"))),
        (partial(bound, bias=True), States((), ("h0",))),
    ]:
        assert states_taken(yours, ("h0", "c0")) == expected


def test_every_state_arrives_under_its_own_name() -> None:
    for yours in (
        lambda params, x, y, h0, c0: {"h0": h0, "c0": c0},
        lambda params, x, y, c0, h0: {"h0": h0, "c0": c0},
        lambda params, x, y, *, c0, h0: {"h0": h0, "c0": c0},
        lambda params, x, y, h0, *, c0: {"h0": h0, "c0": c0},
        lambda params, x, y, c0: {"c0": c0},
    ):
        states = states_taken(yours, ("h0", "c0"))
        found = states.in_order_for(yours)("params", "x", "y", *states.all)
        assert found == {name: name for name in states.all}


def test_a_derivation_that_writes_into_what_it_is_given_spoils_no_later_verdict() -> None:
    right = derivation(lstm, "lstm")

    def careless(params, x, y, h0, c0):
        found = right(params, x, y, h0, c0)
        for array in (*params, x, y, h0, c0):
            array[...] = np.nan
        return found

    assert verify(right, model="lstm").verdict is Verdict.AGREES
    assert [m.name for m in verify(careless, model="lstm").mistakes] == ["inputs-modified"]
    assert verify(right, model="lstm").verdict is Verdict.AGREES


def test_a_bias_may_be_anything_that_is_true() -> None:
    bias: Any = np.array(True)
    assert verify(derivation(lstm, "lstm"), model="lstm", bias=bias).verdict is Verdict.AGREES


def test_a_mistake_that_only_one_output_shows_is_caught() -> None:
    right = derivation(lstm, "lstm")

    def squeezed(params, x, y, h0, c0):
        found = right(params, x, y, h0, c0)
        return found if y.shape[1] > 1 else found | {"V": 2 * found["V"]}

    report = verify(squeezed, model="lstm")
    assert report.verdict is Verdict.DISAGREES
    assert report.counterexample is not None
    assert report.counterexample.reproduce.endswith(
        "verify(gradients, model='lstm', loss='mse', bias=False, reset='after', seed=0)"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "lstn"}, "model: expected one of rnn, lstm, gru, found 'lstn'"),
        ({"model": "gru", "reset": "never"}, "reset: expected one of after, before, found 'never'"),
        ({"model": "gru", "activation": "relu"}, "activation: expected one of tanh, found 'relu'"),
    ],
)
def test_a_model_that_is_not_stated_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verify(lambda params, x, y: None, **options)


def test_the_command_line_judges_an_lstm(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def gradients(params, x, y):\n    return params.U, params.W\n")
    run = CliRunner().invoke(app, ["verify", str(file), "--model", "lstm"])
    assert run.exit_code == 1, run.output
    assert "returned 2 values" in run.output


def test_the_sigmoid_is_one_half_at_zero_and_symmetric() -> None:
    z = np.array([0.0, 1.5, -1.5])
    half, up, down = stated_cells.sigmoid(z, np)
    assert half == 0.5
    assert abs(up + down - 1) <= 2 * np.finfo(float).eps
