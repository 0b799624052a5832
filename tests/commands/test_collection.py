"""Python collects no garbage while modules are imported, and collects again afterwards."""

import gc
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bptt_verifier.commands.collection import pausing_collection
from tests.support.modules import ROOT


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    """Collection as it was, after each test."""
    yield
    gc.enable()


@pytest.mark.parametrize("before", [True, False])
def test_collection_is_paused_and_then_as_it_was(before: bool) -> None:
    if not before:
        gc.disable()
    with pausing_collection():
        assert not gc.isenabled()
    assert gc.isenabled() is before


def test_an_exception_ends_the_pause() -> None:
    with pytest.raises(ImportError), pausing_collection():
        raise ImportError("no such module")
    assert gc.isenabled()


@pytest.mark.rest
def test_the_child_imports_neither_own_models_nor_the_catalogue_and_then_collects() -> None:
    program = (
        "import gc, json, sys; from bptt_verifier.commands.child_process import import_judge; "
        "import_judge(); named = ('bptt_verifier.judge.own_model', 'bptt_verifier.mistakes.search',"
        " 'bptt_verifier.judge.cells'); "
        "print(json.dumps([gc.isenabled(), gc.get_freeze_count() > 10_000,"
        " [name for name in named if name in sys.modules]]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(ended.stdout) == [True, True, ["bptt_verifier.judge.cells"]]
