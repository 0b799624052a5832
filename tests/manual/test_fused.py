"""The fused step gives the gradients of the other derivations, interpreted, and can be compiled."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, use_abstract_mesh

from bptt_verifier import Report, Verdict, verify, verify_own_model
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.problem import Problem, Sizes
from bptt_verifier.strategies import integer_problems, problems
from manual_bptt import jitted, rnn
from manual_bptt.jitted import fused
from tests.support.compiled import arguments_of, assert_rnn_agrees, plain_problem
from tests.support.modules import imports_of
from tests.support.planting import Mistake, planted
from tests.support.stated_bound import stated_bound, states_of

FEWER = settings(max_examples=max(4, settings().max_examples // 10))
# One step, one sequence, H of a program's size, and H that is padded to each of the sizes.
SHAPES = [Sizes(1, 2, 3, 4, 2), Sizes(5, 1, 2, 33, 2), Sizes(4, 3, 1, 32, 1), Sizes(3, 2, 2, 70, 2)]


# The same gradients.


def largest_error(module: ModuleType, problem: Problem) -> float:
    """The largest error ÷ bound of all results, against the derivation in NumPy and float64."""
    wide = problem.map_arrays(lambda values: values.astype(np.float64))
    named = problem.option | {"loss": problem.loss}
    true = by_name(rnn.value_and_grad(**arguments_of(wide), **named))
    found = by_name(module.value_and_grad(**arguments_of(problem), **named))
    allowed = stated_bound(wide, states_of(wide), np.float32)
    errors = [np.max(np.abs(np.float64(found[n]) - true[n]) / allowed[n]) for n in true]
    return float(np.max(errors) / (1 + 2.0**-29))  # (E13); NaN where a result is NaN


def by_name(result: tuple[Any, Any]) -> dict[str, Any]:
    """The loss and the gradients that are not None."""
    value, gradient = result
    named = {"loss": value} | gradient._asdict()
    return {name: each for name, each in named.items() if each is not None}


@pytest.mark.rest
@FEWER
@given(data=st.data())
def test_every_gradient_is_that_of_the_derivation_in_numpy(data: st.DataObject) -> None:
    problem = data.draw(problems(np.float32, sizes=st.sampled_from(SHAPES)))
    assert largest_error(fused, problem) <= 1
    # Those of the compiled loop are as near, so the two differ by twice the bound at most.
    assert largest_error(jitted.rnn, problem) <= 1


@pytest.mark.rest
@FEWER
@given(data=st.data())
def test_every_gradient_is_that_of_autodiff(data: st.DataObject) -> None:
    small = st.sampled_from([Sizes(1, 2, 3, 4, 2), Sizes(5, 3, 1, 3, 2)])
    assert_rnn_agrees(fused, data.draw(problems(np.float32, sizes=small)))


@pytest.mark.rest
@FEWER
@given(problem=integer_problems(np.float32, sizes=st.just(Sizes(3, 2, 1, 2, 2))))
def test_on_small_integers_not_one_bit_differs(problem: Problem) -> None:
    given_, named = arguments_of(problem), problem.option | {"loss": problem.loss}
    found = by_name(fused.value_and_grad(**given_, **named))
    true = by_name(jitted.value_and_grad(**given_, **named))
    assert all(np.array_equal(found[name], value) for name, value in true.items())


@pytest.mark.table(5)
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("H", [3, 32, 40])
def test_with_outputs_at_every_step_not_one_bit_differs(H: int, first: bool) -> None:
    rng = np.random.default_rng(H)

    def few_ones(*shape: int) -> Any:
        return (rng.integers(-1, 2, shape) * (rng.random(shape) < 3 / H)).astype(np.float64)

    params = rnn.Params(few_ones(H, 2), few_ones(H, H), few_ones(2, H), few_ones(H), few_ones(2))
    arrays = [few_ones(5, 3, 2), few_ones(5, 3, 2), few_ones(3, H) if first else None]
    options: dict[str, Any] = {"activation": "relu", "loss": "half_sse", "outputs": "every"}
    true = by_name(rnn.value_and_grad(params, *arrays, **options))
    # Integers below 2²⁴ are exact in float32, and so is every sum of them.
    assert 0 < max(np.abs(value).max() for value in true.values()) < 2**24
    narrow = jax.tree.map(np.float32, (params, *arrays))
    found = by_name(fused.value_and_grad(*narrow, **options))
    assert all(np.array_equal(found[name], value) for name, value in true.items())


def growing(x: float, y: float, H: int = 3) -> Problem:
    """A problem of positive numbers, whose states and adjoints grow with each step."""
    params = rnn.Params(*(np.full(s, 2, np.float32) for s in ((H, 1), (H, H), (1, H))))
    arrays = np.full((6, 1, 1), x, np.float32), np.full((1, 1), y, np.float32)
    first = {"h0": np.ones((1, H), np.float32)}
    return Problem("rnn", params, *arrays, first, {"activation": "identity"}, "mse")


OVERFLOWING = {"forward": growing(1e38, 0), "backward": growing(1, -1e37)}


def keeps_infinity(module: ModuleType, problem: Problem) -> bool:
    """True if what overflows in the compiled RNN, which pads nothing, is infinite, and not NaN."""
    given_ = arguments_of(problem)
    found = by_name(module.value_and_grad(**given_, **problem.option))
    right = by_name(jitted.value_and_grad(**given_, **problem.option))
    assert np.isinf(right["W"]).all()
    return all(np.array_equal(found[name], value) for name, value in right.items())


@pytest.mark.parametrize("problem", OVERFLOWING.values(), ids=OVERFLOWING)
def test_what_overflows_is_infinite_with_padding_too(problem: Problem) -> None:
    assert keeps_infinity(fused, problem)


# Mistakes in copies of the kernels, and the judge's word on them.

MISTAKES = [
    Mistake("W where Wᵀ belongs", "jitted/fused.py", "padded(H, weights.W, 0, 1),\n", "padded(H, weights.W, 0, 1).T,\n", "jitted.fused"),
    Mistake("Wᵀ where W belongs, forward", "jitted/fused.py", "padded(H, weights.W, 0, 1).T,\n        (a", "padded(H, weights.W, 0, 1),\n        (a", "jitted.fused"),
    Mistake("slope of the state before", "jitted/fused.py", "dh * slope(h)", "dh * slope(before[t])", "jitted.fused"),
    Mistake("state after the step", "jitted/fused.py", "        before[t] = h\n        a_t = a[t] + multiplied(matrix, h)  # (F1)  U x_t + b, and W h_{t-1}\n        return only_units(H, phi(a_t))", "        a_t = a[t] + multiplied(matrix, h)\n        before[t] = h = only_units(H, phi(a_t))\n        return h", "jitted.fused"),
    Mistake("b forgotten", "jitted/fused.py", "a + padded(H, b, 0)", "a", "jitted.fused"),
    Mistake("∂L/∂h_{t-1} from ∂L/∂h_t", "jitted/fused.py", "multiplied(matrix, delta), before[t]", "multiplied(matrix, dh), before[t]", "jitted.fused"),
    Mistake("all programs have the first sequence", "jitted/fused.py", "lambda i: (0, i, 0)", "lambda i: (0, 0, 0)", "jitted.fused"),
    Mistake("the first step left out", "jitted/fused.py", "lax.fori_loop(0, T, retreat", "lax.fori_loop(0, T - 1, retreat", "jitted.fused"),
    Mistake("the padding's states kept", "jitted/fused.py", "return only_units(H, phi(a_t))", "return phi(a_t)", "jitted.fused"),
    Mistake("the padding's adjoints kept", "jitted/fused.py", "only_units(H, dh * slope(h))", "dh * slope(h)", "jitted.fused"),
]  # fmt: skip


def survives(module: ModuleType) -> bool:
    """Whether a mistake shows neither in a problem with all there is, nor where numbers overflow."""
    problem = with_values(
        np.random.default_rng(8), Sizes(5, 3, 2, 33, 2), dtype=np.float32, bias=True,
        initial_state=True,
    )  # fmt: skip
    return largest_error(module, problem) <= 1 and all(
        keeps_infinity(module, each) for each in OVERFLOWING.values()
    )


@pytest.mark.table(len(MISTAKES))
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.name)
def test_a_planted_mistake_is_caught(mistake: Mistake, tmp_path: Path) -> None:
    assert not survives(planted(mistake, tmp_path))


def test_without_a_mistake_nothing_is_caught(tmp_path: Path) -> None:
    assert survives(planted(MISTAKES[0]._replace(written=MISTAKES[0].right), tmp_path))


def in_float32(module: ModuleType) -> Callable[..., Any]:
    """The gradients of a fused step, of arguments in any precision."""

    def gradients(params: Any, x: Any, y: Any, h0: Any = None) -> Any:
        params, x, y, h0 = jax.tree.map(np.float32, (params, x, y, h0))
        return module.value_and_grad(params, x, y, h0)

    return gradients


def judge(module: ModuleType) -> Report:
    """The judge's report on a fused step as the gradients of a loss of its own, at one shape."""
    problem = with_values(
        np.random.default_rng(9), Sizes(5, 3, 2, 33, 2), dtype=np.float32, bias=True
    )
    x, y, of = problem.x, problem.y, in_float32(module)

    def loss(p: dict[str, Any], xp: Any) -> Any:
        h = xp.zeros((3, 33), x.dtype)
        for x_t in x:
            h = xp.tanh(x_t @ p["U"].T + h @ p["W"].T + p["b"])
        return ((h @ p["V"].T + p["c"] - y) ** 2).mean()

    def gradients(p: dict[str, Any]) -> dict[str, Any]:
        value, gradient = of(rnn.Params(**p), x, y)
        return gradient._asdict() | {"loss": value}

    return verify_own_model(gradients, loss, problem.params._asdict(), cases=8)


