"""Bad input gets one clear sentence, and is left as it was."""

import copy
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given

from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import Sizes
from bptt_verifier.strategies import Refused, refused_arguments
from jax_reference import padded
from jax_reference import rnn as autodiff
from manual_bptt import jacobian_sum, rnn, rtrl
from manual_bptt.activations import Activation
from manual_bptt.rnn import Params
from tests.support.agreement import same

MODULES = [rnn, jacobian_sum, rtrl, autodiff]


def call(module: ModuleType, arguments: dict[str, Any]) -> Any:
    return module.value_and_grad(**arguments)


@pytest.mark.rest
@given(refused=refused_arguments())
def test_every_module_names_the_argument_at_fault_in_one_sentence(refused: Refused) -> None:
    messages = set()
    before = copy.deepcopy(refused.arguments)
    for module in MODULES:
        with pytest.raises(refused.exception) as caught:
            call(module, refused.arguments)
        message = str(caught.value)
        assert message.startswith(f"{refused.at_fault}: expected "), message
        assert ", found " in message
        assert "\n" not in message
        messages.add(message)
    if refused.at_fault != "activation":  # one twin takes a pair, the other a function
        assert len(messages) == 1, messages
    for name in ("x", "y", "h0"):
        if isinstance(before[name], np.ndarray) and before[name].dtype != object:
            assert same(refused.arguments[name], before[name])


@pytest.fixture
def good() -> dict[str, Any]:
    problem = with_values(np.random.default_rng(1), Sizes(T=3, B=2, D=4, H=5, O=1))
    named = problem.simple_options
    return {"params": problem.params, "x": problem.x, "y": problem.y, "h0": None, **named}


