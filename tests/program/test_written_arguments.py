"""An argument that the code writes into its own objects holds the parameters."""

from pathlib import Path

import pytest

from tests.support.readings import read, require_comparison

CODE = """
class Param:
    def __init__(self, value):
        self.value, self.grad = value, 0 * value
w, b = Param(draw(4, 3)), Param(draw(4))
x, y = draw(3), draw(4)
def both(values):
    for p, v in zip((w, b), SPLIT):
        p.value = v
    h = np.tanh(w.value @ x + b.value)
    da = (h - y) * (1 - h * h)
    w.grad, b.grad = FACTOR * np.outer(da, x), da
    RETURN
both(CALL)
"""
ARRAYS = CODE.replace("SPLIT", "values").replace("CALL", "[1 * w.value, 1 * b.value]")
VECTOR = CODE.replace("SPLIT", "(values[:12].reshape(4, 3), values[12:])")
VECTOR = VECTOR.replace("CALL", "np.append(w.value, b.value)")
LOSS = "return np.sum((h - y) ** 2) / 2, "


@pytest.mark.parametrize(
    ("text", "returns"),
    [
        (ARRAYS, "[p.grad for p in (w, b)]"),
        (ARRAYS.replace("values", "arrays"), "[p.grad for p in (w, b)]"),
        (VECTOR, "np.concatenate([p.grad.ravel() for p in (w, b)])"),
    ],
)
def test_the_argument_that_is_written_into_objects_is_moved(
    text: str, returns: str, tmp_path: Path
) -> None:
    require_comparison(tmp_path, "both", text, LOSS + returns, "the loss and the gradients")


def test_an_argument_of_other_shapes_is_none(tmp_path: Path) -> None:
    text = ARRAYS.replace("p.value = v", "p.value = 1.0 + 0 * p.value").replace("[1 *", "[x, 1 *")
    with pytest.raises(ValueError, match="loss that depends on the parameters, found the same"):
        read(tmp_path, "both", text, LOSS + "[p.grad for p in (w, b)]")
