"""The command line: what it prints, and with which exit code it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from bptt_verifier.commands import application, colours
from bptt_verifier.commands.explain import explanation
from bptt_verifier.console import files
from bptt_verifier.console.argument_errors import App
from bptt_verifier.console.files import require_writable
from bptt_verifier.judge import builtin
from bptt_verifier.problems.problem import Problem
from manual_bptt import rnn, rtrl
from tests.support.command_line import Ended
from tests.support.modules import ROOT
from tests.support.seeds import seed_without_evidence_for_W


@pytest.mark.slow
def test_verify_prints_a_row_for_each_gradient_and_agrees(bptt, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    ended = bptt("verify", "--examples", "30", "--seed", "5", "--json", str(out))
    assert ended.code == 0
    assert "agrees: 30 random problems in float64, seed 5." in ended.out
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["examples"] == 30
    for row in written["rows"]:
        assert row["derivation"] in ended.out
    assert ended.out.count("∂L/∂W") >= 3


@pytest.mark.slow
def test_verify_in_float32_agrees(bptt) -> None:
    ended = bptt("verify", "--examples", "30", "--dtype", "float32")
    assert ended.code == 0
    assert "in float32" in ended.out


@pytest.mark.rest
def test_verify_ends_with_1_where_a_derivation_is_wrong(bptt, monkeypatch) -> None:
    right = builtin.make_derivation(rtrl)
    monkeypatch.setitem(
        builtin.DERIVATIONS, "forward recursion", lambda p: (f := right(p)) | {"W": -f["W"]}
    )
    ended = bptt("verify", "--examples", "10")
    assert ended.code == 1
    assert "disagrees: 10 random problems" in ended.out
    assert "forward recursion, ∂L/∂W[" in ended.out


@pytest.mark.rest
def test_verify_ends_with_3_where_nothing_could_have_shown_a_mistake(bptt) -> None:
    ended = bptt("verify", "--examples", "1", "--seed", str(seed_without_evidence_for_W()))
    assert ended.code == 3
    assert "inconclusive" in ended.out


def says_one_sentence(ended: Ended, beginning: str) -> bool:
    """Whether this is how bad usage ends: in one line, on standard error, that begins so."""
    line = ended.err.removesuffix("\n")
    said = line.startswith(f"bptt: {beginning}") and line.isprintable()
    return said and (ended.code, ended.out, ended.err) == (2, "", f"{line}\n")


COMMANDS = "verify, prove, accuracy, explain, flow, train, docket"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["verify", "--examples", "0"], "--examples: expected an integer of at least 1, found '0'"),
        (["verify", "--examples", "many"], "--examples: expected an integer of at least 1, found 'many'"),
        (["verify", "--examples=1.5"], "--examples: expected an integer of at least 1, found '1.5'"),
        (["verify", "--examples", ""], "--examples: expected an integer of at least 1, found ''"),
        (["verify", "--examples", "5", "--examples", "x"], "--examples: expected an integer of at least 1, found 'x'"),
        (["verify", "file.py", "--examples", "a\nb\x1b[1m"], r"--examples: expected an integer of at least 1, found 'a\nb\x1b[1m'"),
        (["verify", "--seed", "-1"], "--seed: expected an integer of at least 0, found '-1'"),
        (["verify", "--seed", "--bias"], "--seed: expected an integer of at least 0, found '--bias'"),
        (["verify", "--seed"], "--seed: expected an integer of at least 0, found none"),
        (["verify", "--json"], "--json: expected a value, found none"),
        (["verify", "--dtype"], "--dtype: expected one of float32, float64, found none"),
        (["verify", "--dtype", "int8"], "--dtype: expected one of float32, float64, found 'int8'"),
        (["verify", "--timeout", "0"], "--timeout: expected a number of at least 0.1, found '0'"),
        (["verify", "--bias=yes"], "--bias: expected no value, found 'yes'"),
        (["verify", "--help=yes"], "--help: expected no value, found 'yes'"),
        (["verify", "--no-such"], "--no-such: no such option of bptt verify; see bptt verify --help"),
        (["verify", "--no-such=1"], "--no-such: no such option of bptt verify; see bptt verify --help"),
        (["verify", "--no\nsuch"], r"'--no\nsuch': no such option of bptt verify; see bptt verify --help"),
        (["verify", "--exampels", "3"], "--exampels: no such option of bptt verify, perhaps --examples; see bptt verify --help"),
        (["verify", "-x"], "-x: no such option of bptt verify; see bptt verify --help"),
        (["verify", "a.py", "b.py"], "bptt verify: expected no more arguments, found 'b.py'; see bptt verify --help"),
        (["verify", "a.py", "--model", "lstm", "--model=gru"], "--model: expected it once, found it several times"),
        (["verify", "a.py", "--sizes", "T=5,T=6"], "--sizes: expected each size once, found T=5,T=6; give --sizes again"),
        (["train", "--seed", "1", "--seed", "1"], "--seed: expected it once, found it several times"),
        (["verify", "https://example.com/a.py"], "FILE: expected a file on this computer, found the address https://example.com/a.py; fetch the file first"),
        (["verify", "--own", "file:///a.py:f"], "FILE: expected a file on this computer, found the address file:///a.py:f"),
        (["verify", ""], "FILE: expected a Python file, found an empty name"),
        (["verify", "a.py::f"], "FILE: expected one colon before the name, found a.py::f; write a.py:f"),
        (["verify", "--json", "no/such/folder/out.json"], "--json: expected a file in an existing folder, found no/such/folder/out.json"),
        (["verify", "--json", "."], "--json: expected a file, found the folder ."),
        (["verify", "--json", "/proc/x.json"], "--json: expected a file that can be written, found /proc/x.json"),
        (["verify", "a.py", "--html", "/proc/x.html"], "--html: expected a file that can be written, found /proc/x.html"),
        (["flow", "--json", "/proc/x.json"], "--json: expected a file that can be written, found /proc/x.json"),
        (["flow", "--steps", "0"], "--steps: expected an integer of at least 1, found '0'"),
        (["flow", "--forget-bias", "x"], "--forget-bias: expected a number, found 'x'"),
        (["flow", "--plot", "flow.nonsense"], "--plot: expected "),
        (["flow", "--steps", "1000000000000"], "memory: expected enough for these sizes, found too little"),
        (["train", "--activation", "cosine"], "--activation: expected one of tanh, "),
        (["train", "--resume=x"], "--resume: expected no value, found 'x'"),
        (["prove", "--points", "x"], "--points: expected an integer of at least 1, found 'x'"),
        (["accuracy", "--problems", "x"], "--problems: expected an integer of at least 1, found 'x'"),
        (["explain", "--truncation", "0"], "--truncation: expected an integer of at least 1, found '0'"),
        (["explain", "--hidden-size", "9"], "--hidden-size: expected an integer from 1 to 8, found '9'"),
        (["explain", "--activation", "cosine"], "--activation: expected one of tanh, "),
        (["explain", "--no-bias=x"], "--no-bias: expected no value, found 'x'"),
        (["explain", "extra", "more"], "bptt explain: expected no more arguments, found 'extra', 'more'; see bptt explain --help"),
        (["nonsense"], f"COMMAND: expected one of {COMMANDS}, found 'nonsense'"),
        (["verfy"], f"COMMAND: expected one of {COMMANDS}, found 'verfy'; perhaps verify"),
        (["a.py"], f"COMMAND: expected one of {COMMANDS}, found 'a.py'; perhaps bptt verify a.py"),
        (["verify", "--foo"], "--foo: no such option of bptt verify; see bptt verify --help"),
        (["verify", "--exampels", "2"], "--exampels: no such option of bptt verify, perhaps --examples; "),
        ([""], f"COMMAND: expected one of {COMMANDS}, found ''"),
        (["--", "--seed"], f"COMMAND: expected one of {COMMANDS}, found '--seed'"),
        (["--"], f"COMMAND: expected one of {COMMANDS}, found none"),
        (["--no-such", "verify"], "--no-such: no such option of bptt; see bptt --help"),
    ],
)  # fmt: skip
def test_bad_usage_ends_with_2_and_a_sentence(arguments: list[str], sentence: str, bptt) -> None:
    ended = bptt(*arguments)
    assert says_one_sentence(ended, sentence), ended.err


def options_of_every_command() -> list[tuple[str, str, bool]]:
    """(command, option, whether it takes a value)"""
    group: Any = typer.main.get_command(application.app)
    return [
        (name, option, not param.is_flag)
        for name, command in group.commands.items()
        for param in command.params
        if param.param_type_name == "option"
        for option in (*param.opts, *param.secondary_opts)
    ]


@pytest.mark.parametrize(("command", "option", "takes_a_value"), options_of_every_command())
def test_a_value_too_few_or_too_many_is_a_sentence_for_every_option(
    command: str, option: str, takes_a_value: bool, bptt
) -> None:
    ended = bptt(command, option if takes_a_value else f"{option}=x")
    assert says_one_sentence(ended, f"{option}: expected "), ended.err
    assert ended.err.endswith("found none\n" if takes_a_value else "found 'x'\n")


@pytest.mark.parametrize(
    "arguments", [["--no-such"], ["--examples", "x"], ["extra"], ["--examples"]]
)
def test_what_the_framework_says_by_itself_is_not_one_sentence(
    arguments: list[str], bptt, monkeypatch
) -> None:
    plain = typer.Typer()

    @plain.command()
    def demo(examples: int = 1) -> None:
        raise AssertionError(examples)

    monkeypatch.setattr(application, "app", plain, raising=False)
    assert not says_one_sentence(bptt(*arguments), "")


@pytest.mark.parametrize(
    "ended",
    [
        Ended(2, "", ""),
        Ended(2, "", "bptt: --seed: x"),
        Ended(2, "", "bptt: --seed: x\nmore\n"),
        Ended(2, "", "bptt: --seed: \x1b[31mx\n"),
        Ended(2, "", "Traceback (most recent call last):\nbptt: --seed: x\n"),
        Ended(2, "", "bptt: --dtype: x\n"),
        Ended(2, "text", "bptt: --seed: x\n"),
        Ended(1, "", "bptt: --seed: x\n"),
    ],
)
def test_any_other_ending_is_not_one_sentence(ended: Ended) -> None:
    assert says_one_sentence(Ended(2, "", "bptt: --seed: x\n"), "--seed")
    assert not says_one_sentence(ended, "--seed")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["x", "5"], "N: expected an integer, found 'x'"),
        (["1", "2", "3"], "bptt: expected no more arguments, found '3'; see bptt --help"),
        (["1", "2", "--least", "8"], "--least: expected a number of at most 7, found '8'"),
        ([], "Missing argument "),
        (["1"], "Missing argument "),
        (["1", "2", "--there", "no/such"], "Invalid value for '--there': "),
        (["1", "2"], "Invalid value: one line, and another; see bptt --help"),
    ],
)
def test_what_no_command_here_asks_for_would_be_refused_in_one_sentence_too(
    arguments: list[str], sentence: str, bptt, monkeypatch
) -> None:
    app = App()

    @app.command()
    def demo(
        n: int,
        m: Annotated[int, typer.Argument()],
        least: Annotated[float | None, typer.Option(max=7)] = None,
        there: Annotated[Path | None, typer.Option(exists=True)] = None,
    ) -> None:
        raise typer.BadParameter("one line,\nand another.")

    monkeypatch.setattr(application, "app", app, raising=False)
    ended = bptt(*arguments)
    assert says_one_sentence(ended, sentence), ended.err


def test_without_arguments_it_says_what_it_can_do(bptt) -> None:
    ended = bptt()
    for command in ("verify", "explain", "flow", "train"):
        assert command in ended.out
    assert ended.err == ""


def test_explain_shows_every_step_every_term_and_autodiff_beside_each_total(bptt) -> None:
    ended = bptt("explain")
    assert ended.code == 0
    for phrase in colours.PHRASES:
        assert phrase.text in ended.out
    for piece in (
        "(F1)  a_1 = U x_1 + W h_0",
        "(F2)  h_2 = tanh(a_2)",
        "(F3)  ŷ = V h_2",
        "(L1)",
        "(L2)  ∂L/∂ŷ = 2 (ŷ − y) / (B O)",
        "(B1)  ∂L/∂h_2 = Vᵀ ∂L/∂ŷ",
        "(B2)  δ_1 = ∂L/∂h_1 ⊙ φ′(a_1)",
        "(B3)  ∂L/∂h_0 = Wᵀ δ_1",
        "direct: W acts on h_2 directly",
        "indirect: W acts on h_1, and on through h_1 → h_2",
        "indirect: U acts on h_1",
        "autodiff",
    ):
        assert piece in ended.out, piece
    assert ended.out.count("agrees") == 3
    assert "…" not in ended.out  # nothing is cut off, however narrow the terminal


def test_explain_shows_the_numbers_that_the_derivation_gives(bptt) -> None:
    ended = bptt("explain", "--seed", "4", "--encoding", "one-hot", "--initial-state", "zeros")
    rng = np.random.default_rng(4)
    x, y = colours.inputs(colours.Encoding.ONE_HOT), colours.targets()
    params = rnn.init(rng, 4, 2, 3)
    value, found = rnn.gradients(params, x, y)
    assert f"{value:.9f}" in ended.out
    for entry in (entry for g in (found.W, found.V, found.U) if g is not None for entry in g.flat):
        assert ended.out.count(f"{entry:.6f}") >= 2  # by hand and by autodiff
    for entry in found.adjoints.flat:
        assert f"{entry:.5f}" in ended.out


def test_explain_says_where_a_term_is_exactly_zero(bptt) -> None:
    ended = bptt("explain", "--encoding", "integer", "--initial-state", "zeros")
    assert ended.out.count("exactly zero") == 3  # both terms for W, the first step's for U
    assert "inconclusive" in ended.out  # for W: zero against zero proves nothing


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "identity"])
@pytest.mark.parametrize("loss", ["mse", "half_sse"])
def test_explain_follows_the_activation_and_the_loss(bptt, activation: str, loss: str) -> None:
    ended = bptt("explain", "--activation", activation, "--loss", loss, "--bias")
    assert ended.code == 0
    assert f"h_1 = {activation}(a_1)" in ended.out
    assert ("(L4)" if loss == "half_sse" else "(L2)") in ended.out
    assert "a_1 = U x_1 + W h_0 + b" in ended.out


def test_explain_compares_the_largest_state_that_it_takes(bptt) -> None:
    ended = bptt("explain", "--hidden-size", "8")
    assert ended.code == 0
    assert ended.out.count("agrees") == 3


def test_explanation_is_for_any_problem() -> None:
    params = rnn.init(np.random.default_rng(0), 2, 3, 1)
    x, y = np.ones((4, 1, 2)), np.zeros((1, 1))
    problem = Problem("rnn", params, x, y, {}, {"activation": "tanh"}, "mse")
    assert explanation(problem, ["a sequence"])


def test_flow_shows_that_the_lstm_keeps_more_than_the_rnn(bptt, tmp_path: Path) -> None:
    out = tmp_path / "flow.json"
    ended = bptt("flow", "--steps", "100", "--seed", "3", "--json", str(out))
    assert ended.code == 0
    assert "‖δ_t‖ LSTM" in ended.out
    norms = json.loads(out.read_text(encoding="utf-8"))["adjoint_norms"]
    assert len(norms["rnn"]) == 100
    assert 0 < norms["rnn"][0] < norms["lstm"][0]


def test_explain_shows_what_a_truncation_leaves_out(bptt) -> None:
    assert "(K1)" not in bptt("explain").out
    ended = bptt("explain", "--truncation", "1", "--bias")
    assert ended.code == 0
    assert "last 1 of 2 steps" in ended.out
    assert ended.out.count("(K1)") == 3


def test_explain_with_biases_shows_their_gradients_beside_autodiff(bptt) -> None:
    ended = bptt("explain", "--bias")
    assert "(B7)  ∂L/∂b  sum over k" in ended.out
    assert "(B8)  ∂L/∂c = ∂L/∂ŷ" in ended.out
    assert ended.out.count("agrees") == 5


@pytest.mark.rest
@pytest.mark.parametrize("columns", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_verify_loses_nothing_on_a_narrow_terminal(bptt, monkeypatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    ended = bptt("verify", "--examples", "3")
    rows = [line for line in ended.out.splitlines() if "×" in line and "∂L/∂" in line]
    assert rows
    assert all(row.rstrip().endswith(("agrees", "inconclusive")) for row in rows)
    assert "…" not in ended.out


def test_a_file_that_is_there_is_only_tried(tmp_path: Path) -> None:
    there, new = tmp_path / "there.json", tmp_path / "new.json"
    there.write_text("kept")
    for path in (there, new):
        require_writable("--json", path)
    assert there.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [there]


def test_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    require_writable("--json", pipe)  # opening it would wait for a reader
    require_writable("--json", Path(os.devnull))


def test_a_file_to_be_replaced_needs_a_folder_that_takes_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    there = tmp_path / "there.json"
    there.write_text("kept")
    monkeypatch.setattr(files, "TemporaryFile", full)
    require_writable("--json", there)
    with pytest.raises(ValueError, match="--json: expected a file that can be written"):
        require_writable("--json", there, replaced=True)
    assert there.read_text() == "kept"


# A process of its own: pipes, encodings and Ctrl-C.

SCRIPT = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from bptt_verifier.commands import main as command_line, verify as v; "
    "{before}; command_line.main()"
)


def started(*arguments: str, before: str = "pass", **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(before=before), *arguments],
        cwd=ROOT, env=os.environ | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.rest
@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("verify", "--examples", "1", "--seed", "{seed}"), 3), (("--help",), 141)],
)
def test_a_reader_that_leaves_does_not_make_a_verdict(arguments, code: int) -> None:
    seed = seed_without_evidence_for_W()
    process = started(*(argument.format(seed=seed) for argument in arguments))
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=120) == code
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.rest
def test_what_the_terminal_cannot_show_is_replaced() -> None:
    process = started("explain", PYTHONIOENCODING="ascii")
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, b"")
    assert b"?L/?W  sum over k" in out


SLOW = """
import os, time
def gradients(params, x, y):
    open(__file__ + ".pid", "w").write(str(os.getpid()))
    time.sleep(600)
