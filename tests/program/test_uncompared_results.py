"""A gradient that is returned is compared, or the report says that it is not, or it is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.own_results import Results, holds_more_beside_loss
from bptt_verifier.program.uncompared_results import describe_uncompared, list_uncompared

START = "import numpy as np\nrng = np.random.default_rng(0)\ndraw = lambda *n: rng.normal(size=n)\n"
LISTED = """
x, theta = draw(3), [draw(2, 3), draw(2)]
def cost(theta, x):
    return 0.5 * (theta[1] @ np.tanh(theta[0] @ x)) ** 2
def gradient(theta, x):
    W, v = theta
    h = np.tanh(W @ x)
    gW = np.outer((v @ h) * v * (1 - h * h), x) * FACTOR
    RETURN
cost(theta, x), gradient(theta, x)
"""
TOGETHER = """
x, ws = draw(3), (draw(2, 3), draw(2))
def both(ws, x):
    W, v = ws
    h = np.tanh(W @ x)
    gW = np.outer((v @ h) * v * (1 - h * h), x) * FACTOR
    RETURN
both(ws, x)
"""
NESTED = """
class Net:
    def __init__(self):
        self.p, self.v, self.enc = {"W": draw(2, 3)}, draw(2), {"q": {"W": draw(3, 3)}}
    def both(self, x):
        W, v, Q = self.p["W"], self.v, self.enc["q"]["W"]
        k = np.tanh(Q @ x)
        h = np.tanh(W @ k)
        e, da = v @ h, (v @ h) * v * (1 - h * h)
        G, gQ = {"W": np.outer(da, k) * FACTOR}, np.outer(W.T @ da * (1 - k * k), x)
        RETURN
net = Net()
net.both(draw(3))
"""
LAYER = """
def forward(x, h0, U, W):
    h = [h0]
    for each in x:
        h.append(np.tanh(each @ U + h[-1] @ W))
    return h[-1], (x, h, U, W)
def backward(dout, cache):
    x, h, U, W = cache
    dprev, dx, dU, dW = dout, 0 * x, 0 * U, 0 * W
    for t in reversed(range(len(x))):
        da = dprev * (1 - h[t + 1] ** 2)
        dx[t], dU, dW, dprev = da @ U.T, dU + x[t].T @ da, dW + h[t].T @ da, da @ W.T
    dprev = dprev * FACTOR
    RETURN
out, cache = forward(draw(4, 2, 3), draw(2, 5), draw(3, 5), 0.5 * draw(5, 5))
backward(draw(2, 5), cache)
"""
BIASES = """
W, a, b, V = draw(2, 3), draw(2), draw(2), draw(1, 2)
def both(x, y):
    h = np.tanh(W @ x + a)
    e = V @ (h + b) - y
    dV, back = np.outer(e, h + b), V.T @ e
    dlast, dfirst = back, back * (1 - h * h) * FACTOR
    dW = np.outer(back * (1 - h * h), x)
    RETURN
both(draw(3), draw(1))
"""
BESIDE = """
def both(params, start, x):
    h = np.tanh(params["W"] @ x + start)
    back = params["v"] * (params["v"] @ h) * (1 - h * h)
    RETURN
