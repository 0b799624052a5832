"""Enclosures contain the exact values, are narrow, and would show a wrong gradient."""

import sys
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import ctx
from hypothesis import given
from hypothesis import strategies as st

import bptt_verifier
from bptt_verifier import judge, proofs
from bptt_verifier.judge import builtin
from bptt_verifier.judge.builtin import (
    CELL_DERIVATIONS,
    DERIVATIONS,
    make_derivation,
    verify_builtin,
)
from bptt_verifier.judge.certified import (
    CERTIFIED,
    COMPILED_CELL_DERIVATIONS,
    COMPILED_DERIVATIONS,
    SMALL,
)
from bptt_verifier.problems.draws import draw, draw_with_options, with_values
from bptt_verifier.problems.problem import Problem, Sizes
from bptt_verifier.proofs import extras
from bptt_verifier.proofs.enclosures import (
    Undecided,
    ball_of,
    certify,
    exponent,
    fraction,
    nearest,
    ulp,
)
from bptt_verifier.proofs.run import Inconsistent, run_module
from bptt_verifier.reference import complex_step
from bptt_verifier.strategies import problems, sizes
from bptt_verifier.tolerance.bounds import ELEMENTARY
from bptt_verifier.tolerance.comparison import Verdict
from jax_reference.padded import Capacity
from manual_bptt import rnn
from manual_bptt.activations import ACTIVATIONS
from tests.support.planting import GATED_MISTAKES, MISTAKES, Mistake, planted
from tests.support.profiles import deep

TINY = sizes(Capacity(T=3, B=2, D=2, H=2, O=2))
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)


def test_a_derivative_that_is_known_as_a_fraction_lies_in_its_interval() -> None:
    # L = ½ (v u x − y)², so that ∂L/∂u = (v u x − y) v x.
    u, v, x, y = 0.1, 0.7, 1 / 3, 0.9
    params = rnn.Params(np.array([[u]]), np.array([[5.0]]), np.array([[v]]))
    at = np.array([[[x]]]), np.array([[y]])
    exact = certify(params, *at, activation="identity", loss="half_sse")
    U, V, X, Y = (Fraction(value) for value in (u, v, x, y))
    known = {"U": (V * U * X - Y) * V * X, "V": (V * U * X - Y) * U * X, "W": Fraction(0)}
    for name, value in known.items():
        assert exact[name].lower[0, 0] <= value <= exact[name].upper[0, 0]
        assert exact[name].nearest[0, 0] == float(value)
        assert exact[name].errors_in_ulps(np.array([[float(value)]]))[0, 0] <= 0.5
    assert exact["loss"].nearest == float((V * U * X - Y) ** 2 / 2)


@pytest.mark.table(2)
@DTYPES
@given(data=st.data())
def test_every_interval_is_narrow_and_no_derivation_is_outside_its_bound(
    dtype: type, data: st.DataObject
) -> None:
    problem = data.draw(problems(dtype, sizes=TINY))
    exact = certify(problem.params, problem.x, problem.y, **problem.simple_options)
    for enclosure in exact.values():
        width = enclosure.upper - enclosure.lower
        assert np.all(width <= enclosure.ulps / 50)
        assert np.all(width >= 0)
    for derivation in DERIVATIONS.values():
        for comparison in CERTIFIED.within_bound(problem)(derivation(problem)):
            assert comparison.error <= 1, comparison


@given(problem=problems(sizes=TINY, activations=("tanh", "sigmoid", "identity")))
def test_complex_steps_are_within_the_bound_of_complex_arithmetic(problem: Problem) -> None:
    # A complex product is off by at most √2 γ₂ < 3 u, where a real one is by u, and the bound is
    # proportional to the roundoff.
    found = complex_step.differentiate(problem)
    there = {name: w for name, w in found.items() if getattr(problem.params, name, w) is not None}
    compared = CERTIFIED.within_bound(problem)(there)
    assert {comparison.name for comparison in compared} >= {"U", "W", "V", "x", "adjoints"}
    assert max(comparison.error for comparison in compared) <= 3


