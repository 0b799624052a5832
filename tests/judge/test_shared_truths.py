"""Workers compute references, and change no report: the submission never notices them."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.spawn import get_preparation_data
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify
from bptt_verifier.judge import shared_truths
from bptt_verifier.judge.cells import CellSubject
from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.first_states import TakenStates
from bptt_verifier.judge.processes import hide_user_code
from bptt_verifier.judge.shared_truths import share_truths
from bptt_verifier.problems.problem import Problem
from bptt_verifier.reference.autodiff import truth
from manual_bptt import rnn
from tests.support.command_line import Command
from tests.support.processes import needs_proc, wait_for_children

EXAMPLES = 40


class Pool:
    """A pool in this process that sends everything through pickle, and breaks at some parts."""

    def __init__(self, breaks_at: tuple[int, ...] = ()) -> None:
        self.breaks_at, self.parts, self.open = list(breaks_at), list[range](), False
        self.starts = 0

    @contextmanager
    def start(self, number: int, warm_up: Callable[..., Any], *arguments: Any) -> Iterator["Pool"]:
        self.starts += 1
        self.open = True
        try:
            yield self
        finally:
            self.open = False

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        called, given = pickle.loads(pickle.dumps((function, arguments)))
        cases = given[1] if given else range(0)
        if cases.start in self.breaks_at:
            self.breaks_at.remove(cases.start)
            future.set_exception(BrokenProcessPool())
            return future
        future.set_result(pickle.loads(pickle.dumps(called(*given))))
        self.parts += [cases] if given else []
        return future


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    """The pool in the place of processes; parts have eight problems."""
    found = Pool()
    monkeypatch.setattr(shared_truths, "started_workers", found.start)
    monkeypatch.setattr(shared_truths, "TOGETHER", 8)
    return found


def subject(**changed: Any) -> CellSubject:
    return CellSubject("rnn", "tanh", "mse", False, TakenStates(), EXAMPLES, 1, **changed)


def right(params: Any, x: Any, y: Any) -> Any:
    return rnn.value_and_grad(rnn.Params(*params), x, y)[1][:3]


def make_right() -> Callable[..., Any]:
    def nested(params: Any, x: Any, y: Any) -> Any:  # which no worker could import
        return right(params, x, y)

    return nested


def make_transposed() -> Callable[..., Any]:
    def transposed(params: Any, x: Any, y: Any) -> Any:
        U, W, V = right(params, x, y)
        return U, W.T, V

    return transposed


def make_single() -> Callable[..., Any]:
    def single(params: Any, x: Any, y: Any) -> Any:
        return [each.astype(np.float32) for each in right(params, x, y)]

    return single


def make_wrong_from_a_call() -> Callable[..., Any]:
    calls = []

    def changing(params: Any, x: Any, y: Any) -> Any:
        calls.append(None)
        U, W, V = right(params, x, y)
        return (U, 2 * W, V) if len(calls) > 35 else (U, W, V)

    return changing


def make_raising_at_a_case() -> Callable[..., Any]:
    (later,) = subject().draw_random_problems(range(30, 31))
    shape = later.x.shape

    def raising(params: Any, x: Any, y: Any) -> Any:
        if x.shape == shape:
            raise IndexError("too long")
        return right(params, x, y)

    return raising


KINDS = (make_right, make_transposed, make_single, make_wrong_from_a_call, make_raising_at_a_case)


def judge(make: Callable[[], Callable[..., Any]], **options: Any) -> dict[str, Any]:
    return verify(make(), examples=EXAMPLES, seed=1, subject="mine", **options).to_dict()


@pytest.mark.rest
@pytest.mark.parametrize("make", KINDS)
def test_a_report_is_the_same_for_any_number_of_workers(
    make: Callable[[], Callable[..., Any]], pool: Pool
) -> None:
    alone = judge(make)
    assert not pool.starts
    for workers in (2, 3):
        assert judge(make, workers=workers) == alone
    assert pool.parts
    assert not pool.open


def ask(dtype: Any = None, names: tuple[str, ...] = ("U", "W")) -> list[tuple[Problem, Any]]:
    """The shared truths of all problems, in the format of each or in another one."""
    found = share_truths(subject().draw_random_problems, EXAMPLES, 2)
    return [(problem, known(dtype or problem.x.dtype, names)) for problem, known in found]


def test_the_truths_of_workers_are_those_of_this_process(pool: Pool) -> None:
    found = ask()
    assert [part.start for part in pool.parts] == [8, 16, 24, 32]
    for problem, known in found:
        alone = truth(problem, problem.x.dtype, ("U", "W"))
        for name in ("U", "W"):
            np.testing.assert_array_equal(known.values[name], alone.values[name])
            np.testing.assert_array_equal(known.allowed[name], alone.allowed[name])


@pytest.mark.slow
def test_so_are_the_truths_of_a_cell_with_gates_whose_errors_are_measured(pool: Pool) -> None:
    cell = CellSubject("lstm", "", "mse", False, TakenStates(), 16, 1)
    for problem, known in share_truths(cell.draw_random_problems, 16, 2):
        found, alone = known(problem.x.dtype, ["W"]), truth(problem, problem.x.dtype, ["W"])
        np.testing.assert_array_equal(found.values["W"], alone.values["W"])
        np.testing.assert_array_equal(found.allowed["W"], alone.allowed["W"])
    assert len(pool.parts) == 1


def test_workers_compute_the_results_and_formats_that_the_submission_has_returned(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    here: list[Any] = []
    monkeypatch.setattr(shared_truths, "truth", lambda *given: here.extend(given))
    ask(np.dtype(np.float32), ("V", "loss"))
    assert not here


def test_what_was_not_asked_of_the_first_problems_is_computed_here(pool: Pool) -> None:
    asked = []
    for number, (problem, known) in enumerate(share_truths(subject().draw_random_problems, 16, 2)):
        names = ("U",) if number < 8 else ("U", "adjoints")
        asked.append(known(problem.x.dtype, names))
    assert "adjoints" in asked[-1].values


@pytest.mark.parametrize(
    ("breaks_at", "pools"), [((8,), 2), ((16,), 2), ((8, 24), 2), ((16, 16, 16), 4)]
)
def test_what_a_killed_worker_had_is_computed_again(
    breaks_at: tuple[int, ...], pools: int, pool: Pool
) -> None:
    pool.breaks_at = [*breaks_at]
    assert [problem.x.sum() for problem, _ in ask()] == [
        problem.x.sum() for problem in subject().draw_random_problems(range(EXAMPLES))
    ]
    assert pool.starts == pools


def test_this_process_computes_the_rest_where_all_pools_break(pool: Pool) -> None:
    pool.breaks_at = [16] * 99
    assert len(ask()) == EXAMPLES
    assert pool.starts == shared_truths.POOLS


def test_a_process_that_may_start_no_others_computes_all(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_truths, "current_process", lambda: SimpleNamespace(daemon=True))
    assert len(ask()) == EXAMPLES
    assert not pool.starts


def test_a_worker_sees_neither_the_script_nor_the_folders_of_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = ModuleType("__main__")
    script.__file__ = str(tmp_path / "script.py")
    monkeypatch.setitem(sys.modules, "__main__", script)
    monkeypatch.syspath_prepend(tmp_path)
    with hide_user_code():
        hidden = get_preparation_data("a worker")
    shown = get_preparation_data("a worker")
    assert [str(tmp_path) in data["sys_path"] for data in (hidden, shown)] == [False, True]
    assert ["init_main_from_path" in data for data in (hidden, shown)] == [False, True]


def test_ctrl_c_ends_the_workers(pool: Pool) -> None:
    seen = []

    def interrupted(done: int, total: int) -> None:
        seen.append(pool.open)
        if done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(right, examples=EXAMPLES, workers=2, progress=interrupted)
    assert seen[-1]
    assert not pool.open


def test_a_finding_ends_the_workers(pool: Pool) -> None:
    report = verify(make_raising_at_a_case(), examples=EXAMPLES, seed=1, workers=2)
    assert report.raised
    assert pool.parts
    assert not pool.open


@pytest.mark.parametrize(
    ("workers", "exception", "message"),
    [
        (0, ValueError, "workers: expected at least 1, found 0"),
        (1.5, TypeError, "workers: expected an integer, found float"),
    ],
)
def test_numbers_of_workers_that_are_none_are_refused(
    workers: Any, exception: type[Exception], message: str
) -> None:
    with pytest.raises(exception, match=f"^{message}$"):
        verify(right, workers=workers)


def test_workers_are_for_the_models_of_this_project(bptt: Command, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "params = {'w': 1.0}\n"
        "def loss(params): return params['w']\n"
        "def gradients(params): return params\n"
    )
    expected = "--workers: expected a derivation of this project's model, found "
    with pytest.raises(ValueError, match=f"^{expected}an own model$"):
        read_file(file, None, None, {"workers": 2})
    assert bptt("verify", "--own", file, "--workers", 2).err == f"bptt: {expected}--own\n"


# With processes.

SCRIPT = """
import sys
from bptt_verifier import verify

