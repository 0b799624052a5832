"""Forward and backward passes in the shapes that public code has, each right and with a mistake."""

from tests.support.own_code import SHAPES
from tests.support.public_classes import CLASSES
from tests.support.public_files import FILES
from tests.support.public_layers import LAYERED
from tests.support.public_recurrent import RECURRENT, Pair

UNTRANSPOSED = (".T @ da", " @ da", "untransposed-recurrent-weight")


def pair(name: str, right: str, wrong: str, mistake: str) -> Pair:
    """Make a pair of one of the shapes in which a small network is written, by its line of tanh."""
    shape = SHAPES[name]
    line = next(each.strip() for each in shape.source.splitlines() if "np.tanh(x[t]" in each)
    return Pair(shape.source, shape.name, right, wrong, mistake, line)


CONTAINERS = {
    name: pair(name, *UNTRANSPOSED)
    for name in (
        "a dict of parameters", "gradients named otherwise, and a cache",
        "layers, as a named tuple", "arguments", "a dict of the file", "forward returns the loss",
        "backward returns the gradients", "a method that returns both",
        "backward updates, and returns nothing", "two structures of parameters",
        "backward updates by Adagrad, and returns nothing", "gradients mapped in a list",
        "buffers in the object", "two functions, and a cache", "names with dots",
        "the gradient of the last input alone",
    )
    if ".T @ da" in SHAPES[name].source
}  # fmt: skip
PAIRS: dict[str, Pair] = RECURRENT | CLASSES | LAYERED | FILES | CONTAINERS
