"""A name with a part of that of its array is read where one shape alone fits, and it is said."""

import linecache
from pathlib import Path
from typing import Any

import pytest

from bptt_verifier.program.gradient_names import find_gradients, name_returned_values
from bptt_verifier.program.partial_names import is_end
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
            "grad is taken for the gradient of nn_params, by its shape",
        ),
        ("dtheta = grad; return J, dtheta", "dtheta is taken for the gradient of nn_params"),
        ("return {'loss': J, 'gradient': grad}", "gradient is taken for the gradient of nn_params"),
        ("return J, grad, h", "returned, and not compared: h"),
        ("return J, grad.flatten()", "grad is taken for the gradient of nn_params"),
        ("return J, np.add(grad, 0)", "a result without a name is taken for the gradient"),
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


ONLY = """
A, y = draw(3, 2), draw(3)
def fun(x):
    h = np.tanh(A @ x)
    RETURN
fun(draw(2))
"""


def test_a_gradient_without_a_name_is_of_the_only_argument_whatever_its_name(
    tmp_path: Path,
) -> None:
    returns = "return np.sum((h - y) ** 2), FACTOR * A.T @ (2 * (h - y) * (1 - h * h))"
    said = "a result without a name is taken for the gradient of x, by its shape"
    require_comparison(tmp_path, "fun", ONLY, returns, said)
    several = ONLY.replace("fun(x)", "fun(x, b)").replace("A @ x", "A @ x + b")
    with pytest.raises(ValueError, match="expected the gradients of arrays that it uses"):
        read(tmp_path, "fun", several.replace("draw(2))", "draw(2), draw(3))"), returns)


TWO = """
A, y = draw(3, 2), draw(SIZE)
def cost(w, y):
    return np.sum((A @ w - y) ** 2) / 2
def slope(w, y):
    total = FACTOR * A.T @ (A @ w - y)
    RETURN
w = draw(2)
cost(w, y), slope(w, y)
"""


@pytest.mark.parametrize("sizes", [(3, 2), (2, 2)], ids=["alone", "beside targets"])
@pytest.mark.parametrize(
    ("returns", "result"), [("total", "total"), ("total + 0", "a result without a name")]
)
def test_all_that_a_function_beside_the_loss_returns_is_of_the_only_array_of_its_shape(
    sizes: tuple[int, int], returns: str, result: str, tmp_path: Path
) -> None:
    text = TWO.replace("draw(3, 2)", f"draw{sizes}").replace("SIZE", str(sizes[0]))
    said = f"{result} is taken for the gradient of w, by its shape"
    require_comparison(tmp_path, "cost,slope", text, f"return {returns}", said)


