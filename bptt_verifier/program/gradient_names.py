"""Names of gradients: which result of the user's code is the gradient of which array.

The result named `dWxh`, `grad_Wxh` or `dL_dWxh` is the gradient of `Wxh`, and so is `grads["Wxh"]`.
The items of a tuple have the names that the user's `return` gives them. Nothing is guessed from
shapes: a wrong guess would call right gradients wrong.
"""

import ast
import inspect
import linecache
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.leaves import Keys

BEFORE = (
    "d", "d_", "D", "g", "g_", "grad", "grad_", "gradient_", "dL", "dL_", "dLd", "dL_d", "dLoss_d",
    "dloss_d", "dJ_d", "dJd", "dE_d", "dEd", "delta_", "delta", "nabla_", "gradients_", "grads_",
    "diff_",
)  # fmt: skip
AFTER = ("_grad", "_grads", "_gradient", "_g", "_d", "_bar", "grad", "Grad", "_delta", "_diff")
CONTAINERS = frozenset(
    "grad grads gradient gradients d g G dparams d_params deltas dweights dW derivatives".split()
)
# Attributes of an object that stands for one parameter: of its value and of its gradient.
SIBLINGS = frozenset(product(("v", "value", "val", "data"), ("d", "grad", "g", "gradient")))
# Lists of all parameters of an object, and of their gradients in the same order.
LISTS = frozenset(product(("params", "parameters"), ("grads", "grad", "gradients", "dparams")))
MAPPED = frozenset({"tuple", "list"})
# Methods whose result has the same numbers, without arguments and with some.
SAME = (
    frozenset(
        "copy clone detach cpu cuda numpy item squeeze double float to requires_grad_ ravel "
        "flatten transpose contiguous".split()
    ),
    frozenset(("astype", "to")),
)
# Those of a gradient; a module or an object may have functions of these names.
SAME_OF_GRADIENT = frozenset("reshape transpose swapaxes squeeze clip view permute".split())
# Functions whose result is not their first argument with other entries.
COMBINING = frozenset(
    "dot outer matmul einsum tensordot inner vdot kron multiply add subtract divide sum mean "
    "zeros_like ones_like".split()
)
# Names of numbers by which a gradient is divided, or multiplied, as it is returned.
COUNTS = frozenset(
    "N n M m T B D batch batch_size n_samples num_samples num count size n_batch bs scale".split()
)
SHORT = 5  # is added to the rank of a path that has the last name of a leaf alone
ONLY = ""  # spells the one container that a function returns


def is_named_gradient(spelled: Any, name: Any) -> bool:
    """True if a name is that of the gradient of another: `dWxh` or `Wxh_grad` of `Wxh`."""
    if not isinstance(spelled, str) or not isinstance(name, str):
        return False
    for one, other in ((spelled, name), (spelled.lower(), name.lower())):
        if one in spell_gradients(other):
            return True
    return False


def find_all_gradients(
    leaves: Mapping[str, Keys], sources: Mapping[Keys, Keys]
) -> dict[str, Keys] | None:
    """Find the one gradient of every leaf among results by its names; None where one has none.

    Raises ValueError, with what was found, where one has several, or one result belongs to two.
    """
    found = dict[str, Keys]()
    for name, leaf in leaves.items():
        ranks = {s: rank for s in sources if (rank := rank_source(s, leaf)) is not None}
        best = [s for s, rank in ranks.items() if rank == min(ranks.values())]
        exact = [s for s in best if str(s[-1]) in spell_gradients(str(leaf[-1]))] or best
        if not exact:
            return None
        if len(exact) > 1:
            raise ValueError(f"{' and '.join(str(s[-1]) for s in exact)} for {name}")
        found[name] = sources[exact[0]]
    for name, source in found.items():
        others = [n for n, each in found.items() if each == source and n != name]
        if others:
            raise ValueError(f"{source[-1]} for {' and '.join([name, *others])}")
    return found


def spell_gradients(name: str) -> set[str]:
    """Spell the name of a gradient of an array in every way."""
    return {before + name for before in BEFORE} | {name + after for after in AFTER}


def may_be_gradient(name: str) -> bool:
    """True if a name may be that of a gradient of any array; a value without a name may be one."""
    return not name or name.startswith(BEFORE) or name.endswith(AFTER)


