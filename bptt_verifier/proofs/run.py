"""All that a module of `manual_bptt` derives at one point, whatever kind of numbers it is given.

What the certificates examine: the results themselves, that the two sweeps one by one give the same,
and that neither touches what it was given.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from bptt_verifier.problems.problem import Array, Variant


class Unfaithful(ValueError):  # noqa: N818 - what it was
    """A function modified its arguments, or gives other results when asked in another way."""


class Differs(ArithmeticError):  # noqa: N818
    """A gradient is not the derivative."""


def arrays_in(*values: Any) -> list[Array]:
    """Every array in tuples, mappings and by itself, in order."""
    found: list[Array] = []
    for value in values:
        if isinstance(value, np.ndarray):
            found.append(value)
        elif isinstance(value, dict):
            found += arrays_in(*value.values())
        elif isinstance(value, tuple):
            found += arrays_in(*value)
    return found


def unequal(left: Array, right: Array) -> bool:
    """Whether any entry differs; NaN in padding is equal to itself."""
    same = left == right
    if left.dtype.kind == "f":
        same |= np.isnan(left) & np.isnan(right)
    return not np.all(same)


def require_untouched(what: str, before: list[Array], *after: Any) -> None:
    """Raises Unfaithful where an array is no longer what it was."""
    pairs = zip(before, arrays_in(*after), strict=True)
    if any(unequal(left, right) for left, right in pairs):
        raise Unfaithful(f"{what}: expected it as it was given, found it modified")


def copied(*values: Any) -> list[Array]:
    """Copies of every array; exact numbers cannot change."""
    return [array.copy() for array in arrays_in(*values)]


def results(module: ModuleType, variant: Variant) -> dict[str, Any]:
    """Loss, and every gradient that the module derives, by name; None for absent biases.

    Raises Unfaithful as described there, and whatever the module raises.
    """
    params, x, y, first = variant.params, variant.x, variant.y, variant.first
    given = params, x, y, first
    before = copied(*given)
    if not hasattr(module, "backward"):
        value, found = module.value_and_grad(
            params, x, y, **first, **variant.option, loss=variant.loss
        )
        require_untouched("arguments", before, *given)
        return dict(loss=value, **found._asdict())
    value, found = module.gradients(params, x, y, **first, **variant.options)
    require_untouched("arguments", before, *given)

    prediction, trace = module.forward(params, x, **first, **variant.batch)
    counted = None
    if variant.lengths is not None and variant.outputs == "every":
        counted = np.arange(1, len(x) + 1)[:, None] <= variant.lengths
    _, dy = module.many_to_one.losses.value_and_gradient(variant.loss, prediction, y, counted)
    kept = copied(trace, dy)
    again = module.backward(params, trace, dy, truncation=variant.truncation)
    require_untouched("trace", kept, trace, dy)
    require_untouched("arguments", before, *given)
    for name, gradient in found._asdict().items():
        other = getattr(again, name)
        if gradient is not None and unequal(gradient, other):
            raise Unfaithful(f"{name}: expected one gradient, found another from backward")
    return dict(loss=value, prediction=prediction, **found._asdict())


def refutation(where: str, attempt: Callable[..., Any], *arguments: Any) -> tuple[str | None, Any]:
    """What speaks against a derivation there, if anything, and else what the attempt returns.

    Whatever a derivation raises on exact numbers speaks against it.
    """
    try:
        return None, attempt(*arguments)
    except Exception as error:
        return f"{where}: {type(error).__name__}: {error}", None