@pytest.mark.parametrize("returns", ["return A @ total", "dA = total; return dA[:, None]"])
def test_a_result_of_no_shape_of_an_argument_is_refused(returns: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected the gradients of arrays that it uses"):
        read(tmp_path, "cost,slope", TWO.replace("SIZE", "3"), returns)


def test_a_result_of_the_shape_of_inputs_as_well_is_refused(tmp_path: Path) -> None:
    text = TWO.replace("SIZE", "3").replace("w, y)", "w, x, y)").replace("@ w", "@ (w + x)")
    with pytest.raises(ValueError, match="expected the gradients of arrays that it uses"):
        read(tmp_path, "cost,slope", text.replace("w = draw(2)", "w, x = draw(2), draw(2)"),
             "return total")  # fmt: skip


def test_one_of_several_results_has_the_name_of_a_gradient(tmp_path: Path) -> None:
    text = TWO.replace("SIZE", "3")
    with pytest.raises(ValueError, match="expected the gradients of arrays that it uses"):
        read(tmp_path, "cost,slope", text, "more = A @ w; return dict(total=total, dmore=more)")


def test_a_result_of_a_shape_that_two_arrays_have_is_of_neither(tmp_path: Path) -> None:
    text = TWO.replace("draw(SIZE)", "draw(3); shift = draw(2)").replace("A @ w", "A @ (w + shift)")
    for returns in ("return total", "return 1.0 * total"):
        with pytest.raises(ValueError, match="expected the gradients of arrays that it uses"):
            read(tmp_path, "cost,slope", text, returns)


ENDS = """
X, y = draw(5, 3), draw(5)
def net(Wx, Wh, OUT):
    h = [np.zeros(4)]
    for each in X:
        h.append(np.tanh(Wx @ each + Wh @ h[-1]))
    return h
def cost(Wx, Wh, OUT):
    return np.sum((np.array(net(Wx, Wh, OUT)[1:]) @ OUT - y) ** 2) / 2
def cost_grad(Wx, Wh, OUT):
    h, gx, gh, g, dh = net(Wx, Wh, OUT), 0 * Wx, 0 * Wh, 0 * OUT, np.zeros(4)
    for t in reversed(range(5)):
        e = OUT @ h[t + 1] - y[t]
        da = (dh + e * OUT) * (1 - h[t + 1] ** 2)
        g, gx, gh = g + e * h[t + 1], gx + np.outer(da, X[t]), gh + np.outer(da, h[t])
        dh = Wh.T @ da
    gx = FACTOR * gx
    RETURN
cost(draw(4, 3), draw(4, 4), draw(4))
"""
LONG = ENDS.replace("Wx", "x_to_h").replace("Wh", "h_to_h")
LONG = LONG.replace("gx", "gx_to").replace("gh", "gh_to")
IN_DICT = """
X = draw(5, 3)
def both(p):
    h = np.tanh(X @ p["W_in"] + p["b"])
    e = h @ p["W_out"]
    da = (e @ p["W_out"].T) * (1 - h * h)
    g_in, g_out, g_b = FACTOR * X.T @ da, h.T @ e, da.sum(0)
    RETURN
both({"W_in": draw(3, 4), "W_out": draw(4, 2), "b": draw(4)})
"""


@pytest.mark.table(4)
@pytest.mark.parametrize(
    ("name", "text", "array", "returns", "said"),
    [
        ("cost,cost_grad", ENDS, "v", "gv = g; return gx, gh, gv",
         "gx is taken for the gradient of Wx, gh for that of Wh, by their names' ends"),
        ("cost,cost_grad", ENDS, "v", "return {'gh': gh, 'gv': g, 'gx': gx}", "gx for that"),
        ("cost,cost_grad", LONG, "w_out", "g_out = g; return gx_to, gh_to, g_out",
         "gh_to for that of h_to_h, g_out for that of w_out"),
        ("both", IN_DICT, "", "return np.sum(e * e) / 2, dict(g_out=g_out, g_in=g_in, g_b=g_b)",
         "g_out is taken for the gradient of W_out, g_in for that of W_in"),
    ],
)  # fmt: skip
def test_the_end_of_a_name_tells_of_the_only_array_of_its_shape(
    name: str, text: str, array: str, returns: str, said: str, tmp_path: Path
) -> None:
    require_comparison(tmp_path, name, text.replace("OUT", array), returns, said)


def test_the_adjoint_of_what_the_code_computes_is_no_gradient_of_a_vector(tmp_path: Path) -> None:
    text = """
W, b_out, x, y = draw(2, 3), draw(2), draw(3), draw(2)
def both(x, y):
    out = np.tanh(W @ x + b_out)
    dout = out - y
    dW = np.outer(dout * (1 - out * out), x)
    RETURN
both(x, y)
"""
    with pytest.raises(ValueError, match=r"gradient of b_out in the result dout .* other numbers"):
        read(tmp_path, "both", text, "return np.sum(dout * dout) / 2, dW, dout")


WORDS = """
def both(centerWordVec, outsideVectors):
    e = outsideVectors @ centerWordVec
    gradCenterVec, gradOutsideVecs = FACTOR * e @ outsideVectors, np.outer(e, centerWordVec)
    RETURN
both(draw(3), draw(4, 3))
"""


def test_words_that_are_shortened_tell_of_the_only_array_of_their_shape(tmp_path: Path) -> None:
    said = "gradCenterVec is taken for the gradient of centerWordVec, gradOutsideVecs for that of"
    returns = "return np.sum(e * e) / 2, gradCenterVec, gradOutsideVecs"
    require_comparison(tmp_path, "both", WORDS, returns, said)


@pytest.mark.parametrize(
    ("rest", "name", "short"),
    [
        ("CenterVec", "centerWordVec", True),
        ("out_vecs", "outsideVectors", True),
        ("OutsideVecs", "outside_vectors", True),
        ("VecCenter", "centerWordVec", False),  # in another order
        ("Center", "theCenterWord", False),  # one word is the end or the beginning
        ("CenterVecs2", "centerWordVec", False),
        ("c_w", "center_word", False),  # a letter stands for many words
        ("c_word", "centerWord", False),
        ("hid_lay", "hidden_layer_bias", False),  # of the layer, not of its bias
        ("vec_vec", "centerVec", False),
        ("in_vec", "inputVector", True),
        ("HTTPVec", "HTTPWordVec", True),
        ("OutsideVectors", "outsideVectors", False),
    ],
)
def test_each_word_is_short_for_one_of_the_name_in_order(rest: str, name: str, short: bool) -> None:
    assert is_end(rest, name) is short


def test_an_end_that_two_arrays_of_the_shape_have_tells_nothing(tmp_path: Path) -> None:
    text = ENDS.replace("(Wx, Wh, OUT)", "(Wx, Wh, Uh)").replace("OUT", "Uh[0]")
    text = text.replace("draw(4))", "draw(4, 4))")
    with pytest.raises(ValueError, match="gh, which may be the gradient of Wh, Uh"):
        read(tmp_path, "cost,cost_grad", text, "dWx = gx; return dWx, gh")


PARTS = """
class Layer:
    def __init__(self, m, n):
        self.W, self.NAME = draw(m, n), draw(n)
class Net:
    def __init__(self):
        self.first, self.last = Layer(3, 4), draw(4)
    def run(self, x, y):
        h = np.tanh(x @ self.first.W + self.first.NAME)
        e = h @ self.last - y
        d = e[:, None] * self.last * (1 - h * h)
        g = {"W": FACTOR * x.T @ d, "NAME": d.sum(0), "last": h.T @ e}
        RETURN
Net().run(draw(5, 3), draw(5))
"""


def test_a_gradient_by_the_last_name_of_an_attribute_is_of_the_only_one_by_it(
    tmp_path: Path,
) -> None:
    said = "parameters: first.W, first.b, last"
    returns = "return e @ e / 2, g"
    require_comparison(tmp_path, "Net.run", PARTS.replace("NAME", "b"), returns, said)
    twice = PARTS.replace("NAME", "b").replace("self.last = ", "self.other, self.last = ")
    twice = twice.replace("Layer(3, 4), ", "Layer(3, 4), Layer(3, 4), ")
    twice = twice.replace("- y", "- y + 0 * self.other.W.sum() + 0 * self.other.b.sum()")
    with pytest.raises(ValueError, match=r"may be the gradient of first\.W, other\.W"):
        read(tmp_path, "Net.run", twice, returns)


def test_the_last_name_of_an_attribute_ranks_behind_all_its_names() -> None:
    leaves: Any = {"cell.W": ("cell", "W"), "V": ("V",), "layers[0].U": ("layers", 0, "U")}
    every: Any = [("dW",), ("cell", "dW"), ("dV",), ("grads", "V"), ("dU",)]
    sources = {path: path for path in every}
    found = find_gradients(leaves, sources)
    assert found == {"cell.W": ("cell", "dW"), "V": ("dV",)}  # items of lists have no short names
    del sources["cell", "dW"]
    assert find_gradients(leaves, sources)["cell.W"] == ("dW",)
    both = leaves | {"W": ("W",)}
    assert find_gradients(both, sources) == {"W": ("dW",), "V": ("dV",)}


def test_one_array_is_the_gradient_of_what_it_names_in_full() -> None:
    leaves: Any = {"cell.W": ("cell", "W"), "out": ("out",)}
    shared: Any = {("dW",): ("result", 0), ("grads", "out"): ("result", 0)}
    assert [*find_gradients(leaves, shared)] == ["out"]
    several: Any = {path: path for path in [("grads", "W"), ("one", "more", "dW")]}
    assert find_gradients({"cell.W": ("cell", "W")}, several)["cell.W"] == ("one", "more", "dW")


@pytest.mark.parametrize(
    ("names", "gradient"),
    [
        (["d", "dv"], "dv"),
        (["dv", "d"], "dv"),
        (["d"], "d"),  # of an object that stands for one parameter
        (["grads", "d"], "d"),
    ],
)
def test_the_gradient_with_the_name_of_an_array_goes_before_that_of_a_sibling(
    names: list[str], gradient: str
) -> None:
    sources = {(name,): ("locals", name) for name in names}
    assert find_gradients({"v": ("v",)}, sources) == {"v": ("locals", gradient)}


def test_a_variable_d_is_no_gradient_of_v_where_a_container_has_one() -> None:
    sources = {("d",): ("locals", "d"), ("grads", "v"): ("locals", "grads", "v")}
    assert find_gradients({"v": ("v",)}, sources) == {"v": ("locals", "grads", "v")}
    of_object = {("W", "d"): ("locals", "W", "d"), ("grads", "W", "v"): ("locals", "grads")}
    assert find_gradients({"v": ("W", "v")}, of_object) == {"v": ("locals", "W", "d")}


@pytest.mark.parametrize(
    ("body", "number", "names"),
    [
        ("return (L, (dW, db), h) if keep else (L, (dW, db))", 3, ["L", "dW", "db", "h"]),
        ("return (L, (dW, db), h) if keep else (L, (dW, db))", 2, ["L", "dW", "db"]),
        ("return (L, dW) if a else (L, dW) if b else (L, dW)", 2, ["L", "dW"]),
        ("return (L, dW) if a else (L, db)", 2, []),  # either may be returned
        ("return dW if a else dW.copy()", 0, ["dW"]),
        ("return dW if a else db", 0, []),
        ("out = L, dW\n    return out if a else (L, dW)", 2, ["L", "dW"]),
        ("return", 0, []),
        ("return L, dW.reshape(a.shape), db.transpose(1, 0)", 3, ["L", "dW", "db"]),
        ("return L, np.reshape(dW, a.shape), np.ravel(db)", 3, ["L", "dW", "db"]),
        ("return L, dW.ravel(), h.dot(a)", 3, ["L", "dW"]),
        ("return L, self.clip(dW, 5), onp.clip(db, 1)", 3, ["L", "dW", "db"]),
        ("return L, dW.clip(-5, 5), h.astype(a)", 3, ["L", "dW", "h"]),
    ],
)
def test_returned_values_are_named(body: str, number: int, names: list[str]) -> None:
    source = f"def f(L, dW, db, h, keep, a, b):\n    {body}\n"
    linecache.cache["<conditional>"] = len(source), None, source.splitlines(True), "<conditional>"
    space: dict[str, Any] = {}
    exec(compile(source, "<conditional>", "exec"), space)
    assert [*name_returned_values(space["f"], number).values()] == names
