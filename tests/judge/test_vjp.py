"""Verdicts on kernels: vector-Jacobian products in the precision they run in."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import DerivationError, Verdict, assert_vjp_verified, verify_vjp
from bptt_verifier.adapters import Kernel, from_jax
from tests.support.kernels import backward_of, draw_rnn, rnn, rnn_in_numpy, within

BFLOAT16 = jnp.bfloat16
PRECISIONS = {
    "bfloat16 with sums in float32": (BFLOAT16, np.float32),
    "float64": (np.float64, np.float64),
    "float32": (np.float32, np.float32),
    "float16 with sums in float32": (np.float16, np.float32),
    "bfloat16 throughout": (BFLOAT16, BFLOAT16),
}


def one_per_cent(number: int) -> Any:
    """Multiply one of the gradients by 1.01."""
    return lambda found: [g * (1.01 if k == number else 1) for k, g in enumerate(found)]


@pytest.mark.table(5)
@pytest.mark.parametrize(("dtype", "inner"), PRECISIONS.values(), ids=PRECISIONS)
def test_a_right_kernel_agrees_in_the_precision_it_runs_in(dtype: Any, inner: Any) -> None:
    report = verify_vjp(backward_of(within(rnn, inner)), rnn, draw_rnn(dtype), cases=2)
    assert report.verdict is Verdict.AGREES, report


@pytest.mark.table(4)
@pytest.mark.parametrize("precision", [*PRECISIONS][:4])
def test_one_per_cent_is_told_from_rounding(precision: str) -> None:
    dtype, inner = PRECISIONS[precision]
    backward = backward_of(within(rnn, inner), one_per_cent(2))
    report = verify_vjp(backward, rnn, draw_rnn(dtype), cases=1)
    verdicts = {name: str(result.verdict) for name, result in report.parameters.items()}
    assert verdicts == {"x": "agrees", "U": "agrees", "W": "disagrees"}, report


def test_the_stated_function_may_be_plain_numpy() -> None:
    arguments = draw_rnn(np.float32, T=2)
    assert verify_vjp(backward_of(rnn), rnn_in_numpy, arguments, cases=1)
    with pytest.raises(DerivationError, match="∂L/∂x"):
        assert_vjp_verified(backward_of(rnn, one_per_cent(0)), rnn_in_numpy, arguments, cases=1)


@pytest.mark.rest
def test_a_branch_that_a_neighbour_takes_is_followed_there() -> None:
    def forward(x: Any) -> Any:
        return x * 2 if x[0] > 1 else x * 3

    def backward(arguments: Any, cotangents: Any) -> Any:
        return (cotangents * (2 if arguments[0][0] > 1 else 3),)

    assert verify_vjp(backward, forward, (np.array([1.0, 2.0]),), cases=1)


def test_arguments_are_any_pytree_and_integers_in_it_are_data() -> None:
    def forward(cell: Any, tokens: Any) -> Any:
        return {"rows": cell["E"][tokens] * cell["scales"][0]}

    def backward(arguments: Any, cotangents: Any) -> Any:
        (cell, tokens), d = arguments, cotangents["rows"]
        assert tokens.dtype == np.int64
        dE = np.zeros_like(cell["E"])
        np.add.at(dE, tokens, d * cell["scales"][0])
        return {"E": dE, "scales": [np.sum(d * cell["E"][tokens])]}, None

    rng = np.random.default_rng(0)
    cell = {"E": rng.normal(size=(5, 3)), "scales": [np.array(0.5)]}
    report = verify_vjp(backward, forward, (cell, np.array([1, 3, 3])))
    assert report, report
    assert [*report.parameters] == ["cell.E", "cell.scales[0]"]


def test_several_settings_are_judged_each_in_its_sizes() -> None:
    settings = [draw_rnn(np.float64, T=1, B=2), draw_rnn(np.float64, T=2, B=1)]
    seen, right = [], backward_of(rnn)

    def backward(arguments: Any, cotangents: Any) -> Any:
        seen.append(arguments[0].shape)
        return right(arguments, cotangents)

    assert verify_vjp(backward, rnn, settings, cases=1)
    assert set(seen) == {(1, 2, 2), (2, 1, 2)}


def test_a_gradient_of_zeros_is_right_if_the_kernels_is_and_there_are_others() -> None:
    arguments = np.linspace(1, 2, 4), np.ones(3)
    zero = "∂L/∂y is zero, to rounding, in all cases, and yours must be, too."

    def double(x: Any, y: Any) -> Any:
        return 2 * x

    right = verify_vjp(lambda a, c: (2 * c, 0 * a[1]), double, arguments, cases=1)
    assert right
    assert zero in right.notes
    wrong = verify_vjp(lambda a, c: (2 * c, 1e-9 * a[1]), double, arguments, cases=1)
    assert wrong.verdict is Verdict.DISAGREES
    alone = verify_vjp(lambda a, c: (0 * c,), np.floor, (np.linspace(1, 2, 4),), cases=1)
    assert alone.verdict is Verdict.INCONCLUSIVE


def test_a_forward_pass_that_leaves_float64_is_refused_with_the_remedy() -> None:
    arguments = draw_rnn(np.float32)
    with pytest.raises(ValueError, match="leave out conversions and dtypes"):
        verify_vjp(backward_of(rnn), within(rnn, np.float32), arguments)


BREACHES = {
    "too few": ("wrong-shape", lambda a, c: (a[0], a[1])),
    "another shape": ("wrong-shape", lambda a, c: (a[0], a[1], a[2][0])),
    "no array": ("wrong-shape", lambda a, c: (a[0], a[1], "W")),
    "NaN": ("not-finite", lambda a, c: (a[0] * np.nan, a[1], a[2])),
    "raised": ("raised", lambda a, c: 1 // 0),
    "modified": ("inputs-modified", lambda a, c: a[0].fill(0) or a),
}


@pytest.mark.parametrize(("name", "backward"), BREACHES.values(), ids=BREACHES)
def test_a_breach_of_the_contract_has_a_name(name: str, backward: Any) -> None:
    report = verify_vjp(backward, rnn, draw_rnn(np.float64), cases=1)
    assert [mistake.name for mistake in report.mistakes] == [name]


@pytest.mark.parametrize(
    ("size", "waves", "verdict"),
    [(2e-5, 60, "agrees"), (2e-4, 60, "agrees"), (0.05, 200, "inconclusive"),
     (0.05, 20, "disagrees")],
)  # fmt: skip
def test_a_smooth_error_that_scatters_further_away_is_rounding_if_it_is_small(
    size: float, waves: float, verdict: str
) -> None:
    """As the approximate functions of graphics processors err; more than those is not decided."""

    def backward(arguments: Any, d: Any) -> Any:
        x = arguments[0].astype(np.float64)
        return ((d * np.cos(x) * (1 + size * np.cos(waves * x))).astype(np.float32),)

    x = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    assert str(verify_vjp(backward, jnp.sin, (x,), cases=1).verdict) == verdict


def test_a_gradient_beyond_the_largest_number_of_its_format_is_left_out() -> None:
    def backward(arguments: Any, d: Any) -> Any:
        x = arguments[0].astype(np.float32)
        with np.errstate(over="ignore"):
            return ((3 * d.astype(np.float32) * x**2).astype(np.float16),)

    small = np.array([1, 2, 3], np.float16)
    report = verify_vjp(backward, lambda x: x**3, [(60 * small,), (small,)], cases=1)
    assert report.verdict is Verdict.AGREES, str(report)
    assert "Left out: the arguments given." in str(report)
    assert verify_vjp(backward, lambda x: x**3, (60 * small,), cases=1).verdict == "inconclusive"


def test_a_kernel_whose_format_overflows_inside_the_stated_function_is_left_out() -> None:
    def forward(x: Any) -> Any:
        return 1 - 1 / (1 + jnp.exp(-x))

    x = np.array([-12, -1, 2, 3], np.float16)
    report = verify_vjp(from_jax(jax.jit(forward)), forward, [(x,), (x[1:],)], cases=1)
    assert report.verdict is Verdict.AGREES, str(report)
    assert "Left out: the arguments given." in str(report)

    def backward(arguments: Any, d: Any) -> Any:
        return (np.where(arguments[0] < -11, np.nan, d),)

    (mistake,) = verify_vjp(backward, lambda x: 1 * x, (x,), cases=1).mistakes
    assert mistake.name == "not-finite"


def test_outputs_that_are_not_finite_are_another_forward_pass() -> None:
    x = np.linspace(1, 2, 5)
    kernel = Kernel(lambda a, d: (d * np.cos(a[0]),), lambda a: np.sin(a[0]) + 0 / (a[0] > 1.1))
    with np.errstate(all="ignore"):
        (mistake,) = verify_vjp(kernel, jnp.sin, (x,), cases=1).mistakes
    assert mistake.name == "forward-differs"


def test_an_output_of_the_name_of_an_argument_is_not_taken_for_its_gradient() -> None:
    def forward(h: Any) -> Any:
        return {"h": jnp.sin(h)}

    right = Kernel(lambda a, d: (d["h"] * np.cos(a[0]),), lambda a: {"h": np.sin(a[0])})
    wrong = right._replace(backward=lambda a, d: (d["h"] * np.sin(a[0]),))
    other = right._replace(values=lambda a: {"h": np.sin(a[0]), "c": a[0]})
    given = (np.linspace(1, 2, 4),)
    assert verify_vjp(right, forward, given, cases=1)
    assert verify_vjp(wrong, forward, given, cases=1).verdict is Verdict.DISAGREES
    (mistake,) = verify_vjp(other, forward, given, cases=1).mistakes
    assert mistake.name == "forward-differs"


def test_a_small_factor_hides_no_mistake() -> None:
    def backward(arguments: Any, d: Any) -> Any:
        return (np.where(np.arange(300) < 100, 0, d / 300).astype(BFLOAT16),)

    x = np.linspace(1, 2, 300).astype(BFLOAT16)
    assert verify_vjp(backward, jnp.mean, (x,), cases=1).verdict is Verdict.DISAGREES


def test_none_is_a_gradient_of_zeros() -> None:
    given = (np.linspace(1, 2, 3), np.ones(2))
    assert verify_vjp(lambda a, d: (d * np.cos(a[0]), None), lambda x, y: jnp.sin(x), given)

    def backward(arguments: Any, d: Any) -> Any:
        return None, np.array([(d * np.sin(arguments[0])).sum(), 0])

    (mistake,) = verify_vjp(backward, lambda x, y: jnp.sin(x) * y[0], given).mistakes
    assert mistake.name == "zero-gradient"


def test_a_point_at_which_the_exact_gradient_is_not_finite_decides_nothing() -> None:
    given = (np.array([-1.0, 2.0]),)
    report = verify_vjp(lambda a, d: (d / a[0],), jnp.log, given)
    assert report.verdict is Verdict.AGREES  # 1/x is finite where log is not
    report = verify_vjp(lambda a, d: (0.5 * d / a[0] ** 0.5,), jnp.sqrt, given)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "The exact gradient is not finite there" in str(report)


CANCELLING: dict[str, Any] = {
    "1 − σ": (jax.nn.sigmoid, BFLOAT16, 1, (40,), "agrees"),
    "1 − h²": (jnp.tanh, np.float16, 2, (40,), "agrees"),
    "e^-x beyond float16": (lambda x: 1 - 1 / (1 + jnp.exp(-x)), np.float16, 0, (400,), "agrees"),
    "p (g − Σ p g) alone": (lambda x: jax.nn.softmax(x, -1), BFLOAT16, 3, (2, 8), "agrees"),
}


@pytest.mark.table(2)
@pytest.mark.parametrize(
    ("function", "dtype", "seed", "shape", "verdict"), CANCELLING.values(), ids=CANCELLING
)
def test_digits_that_cancel_in_16_bits_are_no_mistake(
    function: Any, dtype: Any, seed: int, shape: Any, verdict: str
) -> None:
    x = np.clip(5 * np.random.default_rng(seed).normal(size=shape), -8, None).astype(dtype)
    report = verify_vjp(from_jax(jax.jit(function)), function, (x,), cases=1)
    assert str(report.verdict) == verdict, str(report)
    assert "rounding every operation of the stated function to 16 bits" in " ".join(report.notes)


def test_one_entry_that_rounding_explains_is_decided_at_further_cases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At one case, rounding every operation would explain it; the others are rounded once."""

    def backward(arguments: Any, d: Any) -> Any:
        found = d.astype(np.float64) / np.cosh(arguments[0].astype(np.float64)) ** 2
        found[0] *= 1.2
        return (found.astype(BFLOAT16),)

    x = np.array([1.4, *np.linspace(-1, 1, 20)]).astype(BFLOAT16)
    report = verify_vjp(backward, jnp.tanh, (x,), cases=1)
    assert report.verdict is Verdict.DISAGREES, str(report)
    monkeypatch.setattr("bptt_verifier.judge.kernel_path.FURTHER", 0)
    report = verify_vjp(backward, jnp.tanh, (x,), cases=1)
    assert report.verdict is Verdict.INCONCLUSIVE, str(report)


