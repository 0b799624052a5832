"""Derivatives that a loss states itself: stopped gradients, and rules of its own.

`stop_gradient` and `detach` state that a value is a constant where the loss is differentiated, and
`custom_jvp` and `custom_vjp` state a derivative, as that of a straight-through estimator. The loss
then has another derivative than its values, and the stated one is meant. A second opinion is asked
of the function in which the stopped values stay what they are at the point. A rule of its own
may as well be a mistake: what disagrees with it is wrong by the loss as stated, and what agrees is
inconclusive.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import attempt, copies
from bptt_verifier.program.call_events import watch_calls
from bptt_verifier.program.trace import Program, forward

STOP = "stop_gradient"
RULES = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
STATING = frozenset(
    inspect.unwrap(function).__code__
    for function in (jax.lax.stop_gradient, jax.custom_jvp.__call__, jax.custom_vjp.__call__)
)

LISTED = 3  # places in a sentence
UNCONFIRMED = (
    "differences of its values contradict it, so that a gradient that agrees with it may be wrong "
    "as it is: state what is meant with stop_gradient, as x + stop_gradient(f(x) - x)."
)

Point = Mapping[str, Array]


def states_stops(program: Program) -> bool:
    """True if a program stops gradients, at places where the values can be held constant."""
    return any(each.name == STOP for each in program.operations)


def states_rules(program: Program) -> bool:
    """True if a part of a program has a derivative of its own, or a loop stops gradients inside."""
    inside = (name for each in program.operations for name in name_inner(each.params))
    own = any(each.name in RULES for each in program.operations)
    return own or any(name == STOP or name in RULES for name in inside)


def name_inner(params: Mapping[str, Any]) -> Iterator[str]:
    """Name the primitives in the bodies of an operation, such as those of a loop."""
    for each in params.values():
        for body in each if isinstance(each, tuple | list) else (each,):
            jaxpr = body.jaxpr if isinstance(body, ClosedJaxpr) else body
            if isinstance(jaxpr, Jaxpr):
                for equation in jaxpr.eqns:
                    yield equation.primitive.name
                    yield from name_inner(equation.params)


def hold_stopped(program: Program, point: Point) -> Callable[[Point], Any]:
    """Make the function whose stopped values stay what they are at a point; it is real."""
    values = forward(program, point)
    stops = [each for each in program.operations if each.name == STOP]
    constants = {slot: values[slot][0] for each in stops for slot in each.outputs}
    kept = tuple(each for each in program.operations if each.name != STOP)
    held = program._replace(operations=kept, constants=program.constants | constants)

    def compute(params: Point) -> Any:
        if any(np.asarray(value).dtype != np.float64 for value in params.values()):
            return None  # the program is one of float64
        return np.reshape(forward(held, params)[held.result], ())[()]

    return compute


def is_stated(call: Callable[[], Any]) -> bool:
    """True if a call runs a function that states a derivative."""
    ran = set[Any]()

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call":  # there are many more events of C, each with the code of its caller
            ran.add(frame.f_code)

    with watch_calls(note):
        call()
    return not ran.isdisjoint(STATING)


def is_stated_in_numpy(loss: Callable[..., Any], point: Point) -> bool:
    """True if a loss that takes a namespace states a derivative when it is called with NumPy's."""
    return is_stated(lambda: attempt(loss, copies(point), np))


def list_stated(program: Program) -> str:
    """List the places at which a program states a derivative, after a word on what it states."""
    stops = [each for each in program.operations if each.name == STOP and each.where]
    rules = [each for each in program.operations if each.name in RULES and each.where]
    found = [*dict.fromkeys(each.where[0] for each in [*stops, *rules])]
    listed = ", ".join(f"`{place.expression}` ({place.at_column})" for place in found[:LISTED])
    states = "stops gradients" if stops or not rules else "has a derivative of its own"
    return f"{states} at {listed}" if listed else states


def describe_stated_in_jax(program: Program | None) -> str:
    """Describe a loss that takes a namespace, and states a derivative in JAX alone, if it does."""
    if program is None or not (states_stops(program) or states_rules(program)):
        return ""
    return (
        f" In JAX, the loss {list_stated(program)}, and in NumPy it does not: it is two functions "
        "with two derivatives. Let it call the same in both, as lax.stop_gradient takes arrays of "
        "NumPy, or take the parameters alone, loss(params)."
    )


def describe_stated(program: Program, by_autograd: bool) -> str:
    """Describe what the reference is of a loss that states its derivative."""
    states, library = list_stated(program), "jax.grad"
    if by_autograd:
        states, library = "stops gradients (`detach` or `no_grad`)", "torch.autograd"
    checked = (
        UNCONFIRMED
        if states_rules(program)
        else "differences confirm it with the stopped values held constant."
    )
    return (
        f"The loss {states}, and that is taken to be meant: the reference is its derivative by "
        f"{library}, not that of its values; {checked}"
    )
