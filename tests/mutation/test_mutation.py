"""The mutation run makes the changes that it says, kills what a test notices, and nothing else."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from mutation import __main__ as command
from mutation.operators import Mutant, list_mutants
from mutation.run import (
    ROOT,
    list_stale_reasons,
    list_untestable,
    read_configuration,
    read_needs,
    select_mutants,
)

SOURCE = '''
"""A text is left alone."""
LIMIT: int = 3

@cached(512)
def clip(values, *, sum=max):
    assert values is not None
    total = []
    for value in values:
        if value > LIMIT and not value < 0:
            continue
        total.append(min(value + 0.5, LIMIT))
    total[0] = -1
    if len(total) == 0:
        raise ValueError(f"expected {1 + 1} values")
    return total
'''

CHANGES = """
module: 3 -> 4 in LIMIT: int = 3
clip: max -> min in def clip(values, *, sum=max):
clip: value > LIMIT and not value < 0 -> value > LIMIT or not value < 0 in if value > LIMIT and not value < 0:
clip: value > LIMIT -> value >= LIMIT in if value > LIMIT and not value < 0:
clip: not value < 0 -> value < 0 in if value > LIMIT and not value < 0:
clip: value < 0 -> value <= 0 in if value > LIMIT and not value < 0:
clip: 0 -> 1 in if value > LIMIT and not value < 0:
clip: value > LIMIT and not value < 0 -> not (value > LIMIT and (not value < 0)) in if value > LIMIT and not value < 0:
clip: continue -> pass
clip: total.append(min(value + 0.5, LIMIT)) -> pass
clip: min -> max in total.append(min(value + 0.5, LIMIT))
clip: value + 0.5 -> value - 0.5 in total.append(min(value + 0.5, LIMIT))
clip: value + 0.5 -> value in total.append(min(value + 0.5, LIMIT))
clip: 0.5 -> 1.0 in total.append(min(value + 0.5, LIMIT))
clip: total[0] = -1 -> pass
clip: 0 -> 1 in total[0] = -1
clip: -1 -> 1 in total[0] = -1
clip: 1 -> 2 in total[0] = -1
clip: len(total) == 0 -> len(total) != 0 in if len(total) == 0:
clip: 0 -> 1 in if len(total) == 0:
clip: len(total) == 0 -> not (len(total) == 0) in if len(total) == 0:
clip: raise ValueError(f"expected {1 + 1} values") -> pass
clip: return total -> return None
"""  # noqa: E501 - one mutant a line


def test_every_change_is_made_once_and_has_a_name() -> None:
    mutants = list_mutants("clip.py", SOURCE)
    assert [mutant.name for mutant in mutants] == CHANGES.strip().splitlines()
    for mutant in mutants:
        compile(mutant.text, "clip.py", "exec")
        assert mutant.text != SOURCE
        assert SOURCE.splitlines()[mutant.line - 1] not in mutant.text.splitlines()


def test_equal_changes_in_a_line_are_counted_and_bytes_are_not_mistaken_for_letters() -> None:
    names = {mutant.name: mutant.text for mutant in list_mutants("δ.py", "Δ = φ(1, 1, 'ŷ')\n")}
    assert names == {
        "module: 1 -> 2 in Δ = φ(1, 1, 'ŷ')": "Δ = φ((2), 1, 'ŷ')\n",
        "module: 1 -> 2 (2) in Δ = φ(1, 1, 'ŷ')": "Δ = φ(1, (2), 'ŷ')\n",
    }


def test_the_configuration_names_files_and_tests_that_exist() -> None:
    tests, reasons = read_configuration()
    assert reasons.keys() <= tests.keys()
    assert read_needs().keys() <= tests.keys()
    for chosen in tests.values():
        for test in chosen:
            file, _, function = test.partition("::")
            assert not function or f"def {function}(" in (ROOT / file).read_text(), test
            assert (ROOT / file).is_file(), test
    for file in tests:
        assert (ROOT / file).is_file(), file


@pytest.mark.rest
def test_every_reason_belongs_to_a_mutant() -> None:
    _, reasons = read_configuration()
    assert list_stale_reasons(select_mutants(reasons), reasons) == []


def test_a_reason_for_a_mutant_that_is_gone_is_noticed() -> None:
    mutants = list_mutants("clip.py", SOURCE)
    reasons = {"clip.py": {mutants[0].name: "why", "clip: 1 -> 3": "why"}, "other.py": {"x": "y"}}
    assert list_stale_reasons(mutants, reasons) == ["clip.py: clip: 1 -> 3"]


def test_a_file_whose_tests_would_be_skipped_is_named_and_not_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs = {"a.py": "no_such_module", "b.py": "numpy", "c.py": "no_such_module"}
    assert list_untestable(["a.py", "b.py", "d.py"], needs) == {"a.py": "no_such_module"}
    file, other = "bptt_verifier/reference/cuts.py", "bptt_verifier/tolerance/sizes.py"
    asked: list[set[str]] = []

    def run_mutants(mutants: list[Mutant], *_: object) -> list[object]:
        asked.append({each.file for each in mutants})
        return []

    monkeypatch.setattr(command, "run_mutants", run_mutants)
    monkeypatch.setattr(command, "read_needs", lambda: {file: "no_such_module"})
    monkeypatch.setattr(sys, "argv", ["mutation", file, other])
    assert command.main() == 0
    assert capsys.readouterr().out == (
        f"not tried, since no_such_module is not installed: {file}\n"
    )
    monkeypatch.setattr(command, "read_needs", lambda: {file: "numpy"})
    assert command.main() == 0
    assert capsys.readouterr().out == ""
    assert asked == [{other}, {file, other}]


PROJECT = {
    "pyproject.toml": '[tool.pytest]\npythonpath = ["."]\n',
    "manual_bptt/__init__.py": "",
    "manual_bptt/half.py": "half = lambda x: x * 0.5\n",
    "tests/conftest.py": "from hypothesis import settings; settings.register_profile('mutants')",
    "tests/test_half.py": """
        from manual_bptt.half import half

        def test_half_of_one_is_less_than_two():
            assert half(1) < 2
    """,
}
# Prints the outcomes of two runs, and why there is no third.
RUN = """
    import sys
    from pathlib import Path
    from mutation.run import run_mutants, select_mutants

    root, work = map(Path, sys.argv[1:])
    tests = {"manual_bptt/half.py": ["tests/test_half.py"]}
    mutants = select_mutants(tests, root=root)
    for reasons in ({}, {"manual_bptt/half.py": {mutants[1].name: "why"}}):
        found = run_mutants(mutants, tests, reasons, work, root=root, preloaded=["pytest"])
        texts = [f"{each.mutant.new}: {each.status} {each.reason}" for each in found]
        print(*map(str.strip, texts), sep=", ")
    (root / "tests/test_half.py").write_text("def test_wrong(): assert False")
    try:
        run_mutants(mutants, tests, {}, work, root=root, preloaded=["pytest"])
    except ValueError as error:
        print(str(error).splitlines()[0])
