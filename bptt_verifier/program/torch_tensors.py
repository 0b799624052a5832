"""Tensors of PyTorch as arrays, and arrays as tensors. The user imports PyTorch, if at all."""

import sys
from typing import Any

import numpy as np

from bptt_verifier.problems.problem import Array


def find_torch() -> Any:
    """Find the module torch, if the user's code has imported it; None otherwise."""
    return sys.modules.get("torch")


def is_tensor(value: Any) -> bool:
    """True for a tensor of PyTorch, a parameter included."""
    kind = getattr(find_torch(), "Tensor", None)
    return isinstance(kind, type) and isinstance(value, kind)


def to_array(value: Any) -> Any:
    """Convert a tensor on any device to an array; return other values as they are.

    NumPy has no bfloat16: its numbers become float32.
    """
    if not is_tensor(value):
        return value
    torch, plain = find_torch(), value.detach().to_dense().cpu().resolve_conj().resolve_neg()
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()


def to_arrays(result: Any) -> Any:
    """Convert the tensors in lists, tuples and dicts to arrays; return other values as they are."""
    if find_torch() is None:
        return result
    if type(result) is dict:
        return {key: to_arrays(value) for key, value in result.items()}
    if isinstance(result, list | tuple):
        parts = [*map(to_arrays, result)]
        return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)
    return to_array(result)


def to_tensor(array: Array, like: Any = None) -> Any:
    """Make a tensor of an array, which needs a gradient.

    It is on the device of another tensor, and a parameter or without need of a gradient as that is.
    """
    torch: Any = find_torch()
    made = torch.from_numpy(np.array(array))
    if like is None:
        return made.requires_grad_()
    made = made.to(like.device)
    if isinstance(like, torch.nn.Parameter):
        return torch.nn.Parameter(made, like.requires_grad)
    return made.requires_grad_(like.requires_grad)


def find_module_parts(value: Any) -> dict[str, Any] | None:
    """Find the parameters and submodules of a module of PyTorch, by name; None of other objects."""
    kind = getattr(getattr(find_torch(), "nn", None), "Module", None)
    if not (isinstance(kind, type) and isinstance(value, kind)):
        return None
    module: Any = value
    own = {name: value for name, value in module._parameters.items() if value is not None}
    return own | {name: part for name, part in module._modules.items() if part is not None}


def remake_module(module: Any, parts: dict[str, Any]) -> Any:
    """Copy a module of PyTorch with other tensors as parameters, and other submodules.

    The tensors stay what they are, so that gradients reach them.
    """
    other: Any = module.__new__(type(module))
    other.__dict__ = dict(module.__dict__)
    for kept in ("_parameters", "_modules", "_buffers"):
        other.__dict__[kept] = dict(getattr(module, kept))
    for name, value in parts.items():
        other.__dict__["_modules" if name in module._modules else "_parameters"][name] = value
    names = getattr(module, "_flat_weights_names", None)  # a recurrent module keeps them twice
    if names is not None:
        other.__dict__["_flat_weights"] = [getattr(other, name, None) for name in names]
    return other
