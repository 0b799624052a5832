"""What a result was taken on: everything that makes two results comparable, and no names."""

import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax

from benchmarks import torch_steps

PACKAGES = ("verified-bptt", "jax", "jaxlib", "numpy", "torch")
GIBIBYTE = 2**30


def processor() -> str:
    """The processor's model name where the system tells, else the architecture."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def vector_extensions() -> list[str]:
    """Those of the processor that decide how fast products are, where the system tells."""
    information = Path("/proc/cpuinfo")
    if not information.is_file():
        return []
    words = set(information.read_text(encoding="utf-8", errors="replace").split())
    return [name for name in ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile") if name in words]


def schedulable() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> float | None:
    """Gibibytes of main memory, where the system tells."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIBIBYTE, 1)


def pools() -> list[dict[str, Any]]:
    """The thread pools of the libraries that are loaded; none without threadpoolctl."""
    if find_spec("threadpoolctl") is None:
        return []
    known = ("user_api", "internal_api", "version", "threading_layer", "num_threads")
    found = [
        {key: pool[key] for key in known if pool.get(key) is not None}
        for pool in import_module("threadpoolctl").threadpool_info()
    ]
    return sorted(found, key=str)  # not in the order in which libraries happened to be loaded


def threads() -> dict[str, Any]:
    """How many threads each library may use. XLA takes as many as there are processors."""
    found: dict[str, Any] = {"processors": schedulable(), "pools": pools()}
    if find_spec("torch") is not None:
        found["torch"] = torch_steps.load().get_num_threads()
    return found


def versions() -> dict[str, str]:
    """Python's version and those of the packages that compute."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def precision() -> dict[str, Any]:
    """Every switch that lets float32 products round to something shorter."""
    return {
        "jax matmul": jax.config.values["jax_default_matmul_precision"]
    } | torch_steps.switches()


def description(device: Any) -> dict[str, Any]:
    """The machine, versions, threads and switches, and when; no name of host, user or folder."""
    return {
        "device": device.platform,
        "device kind": device.device_kind,
        "processor": processor(),
        "vector extensions": vector_extensions(),
        "memory GiB": memory(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
        "threads": threads(),
        "precision": precision(),
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
    }


# What makes seconds, or even ratios, of two results incomparable where it differs.
DECISIVE = ("device", "device kind", "processor", "system", "versions", "threads", "precision")


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two descriptions, a sentence for each, but not when they were taken."""
    return [
        f"{key}: then {old.get(key)}, now {new.get(key)}"
        for key in DECISIVE
        if old.get(key) != new.get(key)
    ]


@contextmanager
def limited_to(threads: int | None) -> Iterator[None]:
    """At most so many threads for every library, and as many as before afterwards.

    XLA counts processors when it starts, so the limit must come first. Raises ValueError where
    there are fewer processors, or what is needed to set it is missing.
    """
    if threads is None:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("--threads: expected a system where processors can be chosen, found none")
    if find_spec("threadpoolctl") is None:
        raise ValueError("--threads: expected threadpoolctl, of the extra `bench`, found none")
    before = os.sched_getaffinity(0)
    if threads > len(before):
        raise ValueError(f"--threads: expected at most {len(before)}, found {threads}")
    with ExitStack() as undone:
        undone.callback(os.sched_setaffinity, 0, before)
        os.sched_setaffinity(0, sorted(before)[:threads])
        undone.enter_context(import_module("threadpoolctl").threadpool_limits(limits=threads))
        if find_spec("torch") is not None:
            torch = torch_steps.load()
            undone.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(threads)
        yield


def device(name: str) -> Any:
    """JAX's device of that kind, "cpu" or "gpu". Raises ValueError where there is none."""
    try:
        return jax.devices(name)[0]
    except RuntimeError:
        raise ValueError(f"--device: expected one that JAX can use, found no {name}") from None