"""


# `kept` holds an object of `half` to which no name leads: the quick pass cannot renew it.
KEEPING = {
    **PROJECT,
    "manual_bptt/kept.py": "from manual_bptt.half import half\nKEPT = [half]\n",
    "tests/test_half.py": """
        from manual_bptt.half import half
        from manual_bptt.kept import KEPT

        def test_half_of_one_is_less_than_two():
            assert half(1) < 2

        def test_what_is_kept_takes_the_half():
            assert KEPT[0](1) < 1
    """,
}
# A class of the module that is executed anew is another class: this fails without a mutant.
OF_A_CLASS = {
    **PROJECT,
    "manual_bptt/half.py": "class Half:\n    factor = 0.5\n",
    "tests/test_half.py": """
        from manual_bptt.half import Half

        MADE = [Half()]

        def test_it_is_a_half():
            assert isinstance(MADE[0], Half) and Half.factor < 1
    """,
}
# A fork has none of the threads that the collection of the tests has started.
WITH_A_THREAD = """
        import threading
        from manual_bptt.half import half

        ASKED, ANSWERED = threading.Event(), threading.Event()

        def answer():
            ASKED.wait()
            ANSWERED.set()

        threading.Thread(target=answer, daemon=True).start()
"""
WAITING = {
    **PROJECT,
    "tests/test_half.py": WITH_A_THREAD
    + """
        def test_half_of_one_is_less_than_one():
            ASKED.set()
            ANSWERED.wait()
            assert half(1) < 1
    """,
}
# A fork in which a mutant waits for such a thread shows nothing: in a tree of its own it survives.
WAITING_IF_WRONG = {
    **PROJECT,
    "tests/test_half.py": WITH_A_THREAD
    + """
        def test_half_of_one_is_a_number():
            if half(1) != 0.5:
                ASKED.set()
                ANSWERED.wait()
            assert half(1) is not None
    """,
}
# Prints the outcomes, and what the quick pass left to be tried in a tree of its own.
RUN_QUICKLY = """
    import sys
    from pathlib import Path
    from mutation import quick
    from mutation.run import Slot, run_mutants, select_mutants

    quick.LEAST_SECONDS, quick.MOST_SECONDS = 2.0, 5.0
    root, work = map(Path, sys.argv[1:])
    tests = {"manual_bptt/half.py": ["tests/test_half.py"]}
    mutants = select_mutants(tests, root=root)
    start, started = Slot.start, []
    def note_start(slot, tests, limit, mutant=None):
        started.append(mutant and mutant.new.strip())
        start(slot, tests, limit, mutant)
    Slot.start = note_start
    found = run_mutants(mutants, tests, {}, work, root=root, preloaded=["pytest"])
    print(*(f"{each.mutant.new.strip()}: {each.status}" for each in found), sep=", ")
    print(*started, sep=", ")
