"""A loss in JAX that is written for float32 is differentiated without its rounding."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun

from bptt_verifier import verify_own_model
from bptt_verifier.program.precision import find_arrays
from bptt_verifier.program.wider_programs import Mode
from bptt_verifier.reference import narrow_losses
from bptt_verifier.reference.narrow_losses import (
    SAID,
    differs_in,
    find_mode,
    read_float32,
    read_narrow,
)
from bptt_verifier.reference.own_loss import prepare
from bptt_verifier.reference.own_model import OwnModel

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(4, 2, 3)), RNG.normal(size=(2, 3)).astype(np.float32)
PARAMS = {"W": RNG.normal(size=(3, 3)) / 2, "b": RNG.normal(size=3)}
SINGLE = {name: value.astype(np.float32) for name, value in PARAMS.items()}
DEFAULT = Mode(x64=False, promotion="standard")

Params = dict[str, Any]


@pytest.fixture(autouse=True)
def default_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


def run(p: Params, first: Any) -> Any:
    """The last state of a network."""
    return jax.lax.scan(lambda h, x: (jnp.tanh(h @ p["W"] + x + p["b"]), None), first, X)[0]


def pinned(p: Params) -> Any:
    return jnp.mean((run(p, jnp.zeros((2, 3), jnp.float32)) - Y) ** 2)


def cast(p: Params) -> Any:
    return jnp.mean((run(p, jnp.zeros((2, 3))).astype(jnp.float32) - Y) ** 2)


def cast_parameters(p: Params) -> Any:
    return pinned({name: jnp.asarray(value, jnp.float32) for name, value in p.items()})


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.0, "agrees"), pytest.param(1.01, "disagrees", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    "loss",
    [pinned, *(pytest.param(each, marks=pytest.mark.slow) for each in (cast, cast_parameters))],
)
def test_gradients_of_float32_get_a_verdict(
    loss: Callable[[Params], Any], factor: float, verdict: str
) -> None:
    def gradients(p: Params) -> Params:
        return {name: factor * value for name, value in jax.grad(loss)(p).items()}

    report = verify_own_model(gradients, loss, SINGLE, cases=3)
    assert report.verdict.value == verdict, str(report)
    assert SAID in report.notes


def by_numpy(p: Params) -> Params:
    """The gradients, derived by hand."""
    states = [np.zeros((2, 3))]
    for x in X:
        states.append(np.tanh(states[-1] @ p["W"] + x + p["b"]))
    dh = 2 * (states[-1] - Y) / Y.size
    found = {"W": np.zeros((3, 3)), "b": np.zeros(3)}
    for before, h in zip(states[-2::-1], states[:0:-1], strict=True):
        da = dh * (1 - h**2)
        found["W"] += before.T @ da
        found["b"] += da.sum(axis=0)
        dh = da @ p["W"].T
    return found


@pytest.mark.rest
@pytest.mark.parametrize("params", [PARAMS, pytest.param(SINGLE, marks=pytest.mark.rest)])
def test_data_of_float64_are_those_of_the_loss(params: Params) -> None:
    assert verify_own_model(by_numpy, pinned, params, cases=3)
    wrong = verify_own_model(
        lambda p: by_numpy(p) | {"b": 1.001 * by_numpy(p)["b"]}, pinned, params, cases=3
    )
    assert wrong.verdict.value == "disagrees"


def test_all_cases_are_of_float32_and_have_the_values_of_float64() -> None:
    model = prepare(pinned, PARAMS, cases=4)
    assert {v.dtype for case in model.cases for v in case.arguments.values()} == {
        np.dtype(np.float32)
    }
    case = model.cases[0]
    assert case.truth is not None
    wide = {name: value.astype(np.float64) for name, value in case.arguments.items()}
    for name, value in by_numpy(wide).items():
        np.testing.assert_allclose(case.truth(np.float64, ()).values[name], value, rtol=1e-12)
    assert jax.eval_shape(lambda: X).dtype == np.float32


@pytest.mark.rest
def test_a_loss_of_float64_is_left_alone() -> None:
    loss = lambda p: jnp.mean((run(p, 0 * p["W"][:2]) - Y) ** 2)  # noqa: E731
    model = prepare(loss, PARAMS, cases=3)
    assert SAID not in model.notes
    assert np.dtype(np.float64) in {v.dtype for c in model.cases for v in c.arguments.values()}


def test_the_indices_of_a_loop_keep_their_format() -> None:
    def loss(p: Params) -> Any:
        step = lambda t, h: jnp.tanh(p["b"] * h + jnp.asarray(X)[t, 0])  # noqa: E731
        return jnp.sum(jax.lax.fori_loop(0, 4, step, jnp.zeros(3, jnp.float32)))

    model = prepare(loss, {"b": SINGLE["b"]}, cases=2)
    assert model.refusal is None
    assert SAID in model.notes


def noisy(p: Params) -> Any:
    key = jax.random.key(0)
    kept = jax.random.bernoulli(key, 0.75, (2, 3))
    h = jnp.where(kept, run(p, jax.random.normal(key, (2, 3))), 0.0) / 0.75
    return jnp.mean((h - Y) ** 2)


@pytest.mark.rest
@pytest.mark.parametrize("given", [PARAMS, SINGLE])
def test_random_numbers_are_those_of_the_users_precision(given: Params) -> None:
    model = prepare(noisy, given, cases=2)
    assert SAID in model.notes
    case = model.cases[0]
    assert case.truth is not None
    found = case.truth(np.float64, ()).values
    for name, value in jax.grad(noisy)(case.arguments).items():  # 2¹⁰ roundoffs of the largest
        near = 2.0**-14 * np.max(np.abs(value))
        np.testing.assert_allclose(found[name], value, rtol=0, atol=near)
    with jax.enable_x64(True):  # there they are drawn as the judge draws them
        assert SAID not in prepare(noisy, PARAMS, cases=1).notes


def test_a_cast_rounds_what_the_user_has_in_float64() -> None:
    x64 = Mode(x64=True, promotion="standard")
    loss = lambda p, _: cast(p)  # noqa: E731
    for wide in ([PARAMS], [SINGLE, PARAMS], [SINGLE | {"W": PARAMS["W"]}]):
        assert read_float32(loss, wide, x64) is None
    assert read_float32(loss, [SINGLE], x64) is not None


def test_the_mode_is_the_users() -> None:
    for x64 in (False, True):
        with jax.enable_x64(x64):
            assert find_mode() == Mode(x64, "standard")


def count_calls(p: Params) -> Any:
    calls.append(p)
    return pinned(p) + len(calls)


calls: list[Params] = []


@pytest.mark.parametrize(
    "loss",
    [
        lambda p: float(np.sum(p["W"])),
        lambda p: np.float32(np.sum(p["W"])),
        count_calls,
        lambda p: jnp.sum(p["W"] if float(p["b"][0]) > 0 else p["b"]),
        lambda p: jnp.sum(p["no"]),
    ],
    ids=["a number", "of NumPy", "changes", "branches", "raises"],
)
def test_other_losses_are_not_read(loss: Callable[[Params], Any]) -> None:
    assert read_float32(lambda p, _: loss(p), [SINGLE], DEFAULT) is None


@pytest.mark.parametrize(
    ("found", "serves"),
    [({}, True), ({"refusal": "No case."}, False), ({"untraced": "It prints."}, False)],
)
def test_a_reading_serves_that_has_a_verdict_by_its_trace(
    found: dict[str, str], serves: bool
) -> None:
    asked = list[OwnModel]()

    def trace(model: OwnModel) -> OwnModel:
        asked.append(model)
        return model._replace(notes=("A note.",), **found)  # type: ignore[arg-type]

    model = OwnModel(lambda p, _: pinned(p), (PARAMS,), seed=0)
    read = read_narrow(model, DEFAULT, trace)
    assert (read is not None) is serves
    assert read is None or read.notes == ("A note.", SAID)
    (given,) = asked[0].params
    assert {value.dtype for value in given.values()} == {np.dtype(np.float32)}


def test_a_loss_that_is_no_number_at_the_parameters_given_is_read() -> None:
    assert read_float32(lambda p, _: jnp.log(-jnp.abs(p["b"][0])), [SINGLE], DEFAULT) is not None


def wave(p: Params, _: Any) -> Any:
    return jax.lax.sin(p["b"][0]) * jax.lax.cos(p["W"][0, 0])


@pytest.mark.parametrize("names", [["W", "b"], ["W"], ["b"]])
def test_the_operations_of_what_is_read_are_seen_in_a_trace(names: list[str]) -> None:
    with jax.enable_x64(True):
        read = read_float32(wave, [SINGLE], DEFAULT)
        assert read is not None
        closed = jax.make_jaxpr(lambda p: read(PARAMS | p, np))({n: PARAMS[n] for n in names})
    assert {"sin", "cos"} & {each.primitive.name for each in closed.eqns}


def test_what_is_read_is_compiled_once_for_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = list[Any]()

    def note(closed: Any) -> Callable[..., Any]:
        def run(*values: Any) -> Any:
            traced.append(values)
            return jaxpr_as_fun(closed)(*values)

        return run

    monkeypatch.setattr(narrow_losses, "jaxpr_as_fun", note)
    with jax.enable_x64(True):
        read = read_float32(wave, [SINGLE], DEFAULT)
        assert read is not None
        for factor in (1.0, 2.0, 3.0):
            given = {name: factor * value for name, value in PARAMS.items()}
            expected = np.sin(given["b"][0]) * np.cos(given["W"][0, 0])
            assert float(read(given, np)) == pytest.approx(expected, rel=1e-12)
    assert len(traced) == 1


def test_what_is_read_has_the_data_of_the_loss_and_no_copies() -> None:
    data = np.full(3, 1 / 3)
    loss = lambda p, _: jnp.sum(p["b"] * data)  # noqa: E731
    with jax.enable_x64(True):
        read = read_float32(loss, [SINGLE], DEFAULT)
    assert read is not None
    known = {id(array) for array in find_arrays(loss)}
    assert id(data) in known
    assert {id(array) for array in find_arrays(read)} == known


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("wide", "narrow", "differs"),
    [
        (1024.0, 1023.0, False), (1024.0, 1022.875, True), (1023.0, 1024.0, False),
        (1022.875, 1024.0, True), (1.0, -1.0, True), (0.0, 0.0, False),
    ],
)  # fmt: skip
def test_a_loss_is_another_one_beyond_one_in_1024(
    wide: float, narrow: float, differs: bool, sign: int
) -> None:
    def loss(p: Params, xp: Any) -> Any:
        return sign * jnp.asarray(wide if jax.config.read("jax_enable_x64") else narrow)

    with jax.enable_x64(True):
        assert differs_in(DEFAULT, loss, PARAMS) is differs
        assert not differs_in(DEFAULT._replace(x64=True), loss, PARAMS)


@pytest.mark.parametrize("raises", [True, False])
@pytest.mark.parametrize("result", [2.0, [2.0, 3.0]])
def test_what_raises_or_is_no_number_is_no_other_loss(raises: bool, result: Any) -> None:
    for wide in (True, False):

        def loss(p: Params, xp: Any, at: bool = wide) -> Any:
            if raises and jax.config.read("jax_enable_x64") is at:
                raise TypeError("not in this precision")
            return jnp.asarray(result)

        with jax.enable_x64(True):
            assert differs_in(DEFAULT, loss, PARAMS) is False


def note_precision() -> tuple[Callable[[Params, Any], Any], list[Any]]:
    """A loss, and the format that its data have at each call."""
    data, seen = np.full(3, 1 / 3), list[Any]()
    compiled = jax.jit(lambda b: jnp.sum(b * data))  # JAX keeps the data in what it compiles

    def loss(p: Params, xp: Any) -> Any:
        seen.append(jax.eval_shape(lambda: data).dtype)
        return compiled(p["b"])

    return loss, seen


@pytest.mark.rest
def test_both_precisions_are_asked_with_data_in_their_own() -> None:
    loss, seen = note_precision()
    with jax.enable_x64(True):
        assert not differs_in(DEFAULT, loss, PARAMS)
        loss(PARAMS, np)
    assert seen == [np.float64, np.float32, np.float64]


def test_a_loss_is_traced_with_data_of_float32_and_has_its_own_again() -> None:
    loss, seen = note_precision()
    with jax.enable_x64(True):
        loss(PARAMS, np)
        assert read_float32(loss, [SINGLE], DEFAULT) is not None
        loss(PARAMS, np)
    first, _, *others, last = seen  # the second call only tells whether the loss is one of JAX
    assert (first, last) == (np.float64, np.float64)
    assert set(others) == {np.dtype(np.float32)}


def test_no_code_is_run_on_numbers_of_another_precision(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """XLA writes an error of its own about that, beside the exception."""
    y = np.linspace(-1.0, 1.0, 4)

    @jax.jit
    def halve(w: Any) -> Any:  # no loop of which jax.grad knows the number of steps
        return jax.lax.while_loop(lambda v: jnp.max(v) > 0.6, lambda v: v / 2, w)

    def loss(p: Any) -> Any:
        return jnp.sum((halve(p["w"]) - y) ** 2)

    prepare(loss, {"w": np.ones(4)}, cases=1)
    assert "INVALID_ARGUMENT" not in capfd.readouterr().err