"""
TELL = "print(flush=True)"
DURING = {
    "start-up": f"v.require_writable = lambda *_: ({TELL}, __import__('time').sleep(60))",
    "cases": (
        "from bptt_verifier.judge import builtin as b; r = b.start_reference;"
        f"b.start_reference = lambda p: ({TELL}, r(p))[1]"
    ),
    "collection": (
        "import gc, time; v.require_writable = lambda *_: "
        f"(gc.callbacks.append(lambda *_: ({TELL}, time.sleep(60))), gc.collect())"
    ),
}


@pytest.mark.table(3)
@pytest.mark.parametrize("before", DURING.values(), ids=DURING)
def test_ctrl_c_is_one_sentence_and_the_end(before: str) -> None:
    process = started("verify", "--examples", "1000000", before=before)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, b"bptt: interrupted\n")


@pytest.mark.rest
def test_ctrl_c_ends_the_process_that_runs_a_file_too(tmp_path: Path) -> None:
    file, place = tmp_path / "slow.py", tmp_path / "slow.py.pid"
    file.write_text(SLOW, encoding="utf-8")
    process = started("verify", str(file), "--timeout", "600")
    try:
        for _ in range(1200):
            if place.exists() and place.read_text():
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, b"bptt: interrupted\n")
    with pytest.raises(ProcessLookupError):
        os.kill(int(place.read_text()), 0)


@pytest.mark.parametrize(
    "option", [["--model", "lstm"], ["--bias"], ["--activation", "relu"], ["--reset", "before"]]
)
def test_what_only_a_file_can_mean_is_refused_without_one(option: list[str]) -> None:
    with pytest.raises(ValueError, match=f"{option[0]}: expected a FILE to judge with it"):
        CliRunner().invoke(application.app, ["verify", *option], catch_exceptions=False)


@pytest.mark.table(3)
@pytest.mark.parametrize("name", ["random", "typing", "numpy"])
def test_the_current_folder_replaces_no_module_of_the_command(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("raise RuntimeError('of the user')\n")
    inside = tmp_path / ".venv"  # where an environment in the user's folder has the packages
    inside.mkdir()
    for package in ("bptt_verifier", "manual_bptt", "jax_reference"):
        (inside / package).symlink_to(ROOT / package)
    for path in (ROOT, inside):
        shown = subprocess.run(
            [sys.executable, "-m", "bptt_verifier", "verify", "--help"],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(path)}, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        assert "Usage" in shown.stdout
    loaded = "import bptt_verifier, sys; print('' in sys.path)"
    beside = subprocess.run(
        [sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert beside.stdout == "True\n"  # an import takes nothing from the path
