"""Arguments that one pass gets from another: outputs of forward or of the loss, and cotangents.

`backward(layers, caches, dout)` gets the caches from `forward` and `dout` from a loss that returns
its value with its own gradient, as in `loss, dout = mse(out, y)`. Without such a loss, `dout` is
the gradient of what `forward` returns, and any array can be given in its place.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import signature
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.data_names import STATES, find_kind
from bptt_verifier.program.gradient_names import is_named_gradient
from bptt_verifier.program.leaves import Keys, convert_like
from bptt_verifier.program.own_calls import Calls
from bptt_verifier.program.own_results import (
    are_equal,
    follow,
    is_float_array,
    is_number,
    list_items,
)
from bptt_verifier.program.source_file import RecordedCall
from bptt_verifier.program.torch_tensors import to_array

DRAWS = 8  # of parameters, to see which outputs are probabilities
# How the argument of `backward` begins that is the gradient of the output of `forward`.
COTANGENT = ("d_", "dout", "dy", "dh", "dl_", "dz", "do", "ds", "dv", "grad", "delta", "upstream")
ANY_OUTPUT = frozenset(
    "dout d_out doutput doutputs d_output dvalues grad gradient grads grad_out grad_output "
    "output_grad output_gradient upstream upstream_grad upstream_gradient".split()
)
PASSED = ("_in", "_arg", "_")  # ends of names of arguments, before which is that of a variable


class Outputs(NamedTuple):
    """What one pass returns, under the key of that pass in a state, and the names of its items."""

    key: str
    value: Any
    names: Mapping[Keys, str]

    def list_paths(self) -> dict[Keys, Any]:
        """List the items and the whole, by their paths in a state."""
        return {(self.key, *p): v for p, v in [*list_items(self.value), ((), self.value)]}

    def name(self, path: Keys) -> str:
        """Name the item at a path in a state; empty where it has no name."""
        return self.names.get(path[1:], "")


def find_fed(
    function: Callable[..., Any],
    recorded: RecordedCall | None,
    known: Collection[str],
    outputs: Outputs,
) -> dict[str, Keys]:
    """Find the arguments of a later function that are outputs of an earlier one, with their paths.

    In a recorded call they are equal to the outputs; otherwise they have the names of outputs, and
    are none of the `known` ones.
    """
    found, paths = {}, outputs.list_paths()
    for name in signature(function).parameters:
        if recorded is not None and name in recorded.arguments:
            value = recorded.arguments[name]
            same = [path for path, output in paths.items() if are_same(output, value)]
        else:
            same = [p for p in paths if outputs.name(p) == name and name not in known]
        if same:
            found[name] = same[0]
    return found


def find_slopes(
    function: Callable[..., Any], recorded: RecordedCall | None, outputs: Outputs
) -> dict[str, Keys]:
    """Find the cotangent among the arguments of backward that a loss returns beside its value.

    In a recorded call it is equal to it. Otherwise it is the only argument with such a name, and
    the only array that the loss returns.
    """
    arrays = {p: v for p, v in outputs.list_paths().items() if is_float_array(v) and np.ndim(v)}
    named = [n for n in signature(function).parameters if n.lower().startswith(COTANGENT)]
    if recorded is not None:
        fed = find_fed(function, recorded, (), outputs)
        return {n: p for n, p in fed.items() if p in arrays}
    return {named[0]: next(iter(arrays))} if len(named) == len(arrays) == 1 else {}


def are_same(output: Any, value: Any) -> bool:
    """True if an argument is an output: equal arrays, or a number that is equal by no chance."""
    if is_number(output) and is_number(value):
        one, other = (float(np.reshape(to_array(each), ())) for each in (output, value))
        return one == other and one != round(one, 6)
    return are_equal(output, value)


def remove_ending(name: str) -> str:
    """Remove the end of an argument's name that tells it from a variable, as in `dout_in`."""
    return next((name.removesuffix(end) for end in PASSED if name.endswith(end)), name)


