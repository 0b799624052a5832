"""A child process that is started before the command line has been read.

The command line and the child that judges a file both import for half a second, which two
processors do at the same time. The child waits for its request on its standard input, and ends
where that is closed without one.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# The working folder is not on the child's path, where a file might be taken for Python's own module
# of that name. This package comes last, since beside it may be installed what others shadow.
START = """
import sys
sys.path.append({root!r})
from bptt_verifier.commands.child_process import main
main()
"""
FILE = re.compile(r"(.+\.(?:py|ipynb))(?::[^/\\]*)?")
waiting: list[subprocess.Popen[bytes]] = []  # one at most, which has no request yet


def start() -> subprocess.Popen[bytes]:
    """Start a child in a session of its own."""
    root = str(Path(__file__).resolve().parents[2])
    return subprocess.Popen(
        [sys.executable, "-P", "-c", START.format(root=root)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def take() -> subprocess.Popen[bytes]:
    """Take the child that is waiting, or start one."""
    return waiting.pop() if waiting else start()


def names_file(arguments: Sequence[str]) -> bool:
    """Tell whether a command line asks for the verdict on a file, as far as that shows at once."""
    if arguments[:1] != ["verify"] or {"--help", "-h"} & {*arguments}:
        return False
    found = map(FILE.fullmatch, arguments[1:])
    return any(match is not None and os.path.isfile(match[1]) for match in found)


@contextmanager
def starting_early(arguments: Sequence[str]) -> Iterator[None]:
    """Start a child if the command line will need one; end it where nothing has taken it."""
    if names_file(arguments):
        waiting.append(start())
    try:
        yield
    finally:
        while waiting:
            child = waiting.pop()
            child.kill()
            child.communicate()
