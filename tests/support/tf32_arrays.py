"""Arrays whose matrix products round their factors to TF32, as tensor cores do with float32."""

from typing import Any

import numpy as np

from bptt_verifier.tolerance.formats import SIGNIFICANDS, round_significand


class TF32Array(np.ndarray):  # type: ignore[type-arg]
    """An array of float32 whose matrix products have factors in TF32 and sums in float32."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Apply a function of NumPy to plain arrays, whose values are rounded before a product."""
        plain = [np.asarray(each) if isinstance(each, TF32Array) else each for each in inputs]
        if ufunc is np.matmul:
            plain = [round_to_tf32(each) for each in plain]
        if "out" in options:
            options["out"] = tuple(map(np.asarray, options["out"]))
        return mark(getattr(ufunc, method)(*plain, **options))

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        """Call any other function of NumPy."""
        return mark(super().__array_function__(function, types, args, options))


def round_to_tf32(values: Any) -> Any:
    """Round numbers to TF32, and return them in float32."""
    return round_significand(values, SIGNIFICANDS["TF32"]).astype(np.float32)


def mark(result: Any) -> Any:
    """Make an array one whose products are in TF32; anything else stays."""
    return result.view(TF32Array) if isinstance(result, np.ndarray) else result
