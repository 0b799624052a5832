"""The limit in the order of a step does what every step must, and its tables decide by it."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import documentation, in_order
from benchmarks.balanced import flop
from benchmarks.limit_tables import BEYOND, COMPARISONS, REACHED, SHORT, compare, decide
from benchmarks.results import LIMITS, Result, Timing
from benchmarks.suites import PLANS, RETAKEN, WITH_LIMITS, Suite
from bptt_verifier.problems.problem import GATES, Sizes
from tests.support.benchmarks import HERE, problem

SIZES = Sizes(T=6, B=3, D=2, H=5, O=4)
# For each cell, the numbers of which a step forward takes an exponential, and a tanh, per unit.
FUNCTIONS = {"rnn": (0, 1), "lstm": (3, 2), "gru": (2, 1)}


@pytest.mark.parametrize("cell", FUNCTIONS)
@pytest.mark.parametrize("gates_first", [False, True])
def test_the_least_step_has_all_products_and_all_functions_of_a_step(
    cell: str, gates_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, found, done = problem(cell, SIZES), Counter[str](), []
    product = {name: getattr(np, name) for name in ("dot", "matmul")}

    def counting(name: str) -> Callable[[Any, Any], Any]:
        function = getattr(np, name)

        def count(value: Any, out: Any) -> Any:
            found[name] += value.size
            return function(value, out)

        return count

    def multiply(name: str) -> Callable[..., Any]:
        def count(left: Any, right: Any, out: Any) -> Any:
            done.append(2 * out.size * left.shape[-1])
            return product[name](left, right, out=out)

        return count

    step = in_order.least_step(given, gates_first=gates_first)
    with monkeypatch.context() as patched:
        for name in ("exp", "tanh"):
            patched.setattr(np, name, counting(name))
        for name in product:
            patched.setattr(np, name, multiply(name))
        step(None, 0.0)
    units = SIZES.T * SIZES.B * SIZES.H
    assert [found[name] / units for name in ("exp", "tanh")] == [*FUNCTIONS[cell]]
    assert sum(done) == flop(cell, SIZES)


def draw(*shape: int, seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def are_near(found: Any, expected: Any) -> bool:
    """True within 16 roundings of float32, of the largest number: a step has fewer operations."""
    allowed = 16 * 2.0**-24 * max(1.0, float(np.max(np.abs(expected))))
    return bool(np.max(np.abs(found - np.asarray(expected))) <= allowed)


@pytest.mark.parametrize("cell", FUNCTIONS)
@pytest.mark.parametrize("in_rows", [False, True])
def test_one_step_is_the_same_in_numpy_and_in_jax(cell: str, in_rows: bool) -> None:
    G, B, H = GATES[cell], SIZES.B, SIZES.H
    rows, products = draw(B, G, H, seed=0), draw(B, G, H, seed=1)
    sign = np.where(np.arange(G) < G - 1, -1, 1).astype(np.float32)[:, None]
    h, c, dh, dc = (draw(B, H, seed=seed) for seed in range(2, 6))
    gates, of_h = (np.moveaxis(sign * each, 1, 0) for each in (rows, products))
    if not in_rows:
        gates, of_h = np.ascontiguousarray(gates), np.ascontiguousarray(of_h)
    c_t, h_t, spare = c.copy(), np.empty_like(h), np.empty_like(h)
    in_order.step_forward(cell, gates, of_h, h, c_t, h_t, spare)
    expected_h, expected_c = in_order.next_state(cell, *map(jnp.asarray, (rows, products, h, c)))
    assert are_near(h_t, expected_h)
    assert are_near(c_t, expected_c)
    slopes = np.moveaxis(rows.copy(), 1, 0)
    past, dc_t = dh.copy(), dc.copy()
    in_order.step_back(cell, slopes, past, dc_t, h, spare)
    delta, over, dc_before = in_order.adjoint(cell, *map(jnp.asarray, (rows, dh, dc, h)))
    assert are_near(np.moveaxis(slopes, 0, 1), delta)
    assert are_near(dc_t, dc_before)
    if cell == "gru":
        assert are_near(past, over)


def products_of(jaxpr: Any, times: int = 1) -> int:
    """The operations of all matrix products of a traced function."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            ((inner, _), _), left = equation.params["dimension_numbers"], equation.invars[0].aval
            terms = int(np.prod([left.shape[axis] for axis in inner]))
            total += 2 * times * equation.outvars[0].aval.size * terms
        elif "jaxpr" in equation.params:
            inside = equation.params["jaxpr"]
            length = times * equation.params.get("length", 1)
            total += products_of(getattr(inside, "jaxpr", inside), length)
    return total


def arguments(cell: str, sizes: Sizes = SIZES) -> tuple[Any, ...]:
    """What the compiled limit takes."""
    given = problem(cell, sizes)
    slopes = in_order.draw_slopes(given, np.random.default_rng(0))
    delta = draw(GATES[cell] * sizes.H, sizes.T * sizes.B, seed=1)
    return given.params, given.x, given.y, slopes, delta


@pytest.mark.parametrize("cell", FUNCTIONS)
@pytest.mark.parametrize("in_place", [False, True])
def test_the_compiled_limit_has_the_products_of_a_step_in_two_loops(
    cell: str, in_place: bool
) -> None:
    program = in_order.least_program(problem(cell, SIZES), in_place=in_place)
    given = arguments(cell)
    of_h0 = 2 * SIZES.B * GATES[cell] * SIZES.H**2  # forward from h_0 = 0, and in ∂L/∂W
    assert products_of(jax.make_jaxpr(program)(*given).jaxpr) == flop(cell, SIZES) + 2 * of_h0
    compiled: Any = jax.jit(program).lower(*given).compile().as_text()
    assert compiled.count("while(") == 2


