"""Hostile code in a file ends in a verdict, and a file that cannot be used in one sentence."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bptt_verifier import Verdict
from bptt_verifier.commands.child_process import (
    ALIVE,
    Outcome,
    Output,
    describe_failure,
    judge_file,
    naming_option,
)
from bptt_verifier.program import source_file
from bptt_verifier.program.attempt import CodeRaisedError
from bptt_verifier.report.versions import find_versions
from tests.support.command_line import Command

RAISE = "raise KeyError('no')"
HOSTILE = {
    "never returns": ("while True: pass", "timed-out"),
    "kills the process": ("os._exit(7)", "exited"),
    "crashes": ("os.kill(os.getpid(), signal.SIGSEGV)", "exited"),
    "prints megabytes, and a process that it leaves keeps the output": (
        f"print('x' * 10**7); subprocess.Popen(['sleep', '5'], start_new_session=True); {RAISE}",
        "raised",
    ),
    "closes and replaces its output": (
        f"sys.stdout = sys.stderr = None; os.close(1); os.close(2); {RAISE}",
        "raised",
    ),
}


def write_file(folder: Path, *lines: str) -> Path:
    file = folder / "derivation.py"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def judge(file: Path, show: Callable[[str], object] = print, **options: Any) -> Outcome:
    request = {"file": str(file), "function": None, "own": None, "options": {}} | options
    return judge_file(request, 5.0, lambda done, total: None, show)


@pytest.mark.table(5)
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_code_ends_in_a_verdict(kind: str, tmp_path: Path) -> None:
    body, name = HOSTILE[kind]
    start = "import os, signal, subprocess, sys", "def gradients(params, x, y):"
    file = write_file(tmp_path, *start, f"    {body}")
    printed: list[str] = []
    found = judge(file, printed.append, command="bptt verify it.py", seed=3)
    assert (found.plain["command"], found.plain["seed"]) == ("bptt verify it.py", 3)
    assert found.plain["versions"] == find_versions()
    assert found.verdict is (Verdict.INCONCLUSIVE if name == "exited" else Verdict.DISAGREES)
    assert found.plain["mistake"]["name"] == name
    assert found.ended == (name == "exited")
    assert "Traceback" not in found.text
    assert len(found.text) < 5000
    assert len("".join(printed)) < 5000


@pytest.mark.slow
def test_a_loss_that_does_not_end_is_no_verdict_on_gradients(tmp_path: Path) -> None:
    start = "import numpy as np", "params = {'W': np.ones(2)}"
    gradients = "def gradients(p): return {'W': 2 * p['W']}"
    file = write_file(tmp_path, *start, gradients, "def loss(p):", "    while True: pass")
    found = judge(file)
    assert found.verdict is Verdict.INCONCLUSIVE
    said = "computing the loss did not end within 5 s, so your gradients were not judged."
    assert said in " ".join(found.text.split())


@pytest.mark.slow
def test_a_trace_of_a_loss_may_take_longer_than_a_call(tmp_path: Path) -> None:
    # At traced values it waits, as the trace of a long loop takes a hundred times as long.
    file = write_file(
        tmp_path, "import time", "import numpy as np", "params = {'W': np.ones(2)}",
        "def gradients(p): return {'W': 2 * p['W']}", "def loss(p):",
        "    if type(p['W']).__module__ != 'numpy': print('traced'); time.sleep(6)",
        "    return (p['W'] ** 2).sum()",
    )  # fmt: skip
    printed: list[str] = []
    assert judge(file, printed.append).verdict is Verdict.AGREES
    assert "traced" in printed[0]


@pytest.mark.rest
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_code_ends_with_a_verifier_that_is_killed(tmp_path: Path) -> None:
    number = tmp_path / "number"
    body = f"open({str(number)!r}, 'w').write(f'{{os.getpid()}}\\n'); time.sleep(60)"
    file = write_file(tmp_path, "import os, time", body)
    verifier = subprocess.Popen([sys.executable, "-m", "bptt_verifier", "verify", str(file)])
    while not (number.exists() and number.read_text(encoding="utf-8").endswith("\n")):
        time.sleep(0.1)
    verifier.kill()
    verifier.wait()
    stat = Path("/proc") / number.read_text(encoding="utf-8").strip() / "stat"
    end = time.monotonic() + 10 * ALIVE
    while is_running(stat) and time.monotonic() < end:
        time.sleep(0.1)
    assert not is_running(stat)


def is_running(stat: Path) -> bool:
    """Tell whether a process runs: not where it has ended, and nothing has asked for its code."""
    try:
        return stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


EXAMPLES = 8
RIGHT = (
    "from manual_bptt import rnn",
    "def gradients(params, x, y):",
    "    return tuple(rnn.value_and_grad(rnn.Params(*params), x, y)[1][:3])",
)


@pytest.mark.rest
def test_files_named_like_pythons_own_modules_end_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What FILE does not import ends nothing, wherever it is; FILE has what is beside it."""
    working, alone = tmp_path / "working", tmp_path / "alone"
    for folder in (working, alone):
        folder.mkdir()
    for name in ("random", "copy", "queue", "types", "secrets", "numpy", "html", "statistics"):
        for folder in (tmp_path, working):
            (folder / f"{name}.py").write_text("raise SystemExit(9)", encoding="utf-8")
    (alone / "sizes.py").write_text("ONE = 1", encoding="utf-8")
    monkeypatch.chdir(working)
    beside = write_file(tmp_path, *RIGHT)
    (alone / beside.name).write_text(
        "\n".join(["import random, secrets, html, statistics", "from sizes import ONE", *RIGHT]),
        encoding="utf-8",
    )
    for file in (beside, alone / beside.name):
        assert judge(file, options={"examples": EXAMPLES}).verdict is Verdict.AGREES


