"""Further calls on the object of the first one, which show what it keeps between calls."""

import ast
import inspect
from collections.abc import Collection, Iterator, Mapping
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


def call_again(
    calls: Calls, params: Mapping[str, Any], loss: Keys, gradients: Collection[Keys]
) -> dict[str, Any] | None:
    """Call the code on one object with other parameters first; return the state of a later call.

    It is that of the first call whose gradients differ from those before with equal parameters and
    an equal loss, if there is one, else that of the second.
    None where a second call may return something else than the first: where nothing is kept, where
    the loss of equal parameters changes, as after an update or with a state that is carried over,
    where gradients add up on purpose, and where other code of the file sets what is kept, or makes
    an object for each call.
    """
    if "self" not in calls.roots or calls.pair or any(map(is_tensor, params.values())):
        return None
    earlier = {name: np.asarray(EARLIER * value) for name, value in params.items()}
    roots = calls.copy_roots(earlier)
    before = copy_values(roots["self"])
    first = calls.run_on(calls.run, roots)
    kept = list_kept(before, copy_values(first["self"]))
    if not kept or is_set_elsewhere(calls, kept):
        return None

    def go_on(now: Mapping[str, Any]) -> dict[str, Any]:
        """Call the code once more, with other parameters in the place of those before."""
        memo = {id(earlier[name]): value for name, value in now.items()}
        return calls.run_on(calls.run, copy_all({n: first[n] for n in calls.roots}, memo))

    paths = [loss, *gradients]
    again = attempt(go_on, {name: value.copy() for name, value in earlier.items()})
    if isinstance(again, Failure) or not is_same(follow(again, loss), follow(first, loss)):
        return None
    pairs = [(follow(again, path), follow(first, path)) for path in gradients]
    changed = [pair for pair in pairs if not is_same(*pair)]
    if changed and all(is_double(*map(to_array, pair)) for pair in changed):
        return None
    state = go_on(params)
    values, end = [np.array(to_array(follow(state, path))) for path in paths], monotonic() + SECONDS
    for _ in range(0 if changed else CALLS):
        later = attempt(calls.run_on, calls.run, {name: state[name] for name in calls.roots})
        if isinstance(later, Failure) or monotonic() > end:
            break
        same = [is_same(follow(later, p), value) for p, value in zip(paths, values, strict=True)]
        if not all(same):
            return later if same[0] else state
        state = later
    return state


def is_same(two: Any, one: Any) -> bool:
    """True if two results are the same up to the rounding of sums in another order."""
    two, one = to_array(two), to_array(one)
    if np.shape(two) != np.shape(one):
        return False
    unit = float(np.finfo(np.result_type(one, np.float16)).eps)
    return bool(np.max(np.abs(two - one), initial=0) <= unit**0.5 * np.max(np.abs(one), initial=0))


def copy_values(owner: Any) -> dict[Keys, Any]:
    """Copy the values in an object, by their paths."""
    return {p: attempt(lambda v=v: np.array(to_array(v))) for p, v in walk(owner, (), ())}


def list_kept(before: Mapping[Keys, Any], after: Mapping[Keys, Any]) -> frozenset[str]:
    """List the attributes of an object, and of those in it, that a call has set or changed."""
    changed = [
        path for path, value in after.items()
        if path not in before or attempt(np.array_equal, value, before[path]) is not True
    ]  # fmt: skip
    return frozenset(next(key for key in path[::-1] if isinstance(key, str)) for path in changed)


def is_set_elsewhere(calls: Calls, kept: Collection[str]) -> bool:
    """True if the file sets one of these attributes, or makes objects, apart from the calls.

    What the functions of the calls do themselves, and what is done where an object is made once, is
    not apart from them.
    """
    functions = (calls.function, calls.backward)
    inner = [inspect.unwrap(getattr(each, "__func__", each)) for each in functions]
    tree = parse_file(inner[0])
    if tree is None:
        return True
    defined = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    names = {*map(str, calls.roots["arguments"]), *(each.__name__ for each in inner)}
    reached = [*list_reached(defined, names), *(n for n in defined if n.name == "__init__")]
    inside = {id(node) for each in reached for node in ast.walk(each)}
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
    return any(name in kept for node in nodes for name in list_set(node))


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
                called = (n for n in ast.walk(each) if isinstance(n, ast.Call))
                waiting += [find_name(node.func) for node in called]


def list_set(node: ast.AST) -> Iterator[str]:
    """List the attributes that a node sets, deletes or changes by a method of theirs."""
    if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
        yield node.attr
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        yield find_name(node.value)
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Attribute):
            yield node.func.value.attr
        if find_name(node.func) in ("setattr", "delattr") and len(node.args) > 1:
            name = node.args[1]
            yield str(name.value) if isinstance(name, ast.Constant) else ""
