"""Environment of all tests: Hypothesis profiles, JAX that refuses to mix dtypes, and `bptt`."""

import gc
import os
import signal
from collections.abc import Iterator
from importlib.metadata import version

import jax
import pytest

from bptt_verifier.judge.cells import CellSubject
from bptt_verifier.program import attempt
from tests.support.command_line import Command, Ended, Train, exit_code
from tests.support.profiles import divide_tables, register_profiles

# Most of the time goes into compiling what runs once. XLA reads this when it first computes, here
# and in every process that a test starts. `make test-deep` compiles as users do.
FLAGS = ["--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):  # later ones end the process at a flag they do not know
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
    # A program in 32 parts is compiled by as many threads, and costs half as much again.
    FLAGS.append("--xla_cpu_parallel_codegen_split_count=1")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))

# The commands keep no compiled programs in the home of whoever runs the tests.
os.environ["BPTT_CACHE"] = ""

# What JAX has traced is long-lived: collecting less often takes a twentieth off the time.
gc.set_threshold(50_000, 20, 20)

register_profiles()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave most cases of a long table to `make test-tables`, and some to `make test-deep`."""
    rest, seldom = divide_tables(items)
    for item in rest:
        item.add_marker("rest")
    for item in seldom:
        item.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def shared_compilations(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A program that one process of a run has compiled is loaded by the others.

    The folder is that of this run. Processes that a test starts do not use it: where one is killed
    it may leave half a program.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:  # the mutation run has no pytest-xdist
        shared = tmp_path_factory.getbasetemp().parent / "compilations"
        jax.config.update("jax_compilation_cache_dir", str(shared))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.25)


@pytest.fixture(autouse=True)
def strict_dtype_promotion() -> Iterator[None]:
    """float64 that silently becomes float32 is the commonest false result: here it is an error.

    And 64-bit JAX, which the packages enable for a while, is off again after every test.
    """
    with jax.numpy_dtype_promotion("strict"):
        yield
    assert not jax.config.jax_enable_x64


@pytest.fixture(autouse=True)
def warnings_of_the_judge_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning about the judge's own arithmetic, which users do not see, fails the test."""
    monkeypatch.setattr(attempt, "filter_own_warnings", lambda: None)


@pytest.fixture(autouse=True)
def no_extreme_problems(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Extreme problems take seconds for a right derivation: only tests that say so draw them."""
    if request.node.get_closest_marker("extreme") is None:
        monkeypatch.setattr(CellSubject, "draw_extreme_cases", lambda subject: ())


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises an exception, in a job in the background as well, where shells ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def bptt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`bptt` in this process; returns the exit code and what was printed."""
    return lambda *arguments: Ended(exit_code(monkeypatch, *arguments), *capsys.readouterr())


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Train:
    """`bptt train` in this process, on a terminal of 80 columns; returns the exit code."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return lambda *arguments: exit_code(monkeypatch, "train", *arguments)