@pytest.mark.parametrize("cell", FUNCTIONS)
def test_each_product_of_the_compiled_limit_waits_for_the_one_before(cell: str) -> None:
    program = jax.jit(in_order.least_program(problem(cell, SIZES), in_place=False))
    params, x, y, slopes, delta = arguments(cell)
    dh, prediction, dV, dU, dW = program(params, x, y, slopes, delta)
    other_x = x.copy()
    other_x[0] += 1  # the first step changes the last state, and so ∂L/∂h_0
    moved = program(params, other_x, y, slopes, delta)
    assert not np.allclose(moved[1], prediction)
    assert not np.allclose(moved[0], dh)
    slopes[-1] *= 2
    assert not np.allclose(program(params, x, y, slopes, delta)[0], dh)
    assert [each.shape for each in (dV, dU, dW)] == [
        params.V.shape, params.U.shape, params.W.shape
    ]  # fmt: skip


@pytest.mark.parametrize("cell", FUNCTIONS)
def test_the_numbers_of_the_limit_neither_vanish_nor_explode(cell: str) -> None:
    sizes = Sizes(T=100, B=4, D=3, H=32, O=2)
    program = jax.jit(in_order.least_program(problem(cell, sizes), in_place=True))
    dh = np.asarray(program(*arguments(cell, sizes))[0])
    assert 1e-12 < np.abs(dh).max() < 1e6


@pytest.mark.parametrize("build", [in_order.limit_in_order, in_order.limit_jit_in_order])
@pytest.mark.parametrize("cell", FUNCTIONS)
def test_the_limits_run_as_contenders(build: Any, cell: str) -> None:
    contender = build("limit", problem(cell, SIZES), HERE)
    state = contender.start()
    for _ in range(2):
        out, state = contender.step(state, 0.0)
    if contender.wait is not None:
        contender.wait(out)
    assert contender.parameters is None  # it has no gradients to compare


# Tables.


def result(cell: str = "lstm", **seconds: float) -> Result:
    """A result of the limits suite with these seconds at every size."""
    timings = [
        Timing(name.replace("_", "-"), sizes, "float32", [each] * 5, temporary_bytes=sizes.T)
        for sizes in PLANS[Suite.LIMITS].sizes
        for name, each in seconds.items()
    ]
    described = {
        "device": "cpu", "processor": "abacus", "threads": {"processors": 2},
        "vector extensions": [], "versions": {"numpy": "2"}, "taken": "today",
    }  # fmt: skip
    return Result("limits", cell, "autodiff", 0, described, timings, [], {})


FOUND = {
    "manual": 2.0, "manual_jit": 1.9, "autodiff": 2.0, "torch": 2.2, "limit": 1.0,
    "limit_jit": 1.1, "limit_in_order": 1.25, "limit_jit_in_order": 1.7,
}  # fmt: skip


def test_the_tables_say_which_targets_are_beyond_the_limit() -> None:
    share, over_autodiff, over_torch = (compare(result(**FOUND), each) for each in COMPARISONS)
    of_share = [line.split(" | ")[-2:] for line in share.splitlines()[2:]]
    assert of_share == [
        ["0.60", f"{SHORT} |"], ["0.75", f"{SHORT} |"],  # the limit has 0.8
        ["0.85", f"{BEYOND} |"], ["0.85", f"{BEYOND} |"],
    ]  # fmt: skip
    assert over_autodiff.count(f"1.25 | {BEYOND} |") == 4
    assert over_torch.count(f"| {REACHED} |") == 4
    assert "manual-jit-in-shares" not in share + over_autodiff + over_torch  # it has not run


@pytest.mark.parametrize(
    ("by_hand", "limits", "verdict"),
    [
        ([0.5, 1.0], [0.1], REACHED), ([0.9], [1.0, 0.2], SHORT), ([0.9], [0.99], BEYOND),
        ([0.9], [], SHORT), ([], [0.99], BEYOND),
    ],
)  # fmt: skip
def test_a_target_is_beyond_the_limit_only_if_every_limit_is_below(
    by_hand: list[float], limits: list[float], verdict: str
) -> None:
    assert decide(by_hand, limits, 1.0) == verdict


@pytest.mark.parametrize(("cell", "sizes_with_goal"), [("rnn", 3), ("lstm", 4), ("gru", 4)])
def test_each_cell_has_its_own_targets(cell: str, sizes_with_goal: int) -> None:
    tables = [compare(result(cell, **FOUND), each) for each in COMPARISONS]
    assert [len(each.splitlines()) - 2 for each in tables] == [sizes_with_goal, 4, 4]
    assert tables[2].count("| 0.95 |") == 3 * (cell == "lstm")


def test_the_page_shows_them_for_every_cell() -> None:
    page = documentation.attainable(result(**FOUND))
    headings = ["Share of the limit:", "Speed ÷ autodiff:", "Speed ÷ torch:", "A step, float32:"]
    assert [page.index(each) for each in headings] == sorted(page.index(h) for h in headings)
    assert page.startswith("LSTM, abacus")
    names = [name for name, options in RETAKEN.items() if "limits" in options]
    assert names == ["limits-lstm", "limits-gru", "limits"]
    assert set(LIMITS) < set(WITH_LIMITS)
