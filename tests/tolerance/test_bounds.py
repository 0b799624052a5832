"""The bound is a bound, it is not vacuous, and its assumptions are measured."""

from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bptt_verifier.judge.builtin import AUTODIFF, make_derivation
from bptt_verifier.problems.draws import draw, with_values
from bptt_verifier.problems.problem import Problem, Sizes
from bptt_verifier.reference.autodiff import derive_bound, name_arrays, reference
from bptt_verifier.strategies import problems
from bptt_verifier.tolerance.bounds import ELEMENTARY, Bounds, bounds
from bptt_verifier.tolerance.comparison import Verdict, compare, compare_all
from jax_reference import rnn as autodiff
from manual_bptt import jacobian_sum, rnn, rtrl
from manual_bptt.activations import ACTIVATIONS, Activation

LONGDOUBLE = pytest.mark.skipif(
    np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps,
    reason="longdouble is no longer than float64 on this platform",
)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)


def bounds_of(problem: Problem, dtype: type) -> Bounds:
    return bounds(
        problem.params, problem.x, problem.y, reference(problem),
        dtype=dtype, loss=problem.loss, **problem.option,
    )  # fmt: skip


def cast(problem: Problem, dtype: type) -> Problem:
    return problem.map_arrays(lambda values: values.astype(dtype))


@LONGDOUBLE
@DTYPES
@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_elementary_functions_are_as_accurate_as_the_bound_assumes(name: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    a = np.concatenate([rng.normal(size=200_000) * s for s in (1e-3, 0.1, 1, 4, 10)]).astype(dtype)
    wide = a.astype(np.longdouble)
    exact = np.tanh(wide) if name == "tanh" else 1 / (1 + np.exp(-wide))
    by_xla = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}[name]
    with jax.enable_x64(True):
        computed = {"numpy": ACTIVATIONS[name].function(a), "xla": np.asarray(jax.jit(by_xla)(a))}
    u = np.finfo(dtype).eps / 2
    for library, values in computed.items():
        assert values.dtype == dtype
        worst = float(np.max(np.abs(values - exact) / np.abs(exact)) / u)
        assert worst <= ELEMENTARY, f"{library} {name}: {worst:.1f} u"


@pytest.mark.table(3)
@LONGDOUBLE
@DTYPES
@pytest.mark.parametrize("module", [rnn, jacobian_sum, rtrl], ids=lambda m: m.__name__)
@given(data=st.data())
def test_no_derivation_is_further_from_the_truth_than_its_bound(
    module: object, dtype: type, data: st.DataObject
) -> None:
    # The truth is the same derivation in longdouble, 2048 times finer than float64, with a bound
    # of its own that is as much smaller.
    problem = data.draw(problems(dtype))
    found = make_derivation(module)(problem)
    truth = make_derivation(module)(cast(problem, np.longdouble))
    bound, fine = bounds_of(problem, dtype), bounds_of(problem, np.longdouble)
    for name, value in found.items():
        if value is not None:
            error = np.abs(value - truth[name])
            assert (error <= getattr(bound, name) + getattr(fine, name)).all(), name


@LONGDOUBLE
@given(problem=problems())
def test_autodiff_is_no_further_from_the_truth_than_its_bound(problem: Problem) -> None:
    exact = make_derivation(rnn)(cast(problem, np.longdouble))
    bound, fine = bounds_of(problem, np.float64), bounds_of(problem, np.longdouble)
    found = name_arrays(reference(problem))
    for name, value in exact.items():
        if value is not None:
            error = np.abs(found[name] - value)
            assert (error <= getattr(bound, name) + getattr(fine, name)).all(), name


