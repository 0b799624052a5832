"""Events of calls and returns, which Python hands to one profile function at a time."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def watch_calls(note: Callable[[FrameType, str, Any], None]) -> Iterator[None]:
    """Call a function at each call and return inside; a profiler that is active pauses."""
    before: Any = sys.getprofile()
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        if hasattr(before, "enable"):  # of cProfile, which is no function
            before.enable()
        else:
            sys.setprofile(before)
