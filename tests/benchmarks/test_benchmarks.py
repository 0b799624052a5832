"""The harness of the benchmarks works. Nothing here depends on how fast anything is."""

import re
from collections.abc import Callable
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import (
    jax_steps,
    measurement,
    numpy_steps,
    rounding,
    run,
    scans,
    torch_steps,
    verifying,
)
from benchmarks.agreement import Disagreement, expected, require_agreement
from benchmarks.balanced import flop
from benchmarks.contenders import LEARNING_RATE, Contender, Setting, Unavailable
from benchmarks.measurement import Transfer, calls_needed, rounds, settled, timed
from benchmarks.results import LIMITS
from benchmarks.suites import CONTENDERS, LOOPS, ON_GPU
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import GATES, Sizes
from jax_reference import rnn as reference
from manual_bptt import gru, lstm, rnn
from tests.support.benchmarks import HERE, SMALL, WRONG, Changed, problem, tampering, truth_of

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")


# What is timed: problems whose adjoints stay of ordinary size.


@pytest.mark.parametrize("T", [10, 1000])
@pytest.mark.parametrize(("cell", "module"), [("rnn", rnn), ("lstm", lstm), ("gru", gru)])
def test_adjoints_of_a_balanced_problem_neither_vanish_nor_explode(cell, module, T: int) -> None:
    given = problem(cell, Sizes(T=T, B=2, D=3, H=8, O=2), "float32")
    norms = np.linalg.norm(module.adjoints(given.params, given.x, given.y), axis=(1, 2))
    assert norms.min() / norms.max() > 1e-3
    assert norms.max() < 1e3


def test_adjoints_of_an_ordinary_problem_do_vanish() -> None:
    given = with_values(np.random.default_rng(0), Sizes(1000, 2, 3, 8, 2), dtype="float32")
    norms = np.linalg.norm(rnn.adjoints(given.params, given.x, given.y), axis=(1, 2))
    assert norms.min() < np.finfo(np.float32).tiny  # below the smallest normal number


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_the_number_of_operations_is_what_xla_counts(cell: str) -> None:
    sizes = Sizes(T=5, B=16, D=24, H=32, O=8)
    given = problem(cell, sizes)
    step: Any = scans.STEPS[cell]

    def loss(params: Any, x: Any, y: Any) -> Any:
        """Unrolled, and without the product of W with h0 = 0: XLA counts a loop's body once."""
        state = scans.first(cell, params, x)
        state = (state[0][:, :0], *state[1:])
        for t, x_t in enumerate(x):
            weights = params if t else params._replace(W=params.W[:, :0])
            _, state = step(weights, state, x_t, 0.0, given.option.get("activation"))
        return jnp.mean((state[0] @ params.V.T + (0 if params.c is None else params.c) - y) ** 2)

    lowered = jax.jit(jax.value_and_grad(loss)).lower(given.params, given.x, given.y)
    analysis: Any = lowered.cost_analysis()
    counted = analysis["flops"]
    elementwise = 60 * sizes.T * sizes.B * GATES[cell] * sizes.H
    assert flop(cell, sizes) <= counted <= flop(cell, sizes) + elementwise
    assert elementwise < flop(cell, sizes) / 2


def test_the_limit_does_as_many_operations_as_the_formula_says(monkeypatch) -> None:
    given, done = problem(sizes=Sizes(T=6, B=3, D=2, H=5, O=4)), []
    product = np.dot

    def counting(left: Any, right: Any, out: Any) -> Any:
        done.append(2 * left.shape[0] * left.shape[1] * right.shape[1])
        assert np.shares_memory(out, product(left, right, out=out))
        return out

    for copied in (False, True):
        step = numpy_steps.products(given, copied_transpose=copied)
        with monkeypatch.context() as patched:
            patched.setattr(np, "dot", counting)
            done.clear()
            step(None, 0.0)
        assert sum(done) == flop("rnn", given.sizes)


