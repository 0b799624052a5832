"""What every public function asks of its arguments, and how it says what is wrong.

Each message is one sentence: the argument, what was expected, what was found.
"""

from typing import Any

import numpy as np

from manual_bptt.activations import Array

Weights = tuple[Array, Array, Array, Array | None, Array | None]


def array(name: str, value: Any) -> Array:
    """`value` as an array of floating or object dtype with finite values.

    Objects (exact rationals, symbols, intervals) are taken as they are.
    Raises TypeError for any other dtype and ValueError for NaN or infinity.
    """
    found = np.asarray(value)
    if found.dtype == object and not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected an array, found {type(value).__name__}")
    if found.dtype != object and not np.issubdtype(found.dtype, np.floating):
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
    layout = "(" + ", ".join(wanted) + ("," if len(wanted) == 1 else "") + ")"
    known = all(letter in sizes for letter in wanted)
    if known:
        layout += f" = {tuple(sizes[letter] for letter in wanted)}"
    elif sizes.keys() & set(wanted):
        layout += " with " + ", ".join(f"{s} = {sizes[s]}" for s in wanted if s in sizes)
    if len(value.shape) != len(wanted) or any(
        sizes.get(letter, size) != size for letter, size in zip(wanted, value.shape, strict=True)
    ):
        raise ValueError(f"{name}: expected shape {layout}, found {value.shape}")
    for letter, size in zip(wanted, value.shape, strict=True):
        if size == 0:
            raise ValueError(
                f"{name}: expected shape {layout} with {letter} ≥ 1, found {value.shape}"
            )
    return tuple(value.shape)


def checked(
    params: Any, x: Any, y: Any = None, h0: Any = None
) -> tuple[Weights, Array, Any, Array]:
    """(U, W, V, b, c), x, y and h0 as arrays of one dtype whose sizes agree.

    Shapes: U (H, D), W (H, H), V (O, H), b (H,), c (O,), x (T, B, D), y (B, O), h0 (B, H).
    An h0 of None becomes zeros; b, c and y may stay None.
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
    arrays = {name: array(name, value) for name, value in given.items() if value is not None}

    H, D = shape("U", arrays["U"], "H D")
    shape("W", arrays["W"], "H H", H=H)
    O, _ = shape("V", arrays["V"], "O H", H=H)
    _, B, _ = shape("x", arrays["x"], "T B D", D=D)
    for name, letters in {"b": "H", "c": "O", "y": "B O", "h0": "B H"}.items():
        if name in arrays:
            shape(name, arrays[name], letters, B=B, H=H, O=O)

    dtype = arrays["U"].dtype
    for name, value in arrays.items():
        if value.dtype != dtype:
            raise TypeError(f"{name}: expected dtype {dtype} as in U, found {value.dtype}")
    weights = (arrays["U"], arrays["W"], arrays["V"], arrays.get("b"), arrays.get("c"))
    h0 = arrays["h0"] if "h0" in arrays else np.zeros((B, H), dtype)
    return weights, arrays["x"], arrays.get("y"), h0


def output_gradient(value: Any, V: Array, x: Array) -> Array:
    """∂L/∂ŷ as an array of shape (B, O) and the dtype of the weights.

    Raises TypeError or ValueError naming what was expected and what was found.
    """
    found = array("output_gradient", value)
    shape("output_gradient", found, "B O", B=x.shape[1], O=len(V))
    if found.dtype != V.dtype:
        raise TypeError(f"output_gradient: expected dtype {V.dtype} as in U, found {found.dtype}")
    return found