both({"W": draw(2, 3), "v": draw(2)}, draw(2), draw(3))
"""


def read(folder: Path, name: str, text: str, returns: str, factor: str = "1.0") -> Any:
    """Read code that ends in a statement, with one gradient times a factor."""
    file = folder / "model.py"
    file.write_text(START + text.replace("RETURN", returns).replace("FACTOR", factor))
    return read_file(file, name, None, {}, ())


@pytest.mark.parametrize(
    ("name", "text", "returns", "number"),
    [
        ("cost,gradient", LISTED, "return gW, (v @ h) * h", 2),
        ("cost,gradient", LISTED, "return [gW, (v @ h) * h]", 2),
        ("both", TOGETHER, "return 0.5 * (v @ h) ** 2, gW, (v @ h) * h", 2),
        ("both", TOGETHER, "return 0.5 * (v @ h) ** 2, (v @ h) * h, gW", 2),  # shapes tell
        ("Net.both", NESTED, "return e * e / 2, {'p': G, 'v': e * h, 'enc': {'q': {'W': gQ}}}", 3),
        ("Net.both", NESTED, "return e * e / 2, {'v': e * h, 'enc': {'q': {'dW': gQ}}, 'p': G}", 3),
        ("forward,backward", LAYER, "return dx, dprev, dU, dW", 4),
    ],
)
def test_every_gradient_that_is_returned_is_compared(
    name: str, text: str, returns: str, number: int, tmp_path: Path
) -> None:
    found = read(tmp_path, name, text, returns)
    assert "not compared" not in found.said
    report = verify_own_model(found.gradients, found.loss, found.params, cases=2)
    assert report, report
    assert len(report.parameters) == number + 1  # and the loss
    wrong = read(tmp_path, name, text, returns, "1.3")
    assert not verify_own_model(wrong.gradients, wrong.loss, wrong.params, cases=2)


def test_a_gradient_of_a_layer_at_the_end_is_matched_by_its_shape(tmp_path: Path) -> None:
    for last in ("dprev", "dprev * 1"):
        found = read(tmp_path, "forward,backward", LAYER, f"return dx, dU, dW, {last}")
        assert {*found.params} == {"x", "h0", "U", "W"}
    with pytest.raises(ValueError, match=r"gradient of h0 in the result dprev .* other numbers"):
        read(tmp_path, "forward,backward", LAYER, "return dx, dU, dW, dprev", "2")


@pytest.mark.parametrize(
    ("name", "text", "returns", "said"),
    [
        ("Net.both", NESTED, "return e * e / 2, {'first': G, 'v': e * h, 'enc': {'p': {'W': gQ}}}",
         r"found the result item 1\['enc'\]\['p'\]\['W'\], which may be the gradient of enc.q.W"),
        ("Net.both", NESTED, "return e * e / 2, {'p': G, 'v': e * h, 'slope': gQ}",
         r"found the result item 1\['slope'\], which may be the gradient of enc.q.W; return it"),
        ("both", BIASES, "return 0.5 * float(e @ e), dW, dV, dlast, dfirst",
         "found the result dlast, which may be the gradient of a, b; return it in .* such as da"),
        ("both", BIASES, "return 0.5 * float(e @ e), dW, dV, dlast + 0, dfirst + 0",
         "found a result without a name, which may be the gradient of b; return it"),
        ("both", BESIDE, "dstate = back; return 0.5 * (params['v'] @ h) ** 2, "
         "{'W': np.outer(back, x), 'v': (params['v'] @ h) * h}, dstate", "dstate, .* start;"),
    ],
)  # fmt: skip
def test_a_gradient_that_may_be_of_several_arrays_is_refused_with_the_remedy(
    name: str, text: str, returns: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        read(tmp_path, name, text, returns)


def test_other_arrays_that_are_returned_are_listed(tmp_path: Path) -> None:
    returns = "return 0.5 * (v @ h) ** 2, h, gW, (v @ h) * h, {'h': h, 'a': [h]}, x, 3.0"
    found = read(tmp_path, "both", TOGETHER, returns)
    assert found.said.endswith("; returned, and not compared: h, item 4.")
    returns = "probs, da = h[:1], 0 * x; return 0.5 * (v @ h) ** 2, gW, 1 * h * (v @ h), probs, x"
    found = read(tmp_path, "both", TOGETHER, returns)
    assert found.said.endswith("; returned, and not compared: probs.")


def test_structures_without_a_compared_array_are_named_as_a_whole() -> None:
    state = {"result": (1.0, {"W": [1.0, 2.0]}, {"h": [3.0, 4.0], "c": [5.0, 6.0]})}
    results = Results(state, {(2,): "memory"}, ("result", 0))
    compared = [("result", 1, "W")]
    assert list_uncompared(results, compared) == [("result", 2, "h"), ("result", 2, "c")]
    assert describe_uncompared(results, compared) == "; returned, and not compared: memory"
    assert describe_uncompared(results, [("result", 1, ""), ("result", 2, "")]) == ""


def test_a_loss_returned_beside_gradients_is_found_by_its_name_or_before_a_dict() -> None:
    for result, path in (
        ({"loss": 1.0, "W": np.ones(2)}, ("loss",)),
        ({"more": {"cost": 1.0, "rate": 2.0}, "W": np.ones(2)}, ("more", "cost")),
        ({"loss": {"rate": 2.0}, "W": np.ones(2)}, None),
        ((1.0, {"W": np.ones(2)}), (0,)),
        ((1.0, np.ones(2)), None),
    ):
        found = Results({"result": result}, {}, ("loss",)).find_returned_loss()
        assert found == (("loss",) if path is None else ("result", *path))


def test_a_loss_stands_beside_more_in_the_first_of_two_results() -> None:
    gradients = {"W": np.ones(2)}
    assert holds_more_beside_loss(((0.5, "more"), gradients))
    for result in (((0.5,), gradients), (0.5, gradients), ((0.5, "more"), gradients, 1.0)):
        assert not holds_more_beside_loss(result)
    assert not holds_more_beside_loss((("more", 0.5), gradients))
