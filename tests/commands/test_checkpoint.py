"""A checkpoint comes back bit for bit, replaces the one before whole, and nothing is unpickled."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt_verifier.commands import checkpoint
from bptt_verifier.commands.checkpoint import Checkpoint
from bptt_verifier.console.files import replacing
from bptt_verifier.problems.problem import Problem
from bptt_verifier.strategies import problems
from manual_bptt import rnn
from tests.support.agreement import same


def state(hidden_size: int, losses: list[float]) -> Checkpoint:
    """A run of the worked example's sizes."""
    rng = np.random.default_rng(0)
    h0 = np.tile(rng.normal(size=hidden_size), (3, 1))
    return Checkpoint(rnn.init(rng, 1, hidden_size, 3), np.array(losses), h0, {"seed": 0})


def of(problem: Problem, losses: list[float]) -> Checkpoint:
    h0 = np.zeros_like(problem.y[:, :1] * problem.params.W[0]) if problem.h0 is None else problem.h0
    settings = {"seed": 3, "learning-rate": 0.1, "encoding": "one-hot"}
    return Checkpoint(problem.params, np.array(losses, problem.x.dtype), h0, settings)


@given(
    problem=st.one_of(problems(np.float32), problems(np.float64)),
    losses=st.lists(st.floats(0, 1e9), min_size=1),
)
def test_a_checkpoint_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, problem: Problem, losses: list[float]
) -> None:
    path = tmp_path_factory.mktemp("checkpoint") / "run.npz"
    saved = of(problem, losses)
    checkpoint.save(path, saved)
    loaded = checkpoint.load(path)
    assert same(loaded[:3], saved[:3])
    assert loaded.settings == saved.settings
    assert os.listdir(path.parent) == ["run.npz"]


@pytest.fixture
def saved() -> Checkpoint:
    return state(hidden_size=16, losses=[0.5, 0.25])


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("when", ["written", "flushed", "replaced"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    saved: Checkpoint,
    failure: BaseException,
    when: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    path = tmp_path / "run.npz"
    checkpoint.save(path, saved)
    before = path.read_bytes()
    where: dict[str, tuple[Any, str]] = {
        "written": (np.lib.format, "write_array"),
        "flushed": (os, "fsync"),
        "replaced": (Path, "replace"),
    }
    with monkeypatch.context() as patched:
        patched.setattr(*where[when], fail)
        with pytest.raises(type(failure)):
            checkpoint.save(path, saved._replace(losses=np.array([1.0])))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.npz"]


def test_a_link_to_a_checkpoint_stays_a_link_and_the_file_keeps_its_mode(
    tmp_path: Path, saved: Checkpoint
) -> None:
    folder, link = tmp_path / "far", tmp_path / "link.npz"
    folder.mkdir()
    link.symlink_to(folder / "run.npz")
    checkpoint.save(link, saved)
    (folder / "run.npz").chmod(0o640)
    checkpoint.save(link, saved._replace(losses=np.array([1.0])))
    assert link.is_symlink()
    assert (folder / "run.npz").stat().st_mode & 0o777 == 0o640
    assert checkpoint.load(folder / "run.npz").losses.tolist() == [1]
    assert os.listdir(folder) == ["run.npz"]


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path, saved: Checkpoint) -> None:
    path = tmp_path / ("a" * 255)
    checkpoint.save(path, saved)
    assert same(checkpoint.load(path)[:3], saved[:3])


def test_a_failure_to_write_names_the_file_of_the_user(tmp_path: Path, saved: Checkpoint) -> None:
    path = tmp_path / "gone" / "run.npz"
    with pytest.raises(FileNotFoundError) as caught:
        checkpoint.save(path, saved)
    assert caught.value.filename == str(path)


class Trap:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


def test_a_trap_springs_where_it_is_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "run.npz", losses=np.array([Trap(tmp_path / "sprung")], object))
    with np.load(tmp_path / "run.npz", allow_pickle=True) as archive:
        archive["losses"]
    assert (tmp_path / "sprung").is_dir()


def test_nothing_is_pickled_and_nothing_unpickled(tmp_path: Path, saved: Checkpoint) -> None:
    path, sprung = tmp_path / "run.npz", tmp_path / "sprung"
    trap = np.array([Trap(sprung)], object)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        checkpoint.save(path, saved._replace(losses=trap))
    assert os.listdir(tmp_path) == []
    np.savez(path, **dict.fromkeys(("U", "W", "V", "h0", "losses", "settings"), trap))
    with pytest.raises(ValueError, match=r"run\.npz: expected a checkpoint of bptt train"):
        checkpoint.load(path)
    path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(ValueError, match=r"run\.npz: expected a checkpoint of bptt train"):
        checkpoint.load(path)
    assert not sprung.exists()


def test_all_that_is_written_is_with_the_system_before_it_is_forced_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda file: forced.append(os.fstat(file).st_size))
    with replacing(tmp_path / "file") as file:
        file.write(b"short enough to wait in a buffer")
    assert forced == [(tmp_path / "file").stat().st_size]


@given(cut=st.booleans(), place=st.floats(0, 1, exclude_max=True), flipped=st.integers(1, 255))
def test_a_damaged_checkpoint_is_refused_unless_the_damage_is_to_what_nobody_reads(
    tmp_path_factory: pytest.TempPathFactory, cut: bool, place: float, flipped: int
) -> None:
    saved = state(hidden_size=2, losses=[0.5])
    path = tmp_path_factory.mktemp("damaged") / "run.npz"
    checkpoint.save(path, saved)
    content = bytearray(path.read_bytes())
    where = int(place * len(content))
    if cut:
        del content[where:]
    else:
        content[where] ^= flipped
    path.write_bytes(content)
    try:
        loaded = checkpoint.load(path)
    except ValueError:
        return
    assert not cut
    assert same(loaded[:3], saved[:3])
    assert loaded.settings == saved.settings


@pytest.mark.parametrize(
    "change",
    [
        {"W": np.ones((2, 3))},
        {"W": None},
        {"h0": np.ones((3, 5))},
        {"losses": np.ones((2, 2))},
        {"losses": np.array([])},
        {"losses": np.array([np.nan])},
        {"V": np.ones((3, 16), int)},
        {"V": np.ones((3, 16), np.float32)},
        {"losses": np.ones(2, np.float32)},
        {"surplus": np.ones(1)},
        {"settings": np.array("[1]")},
        {"settings": np.array("not JSON")},
        {"settings": np.array('{"model": "gru"}')},
        {"settings": np.array('{"model": "cnn"}')},
        {"settings": None},
    ],
    ids=str,
)
def test_a_file_that_is_no_checkpoint_is_refused(
    tmp_path: Path, saved: Checkpoint, change: dict[str, Any]
) -> None:
    path = tmp_path / "run.npz"
    checkpoint.save(path, saved)
    with np.load(path) as archive:
        arrays = {**archive} | change
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(ValueError, match=r"run\.npz: expected a checkpoint of bptt train, found"):
        checkpoint.load(path)
