"""Data of the user's own code are no parameters, whatever its results are called."""

import linecache
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.data_names import INPUTS
from bptt_verifier.program.own_calls import ArrayPlace
from bptt_verifier.program.own_classes import read_pair
from bptt_verifier.program.own_code import read_function
from bptt_verifier.program.own_data import (
    Doubt,
    are_alike,
    are_near,
    find_doubts,
    find_kind_of_place,
    is_less_array,
)
from bptt_verifier.program.source_file import RecordedCall

RNG = np.random.default_rng(0)
W, b, c = RNG.normal(size=(3, 3)), RNG.normal(size=3), RNG.normal(size=3)
C, b2 = RNG.normal(size=(3, 3)), np.array([0.5, -1.5, 2.0])
W0, W1, W2, b1 = C, W, b2, c.copy()
inputs, y, seq, h = (RNG.normal(size=(5, 3)) for _ in range(4))


def of_globals(inputs: Any, y: Any) -> Any:
    """Return the gradient of the prediction beside those of global parameters."""
    dy = inputs @ W + b - y
    dW, db = inputs.T @ dy, dy.sum(0)
    return 0.5 * np.sum(dy**2), dW, db, dy


def in_a_dict(inputs: Any, seq: Any) -> Any:
    """Return the gradient of a part of an argument, in a dict."""
    d = inputs @ W + seq
    return 0.5 * np.sum(d**2), {"W": inputs.T @ d, "seq": d[0]}


def of_arguments(inputs: Any, y: Any, W: Any, b: Any) -> Any:
    """Return the gradient of the prediction beside those of arguments."""
    dy = inputs @ W + b - y
    dW, db = inputs.T @ dy, dy.sum(0)
    return 0.5 * np.sum(dy**2), dW, db, dy


def beside_global_data(W: Any, b: Any) -> Any:
    """Return the gradient of the prediction, where the data are global."""
    dy = inputs @ W + b - y
    dW, db = inputs.T @ dy, dy.sum(0)
    return 0.5 * np.sum(dy**2), dW, db, dy


def with_an_output_bias(inputs: Any, W: Any, c: Any) -> Any:
    """Return the gradient of a bias with the letter of a cell state."""
    d = inputs @ W + c
    dW, dc = inputs.T @ d, d.sum(0)
    return 0.5 * np.sum(d**2), dW, dc


def of_a_state_space(inputs: Any, h: Any, W: Any, C: Any) -> Any:
    """Return the gradient of a matrix with the letter of a cell state."""
    d = (inputs @ W + h) @ C
    dC, dW = (inputs @ W + h).T @ d, inputs.T @ d @ C.T
    return 0.5 * np.sum(d**2), dW, dC


def of_a_structure(params: Any, inputs: Any) -> Any:
    """Return the gradient of the inputs beside those of a structure."""
    d = inputs @ params["W"]
    grads = {"W": inputs.T @ d, "inputs": 7 * d}
    return 0.5 * np.sum(d**2), grads


def of_a_target_by_another_name(inputs: Any, goal: Any, W: Any, b: Any) -> Any:
    """Return the gradient of the prediction, named after what it is compared with."""
    dgoal = inputs @ W + b - goal
    dW, db = inputs.T @ dgoal, dgoal.sum(0)
    return 0.5 * np.sum(dgoal**2), dW, db, dgoal


def of_a_target_by_any_name(inputs: Any, aim: Any, W: Any, b: Any) -> Any:
    """Return the gradient of the prediction, named after rows that are compared with it."""
    daim = inputs @ W + b - aim
    dW, db = inputs.T @ daim, daim.sum(0)
    return 0.5 * np.sum(daim**2), dW, db, daim


def of_probabilities(inputs: Any, hoped: Any, W: Any) -> Any:
    """Return the gradient of the operand of a softmax, named after the probabilities wanted."""
    p = np.exp(inputs @ W)
    p /= p.sum(1, keepdims=True)
    dhoped = p - hoped
    return -np.sum(hoped * np.log(p)), inputs.T @ dhoped, dhoped


def of_signs(inputs: Any, aim: Any, W: Any) -> Any:
    """Return the gradient of the prediction in an absolute error."""
    apart = inputs @ W - aim
    daim = np.sign(apart)
    dW = inputs.T @ daim
    return np.abs(apart).sum(), dW, daim


