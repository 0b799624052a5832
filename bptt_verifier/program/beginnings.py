"""What a file does between two calls of an object's methods: whether it may begin anew.

Code that keeps something may be right because other code clears it, or because of how it is called.
Whatever may be so counts as beginning anew: nothing is said then of what is kept.
"""

import ast
import inspect
from collections import Counter
from collections.abc import Collection, Iterable, Iterator

import numpy as np

from bptt_verifier.program.leaves import walk
from bptt_verifier.program.list_order import find_name, parse_file
from bptt_verifier.program.own_calls import Calls

ANY = "*"  # any attribute
OF_CONTAINERS = frozenset(dir(dict) + dir(list) + dir(set) + dir(np.ndarray))  # their methods
CHANGING = frozenset(  # those of them that change what they belong to
    "clear append extend pop popitem update setdefault insert remove discard add sort reverse fill "
    "put resize".split()
)
UNNAMED = frozenset(["cls", "__class__"])  # ways to make an object of a class without its name
LOOPS = ast.For | ast.While | ast.ListComp | ast.GeneratorExp | ast.DictComp | ast.SetComp


def may_begin_anew(
    calls: Calls, kept: Collection[str], gradients: Collection[str] = frozenset()
) -> bool:
    """True if the file may begin anew between two calls, of which these attributes are kept.

    It may mention them elsewhere, set other attributes that the calls use, make several objects, or
    make calls with other data or globals. Steps that set parameters are expected, and so is that
    they read the attributes which hold the `gradients`.
    """
    inner = [inspect.unwrap(getattr(f, "__func__", f)) for f in (calls.function, calls.backward)]
    tree = parse_file(inner[0])
    if tree is None:
        return True
    kind = type(calls.roots["self"]).__name__
    names = {*(each.__name__ for each in inner)}
    if inner[0] is not inner[1]:  # two passes, and a loss, have arguments of their own
        names |= {*map(str, calls.roots["arguments"])}
    reached = [*list_reached(tree, kind, names)]
    starts = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    inside = {id(node) for each in (*reached, *starts) for node in ast.walk(each)}
    others = [node for node in ast.walk(tree) if id(node) not in inside]
    used = {n.attr for each in reached for n in ast.walk(each) if isinstance(n, ast.Attribute)}
    params = {str(key) for place in calls.places.values() for key in place.path}
    changed = {name for node in others for name in list_set(node)}
    changing = find_changing(tree)
    return bool(
        mentions(others, {*kept} - params - {*gradients})
        or changed & ((used - params) | {ANY})
        or makes_several(tree, others, kind)
        or changing & {*list_globals(reached)}
        or (
            gets_other_data(tree, others, inner[0].__name__, changing)
            and not are_compared(calls, inner[0].__name__)
        )
    )


def are_compared(calls: Calls, name: str) -> bool:
    """True if all arguments of a method are parameters, as the inputs of a layer may be.

    The calls before the last get other values of them then, so code that is right because its data
    change is tried as it is called.
    """
    arguments = calls.roots["arguments"]
    given = arguments if calls.function is calls.backward else arguments.get(name, arguments)
    varied = {id(place.array) for place in calls.places.values()}
    return all(id(value) in varied for _, value in walk(given, (), ()))


def list_reached(tree: ast.Module, kind: str, names: Collection[str]) -> Iterator[ast.FunctionDef]:
    """List the functions that methods of these names of a class surely call, and these.

    A method of another object is one by its name where the file has no other of that name.
    """
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    functions = [(node, "") for node in tree.body if isinstance(node, ast.FunctionDef)]
    functions += [
        (node, name) for name, each in classes.items() for node in each.body
        if isinstance(node, ast.FunctionDef)
    ]  # fmt: skip
    family, waiting = set[str](), [kind]
    while waiting:
        name = waiting.pop()
        if name in classes and name not in family:
            waiting += [find_name(base) for base in classes[name].bases]
        family.add(name)
    pending = [each for each in functions if each[0].name in names and each[1] in family]
    seen = set[int]()
    while pending:
        function, owner = pending.pop()
        if id(function) in seen:
            continue
        seen.add(id(function))
        yield function
        first = function.args.args[0].arg if function.args.args else ""
        for called in (n.func for n in ast.walk(function) if isinstance(n, ast.Call)):
            name = find_name(called)
            alike = [each for each in functions if each[0].name == name]
            if isinstance(called, ast.Name):
                pending += [each for each in alike if not each[1]]
            elif isinstance(called, ast.Attribute) and find_name(called.value) == first:
                pending += [each for each in alike if each[1] in family or each[1] == owner]
            elif len(alike) == 1 and name not in OF_CONTAINERS:
                pending += alike


