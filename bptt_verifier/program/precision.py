"""Isolation of the user's JAX code, in default precision, from the judge's traces in 64 bit.

JAX converts a NumPy array that a function closes over to the precision of that moment, and finds
the result again by the array's identity as long as any trace refers to it. After a trace in 64 bit,
code of default precision would therefore get float64; after training in default precision, a trace
in 64 bit would get float32.
"""

import gc
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import jax
import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.tolerance.formats import is_floating

REACHED = 20_000  # objects among which the arrays of a loss are sought, the nearest first
ATOMS = (int, float, complex, str, bytes, bool, type(None), np.generic)
LONG = 1000  # entries of a list of which not all are looked at
PACKAGES = ("site-packages", "dist-packages")  # folders of what is installed
COMPILED = type(jax.jit(lambda: None))


@contextmanager
def use_float64() -> Iterator[None]:
    """Use 64-bit JAX with standard promotion, whatever the caller's settings."""
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.debug_nans(False),  # the judge asks for numbers that overflow
        jax.debug_infs(False),
    ):
        yield


@contextmanager
def isolate_float64(loss: Callable[..., Any], *, traces: bool = True) -> Iterator[None]:
    """Use 64-bit JAX for traces of a loss, and let neither precision reach the other's code.

    To forget the other precision takes the submission's own compiled functions with it, which then
    are compiled anew. Where the loss is hardly ever traced, that is left to what `traces` it.
    """
    arrays = find_arrays(loss)
    try:
        with use_float64():
            if traces:
                forget_other_precision(arrays)
            yield
    finally:
        forget_other_precision(arrays)


def run_in_float64(loss: Callable[..., Any], function: Callable[..., Any]) -> Any:
    """Run a function of a loss that is traced already, apart from all other code.

    Where it fails, JAX may keep an array of the loss in another precision, and it runs once more.
    """
    with isolate_float64(loss, traces=False):
        found = attempt(function)
    if not isinstance(found, Failure):
        return found
    with isolate_float64(loss):
        return function()


def forget_other_precision(arrays: Sequence[Array]) -> None:
    """Clear JAX's caches if they keep one of these arrays in another precision than today's."""
    if keeps_other_precision(arrays):
        jax.clear_caches()  # type: ignore[no-untyped-call]
        gc.collect()  # traces and their frames refer to each other
        if keeps_other_precision(arrays):
            end_failed_traces()


def keeps_other_precision(arrays: Sequence[Array]) -> bool:
    """Tell whether JAX keeps one of these arrays in another precision than today's."""
    with np.errstate(over="ignore"):  # where JAX rounds one to float32
        kept = jax.eval_shape(lambda: arrays)
    wanted = [jax.dtypes.canonicalize_dtype(array.dtype) for array in arrays]
    return [each.dtype for each in kept] != wanted


def end_failed_traces() -> None:
    """End the traces in which code raised, which JAX keeps for ever with the arrays in them.

    JAX ends a trace where it returns. In one that raised, each constant's finalizer holds the
    trace, which holds the operations on that constant. A trace that still runs is in a frame.
    """
    running = {id(value) for frame in list_running() for value in frame.f_locals.values()}
    for each in gc.get_objects():
        if type(each).__name__ == "DynamicJaxprTrace" and id(each) not in running:
            with suppress(AttributeError):  # it is no public part of JAX
                each.invalidate()
    gc.collect()


def list_running() -> list[Any]:
    """List the frames of all threads that have not returned."""
    found = [*sys._current_frames().values()]
    for frame in found:
        found += [frame.f_back] if frame.f_back else []
    return found


def find_arrays(function: Callable[..., Any]) -> list[Array]:
    """Find the 64-bit arrays that a function refers to, however indirectly, outside libraries."""
    waiting, seen, arrays = deque[Any]([function]), dict[int, Any](), []
    while waiting and len(seen) < REACHED:
        found = waiting.popleft()
        if id(found) in seen:
            continue
        seen[id(found)] = found
        if type(found) is np.ndarray:
            arrays += [found] if found.dtype in (np.float64, np.complex128, np.int64) else []
        elif not is_of_library(found):
            waiting.extend(list_referents(found))
        elif isinstance(found, FunctionType) and hasattr(found, "__wrapped__"):
            waiting.append(found.__wrapped__)  # the judge's, around the user's
    return arrays


def list_referents(found: Any) -> list[Any]:
    """List what an object refers to, except numbers and text.

    Of a list or tuple, the first entries are read: of a million tokens, no more can be reached. A
    long one that begins and ends with a number or text is taken to have nothing else.
    """
    if type(found) not in (list, tuple):
        every: Sequence[Any] = gc.get_referents(found)
    elif len(found) > LONG and all(issubclass(type(found[i]), ATOMS) for i in (0, -1)):
        return []
    else:
        every = found[:REACHED]
    return [each for each in every if not issubclass(type(each), ATOMS)]


def is_of_library(found: Any) -> bool:
    """Tell whether a module, class or function is Python's, this package's or an installed one.

    Attributes of other types are not read: reading one may raise, or import something.
    """
    kind = type(found)
    if issubclass(kind, ModuleType):
        name = vars(found).get("__name__")
    elif issubclass(kind, type | FunctionType | BuiltinFunctionType):
        name = found.__module__
    elif kind is COMPILED:
        name = getattr(found, "__module__", None)
    else:
        return False
    top = str(name).partition(".")[0]
    if top == "__main__":  # the user's file is run as that, while another one may be it
        return False
    file = str(getattr(sys.modules.get(top), "__file__", ""))
    installed = any(folder in file for folder in PACKAGES)
    return top in sys.stdlib_module_names or top == "bptt_verifier" or installed


def list_inner(equation: Any) -> list[Any]:
    """List the jaxprs in the parameters of an equation: bodies of calls, loops and branches."""
    found = jax.tree.leaves([*equation.params.values()], is_leaf=lambda x: hasattr(x, "eqns"))
    return [getattr(each, "jaxpr", each) for each in found if hasattr(each, "eqns")]


def find_narrowing(jaxpr: Any) -> str:
    """Find a conversion of float64 to a shorter format in a jaxpr; empty if there is none."""
    for equation in jaxpr.eqns:
        for inner in list_inner(equation):
            found = find_narrowing(inner)
            if found:
                return found
        if equation.primitive.name == "convert_element_type":
            old, new = equation.invars[0].aval.dtype, equation.outvars[0].aval.dtype
            if old == np.float64 and is_floating(new) and new != np.float64:
                return str(new)
    return ""


def is_loop(equation: Any) -> bool:
    """Tell whether an operation is a loop, which is compiled each time it is called alone."""
    return equation.primitive.name in {"scan", "while"}
