"""Compiled programs are kept in a folder of the user's, and nowhere else."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from bptt_verifier.commands import application, compiled, main
from bptt_verifier.commands.compiled import describe_platform, find_folder, make_private
from tests.support.modules import ROOT


@pytest.fixture
def updated(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is set in JAX, which is left as it is."""
    found: dict[str, Any] = {}
    config = type("Config", (), {"jax_compilation_cache_dir": None, "update": found.__setitem__})
    monkeypatch.setitem(sys.modules, "jax", type("Jax", (), {"config": config}))
    monkeypatch.setattr(compiled.warnings, "filterwarnings", lambda *_: None)
    for name in (
        "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
        compiled.PROGRAMS,
    ):  # fmt: skip
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return found


@pytest.mark.parametrize(
    ("platform", "environment", "folder"),
    [
        ("linux", {"HOME": "/home/me"}, "/home/me/.cache/bptt"),
        ("linux", {"HOME": "/home/me", "XDG_CACHE_HOME": "/fast"}, "/fast/bptt"),
        ("darwin", {"HOME": "/Users/me"}, "/Users/me/Library/Caches/bptt"),
        ("linux", {"HOME": "/home/me", "BPTT_CACHE": "/mine"}, "/mine"),
        ("linux", {"HOME": "/home/me", "BPTT_CACHE": ""}, None),
        ("linux", {"HOME": "/home/me", "JAX_COMPILATION_CACHE_DIR": "/jax"}, None),
        ("linux", {}, None),
        ("linux", {"HOME": "/home/me", "XDG_CACHE_HOME": "relative"}, None),
    ],
)
def test_the_folder_is_in_the_users_cache_unless_another_is_named(
    platform: str, environment: dict[str, str], folder: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled.sys, "platform", platform)
    found = find_folder(environment)
    assert found == (None if folder is None else Path(folder) / describe_platform())


def test_another_jaxlib_has_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    before = describe_platform()
    assert before == describe_platform()
    monkeypatch.setattr(compiled, "version", lambda name: "9.9")
    assert describe_platform().startswith("jaxlib-9.9-")
    assert describe_platform() != before


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="the system has no modes of files")
def test_a_folder_that_others_can_write_to_is_not_used(tmp_path: Path) -> None:
    mine, shared = tmp_path / "a" / "mine", tmp_path / "shared"
    assert make_private(mine)
    assert mine.stat().st_mode & 0o777 == 0o700
    shared.mkdir()
    shared.chmod(0o777)
    assert not make_private(shared)
    (tmp_path / "file").touch()
    assert not make_private(tmp_path / "file" / "below")


def test_programs_are_kept_for_this_process_and_those_that_it_starts(
    updated: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPTT_CACHE", str(tmp_path))
    monkeypatch.setenv(compiled.PROGRAMS, "/inherited")
    compiled.keep_compiled_programs()
    folder = str(tmp_path / describe_platform())
    assert updated["jax_compilation_cache_dir"] == folder
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == os.environ[compiled.PROGRAMS] == folder
    assert [each.name for each in tmp_path.iterdir()] == [describe_platform()]


def test_where_jax_is_not_imported_yet_the_environment_tells_it(
    updated: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPTT_CACHE", str(tmp_path))
    monkeypatch.delitem(sys.modules, "jax")
    compiled.keep_compiled_programs()
    assert updated == {}
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / describe_platform())


def test_the_users_own_least_time_of_compilation_is_left(
    updated: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
    monkeypatch.setenv("BPTT_CACHE", str(tmp_path))
    monkeypatch.setenv(name, "7")
    compiled.keep_compiled_programs()
    assert (os.environ[name], name.lower() in updated) == ("7", False)
    assert "jax_compilation_cache_dir" in updated


def test_a_relative_folder_is_the_same_for_processes_elsewhere(
    updated: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BPTT_CACHE", "mine")
    monkeypatch.chdir(tmp_path)
    compiled.keep_compiled_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "mine" / describe_platform())


def test_the_programs_that_were_not_used_for_longest_are_deleted_beyond_the_limit(
    updated: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def list_names() -> list[str]:
        return sorted(each.name for each in tmp_path.rglob("*") if each.is_file())

    for age, name in enumerate(
        ["jaxlib-new/a-cache", "jaxlib-old/b-program.77", "jaxlib-new/c-cache"]
    ):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(10))
        os.utime(file, (1000 - age, 1000 - age))
    for other in (tmp_path / "a-cache", tmp_path / "jaxlib-new" / "notes"):
        other.write_bytes(bytes(100))
    everything = ["a-cache", "a-cache", "b-program.77", "c-cache", "notes"]
    for limit, kept in ((30, everything), (29, [*everything[:3], "notes"]), (10, ["a-cache"] * 2)):
        monkeypatch.setattr(compiled, "MAX_BYTES", limit)
        monkeypatch.setenv("BPTT_CACHE", str(tmp_path))
        compiled.keep_compiled_programs()
        assert list_names() == (kept if "notes" in kept else [*kept, "notes"])
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")


@pytest.mark.parametrize("reason", ["none wanted", "kept already", "no folder"])
def test_otherwise_jax_is_left_as_it_is(
    reason: str, updated: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    named = {"none wanted": "", "kept already": str(tmp_path), "no folder": str(file)}
    monkeypatch.setenv("BPTT_CACHE", named[reason])
    monkeypatch.setenv(compiled.PROGRAMS, str(tmp_path))  # inherited from another command
    if reason == "kept already":
        monkeypatch.setattr(sys.modules["jax"].config, "jax_compilation_cache_dir", "/there")
    compiled.keep_compiled_programs()
    assert updated == {}
    assert compiled.PROGRAMS not in os.environ
    assert list(tmp_path.iterdir()) == [file]


def test_the_command_line_keeps_them_and_no_import_does(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr(main, "keep_compiled_programs", lambda: called.append(True))
    monkeypatch.setattr(sys, "argv", ["bptt", "--version"])
    with pytest.raises(SystemExit):
        main.main()
    assert called == [True]
    before = jax.config.jax_compilation_cache_dir
    compiled.keep_compiled_programs()  # the tests name no folder
    assert jax.config.jax_compilation_cache_dir == before


@pytest.mark.slow
def test_the_second_run_loads_what_the_first_one_compiled(tmp_path: Path) -> None:
    times = []
    for _ in range(2):
        environment = os.environ | {"BPTT_CACHE": str(tmp_path)}
        ended = subprocess.run(
            [sys.executable, "-m", "bptt_verifier", "verify", "--examples", "1"],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert ended.stderr == ""
        files = [*tmp_path.rglob("*-cache"), *tmp_path.rglob("*-program")]
        times.append(sorted(each.stat().st_mtime_ns for each in files))
    assert len(times[0]) >= 1
    assert times[0] == times[1]


def test_judging_a_file_imports_jax_in_its_own_process_alone() -> None:
    program = (
        "import sys; from bptt_verifier.commands.application import choose_app; "
        "choose_app(['verify']); "
        "print('numpy' in sys.modules, 'jax' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == ["True", "False"]


def test_a_command_that_is_none_has_no_module() -> None:
    with pytest.raises(ValueError, match=r"expected one of verify, prove, .*, found nothing"):
        application.find_command("nothing")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        application.nothing  # noqa: B018
