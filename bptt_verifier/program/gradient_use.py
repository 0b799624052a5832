"""Use of gradients in the user's source: what is computed from them, and what they update."""

import ast
import inspect
from collections.abc import Callable, Collection, Iterator

from bptt_verifier.program.data_names import find_kind
from bptt_verifier.program.gradient_names import (
    is_named_gradient,
    may_be_gradient,
    name_expression,
)
from bptt_verifier.program.list_order import find_name, parse, parse_file, walk_scope


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


def find_updated(function: Callable[..., object]) -> frozenset[str]:
    """Find the attributes and keys that the file of a function computes anew from themselves.

    `self.W = self.W - rate * dW` makes another array, where `self.W -= rate * dW` changes one. One
    with the name of a state or of data is left out, as `self.h = self.h + dt * f` is no update.
    """
    tree = parse_file(function)
    found = set[str]()
    for node in ast.walk(tree) if tree is not None else ():
        for target in node.targets if isinstance(node, ast.Assign) else ():
            for each, value in pair_items(target, node.value):  # type: ignore[attr-defined]
                if isinstance(each, ast.Attribute | ast.Subscript) and has_part(value, each):
                    found |= {key for key in list_keys(each) if not find_kind(key)}
    return frozenset(found)


def find_assigned(function: Callable[..., object]) -> frozenset[str] | None:
    """Find the attributes that the file of a function assigns by name, but where objects are made.

    None if it sets no attribute by `setattr`, `vars` or `__dict__`, of which names do not tell.
    """
    tree = parse_file(inspect.unwrap(getattr(function, "__func__", function)))
    scopes = [n for n in ast.walk(tree or ast.Module([], [])) if isinstance(n, ast.FunctionDef)]
    nodes = [n for each in scopes if each.name != "__init__" for n in ast.walk(each)]
    names = {find_name(n) for n in nodes if isinstance(n, ast.Name | ast.Attribute)}
    if names.isdisjoint({"setattr", "__setattr__", "vars", "__dict__"}):
        return None
    stored = [n for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)]
    return frozenset(each.attr for each in stored)


def find_changed(function: Callable[..., object]) -> frozenset[str]:
    """Find the variables that the file of a function updates, as in `A -= rate * dA`.

    Data are not: `x -= x.mean()` computes what is subtracted from the variable itself.
    """
    tree = parse_file(function)
    found = set[str]()
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add | ast.Sub):
            name, used = name_variable(node.target), find_names(node.value)
            stepped = isinstance(node.op, ast.Sub) and name not in used and not find_kind(name)
            if stepped or any(is_named_gradient(each, name) for each in used):
                found.add(name)
    return frozenset(found)


def find_written_rates(function: Callable[..., object], rates: Collection[str]) -> list[float]:
    """Find the numbers that a function, or one that it calls, writes as learning rates.

    Such a number is the factor of a variable in a step, as in `W -= 0.1 * dW`, or of a gradient in
    what is added to or subtracted from another array, as in `v = 0.9 * v - 0.1 * dW`; or it is
    assigned to a variable with one of the names `rates`. Other factors are none: a file has many
    numbers, and one of them may be the rate over a size by chance.
    """
    inner = inspect.unwrap(getattr(function, "__func__", function))
    tree = parse_file(inner) or ast.Module([], [])
    own = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    own |= {inner.__name__: body} if isinstance(body := parse(inner), ast.FunctionDef) else {}
    waiting, seen, found = [getattr(inner, "__name__", "")], set[str](), list[float]()
    while waiting:
        name = waiting.pop()
        if name in own and name not in seen:
            nodes = [*ast.walk(own[name])]
            waiting += [find_name(node.func) for node in nodes if isinstance(node, ast.Call)]
            found += [rate for node in nodes for rate in list_rates(node, rates)]
        seen.add(name)
    return [rate for rate in dict.fromkeys(found) if 0 < rate < float("inf")]


def list_rates(node: ast.AST, rates: Collection[str]) -> Iterator[float]:
    """Yield the numbers that an assignment writes as learning rates."""
    if not isinstance(node, ast.AugAssign | ast.Assign):
        return
    target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
    value, name = node.value, name_variable(target)
    if isinstance(node, ast.Assign) and name in rates:
        yield from read_number(value)
    if isinstance(value, ast.ListComp):  # [w - 0.1 * g for w, g in zip(weights, grads)]
        value = value.elt
    first = value
    while isinstance(first, ast.BinOp) and isinstance(first.op, ast.Add | ast.Sub):
        first = first.left
    adds, steps = first is not value, first is not value and has_part(first, target)
    if isinstance(node, ast.AugAssign):
        adds, steps = isinstance(node.op, ast.Add | ast.Sub), isinstance(node.op, ast.Sub)
    for product in ast.walk(value) if adds else ():
        if not (isinstance(product, ast.BinOp) and isinstance(product.op, ast.Mult)):
            continue
        sides = product.left, product.right
        for factor, other in (sides, sides[::-1]):
            of = name_variable(other) or name_expression(other)
            slope = may_be_gradient(of) and not may_be_gradient(name)
            stepped = steps or slope or is_named_gradient(of, name)
            if of and of.lower() not in rates and stepped:
                yield from read_number(factor)


def read_number(value: ast.AST) -> Iterator[float]:
    """Yield the size of a number that is written in the code, if it is one."""
    value = value.operand if isinstance(value, ast.UnaryOp) else value
    if isinstance(value, ast.Constant) and type(value.value) in (int, float):
        yield float(value.value)  # type: ignore[arg-type]


def adds_to_gradients(function: Callable[..., object]) -> bool:
    """True if the file of a function adds to the attributes `grad` of tensors, as `w.grad += dw`.

    They have to be zeros before, as PyTorch's optimisers may leave them.
    """
    inner = inspect.unwrap(getattr(function, "__func__", function))
    for node in ast.walk(parse_file(inner) or ast.Module([], [])):
        added = node.target if isinstance(node, ast.AugAssign) else None
        if isinstance(node, ast.Call) and find_name(node.func) == "add_":
            added = getattr(node.func, "value", None)
        if isinstance(added, ast.Attribute) and added.attr == "grad":
            return True
    return False


def has_part(value: ast.AST, part: ast.AST) -> bool:
    """True if an expression is computed from another one."""
    text = ast.unparse(part)
    return any(type(n) is type(part) and ast.unparse(n) == text for n in ast.walk(value))


def list_keys(target: ast.AST) -> Iterator[str]:
    """List the attributes and constant keys of a target, such as W in `self.layers[k].W`."""
    while isinstance(target, ast.Attribute | ast.Subscript):
        if isinstance(target, ast.Attribute):
            yield target.attr
        elif isinstance(target.slice, ast.Constant):
            yield str(target.slice.value)
        target = target.value


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
