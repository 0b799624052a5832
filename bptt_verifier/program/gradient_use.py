"""Use of a gradient in the user's source: whether other gradients are computed from it."""

import ast
from collections.abc import Callable, Collection, Iterator

from bptt_verifier.program.gradient_names import name_expression
from bptt_verifier.program.list_order import find_name, parse, walk_scope


def carries(function: Callable[..., object], name: str, gradients: Collection[str]) -> bool:
    """True if one of the gradients is computed from the variable of this name.

    A gradient of a prediction is carried back to the parameters; that of a parameter is not. A
    common factor, as in clipping by a norm, carries nothing.
    """
    body = parse(function)
    if body is None or not name:
        return False
    uses = [*find_uses(body)]
    reached, before = {name}, set[str]()
    while reached != before:
        before = {*reached}
        reached |= {target for target, used in uses if used & reached}
    returned = any(
        find_names(item) & reached and not name_expression(item)
        for node in walk_scope(body)
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple)
        for item in node.value.elts[1:]
        if not isinstance(item, ast.Tuple | ast.List | ast.Dict | ast.ListComp)
    )
    return returned or bool((reached - {name}) & {*gradients} - {""})


def find_uses(body: ast.AST) -> Iterator[tuple[str, set[str]]]:
    """Yield each variable that is assigned, and the variables that its value is computed from."""
    for node in walk_scope(body):
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add | ast.Sub):
            yield name_variable(node.target), find_names(node.value)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                for each, value in pair_items(target, node.value):
                    names, own = find_names(value), name_variable(each)
                    if own not in names:  # `dW = dW * scale` keeps what it was computed from
                        yield own, names


def pair_items(target: ast.AST, value: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yield the items of an assignment to a tuple with their values."""
    both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
    if both and len(target.elts) == len(value.elts):  # type: ignore[attr-defined]
        for each, item in zip(target.elts, value.elts, strict=True):  # type: ignore[attr-defined]
            yield from pair_items(each, item)
    elif isinstance(target, ast.Tuple):
        yield from ((each, ast.Constant(None)) for each in target.elts)
    else:
        yield target, value


def name_variable(target: ast.AST) -> str:
    """Name the variable that an assignment changes, as `da` in `da[t] = …`."""
    while isinstance(target, ast.Subscript):
        target = target.value
    return find_name(target)


def find_names(value: ast.AST) -> set[str]:
    """Find the variables in an expression, without those that give a shape alone."""
    if isinstance(value, ast.Attribute) and value.attr in {"shape", "size", "ndim", "dtype"}:
        return set()
    if isinstance(value, ast.Call) and find_name(value.func).endswith("_like"):
        return set()
    found = {value.id} if isinstance(value, ast.Name) else set[str]()
    return found.union(*map(find_names, ast.iter_child_nodes(value)))
