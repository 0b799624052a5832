"""The mutation run: the tests of a file are run on each of its mutants, in a copy of the tree.

The parent imports the libraries, never the project. What `mutation.quick` kills, in one process for
each file, is killed. For each mutant that is left the parent forks a child, which has a copy of the
tree of its own, so that processes which a test starts see the mutant too. The first test that fails
ends the child.
"""

import fcntl
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import time
import tomllib
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from mutation.operators import Mutant, list_mutants
from mutation.quick import Forks, Told

ROOT = Path(__file__).parents[1]
PRELOADED = ("jax", "jaxtyping", "numpy", "hypothesis", "pytest", "rich", "typer")
COPIED = (
    "manual_bptt", "jax_reference", "bptt_verifier", "benchmarks", "tests", "examples", "docs",
    "pyproject.toml",
)  # fmt: skip
NOT_COPIED = shutil.ignore_patterns("__pycache__", ".*")
# What XLA compiled for one mutant serves all others that give it the same program.
COMPILED_ONCE = {
    "JAX_COMPILATION_CACHE_DIR": "{work}/compiled",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
PATIENCE = 10  # a mutant that takes this many times as long as no mutant is killed
LEAST_SECONDS = 120.0


class Outcome(NamedTuple):
    """What the tests said of one mutant: killed, survived, or equivalent with the reason."""

    mutant: Mutant
    status: str
    seconds: float
    reason: str = ""


def read_configuration(root: Path = ROOT) -> tuple[dict[str, list[str]], dict[str, dict[str, str]]]:
    """Read the tests of each file, and the reasons for the equivalent mutants of each file."""
    plain = tomllib.loads((root / "mutation" / "tests.toml").read_text(encoding="utf-8"))
    reasons = tomllib.loads((root / "mutation" / "equivalent.toml").read_text(encoding="utf-8"))
    return plain["tests"], reasons


def read_needs(root: Path = ROOT) -> dict[str, str]:
    """Read the module that the tests of a file need, where they need one that is optional."""
    plain = tomllib.loads((root / "mutation" / "tests.toml").read_text(encoding="utf-8"))
    needs: dict[str, str] = plain["needs"]
    return needs


def list_untestable(files: Iterable[str], needs: Mapping[str, str]) -> dict[str, str]:
    """List the files that cannot be tried here, with the module that is not installed.

    All their tests would be skipped, and every mutant would survive.
    """
    return {n: needs[n] for n in files if n in needs and find_spec(needs[n]) is None}


def copy_tree(root: Path, place: Path) -> None:
    """Copy what the tests need of the tree."""
    place.mkdir(parents=True)
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=NOT_COPIED)
        elif source.exists():
            shutil.copy2(source, place / name)


def run_pytest(root: Path, tree: Path, tests: list[str], plugins: Iterable[object] = ()) -> int:
    """Run tests in this process, which must not have imported the project; return the exit code."""
    import pytest  # noqa: PLC0415 - the parent has imported it

    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)
    sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(root)))]
    # Tests that failed before come first: neighbouring mutants fail the same ones. The project's
    # own plugin would be loaded before any test, from a tree that may have a mutant of it or none.
    options = ["-q", "-x", "--ff", "-p", "no:xdist", "-p", "no:bptt", "--no-header", "--tb=line"]
    options += ["-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*options, "--hypothesis-profile=mutants", *tests], plugins=[*plugins]))


def fork(
    root: Path, tree: Path, tests: list[str], log: Path, plugins: Iterable[object] = ()
) -> int:
    """Fork a child that runs the tests; return its process id. Its exit code is pytest's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX has started no thread before it first computes
        child = os.fork()
    if child:
        return child
    code = 2
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = run_pytest(root, tree, tests, plugins)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


class Slot:
    """One copy of the tree, in which one mutant after another is tested."""

    def __init__(self, root: Path, tree: Path) -> None:
        self.root, self.tree, self.log = root, tree, tree.with_suffix(".log")
        self.child, self.begun, self.limit, self.clock = 0, 0.0, 0.0, 0
        self.mutant: Mutant | None = None
        shutil.rmtree(tree, ignore_errors=True)
        copy_tree(root, tree)

    def write(self, file: str, text: str) -> None:
        """Write a source with a time stamp of its own, by which Python knows compiled files."""
        path = self.tree / file
        path.write_text(text, encoding="utf-8")
        self.clock += 1
        os.utime(path, (self.clock, self.clock))

    def start(self, tests: list[str], limit: float, mutant: Mutant | None = None) -> None:
        """Start the tests, on a mutant or on none."""
        if mutant is not None:
            self.write(mutant.file, mutant.text)
        self.mutant, self.begun, self.limit = mutant, time.monotonic(), limit
        self.child = fork(self.root, self.tree, tests, self.log)

    def kill_quickly(self, mutants: list[Mutant], tests: list[str], jobs: int, told: Told) -> None:
        """Try mutants of one file in forks of one process, which tells what was killed."""
        forks = Forks(mutants, self.tree, jobs, told)
        self.mutant, self.begun, self.limit = None, time.monotonic(), float("inf")
        self.child = fork(self.root, self.tree, tests, self.log, [forks])
        try:
            status = wait(self)
        except BaseException:  # Ctrl-C: its forks are in groups of their own, and it ends them
            os.killpg(self.child, signal.SIGINT)
            os.waitpid(self.child, 0)
            raise
        if status != "survived":
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            why = next((line for line in reversed(lines) if line.strip()), "")
            print(f"{mutants[0].file}: no quick pass. {why}", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """End the child and the processes that a test has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.child, signal.SIGKILL)

    def poll(self) -> str | None:
        """How it ended: killed, survived or timed out; None while it runs."""
        ended, status = os.waitpid(self.child, os.WNOHANG)
        late = time.monotonic() - self.begun > self.limit
        if not ended and not late:
            return None
        self.stop()
        if not ended:
            os.waitpid(self.child, 0)
        if self.mutant is not None:
            file = self.mutant.file
            self.write(file, (self.root / file).read_text(encoding="utf-8"))
        if not ended:
            return "timed out"
        return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"


