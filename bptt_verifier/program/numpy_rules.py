"""Rules from NumPy's and SciPy's functions to JAX's, on traced values.

Most functions have the same name and arguments in JAX. The tables list the others.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import jax.scipy.special
import numpy as np
from jax import lax

Rule = Callable[..., Any]

# The modules whose functions have rules, and where JAX has those. The user imports SciPy, if any.
MODULES: dict[str, tuple[Any, ...]] = {
    "numpy": (jnp,),
    "numpy.linalg": (jnp.linalg,),
    "numpy.fft": (jnp.fft,),
    "scipy.special": (jax.scipy.special, jax.nn, jnp),
    "scipy.linalg": (jax.scipy.linalg, jnp.linalg),
}
# Options that change neither numbers nor shapes.
IGNORED = frozenset("order casting subok like copy optimize".split())
# Functions whose arrays all take the dtype of the result.
PROMOTING = frozenset(
    "concatenate concat stack hstack vstack row_stack dstack"
    " column_stack block append dot vdot inner outer multi_dot"
    " tensordot einsum kron cross convolve correlate where select choose matmul".split()
)
# Functions whose results depend on dtypes and shapes only.
OF_SHAPE = frozenset(
    "shape ndim size result_type can_cast iscomplexobj isrealobj shares_memory may_share_memory"
    " common_type isscalar array_repr array_str array2string zeros_like ones_like empty_like"
    " broadcast_shapes iterable isfortran einsum_path".split()
)
# Functions whose results have a shape that depends on values: the path of the loss does, too.
OF_TRUTH = frozenset("nonzero flatnonzero argwhere".split())


def convert(x: Any, *_: Any, ndmin: int = 0, **__: Any) -> Any:
    """The array itself: NumPy decides on the dtype of the result."""
    return jnp.array(x, ndmin=ndmin) if ndmin > np.ndim(x) else jnp.asarray(x)


def clip(x: Any, *bounds: Any, **named: Any) -> Any:
    """np.clip, whose bounds have several names."""
    low = named.get("a_min", named.get("min", bounds[0] if bounds else None))
    high = named.get("a_max", named.get("max", bounds[1] if len(bounds) > 1 else None))
    return jnp.clip(x, low, high)


def choose_where(condition: Any, *choices: Any) -> Any:
    """np.where, whose condition may be numbers."""
    condition = jnp.asarray(condition)
    return jnp.where(condition if condition.dtype == bool else condition != 0, *choices)


def take(x: Any, index: Any, axis: int | None = None, **_: Any) -> Any:
    """np.take, whose indices NumPy has checked."""
    index = np.asarray(index) if isinstance(index, list | tuple) else index
    if axis is None:
        return x.reshape(-1)[index]
    return x[(*[slice(None)] * (axis % x.ndim), index)]


def take_along(x: Any, index: Any, axis: int | None = -1) -> Any:
    """np.take_along_axis, whose indices NumPy has checked."""
    size = x.size if axis is None else x.shape[axis]
    inside = index % size if isinstance(index, np.ndarray) else jnp.mod(index, size)
    return jnp.take_along_axis(x, inside, axis, mode="promise_in_bounds")


def choose(index: Any, choices: Any, **_: Any) -> Any:
    """np.choose, whose indices NumPy has checked."""
    return jnp.choose(jnp.asarray(index).astype(int), choices, mode="clip")


def huber(delta: Any, r: Any) -> Any:
    """scipy.special.huber."""
    return jnp.where(jnp.abs(r) <= delta, r * r / 2, delta * (jnp.abs(r) - delta / 2))


def pseudo_huber(delta: Any, r: Any) -> Any:
    """scipy.special.pseudo_huber."""
    return delta * delta * (jnp.sqrt(1 + (r / delta) ** 2) - 1)


SPECIAL: dict[str, Rule] = {
    "array": convert, "copy": convert, "asarray": convert, "ascontiguousarray": convert,
    "asfortranarray": convert, "asanyarray": convert, "require": convert, "positive": convert,
    "choose": choose, "take": take, "take_along_axis": take_along,
    "clip": clip, "where": choose_where,
    "log_expit": jax.nn.log_sigmoid,
    "logsumexp": jax.scipy.special.logsumexp, "psi": jax.scipy.special.digamma,
    "row_stack": jnp.vstack, "fix": jnp.trunc, "exp10": lambda x: jnp.power(10.0, x),
    "huber": huber, "pseudo_huber": pseudo_huber, "asarray_chkfinite": convert,
    "around": jnp.round, "round_": jnp.round, "real_if_close": convert,
}  # fmt: skip
REDUCTIONS: dict[str, Rule] = {
    "add": jnp.sum, "multiply": jnp.prod, "maximum": jnp.max, "minimum": jnp.min,
    "logical_and": jnp.all, "logical_or": jnp.any,
}  # fmt: skip
ACCUMULATIONS: dict[str, Rule] = {
    "add": jnp.cumsum, "multiply": jnp.cumprod,
    "maximum": lambda x, axis: lax.cummax(x, axis % x.ndim),
    "minimum": lambda x, axis: lax.cummin(x, axis % x.ndim),
    "logaddexp": lambda x, axis: lax.cumlogsumexp(x, axis % x.ndim),
}  # fmt: skip
# What `ufunc.at` does, as a method of JAX's indexed updates, and to its operand before.
UPDATES: dict[str, tuple[str, Rule]] = {
    "add": ("add", lambda x: x), "subtract": ("add", lambda x: -x),
    "multiply": ("multiply", lambda x: x), "divide": ("divide", lambda x: x),
    "maximum": ("max", lambda x: x), "minimum": ("min", lambda x: x),
}  # fmt: skip
# Functions of Python's module math, as NumPy and SciPy have them.
MATH = {
    "exp": "exp", "expm1": "expm1", "log2": "log2", "log10": "log10", "log1p": "log1p",
    "sqrt": "sqrt", "cbrt": "cbrt", "sin": "sin", "cos": "cos", "tan": "tan", "asin": "arcsin",
    "acos": "arccos", "atan": "arctan", "atan2": "arctan2", "sinh": "sinh", "cosh": "cosh",
    "tanh": "tanh", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh", "pow": "power",
    "fabs": "fabs", "hypot": "hypot", "exp2": "exp2", "isnan": "isnan", "isinf": "isinf",
    "isfinite": "isfinite", "copysign": "copysign", "log": "log", "degrees": "degrees",
    "radians": "radians", "fmod": "fmod", "lgamma": "gammaln",
}  # fmt: skip


def find_rule(function: Any) -> Rule | None:
    """Find the function of JAX that computes a function of NumPy or SciPy."""
    name = str(getattr(function, "__name__", ""))
    for module, places in MODULES.items():
        if getattr(sys.modules.get(module), name, None) is function:
            if name in SPECIAL:
                return SPECIAL[name]
            found = (getattr(place, name, None) for place in places)
            return next((rule for rule in found if callable(rule)), None)
    return None
