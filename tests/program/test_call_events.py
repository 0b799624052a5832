"""The judge's profile function takes the place of another one for a while."""

import cProfile
import sys
from typing import Any

import pytest

from bptt_verifier.program.call_events import watch_calls


def called_inside() -> None: ...


def called_after() -> None: ...


def test_a_profiler_pauses_while_calls_are_watched_and_goes_on_afterwards() -> None:
    seen = set[str]()
    with cProfile.Profile() as profiler:
        with watch_calls(lambda frame, event, _: seen.add(frame.f_code.co_name)):
            called_inside()
        called_after()
    assert "called_inside" in seen
    assert "called_after" not in seen
    profiled = {getattr(each.code, "co_name", "") for each in profiler.getstats()}
    assert "called_after" in profiled


def test_a_profile_function_of_python_is_restored_also_after_an_exception() -> None:
    def note(frame: Any, event: str, value: Any) -> None: ...

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        with pytest.raises(ZeroDivisionError), watch_calls(note):
            raise ZeroDivisionError
        assert sys.getprofile() is note
    finally:
        sys.setprofile(before)