def round_every_operation(arguments: Any, d: Any) -> Any:
    """The pull-back of tanh, with every operation rounded to the dtype of its argument."""
    (x,) = arguments
    h = np.tanh(x)
    return (d * (1 - h * h),)


SATURATED: dict[str, tuple[float, Any]] = {
    "zero": (2.5, lambda slope: 0 * slope),
    "sign flipped": (2.7, lambda slope: -slope),
    "× 1.5": (2.5, lambda slope: 1.5 * slope),
    "× 1.2": (2.0, lambda slope: 1.2 * slope),
}


@pytest.mark.parametrize(("start", "change"), SATURATED.values(), ids=SATURATED)
def test_a_mistake_where_digits_cancel_is_not_right_if_the_others_show_no_rounding_inside(
    start: float, change: Any
) -> None:
    def backward(arguments: Any, d: Any) -> Any:
        x = arguments[0].astype(np.float32)
        slope = 1 - np.tanh(x) ** 2
        slope = np.where(np.abs(x) > start, change(slope), slope)
        return ((d.astype(np.float32) * slope).astype(BFLOAT16),)

    x = np.random.default_rng(0).uniform(-4, 4, 512).astype(BFLOAT16)
    report = verify_vjp(backward, jnp.tanh, (x,), cases=1)
    assert report.verdict is Verdict.INCONCLUSIVE, str(report)
    assert "shows no such rounding elsewhere" in str(report)