def in_a_parameter_by_another_name(inputs: Any, extra: Any, W: Any) -> Any:
    """Return the gradient of an argument whose name says nothing."""
    dextra = inputs @ W + extra
    return 0.5 * np.sum(dextra**2), inputs.T @ dextra, dextra


params, goal, extra, aim, hoped = {"W": W}, y, h, y, np.eye(3)[[0, 2, 1, 1, 0]]


def doubtful(change: str) -> Callable[..., Any]:
    """Make a function whose gradient of `extra` is that of a parameter with a mistake, or not."""
    space: dict[str, Any] = {"np": np, "inputs": inputs, "y": y, "W": W, "extra": b}
    lines = (
        "def f(inputs, W, extra):",
        "    d = inputs @ W + extra - 1.0",
        "    dW, dextra = inputs.T @ d, d.sum(0)",
        "    loss = 0.5 * np.sum(d**2)",
        "    return loss, dW, dextra",
    )
    text = "\n".join(lines)
    for old, new in (each.split(" -> ") for each in filter(None, change.split("; "))):
        assert old in text
        text = text.replace(old, new)
    name = f"<doubtful {change}>"
    linecache.cache[name] = (len(text), None, [f"{line}\n" for line in text.split("\n")], name)
    exec(compile(text, name, "exec"), space)
    function: Callable[..., Any] = space["f"]
    return function


def test_a_function_that_is_right_raises_no_doubt() -> None:
    assert {*read_function(doubtful(""), "f", None).params} == {"W", "extra"}
    assert "extra" in read_function(in_a_parameter_by_another_name, "f", None).params


@pytest.mark.parametrize(
    "change",
    [
        "d.sum(0) -> -d.sum(0)",  # a mistake, or the gradient of a prediction
        "inputs.T @ d, d.sum(0) -> inputs.T @ d, d",  # rows that have not been added up
    ],
)
def test_whether_an_argument_is_a_parameter_is_asked_where_its_gradient_is_another(
    change: str,
) -> None:
    like = ", as of a prediction that is compared with extra" if "-d" in change else ""
    with pytest.raises(ValueError, match=rf"parameter, found another{like}; .* W alone$"):
        read_function(doubtful(change), "f", None)
    assert {*read_function(doubtful(change), "f", None, ("W", "extra")).params} == {"W", "extra"}


def test_a_wrong_gradient_of_an_array_without_an_axis_of_the_data_is_compared() -> None:
    change = "d.sum(0) -> 2 * d.sum(0)"
    found = read_function(doubtful(change), "f", None)
    assert {*found.params} == {"W", "extra"}
    assert not verify_own_model(found.gradients, found.loss, found.params, cases=2)


def of_positions(x: Any, labels: Any, W: Any, pos: Any) -> Any:
    """Return the gradient of learned positions with a wrong sign, beside integer labels."""
    e = x + pos
    z = e @ W
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    rows = np.arange(5)
    dz = p.copy()
    dz[rows, labels] -= 1
    dW, dpos = e.T @ dz, -dz @ W.T
    return -np.sum(np.log(p[rows, labels])), dW, dpos


def of_codes(x: Any, W: Any, codes: Any) -> Any:
    """Return the gradient of learned codes with a wrong sign, clipped by a common norm."""
    r = codes @ W - x
    dW, dcodes = codes.T @ r, -r @ W.T
    norm = np.sqrt(np.sum(dW**2) + np.sum(dcodes**2))
    dW *= min(1.0, 1e9 / norm)
    return 0.5 * np.sum(r**2), dW, dcodes


def of_an_offset(x: Any, W: Any, away: Any) -> Any:
    """Return the gradient of an offset of every row with a wrong sign."""
    r = x @ W + away
    dW = x.T @ r
    daway = -r
    return 0.5 * np.sum(r**2), dW, daway


x, labels = seq, np.array([0, 1, 1, 0, 2])
codes, pos, away = (RNG.normal(size=(5, 3)) for _ in range(3))


@pytest.mark.parametrize("function", [of_positions, of_codes, of_an_offset])
def test_a_wrong_sign_alone_makes_no_target(function: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"compared with (pos|codes|away); .* W alone$"):
        read_function(function, "f", None)