@pytest.mark.parametrize(
    ("dtype", "relative", "share"), [(np.float64, 1e-9, 0.98), (np.float32, 1e-3, 0.85)]
)
def test_a_small_error_in_a_single_entry_is_seen_on_nearly_all_problems(
    dtype: type, relative: float, share: float
) -> None:
    seen = compared = 0
    for case in range(100):
        problem = draw(5, case, dtype)
        truth, found = reference(problem), make_derivation(rnn)(problem)
        bound = derive_bound(problem, truth)
        for name in ("U", "W", "V", "adjoints"):
            wrong = found[name].copy()
            largest = np.unravel_index(np.argmax(np.abs(wrong)), wrong.shape)
            if wrong[largest] == 0:
                continue
            wrong[largest] *= 1 + relative
            verdict = compare(name, wrong, getattr(truth, name), getattr(bound, name)).verdict
            planted = relative * abs(getattr(truth, name)[largest])
            if planted > 3 * getattr(bound, name)[largest]:
                assert verdict is Verdict.DISAGREES, (case, name)
            seen += verdict is Verdict.DISAGREES
            compared += 1
    assert compared > 300
    assert seen >= share * compared


def test_at_the_kink_of_relu_neither_convention_is_called_wrong() -> None:
    sizes = Sizes(T=3, B=1, D=2, H=3, O=2)
    problem = with_values(np.random.default_rng(1), sizes, option="relu")
    relu = ACTIVATIONS["relu"]
    other = Activation(relu.function, lambda a, h: (a >= 0).astype(a.dtype))

    def verdict_on_adjoints(problem: Problem, activation: Activation) -> Verdict:
        params, x, y = problem.params, problem.x, problem.y
        found = rnn.adjoints(params, x, y, activation=activation, loss=problem.loss)
        (compared,) = AUTODIFF.within_bound(problem)({"adjoints": found})
        return compared.verdict

    at_the_kink = problem._replace(x=np.zeros_like(problem.x))
    assert rnn.adjoints(*at_the_kink[1:4], activation=other).any()
    assert verdict_on_adjoints(at_the_kink, relu) is Verdict.INCONCLUSIVE
    assert verdict_on_adjoints(at_the_kink, other) is Verdict.INCONCLUSIVE
    assert verdict_on_adjoints(problem, relu) is Verdict.AGREES


@pytest.mark.parametrize(
    ("yours", "reference", "allowed", "verdict"),
    [
        ([1.0, 2.0], [1.0, 2.0], [1e-9, 1e-9], Verdict.AGREES),
        ([1.0, 2.1], [1.0, 2.0], [1e-9, 1e-9], Verdict.DISAGREES),
        ([0.0, 0.0], [0.0, 0.0], [1e-9, 1e-9], Verdict.INCONCLUSIVE),  # nothing could have shown
        ([0.0, 1.0], [0.0, 0.0], [1e-9, 1e-9], Verdict.DISAGREES),
        ([np.nan, 2.0], [np.nan, 2.0], [1e-9, 1e-9], Verdict.INCONCLUSIVE),
        ([np.nan, 2.0], [1.0, 2.0], [1e-9, 1e-9], Verdict.DISAGREES),
        ([np.inf, 2.0], [1.0, 2.0], [1e-9, 1e-9], Verdict.DISAGREES),
        ([np.inf, 2.0], [np.inf, 2.0], [1e-9, 1e-9], Verdict.INCONCLUSIVE),
        ([1.0, 2.5], [1.0, 2.0], [1.0, 1.0], Verdict.INCONCLUSIVE),  # bound as large as the value
        ([1.0, 2.0], [1.0, 2.0], [np.inf, 1e-9], Verdict.INCONCLUSIVE),
        ([1.0, 2.1], [1.0, 2.0], [0.0, 0.0], Verdict.DISAGREES),
    ],
)
def test_the_verdict_on_two_arrays(
    yours: list[float], reference: list[float], allowed: list[float], verdict: Verdict
) -> None:
    compared = compare("U", np.array(yours), np.array(reference), np.array(allowed))
    assert compared.verdict is verdict