@pytest.mark.rest
def test_what_the_submission_prints_is_shown_in_part(tmp_path: Path) -> None:
    file = write_file(
        tmp_path, "import os, sys",
        "print('at the start')", "sys.stderr.write('an \\x1b[31merror\\n')",
        *RIGHT[:2], "    os.write(1, b'a write\\xff\\n'); print('call' * 100)", RIGHT[2],
    )  # fmt: skip
    printed: list[str] = []
    assert judge(file, printed.append, options={"examples": EXAMPLES}).verdict is Verdict.AGREES
    (text,) = printed
    first, *lines = text.splitlines()
    assert re.fullmatch(r"Your code printed \d+ lines; the first 5 and the last 3 are:", first)
    assert lines[:3] == ["at the start", "an \\x1b[31merror", "a write\ufffd"]
    assert lines[3] == "call" * 50 + "…"
    assert lines[5] == "…"
    assert len(lines) == 9


@pytest.mark.rest
def test_nothing_is_shown_of_a_silent_submission(tmp_path: Path) -> None:
    printed: list[str] = []
    judge(write_file(tmp_path, *RIGHT), printed.append, options={"examples": 1})
    assert printed == []


def test_what_a_file_printed_before_it_failed_is_shown(tmp_path: Path) -> None:
    printed: list[str] = []
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        judge(write_file(tmp_path, "print('before')", "1 / 0"), printed.append)
    assert printed == ["Your code printed:\nbefore"]


def test_what_a_file_prints_at_exit_is_shown_where_it_cannot_be_run(tmp_path: Path) -> None:
    printed: list[str] = []
    with pytest.raises(CodeRaisedError, match=r"line 3: ZeroDivisionError: .* at `1 / 0`"):
        judge(
            write_file(tmp_path, "import atexit", "atexit.register(print, 'bye')", "1 / 0"),
            printed.append,
        )
    assert printed == ["Your code printed:\nbye"]


AT_EXIT = {
    "prints": ("atexit.register(print, 'bye')", r"bye"),
    "prints without end": (
        "@atexit.register\ndef f():\n    while True: print('no' * 99)",
        "no.*….*",
    ),
    "raises": (
        "@atexit.register\ndef f(): print('bye'); raise ValueError('here')",
        "bye\n.*derivation.py.*ValueError: here",
    ),
    "hangs": ("@atexit.register\ndef f(): print('bye'); time.sleep(99)", "bye"),
    "ends the process": ("@atexit.register\ndef f(): print('bye', flush=True); os._exit(7)", "bye"),
    "a thread": (
        "def f(): threading.main_thread().join(); print('bye')\nthreading.Thread(target=f).start()",
        "bye",
    ),
    "an object": ("class A:\n    def __del__(self): print('bye')\na = A()", "bye"),
    "a finalizer": ("class A: pass\na = A(); weakref.finalize(a, print, 'bye')", "bye"),
}


