"""Locks: a file that a run saves to again and again belongs to one run at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import IO, Any


@contextmanager
def holding(option: str, path: Path | None) -> Iterator[None]:
    """Hold the file that an option names, inside. Raises ValueError where another run holds it.

    What is locked is a hidden file beside it, since the file itself is replaced whenever it is
    saved. The system unlocks it when the process ends, however it does. A folder that takes no file
    is not guarded, nor is a file system without locks.
    """
    file = None if path is None else open_lock(path)
    held = file is not None and lock(file)
    try:
        if file is not None and not held:
            raise ValueError(
                f"{option}: expected a file that no other run saves to, found {path}, which "
                "another run has opened; wait for its end, or name another file"
            )
        yield
    finally:
        if file is not None:
            with suppress(OSError):  # Windows deletes no open file
                if held:
                    os.unlink(file.name)
            file.close()


def open_lock(path: Path) -> IO[bytes] | None:
    """Open the file to be locked for another; None where there can be none."""
    place = Path(os.path.realpath(path))
    name = sha256(place.name.encode(errors="surrogateescape")).hexdigest()[:16]
    with suppress(OSError):
        return place.with_name(f".{name}.lock").open("ab")
    return None


def lock(file: IO[bytes]) -> bool:
    """Lock an open file; false where it is locked already, or was deleted before it was locked."""
    try:
        if os.name == "nt":
            windows: Any = import_module("msvcrt")
            windows.locking(file.fileno(), windows.LK_NBLCK, 1)
        else:
            posix: Any = import_module("fcntl")
            posix.flock(file, posix.LOCK_EX | posix.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # the file system has no locks
        return True
    return os.name == "nt" or os.fstat(file.fileno()).st_nlink > 0
