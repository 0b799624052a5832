"""The user's JAX code of default precision runs as it would alone, whatever the judge traced."""

import sys
import time
from collections.abc import Callable
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier import verify_own_model
from bptt_verifier.judge import own_model
from bptt_verifier.judge.own_model import OwnSubject
from bptt_verifier.judge.path import judge
from bptt_verifier.program import precision
from bptt_verifier.program.precision import (
    LONG,
    REACHED,
    find_arrays,
    forget_other_precision,
    is_of_library,
    use_float64,
)
from bptt_verifier.reference.case import Case
from bptt_verifier.reference.own_loss import prepare
from bptt_verifier.reference.points import Point
from tests.support.profiles import by_turns

Params = dict[str, Any]


class Model:
    """A loss over float64 data, as a script's globals hold it, in several ways of writing."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.x, self.y = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
        self.params = {"W": rng.normal(size=(3, 2))}
        self.predict = jax.jit(lambda W: jnp.tanh(self.x @ W) - self.y)
        self.scaled = jax.custom_vjp(lambda W: jnp.tanh(self.x @ W) - self.y)
        self.scaled.defvjp(
            lambda W: (jnp.tanh(self.x @ W) - self.y, W),
            lambda W, ct: (self.x.T @ (ct * (1 - jnp.tanh(self.x @ W) ** 2)),),
        )

    def plain(self, p: Params, xp: Any) -> Any:
        return xp.mean((xp.tanh(self.x @ p["W"]) - self.y) ** 2)

    def compiled(self, p: Params, xp: Any) -> Any:
        return self.plain(p, np) if xp is np else jnp.mean(self.predict(p["W"]) ** 2)

    def scanned(self, p: Params, xp: Any) -> Any:
        if xp is np:
            return self.plain(p, np)

        def step(total: Any, row: Any) -> Any:
            x, y = row
            return total + jnp.sum((jnp.tanh(x @ p["W"]) - y) ** 2), None

        return jax.lax.scan(step, 0.0 * p["W"][0, 0], (self.x, self.y))[0] / self.y.size

    def own_rule(self, p: Params, xp: Any) -> Any:
        return self.plain(p, np) if xp is np else jnp.mean(self.scaled(p["W"]) ** 2)

    def by_numpy(self, p: Params) -> Params:
        h = np.tanh(self.x @ p["W"])
        ct = 2 * (h - self.y) / self.y.size * (1 - h**2)
        return {"W": (self.x.T @ ct).astype(p["W"].dtype)}


LOSSES = ("plain", "compiled", "scanned", "own_rule")
RUNS: dict[str, Callable[[Any], Any]] = {"eager": lambda f: f, "jit": jax.jit}


@pytest.fixture(autouse=True)
def default_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.table(4)
@pytest.mark.parametrize(("name", "run"), by_turns(LOSSES, ["eager", "jit"]))
def test_jax_gradients_of_default_precision_agree(name: str, run: str) -> None:
    model = Model()
    loss = getattr(model, name)
    gradients = RUNS[run](jax.grad(lambda p: loss(p, jnp)))
    report = verify_own_model(gradients, loss, model.params, cases=3)
    assert report, str(report)
    with jax.numpy_dtype_promotion("standard"):
        assert gradients(model.params)["W"].dtype == jnp.float32


@pytest.mark.rest
@pytest.mark.table(4)
@pytest.mark.parametrize(("name", "run"), by_turns(LOSSES, ["jit", "eager"]))
def test_training_in_default_precision_spoils_no_verdict(name: str, run: str) -> None:
    model = Model()
    loss = getattr(model, name)
    gradients = RUNS[run](jax.grad(lambda p: loss(p, jnp)))
    before = gradients(model.params)["W"]
    for submission in (model.by_numpy, gradients):
        report = verify_own_model(submission, loss, model.params, cases=3)
        assert report, str(report)
    assert np.array_equal(gradients(model.params)["W"], before)


def test_after_default_precision_has_run_cases_have_the_values_of_float64_and_nothing_is_cleared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Model()
    own = prepare(model.plain, model.params, cases=2)

    def measure(case: Case) -> Any:
        assert case.truth is not None
        found = case.truth(np.float32, ())
        return [*found.values.values(), *found.allowed.values()]

    uses: list[Callable[[], Any]] = [
        lambda: measure(own.make_case(Point(3))),
        lambda: measure(own.displaced_case(own.cases[0], 1, 1e-6)),
    ]
    expected, cleared = [use() for use in uses], list[bool]()
    kept = jax.jit(lambda z: jnp.mean(model.y * z))  # keeps y in float32 as long as it lives
    monkeypatch.setattr(jax, "clear_caches", lambda: cleared.append(True))
    for use, values in zip(uses, expected, strict=True):
        assert kept(np.zeros(model.y.shape, np.float32)).dtype == np.float32
        assert all(map(np.array_equal, use(), values))
        assert jax.eval_shape(lambda: model.y).dtype == np.float32
    assert not cleared


@pytest.mark.rest
def test_a_diagnosis_after_default_precision_has_run_gets_data_of_float64(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, seen = Model(), []
    own = prepare(model.plain, model.params, cases=2)
    original = own_model.diagnose

    def note(*args: Any, **options: Any) -> Any:
        seen.append(jax.eval_shape(lambda: model.y).dtype)
        return original(*args, **options)

    monkeypatch.setattr(own_model, "diagnose", note)
    kept = jax.jit(lambda z: jnp.mean(model.y * z))
    assert kept(np.zeros(model.y.shape, np.float32)).dtype == np.float32
    judge(lambda p: {"W": 1.01 * model.by_numpy(p)["W"]}, OwnSubject(own), "model")
    assert seen == [np.float64]


def test_what_fails_on_data_of_another_precision_runs_again_on_those_of_float64() -> None:
    model, dtypes = Model(), []
    kept = jax.jit(lambda z: jnp.mean(model.y * z))
    assert kept(np.zeros(model.y.shape, np.float32)).dtype == np.float32

    def run() -> Any:
        dtypes.append(jax.eval_shape(lambda: model.y).dtype)
        if dtypes[-1] != np.float64:
            raise TypeError("lax.mul requires arguments to have the same dtypes")
        return "done"

    assert precision.run_in_float64(model.plain, run) == "done"
    assert dtypes == [np.float32, np.float64]


@pytest.mark.rest
def test_a_wrong_gradient_in_default_precision_is_diagnosed_in_the_submissions_precision() -> None:
    model = Model()
    right = jax.jit(jax.grad(lambda p: model.compiled(p, jnp)))
    report = verify_own_model(
        lambda p: {"W": 1.01 * right(p)["W"]}, model.compiled, model.params, cases=3
    )
    assert [mistake.name for mistake in report.mistakes] != ["raised"]
    assert report.counterexample is not None
    assert right(model.params)["W"].dtype == jnp.float32


def test_caches_are_kept_where_nothing_is_interned(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    cleared = []
    monkeypatch.setattr(jax, "clear_caches", lambda: cleared.append(True))
    assert verify_own_model(model.by_numpy, model.plain, model.params, cases=2)
    assert not cleared


def fail_on(data: Any) -> Callable[[Any], Any]:
    """Make a function that raises after it has used data."""

    def fail(z: Any) -> Any:
        raise TypeError(f"found {jnp.tanh(data * z)}")

    return fail


@pytest.mark.rest
def test_a_trace_that_failed_in_float64_leaves_no_array_in_float64() -> None:
    data = np.random.default_rng(0).normal(size=3)
    with use_float64(), pytest.raises(TypeError):
        jax.make_jaxpr(fail_on(data))(data)
    assert jax.eval_shape(lambda: data).dtype == np.float64
    forget_other_precision([data])
    assert jax.eval_shape(lambda: data).dtype == np.float32


def test_a_trace_that_still_runs_is_not_ended() -> None:
    data = np.random.default_rng(0).normal(size=3)

    def function(z: Any) -> Any:
        product = data * z
        precision.end_failed_traces()
        return jnp.sum(product + data)

    np.testing.assert_allclose(jax.jit(function)(1.0), 2 * data.sum(), rtol=1e-6)


@pytest.mark.rest
@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.0, "agrees"), pytest.param(1.05, "disagrees", marks=pytest.mark.rest)],
)
def test_gradients_of_compiled_code_with_numpy_indices_get_a_verdict(
    factor: float, verdict: str
) -> None:
    """Complex parameters, with which the loss is called as well, are no carry of its scan."""
    tokens = np.array([[1, 3, 2], [0, 4, 2]])

    @jax.jit
    def loss(p: Params) -> Any:
        x = jnp.swapaxes(p["E"][tokens], 0, 1)
        h, _ = jax.lax.scan(lambda h, x: (jnp.tanh(x + h), None), jnp.zeros((2, 4)), x)
        return jnp.mean(h**2)

    params = {"E": np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)}
    gradients = jax.jit(lambda p: {"E": factor * jax.grad(loss)(p)["E"]})
    report = verify_own_model(gradients, loss, params, cases=3)
    assert report.verdict.value == verdict, str(report)


@pytest.mark.parametrize("folder", ["site-packages", "dist-packages"])
def test_an_installed_package_is_a_library_and_a_file_run_as_main_is_none(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: Any = SimpleNamespace(__file__=f"/usr/lib/python3/{folder}/lib/__main__.py")
    monkeypatch.setitem(sys.modules, "lib", installed)
    monkeypatch.setitem(sys.modules, "__main__", installed)  # as of `python -m lib`
    assert is_of_library(ModuleType("lib.part"))
    assert is_of_library(type("Layer", (), {"__module__": "lib.part"}))
    assert not is_of_library(type("Net", (), {"__module__": "__main__"}))
    assert not is_of_library(ModuleType("model"))


def refer_to(held: Any) -> Any:
    """A function of a file with nothing else in it."""
    return FunctionType((lambda: None).__code__, {"held": held})


def test_arrays_are_found_beside_more_numbers_than_objects_can_be_reached() -> None:
    x, y = np.ones(2), np.zeros(3)
    tokens, table = [number + 0.5 for number in range(2 * REACHED)], [*map(float, range(5)), y]
    every = {"tokens": tokens, "pair": (tuple(map(str, tokens)), {"x": x, "table": [table]})}
    assert {id(each) for each in find_arrays(refer_to(every))} == {id(x), id(y)}


@pytest.mark.parametrize(("numbers", "reached"), [(LONG - 1, True), (LONG, False)])
def test_a_long_list_that_begins_and_ends_with_numbers_has_nothing_else(
    numbers: int, reached: bool
) -> None:
    x, half = np.ones(2), [1.0] * (numbers // 2)
    between = [*half, x, *half, *[2] * (numbers % 2)]
    for every, found in ((between, reached), ([*between, x], True), ([x, *between], True)):
        for kind in (list, tuple):
            assert [*map(id, find_arrays(refer_to(kind(every))))] == [id(x)] * found


def test_arrays_are_found_beside_objects_whose_class_has_no_hash() -> None:
    class Named(type):
        def __eq__(cls, other: object) -> bool:
            return isinstance(other, type) and cls.__name__ == other.__name__

        __hash__ = None  # type: ignore[assignment]

    x = np.ones(2)
    assert id(x) in map(id, find_arrays(refer_to([Named("Layer", (), {})(), x])))


def test_a_long_list_is_read_as_far_as_it_can_be_reached() -> None:
    """Not in each of the calls of a verdict: a copy of it takes longer."""
    rows, x = [[]] * 10**7, np.ones(2)
    last = [*[object()] * (REACHED - 1), x]
    start = time.process_time()
    copied = rows.copy()
    between = time.process_time()
    found = find_arrays(refer_to([rows, last]))
    elapsed = time.process_time() - between
    assert [*map(id, found)] == [id(x)]
    assert elapsed < between - start
    assert len(copied) == len(rows)
