"""What every public function asks of its arguments, and how it says what is wrong.

Each message is one sentence: the argument, what was expected, what was found.
"""

from typing import Any, NamedTuple

import numpy as np

from manual_bptt.activations import Array
from manual_bptt.losses import CLASSES
from manual_bptt.sequences import steps_that_count

OUTPUTS = ("last", "every")


def native(name: str, value: Any) -> Array:
    """`value` as an array, in the byte order of this machine.

    Raises TypeError for what is no array, such as rows of different lengths.
    """
    try:
        found = np.asarray(value)
    except ValueError:
        found = np.empty((), object)
    if found.dtype == object and not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected an array, found {type(value).__name__}")
    return found if found.dtype.isnative else found.astype(found.dtype.newbyteorder("="))


def array(name: str, value: Any, also: tuple[str, ...] = ()) -> Array:
    """`value` as an array of floating or object dtype with finite values.

    Objects (exact rationals, symbols, intervals) are taken as they are, and numbers of the other
    byte order in that of this machine. `also` names floating dtypes that NumPy does not know.
    Raises TypeError for any other dtype and ValueError for NaN or infinity.
    """
    found = native(name, value)
    floating = found.dtype == object or np.issubdtype(found.dtype, np.floating)
    if not floating and found.dtype.name not in also:
        raise TypeError(f"{name}: expected a floating dtype, found {found.dtype}")
    if found.dtype != object and not np.isfinite(found).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(found))[0])
        raise ValueError(f"{name}: expected finite values, found {found[where]} at {where}")
    return found


def shape(name: str, value: Array, letters: str, **sizes: int) -> tuple[int, ...]:
    """The shape of `value`, which must match e.g. "T B D", with the sizes that are already known.

    Raises ValueError for the wrong rank, a size that disagrees, or a size of zero.
    """
    wanted = letters.split()
    fits = len(value.shape) == len(wanted) and all(
        sizes.get(letter, size) == size for letter, size in zip(wanted, value.shape, strict=True)
    )
    if fits and 0 not in value.shape:
        return tuple(value.shape)
    layout = "(" + ", ".join(wanted) + ("," if len(wanted) == 1 else "") + ")"
    if all(letter in sizes for letter in wanted):
        layout += f" = {tuple(sizes[letter] for letter in wanted)}"
    elif sizes.keys() & set(wanted):
        layout += " with " + ", ".join(f"{s} = {sizes[s]}" for s in wanted if s in sizes)
    if fits:
        joined = "and" if " with " in layout else "with"
        layout += f" {joined} {wanted[value.shape.index(0)]} ≥ 1"
    raise ValueError(f"{name}: expected shape {layout}, found {value.shape}")


class Arguments(NamedTuple):
    """What `arguments` returns: arrays of one dtype whose sizes agree."""

    weights: tuple[Any, ...]
    x: Array
    y: Any
    h0: Array
    c0: Array
    lengths: Array | None


