"""Kernels of PyTorch: a function or a module, with an autograd.Function in it or not."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from bptt_verifier.adapters.kernel import Kernel
from bptt_verifier.program.arguments import convert_to_numpy, make_tensor
from bptt_verifier.program.attempt import Failure, attempt, type_name
from bptt_verifier.program.torch_modules import make_function
from bptt_verifier.program.torch_tensors import find_torch, is_tensor
from bptt_verifier.program.trees import list_leaves, map_leaves, pair_leaves, replace_leaves


def from_torch(function: Callable[..., Any], *, device: str | None = None) -> Kernel:
    """Make a kernel of a function or module of PyTorch, which autograd differentiates.

    The function may be a class of `torch.autograd.Function`. A module's first argument is the
    mapping of its parameters by name, which the stated function gets as well, or it has its inputs
    alone. Arrays become tensors on `device`, by default where those given are, else on the CPU.
    What the function writes into a tensor is written into the array or tensor given for it, too.
    Raises TypeError without a function, ImportError without PyTorch, and ValueError without the
    device.
    """
    if not callable(function):
        raise TypeError(f"function: expected a function or a module, found {type_name(function)}")
    torch = import_torch()
    if device is not None and isinstance(attempt(torch.zeros, 1, device=device), Failure):
        raise ValueError(f"device: expected one that PyTorch can use here, found {device!r}")

    def call(arguments: Any) -> Any:
        own = make_function(function)
        return own(**arguments) if isinstance(arguments, Mapping) else own(*arguments)

    def backward(arguments: Any, cotangents: Any) -> Any:
        with torch.enable_grad():
            leaves = [each for _, each in list_leaves(arguments)]
            tensors = [to_tensor(each, device) for each in leaves]
            outputs = call(replace_leaves(arguments, tensors))
            watched = [*zip(leaves, tensors, map(copy_tensor, tensors), strict=True)]
            pairs = []
            for output, each in pair_leaves(outputs, cotangents):
                if needs_gradient(output):
                    # Autograd converts a cotangent of another dtype: the kernel gets what it makes.
                    used = to_tensor(each, device).detach().to(output)
                    pairs.append((output, used))
                    watched.append((each, used, copy_tensor(used)))
            differentiated = [each for each in tensors if needs_gradient(each)]
            found = iter(differentiate(pairs, differentiated))
            for each in watched:
                pass_on_changes(*each)
        gradients = [next(found) if needs_gradient(each) else None for each in tensors]
        arrays = [None if each is None else convert_to_numpy(each) for each in gradients]
        return replace_leaves(arguments, arrays)

    def values(arguments: Any) -> Any:
        tensors = map_leaves(lambda each: to_tensor(each, device), arguments)
        return map_leaves(convert_to_numpy, call(tensors))

    name = getattr(function, "__name__", type(function).__name__)
    return Kernel(backward, values, name)


def import_torch() -> Any:
    """Import PyTorch. Raises ImportError, with one sentence, where it is not installed."""
    torch = attempt(import_module, "torch")
    if isinstance(torch, Failure):
        raise ImportError("from_torch: expected PyTorch to be installed, and it is not")
    return torch


def differentiate(pairs: Sequence[tuple[Any, Any]], tensors: Sequence[Any]) -> Sequence[Any]:
    """Pull back the cotangents of some outputs by autograd; None where nothing depends."""
    torch: Any = find_torch()
    outputs = [output for output, _ in pairs]
    given = [each.detach().to(output.device) for output, each in pairs]
    slopes: Sequence[Any] = torch.autograd.grad(outputs, tensors, given, allow_unused=True)
    return slopes


def to_tensor(value: Any, device: str | None) -> Any:
    """Make a tensor of an array or tensor, in its memory if that is on the device.

    Floating ones need a gradient.
    """
    if is_tensor(value):
        made = value.detach()
        made = made if device is None else made.to(device)
    elif isinstance(value, np.ndarray):
        made = make_tensor(value, device or "cpu")
    else:
        return value
    return made.requires_grad_() if made.is_floating_point() else made


def copy_tensor(value: Any) -> Any:
    """Copy the numbers of a tensor; what is none stays."""
    return value.detach().clone() if is_tensor(value) else value


def pass_on_changes(given: Any, used: Any, before: Any) -> None:
    """Write what was written into a tensor into the array or tensor that it was made of.

    That is a copy of it on another device, or in another dtype, where it would not be seen.
    """
    if not is_tensor(used):
        return
    now = used.detach()
    same = (now == before) | (now.isnan() & before.isnan())  # NaN is not changed
    if not bool(same.all()):
        to_tensor(given, None).detach().copy_(now)


def needs_gradient(value: Any) -> bool:
    """Tell whether a value is a tensor that needs a gradient."""
    return is_tensor(value) and bool(value.requires_grad)
