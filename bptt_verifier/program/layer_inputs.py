"""Gradients of a layer's inputs, which its backward pass returns to the layer before it."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from bptt_verifier.program.gradient_names import is_named_gradient, may_be_gradient
from bptt_verifier.program.leaves import Keys, walk
from bptt_verifier.program.own_code import OwnCode
from bptt_verifier.program.own_results import is_float_array
from bptt_verifier.program.torch_tensors import to_array

ERROR = re.compile("delta|error")  # in the name of a gradient


def name_input_gradient(
    result: Any, names: Mapping[Keys, str], given: Mapping[str, Any], owner: Any
) -> str:
    """Name the gradient that a layer returns alone, by its shape; empty where that is uncertain.

    It is that of the only input of the forward pass that has the shape, where it has no name or one
    such as `grad_input`, which is none of an array that is known. An array of that shape which the
    object holds before the call, such as a state, may be meant as well.
    """
    name, arrays = names.get((), ""), [*walk({"given": given, "owner": owner}, (), ())]
    known = any(path and is_named_gradient(name, path[-1]) for path, _ in arrays)
    told = not name or may_be_gradient(name) or ERROR.search(name)
    if known or not told or not is_float_array(result):
        return ""
    shape = np.shape(to_array(result))
    inputs = [name for name, value in given.items() if has_shape(value, shape)]
    held = [path for path, value in walk(owner, (), ()) if path and has_shape(value, shape)]
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
