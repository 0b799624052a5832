"""One thread for NumPy's and PyTorch's products, where their libraries can be told so."""

import sys
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program import blas_threads
from bptt_verifier.program.attempt import use_own_settings
from bptt_verifier.program.blas_threads import GET, SET, find_function, use_one_thread
from bptt_verifier.reference.own_loss import prepare

WAIT = 60.0  # seconds, at most, until the other thread is there
get, set_to = find_function(GET), find_function(SET)
by_openblas = pytest.mark.skipif(get is None, reason="NumPy's library is not its OpenBLAS")


@by_openblas
def test_products_have_one_thread_inside_and_as_many_as_before_outside() -> None:
    assert get is not None
    assert set_to is not None
    usual = get()
    try:
        set_to(2)
        with use_one_thread():
            assert get() == 1
        assert get() == 2
        with pytest.raises(ZeroDivisionError), use_one_thread():
            raise ZeroDivisionError
        assert get() == 2
    finally:
        set_to(usual)


@by_openblas
def test_threads_that_overlap_leave_as_many_as_before() -> None:
    assert get is not None
    assert set_to is not None
    usual, seen = get(), list[int]()
    begun, both, first_ended = Event(), Event(), Event()

    def begin_first() -> None:
        with use_one_thread():
            begun.set()
            both.wait(WAIT)
        seen.append(get())
        first_ended.set()

    def end_last() -> None:
        with use_one_thread():
            both.set()
            first_ended.wait(WAIT)
        seen.append(get())

    try:
        set_to(2)
        first, last = Thread(target=begin_first), Thread(target=end_last)
        first.start()
        begun.wait(WAIT)
        last.start()
        for each in (first, last):
            each.join()
        assert seen == [1, 2]
        assert get() == 2
        with use_one_thread(), use_one_thread():
            assert get() == 1
        assert get() == 2
    finally:
        set_to(usual)


@by_openblas
def test_complex_steps_are_taken_in_one_thread() -> None:
    assert get is not None
    assert set_to is not None
    usual, seen = get(), set[int]()

    def loss(p: Any, xp: Any) -> Any:
        if np.iscomplexobj(p["a"]):
            seen.add(get())
        return xp.sum(xp.sin(p["a"]))

    try:
        set_to(2)
        model = prepare(loss, {"a": np.ones(3)}, cases=2)
        assert (model.refusal, seen, get()) == (None, {1}, 2)
    finally:
        set_to(usual)


@pytest.mark.parametrize("missing", [GET, SET])
def test_another_library_keeps_its_threads(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas_threads, missing_name(missing), "no_such_function")
    assert find_function("no_such_function") is None
    with use_one_thread():
        assert get is None or get() >= 1


def missing_name(function: str) -> str:
    return "GET" if function == GET else "SET"


def test_a_numpy_without_that_module_has_no_such_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(np, "_core")
    assert find_function(GET) is None


@pytest.mark.parametrize("missing", [None, "get_num_threads", "set_num_threads", "torch"])
def test_pytorch_has_one_thread_while_the_judge_asks(
    missing: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = [4]
    torch = SimpleNamespace(get_num_threads=lambda: threads[-1], set_num_threads=threads.append)
    if missing == "torch":
        monkeypatch.delitem(sys.modules, "torch", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "torch", torch)
        if missing:
            delattr(torch, missing)
    with use_own_settings():
        assert threads == ([4] if missing else [4, 1])
        with use_own_settings():
            assert len(threads) == (1 if missing else 2)
    assert threads == ([4] if missing else [4, 1, 4])
