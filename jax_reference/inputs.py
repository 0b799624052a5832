"""Checks of the arguments of every public function, and their error messages.

The messages are those of the other witness; the code is separate. Shapes and dtypes are checked
under `jax.jit` too, values only where they are concrete.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jax_reference.losses import CLASSES

OUTPUTS = ("last", "every")


class Parameters(Protocol):
    """Any pytree with the fields U (G, D), W (G, H), V (O, H), b (G,) or None, c (O,) or None.

    G is H times the number of gates.
    """

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


def native(name: str, value: Any) -> Any:
    """`value` itself if it is a JAX array, else a NumPy array in this machine's byte order.

    Raises TypeError for a value that is not an array, such as rows of different lengths.
    """
    if hasattr(value, "dtype") and not isinstance(value, np.ndarray):
        return value
    try:
        found = np.asarray(value)
    except ValueError:
        found = np.empty((), object)
    if found.dtype == object and not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected an array, found {type(value).__name__}")
    return found if found.dtype.isnative else found.astype(found.dtype.newbyteorder("="))


def require_weight(name: str, value: Any) -> None:
    """Raises TypeError unless `value` is an array that JAX takes: weights are not converted."""
    if not hasattr(value, "dtype"):
        raise TypeError(f"{name}: expected an array, found {type(value).__name__}")
    if isinstance(value, np.ndarray) and not value.dtype.isnative:
        raise TypeError(
            f"{name}: expected dtype {value.dtype.newbyteorder('=')}, found {value.dtype}, "
            f"of another byte order"
        )


def dtype_of(name: str, value: Any) -> np.dtype[Any]:
    """The dtype of `value`, which must be a floating dtype that JAX has.

    Raises TypeError otherwise, also for longdouble, which JAX would silently narrow.
    """
    dtype: np.dtype[Any] = value.dtype
    if not jnp.issubdtype(dtype, jnp.floating) or dtype == np.longdouble:
        raise TypeError(f"{name}: expected a floating dtype, found {dtype}")
    return dtype


def precision(dtype: np.dtype[Any]) -> AbstractContextManager[Any]:
    """A context with 64-bit JAX where `dtype` needs it; the global setting does not change."""
    return jax.enable_x64(True) if dtype == np.float64 else nullcontext()


def require_finite(name: str, value: Any) -> None:
    """Raises ValueError if a concrete `value` holds NaN or infinity."""
    if not isinstance(value, jax.core.Tracer):
        finite = np.isfinite(np.asarray(value))
        if not finite.all():
            where = tuple(int(i) for i in np.argwhere(~finite)[0])
            raise ValueError(
                f"{name}: expected finite values, found {np.asarray(value)[where]} at {where}"
            )


def require_shape(name: str, value: Any, letters: str, sizes: dict[str, int]) -> None:
    """Raises ValueError unless the shape of `value` is `letters`, e.g. "T B D", with `sizes`.

    `sizes` holds the known sizes; new ones are added.
    """
    wanted, found = letters.split(), tuple(np.shape(value))
    known = {**sizes}
    if len(found) == len(wanted):
        for letter, size in zip(wanted, found, strict=True):
            known.setdefault(letter, size)
    fits = found == tuple(known.get(letter) for letter in wanted)
    if fits and 0 not in found:
        sizes.update(known)
        return
    layout = "(" + ", ".join(wanted) + ("," if len(wanted) == 1 else "") + ")"
    if all(letter in sizes for letter in wanted):
        layout += f" = {tuple(sizes[letter] for letter in wanted)}"
    elif any(letter in sizes for letter in wanted):
        layout += " with " + ", ".join(f"{s} = {sizes[s]}" for s in wanted if s in sizes)
    if fits:
        joined = "and" if " with " in layout else "with"
        layout += f" {joined} {wanted[found.index(0)]} ≥ 1"
    raise ValueError(f"{name}: expected shape {layout}, found {found}")


class Arguments(NamedTuple):
    """Checked arguments: x, y, the first state, the lengths, and the dtype."""

    x: Any
    y: Any
    first: tuple[Any, ...]
    lengths: Any
    dtype: np.dtype[Any]


def arguments(
    params: Any,
    x: Any,
    y: Any = None,
    h0: Any = None,
    *,
    c0: Any = None,
    gates: int = 1,
    states: tuple[str, ...] = ("h0",),
    fields: tuple[str, ...] = ("U", "W", "V", "b", "c"),
    loss: Any = None,
    outputs: Any = "last",
    lengths: Any = None,
) -> Arguments:
    """Check that a model's arguments have one dtype and shapes that agree; zero the padding.

    Shapes, with G = `gates` · H: U (G, D), W (G, H), V (O, H), b (G,), c (O,), b_n (H,),
    x (T, B, D), y (B, O), or (T, B, O) for outputs at every step, h0 and c0 (B, H), lengths (B,).
    For softmax cross-entropy y may hold classes; then its shape lacks the O. `states` names the
    parts of the first state; a part is zeros where None is given. All arguments but the weights may
    be nested lists.
    Raises TypeError or ValueError naming the argument, what was expected and what was found.
    """
    given = {field: getattr(params, field, None) for field in fields}
    given |= {"x": x, "y": y, "h0": h0, "c0": c0}
    for field in "UWV":
        if given[field] is None:
            raise TypeError(
                f"params: expected Params(U, W, V[, b, c]), "
                f"found {type(params).__name__} without {field}"
            )
    for name in ("x",) if loss is None else ("x", "y"):
        if given[name] is None:
            raise TypeError(f"{name}: expected an array, found None")
    require_name("outputs", outputs, OUTPUTS)
    for name, value in given.items():
        if value is not None:
            if name in fields:
                require_weight(name, value)
            given[name] = native(name, value)
    x, y = given["x"], given["y"]
    if lengths is not None:
        lengths = require_lengths(lengths, x)
        given["x"] = without_padding(x, lengths)
        given["y"] = y if outputs == "last" else without_padding(y, lengths)
    given = {name: value for name, value in given.items() if value is not None}
    classes = loss == CLASSES and "y" in given and is_integer(given["y"])
    dtypes = {}
    for name, value in given.items():
        if not (name == "y" and classes):
            dtypes[name] = dtype_of(name, value)
            require_finite(name, value)

    G, sizes = "H" if gates == 1 else f"{gates}H", dict[str, int]()
    if gates > 1:
        require_shape("V", given["V"], "O H", sizes)
        sizes[G] = gates * sizes["H"]
    at = "T B" if outputs == "every" else "B"
    layouts = {"U": f"{G} D", "W": f"{G} H", "V": "O H", "x": "T B D", "b": G, "c": "O"}
    layouts |= {"b_n": "H", "y": at if classes else f"{at} O", "h0": "B H", "c0": "B H"}
    for name, letters in layouts.items():
        if name in given:
            require_shape(name, given[name], letters, sizes)
    for name, dtype in dtypes.items():
        if dtype != dtypes["U"]:
            raise TypeError(
                f"{name}: expected dtype {dtypes['U']} as in U, found {dtype}"
                f"{shortened(given[name], given['U'])}"
            )
    if "y" in given:
        require_targets(given["y"], loss, sizes["O"], lengths if outputs == "every" else None)
    zeros = np.zeros((sizes["B"], sizes["H"]), dtypes["U"])
    return Arguments(
        given["x"],
        given.get("y"),
        tuple(given.get(state, zeros) for state in states),
        lengths,
        dtypes["U"],
    )


def shortened(*values: Any) -> str:
    """A hint for the message where JAX narrowed a traced float64 to float32, or nothing."""
    tracers = any(
        isinstance(value, jax.core.Tracer) and value.dtype == np.float32 for value in values
    )
    wanted = any(value.dtype == np.float64 for value in values)
    narrow = tracers and wanted and jnp.result_type(float) == np.float32
    return "; to differentiate float64, JAX needs jax.enable_x64(True)" if narrow else ""


def check(params: Any, x: Any, y: Any = None, h0: Any = None) -> np.dtype[Any]:
    """Check the plain RNN's arguments; return their dtype. Raises what `arguments` raises."""
    return arguments(params, x, y, h0).dtype


