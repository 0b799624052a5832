"""The child that judges a file starts while the command line is read, and never stays behind."""

import json
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from bptt_verifier.commands import main, waiting_child
from bptt_verifier.commands.waiting_child import names_file, start, starting_early, take, waiting
from tests.support.modules import ROOT

RIGHT = str(ROOT / "examples" / "right.py")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["verify", RIGHT], True),
        (["verify", f"{RIGHT}:gradients"], True),
        (["verify", "--seed", "3", "--own", RIGHT], True),
        (["verify"], False),
        ([], False),
        (["verify", "--examples", "7"], False),
        (["verify", f"{RIGHT}x"], False),
        (["verify", str(ROOT / "examples" / "missing.py")], False),
        (["verify", str(ROOT / "README.md")], False),
        (["verify", str(ROOT)], False),
        (["verify", RIGHT, "--help"], False),
        (["verify", RIGHT, "-h"], False),
        (["explain", RIGHT], False),
    ],
)
def test_a_child_starts_early_for_a_file_that_is_there(
    arguments: list[str], expected: bool
) -> None:
    assert names_file(arguments) is expected


def test_a_notebook_in_a_folder_with_a_colon_is_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "a:b" / "mine.ipynb"
    file.parent.mkdir()
    file.touch()
    assert names_file(["verify", str(file)])
    assert names_file(["verify", f"{file}:step"])


def test_the_child_that_waits_is_the_one_that_is_taken() -> None:
    with starting_early(["verify", RIGHT]):
        (child,) = waiting
        assert take() is child
        assert waiting == []
    assert child.poll() is None  # whoever has taken it ends it
    child.kill()
    child.communicate()


@pytest.mark.parametrize("raised", [False, True])
def test_a_child_that_nothing_takes_is_ended(raised: bool) -> None:
    seen: list[subprocess.Popen[bytes]] = []

    def use_no_child() -> None:
        with starting_early(["verify", RIGHT]):
            seen.extend(waiting)
            if raised:
                raise ValueError("--seed: expected a number")

    if raised:
        with pytest.raises(ValueError, match="--seed"):
            use_no_child()
    else:
        use_no_child()
    assert (len(seen), waiting) == (1, [])
    assert seen[0].returncode is not None


def test_a_child_whose_parent_ends_without_a_request_ends_by_itself() -> None:
    child = start()
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (0, b"", b"")


def test_nothing_waits_for_other_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_child, "start", lambda: pytest.fail("a child was started"))
    with starting_early(["verify", "--examples", "1"]), starting_early(["train"]):
        assert waiting == []


def test_the_child_starts_before_the_application_is_imported() -> None:
    program = (
        "import json, sys; from bptt_verifier.commands import main, waiting_child; "
        "early = {'numpy', 'typer', 'jax'} & {*sys.modules}; print(json.dumps(sorted(early)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(ended.stdout) == []


def test_the_command_line_starts_it_early(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def note(arguments: list[str]) -> AbstractContextManager[None]:
        asked.append(arguments)
        return nullcontext()

    monkeypatch.setattr(main, "starting_early", note)
    monkeypatch.setattr(sys, "argv", ["bptt", "verify", RIGHT, "--seed", "-1"])
    with pytest.raises(SystemExit):
        main.main()
    assert asked == [["verify", RIGHT, "--seed", "-1"]]