def arguments(
    params: Any,
    x: Any,
    y: Any = None,
    h0: Any = None,
    *,
    c0: Any = None,
    gates: int = 1,
    fields: tuple[str, ...] = ("U", "W", "V", "b", "c"),
    loss: Any = None,
    outputs: Any = "last",
    lengths: Any = None,
    also: tuple[str, ...] = (),
) -> Arguments:
    """The arguments of a model as arrays of one dtype whose sizes agree, padding set to zero.

    Shapes, with G = `gates` · H: U (G, D), W (G, H), V (O, H), b (G,), c (O,), b_n (H,),
    x (T, B, D), y (B, O), or (T, B, O) for outputs at every step, h0 and c0 (B, H), lengths (B,).
    For softmax cross-entropy y may hold classes, and then lacks the O. An h0 or c0 of None becomes
    zeros; biases, y and lengths may stay None. Nested lists will do, but for the weights. `also`
    is that of `array`.
    Raises TypeError or ValueError naming the argument, what was expected and what was found.
    """
    given: dict[str, Any] = {field: getattr(params, field, None) for field in fields}
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
    name_among("outputs", outputs, OUTPUTS)
    for name, value in given.items():
        if name in fields and value is not None and not hasattr(value, "dtype"):
            raise TypeError(f"{name}: expected an array, found {type(value).__name__}")
        if value is not None:
            given[name] = native(name, value)
    x, y = given["x"], given["y"]
    if lengths is not None:
        lengths = whole_numbers("lengths", lengths, x)
        given["x"] = without_padding(x, lengths)
        given["y"] = y if outputs == "last" else without_padding(y, lengths)
    classes = loss == CLASSES and np.issubdtype(np.asarray(y).dtype, np.integer)
    arrays = {
        name: array(name, value, also)
        for name, value in given.items()
        if value is not None and not (name == "y" and classes)
    }

    G = "H" if gates == 1 else f"{gates}H"
    if gates == 1:
        H, D = shape("U", arrays["U"], "H D")
        O, _ = shape("V", arrays["V"], "O H", H=H)
    else:
        O, H = shape("V", arrays["V"], "O H")
        _, D = shape("U", arrays["U"], f"{G} D", **{G: gates * H})
    shape("W", arrays["W"], f"{G} H", **{"H": H, G: gates * H})
    T, B, _ = shape("x", arrays["x"], "T B D", D=D)
    sizes = {"T": T, "B": B, "H": H, "O": O, G: gates * H}
    at = "T B" if outputs == "every" else "B"
    layouts = {"b": G, "c": "O", "b_n": "H", "y": f"{at} O", "h0": "B H", "c0": "B H"}
    for name, letters in layouts.items():
        if name in arrays:
            shape(name, arrays[name], letters, **sizes)
    if classes:
        arrays["y"] = given["y"]
        shape("y", arrays["y"], at, **sizes)

    dtype = arrays["U"].dtype
    for name, value in arrays.items():
        if value.dtype != dtype and not (name == "y" and classes):
            raise TypeError(f"{name}: expected dtype {dtype} as in U, found {value.dtype}")
    if "y" in arrays:
        counted = steps_that_count(lengths, T) if outputs == "every" else None
        require_targets(arrays["y"], loss, O, counted)
    zeros = np.zeros((B, H), dtype)
    return Arguments(
        tuple(arrays.get(field) for field in fields),
        arrays["x"],
        arrays.get("y"),
        arrays.get("h0", zeros),
        arrays.get("c0", zeros),
        lengths,
    )


def whole_numbers(name: str, value: Any, x: Array) -> Array:
    """The lengths (B,) of the sequences in x, from 1 to T."""
    found = np.asarray(value)
    if not np.issubdtype(found.dtype, np.integer):
        raise TypeError(f"{name}: expected an integer dtype, found {found.dtype}")
    if x.ndim == 3:  # else x is at fault, and said to be so later
        T, B, _ = x.shape
        shape(name, found, "B", B=B)
        for where, length in enumerate(found.tolist()):
            if not 1 <= length <= T:
                raise ValueError(
                    f"{name}: expected values from 1 to T = {T}, found {length} at ({where},)"
                )
    return found


def without_padding(value: Any, lengths: Array) -> Any:
    """A copy in which every step after a sequence's last is zero, whatever was there."""
    found = np.asarray(value)
    if found.ndim < 2 or found.shape[1] != len(lengths):
        return value  # the shape is at fault, and said to be so later
    padding = ~np.asarray(steps_that_count(lengths, len(found)))
    found = found.copy()
    found[padding] = 0
    return found


def require_targets(y: Array, loss: Any, classes: int, counted: Array | None) -> None:
    """Raises ValueError where the targets are not what a cross-entropy compares with."""
    if y.dtype == object:
        return
    indices = np.issubdtype(y.dtype, np.integer)
    if loss == CLASSES and indices:
        wrong, expected = (y < 0) | (y >= classes), f"classes from 0 to O - 1 = {classes - 1}"
    elif loss == CLASSES:
        wrong = (((y != 0) & (y != 1)).any(axis=-1)) | (y.sum(axis=-1) != 1)
        expected = "one-hot rows"
    elif loss == "binary_cross_entropy":
        wrong, expected = (y < 0) | (y > 1), "values from 0 to 1"
    else:
        return
    if counted is not None:
        wrong[~counted] = False
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"y: expected {expected}, found {y[where].tolist()} at {where}")


