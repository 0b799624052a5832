"""Axes of a kernel's arguments: which is time, and where a mask or lengths end a sequence."""

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any

import numpy as np

from bptt_verifier.judge.kernel_cases import KernelCase
from bptt_verifier.problems.kernel_draws import is_additive_mask, is_mask
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.arguments import convert_to_numpy
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.reference.pullbacks import Pullback


def is_time_axis(pullback: Pullback, case: KernelCase, name: str, axis: int) -> bool:
    """Tell whether an axis of an argument is time: no output depends on a later index of it.

    Asked are outputs with an axis of the same size: what comes back from one index in the middle
    reaches earlier indices, and no later one.
    """
    size = case.point[name].shape[axis] if name in case.point else 0
    middle = size // 2
    for output, given in case.cotangents.items():
        for along in [k for k, n in enumerate(given.shape) if n == size and size > 2]:
            index = np.arange(size).reshape([-1 if k == along else 1 for k in range(given.ndim)])
            alone = {n: np.zeros_like(v) for n, v in case.cotangents.items()}
            alone[output] = np.where(index == middle, given, given.dtype.type(0))
            found = attempt(pullback.pull_back, [case.point], [alone])
            if isinstance(found, Failure):
                return False
            reached = found.gradients[name][0] != 0
            others = tuple(k for k in range(reached.ndim) if k != axis)
            reached = np.asarray(reached.any(axis=others))
            if reached[:middle].any() and not reached[middle + 1 :].any():
                return True
    return False


def find_ends(arrays: Mapping[str, Any], shape: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
    """Find the entries of a shape that are beyond the lengths, or outside the mask, of an argument.

    Lengths are integers, one for each index of one axis, that are at most another axis' size. A
    mask holds zeros and ones, in the order of time: it begins or ends once along an axis. One that
    is added to scores has zeros inside.
    """
    for label, given in arrays.items():
        values = attempt(convert_to_numpy, given)
        if isinstance(values, Failure) or not values.ndim:
            continue
        if ends_sequences(values):
            outside = (values.astype(np.float64) == 0) ^ is_additive_mask(values)
            for axes in permutations(range(len(shape)), values.ndim):
                if values.shape == tuple(shape[k] for k in axes):
                    order = np.argsort(axes)
                    rest = [k for k in range(len(shape)) if k not in axes]
                    placed = np.expand_dims(outside.transpose(order), tuple(rest))
                    yield label, np.broadcast_to(placed, shape)
        if values.ndim == 1 and values.dtype.kind in "iu":
            for of, along in permutations(range(len(shape)), 2):
                if shape[of] == len(values) and 0 <= values.min() <= values.max() <= shape[along]:
                    index = np.arange(shape[along])
                    index = index.reshape([-1 if k == along else 1 for k in range(len(shape))])
                    lengths = values.reshape([-1 if k == of else 1 for k in range(len(shape))])
                    yield label, np.broadcast_to(index >= lengths, shape)


def ends_sequences(values: Array) -> bool:
    """Tell whether an array is a mask of two axes or more that begins or ends once along one."""
    if values.ndim < 2 or values.dtype.kind in "OSUc" or not is_mask(values):
        return False
    inside = values.astype(np.float64) != 0
    changes = [np.abs(np.diff(inside.astype(int), axis=k)).sum(axis=k) for k in range(inside.ndim)]
    return any(bool((each <= 1).all()) for each in changes)
