"""Direction of a list of gradients: what the user's source tells of it, beside the list of arrays.

A backward pass meets the last layer first, and code may keep its gradients in that order. Equal
shapes do not tell which; `zip(weights, grads)`, `grads[i]` beside `weights[i]` and the loop that
fills the list do.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, Literal

from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.gradient_names import may_be_gradient
from bptt_verifier.program.leaves import Keys

Direction = Literal["forward", "reversed", "unknown"]
NUMBER = re.compile(r"\d+$")
UNCHANGED = frozenset("list tuple enumerate iter".split())  # functions that keep the order


def find_direction(function: Callable[..., Any], arrays: str, path: Keys) -> Direction:
    """Find the direction of a list of gradients beside a list of arrays of this name.

    `path` is that of the list of gradients among the results, or the attributes of the object. A
    pairing in the function, or in the code of its file that takes the list, decides; then the
    way in which the function fills it. It is unknown where two of these contradict.
    """
    inner = inspect.unwrap(getattr(function, "__func__", function))
    body, tree = parse(inner), parse_file(inner)
    if body is None:
        return "unknown"
    told, filled = set[bool](), set[bool]()
    for name, back in find_list(body, path):
        told |= {back for value in find_values(body, name) if is_numbered(value)}
        told |= {turned != back for turned in find_pairings(body, arrays, name)}
        filled |= {turned != back for turned in find_filling(body, name)}
    told |= {False for value in find_returned(body, path) if is_numbered(value)}
    for scope, name in find_takers(tree, getattr(inner, "__name__", ""), body, path):
        told |= {*find_pairings(scope, arrays, name)}
    told = told or filled
    if len(told) != 1:
        return "unknown"
    return "reversed" if told.pop() else "forward"


def parse(function: Any) -> ast.AST | None:
    """Parse the source of a function; None where it is missing."""
    source = attempt(inspect.getsource, function)
    tree = source if isinstance(source, Failure) else attempt(ast.parse, textwrap.dedent(source))
    return tree.body[0] if isinstance(tree, ast.Module) and tree.body else None


def parse_file(function: Any) -> ast.Module | None:
    """Parse the file or the cell of a notebook that defines a function."""
    lines = attempt(inspect.findsource, function)
    tree = lines if isinstance(lines, Failure) else attempt(ast.parse, "".join(lines[0]))
    return tree if isinstance(tree, ast.Module) else None


def find_returned(body: ast.AST, path: Keys) -> Iterator[ast.AST]:
    """Yield the expressions of a function that return what is at a path among its results."""
    for node in walk_scope(body):
        value: ast.AST | None = node.value if isinstance(node, ast.Return) else None
        for key in path[1:]:
            items = value.elts if isinstance(value, ast.Tuple | ast.List) else []
            value = items[key] if isinstance(key, int) and key < len(items) else None
        if value is not None and path[:1] == ("result",):
            yield value


def find_list(body: ast.AST, path: Keys) -> Iterator[tuple[str, bool]]:
    """Yield the variable or attribute of a list at a path, and whether it is returned reversed."""
    read = [read_sequence(each) for each in find_returned(body, path)]
    if path[:1] != ("result",):
        read = [(str(path[-1]), False)]
    yield from ((name, back) for name, back in read if name)


def find_values(body: ast.AST, name: str) -> Iterator[ast.AST]:
    """Yield what a function assigns to a variable or attribute."""
    for node in walk_scope(body):
        if isinstance(node, ast.Assign) and find_name(node.targets[0]) == name:
            yield node.value


def is_numbered(value: ast.AST | None) -> bool:
    """True for a list of gradients with rising numbers in their names, as `[dW1 / n, dW2 / n]`."""
    items = value.elts if isinstance(value, ast.Tuple | ast.List) else []
    numbers = [
        {
            int(found[0])
            for node in ast.walk(item)
            if isinstance(node, ast.Name) and may_be_gradient(node.id)
            if (found := NUMBER.search(node.id))
        }
        for item in items
    ]
    if len(items) < 2 or any(len(each) != 1 for each in numbers):
        return False
    order = [each.pop() for each in numbers]
    return order == sorted({*order})


def find_takers(
    tree: ast.Module | None, function: str, body: ast.AST, path: Keys
) -> Iterator[tuple[ast.AST, str]]:
    """Yield the scopes of a file that take the list of gradients, and their names of it.

    These are the callers of the function, as `loss, grads = step(x, y)`, and functions with an
    argument of the name that these hand it to. An attribute is that of all methods.
    """
    scopes = [] if tree is None else [tree, *ast.walk(tree)]
    scopes = [each for each in scopes if isinstance(each, ast.Module | ast.FunctionDef)]
    own = getattr(body, "name", "")
    others = [each for each in scopes[1:] if getattr(each, "name", "") != own]
    if path[:1] != ("result",):
        yield from ((each, str(path[-1])) for each in [*scopes[:1], *others])
        return
    taken = {name for name, back in find_list(body, path) if not back}
    for scope in [*scopes[:1], *others]:
        for node in walk_scope(scope):
            if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
                continue
            target, called = node.targets[0], find_name(node.value.func) == function
            if called and isinstance(target, ast.Tuple) and len(path) == 2:
                names = dict(enumerate(map(find_name, target.elts)))
                name = names.get(path[1], "") if isinstance(path[1], int) else ""
                taken |= {name} - {""}
                yield scope, name
    handed = [n for each in scopes for n in walk_scope(each) if isinstance(n, ast.Call)]
    turned = {
        name
        for call in handed if find_name(call.func) not in {"zip", "reversed", *UNCHANGED}
        for name, back in map(read_sequence, call.args) if back
    }  # fmt: skip
    for scope in others:
        arguments = scope.args.args if isinstance(scope, ast.FunctionDef) else []
        for name in {each.arg for each in arguments} & (taken - turned):
            yield scope, name


def walk_scope(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a scope, in the order of the source, without those of functions in it."""
    for child in ast.iter_child_nodes(scope):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            yield from walk_scope(child)


