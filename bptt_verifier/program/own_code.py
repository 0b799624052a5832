"""The user's own code as a loss and its gradients: one function that computes both.

Two shapes of functions are understood, and classes by `own_classes`:

1. `f(params, ...)` returns the loss and the gradients of the structure `params`.
2. `f(...)` returns the loss and the gradients, `dW` for `W`, of arrays that are global in its file,
   attributes of its object, or arguments.

The other arguments are those of the first call in the file, variables of the same names, or
defaults.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.program.accumulated_gradients import describe_accumulated
from bptt_verifier.program.alike_structures import find_alike
from bptt_verifier.program.attempt import Failure, attempt, find_code
from bptt_verifier.program.carried_adjoints import find_carried, list_states
from bptt_verifier.program.data_names import is_parameter_name
from bptt_verifier.program.gradient_buffers import find_buffers, find_memories
from bptt_verifier.program.gradient_names import (
    find_gradients,
    is_named_gradient,
    name_returned_values,
)
from bptt_verifier.program.gradient_order import (
    read_in_order,
    require_one_each,
    require_order,
)
from bptt_verifier.program.gradient_use import carries, find_changed
from bptt_verifier.program.guessed_gradients import find_sure_guesses
from bptt_verifier.program.later_calls import call_again, describe_untried
from bptt_verifier.program.leaves import Keys, find_node, flatten, walk
from bptt_verifier.program.number_lists import (
    find_joined,
    find_list_arguments,
    find_list_parameters,
    join_at,
    join_left,
)
from bptt_verifier.program.number_parameters import find_returned_numbers, set_all
from bptt_verifier.program.own_calls import (
    VECTORS,
    ArrayPlace,
    Calls,
    call_with,
    describe_numbers,
    find_arguments,
    prefer_returned,
    present,
)
from bptt_verifier.program.own_data import (
    choose_parameters,
    describe_left_out,
    describe_parameters,
    find_data,
    find_doubts,
    find_left_out,
    find_returned,
    find_targets,
    find_wrong,
    is_initial,
    is_of_part,
    is_sure,
    list_arrays,
    require_gradients_of_alike,
    require_no_doubt,
    require_no_wrong_guess,
)
from bptt_verifier.program.own_globals import find_rates, find_used_globals
from bptt_verifier.program.own_results import (
    Results,
    are_equal,
    describe_result,
    find_loss,
    follow,
    holds_more_beside_loss,
    is_float_array,
    is_number,
    list_items,
)
from bptt_verifier.program.own_updates import find_updating_variables
from bptt_verifier.program.parameter_structures import (
    find_like_results,
    find_structure,
    name_by_argument,
)
from bptt_verifier.program.partial_names import Reading, read_ends_in_structure, read_partial_names
from bptt_verifier.program.source_file import RecordedCall
from bptt_verifier.program.torch_losses import follow_values
from bptt_verifier.program.torch_tensors import copy_array, is_tensor, to_array
from bptt_verifier.program.uncompared_results import (
    describe_dropped,
    describe_uncompared,
    list_beside,
)
from bptt_verifier.program.unnamed_gradients import (
    find_numbered,
    find_unnamed,
    match_unnamed,
    returns_no_gradient,
)
from bptt_verifier.program.written_arguments import is_constant, list_written


class OwnCode(NamedTuple):
    """A loss and gradients as functions of parameters, and what the code is taken for.

    `data` are the arrays that every call gets beside the parameters, by name.
    """

    loss: Callable[..., Any]
    gradients: Callable[[Any], Any]
    params: Any
    said: str
    data: Mapping[str, Any] = MappingProxyType({})


def read_function(
    function: Callable[..., Any], name: str, call: RecordedCall | None, chosen: Sequence[str] = ()
) -> OwnCode:
    """Read a function or method that returns the loss and the gradients.

    `chosen` are the names of the parameters, if they are not to be found by those of the gradients.
    Raises ValueError, with one sentence, where its arguments, loss or gradients cannot be found.
    """
    owner = getattr(function, "__self__", None)
    if (
        call is not None
        and call.owner is None
        and not any(is_float_array(value) for _, value in walk(owner, (), ()))
    ):
        owner = None  # a method of an object without arrays is a function
    arguments = find_arguments(function, name, call)
    structure = find_structure(arguments, chosen) if owner is None else ""
    roots: dict[str, Any] = {"arguments": arguments}
    if owner is not None:
        roots["self"] = call.owner if call and call.owner is not None else owner
    elif not structure:
        roots["globals"] = find_used_globals(function)
    calls, method = Calls(name, function, roots, structure), getattr(function, "__name__", "")

    def run(roots: dict[str, Any], xp: Any) -> dict[str, Any]:
        bound = getattr(roots["self"], method) if "self" in roots else function
        result = join_at(call_with(bound, roots["arguments"], xp), joined)
        join_left(roots.get("self"))
        return {"result": result}

    joined = frozenset[Keys]()
    whole = calls.make(run)
    state = calls.attempt(whole)
    names = name_returned_values(function, len(list_items(state["result"])))
    free = owner is None and not chosen
    alike = find_like_results(arguments, state["result"], names) if free else ()
    if len(alike) > 1 or (alike and not structure):
        return read_function(function, name, call, alike)
    lists = find_list_parameters(function, state["result"], names) if "globals" in roots else {}
    lists = {key: value for key, value in lists.items() if key not in arguments}
    listed = find_list_arguments(arguments, state["result"], names) if not structure else {}
    if lists or listed:  # the code gets arrays in the place of its lists
        roots["globals"] = roots.get("globals", {}) | lists
        arguments |= listed
    numbers = {} if structure else find_returned_numbers(calls, roots, state, names, run, chosen)
    if lists or listed or numbers:
        roots = set_all(roots, numbers)
        arguments = roots["arguments"]
        calls = Calls(name, function, roots, structure)
        whole = calls.make(run)
    joined = find_joined(state["result"], names, roots)
    state = calls.attempt(whole) if joined or numbers else state
    structures = [
        key
        for key, value in arguments.items()
        if find_node(value) and any(is_named_gradient(each, key) for each in names.values())
    ]
    if structure in structures[:-1]:  # each has a gradient named after it
        calls = Calls(name, function, {"arguments": arguments})
        whole = calls.make(run)
        state = calls.attempt(whole)
    used = {*arguments, *roots.get("globals", {}), *getattr(owner, "__dict__", {})}
    loss = find_loss(state["result"], names, used)
    if loss is None and holds_more_beside_loss(state["result"]):
        loss, names = (0, 0), {(0,): "aux", **names}
    if loss is None:
        remedy = f"; add a method that returns both, such as `return (LOSS, *self.{method}"
        remedy += f"({', '.join(arguments)}))`, call it at the end of the file, and name it, "
        remedy += f"FILE:{name.partition('.')[0]}.METHOD"
        raise ValueError(
            f"{name}: expected the loss and the gradients, found "
            f"{describe_result(state['result'], names)}, without a scalar that could be the loss"
            f"{'' if owner is None else remedy}"
        )
    data = ", ".join(each for each in arguments if each != calls.structure)
    said = f"{name} is taken for a function that returns the loss and the gradients"
    said += f" of {calls.structure}" if calls.structure else ""
    said += f", with the {data} of its first call in the file" if call and data else ""
    results = Results(state, names, ("result", *loss))
    calls.run = run
    code = assemble(calls, whole, whole, results, chosen, said)
    if is_constant(code.loss, code.params):
        written = [] if chosen else list_written(arguments, code.params)
        tried = [attempt(read_function, function, name, call, (each,)) for each in written]
        moved = [each for each in tried if not isinstance(each, Failure)]
        if len(moved) == 1:
            return moved[0]  # type: ignore[no-any-return]
        raise ValueError(
            f"{name}: expected a loss that depends on the parameters, found the same for others; "
            "let it call the forward pass, whose results of an earlier call do not change"
        )
    return code if chosen else compare_states(calls, code, results, said)


def compare_states(calls: Calls, code: OwnCode, results: Results, said: str) -> OwnCode:
    """Compare the adjoints of initial states that are arguments beside a structure, too.

    The code stays as it is unless all of its parameters and these states are compared then.
    """
    states = list_states(calls.roots["arguments"], calls.structure) if calls.structure else {}
    carried = find_carried(results, states, (), letterless=True)
    if not carried:
        return code
    every = Calls(calls.name, calls.function, {"arguments": calls.roots["arguments"]})
    every.run = calls.run
    whole = every.make(calls.run)
    found = attempt(lambda: assemble(every, whole, whole, results, (), said))
    number = len(flatten(code.params).leaves) + len(carried)
    more = not isinstance(found, Failure) and len(found.params) == number
    return found if more else code


def assemble(
    calls: Calls,
    of_loss: Callable[..., Any],
    whole: Callable[..., Any],
    results: Results,
    chosen: Sequence[str],
    said: str,
    targets: frozenset[str] = frozenset(),
) -> OwnCode:
    """Make the loss and the gradients of calls, by the names of the gradients or as chosen.

    `of_loss` runs the forward pass, and `whole` both passes. `targets` are arrays that are data,
    though their names do not tell.

    Raises ValueError where there are no gradients, or a name that is chosen is none of an array.
    """
    taken = said
    places = {} if calls.structure else calls.list_places(of_loss, of_loss is whole, chosen)
    leaves = calls.leaves if calls.structure else {n: place.keys for n, place in places.items()}
    wanted = [] if calls.structure and list(chosen) == [calls.structure] else [*chosen]
    if not calls.structure:
        wanted = [each for name in wanted for each in list_arrays(name, leaves)]
    unknown = [name for name in wanted if name not in leaves]
    if unknown:
        raise ValueError(
            f"--params: expected names of float arrays that {calls.name} uses, "
            f"{', '.join(leaves) or 'of which it has none'}, found {', '.join(unknown)}"
            f"{describe_numbers(calls, lambda name: name in unknown, '; ')}"
        )
    sources, ordered = results.spell(len(leaves)), results.list_in_order()
    if places and not wanted:
        places = prefer_returned(calls, places, sources)
        leaves = {n: place.keys for n, place in places.items()}
    found = find_gradients({n: leaves[n] for n in wanted} or leaves, sources)
    found = {
        n: path
        for n, path in found.items()
        if n in wanted or not is_of_part(leaves[n], path, places.get(n), results.state)
    }
    if places and not wanted:
        found |= find_by_path(places, found, sources, results.state)
        numbered = find_numbered({n: k for n, k in leaves.items() if n not in found}, results)
        found |= {n: path for n, path in numbered.items() if path not in found.values()}
        missing = {n: place for n, place in places.items() if n not in found}
        alike = find_alike(calls.backward, missing, results, calls.pair)
        found |= {n: path for n, path in alike.items() if path not in found.values()}
    guessed, by_part = frozenset[str](), Reading({})
    listed, outside = places, {n for n, place in places.items() if place.root != "arguments"}
    if places and not wanted:
        of_targets = {found.get(n) for n in targets}
        found = {n: path for n, path in found.items() if n not in targets}
        found = choose_parameters(found, places, calls.pair)
        found |= find_returned(places, found, results)
        memories = find_memories(places, found)
        others = {n: place for n, place in places.items() if n not in targets | memories}
        by_part = read_partial_names(calls, of_loss, others, found, results)
        found |= by_part.found
        found = found or find_unnamed(calls.backward, places, results, of_targets)
        if found or calls.pair:
            matched, guessed = match_unnamed(others, found, results, calls.pair)
            found |= matched
    if outside and not (calls.pair or wanted):
        places = {n: place for n, place in places.items() if n in outside or n in found}
        leaves = {n: leaves[n] for n in places}
    vector = not found and len(leaves) == len(ordered) == 1 and VECTORS.issuperset(leaves)
    if vector:
        wanted = [*leaves]
    if wanted and len(found) < len(wanted) <= len(ordered):
        found = dict(zip(wanted, ordered, strict=False))
    container = results.find_container(len(leaves)) if calls.structure else None
    in_list = bool(calls.structure) and all(isinstance(path[0], int) for path in leaves.values())
    buffers = frozenset[str]()
    if calls.structure:
        by_part = read_ends_in_structure(calls, found, results)
        found = read_in_order(calls.name, found | by_part.found, leaves, results)
        buffers = find_buffers(calls, leaves, found, lambda p: follow(of_loss(p), results.loss))
        leaves = {n: path for n, path in leaves.items() if n not in buffers}
    if container is not None:
        every = follow(results.state, ("result", *container))
        named = len(found) == len(leaves)
        require_one_each(calls.name, calls.params, every, calls.structure, named)
        container = None if in_list and not found and isinstance(every, Mapping) else container
    if not found and not calls.structure:
        found = find_updates(calls, whole, {n: leaves[n] for n in wanted} or leaves, places)
        said += f"; the gradients are those by which {calls.backward.__name__} updates them"
    names = name_by_argument(calls) if calls.structure else {}
    if buffers:
        said += f"; {', '.join(sorted(buffers))} hold gradients, and are no parameters"
        names = {
            n: name for n, name in (names or {n: n for n in calls.leaves}).items() if n in leaves
        }
    if not found and container is None:
        described = describe_result(results.state["result"], results.names)
        if calls.recorded is not None and any(map(np.any, calls.moved.values())):
            raise ValueError(
                f"{calls.name}: expected gradients, found {calls.backward.__name__} to update "
                "arrays, and no local variables with the names of their gradients that explain "
                "this by one learning rate, or in one usual step; let it return the loss and the "
                f"gradients, under names such as d{next(iter(leaves))}, or name the updated arrays "
                "with --params"
            )
        if in_list:
            raise ValueError(
                f"{calls.name}: expected the gradients of {', '.join(names.values() or leaves)}, "
                f"in a list in this order, found {described}; let it return loss, grads with such "
                "a list grads"
            )
        if returns_no_gradient(results) and calls.backward is calls.function:
            top, _, method = calls.name.partition(".")
            whole_code = f"the class, FILE:{top}" if method else f"both passes, FILE:{top},BACKWARD"
            only = "the loss alone" if is_number(results.state["result"]) else described
            raise ValueError(
                f"{calls.name}: expected the loss and the gradients of "
                f"{', '.join(leaves) or 'arrays that it uses'}, found {only}, and nothing named as "
                f"a gradient; let it return loss, grads, or name {whole_code}"
            )
        remedy = "hold the parameters in float arrays of NumPy, as np.array(W), not in lists"
        if leaves:
            remedy = "name the parameters in the order of the gradients with --params"
        numbers = describe_numbers(calls, lambda n: bool(find_gradients({n: (n,)}, sources)))
        raise ValueError(
            f"{calls.name}: expected the gradients of arrays that it uses, "
            f"{', '.join(leaves) or 'of which it has none'}, by names such as "
            f"d{next(iter(leaves), 'W')}, found {described}; {numbers or remedy}"
        )
    if not wanted:
        require_order(calls, leaves, found, container if in_list else None, results)
    if not calls.structure:
        calls.places = {name: places[name] for name in wanted or found}
    compared = [*found.values(), *([] if container is None else [("result", *container, "")])]
    left_out = find_left_out(calls, listed, sources, compared, results.state)
    calls.left_out = tuple(left_out)
    if not calls.structure:
        said += describe_parameters(calls.places, places, compared, left_out)
    said += by_part.said + describe_left_out(left_out)
    beside = listed or list_beside(calls.roots["arguments"], calls.structure)
    known = {*calls.places, *left_out, *find_memories(beside, found)}
    rest = {n: place for n, place in beside.items() if n not in known}
    layer = calls.pair and calls.weighted
    dropped = describe_dropped(results, compared, rest, layer)
    if dropped and not wanted:
        raise ValueError(f"{calls.name}: {dropped}")
    if not calls.structure and not wanted:
        require_gradients_of_alike(calls.name, calls.places, rest)
    said += f"; not compared: {dropped}" if dropped else ""
    beside_them = [*found.values()] or compared  # what else is in the structure of gradients
    said += describe_uncompared(results, [*beside_them, *left_out.values()])

    tree, returned_loss = flatten(calls.params), results.find_returned_loss()

    def own_copies(params: Any) -> Any:  # the code may update its own parameters
        copies = {
            n: v.clone() if getattr(v, "grad_fn", None) is not None  # autograd follows its copy
            else copy_array(v) if type(v) is np.ndarray or is_tensor(v) else v
            for n, v in tree.read(params).items()
        }  # fmt: skip
        return tree.rebuild(copies) if calls.structure else copies

    def read(params: Any) -> Any:
        if names:
            given = {name: params[names[name]] for name in names}
            params = tree.rebuild(dict(tree.leaves) | given)
        return own_copies(params)

    def loss(params: Any, xp: Any = np) -> Any:
        return follow(of_loss(read(params), xp), results.loss)

    def gradients(params: Any, xp: Any = np) -> Any:
        return take(whole(read(params), xp))

    def at_later_call(params: Any) -> Any:
        state = call_again(calls, read(params), results.loss, [*found.values()])
        return gradients(params) if state is None else take(state)

    def take(state: Any) -> Any:
        inside = {name: follow(state, path) for name, path in found.items()}
        result = inside or follow(state, ("result", *(container or ())))
        result = tree.read(result) if names else result
        if names and isinstance(result, Mapping):
            result = {names.get(name, name): value for name, value in result.items()}
        return follow(state, returned_loss), result

    unsure = [n for n, p in calls.places.items() if p.root == "arguments" and not wanted]
    changed = {*by_part.found, *(find_changed(calls.function) if unsure else ())}
    unsure = [
        n for n in unsure
        if n not in changed and (is_initial(n) or not is_parameter_name(n.rpartition(".")[2]))
    ]  # fmt: skip
    sure = [n for n in {**calls.places, **rest} if n not in unsure and is_sure(n, listed)]
    if sure and not calls.weighted:
        doubts = find_doubts(unsure, calls.params, gradients, loss)
        arguments = {} if calls.pair else calls.roots["arguments"]
        more = any(n not in calls.places and n not in arguments for n in listed)
        values = {n: results.name(path) for n, path in found.items()}
        slopes = [values[n] for n in found if n not in unsure]
        carried = [n for n in unsure if carries(calls.backward, values.get(n, ""), slopes)]
        targets = find_targets(doubts, arguments, calls.params, more, carried)
        if targets:
            return assemble(calls, of_loss, whole, results, chosen, taken, targets)
        wrong = find_wrong(doubts, arguments, calls.params)
        require_no_doubt(calls.name, [d for d in doubts if d.name not in wrong], sure)
    wrong_guesses = find_doubts(guessed, calls.params, gradients, loss)
    if wrong_guesses:
        paths = {each.name: found[each.name] for each in wrong_guesses}
        surely = find_sure_guesses(calls, whole, paths, listed, results)
        spelled = {n: results.name(path) for n, path in paths.items()}
        unsure_guesses = [d for d in wrong_guesses if d.name not in surely]
        require_no_wrong_guess(calls.name, unsure_guesses, spelled)
        names_of = ", ".join(sorted(surely))
        said += f"; a result without a name is taken for the gradient of {names_of}, by its shape"
    added = describe_accumulated(calls, found)
    shown = present(loss, calls.function), present(gradients, calls.function)
    for each in shown:
        follow_values(each)
    shown[1].of_parameters = shown[1]  # type: ignore[attr-defined]
    if "self" in calls.roots and not calls.pair:
        shown[1].at_later_call = at_later_call  # type: ignore[attr-defined]
        shown[1].describe_untried = partial(describe_untried, calls)  # type: ignore[attr-defined]
    given = tree.find_leaves(calls.params) if names else {}  # tensors stay tensors
    params = {name: given[n] for n, name in names.items()} if names else calls.params
    return OwnCode(*shown, params, f"{said}.{added}", find_data(calls, {*found.values()}))


def find_by_path(
    places: Mapping[str, ArrayPlace],
    found: Mapping[str, Keys],
    sources: Mapping[Keys, Keys],
    state: Mapping[str, Any],
) -> dict[str, Keys]:
    """Find the gradients of arrays by their whole paths, as `grads["p"]["W"]` of `self.p["W"]`.

    An array that is returned as it was given is no gradient.
    """
    missing = {
        n: place.path
        for n, place in places.items()
        if n not in found and place.root != "arguments" and place.path != place.keys
    }
    return {
        n: path
        for n, path in find_gradients(missing, sources).items()
        if path not in found.values() and not are_equal(follow(state, path), places[n].array)
    }


def find_updates(
    calls: Calls,
    whole: Callable[..., Any],
    leaves: Mapping[str, Keys],
    places: Mapping[str, ArrayPlace],
) -> dict[str, Keys]:
    """Find the local variables by which a call updates the parameters, and record them."""
    calls.places, calls.recorded = {n: places[n] for n in leaves}, find_code(calls.backward)
    params = calls.params
    state = attempt(whole, {name: copy_array(value) for name, value in params.items()})
    if isinstance(state, Failure):
        return {}
    after = {n: to_array(follow(state[places[n].root], places[n].path)) for n in leaves}
    moved = {n: np.subtract(to_array(params[n]), after[n], dtype=float) for n in leaves}
    # An update p - s rounds its result once, by half a unit of its last place.
    rounding = {n: float(np.max(np.abs(v)) * np.finfo(v.dtype).eps) for n, v in after.items()}
    calls.moved = moved
    scopes = [calls.roots["arguments"], calls.roots.get("self"), find_rates(calls.function)]
    return find_updating_variables(calls.backward, leaves, state["locals"], moved, scopes, rounding)
