"""`bptt train` learns the three colours, shows them, and loses nothing of the user's."""

import errno
import inspect
import io
import itertools
import os
import re
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from bptt_verifier.commands import checkpoint, colours, descent
from bptt_verifier.commands import train as train_command
from bptt_verifier.commands.colours import PHRASES, Encoding, InitialState
from bptt_verifier.console import files
from jax_reference import training as autodiff
from manual_bptt import rnn
from manual_bptt import training as manual
from tests.support.agreement import same
from tests.support.colours import start
from tests.support.command_line import Train

# The worked example.


def test_the_phrases_are_those_of_the_worked_example() -> None:
    assert {phrase.text: (phrase.tokens, phrase.rgb) for phrase in PHRASES} == {
        "The Forest": ((0, 1), (0, 128, 0)),
        "The Sea": ((0, 2), (0, 0, 255)),
        "The Fire": ((0, 3), (255, 165, 0)),
    }
    integer, one_hot = (colours.inputs(encoding) for encoding in Encoding)
    assert integer.tolist() == [[[0], [0], [0]], [[1], [2], [3]]]
    assert one_hot.shape == (2, 3, 4)
    assert same(one_hot @ np.arange(4.0), integer[..., 0])
    assert (one_hot.sum(axis=-1) == 1).all()
    assert same(colours.in_bytes(colours.targets()), np.array([p.rgb for p in PHRASES]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
def test_a_random_initial_state_is_one_vector_for_all_phrases(dtype: type) -> None:
    def drawn(kind: InitialState, seed: int) -> Any:
        return colours.initial_state(kind, np.random.default_rng(seed), 5, dtype)

    h0 = drawn(InitialState.RANDOM, 0)
    assert h0.shape == (3, 5)
    assert h0.dtype == dtype
    assert (h0 == h0[0]).all()
    assert h0.all()
    assert same(h0, drawn(InitialState.RANDOM, 0))
    assert not same(h0, drawn(InitialState.RANDOM, 1))
    assert not drawn(InitialState.ZEROS, 0).any()


def test_a_byte_is_rounded_and_stays_on_the_screen() -> None:
    prediction = np.array([[-3.0, 0.49 / 255, 0.51 / 255], [127.4 / 255, 1.0, 1e9]])
    assert colours.in_bytes(prediction).tolist() == [[0, 0, 1], [127, 255, 255]]


@example(errors=[0, 0, 0, 0, 1, 0, 0, 0, 0], part=0.999)
@given(
    errors=st.lists(st.floats(-1, 1), min_size=9, max_size=9).filter(lambda e: any(map(abs, e))),
    part=st.floats(0, 0.999),
)
def test_below_the_target_loss_every_byte_is_exact(errors: list[float], part: float) -> None:
    y = colours.targets()
    shape = np.array(errors).reshape(y.shape) / np.abs(errors).max()
    shape *= np.sqrt(part * colours.target_loss(y.size) / np.mean(shape**2))
    assert same(colours.in_bytes(y + shape), np.array([phrase.rgb for phrase in PHRASES]))


def test_just_above_the_target_loss_a_byte_may_be_wrong() -> None:
    y = colours.targets()
    off = np.zeros_like(y)
    off[0, 1] = np.sqrt(1.001 * colours.target_loss(y.size) * y.size)
    assert colours.in_bytes(y + off)[0, 1] == 129


# The combination that cannot be learned.


def stays_zero(problem: tuple[Any, ...], activation: Any = None, model: str = "rnn") -> bool:
    return colours.recurrent_gradient_stays_zero(*problem, activation=activation, model=model)


@pytest.mark.parametrize("witness", [manual, autodiff], ids=lambda w: w.__name__)
@given(seed=st.integers(0, 1000), model=st.sampled_from(sorted(manual.CELLS)))
def test_from_zero_with_integers_the_recurrent_weights_never_move(
    witness: Any, seed: int, model: str
) -> None:
    stuck = start(Encoding.INTEGER, InitialState.ZEROS, seed, model=model)
    assert stays_zero(stuck, model=model)
    run = witness.descend(*stuck, model=model, learning_rate=0.1, steps=5)
    assert same(run.params.W, stuck[0].W)
    assert not same(run.params.U, stuck[0].U)
    assert stays_zero((run.params, *stuck[1:]), model=model)


@given(
    case=st.sampled_from(
        [
            (Encoding.INTEGER, InitialState.RANDOM, "tanh", "rnn"),
            (Encoding.ONE_HOT, InitialState.ZEROS, "tanh", "rnn"),
            (Encoding.ONE_HOT, InitialState.RANDOM, "identity", "rnn"),
            (Encoding.INTEGER, InitialState.ZEROS, "sigmoid", "rnn"),  # sigmoid(0) is not 0
            *itertools.product([Encoding.INTEGER], [InitialState.RANDOM], [None], ["lstm", "gru"]),
            *itertools.product([Encoding.ONE_HOT], InitialState, [None], ["lstm", "gru"]),
        ]
    ),
    seed=st.integers(0, 1000),
)
def test_otherwise_they_move_at_once(case: tuple[Any, Any, Any, str], seed: int) -> None:
    encoding, initial_state, activation, model = case
    moving = start(encoding, initial_state, seed, model=model)
    assert not stays_zero(moving, activation, model)
    run = manual.descend(*moving, learning_rate=0.01, steps=1, activation=activation, model=model)
    assert not same(run.params.W, moving[0].W)


def test_a_gradient_that_is_zero_only_here_is_not_called_zero_for_ever() -> None:
    params, x, y, h0 = start(Encoding.ONE_HOT, InitialState.ZEROS)
    dead = params._replace(U=-np.abs(params.U))  # relu(−|…|) is 0, but need not stay so
    _, gradient = rnn.value_and_grad(dead, x, y, h0, activation="relu")
    assert not gradient.W.any()
    assert not stays_zero((dead, x, y, h0), "relu")
    params, x, y, h0 = start(Encoding.INTEGER, InitialState.ZEROS)
    biased = params._replace(b=np.zeros(16), c=np.zeros(3))
    assert not rnn.value_and_grad(biased, x, y, h0)[1].W.any()
    assert not stays_zero((biased, x, y, h0))  # b moves, and then h_1 does
    params, *rest = start(Encoding.INTEGER, InitialState.ZEROS, model="gru")
    assert not stays_zero((params._replace(b_n=np.zeros(16)), *rest), model="gru")  # so does b_n


# Learning.


@pytest.mark.table(3)
@pytest.mark.parametrize("gradients", ["manual", "autodiff"])
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--encoding", "one-hot", "--initial-state", "zeros", "--dtype", "float32"],
        ["--model", "lstm", "--encoding", "one-hot", "--dtype", "float32"],
        ["--model", "gru"],
    ],
    ids=" ".join,
)
def test_both_witnesses_learn_all_nine_bytes(
    train: Train, capsys: pytest.CaptureFixture[str], options: list[str], gradients: str
) -> None:
    assert train("--gradients", gradients, *options) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\x1b" not in out
    for phrase in PHRASES:
        (row,) = [line for line in out.splitlines() if line.startswith(phrase.text)]
        rgb = [int(byte) for byte in re.findall(r"\d+", row)]
        assert rgb == [*phrase.tokens, *phrase.rgb, *phrase.rgb]
        assert row.rstrip().endswith("exact")
    assert "all nine bytes are exact" in out
    assert "W cannot learn" not in out


