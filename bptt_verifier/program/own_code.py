"""The user's own code as a loss and its gradients: one function that computes both.

Two shapes of functions are understood, and classes by `own_classes`:

1. `f(params, ...)` returns the loss and the gradients of the structure `params`.
2. `f(...)` returns the loss and the gradients, `dW` for `W`, of arrays that are global in its file,
   attributes of its object, or arguments.

The other arguments are those of the first call in the file, variables of the same names, or
defaults.
"""

import copy
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import update_wrapper
from types import CodeType, MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.program.attempt import (
    CodeRaisedError,
    Failure,
    attempt,
    find_code,
    message_of,
)
from bptt_verifier.program.gradient_names import (
    find_gradients,
    is_named_gradient,
    name_returned_values,
)
from bptt_verifier.program.leaves import (
    Keys,
    find_node,
    flatten,
    name_leaf,
    walk,
)
from bptt_verifier.program.own_globals import (
    find_globals,
    find_rates,
    find_used_globals,
    set_globals,
)
from bptt_verifier.program.own_results import (
    PARAMS,
    SHOWN,
    Results,
    are_equal,
    describe_result,
    find_loss,
    follow,
    is_float_array,
    list_items,
)
from bptt_verifier.program.own_updates import find_updating_variables, record_locals
from bptt_verifier.program.source_file import RecordedCall, copy_deeply
from bptt_verifier.program.torch_tensors import is_tensor

INPUTS = frozenset("x xs xt input inputs data h hs hprev h_prev c cprev c_prev s state".split())
VECTORS = frozenset("params parameters theta weights".split())


class OwnCode(NamedTuple):
    """A loss and gradients as functions of parameters, and what the code is taken for."""

    loss: Callable[..., Any]
    gradients: Callable[[Any], Any]
    params: Any
    said: str


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
        self.recorded: CodeType | None = None  # the function whose local variables are recorded
        self.moved: dict[str, Any] = {}  # what a call subtracts from each parameter
        self.places: dict[str, ArrayPlace] = {}
        self.structure = structure
        self.roots: dict[str, Any] = copy_all(roots, {})  # the user's may change meanwhile

    @property
    def params(self) -> Any:
        """The parameters given."""
        if self.structure:
            return self.roots["arguments"][self.structure]
        return {name: np.array(place.array) for name, place in self.places.items()}

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
            return copy_all(self.roots, {id(self.params): params})
        memo = {id(self.places[name].array): value for name, value in params.items()}
        return copy_all(self.roots, memo)

    def make(self, run: Callable[[dict[str, Any], Any], dict[str, Any]]) -> Callable[..., Any]:
        """Make the function of parameters that runs the code; it returns roots and results."""

        def call(params: Any, xp: Any = np) -> dict[str, Any]:
            roots = self.copy_roots(params)
            given = roots.get("globals", {})
            recording = record_locals(self.recorded)
            with set_globals(self.function, given) as space, recording as seen:
                found = run(roots, xp)
                after = {name: space[name] for name in given}
                return roots | found | {"globals": after, "locals": seen}

        return present(call, self.function)

    def attempt(self, call: Callable[..., Any]) -> dict[str, Any]:
        """Call the code with the parameters given. Raises CodeRaisedError where it raises."""
        found = attempt(call, copy.deepcopy(self.params))
        if isinstance(found, Failure):
            raise CodeRaisedError(f"{self.name} raised {found.what} at {found.where}")
        for part in ("forward", "loss", "result"):
            if any(is_tensor(each) for _, each in walk(found.get(part), (), ())):
                raise ValueError(
                    f"{self.name}: expected arrays of NumPy, found tensors of PyTorch; write "
                    "params, loss(params) and gradients(params) around them, of tensors or arrays"
                )
        return found  # type: ignore[no-any-return]

    def list_places(
        self, call: Callable[..., Any], updates: bool, chosen: Collection[str] = ()
    ) -> dict[str, ArrayPlace]:
        """List the float arrays in the object and the globals, or else in the arguments.

        An argument that is chosen, or a vector with the name of parameters, comes before all.

        An attribute that a call sets anew is a state of the object, and is left out, and so is one
        that it changes unless it may update parameters.
        """
        found = dict[str, ArrayPlace]()
        arguments = {} if self.pair else self.roots["arguments"]
        vectors = {n: v for n, v in arguments.items() if n in VECTORS and is_vector(v)}
        vectors = {n: arguments[n] for n in chosen if n in arguments} or vectors
        if vectors:
            found = {n: ArrayPlace("arguments", (n,), (n,), v) for n, v in vectors.items()}
        for root in () if vectors else ("self", "globals", "arguments"):
            if root in self.roots and (root != "arguments" or self.pair or not found):
                given = self.roots[root]
                given = (
                    {"forward": given["forward"]} if self.pair and root == "arguments" else given
                )
                for path, value in walk(given, (), ()):
                    keys = path[1:] if self.pair and root == "arguments" else path
                    keys = keys[1:] if len(keys) > 1 and keys[0] in PARAMS else keys
                    place = ArrayPlace(root, path, keys, value)
                    if is_float_array(value):
                        found.setdefault(name_leaf(keys, False), place)
        self.places, params = found, {name: np.array(each.array) for name, each in found.items()}
        state = self.attempt(lambda _: call(params))
        now = dict(walk(state.get("self"), (), ()))
        return {
            name: place for name, place in found.items()
            if place.root != "self" or (
                now.get(place.path) is params[name]
                and (updates or np.array_equal(params[name], place.array))
            )
        }  # fmt: skip


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
    """Present a function of (params, xp) as one around the user's, whose lines failures name.

    Functions around the result have it as their attribute `presented`; `__wrapped__` is the user's.
    """
    inner = inspect.unwrap(getattr(function, "__func__", function))
    update_wrapper(call, inner, ("__name__", "__qualname__", "__doc__"), ())
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ("params", "xp") if takes_xp(function) else ("params",)
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])
    call.__signature__ = signature  # type: ignore[attr-defined]
    call.presented = call  # type: ignore[attr-defined]
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

    Those in `left` are left out. Those that equal one of another function in `shared` are the same
    object, so that both are replaced together. Raises ValueError where one without a default is
    missing.
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
            same = each.name in shared and are_equal(shared[each.name], value)
            found[each.name] = shared[each.name] if same else value
        elif each.name in shared:
            found[each.name] = shared[each.name]
        elif each.default is each.empty and each.kind not in (
            each.VAR_POSITIONAL,
            each.VAR_KEYWORD,
        ):
            if each.name in space:
                found[each.name] = space[each.name]
            elif each.name != "xp":
                missing.append(each.name)
    if missing:
        raise ValueError(
            f"{name}: expected a call of it in the file, or variables named as its arguments, "
            f"found none for {', '.join(missing)}; call it once at the end of the file"
        )
    return found


