"""Functions that take each parameter as an argument of its own, made functions of all."""

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.namespaces import POSITIONAL, list_parameters
from bptt_verifier.program.own_results import is_float_array

NAMESPACE = "xp"

Function = Callable[..., Any]


def join_parameters(
    gradients: Function, loss: Function, params: Any
) -> tuple[Function, Function, Any]:
    """Make functions of a dict of arrays from those of its arrays; others stay as they are.

    The arguments are the names of the dict, or as many as a list of arrays has. The gradients are
    in the order of the arguments, and so are the parameters then.
    """
    every = list_settings(params)
    # What raises when it is read stays as it is, and is refused where parameters are read.
    found = [attempt(find_arguments, each, every[0]) for each in (gradients, loss)]
    names = [None if isinstance(each, Failure) else each for each in found]
    first = next(filter(None, names), None)
    if first is None:
        return gradients, loss, params
    order = None if isinstance(every[0], Mapping) else first
    named = [name_arrays(each, first) for each in every]
    functions = [
        give_separately(each, own, order)
        for each, own in zip((gradients, loss), names, strict=True)
    ]
    return functions[0], functions[1], named if every is params else named[0]


def list_settings(params: Any) -> Any:
    """List the settings of parameters, which may be several of other shapes."""
    several = isinstance(params, list | tuple) and len(params) > 0
    return params if several and all(isinstance(each, Mapping) for each in params) else [params]


def name_arrays(params: Any, arguments: list[str]) -> dict[str, Any]:
    """Name the arrays of a list, or put those of a dict in the order of the arguments."""
    if not isinstance(params, Mapping):
        return dict(zip(arguments, params, strict=True))
    return {name: params[name] for name in [*arguments, *(n for n in params if n not in arguments)]}


def find_arguments(function: Function, params: Any) -> list[str] | None:
    """Find the arguments of a function that are single parameters; None where it takes all.

    One argument by the name of the only parameter may be the dict as well: it is what a call with
    the array, and none with the dict, ends with.
    """
    known = list_parameters(function) if callable(function) else None
    needed = [
        each.name
        for each in known or ()
        if each.kind in POSITIONAL and each.default is each.empty and each.name != NAMESPACE
    ]
    if isinstance(params, Mapping):
        if not needed or not {*needed} <= {*params}:
            return None
        if len(needed) > 1:
            return needed
        value, extra = params[needed[0]], [np] * takes_namespace_by_name(function)
        if len(params) > 1 or not is_float_array(value):
            return None
        whole = attempt(lambda: function({needed[0]: value.copy()}, *extra))
        alone = attempt(lambda: function(value.copy(), *extra))
        return needed if isinstance(whole, Failure) and not isinstance(alone, Failure) else None
    several = isinstance(params, list | tuple) and len(params) > 1
    if several and len(needed) == len(params) and all(map(is_float_array, params)):
        return needed
    return None


def takes_namespace_by_name(function: Function) -> bool:
    """Tell whether a function takes numpy or jax.numpy as `xp`."""
    return any(each.name == NAMESPACE for each in list_parameters(function) or ())


def give_separately(
    function: Function, arguments: list[str] | None, order: list[str] | None
) -> Function:
    """Make a function of a dict from one of its arrays, or from one of a list in this order."""
    if arguments is None and order is None:
        return function

    def call(named: Any, **options: Any) -> Any:
        if arguments is None:
            return function([named[name] for name in order or ()], **options)
        given = [named[name] for name in (arguments if order is None else order)]
        return function(*given, **options)

    @wraps(function)
    def give(params: Any) -> Any:
        return call(params)

    @wraps(function)
    def give_namespace(params: Any, xp: Any) -> Any:
        return call(params, xp=xp)

    given: Any = give_namespace if takes_namespace_by_name(function) else give
    names = ("params", NAMESPACE) if given is give_namespace else ("params",)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    given.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in names])
    given.__module__ = __name__  # whose globals it has
    return given  # type: ignore[no-any-return]
