"""Compiled programs are loaded by later processes, and never by those that need another one."""

import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.commands.compiled import PROGRAMS
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import Problem, Sizes
from bptt_verifier.reference import autodiff
from jax_reference import blocks, programs
from jax_reference.programs import FOLDER, Program, load, writing_no_cache
from tests.support.modules import ROOT

TRACED: list[Any] = []
X = np.linspace(-1, 1, 12).reshape(3, 4)


def scaled(power: int, x: Any, pair: tuple[Any, Any]) -> tuple[Any, Any]:
    """A function that notes when it is traced."""
    TRACED.append(x)
    return jnp.tanh(x) ** power, pair[0] @ x + pair[1]


def shifted(power: int, x: Any, pair: tuple[Any, Any]) -> tuple[Any, Any]:
    """Another function of the same arguments."""
    return scaled(power, x + 1, pair)


def later_process(function: Callable[..., Any] = scaled, **options: Any) -> Program:
    """The program as another process makes it, which has traced nothing yet."""
    jax.clear_caches()
    return Program(function, ["power"], **options)


PAIR = (np.ones((2, 3)), 0.5)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for programs, of which none has been traced, nor kept by JAX itself.

    JAX keeps what takes long to compile, as on a machine that does more, and cannot write what it
    has loaded from there.
    """
    monkeypatch.setenv(FOLDER, str(tmp_path))
    TRACED.clear()
    with jax.enable_x64(True), writing_no_cache():
        yield tmp_path


def test_a_later_process_loads_a_program_without_tracing_it(folder: Path) -> None:
    first = later_process()(3, X, PAIR)
    bits = [np.asarray(each).tobytes() for each in first]
    assert (len(TRACED), len([*folder.iterdir()])) == (1, 1)
    again = later_process()
    for _ in range(2):
        second = again(3, X, PAIR)
        assert isinstance(second, tuple)
        assert [np.asarray(each).tobytes() for each in second] == bits
    assert len(TRACED) == 1
    compiled_by_jit = later_process().jitted(3, X, PAIR)
    assert [np.asarray(each).tobytes() for each in compiled_by_jit] == bits
    TRACED.clear()
    other_numbers = later_process()(3, X + 1, PAIR)
    assert TRACED == []
    assert np.allclose(other_numbers[0], np.tanh(X + 1) ** 3)


@pytest.mark.parametrize("value", ["", None])
def test_without_a_folder_nothing_is_kept(
    value: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, "") if value == "" else monkeypatch.delenv(FOLDER)
    later_process()(3, X, PAIR)
    later_process()(3, X, PAIR)
    assert (len(TRACED), [*folder.iterdir()]) == (2, [])


def shift(x: Any) -> Any:
    """A function of this module."""
    return x + 1


def applied(function: Any, x: Any) -> Any:
    """A function with a static function."""
    return function(x)


@pytest.mark.parametrize(
    ("function", "kept"),
    [(shift, 1), (lambda x: x + 1, 0), (partial(jnp.multiply, 2), 0)],
)
def test_a_program_of_a_function_without_a_name_is_not_kept(
    function: Any, kept: int, folder: Path
) -> None:
    """Another process may have another function of that name."""
    found = Program(applied, ["function"])(function, X)
    assert np.allclose(found, function(X))
    assert len([*folder.iterdir()]) == kept


def test_what_is_in_a_tuple_needs_a_name_too() -> None:
    assert programs.has_name((shift, ("tanh", 3, None, 0.5)))
    assert not programs.has_name((shift, (lambda: 0,)))
    assert not programs.has_name(np.zeros(2))


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_the_programs_of_every_cell_have_names(cell: str) -> None:
    problem = with_values(np.random.default_rng(0), Sizes(4, 2, 3, 2, 2), cell=cell)
    laid = autodiff.lay_out(problem, autodiff.LARGEST)
    assert all(map(programs.has_name, laid[:2]))
    assert programs.has_name(autodiff.arrange_at_its_size(problem)[0])


def test_programs_of_another_device_are_not_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    later_process()(3, X, PAIR)
    assert [*folder.iterdir()] == []


OTHERS: dict[str, Callable[[], Any]] = {
    "static": lambda: later_process()(2, X, PAIR),
    "shape": lambda: later_process()(3, X[:, :3], PAIR),
    "type": lambda: later_process()(3, X.astype(np.float32), (PAIR[0].astype(np.float32), 0.5)),
    "kind of number": lambda: later_process()(3, X, (PAIR[0], 1)),
    "structure": lambda: later_process()(3, X, [*PAIR]),
    "function": lambda: later_process(shifted)(3, X, PAIR),
    "options": lambda: later_process(options={"xla_backend_optimization_level": 0})(3, X, PAIR),
    "packages": lambda: later_process(packages=("bptt_verifier.tolerance",))(3, X, PAIR),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_program_is_compiled_and_kept_beside_it(other: str, folder: Path) -> None:
    later_process()(3, X, PAIR)
    TRACED.clear()
    OTHERS[other]()
    assert (len(TRACED), len([*folder.iterdir()])) == (1, 2)


@pytest.mark.parametrize("what", ["version", "setting", "flags", "code"])
def test_another_version_or_setting_has_another_program(
    what: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later_process()(3, X, PAIR)
    TRACED.clear()
    programs.describe_surroundings.cache_clear()
    if what == "version":
        monkeypatch.setattr(programs, "version", lambda name: "9.9")
    if what == "flags":
        monkeypatch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} ")
    if what == "code":
        original = Path.read_bytes
        monkeypatch.setattr(
            Path, "read_bytes",
            lambda file: original(file) + b"#" * (file.name == "losses.py"),
        )  # fmt: skip
    with jax.default_matmul_precision("highest" if what == "setting" else None):
        later_process()(3, X, PAIR)
    programs.describe_surroundings.cache_clear()
    assert (len(TRACED), len([*folder.iterdir()])) == (1, 2)


def test_a_setting_that_changes_meanwhile_is_heeded(folder: Path) -> None:
    program = later_process()
    wide = program(3, X, PAIR)
    with jax.enable_x64(False):
        narrow = program(3, X, PAIR)
    assert [each[0].dtype for each in (wide, narrow)] == [np.float64, np.float32]


def spoil(content: bytes, how: str) -> bytes:
    """A file of a program as a full disk, another program or an older version may leave it."""
    other = pickle.dumps("something else")
    return {
        "cut": content[:-7],
        "changed": content[:-1] + bytes([content[-1] ^ 1]),
        "empty": b"",
        "another": programs.DIGEST(other).digest() + other,
    }[how]


@pytest.mark.parametrize("how", ["cut", "changed", "empty", "another"])
def test_a_file_that_is_no_program_is_replaced(how: str, folder: Path) -> None:
    expected = later_process()(3, X, PAIR)
    (file,) = folder.iterdir()
    content = file.read_bytes()
    file.write_bytes(spoil(content, how))
    assert load(file) is None
    TRACED.clear()
    found = later_process()(3, X, PAIR)
    assert len(TRACED) == 1
    assert np.array_equal(found[1], expected[1])
    assert load(file) is not None
    assert [each.name for each in folder.iterdir()] == [file.name]


@pytest.mark.parametrize("flaw", ["bits", "dtype", "raises"])
def test_a_program_that_would_not_load_as_it_is_is_not_kept(
    flaw: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_wrongly(*parts: Any) -> Callable[..., Any]:
        if flaw == "raises":
            raise RuntimeError("NOT_FOUND: Function fusion not found")
        return lambda *arrays: jax.tree.map(
            lambda value: np.asarray(value, np.float32 if flaw == "dtype" else None) + 1e-12,
            Program(scaled, ["power"]).jitted(3, *arrays),
        )

    module = "jax.experimental.serialize_executable.deserialize_and_load"
    monkeypatch.setattr(module, load_wrongly)
    found = later_process()(3, X, PAIR)
    assert [*folder.iterdir()] == []
    assert np.allclose(found[0], np.tanh(X) ** 3)


def test_a_folder_that_cannot_be_written_changes_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "missing"))
    with jax.enable_x64(True):
        assert np.allclose(later_process()(3, X, PAIR)[0], np.tanh(X) ** 3)


def test_jax_keeps_none_of_them_and_its_setting_is_restored() -> None:
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)

    def compile_in_vain() -> None:
        with writing_no_cache():
            assert getattr(jax.config, name) == float("inf")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        compile_in_vain()
    assert getattr(jax.config, name) == before


def test_the_commands_name_the_folder_by_the_same_variable() -> None:
    assert PROGRAMS == FOLDER


def traced_files(call: Callable[[], Any]) -> set[Path]:
    """The files of this repository of which functions run during a call."""
    found = set[CodeType]()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            found.add(frame.f_code)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    files = {Path(code.co_filename) for code in found}
    return {file for file in files if file.is_relative_to(ROOT) and ".venv" not in file.parts}


def list_traced(program: Program, problem: Problem) -> set[Path]:
    """The files of this repository whose functions are traced, without those of the program."""
    laid = autodiff.lay_out(problem, autodiff.LARGEST)
    if program is autodiff._measure_padded:
        given: tuple[Any, ...] = (*laid[:2], 1e-10, *laid[2:4], 2)
    elif program is autodiff._measure_at_its_size:
        model, params, x, first, y = autodiff.arrange_at_its_size(problem)
        given = model, 1e-10, y, params, x, first
    else:
        given = laid[:4]
        if program is blocks._differentiate:
            given = *laid[:2], *jax.tree.map(lambda value: np.asarray(value)[None], laid[2:4])
    jax.clear_caches()
    with jax.enable_x64(True):
        return traced_files(lambda: program.jitted.lower(*given)) - {Path(__file__)}


EVERY = {
    "block": blocks._differentiate,
    "padded": autodiff._differentiate_padded,
    "measured, padded": autodiff._measure_padded,
    "measured": autodiff._measure_at_its_size,
}


@pytest.mark.rest
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_the_digest_covers_all_code_that_is_traced(name: str, cell: str) -> None:
    program = EVERY[name]
    folders = {ROOT / package.replace(".", "/") for package in program.packages}
    problem = with_values(np.random.default_rng(0), Sizes(4, 2, 3, 2, 2), cell=cell, bias=True)
    files = list_traced(program, problem)
    assert len(files) >= 3
    assert {file.parent for file in files} <= folders


def test_the_guard_sees_code_of_another_package() -> None:
    assert traced_files(lambda: scaled(3, X, PAIR)) == {Path(__file__)}


def test_a_call_takes_the_program_that_is_loaded_ahead_and_waits_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = later_process()(3, X, PAIR)
    begun, loading, go_on = list[Path](), threading.Event(), threading.Event()

    def load_slowly(file: Path) -> Any:
        begun.append(file)
        loading.set()
        assert go_on.wait(20)
        return load(file)

    monkeypatch.setattr(programs, "load", load_slowly)
    again = later_process()
    with ThreadPoolExecutor(2) as pool:
        again.load_ahead(pool, 3, X, PAIR)
        again.load_ahead(pool, 3, X + 1, PAIR)  # the same program
        assert loading.wait(20)
        threading.Timer(0.05, go_on.set).start()
        found = again(3, X, PAIR)
    assert begun == [*folder.iterdir()]
    assert len(TRACED) == 1
    assert [np.asarray(each).tobytes() for each in found] == [
        np.asarray(each).tobytes() for each in expected
    ]


@pytest.mark.parametrize("content", [None, b"", b"a part of a program"])
def test_what_cannot_be_loaded_ahead_is_compiled(content: bytes | None, folder: Path) -> None:
    expected = later_process()(3, X, PAIR)
    (file,) = folder.iterdir()
    file.unlink() if content is None else file.write_bytes(content)
    again = later_process()
    with ThreadPoolExecutor(1) as pool:
        again.load_ahead(pool, 3, X, PAIR)
    found = again(3, X, PAIR)
    assert len(TRACED) == 2
    assert np.allclose(found[0], expected[0])
    assert [*folder.iterdir()] == [file]


def test_where_nothing_is_kept_nothing_is_loaded_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    again = later_process()
    with ThreadPoolExecutor(1) as pool:
        again.load_ahead(pool, 3, X, PAIR)
    assert again.loading == {}
