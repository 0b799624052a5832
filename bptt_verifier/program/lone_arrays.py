"""Parameters that are one array, as a minimiser takes them, or arguments of their own."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import numpy as np

from bptt_verifier.program.leaves import is_scalar
from bptt_verifier.program.own_results import is_float_array
from bptt_verifier.program.separate_parameters import join_parameters

NAME = "params"  # of the array


def name_lone_array(
    gradients: Callable[[Any], Any], loss: Callable[..., Any], params: Any
) -> tuple[Callable[[Any], Any], Callable[..., Any], Any]:
    """Make the functions of a dict with one array from those of the array; others stay as they are.

    The gradient may be returned alone, or in a pair with the loss. Functions of which each array is
    an argument of its own are made functions of all as well.
    """
    gradients, loss, params = join_parameters(gradients, loss, params)
    if not (is_float_array(params) and callable(gradients) and callable(loss)):
        return gradients, loss, params

    @wraps(gradients)
    def name_gradient(named: Any) -> Any:
        found = gradients(named[NAME])
        if isinstance(found, Mapping) and {*found} == {NAME}:
            return found
        pair = isinstance(found, tuple | list) and len(found) == 2 and is_scalar(found[0])
        if pair and np.shape(found[1]) == np.shape(params):
            return {"loss": found[0], NAME: found[1]}
        return {NAME: found}

    @wraps(loss)
    def take_array(named: Any, *xp: Any) -> Any:
        return loss(named[NAME], *xp)

    for each in (name_gradient, take_array):
        each.__module__ = __name__  # whose globals it has
    return name_gradient, take_array, {NAME: params}