def mentions(nodes: Iterable[ast.AST], names: Collection[str]) -> bool:
    """True if any node has one of these attributes, or its name as a text."""
    return any(
        (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.Constant) and node.value in names)
        for node in nodes
    )


def makes_several(tree: ast.Module, nodes: Collection[ast.AST], kind: str) -> bool:
    """True if a file may make several objects of a class."""
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    if any(isinstance(node.func, ast.Call) or find_name(node.func) in UNNAMED for node in calls):
        return True
    made = [node for node in calls if find_name(node.func) in (kind, "__init__")]
    return len(made) > 1 or not list_repeated(tree).isdisjoint(map(id, made))


def list_repeated(tree: ast.Module) -> frozenset[int]:
    """List the nodes of a file, by their identity, that may run several times."""
    return frozenset(
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, LOOPS | ast.FunctionDef | ast.Lambda)
        for node in ast.walk(outer)
    )


def find_changing(tree: ast.Module) -> frozenset[str]:
    """Find the variables of a file that may change: set several times or in a loop, or changed."""
    stored = Counter[str]()
    for node in ast.walk(tree):
        if isinstance(node, LOOPS):
            inside = (n for n in ast.walk(node) if isinstance(n, ast.Name))
            stored.update({n.id: 2 for n in inside if isinstance(n.ctx, ast.Store)})
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            stored[node.id] += 1
        if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            stored[find_name(node.value)] += 2
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            changes = node.func.attr in CHANGING and isinstance(node.func.value, ast.Name)
            stored[find_name(node.func.value)] += 2 * changes
        if isinstance(node, ast.Global):
            stored.update(dict.fromkeys(node.names, 2))
    return frozenset(name for name, number in stored.items() if number > 1)


def list_globals(functions: Iterable[ast.FunctionDef]) -> Iterator[str]:
    """List the variables that functions read and do not set."""
    for each in functions:
        names = [node for node in ast.walk(each) if isinstance(node, ast.Name)]
        own = {node.id for node in names if isinstance(node.ctx, ast.Store)}
        own |= {node.arg for node in ast.walk(each) if isinstance(node, ast.arg)}
        yield from {node.id for node in names} - own


def gets_other_data(
    tree: ast.Module, nodes: Iterable[ast.AST], name: str, changing: Collection[str]
) -> bool:
    """True if a method may be called with other arguments from one call to the next.

    One call that runs once has one set of data, however these are written.
    """
    made = [node for node in nodes if isinstance(node, ast.Call) and find_name(node.func) == name]
    if len(made) == 1 and id(made[0]) not in list_repeated(tree):
        return False
    for node in made:
        for each in [*node.args, *(keyword.value for keyword in node.keywords)]:
            fixed = isinstance(each, ast.Constant | ast.Attribute)
            if not fixed and not (isinstance(each, ast.Name) and each.id not in changing):
                return True
    return False


def list_set(node: ast.AST) -> Iterator[str]:
    """List the attributes that a node may set, delete or change, or `ANY`.

    An attribute that is assigned to a variable may be changed by that name.
    """
    if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
        yield node.attr
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        yield find_name(node.value)
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute):
        yield node.value.attr
    if isinstance(node, ast.FunctionDef) and node.name == "__setattr__":
        yield ANY
    if isinstance(node, ast.Attribute | ast.Name) and find_name(node) in ("__dict__", "vars"):
        yield ANY
    if isinstance(node, ast.Call):
        yield from list_set_by_call(node)


def list_set_by_call(node: ast.Call) -> Iterator[str]:
    """List the attributes that a call sets or changes; a copy of an object may begin anew."""
    function, name = node.func, find_name(node.func)
    if isinstance(function, ast.Attribute):
        if name in CHANGING and isinstance(function.value, ast.Attribute):
            yield function.value.attr
        if find_name(function.value) in ("copy", "dataclasses"):
            yield ANY
    elif name in ("copy", "deepcopy", "replace"):
        yield ANY
    if name in ("setattr", "delattr", "__setattr__") and len(node.args) > 1:
        attribute = node.args[-2 if name != "delattr" else -1]
        steps = any(isinstance(each, ast.BinOp) for each in ast.walk(node.args[-1]))
        if isinstance(attribute, ast.Constant):
            yield str(attribute.value)
        elif not steps:  # as `setattr(net, name, getattr(net, name) - rate * grads[name])` does
            yield ANY
