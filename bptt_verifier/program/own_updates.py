"""Gradients in local variables of code that updates its parameters and returns no gradients.

`self.W -= learning_rate * dW` states that `dW` is the gradient of W. A local variable is taken for
a gradient only if such an update confirms it in a call, with a factor that has the name of a rate.
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import numpy as np

from bptt_verifier.program.gradient_names import find_gradients
from bptt_verifier.program.leaves import Keys, walk

RATES = frozenset(
    "lr learning_rate learn_rate learningrate eta alpha rate step_size stepsize l_rate".split()
)
EXACT = 1e-9  # relative; an update rounds once


@contextmanager
def record_locals(code: CodeType | None) -> Iterator[dict[str, Any]]:
    """Record the arrays among the local variables of a function when it returns."""
    seen: dict[str, Any] = {}

    def record(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is code:
            found = frame.f_locals.items()
            seen.update({n: v.copy() for n, v in found if isinstance(v, np.ndarray)})

    before = sys.getprofile()
    if code is not None:
        sys.setprofile(record)
    try:
        yield seen
    finally:
        if code is not None:
            sys.setprofile(before)


def find_updating_variables(
    function: Callable[..., Any],
    leaves: Mapping[str, Keys],
    seen: Mapping[str, Any],
    moved: Mapping[str, Any],
    scopes: Any,
) -> dict[str, Keys]:
    """Find the local variables that are gradients: those by which a call updates the parameters.

    `moved` is what the call has subtracted from each parameter. The learning rate is a default of
    the function or a number in `scopes`.
    """
    found = find_gradients(leaves, {(name,): ("locals", name) for name in seen})
    defaults = {name: each.default for name, each in inspect.signature(function).parameters.items()}
    rates = [
        float(value)
        for path, value in walk({"defaults": defaults, "scopes": scopes}, (), ())
        if str(path[-1]).lower() in RATES and isinstance(value, int | float | np.floating)
    ]
    confirmed = [
        all(
            np.shape(moved[name]) == seen[path[1]].shape
            and np.allclose(moved[name], rate * seen[path[1]], rtol=EXACT, atol=EXACT * rate)
            for name, path in found.items()
        )
        and any(np.any(seen[path[1]]) for path in found.values())
        for rate in rates
        if rate > 0
    ]
    return found if any(confirmed) else {}