def rank_source(spelled: Keys, leaf: Keys) -> tuple[int, int] | None:
    """Rank a path as the gradient of a leaf, the smallest first; None where it is not."""
    head, tail = spelled[: -len(leaf)], spelled[-len(leaf) :]
    if len(tail) < len(leaf):
        return None
    if leaf[-2:-1] + tail[-2:-1] in LISTS and tail[:-2] == leaf[:-2] and tail[-1] == leaf[-1]:
        return 0, len(head)
    if all(t == p or is_named_gradient(t, p) for t, p in zip(tail, leaf, strict=True)):
        if tail != leaf:
            return 0, len(head)
        if head and head[-1] in CONTAINERS:
            return 2, len(head)
        if head == (ONLY,):
            return 3, 0
    if tail[:-1] == leaf[:-1] and (leaf[-1], tail[-1]) in SIBLINGS:
        return (1 if len(leaf) > 1 else 4), len(head)  # a lone `d` may be anything
    return None


def find_gradients(leaves: Mapping[str, Keys], sources: Mapping[Keys, Keys]) -> dict[str, Keys]:
    """Find where the gradient of each leaf is; those of which there is none are missing.

    `sources` has the paths of all arrays that may be gradients, by their paths as spelled. The last
    name of an attribute such as `cell.Wx` may stand for it, if no other array has that name.
    """
    found, claims = dict[str, Keys](), dict[Keys, list[tuple[tuple[int, int], str]]]()
    last = Counter(leaf[-1] for leaf in leaves.values() if leaf)
    for name, leaf in leaves.items():
        ranks = {s: rank for s in sources if (rank := rank_source(s, leaf)) is not None}
        if not ranks and last[leaf[-1]] == 1 and all(isinstance(key, str) for key in leaf):
            short = {s: rank for s in sources if (rank := rank_source(s, leaf[-1:])) is not None}
            ranks = {s: (rank[0] + SHORT, rank[1]) for s, rank in short.items()}
        if ranks:
            spelled = min(ranks, key=lambda s: ranks[s])
            found[name] = sources[spelled]
            claims.setdefault(found[name], []).append((ranks[spelled], name))
    # `dW["y"]` is the gradient of `W["y"]` rather than of another `y`.
    return {name: source for name, source in found.items() if min(claims[source])[1] == name}


def name_returned_values(function: Callable[..., Any], number: int) -> dict[Keys, str]:
    """Find the names of the items of a returned tuple, by their paths in it, or of one value.

    All returns of so many items must agree. An item without a name has that of the variable that
    the file's calls assign it to, if it is that of a gradient of an array which the function names.
    Where the source is missing, no name is found.
    """
    source = attempt(inspect.getsource, inspect.unwrap(function))
    if isinstance(source, Failure):
        return {}
    tree = attempt(ast.parse, textwrap.dedent(source))
    if isinstance(tree, Failure) or not tree.body:
        return {}
    assigned = {}
    for node in walk_own_body(tree.body[0]):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            assigned[node.targets[0].id] = node.value
    found = []
    for node in walk_own_body(tree.body[0]):
        for value in list_values(node.value if isinstance(node, ast.Return) else None):
            items = assigned.get(value.id) if isinstance(value, ast.Name) else value
            if isinstance(items, ast.Tuple | ast.List) and len(items.elts) == number:
                found.append(dict(name_items(items, assigned, ())))
            elif number == 0:
                found.append({(): name_expression(value)})
    if not found or not all(each == found[0] for each in found):
        return {}
    return {**name_by_calls(inspect.unwrap(function), number), **found[0]}


def name_by_calls(function: Any, number: int) -> dict[Keys, str]:
    """Name the items of a returned tuple by the variables that calls in its file assign them to.

    The file defines one function of its name, and all calls agree. Where a call has the name of a
    parameter in the place of another, as `f(V, U)` of `f(U, V)`, nothing is named.
    """
    code = getattr(function, "__code__", None)
    if code is None:
        return {}
    tree = attempt(ast.parse, "".join(linecache.getlines(code.co_filename)))
    nodes = [] if isinstance(tree, Failure) else [*ast.walk(tree)]
    defined = [n for n in nodes if isinstance(n, ast.FunctionDef) and n.name == code.co_name]
    every: list[list[str]] = []
    given = code.co_varnames[: code.co_argcount]
    for node in nodes if len(defined) == 1 else ():
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            target, called = node.targets[0], node.value.func
            method = isinstance(called, ast.Attribute)
            named = called.attr if isinstance(called, ast.Attribute) else name_expression(called)
            if isinstance(target, ast.Tuple) and len(target.elts) == number:
                if named != code.co_name or method != ("." in code.co_qualname):
                    continue
                names = [name_expression(each) for each in node.value.args]
                pairs = zip(names, given[method:], strict=False)
                if any(name in given and name != place for name, place in pairs):
                    return {}
                every.append([*map(name_expression, target.elts)])
    known = {*code.co_varnames, *code.co_names}
    return {
        (place,): names[0]
        for place, names in enumerate(zip(*every, strict=True))
        if len({*names}) == 1 and any(is_named_gradient(names[0], each) for each in known)
    }


