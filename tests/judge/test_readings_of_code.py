"""Code in further shapes is read as it stands: right gradients agree, and wrong ones disagree."""

import textwrap
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier import Report, Verdict, compare_case, verify_own_model
from bptt_verifier.judge.files import read_file
from bptt_verifier.program.gradient_names import name_returned_values
from bptt_verifier.program.leaves import find_node, is_scalar
from bptt_verifier.program.lone_arrays import name_lone_array
from bptt_verifier.program.own_results import find_loss
from tests.support.readings import read, require_comparison

LINEAR = """
X, Y, W, b = draw(9, 4), draw(9, 3), draw(4, 3), draw(3)
grads = {}
def f(W, b):
    e = X @ W + b - Y
    loss = 0.5 * np.sum(e ** 2)
    dW, db = X.T @ e, FACTOR * e.sum(0)
    grads["W"], grads["b"] = dW, db
    RETURN
CALL
"""


@pytest.mark.parametrize(
    "returns",
    [
        'return loss, grads["W"], grads["b"]',
        "return loss, dW.reshape(W.shape), db.reshape(b.shape)",
        "return loss, dW.tolist(), db.tolist()",
    ],
)
def test_gradients_have_the_names_of_their_keys_and_variables(returns: str, tmp_path: Path) -> None:
    text = LINEAR.replace("CALL", "f(W, b)")
    require_comparison(tmp_path, "f", text, returns, "parameters: W, b")


def test_gradients_have_the_names_that_the_file_gives_them(tmp_path: Path) -> None:
    text = LINEAR.replace("CALL", "loss, dW, db = f(W, b)\nloss, dW, db = f(2 * W, b)")
    returns = "return loss, X.T @ e, FACTOR * e.sum(0)"
    require_comparison(tmp_path, "f", text, returns, "parameters: W, b")


@pytest.mark.parametrize(
    ("calls", "names"),
    [
        ("loss, dW, db = f(W, b)", {1: "dW", 2: "db"}),
        ("loss, dW, db = module.f(W, b)", {}),  # of another f
        ("loss, dW, db = f(W, c)", {1: "dW", 2: "db"}),
        ("loss, db, dW = f(b, W)", {}),  # of the other argument
        ("loss, dW, db = f(b=b, W=W)", {1: "dW", 2: "db"}),
        ("loss, dW, db = f(W, b)\nloss, dW, dV = f(W, b)", {1: "dW"}),
        ("loss, one, two = f(W, b)", {}),  # names of no gradients
        ("loss, *all = f(W, b)", {}),
        ("loss, dW, db = g(W, b)", {}),
        ("f(W, b)", {}),
    ],
)
def test_only_names_of_gradients_on_which_all_calls_agree_are_taken(
    calls: str, names: dict[int, str], tmp_path: Path
) -> None:
    file = tmp_path / "names.py"
    text = f"""
        def f(W, b):
            return (W @ b).sum(), W + 0.0, b + 0.0
        def train(W, b, g, module):
        {textwrap.indent(calls, 12 * " ").strip()}
        """
    lines = textwrap.dedent(text).replace("\nloss", "\n    loss").replace("\nf(", "\n    f(")
    file.write_text(lines, encoding="utf-8")
    space: dict[str, Any] = {}
    exec(compile(lines, str(file), "exec"), space)
    assert name_returned_values(space["f"], 3) == {(n,): name for n, name in names.items()}


NABLA = """
X = draw(9, 4)
weights, biases = [draw(4, 3), draw(3, 4)], [draw(3), draw(4)]
def backprop(weights, biases):
    a = np.tanh(X @ weights[0] + biases[0])
    d = a @ weights[1] + biases[1] - X
    nabla_b, nabla_w = [None, FACTOR * d.sum(0)], [None, a.T @ d]
    loss = 0.5 * np.sum(d ** 2)
    d = (d @ weights[1].T) * (1 - a ** 2)
    nabla_b[0], nabla_w[0] = d.sum(0), X.T @ d
    RETURN
backprop(weights, biases)
"""