def operations(jaxpr: Any, times: int = 1) -> int:
    """The additions and multiplications of the matrix products of a traced function."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            ((inner, _), _), left = equation.params["dimension_numbers"], equation.invars[0].aval
            results = equation.outvars[0].aval.size
            total += 2 * times * results * int(np.prod([left.shape[i] for i in inner]))
        elif "jaxpr" in equation.params:
            length = equation.params.get("length", 1)  # of a scan
            total += operations(equation.params["jaxpr"].jaxpr, times * length)
        else:
            assert not any(hasattr(value, "jaxpr") for value in equation.params.values()), equation
    return total


@pytest.mark.table(3)
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("in_place", [True, False])
def test_the_compiled_limit_does_them_too_and_xla_drops_none(cell: str, in_place: bool) -> None:
    given = problem(cell, Sizes(T=6, B=3, D=2, H=5, O=4))
    h, dy = np.ones((6, 3, 5), np.float32), np.ones((3, 4), np.float32)
    delta = np.ones((GATES[cell] * 5, 6 * 3), np.float32)
    function = jax_steps.products(given, in_place=in_place)
    arguments = (given.params, given.x, h, dy, delta)
    of_h0 = 2 * 3 * GATES[cell] * 5 * 5  # B rows more in ∂L/∂W
    assert operations(jax.make_jaxpr(function)(*arguments).jaxpr) == flop(cell, given.sizes) + of_h0
    compiled: Any = jax.jit(function).lower(*arguments).compile().as_text()
    without_loops = compiled.count(" dot(") - compiled.count("while(")
    assert (compiled.count("while("), without_loops) == (2, 6)
    contender = CONTENDERS["limit-jit"]("limit-jit", given, HERE)
    copies = re.search(r"f32\[[56],3,\d+\]\S* (copy|slice)\(", compiled)
    assert bool(copies) == (not in_place)
    found, _ = contender.wait(contender.step(contender.start(), contender.rate(0.1)))
    assert [result.shape for result in found][3:5] == [dy.shape, given.params.V.shape]


# The gate.


DERIVING = [name for name in CONTENDERS if name not in LIMITS]
GATED = [("rnn", "float32", name) for name in [*DERIVING, *ON_GPU, "manual-readable"]]
GATED += [("rnn", "float64", name) for name in ("manual", "manual-jit", "torch")]
GATED += [
    (cell, "float32", name)
    for cell in ("lstm", "gru")
    for name in ("manual", "manual-jit", "autodiff-hoisted", "torch")
]


@pytest.mark.table(7)
@pytest.mark.parametrize(("cell", "dtype", "name"), GATED)
def test_every_contender_passes_the_gate(cell: str, dtype: str, name: str) -> None:
    if name == "torch" and find_spec("torch") is None:
        pytest.skip("torch is not installed")
    given = problem(cell, dtype=dtype)
    with jax.enable_x64(dtype == "float64"), torch_steps.configured(tf32=False):
        contender = (CONTENDERS | LOOPS | ON_GPU)[name](name, given, HERE)
        assert contender.parameters is not None
        assert 0 < require_agreement(contender, given, truth_of(cell, dtype)) <= 1
        assert {w.dtype for w in contender.parameters(contender.start()).values()} == {
            np.dtype(dtype)
        }


@pytest.mark.parametrize(
    ("dtype", "H", "reason"),
    [
        ("bfloat16", 4, "U: expected dtype float32, found bfloat16"),
        ("float32", 129, "W: expected at most 128 hidden units, found H = 129"),
    ],
)
def test_a_fused_step_is_left_out_where_it_is_not_supported(
    dtype: str, H: int, reason: str
) -> None:
    given, measured = problem("rnn", SMALL._replace(H=H), dtype), run.Measured()
    assert run.built(ON_GPU, given, HERE, measured) == []
    assert measured.notes == [f"manual-fused is left out: {reason}"]


def test_the_gates_reference_is_the_second_witness() -> None:
    given = problem(dtype="float64")
    value, gradient = reference.value_and_grad(given.params, given.x, given.y)
    truth = truth_of("rnn", "float64")
    found = {"loss": value} | {k: g for k, g in gradient._asdict().items() if g is not None}
    assert found.keys() == truth.values.keys() == truth.allowed.keys()
    for name, value in found.items():
        right = np.asarray(value)
        assert np.abs(truth.values[name] - right).max() <= truth.allowed[name]
        assert 0 < truth.allowed[name] < 1e-12 * np.abs(right).max()


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_wrong_contender_does_not_pass_the_gate(change: Changed) -> None:
    given = problem()
    contender = tampering(change, "the-wrong-one", given, HERE)
    said = (
        r"^the-wrong-one: (L|∂L/∂[UWV]).*: expected .*, found .* at T=4 B=3 D=2 H=5 O=2 in float32$"
    )
    with pytest.raises(Disagreement, match=said):
        require_agreement(contender, given, truth_of("rnn", "float32"))


def test_one_step_of_many_that_is_missing_does_not_pass_the_gate() -> None:
    given = problem(sizes=SMALL._replace(T=300))
    first = rnn.adjoints(given.params, given.x, given.y)[0].T @ given.x[0]

    def without_the_first_step(loss: Any, gradient: Any, _: Any) -> tuple[Any, Any]:
        return loss, gradient._replace(U=gradient.U - first)

    contender = tampering(without_the_first_step, "forgetful", given, HERE)
    with pytest.raises(Disagreement, match="forgetful: ∂L/∂U"):
        require_agreement(contender, given, expected(given))


def test_the_same_contender_without_a_mistake_passes_the_gate() -> None:
    given = problem()
    right = tampering(lambda loss, gradient, _: (loss, gradient), "right", given, HERE)
    assert require_agreement(right, given, truth_of("rnn", "float32")) <= 1


def test_a_contender_without_one_of_the_gradients_does_not_pass_the_gate() -> None:
    given = problem()
    right = numpy_steps.manual("manual", given, HERE)
    partial_home = right._replace(parameters=lambda state: {"U": np.asarray(state.U)})
    with pytest.raises(Disagreement, match="expected gradients of loss, U, W, V, found loss, U"):
        require_agreement(partial_home, given, truth_of("rnn", "float32"))
    with pytest.raises(ValueError, match="found none"):
        require_agreement(right._replace(parameters=None), given, truth_of("rnn", "float32"))


@needs_torch
def test_pytorch_with_its_weights_exchanged_does_not_pass_the_gate() -> None:
    given = problem(sizes=Sizes(T=4, B=3, D=5, H=5, O=2))
    exchanged = given._replace(params=given.params._replace(U=given.params.W, W=given.params.U))
    contender = torch_steps.torch_step("torch", exchanged, HERE)
    with torch_steps.configured(tf32=False), pytest.raises(Disagreement, match=r"^torch: "):
        require_agreement(contender, given, expected(given))


def test_where_pytorch_is_missing_it_is_left_out_and_said_so(monkeypatch) -> None:
    monkeypatch.setattr(torch_steps, "find_spec", lambda name: None)
    with torch_steps.configured(tf32=False):
        assert torch_steps.switches() == {}
    measured = run.Measured()
    assert run.built({"torch": torch_steps.torch_step}, problem(), HERE, measured) == []
    assert measured.notes == [
        "torch is left out: torch is not installed: it comes with the extra `bench`"
    ]


class Elsewhere:
    platform = "gpu"


def test_numpy_is_left_out_on_a_gpu() -> None:
    for build in (numpy_steps.manual, numpy_steps.limit, numpy_steps.readable):
        with pytest.raises(Unavailable, match="CPU"):
            build("numpy", problem(), Setting(Elsewhere()))


@pytest.mark.parametrize("name", ["manual-jit-loop", "autodiff-hoisted-loop"])
def test_a_compiled_loop_does_many_steps_and_in_the_gate_one(name: str, monkeypatch) -> None:
    monkeypatch.setattr(jax_steps, "LOOP", 7)
    given = problem()
    loop = LOOPS[name](name, given, HERE)
    assert loop.steps == 7
    assert require_agreement(loop, given, truth_of("rnn", "float32")) <= 1
    _, many = loop.step(loop.start(), loop.rate(2.0**-3))
    params = given.params
    for _ in range(7):
        _, gradient = rnn.value_and_grad(params, given.x, given.y)
        params = jax.tree.map(lambda w, g: w - np.float32(2.0**-3) * g, params, gradient)
    assert np.abs(np.asarray(many.V) - params.V).max() < 1e-5 * np.abs(params.V).max()
    assert np.abs(given.params.V - params.V).max() > 1e-3 * np.abs(params.V).max()


# The clock.


def counted(name: str, log: list[str]) -> Contender:
    """A contender whose state counts its calls."""

    def step(state: int, rate: float) -> tuple[None, int]:
        log.append(name)
        assert rate == LEARNING_RATE
        return None, state + 1

    return Contender(name, lambda: 0, step, parameters=None)


def orders(seed: int, number: int, monkeypatch) -> list[tuple[str, ...]]:
    """The order in which three contenders were timed, round by round."""
    monkeypatch.setattr(measurement, "SHORTEST", 0.0)
    monkeypatch.setattr(measurement, "SETTLING", 0.0)
    log: list[str] = []
    contenders = [counted(name, log) for name in "abc"]
    found, before = [], 6  # two calls each to find out how many make a sample
    for seconds_of in rounds(contenders, number, seed=seed):
        assert list(seconds_of) == ["a", "b", "c"]
        assert all(value > 0 for value in seconds_of.values())
        found.append(tuple(log[before:]))
        before = len(log)
    return found


def test_every_round_times_every_contender_once_in_an_order_drawn_anew(monkeypatch) -> None:
    found = orders(3, 20, monkeypatch)
    for each in found:  # a call that is not timed, and one that is
        assert each[::2] == each[1::2]
        assert sorted(each[::2]) == ["a", "b", "c"]
    assert len(set(found)) > 3
    assert orders(3, 20, monkeypatch) == found
    assert orders(4, 20, monkeypatch) != found


def test_rounds_end_early_where_there_are_enough(monkeypatch) -> None:
    monkeypatch.setattr(measurement, "SHORTEST", 0.0)
    monkeypatch.setattr(measurement, "SETTLING", 0.0)
    some = rounds([counted("a", [])], 50, enough=lambda done: done >= 4)
    assert len(list(some)) == 4


def test_a_sample_is_long_enough_or_has_the_most_calls(monkeypatch) -> None:
    monkeypatch.setattr(measurement, "MOST", 64)
    calls, state = calls_needed(counted("a", []), 0, LEARNING_RATE)
    assert calls == 64
    assert state == 2 * (1 + 2 + 4 + 8 + 16 + 32 + 64)


def test_nothing_is_timed_before_a_contender_has_settled(monkeypatch) -> None:
    monkeypatch.setattr(measurement, "SETTLING", 0.01)
    begun = perf_counter()
    state = settled(counted("a", []), 0, LEARNING_RATE, 3)
    assert perf_counter() - begun >= 0.01
    assert state >= 2
    assert state % 2 == 0  # half of the calls of a sample, again and again


def test_a_step_that_moves_data_to_the_device_is_not_timed() -> None:
    double = jax.jit(lambda values: 2 * values)
    kept = jax.device_put(np.ones(3, np.float32))

    def step_with(given: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
        return lambda state, rate: (double(given), state)

    right = Contender("right", lambda: None, step_with(kept), None, jax.block_until_ready)
    assert timed(right, None, None, 1)[0] > 0
    wrong = right._replace(name="wrong", step=step_with(np.ones(3, np.float32)))
    with pytest.raises(Transfer, match=r"^wrong: expected no transfer inside the step, found one"):
        timed(wrong, None, None, 1)


def test_another_error_inside_a_step_is_no_transfer() -> None:
    def failing(state: Any, rate: Any) -> Any:
        raise RuntimeError("out of paper")

    with pytest.raises(RuntimeError, match="out of paper"):
        timed(Contender("a", lambda: None, failing, None), None, None, 1)


# Verification, case by case.


def test_every_checker_accepts_the_derivation_and_rejects_a_wrong_one(monkeypatch) -> None:
    case, notes = verifying.draw(2, 0), list[str]()
    monkeypatch.setattr(verifying, "ACTIVATIONS", [case.option["activation"]])
    monkeypatch.setattr(verifying, "LOSSES", [case.loss])
    found = list(verifying.verification_rounds(1, seed=2, note=notes.append))
    assert len(found) == 1
    assert all(value > 0 for value in found[0].values())
    assert {f"{name} rejected 0 of 1 correct gradients" for name in found[0]} <= set(notes)
    right: Any = rnn.gradients

    def wrong(*arguments: Any, **options: Any) -> Any:
        value, gradient = right(*arguments, **options)
        return value, gradient._replace(V=1.01 * gradient.V)

    monkeypatch.setattr(rnn, "gradients", wrong)
    assert not any(check(case) for check in verifying.checkers(notes.append).values())


# Shorter formats, and a GPU.


def with_format(function: Callable[..., Any], form: rounding.Format, *given: Any) -> Any:
    """The result of a function that rounds to a format."""
    with jax.enable_x64(True):
        salt, values = jnp.uint64(1), [jnp.float64(value) for value in given]
        return np.asarray(rounding.in_format(function, form)(salt, *values))


def test_tf32_rounds_the_factors_of_products_and_nothing_else() -> None:
    left, right = np.full((1, 1), 1 + 2.0**-13), np.full((1, 1), 1.0)
    assert with_format(jnp.matmul, rounding.TF32, left, right) == 1
    assert with_format(jnp.add, rounding.TF32, left, right) == 2 + 2.0**-13


def test_bfloat16_rounds_the_result_of_every_operation_in_a_loop_too() -> None:
    def summed(values: Any) -> Any:
        def add(total: Any, value: Any) -> tuple[Any, None]:
            return total + value, None

        return jax.lax.scan(add, jnp.float64(256), values)[0]

    small = np.full(100, 0.5)  # below half the last place of 256, so that each sum drops it
    assert with_format(summed, rounding.BFLOAT16, small) == 256
    assert with_format(jnp.negative, rounding.BFLOAT16, 1 + 2.0**-13) == -1 - 2.0**-13


@pytest.mark.table(3)
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("name", ["manual-jit", "autodiff-hoisted"])
def test_the_gate_passes_bfloat16_and_sees_larger_errors(cell: str, name: str) -> None:
    given = problem(cell, dtype="bfloat16")
    truth = truth_of(cell, "bfloat16")
    contender = CONTENDERS[name](name, given, HERE)
    assert 0 < require_agreement(contender, given, truth) <= 1
    assert truth.resolution[0] < 0.25
    least = truth.resolution[0]

    def off(state: Any) -> dict[str, Any]:
        """The parameters after a step whose ∂L/∂U is too large by three allowed errors."""
        assert contender.parameters is not None
        found = contender.parameters(state)
        moved = found["U"].astype(np.float64) - given.params.U.astype(np.float64)
        return found | {"U": given.params.U.astype(np.float64) + (1 + 3 * least) * moved}

    with pytest.raises(Disagreement, match="∂L/∂U"):
        require_agreement(contender._replace(parameters=off), given, truth)


def test_the_gate_allows_more_in_tf32_than_in_float32_and_less_than_in_bfloat16() -> None:
    given = problem()
    plain, brief = (truth_of("rnn", dtype).resolution[0] for dtype in ("float32", "bfloat16"))
    assert 10 * plain < expected(given, tf32=True).resolution[0] < brief / 2


def test_on_a_gpu_the_gate_allows_the_error_of_cudnns_tanh() -> None:
    with jax.enable_x64(True):
        a, zero, salt = jnp.linspace(0.1, 3, 50), jnp.float64(0), jnp.uint64(1)
        function = rounding.with_coarse_tanh(lambda a: (jnp.tanh(a), jnp.sinh(a)))
        exact, moved = (
            [np.asarray(value) for value in function(salt, size, a)]
            for size in (zero, jnp.float64(2.0**-24))
        )
    error = np.abs(moved[0] / exact[0] - 1) * 2.0**24
    assert rounding.CUDNN_TANH / 2 < error.max() <= rounding.CUDNN_TANH * 1.001
    assert np.array_equal(moved[1], exact[1])


def test_numpy_and_the_limits_are_left_out_where_they_do_not_compute() -> None:
    for build in (numpy_steps.manual, numpy_steps.limit, numpy_steps.readable):
        with pytest.raises(Unavailable, match="NumPy does not compute with bfloat16"):
            build("numpy", problem(dtype="bfloat16"), HERE)
    with pytest.raises(Unavailable, match="one large product"):
        jax_steps.limit_jit("limit-jit", problem(), Setting(Elsewhere()))