def in_its_own_place(x: Any, W: Any, V: Any) -> Any:
    """Return a parameter in the place of its gradient."""
    d = x @ W @ V
    dW = x.T @ d @ V.T
    return 0.5 * np.sum(d**2), dW, V


V = RNG.normal(size=(3, 3))


@pytest.mark.rest
def test_a_parameter_in_the_place_of_its_gradient_is_compared() -> None:
    found = read_function(in_its_own_place, "f", None)
    assert [*found.params] == ["W", "V"]
    report = verify_own_model(found.gradients, found.loss, found.params, cases=2)
    assert "update-returned" in [each.name for each in report.mistakes]


def test_a_gradient_of_all_rows_is_no_target_beside_another_array_that_may_be_one() -> None:
    def f(inputs: Any, other: Any, extra: Any, W: Any) -> Any:
        d = inputs @ W + extra - other
        dextra, dW = -d, inputs.T @ d  # a wrong sign
        return 0.5 * np.sum(d**2), dW, dextra

    with pytest.raises(ValueError, match=r"prediction that is compared with extra; .* W alone$"):
        read_function(f, "f", None)


CASES: dict[Callable[..., Any], tuple[set[str], str]] = {
    of_globals: ({"W", "b"}, "y"),
    in_a_dict: ({"W"}, "seq"),
    of_arguments: ({"W", "b"}, "y"),
    beside_global_data: ({"W", "b"}, "y"),
    with_an_output_bias: ({"W", "c"}, ""),
    of_a_state_space: ({"W", "C"}, ""),
    of_a_structure: ({"W"}, "inputs"),
    of_a_target_by_another_name: ({"W", "b"}, "goal"),
    of_a_target_by_any_name: ({"W", "b"}, "aim"),
    of_probabilities: ({"W"}, "hoped"),
    of_signs: ({"W"}, "aim"),
}


@pytest.mark.parametrize("function", CASES, ids=lambda each: each.__name__)
def test_a_gradient_that_may_be_of_data_is_not_compared_and_the_report_says_so(
    function: Callable[..., Any],
) -> None:
    found, (names, left_out) = read_function(function, "f", None), CASES[function]
    assert {*found.params} == names
    said = f"; not compared: the gradient of {left_out}, taken for data unless --params names it."
    assert found.said.endswith(said) if left_out else "not compared" not in found.said


def test_chosen_names_may_be_those_of_arguments_and_of_globals_together() -> None:
    found = read_function(of_globals, "f", None, ("W", "b", "y"))
    assert [*found.params] == ["W", "b", "y"]
    assert "not compared" not in found.said


def test_an_argument_that_is_returned_as_it_was_given_is_no_gradient() -> None:
    def step(inputs: Any) -> Any:
        d = inputs @ W
        return 0.5 * np.sum(d**2), {"W": inputs.T @ d, "inputs": inputs}

    assert "not compared" not in read_function(step, "f", None).said


def test_a_function_that_fails_at_other_data_raises_the_doubt_all_the_same() -> None:
    def f(inputs: Any, whole: Any, W: Any) -> Any:
        assert np.array_equal(whole, np.round(whole))
        d = inputs @ W - whole
        dwhole, dW = d, inputs.T @ d
        return 0.5 * np.sum(d**2), dW, dwhole

    def loss(params: Any) -> Any:
        return np.sum(params["whole"] * y)

    along = [np.ones(3), np.arange(1.0, 4.0)]
    with pytest.raises(AssertionError):
        f(inputs, y, W)
    params = {"whole": np.round(y)}
    slopes = find_doubts(
        ["whole"], params, lambda p: (0.0, {"whole": f(inputs, p["whole"], W)[2]}), loss
    )
    assert slopes == [Doubt("whole", False)]
    assert is_less_array([-2 * v for v in along], along)
    assert not is_less_array([2 * v for v in along], along)
    assert not is_less_array([-2 * along[0], -3 * along[1]], along)
    assert not is_less_array([0 * v for v in along], along)