def test_several_lists_are_parameters_by_the_shapes_of_returned_ones(tmp_path: Path) -> None:
    said = "parameters: biases[0], biases[1], weights[0], weights[1]"
    require_comparison(tmp_path, "backprop", NABLA, "return loss, nabla_b, nabla_w", said)


def test_lists_of_arrays_may_be_named_in_the_order_of_their_gradients(tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    start = (
        "import numpy as np\nrng = np.random.default_rng(0)\ndraw = lambda *n: rng.normal(size=n)"
    )
    text = NABLA.replace("RETURN", "return loss, nabla_b, nabla_w").replace("FACTOR", "1")
    file.write_text(start + text, encoding="utf-8")
    found = read_file(file, "backprop", None, {}, ["biases", "weights"])
    assert [*found.params] == ["biases[0]", "biases[1]", "weights[0]", "weights[1]"]


CALLED = """
X, Y = draw(9, 4), draw(9, 3)
class Layer:
    def __init__(self):
        self.W, self.b = draw(4, 3), draw(3)
    def __call__(self, X, Y):
        self.X, self.e = X, X @ self.W + self.b - Y
        return 0.5 * np.sum(self.e ** 2)
    def backward(self):
        dW, db = self.X.T @ self.e, FACTOR * self.e.sum(0)
        RETURN
layer = Layer()
layer(X, Y)
layer.backward()
"""


def test_the_forward_pass_may_be_the_call_of_an_object(tmp_path: Path) -> None:
    said = "a class with __call__, backward"
    require_comparison(tmp_path, "Layer", CALLED, 'return {"W": dW, "b": db}', said)


def test_a_called_layer_is_not_judged_beside_a_function(tmp_path: Path) -> None:
    activation = """
class Tanh:
    def __call__(self, x):
        self.h = np.tanh(x)
        return self.h
    def backward(self, d):
        return d * (1 - self.h ** 2)
"""
    text = activation + LINEAR.replace("CALL", "f(W, b)")
    found = read(tmp_path, None, text, "return loss, dW, db")  # type: ignore[arg-type]
    assert [*found.params] == ["W", "b"]


def test_the_gradient_of_a_number_is_not_the_loss(tmp_path: Path) -> None:
    text = "x = draw(5)\ndef f(w, c):\n    s = w * x\n    RETURN\nf(draw(5), np.array(0.4))\n"
    dw, dc = "2 * s * x * c * FACTOR", "np.sum(s * s)"
    for absent in ("None", "f'{np.sum(s * s) * c:.3f}'"):
        returns = f"dw, dc = {dw}, {dc}; return {absent}, dw, dc"
        with pytest.raises(ValueError, match="without a scalar that could be the loss"):
            read(tmp_path, "f", text, returns)
    returns = f"dw, dc = {dw}, {dc}; return np.sum(s * s) * c, dw, dc"
    require_comparison(tmp_path, "f", text, returns, "parameters: w, c")


def test_the_loss_is_a_number_that_is_named_as_no_gradient_of_an_array() -> None:
    result, names = (None, 2.0, 3.0), {(1,): "dc", (2,): "total"}
    assert find_loss(result, names) == (1,)
    assert find_loss(result, names, ("c",)) == (2,)
    assert find_loss(result, {(1,): "dc", (2,): "c_grad"}, ("c",)) is None


class Raising:
    """An object whose attributes raise another exception than AttributeError."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise KeyError("array")

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


class Fields(tuple):  # type: ignore[type-arg]
    """A tuple that has any attribute, as the calls of a mock."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return ("one", "two", "three")


def test_objects_with_attributes_of_their_own_are_read() -> None:
    assert is_scalar(Raising()) is False
    node = find_node(Fields((1.0, 2.0)))
    assert node is None or [*node.children.values()] == [1.0, 2.0]


NUMBER, VECTOR = np.array(0.4), np.array([0.3, -0.2, 0.5])


def scaled_square(p: Any) -> Any:
    return p["c"] * np.sum(np.sin(p["w"]) ** 2)


def differentiate(p: Any, factor: float = 1.0) -> tuple[Any, Any]:
    s = np.sin(p["w"])
    return factor * np.sum(s**2), 2 * p["c"] * s * np.cos(p["w"])


@pytest.mark.table(1)
@pytest.mark.parametrize("kind", [tuple, list])
def test_a_number_before_an_array_may_be_the_gradient_of_the_first_parameter(kind: Any) -> None:
    params = {"c": NUMBER, "w": VECTOR}
    right = verify_own_model(lambda p: kind(differentiate(p)), scaled_square, params, cases=4)
    assert right, str(right)
    assert "The list that you return is read in the order of params: c, w." in right.notes
    wrong = verify_own_model(lambda p: kind(differentiate(p, 7)), scaled_square, params, cases=4)
    assert wrong.verdict is Verdict.DISAGREES


def test_a_number_before_gradients_of_all_parameters_is_the_loss() -> None:
    params = {"c": NUMBER, "w": VECTOR}

    def gradients(p: Any) -> Any:
        return scaled_square(p), dict(zip("cw", differentiate(p), strict=True))

    assert verify_own_model(gradients, scaled_square, params, cases=4)


def test_a_number_before_a_dict_of_two_numbers_is_the_loss() -> None:
    params = {"c": NUMBER, "w": np.array(0.3)}

    def gradients(p: Any) -> Any:
        return scaled_square(p), dict(zip("cw", differentiate(p), strict=True))

    assert verify_own_model(gradients, scaled_square, params, cases=4)


def test_two_nested_parts_have_gradients_beside_the_loss() -> None:
    params = {"one": {"w": VECTOR}, "two": {"w": 2 * VECTOR}}

    def loss(p: Any) -> Any:
        return np.sum(p["one"]["w"] ** 2) + np.sum(p["two"]["w"] ** 3)

    def gradients(p: Any) -> Any:
        one, two = p["one"]["w"], p["two"]["w"]
        return loss(p), {"one": {"w": 2 * one}, "two": {"w": 3 * two**2}}

    assert verify_own_model(gradients, loss, params, cases=4)


def test_the_fields_of_a_named_tuple_are_in_their_own_order() -> None:
    fields = namedtuple("fields", "w c")

    def gradients(p: Any) -> Any:
        dc, dw = differentiate(p)
        return fields(c=dc, w=dw)

    params = {"c": NUMBER, "w": np.array(0.3)}
    assert verify_own_model(gradients, scaled_square, params, cases=4)


def test_a_decorated_loss_may_need_its_namespace() -> None:
    def inner(*arguments: Any) -> Any:
        p, xp = arguments
        return p["c"] * xp.sum(xp.sin(p["w"]) ** 2)

    params = {"c": NUMBER, "w": VECTOR}
    report = verify_own_model(differentiate, inner, params, cases=4)
    assert report, str(report)


def test_the_parts_of_nested_parameters_may_begin_with_a_number() -> None:
    params = {"c": NUMBER, "layers": [VECTOR, 2 * VECTOR]}

    def loss(p: Any) -> Any:
        return p["c"] * np.sum(np.sin(p["layers"][0]) ** 2) + np.sum(p["layers"][1] ** 2)

    def gradients(p: Any) -> Any:
        dc, dw = differentiate({"c": p["c"], "w": p["layers"][0]})
        return dc, [dw, 2 * p["layers"][1]]

    assert verify_own_model(gradients, loss, params, cases=4)


def test_a_number_in_a_structure_of_gradients_is_said_not_to_be_compared(tmp_path: Path) -> None:
    text = "x = draw(5)\ndef f(w, c):\n    s = w * x\n    RETURN\nf(draw(5), np.array(0.4))\n"
    returns = "return np.sum(s * s) * c, {0: 2 * s * x * c * FACTOR, 1: np.sum(s * s)}"
    require_comparison(tmp_path, "f", text, returns, "returned, and not compared: item 1[1]")


# Parameters that are one array.
MATRIX = np.array([[2.0, 0.3], [0.1, 1.0]])


def quotient(w: Any) -> Any:
    return w @ MATRIX @ w / (w @ w)


def differentiate_quotient(w: Any, factor: float = 1.0) -> Any:
    n = w @ w
    return factor * ((MATRIX + MATRIX.T) @ w - 2 * (w @ MATRIX @ w / n) * w) / n


@pytest.mark.rest
@pytest.mark.parametrize("with_loss", [True, False])
def test_parameters_may_be_one_array(with_loss: bool) -> None:
    def judge(factor: float) -> Report:
        def gradients(w: Any) -> Any:
            found = differentiate_quotient(w, factor)
            return (quotient(w), found) if with_loss else found

        return verify_own_model(gradients, quotient, np.array([0.3, -0.8]), cases=4)

    right = judge(1.0)
    assert right, str(right)
    assert [*right.parameters] == (["loss", "params"] if with_loss else ["params"])
    wrong = judge(1.1)
    assert wrong.verdict is Verdict.DISAGREES
    assert wrong.mistakes[0].name == "constant-factor"


def test_one_array_may_be_of_two_entries_and_is_no_pair() -> None:
    report = verify_own_model(
        lambda w: [*differentiate_quotient(w)], quotient, np.array([0.3, -0.8]), cases=4
    )
    assert report, str(report)


def test_more_than_a_pair_of_the_loss_and_the_gradient_of_one_array_is_refused() -> None:
    report = verify_own_model(
        lambda w: (quotient(w), differentiate_quotient(w), 1.0), quotient, np.ones(3)[:2], cases=4
    )
    assert report.mistakes[0].name == "wrong-shape"


def test_the_functions_of_one_array_are_those_of_the_package_and_others_the_users() -> None:
    given = differentiate_quotient, quotient, np.ones(2)
    gradients, loss, params = name_lone_array(*given)
    assert {gradients.__module__, loss.__module__} == {name_lone_array.__module__}
    assert [*params] == ["params"]
    named = differentiate_quotient, quotient, {"v": np.ones(2)}
    assert name_lone_array(*named) == named


def test_one_array_is_compared_at_one_case() -> None:
    given = quotient, np.array([0.3, -0.8])
    assert compare_case(differentiate_quotient, *given, "0,digits=1")
    wrong = compare_case(lambda w: 2 * differentiate_quotient(w), *given, "0,digits=1")
    assert wrong.verdict is Verdict.DISAGREES


def test_a_namespace_is_taken_beside_one_array() -> None:
    def loss(w: Any, xp: Any) -> Any:
        return xp.sum(xp.tanh(w) ** 2)

    def gradients(w: Any) -> Any:
        h = np.tanh(w)
        return 2 * h * (1 - h * h)

    assert verify_own_model(gradients, loss, np.array([0.3, -0.8, 0.1]), cases=4)


@pytest.mark.slow
def test_a_number_of_jax_may_be_returned_as_pythons(tmp_path: Path) -> None:
    text = """
import jax, jax.numpy as jnp
x, W, b = draw(5, 4), draw(4, 3), draw(3)
def loss_of(W, b):
    start = jnp.zeros(3, dtype=float)
    return jnp.sum(jnp.tanh(x @ W + b + start.astype(float)) ** 2)
vg = jax.jit(jax.value_and_grad(loss_of, argnums=(0, 1)))
def step(W, b):
    loss, (dW, db) = vg(W, b)
    assert isinstance(1.0, float)
    dW = dW * FACTOR
    RETURN
step(W, b)
"""
    require_comparison(tmp_path, "step", text, "return float(loss), dW, db", "parameters: W, b")