@pytest.mark.rest
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_the_cells_with_all_their_options_are_enclosed(cell: str) -> None:
    # Each loss and kind of outputs costs a compilation of several seconds.
    seen, enough = set(), 12 if deep() else 1
    for case in range(120):
        problem = draw_with_options(1, case, np.float64, SMALL)
        kind = problem.loss, problem.outputs
        if problem.cell == cell and kind not in seen and len(seen) < enough:
            seen.add(kind)
            found = CELL_DERIVATIONS[cell.upper()](problem)
            for comparison in CERTIFIED.within_measured_error(problem)(found):
                assert comparison.error <= 1, comparison
    assert len(seen) >= (8 if deep() else 1)


@given(
    st.fractions().filter(lambda f: abs(f) < 2**100),
    st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_a_fraction_is_rounded_to_the_nearest_number(value: Fraction, dtype: type) -> None:
    found = nearest(value, dtype)
    if np.isinf(found):
        assert abs(value) > float(np.finfo(dtype).max)
        return
    assert type(found) is dtype
    below, above = (np.nextafter(found, dtype(to)) for to in (-np.inf, np.inf))
    distances = [abs(fraction(n) - value) for n in (found, below, above) if np.isfinite(n)]
    assert min(distances) == distances[0]
    if dtype is np.float64:
        assert found == float(value)


@given(st.floats(allow_nan=False, allow_infinity=False, width=32), st.sampled_from([32, 64]))
def test_an_ulp_is_what_numpy_calls_spacing(value: float, bits: int) -> None:
    dtype = {32: np.float32, 64: np.float64}[bits]
    assert float(ulp(Fraction(value), dtype)) == float(np.spacing(abs(dtype(value))))
    if value:
        assert (
            2.0 ** exponent(Fraction(value)) <= abs(value) < 2.0 ** (exponent(Fraction(value)) + 1)
        )


def test_errors_are_counted_in_ulps_and_what_is_not_finite_is_infinitely_far() -> None:
    params = rnn.Params(np.ones((1, 1)), np.ones((1, 1)), np.ones((1, 1)))
    exact = certify(
        params, np.ones((1, 1, 1)), np.zeros((1, 1)), activation="identity", loss="half_sse"
    )["V"]
    assert exact.nearest[0, 0] == 1
    assert exact.errors_in_ulps(np.array([[1 + 3 * 2.0**-52]]))[0, 0] == pytest.approx(3)
    assert np.isinf(exact.errors_in_ulps(np.array([[np.nan]]))[0, 0])
    with pytest.raises(ValueError, match=r"values: expected shape \(1, 1\), found \(2,\)"):
        exact.farthest(np.ones(2))


def kinked(second: float) -> tuple[Any, ...]:
    """ŷ − y is the difference of two equal tanh, computed from balls, where `second` is 1."""
    params = rnn.Params(np.array([[1.0], [second]]), np.eye(2), np.array([[1.0, -1.0]]))
    return params, np.array([[[0.3]]]), np.array([[0.0]])


def test_at_a_kink_that_no_precision_resolves_the_answer_is_refused() -> None:
    with pytest.raises(Undecided, match="cannot be told from a kink"):
        certify(*kinked(1.0), loss="mae", names=("V",))
    assert certify(*kinked(1.0 + 2.0**-52), loss="mae", names=("V",))["V"].lower.all()


def test_exactly_at_a_kink_the_convention_of_both_witnesses_is_taken() -> None:
    problem = draw(0, 3, largest=SMALL)
    at = problem.params._replace(b=None), np.zeros_like(problem.x), problem.y
    found = certify(*at, activation="relu", names=("adjoints", "U"))
    assert not found["adjoints"].upper.any()
    assert not found["U"].lower.any()


def test_precision_is_raised_where_cancellation_asks_for_it() -> None:
    tiny = 2.0**-300
    params = rnn.Params(np.array([[tiny]]), np.zeros((1, 1)), np.array([[1.0]]))
    exact = certify(params, np.array([[[1.0]]]), np.array([[0.0]]), loss="half_sse")
    assert exact["U"].nearest[0, 0] == tiny  # tanh(z) tanh′(z), to the first order z


def test_what_python_flint_had_before_it_has_afterwards() -> None:
    before = ctx.prec, ctx.cap
    certify(*kinked(0.5), names=("V",))
    with pytest.raises(Undecided):
        certify(*kinked(1.0), loss="mae", names=("V",))
    assert (ctx.prec, ctx.cap) == before


@pytest.mark.parametrize(
    ("options", "exception", "sentence"),
    [
        ({"model": "cnn"}, ValueError, "model: expected one of rnn, lstm, gru, found 'cnn'"),
        ({"activation": "cos"}, ValueError, "activation: expected one of tanh"),
        ({"reset": "never"}, ValueError, "reset: expected one of after, before"),
        ({"loss": "hinge"}, ValueError, "loss: expected one of mse"),
        ({"truncation": 0}, ValueError, "truncation: expected at least 1, found 0"),
        ({"h0": np.ones((3, 2))}, ValueError, r"h0: expected shape \(B, H\)"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(
    options: dict[str, Any], exception: type[Exception], sentence: str
) -> None:
    with pytest.raises(exception, match=sentence):
        certify(*kinked(0.5), **options)


@DTYPES
def test_elementary_functions_are_within_what_the_bound_assumes_of_balls(dtype: type) -> None:
    rng = np.random.default_rng(0)
    a = np.concatenate([rng.normal(size=400) * s for s in (1e-3, 0.1, 1, 4, 10)]).astype(dtype)
    exact = {"tanh": lambda z: z.tanh(), "sigmoid": lambda z: 1 / (1 + (-z).exp())}
    by_xla = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}
    for name, function in exact.items():
        with jax.enable_x64(True):
            found = [ACTIVATIONS[name].function(a), np.asarray(jax.jit(by_xla[name])(a))]
        with ctx.workprec(160):
            truth = [function(ball_of(z)) for z in a]
            for values in found:
                errors = [
                    float(abs(ball_of(v) - z) / abs(z)) for v, z in zip(values, truth, strict=True)
                ]
                assert max(errors) <= ELEMENTARY * np.finfo(dtype).eps / 2


def test_built_in_derivations_agree_with_certified_truth_and_a_wrong_one_does_not() -> None:
    wrong = {"wrong": lambda p: (f := make_derivation(rnn)(p)) | {"W": f["W"] * (1 + 1e-11)}}
    report = verify_builtin(
        12, derivations=DERIVATIONS | wrong, cell_derivations={}, yardstick=CERTIFIED
    )
    assert {row.verdict for row in report.rows if row.derivation != "wrong"} == {Verdict.AGREES}
    assert [row.gradient for row in report.rows if row.verdict is Verdict.DISAGREES] == ["W"]
    assert report.to_dict()["rows"][0]["worst"]["certified"]


@pytest.mark.rest
@pytest.mark.parametrize(("name", "cell"), [("LSTM, jitted", "lstm"), ("GRU, jitted", "gru")])
def test_a_compiled_cell_runs_where_it_has_the_options_and_agrees(name: str, cell: str) -> None:
    derivation = COMPILED_CELL_DERIVATIONS[name]
    problem = with_values(np.random.default_rng(0), Sizes(2, 2, 2, 2, 2), cell=cell, bias=True)
    compared = CERTIFIED.within_measured_error(problem)(derivation(problem))
    assert {comparison.verdict for comparison in compared} == {Verdict.AGREES}
    assert {comparison.name for comparison in compared} >= {"loss", "U", "W", "V", "b", "c"}
    for change in ({"truncation": 1}, {"lengths": np.array([2, 1])}, {"outputs": "every"}):
        assert derivation(problem._replace(**change)) == {}


def test_the_compiled_rnn_runs_at_few_sizes_and_agrees() -> None:
    (derivation,) = COMPILED_DERIVATIONS.values()
    problem = with_values(np.random.default_rng(0), Sizes(T=3, B=2, D=3, H=3, O=2))
    compared = CERTIFIED.within_bound(problem)(derivation(problem))
    assert {comparison.verdict for comparison in compared} == {Verdict.AGREES}
    assert derivation(with_values(np.random.default_rng(0), Sizes(3, 1, 3, 3, 2))) == {}


def refuted_by_enclosures(mistake: Mistake, module: Any, tries: int = 300) -> bool:
    """Whether the module is inconsistent, or outside its bound, at one of so many problems."""
    gated = mistake.suspect in ("lstm", "gru")
    for case in range(tries):
        problem = draw_with_options(2, case, np.float64, SMALL) if gated else draw(2, case)
        if gated and problem.cell != mistake.suspect:
            continue
        try:
            with np.errstate(all="ignore"):
                found = run_module(module, problem)
        except Inconsistent:
            return True
        if not gated and problem.sizes.T * problem.sizes.B > 12:
            continue
        comparer_of = CERTIFIED.within_measured_error if gated else CERTIFIED.within_bound
        if any(comparison.error > 1 for comparison in comparer_of(problem)(found)):
            return True
    return False


# Each gated cell and loss costs a compilation: a few of them here, all of them in the deep profile.
TRIED = MISTAKES + GATED_MISTAKES if deep() else MISTAKES[::2] + GATED_MISTAKES[::24]


@pytest.mark.table(9)
@pytest.mark.parametrize("mistake", TRIED, ids=lambda m: f"{m.suspect}: {m.name}")
def test_a_planted_mistake_is_outside_its_bound(mistake: Mistake, tmp_path: Any) -> None:
    assert refuted_by_enclosures(mistake, planted(mistake, tmp_path))


def test_the_package_offers_certify_and_nothing_else_that_it_has_not() -> None:
    assert bptt_verifier.certify is certify
    with pytest.raises(AttributeError, match="has no attribute 'certified_nonsense'"):
        bptt_verifier.certified_nonsense  # noqa: B018


@pytest.mark.rest
def test_verify_certified_prints_a_table_and_agrees(bptt) -> None:
    ended = bptt("verify", "--certified", "--examples", "4", "--seed", "3")
    assert ended.code in (0, 3)  # four problems need not show everything
    assert "random problems in float64, seed 3." in ended.out
    assert ", certified " in ended.out


@pytest.mark.rest
def test_verify_certified_ends_with_1_where_a_derivation_is_wrong(bptt, monkeypatch) -> None:
    monkeypatch.setattr(builtin, "FIRST", 0)
    right = DERIVATIONS["forward recursion"]
    monkeypatch.setitem(
        builtin.DERIVATIONS, "forward recursion", lambda p: (f := right(p)) | {"W": 2 * f["W"]}
    )
    assert bptt("verify", "--certified", "--examples", "4").code == 1


def test_a_missing_extra_is_one_line_that_says_how_to_install_it(bptt, monkeypatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    for name in ("certified", "enclosures", "rational", "symbolic", "power_series"):
        package = judge if name == "certified" else proofs
        monkeypatch.delitem(sys.modules, f"{package.__name__}.{name}", raising=False)
        monkeypatch.delattr(package, name, raising=False)
    for command in (["verify", "--certified"], ["prove"], ["accuracy", "--problems", "1"]):
        ended = bptt(*command)
        assert ended.code == 2
        assert ended.out == ""
        assert ended.err.strip() == (
            f"bptt: {command[0]}: expected python-flint, found none: "
            "pip install 'verified-bptt[certify]'"
        )


def test_certified_judges_what_is_built_in_only(bptt) -> None:
    ended = bptt("verify", "--certified", "examples/right.py")
    assert ended.code == 2
    assert "--certified: expected bptt verify without FILE, found examples/right.py" in ended.err


def test_sizes_of_the_certified_problems_are_small() -> None:
    for case in range(20):
        assert all(a <= b for a, b in zip(draw(0, case, largest=SMALL).sizes, SMALL, strict=True))
        small = draw_with_options(0, case, largest=SMALL).sizes
        assert all(a <= b for a, b in zip(small, Sizes(*SMALL), strict=True))


@pytest.mark.parametrize("size", [1e9, 1e12])
def test_a_saturated_state_is_enclosed_at_once(size: float) -> None:
    one = np.ones((1, 1))
    params = rnn.Params(size * one, one, one)
    found = certify(params, one[None], 2 * one, names=("U",))["U"]
    assert found.lower[0, 0] <= 0 <= found.upper[0, 0]
    assert found.nearest[0, 0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": "U"}, "names: expected a tuple of loss, prediction, U, W, V, x, h0, adjoints"),
        ({"names": ("b",)}, "names: expected a tuple of .*, found"),
        ({"c0": np.ones((1, 1))}, "c0: expected None for the rnn"),
        ({"y": None}, "y: expected an array, found None"),
    ],
)
def test_what_cannot_be_enclosed_is_named(change: dict[str, Any], message: str) -> None:
    one = np.ones((1, 1))
    arguments = {"params": rnn.Params(one, one, one), "x": one[None], "y": one}
    with pytest.raises((TypeError, ValueError), match=message):
        certify(**arguments | change)
