"""Namespaces of losses: whether a loss takes numpy or jax.numpy, or is plain NumPy."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import jax.numpy as jnp
import numpy as np

from bptt_verifier.program.attempt import Failure, attempt

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def list_parameters(loss: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """List the parameters of a loss; None where its signature does not tell how many there are.

    It may be inside of a decorator, or an object that has no signature.
    """
    try:
        parameters = [*inspect.signature(loss).parameters.values()]
    except (TypeError, ValueError):
        return None
    return None if any(each.kind is each.VAR_POSITIONAL for each in parameters) else parameters


def settle_namespace(loss: Callable[..., Any], give: Callable[[], Any]) -> Callable[..., Any]:
    """Give a loss whose signature does not tell that of the first call that it does not refuse.

    `give` makes the parameters of a call. Without the namespace it is a loss in plain NumPy.
    """
    if list_parameters(loss) is not None:
        return loss

    @wraps(loss)
    def alone(params: Any) -> Any:
        return loss(params)

    @wraps(loss)
    def with_namespace(params: Any, xp: Any) -> Any:
        return loss(params, xp)

    needs = isinstance(attempt(lambda: loss(give())), Failure)
    takes = needs and not isinstance(attempt(lambda: loss(give(), np)), Failure)
    settled: Any = with_namespace if takes else alone
    names = ("params", "xp") if takes else ("params",)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    settled.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in names])
    settled.__module__ = __name__  # whose globals it has
    return settled  # type: ignore[no-any-return]


def takes_namespace(loss: Callable[..., Any]) -> bool:
    """True if a loss takes the namespace, as a second argument; a loss in NumPy requires one."""
    parameters = list_parameters(loss)
    if parameters is None:
        return True
    positional = [each for each in parameters if each.kind in POSITIONAL]
    if len(positional) < 2:
        return False
    second = positional[1]
    namespaces = (second.empty, np, jnp)
    return second.name == "xp" or any(second.default is each for each in namespaces)
