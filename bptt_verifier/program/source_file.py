"""A user's Python file: the names it defines, the module it makes, and the calls it makes.

Running a file may train a network without end. Where one function of it is of interest, the run can
end at the first call of that function, whose arguments are then known.
"""

import ast
import copy
import copyreg
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any, NamedTuple

from bptt_verifier.program.attempt import Failure, attempt, message_of, printable

GUARD = 'put what the file runs under `if __name__ == "__main__":`'


class Definitions(NamedTuple):
    """The names that a file defines at its top level, and the functions and classes among them.

    `objects` are the names of objects of these classes. `complete` is false where a star import may
    define more. `relative` is true if the file imports from its own package by dots.
    """

    functions: dict[str, ast.FunctionDef]
    classes: dict[str, ast.ClassDef]
    names: frozenset[str]
    objects: dict[str, str]
    complete: bool = True
    relative: bool = False

    def defines(self, *names: str) -> bool:
        """True if all these names are, or may be, defined."""
        return not self.complete or self.names.issuperset(names)


def read_source(file: Path) -> str:
    """Read the source of a file. Raises ValueError where it is no Python file that exists."""
    if file.is_dir():
        files = ", ".join(sorted(each.name for each in file.glob("*.py"))[:5]) or "none"
        raise ValueError(
            f"FILE: expected a Python file, found the folder {file}, which is no file; "
            f"name one in it: {files}"
        )
    if not file.is_file():
        what = "is no file" if file.exists() else "does not exist"
        raise ValueError(f"FILE: expected a Python file, found {file}, which {what}")
    try:
        return importlib.util.decode_source(file.read_bytes())
    except (SyntaxError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"FILE: expected a Python file, found {file}: {error}") from error


def find_definitions(file: Path, source: str) -> Definitions:
    """Find what a source defines, without running it. Raises ValueError where it is no Python."""
    try:
        tree = ast.parse(source, str(file))
    except (SyntaxError, ValueError) as error:
        raise ValueError(describe_failure(file, error)) from error
    top = [*walk_top_level(tree)]
    functions = {node.name: node for node in top if isinstance(node, ast.FunctionDef)}
    classes = {node.name: node for node in top if isinstance(node, ast.ClassDef)}
    names = {*functions, *classes}
    names |= {n.id for n in top if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    aliases = [
        alias for n in top if isinstance(n, ast.Import | ast.ImportFrom) for alias in n.names
    ]
    names |= {alias.asname or alias.name.partition(".")[0] for alias in aliases}
    relative = any(isinstance(n, ast.ImportFrom) and n.level for n in ast.walk(tree))
    objects = {
        n.targets[0].id: n.value.func.id
        for n in top
        if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)
        if isinstance(n.value, ast.Call) and isinstance(n.value.func, ast.Name)
        if n.value.func.id in classes
    }
    return Definitions(functions, classes, frozenset(names), objects, "*" not in names, relative)


def walk_top_level(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run with the file itself: none inside a function or class."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(
            child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
        ):
            yield from walk_top_level(child)


class RecordedCall(NamedTuple):
    """The function of a call, its object if it is a method, and its arguments by name."""

    owner: Any
    arguments: dict[str, Any]


class Reached(BaseException):
    """Ends the run of a file at the call that it was run for."""


class Recorder:
    """Records the first calls of functions of a file, and ends its run at one of them.

    `names` are functions, or methods of the class `of` and its subclasses; the run ends at a call
    of one of `last`. A method's object is copied as it is before the call.
    """

    def __init__(self, names: frozenset[str], last: frozenset[str], of: str | None = None) -> None:
        self.names, self.last, self.of = names, last, of
        self.file = ""
        self.calls: dict[str, RecordedCall] = {}

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Record the call of a frame, as Python's profiler reports it."""
        code = frame.f_code
        if event != "call" or code.co_filename != self.file or code.co_name not in self.names:
            return
        found = inspect.getargvalues(frame)
        names = [*found.args, *filter(None, (found.varargs, found.keywords))]
        arguments = {name: found.locals[name] for name in names}
        owner = None
        if self.of is not None:
            owner = arguments.pop(found.args[0], None) if found.args else None
            if self.of not in [kind.__name__ for kind in type(owner).__mro__]:
                return
        elif code.co_qualname != code.co_name:
            return  # a method or inner function of the same name
        copied = attempt(copy_deeply, (owner, arguments), {})
        kept = (owner, arguments) if isinstance(copied, Failure) else copied
        self.calls[code.co_name] = RecordedCall(*kept)
        if code.co_name in self.last:
            raise Reached

    @contextmanager
    def watch(self, code: CodeType) -> Iterator[None]:
        """Record the calls inside, up to the one that ends them."""
        self.file = code.co_filename
        before = sys.getprofile()
        sys.setprofile(self)
        try:
            yield
        except Reached:
            pass
        finally:
            sys.setprofile(before)