@pytest.mark.table(5)
@pytest.mark.parametrize("model", manual.CELLS)
@pytest.mark.parametrize("initial_state", InitialState)
@pytest.mark.parametrize("encoding", Encoding)
def test_every_seed_learns_unless_none_can(
    encoding: Encoding, initial_state: InitialState, model: str
) -> None:
    options = inspect.signature(train_command.train).parameters
    default = {name: options[name].default for name in ("learning_rate", "steps")}
    for seed in range(4):
        problem = start(encoding, initial_state, seed, model=model)
        run = autodiff.descend(*problem, **default, model=model, target=colours.target_loss(9))
        assert run.stopped == ("limit" if stays_zero(problem, model=model) else "target"), seed


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("rnn", "h_1 = tanh(0) = 0"),
        ("lstm", "c_1 = f_1 ⊙ c_0 + i_1 ⊙ g_1 = 0"),
        ("gru", "h_1 = (1 − z_1) ⊙ n_1 + z_1 ⊙ h_0 = 0"),
    ],
)
def test_what_cannot_be_learned_is_explained(
    train: Train, capsys: pytest.CaptureFixture[str], model: str, why: str
) -> None:
    assert train("--model", model, "--initial-state", "zeros", "--steps", 300) == 1
    out, _ = capsys.readouterr()
    assert "∂L/∂W is exactly zero and stays so" in out
    assert why in out
    assert "not learned in 300 steps" in out
    assert "W has not changed" in out
    assert max(map(len, out.splitlines())) <= 100