def test_one_difference_over_a_kink_raises_no_doubt_and_two_do() -> None:
    slopes = np.array([1.0, 2.0, 3.0])
    assert are_near(slopes, np.array([1.0, 2.0, 9.0]))
    assert are_near(slopes, 1.009 * slopes)
    assert not are_near(slopes, np.array([1.0, 8.0, 9.0]))
    assert not are_near(slopes, 1.02 * slopes)


other = seq


def loss_of_prediction(seq: Any, y: Any) -> Any:
    """Return the gradient of a prediction by the name of the target."""
    dy = seq - y
    return 0.5 * np.sum(dy**2), dy


def test_the_only_gradient_is_not_taken_for_that_of_a_target_beside_other_arrays() -> None:
    with pytest.raises(ValueError, match="the gradients with --params"):
        read_function(loss_of_prediction, "f", None)


def unnamed(inputs: Any, factor: float = 1.0) -> Any:
    """Return the gradient of b as an expression, which has no name."""
    d = inputs @ W + b
    dW = inputs.T @ d
    return 0.5 * np.sum(d**2), dW, factor * d.sum(0)


def test_a_right_result_without_a_name_is_matched_by_its_shape() -> None:
    assert "; parameters: W, b" in read_function(unnamed, "f", None).said.replace("b, W", "W, b")


def test_a_wrong_result_without_a_name_asks_for_the_parameters() -> None:
    def doubled(inputs: Any) -> Any:
        loss, dW, db = unnamed(inputs)
        return loss + 0 * np.sum(b) + 0 * np.sum(W), dW, db * np.array(2.0)

    with pytest.raises(ValueError, match=r"gradient of b in a result without a name .* --params"):
        read_function(doubled, "f", None)


def test_a_result_that_two_arrays_may_have_asks_for_the_parameters() -> None:
    def of_one_of_two(inputs: Any) -> Any:
        d = inputs @ W + b * b2
        dW = inputs.T @ d
        return 0.5 * np.sum(d**2), dW, b2 * d.sum(0)

    with pytest.raises(ValueError, match="may be the gradient of b, b2; return it in a variable"):
        read_function(of_one_of_two, "f", None)


def test_a_state_without_a_name_is_no_gradient() -> None:
    def with_a_state(inputs: Any, h: Any) -> Any:
        dW, d = h.T @ (h @ W), h @ W
        return 0.5 * np.sum(d**2), dW, h[:]

    assert "without a name" not in read_function(with_a_state, "f", None).said


def dense(x: Any, w: Any, q: Any) -> Any:
    """Compute a layer of tanh, and what its backward pass needs."""
    a = np.tanh(x @ w + q)
    return a, (x, w, a)


def dense_backward(dout: Any, cache: Any) -> Any:
    """Return the gradients of a layer, one with a name, without tanh's derivative in another."""
    x, w, a = cache
    dz = dout * (1 - a**2)
    dx = dz @ w.T
    return dx, x.T @ dout, dz.sum(0)


def dense_backward_of_inputs(dout: Any, cache: Any) -> Any:
    """Return the gradients of a layer without names, of the inputs without tanh's derivative."""
    x, w, a = cache
    dz = dout * (1 - a**2)
    return dout @ w.T, x.T @ dz, dz.sum(0)


@pytest.mark.rest
@pytest.mark.parametrize("backward", [dense_backward, dense_backward_of_inputs])
def test_every_result_of_a_layer_is_compared(backward: Callable[..., Any]) -> None:
    given = {"x": RNG.normal(size=(5, 3)), "w": RNG.normal(size=(3, 4)), "q": RNG.normal(size=4)}
    a, cache = dense(**given)
    calls = [RecordedCall(None, given), RecordedCall(None, {"dout": a, "cache": cache})]
    code = read_pair([dense, backward], "dense,dense_backward", calls)
    assert sorted(code.params) == ["q", "w", "x"]
    assert verify_own_model(code.gradients, code.loss, code.params).verdict == "disagrees"


def of_an_initial_state(x: Any, y: Any, h0: Any, W: Any) -> Any:
    """Return the gradient of an initial state beside that of a parameter."""
    h = np.tanh(x + h0 @ W)
    d = 2 * (h - y) * (1 - h * h)
    dW, dh0 = h0.T @ d, d @ W.T
    return np.sum((h - y) ** 2), dW, dh0