@pytest.mark.rest
def test_the_judge_agrees_with_the_fused_step_and_not_with_a_wrong_copy(tmp_path: Path) -> None:
    assert judge(fused).verdict is Verdict.AGREES
    assert judge(planted(MISTAKES[0], tmp_path)).verdict is Verdict.DISAGREES


@pytest.mark.slow
def test_the_judge_of_the_rnn_agrees_and_names_the_mistake_of_a_wrong_copy(tmp_path: Path) -> None:
    assert verify(in_float32(fused), examples=5).verdict is Verdict.AGREES
    report = verify(in_float32(planted(MISTAKES[0], tmp_path)), examples=5)
    assert report.mistakes[0].name == "untransposed-recurrent-weight"


# Compiled for CUDA, or interpreted.


def lowered_for(platform: str, problem: Problem, **options: Any) -> str:
    """The program of a fused step for a platform, whether or not this machine has one."""

    def function(params: Any, x: Any, y: Any) -> Any:
        return fused.value_and_grad(params, x, y, **options)

    kernels = jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")
    device = AbstractDevice(device_kind="NVIDIA H200", num_cores=None, platform="gpu")
    exported = jax.export.export(jax.jit(function), platforms=[platform], disabled_checks=[kernels])
    with use_abstract_mesh(
        AbstractMesh((1,), ("devices",), (AxisType.Auto,), abstract_device=device)
    ):
        return str(exported(problem.params, problem.x, problem.y).mlir_module())


