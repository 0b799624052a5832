"""What `bptt train` keeps: a run that was stopped, however, goes on as if it had not been."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bptt_verifier.commands import checkpoint, descent
from bptt_verifier.commands import train as train_command
from bptt_verifier.commands.checkpoint import Checkpoint
from bptt_verifier.commands.colours import Encoding, InitialState
from jax_reference import training as autodiff
from manual_bptt import training as manual
from manual_bptt.rnn import Params
from tests.support.agreement import same
from tests.support.colours import start
from tests.support.command_line import Train
from tests.support.modules import ROOT


@pytest.mark.parametrize("gradients", ["manual", "autodiff"])
@pytest.mark.parametrize("model", manual.CELLS)
def test_a_resumed_run_leaves_the_same_file_bit_for_bit(
    train: Train, tmp_path: Path, gradients: str, model: str
) -> None:
    at_once, resumed = tmp_path / "at-once.npz", tmp_path / "resumed.npz"
    options = ("--gradients", gradients, "--model", model, "--checkpoint")
    train(*options, at_once, "--steps", 100)
    train(*options, resumed, "--steps", 37)
    assert len(checkpoint.load(resumed).losses) == 38
    assert type(checkpoint.load(resumed).params) is manual.CELLS[model].Params
    for _ in range(2):  # the second time there is nothing left to do
        train(*options, resumed, "--resume", "--steps", 100)
        assert resumed.read_bytes() == at_once.read_bytes()


def test_a_checkpoint_without_a_model_is_one_of_the_rnn(train: Train, tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    train("--checkpoint", path, "--steps", 5)
    saved = checkpoint.load(path)
    assert saved.settings.pop("model") == "rnn"
    checkpoint.save(path, saved)
    assert train("--checkpoint", path, "--resume", "--steps", 6) == 1
    assert len(checkpoint.load(path).losses) == 7


def test_a_resumed_run_goes_on_with_the_initial_state_of_the_file(
    train: Train, tmp_path: Path
) -> None:
    path = tmp_path / "run.npz"
    train("--checkpoint", path, "--steps", 5)
    saved = checkpoint.load(path)
    checkpoint.save(path, saved._replace(h0=saved.h0 + 1))  # as if drawn by another NumPy
    train("--checkpoint", path, "--steps", 6, "--resume")
    _, x, y, _ = start(Encoding.INTEGER, InitialState.RANDOM)
    run = manual.descend(saved.params, x, y, saved.h0 + 1, learning_rate=0.2, steps=1)
    assert same(checkpoint.load(path).params, run.params)


def test_a_run_that_has_learned_can_be_shown_again(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.npz"
    assert train("--checkpoint", path) == 0
    first, _ = capsys.readouterr()
    assert train("--checkpoint", path, "--resume", "--steps", 0) == 0
    again, _ = capsys.readouterr()
    assert again == first


def test_long_runs_are_kept_on_the_way(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []

    def counted(path: Path, state: Checkpoint) -> None:
        kept.append(len(state.losses) - 1)

    monkeypatch.setattr(train_command, "save", counted)
    train("--checkpoint", tmp_path / "run.npz", "--steps", 100)
    assert kept == [0, 100]
    kept.clear()
    monkeypatch.setattr(descent, "SAVE_EVERY", -1)
    train("--checkpoint", tmp_path / "run.npz", "--steps", 30)
    assert kept == [0, 10, 20, 30, 30]


# Ctrl-C, and worse.


@contextmanager
def endless(path: Path, *options: str, until: int) -> Iterator[subprocess.Popen[str]]:
    """A run that would take hours and is kept often, after it has kept at least `until` losses.

    Its Ctrl-C works even where it would have inherited that it is ignored, as background jobs do.
    """
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from bptt_verifier.commands import descent, main;"
        "descent.SAVE_EVERY = 0.1; main.main()"
    )
    process = subprocess.Popen(
        [
            sys.executable, "-W", "error", "-c", script, "train",
            "--checkpoint", str(path), "--steps", "1000000000", *options,
        ],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        for _ in range(1200):
            if path.exists() and len(checkpoint.load(path).losses) >= until:
                break
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


SLOWLY = ("--learning-rate", "1e-9")


@pytest.mark.rest
@pytest.mark.parametrize("gradients", ["manual", "autodiff"])
def test_ctrl_c_ends_a_run_with_its_state_in_the_file(
    train: Train, tmp_path: Path, gradients: str
) -> None:
    path, at_once = tmp_path / "run.npz", tmp_path / "at-once.npz"
    options = (*SLOWLY, "--gradients", gradients)
    with endless(path, *options, until=2) as process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    steps = len(checkpoint.load(path).losses) - 1
    assert err == f"interrupted after step {steps}; the checkpoint is at {path}\n"
    assert process.returncode == 130
    assert "The Forest" in out
    assert steps > 0
    train("--checkpoint", at_once, "--steps", steps, *options)
    assert path.read_bytes() == at_once.read_bytes()


@pytest.mark.rest
def test_a_run_that_was_killed_goes_on_from_the_last_checkpoint(
    train: Train, tmp_path: Path
) -> None:
    path, at_once = tmp_path / "run.npz", tmp_path / "at-once.npz"
    with endless(path, *SLOWLY, until=2) as process:
        process.kill()
    steps = len(checkpoint.load(path).losses) + 100
    train("--checkpoint", path, "--resume", "--steps", steps, *SLOWLY)
    train("--checkpoint", at_once, "--steps", steps, *SLOWLY)
    assert path.read_bytes() == at_once.read_bytes()


def test_ctrl_c_while_jax_compiles_is_said_like_any_other(
    train: Train,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "run.npz"
    train("--gradients", "autodiff", "--checkpoint", path, "--steps", 5)
    before = path.read_bytes()
    capsys.readouterr()
    monkeypatch.setattr(autodiff, "_steps", interrupted)
    assert train("--gradients", "autodiff", "--checkpoint", tmp_path / "new.npz") == 130
    _, err = capsys.readouterr()
    assert err == "interrupted after step 0\n"
    assert train("--gradients", "autodiff", "--checkpoint", path, "--resume") == 130
    _, err = capsys.readouterr()
    assert err == f"interrupted after step 5; the checkpoint is at {path}\n"
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.npz"]


def test_ctrl_c_between_two_legs_is_not_lost() -> None:
    params, x, y, h0 = start(Encoding.INTEGER, InitialState.RANDOM)
    kept = []

    def save(run: manual.Run) -> None:
        kept.append(run)
        if len(kept) == 1:
            raise KeyboardInterrupt

    def descend(params: Params, **options: Any) -> manual.Run:
        return manual.descend(params, x, y, h0, learning_rate=0.1, **options)

    run = descent.descend_in_legs(
        manual, descend, descend(params, steps=0), steps=50, save=save, progress=lambda *_: None
    )
    assert run.stopped == "interrupted"
    assert kept[1] is run
