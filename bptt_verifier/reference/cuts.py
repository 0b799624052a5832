"""Cuts in a loss of PyTorch whose gradients are derived by hand: where `detach` stops a gradient.

The values of such a loss are differentiated, since its code may run without autograd. Where it runs
with autograd, and a `detach` inside it makes torch.autograd give another gradient than the values
have, it is not known of which of both the gradients by hand are.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.source_lines import Place, is_between, is_of_user, place_of_frame
from bptt_verifier.program.torch_losses import differentiate
from bptt_verifier.program.torch_tensors import find_torch, is_tensor
from bptt_verifier.reference.case import Case
from bptt_verifier.reference.own_cases import widen

CONVERSIONS = frozenset(("clone", "reshape", "squeeze", "cpu"))
CUTS = frozenset(("detach", "detach_", "data"))  # methods and attributes of tensors

LISTED = 3  # places in a sentence


def describe_cut(loss: Callable[..., Any], cases: Sequence[Case], called: str) -> str | None:
    """Describe where torch.autograd gives another gradient of a loss than its values have.

    None where the code of the loss stops no gradient, or all of them: it then does without
    autograd.
    """
    for case in cases:
        assert case.truth is not None
        known, found = case.truth(np.float64, ()), differentiate_cut(loss, widen(case.arguments))
        if found is None:
            continue
        places, slopes = found
        for name, slope in slopes.items():
            if not (np.abs(slope - known.values[name]) <= known.allowed[name]).all():
                listed = ", ".join(f"`{p.expression}` ({p.at_column})" for p in places[:LISTED])
                return (
                    f"torch.autograd stops gradients at {listed}, and gives another ∂L/∂{name} "
                    f"than the values of {called} at {case.label}: your gradients may be right for "
                    "either. Compute what is detached outside of the function, and pass it as data."
                )
    return None


def compare_autograd(loss: Callable[..., Any], case: Case, called: str) -> str | None:
    """Compare torch.autograd with the traced gradient; return a sentence if they differ."""
    assert case.truth is not None
    known = case.truth(np.float64, ())
    found = attempt(wraps(loss)(lambda: differentiate(loss, widen(case.arguments))))
    if isinstance(found, Failure):
        return f"torch.autograd of the loss raised {found.what} at {found.where}."
    for name, slope in found[1].items():
        apart = np.abs(slope - known.values[name])
        said = np.isfinite(slope)  # where the reference kept zeros, torch.autograd may say nothing
        if not (apart <= known.allowed[name])[said].all():
            return (
                f"torch.autograd gives another ∂L/∂{name} than the trace of {called} at "
                f"{case.label}: a part of it is no operation of PyTorch, or has its own derivative."
            )
    return None


def differentiate_cut(
    loss: Callable[..., Any], point: Mapping[str, Array]
) -> tuple[list[Place], dict[str, Array]] | None:
    """Differentiate a loss by torch.autograd, and find the places that stop a gradient.

    None where there is none, where no gradient is left, or where autograd cannot follow the code.
    """
    torch: Any = find_torch()
    places: list[Place | None] = []
    origins: dict[int, tuple[Any, Any]] = {}  # results of cuts, and what they were made of
    follows_gradients = getattr(loss, "needs_gradients", False)

    def run(_: Any, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        if any(is_tensor(each) and each.requires_grad for each in given):
            without = follows_gradients and not torch.is_grad_enabled()
            if is_cut(function) or (without and not in_function_of_autograd()):
                places.append(find_own_place())
        found = function(*given, **(named or {}))
        if is_cut(function):
            origins[id(found)] = found, given[0]
        elif getattr(function, "__name__", "") in CONVERSIONS and id(given[0]) in origins:
            origins[id(found)] = found, origins[id(given[0])][1]
        return found

    mode = type("Noting", (torch.overrides.TorchFunctionMode,), {"__torch_function__": run})

    def of_copies(params: Mapping[str, Any]) -> Any:  # no leaves, which code may not change
        with mode():
            found = loss({name: value.clone() for name, value in params.items()})
        while id(found) in origins:  # a loss that is detached to be returned
            found = origins[id(found)][1]
        numbers = (origin for _, origin in reversed(origins.values()) if origin.numel() == 1)
        equal = (each for each in numbers if float(each.detach()) == float(np.asarray(found)))
        return found if is_tensor(found) else next(equal, found)

    found = attempt(differentiate, of_copies, point)
    cuts = [*dict.fromkeys(filter(None, places))]
    if isinstance(found, Failure) or not cuts or not any(map(np.any, found[1].values())):
        return None
    return cuts, found[1]


def is_cut(function: Callable[..., Any]) -> bool:
    """True for `detach` and for the attribute `data` of a tensor, when it is read."""
    name = getattr(function, "__name__", "")
    if name == "__get__":
        name = getattr(getattr(function, "__self__", None), "__name__", "")
    return name in CUTS


def find_own_place() -> Place | None:
    """Find the expression of the user's code that calls PyTorch; None where the judge calls it."""
    frame: Any = sys._getframe(2)  # where this file was called from
    while is_between(frame.f_code.co_filename):
        frame = frame.f_back
    return place_of_frame(frame) if is_of_user(frame.f_code.co_filename) else None


def in_function_of_autograd() -> bool:
    """True inside a function of autograd of the user's, which PyTorch runs without gradients."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.replace("\\", "/").endswith("torch/autograd/function.py"):
            return True
        frame = frame.f_back
    return False
