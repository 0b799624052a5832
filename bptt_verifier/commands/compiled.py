"""Compiled programs, kept for later runs in the user's cache folder.

The programs of the judge are the same in every run. Tracing and compiling them takes most of the
time of a short one. JAX's persistent cache saves the compilation, and `jax_reference.programs` the
tracing as well, of the programs that a verdict on a cell needs. The folder belongs to one version
of jaxlib and one kind of processor.
"""

import hashlib
import os
import platform
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any

VARIABLE = "BPTT_CACHE"  # the folder; nothing is kept where it is empty
PROGRAMS = "BPTT_PROGRAMS"  # `jax_reference.programs.FOLDER`; that module imports JAX
MIN_COMPILE_SECONDS = 0.2  # a program that compiles faster is not kept
MAX_BYTES = 10**9  # all programs together, those of other versions included
FEATURES = ("flags", "Features")  # of a processor, as Linux lists them


def find_folder(environment: Mapping[str, str]) -> Path | None:
    """Find the folder for compiled programs by the environment; None where nothing is kept."""
    named = environment.get(VARIABLE)
    if named is not None:  # absolute, since the processes that this one starts may be elsewhere
        return Path(named).absolute() / describe_platform() if named else None
    if "JAX_COMPILATION_CACHE_DIR" in environment:  # JAX keeps them already, or is told not to
        return None
    home = environment.get("HOME", "")
    place = {
        "win32": environment.get("LOCALAPPDATA", ""),
        "darwin": f"{home}/Library/Caches" if home else "",
    }.get(sys.platform, environment.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home else ""))
    return Path(place) / "bptt" / describe_platform() if os.path.isabs(place) else None


def describe_platform() -> str:
    """Describe what a compiled program depends on, as the name of a folder."""
    number, found = "unknown", platform.machine()
    with suppress(PackageNotFoundError):
        number = version("jaxlib")
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        lines = [line.partition(":") for line in text.splitlines()]
        found += next((value for key, _, value in lines if key.strip() in FEATURES), "")
    return f"jaxlib-{number}-{hashlib.sha256(found.encode()).hexdigest()[:12]}"


def make_private(folder: Path) -> bool:
    """Make a folder that only this user can write to; True if there is one."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError:
        return False
    private = not hasattr(os, "getuid") or (
        found.st_uid == os.getuid() and not found.st_mode & 0o22
    )
    return private and os.access(folder, os.W_OK)


def delete_oldest(place: Path, limit: int) -> None:
    """Delete the programs least recently used until those below `place` fit in `limit` bytes.

    JAX's own limit, `jax_compilation_cache_max_size`, needs another package, filelock. It cannot
    be set in a folder that has programs already, since it expects a second file beside each.
    """
    found = []
    # A process that is killed while it writes leaves a part, `*-program.PID`.
    for file in chain(place.glob("jaxlib-*/*-cache"), place.glob("jaxlib-*/*-program*")):
        with suppress(OSError):  # another process has deleted it
            status = file.stat()
            found.append((max(status.st_atime, status.st_mtime), status.st_size, file))
    total = sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if total <= limit:
            return
        with suppress(OSError):
            file.unlink()
        total -= size


def keep_compiled_programs() -> None:
    """Keep compiled programs for later runs, of this process and of all that it starts.

    Leaves JAX as it is where it keeps them already, or where there is no private folder.
    """
    folder = find_folder(os.environ)
    config: Any = getattr(sys.modules.get("jax"), "config", None)  # importing JAX takes long
    os.environ.pop(PROGRAMS, None)  # what is inherited may be a folder that others can write to
    if folder is None or getattr(config, "jax_compilation_cache_dir", None) is not None:
        return
    if not make_private(folder):
        return
    delete_oldest(folder.parent, MAX_BYTES)
    os.environ[PROGRAMS] = str(folder)
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": MIN_COMPILE_SECONDS,
    }
    for name, value in settings.items():
        if name.upper() in os.environ:  # the user's own
            continue
        os.environ[name.upper()] = str(value)  # JAX reads it where it is imported
        if config is not None:
            config.update(name, value)
    # Another process may be writing the program that this one reads: then it compiles.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
