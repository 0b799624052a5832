"""Calls of the user's code with given parameters, each on copies of everything that it uses."""

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import update_wrapper
from types import CodeType, MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.program.attempt import CodeRaisedError, Failure, attempt, message_of
from bptt_verifier.program.data_names import find_kind
from bptt_verifier.program.gradient_names import find_gradients
from bptt_verifier.program.gradient_use import adds_to_gradients, find_assigned, find_updated
from bptt_verifier.program.leaves import Keys, convert_like, flatten, name_leaf, walk
from bptt_verifier.program.own_globals import find_globals, set_globals
from bptt_verifier.program.own_results import PARAMS, hold_same, is_float_array
from bptt_verifier.program.own_updates import record_locals
from bptt_verifier.program.shared_memory import find_numbers, find_shared, is_array, is_inside
from bptt_verifier.program.source_file import RecordedCall, copy_deeply
from bptt_verifier.program.torch_tensors import (
    clear_gradients,
    copy_array,
    find_torch,
    to_array,
)

VECTORS = frozenset("params parameters theta weights".split())
# At other values than those given: these times the entries, and added to them, as they may be zero.
MOVED, SHIFTED = 0.75, 0.0625

Run = Callable[[dict[str, Any], Any], dict[str, Any]]


class ArrayPlace(NamedTuple):
    """A float array that may be a parameter: its root, its path in that, and the array itself.

    `keys` is the path by which its gradient is found, without the name of a `params`.
    """

    root: str
    path: Keys
    keys: Keys
    array: Any


