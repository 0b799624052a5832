"""The user's own class as a loss and its gradients: `forward` and `backward`, also as functions.

The parameters are float arrays among its attributes that `forward` does not set. The gradients
are returned by `backward`, or left in attributes such as `dW` or `grads["W"]`. The loss is what
`forward`, a method `loss` or `backward` returns, or what they leave in an attribute such as `loss`.
Where there is none and `backward` takes the gradient of what `forward` returns, the loss is the sum
of that output times fixed random weights. Inputs whose gradients `backward` then returns, as a
layer does, are parameters as well.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import CodeRaisedError, Failure, attempt
from bptt_verifier.program.data_names import TARGETS, find_kind
from bptt_verifier.program.gradient_names import name_returned_values
from bptt_verifier.program.layer_inputs import has_whole_gradients, name_input_gradient
from bptt_verifier.program.leaves import Keys, convert_like, walk
from bptt_verifier.program.number_lists import find_joined, join_at, join_left
from bptt_verifier.program.number_parameters import find_numbers, set_all, set_numbers
from bptt_verifier.program.own_calls import Calls, call_with, copy_all, find_arguments
from bptt_verifier.program.own_code import OwnCode, assemble
from bptt_verifier.program.own_data import find_doubts, require_no_wrong_guess
from bptt_verifier.program.own_globals import find_used_globals
from bptt_verifier.program.own_results import (
    LOSSES,
    Results,
    are_equal,
    describe_result,
    equal_arrays,
    find_loss,
    follow,
    hold_same,
    is_array,
    is_number,
    list_items,
)
from bptt_verifier.program.own_updates import RATES
from bptt_verifier.program.passed_arguments import (
    COTANGENT,
    Outputs,
    are_same,
    draw_outputs,
    find_cotangents,
    find_fed,
    find_slopes,
)
from bptt_verifier.program.source_file import RecordedCall
from bptt_verifier.program.torch_tensors import to_array, to_constant
from bptt_verifier.program.unnamed_cotangents import ERRORS, KnownPasses, read_by_structure

FORWARD = (
    "forward", "forward_pass", "forward_propagation", "feedforward", "feed_forward", "forward_prop",
    "forwardprop", "fprop", "fwd", "__call__",
)  # fmt: skip
BACKWARD = (
    "backward", "backward_pass", "backward_propagation", "back_propagation", "backpropagation",
    "backprop", "bptt", "backward_prop", "back_prop", "backpropagate", "back_propagate",
    "back_pass", "bprop", "bwd", "back",
)  # fmt: skip
LOSS = ("loss", "compute_loss", "calculate_loss", "calc_loss", "loss_function", "cost")


PREDICTIONS = frozenset(
    "y yhat y_hat ypred y_pred pred preds prediction predictions out output outputs o logit logits "
    "score scores p prob probs h z".split()
)


def find_methods(owner: Any) -> tuple[str, str, str] | None:
    """Find the names of forward, loss and backward of a class; that of the loss may be empty."""
    kind = owner if isinstance(owner, type) else type(owner)
    known = {n for each in kind.__mro__ for n in vars(each)} | {*getattr(owner, "__dict__", ())}
    names = [next((n for n in each if n in known and callable(getattr(owner, n, None))), "")
             for each in (FORWARD, LOSS, BACKWARD)]  # fmt: skip
    return (names[0], names[1], names[2]) if names[0] and names[2] else None


def read_pair(
    functions: Sequence[Callable[..., Any]],
    name: str,
    recorded: Sequence[RecordedCall | None],
    chosen: Sequence[str] = (),
) -> OwnCode:
    """Read the functions forward and backward, or forward, loss and backward, with their calls."""
    kinds = ("forward", "backward") if len(functions) == 2 else ("forward", "loss", "backward")
    calls = {kind: call for kind, call in zip(kinds, recorded, strict=True) if call is not None}
    return read_class(
        SimpleNamespace(**dict(zip(kinds, functions, strict=True))), name, calls, chosen
    )


def read_class(
    owner: Any, name: str, recorded: Mapping[str, RecordedCall], chosen: Sequence[str] = ()
) -> OwnCode:
    """Read an object with forward and backward, and its calls in the file by the method's name.

    Raises ValueError, with one sentence, where its arguments, loss or gradients cannot be found.
    """
    read = partial(read_passes, owner, name, recorded, chosen)
    try:
        return read()
    except ValueError as error:
        passes = attempt(find_passes, owner, name, recorded)
        if passes is None or isinstance(passes, Failure):
            raise
        return read_by_structure(passes, read, error)


def find_passes(owner: Any, name: str, recorded: Mapping[str, RecordedCall]) -> KnownPasses | None:
    """Find what is known of both passes; None where forward returns the loss."""
    forward, stated, backward = find_methods(owner) or ("", "", "")
    functions = [getattr(owner, each) for each in (forward, backward)]
    first = recorded.get(forward)
    given = find_arguments(functions[0], f"{name}.{forward}", first or recorded.get(backward))
    known = owner if first is None or first.owner is None else first.owner
    roots = {"self": known, "arguments": {forward: given}}
    if isinstance(owner, SimpleNamespace):
        roots["globals"] = find_used_globals(functions[0])
    calls = Calls(name, functions[0], roots)

    def run(roots: dict[str, Any], xp: Any) -> dict[str, Any]:
        bound = getattr(roots["self"], forward)
        return {"forward": call_with(bound, roots["arguments"][forward], xp)}

    of_forward = calls.make(run)
    out = calls.attempt(of_forward)["forward"]
    names = name_returned_values(functions[0], len(list_items(out)))
    loss = find_loss(out, names)
    if loss is not None and {names.get(loss), *loss} & LOSSES:
        return None
    fed = find_fed(functions[1], recorded.get(backward), given, Outputs("forward", out, names))
    drawn = [out, *draw_outputs(calls, of_forward)]
    same = frozenset({*fed, *given})
    return KnownPasses(
        functions[0], functions[1], recorded.get(backward), drawn, names, same, bool(stated)
    )


def read_passes(
    owner: Any,
    name: str,
    recorded: Mapping[str, RecordedCall],
    chosen: Sequence[str] = (),
    assumed: Mapping[str, Keys] = MappingProxyType({}),
) -> OwnCode:
    """Read both passes of an object, with `assumed` cotangents or those that names tell.

    Raises ValueError, with one sentence, where its arguments, loss or gradients cannot be found.
    """
    methods = find_methods(owner)
    if methods is None:
        raise ValueError(
            f"{name}: expected a class with methods forward and backward, or a function that "
            "returns the loss and the gradients"
        )
    forward, stated, backward = methods
    functions = {each: getattr(owner, each) for each in methods if each}
    first = recorded.get(forward)
    outer = first or recorded.get(backward)  # which may call forward itself
    pair = isinstance(owner, SimpleNamespace)
    spelled = {m: f.__name__ if pair and hasattr(f, "__name__") else f"{name}.{m}"
              for m, f in functions.items()}  # fmt: skip
    given = find_arguments(functions[forward], spelled[forward], outer)
    roots: dict[str, Any] = {"self": owner, "arguments": {forward: given}}
    if outer is not None and outer.owner is not None:
        roots["self"] = outer.owner
    if pair:
        used = [find_used_globals(function) for function in functions.values()]
        roots["globals"] = {key: value for each in used for key, value in each.items()}

    def call(roots: dict[str, Any], method: str, found: dict[str, Any], xp: Any) -> Any:
        inside = dict(roots["arguments"][method])
        inside |= {n: follow(found, path) for n, path in fed.get(method, {}).items()}
        return call_with(getattr(roots["self"], method), inside, xp)

    def run_forward(roots: dict[str, Any], xp: Any) -> dict[str, Any]:
        found = {"forward": call(roots, forward, {}, xp)}
        if stated:
            found["loss"] = call(roots, stated, found, xp)
        if weights:
            pairs = ((follow(found["forward"], cotangents[n]), w) for n, w in weights.items())
            found["loss"] = sum((output * weight).sum() for output, weight in pairs)
        return found

    def run(roots: dict[str, Any], xp: Any) -> dict[str, Any]:
        found = run_forward(roots, xp)
        result = join_at(call(roots, backward, found, xp), joined)
        join_left(roots["self"])
        return found | {"result": result}

    joined = frozenset[Keys]()
    fed: dict[str, dict[str, Keys]] = {}
    cotangents: dict[str, Keys] = {}
    weights: dict[str, Any] = {}
    calls = Calls(name, functions[forward], roots)
    of_forward = calls.make(lambda r, xp: {"forward": call(r, forward, {}, xp)})
    out = calls.attempt(of_forward)["forward"]
    named = name_returned_values(functions[forward], len(list_items(out)))
    outputs = Outputs("forward", out, named)
    scalar = find_loss(out, named)
    sure = scalar is not None and bool({named.get(scalar), *scalar} & LOSSES)
    loss: Keys | None = None if scalar is None else ("forward", *scalar)
    for method in filter(None, (stated, backward)):
        # The file may call the loss after backward, with arguments of the same names.
        later = recorded.get(method, recorded.get(backward))
        slopes: dict[str, Keys] = {}
        own_loss = loss is not None and (sure or starts_at_loss(functions[method], later))
        if method == backward and stated:
            again = Calls(name, functions[forward], roots)
            state = attempt(again.make(run_forward), {})
            if not isinstance(state, Failure):
                returned = name_returned_values(functions[stated], len(list_items(state["loss"])))
                of_stated = Outputs("loss", state["loss"], returned)
                slopes = find_slopes(functions[method], recorded.get(method), of_stated)
        if method == backward and not (own_loss or slopes):
            drawn = [out, *draw_outputs(calls, of_forward)]
            cotangents = find_cotangents(functions[method], later, drawn, named)
        if method == backward:
            cotangents = dict(assumed) or cotangents
        fed[method] = find_fed(functions[method], later, given, outputs) | slopes
        fed[method] = {n: p for n, p in fed[method].items() if n not in cotangents}
        left = {*fed[method], *cotangents}
        arguments = find_arguments(functions[method], spelled[method], later, left, given)
        require_same_data(spelled[method], forward, arguments, given)
        known = [roots["self"], roots.get("globals"), out, *roots["arguments"].values()]
        roots["arguments"][method] = arguments
    if (
        scalar is not None
        and not sure
        and is_prediction(
            follow(out, scalar), named.get(scalar, ""), given, functions[backward], arguments
        )
    ):
        loss = None
    if cotangents:
        stated = functions.pop(stated, None) and ""
        rng = np.random.default_rng(0)
        pulled = {n: follow(out, path) for n, path in cotangents.items()}
        weights = {n: to_constant(rng.normal(size=np.shape(v)), v) for n, v in pulled.items()}
        roots["arguments"][backward] = arguments | weights
    calls = Calls(name, functions[forward], roots)
    calls.backward, calls.weighted = functions[backward], bool(cotangents)
    of_loss, whole = calls.make(run_forward), calls.make(run)
    if stated:
        try:
            found = calls.attempt(of_loss)["loss"]
        except CodeRaisedError as error:
            if stated in recorded:
                raise
            raise ValueError(
                describe_loss_call(name, stated, backward, arguments, error)
            ) from error
        path = find_loss(found, name_returned_values(functions[stated], len(list_items(found))))
        loss = loss if path is None else ("loss", *path)
    loss = ("loss",) if cotangents else loss
    entry = scalar is not None and np.ndim(to_array(follow(out, scalar))) > 0
    told = bool(sure or stated or cotangents) or (loss is not None and not entry)
    late = None if told else find_late_loss(whole, calls, functions[backward])
    if late is not None:
        of_loss, loss = whole, late
    if stated or late is not None:
        updates = late is not None
        require_dependence(calls, of_loss, loss, f"{name}.{stated or backward}", updates)
    if loss is None:
        raise ValueError(
            f"{name}: expected {forward}, {backward} or a method loss to return the loss, or to "
            f"leave it in self.loss, or {backward}(dout) to take the gradient of what {forward} "
            f"returns, found {forward} to return {describe_result(out, named)} and {backward}"
            f"({', '.join(signature(functions[backward]).parameters)})"
        )
    unproven = {n: v for n, v in arguments.items() if late is None or not is_target(n)}
    require_data(f"{name}.{backward}", unproven, known)
    state = calls.attempt(whole)
    names = name_returned_values(functions[backward], len(list_items(state["result"])))
    results = Results(state, names, loss)
    numbers = find_numbers(calls, roots, results, run, chosen)
    if numbers:
        unset = RecordedCall(None, {})  # its arguments are globals of the same names
        calls_of = {m: recorded.get(m, unset) for m in (*recorded, *roots["arguments"])}
        kept = {path: number for path, number in numbers.items() if path[0] == "self"}
        changed = {
            method: set_numbers(each, method, numbers)
            for method, each in calls_of.items()
            if method in recorded or any(path[:2] == ("arguments", method) for path in numbers)
        }
        whole_owner = set_all({"self": owner}, kept)["self"]
        return read_passes(whole_owner, name, changed, chosen, assumed)
    joined = find_joined(state["result"], names, roots)
    state = calls.attempt(whole) if joined else state
    listed = ", ".join(functions)
    said = f"{name} is taken for a class with {listed}"
    if calls.pair:
        said = f"{name} are taken for functions {listed}"
        if loss == ("forward",) and not any(fed.values()):
            said = f"{name} are taken for a loss and its gradient"
    said += f", called with {', '.join(given)}" if given else ""
    if cotangents:
        said += f"; the loss is the sum of what {forward} returns times fixed random weights"
    for argument, path in assumed.items():
        said += f"; {argument} is taken for the gradient of {describe_output(path, named)}"
    guessed = list[str]()
    if cotangents and not pair:
        owners = roots["self"], state["self"]
        unnamed = name_input_gradient(state["result"], names, given, *owners)
        guessed = [unnamed[1:]] if unnamed and not names.get(()) else []
        names = {**names, (): unnamed} if unnamed else names
        said += f"; what {backward} returns is taken for {unnamed}" if unnamed else ""
    results = Results(state, names, loss)
    calls.run = run
    code = assemble(calls, of_loss, whole, results, chosen, said)
    if calls.weighted and calls.left_out and not (chosen or calls.pair):
        layer = Calls(name, functions[forward], roots)
        layer.backward, layer.weighted, layer.run = calls.backward, True, run
        every = [*code.params, *calls.left_out]
        both = layer.make(run_forward), layer.make(run)
        found = attempt(lambda: assemble(layer, *both, results, every, said))
        whole_gradients = attempt(has_whole_gradients, found, calls.left_out)
        if not isinstance(found, Failure) and whole_gradients is True:
            calls, code = layer, found
            doubts = find_doubts(guessed, code.params, code.gradients, code.loss)
            require_no_wrong_guess(name, doubts, dict.fromkeys(guessed, ""))
    if first is not None and first.first is not None:
        require_one_call(code, calls, first.first, f"{name}.{forward}")
    return code


def describe_output(path: Keys, names: Mapping[Keys, str]) -> str:
    """Describe what forward returns at a path, by its name or its place."""
    place = f"what it returns at {path[0]!r}" if path else "what it returns"
    return names.get(path) or place


def is_real(value: Any) -> bool:
    """True for an array of floating-point numbers, or one of them."""
    return is_array(value) and np.asarray(to_array(value)).dtype.kind == "f"


def is_prediction(
    value: Any,
    name: str,
    given: Mapping[str, Any],
    backward: Callable[..., Any],
    arguments: Mapping[str, Any],
) -> bool:
    """True for a number that forward returns without a name of a loss, and that is surely none.

    Backward gets numbers that forward, `given` others, has not seen: a target, an error, or an
    array. Or forward has seen no target, and it is one entry of an array, as of a prediction with
    one output; or it has seen one, and the number has the name of a prediction.
    """
    parameters = signature(backward).parameters
    shown = [v for each in given.values() for _, v in walk(each, (), ()) if is_array(v)]
    unseen = any(
        n not in given
        and parameters[n].default is parameters[n].empty
        and n.lower() not in RATES
        and not n.lower().startswith(COTANGENT)
        and any(
            is_real(v)
            and (
                is_target(n)
                or n.lower() in ERRORS
                or (np.size(v) > 1 and not any(are_same(v, other) for other in shown))
            )
            for _, v in walk(each, (), ())
        )
        for n, each in arguments.items()
    )
    entry = np.ndim(to_array(value)) > 0 and bool(name)
    seen = any(find_kind(n) is TARGETS for n in given)
    return unseen or (name.lower() in PREDICTIONS if seen else entry)


def is_target(name: str) -> bool:
    """True for the name of targets, which are data, and not computed from the parameters."""
    return find_kind(name) is TARGETS and not name.lower().startswith(COTANGENT)


def find_late_loss(
    whole: Callable[..., Any], calls: Calls, backward: Callable[..., Any]
) -> Keys | None:
    """Find the loss that a backward pass returns, or that either pass leaves in an attribute.

    Nothing else may be the loss, so one that is returned needs no name. An attribute, such as the
    length L, is none if it is the same for all parameters.
    """
    state = attempt(whole, calls.params)
    if isinstance(state, Failure):
        return None
    names = name_returned_values(backward, len(list_items(state["result"])))
    scalar = find_loss(state["result"], names)
    if scalar is not None and names.get(scalar, "") in {*LOSSES, ""}:
        return ("result", *scalar)
    kept = vars(state["self"]) if hasattr(state["self"], "__dict__") else {}
    named = [("self", n) for n in sorted(LOSSES & kept.keys()) if is_number(kept[n])]
    return next((path for path in named if depends(calls, whole, path, updates=True)), None)


def describe_loss_call(
    name: str, stated: str, backward: str, arguments: Mapping[str, Any], error: Exception
) -> str:
    """Write the sentence on a loss that fails with the arguments of backward, and the remedy."""
    listed = ", ".join(arguments)
    failed = str(error).removeprefix(f"{name} raised ")
    return (
        f"{name}: expected {stated} to take the {listed} of {backward}, found {failed}; add a "
        f"method that returns both, such as `return (LOSS, *self.{backward}({listed}))`, where "
        f"LOSS is what {backward} differentiates, call it at the end of the file, and name it, "
        f"FILE:{name}.METHOD"
    )


def starts_at_loss(function: Callable[..., Any], recorded: RecordedCall | None) -> bool:
    """True if backward is given no gradient, or that of the loss itself, which is one."""
    parameters = signature(function).parameters
    given = {name: each.default for name, each in parameters.items()}
    given |= {} if recorded is None else recorded.arguments
    values = [given[name] for name in parameters if name.lower().startswith(COTANGENT)]
    return all(value is None or (is_number(value) and float(value) == 1) for value in values)


def require_same_data(
    name: str, forward: str, arguments: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    """Raise ValueError where a later function is called with other data than forward."""
    for key in arguments.keys() & given.keys():
        if not hold_same(arguments[key], given[key]):
            raise ValueError(
                f"{name}: expected a call with the same {key} as the call of {forward} before it, "
                "found another; call them one after the other with the same data, once, at the "
                "end of the file"
            )


def require_data(name: str, arguments: Mapping[str, Any], known: Sequence[Any]) -> None:
    """Raise ValueError where an argument may have been computed from the parameters elsewhere."""
    arrays = [to_array(v) for each in known for _, v in walk(each, (), ()) if is_array(v)]
    for key, given in arguments.items():
        for value in (to_array(each) for _, each in walk(given, (key,), ())):
            if value is None or not is_array(value) or np.asarray(value).dtype.kind != "f":
                continue
            one = np.size(value) == 1 and not key.lower().startswith(COTANGENT)
            if one or np.all(np.asarray(value) == 1):
                continue
            if not any(np.array_equal(value, other) for other in arrays):
                raise ValueError(
                    f"{name}: expected arguments that are data or outputs of the functions judged, "
                    f"found {key}, which is computed elsewhere; judge a function that calls all of "
                    "them, and returns the loss and the gradients"
                )


def require_one_call(code: OwnCode, calls: Calls, before: Any, name: str) -> None:
    """Raise ValueError where the gradients depend on earlier calls of forward by their states."""
    now, found = calls.roots, [attempt(code.gradients, code.params)]
    calls.roots = copy_all(now | {"self": before}, {})
    places = {n: follow(calls.roots[p.root], p.path) for n, p in calls.places.items()}
    kept = calls.places
    calls.places = {n: place._replace(array=places[n]) for n, place in kept.items()}
    found.append(attempt(code.gradients, code.params))
    calls.roots, calls.places = now, kept
    if not are_equal(*found):
        raise ValueError(
            f"{name}: expected one call before backward, found several that depend on one another; "
            "write a function that makes all of them, and returns the loss and the gradients"
        )


def require_dependence(
    calls: Calls, of_loss: Callable[..., Any], loss: Any, name: str, updates: bool
) -> None:
    """Raise ValueError where a loss, whose calls may have `updates`, is the same for others."""
    if loss is not None and not depends(calls, of_loss, loss, updates):
        raise ValueError(
            f"{name}: expected a loss that depends on the parameters, found the same for others; "
            "its arguments may be computed elsewhere: judge a function that calls all of them, and "
            "returns the loss and the gradients"
        )


def depends(calls: Calls, of_loss: Callable[..., Any], loss: Keys, updates: bool) -> bool:
    """Tell whether a loss is another one for other parameters."""
    places = calls.list_places(of_loss, updates)
    given = {n: place.array for n, place in places.items()}
    values = [
        {n: convert_like(np.asarray(by * to_array(v) + (by - 1)), v) for n, v in given.items()}
        for by in (1.0, 1.25)
    ]
    found = [attempt(lambda p=p: follow(of_loss(p), loss)) for p in values]
    return attempt(equal_arrays, *found) is not True