def kernels_and_loops(program: str) -> tuple[int, int]:
    return program.count("custom_call @__gpu$xla.gpu.triton"), program.count("stablehlo.while")


# JAX 0.12 warns that it will do without Triton.
@pytest.mark.filterwarnings("ignore:.*Pallas Triton backend:DeprecationWarning")
@pytest.mark.table(3)
@pytest.mark.parametrize(
    ("activation", "H", "x64"),
    [("tanh", 40, True), ("tanh", 128, False), ("relu", 3, True), ("identity", 64, False), ("sigmoid", 32, True)],
)  # fmt: skip
def test_each_sweep_is_one_kernel_without_a_loop_where_it_is_compiled_for_cuda(
    activation: str, H: int, x64: bool
) -> None:
    problem = with_values(
        np.random.default_rng(0), Sizes(5, 3, 2, H, 2), dtype=np.float32, bias=True
    )
    with jax.enable_x64(x64):
        for interpret in (None, False):
            options: dict[str, Any] = {"activation": activation, "interpret": interpret}
            program = lowered_for("cuda", problem, **options)
            assert kernels_and_loops(program) == (2, 0)


def test_elsewhere_and_where_asked_kernels_are_interpreted() -> None:
    problem = plain_problem()
    for platform, interpret in (("cpu", None), ("cpu", True), ("cuda", True)):
        kernels, loops = kernels_and_loops(lowered_for(platform, problem, interpret=interpret))
        assert kernels == 0
        assert loops > 0


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="this JAX has a GPU")
def test_where_there_is_no_gpu_kernels_are_not_compiled() -> None:
    _, params, x, y, *_ = plain_problem()
    expected = "interpret: expected None or True where JAX has no GPU, found False"
    with pytest.raises(ValueError, match=f"^{expected}$"):
        fused.value_and_grad(params, x, y, interpret=False)


