"""Which error a result may have, by the kind and size of a problem; nothing is compiled here."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.problems.cached import Recent
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.extremes import LARGE
from bptt_verifier.problems.problem import GATES, LARGEST, LOSSES, Problem, Sizes
from bptt_verifier.reference import autodiff
from bptt_verifier.reference.autodiff import (
    arrange_at_its_size,
    bound_underflow,
    derive_bound,
    find_values,
    fits_capacity,
    has_derived_bound,
    large_truth,
    list_absent,
    loosen_where_overflowing,
    measure_reference,
    measure_truth,
    prefetch_truths,
    start_derivatives,
    start_large_reference,
    start_measured_reference,
    start_reference,
    start_truths,
    truth,
)
from bptt_verifier.reference.case import Truth
from bptt_verifier.tolerance.bounds import RESOLVING, Bounds
from jax_reference import blocks
from jax_reference.unrolled import Derivatives
from manual_bptt.rnn import Params, gradients

SIZES = Sizes(3, 2, 3, 4, 2)
FORMATS = pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])


def draw(cell: str = "rnn", sizes: Sizes = SIZES, bias: bool = False, seed: int = 0) -> Problem:
    return with_values(np.random.default_rng(seed), sizes, cell=cell, bias=bias)


def beyond(capacity: Any) -> Sizes:
    return Sizes(*(size + 1 for size in capacity))


def test_a_problem_of_a_capacity_s_own_sizes_fits_and_none_that_exceeds_one() -> None:
    assert fits_capacity(SimpleNamespace(sizes=tuple(LARGEST)))  # type: ignore[arg-type]
    for place in range(5):
        sizes = [size + (i == place) for i, size in enumerate(LARGEST)]
        assert not fits_capacity(SimpleNamespace(sizes=sizes))  # type: ignore[arg-type]


def test_the_bound_is_derived_for_the_plain_network_whose_last_output_counts() -> None:
    plain = draw()
    assert all(has_derived_bound(plain._replace(loss=loss)) for loss in LOSSES)
    others = [
        {"lengths": np.array([3, 2])}, {"truncation": 2}, {"outputs": "every"},
        {"loss": "another"},
    ]  # fmt: skip
    assert not any(has_derived_bound(plain._replace(**other)) for other in others)
    assert not has_derived_bound(draw("gru"))
    assert not has_derived_bound(draw(sizes=beyond(LARGEST)))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_at_its_size_a_network_has_zeros_for_what_is_absent(cell: str, bias: bool) -> None:
    problem = draw(cell, bias=bias).map_arrays(lambda values: values.astype(np.float32))
    absent = list_absent(problem)
    assert (set(absent) == {"b", "c"}) is (not bias)
    model, params, x, first, y = arrange_at_its_size(problem)
    assert model.loss == problem.loss
    for name, value in problem.params._asdict().items():
        expected = np.zeros(getattr(params, name).shape) if name in absent else value
        assert np.array_equal(getattr(params, name), expected)
    assert len(first) == {"rnn": 1, "lstm": 2}[cell]
    assert all(state.shape == (2, 4) for state in first)
    assert {array.dtype.name for array in (*params, x, *first, y)} == {"float64"}
    assert np.array_equal(x, problem.x)


@FORMATS
def test_a_derived_bound_covers_the_error_of_the_reference_in_float64_too(
    dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(E13)"""
    own = Bounds(*(np.full(1, 8.0) for _ in Bounds._fields))
    monkeypatch.setattr(autodiff, "bounds", lambda *arguments, **options: own)
    problem = draw()
    found = derive_bound(problem._replace(x=problem.x.astype(dtype)), None)  # type: ignore[arg-type]
    expected = 8.0 + 8.0 * 2.0**-52 / float(np.finfo(dtype).eps)
    assert {each.item() for each in found} == {expected}