def list_values(value: ast.expr | None) -> Iterator[ast.expr]:
    """Yield what a `return` may return: both values of `a if c else b`."""
    if isinstance(value, ast.IfExp):
        yield from list_values(value.body)
        yield from list_values(value.orelse)
    elif value is not None:
        yield value


def walk_own_body(function: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a function's body, without those of functions in it."""
    for child in ast.iter_child_nodes(function):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            yield from walk_own_body(child)


def name_items(
    value: ast.Tuple | ast.List, assigned: Mapping[str, ast.AST], path: Keys
) -> Iterator[tuple[Keys, str]]:
    """Yield the paths and names of the items of a tuple, and of tuples in it."""
    for i, item in enumerate(value.elts):
        name = name_expression(item)
        if name:
            yield (*path, i), name
        inner = assigned.get(item.id) if isinstance(item, ast.Name) else item
        inner = find_mapped(inner)
        if isinstance(inner, ast.Tuple | ast.List) and len(path) < 2:
            yield from name_items(inner, assigned, (*path, i))


def find_mapped(item: ast.AST | None) -> ast.AST | None:
    """Find the tuple in `[g / n for g in (dW, db)]`, of which each item is mapped."""
    if isinstance(item, ast.Call) and len(item.args) == 1 and name_expression(item.func) in MAPPED:
        item = item.args[0]
    if not isinstance(item, ast.ListComp | ast.GeneratorExp) or len(item.generators) > 1:
        return item
    return item if item.generators[0].ifs else item.generators[0].iter


def name_expression(item: ast.AST) -> str:
    """Name an expression by its variable, attribute or key; empty where it has none."""
    if isinstance(item, ast.Name):
        return item.id
    if isinstance(item, ast.UnaryOp | ast.BinOp):
        name = name_expression(find_scaled(item))
        return name if may_be_gradient(name) else ""
    if isinstance(item, ast.Attribute) and item.attr == "T":  # dWxh.T
        return name_expression(item.value)
    if isinstance(item, ast.Attribute):
        owner = name_expression(item.value) if item.attr == "grad" else ""
        return f"{owner}_grad" if owner else name_part(item.value, item.attr)  # of a tensor
    if isinstance(item, ast.Subscript) and isinstance(item.slice, ast.Constant):
        key = item.slice.value
        return name_part(item.value, key) if isinstance(key, str) else ""
    if isinstance(item, ast.Call):
        function = item.func
        if isinstance(function, ast.Attribute) and function.attr in SAME[bool(item.args)]:
            return name_expression(function.value)  # dWxh.copy(), loss.item()
        if isinstance(function, ast.Attribute) and function.attr in SAME_OF_GRADIENT:
            owner = name_expression(function.value)
            if owner and may_be_gradient(owner):
                return owner  # dx.reshape(x.shape)
        if (
            item.args and name_expression(function) not in COMBINING
        ):  # np.clip(dWxh, -5, 5), np.array(dWxh)
            return name_expression(item.args[0])
    return ""


def name_part(container: ast.AST, key: str) -> str:
    """Name what is at a key: `grads["W"]` is the gradient of W, and `grads["dW"]` is, too."""
    owner = name_expression(container)
    of_gradients = owner in CONTAINERS and len(owner) > 1  # `d` may hold anything
    return f"{key}_grad" if of_gradients and not may_be_gradient(key) else key


def find_scaled(item: ast.UnaryOp | ast.BinOp) -> ast.AST:
    """Find what is multiplied by a number, as in `-dWxh` and `dWxh / N`, or nothing."""
    if isinstance(item, ast.UnaryOp):
        return item.operand
    if isinstance(item.op, ast.Mult) and is_count(item.left):
        return item.right
    scales = isinstance(item.op, ast.Mult | ast.Div) and is_count(item.right)
    return item.left if scales else ast.Constant(None)


def is_count(item: ast.AST) -> bool:
    """True for an expression of a number, such as `0.5`, `N`, `len(x)` or `x.shape[0]`."""
    if isinstance(item, ast.Call):
        return name_expression(item.func) in {"len", "float", "int"}
    if isinstance(item, ast.Subscript):
        return isinstance(item.value, ast.Attribute) and item.value.attr == "shape"
    if isinstance(item, ast.BinOp):
        return is_count(item.left) and is_count(item.right)
    constant = isinstance(item, ast.Constant)
    return constant or name_expression(item) in COUNTS
