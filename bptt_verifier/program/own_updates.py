"""Gradients in local variables of code that updates its parameters and returns no gradients.

`self.W -= learning_rate * dW` states that `dW` is the gradient of W. A local variable is taken for
a gradient only if such an update confirms it in a call, with a factor that has the name of a rate
or is written in the update, as in `self.W -= 0.1 * dW`, or if the first step of a usual optimiser
does, with constants of the code.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import product
from types import CodeType, FrameType, MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.program.call_events import watch_calls
from bptt_verifier.program.gradient_names import find_gradients
from bptt_verifier.program.gradient_use import find_written_rates
from bptt_verifier.program.leaves import Keys, walk
from bptt_verifier.program.numpy_arrays import TracedArray
from bptt_verifier.program.own_results import follow
from bptt_verifier.program.torch_tensors import is_tensor, to_array

RATES = frozenset(
    "lr learning_rate learn_rate learningrate eta alpha rate step_size stepsize l_rate".split()
)
EXACT = 1e-9  # relative; an update rounds once
SMALL = 0.1  # the largest ε that is tried
Rule = Callable[[Any], Any]  # from a gradient to the first step of an optimiser


@contextmanager
def record_locals(code: CodeType | None) -> Iterator[dict[str, Any]]:
    """Record the arrays, and structures of them, among a function's variables when it returns."""
    seen: dict[str, Any] = {}

    def record(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is code:
            found = frame.f_locals.items()
            for name, value in found:
                copied = copy_numbers(value)
                if copied is not None:
                    seen[name] = copied

    with nullcontext() if code is None else watch_calls(record):
        yield seen


def copy_numbers(value: Any, depth: int = 0) -> Any:
    """Copy an array, or the arrays in a dict or list, by key or index; None if there are none.

    A local variable is one array, a dict or list of them, or a dict of lists, and no deeper.
    """
    if holds_numbers(value):
        return to_array(value).copy()
    if depth > 1 or not isinstance(value, dict | list):
        return None
    items = value.items() if isinstance(value, dict) else enumerate(value)
    copied = {key: copy_numbers(each, depth + 1) for key, each in items}
    return {key: each for key, each in copied.items() if each is not None} or None


def holds_numbers(value: Any) -> bool:
    """True for an array, traced or not, or a tensor."""
    return isinstance(value, np.ndarray | TracedArray) or is_tensor(value)


def find_updating_variables(
    function: Callable[..., Any],
    leaves: Mapping[str, Keys],
    seen: Mapping[str, Any],
    moved: Mapping[str, Any],
    scopes: Any,
    rounding: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, Keys]:
    """Find the local variables that are gradients: those by which a call updates the parameters.

    `moved` is what the call has subtracted from each parameter. The learning rate is a default of
    the function, a number in `scopes` or a factor that is written in the update, and so are the
    other constants, if they are not written elsewhere in the code. `rounding` bounds the rounding
    error of an updated entry, if EXACT does not.
    """
    found = find_gradients(leaves, {path: ("locals", *path) for path, _ in walk(seen, (), ())})
    moves = [
        Move(np.asarray(moved[n]), 1.0 * follow(seen, path[1:]), rounding.get(n, 0.0))
        for n, path in found.items()
    ]
    if any(np.shape(move.by) != move.slope.shape for move in moves):
        return {}
    defaults = {name: each.default for name, each in inspect.signature(function).parameters.items()}
    numbers = [
        (str(path[-1]).lower(), float(value))
        for path, value in walk({"defaults": defaults, "scopes": scopes}, (), ())
        if isinstance(value, int | float | np.floating) and 0 < value < np.inf
    ]
    named = [value for name, value in numbers if name in RATES]
    rates = dict.fromkeys([*named, *find_written_rates(function, RATES)])
    constants = {value for _, value in numbers} | find_constants(function)
    for rate in rates:
        for rule in list_rules(rate, constants):
            if confirms(rule, rate, moves):
                return found
    return {}


def find_constants(function: Callable[..., Any]) -> set[float]:
    """Find the floats written in a function, in other methods of its class and in its file."""
    owner = type(getattr(function, "__self__", None))
    near = [*getattr(inspect.unwrap(function), "__globals__", {}).values(), *vars(owner).values()]
    codes = [each.__code__ for each in (function, *near) if hasattr(each, "__code__")]
    every = {const for code in codes for const in code.co_consts}
    return {const for const in every if isinstance(const, float) and 0 < const < np.inf}


def list_rules(rate: float, constants: set[float]) -> Iterator[Rule]:
    """List the first steps of the usual optimisers, from accumulators that are zero.

    They are, with decays β and ρ: gradient descent and momentum, η g or η (1 − β) g; and Adagrad,
    RMSProp and Adam, η g over √(g² + ε) or |g| + ε, where (1 − ρ) may stand before g², and
    (1 − β) before g.
    """
    decays = [c for c in constants if 0.5 <= c < 1]
    yield lambda g: rate * g
    for beta in decays:
        yield partial(scale, rate * (1 - beta))
    for first, second in product([0.0, *decays], [0.0, *decays]):
        for small in (c for c in constants if c <= SMALL):
            for inside in (True, False):
                yield partial(divide, rate * (1 - first), 1 - second, small, inside)


def scale(factor: float, g: Any) -> Any:
    """The step of a multiple of the gradient."""
    return factor * g


def divide(factor: float, share: float, small: float, inside: bool, g: Any) -> Any:
    """The step of the gradient over its size."""
    return factor * g / (np.sqrt(share * g**2 + small) if inside else np.sqrt(share * g**2) + small)


class Move(NamedTuple):
    """What an update has subtracted from a parameter, and what may be its gradient.

    `rounding` bounds the rounding error of an updated entry.
    """

    by: Any
    slope: Any
    rounding: float

    def is_step(self, rule: Rule, rate: float, factor: float) -> bool:
        """True if the update is a rule of a multiple of the gradient."""
        # A rule rounds at most eight times.
        within = max(EXACT, 4 * float(np.finfo(self.slope.dtype).eps))
        step = rule(factor * self.slope)
        return bool(np.allclose(self.by, step, rtol=within, atol=EXACT * rate + self.rounding))


def confirms(rule: Rule, rate: float, moves: Sequence[Move]) -> bool:
    """True if the parameters have moved by a rule of these gradients, and of no multiple of them.

    A gradient over its size is almost the same for its double; then nothing tells their scale.
    """

    def fits(factor: float) -> bool:
        return all(move.is_step(rule, rate, factor) for move in moves)

    return any(np.any(move.slope) for move in moves) and fits(1.0) and not fits(2.0)