def gradients(params, x, y):
    U, W, V = params
    return 0 * U, 0 * W, 0 * V

print(verify(gradients, examples=400, workers=int(sys.argv[1])))
"""


@pytest.mark.slow
def test_a_script_needs_no_guard_for_workers(tmp_path: Path) -> None:
    """Each worker would otherwise run the script again, and start workers itself."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    alone, shared = (
        subprocess.run([sys.executable, script, number], text=True, capture_output=True, check=True)
        for number in "12"
    )
    assert alone.stdout
    assert (shared.stdout, shared.stderr) == (alone.stdout, "")


START = [sys.executable, "-c", "from bptt_verifier.commands.main import main; main()"]
RIGHT = Path(__file__).parents[2] / "examples" / "right.py"


def start_command(examples: int, *options: object) -> subprocess.Popen[str]:
    arguments = ["verify", RIGHT, "--examples", examples, "--workers", 2, *options]
    return subprocess.Popen(
        [*START, *map(str, arguments)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip


def find_workers(process: subprocess.Popen[str]) -> list[int]:
    """The workers of the process that judges the file, which is the command's child."""
    (judging,) = wait_for_children(process.pid, 1, "child_process")
    return wait_for_children(judging, 2, "spawn_main")


@pytest.mark.slow
@needs_proc
def test_a_worker_of_a_file_that_is_killed_changes_nothing_in_the_report(tmp_path: Path) -> None:
    found = []
    for kill in (False, True):
        file = tmp_path / f"{kill}.json"
        process = start_command(4000, "--json", file)
        victim, _ = find_workers(process)
        if kill:
            time.sleep(4)  # until they work
            os.kill(victim, signal.SIGKILL)
        _, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (0, "")
        found.append(json.loads(file.read_text(encoding="utf-8")))
    assert found[0] == found[1]


@pytest.mark.slow
@needs_proc
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("ending", "seconds"), [(signal.SIGINT, 0), (signal.SIGINT, 6), (signal.SIGKILL, 6)]
)
def test_no_worker_of_a_file_outlives_the_command(ending: signal.Signals, seconds: int) -> None:
    process = start_command(10**6)
    pids = find_workers(process)
    time.sleep(seconds)
    os.killpg(process.pid, ending)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:  # a million examples that nobody waits for
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode in (130, -signal.SIGKILL)
    assert "Traceback" not in err
    for _ in range(1200):  # a worker that starts looks for its parent after its imports
        if not any(Path(f"/proc/{pid}").is_dir() for pid in pids):
            return
        time.sleep(0.05)
    raise AssertionError("a worker is still there")
