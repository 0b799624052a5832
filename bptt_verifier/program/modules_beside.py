"""Modules beside a user's file that have the name of one of Python's, or of one that is loaded.

Python gives a script the random.py beside it for `import random`. The judge and its libraries need
Python's own at the same time, and have loaded it. So the script's is a module of another package,
whose path is the folder, and the `__import__` of the files in the folder looks there first. Each of
these files has its own `__builtins__` for that, as long as its functions live; no other code is
concerned. `importlib.import_module` and `sys.modules` know Python's module alone.
"""

import builtins
import os
import re
import sys
from collections.abc import Sequence
from functools import cache
from importlib.machinery import FrozenImporter, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from bptt_verifier.program.star_imports import LIBRARIES

PREFIX = "beside_"  # of the names of packages, each of which is a folder
PROJECT = frozenset("manual_bptt jax_reference bptt_verifier".split())
# Python starts with these, or NumPy cannot be imported without: a script gets no others.
NEEDED = frozenset(
    "collections contextlib copyreg encodings enum functools importlib keyword operator re reprlib"
    " types warnings".split()
)


class BuiltinsBeside(dict[str, Any]):
    """The builtins of the files in a folder: Python's, but for `__import__`.

    Others are looked up in `builtins` each time, where they may be replaced for a while.
    """

    def __missing__(self, name: str) -> Any:
        return vars(builtins)[name]


class LoaderBeside(SourceFileLoader):
    """Loads a file of a folder with the builtins of that folder."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the file as this module."""
        package = sys.modules[module.__name__.partition(".")[0]]
        vars(module)["__builtins__"] = vars(package)["__builtins__"]
        super().exec_module(module)


class FinderBeside:
    """Finds the modules in the packages of this module, which are folders, and no others."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module as Python does, to be loaded with the builtins of the folder."""
        if not name.startswith(PREFIX):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = LoaderBeside(spec.loader.name, spec.loader.path)
        return spec


def make_globals(folder: Path) -> dict[str, Any]:
    """Make what the globals of the files in a folder need before they run: mostly nothing.

    Files of a package need nothing, since they are not imported by their names alone.
    """
    beside = list_beside(folder)
    names = {name for name in beside if may_stand_for(name)}
    if "__init__" in beside or not any(is_hidden(name, folder) for name in names):
        return {}
    package = make_package(str(folder))
    found: BuiltinsBeside = vars(package)["__builtins__"]
    found["__import__"] = make_import(package.__name__, frozenset(names))
    return {"__builtins__": found}


def list_beside(folder: Path) -> set[str]:
    """List the modules and packages in a folder by name."""
    files = [*folder.glob("*.py"), *(each.parent for each in folder.glob("*/__init__.py"))]
    return {each.stem if each.suffix == ".py" else each.name for each in files}


def may_stand_for(name: str) -> bool:
    """True if a script gets the module of this name that is beside it, and not Python's.

    Python's own come first that are built into it or frozen. Arrays of a second copy of a library
    would not be known to the judge.
    """
    if name in LIBRARIES | PROJECT | NEEDED:
        return False
    if name not in sys.stdlib_module_names:
        return True
    built_in = name in sys.builtin_module_names or FrozenImporter.find_spec(name) is not None
    return not (built_in or name.startswith("_"))


def is_hidden(name: str, folder: Path) -> bool:
    """True for a module of a folder whose name Python's own path gives to another one."""
    loaded = sys.modules.get(name)
    file = getattr(loaded, "__file__", None)
    if file is None:
        return loaded is None and name in sys.stdlib_module_names
    places = (folder / f"{name}.py", folder / name / "__init__.py")
    return os.path.realpath(file) not in map(os.path.realpath, places)


@cache
def make_package(folder: str) -> ModuleType:
    """Make a package of the modules in a folder, which has no code of its own."""
    if not any(each is FinderBeside for each in sys.meta_path):
        sys.meta_path.insert(0, FinderBeside)
    number = sum(name.startswith(PREFIX) and "." not in name for name in sys.modules)
    package = ModuleType(f"{PREFIX}{number}")
    vars(package).update(__path__=[folder], __package__=package.__name__)
    vars(package)["__builtins__"] = BuiltinsBeside()
    sys.modules[package.__name__] = package
    return package


def make_import(package: str, names: frozenset[str]) -> Any:
    """Make the `__import__` that takes modules of these names from a package."""

    def import_beside(name: str, *given: Any, **named: Any) -> Any:
        found = dict(zip(("globals", "locals", "fromlist", "level"), given, strict=False)) | named
        top = name.partition(".")[0]
        real = vars(builtins)["__import__"]  # each time, as it may be replaced for a while
        if found.get("level") or top not in names:
            return real(name, *given, **named)
        module = real(f"{package}.{name}", *given, **named)
        return module if found.get("fromlist") else sys.modules[f"{package}.{top}"]

    return import_beside


def name_as_written(text: str) -> str:
    """Name modules in a message as the user's files do."""
    return re.sub(rf"\b{PREFIX}\d+\.", "", text)