def of_an_initial_state_with_a_wrong_sign(x: Any, y: Any, h0: Any, W: Any) -> Any:
    """Return the gradient of an initial state with a wrong sign."""
    loss, dW, dh0 = of_an_initial_state(x, y, h0, W)
    dh0 = -dh0
    return loss, dW, dh0


h0 = RNG.normal(size=(5, 3))


def test_the_gradient_of_an_initial_state_is_compared_or_asked() -> None:
    found = read_function(of_an_initial_state, "f", None)
    assert {*found.params} == {"W", "h0"}
    assert verify_own_model(found.gradients, found.loss, found.params, cases=2)
    with pytest.raises(ValueError, match=r"gradient of the loss in h0, .* W alone$"):
        read_function(of_an_initial_state_with_a_wrong_sign, "f", None)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (("inp",), INPUTS),
        (("W",), frozenset()),
        (("inp", "W"), frozenset()),
        (("inp", 0, "W"), frozenset()),
        (("inp", "x", "W"), frozenset()),
        (("inp", 0), INPUTS),
        (("inp", "x"), INPUTS),
        (("net", "x"), frozenset()),
    ],
)
def test_an_array_is_data_by_its_outermost_name_if_not_a_parameter_of_a_layer(
    path: tuple[Any, ...], kind: frozenset[str]
) -> None:
    assert find_kind_of_place(ArrayPlace("self", path, path, W), pair=True) == kind
    call = ("forward", *path)
    assert find_kind_of_place(ArrayPlace("arguments", call, path, W), pair=True) == kind


@pytest.mark.parametrize(
    ("name", "other", "alike"),
    [
        ("by", "bh", True), ("Wy", "Wx", True), ("W_hy", "W_xh", True), ("b2", "b1", True),
        ("cell.bf", "cell.bi", True), ("bias_h", "bias_y", True),
        ("by", "Wy", False), ("W_hyz", "W_xh", False), ("beta1", "b1", False),
        ("weights", "weight_x", False), ("wt", "wx", False), ("bs", "b1", False),
        ("weight2", "weight1", True), ("Whx", "Wxh", True),
        ("batch", "bh", False), ("h0", "h1", False), ("x2", "x1", False), ("mask", "b1", False),
    ],
)  # fmt: skip
def test_weights_and_biases_are_alike_whose_names_differ_by_an_index(
    name: str, other: str, alike: bool
) -> None:
    assert are_alike(name, other) is are_alike(other, name) is alike


def of_two_biases(W: Any, b1: Any, b2: Any, seq: Any) -> Any:
    """Return no gradient of one of two biases."""
    d = np.tanh(inputs @ W + b1) + b2 - seq
    dz = d * (1 - np.tanh(inputs @ W + b1) ** 2)
    dW, db1 = inputs.T @ dz, dz.sum(0)
    return 0.5 * np.sum(d**2), dW, db1


def beside_a_global_weight(W1: Any, seq: Any) -> Any:
    """Return the gradient of an argument; the global weight before it is fixed."""
    d = np.cos(inputs @ W0) @ W1 - seq
    dW1 = np.cos(inputs @ W0).T @ d
    return 0.5 * np.sum(d**2), dW1


def test_a_global_weight_before_an_argument_may_be_fixed() -> None:
    assert {*read_function(beside_a_global_weight, "f", None).params} == {"W1"}


def of_another_shape(W1: Any, W2: Any, seq: Any) -> Any:
    """Return the gradient of a matrix; a vector with a name like it is data."""
    d = W2 * (inputs @ W1 - seq)
    dW1 = inputs.T @ (W2 * d)
    return 0.5 * np.sum(d**2), dW1


def test_an_array_with_another_number_of_axes_is_not_like_a_weight() -> None:
    assert {*read_function(of_another_shape, "f", None).params} == {"W1"}


def test_a_forgotten_gradient_of_a_bias_is_asked_for() -> None:
    said = (
        "f: expected the gradient of b2, as that of b1, found none; return it, or if "
        "b2 is data, name the parameters with --params W,b1"
    )
    with pytest.raises(ValueError, match=f"^{said}$"):
        read_function(of_two_biases, "f", None)
    own = read_function(of_two_biases, "f", None, ("W", "b1"))
    assert {*own.params} == {"W", "b1"}
