"""Methods and attributes of arrays over traced values, by NumPy's functions."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from bptt_verifier.program.numpy_arrays import TracedArray, TracedNumber, unwrap, wrap
from bptt_verifier.program.numpy_calls import call, call_ufunc, put, require_contiguous

# `x ** 2` is this function of x in NumPy.
POWERS = {2: np.square, 1: np.positive, 0.5: np.sqrt, -1: np.reciprocal}


def reshape(self: TracedArray, *shape: Any, **options: Any) -> Any:
    """The method reshape, whose sizes may be several arguments."""
    return call(np.reshape, self, shape[0] if len(shape) == 1 else shape, **options)


def transpose(self: TracedArray, *axes: Any) -> Any:
    """The method transpose, whose axes may be several arguments."""
    chosen = axes[0] if len(axes) == 1 else axes or None
    return self.select(lambda x: x.transpose(chosen))


def flatten(self: TracedArray, order: str = "C") -> Any:
    """The method flatten: a copy."""
    return call(np.copy, call(np.ravel, self, order=order))


def astype(self: TracedArray, dtype: Any, *arguments: Any, **options: Any) -> Any:
    """The method astype."""
    found = self.value.astype(unwrap(dtype), *arguments, **options)
    return wrap(found, None if self.is_constant else self.traced, [self])


def copy(self: TracedArray, order: Any = "C") -> Any:
    """The method copy."""
    return wrap(self.value.copy(order), None if self.is_constant else self.traced)


def clip(self: TracedArray, *bounds: Any, **options: Any) -> Any:
    """The method clip, of which both bounds may be left out."""
    low = bounds[0] if bounds else options.pop("min", None)
    high = bounds[1] if len(bounds) > 1 else options.pop("max", None)
    return call(np.clip, self, low, high, **options)


def fill(self: TracedArray, value: Any) -> None:
    """The method fill."""
    self[...] = value


def item(self: TracedArray, *index: Any) -> Any:
    """The method item: a number, also where it depends on the parameters."""
    found = self.value.item(*index)
    if self.is_constant:
        return found
    flat = jnp.asarray(self.traced)
    if not index:
        return wrap(found, flat.reshape(()) if flat.shape else flat)
    place = index[0] if isinstance(index[0], tuple) or len(index) == 1 else index
    return wrap(found, flat[place] if isinstance(place, tuple) else flat.reshape(-1)[place])


def tolist(self: TracedArray) -> Any:
    """The method tolist."""
    if self.is_constant:
        return self.value.tolist()
    return [x.tolist() for x in self] if self.ndim else item(self)


def sort(self: TracedArray, axis: int = -1, **options: Any) -> None:
    """The method sort, in place."""
    self[...] = call(np.sort, self, axis=axis, **options)


def compress(self: TracedArray, condition: Any, axis: Any = None, out: Any = None) -> Any:
    """The method compress."""
    return call(np.compress, condition, self, axis=axis, out=out)


def make_view(self: TracedArray, *dtype: Any, **options: Any) -> Any:
    """The method view."""
    return wrap(self.value.view(*map(unwrap, dtype), **options), None, [self])


def find_real(self: TracedArray) -> Any:
    """The attribute real."""
    return call(np.real, self) if self.dtype.kind == "c" else self


def find_imaginary(self: TracedArray) -> Any:
    """The attribute imag."""
    return call(np.imag, self)


def find_flat(self: TracedArray) -> Any:
    """The attribute flat, as a flat view."""
    require_contiguous(self)
    return self.value.flat if self.is_constant else call(np.ravel, self)


def assign_flat(self: TracedArray, value: Any) -> None:
    """Assign to the attribute flat."""
    find_flat(self)[...] = value


def power(self: TracedArray, exponent: Any) -> Any:
    """The operator **, which is a simpler function for some exponents."""
    simple = isinstance(exponent, int | float) and self.dtype.kind in "fc"
    function = POWERS.get(exponent) if simple and not isinstance(exponent, bool) else None
    return np.power(self, exponent) if function is None else function(self)


def power_in_place(self: TracedArray, exponent: Any) -> Any:
    """The operator **=."""
    if self.is_number:
        return power(self, exponent)
    self[...] = power(self, exponent)
    return self


def round_number(self: TracedArray, digits: int | None = None) -> Any:
    """The builtin function round."""
    return int(call(np.round, self)) if digits is None else call(np.round, self, digits)


def call_function(_: Any, function: Any, types: Any, arguments: Any, options: Any) -> Any:
    """Call a function of NumPy: `__array_function__` of arrays."""
    return call(function, *arguments, **options)


METHODS = (
    "all any argmax argmin argpartition argsort choose conj conjugate cumprod cumsum diagonal"
    " dot max mean min nonzero prod ravel repeat round searchsorted squeeze std sum swapaxes take"
    " trace var"
).split()


def make_method(function: Any) -> Callable[..., Any]:
    """Make the method that calls a function with the array first."""
    return lambda self, *arguments, **options: call(function, self, *arguments, **options)


MEMBERS: dict[str, Any] = {
    "__array_ufunc__": call_ufunc, "__array_function__": call_function, "__pow__": power,
    "__ipow__": power_in_place, "__round__": round_number, "view": make_view, "put": put,
    "real": property(find_real), "imag": property(find_imaginary),
    "flat": property(find_flat, assign_flat),
    "mT": property(lambda self: self.swapaxes(-1, -2)),
}  # fmt: skip
MEMBERS |= {name: make_method(getattr(np, name)) for name in METHODS}
for own in (reshape, transpose, flatten, astype, copy, clip, fill, item, tolist, sort, compress):
    MEMBERS[own.__name__] = own
for member, method in MEMBERS.items():
    setattr(TracedArray, member, method)
setattr(TracedNumber, "__ipow__", power_in_place)  # noqa: B010 - it has one that refuses
