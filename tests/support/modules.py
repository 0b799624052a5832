"""Modules of the packages, and what each imports, read from the source."""

import ast
import textwrap
from collections.abc import Iterable, Iterator
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("manual_bptt", "jax_reference", "bptt_verifier")
COMPUTED = "a computed name"


def modules(package: str, root: Path = ROOT) -> dict[str, Path]:
    """The file of every module of a package, by the module's full name."""
    files = sorted((root / package).rglob("*.py"))
    assert files, f"no module of {package} in {root}"
    return {
        ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file
        for file in files
    }


def write_package(root: Path, name: str, **sources: str) -> str:
    """A package of these modules below `root`, for the tests that break a rule."""
    (root / name).mkdir()
    (root / name / "__init__.py").touch()
    for module, source in sources.items():
        (root / name / f"{module}.py").write_text(textwrap.dedent(source), encoding="utf-8")
    return name


def imported(module: str, file: Path) -> Iterator[str]:
    """The full name of everything a module imports, wherever in the file, also by importlib."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"}:
            match node.args:
                case [ast.Constant(value=str(name)), *_]:
                    yield resolve_name(name, package)
                case _:
                    yield COMPUTED


def called(call: ast.Call) -> str:
    """The last part of the name of what is called."""
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def within(name: str, packages: Iterable[str]) -> bool:
    """True if a name is that of one of the packages or modules, or of something in it."""
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def imports_of(forbidden: set[str], package: str, root: Path = ROOT) -> list[str]:
    """The modules of a package that import something `forbidden`, or a name that cannot be read."""
    return [
        module
        for module, file in modules(package, root).items()
        if any(within(name, forbidden | {COMPUTED}) for name in imported(module, file))
    ]
