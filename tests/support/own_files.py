"""Files of one's own, read as `bptt verify` reads them."""

from pathlib import Path
from typing import Any

from bptt_verifier.judge.files import read_file
from bptt_verifier.program.leaves import flatten
from bptt_verifier.program.own_data import find_doubts


def read_own(folder: Path, text: str, name: str | None = None) -> Any:
    """Read a file with this text, and what has that name in it."""
    file = folder / "net.py"
    file.write_text(text)
    return read_file(file, name, None, {})


def list_wrong(found: Any) -> set[str]:
    """List the parameters whose gradients are not those of the loss."""
    leaves = flatten(found.params).leaves
    doubts = find_doubts(leaves, found.params, found.gradients, found.loss)
    return {each.name for each in doubts}


def note_calls(told: list[str]) -> Any:
    """Make what announces the calls of functions: it notes each."""

    def announce(function: Any, what: str) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            told.append(what)
            return function(*given, **named)

        return call

    return announce
