"""A loss of PyTorch, `loss(params)`, as a function of arrays, and its gradient by torch.autograd.

It runs in float64: as long as it does, constants of the user's in float32 are widened, and what is
made without a dtype is float64.

Autograd is told by the code where a gradient stops. Code that derives its gradients by hand may do
without autograd: it runs under `no_grad`, and returns `loss.item()`. Of such code the values are
differentiated, whatever autograd would do.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial, wraps
from importlib import import_module
from types import MappingProxyType
from typing import Any

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt, copies, find_code, type_name
from bptt_verifier.program.idle_calls import interrupt_idle
from bptt_verifier.program.leaves import Tree, rebuild_before
from bptt_verifier.program.namespaces import takes_namespace
from bptt_verifier.program.torch_tensors import find_torch, is_tensor, to_array, to_tensor

# How the user's code converts what may be a tensor already.
CONVERSIONS = frozenset("tensor as_tensor asarray".split())
PRINTED = frozenset("__format__ __repr__".split())
# Relative distances of two computations of one loss: beyond the rounding of float64 in a long one,
# and within that of float32.
OF_FLOAT64, OF_FLOAT32 = 2.0**-42, 2.0**-14
NUMBER = "stands_for_number"  # the attribute of a tensor that the user's code takes for a float


def takes_tensors(loss: Callable[..., Any], trees: Sequence[Tree]) -> bool:
    """True if a loss takes tensors of PyTorch: they are given, or it fails on arrays, not on them.

    A loss that returns a tensor of either is one of tensors if that depends on them.
    """
    if find_torch() is None and "torch" in getattr(find_code(loss), "co_names", ()):
        attempt(import_module, "torch")  # which its first call would import
    if find_torch() is None:
        return False
    given = any(tree.tensors for tree in trees)
    with use_float64(), interrupt_idle():
        of_tensors = attempt(rebuild_before(loss, trees), make_tensors(trees[0].leaves))
    if given and isinstance(of_tensors, Failure) and takes_namespace(loss):
        raise ValueError(
            "loss: expected loss(params) where params are tensors, found loss(params, xp); "
            "leave out the second argument, or give arrays in the place of tensors"
        )
    if given or not (is_tensor(of_tensors) and of_tensors.requires_grad):
        return given
    tree = trees[0]
    of_arrays = attempt(lambda: loss(tree.rebuild({n: v.copy() for n, v in tree.leaves.items()})))
    return isinstance(of_arrays, Failure) or is_tensor(of_arrays)


def rounds_inside(loss: Callable[..., Any], in_float64: Callable[..., Any], tree: Tree) -> bool:
    """Tell whether a loss rounds to float32 inside, as it stands, though its parameters do not.

    So do constants that are made in PyTorch's default format, as `(torch.arange(5) + 0.5) / 5`.
    """
    if any(value.dtype != np.float64 for value in tree.leaves.values()):
        return False
    plain = attempt(lambda: np.float64(to_array(loss(tree.rebuild(copies(tree.leaves))))))
    wide = attempt(lambda: np.float64(in_float64(copies(tree.leaves))))
    if isinstance(plain, Failure) or isinstance(wide, Failure):
        return False
    return bool(OF_FLOAT64 * abs(wide) < abs(plain - wide) < OF_FLOAT32 * abs(wide))


def names_torch(forward: Callable[..., Any]) -> bool:
    """Tell whether the code of a forward pass names torch, which is imported."""
    code = find_code(forward) if find_torch() is not None else None
    return any("torch" in getattr(code, each, ()) for each in ("co_names", "co_freevars"))


def make_tensors(
    point: Mapping[str, Array], like: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """Make tensors in float64, or complex ones, that need a gradient unless those `like` do not."""
    single = np.dtype(np.float32)
    wide = {n: v.astype(float) if v.dtype == single else v for n, v in point.items()}
    return {name: to_tensor(value, like.get(name)) for name, value in wide.items()}


def over_arrays(loss: Callable[..., Any], trees: Sequence[Tree]) -> Callable[..., Any]:
    """Make the function of a dict of arrays, or of tensors, from a loss of PyTorch.

    It returns what the loss returns, with arrays for tensors.
    """
    of_tensors, values = rebuild_before(loss, trees), follows_values(loss)
    given = trees[0].find_leaves(trees[0].params) if values else {}
    make = partial(make_tensors, like={n: v for n, v in given.items() if is_tensor(v)})
    space = getattr(inspect.unwrap(loss), "__globals__", {}) if values else {}

    @wraps(loss)
    def call(params: Mapping[str, Any], *_: Any) -> Any:
        with use_float64(values), replacing_float(space):
            found = of_tensors(dict(params) if are_tensors(params) else make(params))
        return found if are_tensors(params) else to_array(found)

    call.__module__ = __name__  # whose globals it has
    call.make_tensors = make  # type: ignore[attr-defined]
    needs = any(is_tensor(value) and value.requires_grad for value in given.values())
    call.needs_gradients = needs  # type: ignore[attr-defined]
    return call


def follow_values(loss: Callable[..., Any]) -> None:
    """Mark a loss as one whose gradients are derived by hand: its values are differentiated."""
    loss.follows_values = True  # type: ignore[attr-defined]


def follows_values(loss: Callable[..., Any]) -> bool:
    """True if the values of a loss are differentiated, whatever autograd would do."""
    return getattr(loss, "follows_values", False)


class KeepingTensors(type):
    """The metaclass of a `float` that does not convert tensors, so that they can be followed."""

    def __call__(cls, *given: Any) -> Any:
        """Convert to a float, unless a tensor is given."""
        return make_number(given[0]) if given and is_tensor(given[0]) else float(*given)

    def __instancecheck__(cls, value: Any) -> bool:
        """True for a float, and for a tensor in the place of one."""
        return isinstance(value, float) or (is_tensor(value) and hasattr(value, NUMBER))

    def __subclasscheck__(cls, kind: type) -> bool:
        """True for a subclass of float."""
        return issubclass(kind, float)


def make_number(tensor: Any) -> Any:
    """Make a tensor that stands for the number in another, which stays when it is written into."""
    if not tensor.is_floating_point():
        return tensor
    made = tensor.clone().reshape(())
    setattr(made, NUMBER, True)
    return made


FLOAT = KeepingTensors("float", (float,), {"dtype": np.dtype(float)})


@contextmanager
def replacing_float(space: dict[str, Any]) -> Iterator[None]:
    """Replace `float` in a namespace of the user for a while, unless that has its own."""
    replaced = bool(space) and "float" not in space
    space |= {"float": FLOAT} if replaced else {}
    try:
        yield
    finally:
        if replaced:
            del space["float"]


def are_tensors(params: Mapping[str, Any]) -> bool:
    """True for tensors by name."""
    return all(map(is_tensor, params.values()))


def differentiate(
    loss: Callable[..., Any], point: Mapping[str, Array]
) -> tuple[float, dict[str, Array]]:
    """Compute a loss `over_arrays` and its gradient by torch.autograd.

    The gradient of a parameter that the loss does not use is zero.
    """
    torch: Any = find_torch()
    params = make_tensors(point)
    with torch.enable_grad():
        value = loss(params)
        if not is_tensor(value):
            raise TypeError(f"the loss returns {type_name(value)}, which autograd cannot follow")
        value = value.sum()
    found = [None] * len(params)
    if value.requires_grad:
        found = torch.autograd.grad(value, [*params.values()], allow_unused=True)
    slopes = {
        name: np.zeros(given.shape) if slope is None else np.array(to_array(slope))
        for (name, given), slope in zip(point.items(), found, strict=True)
    }
    return float(value.detach()), slopes


@contextmanager
def use_float64(values: bool = False) -> Iterator[None]:
    """Compute in float64 for a while, whatever PyTorch's settings and the user's constants are.

    With `values`, numbers that are taken out of tensors stay tensors.
    """
    torch: Any = find_torch()
    before, from_numpy = torch.get_default_dtype(), torch.from_numpy
    torch.set_default_dtype(torch.float64)
    torch.from_numpy = lambda x: widen(x if is_tensor(x) else from_numpy(x))
    hook = torch.nn.modules.module.register_module_forward_pre_hook(widen_inputs)
    try:
        with make_widening(values)():
            yield
    finally:
        hook.remove()
        torch.from_numpy = from_numpy
        torch.set_default_dtype(before)


def widen(value: Any) -> Any:
    """Convert float32 to float64: tensors, also in lists and tuples, and the dtype itself."""
    torch: Any = find_torch()
    if value is torch.float32 or value is FLOAT:
        return torch.float64
    if is_tensor(value):
        return value.double() if value.dtype == torch.float32 else value
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(map(widen, value))
    return value


def widen_inputs(module: Any, given: Any) -> Any:
    """Widen the inputs of a module whose parameters are in float64: it may compare the dtypes."""
    short = any(
        each is not None and widen(each) is not each for each in module._parameters.values()
    )
    return given if short else widen(given)


@cache
def make_widening(values: bool) -> Any:
    """Make the mode of PyTorch in which functions compute in float64 what they would in float32.

    With `values`, `item` returns the tensor, and printing one does not read it.
    """
    torch: Any = find_torch()

    def run(_: Any, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        named = named or {}
        name = str(getattr(function, "__name__", ""))
        if name in {"__get__", "__set__"}:  # attributes, such as shape
            return function(*given, **named)
        if values and name == "item" and given[0].is_floating_point():
            return make_number(given[0])
        if values and name in PRINTED:
            plain = to_array(given[0])
            text = plain.item() if plain.ndim == 0 else str(plain)
            return format(text, *given[1:]) if name == "__format__" else str(text)
        if name in CONVERSIONS and given and is_tensor(given[0]):
            return widen(given[0])
        if name == "float" and given and is_tensor(given[0]):
            function = torch.Tensor.double
        # What is written into keeps its dtype.
        kept = 1 if name == "__setitem__" or name.rstrip("_") + "_" == name else 0
        wide = map(widen, given[kept:])
        return function(*given[:kept], *wide, **{key: widen(each) for key, each in named.items()})

    return type("Widening", (torch.overrides.TorchFunctionMode,), {"__torch_function__": run})
