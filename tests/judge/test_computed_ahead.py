"""References of large problems are computed one at a time, and nothing waits for them."""

import inspect
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from bptt_verifier.judge import computed_ahead
from bptt_verifier.judge.computed_ahead import LargeReferences
from bptt_verifier.problems.problem import LARGEST
from bptt_verifier.reference import autodiff
from bptt_verifier.reference.autodiff import (
    LargeReference,
    load_programs,
    start_large_reference,
    start_measured_reference,
    start_references,
)
from jax_reference.programs import FOLDER, Program
from tests.support.cell_subjects import subject


class Pending:
    """An array that JAX may still be computing."""

    def __init__(self) -> None:
        self.there = False

    def is_ready(self) -> bool:
        return self.there


def test_the_next_one_starts_when_the_last_is_there_and_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = list[Any]()

    def finish(pending: Pending) -> Any:
        assert pending.there, "waited"
        cut.append(pending)
        return {"W": np.ones(3)}

    def start(problem: str) -> LargeReference:
        begun.append(problem)
        return LargeReference(Pending(), finish)

    begun = list[str]()
    monkeypatch.setattr(computed_ahead, "start_large_reference", start)
    monkeypatch.setattr(autodiff, "name_arrays", lambda found: found)
    chosen: Any = ["first", "second", "third"]
    references = LargeReferences(chosen)
    for number in range(1, 4):
        references.advance()
        references.advance()  # the last is not there
        assert begun == chosen[:number]
        references.started[-1].pending.there = True
        assert len(cut) == number - 1
    for _ in range(3):
        references.advance()
    assert begun == chosen


def test_a_large_reference_is_there_when_all_its_arrays_are() -> None:
    pending = Pending(), Pending()
    found = LargeReference(pending, lambda pending: pending)
    assert not found.is_there
    for number, there in ((1, False), (0, True)):
        pending[number].there = True
        assert found.is_there is there


def test_a_large_reference_drops_the_arrays_that_its_results_are_copied_from() -> None:
    whole = jax.numpy.arange(12.0).reshape(3, 4)
    found: Any = LargeReference([whole], lambda pending: pending)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autodiff, "name_arrays", lambda found: {"W": np.asarray(found[0])[:2]})
        assert found()["W"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert found.pending is None
    assert found.is_there
    assert found()["W"].base is None
    assert not found()["W"].flags.writeable


class Pool:
    """A pool of threads that notes the files that it is asked to load."""

    def __init__(self) -> None:
        self.files = list[Path]()

    def submit(self, _: Any, file: Path) -> Future[None]:
        self.files.append(file)
        return Future()


@pytest.fixture
def needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files of the programs that are called; none is compiled, and none is there."""
    files = list[Path]()

    def find(_: Program, file: Path, *given: Any) -> Any:
        files.append(file)
        raise NotImplementedError

    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr(Program, "find", find)
    monkeypatch.setattr(autodiff, "references", type(autodiff.references)(1024))  # none is known
    for module in (autodiff, autodiff.blocks):
        for value in vars(module).values():
            if isinstance(value, Program):
                monkeypatch.setattr(value, "loading", {})
                monkeypatch.setattr(value, "compiled", {})
    return files


@pytest.mark.parametrize(
    ("cell", "option"), [("rnn", "tanh"), ("rnn", "relu"), ("lstm", ""), ("gru", "before")]
)
def test_the_programs_loaded_ahead_are_those_that_the_verdict_calls(
    cell: str, option: str, needed: list[Path]
) -> None:
    chosen, pool = subject(cell, option), Pool()
    random, other = [*chosen.draw_random_problems(range(7, 9))]
    probe = next(iter(chosen.draw_one_hot_problems()))
    *_, large = chosen.large_references.problems
    load: Any = load_programs
    load(other, pool)
    load(probe, pool)
    load(large, pool, measured=False)
    kinds = 2 if cell == "rnn" else len(autodiff.ALL_LOSSES)
    # Other tests may have asked for these problems: what is known is not computed again.
    measure, start_large = map(inspect.unwrap, (start_measured_reference, start_large_reference))
    called = [
        *([lambda: start_references([random])] if cell == "rnn" else []),
        lambda: measure(random, random.x.dtype, kinds),
        lambda: measure(probe, probe.x.dtype),
        lambda: start_large(chosen.large_references.problems[0]),
    ]
    for call in called:
        with pytest.raises(NotImplementedError):
            call()
    assert pool.files == needed
    assert len({*needed}) == len(called)
    assert all(size <= most for size, most in zip(random.sizes, LARGEST, strict=True))


def test_the_programs_of_all_three_kinds_of_problems_are_loaded_without_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pools, ended, loaded = list[Pool](), list[bool](), list[tuple[Any, bool]]()

    class Noted(Pool):
        def __init__(self, threads: int, name: str) -> None:
            super().__init__()
            assert threads >= 1
            assert name == computed_ahead.LOADERS
            pools.append(self)

        def shutdown(self, wait: bool) -> None:
            ended.append(wait)

    def load(problem: Any, pool: Any, measured: bool = True) -> None:
        assert [pool] == pools
        loaded.append((problem, measured))

    monkeypatch.setattr(computed_ahead, "ThreadPoolExecutor", Noted)
    monkeypatch.setattr(computed_ahead, "load_programs", load)
    given: Any = ("random", "probe", "large")
    computed_ahead.load_programs_of(*given)
    assert loaded == [("random", True), ("probe", True), ("large", False)]
    assert ended == [False]
