"""Run a module of `manual_bptt` at one point, on numbers of any kind.

Also checks that `gradients` and the two sweeps give the same results, and that no function modifies
its arguments.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import numpy as np

from bptt_verifier.problems.problem import Array, Problem


class Inconsistent(ValueError):  # noqa: N818 - a finding about the derivation
    """A function modified its arguments, or two functions give different gradients."""


class WrongGradient(ArithmeticError):  # noqa: N818 - a finding about the derivation
    """A gradient is not the derivative of the loss."""


def list_arrays(*values: Any) -> list[Array]:
    """Every array among the values, and in their tuples and mappings, in order."""
    return [leaf for leaf in jax.tree.leaves(values) if isinstance(leaf, np.ndarray)]


def copy_arrays(*values: Any) -> list[Array]:
    """Copies of all arrays; entries that are objects are immutable and need no copy."""
    return [array.copy() for array in list_arrays(*values)]


def differ(left: Array, right: Array) -> bool:
    """True if any entry differs; NaN, which stands in padding, equals itself."""
    same = left == right
    if left.dtype.kind == "f":
        same |= np.isnan(left) & np.isnan(right)
    return not np.all(same)


def require_unmodified(what: str, before: list[Array], *after: Any) -> None:
    """Raise Inconsistent where an array is no longer what it was."""
    if any(differ(*pair) for pair in zip(before, list_arrays(*after), strict=True)):
        raise Inconsistent(f"{what}: expected it as it was given, found it modified")


def run_module(module: ModuleType, problem: Problem) -> dict[str, Any]:
    """The loss and every gradient that the module derives, by name; None for absent biases.

    Raises Inconsistent where the module contradicts itself, and whatever the module raises.
    """
    given = params, x, y, first = problem.params, problem.x, problem.y, problem.first
    before = copy_arrays(*given)
    if not hasattr(module, "backward"):
        value, found = module.value_and_grad(params, x, y, **problem.simple_options)
        require_unmodified("arguments", before, *given)
        return dict(loss=value, **found._asdict())
    value, found = module.gradients(params, x, y, **first, **problem.options)
    require_unmodified("arguments", before, *given)
    prediction, trace = module.forward(params, x, **first, **problem.batch)
    counted = None
    if problem.lengths is not None and problem.outputs == "every":
        counted = np.arange(1, len(x) + 1)[:, None] <= problem.lengths
    _, dy = module.many_to_one.losses.value_and_gradient(problem.loss, prediction, y, counted)
    kept = copy_arrays(trace, dy)
    again = module.backward(params, trace, dy, truncation=problem.truncation)
    require_unmodified("trace", kept, trace, dy)
    require_unmodified("arguments", before, *given)
    for name, gradient in found._asdict().items():
        if gradient is not None and differ(gradient, getattr(again, name)):
            raise Inconsistent(f"{name}: expected one gradient, found another from backward")
    return dict(loss=value, prediction=prediction, **found._asdict())


def refute(where: str, attempt: Callable[..., Any], *arguments: Any) -> tuple[str | None, Any]:
    """The evidence against a derivation and None; or None and what `attempt` returns.

    Any exception on exact numbers is evidence against the derivation.
    """
    try:
        return None, attempt(*arguments)
    except Exception as error:
        return f"{where}: {type(error).__name__}: {error}", None
