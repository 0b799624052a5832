"""What every public function asks of its arguments, and how it says what is wrong.

The same sentences as the other witness says, from code of its own. Shapes and dtypes are checked
under `jax.jit` too; values only where they are concrete.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np


class Parameters(Protocol):
    """Any pytree with the fields U (H, D), W (H, H), V (O, H), b (H,) or None, c (O,) or None."""

    @property
    def U(self) -> Any: ...
    @property
    def W(self) -> Any: ...
    @property
    def V(self) -> Any: ...
    @property
    def b(self) -> Any: ...
    @property
    def c(self) -> Any: ...


def dtype_of(name: str, value: Any) -> np.dtype[Any]:
    """The dtype of `value`, which must be a floating one that JAX can hold.

    Raises TypeError otherwise: longdouble, which JAX would silently shorten, included.
    """
    if not hasattr(value, "dtype"):
        value = np.asarray(value)
        if value.dtype == object:
            raise TypeError(f"{name}: expected an array, found object")
    dtype: np.dtype[Any] = value.dtype
    if not jnp.issubdtype(dtype, jnp.floating) or dtype == np.longdouble:
        raise TypeError(f"{name}: expected a floating dtype, found {dtype}")
    return dtype


def precision(dtype: np.dtype[Any]) -> AbstractContextManager[Any]:
    """64-bit JAX for the duration of a block, where `dtype` needs it: never switched globally."""
    return jax.enable_x64(True) if dtype == np.float64 else nullcontext()


def require_finite(name: str, value: Any) -> None:
    """Raises ValueError where a concrete `value` holds NaN or infinity."""
    if not isinstance(value, jax.core.Tracer):
        finite = np.isfinite(np.asarray(value))
        if not finite.all():
            where = tuple(int(i) for i in np.argwhere(~finite)[0])
            raise ValueError(
                f"{name}: expected finite values, found {np.asarray(value)[where]} at {where}"
            )


def require_shape(name: str, value: Any, letters: str, sizes: dict[str, int]) -> None:
    """Raises ValueError unless `value` has the shape of e.g. "T B D", with the known `sizes`.

    Sizes that are not yet known are added to `sizes`.
    """
    wanted, found = letters.split(), tuple(np.shape(value))
    layout = "(" + ", ".join(wanted) + ("," if len(wanted) == 1 else "") + ")"
    if all(letter in sizes for letter in wanted):
        layout += f" = {tuple(sizes[letter] for letter in wanted)}"
    elif any(letter in sizes for letter in wanted):
        layout += " with " + ", ".join(f"{s} = {sizes[s]}" for s in wanted if s in sizes)
    known = {**sizes}
    if len(found) == len(wanted):
        for letter, size in zip(wanted, found, strict=True):
            known.setdefault(letter, size)
    if found != tuple(known.get(letter) for letter in wanted):
        raise ValueError(f"{name}: expected shape {layout}, found {found}")
    for letter, size in zip(wanted, found, strict=True):
        if size == 0:
            raise ValueError(f"{name}: expected shape {layout} with {letter} ≥ 1, found {found}")
    sizes.update(known)


def check(params: Any, x: Any, y: Any = None, h0: Any = None) -> np.dtype[Any]:
    """The one dtype of all arguments, whose shapes agree: x (T, B, D), y (B, O), h0 (B, H).

    Raises TypeError or ValueError naming the argument, what was expected and what was found.
    """
    given = {field: getattr(params, field, None) for field in "UWVbc"} | {"x": x, "y": y, "h0": h0}
    for field in "UWV":
        if given[field] is None:
            raise TypeError(
                f"params: expected Params(U, W, V[, b, c]), "
                f"found {type(params).__name__} without {field}"
            )
    if x is None:
        raise TypeError("x: expected an array, found None")
    given = {name: value for name, value in given.items() if value is not None}
    dtypes = {}
    for name, value in given.items():
        dtypes[name] = dtype_of(name, value)
        require_finite(name, value)
    layouts = {"U": "H D", "W": "H H", "V": "O H", "x": "T B D"}
    layouts |= {"b": "H", "c": "O", "y": "B O", "h0": "B H"}
    sizes: dict[str, int] = {}
    for name, letters in layouts.items():
        if name in given:
            require_shape(name, given[name], letters, sizes)
    for name, dtype in dtypes.items():
        if dtype != dtypes["U"]:
            raise TypeError(f"{name}: expected dtype {dtypes['U']} as in U, found {dtype}")
    return dtypes["U"]
