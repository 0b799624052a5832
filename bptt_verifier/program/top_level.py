"""The top level of a file: the code that runs with the file itself, and the names it defines."""

import ast
from collections.abc import Iterator


def walk_top_level(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run with the file itself: none inside a function or class."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(
            child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
        ):
            yield from walk_top_level(child)


def list_names(tree: ast.AST) -> set[str]:
    """List the functions, classes, variables and imported modules that a file defines."""
    top = [*walk_top_level(tree)]
    names = {n.name for n in top if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    names |= {n.id for n in top if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    aliases = [each for n in top if isinstance(n, ast.Import | ast.ImportFrom) for each in n.names]
    return names | {each.asname or each.name.partition(".")[0] for each in aliases} - {"*"}


def list_public(tree: ast.AST, names: set[str]) -> set[str]:
    """List which of its names a file gives to a star import: those in `__all__`, if it has that.

    One that is computed may have any name; it is taken to have those without an underscore.
    """
    top = [*walk_top_level(tree)]
    places = [n for n in top if isinstance(n, ast.Name) and n.id == "__all__"]
    stated = [
        n.value
        for n in top
        if isinstance(n, ast.Assign | ast.AugAssign | ast.AnnAssign) and n.value is not None
        if any(part is each for part in ast.walk(n) for each in places)
    ]
    texts = [read_texts(each) for each in stated]
    if not places or len(texts) != len(places) or None in texts:
        return {name for name in names if not name.startswith("_")}
    return {name for each in texts if each is not None for name in each}


def read_texts(expression: ast.expr) -> set[str] | None:
    """Read a list of texts as it is written; None where another expression has to be computed."""
    if not isinstance(expression, ast.List | ast.Tuple):
        return None
    values = [each.value if isinstance(each, ast.Constant) else None for each in expression.elts]
    texts = {each for each in values if isinstance(each, str)}
    return texts if all(isinstance(each, str) for each in values) else None
