"""Own models in JAX whose loss is written for float32: the operations that JAX traces, in float64.

Such code names its format, as `jnp.zeros(n, jnp.float32)` does, and takes no parameters in float64,
or rounds them. What is traced as the user runs it is the loss, and is read without its rounding.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Var, jaxpr_as_fun

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt, copies
from bptt_verifier.program.leaves import Leaves, describe_shapes
from bptt_verifier.program.precision import find_arrays, forget_other_precision
from bptt_verifier.program.wider_programs import Mode, Widening
from bptt_verifier.reference.scalar_loss import to_scalar

APART = 2.0**-10  # relative distance of two losses that are no roundings of one
SAID = (
    "The loss is written for float32: its operations are those that JAX traces in your precision, "
    "and are computed and differentiated in float64. Every case is drawn and judged in float32."
)


def find_mode() -> Mode:
    """Find the settings of JAX, which are the user's where the judge has not set its own."""
    config: Any = jax.config
    return Mode(bool(config.jax_enable_x64), config.jax_numpy_dtype_promotion)


def may_be_narrow(model: Any, mode: Mode) -> bool:
    """Tell whether a loss fails in float64, or computes in float32 what its parameters change.

    Or it is another function in the user's mode. `model` is the `OwnModel`, of the module that
    imports this one.
    """
    if model.loss_raised or model.untraced or differs_in(mode, model.loss, model.params[0]):
        return True
    programs = (path.program for paths in model.paths for path in paths.known)
    operations = (each for program in programs for each in program.operations)
    return any(dtype == np.float32 for each in operations for dtype in each.dtypes)


def differs_in(mode: Mode, loss: Callable[..., Any], given: Mapping[str, Array]) -> bool:
    """Tell whether a loss is another function in this mode, beyond the rounding of float32.

    JAX draws other random numbers where its default format is another one.
    """
    wide = attempt(loss, copies(given), np)
    if mode.x64 or not isinstance(wide, jax.Array):
        return False
    arrays = find_arrays(loss)
    with mode.hold():
        forget_other_precision(arrays)
        found = attempt(loss, copies(given), np)
    forget_other_precision(arrays)
    if not isinstance(found, jax.Array) or found.size != 1 or wide.size != 1:
        return False
    here, there = (float(np.asarray(value).real.item()) for value in (found, wide))
    return abs(here - there) > APART * max(abs(here), abs(there))


def read_narrow(model: Any, mode: Mode, trace: Callable[[Any], Any]) -> Any:
    """Read a loss that is written for float32 in float64; None where that gives no reference."""
    read = read_float32(model.loss, model.params, mode)
    if read is None:
        return None
    found = trace(model._replace(loss=read, params=tuple(map(narrow, model.params))))
    if found.refusal or found.untraced:
        return None
    return found._replace(notes=(*found.notes, SAID))


def narrow(given: Mapping[str, Array]) -> Leaves:
    """Convert parameters to float32, in which all cases are then drawn."""
    leaves = Leaves({name: np.asarray(value, np.float32) for name, value in given.items()})
    leaves.one_precision = True
    return leaves


def read_float32(
    loss: Callable[..., Any], settings: Sequence[Mapping[str, Array]], mode: Mode
) -> Callable[..., Any] | None:
    """Make the function in float64 from a loss of the leaves of parameters, in some settings.

    It is None where the loss does not run in float32, is not written in JAX, or is not traced.
    """
    every = [value.dtype for given in settings for value in given.values()]
    if mode.x64 and any(dtype != np.float32 for dtype in every):
        return None  # a cast to float32 rounds what the user has in float64
    arrays = find_arrays(loss)
    known = dict[Any, tuple[Callable[..., Any], Callable[..., Any]]]()
    for given in settings:
        # Only code in JAX has anything to forget, and it may be wrong in 64 bit.
        if not isinstance(attempt(loss, copies(given), np), jax.Array | Failure):
            return None
        with mode.hold():
            found = attempt(trace_float32, loss, narrow(given), arrays, mode)
        forget_other_precision(arrays)
        if found is None or isinstance(found, Failure):
            return None
        run = jaxpr_as_fun(found)
        known[describe_shapes(given)] = run, jax.jit(run)

    @wraps(loss)
    def read(params: Mapping[str, Any], _: Any) -> Any:
        run, compiled = known[describe_shapes(params)]
        # Traced, a compiled function would hide the places of its operations.
        at_numbers = all(type(value) is np.ndarray for value in params.values())
        (value,) = (compiled if at_numbers else run)(*params.values())
        return value

    read.__module__ = __name__  # whose globals it has
    return read


def trace_float32(
    loss: Callable[..., Any], given: Mapping[str, Array], arrays: Sequence[Array], mode: Mode
) -> ClosedJaxpr | None:
    """Trace a loss under the user's settings, and widen what is traced.

    None where it does not compute one array of JAX, the same when it is called again.
    """
    forget_other_precision(arrays)
    first, second = (loss(copies(given), np) for _ in range(2))
    if not isinstance(first, jax.Array) or not np.array_equal(first, second, equal_nan=True):
        return None

    def in_order(values: Sequence[Any]) -> Any:  # JAX sorts the names of a dict
        return to_scalar(loss(dict(zip(given, values, strict=True)), np))

    closed = jax.make_jaxpr(in_order)([*given.values()])
    return Widening(list_originals(arrays), mode).close(closed)


def list_originals(arrays: Sequence[Array]) -> dict[int, tuple[Any, Array]]:
    """List the arrays by the identity of what JAX has made of each, which is kept with it."""
    closed = jax.make_jaxpr(lambda: list(arrays))()
    made = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    pairs = zip(closed.jaxpr.outvars, arrays, strict=True)
    found = [(made[atom], array) for atom, array in pairs if isinstance(atom, Var)]
    return {id(constant): (constant, array) for constant, array in found}
