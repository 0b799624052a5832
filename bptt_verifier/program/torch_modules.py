"""Modules and autograd functions of PyTorch as functions of their parameters and inputs."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from bptt_verifier.program.attempt import type_name
from bptt_verifier.program.torch_losses import widen
from bptt_verifier.program.torch_tensors import find_torch


def make_stated(value: Any, arguments: Any) -> Any:
    """Make a stated function as `make_function` does: a module's own parameters are in float64.

    Its arguments are. A recurrent module compares their dtypes.
    """
    return make_function(value, arguments, widen)


def make_function(
    value: Any, arguments: Any = (), change: Callable[[Any], Any] = lambda tensor: tensor
) -> Any:
    """Make a function of a module or of a class of `torch.autograd.Function`; others stay.

    That of a module takes a mapping of its parameters or buffers by name first, which take the
    place of its own, or its inputs alone. Its signature is for `arguments`, or several of them.
    `change` changes the module's own parameters and buffers.
    """
    torch: Any = find_torch()
    if torch is None:
        return value
    if isinstance(value, type) and issubclass(value, torch.autograd.Function):
        return getattr(value, "apply")  # noqa: B009 - torch is not known to the types
    if not isinstance(value, torch.nn.Module):
        return value

    def run(*given: Any, **named: Any) -> Any:
        every = {name: (each, change(each)) for name, each in list_tensors(value)}
        own = {name: new for name, (each, new) in every.items() if new is not each}
        if takes_parameters(value, given):
            own, given = own | dict(given[0]), given[1:]
        return (
            torch.func.functional_call(value, own, given, named) if own else value(*given, **named)
        )

    several = isinstance(arguments, list) and arguments
    signature = inspect.signature(value.forward)
    if takes_parameters(value, arguments[0] if several else arguments):
        first = inspect.Parameter("parameters", inspect.Parameter.POSITIONAL_ONLY)
        signature = signature.replace(parameters=[first, *signature.parameters.values()])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__name__ = type_name(value)
    return run


def takes_parameters(module: Any, arguments: Any) -> bool:
    """Tell whether the first argument is a mapping of a module's parameters or buffers."""
    if not isinstance(arguments, tuple | list) or not arguments:
        return False
    known = {name for name, _ in list_tensors(module)}
    return isinstance(arguments[0], Mapping) and known.issuperset(arguments[0])


def list_tensors(module: Any) -> list[tuple[str, Any]]:
    """List the parameters and buffers of a module by name."""
    return [*module.named_parameters(), *module.named_buffers()]
