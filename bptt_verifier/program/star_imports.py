"""Star imports: the files beside a user's file of which it imports all names.

`from layers import *` defines what layers.py beside the file does. Python's own modules and the
usual libraries define nothing that is judged; what another module defines is not known.
"""

import ast
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from bptt_verifier.program.attempt import Failure, attempt

LIBRARIES = frozenset("numpy scipy jax torch autograd matplotlib pylab".split())


def list_star_imports(tree: ast.AST) -> list[str]:
    """List the modules of which a file imports all names."""
    return [
        "." * node.level + (node.module or "")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and any(each.name == "*" for each in node.names)
    ]


def read_star_imports(
    tree: ast.AST, folder: Path, seen: Collection[Path] = ()
) -> Iterator[tuple[Path, ast.Module]]:
    """Yield the files beside a user's file that it imports by a star, and those that they do."""
    for name in list_star_imports(tree):
        file = folder.joinpath(*name.lstrip(".").split(".")).with_suffix(".py")
        found = attempt(lambda file=file: ast.parse(file.read_bytes(), str(file)))
        if file in seen or isinstance(found, Failure):
            continue
        yield from read_star_imports(found, folder, {*seen, file})
        yield file, found


def is_unknown(name: str, files: Collection[Path], folder: Path) -> bool:
    """True for a module whose names are not known: neither in the files, nor of a library."""
    top = name.partition(".")[0]
    file = folder.joinpath(*name.lstrip(".").split(".")).with_suffix(".py")
    return file not in files and top not in LIBRARIES | sys.stdlib_module_names