@pytest.mark.parametrize(("low", "high", "verdict"), [
    (4.5, 7, "inconclusive"), (-3, 7, "agrees"),
])  # fmt: skip
def test_a_kernel_that_rounds_every_operation_is_not_wrong_where_tanh_is_saturated(
    low: float, high: float, verdict: str
) -> None:
    x = np.random.default_rng(0).uniform(low, high, 200).astype(BFLOAT16)
    report = verify_vjp(round_every_operation, jnp.tanh, (x,), cases=1)
    assert str(report.verdict) == verdict, str(report)


def multiply(forward: Any, gain: float, x: Any) -> Any:
    """A function, times a number."""
    return gain * forward(x)


def scale(backward: Any, gain: float, arguments: Any, cotangents: Any) -> Any:
    """The pull-back of a function, times a number."""
    return backward(arguments, cotangents * cotangents.dtype.type(gain))


@pytest.mark.rest
@pytest.mark.table(2)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16], ids=["bfloat16", "float16"])
def test_a_formula_that_cancels_where_the_stated_one_does_not_is_not_called_wrong(
    dtype: Any,
) -> None:
    def forward(x: Any) -> Any:
        return 1 / (1 + jnp.exp(-x))

    def backward(arguments: Any, cotangents: Any) -> Any:
        (x,) = arguments
        one = np.ones((), x.dtype)
        with np.errstate(over="ignore"):
            s = (one / (one + np.exp(-x)).astype(x.dtype)).astype(x.dtype)
        return (cotangents * (s * (one - s)),)

    x = np.random.default_rng(9).uniform(-10, 10, 600).astype(dtype)
    report = verify_vjp(backward, forward, (x,), cases=1, seed=9)
    assert report.verdict is not Verdict.DISAGREES
    # Where all slopes are small, the terms are larger yet beside the largest gradient.
    saturated = np.random.default_rng(9).uniform(4, 8, 60).astype(dtype)
    for gain in (1, 10):
        scaled = partial(scale, backward, gain), partial(multiply, forward, gain)
        report = verify_vjp(*scaled, (saturated,), cases=1)
        assert report.verdict is not Verdict.DISAGREES, str(report)
    wrong = verify_vjp(
        lambda a, c: (np.where(np.abs(a[0]) < 1, 0, backward(a, c)[0]).astype(dtype),),
        forward, (x,), cases=1, seed=9,
    )  # fmt: skip
    assert wrong.verdict is Verdict.DISAGREES
