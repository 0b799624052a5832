"""The loss beside a method that returns gradients alone: `cost(x, y)` and `gradient(x, y)`.

Such a method runs the forward pass itself, and needs none before it. The loss is a method of the
same object by its name, called with the same arguments. It may be a loss of a list of sequences
where the gradients are those of one: then it is called with lists of one, as `loss([x], [y])`.

Several such methods, as of a sum and of a mean, are losses of the same file. The gradients are
those of the loss of which differences find the most of them right, and the report names it. Where
one can be called with lists, one gradient must be right: otherwise they may be of another loss.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.gradient_names import name_returned_values
from bptt_verifier.program.leaves import flatten
from bptt_verifier.program.own_calls import Calls, call_with, find_arguments
from bptt_verifier.program.own_classes import BACKWARD
from bptt_verifier.program.own_code import OwnCode, assemble
from bptt_verifier.program.own_data import find_doubts
from bptt_verifier.program.own_results import Results, find_loss, follow, list_items
from bptt_verifier.program.parameter_structures import find_structure
from bptt_verifier.program.source_file import RecordedCall
from bptt_verifier.program.torch_tensors import to_array
from bptt_verifier.program.written_arguments import is_constant

OF_LOSSES = ("loss", "cost", "objective", "error", "nll", "energy")  # in names of losses
OF_OTHERS = ("grad", "back", "deriv", "forward", "train", "fit", "step", "update", "bptt")
OF_GRADIENTS = ("gradient", "gradients", "grad", "grads")  # ends of names of such methods


class Loss(NamedTuple):
    """A method that is the loss, and how it is called: with the arguments, or with lists of one."""

    name: str
    parameters: Collection[str]
    in_lists: bool

    def __str__(self) -> str:
        """Write the call, as `loss([x], [y])`."""
        shown = [f"[{each}]" if self.in_lists else each for each in self.parameters]
        return f"{self.name}({', '.join(shown)})"

    def choose_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Choose its arguments among those of the gradients."""
        chosen = {n: arguments[n] for n in self.parameters}
        return {n: [v] for n, v in chosen.items()} if self.in_lists else chosen


def is_name_of_loss(name: str) -> bool:
    """True for the name of a method that returns a loss, and no gradients."""
    found = name.lower()
    return any(w in found for w in OF_LOSSES) and not any(w in found for w in OF_OTHERS)


def is_name_of_gradients(name: str) -> bool:
    """True for the name of a method that returns gradients."""
    return name in BACKWARD or name.lower().rpartition("_")[2] in OF_GRADIENTS


def list_losses(owner: Any, arguments: Mapping[str, Any]) -> Iterator[Loss]:
    """List the methods of an object that may be the loss, with the arguments that they get.

    They need no argument but those of the gradients.
    """
    names = [n for kind in reversed(type(owner).__mro__) for n in vars(kind)]
    found = [n for n in dict.fromkeys(names) if is_name_of_loss(n)]
    for in_lists in (False, True):
        for name in found:
            signature = attempt(inspect.signature, getattr(owner, name))
            if isinstance(signature, Failure):
                continue
            every = signature.parameters.values()
            needed = {each.name for each in every if each.default is each.empty}
            given = [n for n in signature.parameters if n in (needed if in_lists else arguments)]
            if needed and needed <= {*arguments}:
                yield Loss(name, given, in_lists)


def read_gradient_method(
    owner: Any, name: str, method: str, call: RecordedCall | None, chosen: Collection[str] = ()
) -> OwnCode | None:
    """Read a method that returns gradients, and the loss beside it; None where there is none.

    Raises ValueError, with one sentence, where its arguments cannot be found.
    """
    gradients = getattr(owner, method)
    arguments = find_arguments(gradients, f"{name}.{method}", call)
    owner = call.owner if call is not None and call.owner is not None else owner
    found = list[tuple[int, bool, OwnCode]]()
    of_lists = False  # a loss takes lists, and may take the arguments themselves for lists
    for loss in list_losses(owner, arguments):
        code = attempt(assemble_with, loss, owner, name, gradients, arguments, chosen)
        if not isinstance(code, Failure) and code is not None:
            params = flatten(code.params).leaves
            doubts = find_doubts(params, code.params, code.gradients, code.loss)
            found.append((len(doubts), len(doubts) < len(params), code))
            of_lists |= loss.in_lists
    found = [each for each in found if each[1] or not of_lists]
    return min(found, key=lambda each: each[0])[-1] if found else None


