"""`bptt flow`: the norms are those of the adjoints, the bound holds, and the file is drawn."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from bptt_verifier.commands.flow import draw_recurrent_weights, flow, measure_flow

APP = typer.Typer()
APP.command()(flow)


def test_after_a_hundred_steps_the_rnn_has_less_left_than_the_lstm() -> None:
    for seed in range(5):
        found = measure_flow(100, seed=seed).norms
        assert 0 < found["rnn"][0] < found["lstm"][0]


@pytest.mark.parametrize("radius", [0.5, 1.0, 2.0])
def test_the_bound_holds_at_every_step(radius: float) -> None:
    T, H, u = 40, 16, 2.0**-53
    found = measure_flow(T, hidden_size=H, radius=radius, seed=3)
    # A product with W of norm ‖W‖ is off by at most γ_H √H ‖W‖, and so is the norm W was made to.
    slack = 2 * T * (H**1.5 + 6) * u
    assert (found.norms["rnn"] <= found.bound * (1 + slack)).all()
    # Two powers, two products and a quotient, each within an ulp.
    steps = found.bound[:-1] / found.bound[1:]
    np.testing.assert_allclose(steps, radius, rtol=10 * u)


def test_every_gate_of_W_has_the_radius_that_was_asked_for() -> None:
    W = draw_recurrent_weights(np.random.default_rng(0), (4, 5), 0.7)
    for block in np.split(W, 4):
        assert np.abs(np.linalg.eigvals(block)).max() == pytest.approx(0.7)


def test_the_json_holds_every_norm_and_the_bound(tmp_path: Path) -> None:
    file = tmp_path / "flow.json"
    run = CliRunner().invoke(APP, ["--steps", "100", "--json", str(file)])
    assert run.exit_code == 0, run.output
    plain = json.loads(file.read_text(encoding="utf-8"))
    assert plain["steps"] == len(plain["rnn_bound"]) == 100
    norms = plain["adjoint_norms"]
    assert {name: len(values) for name, values in norms.items()} == dict.fromkeys(
        ("rnn", "lstm", "gru"), 100
    )
    assert norms["rnn"][0] < norms["lstm"][0]


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is in the extra plot")
    file = tmp_path / "flow.png"
    run = CliRunner().invoke(APP, ["--steps", "20", "--plot", str(file)])
    assert run.exit_code == 0, run.output
    assert file.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_way_to_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    run = CliRunner().invoke(APP, ["--plot", str(tmp_path / "flow.png")])
    assert "--plot: expected matplotlib, found none" in str(run.exception)
