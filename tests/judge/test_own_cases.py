"""The cases of an own model: which are left out, which are large, what a report says of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import Report, Verdict, verify_own_model
from bptt_verifier.program.precision import use_float64
from bptt_verifier.reference.own_cases import widen
from bptt_verifier.reference.own_loss import prepare

rng = np.random.default_rng(5)
X, Y = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
WEIGHTS = {"W": rng.normal(size=(3, 2))}


def differentiate(loss: Callable[..., Any]) -> Callable[[Any], Any]:
    """The right gradients of a loss, in float64."""
    gradient = jax.grad(lambda p: jnp.reshape(loss(p, jnp), ()))

    def gradients(p: Any) -> Any:
        with use_float64():
            return {name: np.asarray(value) for name, value in gradient(widen(p)).items()}

    return gradients


def said(report: Report) -> str:
    return " ".join(report.notes)


# Ordinary sizes.


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", pytest.param("relu", marks=pytest.mark.slow)])
def test_wide_and_long_networks_are_decided_in_every_case(activation: str) -> None:
    H, T = 48, 30
    x, y = rng.normal(size=(T, 4, 3)), rng.normal(size=(4, 2))
    shapes = {"U": (3, H), "W": (H, H), "V": (H, 2)}
    params = {name: 0.1 * rng.normal(size=shape) for name, shape in shapes.items()}

    def phi(a: Any, xp: Any) -> Any:
        return xp.tanh(a) if activation == "tanh" else xp.maximum(a, 0)

    def loss(p: Any, xp: Any) -> Any:
        h = xp.zeros((4, H))
        for t in range(T):
            h = phi(x[t] @ p["U"] + h @ p["W"], xp)
        return xp.mean((h @ p["V"] - y) ** 2)

    def gradients(p: Any, first: int = 0) -> Any:
        dtype = p["W"].dtype
        h = [np.zeros((4, H), dtype)]
        for t in range(T):
            h.append(phi(x[t].astype(dtype) @ p["U"] + h[-1] @ p["W"], np))
        dy = (2 * (h[-1] @ p["V"] - y) / y.size).astype(dtype)
        found = {"U": 0 * p["U"], "W": 0 * p["W"], "V": h[-1].T @ dy}
        dh = dy @ p["V"].T
        for t in reversed(range(first, T)):
            da = dh * (1 - h[t + 1] ** 2 if activation == "tanh" else h[t + 1] > 0)
            found["U"] += x[t].astype(dtype).T @ da
            found["W"] += h[t].T @ da
            dh = da @ p["W"].T
        return found

    report = verify_own_model(gradients, loss, params, cases=12)
    assert report, str(report)
    # Where U or V is zero, so are other gradients. Whether a case is near a kink of relu, the last
    # digit tells, which depends on the processor.
    said = " of 12 cases could have shown a mistake in every gradient."
    assert {f"10{said}", f"11{said}"} & {*report.notes}
    truncated = verify_own_model(lambda p: gradients(p, T // 2), loss, params, cases=12)
    assert truncated.verdict is Verdict.DISAGREES


# Kinks.


def relu_network(p: Any, xp: Any) -> Any:
    return xp.mean((xp.maximum(X @ p["W"] + p["b"], 0) @ p["V"] - Y) ** 2)


def relu_gradients(p: Any) -> Any:
    a = X @ p["W"] + p["b"]
    dy = 2 * (np.maximum(a, 0) @ p["V"] - Y) / Y.size
    da = (dy @ p["V"].T) * (a > 0)
    return {"W": X.T @ da, "b": da.sum(axis=0), "V": np.maximum(a, 0).T @ dy}


@pytest.mark.rest
def test_a_relu_at_exact_zeros_is_judged_away_from_them() -> None:
    # At a = 0, JAX's maximum has the slope ½.
    params = {"W": np.zeros((3, 4)), "b": np.zeros(4), "V": np.ones((4, 2))}
    report = verify_own_model(relu_gradients, relu_network, params)
    assert report, str(report)
    assert "The parameters given were left out: the loss has a kink there." in report.notes


@pytest.mark.rest
@pytest.mark.parametrize("kind", ["abs", "max", "where"])
def test_any_slope_is_right_at_a_kink(kind: str) -> None:
    params = {"w": np.zeros(4)}
    functions: dict[str, Callable[[Any, Any], Any]] = {
        "abs": lambda w, xp: xp.sum(xp.abs(w)),
        "max": lambda w, xp: xp.max(w),
        "where": lambda w, xp: xp.sum(xp.where(w > 0, w, 2 * w)),
    }
    slopes: dict[str, Callable[[Any], Any]] = {
        "abs": lambda w: np.where(w < 0, -1.0, 1.0),
        "max": lambda w: np.eye(len(w))[np.argmax(w)],
        "where": lambda w: np.where(w >= 0, 1.0, 2.0),
    }
    report = verify_own_model(
        lambda p: {"w": slopes[kind](p["w"]).astype(p["w"].dtype)},
        lambda p, xp: functions[kind](p["w"], xp),
        params,
    )
    assert report, str(report)
    assert "has a kink" in said(report)


def test_units_that_are_zero_at_all_parameters_leave_no_case_out() -> None:
    # The rows of zeros are padding: whatever the slope, nothing is passed back to W.
    padded = np.vstack([X, np.zeros((2, 3))])

    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(xp.maximum(padded @ p["W"], 0) ** 2 + xp.maximum(padded @ p["W"], 0))

    def gradients(p: Any) -> Any:
        a = padded @ p["W"]
        return {"W": padded.T @ ((2 * np.maximum(a, 0) + 1) * (a >= 0))}

    report = verify_own_model(gradients, loss, WEIGHTS)
    assert report, str(report)
    assert "left out" not in said(report)


# Cases that cannot tell.


@pytest.mark.slow
def test_positive_parameters_are_drawn_near_those_given() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(xp.log(p["s"]) + 2 / p["s"])

    params = {"s": np.ones(12)}
    right = verify_own_model(differentiate(loss), loss, params)
    assert right
    assert "24 of 24 cases could have shown a mistake in every gradient." in right.notes
    wrong = verify_own_model(lambda p: {"s": 1 - 2 / p["s"]}, loss, params)  # right at ones
    assert wrong.verdict is Verdict.DISAGREES


def test_draws_that_only_float32_cannot_hold_are_left_out() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return 1e30 * xp.sum((1e5 * p["W"]) ** 2)

    report = verify_own_model(lambda p: {"W": 2e30 * 1e5 * (1e5 * p["W"])}, loss, WEIGHTS)
    assert report, str(report)
    assert "float32 may overflow there" in said(report)


def softmax_by_one_shift(wrong: float = 1.0, given: float = 0.2) -> tuple[Any, Any, Any]:
    """A softmax of columns in float32 with one shift for all: 0/0 where maxima are 104 apart."""

    def loss(p: Any, xp: Any, shift: Any = lambda a: a.max(0)) -> Any:
        a = 24 * xp.asarray(X, p["W"].dtype) @ p["W"]
        weights = xp.exp(a - shift(a))
        return xp.sum((weights / weights.sum(0)) ** 2)

    differentiated = jax.grad(lambda p: loss(p, jnp, jnp.max))

    def gradients(p: Any) -> Any:
        return {"W": wrong * np.asarray(differentiated(p)["W"])}

    return gradients, loss, {"W": given * WEIGHTS["W"]}


@pytest.mark.rest
def test_a_right_formula_that_overflows_at_large_values_alone_agrees() -> None:
    def gradients(p: Any) -> Any:
        w = p["w"].astype(np.float32)
        return {"w": w * np.exp(70 * w) / np.exp(70 * w)}

    half = {"w": np.array([0.5, -0.75])}
    report = verify_own_model(gradients, lambda p, xp: xp.sum(p["w"] ** 2) / 2, half)
    assert report, str(report)
    assert "left out: your results, in float32, are not finite there, and finite at" in said(report)


@pytest.mark.slow
def test_an_overflow_excuses_no_mistake_and_none_at_the_parameters_given() -> None:
    assert verify_own_model(*softmax_by_one_shift(1.01)).verdict is Verdict.DISAGREES
    report = verify_own_model(*softmax_by_one_shift(given=1.0))
    assert [mistake.name for mistake in report.mistakes] == ["not-finite"]


@pytest.mark.rest
def test_what_is_not_finite_at_small_values_too_is_no_overflow() -> None:
    gradients, loss, params = softmax_by_one_shift()
    calls: list[int] = []

    def from_the_fifth_call(p: Any) -> Any:
        calls.append(1)
        return {"W": gradients(p)["W"] * (np.nan if len(calls) > 4 else 1)}

    report = verify_own_model(from_the_fifth_call, loss, params)
    assert [mistake.name for mistake in report.mistakes] == ["not-finite"]


@pytest.mark.rest
def test_draws_that_float32_cannot_hold_are_left_out_where_parameters_are_in_float64() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.mean(xp.sum(p["w"] ** 2) ** 16)  # scaled up, beyond float32

    def in_float32(p: Any) -> Any:
        w = p["w"].astype(np.float32)
        return {"w": 32 * w * np.sum(w * w) ** np.float32(15)}

    report = verify_own_model(in_float32, loss, {"w": rng.normal(size=4)})
    assert report, str(report)


def test_a_loss_that_exceeds_float32_at_the_parameters_given_is_judged_there_and_beyond() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return 1e60 * xp.sum(p["w"] ** 2)

    report = verify_own_model(lambda p: {"w": 2e60 * p["w"]}, loss, {"w": rng.normal(size=4)})
    assert report, str(report)
    assert "24 of 24 cases could have shown a mistake in every gradient." in report.notes


def test_too_few_cases_are_inconclusive() -> None:
    def loss(p: Any, xp: Any) -> Any:
        # Finite at the values given and close by only.
        return xp.sum(xp.sqrt(1e-20 - (p["w"] - 1.0) ** 2) + p["w"] ** 2)

    report = verify_own_model(differentiate(loss), loss, {"w": np.ones(3)})
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "Too few cases could have shown a mistake: 1 in ∂L/∂w." in report.notes


@pytest.mark.rest
def test_a_loss_that_takes_float64_alone_is_confirmed_by_differences() -> None:
    def loss(p: Any, xp: Any) -> Any:
        L = xp.linalg.cholesky(p["A"] @ p["A"].T + 2 * np.eye(3))  # no longdouble in NumPy
        return xp.sum(xp.log(xp.diag(L)))

    report = verify_own_model(differentiate(loss), loss, {"A": rng.normal(size=(3, 3))})
    assert report, str(report)


# Gradients that are zero.


def normalised(p: Any, xp: Any) -> Any:
    a = X @ p["W"] + p["b"]
    z = (a - xp.mean(a, axis=0)) / xp.sqrt(xp.mean((a - xp.mean(a, axis=0)) ** 2, axis=0) + 1e-3)
    return xp.sum(xp.tanh(z) * Y)


@pytest.mark.slow
def test_a_gradient_that_is_zero_to_rounding_does_not_hold_up_the_others() -> None:
    right = differentiate(normalised)
    params = WEIGHTS | {"b": np.zeros(2), "unused": np.ones(3)}
    report = verify_own_model(right, normalised, params, cases=8)
    assert report, str(report)
    for name in ("b", "unused"):
        note = f"∂L/∂{name} is zero, to rounding, in every case, and yours must be, too."
        assert note in report.notes

        def wrong(p: Any, name: str = name) -> Any:
            return right(p) | {name: 1e-6 + 0 * p[name]}

        assert not verify_own_model(wrong, normalised, params, cases=8)


ZERO_BY_STRUCTURE = {
    "a product with a state of zeros": (
        lambda p, xp: xp.sum(xp.tanh(X @ p["V"] + xp.zeros((len(X), 2)) @ p["W"]) * Y)
    ),
    "a difference of equal numbers": (
        lambda p, xp: xp.sum((X @ p["V"]) ** 2 * xp.exp(p["W"][0, 0] - p["W"][0, 0]))
    ),
    "the part of a product that meets a state of zeros": (
        lambda p, xp: xp.sum(
            xp.tanh(
                xp.concatenate([X, xp.zeros((len(X), 2))], axis=1)
                @ xp.concatenate([p["V"], p["W"]], axis=0)
            )
            * Y
        )
    ),
    "a normalisation of one unit": (
        lambda p, xp: xp.sum((X @ p["V"]) ** 2 + subtract_mean(X @ p["V"][:, :1]) @ p["W"][:1])
    ),
    "the state before the last step of a layer": (
        lambda p, xp: xp.sum(
            xp.concatenate([xp.tanh(X @ p["V"]), xp.zeros((len(X), 2))], axis=1)
            @ xp.concatenate([p["V"][:2], p["W"]], axis=0)
        )
    ),
    "a softmax over one entry": (
        lambda p, xp: xp.sum((X @ p["V"]) ** 2 * softmax(X @ p["W"][:, :1], xp))
    ),
}


def subtract_mean(a: Any) -> Any:
    return a - a.mean(axis=1, keepdims=True)


def softmax(a: Any, xp: Any) -> Any:
    e = xp.exp(a - xp.max(a, axis=1, keepdims=True))
    return e / xp.sum(e, axis=1, keepdims=True)


@pytest.mark.table(6)
@pytest.mark.parametrize("name", ZERO_BY_STRUCTURE)
def test_a_gradient_that_is_zero_by_structure_agrees_where_it_is_zero(name: str) -> None:
    loss, params = ZERO_BY_STRUCTURE[name], {"V": np.ones((3, 2)), "W": np.ones((2, 2))}
    params["W"] = np.ones((2 if "state" in name else 3, 2))
    right = differentiate(loss)
    report = verify_own_model(right, loss, params, cases=8)
    assert report, str(report)
    assert any(note.startswith("∂L/∂W is zero") for note in report.notes)
    wrong = verify_own_model(lambda p: right(p) | {"W": 1e-9 + 0 * p["W"]}, loss, params, cases=8)
    assert wrong.verdict is Verdict.DISAGREES


@pytest.mark.rest
def test_a_gradient_of_a_branch_that_is_never_taken_is_not_one_that_is_zero() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(xp.where(p["W"] > 1e12, p["u"], p["W"] ** 2))

    params = WEIGHTS | {"u": np.ones((3, 2))}
    report = verify_own_model(lambda p: {"W": 2 * p["W"], "u": 0 * p["u"]}, loss, params)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "the condition is true" in said(report)


# Large values.


def linear(p: Any, xp: Any) -> Any:
    return xp.sum((X @ p["W"] - Y) ** 2)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [5, 100, 1000])
def test_clipped_gradients_are_seen(limit: float) -> None:
    def clipped(p: Any) -> Any:
        return {"W": np.clip(2 * X.T @ (X @ p["W"] - Y), -limit, limit)}

    assert verify_own_model(clipped, linear, WEIGHTS).verdict is Verdict.DISAGREES


@pytest.mark.rest
def test_slopes_set_to_zero_at_saturated_units_are_seen() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum((xp.tanh(X @ p["W"]) - Y) ** 2)

    def gradients(p: Any, beyond: float) -> Any:
        a = X @ p["W"]
        slope = (1 - np.tanh(a) ** 2) * (np.abs(a) < beyond)
        return {"W": X.T @ (2 * (np.tanh(a) - Y) * slope)}

    assert verify_own_model(lambda p: gradients(p, np.inf), loss, WEIGHTS)
    assert not verify_own_model(lambda p: gradients(p, 7), loss, WEIGHTS)


@pytest.mark.rest
def test_slopes_of_a_sigmoid_set_to_zero_far_out_are_seen() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum((1 / (1 + xp.exp(-(X @ p["W"]))) - Y) ** 2)

    def gradients(p: Any) -> Any:
        a = X @ p["W"]
        s = 1 / (1 + np.exp(-a))
        slope = s * (1 - s) * (np.abs(a) < 15)
        return {"W": X.T @ (2 * (s - Y) * slope)}

    assert not verify_own_model(gradients, loss, WEIGHTS)


@pytest.mark.rest
def test_the_linear_branch_of_a_robust_loss_is_reached() -> None:
    def huber(p: Any, xp: Any) -> Any:
        e = X @ p["W"] - Y
        return xp.sum(xp.where(xp.abs(e) < 10, e**2 / 2, 10 * xp.abs(e) - 50))

    report = verify_own_model(lambda p: {"W": X.T @ (X @ p["W"] - Y)}, huber, WEIGHTS)
    assert report.verdict is Verdict.DISAGREES
    assert verify_own_model(differentiate(huber), huber, WEIGHTS)


@pytest.mark.rest
def test_a_branch_that_no_case_takes_is_named() -> None:
    def loss(p: Any, xp: Any) -> Any:
        y = xp.minimum(X @ p["W"], 1e9)
        return xp.sum(xp.logaddexp(y, 0.0) ** 2)

    report = verify_own_model(differentiate(loss), loss, WEIGHTS)
    assert report, str(report)
    (note,) = [note for note in report.notes if note.startswith("No case takes")]
    assert '`xp.minimum(X @ p["W"], 1e9)`' in note
    assert note.endswith("values above 1e+09.")


# Several settings.


@pytest.mark.slow
def test_settings_of_other_shapes_share_the_cases() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(xp.tanh(p["W"] @ p["v"]) ** 2)

    right = differentiate(loss)
    settings = [{"W": np.ones((n, n)) / n, "v": np.linspace(-1, 1, n)} for n in (2, 5)]
    report = verify_own_model(right, loss, settings)
    assert report, str(report)
    assert report.cases == 24
    assert "2 settings: W=(2, 2) v=(2,); W=(5, 5) v=(5,)." in said(report)

    def wrong_when_wide(p: Any) -> Any:
        return {name: value * (1 + (len(p["v"]) > 4)) for name, value in right(p).items()}

    report = verify_own_model(wrong_when_wide, loss, settings)
    assert report.verdict is Verdict.DISAGREES
    assert report.counterexample is not None
    assert "setting=2" in report.counterexample.reproduce
    with pytest.raises(ValueError, match="the same names in every setting"):
        prepare(loss, [settings[0], {"W": np.ones((2, 2))}])


@pytest.mark.table(2)
@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "agrees"), (1.001, "disagrees")])
def test_the_smallest_number_of_float32_is_a_mask(factor: float, verdict: str) -> None:
    allowed = np.tri(6, dtype=bool)

    def loss(p: Any) -> Any:
        scores = jnp.where(allowed, x @ p["W"] @ x.T, jnp.finfo(jnp.float32).min)
        return jnp.mean((jax.nn.softmax(scores) @ x - 0.5) ** 2)

    x, gradient = X.astype(np.float32), jax.grad(loss)
    params = {"W": rng.normal(size=(3, 3)).astype(np.float32)}
    report = verify_own_model(lambda p: {"W": factor * gradient(p)["W"]}, loss, params, cases=8)
    assert report.verdict.value == verdict, str(report)


@pytest.mark.rest
def test_every_parameter_is_large_in_some_case_though_errors_are_bounded() -> None:
    def loss(p: Any, xp: Any) -> Any:
        h = xp.zeros((6, 3))
        for _ in range(6):
            h = xp.maximum(X + h @ p["W"], 0)
        e = h @ p["V"] + p["c"] - Y
        return xp.mean(xp.where(abs(e) < 1, e * e / 2, abs(e) - 0.5))  # Huber's

    params = {"W": 0.3 * rng.normal(size=(3, 3)), "V": rng.normal(size=(3, 2)), "c": np.zeros(2)}
    cases = prepare(loss, params).cases
    for name in params:
        assert max(np.max(np.abs(case.arguments[name])) for case in cases) > 64


LOGITS = np.array([[1.0, 3.0], [-1.0, 0.5], [0.7, -3.0]])


def softplus_loss(p: Any, xp: Any) -> Any:
    a = LOGITS @ p["w"]  # 21 at the parameters given
    return xp.mean(xp.where(a > 20, a, xp.log1p(xp.exp(xp.minimum(a, 30.0)))))


@pytest.mark.rest
@pytest.mark.parametrize("linear_from", [20.0, np.inf])
def test_both_slopes_of_a_softplus_that_is_linear_far_out_are_right(linear_from: float) -> None:
    def gradients(p: Any, factor: float = 1.0) -> Any:
        a = LOGITS @ p["w"]
        return {"w": factor * LOGITS.T @ np.where(a > linear_from, 1, 1 / (1 + np.exp(-a))) / 3}

    params = {"w": np.array([6.0, 5.0])}
    report = verify_own_model(gradients, softplus_loss, params, cases=8)
    assert report.verdict is Verdict.AGREES, str(report)
    why = "a branch there stands for a formula that differs by less than 2⁻²⁶ of its value"
    assert f"The parameters given were left out: {why}" in said(report)
    wrong = verify_own_model(lambda p: gradients(p, 1 + 1e-9), softplus_loss, params, cases=8)
    assert wrong.verdict is Verdict.DISAGREES
