"""The machine of a result: all that makes two results comparable, without names."""

import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
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
DRIVER = Path("/sys/module/nvidia/version")  # of Linux


def processor() -> str:
    """The processor's model name if the system provides it, else the architecture."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def vector_extensions() -> list[str]:
    """The processor's extensions for fast products, if the system lists them."""
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
    """Gibibytes of main memory, or None if unknown."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIBIBYTE, 1)


def pools() -> list[dict[str, Any]]:
    """The thread pools of the loaded libraries; empty without threadpoolctl."""
    if find_spec("threadpoolctl") is None:
        return []
    known = ("user_api", "internal_api", "version", "threading_layer", "num_threads")
    found = [
        {key: pool[key] for key in known if pool.get(key) is not None}
        for pool in import_module("threadpoolctl").threadpool_info()
    ]
    return sorted(found, key=str)  # not in the order in which libraries happened to be loaded


def threads() -> dict[str, Any]:
    """The number of threads each library may use; XLA uses one for each processor."""
    found: dict[str, Any] = {"processors": schedulable(), "pools": pools()}
    if find_spec("torch") is not None:
        found["torch"] = torch_steps.load().get_num_threads()
    return found


def versions() -> dict[str, str]:
    """The versions of Python and of the numerical packages."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def gpu_software() -> dict[str, Any]:
    """The versions of the GPU's driver and of PyTorch's cuDNN, where there are any."""
    found: dict[str, Any] = {}
    if DRIVER.is_file():
        found["driver"] = DRIVER.read_text(encoding="utf-8").strip()
    if find_spec("torch") is not None:
        found["torch cuDNN"] = torch_steps.load().backends.cudnn.version()
    return found


def precision() -> dict[str, Any]:
    """The switches that allow float32 products in a shorter format."""
    return {
        "jax matmul": jax.config.values["jax_default_matmul_precision"]
    } | torch_steps.switches()


def description(device: Any) -> dict[str, Any]:
    """The machine, versions, threads, switches and date; no name of host, user or folder."""
    described = {
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
    return described if device.platform == "cpu" else described | {"gpu software": gpu_software()}


# Two results that differ in one of these are not comparable.
DECISIVE = ("device", "device kind", "processor", "system", "versions", "threads", "precision")


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The differences between two descriptions, a sentence each, apart from the dates."""
    return [
        f"{key}: then {old.get(key)}, now {new.get(key)}"
        for key in DECISIVE
        if old.get(key) != new.get(key)
    ]


@contextmanager
def limited_to(threads: int | None) -> Iterator[None]:
    """Limit the threads of every library inside the block, and restore them after.

    XLA counts processors when it starts, so the limit must be set before. Raises ValueError where
    there are fewer processors, or where the system or a package cannot set the limit.
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


def count_processors_as_devices() -> None:
    """Make every processor a JAX device of its own, unless JAX has counted its devices already."""
    update: Any = jax.config.update
    with suppress(RuntimeError):
        update("jax_num_cpu_devices", schedulable())


def device(name: str) -> Any:
    """The first JAX device of a kind, "cpu" or "gpu". Raises ValueError where there is none."""
    try:
        return jax.devices(name)[0]
    except RuntimeError:
        raise ValueError(f"--device: expected one that JAX can use, found no {name}") from None
