"""A name with a part of that of its array is read where one shape alone fits, and it is said."""

from pathlib import Path
from typing import Any

import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.verify import verify_own_model

START = "import numpy as np\nrng = np.random.default_rng(0)\ndraw = lambda *n: rng.normal(size=n)\n"
FLAT = """
def cost(nn_params, X, y, lam):
    W, v = nn_params[:12].reshape(4, 3), nn_params[12:]
    h = np.tanh(X @ W.T)
    e = h @ v - y
    J = e @ e / 2 + lam / 2 * v @ v
    dW = ((e[:, None] * v) * (1 - h * h)).T @ X
    grad = FACTOR * np.concatenate([dW.ravel(), h.T @ e + lam * v])
    RETURN
cost(draw(16), draw(5, 3), draw(5), 0.1)
"""


def read(folder: Path, name: str, text: str, returns: str, factor: str = "1.0") -> Any:
    """Read code that ends in a statement, with one gradient times a factor."""
    file = folder / "model.py"
    file.write_text(START + text.replace("RETURN", returns).replace("FACTOR", factor))
    return read_file(file, name, None, {}, ())


def require_comparison(folder: Path, name: str, text: str, returns: str, said: str) -> None:
    """Require that right gradients agree, wrong ones disagree, and a sentence on the reading."""
    found = read(folder, name, text, returns)
    assert said in found.said
    assert verify_own_model(found.gradients, found.loss, found.params, cases=2)
    wrong = read(folder, name, text, returns, "1.3")
    assert not verify_own_model(wrong.gradients, wrong.loss, wrong.params, cases=2)


@pytest.mark.parametrize(
    ("returns", "said"),
    [
        (
            "return J, grad",
            "grad is taken for the gradient of nn_params, which alone has its shape",
        ),
        ("dtheta = grad; return J, dtheta", "dtheta is taken for the gradient of nn_params"),
        ("return {'loss': J, 'gradient': grad}", "gradient is taken for the gradient of nn_params"),
        ("return J, grad, h", "returned, and not compared: h"),
        ("return J, grad.flatten()", "a result without a name is taken for the gradient"),
    ],
)
def test_a_bare_gradient_is_of_the_only_argument_of_its_shape(
    returns: str, said: str, tmp_path: Path
) -> None:
    require_comparison(tmp_path, "cost", FLAT, returns, said)


def test_a_bare_gradient_of_a_shape_that_two_arguments_have_is_refused(tmp_path: Path) -> None:
    text = FLAT.replace("y, lam)", "y, lam, prior)").replace("0.1)", "0.1, draw(16))")
    with pytest.raises(ValueError, match="name the parameters in the order of the gradients"):
        read(tmp_path, "cost", text, "return J, grad")
