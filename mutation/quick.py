"""The quick pass of the mutation run: a file's tests are collected once, for all its mutants.

One process imports the project and collects the tests. Each mutant is a fork of it, in which the
changed source is executed in its module, and whoever imported a name from there gets the new
object. Without a mutant, all tests pass in such a fork; so a test that fails has noticed the
mutant. (Where they do not, all mutants of the file are left.) One that survives may owe it to an
object that is kept elsewhere, or to a process that a test starts from the files: it is tried again
by `mutation.run`, in a tree of its own.
"""

import importlib
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from mutation.operators import Mutant

Told = Callable[[Mutant, str, float], None]
PATIENCE = 10  # a fork that takes this many times as long as without a mutant is ended and left
LEAST_SECONDS, MOST_SECONDS = 30.0, 900.0  # the latter without a mutant
LAST_CODE = 255  # the exit code of a fork has eight bits


def list_own_modules(tree: Path) -> Iterator[ModuleType]:
    """List the modules that were imported from a tree."""
    for module in list(sys.modules.values()):
        if str(getattr(module, "__file__", None) or "").startswith(f"{tree}{os.sep}"):
            yield module


def execute_anew(module: ModuleType, source: str, tree: Path) -> None:
    """Execute a source in its module, and hand on what it defines to whoever imported it.

    Exceptions stay the classes they were, since tests may hold them in a table.
    """
    names = vars(module)
    before = {name: each for name, each in names.items() if not name.startswith("__")}
    exec(compile(source, str(module.__file__), "exec"), names)
    for name, each in before.items():
        if isinstance(each, type) and issubclass(each, BaseException):
            names[name] = each
    renewed = {
        id(each): names[name]
        for name, each in before.items()
        if names[name] is not each and getattr(each, "__module__", None) == module.__name__
    }
    for other in list_own_modules(tree):
        if other is module:
            continue
        for name, each in list(vars(other).items()):
            if name in before and each is before[name]:
                setattr(other, name, names[name])
            elif id(each) in renewed:  # imported under another name
                setattr(other, name, renewed[id(each)])
            elif isinstance(each, type) and any(id(base) in renewed for base in each.__bases__):
                each.__bases__ = tuple(renewed.get(id(base), base) for base in each.__bases__)


class Forks:
    """A pytest plugin: in place of running the tests once, it runs them on each mutant of a file.

    What was killed is told. One that takes too long is left, as it may wait for a thread that no
    fork has. The exit code of a fork is 0 if no test failed, and one more than the place of the
    test that failed.
    """

    def __init__(self, mutants: Iterable[Mutant], tree: Path, jobs: int, told: Told) -> None:
        self.mutants, self.tree, self.jobs, self.told = list(mutants), tree, jobs, told
        self.limit, self.order = 0.0, list[Any]()

    def pytest_runtestloop(self, session: Any) -> bool:
        """Try each mutant, if all tests pass in a fork without one."""
        import pytest  # noqa: PLC0415 - the parent has imported it

        if session.testsfailed:  # an import, at the collection
            raise pytest.UsageError(f"{self.mutants[0].file}: its tests cannot be collected")
        self.order = list(session.items)
        file, begun = self.mutants[0].file, time.monotonic()
        original = (self.tree / file).read_text(encoding="utf-8")
        times = self.tree.with_suffix(".times")
        code = wait_for(self.fork(session, file, original, times), MOST_SECONDS)
        if code != 0:
            what = "pass in a fork" if code else f"end in a fork within {MOST_SECONDS:g} s"
            raise pytest.UsageError(f"{file}: its tests do not {what}")
        self.limit = max(LEAST_SECONDS, PATIENCE * (time.monotonic() - begun))
        seconds = list(map(float, times.read_text(encoding="utf-8").split()))
        places = sorted(range(len(seconds)), key=seconds.__getitem__)
        self.order = [session.items[place] for place in places]
        self.try_all(session)
        return True

    def try_all(self, session: Any) -> None:
        """Keep `jobs` forks at work until every mutant has been tried."""
        waiting, busy = self.mutants[::-1], dict[int, tuple[Mutant, float, list[Any]]]()
        try:
            while waiting or busy:
                while waiting and len(busy) < self.jobs:
                    mutant, begun = waiting.pop(), time.monotonic()
                    child = self.fork(session, mutant.file, mutant.text)
                    busy[child] = mutant, begun, self.order
                time.sleep(0.005)
                for child, (mutant, begun, order) in list(busy.items()):
                    seconds = time.monotonic() - begun
                    ended, status = os.waitpid(child, os.WNOHANG)
                    if not ended and seconds > self.limit:
                        end_group(child)
                    elif not ended:
                        continue
                    elif (code := os.waitstatus_to_exitcode(status)) != 0:
                        self.told(mutant, "killed", seconds)
                        self.prefer(order[code - 1 : code] if code > 0 else [])
                    del busy[child]
        finally:  # Ctrl-C too
            for child in busy:
                end_group(child)

    def prefer(self, failed: list[Any]) -> None:
        """Put the test that failed last first: the next mutant's is likely the same."""
        self.order = failed + [item for item in self.order if item not in failed]

    def fork(self, session: Any, file: str, text: str, times: Path | None = None) -> int:
        """Fork a child that runs the tests on a source; return its process id."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX has computed nothing yet, and has no thread
            child = os.fork()
        if child:
            return child
        code = LAST_CODE
        try:
            os.setsid()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
            execute_anew(module, text, self.tree)
            code = run_in_order(session, self.order, times)
        finally:
            os._exit(code)


def run_in_order(session: Any, order: list[Any], times: Path | None) -> int:
    """Run tests until one fails; return the exit code, and write the time that each took."""
    taken = []
    for place, item in enumerate(order):
        begun = time.process_time()
        following = order[place + 1] if place + 1 < len(order) else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        taken.append(str(time.process_time() - begun))
        if session.testsfailed:
            return min(place + 1, LAST_CODE)
    if times is not None:
        times.write_text("\n".join(taken), encoding="utf-8")
    return 0


def wait_for(child: int, most: float) -> int | None:
    """Wait for a fork; return its exit code, or None if it took too many seconds and was ended."""
    begun = time.monotonic()
    try:
        while time.monotonic() - begun <= most:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
    except BaseException:  # Ctrl-C
        end_group(child)
        raise
    end_group(child)
    return None


def end_group(child: int) -> None:
    """End a fork and the processes that its test has started."""
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