def assemble_with(
    loss: Loss,
    owner: Any,
    name: str,
    gradients: Callable[..., Any],
    arguments: Mapping[str, Any],
    chosen: Collection[str],
) -> OwnCode | None:
    """Assemble a method that returns gradients with a loss; None where that is no finite number."""
    calls = Calls(
        f"{name}.{gradients.__name__}", gradients, {"self": owner, "arguments": {**arguments}}
    )

    def run_loss(roots: dict[str, Any], xp: Any) -> dict[str, Any]:
        given = loss.choose_arguments(roots["arguments"])
        return {"loss": call_with(getattr(roots["self"], loss.name), given, xp)}

    def run(roots: dict[str, Any], xp: Any) -> dict[str, Any]:
        bound = getattr(roots["self"], gradients.__name__)
        return run_loss(roots, xp) | {"result": call_with(bound, roots["arguments"], xp)}

    of_loss, whole = calls.make(run_loss), calls.make(run)
    state = calls.attempt(whole)
    path = find_loss(state["loss"], {})
    if path is None or not np.isfinite(to_array(follow(state["loss"], path))):
        return None
    names = name_returned_values(gradients, len(list_items(state["result"])))
    said = f"{calls.name} is taken for a method that returns the gradients of {loss}"
    said += f", called with {', '.join(arguments)}" if arguments else ""
    calls.run = run
    results = Results(state, names, ("loss", *path))
    code = assemble(calls, of_loss, whole, results, [*chosen], said)
    return None if is_constant(code.loss, code.params) else code


def read_gradient_function(
    loss: Callable[..., Any],
    gradient: Callable[..., Any],
    name: str,
    call: RecordedCall | None,
    chosen: Sequence[str] = (),
) -> OwnCode:
    """Read a function that returns gradients of a structure, and the function that is the loss.

    The gradients of a list of arrays are in its order. Raises ValueError, with one sentence, where
    there is no such structure, or something else cannot be found.
    """
    arguments = find_arguments(gradient, gradient.__name__, call)
    structure = find_structure(arguments, chosen)
    if not structure:
        raise ValueError(f"{name}: expected a list or dict of arrays among the arguments")
    calls = Calls(name, gradient, {"arguments": arguments}, structure)
    taken = [n for n in inspect.signature(loss).parameters if n in arguments]

    def run_loss(roots: dict[str, Any], xp: Any) -> dict[str, Any]:
        return {"result": (call_with(loss, {n: roots["arguments"][n] for n in taken}, xp),)}

    def run(roots: dict[str, Any], xp: Any) -> dict[str, Any]:
        (value,) = run_loss(roots, xp)["result"]
        return {"result": (value, call_with(gradient, roots["arguments"], xp))}

    of_loss, whole = calls.make(run_loss), calls.make(run)
    state = calls.attempt(whole)
    value, slopes = state["result"]
    path = find_loss(value, {})
    if path is None:
        raise ValueError(f"{name}: expected {loss.__name__} to return the loss")
    inside = name_returned_values(gradient, len(list_items(slopes)))
    names = {(0,): "loss", (1,): "grads"} | {(1, *p): n for p, n in inside.items() if p}
    said = f"{name} are taken for a loss and its gradient of {structure}"
    calls.run = run
    results = Results(state, names, ("result", 0, *path))
    code = assemble(calls, of_loss, whole, results, chosen, said)
    if is_constant(code.loss, code.params):
        raise ValueError(f"{name}: expected a loss that depends on the parameters")
    return code


def read_or_beside(
    read: Callable[[], OwnCode],
    owner: Any,
    name: str,
    method: str,
    call: RecordedCall | None,
    chosen: Sequence[str],
) -> OwnCode:
    """Read code, or where that fails its method alone, with a loss beside that takes its arguments.

    Raises the ValueError of the first where the second is not to be had.
    """
    try:
        return read()
    except ValueError:
        code = attempt(read_gradient_method, owner, name, method, call, chosen)
        if code is None or isinstance(code, Failure):
            raise
        return code  # type: ignore[no-any-return]