def test_too_few_steps_are_not_mistaken_for_a_gradient_of_zero(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--steps", 5) == 1
    out, _ = capsys.readouterr()
    assert "not learned in 5 steps" in out
    assert re.search(r"[123] bytes? off", out)
    assert "exactly zero" not in out


@pytest.mark.parametrize("gradients", ["manual", "autodiff"])
def test_divergence_is_said_and_the_last_finite_parameters_are_kept(
    train: Train, capsys: pytest.CaptureFixture[str], tmp_path: Path, gradients: str
) -> None:
    path = tmp_path / "run.npz"
    assert train("--learning-rate", 3, "--gradients", gradients, "--checkpoint", path) == 1
    _, err = capsys.readouterr()
    step = len(checkpoint.load(path).losses)
    assert f"no longer finite at step {step} with learning rate 3.0" in err
    assert str(path) in err
    assert step > 10
    assert np.isfinite(checkpoint.load(path).losses).all()


# How it looks.


def test_colours_are_shown_where_there_are_colours(
    train: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert train() == 0
    out, _ = capsys.readouterr()
    for red, green, blue in (phrase.rgb for phrase in PHRASES):
        assert out.count(f"\x1b[48;2;{red};{green};{blue}m     \x1b[0m") == 2


@pytest.mark.parametrize("without", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_nothing_but_text_is_written_where_there_are_none(
    without: dict[str, str],
    train: Train,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    for name, value in without.items():
        monkeypatch.setenv(name, value)
    assert train() == 0
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "The Forest  [0, 1]  [  0, 128,   0]  [  0, 128,   0]  exact" in out


def test_nothing_is_cut_off_on_a_narrow_terminal(
    train: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    train("--steps", 1)
    out, _ = capsys.readouterr()
    assert "…" not in out
    assert "[255, 165,   0]" in out


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_appears_on_a_terminal_after_a_second(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(descent.time, "monotonic", lambda: now[0])
    screen = io.StringIO()
    screen.isatty = lambda: terminal  # type: ignore[method-assign]
    console = Console(file=screen, force_terminal=True)  # colours asked for, as FORCE_COLOR does
    with descent.descent_bar(console, 500) as progress:
        progress(1, 0.5)
        assert screen.getvalue() == ""
        now[0] += 1.5
        progress(321, 0.25)
    assert ("321/500" in screen.getvalue()) is terminal
    assert ("2.50e-01" in screen.getvalue()) is terminal


@pytest.mark.parametrize("steps", [0, 5000])
def test_the_plot_is_drawn(train: Train, tmp_path: Path, steps: int) -> None:
    train("--plot", tmp_path / "loss.svg", "--steps", steps)
    drawn = (tmp_path / "loss.svg").read_text(encoding="utf-8")
    for phrase in PHRASES:
        assert f"{phrase.text}  {list(phrase.tokens)}" in drawn
        assert "#{:02x}{:02x}{:02x}".format(*phrase.rgb) in drawn
    assert "below 4.3e-07 every byte is exact" in drawn


@pytest.mark.parametrize("rate", [3, 0.1])
def test_a_plot_can_be_a_picture_also_of_divergence(
    train: Train, tmp_path: Path, rate: float
) -> None:
    train("--plot", tmp_path / "loss.PNG", "--learning-rate", rate)
    assert (tmp_path / "loss.PNG").read_bytes().startswith(b"\x89PNG")


def unwritable(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_a_plot_that_cannot_be_drawn_is_refused_before_training(
    train: Train,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def refused(path: Path) -> str:
        assert train("--plot", path) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        return err

    assert "--plot: expected a name ending in one of" in refused(tmp_path / "loss.xyz")
    assert "--plot: expected a file in an existing folder" in refused(tmp_path / "no" / "loss.png")
    assert "--plot: expected a file, found the folder" in refused(tmp_path)
    long = refused(tmp_path / ("a" * 300 + ".png"))
    assert long.endswith(f"{'a' * 300}.png: File name too long\n")
    with monkeypatch.context() as patched:
        patched.setattr(files, "TemporaryFile", unwritable)
        assert "--plot: expected a file that can be written" in refused(tmp_path / "loss.png")
    assert os.listdir(tmp_path) == []
    (tmp_path / "loss.png").write_text("old")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", unwritable)
        assert refused(tmp_path / "loss.png").endswith("loss.png: Read-only file system\n")
    assert (tmp_path / "loss.png").read_text() == "old"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install 'verified-bptt[plot]'" in refused(tmp_path / "loss.png")


# What is refused.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--resume", "--resume: expected --checkpoint FILE with it, found none"),
        ("--resume --checkpoint no.npz", "--resume: expected a checkpoint, found no file no.npz"),
        (
            "--checkpoint run.npz",
            "--checkpoint: expected a new file, or --resume to go on from it, found run.npz",
        ),
        (
            "--checkpoint no/run.npz",
            "--checkpoint: expected a file in an existing folder, found no/run.npz",
        ),
        (
            "--checkpoint other.txt --resume",
            "other.txt: expected a checkpoint of bptt train, found a damaged or another file",
        ),
        (
            "--learning-rate 0",
            "learning_rate: expected a finite number above 0 in float64, found 0.0",
        ),
        (
            "--learning-rate nan",
            "learning_rate: expected a finite number above 0 in float64, found nan",
        ),
        (
            "--hidden-size 1000000000",
            "--hidden-size: expected at most 4096, found 1000000000",
        ),
        *(
            (
                f"--model {model} --activation {activation}",
                f"--activation: expected none with --model {model}, found {activation}",
            )
            for model, activation in [("lstm", "relu"), ("gru", "tanh")]
        ),
        *(
            (f"--checkpoint .{resume}", "--checkpoint: expected a file, found the folder .")
            for resume in ("", " --resume")
        ),
        *(
            (
                f"--checkpoint {'a' * 256}{resume}",
                f"--checkpoint: expected a file that can be written, found {'a' * 256}: "
                "File name too long",
            )
            for resume in ("", " --resume")
        ),
        *(
            (
                f"--checkpoint run.npz --resume --{option} {now}",
                f"--{option}: expected {then} as in run.npz, found {now}",
            )
            for option, then, now in [
                ("model", "rnn", "lstm"),
                ("encoding", "integer", "one-hot"),
                ("initial-state", "random", "zeros"),
                ("hidden-size", 16, 8),
                ("learning-rate", 0.2, 0.1),
                ("seed", 0, 1),
                ("gradients", "manual", "autodiff"),
                ("activation", "tanh", "relu"),
                ("dtype", "float64", "float32"),
            ]
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_nothing_is_touched(
    train: Train,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    train("--checkpoint", "run.npz", "--steps", 3)
    Path("other.txt").write_text("text")
    before = {name: Path(name).read_bytes() for name in os.listdir()}
    capsys.readouterr()
    assert train(*arguments.split()) == 2
    out, err = capsys.readouterr()
    assert err == f"bptt: {message}\n"
    assert out == ""
    assert {name: Path(name).read_bytes() for name in os.listdir()} == before


# Several devices.


def test_compiled_steps_on_a_device_learn_the_colours_and_say_where_they_run(
    train: Train, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "run.npz"
    assert train("--devices", 1, "--steps", 20, "--checkpoint", path) == 1
    out, err = capsys.readouterr()
    assert "manual gradients, learning rate 0.2, 1 device\n" in out + err
    problem = start(Encoding.INTEGER, InitialState.RANDOM)
    known = manual.descend(*problem, learning_rate=0.2, steps=20)
    assert checkpoint.load(path).losses == pytest.approx(known.losses, rel=2.0**-30)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("--devices", 99),
            "bptt: --devices: expected at most 1, the devices that JAX has, found 99; "
            "JAX_NUM_CPU_DEVICES=99 in the environment makes so many of the CPU\n",
        ),
        (
            ("--devices", 1, "--gradients", "autodiff"),
            "bptt: --devices: expected --gradients manual with it, found autodiff\n",
        ),
        (
            ("--devices", 0),
            "bptt: --devices: expected an integer of at least 1, found '0'\n",
        ),
    ],
)
def test_devices_that_cannot_be_had_are_refused_in_one_sentence(
    train: Train,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    sentence: str,
) -> None:
    assert len(jax.devices("cpu")) == 1  # JAX has counted them
    assert train(*options) == 2
    assert capsys.readouterr() == ("", sentence)