def call_with(function: Callable[..., Any], arguments: Mapping[str, Any], xp: Any) -> Any:
    """Call a function with arguments by name, and with `xp` if it takes that."""
    signature = inspect.signature(function)
    given = dict(arguments) | ({"xp": xp} if takes_xp(function) else {})
    ordered: Any = {name: given[name] for name in signature.parameters if name in given}
    bound = inspect.BoundArguments(signature, ordered)
    return function(*bound.args, **bound.kwargs)


def read_function(
    function: Callable[..., Any], name: str, call: RecordedCall | None, chosen: Sequence[str] = ()
) -> OwnCode:
    """Read a function or method that returns the loss and the gradients.

    `chosen` are the names of the parameters, if they are not to be found by those of the gradients.
    Raises ValueError, with one sentence, where its arguments, loss or gradients cannot be found.
    """
    owner = getattr(function, "__self__", None)
    arguments = find_arguments(function, name, call)
    structure = find_structure(arguments, chosen) if owner is None else ""
    roots: dict[str, Any] = {"arguments": arguments}
    if owner is not None:
        roots["self"] = call.owner if call and call.owner is not None else owner
    elif not structure:
        roots["globals"] = find_used_globals(function)
    calls = Calls(name, function, roots, structure)

    method = getattr(function, "__name__", "")

    def run(roots: dict[str, Any], xp: Any) -> dict[str, Any]:
        bound = getattr(roots["self"], method) if "self" in roots else function
        return {"result": call_with(bound, roots["arguments"], xp)}

    whole = calls.make(run)
    state = calls.attempt(whole)
    names = name_returned_values(function, len(list_items(state["result"])))
    structures = [
        key
        for key, value in arguments.items()
        if find_node(value) and any(is_named_gradient(each, key) for each in names.values())
    ]
    if structure in structures[:-1]:  # each has a gradient named after it
        calls = Calls(name, function, {"arguments": arguments})
        whole = calls.make(run)
        state = calls.attempt(whole)
    loss = find_loss(state["result"], names)
    if loss is None:
        raise ValueError(
            f"{name}: expected the loss and the gradients, found "
            f"{describe_result(state['result'], names)}, without a scalar that could be the loss"
        )
    data = ", ".join(each for each in arguments if each != calls.structure)
    of_what = f" of {calls.structure}" if calls.structure else ""
    said = f"{name} is taken for a function that returns the loss and the gradients{of_what}"
    said += f", with the {data} of its first call in the file" if call and data else ""
    results = Results(state, names, ("result", *loss))
    return assemble(calls, whole, whole, results, chosen, said)


