"""Hostile code in a file ends in a verdict, and a file that cannot be used in one sentence."""

import contextlib
from pathlib import Path

import pytest

from bptt_verifier import Verdict
from bptt_verifier.commands.child_process import judge_file
from bptt_verifier.judge import submission

HOSTILE = {
    "never returns": ("while True: pass", "timed-out"),
    "kills the process": ("import os; os._exit(7)", "exited"),
    "prints megabytes and raises": ("print('x' * 10**7); raise KeyError('no')", "raised"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_code_ends_in_a_verdict(kind: str, tmp_path: Path) -> None:
    body, name = HOSTILE[kind]
    file = tmp_path / "hostile.py"
    file.write_text(f"def gradients(params, x, y):\n    {body}\n", encoding="utf-8")
    request = {"file": str(file), "function": "gradients", "own": False, "options": {}}
    found = judge_file(request, 1.0, lambda done, total: None)
    assert found.verdict is Verdict.DISAGREES
    assert found.plain["mistake"]["name"] == name
    assert "Traceback" not in found.text
    assert len(found.text) < 5000


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
        submission.find_function(submission.load(file), "gradients", file)
    with pytest.raises(ValueError, match="which does not exist"):
        submission.load(tmp_path / "none.py")
    with pytest.raises(ValueError, match="which is no file"):
        submission.load(tmp_path)
