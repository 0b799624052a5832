"""Programs that a later process loads as they were compiled, without tracing them again.

JAX's persistent cache saves the compilation alone: JAX must trace a program to look for it there.
For the programs of the judge that takes longer than to compute with them. So they are kept whole,
where the environment names a folder, each under a digest of all that it depends on. What is in the
folder is run: nobody else may write to it.
"""

import hashlib
import inspect
import os
import pickle
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

FOLDER = "BPTT_PROGRAMS"  # variable of the environment; no program is kept where it is not set
SUFFIX = "-program"
DIGEST = hashlib.sha256
SIZE = DIGEST().digest_size  # bytes of the digest that a file begins with


class Program:
    """A function that `jax.jit` compiles, and that is kept for later processes.

    `static` names the arguments that are no arrays, and `packages` those whose code is traced. All
    arguments are given by position. Programs are kept on CPUs alone.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        static: Sequence[str],
        packages: Sequence[str] = ("jax_reference",),
        options: dict[str, Any] | None = None,
    ) -> None:
        names = list(inspect.signature(function).parameters)
        self.function, self.options, self.packages = function, options, tuple(packages)
        self.static = [names.index(name) for name in static]
        self.jitted = jax.jit(function, static_argnums=self.static, compiler_options=options)
        self.compiled = dict[Hashable, Callable[..., Any]]()
        self.loading = dict[Path, Future[Callable[..., Any] | None]]()

    def __call__(self, *arguments: Any) -> Any:
        """Compute the function, by the program that is kept if there is one."""
        folder = self.find_folder(arguments)
        if folder is None:
            return self.jitted(*arguments)
        arrays = [each for n, each in enumerate(arguments) if n not in self.static]
        static = [arguments[n] for n in self.static]
        key = read_settings(), *static, *describe_arrays(arrays)
        if key not in self.compiled:
            self.compiled[key] = self.find(self.name_file(folder, arguments), arguments, arrays)
        return self.compiled[key](*arrays)

    def load_ahead(self, pool: Executor, *arguments: Any) -> None:
        """Load the program for such arguments in the pool, if it is kept; nothing is computed.

        The call that needs it waits for it.
        """
        folder = self.find_folder(arguments)
        if folder is not None:
            file = self.name_file(folder, arguments)
            if file not in self.loading:
                self.loading[file] = pool.submit(load, file)

    def find_folder(self, arguments: Sequence[Any]) -> Path | None:
        """Find the folder of the programs; None where that for these arguments is not kept."""
        folder = os.environ.get(FOLDER)
        named = all(has_name(arguments[n]) for n in self.static)
        return Path(folder) if folder and jax.default_backend() == "cpu" and named else None

    def name_file(self, folder: Path, arguments: Sequence[Any]) -> Path:
        """Name the file of the program for these arguments, by all that it depends on."""
        arrays = [each for n, each in enumerate(arguments) if n not in self.static]
        static = [describe(arguments[n]) for n in self.static]
        structure, settings = describe_arrays(arrays), read_settings()
        depends = describe(self.function), static, structure, settings, self.options
        text = f"{depends} {describe_surroundings(self.packages)}"
        return folder / f"{self.function.__name__}-{DIGEST(text.encode()).hexdigest()}{SUFFIX}"

    def find(
        self, file: Path, arguments: Sequence[Any], arrays: Sequence[Any]
    ) -> Callable[..., Any]:
        """Load the program from its file, where that has not begun yet, or compile and keep it."""
        ahead = self.loading.pop(file, None)
        kept = load(file) if ahead is None else ahead.result()
        if kept is not None:
            return kept
        # JAX cannot write a program that it has loaded, so it must not keep this one, too.
        with writing_no_cache():
            compiled: Callable[..., Any] = self.jitted.lower(*arguments).compile()
        keep(file, compiled, arrays)
        return compiled


def load(file: Path) -> Callable[..., Any] | None:
    """Load the program in a file; None where there is none, or where it is incomplete."""
    from jax.experimental.serialize_executable import deserialize_and_load  # noqa: PLC0415

    try:
        content = file.read_bytes()
        if DIGEST(content[SIZE:]).digest() != content[:SIZE]:
            return None
        found: Callable[..., Any] = deserialize_and_load(*pickle.loads(content[SIZE:]))
    except Exception:  # whatever is wrong with it: the program is compiled
        return None
    return found


def keep(file: Path, compiled: Any, arrays: Sequence[Any]) -> None:
    """Write a program to a file if what can be loaded from there gives the same bits."""
    from jax.experimental.serialize_executable import (  # noqa: PLC0415
        deserialize_and_load,
        serialize,
    )

    partial_file = file.with_name(f"{file.name}.{os.getpid()}")
    with suppress(Exception):  # it is compiled, and so much is enough for this process
        parts = serialize(compiled)
        if not have_same_bits(compiled(*arrays), deserialize_and_load(*parts)(*arrays)):
            return
        content = pickle.dumps(parts)
        partial_file.write_bytes(DIGEST(content).digest() + content)
        partial_file.replace(file)  # no process sees a part of it
    with suppress(OSError):
        partial_file.unlink(missing_ok=True)


def have_same_bits(one: Any, other: Any) -> bool:
    """True if two results have the same arrays, bit for bit."""
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(leaves, others, strict=True)]
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)


@contextmanager
def writing_no_cache() -> Iterator[None]:
    """Let JAX write nothing to its own persistent cache meanwhile."""
    config: Any = jax.config
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(config, name)
    config.update(name, float("inf"))
    try:
        yield
    finally:
        config.update(name, before)


def read_settings() -> Hashable:
    """Read all settings of JAX, and XLA's flags, but for those of its persistent cache."""
    settings = jax.config.values.items()
    chosen = tuple((name, repr(value)) for name, value in settings if "cache" not in name)
    return (*chosen, os.environ.get("XLA_FLAGS", ""))


def describe_arrays(arrays: Sequence[Any]) -> tuple[Any, ...]:
    """Describe the structure of the arguments, and the shape and type of each array."""
    leaves, structure = jax.tree.flatten(list(arrays))
    types = tuple((np.shape(x), str(getattr(x, "dtype", type(x).__name__))) for x in leaves)
    return str(structure), types


def has_name(value: Any) -> bool:
    """Tell whether `describe` says all about a static argument: its functions are of a module."""
    if callable(value):
        module = sys.modules.get(getattr(value, "__module__", ""))
        return getattr(module, getattr(value, "__qualname__", ""), None) is value
    if isinstance(value, tuple):
        return all(map(has_name, value))
    return value is None or isinstance(value, str | int | float)


def describe(value: Any) -> Any:
    """Describe a static argument in the same words in every process: a function by its name."""
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, tuple):
        return type(value).__name__, *map(describe, value)
    return value


@cache
def describe_surroundings(packages: tuple[str, ...]) -> str:
    """Describe the versions, the processor, and the code of imported packages, which is traced."""
    code = DIGEST()
    for package in packages:
        for folder in sys.modules[package].__path__:
            for file in sorted(Path(folder).glob("*.py")):
                code.update(f"{package}/{file.name}\0".encode() + file.read_bytes())
    versions = [version(name) for name in ("jax", "jaxlib", "numpy")]
    devices = [each.device_kind for each in jax.local_devices()]
    return f"{versions} {devices} {code.hexdigest()}"
