"""Namespaces of losses: whether a loss takes numpy or jax.numpy, or is plain NumPy."""

import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def takes_namespace(loss: Callable[..., Any]) -> bool:
    """True if a loss takes the namespace, as a second argument; a loss in NumPy requires one."""
    try:
        parameters = [*inspect.signature(loss).parameters.values()]
    except (TypeError, ValueError):
        return True
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return True
    positional = [each for each in parameters if each.kind in POSITIONAL]
    if len(positional) < 2:
        return False
    second = positional[1]
    namespaces = (second.empty, np, jnp)
    return second.name == "xp" or any(second.default is each for each in namespaces)