class Calls:
    """Calls of the user's code with given parameters, each on copies of all that it uses.

    `roots` are its object, arguments and globals. Parameters are the arrays of `places`, which are
    replaced wherever they occur in the roots, or the argument named `structure`.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        roots: Mapping[str, Any],
        structure: str = "",
    ) -> None:
        self.name, self.function, self.backward = name, function, function
        # A pair of functions is an object without arrays; each has arguments of its own.
        self.pair = isinstance(roots.get("self"), SimpleNamespace)
        self.run: Run = lambda roots, xp: roots  # the code, with its roots, to results
        self.weighted = False  # the loss is the sum of outputs times random weights
        self.recorded: CodeType | None = None  # the function whose local variables are recorded
        self.moved: dict[str, Any] = {}  # what a call subtracts from each parameter
        self.places: dict[str, ArrayPlace] = {}
        self.aliases = dict[int, list[tuple[str, ArrayPlace]]]()  # several places of one array
        self.later: list[str] = []  # why there was no later call, of each one asked for
        self.left_out: tuple[str, ...] = ()  # arrays whose gradients are returned, not compared
        self.adds = find_torch() is not None and adds_to_gradients(function)
        self.structure = structure
        self.roots: dict[str, Any] = copy_all(roots, {})  # the user's may change meanwhile

    @property
    def params(self) -> Any:
        """The parameters given."""
        if self.structure:
            return self.roots["arguments"][self.structure]
        return {name: copy_array(place.array) for name, place in self.places.items()}

    @property
    def leaves(self) -> dict[str, Keys]:
        """The paths of the parameters' leaves, by name."""
        if not self.structure:
            return {name: place.keys for name, place in self.places.items()}
        tree, paths = flatten(self.params), [path for path, _ in walk(self.params, (), ())]
        named = {name_leaf(path, tree.keys): path for path in paths}
        return {name: named[name] for name in tree.leaves}

    def copy_roots(self, params: Any) -> dict[str, Any]:
        """Copy the roots, with these parameters in the place of the given ones."""
        if self.structure:
            given = dict(walk(self.params, (), ()))
            pairs = ((given.get(path), value) for path, value in walk(params, (), ()))
            memo = {id(old): value for old, value in pairs if is_array(old)}  # for views of them
            return copy_all(self.roots, memo | {id(self.params): params})
        memo = {id(self.places[name].array): value for name, value in params.items()}
        return copy_all(self.roots, memo)

    def make(self, run: Run) -> Callable[..., Any]:
        """Make the function of parameters that runs the code; it returns roots and results."""

        def call(params: Any, xp: Any = np) -> dict[str, Any]:
            return self.run_on(run, self.copy_roots(params), xp)

        return present(call, self.function)

    def run_on(self, run: Run, roots: dict[str, Any], xp: Any = np) -> dict[str, Any]:
        """Run the code on these roots; return them with its results."""
        if self.adds:
            clear_gradients(value for _, value in walk(roots, (), ()))
        given = roots.get("globals", {})
        recording = record_locals(self.recorded)
        with set_globals(self.function, given) as space, recording as seen:
            found = run(roots, xp)
            after = {name: space[name] for name in given}
            return roots | found | {"globals": after, "locals": seen}

    def attempt(self, call: Callable[..., Any]) -> dict[str, Any]:
        """Call the code with the parameters given. Raises CodeRaisedError where it raises."""
        found = attempt(call, copy_deeply(self.params, {}))
        if isinstance(found, Failure):
            raise CodeRaisedError(f"{self.name} raised {found.what} at {found.where}")
        return found  # type: ignore[no-any-return]

    def find_chosen_inputs(self, names: Collection[str]) -> dict[str, ArrayPlace]:
        """Find the float arrays of these names among the arguments of an object's methods."""
        found = dict[str, ArrayPlace]()
        for path, value in walk(self.roots["arguments"], (), ()) if names else ():
            name = name_leaf(path[1:], False)  # the first key is the method
            if name in names and is_float_array(value):
                found.setdefault(name, ArrayPlace("arguments", path, path[1:], value))
        return found

    def list_places(
        self, call: Callable[..., Any], updates: bool, chosen: Collection[str] = ()
    ) -> dict[str, ArrayPlace]:
        """List the float arrays in the object, the globals and the arguments.

        An argument that is chosen, or a vector with the name of parameters, comes before all.
        An attribute that a call sets anew is a state of the object, and is left out, unless it is
        computed from itself, as a parameter is, or set by `setattr`, which may be an update. So is
        one that a call changes, unless it may update parameters.
        """
        found = dict[str, ArrayPlace]()
        arguments = {} if self.pair else self.roots["arguments"]
        functions = self.pair or "self" not in self.roots
        vectors = {n: v for n, v in arguments.items() if n in VECTORS and is_vector(v)}
        vectors = {n: arguments[n] for n in chosen if is_array(arguments.get(n))} or vectors
        alone = vectors and vectors.keys() >= {*chosen}
        if vectors:
            found = {n: ArrayPlace("arguments", (n,), (n,), v) for n, v in vectors.items()}
        for root in () if alone else ("self", "globals", "arguments"):
            if root in self.roots and (root != "arguments" or functions or not found):
                given = self.roots[root]
                given = (
                    {"forward": given["forward"]} if self.pair and root == "arguments" else given
                )
                for path, value in walk(given, (), ()):
                    keys = path[1:] if self.pair and root == "arguments" else path
                    named = len(keys) > 1 and isinstance(keys[1], str)  # not in a list of weights
                    keys = keys[1:] if named and keys[0] in PARAMS else keys
                    place = ArrayPlace(root, path, keys, value)
                    if is_float_array(value):
                        found.setdefault(name_leaf(keys, False), place)
        if not functions:
            found |= self.find_chosen_inputs({*chosen} - {*found})
        self.aliases = list_aliases(found)
        owners = find_owners(found)  # of views, which change as these do
        self.places = {name: place for name, place in found.items() if name not in owners}
        params = {name: copy_array(each.array) for name, each in self.places.items()}
        state = self.attempt(lambda _: call(params))
        now = dict(walk(state.get("self"), (), ()))
        buffers = self.find_overwritten(call, params)
        updated = find_updated(self.function) if updates else frozenset()
        assigned = find_assigned(self.function) if updates else None
        if assigned is not None:
            paths = [place.path for place in found.values() if place.root == "self"]
            updated |= {p[0] for p in paths if len(p) == 1 and not find_kind(p[0])} - assigned

        def is_kept(name: str, place: ArrayPlace) -> bool:
            held = now.get(place.path)
            if name in owners:
                return is_array(held) and np.may_share_memory(held, params[owners[name]])
            return held is params[name]

        def is_unchanged(name: str, place: ArrayPlace) -> bool:
            held = now.get(place.path) if name in owners else params[name]
            return np.array_equal(*map(to_array, (held, place.array)))

        return {
            name: place for name, place in found.items()
            if owners.get(name, name) not in buffers and (place.root != "self" or (
                (is_kept(name, place) or not updated.isdisjoint(place.path))
                and (updates or is_unchanged(name, place))
            ))
        }  # fmt: skip

    def find_overwritten(self, call: Callable[..., Any], left: Mapping[str, Any]) -> frozenset[str]:
        """Find the arrays of the object and the globals that a call fills, as a buffer of states.

        Such a buffer may hold the states of an earlier call already, so that a call leaves it as it
        was. So two further calls get other values: one in all arrays, which shows what is written,
        and one in the entries of one array that are. Where most entries of an array are left then
        as they are `left` at the values given, it is filled. Zeros do not count: a mask makes them.
        """
        inside = {n: p.array for n, p in self.places.items() if p.root in ("self", "globals")}
        moved = {n: MOVED * to_array(value) + SHIFTED for n, value in inside.items()}

        def leave(changed: Mapping[str, Any]) -> dict[str, Any] | None:
            given = {n: place.array for n, place in self.places.items()}
            changed = {n: convert_like(np.asarray(v), given[n]) for n, v in changed.items()}
            params = {n: copy_array(value) for n, value in (given | changed).items()}
            if isinstance(attempt(call, params), Failure):
                return None
            return {name: to_array(params[name]) for name in inside}

        after, filled = leave(moved), set[str]()
        if after is None:
            return frozenset()
        for name, value in inside.items():
            written = after[name] != moved[name]
            others = np.where(written, moved[name], to_array(value))
            again = leave({name: others}) if written.any() else None
            if again is not None:
                known = to_array(left[name])
                telling = written & (after[name] != known) & (moved[name] != to_array(value))
                if 2 * np.sum(telling & (again[name] == known) & (known != 0)) > np.sum(known != 0):
                    filled.add(name)
        return frozenset(filled)


