"""A file that a run saves to is held by one run at a time."""

import os
from pathlib import Path

import pytest

from bptt_verifier.console import locks
from bptt_verifier.console.locks import holding, open_lock
from tests.support.command_line import Command


def test_a_file_is_held_by_one_run_at_a_time_and_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with holding("--checkpoint", path):
        refused = pytest.raises(ValueError, match="--checkpoint: expected a file that no other run")
        with refused, holding("--checkpoint", path):
            pass
        (tmp_path / "link").symlink_to(path)
        refused = pytest.raises(ValueError, match="which another run has opened")
        with refused, holding("--checkpoint", tmp_path / "link"):
            pass
        with holding("--checkpoint", tmp_path / "other.json"):
            pass
    with holding("--checkpoint", path):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["link"]


def test_a_lock_that_was_deleted_before_it_was_taken_is_none(tmp_path: Path) -> None:
    file = open_lock(tmp_path / "run.json")
    assert file is not None
    with file:
        os.unlink(file.name)
        assert not locks.lock(file)


def test_where_there_can_be_no_lock_nothing_is_held(tmp_path: Path) -> None:
    for path in (None, tmp_path / "no folder" / "run.json"):
        with holding("--checkpoint", path), holding("--checkpoint", path):
            pass


@pytest.mark.parametrize("command", ["verify", "train"])
def test_a_second_run_on_the_file_of_a_campaign_is_refused_in_one_sentence(
    command: str, bptt: Command, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    path.write_text("of the first run", encoding="utf-8")
    with holding("--checkpoint", path):
        ended = bptt(command, "--checkpoint", path, "--resume")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "which another run has opened; wait for its end" in ended.err
    assert path.read_text(encoding="utf-8") == "of the first run"


def test_the_picture_of_a_run_is_no_checkpoint(bptt: Command, tmp_path: Path) -> None:
    ended = bptt("train", "--checkpoint", tmp_path / "a.png", "--plot", tmp_path / "a.png")
    assert ended.code == 2
    assert "--plot: expected another file than that of --checkpoint" in ended.err
    assert not list(tmp_path.iterdir())
