"""Kernels with a C ABI, in a shared library, called through ctypes."""

import ctypes
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bptt_verifier.adapters.kernel import Kernel, SignatureError, UnwrittenOutputError
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.arguments import convert_to_numpy
from bptt_verifier.program.trees import list_leaves
from bptt_verifier.tolerance.formats import is_floating

# The types of C, as NumPy has them.
TYPES = {
    "float": np.float32, "double": np.float64, "_Float16": np.float16, "__bf16": jnp.bfloat16,
    "int": np.int32, "int32_t": np.int32, "long": np.dtype("long"), "int64_t": np.int64,
    "size_t": np.dtype("uintp"), "uint8_t": np.uint8,
}  # fmt: skip
PARAMETER = re.compile(r"(const )?(\w+) ?(\*)? ?(?:restrict )?(\w+)(?: ?= ?(\w+)\[(\d+)\])?")
POISON = 0xA5  # of every byte of an output before the call: an unlikely number in every format


class Parameter(NamedTuple):
    """A parameter of a C function: an array that is read or written, or the size of one's axis."""

    name: str
    dtype: Any
    pointer: bool
    written: bool
    axis: tuple[str, int] | None


def from_c(library: str | Path, symbol: str, signature: str, *, zeroed: bool = False) -> Kernel:
    """Make a kernel of a C function, from a signature that lists its parameters.

    `signature` is, for example, `"const float *x, const float *dy, float *dx, int T = x[0]"`:
    pointers to const are the leaves of the arguments, then those of the cotangents, in order;
    other pointers are the gradients of the floating leaves; an integer is the size of an axis of an
    array named before. All arrays are contiguous. Output buffers hold no useful number before the
    call, or zeros with `zeroed`, for a kernel that adds to them.
    Raises SignatureError where the signature cannot be read, and what ctypes raises.
    """
    parameters = read_signature(signature)
    # The loader looks for a name without a folder in the system's folders alone.
    path = Path(library).resolve() if Path(library).is_file() else library
    function: Any = getattr(ctypes.CDLL(str(path)), symbol)
    function.restype = None

    def backward(arguments: Any, cotangents: Any) -> Any:
        leaves = [convert_to_numpy(each) for _, each in list_leaves(arguments)]
        given = [convert_to_numpy(each) for _, each in list_leaves(cotangents)]
        outputs = [make_buffer(each, zeroed) for each in leaves if is_floating(each.dtype)]
        bound, _arrays = bind(parameters, [*leaves, *given], outputs)
        function(*bound)
        if not zeroed:
            require_written(parameters, outputs)
        return outputs

    return Kernel(backward, name=symbol)


def read_signature(signature: str) -> list[Parameter]:
    """Read the parameters of a C signature. Raises SignatureError where one cannot be read."""
    parameters = list[Parameter]()
    for text in signature.split(","):
        words = " ".join(text.replace("*", " *").split())
        match = PARAMETER.fullmatch(words)
        if match is None or match[2] not in TYPES or (match[3] is None and match[5] is None):
            raise SignatureError(
                f"signature: expected `const float *x`, `float *dx` or `int T = x[0]`, found "
                f"{text.strip()!r}; the types are {', '.join(TYPES)}"
            )
        const, kind, star, name, of, number = match.groups()
        axis = None if of is None else (of, int(number))
        if axis and of not in {each.name for each in parameters if each.pointer}:
            raise SignatureError(f"signature: {name} is the size of no array before it")
        parameters.append(Parameter(name, np.dtype(TYPES[kind]), bool(star), not const, axis))
    return parameters


def bind(
    parameters: Sequence[Parameter], read: Sequence[Array], written: Sequence[Array]
) -> tuple[list[Any], dict[str, Array]]:
    """Make the arguments of one call, and the arrays that they point to, by name.

    Raises SignatureError where arrays do not fit the signature.
    """
    counts = [sum(p.pointer and p.written is side for p in parameters) for side in (False, True)]
    if counts != [len(read), len(written)]:
        raise SignatureError(
            f"signature: expected {len(read)} pointers to const and {len(written)} others, found "
            f"{counts[0]} and {counts[1]}"
        )
    sources, named, bound = {False: iter(read), True: iter(written)}, dict[str, Array](), []
    for parameter in parameters:
        if not parameter.pointer:
            assert parameter.axis is not None
            of, axis = parameter.axis
            if axis >= named[of].ndim:
                raise SignatureError(
                    f"signature: {parameter.name} is the size of axis {axis} of {of}, which has "
                    f"{named[of].ndim}"
                )
            number: Any = np.ctypeslib.as_ctypes_type(parameter.dtype)
            bound.append(number(named[of].shape[axis]))
            continue
        array = next(sources[parameter.written])
        if array.dtype != parameter.dtype:
            raise SignatureError(
                f"signature: {parameter.name} is {parameter.dtype}, and its array {array.dtype}"
            )
        named[parameter.name] = array if parameter.written else np.ascontiguousarray(array)
        bound.append(ctypes.c_void_p(named[parameter.name].ctypes.data))
    return bound, named


def make_buffer(like: Array, zeroed: bool) -> Array:
    """Make an output buffer of an array's shape and dtype, of zeros or of no useful numbers."""
    if zeroed:
        return np.zeros(like.shape, like.dtype)
    return np.full(like.size * like.itemsize, POISON, np.uint8).view(like.dtype).reshape(like.shape)


def require_written(parameters: Sequence[Parameter], outputs: Sequence[Array]) -> None:
    """Raise UnwrittenOutputError where an entry of an output still has the bytes it had."""
    names = [each.name for each in parameters if each.pointer and each.written]
    for name, output in zip(names, outputs, strict=True):
        kept = (output.reshape(-1, 1).view(np.uint8) == POISON).all(axis=1)
        if kept.any():
            entry = [int(i) for i in np.unravel_index(int(np.argmax(kept)), output.shape)]
            raise UnwrittenOutputError(
                f"{int(kept.sum())} of {kept.size} entries of {name} are not written, "
                f"entry {entry} first"
            )
