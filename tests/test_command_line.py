"""The command line: what it prints, and with which exit code it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_builtin import without_evidence_for_W
from typer.testing import CliRunner

from bptt_verifier import builtin, colours, command_line
from bptt_verifier.explain import explanation
from bptt_verifier.problems import Problem
from bptt_verifier.terminal import require_writable
from manual_bptt import rnn, rtrl


class Ended:
    """How a run ended, and what it printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def bptt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["bptt", *arguments])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run


def test_verify_prints_a_row_for_each_gradient_and_agrees(bptt, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out.json"
    ended = bptt("verify", "--examples", "30", "--seed", "5", "--json", str(out))
    assert ended.code == 0
    assert "agrees: 30 random problems in float64, seed 5." in ended.out
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["examples"] == 30
    for row in written["rows"]:
        assert row["derivation"] in ended.out
    assert ended.out.count("∂L/∂W") >= 3


def test_verify_in_float32_agrees(bptt) -> None:  # type: ignore[no-untyped-def]
    ended = bptt("verify", "--examples", "30", "--dtype", "float32")
    assert ended.code == 0
    assert "in float32" in ended.out


def test_verify_ends_with_1_where_a_derivation_is_wrong(bptt, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    right = builtin.derivation_of(rtrl)
    monkeypatch.setitem(
        builtin.DERIVATIONS, "forward recursion", lambda p: (f := right(p)) | {"W": -f["W"]}
    )
    ended = bptt("verify", "--examples", "10")
    assert ended.code == 1
    assert "disagrees: 10 random problems" in ended.out
    assert "forward recursion, ∂L/∂W[" in ended.out


def test_verify_ends_with_3_where_nothing_could_have_shown_a_mistake(bptt) -> None:  # type: ignore[no-untyped-def]
    ended = bptt("verify", "--examples", "1", "--seed", str(without_evidence_for_W()))
    assert ended.code == 3
    assert "inconclusive" in ended.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["verify", "--examples", "0"], "--examples"),
        (["verify", "--examples", "many"], "--examples"),
        (["verify", "--seed", "-1"], "--seed"),
        (["verify", "--dtype", "float16"], "'float16' is not one of"),
        (["verify", "--json", "no/such/folder/out.json"], "--json: expected a file in an existing folder, found no/such/folder/out.json"),
        (["verify", "--json", "."], "--json: expected a file in an existing folder, found ."),
        (["verify", "--json", "/proc/x.json"], "--json: expected a file that can be written, found /proc/x.json"),
        (["verify", "--html", "/proc/x.html"], "--html: expected a file that can be written, found /proc/x.html"),
        (["flow", "--json", "/proc/x.json"], "--json: expected a file that can be written, found /proc/x.json"),
        (["flow", "--steps", "0"], "--steps"),
        (["flow", "--plot", "flow.nonsense"], "--plot: expected "),
        (["flow", "--steps", "1000000000000"], "memory: expected enough for these sizes, found too little"),
        (["explain", "--truncation", "0"], "--truncation"),
        (["explain", "--hidden-size", "0"], "--hidden-size"),
        (["explain", "--activation", "cosine"], "'cosine' is not one of"),
        (["explain", "extra"], "extra"),
        (["nonsense"], "nonsense"),
    ],
)  # fmt: skip
def test_bad_usage_ends_with_2_and_a_sentence_without_a_traceback(  # type: ignore[no-untyped-def]
    arguments: list[str], sentence: str, bptt
) -> None:
    ended = bptt(*arguments)
    assert ended.code == 2
    assert ended.out == ""
    assert sentence in ended.err
    assert "Traceback" not in ended.err


def test_without_arguments_it_says_what_it_can_do(bptt) -> None:  # type: ignore[no-untyped-def]
    ended = bptt()
    for command in ("verify", "explain", "flow", "train"):
        assert command in ended.out + ended.err


def test_explain_shows_every_step_every_term_and_autodiff_beside_each_total(bptt) -> None:  # type: ignore[no-untyped-def]
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