def is_integer(value: Any) -> bool:
    """True if `value` has an integer dtype."""
    return bool(jnp.issubdtype(getattr(value, "dtype", np.asarray(value).dtype), np.integer))


def require_name(argument: str, value: Any, names: tuple[str, ...]) -> None:
    """Raises TypeError unless `value` is a string, ValueError unless it is one of `names`."""
    if not isinstance(value, str):
        raise TypeError(f"{argument}: expected a name, found {type(value).__name__}")
    if value not in names:
        raise ValueError(f"{argument}: expected one of {', '.join(names)}, found {value!r}")


def require_lengths(lengths: Any, x: Any) -> Any:
    """The lengths (B,) of the sequences in x, from 1 to T where they are concrete."""
    found = native("lengths", lengths)
    if not jnp.issubdtype(found.dtype, jnp.integer):
        raise TypeError(f"lengths: expected an integer dtype, found {found.dtype}")
    if np.ndim(x) == 3:  # else x has the wrong shape, which is reported later
        T, B, _ = np.shape(x)
        require_shape("lengths", found, "B", {"B": B})
        if not isinstance(found, jax.core.Tracer):
            for where, length in enumerate(found.tolist()):
                if not 1 <= length <= T:
                    raise ValueError(
                        f"lengths: expected values from 1 to T = {T}, found {length} at ({where},)"
                    )
    return found


