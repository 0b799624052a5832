"""`make results` takes every result, goes on where it was stopped, and keeps what it has."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__, documentation, measurement, retake, suites
from benchmarks.results import read
from benchmarks.suites import CONTENDERS, RETAKEN, Plan
from tests.support.benchmarks import SMALL

TWO = {"first": ("--suite", "steps"), "second": ("--model", "gru")}


class Runs:
    """A machine that takes results, or fails with an exit code where it is asked for some."""

    def __init__(self, **fails: int) -> None:
        self.fails, self.taken = fails, list[str]()

    def __call__(self, arguments: Sequence[str]) -> int:
        assert arguments[-2] == "--json"
        place = Path(arguments[-1])
        self.taken.append(place.stem)
        if place.stem not in self.fails:
            place.write_text("a result")
        return self.fails.get(place.stem, 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / documentation.RESULTS).mkdir(parents=True)
    (tmp_path / "manual_bptt").mkdir()
    (tmp_path / "manual_bptt" / "rnn.py").write_text("1")
    return tmp_path


def test_what_is_there_for_this_code_is_not_taken_again(root: Path) -> None:
    once, again, forced = Runs(), Runs(), Runs()
    assert retake.retake(TWO, root, run=once) == []
    assert once.taken == ["first", "second"]
    retake.retake(TWO, root, run=again)
    assert again.taken == []
    retake.retake(TWO, root, run=forced, again=True)
    assert forced.taken == ["first", "second"]


def test_another_code_or_a_lost_file_has_results_taken_again(root: Path) -> None:
    retake.retake(TWO, root, run=Runs())
    (root / documentation.RESULTS / "first.json").unlink()
    lost, changed = Runs(), Runs()
    retake.retake(TWO, root, run=lost)
    assert lost.taken == ["first"]
    (root / "manual_bptt" / "rnn.py").write_text("2")
    retake.retake(TWO, root, run=changed)
    assert changed.taken == ["first", "second"]


def test_a_run_that_was_stopped_goes_on_with_what_is_missing(root: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        retake.retake(TWO, root, run=Runs(second=130))
    rest = Runs()
    retake.retake(TWO, root, run=rest)
    assert rest.taken == ["second"]


def test_a_result_that_fails_stops_no_other(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert retake.retake(TWO, root, run=Runs(first=1)) == ["first"]
    out = capsys.readouterr().out
    assert out == "1 of 2, first: failed with exit code 1\n2 of 2, second: 0.0 minutes\n"
    rest = Runs()
    retake.retake(TWO, root, run=rest)
    assert rest.taken == ["first"]


def test_a_damaged_list_of_what_is_done_counts_as_none(root: Path) -> None:
    (root / retake.DONE).parent.mkdir()
    (root / retake.DONE).write_text("[")
    runs = Runs()
    retake.retake(TWO, root, run=runs)
    assert runs.taken == ["first", "second"]


def test_all_results_take_less_than_an_hour_by_their_limits() -> None:
    assert sum(map(retake.expect_seconds, RETAKEN)) < 3600
    for name, arguments in RETAKEN.items():
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        assert set(options) <= {"--suite", "--model", "--dtype"}, name
        cells = {each for each in ("lstm", "gru") if each in name}
        assert {options.get("--model", "rnn")} == (cells or {"rnn"})
    quick = {name for name in RETAKEN if name.startswith("quick")}
    assert len(quick) == 2 * 3


@pytest.mark.rest
def test_a_tiny_result_is_taken_as_a_whole_one_would_be(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = Plan((SMALL,), {"limit": CONTENDERS["limit"]}, rounds=1)
    monkeypatch.setattr(__main__, "PLANS", dict.fromkeys(suites.PLANS, plan))
    monkeypatch.setattr(measurement, "SHORTEST", 0.0)
    monkeypatch.setattr(measurement, "SETTLING", 0.0)
    taken: list[Any] = []

    def run(arguments: Sequence[str]) -> int:
        taken.append(arguments)
        return __main__.run(list(arguments))

    assert retake.retake({"quick": RETAKEN["quick"]}, root, run=run) == []
    assert read(root / documentation.RESULTS / "quick.json").contenders() == ["limit"]
    assert len(taken) == 1


def test_the_command_writes_the_page_and_says_what_failed(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[bool] = []
    monkeypatch.setattr(documentation, "write_all", lambda: written.append(True))
    for failed, code in (([], 0), (["steps"], 1)):
        monkeypatch.setattr(retake, "retake", lambda results, again, failed=failed: failed)
        assert retake.run(["--only", "steps"]) == code
    assert written == [True, True]
    assert "expected all results, steps failed" in capsys.readouterr().err

    def stopped(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(retake, "retake", stopped)
    assert retake.run([]) == 130
    assert retake.run(["--only", "none"]) == 2
    assert "--only: expected some of quick, " in capsys.readouterr().err
