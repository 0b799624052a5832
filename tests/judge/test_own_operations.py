"""The judge of models with unusual operations: complex numbers, loops, factorisations."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.precision import use_float64
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict

RNG = np.random.default_rng(3)
X = RNG.normal(size=(5, 3))
FEW = 6  # cases


def judge_autodiff(loss: Callable[[Any, Any], Any], **params: Any) -> Report:
    """Judge jax.grad of the loss itself."""

    def gradients(p: dict[str, Any]) -> dict[str, Any]:
        def in_order(values: Any) -> Any:
            return loss(dict(zip(p, values, strict=True)), jnp)

        with use_float64():
            return dict(zip(p, map(np.asarray, jax.grad(in_order)([*p.values()])), strict=True))

    return verify_own_model(gradients, loss, params, cases=FEW)


def complex_loss(p: Any, xp: Any) -> Any:
    """A linear recurrent unit: a diagonal complex recurrence."""
    factor = xp.exp(-xp.exp(p["nu"]) + 1j * p["theta"])
    B, C = p["Br"] + 1j * p["Bi"], p["Cr"] + 1j * p["Ci"]
    s, total = 0j * factor, 0.0
    for x_t in X:
        s = factor * s + B @ x_t
        total = total + 0.5 * (xp.real(xp.sum(C * s)) - x_t[0]) ** 2
    return total


COMPLEX = {
    "nu": RNG.normal(size=2) - 1, "theta": RNG.normal(size=2),
    "Br": RNG.normal(size=(2, 3)), "Bi": RNG.normal(size=(2, 3)),
    "Cr": RNG.normal(size=2), "Ci": RNG.normal(size=2),
}  # fmt: skip


def complex_gradients(conj: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    """The gradients of `complex_loss` by hand, with this in the place of the conjugate."""

    def gradients(p: Any) -> dict[str, Any]:
        factor = np.exp(-np.exp(p["nu"]) + 1j * p["theta"])
        B, C = p["Br"] + 1j * p["Bi"], p["Cr"] + 1j * p["Ci"]
        s = [0j * factor]
        for x_t in X:
            s.append(factor * s[-1] + B @ x_t)
        d, of_factor, dB, dC = 0j * s[0], 0j * s[0], 0j * B, 0j * C
        for t in reversed(range(len(X))):
            e = np.real(np.sum(C * s[t + 1])) - X[t, 0]
            dC += e * conj(s[t + 1])
            d = d * conj(factor) + e * conj(C)
            of_factor += d * conj(s[t])
            dB += np.outer(d, X[t])
        g = of_factor * conj(factor)
        return {
            "nu": -np.exp(p["nu"]) * g.real, "theta": g.imag,
            "Br": dB.real, "Bi": dB.imag, "Cr": dC.real, "Ci": dC.imag,
        }  # fmt: skip

    return gradients


@pytest.mark.rest
def test_a_complex_recurrence_agrees_and_its_missing_conjugate_is_named() -> None:
    right = verify_own_model(complex_gradients(np.conj), complex_loss, COMPLEX, cases=FEW)
    assert right.verdict is Verdict.AGREES, str(right)
    wrong = verify_own_model(complex_gradients(lambda z: z), complex_loss, COMPLEX, cases=FEW)
    assert [mistake.name for mistake in wrong.mistakes] == ["conjugate-missing"], str(wrong)


@pytest.mark.rest
def test_a_conjugate_missing_in_the_recurrence_alone_is_named_with_its_line() -> None:
    def recurrence_alone(p: Any) -> dict[str, Any]:
        unit = np.exp(-np.exp(p["nu"]) + 1j * p["theta"])
        calls = iter(range(10**6))

        def conj(z: Any) -> Any:
            is_factor = z.shape == unit.shape and np.array_equal(z, unit)
            last = next(calls) == 4 * len(X)
            return z if is_factor and not last else np.conj(z)

        return complex_gradients(conj)(p)

    report = verify_own_model(recurrence_alone, complex_loss, COMPLEX, cases=FEW)
    assert [mistake.name for mistake in report.mistakes] == ["conjugate-missing"], str(report)
    assert report.mistakes[0].details["line"] == "s = factor * s + B @ x_t"


def scanned(p: Any, xp: Any) -> Any:
    def step(h: Any, x_t: Any) -> Any:
        return xp.tanh(p["W"] @ h + x_t), None

    if xp is not np:
        return xp.sum(lax.scan(step, xp.zeros(3), X)[0])
    h = np.zeros(3)
    for x_t in X:
        h, _ = step(h, x_t)
    return np.sum(h)


def scanned_gradients(transposed: bool) -> Callable[[Any], dict[str, Any]]:
    def gradients(p: Any) -> dict[str, Any]:
        h, W = [np.zeros(3)], p["W"]
        for x_t in X:
            h.append(np.tanh(W @ h[-1] + x_t))
        d, g = np.ones(3), np.zeros((3, 3))
        for t in reversed(range(len(X))):
            a = d * (1 - h[t + 1] ** 2)
            g += np.outer(a, h[t])
            d = (W.T if transposed else W) @ a
        return {"W": g}

    return gradients


@pytest.mark.rest
def test_a_mistake_in_a_scan_is_named_as_in_a_loop() -> None:
    params = {"W": 0.5 * RNG.normal(size=(3, 3))}
    assert verify_own_model(scanned_gradients(True), scanned, params, cases=FEW)
    report = verify_own_model(scanned_gradients(False), scanned, params, cases=FEW)
    names = [mistake.name for mistake in report.mistakes]
    assert names == ["untransposed-recurrent-weight"], str(report)
    assert report.mistakes[0].details["line"] == 'return xp.tanh(p["W"] @ h + x_t), None'


@pytest.mark.table(7)
@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(lambda p, xp: xp.linalg.slogdet(p["A"])[1], marks=pytest.mark.slow),
        lambda p, xp: (
            xp.sum(xp.interp(p["A"][0], np.linspace(-3, 3, 7), np.arange(7.0) ** 2))
            + xp.sum(p["A"] ** 2)
        ),
        lambda p, xp: p["A"][xp.argmax(p["A"][0]), 1] ** 2 + xp.sum(p["A"] ** 2),
        lambda p, xp: xp.sum(xp.abs(xp.fft.fft(p["A"])) ** 2),
        pytest.param(
            lambda p, xp: xp.sum(xp.linalg.cholesky(p["A"] @ p["A"].T + np.eye(3))),
            marks=pytest.mark.slow,
        ),
        lambda p, xp: xp.sum(p["A"] * (p["A"] * 4).astype(int)),
        lambda p, xp: 1.0 + xp.max(p["A"]) + xp.sum(xp.sin(p["A"])),
    ],
    ids=["slogdet", "interp", "argmax", "fft", "cholesky", "integers", "maximum"],
)
def test_autodiff_agrees_with_itself(loss: Callable[[Any, Any], Any]) -> None:
    report = judge_autodiff(loss, A=RNG.normal(size=(3, 3)))
    assert report.verdict is Verdict.AGREES, str(report)


def test_parameters_reach_the_loss_in_the_order_given() -> None:
    def loss(p: Any, xp: Any) -> Any:
        h = X[0]
        for name in p:
            h = xp.tanh(p[name] @ h)
        return xp.sum(h)

    params = {name: RNG.normal(size=(3, 3)) for name in "zam"}
    report = judge_autodiff(loss, **params)
    assert report.verdict is Verdict.AGREES, str(report)
    assert [*report.parameters] == ["z", "a", "m"]


class Tensor:
    """A scalar of another library, such as a tensor that is in a graph of its own."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


