"""Processes that a process has started, found in /proc."""

import time
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")


def list_children(pid: int, named: str) -> list[int]:
    """The children of a process whose command has this word."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            command = (status.parent / "cmdline").read_text()
        except OSError:
            continue
        if parent == pid and named in command:
            found.append(int(status.parent.name))
    return found


def wait_for_children(pid: int, number: int, named: str) -> list[int]:
    """Wait until a process has so many children whose command has this word."""
    for _ in range(1200):
        found = list_children(pid, named)
        if len(found) == number:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{pid} has {list_children(pid, named)}")