def name_among(argument: str, value: Any, names: tuple[str, ...]) -> None:
    """Raises TypeError for anything but a name, ValueError for one that is not among `names`."""
    if not isinstance(value, str):
        raise TypeError(f"{argument}: expected a name, found {type(value).__name__}")
    if value not in names:
        raise ValueError(f"{argument}: expected one of {', '.join(names)}, found {value!r}")


def steps_kept(truncation: Any, outputs: str) -> None:
    """Raises TypeError or ValueError unless `truncation` is None or a number of steps from 1.

    It is one window that ends at one output; for outputs at every step there is none.
    """
    if truncation is None:
        return
    require_at_least(1, "truncation", truncation)
    if outputs != "last":
        raise ValueError(f"truncation: expected None with outputs='every', found {truncation}")


def require_at_least(least: int, name: str, value: Any) -> None:
    """Raises TypeError for anything but an integer, ValueError for one below `least`."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{name}: expected an integer, found {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, found {value}")


def output_gradient(value: Any, V: Array, x: Array, outputs: str = "last") -> Array:
    """∂L/∂ŷ as an array of shape (B, O), or (T, B, O), and the dtype of the weights.

    Raises TypeError or ValueError naming what was expected and what was found.
    """
    return upstream("output_gradient", value, "B O" if outputs == "last" else "T B O", V, x)


def hidden_gradients(value: Any, V: Array, x: Array, lengths: Array | None) -> Array:
    """∂L/∂h_t as an array of shape (T, B, H) and the dtype of the weights, padding set to zero.

    Raises TypeError or ValueError naming what was expected and what was found.
    """
    if lengths is not None:
        value = without_padding(value, lengths)
    return upstream("hidden_gradients", value, "T B H", V, x)


def direction(
    value: Any, weights: tuple[Any, ...], x: Array, h0: Array, lengths: Any, fields: Any
) -> list[Any]:
    """The parts of a direction, in the layouts of what they move, zeros where they are absent.

    Raises TypeError or ValueError naming the part, what was expected and what was found.
    """
    if not hasattr(value, "U"):
        raise TypeError(
            f"direction: expected Direction({', '.join(fields)}), found {type(value).__name__}"
        )
    parts = []
    for field, like in zip(fields, (*weights, x, h0), strict=True):
        name, part = f"direction.{field}", getattr(value, field, None)
        if like is None and part is not None:
            raise ValueError(f"{name}: expected None as in params, found {type(part).__name__}")
        if like is None or part is None:
            parts.append(None if like is None else np.zeros_like(like))
            continue
        if field == "x" and lengths is not None:
            part = without_padding(part, lengths)
        found = array(name, part)
        if found.shape != like.shape:
            raise ValueError(f"{name}: expected shape {like.shape} as {field}, found {found.shape}")
        if found.dtype != like.dtype:
            raise TypeError(f"{name}: expected dtype {like.dtype} as in U, found {found.dtype}")
        parts.append(found)
    return parts


def upstream(name: str, value: Any, letters: str, V: Array, x: Array) -> Array:
    """A gradient from outside, of that layout and the dtype of the weights."""
    found = array(name, value)
    T, B, _ = x.shape
    shape(name, found, letters, T=T, B=B, O=len(V), H=V.shape[1])
    if found.dtype != V.dtype:
        raise TypeError(f"{name}: expected dtype {V.dtype} as in U, found {found.dtype}")
    return found


def require_sizes(rng: Any, dtype: Any, **sizes: Any) -> None:
    """Raises TypeError or ValueError where `rng`, a size or the dtype is not what its name says."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng: expected a numpy.random.Generator, found {type(rng).__name__}")
    for name, size in sizes.items():
        require_at_least(1, name, size)
    if not np.issubdtype(dtype, np.floating):
        raise TypeError(f"dtype: expected a floating dtype, found {np.dtype(dtype)}")