def test_results_of_the_wrong_shape_are_not_compared() -> None:
    with pytest.raises(ValueError, match=r"U: expected shape \(2, 3\), found \(3, 2\)"):
        compare("U", np.ones((3, 2)), np.ones((2, 3)), np.ones((2, 3)))


def test_a_bound_that_overflows_is_infinite_and_decides_nothing() -> None:
    problem = with_values(np.random.default_rng(0), Sizes(4, 1, 2, 2, 1), option="identity")
    huge = problem._replace(params=problem.params._replace(W=1e200 * problem.params.W))
    with np.errstate(over="ignore", invalid="ignore"):
        compared = AUTODIFF.within_bound(huge)(make_derivation(rnn)(huge))
    assert {c.verdict for c in compared if c.name in "UWVh0"} == {Verdict.INCONCLUSIVE}


def equal_entries(
    sizes: Sizes, value: float, dtype: type, *, W: float | None = None, y: float = 0.0
) -> Problem:
    """Every number the same: roundings do not cancel, as they do with random signs."""
    T, B, D, H, O = sizes
    params = rnn.Params(
        np.full((H, D), value, dtype),
        np.full((H, H), value if W is None else W, dtype),
        np.full((O, H), value, dtype),
    )
    x, target = np.full((T, B, D), value, dtype), np.full((B, O), y, dtype)
    return Problem("rnn", params, x, target, {}, {"activation": "identity"}, "half_sse")


# What underflows on the way to ∂L/∂U and ∂L/∂W is more than the roundings of what is left.
UNDERFLOWING = Problem(
    "rnn", rnn.Params(*(np.full((1, 1), w, np.float32) for w in (0.7, 0.3, 1e-15))),
    np.full((2, 1, 1), 1.3e-10, np.float32), np.full((1, 1), 1e-15, np.float32),
    {}, {"activation": "identity"}, "half_sse",
)  # fmt: skip


def worst_of(module: ModuleType, problem: Problem) -> float:
    """The largest error over bound of any gradient, with the unpadded twin as the reference."""
    wide = cast(problem, np.float64)
    truth = autodiff.derivatives(wide.params, wide.x, wide.y, **wide.simple_options)
    states = truth.states._replace(
        **{name: np.asarray(getattr(truth.states, name)) for name in ("prediction", "a", "h")}
    )
    truth = truth._replace(states=states)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        found = make_derivation(module)(problem)
    compared = compare_all(found, name_arrays(truth), name_arrays(derive_bound(problem, truth)))
    return max(comparison.error for comparison in compared)


@pytest.mark.table(5)
@pytest.mark.parametrize("module", [rnn, jacobian_sum, rtrl], ids=lambda m: m.__name__)
@pytest.mark.parametrize(
    "problem",
    [
        equal_entries(Sizes(2, 60, 1, 60, 1), 0.1, np.float32),  # long sums over B H
        equal_entries(Sizes(2, 1, 1, 60, 60), 0.1, np.float32),  # and over O H
        equal_entries(Sizes(3, 1, 3, 1, 1), 1.0, np.float32, W=1e-23, y=1e18),  # W² underflows
        equal_entries(Sizes(3, 1, 3, 1, 1), 1.0, np.float64, W=1e-170, y=1e150),
        equal_entries(Sizes(3, 1, 3, 1, 1), 1.0, np.float32, y=1e25),  # the loss overflows
        UNDERFLOWING,
    ],
    ids=[
        "over batch and units",
        "over outputs and units",
        "underflow",
        "in float64",
        "overflow",
        "underflow on the way",
    ],
)
def test_the_bound_holds_where_roundings_add_up_and_at_both_ends_of_the_format(
    problem: Problem, module: ModuleType
) -> None:
    assert worst_of(module, problem) <= 1


def test_with_too_few_terms_the_bound_on_long_sums_would_not_hold() -> None:
    problem = equal_entries(Sizes(2, 60, 1, 60, 1), 0.1, np.float32)
    assert worst_of(rtrl, problem) > 0.01  # the case is one that strains the bound