def assemble(
    calls: Calls,
    of_loss: Callable[..., Any],
    whole: Callable[..., Any],
    results: Results,
    chosen: Sequence[str],
    said: str,
) -> OwnCode:
    """Make the loss and the gradients of calls, by the names of the gradients or as chosen.

    `of_loss` runs the forward pass, and `whole` both passes.

    Raises ValueError where there are no gradients, or a name that is chosen is none of an array.
    """
    places = {} if calls.structure else calls.list_places(of_loss, of_loss is whole, chosen)
    leaves = calls.leaves if calls.structure else {n: place.keys for n, place in places.items()}
    wanted = [] if calls.structure and list(chosen) == [calls.structure] else [*chosen]
    unknown = [name for name in wanted if name not in leaves]
    if unknown:
        raise ValueError(
            f"--params: expected names of float arrays that {calls.name} uses, "
            f"{', '.join(leaves) or 'of which it has none'}, found {', '.join(unknown)}"
        )
    sources, ordered = results.spell(), results.list_in_order()
    found = find_gradients({n: leaves[n] for n in wanted} or leaves, sources)
    found = {
        n: path
        for n, path in found.items()
        if n in wanted or not is_of_part(leaves[n], path, places.get(n), results.state)
    }
    vector = not found and len(leaves) == len(ordered) == 1 and VECTORS.issuperset(leaves)
    if vector:
        wanted = [*leaves]
    if wanted and len(found) < len(wanted) <= len(ordered):
        found = dict(zip(wanted, ordered, strict=False))
    container = results.containers[0] if calls.structure and len(results.containers) == 1 else None
    if not found and not calls.structure:
        found = find_updates(calls, whole, {n: leaves[n] for n in wanted} or leaves, places)
        said += f"; the gradients are those by which {calls.backward.__name__} updates them"
    if not found and container is None:
        described = describe_result(results.state["result"], results.names)
        if calls.recorded is not None and any(map(np.any, calls.moved.values())):
            raise ValueError(
                f"{calls.name}: expected gradients, found {calls.backward.__name__} to update "
                "arrays by what is no usual first step of local variables such as "
                f"d{next(iter(leaves))}; let it return the gradients, or keep them in attributes"
            )
        raise ValueError(
            f"{calls.name}: expected the gradients of arrays that it uses, "
            f"{', '.join(leaves) or 'of which it has none'}, by names such as "
            f"d{next(iter(leaves), 'W')}, found {described}; name the parameters in the order of "
            "the gradients with --params"
        )
    if not calls.structure:
        calls.places = {name: places[name] for name in wanted or found}
        said += describe_parameters(calls.places, places, found)

    tree = flatten(calls.params)

    def own_copies(params: Any) -> Any:  # the code may update its own parameters
        arrays = tree.read(params).items()
        copies = {n: v.copy() if type(v) is np.ndarray else v for n, v in arrays}
        return tree.rebuild(copies) if calls.structure else copies

    def loss(params: Any, xp: Any = np) -> Any:
        return follow(of_loss(own_copies(params), xp), results.loss)

    def gradients(params: Any, xp: Any = np) -> Any:
        state = whole(own_copies(params), xp)
        inside = {name: follow(state, path) for name, path in found.items()}
        return follow(state, results.loss), inside or follow(state, ("result", *(container or ())))

    shown = present(loss, calls.function), present(gradients, calls.function)
    return OwnCode(*shown, calls.params, f"{said}.")


def is_of_part(
    leaf: Keys, source: Keys, place: ArrayPlace | None, state: Mapping[str, Any]
) -> bool:
    """True if a gradient is of a part of the inputs or of a state, such as that of the last x."""
    if place is None or str(leaf[-1]).rstrip("_0123456789").lower() not in INPUTS:
        return False
    return bool(np.shape(follow(state, source)) != np.shape(place.array))


def describe_parameters(
    chosen: Mapping[str, ArrayPlace],
    places: Mapping[str, ArrayPlace],
    gradients: Mapping[str, Keys],
) -> str:
    """Describe which arrays are parameters, and which are data."""
    paths = {*gradients.values()}
    data = [
        name
        for name, place in places.items()
        if name not in chosen and (place.root, *place.path) not in paths
    ]
    taken = f"; without a gradient, and taken for data: {', '.join(data[:SHOWN])}" if data else ""
    return f"; parameters: {', '.join(chosen)}{taken}"


def find_updates(
    calls: Calls,
    whole: Callable[..., Any],
    leaves: Mapping[str, Keys],
    places: Mapping[str, ArrayPlace],
) -> dict[str, Keys]:
    """Find the local variables by which a call updates the parameters, and record them."""
    calls.places, calls.recorded = {n: places[n] for n in leaves}, find_code(calls.backward)
    params = calls.params
    state = attempt(whole, {name: np.array(value) for name, value in params.items()})
    if isinstance(state, Failure):
        return {}
    moved = {n: params[n] - follow(state[places[n].root], places[n].path) for n in leaves}
    calls.moved = moved
    scopes = [calls.roots["arguments"], calls.roots.get("self"), find_rates(calls.function)]
    return find_updating_variables(calls.backward, leaves, state["locals"], moved, scopes)


def find_structure(arguments: Mapping[str, Any], chosen: Sequence[str]) -> str:
    """Find the argument that holds the parameters as a structure; empty if there is none."""
    if len(chosen) == 1 and chosen[0] in arguments:
        return chosen[0] if find_node(arguments[chosen[0]]) else ""
    holding = []
    for name, value in arguments.items():
        node = find_node(value)
        plain = isinstance(value, list | tuple) and not hasattr(value, "_fields")
        if node and (name in PARAMS or not plain):
            found = attempt(flatten, value)
            holding += [] if isinstance(found, Failure) else [name]
    return next((name for name in holding if name in PARAMS), next(iter(holding), ""))
