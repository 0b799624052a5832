"""The user's own class as a loss and its gradients: `forward` and `backward` of an object.

The parameters are float arrays among its attributes that `forward` does not set. The gradients
are returned by `backward`, or left in attributes such as `dW` or `grads["W"]`. The loss is what
`forward` or a method `loss` returns. Where there is none and `backward` takes the gradient of what
`forward` returns, the loss is the sum of that output times fixed random weights.
"""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np

from bptt_verifier.program.gradient_names import name_returned_values
from bptt_verifier.program.leaves import Keys, find_children
from bptt_verifier.program.own_code import (
    Calls,
    OwnCode,
    assemble,
    call_with,
    find_arguments,
)
from bptt_verifier.program.own_results import (
    Results,
    describe_result,
    find_loss,
    follow,
    is_array,
    is_float_array,
    list_items,
)
from bptt_verifier.program.source_file import RecordedCall

FORWARD = ("forward", "forward_pass", "forward_propagation", "feedforward", "feed_forward")
BACKWARD = (
    "backward", "backward_pass", "backward_propagation", "back_propagation", "backpropagation",
    "backprop", "bptt",
)  # fmt: skip
LOSS = ("loss", "compute_loss", "calculate_loss", "calc_loss", "loss_function", "cost")
# How the argument of `backward` begins that is the gradient of the output of `forward`.
COTANGENT = ("d_", "dout", "dy", "dh", "dl_", "dz", "do", "ds", "dv", "grad", "delta", "upstream")


def find_methods(owner: Any) -> tuple[str, str, str] | None:
    """Find the names of forward, loss and backward of a class; that of the loss may be empty."""
    names = [next((n for n in each if callable(getattr(owner, n, None))), "")
             for each in (FORWARD, LOSS, BACKWARD)]  # fmt: skip
    return (names[0], names[1], names[2]) if names[0] and names[2] else None


def read_class(
    owner: Any, name: str, recorded: Mapping[str, RecordedCall], chosen: Sequence[str] = ()
) -> OwnCode:
    """Read an object with forward and backward, and its calls in the file by the method's name.

    Raises ValueError, with one sentence, where its arguments, loss or gradients cannot be found.
    """
    methods = find_methods(owner)
    if methods is None:
        raise ValueError(
            f"{name}: expected a class with methods forward and backward, or a function that "
            "returns the loss and the gradients"
        )
    forward, stated, backward = methods
    takes = [*signature(getattr(owner, backward)).parameters]
    cotangent = bool(takes) and not stated and takes[0].lower().startswith(COTANGENT)
    arguments = {
        each: find_arguments(getattr(owner, each), f"{name}.{each}", recorded.get(each))
        for each in (forward, stated, *(() if cotangent else (backward,))) if each
    }  # fmt: skip
    first = recorded.get(forward)
    self = first.owner if first is not None and first.owner is not None else owner
    calls = Calls(name, getattr(owner, forward), {"self": self, "arguments": arguments})
    calls.backward = getattr(owner, backward)
    fed: dict[tuple[str, str], Keys] = {}

    def call(roots: dict[str, Any], method: str, out: Any, xp: Any) -> Any:
        given = dict(roots["arguments"][method])
        given |= {n: follow(out, path) for (m, n), path in fed.items() if m == method}
        return call_with(getattr(roots["self"], method), given, xp)

    def run_forward(roots: dict[str, Any], xp: Any) -> dict[str, Any]:
        found = {"forward": call(roots, forward, None, xp)}
        if stated:
            found["loss"] = call(roots, stated, found["forward"], xp)
        return found

    def run(roots: dict[str, Any], xp: Any) -> dict[str, Any]:
        found = run_forward(roots, xp)
        return found | {"result": call(roots, backward, found["forward"], xp)}

    before = calls.attempt(
        calls.make(lambda roots, xp: {"forward": call(roots, forward, None, xp)})
    )
    fed |= find_fed(arguments, forward, before["forward"])
    of_loss = calls.make(run_forward)
    after = calls.attempt(of_loss)
    loss = find_stated_loss(owner, after, forward, stated)
    if loss is None and cotangent:
        path = find_output(after["forward"], recorded.get(backward), takes[0], f"{name}.{backward}")
        shape = np.shape(follow(after["forward"], path))
        weights = np.random.default_rng(0).normal(size=shape)
        calls.roots["arguments"][backward] = {takes[0]: weights}

        def weigh(roots: dict[str, Any], xp: Any) -> dict[str, Any]:
            found = run_forward(roots, xp)
            return found | {"loss": (follow(found["forward"], path) * weights).sum()}

        def weigh_and_run(roots: dict[str, Any], xp: Any) -> dict[str, Any]:
            found = weigh(roots, xp)
            return found | {"result": call(roots, backward, found["forward"], xp)}

        of_loss, loss, run = calls.make(weigh), ("loss",), weigh_and_run
    if loss is None:
        raise ValueError(
            f"{name}: expected {forward} or a method loss to return the loss, or {backward}(dout) "
            f"to take the gradient of what {forward} returns, found {forward} to return "
            f"{describe_result(after['forward'], {})} and {backward}({', '.join(takes)})"
        )
    whole = calls.make(run)
    state = calls.attempt(whole)
    names = name_returned_values(getattr(owner, backward), len(find_children(state["result"])))
    data = ", ".join(key for given in arguments.values() for key in given)
    said = f"{name} is taken for a class with {', '.join(filter(None, methods))}"
    said += f", called with {data}" if data else ""
    if cotangent and loss == ("loss",):
        said += f"; its loss is the sum of what {forward} returns times fixed random weights"
    return assemble(calls, of_loss, whole, Results(state, names, loss), chosen, said)


def find_stated_loss(
    owner: Any, state: Mapping[str, Any], forward: str, stated: str
) -> Keys | None:
    """Find the path of the loss in the results of forward, or of the method that computes it."""
    kind, method = ("loss", stated) if stated else ("forward", forward)
    names = name_returned_values(getattr(owner, method), len(find_children(state[kind])))
    path = find_loss(state[kind], names)
    return None if path is None else (kind, *path)


def find_fed(arguments: Mapping[str, Any], forward: str, out: Any) -> dict[tuple[str, str], Keys]:
    """Find the arguments of later methods that are outputs of forward, with their paths in it."""
    outputs = [((), out), *list_items(out)]
    return {
        (method, name): path
        for method, given in arguments.items() if method != forward
        for name, value in given.items()
        for path, output in outputs
        if is_array(output) and is_array(value) and np.size(value) > 1
        and np.array_equal(np.asarray(output), np.asarray(value))
    }  # fmt: skip


def find_output(out: Any, call: RecordedCall | None, name: str, method: str) -> Keys:
    """Find the output of forward whose gradient backward takes.

    Raises ValueError unless it is the one array among the outputs, or the one of that shape.
    """
    outputs = [(path, value) for path, value in [((), out), *list_items(out)]
               if is_float_array(value)]  # fmt: skip
    if call is not None and name in call.arguments:
        shape = np.shape(call.arguments[name])
        outputs = [(path, value) for path, value in outputs if np.shape(value) == shape]
    if len(outputs) != 1:
        raise ValueError(
            f"{method}: expected {name} to be the gradient of one array that forward returns, "
            f"found {describe_result(out, {})}; give the class a method loss that returns the loss"
        )
    return outputs[0][0]