"""


RUN_ONE = """
import sys
from pathlib import Path
from mutation.run import run_pytest
sys.exit(run_pytest(Path(), Path(sys.argv[1]), sys.argv[2:]))
"""


def write_project(files: dict[str, str], project: Path) -> None:
    """Write the files of a project."""
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(textwrap.dedent(text), encoding="utf-8")


def run_in_project(files: dict[str, str], script: str, place: Path) -> list[str]:
    """Run a script on a project of these files, with a folder for its results; return its lines."""
    project, work = place / "project", place / "work"
    write_project(files, project)
    command = [sys.executable, "-c", textwrap.dedent(script), str(project), str(work)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


@pytest.mark.rest
def test_a_mutant_is_killed_or_survives_or_is_argued_equivalent(tmp_path: Path) -> None:
    assert run_in_project(PROJECT, RUN, tmp_path) == [
        "x / 0.5: killed, 1.0: survived",
        "x / 0.5: killed, 1.0: equivalent why",
        "manual_bptt/half.py: its tests fail without a mutant:",
    ]
    project, work = tmp_path / "project", tmp_path / "work"
    assert (project / "manual_bptt/half.py").read_text() == PROJECT["manual_bptt/half.py"]
    assert len((work / "results.jsonl").read_text().splitlines()) == 2  # neither is tried again


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "outcomes", "started"),
    [
        (PROJECT, "x / 0.5: killed, 1.0: survived", ", 1.0"),
        (KEEPING, "x / 0.5: killed, 1.0: killed", ", 1.0"),
        (OF_A_CLASS, "1.0: killed", ", 1.0"),
        (WAITING, "x / 0.5: killed, 1.0: killed", ", x / 0.5, 1.0"),
        (WAITING_IF_WRONG, "x / 0.5: survived, 1.0: survived", ", x / 0.5, 1.0"),
    ],
    ids=[
        "seen by name",
        "kept without a name",
        "told by its class",
        "waiting for a thread",
        "waiting for a thread if wrong",
    ],
)
def test_what_the_quick_pass_does_not_kill_is_tried_in_a_tree_of_its_own(
    files: dict[str, str], outcomes: str, started: str, tmp_path: Path
) -> None:
    assert run_in_project(files, RUN_QUICKLY, tmp_path) == [outcomes, "None" + started]


@pytest.mark.rest
def test_no_process_is_left_after_ctrl_c(tmp_path: Path) -> None:
    project, work = tmp_path / "project", tmp_path / "work"
    waiting = WAITING["tests/test_half.py"].replace(
        "ASKED.set()", "__import__('pathlib').Path('running').touch()"
    )
    write_project({**WAITING, "tests/test_half.py": waiting}, project)
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code = heard + textwrap.dedent(RUN_QUICKLY)  # it may be ignored here
    command = [sys.executable, "-c", code, str(project), str(work)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as run:
        while run.poll() is None and not (work / "tree0" / "running").exists():
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        run.communicate()
    listed = subprocess.run(["ps", "-A", "-o", "args"], capture_output=True, text=True, check=True)
    assert str(work) not in listed.stdout


@pytest.mark.rest
def test_the_tests_of_the_project_run_as_in_the_mutation_run() -> None:
    test = "tests/project/test_structure.py::test_the_chosen_profile_is_in_force"
    command = [sys.executable, "-c", RUN_ONE, str(ROOT), test]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