def find_name(node: ast.AST) -> str:
    """Find the name of a variable or the last one of an attribute or of a constant key."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return str(node.slice.value)
    return ""


def read_sequence(node: ast.AST) -> tuple[str, bool]:
    """Read the name of a sequence, and whether it is reversed, as in `reversed(weights)`."""
    if isinstance(node, ast.Subscript) and is_backward_slice(node.slice):
        name, back = read_sequence(node.value)
        return name, not back
    if isinstance(node, ast.Call) and len(node.args) == 1:
        called = find_name(node.func)
        name, back = read_sequence(node.args[0])
        if called == "reversed":
            return name, not back
        return (name, back) if called in UNCHANGED else ("", False)
    if isinstance(node, ast.ListComp | ast.GeneratorExp) and len(node.generators) == 1:
        return read_sequence(node.generators[0].iter)  # each gradient over a number
    return find_name(node), False


def is_backward_slice(node: ast.AST) -> bool:
    """True for the slice `::-1`."""
    whole = isinstance(node, ast.Slice) and node.lower is None and node.upper is None
    return whole and is_negative(getattr(node, "step", None))


def is_negative(node: ast.AST | None) -> bool:
    """True for a negative constant."""
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)


def find_pairings(scope: ast.AST, arrays: str, gradients: str) -> Iterator[bool]:
    """Yield whether arrays and gradients are paired in opposite directions, for each pairing.

    A list that is reversed after it has been paired is another one: none is yielded.
    """
    turns = [node for node in walk_scope(scope) if reverses(node, gradients)]
    last = max((getattr(node, "lineno", 0) for node in turns), default=0)
    for node in walk_scope(scope):
        if isinstance(node, ast.Call) and find_name(node.func) == "zip" and node.lineno >= last:
            read = [read_sequence(each) for each in node.args]
            backs = [{b for n, b in read if n == name} for name in (arrays, gradients)]
            if all(len(each) == 1 for each in backs):
                yield backs[0] != backs[1]
        if isinstance(node, ast.For | ast.ListComp) and node.lineno >= last:
            signs = [{*find_signs(node, name)} for name in (arrays, gradients)]
            if all(len(each) == 1 for each in signs):
                yield signs[0] != signs[1]
        if isinstance(node, ast.Assign | ast.AugAssign) and node.lineno >= last:
            indices = [find_constants(node, name) for name in (arrays, gradients)]
            if all(len(each) == 1 for each in indices):
                yield indices[0] != indices[1]


def find_constants(statement: ast.AST, name: str) -> set[int]:
    """Find the constant indices of a list in a statement."""
    return {
        node.slice.value
        for node in ast.walk(statement)
        if isinstance(node, ast.Subscript) and find_name(node.value) == name
        if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, int)
    }


def find_signs(loop: ast.For | ast.ListComp, name: str) -> Iterator[bool]:
    """Yield whether the indices of a list in a loop fall as its variable rises, as in `w[-i]`."""
    head = loop if isinstance(loop, ast.For) else loop.generators[0]
    variables = {n.id for n in ast.walk(head.target) if isinstance(n, ast.Name)}
    if isinstance(head.iter, ast.Call) and find_name(head.iter.func) == "enumerate":
        paired, back = read_sequence(head.iter)
        if paired == name:
            yield back
    for node in ast.walk(loop):
        if isinstance(node, ast.Subscript) and find_name(node.value) == name:
            yield from find_sign(node.slice, variables)


def find_sign(node: ast.AST, variables: set[str], negative: bool = False) -> Iterator[bool]:
    """Yield the sign of the variables in an index that is a sum; true where it is negative."""
    if isinstance(node, ast.Name) and node.id in variables:
        yield negative
    elif isinstance(node, ast.UnaryOp):
        turns = isinstance(node.op, ast.USub | ast.Invert)
        yield from find_sign(node.operand, variables, negative != turns)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        yield from find_sign(node.left, variables, negative)
        turned = negative != isinstance(node.op, ast.Sub)
        yield from find_sign(node.right, variables, turned)


def reverses(node: ast.AST, name: str) -> bool:
    """True for `grads.reverse()`, and an assignment of another order to the list."""
    if isinstance(node, ast.Assign) and any(find_name(each) == name for each in node.targets):
        return any(find_name(n) == name for n in ast.walk(node.value))
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    return node.func.attr == "reverse" and find_name(node.func.value) == name


def find_filling(
    body: ast.AST, gradients: str, turned: bool = False, seen: frozenset[str] = frozenset()
) -> Iterator[bool]:
    """Yield whether a loop over layers fills a list from the last to the first.

    `append` in a backward loop does, unless the list is reversed afterwards; `insert(0, …)` there
    does not. The list may be one of those `seen` by another name.
    """
    for node in walk_scope(body):
        if isinstance(node, ast.Assign) and find_name(node.targets[0]) == gradients:
            name, back = read_sequence(node.value)
            if name == gradients:
                turned = turned != back
            elif name and name not in seen:
                yield from find_filling(body, name, turned != back, seen | {gradients})
        elif isinstance(node, ast.Call) and reverses(node, gradients):
            turned = not turned
    for loop in walk_scope(body):
        if not (isinstance(loop, ast.For) and is_backward(loop.iter)):
            continue
        for node in walk_scope(loop):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if find_name(node.func.value) != gradients:
                    continue
                if node.func.attr == "append":
                    yield not turned
                elif node.func.attr in {"insert", "appendleft"}:
                    yield turned


def is_backward(node: ast.AST) -> bool:
    """True for what a loop goes through from the last to the first, such as `reversed(layers)`."""
    for each in ast.walk(node):
        part = each.slice if isinstance(each, ast.Subscript) else None
        if isinstance(part, ast.Slice) and is_negative(part.step):
            return True
        if isinstance(each, ast.Call):
            name = find_name(each.func)
            if name == "reversed" or (
                name in {"range", "arange"} and len(each.args) == 3 and is_negative(each.args[2])
            ):
                return True
    return False
