"""Further calls on the object of the first one, which show what it keeps between calls."""

import ast
import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any

import numpy as np

from bptt_verifier.program.accumulated_gradients import is_double
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.leaves import Keys, walk
from bptt_verifier.program.list_order import find_name, parse_file
from bptt_verifier.program.own_calls import Calls, copy_all
from bptt_verifier.program.own_results import follow
from bptt_verifier.program.torch_tensors import is_tensor, to_array

EARLIER = 0.75  # times their values, at which the parameters are at the first call
CALLS = 62  # more calls after the second one, unless they take long
SECONDS = 0.25
ANY = "*"  # any attribute
OF_CONTAINERS = frozenset(dir(dict) + dir(list) + dir(set) + dir(np.ndarray))  # their methods


def call_again(
    calls: Calls, params: Mapping[str, Any], loss: Keys, gradients: Collection[Keys]
) -> dict[str, Any] | None:
    """Call the code on one object with other parameters first; return the state of a later call.

    It is that of the first call whose gradients differ from those before with equal parameters and
    an equal loss, if there is one, else that of the second.
    None where a later call may return something else than the first: where nothing is kept, where
    the loss of equal parameters changes by a bit, as after an update or with a state that is
    carried over and forgotten with time,
    where gradients add up on purpose, and where other code of the file sets what the calls use, or
    makes an object for each call.
    """
    if "self" not in calls.roots or calls.pair or any(map(is_tensor, params.values())):
        return None
    earlier = {name: np.asarray(EARLIER * value) for name, value in params.items()}
    roots = calls.copy_roots(earlier)
    before, places = copy_values(roots["self"]), find_places(roots, earlier)
    first = calls.run_on(calls.run, roots)
    if not has_kept(before, copy_values(first["self"])) or is_set_elsewhere(calls):
        return None
    paths = [loss, *gradients]

    def go_on(now: Mapping[str, Any]) -> dict[str, Any]:
        """Call the code once more, with other parameters in the places of those before."""
        kept = copy_all({name: first[name] for name in calls.roots}, {})
        set_places(kept, places, now)
        return calls.run_on(calls.run, kept)

    again = attempt(go_on, {name: value.copy() for name, value in earlier.items()})
    if isinstance(again, Failure) or not are_equal(*(follow(s, loss) for s in (again, first))):
        return None
    changed = [path for path in gradients if not is_same(follow(again, path), follow(first, path))]
    if changed and all(
        is_double(*(to_array(follow(s, p)) for s in (again, first))) for p in changed
    ):
        return None
    return repeat(calls, go_on(params), paths, bool(changed))


def repeat(
    calls: Calls, state: dict[str, Any], paths: Sequence[Keys], changes: bool
) -> dict[str, Any] | None:
    """Repeat a call on its object; return the first state with another gradient, else this one.

    The first of the paths is that of the loss: None where it is another one. If gradients are known
    to change, one more call tells whether the loss does.
    """
    given = {path: np.array(to_array(follow(state, path))) for path in paths}
    end, later = monotonic() + SECONDS, state
    for number in range(1 if changes else CALLS):
        if number and monotonic() > end:
            break
        again = attempt(calls.run_on, calls.run, {name: later[name] for name in calls.roots})
        if isinstance(again, Failure):
            return None
        later = dict(again)
        if not are_equal(follow(later, paths[0]), given[paths[0]]):
            return None
        if not all(is_same(follow(later, path), value) for path, value in given.items()):
            return later
    return state


def find_places(roots: Mapping[str, Any], params: Mapping[str, Any]) -> dict[Keys, str]:
    """Find all places of the parameters in the roots, before a call has set others to them."""
    named = {id(value): name for name, value in params.items()}
    return {p: named[id(v)] for p, v in walk(dict(roots), (), ()) if id(v) in named}


def set_places(
    roots: dict[str, Any], places: Mapping[Keys, str], params: Mapping[str, Any]
) -> None:
    """Set parameters at their places, as an update does that makes new arrays."""
    for path, name in places.items():
        owner = follow(roots, path[:-1])
        if isinstance(path[-1], str) and not isinstance(owner, Mapping):
            setattr(owner, path[-1], params[name])
        else:
            owner[path[-1]] = params[name]


def are_equal(two: Any, one: Any) -> bool:
    """True if two losses are equal to the bit, as those of repeated calls without a state are."""
    return bool(np.array_equal(to_array(two), to_array(one)))


def is_same(two: Any, one: Any) -> bool:
    """True if two gradients are the same up to the rounding of sums in another order."""
    two, one = to_array(two), to_array(one)
    if np.shape(two) != np.shape(one):
        return False
    unit = float(np.finfo(np.result_type(one, np.float16)).eps)
    return bool(np.max(np.abs(two - one), initial=0) <= unit**0.5 * np.max(np.abs(one), initial=0))


def copy_values(owner: Any) -> dict[Keys, Any]:
    """Copy the values in an object, by their paths."""
    return {p: attempt(lambda v=v: np.array(to_array(v))) for p, v in walk(owner, (), ())}


def has_kept(before: Mapping[Keys, Any], after: Mapping[Keys, Any]) -> bool:
    """True if a call has set or changed an attribute of its object, or of one in it."""
    return any(
        path not in before or attempt(np.array_equal, value, before[path]) is not True
        for path, value in after.items()
    )


def is_set_elsewhere(calls: Calls) -> bool:
    """True if other code of the file sets what the calls use, or makes several objects.

    A step that sets parameters is expected, and so is the beginning of one object.
    """
    inner = [inspect.unwrap(getattr(f, "__func__", f)) for f in (calls.function, calls.backward)]
    tree = parse_file(inner[0])
    if tree is None:
        return True
    defined = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    names = {*map(str, calls.roots["arguments"]), *(each.__name__ for each in inner)}
    reached = [*list_reached(defined, names)]
    used = {n.attr for each in reached for n in ast.walk(each) if isinstance(n, ast.Attribute)}
    used -= {str(key) for place in calls.places.values() for key in place.path}
    starts = [node for node in defined if node.name == "__init__"]
    inside = {id(node) for each in (*reached, *starts) for node in ast.walk(each)}
    nodes = [node for node in ast.walk(tree) if id(node) not in inside]
    kind = type(calls.roots["self"]).__name__
    made = [n for n in nodes if isinstance(n, ast.Call) and find_name(n.func) in (kind, "__init__")]
    repeated = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.For | ast.While | ast.FunctionDef | ast.ListComp | ast.Lambda)
        for node in ast.walk(outer)
    }
    if len(made) > 1 or any(id(node) in repeated for node in made):
        return True
    return any(name in used or name == ANY for node in nodes for name in list_set(node))


def list_reached(
    defined: Collection[ast.FunctionDef], names: Collection[str]
) -> Iterator[ast.FunctionDef]:
    """List the functions of these names, and those that they call."""
    waiting, seen = [*names], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for each in defined:
            if each.name == name:
                yield each
                called = (n.func for n in ast.walk(each) if isinstance(n, ast.Call))
                waiting += [find_name(node) for node in called if may_be_own(node)]


def may_be_own(called: ast.expr) -> bool:
    """True if a call may be one of a function of the file, not of a list, a dict or an array."""
    of_other = isinstance(called, ast.Attribute) and not isinstance(called.value, ast.Name)
    return not (of_other and find_name(called) in OF_CONTAINERS)


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
        if name in OF_CONTAINERS and isinstance(function.value, ast.Attribute):
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
