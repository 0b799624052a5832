"""Kernels of PyTorch: a function or a module, with an autograd.Function in it or not."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bptt_verifier.adapters.kernel import Kernel
from bptt_verifier.program.arguments import convert_to_numpy, make_tensor
from bptt_verifier.program.attempt import Failure, attempt, type_name
from bptt_verifier.program.torch_modules import make_function
from bptt_verifier.program.torch_tensors import find_torch, is_tensor


def from_torch(function: Callable[..., Any], *, device: str | None = None) -> Kernel:
    """Make a kernel of a function or module of PyTorch, which autograd differentiates.

    The function may be a class of `torch.autograd.Function`. A module's first argument is the
    mapping of its parameters by name, which the stated function gets as well, or it has its inputs
    alone. Arrays become tensors on `device`, by default where those given are, else on the CPU.
    What the function writes into a tensor is written into the array or tensor given for it, too.
    Raises TypeError without a function, and ValueError without the device.
    """
    torch: Any = find_torch()
    if not callable(function):
        raise TypeError(f"function: expected a function or a module, found {type_name(function)}")
    known = torch is None or device is None
    if not known and isinstance(attempt(torch.zeros, 1, device=device), Failure):
        raise ValueError(f"device: expected one that PyTorch can use here, found {device!r}")

    def call(arguments: Any) -> Any:
        own = make_function(function)
        return own(**arguments) if isinstance(arguments, Mapping) else own(*arguments)

    def backward(arguments: Any, cotangents: Any) -> Any:
        torch: Any = find_torch()
        if torch is None:
            raise ValueError("from_torch: expected PyTorch to be installed and imported")
        with torch.enable_grad():
            leaves, form = jax.tree.flatten(arguments)
            tensors = [to_tensor(each, device) for each in leaves]
            outputs = jax.tree.leaves(call(jax.tree.unflatten(form, tensors)))
            watched = [*zip(leaves, tensors, map(copy_tensor, tensors), strict=True)]
            pairs = []
            for output, each in zip(outputs, jax.tree.leaves(cotangents), strict=True):
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
        filled = [
            np.zeros(np.shape(array), convert_to_numpy(array).dtype)
            if gradient is None
            else convert_to_numpy(gradient)
            for gradient, array in zip(gradients, leaves, strict=True)
        ]
        return jax.tree.unflatten(form, filled)

    def values(arguments: Any) -> Any:
        tensors = jax.tree.map(lambda each: to_tensor(each, device), arguments)
        return jax.tree.map(convert_to_numpy, call(tensors))

    name = getattr(function, "__name__", type(function).__name__)
    return Kernel(backward, values, name)


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
