"""What a loss is called with and returns: a namespace or none, and one real number."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt, copies, type_name
from bptt_verifier.program.leaves import Tree, flatten
from bptt_verifier.program.own_globals import find_globals
from bptt_verifier.program.rounding import is_inexact
from bptt_verifier.reference.case import Loss


def ignore_namespace(loss: Callable[..., Any]) -> Loss:
    """Turn a loss in plain NumPy into one that is given a namespace."""

    @wraps(loss)
    def call(params: Any, _: Any) -> Any:
        return loss(params)

    return call


def refuses_arrays(loss: Loss, params: Mapping[str, Array]) -> bool:
    """Tell whether a loss in JAX fails at NumPy's arrays, of which it takes entries by tracers.

    Its user differentiates it, and so gives it tracers alone.
    """
    found = attempt(lambda: loss(copies(params), np))
    return isinstance(found, Failure) and found.exception == "TracerArrayConversionError"


def give_jax_arrays(loss: Loss) -> Loss:
    """Turn a loss in JAX into one that gets JAX's arrays in the place of NumPy's."""

    @wraps(loss)
    def call(params: Any, xp: Any) -> Any:
        arrays = (jnp.asarray(v) if isinstance(v, np.ndarray) else v for v in params.values())
        return loss(dict(zip(params, arrays, strict=True)), xp)

    return call


class KeepingTracers(type):
    """The metaclass of a `float` that leaves what JAX traces as it is."""

    def __call__(cls, *given: Any) -> Any:
        """Convert a number, unless it is traced."""
        traced = len(given) == 1 and isinstance(given[0], jax.core.Tracer) and given[0].size == 1
        return given[0] if traced else float(*given)

    def __instancecheck__(cls, value: Any) -> bool:
        """True for a float of Python's."""
        return isinstance(value, float)


# As a dtype it is that of a float.
TRACED_FLOAT = KeepingTracers("float", (float,), {"__slots__": (), "dtype": np.dtype(float)})


def keep_traced_floats(loss: Loss) -> Loss:
    """Make the loss in which `float(x)` of what JAX traces is x, as in `return float(loss)`."""
    space = find_globals(loss)

    @wraps(loss)
    def call(params: Any, xp: Any) -> Any:
        if "float" in space:
            return loss(params, xp)
        space["float"] = TRACED_FLOAT
        try:
            return loss(params, xp)
        finally:
            del space["float"]

    return call


def find_settings(loss: Loss, params: Any) -> tuple[Tree, ...]:
    """Find the settings in what is given: parameters, or a list of them in several shapes.

    A list of dicts with the same leaves may also be the layers of one model. It is that if the loss
    takes it as it is. Raises ValueError where it is neither.
    """
    if type(params) not in (list, tuple) or not all(isinstance(p, Mapping) for p in params):
        return (flatten(params),)
    trees, whole = tuple(map(flatten, params)), flatten(params)
    found = attempt(lambda: np.asarray(loss(whole.rebuild(copies(whole.leaves)), np)))
    if isinstance(found, Failure):
        found = attempt(lambda: np.asarray(loss(whole.rebuild(copies(whole.leaves)))))  # type: ignore[call-arg]
    if not isinstance(found, Failure) and found.size == 1 and found.dtype.kind == "f":
        return (whole,)
    if len({frozenset(tree.leaves) for tree in trees}) > 1:
        raise ValueError("params: expected the same names in every setting")
    return trees


def require_one_value(found: Any, loss: Callable[..., Any]) -> None:
    """Raise ValueError where the loss returned several values."""
    if isinstance(found, tuple | list | Mapping) and not isinstance(found, Failure):
        # What reads the code of others is needed for the message alone.
        from bptt_verifier.program.gradient_names import name_returned_values  # noqa: PLC0415
        from bptt_verifier.program.own_results import describe_result  # noqa: PLC0415

        names = name_returned_values(loss, len(found))
        number = f"a {type_name(found)} of {len(found)} values"
        values = f"a {describe_result(found, names)}" if names else number
        raise ValueError(
            f"loss: expected a real scalar, found {values}; "
            "return the loss alone, or write a function that does"
        )


def to_scalar(value: Any) -> Any:
    """Give a loss of one entry no axes, and one that counts a derivative, which is zero."""
    value = value if np.shape(value) == () else jnp.reshape(value, ())
    return value if is_inexact(jnp.result_type(value)) else jnp.asarray(value, float)