def identify(mutant: Mutant) -> str:
    """The identity of a mutant in the file of results: its source and its place."""
    content = f"{mutant.file}\n{mutant.name}\n{mutant.text}".encode()
    return hashlib.sha256(content).hexdigest()[:16]


class Results:
    """The outcomes so far, one line of JSON each, kept between runs.

    A killed mutant stays killed until its source changes; one that survived is tried again.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.killed: dict[str, dict[str, Any]] = {}
        if file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                found = json.loads(line)
                if found["status"] in ("killed", "timed out"):
                    self.killed[found["id"]] = found

    def add(self, outcome: Outcome) -> None:
        """Append one outcome."""
        mutant = outcome.mutant
        plain = {
            "id": identify(mutant), "file": mutant.file, "line": mutant.line, "name": mutant.name,
            "status": outcome.status, "seconds": round(outcome.seconds, 1),
        }  # fmt: skip
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(plain, ensure_ascii=False) + "\n")


def wait(slot: Slot) -> str:
    """Wait for the end of a slot's child."""
    while (status := slot.poll()) is None:
        time.sleep(0.02)
    return status


def run_mutants(
    mutants: Iterable[Mutant],
    tests: dict[str, list[str]],
    reasons: dict[str, dict[str, str]],
    work: Path,
    jobs: int = 1,
    told: Callable[[Outcome], None] = lambda outcome: None,
    *,
    root: Path = ROOT,
    preloaded: Iterable[str] = PRELOADED,
) -> list[Outcome]:
    """Run the tests of each mutant's file on it.

    Raises ValueError where they fail without a mutant, and BlockingIOError where another run works
    in the same folder.
    """
    work.mkdir(parents=True, exist_ok=True)
    lock = (work / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two runs would spoil each other's trees
    os.environ |= {name: value.format(work=work) for name, value in COMPILED_ONCE.items()}
    for name in preloaded:
        importlib.import_module(name)
    results, outcomes = Results(work / "results.jsonl"), list[Outcome]()

    def end(mutant: Mutant, status: str, seconds: float = 0.0, reason: str = "") -> None:
        outcomes.append(Outcome(mutant, status, seconds, reason))
        told(outcomes[-1])

    waiting = []
    for mutant in mutants:
        known, reason = results.killed.get(identify(mutant)), reasons.get(mutant.file, {})
        if mutant.name in reason:
            end(mutant, "equivalent", reason=reason[mutant.name])
        elif known is not None:
            end(mutant, known["status"], known["seconds"])
        else:
            waiting.append(mutant)
    slots = [Slot(root, work / f"tree{number}") for number in range(min(jobs, len(waiting)))]
    for file in dict.fromkeys(mutant.file for mutant in waiting):
        mine = [mutant for mutant in waiting if mutant.file == file]
        slots[0].kill_quickly(mine, tests[file], jobs, lambda *end: results.add(Outcome(*end)))
        quickly = Results(results.file).killed
        for mutant in mine:
            if (known := quickly.get(identify(mutant))) is not None:
                waiting.remove(mutant)
                end(mutant, known["status"], known["seconds"])
    limits = {}
    for file in dict.fromkeys(mutant.file for mutant in waiting):
        begun = time.monotonic()
        slots[0].start(tests[file], 3600.0)
        if wait(slots[0]) != "survived":
            output = slots[0].log.read_text(encoding="utf-8", errors="replace")
            raise ValueError(f"{file}: its tests fail without a mutant:\n{output[-2000:]}")
        limits[file] = max(LEAST_SECONDS, PATIENCE * (time.monotonic() - begun))
    waiting.reverse()
    busy = list[Slot]()
    try:
        while waiting or busy:
            for slot in slots:
                if slot not in busy and waiting:
                    mutant = waiting.pop()
                    slot.start(tests[mutant.file], limits[mutant.file], mutant)
                    busy.append(slot)
            time.sleep(0.02)
            for slot in list(busy):
                status = slot.poll()
                if status is not None and slot.mutant is not None:
                    busy.remove(slot)
                    end(slot.mutant, status, time.monotonic() - slot.begun)
                    results.add(outcomes[-1])
    finally:  # Ctrl-C too
        for slot in busy:
            slot.stop()
    return outcomes


def select_mutants(files: Iterable[str], every: int = 1, root: Path = ROOT) -> list[Mutant]:
    """List the mutants of files, or one in `every` of them."""
    found = []
    for file in files:
        found += list_mutants(file, (root / file).read_text(encoding="utf-8"))
    return found[::every]


def list_stale_reasons(mutants: Iterable[Mutant], reasons: dict[str, dict[str, str]]) -> list[str]:
    """List the equivalent mutants that are not, or no longer, mutants of these files."""
    names: dict[str, set[str]] = {}
    for mutant in mutants:
        names.setdefault(mutant.file, set()).add(mutant.name)
    return [
        f"{file}: {name}"
        for file, found in names.items()
        for name in reasons.get(file, {})
        if name not in found
    ]