def test_nothing_fuses_a_step_unless_it_is_asked_for() -> None:
    assert imports_of({"manual_bptt.jitted.fused"}, "manual_bptt") == []
    assert imports_of({"jax.experimental.pallas"}, "manual_bptt") == ["manual_bptt.jitted.fused"]


# What does not fit.


@pytest.mark.parametrize(
    ("change", "exception", "message"),
    [
        ({"lengths": np.array([6, 5, 4])}, ValueError, "lengths: expected None, found ndarray"),
        ({"truncation": 2}, ValueError, "truncation: expected None, found 2"),
        ({"checkpoint_every": 3}, ValueError, "checkpoint_every: expected None, found 3"),
        ({"activation": "swish"}, ValueError, "activation: expected one of tanh, sigmoid, relu, identity, found 'swish'"),
        ({"outputs": "each"}, ValueError, "outputs: expected one of last, every, found 'each'"),
        ({"interpret": 1}, TypeError, "interpret: expected a bool or None, found int"),
        ({"x": np.ones((6, 3, 2))}, TypeError, "x: expected dtype float32 as in U, found float64"),
        ({"h0": np.ones((3, 9), np.float32)}, ValueError, "h0: expected shape (B, H) = (3, 4), found (3, 9)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence(
    change: dict[str, Any], exception: type[Exception], message: str
) -> None:
    with pytest.raises(exception, match=f"^{re.escape(message)}$"):
        fused.value_and_grad(**(arguments_of(plain_problem()) | change))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, jnp.bfloat16])
def test_another_precision_is_refused(dtype: Any) -> None:
    problem = plain_problem().map_arrays(lambda values: values.astype(dtype))
    name = np.dtype(dtype).name
    with pytest.raises(TypeError, match=f"^U: expected dtype float32, found {name}$"):
        fused.value_and_grad(**arguments_of(problem))


def test_more_hidden_units_than_registers_hold_are_refused() -> None:
    for H, refused in ((128, False), (129, True)):
        problem = with_values(np.random.default_rng(0), Sizes(2, 1, 1, H, 1), dtype=np.float32)
        if refused:
            expected = f"W: expected at most 128 hidden units, found H = {H}"
            with pytest.raises(ValueError, match=f"^{expected}$"):
                fused.value_and_grad(**arguments_of(problem))
        else:
            fused.value_and_grad(**arguments_of(problem))