def test_explain_shows_the_numbers_that_the_derivation_gives(bptt) -> None:  # type: ignore[no-untyped-def]
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


def test_explain_says_where_a_term_is_exactly_zero(bptt) -> None:  # type: ignore[no-untyped-def]
    ended = bptt("explain", "--encoding", "integer", "--initial-state", "zeros")
    assert ended.out.count("exactly zero") == 3  # both terms for W, the first step's for U
    assert "inconclusive" in ended.out  # for W: zero against zero proves nothing


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "identity"])
@pytest.mark.parametrize("loss", ["mse", "half_sse"])
def test_explain_follows_the_activation_and_the_loss(bptt, activation: str, loss: str) -> None:  # type: ignore[no-untyped-def]
    ended = bptt("explain", "--activation", activation, "--loss", loss, "--bias")
    assert ended.code == 0
    assert f"h_1 = {activation}(a_1)" in ended.out
    assert ("(L4)" if loss == "half_sse" else "(L2)") in ended.out
    assert "a_1 = U x_1 + W h_0 + b" in ended.out


def test_explanation_is_for_any_problem() -> None:
    params = rnn.init(np.random.default_rng(0), 2, 3, 1)
    problem = Problem(params, np.ones((4, 1, 2)), np.zeros((1, 1)), None, "tanh", "mse")
    assert explanation(problem, ["a sequence"])


def test_flow_shows_that_the_lstm_keeps_more_than_the_rnn(bptt, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "flow.json"
    ended = bptt("flow", "--steps", "100", "--seed", "3", "--json", str(out))
    assert ended.code == 0
    assert "‖δ_t‖ LSTM" in ended.out
    norms = json.loads(out.read_text(encoding="utf-8"))["adjoint_norms"]
    assert len(norms["rnn"]) == 100
    assert 0 < norms["rnn"][0] < norms["lstm"][0]


def test_explain_shows_what_a_truncation_leaves_out(bptt) -> None:  # type: ignore[no-untyped-def]
    assert "(K1)" not in bptt("explain").out
    ended = bptt("explain", "--truncation", "1", "--bias")
    assert ended.code == 0
    assert "last 1 of 2 steps" in ended.out
    assert ended.out.count("(K1)") == 3


def test_explain_with_biases_shows_their_gradients_beside_autodiff(bptt) -> None:  # type: ignore[no-untyped-def]
    ended = bptt("explain", "--bias")
    assert "(B7)  ∂L/∂b  sum over k" in ended.out
    assert "(B8)  ∂L/∂c = ∂L/∂ŷ" in ended.out
    assert ended.out.count("agrees") == 5


@pytest.mark.parametrize("columns", [20, 40, 60])
def test_verify_loses_nothing_on_a_narrow_terminal(bptt, monkeypatch, columns: int) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("COLUMNS", str(columns))
    ended = bptt("verify", "--examples", "3")
    rows = [line for line in ended.out.splitlines() if "T=" in line and "∂L/∂" in line]
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


# A process of its own: pipes, encodings and Ctrl-C.

SCRIPT = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from bptt_verifier import command_line; {before}; command_line.main()"
)


def started(*arguments: str, before: str = "pass", **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(before=before), *arguments],
        cwd=Path(__file__).parents[1], env=os.environ | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("verify", "--examples", "1", "--seed", "{seed}"), 3), (("--help",), 141)],
)
def test_a_reader_that_leaves_does_not_make_a_verdict(arguments, code: int) -> None:  # type: ignore[no-untyped-def]
    seed = without_evidence_for_W()
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
    "start-up": f"command_line.require_writable = lambda *_: ({TELL}, __import__('time').sleep(60))",
    "cases": (
        "from bptt_verifier import builtin as b; r = b.reference;"
        f"b.reference = lambda p: ({TELL}, r(p))[1]"
    ),
    "collection": (
        "import gc, time; command_line.require_writable = lambda *_: "
        f"(gc.callbacks.append(lambda *_: ({TELL}, time.sleep(60))), gc.collect())"
    ),
}


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
        CliRunner().invoke(command_line.app, ["verify", *option], catch_exceptions=False)