@pytest.mark.parametrize(
    ("change", "exception", "message"),
    [
        ({"x": np.ones((3, 4))}, ValueError, "x: expected shape (T, B, D) with D = 4, found (3, 4)"),
        ({"x": np.ones((0, 2, 4))}, ValueError, "x: expected shape (T, B, D) with D = 4 and T ≥ 1, found (0, 2, 4)"),
        ({"x": np.ones((3, 0, 4))}, ValueError, "x: expected shape (T, B, D) with D = 4 and B ≥ 1, found (3, 0, 4)"),
        ({"y": np.ones(2)}, ValueError, "y: expected shape (B, O) = (2, 1), found (2,)"),
        ({"y": np.ones((2, 1), int)}, TypeError, "y: expected a floating dtype, found int64"),
        ({"h0": np.ones((5, 2))}, ValueError, "h0: expected shape (B, H) = (2, 5), found (5, 2)"),
        ({"x": np.ones((3, 2, 4), np.float32)}, TypeError, "x: expected dtype float64 as in U, found float32"),
        ({"x": None}, TypeError, "x: expected an array, found None"),
        ({"y": None}, TypeError, "y: expected an array, found None"),
        ({"params": (1, 2, 3)}, TypeError, "params: expected Params(U, W, V[, b, c]), found tuple without U"),
        ({"params": None}, TypeError, "params: expected Params(U, W, V[, b, c]), found NoneType without U"),
        ({"loss": "hinge"}, ValueError, "loss: expected one of mse, half_sse, mae, huber, softmax_cross_entropy, binary_cross_entropy, found 'hinge'"),
        ({"activation": "Tanh"}, ValueError, "activation: expected one of tanh, sigmoid, relu, identity, found 'Tanh'"),
        ({"y": np.array([[0.0], [np.nan]])}, ValueError, "y: expected finite values, found nan at (1, 0)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_the_sentence_says_what_was_found_and_what_was_expected(
    module: ModuleType,
    change: dict[str, Any],
    exception: type[Exception],
    message: str,
    good: dict[str, Any],
) -> None:
    with pytest.raises(exception) as caught:
        call(module, good | change)
    assert str(caught.value) == message


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_good_input_is_accepted(module: ModuleType, good: dict[str, Any]) -> None:
    call(module, good)
    fields = SimpleNamespace(**good["params"]._asdict())
    if module is not autodiff:  # JAX needs a registered pytree, NumPy only the fields
        call(module, good | {"params": fields})


OTHER_ORDER = np.dtype(np.float64).newbyteorder()


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
@pytest.mark.parametrize("name", ["x", "y", "h0"])
@pytest.mark.parametrize(
    "change", [lambda a: a.astype(OTHER_ORDER), lambda a: a.tolist()], ids=["order", "list"]
)
def test_the_other_byte_order_and_nested_lists_are_taken_as_arrays(
    module: ModuleType, name: str, change: Any, good: dict[str, Any]
) -> None:
    good["h0"] = np.full((2, 5), 0.5)
    value, gradients = call(module, good)
    found, others = call(module, good | {name: change(good[name])})
    assert found == value
    np.testing.assert_array_equal(others.W, gradients.W)


def test_weights_of_the_other_byte_order(good: dict[str, Any]) -> None:
    params = Params(*(None if w is None else w.astype(OTHER_ORDER) for w in good["params"]))
    value, _ = rnn.value_and_grad(**good | {"params": params})
    assert value == rnn.value_and_grad(**good)[0]
    with pytest.raises(TypeError, match="U: expected dtype float64, found >f8"):
        autodiff.value_and_grad(**good | {"params": params})


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__)
def test_weights_as_lists_and_ragged_lists_are_refused(
    module: ModuleType, good: dict[str, Any]
) -> None:
    lists = good["params"]._replace(W=good["params"].W.tolist())
    with pytest.raises(TypeError, match="W: expected an array, found list"):
        call(module, good | {"params": lists})
    with pytest.raises(TypeError, match="x: expected an array, found list"):
        call(module, good | {"x": [[1.0], [1.0, 2.0]]})


def test_float64_shortened_by_a_transformation_is_explained(good: dict[str, Any]) -> None:
    def value(params: Params) -> Any:
        return autodiff.value_and_grad(params, good["x"], good["y"])[0]

    with pytest.raises(TypeError, match=r"found float64; .* needs jax.enable_x64\(True\)"):
        jax.grad(value)(good["params"])


def test_longdouble_is_refused_by_jax_which_would_shorten_it(good: dict[str, Any]) -> None:
    params = Params(*(None if w is None else w.astype(np.longdouble) for w in good["params"]))
    with pytest.raises(
        TypeError, match=r"U: expected a floating dtype, found (longdouble|float128)"
    ):
        autodiff.predict(params, good["x"].astype(np.longdouble))


def test_predict_and_forward_and_backward_and_padded_check_too(good: dict[str, Any]) -> None:
    params, x, y = good["params"], good["x"], good["y"]
    for witness in (rnn, autodiff):
        with pytest.raises(ValueError, match=r"h0: expected shape \(B, H\) = \(2, 5\)"):
            witness.predict(params, x, np.zeros((1, 5)))
        with pytest.raises(ValueError, match=r"y: expected shape \(B, O\) = \(2, 1\)"):
            witness.adjoints(params, x, y[0])
    with pytest.raises(ValueError, match=r"y: expected shape \(B, O\) = \(2, 1\)"):
        padded.derivatives(params, x, y[0])
    _, trace = rnn.forward(params, x)
    with pytest.raises(ValueError, match=r"output_gradient: expected shape \(B, O\) = \(2, 1\)"):
        rnn.backward(params, trace, np.ones(2))
    with pytest.raises(TypeError, match="output_gradient: expected dtype float64 as in U"):
        rnn.backward(params, trace, np.ones((2, 1), np.float32))
    with pytest.raises(ValueError, match="output_gradient: expected finite values, found nan"):
        rnn.backward(params, trace, np.full((2, 1), np.nan))
    with pytest.raises(ValueError, match=r"output_gradient: expected shape \(B, O\) = \(2, 1\)"):
        jacobian_sum.terms(params, x, np.ones((2, 2)))


def test_an_activation_of_ones_own_is_accepted_and_one_without_a_derivative_is_not(
    good: dict[str, Any],
) -> None:
    cubic = Activation(lambda a: a - a**3, lambda a, h: 1 - 3 * a**2)
    rng = np.random.default_rng(2)
    shapes = ((5, 4), (5, 5), (1, 5), (2, 2, 4), (2, 1))  # two steps on small whole numbers: exact
    *weights, x, y = (rng.integers(-2, 3, shape).astype(float) for shape in shapes)
    whole = {"params": rnn.Params(*weights), "x": x, "y": y, "loss": "half_sse"}
    _, by_hand = rnn.value_and_grad(**good | whole | {"activation": cubic})
    _, by_autodiff = autodiff.value_and_grad(**good | whole | {"activation": cubic.function})
    assert np.abs(by_hand.W).max() > 0
    np.testing.assert_array_equal(by_hand.W, by_autodiff.W)
    scalar = Activation(cubic.function, lambda a, h: np.ones(()))
    with pytest.raises(
        ValueError,
        match=r"activation: expected derivative\(a, h\) of shape \(2, 5\) as a, found \(\)",
    ):
        rnn.value_and_grad(**good | {"activation": scalar})
    with pytest.raises(
        ValueError, match=r"activation: expected function\(a\) of shape .* found \(2,\)"
    ):
        rnn.predict(
            good["params"], good["x"], activation=cubic._replace(function=lambda a: a[..., 0])
        )
    with pytest.raises(TypeError, match="activation: expected a name or an Activation"):
        rnn.predict(good["params"], good["x"], activation=cubic.function)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "exception", "message"),
    [
        ((None, 1, 1, 1), TypeError, "rng: expected a numpy.random.Generator, found NoneType"),
        ((0, 1, 1, 1), TypeError, "rng: expected a numpy.random.Generator, found int"),
        ((..., 0, 1, 1), ValueError, "input_size: expected at least 1, found 0"),
        ((..., 1, 1.5, 1), TypeError, "hidden_size: expected an integer, found float"),
        ((..., 1, 1, True), TypeError, "output_size: expected an integer, found bool"),
    ],
)
def test_init_says_what_it_wants(
    arguments: tuple[Any, ...], exception: type[Exception], message: str
) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(exception) as caught:
        rnn.init(*(rng if a is ... else a for a in arguments))
    assert str(caught.value) == message


def test_init_refuses_a_dtype_that_cannot_hold_gradients() -> None:
    with pytest.raises(TypeError, match="dtype: expected a floating dtype, found int64"):
        rnn.init(np.random.default_rng(0), 1, 1, 1, dtype=np.int64)


def test_shapes_are_checked_under_jit_where_values_cannot_be(good: dict[str, Any]) -> None:
    with jax.enable_x64(True):
        with pytest.raises(ValueError, match=r"y: expected shape \(B, O\) = \(2, 1\)"):
            jax.jit(autodiff.value_and_grad)(good["params"], good["x"], good["y"][0])
        value, _ = jax.jit(autodiff.value_and_grad)(good["params"], good["x"], good["y"])
    assert float(value) == pytest.approx(float(rnn.value_and_grad(**good)[0]))


def test_float64_is_differentiated_in_float64_and_nothing_stays_switched(
    good: dict[str, Any],
) -> None:
    assert not jax.config.jax_enable_x64
    _, gradients = autodiff.value_and_grad(**good)
    assert gradients.W.dtype == np.float64
    assert not jax.config.jax_enable_x64
