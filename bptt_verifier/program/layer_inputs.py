"""Gradients of a layer's inputs, which its backward pass returns to the layer before it."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from bptt_verifier.program.data_names import STATES, find_kind
from bptt_verifier.program.leaves import Keys, walk
from bptt_verifier.program.own_code import OwnCode
from bptt_verifier.program.own_results import is_float_array
from bptt_verifier.program.torch_tensors import to_array

INPUT = re.compile(r"(^|_|d|grad)(in|inp|inputs?)(_|$)")  # in the name of its gradient


def name_input_gradient(
    result: Any, names: Mapping[Keys, str], given: Mapping[str, Any], before: Any, after: Any
) -> str:
    """Name the gradient that a layer returns alone, by its shape; empty where that is uncertain.

    It is that of the only input of the forward pass that has the shape, where it has no name or
    that of the gradient of an input, as `grad_input`. What the object holds `before` the call in
    that shape may be meant as well, and so may a state that is None before and set `after`.
    """
    name = names.get((), "")
    if not is_float_array(result) or (name and not INPUT.search(name.lower())):
        return ""
    shape = np.shape(to_array(result))
    inputs = [name for name, value in given.items() if has_shape(value, shape)]
    held = [path for path, value in walk(before, (), ()) if path and has_shape(value, shape)]
    held += [
        path for path, value in walk(after, (), ())
        if path and find_kind(path[-1]) is STATES and has_shape(value, shape)
        and hasattr(before, str(path[0]))
    ]  # fmt: skip
    return f"d{inputs[0]}" if len(inputs) == 1 and not held else ""


def has_shape(value: Any, shape: tuple[int, ...]) -> bool:
    """True for a float array of this shape."""
    return is_float_array(value) and np.shape(to_array(value)) == shape


def has_whole_gradients(code: OwnCode, names: Collection[str]) -> bool:
    """True if the gradients of these inputs of a layer have their shapes: none is of one step."""
    _, slopes = code.gradients(code.params)
    return all(
        name in code.params
        and np.shape(to_array(slopes[name])) == np.shape(to_array(code.params[name]))
        for name in names
    )
