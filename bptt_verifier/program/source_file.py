"""A user's Python file: the names it defines, the module it makes, and the calls it makes.

Running a file may train a network without end. Where one function of it is of interest, the run can
end at the first call of that function, whose arguments are then known.
"""

import ast
import copy
import copyreg
import importlib.util
import inspect
import linecache
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from difflib import get_close_matches
from functools import partial
from importlib.machinery import SourceFileLoader
from itertools import chain
from pathlib import Path
from types import CodeType, FrameType, MappingProxyType, ModuleType
from typing import Any, NamedTuple

from bptt_verifier.program.attempt import (
    CodeRaisedError,
    Failure,
    attempt,
    describe_line,
    is_interrupt,
    message_of,
    printable,
)
from bptt_verifier.program.call_events import watch_calls
from bptt_verifier.program.kept_defaults import list_kept_defaults
from bptt_verifier.program.modules_beside import make_globals, name_as_written
from bptt_verifier.program.notebooks import Cell, read_notebook
from bptt_verifier.program.shared_memory import copy_shared
from bptt_verifier.program.star_imports import read_star_imports
from bptt_verifier.program.top_level import list_names, walk_top_level
from bptt_verifier.program.torch_tensors import copying_results

ALIKE = 0.75  # of two names of files, at which one is suggested for the other
SUFFIXES = (".py", ".pyw", "")  # of Python files; a script may have none
WRAPPERS = 10  # around one function
ADDRESS = re.compile("[a-z][a-z0-9+.-]+:")  # how an address of the web begins
COMPUTING_LOSS = "computing the loss"  # what runs, in what a report says of it
GUARD = 'put what the file runs under `if __name__ == "__main__":`'


class Definitions(NamedTuple):
    """The names that a file defines at its top level, and the functions and classes among them.

    `objects` are the names of objects of these classes. `complete` is false where a star import may
    define more. `relative` is true if the file imports from its own package by dots. `calls` are
    the names of the functions that it calls anywhere, and `reads` all names that it uses. `made`
    has the variables that hold what a function of the file returns, by its name. `starred` are the
    functions and classes that star imports bring from files beside it, the `sources`; `names` has
    their variables, too. `guarded` is true if it has code that runs only where it is the main
    program.
    """

    functions: dict[str, ast.FunctionDef]
    classes: dict[str, ast.ClassDef]
    names: frozenset[str]
    objects: dict[str, str]
    complete: bool = True
    relative: bool = False
    calls: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()
    made: Mapping[str, str] = MappingProxyType({})
    starred: frozenset[str] = frozenset()
    sources: tuple[str, ...] = ()
    guarded: bool = False

    def defines(self, *names: str) -> bool:
        """True if all these names are, or may be, defined."""
        return not self.complete or self.names.issuperset(names)


def read_cells(file: Path) -> tuple[Cell, ...]:
    """Read the source of a file, or of the cells of a notebook.

    Raises ValueError where it is neither a Python file nor a notebook that exists.
    """
    if os.path.isdir(file):  # unlike Path.is_dir, false where it cannot be looked up
        files = ", ".join(sorted(each.name for each in file.glob("*.py"))[:5])
        one = f"is no file; name one in it: {files}" if files else "has no Python file in it"
        raise ValueError(f"FILE: expected a Python file, found the folder {file}, which {one}")
    if not os.path.isfile(file):
        if len(file.parts) > 1 and ADDRESS.fullmatch(file.parts[0]):
            raise ValueError(
                f"FILE: expected a file of this machine, found an address ({file.parts[0]}); "
                "download it first"
            )
        place = describe_place(file)
        raise ValueError(f"FILE: expected a Python file, found {file}, which {place}")
    if file.suffix == ".ipynb":
        return read_notebook(file).cells
    if file.suffix not in SUFFIXES:
        raise ValueError(
            f"FILE: expected a Python file or a notebook, found {file}; its name must end in "
            ".py or .ipynb"
        )
    try:
        return (Cell(str(file.resolve()), importlib.util.decode_source(file.read_bytes())),)
    except (SyntaxError, UnicodeDecodeError) as error:
        said = f"found {file}, which cannot be read as text: {error}; save it in UTF-8"
        raise ValueError(f"FILE: expected a Python file, {said}") from error
    except OSError as error:
        raise ValueError(f"FILE: expected a Python file, found {file}: {error}") from error


