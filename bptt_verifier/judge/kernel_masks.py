"""Masks among a kernel's floating arguments, for which it returns no gradient."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_cases import prepare_cotangents
from bptt_verifier.problems.kernel_draws import is_additive_mask, is_mask
from bptt_verifier.program.arguments import convert_to_numpy
from bptt_verifier.program.attempt import USERS, Failure, attempt
from bptt_verifier.tolerance.formats import is_floating


def find_masks(every: Sequence[KernelCalls], seed: int) -> frozenset[str]:
    """Find the masks for which a kernel returns None, or zeros if they are added: its data.

    A mask has zeros and one other number in one setting, and at most these in the others. Zeros for
    a mask that is multiplied may be a mistake, as for spikes; a score of −∞ is no variable.
    """
    leaves = [calls.arguments.leaves for calls in every]
    masks = {
        name
        for each in leaves
        for name, value in each.items()
        if is_mask(value)
        and all(
            len(np.unique(other[name][other[name] != 0])) <= 1 for other in leaves if name in other
        )
    }
    added = find_added(every, masks)
    for calls in every if masks else ():
        cotangents = prepare_cotangents(calls, None, seed)
        given = calls.arguments.rebuild(calls.arguments.leaves), calls.arrange(cotangents)
        result = attempt(calls.backward, *given, settings=USERS.get())
        found = attempt(calls.arguments.select, result)
        if isinstance(result, Failure) or isinstance(found, Failure):
            return frozenset()  # which the comparison tells
        masks = {name for name in masks if is_left_out(found.get(name), name in added)}
    return frozenset(masks if all(masks != each.keys() for each in leaves) else ())


def find_added(every: Sequence[KernelCalls], masks: Iterable[str]) -> set[str]:
    """Find the masks that are added to scores in all settings in which they hold a number."""
    added = set[str]()
    for name in masks:
        stands = [
            name in calls.pullback.excluding
            for calls in every
            if name in calls.arguments.leaves and is_additive_mask(calls.arguments.leaves[name])
        ]
        if stands and all(stands):
            added.add(name)
    return added


def is_left_out(gradient: Any, added: bool) -> bool:
    """Tell whether the gradient of a mask is None, or zero of one that is added."""
    if gradient is None:
        return True
    values = attempt(convert_to_numpy, gradient)
    if isinstance(values, Failure) or values.dtype == object:
        return False
    return added and not values.astype(np.float64).any()


def describe_masks(every: Sequence[KernelCalls]) -> Iterator[str]:
    """Say which floating arguments are data."""
    names = {
        name: None
        for calls in every
        for name, value in calls.arguments.data.items()
        if is_floating(convert_to_numpy(value).dtype)
    }
    for name in names:
        yield (
            f"Your gradient for {name} is None, or zero, and {name} holds zeros and one other "
            "number: it is taken for a mask, which is data."
        )
