"""A function of PyTorch at many points: its outputs, and cotangents pulled back through it.

A call costs the dispatch of each of its operations, of which an unrolled recurrence has thousands.
`torch.func.vmap` runs each of them once for all points, and what autograd pulls back through that
is apart for each point. It raises an exception where the code decides by a number, draws random
ones, writes into what is the same at all points, or has an autograd.Function without a rule for it.
There, and where one point by itself gives other numbers, the points are run one after the other.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program import torch_losses
from bptt_verifier.program.arguments import convert_to_numpy, read_outputs
from bptt_verifier.program.attempt import attempt
from bptt_verifier.program.torch_tensors import find_torch, is_tensor

Arrays = Mapping[str, Array]  # of a point, or of its cotangents, in float64
Found = tuple[Arrays, Arrays]  # outputs and gradients, by name
Call = Callable[[Any], Any]  # the function, of tensors by name
ENTRIES = 2**16  # of all arguments at the points of one call, which bounds its memory
FEW = 2  # points up to which one call for all takes no less time than one for each
SAME = 1e-9  # relative difference of two float64 computations of one function, at most


def compute_at_points(call: Call, points: Sequence[Arrays]) -> dict[str, Array]:
    """Compute the floating outputs at each point, stacked over the points."""
    every: list[Any] = [(point, None) for point in points]
    return stack_by_name([outputs for outputs, _ in run_in_groups(call, every)])


def pull_back_at_points(
    call: Call, points: Sequence[Arrays], cotangents: Sequence[Arrays]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Compute the outputs with cotangents, and pull these back, stacked over the points."""
    found = [*run_in_groups(call, [*zip(points, cotangents, strict=True)])]
    outputs, gradients = zip(*found, strict=True)
    return stack_by_name(outputs), stack_by_name(gradients)


def run_in_groups(call: Call, every: Sequence[tuple[Arrays, Arrays | None]]) -> Iterator[Found]:
    """Run the function at points with cotangents, or without: at many together, if it allows."""
    size = sum(value.size for value in every[0][0].values())
    number = max(1, ENTRIES // size)
    for start in range(0, len(every), number):
        group = every[start : start + number]
        together = attempt(run_together, call, group) if len(group) > FEW else None
        if start == 0 and isinstance(together, list):
            last = run_alone(call, *group[-1])
            together = together if are_same(together[-1], last) else None
        if not isinstance(together, list):
            yield from (run_alone(call, *each) for each in every[start:])
            return
        yield from together


def run_alone(call: Call, point: Arrays, cotangents: Arrays | None) -> Found:
    """Run the function at one point; return its outputs, and the cotangents pulled back."""
    tensors = torch_losses.make_tensors(point)
    outputs = select_floating(call(tensors))
    if cotangents is None:
        return to_arrays(outputs), {}
    found = {name: outputs[name] for name in cotangents}
    return to_arrays(found), pull_back(tensors, found, cotangents)


def run_together(call: Call, every: Sequence[tuple[Arrays, Arrays | None]]) -> list[Found]:
    """Run the function at all points in one call; return the outputs and gradients of each."""
    torch: Any = find_torch()
    points, cotangents = zip(*every, strict=True)
    is_asked = cotangents[0] is not None
    tensors = torch_losses.make_tensors(stack_by_name(points))
    with warnings.catch_warnings(), torch.set_grad_enabled(is_asked):
        warnings.simplefilter("ignore")  # that an operation has no rule, and takes a loop
        outputs = torch.func.vmap(lambda x: select_floating(call(x)))(tensors)
    gradients = dict[str, Array]()
    if is_asked:
        outputs = {name: outputs[name] for name in cotangents[0]}
        gradients = pull_back(tensors, outputs, stack_by_name(cotangents))
    arrays = to_arrays(outputs)
    split = [{n: each[k] for n, each in arrays.items()} for k in range(len(every))]
    return [(each, {n: g[k] for n, g in gradients.items()}) for k, each in enumerate(split)]


def pull_back(
    tensors: Mapping[str, Any], outputs: Mapping[str, Any], cotangents: Arrays
) -> dict[str, Array]:
    """Pull cotangents of outputs back by autograd; zero is the gradient of what is not used."""
    torch: Any = find_torch()
    pairs = [(output, torch.from_numpy(cotangents[n])) for n, output in outputs.items()]
    pairs = [(output, each) for output, each in pairs if output.requires_grad]
    slopes = torch.autograd.grad(
        [output for output, _ in pairs], [*tensors.values()],
        [each for _, each in pairs], allow_unused=True,
    )  # fmt: skip
    return {
        name: np.zeros(tuple(tensor.shape)) if slope is None else convert_to_numpy(slope)
        for (name, tensor), slope in zip(tensors.items(), slopes, strict=True)
    }


def select_floating(result: Any) -> dict[str, Any]:
    """Select the floating outputs as tensors, by name."""
    torch: Any = find_torch()
    outputs = {
        name: each if is_tensor(each) else torch.as_tensor(np.asarray(each))
        for name, each in read_outputs(result).items()
    }
    return {name: each for name, each in outputs.items() if each.is_floating_point()}


def to_arrays(tensors: Mapping[str, Any]) -> dict[str, Array]:
    """Convert tensors to arrays, by name."""
    return {name: convert_to_numpy(each) for name, each in tensors.items()}


def stack_by_name(every: Sequence[Arrays]) -> dict[str, Array]:
    """Stack arrays of the same names."""
    return {name: np.stack([each[name] for each in every]) for name in every[0]}


def are_same(one: Found, other: Found) -> bool:
    """Tell whether two computations at one point differ by rounding alone."""
    for x, y in zip(one, other, strict=True):
        if x.keys() != y.keys() or any(x[n].shape != y[n].shape for n in y):
            return False
        sizes = {n: np.abs(each[np.isfinite(each)]).max(initial=0.0) for n, each in y.items()}
        if not all(np.allclose(x[n], y[n], SAME, SAME * sizes[n], equal_nan=True) for n in y):
            return False
    return True
