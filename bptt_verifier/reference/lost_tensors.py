"""Numbers beyond the range of float64 inside a pull-back of PyTorch, which JAX may not trace.

PyTorch hands every operation to a mode, those of its backward passes included. There a number of
float64 stands for each result that the range excludes: docs/derivation.md, section 17, (V17).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache, reduce
from importlib import import_module
from operator import and_
from typing import Any

import numpy as np

from bptt_verifier.program.torch_tensors import find_torch, is_tensor
from bptt_verifier.reference.lost_numbers import LARGEST, LEAST

OF_ENTRIES = frozenset(
    "mul div reciprocal square pow exp exp2 rsqrt sigmoid erfc sigmoid_backward"
    " tanh_backward".split()
)
SATURATING = frozenset("sigmoid_backward tanh_backward".split())  # 0 where the function is 1 or −1
RUNNING = frozenset("prod cumprod".split())
SUMS_OF_PRODUCTS = frozenset("mm bmm mv dot addmm addmv baddbmm convolution".split())
SUMS = frozenset("add sub rsub expm1 sinh cosh sum cumsum".split())
KNOWN = OF_ENTRIES | RUNNING | SUMS_OF_PRODUCTS | SUMS


def restoring_numbers() -> AbstractContextManager[Any]:
    """Make a mode in which numbers of float64 stand for all that its range excludes. (V17)"""
    mode: AbstractContextManager[Any] = make_mode()()
    return mode


@cache
def make_mode() -> Any:
    """Make the class of the mode, from a module that PyTorch has imported."""
    base = import_module("torch.utils._python_dispatch").TorchDispatchMode

    def start(mode: Any) -> None:
        base.__init__(mode)
        mode.rng = np.random.default_rng(0)

    def run(mode: Any, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        name = function.overloadpacket.__name__
        kind = name.rstrip("_")
        if kind not in KNOWN:
            return function(*given, **(named or {}))
        operands = [*map(to_wide, given)]  # before an operation that writes into one of them
        where = find_regular(kind, [x for x in operands if x is not None], given, named or {})
        result = function(*given, **(named or {}))
        if to_wide(result) is None or not is_tensor(result):
            return result
        restored = restore(kind, result, *where, float(mode.rng.uniform(0.5, 1)))
        return restored if name == kind else result.copy_(restored)

    return type("Restoring", (base,), {"__init__": start, "__torch_dispatch__": run})


def to_wide(value: Any) -> Any:
    """Make a tensor of a number; None of what is not one of float64."""
    torch: Any = find_torch()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return torch.tensor(float(value), dtype=torch.float64)
    return value if is_tensor(value) and value.dtype == torch.float64 else None


def find_regular(
    kind: str, operands: Sequence[Any], given: Sequence[Any], named: dict[str, Any]
) -> tuple[Any, Any]:
    """Find where an infinite result is a loss, and where one near zero is."""
    torch: Any = find_torch()
    if kind in OF_ENTRIES:  # what is zero or infinite makes numbers that are no loss
        regular = reduce(and_, [torch.isfinite(x) & (x != 0) for x in operands])
        return regular, regular & (operands[-1].abs() != 1) if kind in SATURATING else regular
    if kind in RUNNING:
        kept = torch.isfinite(operands[0]) & (operands[0] != 0)
        regular = getattr(torch, kind)(kept.double(), *given[1:], **named) != 0
        return regular, regular
    finite = reduce(and_, [torch.isfinite(x).all() for x in operands])
    if kind in SUMS:  # a difference of numbers of float64 is one of them
        return finite, torch.zeros_like(finite)
    tensors = [x.abs() for x in operands if x.dim()][-2:]
    least = [x[x > 0].min() if (x > 0).any() else x.new_tensor(np.inf) for x in tensors]
    return finite, finite & (least[0] * least[1] < LEAST)


def restore(kind: str, result: Any, regular: Any, vanishing: Any, share: float) -> Any:
    """Put numbers of float64 in the place of entries that its range excludes."""
    torch: Any = find_torch()
    size = result.abs()
    found = torch.where(vanishing & (size < LEAST), result + share * LEAST, result)
    return torch.where(regular & torch.isinf(size), result.sign() * share * LARGEST, found)
