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
    Raises TypeError without a function, and ValueError without PyTorch or the device.
    """
    torch: Any = find_torch()
    if not callable(function):
        raise TypeError(f"function: expected a function or a module, found {type_name(function)}")
    if torch is None:
        raise ValueError("from_torch: expected PyTorch to be imported before")
    if device is not None and isinstance(attempt(torch.zeros, 1, device=device), Failure):
        raise ValueError(f"device: expected one that PyTorch can use here, found {device!r}")
    own = make_function(function)

    def call(arguments: Any) -> Any:
        return own(**arguments) if isinstance(arguments, Mapping) else own(*arguments)

    def backward(arguments: Any, cotangents: Any) -> Any:
        with torch.enable_grad():
            leaves, form = jax.tree.flatten(arguments)
            tensors = [to_tensor(each, device) for each in leaves]
            outputs = jax.tree.leaves(call(jax.tree.unflatten(form, tensors)))
            given = [to_tensor(each, device) for each in jax.tree.leaves(cotangents)]
            pairs = [pair for pair in zip(outputs, given, strict=True) if needs_gradient(pair[0])]
            differentiated = [each for each in tensors if needs_gradient(each)]
            found = iter(differentiate(pairs, differentiated))
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
    """Make a tensor of an array, in the array's layout; floating ones need a gradient."""
    if is_tensor(value):
        made = value.detach().clone()
        made = made if device is None else made.to(device)
    elif isinstance(value, np.ndarray):
        made = make_tensor(value, device or "cpu")
    else:
        return value
    return made.requires_grad_() if made.is_floating_point() else made


def needs_gradient(value: Any) -> bool:
    """Tell whether a value is a tensor that needs a gradient."""
    return is_tensor(value) and bool(value.requires_grad)