@pytest.mark.table(2)
@pytest.mark.rest
@pytest.mark.parametrize("kind", AT_EXIT)
def test_what_the_code_prints_at_its_end_is_shown_and_changes_no_verdict(
    kind: str, tmp_path: Path
) -> None:
    body, shown = AT_EXIT[kind]
    file = write_file(tmp_path, "import atexit, os, threading, time, weakref", body, *RIGHT)
    printed: list[str] = []
    assert judge(file, printed.append, options={"examples": 1}).verdict is Verdict.AGREES
    (text,) = printed
    assert len(text) < 5000
    assert re.fullmatch(f"Your code printed.*:\n{shown}", text, re.DOTALL)


@pytest.mark.rest
def test_what_a_thread_prints_while_no_code_is_called_is_shown(tmp_path: Path) -> None:
    file = write_file(
        tmp_path, "import threading, time", "def work():",
        "    for _ in range(30): print('tick'); time.sleep(0.02)",
        "threading.Thread(target=work).start()", *RIGHT,
    )  # fmt: skip
    printed: list[str] = []
    assert judge(file, printed.append, options={"examples": 1}).verdict is Verdict.AGREES
    assert printed[0].startswith("Your code printed 30 lines; ")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('no ' + name)", "RuntimeError: no dtype at `raise RuntimeError("),
        ("sys.exit(3)", r"SystemExit: 3 at `sys.exit(3)`"),
        ("signal.raise_signal(2)", "KeyboardInterrupt at `signal.raise_signal(2)`"),
    ],
)
@pytest.mark.usefixtures("interruptible")
def test_what_parameters_raise_where_they_are_read_is_said_with_its_line(
    body: str, said: str, tmp_path: Path
) -> None:
    file = write_file(
        tmp_path, "import signal, sys", "class Lazy:", "    def __getattr__(self, name):",
        f"        {body}", "params = Lazy()", "def loss(p): return 0.0",
        "def gradients(p): return {}",
    )  # fmt: skip
    pattern = f"^FILE: your code raised {re.escape(said)}.*{re.escape(str(file))}:4:9"
    with pytest.raises(CodeRaisedError, match=pattern):
        judge(file)


@pytest.mark.rest
def test_output_breaks_no_json_and_an_ended_process_has_its_own_exit_code(
    bptt: Command, tmp_path: Path
) -> None:
    file = write_file(tmp_path, "print('{')", *RIGHT[:2], "    print('}')", RIGHT[2])
    ended = bptt("verify", file, "--examples", 4, "--json", tmp_path / "out.json")
    assert ended.code == 0
    assert "}" not in ended.out
    assert re.match(r"Your code printed \d+ lines; .*\n\{\n\}\n", ended.err)
    assert json.loads((tmp_path / "out.json").read_text())["verdict"] == "agrees"

    file = write_file(tmp_path, RIGHT[1], "    import os; os._exit(0)")
    ended = bptt("verify", file, "--json", tmp_path / "out.json")
    assert ended.code == 4
    assert "with exit code 0, so it was not judged" in ended.out
    assert json.loads((tmp_path / "out.json").read_text())["verdict"] == "inconclusive"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = ", "cannot be run: line 1: SyntaxError"),
        ("\nraise RuntimeError('stop')", "cannot be run: line 2: RuntimeError: stop"),
        ("import sys\nsys.exit(1)", "cannot be run: line 2: SystemExit"),
        ("def other(): pass", "expected a function gradients in .*, found other"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_sentence(
    text: str, sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / "unusable.py"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=sentence), contextlib.redirect_stdout(None):
        source_file.find_function(source_file.load(file), "gradients", file)
    with pytest.raises(ValueError, match="which does not exist"):
        source_file.load(tmp_path / "none.py")
    with pytest.raises(ValueError, match="which is no file"):
        source_file.load(tmp_path)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"", ""),
        (b"a\nb", "Your code printed:\na\nb"),
        (b"1\n" * 8, "Your code printed:\n" + "\n".join("1" * 8)),
        (
            b"".join(b"step %d\n" % i for i in range(1000)),
            "Your code printed 1000 lines; the first 5 and the last 3 are:\nstep 0\nstep 1\n"
            "step 2\nstep 3\nstep 4\n…\nstep 997\nstep 998\nstep 999",
        ),
        (
            b"\r".join(b"%d %%" % i for i in range(101)),  # a progress bar
            "Your code printed 101 lines; the first 5 and the last 3 are:\n"
            "0 %\n1 %\n2 %\n3 %\n4 %\n…\n98 %\n99 %\n100 %",
        ),
        (b"x" * 10**5, f"Your code printed 100000 bytes, which begin:\n{'x' * 200}…"),
    ],
    ids=["nothing", "two lines", "eight lines", "many lines", "a progress bar", "a long line"],
)
def test_of_long_output_the_first_and_the_last_lines_are_shown(written: bytes, shown: str) -> None:
    reading, writing = os.pipe()
    output = Output(os.fdopen(reading, "rb"))
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(written)
    output.close()
    assert str(output) == shown


@pytest.mark.parametrize(("said", "shown"), [("case: no", "--case: no"), ("loss: no", "loss: no")])
def test_a_refusal_of_an_argument_names_the_option_that_gives_it(said: str, shown: str) -> None:
    with pytest.raises(ValueError, match=f"^{shown}$"), naming_option("case"):
        raise ValueError(said)


@pytest.mark.rest
def test_the_command_of_a_report_on_one_case_names_the_case(tmp_path: Path) -> None:
    source = (
        "import numpy as np",
        "params = {'w': np.ones(2)}",
        "def loss(p): return (p['w'] ** 2).sum()",
        "def gradients(p): return {'w': p['w']}",
    )
    file = write_file(tmp_path, *source)
    found = judge(file, case="3,digits=1", command="bptt verify it.py --seed 0")
    assert found.plain["command"] == "bptt verify it.py --seed 0 --case 3,digits=1"


@pytest.mark.slow
def test_a_thread_that_the_judge_has_ended_takes_no_time_of_a_call(tmp_path: Path) -> None:
    file = tmp_path / "waiting.py"
    file.write_text(
        "import queue, threading\nimport numpy as np\nparams = {'w': np.array([0.3, -0.2])}\n"
        "def loss(p): return np.sum(p['w'] ** 2)\n"
        "def gradients(p):\n    asked, answered = queue.Queue(), queue.Queue()\n"
        "    work = lambda: answered.put(2 * asked.get())\n"
        "    threading.Thread(target=work, daemon=True).start()\n"
        "    asked.put(p['w'])\n    return {'w': answered.get()}\n"
    )
    request = {"file": str(file), "function": None, "own": None, "options": {}}
    assert judge_file(request, 1.0, lambda done, total: None, print).verdict is Verdict.AGREES


def refuse() -> None:
    raise ValueError("params: expected a dict, found None")


def take_from_none() -> None:
    none: Any = None
    none.items()


def count_none() -> None:
    none: Any = None
    len(none)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (refuse, "params: expected a dict, found None"),
        (
            take_from_none,
            "the judge itself failed: AttributeError: .* at test_child_process.py:[0-9]+",
        ),
        (count_none, "the judge itself failed: TypeError: .* at test_child_process.py:[0-9]+"),
    ],
)
def test_only_a_sentence_that_is_raised_is_said_as_it_is(
    code: Callable[[], None], said: str
) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError)) as raised:
        code()
    assert re.fullmatch(said, describe_failure(raised.value))


@pytest.mark.rest
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_leaves_the_group_keeps_no_verdict_waiting(tmp_path: Path) -> None:
    """It has what the verdict is sent through as long as it runs."""
    leave = "def leave(): os.fork() or (os.setsid(), time.sleep(20), os._exit(0))"
    body = "    if not left: left.append(leave())"
    file = write_file(tmp_path, "import os, time", "left = []", leave, *RIGHT[:2], body, RIGHT[2])
    begun = time.monotonic()
    assert judge(file, options={"examples": 1}).verdict is Verdict.AGREES
    assert time.monotonic() - begun < 15


def test_a_file_in_a_clone_of_the_project_leaves_the_judge_as_it_is() -> None:
    code = (
        "import bptt_verifier; from pathlib import Path; from bptt_verifier.commands import ending;"
        "ending.forget_objects(Path(bptt_verifier.__file__).parents[1]);"
        "print(ending.forget_objects.__name__, ending.is_beside.__name__)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["forget_objects", "is_beside"]
