"""Star imports: the files beside a user's file of which it imports all names.

`from layers import *` defines what layers.py beside the file does, and `from net import *` what the
package net beside it does. Python's own modules and the usual libraries define nothing that is
judged; what another module defines is not known.
"""

import ast
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from bptt_verifier.program.attempt import attempt
from bptt_verifier.program.top_level import list_names, list_public

LIBRARIES = frozenset("numpy scipy jax torch autograd matplotlib pylab".split())


class StarImports(NamedTuple):
    """The files that star imports of a file read, those that they import first, and their names.

    `complete` is false where a star import may bring more names.
    """

    files: dict[Path, ast.Module]
    names: frozenset[str]
    complete: bool


def read_star_imports(
    tree: ast.AST, folder: Path, root: Path | None = None, seen: Collection[Path] = ()
) -> StarImports:
    """Read what a file in a folder imports by a star, and what the files do that it imports so.

    `root` is the folder of the user's file, beside which modules are found, and `folder` that of
    the package of the file with this tree, to which its dots refer. Those `seen` are being read.
    """
    root = folder if root is None else root
    files, names, complete = dict[Path, ast.Module](), set[str](), True
    for node in list_star_imports(tree):
        file = find_module(node, folder, root)
        if file in seen:
            continue
        found = None if file is None else attempt(read_tree, file)
        if file is None or not isinstance(found, ast.Module):
            complete = complete and is_of_library(node)
            continue
        inner = read_star_imports(found, file.parent, root, {*seen, file})
        files |= inner.files | {file: found}
        names |= list_public(found, list_names(found) | inner.names)
        complete = complete and inner.complete
    return StarImports(files, frozenset(names), complete)


def read_tree(file: Path) -> ast.Module:
    """Read the syntax of a Python file."""
    return ast.parse(file.read_bytes(), str(file))


def list_star_imports(tree: ast.AST) -> Iterator[ast.ImportFrom]:
    """Yield the imports of all names in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(each.name == "*" for each in node.names):
            yield node


def find_module(node: ast.ImportFrom, folder: Path, root: Path) -> Path | None:
    """Find the file of the module or package that an import names; None where it is no such one."""
    parts = node.module.split(".") if node.module else []
    above = [root, folder, *folder.parents]
    place = above[min(node.level, len(above) - 1)].joinpath(*parts)
    files = [place / "__init__.py"] + ([place.with_suffix(".py")] if parts else [])
    return next((each for each in files if each.is_file()), None)


def is_of_library(node: ast.ImportFrom) -> bool:
    """True for an import from Python's own modules, or from one of the usual libraries."""
    top = (node.module or "").partition(".")[0]
    return not node.level and top in LIBRARIES | sys.stdlib_module_names