def test_a_loss_in_another_library_is_refused_in_one_sentence() -> None:
    gradients = lambda p: {"a": 2 * p["a"]}  # noqa: E731
    report = verify_own_model(gradients, lambda p, xp: Tensor(p["a"]), {"a": np.ones(2)})
    assert report.verdict is Verdict.INCONCLUSIVE
    note = report.notes[-1]
    assert note.startswith("loss(params, numpy) raised RuntimeError: Can't call numpy()")
    assert "test_own_operations.py" in note


def test_a_loss_that_jax_cannot_differentiate_is_refused_in_one_sentence() -> None:
    def loss(p: Any, xp: Any) -> Any:
        if xp is np:
            return np.sum(8 * p["a"])
        doubled = lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, 2 * s[1]), (0, p["a"]))
        return xp.sum(doubled[1])

    report = verify_own_model(lambda p: {"a": np.full(2, 8.0)}, loss, {"a": np.ones(2)})
    assert report.verdict is Verdict.INCONCLUSIVE
    note = report.notes[-1]
    assert note.startswith("jax.grad of the loss raised ValueError")


@pytest.mark.rest
def test_a_wrong_gradient_of_a_product_of_three_matrices_ends_in_a_verdict() -> None:
    rng = np.random.default_rng(0)
    sizes = {"a": (3, 4), "b": (4, 5), "c": (5, 3)}
    params = {name: rng.normal(size=size) for name, size in sizes.items()}

    def loss(p: Any, xp: Any) -> Any:
        return xp.einsum("ij,jk,ki->", p["a"], p["b"], p["c"])

    def gradients(p: Any) -> Any:
        a, b, c = (p[name] for name in "abc")
        return {"a": (b @ c).T, "b": (c @ a).T, "c": (a @ b).T * (1 + 1e-5)}

    report = verify_own_model(gradients, loss, params)
    assert report.verdict is Verdict.DISAGREES


def by_exponential(z: Any) -> Any:
    return 1 / (1 + jnp.exp(-z))


@pytest.mark.table(2)
@pytest.mark.parametrize("sigmoid", [jax.nn.sigmoid, by_exponential])
def test_a_logarithm_of_a_saturated_sigmoid_agrees_by_a_sigmoid_of_another_formula(
    sigmoid: Any,
) -> None:
    x = np.linspace(-1, 1, 6)[:, None]

    def measure(y: float, s: Any, p: Any) -> Any:
        z = s(jnp.asarray(x) @ p["w"] + p["b"])
        return -jnp.mean(y * jnp.log(z) + (1 - y) * jnp.log(1 - z))

    def gradients(p: Any) -> dict[str, Any]:
        with jax.enable_x64(False):
            given = {name: jnp.asarray(value, jnp.float32) for name, value in p.items()}
            found = jax.grad(partial(measure, 1.0, lambda z: (1 + jnp.tanh(z / 2)) / 2))(given)
            return {name: np.asarray(value) for name, value in found.items()}

    closed = {"w": np.array([[0.7]]), "b": np.array([-10.5])}
    report = verify_own_model(gradients, partial(measure, 1.0, sigmoid), closed, cases=FEW)
    assert report.verdict is Verdict.AGREES


@pytest.mark.rest
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_saturated_sigmoid_agrees_by_the_slope_that_is_computed_from_its_value(
    dtype: type[Any],
) -> None:
    weights = np.array([3.0, 6.0, 12.0])

    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(weights / (1 + xp.exp(-p["a"])))

    def gradients(p: Any) -> dict[str, Any]:
        z = 1 / (1 + np.exp(-p["a"].astype(dtype)))
        return {"a": weights.astype(dtype) * z * (1 - z)}

    saturated = {"a": np.array([15.9, 16.0, 16.1]) * np.finfo(dtype).nmant / 23}
    assert verify_own_model(gradients, loss, saturated, cases=FEW).verdict is Verdict.AGREES
