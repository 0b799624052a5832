"""The threads of NumPy's and PyTorch's products: one, where there are many small products.

The OpenBLAS of NumPy's wheels shares out complex products of a few thousand entries already, and so
does PyTorch. Their threads then wait for each other, and take many times the time of one, above all
on a busy machine.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np

from bptt_verifier.program.torch_tensors import find_torch

GET, SET = "scipy_openblas_get_num_threads64_", "scipy_openblas_set_num_threads64_"


def find_function(name: str) -> Callable[..., Any] | None:
    """Find a function of the library that NumPy is linked to; None in another library."""
    extension = getattr(getattr(np, "_core", None), "_multiarray_umath", None)
    try:
        return getattr(ctypes.CDLL(extension.__file__), name, None)  # type: ignore[union-attr]
    except (AttributeError, OSError, TypeError):
        return None


class Users:
    """The blocks of code that are in one thread now, in any thread of the process.

    The number of threads is the library's, not a thread's. So the first block to begin notes it,
    and the last one to end restores it, in whatever order they overlap.
    """

    def __init__(self) -> None:
        self.lock, self.number, self.before = Lock(), 0, 1

    def enter(self, get: Callable[[], int], set_to: Callable[[int], Any]) -> None:
        """Begin a block."""
        with self.lock:
            if self.number == 0:
                self.before = get()
                set_to(1)
            self.number += 1

    def leave(self, set_to: Callable[[int], Any]) -> None:
        """End a block."""
        with self.lock:
            self.number -= 1
            if self.number == 0:
                set_to(self.before)


USERS, USERS_OF_TORCH = Users(), Users()


@contextmanager
def use_one_thread() -> Iterator[None]:
    """Compute NumPy's products in one thread; a library other than OpenBLAS keeps its threads."""
    get, set_to = find_function(GET), find_function(SET)
    with hold_one(USERS, get, set_to):
        yield


@contextmanager
def use_one_thread_of_torch() -> Iterator[None]:
    """Compute PyTorch's products in one thread, if the user's code has imported it."""
    torch = find_torch()
    get, set_to = (getattr(torch, f"{do}_num_threads", None) for do in ("get", "set"))
    with hold_one(USERS_OF_TORCH, get, set_to):
        yield


@contextmanager
def hold_one(
    users: Users, get: Callable[[], int] | None, set_to: Callable[[int], Any] | None
) -> Iterator[None]:
    """Hold a library at one thread, if it has these functions, until its last user ends."""
    if get is None or set_to is None:
        yield
        return
    users.enter(get, set_to)
    try:
        yield
    finally:
        users.leave(set_to)