@FORMATS
@pytest.mark.parametrize("fits", [True, False])
def test_an_error_is_measured_for_the_submission_and_the_reference_together(
    fits: bool, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {name: np.ones(1) for name in Derivatives._fields} | {"states": None}
    asked = list[Any]()

    def measure(model: Any, *arguments: Any) -> Any:
        roundoff, *_ = arguments[1:] if fits else arguments
        asked.append(roundoff)
        return Derivatives(**made), Derivatives(**made)

    name = "_measure_padded" if fits else "_measure_at_its_size"
    monkeypatch.setattr(autodiff, name, measure)
    laid = SimpleNamespace(model=0, states=(), problem=0, fixed=0, cut=lambda *found: found)
    monkeypatch.setattr(autodiff, "lay_out", lambda problem, capacity: laid)
    problem = draw(sizes=SIZES if fits else beyond(LARGEST), seed=17)
    found = start_measured_reference(problem, dtype)()
    assert asked == [float(np.finfo(dtype).eps) / 2 + 2.0**-53]
    assert len(found) == 2
    if not fits:
        for each in found:
            assert (each.b, each.c) == (None, None)  # which the problem lacks
            assert each.W == 1.0


def state_truth(monkeypatch: pytest.MonkeyPatch, values: Any, bound: Any, measured: Any) -> None:
    """Make these the reference of any problem, its derived bound and its measured error."""
    monkeypatch.setattr(autodiff, "name_arrays", lambda found: found)
    known = SimpleNamespace(values=values, derive_allowed=lambda dtype: bound)
    monkeypatch.setattr(autodiff, "start_reference", lambda problem: known)
    monkeypatch.setattr(
        autodiff, "measure_truth", lambda problem, dtype, names, *kinds: Truth(values, measured)
    )


def test_a_bound_that_cannot_decide_gives_way_to_what_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = {"at the limit": np.array([0.5, 1.0]), "beyond": np.ones(2), "zero": np.zeros(2)}
    bound = {"at the limit": RESOLVING * np.ones(2), "beyond": np.array([2.0**-10, 1.0])}
    bound["zero"] = np.ones(2)
    measured = dict.fromkeys(values, np.full(2, 0.25)) | {"at the limit": np.zeros(2)}
    state_truth(monkeypatch, values, bound, measured)
    found = truth(draw(), np.float64, values).allowed
    assert found["at the limit"].tolist() == [RESOLVING] * 2
    assert found["beyond"].tolist() == [2.0**-10, 0.25]  # the smaller one
    assert found["zero"].tolist() == [1.0, 1.0]
    assert truth(draw(), np.float64, ["zero"]).allowed["beyond"].tolist() == [2.0**-10, 1.0]
    assert truth(draw("gru"), np.float64).allowed is measured


def test_an_error_is_measured_in_the_format_of_the_problem_unless_another_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = lambda problem, dtype, *kinds: lambda: dtype  # noqa: E731
    monkeypatch.setattr(autodiff, "start_measured_reference", start)
    single = draw().map_arrays(lambda values: values.astype(np.float32))
    formats: list[Any] = [measure_reference(single), measure_reference(single, np.float16)]
    assert formats == [np.float32, np.float16]


def test_the_derivatives_are_those_of_the_whole_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    given = dict[str, Any]()
    finish: Any = lambda: "derivatives"  # noqa: E731
    monkeypatch.setattr(
        autodiff.padded, "started", lambda *arrays, **more: given.update(more) or finish
    )
    problem = with_values(
        np.random.default_rng(0), SIZES, cell="gru", option="before", initial_state=True
    )._replace(truncation=2, loss="huber")
    assert start_derivatives(problem) is finish
    assert (given["h0"] == problem.first["h0"]).all()
    settings = {name: given[name] for name in ("cell", "reset", "truncation", "loss", "capacity")}
    assert settings == {
        "cell": "gru", "reset": "before", "truncation": 2, "loss": "huber", "capacity": LARGEST,
    }  # fmt: skip


def test_the_reference_of_a_problem_without_a_derived_bound_is_started_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = list[str]()

    def start(problem: Problem) -> Any:
        started.append(problem.cell)
        return lambda: {"W": np.zeros(1)}

    monkeypatch.setattr(autodiff, "references", Recent(9))
    monkeypatch.setattr(autodiff, "start_derivatives", start)
    first = start_reference(draw("gru", seed=5))
    assert start_reference(draw("gru", seed=5)) is first
    assert first.derivatives["W"] == 0  # type: ignore[call-overload]
    assert started == ["gru"]


def test_truths_are_found_by_the_references_of_derived_bounds_and_others_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problems = [draw("gru"), draw(seed=1), draw("lstm"), draw(seed=2)]
    measured = list[str]()
    monkeypatch.setattr(
        autodiff, "start_references", lambda given: [each.x[0, 0, 0] for each in given]
    )
    monkeypatch.setattr(
        autodiff, "start_measured_reference", lambda problem, dtype: measured.append(problem.cell)
    )
    monkeypatch.setattr(autodiff, "find_truth_within_bound", lambda *given: given)
    monkeypatch.setattr(autodiff, "measure_truth", lambda *given: given)
    found = start_truths(problems)
    assert measured == ["gru", "lstm"]
    for problem, (same, find) in zip(problems, found, strict=True):
        assert same is problem
        *known, subject, dtype, names = find(np.float32, ())  # type: ignore[misc]
        assert known == ([problem.x[0, 0, 0]] if problem.cell == "rnn" else [])
        assert subject is problem
        assert (dtype, names) == (np.float32, ())


@pytest.mark.parametrize(
    ("cell", "number", "sizes"),
    [("rnn", blocks.SIZE + 2, [blocks.SIZE, 2]), ("rnn", 3, [3]), ("gru", 3, [1, 1, 1])],
)
def test_truths_with_a_derived_bound_are_started_in_blocks_and_others_one_by_one(
    cell: str, number: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, started = draw(cell), list[int]()

    def start(problems: Any) -> Any:
        started.append(len(problems))
        return [(each, None) for each in problems]

    monkeypatch.setattr(autodiff, "start_truths", start)
    assert len([*prefetch_truths([problem] * number)]) == number
    assert started == sizes


def test_the_next_error_is_measured_before_a_problem_is_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = list[Any]()
    note = lambda problem, dtype: events.append((problem.cell, dtype))  # noqa: E731
    monkeypatch.setattr(autodiff, "start_measured_reference", note)
    for problem, _ in prefetch_truths([draw("gru"), draw("lstm")]):
        events.append(problem.cell)
    wide = np.dtype(np.float64)
    assert events == [("gru", wide), ("lstm", wide), "gru", "lstm"]


@FORMATS
def test_a_measured_error_has_room_for_a_number_that_underflows(
    dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = {"W": np.ones(2)}, {"W": np.array([0.0, 1.0])}
    monkeypatch.setattr(autodiff, "name_arrays", lambda found: found)
    monkeypatch.setattr(autodiff, "measure_reference", lambda *given: measured)
    found = measure_truth(draw(), dtype)
    assert found.values is measured[0]
    lost = underflowing(dtype)
    assert found.allowed["W"].tolist() == [lost, 1 + lost]


def underflowing(dtype: Any, gates: int = 1) -> float:
    """The error of a sum of m products that underflow, at `SIZES`; the processor has float16's."""
    form, (T, B, _, H, O) = np.finfo(dtype), SIZES
    smallest = form.smallest_subnormal if dtype == np.float16 else form.smallest_normal
    return max(
        float(form.smallest_normal), 2 * (T * B + B * gates * H + O * H + 4) * float(smallest)
    )


@FORMATS
@pytest.mark.parametrize("cell", GATES)
def test_the_sums_of_a_cell_have_as_many_terms_as_it_has_gates(cell: str, dtype: Any) -> None:
    assert bound_underflow(draw(cell), dtype) == underflowing(dtype, GATES[cell])


@pytest.mark.parametrize("large", [False, True])
def test_what_a_sum_loses_whose_products_all_underflow_is_allowed(
    large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    T, B, D, H, O = 1, 3, 2, 5, 1
    least = 0.9 * 2.0**-66  # times δ = 2⁻⁶⁰, below the smallest normal number 2⁻¹²⁶
    params = Params(np.full((H, D), least), np.full((H, H), least), np.full((O, H), 2.0**-60))
    problem = draw("rnn", Sizes(T, B, D, H, O))._replace(
        params=params, x=np.full((T, B, D), least), y=np.full((B, O), -1.0),
        first={"h0": np.full((B, H), least)}, option={"activation": "identity"}, loss="half_sse",
    )  # fmt: skip
    found = gradients(params, problem.x, problem.y, **problem.simple_options)[1]._asdict()
    values = {name: found[name] for name in ("U", "W", "x", "h0")}
    none = {name: 0 * value for name, value in values.items()}
    monkeypatch.setattr(autodiff, "name_arrays", lambda found: found)
    monkeypatch.setattr(autodiff, "measure_reference", lambda *given: (values, none))
    monkeypatch.setattr(autodiff, "start_large_reference", lambda problem: lambda: values)
    allowed = (large_truth if large else measure_truth)(problem, np.float32).allowed
    for name, terms in {"U": B, "W": B, "x": H, "h0": H}.items():
        np.testing.assert_allclose(values[name], terms * 0.9 * 2.0**-126)
        assert (values[name] <= allowed[name]).all(), name


def test_the_values_alone_allow_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = {"W": np.ones(2)}, {"W": np.full(2, 2.0)}
    monkeypatch.setattr(autodiff, "name_arrays", lambda found: found)
    monkeypatch.setattr(autodiff, "reference", lambda problem: small)
    monkeypatch.setattr(autodiff, "start_large_reference", lambda problem: lambda: large)
    for problem, values in [(draw(), small), (draw(sizes=beyond(LARGEST)), large)]:
        found = find_values(problem)
        assert found.values is values
        assert found.allowed["W"].tolist() == [0.0, 0.0]


@FORMATS
@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_an_error_of_one_sum_is_allowed_of_large_problems(
    cell: str, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(N4): 16 √(T (B + D + H + O)) (u + 2⁻⁵³) max |g|, of a step's δ and ∂L/∂x or a column of U"""
    rng = np.random.default_rng(0)
    shapes = {"loss": (), "U": (4, 3), "W": (4, 4), "x": (3, 2, 3), "adjoints": (3, 2, 4)}
    values = {name: np.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}
    monkeypatch.setattr(autodiff, "start_large_reference", lambda problem: lambda: values)
    found = large_truth(draw(cell), dtype, [name for name in shapes if name != "W"])
    share = 16 * np.sqrt(3 * (2 + 3 + 4 + 2)) * (float(np.finfo(dtype).eps) / 2 + 2.0**-53)
    size = {name: np.abs(value) for name, value in values.items()}
    largest = {
        "loss": size["loss"], "U": size["U"].max(axis=0),
        **{n: size[n].max(axis=(1, 2))[:, None, None] for n in ("x", "adjoints")},
    }  # fmt: skip
    assert found.values.keys() == found.allowed.keys() == largest.keys()
    lost = underflowing(dtype, GATES[cell])
    for name, value in found.values.items():
        expected = np.broadcast_to(share * largest[name] + lost, value.shape)
        np.testing.assert_allclose(found.allowed[name], expected, rtol=1e-12)


def test_a_result_of_a_large_problem_that_underflows_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zero = {"W": np.zeros((4, 4))}
    monkeypatch.setattr(autodiff, "start_large_reference", lambda problem: lambda: zero)
    allowed = large_truth(draw(), np.float32).allowed["W"]
    assert (allowed == underflowing(np.float32)).all()


def test_a_large_problem_is_padded_if_it_fits_and_computed_at_its_size_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Laid(tuple[str, ...]):
        @property
        def parts(self) -> Any:
            return self

        def cut(self, *found: Any) -> Any:
            return {"W": np.array(found)}

    def differentiate(*given: Any) -> Any:
        return [f"padded in {jnp.ones(1).dtype}", *given]

    monkeypatch.setattr(autodiff, "lay_out", lambda problem, capacity: Laid("abcde"))
    monkeypatch.setattr(autodiff, "_differentiate_padded", differentiate)
    unrolled = SimpleNamespace(compiled_derivatives=lambda *given: {"W": np.array("at its size")})
    monkeypatch.setattr(autodiff, "unrolled", unrolled)
    monkeypatch.setattr(autodiff, "name_arrays", lambda found: found)
    padded = start_large_reference(draw(sizes=Sizes(30, 3, 4, 9, 2)))()
    assert padded["W"].tolist() == ["padded in float64", *"abcd"]
    at_its_size = start_large_reference(draw(sizes=Sizes(LARGE.T + 1, 1, 1, 1, 1)))()
    assert at_its_size["W"].item() == "at its size"


@FORMATS
def test_where_a_product_of_two_values_may_overflow_any_error_is_allowed(dtype: Any) -> None:
    root = float(np.finfo(dtype).max) ** 0.5
    for size, finite in [(0.9 * root, True), (root, False), (1.1 * root, False)]:
        values = {"a": np.array([0.0, -size]), "b": np.ones(2)}
        found = loosen_where_overflowing(Truth(values, dict.fromkeys("ab", np.ones(2))), dtype)
        assert found.values is values
        assert all(np.isfinite(found.allowed[name]).all() == finite for name in "ab")
