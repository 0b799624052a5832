"""Tensors of PyTorch as arrays, and arrays as tensors. The user imports PyTorch, if at all."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # JAX takes half a second
    from bptt_verifier.problems.problem import Array


def find_torch() -> Any:
    """Find the module torch, if the user's code has imported it; None otherwise."""
    return sys.modules.get("torch")


def is_tensor(value: Any) -> bool:
    """True for a tensor of PyTorch, a parameter included."""
    kind = getattr(find_torch(), "Tensor", None)
    return isinstance(kind, type) and isinstance(value, kind)


def has_gradient(value: Any) -> bool:
    """True for a tensor that is a leaf, and in whose attribute `grad` a gradient was left."""
    return is_tensor(value) and value.is_leaf and value.grad is not None


def clear_gradients(tensors: Iterable[Any]) -> None:
    """Set the gradients of tensors to zeros, of those that need one if any do."""
    leaves = [each for each in tensors if is_tensor(each) and each.is_leaf]
    wanted = [each for each in leaves if each.requires_grad] or leaves
    for each in wanted:
        each.grad = find_torch().zeros_like(each)


def to_array(value: Any) -> Any:
    """Convert a tensor on any device to an array; return other values as they are.

    NumPy has no bfloat16: its numbers become float32.
    """
    if not is_tensor(value):
        return value
    torch, plain = find_torch(), to_plain(value)
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()


def to_plain(tensor: Any) -> Any:
    """Make a tensor a dense one in the memory of the CPU, apart from autograd."""
    return tensor.detach().to_dense().cpu().resolve_conj().resolve_neg()


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


def to_tensor(array: "Array", like: Any = None) -> Any:
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


def copy_array(value: Any) -> Any:
    """Copy an array, or a tensor as a leaf of autograd, where it is and of its dtype."""
    if not is_tensor(value):
        return np.array(value)
    copied = value.detach().clone()
    return copied.requires_grad_() if value.requires_grad else copied  # vmap has no such call


def to_constant(array: "Array", like: Any) -> Any:
    """Make an array what another is: a tensor of its dtype on its device, or an array still."""
    if not is_tensor(like):
        return array
    return find_torch().as_tensor(array, dtype=like.dtype, device=like.device)


@contextmanager
def copying_results() -> Iterator[None]:
    """Let deep copies copy tensors that autograd has computed, which PyTorch refuses, as leaves."""
    kind: Any = getattr(find_torch(), "Tensor", None)
    if kind is None:
        yield
        return
    original = kind.__deepcopy__

    @wraps(original)
    def copy(tensor: Any, memo: dict[int, Any]) -> Any:
        if type(tensor) is not kind:
            return original(tensor, memo)
        copied = copy_array(tensor)  # PyTorch would note one that is widened, and soon deleted
        return copied if tensor.is_leaf else copied.detach()

    kind.__deepcopy__ = copy
    try:
        yield
    finally:
        kind.__deepcopy__ = original


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