def find_owners(places: Mapping[str, ArrayPlace]) -> dict[str, str]:
    """Find the name of the array of which each other one is a view, or a part."""
    found = dict[str, str]()
    for shared in find_shared([place.array for place in places.values() if is_array(place.array)]):
        members = {n: p.array for n, p in places.items() if id(p.array) in shared.members}
        owner = max(members, key=lambda name: (members[name].size, members[name] is shared.root))
        views = {n: v for n, v in members.items() if v is not members[owner]}
        found |= {n: owner for n, v in views.items() if np.may_share_memory(v, members[owner])}
    return found


def list_aliases(
    places: Mapping[str, ArrayPlace],
) -> dict[int, list[tuple[str, ArrayPlace]]]:
    """List the places of each array that has several, as in `self.params` and in a layer."""
    found = dict[int, list[tuple[str, ArrayPlace]]]()
    for name, place in places.items():
        found.setdefault(id(place.array), []).append((name, place))
    return {number: every for number, every in found.items() if len(every) > 1}


def prefer_returned(
    calls: Calls, places: Mapping[str, ArrayPlace], sources: Mapping[Keys, Keys]
) -> dict[str, ArrayPlace]:
    """Prefer, of the places of one array, the one by whose name a gradient is returned.

    A layer's `dW` may be a part of it alone, without that of a penalty. So it is of arrays that
    share memory: a view without a gradient changes with its array, and so does a part of it.
    """
    chosen = dict[str, ArrayPlace]()
    for name, place in places.items():
        others = {n: each for n, each in calls.aliases.get(id(place.array), ()) if n != name}
        keys = {n: each.keys for n, each in ({name: place} | others).items()}
        found = find_gradients(keys, sources) if others else {}
        returned = [n for n, path in found.items() if path[0] == "result"]
        own = name in returned or not returned
        chosen |= {name: place} if own else {returned[0]: others[returned[0]]}
    return leave_views_out(chosen, sources)


def leave_views_out(
    places: dict[str, ArrayPlace], sources: Mapping[Keys, Keys]
) -> dict[str, ArrayPlace]:
    """Leave out the arrays whose entries are those of others, of which a gradient is returned."""
    left_out = set[str]()
    for shared in find_shared([place.array for place in places.values() if is_array(place.array)]):
        members = {n: each for n, each in places.items() if id(each.array) in shared.members}
        found = find_gradients({n: each.keys for n, each in members.items()}, sources)
        for name, place in members.items():
            others = [members[n].array for n in found if n != name]
            if name in found:
                others = [each for each in others if is_inside(place.array, each)]
            own = find_numbers(place.array)
            if any(np.may_share_memory(own, find_numbers(each)) for each in others):
                left_out.add(name)
    return {name: place for name, place in places.items() if name not in left_out}


