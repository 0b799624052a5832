"""Arrays of NumPy become tensors in the same memory where a tensor may have their layout."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program import arguments


def from_numpy(array: Any) -> Any:
    """Refuse negative strides, as PyTorch does."""
    if any(stride < 0 for stride in array.strides):
        raise ValueError("tensors with negative strides are not currently supported")
    return SimpleNamespace(array=array, to=lambda device: array)


@pytest.mark.parametrize(
    ("array", "shares"),
    [
        (np.arange(6.0).reshape(2, 3), True),
        (np.arange(6.0).reshape(2, 3).T, True),
        (np.arange(6.0)[::2], True),
        (np.array(3.0), True),
        (np.arange(6.0)[::-1], False),
        (np.arange(6.0).reshape(2, 3)[:, ::-1], False),
        (np.arange(6.0).reshape(2, 3)[::-1], False),
    ],
)
def test_a_reversed_view_is_copied_and_other_layouts_keep_their_memory(
    array: Any, shares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arguments, "find_torch", lambda: SimpleNamespace(from_numpy=from_numpy))
    made = arguments.make_tensor(array)
    np.testing.assert_array_equal(made, array)
    assert np.shares_memory(made, array) is shares