def copy_deeply(value: Any, memo: dict[int, Any]) -> Any:
    """Copy a structure and the objects in it; modules, which Python cannot copy, are shared.

    `memo` has what replaces some of its parts, by identity.
    """
    table, missing = copyreg.dispatch_table, object()
    before: Any = table.get(ModuleType, missing)
    table[ModuleType] = lambda module: module.__name__  # a text stands for the object itself
    try:
        return copy.deepcopy(value, memo)
    finally:
        del table[ModuleType]
        if before is not missing:
            table[ModuleType] = before


def load(file: Path, recorder: Recorder | None = None, *, name: str | None = None) -> ModuleType:
    """Import the file as a module. This runs the code in it, up to what the recorder waits for.

    A file that imports from its own package is a module of that package. `name` is the module's
    `__name__`, if it is not that.
    Raises ValueError where it does not exist or is no Python, or where running it raises or exits.
    """
    source = read_source(file)
    place = file.resolve()
    package, root = find_package(place, find_definitions(file, source))
    spec = importlib.util.spec_from_file_location(package or f"derivation_{file.stem}", place)
    if spec is None or spec.loader is None:
        raise ValueError(f"FILE: expected a Python file, found {file}")
    module = importlib.util.module_from_spec(spec)
    code = compile(source, str(place), "exec", dont_inherit=True)
    before, arguments = sys.path[:], sys.argv
    sys.path[:] = [*order_path(file), *root]
    sys.modules[spec.name], sys.argv = module, [str(file)]  # dataclasses look the module up
    module.__dict__["__name__"] = name or spec.name
    try:
        run_code(code, module.__dict__, recorder)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        sys.modules.pop(spec.name, None)
        raise ValueError(describe_failure(file, error)) from error
    finally:
        sys.path[:], sys.argv = before, arguments
    return module


def run_code(code: CodeType, space: dict[str, Any], recorder: Recorder | None) -> None:
    """Run code in a namespace, up to what the recorder waits for."""
    if recorder is None:
        exec(code, space)
        return
    with recorder.watch(code):
        exec(code, space)


def describe_failure(file: Path, error: BaseException) -> str:
    """Describe why a file cannot be run, with its line and a remedy if there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == str(file.resolve())]
    line = getattr(error, "lineno", None) or (own[-1].lineno if own else "?")
    said = f"FILE: {file} cannot be run: line {line}: {type(error).__name__}"
    said += f": {message}" if (message := message_of(error)) else ""
    others = [f for f in frames if not f.filename.startswith("<") and f not in own]
    inner = frames[-1] if frames and frames[-1] in others else None
    if own and inner is not None and Path(inner.filename).parent == file.resolve().parent:
        said += f" at {Path(inner.filename).name}:{inner.lineno}"
    if isinstance(error, SystemExit):
        said += f"; {GUARD}"
    elif isinstance(error, ModuleNotFoundError) and error.name:
        top = printable(error.name.partition(".")[0])
        said += f"; install {top}, or put {top}.py beside the file"
    elif isinstance(error, FileNotFoundError):
        said += "; run bptt in the folder that has it"
    return said


def find_package(place: Path, defined: Definitions) -> tuple[str | None, list[str]]:
    """Find the name of a file as a module of its package, and the folder to import that from.

    None where it imports nothing by dots. Raises ValueError where the package cannot be imported.
    """
    if not defined.relative:
        return None, []
    folder = place.parent
    names = [folder.name]
    while (folder / "__init__.py").is_file() and (folder.parent / "__init__.py").is_file():
        folder = folder.parent
        names.insert(0, folder.name)
    if not all(name.isidentifier() for name in names) or names[0] in sys.stdlib_module_names:
        raise ValueError(
            f"FILE: {place.name} imports from its package by dots, and its folder {names[0]} is no "
            "name of a package; write `from module import name` without the dot"
        )
    return ".".join([*names, place.stem]), [str(folder.parent)]


def order_path(file: Path) -> list[str]:
    """Order the import path for a file: Python's own modules, those beside the file, the others.

    Beside the file may be a random.py or copy.py, which libraries must not import.
    """
    own = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
    packages = ("site-packages", "dist-packages")
    first = [p for p in sys.path if p.startswith(own) and not p.endswith(packages)]
    return [*first, str(file.resolve().parent), *(p for p in sys.path if p not in first)]


def find_function(module: ModuleType, name: str, file: Path) -> Callable[..., Any]:
    """Find the function of that name in a module. Raises ValueError where there is none."""
    found = getattr(module, name, None)
    if not callable(found):
        raise ValueError(
            f"FILE: expected a function {name} in {file}, found {list_functions(vars(module))}"
        )
    return found  # type: ignore[no-any-return]


def list_functions(space: Mapping[str, Any]) -> str:
    """List the functions of a namespace, for a message."""
    return ", ".join(name for name, value in space.items() if inspect.isfunction(value)) or "none"