def describe_numbers(calls: Calls, is_meant: Callable[[str], bool], before: str = "") -> str:
    """Describe the numbers of Python that are meant as parameters, and are no arrays."""
    roots = calls.roots
    given = roots["arguments"]["forward"] if calls.pair else roots["arguments"]
    every = {**getattr(roots.get("self"), "__dict__", {}), **given}
    numbers = [n for n, value in every.items() if type(value) is float and is_meant(n)]
    if not numbers:
        return ""
    example = f"np.float64({every[numbers[0]]})"
    return f"{before}give {' and '.join(numbers)} as numbers of NumPy, such as {example}"


def is_vector(value: Any) -> bool:
    """True for a vector that may hold all parameters, as optimisers take them."""
    return is_float_array(value) and np.ndim(value) == 1


def copy_all(roots: Mapping[str, Any], memo: dict[int, Any]) -> dict[str, Any]:
    """Copy an object, arguments and globals; `memo` has what replaces some of them, by identity.

    Raises ValueError where they hold what Python cannot copy.
    """
    try:
        return dict(copy_deeply(dict(roots), memo))
    except Exception as error:
        raise ValueError(
            f"FILE: expected an object and arguments that can be copied for every call: "
            f"{message_of(error)}"
        ) from error


def present(call: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """Present a function of (params, xp) as one around the user's, whose lines failures name."""
    inner = inspect.unwrap(getattr(function, "__func__", function))
    update_wrapper(call, inner, ("__name__", "__qualname__", "__doc__"), ())
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ("params", "xp") if takes_xp(function) else ("params",)
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def takes_xp(function: Callable[..., Any]) -> bool:
    """True if a function takes the array namespace as `xp`."""
    return "xp" in inspect.signature(function).parameters


def find_arguments(
    function: Callable[..., Any],
    name: str,
    call: RecordedCall | None,
    left: Collection[str] = (),
    shared: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Find the arguments for calls of a function: recorded ones, or globals of the same names.

    The only global with a usual name of parameters, as `params`, is what another such argument, as
    `p`, gets. Those in `left` are left out. Arrays that equal those of another function in `shared`
    are the same objects, so that both are replaced together. Raises ValueError where one without a
    default is missing.
    """
    signature = attempt(inspect.signature, function)
    if isinstance(signature, Failure):
        raise ValueError(f"{name}: expected a function written in Python")
    found, missing, space = dict[str, Any](), list[str](), find_globals(function)
    for each in signature.parameters.values():
        if each.name in left:
            continue
        if call is not None and each.name in call.arguments:
            value = call.arguments[each.name]
            same = each.name in shared and hold_same(shared[each.name], value)
            same = same and any(is_float_array(inner) for _, inner in walk(value, (), ()))
            found[each.name] = shared[each.name] if same else value
        elif each.name in shared:
            found[each.name] = shared[each.name]
        elif each.default is each.empty and each.kind not in (
            each.VAR_POSITIONAL,
            each.VAR_KEYWORD,
        ):
            named = [name for name in PARAMS if name in space] if each.name in PARAMS else []
            if each.name in space:
                found[each.name] = space[each.name]
            elif len(named) == 1:
                found[each.name] = space[named[0]]
            elif each.name != "xp":
                missing.append(each.name)
    if missing:
        shown = f"{name.rpartition('.')[2]}({', '.join(signature.parameters)})"
        raise ValueError(
            f"{name}: expected a call of it in the file, or variables named as its arguments, "
            f"found none for {', '.join(missing)}; call it once at the end of the file, "
            f"with data of the shapes that it takes: {shown}"
        )
    return found


def call_with(function: Callable[..., Any], arguments: Mapping[str, Any], xp: Any) -> Any:
    """Call a function with arguments by name, and with `xp` if it takes that."""
    signature = inspect.signature(function)
    given = dict(arguments) | ({"xp": xp} if takes_xp(function) else {})
    ordered: Any = {name: given[name] for name in signature.parameters if name in given}
    bound = inspect.BoundArguments(signature, ordered)
    return function(*bound.args, **bound.kwargs)
