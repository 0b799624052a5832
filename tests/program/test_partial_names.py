"""A name with a part of that of its array is read where one shape alone fits, and it is said."""

from pathlib import Path

import pytest

from tests.support.readings import read, require_comparison

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