def describe_place(file: Path) -> str:
    """Describe what stands in the place of a file, and what to do, after the word "which"."""
    try:
        file.stat()
    except FileNotFoundError:
        if file.is_symlink():
            return f"is a link to {file.readlink()}, which does not exist"
        perhaps = find_similar(file)
        return "does not exist" if perhaps is None else f"does not exist; perhaps {perhaps}"
    except NotADirectoryError:
        folder = next(each for each in file.parents if os.path.exists(each))
        return f"cannot be there: {folder} is no folder"
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    return "is no file"


def find_similar(file: Path) -> Path | None:
    """Find the Python file or notebook in the same folder whose name is most like a missing one."""
    beside = [each for end in (".py", ".ipynb") for each in sorted(file.parent.glob(f"*{end}"))]
    names = {each.name.lower(): each for each in beside if os.path.isfile(each)}
    name = file.name.lower()
    exact = (names[name + end] for end in ("", ".py", ".ipynb") if name + end in names)
    close = (names[each] for each in get_close_matches(name, names, n=1, cutoff=ALIKE))
    return next(chain(exact, close), None)


def find_definitions(file: Path, cells: Sequence[Cell]) -> Definitions:
    """Find what a file defines, without running it. Raises ValueError where it is no Python."""
    trees = []
    for cell in cells:
        try:
            trees.append(ast.parse(cell.source, cell.name))
        except (SyntaxError, ValueError) as error:
            raise ValueError(describe_failure(file, error, cells)) from error
    tree = ast.Module([node for each in trees for node in each.body], [])
    top = [*walk_top_level(tree)]
    folder = Path(os.path.realpath(file)).parent
    beside = read_star_imports(tree, folder)
    others = [n for each in beside.files.values() for n in walk_top_level(each)]
    others = [n for n in others if getattr(n, "name", None) in beside.names]
    functions = {n.name: n for n in (*others, *top) if isinstance(n, ast.FunctionDef)}
    classes = {n.name: n for n in (*others, *top) if isinstance(n, ast.ClassDef)}
    starred = {*functions, *classes} - {getattr(n, "name", "") for n in top}
    names = list_names(tree) | beside.names
    relative = any(isinstance(n, ast.ImportFrom) and n.level for n in ast.walk(tree))
    objects = {
        n.targets[0].id: n.value.func.id
        for n in top
        if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)
        if isinstance(n.value, ast.Call) and isinstance(n.value.func, ast.Name)
        if n.value.func.id in classes
    }
    every = [*ast.walk(tree)]
    calls = {n.func.id for n in every if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    reads = {n.id for n in every if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    held = [pair for n in top if isinstance(n, ast.Assign) for pair in pair_targets(n)]
    made = {
        one.id: value.func.id
        for one, value in held
        if isinstance(one, ast.Name) and isinstance(value, ast.Call)
        if isinstance(value.func, ast.Name) and value.func.id in functions
    }
    found = Definitions(functions, classes, frozenset(names), objects, beside.complete, relative)
    found = found._replace(calls=frozenset(calls), reads=frozenset(reads), made=made)
    guarded = any("__main__" in cell.source for cell in cells)
    sources = tuple(map(str, beside.files))
    return found._replace(starred=frozenset(starred), sources=sources, guarded=guarded)


def pair_targets(node: ast.Assign) -> list[tuple[ast.expr, ast.expr]]:
    """Pair what an assignment sets with its values, of a tuple each with its own."""
    target, value = node.targets[0], node.value
    both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
    if both and len(target.elts) == len(value.elts):  # type: ignore[attr-defined]
        return [*zip(target.elts, value.elts, strict=True)]  # type: ignore[attr-defined]
    return [(target, value)]


class RecordedCall(NamedTuple):
    """The object of a method's call, or None, and the arguments of the call by name.

    `first` is the object before the first call of the method, if this is a later one.
    """

    owner: Any
    arguments: dict[str, Any]
    first: Any = None


class Reached(BaseException):
    """Ends the run of a file at the call that it was run for."""


class Recorder:
    """Records calls of functions of a file, and ends its run at one of them.

    `names` are functions, or methods of the class `of` and its subclasses; the run ends at the
    first call of one of `last`, after `skipped` others. A method's object is copied as it is before
    the call.
    """

    def __init__(
        self,
        names: frozenset[str],
        last: frozenset[str],
        of: str | None = None,
        skipped: int = 0,
    ) -> None:
        self.names, self.last, self.of = names, last, of
        self.skipped, self.left, self.ended = skipped, skipped, False
        self.is_eager = False  # the file runs without jax.jit
        self.files: frozenset[str] = frozenset()
        self.calls: dict[str, RecordedCall] = {}
        self.first: dict[str, tuple[Any, Any]] = {}  # an object, and a copy before its first call

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Record the call of a frame, as Python's profiler reports it."""
        code = frame.f_code
        if event != "call" or code.co_filename not in self.files:
            return
        called = self.find_name(frame)
        if called is None:
            return
        found = inspect.getargvalues(frame)
        names = [*found.args, *filter(None, (found.varargs, found.keywords))]
        arguments = {name: found.locals[name] for name in names}
        owner = None
        kind = "" if self.of is None else find_unbound(frame.f_globals.get(self.of), code)
        if kind == "classmethod":
            arguments.pop(found.args[0], None)
        elif self.of is not None and not kind:
            owner = arguments.pop(found.args[0], None) if found.args else None
            if self.of not in [kind.__name__ for kind in type(owner).__mro__]:
                return
        left_out = {id(value) for value in list_kept_defaults(frame.f_code, frame.f_globals)}
        arguments = {name: value for name, value in arguments.items() if id(value) not in left_out}
        copied = attempt(copy_deeply, (owner, arguments), {})
        kept, given = (owner, arguments) if isinstance(copied, Failure) else copied
        known, before = self.first.get(called, (None, None))
        if known is not owner or owner is None:
            self.first[called], before = (owner, kept), None
        self.calls[called] = RecordedCall(kept, given, before)
        if called in self.last:
            if not self.left:
                self.ended = True
                raise Reached
            self.left -= 1
            self.first.clear()

    def find_name(self, frame: FrameType) -> str | None:
        """Find the name under which a function of the file is called; None if it is no such one.

        A variable of the file may hold a function with another name, or wrap one: a lambda, an
        inner function, a method of an object, `partial(f, n=2)` or `jax.jit(f)`.
        """
        code = frame.f_code
        if code.co_name in self.names and (
            self.of is not None or code.co_qualname == code.co_name  # no inner function or method
        ):
            return code.co_name
        if self.of is not None:
            return None
        held = (n for n in self.names if find_wrapped_code(frame.f_globals.get(n)) is code)
        return next(held, None)

    @property
    def is_traced(self) -> bool:
        """True if a call was recorded while JAX traced the function, without values."""
        import jax  # noqa: PLC0415 - the process that only reads files needs none

        return any(
            isinstance(leaf, jax.core.Tracer)
            for call in self.calls.values()
            for leaf in jax.tree.leaves((call.arguments, getattr(call.owner, "__dict__", ())))
        )

    def restart(self) -> None:
        """Forget all calls, for another run of the file."""
        self.left, self.ended = self.skipped, False
        self.calls.clear()
        self.first.clear()

    @contextmanager
    def watch(self, files: Iterable[str]) -> Iterator[None]:
        """Record the calls of functions of these files inside, up to the one that ends them."""
        self.files = frozenset(files)
        with suppress(Reached), watch_calls(self):
            yield


def find_unbound(kind: Any, code: CodeType) -> str:
    """Find whether a class has a function as staticmethod or classmethod; empty if as neither."""
    if not inspect.isclass(kind):
        return ""
    method = inspect.getattr_static(kind, code.co_name, None)
    unbound = isinstance(method, staticmethod | classmethod)
    return type(method).__name__ if unbound and find_wrapped_code(method) is code else ""


def find_wrapped_code(function: Any) -> Any:
    """Find the code of a function, or of the one that a partial, method or jax.jit wraps."""
    for _ in range(WRAPPERS):
        inner = getattr(function, "func", None) if isinstance(function, partial) else None
        inner = inner or getattr(function, "__func__", None)
        inner = inner or getattr(function, "__wrapped__", None)
        if inner is None:
            break
        function = inner
    return getattr(function, "__code__", None)


def copy_deeply(value: Any, memo: dict[int, Any]) -> Any:
    """Copy a structure and the objects in it; modules, which Python cannot copy, are shared.

    `memo` has what replaces some of its parts, by identity. Arrays that share memory do so again.
    """
    memo |= copy_shared(value, memo)
    table: dict[Any, Any] = copyreg.dispatch_table
    kinds: list[type[Any]] = [ModuleType, *ModuleType.__subclasses__()]
    before = {kind: table[kind] for kind in kinds if kind in table}
    table.update(dict.fromkeys(kinds, lambda module: module.__name__))  # a text: the object itself
    try:
        with copying_results():
            return copy.deepcopy(value, memo)
    finally:
        for kind in kinds:
            del table[kind]
        table.update(before)


def load(file: Path, recorder: Recorder | None = None, *, name: str | None = None) -> ModuleType:
    """Import the file as a module. This runs the code in it, up to what the recorder waits for.

    A file that imports from its own package is a module of that package. `name` is the module's
    `__name__`, if it is not that. It runs again without jax.jit where that hid the values of a
    call, since only the first call of a compiled function runs its Python code.
    Raises ValueError where it does not exist or is no Python, and CodeRaisedError where running it
    raises or exits.
    """
    cells, place = read_cells(file), file.resolve()
    defined = find_definitions(file, cells)
    package, root = find_package(place, defined)
    sources = [*(cell.name for cell in cells), *defined.sources]
    own = package or f"derivation_{file.stem}"
    spec = importlib.util.spec_from_loader(own, SourceFileLoader(own, str(place)))
    if spec is None:
        raise ValueError(f"FILE: expected a Python file, found {file}")
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    notebook = file.suffix == ".ipynb"
    name = name or ("__main__" if notebook else own)
    before, arguments, folder = sys.path[:], sys.argv, Path.cwd()
    sys.path[:] = [*order_path(file), *root]
    sys.modules[spec.name], sys.argv = module, [str(file)]  # dataclasses look the module up
    module.__dict__["__name__"] = name
    if not (notebook or package):
        module.__dict__.update(make_globals(Path(os.path.realpath(file)).parent))
    try:
        with recorder.watch(sources) if recorder else nullcontext():
            for cell in cells:
                if notebook:  # for source lines in messages; a file has its own
                    lines = cell.source.splitlines(keepends=True)
                    linecache.cache[cell.name] = len(cell.source), None, lines, cell.name
                exec(compile(cell.source, cell.name, "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:
        if is_interrupt(error):
            raise
        sys.modules.pop(spec.name, None)
        raise CodeRaisedError(describe_failure(file, error, cells)) from error
    finally:
        sys.path[:], sys.argv = before, arguments
    if recorder is not None and recorder.is_traced and not recorder.is_eager:
        recorder.restart()
        recorder.is_eager = True
        import jax  # noqa: PLC0415 - the process that only reads files needs none

        os.chdir(folder)  # which the file may have left
        with jax.disable_jit():
            return load(file, recorder, name=name)
    return module


def describe_failure(file: Path, error: BaseException, cells: Sequence[Cell]) -> str:
    """Describe why a file cannot be run, with its line and a remedy if there is one."""
    names = {cell.name for cell in cells}
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename in names]
    number, where = (own[-1].lineno, own[-1].filename) if own else (None, "")
    if isinstance(error, SyntaxError) and error.filename in names:
        number, where = error.lineno, str(error.filename)
    line = "" if number is None else f"line {number}: "
    cell = where.rpartition(", ")[2] + ", " if where in names and ", cell " in where else ""
    said = f"FILE: {file} cannot be run: {cell}{line}{type(error).__name__}"
    stated = error.msg if isinstance(error, SyntaxError) else message_of(error)
    stated = name_as_written(stated)
    said += f": {stated}" if stated else ""
    if cell and isinstance(error, NameError):
        said += "; the cells are run from the first to the last"
    said += describe_line(file, error, names)
    if isinstance(error, SystemExit):
        said += f"; {GUARD}"
    elif isinstance(error, ModuleNotFoundError) and error.name:
        top, _, inner_name = name_as_written(printable(error.name)).partition(".")
        if inner_name and top == file.resolve().parent.name:  # by dots, in the file's own package
            said += f"; put {inner_name}.py beside the file"
        else:
            said += f"; install the package that has {top}, or put {top}.py beside the file"
    elif isinstance(error, EOFError):
        said += "; nothing can be typed in while it is judged: write the values into the file"
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
    return [
        *first,
        os.path.dirname(os.path.realpath(file)),
        *(p for p in sys.path if p not in first),
    ]


def find_function(module: ModuleType, name: str, file: Path) -> Callable[..., Any]:
    """Find the function of that name in a module. Raises ValueError where there is none."""
    found = getattr(module, name, None)
    if not callable(found):
        what = f"a value of type {type(found).__name__} of that name"
        if not hasattr(module, name):
            what = f"{list_functions(vars(module))}; name yours, such as {file}:NAME"
        raise ValueError(f"FILE: expected a function {name} in {file}, found {what}")
    return found  # type: ignore[no-any-return]


def list_functions(space: Mapping[str, Any]) -> str:
    """List the functions of a namespace, for a message."""
    return ", ".join(name for name, value in space.items() if inspect.isfunction(value)) or "none"
