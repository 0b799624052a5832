"""The command `bptt`, called in the process of the tests."""

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from bptt_verifier.commands import main as command_line


class Ended(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]  # the fixture `bptt`
Train = Callable[..., int]  # the fixture `train`


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Call `bptt` with these arguments, as a shell would; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["bptt", *map(str, arguments)])
    # Under `python -m pytest` it would call itself a module of pytest.
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    return int(ended.value.code or 0)