def is_gradient_of_output(name: str, output: str) -> bool:
    """True if an argument is named as the gradient of an output, as `dh` of `h` or `hs`."""
    return any(is_named_gradient(name, each) for each in {output, output.removesuffix("s")} - {""})


def find_paths_by_name(
    name: str, outputs: Collection[Keys], named: Mapping[Keys, str]
) -> list[Keys]:
    """Find the outputs of which an argument is named as the gradient."""
    found = [p for p in outputs if is_gradient_of_output(name, named.get(p, ""))]
    short = remove_ending(name)
    return found or [p for p in outputs if is_gradient_of_output(short, named.get(p, ""))]


def is_probability(values: Sequence[Any]) -> bool:
    """True for an output that is always between 0 and 1, as of a softmax or sigmoid."""
    return all(np.all((value > 0) & (value < 1)) for value in map(to_array, values))


def is_of_operand(name: str, output: str, values: Sequence[Any]) -> bool:
    """True for an argument such as `delta_out` of an output that may be a tanh, relu or sigmoid.

    It may be the gradient of what that is computed from. A state of a network has no such name.
    """
    if not name.lower().startswith("delta") or find_kind(output) is STATES:
        return False
    arrays = [*map(to_array, values)]
    return all(np.all(abs(v) <= 1) for v in arrays) or all(np.all(v >= 0) for v in arrays)


def draw_outputs(calls: Calls, of_forward: Callable[..., Any]) -> list[Any]:
    """Compute what forward returns at random parameters, where it can be computed."""
    rng = np.random.default_rng(0)
    places = calls.list_places(of_forward, updates=False)
    given = {n: place.array for n, place in places.items()}
    drawn = [{n: draw_like(v, rng) for n, v in given.items()} for _ in range(DRAWS)]
    found = [attempt(of_forward, params) for params in drawn]
    return [each["forward"] for each in found if not isinstance(each, Failure)]


def draw_like(array: Any, rng: np.random.Generator) -> Any:
    """Draw an array or a tensor of the shape and dtype of another."""
    values = to_array(array)
    return convert_like(rng.normal(size=values.shape).astype(values.dtype), array)


def find_cotangents(
    function: Callable[..., Any],
    recorded: RecordedCall | None,
    drawn: Sequence[Any],
    named: Mapping[Keys, str],
) -> dict[str, Keys]:
    """Find the arguments of backward that are gradients of outputs of forward, with their paths.

    `drawn` are what forward returns, at the parameters given and at others.
    Each is named after its output, or has a name for any gradient, or its output has no name; then
    it has the shape or the place of that. Empty where this is not certain: the gradient called that
    of a softmax or sigmoid is often that of its operand.
    """
    out = drawn[0]
    outputs = {p: v for p, v in [((), out), *list_items(out)] if is_float_array(v)}
    taken = [
        name
        for name in signature(function).parameters
        if name.lower().startswith(COTANGENT)
        or any(
            is_gradient_of_output(each, named.get(path, ""))
            for path in outputs
            for each in (name, remove_ending(name))
        )
    ]
    found = {}
    for name in taken:
        short = remove_ending(name)
        paths = find_paths_by_name(name, outputs, named)
        if not paths:
            paths = [
                p for p in outputs if {name.lower(), short.lower()} & ANY_OUTPUT or not named.get(p)
            ]
            if recorded is not None and name in recorded.arguments:
                shape = np.shape(recorded.arguments[name])
                paths = [p for p in paths if np.shape(outputs[p]) == shape]
            elif len(outputs) == len(taken):
                paths = [p for p in paths if p == [*outputs][taken.index(name)]]
        values = [follow(each, paths[0]) for each in drawn] if len(paths) == 1 else []
        kept = named.get(paths[0], "") if values else ""
        if not values or is_probability(values) or is_of_operand(name, kept, values):
            return {}
        found[name] = paths[0]
    return found