def without_padding(value: Any, lengths: Any) -> Any:
    """A copy of `value` with every step after a sequence's last set to zero."""
    shape = np.shape(value)
    if len(shape) < 2 or shape[1] != len(lengths):
        return value  # its shape is wrong, which is reported later
    tracers = any(isinstance(each, jax.core.Tracer) for each in (value, lengths))
    library: Any = jnp if tracers else np
    counted = library.arange(1, shape[0] + 1)[:, None] <= lengths
    counted = counted.reshape(*counted.shape, *(1,) * (len(shape) - 2))
    value = library.asarray(value)
    return library.where(counted, value, library.zeros((), value.dtype))


def require_targets(y: Any, loss: Any, classes: int, lengths: Any) -> None:
    """Raises ValueError if concrete targets are not valid for their cross-entropy."""
    if isinstance(y, jax.core.Tracer) or isinstance(lengths, jax.core.Tracer):
        return
    y = np.asarray(y)
    if loss == CLASSES and np.issubdtype(y.dtype, np.integer):
        fits, expected = (y >= 0) & (y < classes), f"classes from 0 to O - 1 = {classes - 1}"
    elif loss == CLASSES:
        fits, expected = ((y == 0) | (y == 1)).all(axis=-1) & (y.sum(axis=-1) == 1), "one-hot rows"
    elif loss == "binary_cross_entropy":
        fits, expected = (y >= 0) & (y <= 1), "values from 0 to 1"
    else:
        return
    if lengths is not None:
        fits[np.arange(1, len(y) + 1)[:, None] > lengths] = True
    if not fits.all():
        where = tuple(int(i) for i in np.argwhere(~fits)[0])
        raise ValueError(f"y: expected {expected}, found {y[where].tolist()} at {where}")


def require_direction(direction: Any, like: dict[str, Any], lengths: Any) -> dict[str, Any]:
    """The parts of a direction, by the name of what they move; zeros where they are absent.

    Raises TypeError or ValueError naming the part, what was expected and what was found.
    """
    if not hasattr(direction, "U"):
        found = type(direction).__name__
        raise TypeError(f"direction: expected Direction({', '.join(like)}), found {found}")
    parts = {}
    for field, moved in like.items():
        name, part = f"direction.{field}", getattr(direction, field, None)
        if moved is None and part is not None:
            raise ValueError(f"{name}: expected None as in params, found {type(part).__name__}")
        if moved is None or part is None:
            parts[field] = None if moved is None else np.zeros(np.shape(moved), moved.dtype)
            continue
        part = native(name, part)
        if field == "x" and lengths is not None:
            part = without_padding(part, lengths)
        dtype_of(name, part)
        require_finite(name, part)
        if np.shape(part) != np.shape(moved):
            raise ValueError(
                f"{name}: expected shape {np.shape(moved)} as {field}, found {np.shape(part)}"
            )
        if part.dtype != moved.dtype:
            raise TypeError(f"{name}: expected dtype {moved.dtype} as in U, found {part.dtype}")
        parts[field] = part
    return parts


def require_truncation(truncation: Any, outputs: str) -> None:
    """Raises TypeError or ValueError unless `truncation` is None or an integer of at least 1.

    The window of truncation ends at one output, so it must be None for outputs at every step.
    """
    if truncation is None:
        return
    if not isinstance(truncation, int | np.integer) or isinstance(truncation, bool):
        raise TypeError(f"truncation: expected an integer, found {type(truncation).__name__}")
    if truncation < 1:
        raise ValueError(f"truncation: expected at least 1, found {truncation}")
    if outputs != "last":
        raise ValueError(f"truncation: expected None with outputs='every', found {truncation}")
