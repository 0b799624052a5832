"""What is wrong in a special case alone is caught: some sizes, large values, no initial state."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

from bptt_verifier import Report, Verdict, verify
from bptt_verifier.problems.extremes import (
    LARGE,
    complete_sizes,
    draw_large_cell_states,
    draw_padded_problem,
)
from bptt_verifier.problems.problem import Sizes
from manual_bptt import gru, lstm, rnn
from tests.support.cell_subjects import subject
from tests.support.profiles import by_turns
from tests.support.right_derivations import STYLES

pytestmark = pytest.mark.extreme

CELLS: dict[str, Any] = {"rnn": rnn, "lstm": lstm, "gru": gru}
EXAMPLES = 8
Gradients = dict[str, Any]


def right(cell: str, params: Any, x: Any, y: Any, **options: Any) -> Gradients:
    module = CELLS[cell]
    _, found = module.gradients(module.Params(*params), x, y, **options)
    return {name: getattr(found, name) for name in "UWV"}


def wrong_where(cell: str, special: Callable[[Sizes], bool]) -> Callable[..., Gradients]:
    def gradients(params: Any, x: Any, y: Any) -> Gradients:
        found = right(cell, params, x, y)
        if special(Sizes(*map(int, (*x.shape, *params.V.shape[::-1])))):
            found["V"] = -found["V"]
        return found

    return gradients


def judge(gradients: Callable[..., Any], cell: str = "rnn", **options: Any) -> Report:
    return verify(gradients, model=cell, examples=EXAMPLES, **options)


def details(report: Report) -> list[tuple[str, Any]]:
    return [(mistake.name, mistake.details) for mistake in report.mistakes]


SPECIAL: dict[str, Callable[[Sizes], bool]] = {
    "T > 30": lambda s: s.T > 30,
    "B > 4": lambda s: s.B > 4,
    "H > 7": lambda s: s.H > 7,
    "D > 30": lambda s: s.D > 30,
    "O > 4": lambda s: s.O > 4,
    "all large": lambda s: min(s) > 30,
    "all one": lambda s: set(s) == {1},
    "all equal": lambda s: len(set(s)) == 1 and s.T > 1,
}


SLOW = {"T > 30", "B > 4", "all large", "D > 30", "O > 4"}
EVERYWHERE = [
    *(pytest.param("rnn", each, marks=[pytest.mark.slow] * (each in SLOW)) for each in SPECIAL),
    *(pytest.param(cell, "H > 7", marks=pytest.mark.slow) for cell in ("lstm", "gru")),
]


@cache
def report_where(cell: str, special: str) -> Report:
    return judge(wrong_where(cell, SPECIAL[special]), cell)


@pytest.mark.table(3)
@pytest.mark.parametrize(("cell", "special"), EVERYWHERE)
def test_what_is_wrong_at_special_sizes_alone_is_caught(cell: str, special: str) -> None:
    report = report_where(cell, special)
    assert report.verdict is Verdict.DISAGREES
    assert "your numbers are wrong with T=" in report.mistakes[0].explanation
    assert report.counterexample is not None
    assert report.counterexample.gradient == "V"  # the one that is wrong


@pytest.mark.rest
@pytest.mark.parametrize(
    ("special", "sizes"),
    [
        ("H > 7", "T=1 B=1 D=1 H=8 O=1"),
        pytest.param("B > 4", "T=1 B=5 D=1 H=1 O=1", marks=pytest.mark.slow),
    ],
)
def test_the_counterexample_of_a_large_problem_is_as_small_as_possible(
    special: str, sizes: str
) -> None:
    report = report_where("rnn", special)
    assert report.counterexample is not None
    assert report.counterexample.sizes.startswith(sizes)
    assert "np.array" in report.counterexample.reproduce


SEVERAL_STEPS = [("rnn", 30), ("lstm", 50)]


@pytest.mark.rest
@pytest.mark.parametrize(
    ("cell", "steps"),
    [("rnn", 100), *(pytest.param(*each, marks=pytest.mark.slow) for each in SEVERAL_STEPS)],
)
def test_truncation_after_many_steps_is_named(cell: str, steps: int) -> None:
    report = judge(lambda p, x, y: right(cell, p, x, y, truncation=steps), cell)
    ((name, found),) = details(report)
    assert (name, found["steps"]) == ("truncated", steps)


@pytest.mark.rest
def test_a_state_detached_every_sixteen_steps_is_not_called_truncation() -> None:
    def detached(params: Any, x: Any, y: Any) -> Gradients:
        kept = (len(x) - 1) % 16 + 1  # since the last step that was detached
        return right("rnn", params, x, y, truncation=kept)

    report = judge(detached)
    assert report.verdict is Verdict.DISAGREES
    assert [mistake.name for mistake in report.mistakes] == ["unknown"]


VALUES: dict[str, Callable[[Any, Any], bool]] = {
    "the last input is zero": lambda x, y: x.any() and not x[-1].any(),
    "all sequences and targets are equal": lambda x, y: (
        len(y) > 1 and bool((x == x[:, :1]).all() and (y == y[:1]).all() and x.any())
    ),
}


@pytest.mark.rest
@pytest.mark.parametrize(("where", "cell"), by_turns([*VALUES], ["rnn", "lstm", "gru"]))
def test_what_is_wrong_at_some_values_alone_disagrees(where: str, cell: str) -> None:
    def sometimes(params: Any, x: Any, y: Any) -> Gradients:
        found = right(cell, params, x, y)
        return found | {"W": (1.01 if VALUES[where](x, y) else 1.0) * found["W"]}

    report = judge(sometimes, cell)
    assert report.verdict is Verdict.DISAGREES, str(report)
    assert [n for n, r in report.parameters.items() if r.verdict is Verdict.DISAGREES] == ["W"]


@pytest.mark.rest
@pytest.mark.parametrize(
    ("limit", "cell"), by_turns([1000.0, 5.0, 100.0, 10.0], ["rnn", "lstm", "gru"])
)
def test_clipped_gradients_are_named(cell: str, limit: float) -> None:
    def clipped(params: Any, x: Any, y: Any) -> Gradients:
        found = right(cell, params, x, y)
        return {name: np.clip(value, -limit, limit) for name, value in found.items()}

    ((name, found),) = details(judge(clipped, cell))
    assert (name, found["value"]) == ("clipped", limit)


def plain(
    params: Any, x: Any, y: Any, *, largest: float = np.inf, residual: float = np.inf,
    tanh: Callable[[Any], Any] = np.tanh,
) -> Gradients:  # fmt: skip
    """The RNN with slopes zeroed beyond |a| = `largest`, and the residual clipped."""
    U, W, V = params
    h, a = [np.zeros((x.shape[1], len(W)), x.dtype)], []
    for x_t in x:
        a.append(x_t @ U.T + h[-1] @ W.T)
        h.append(tanh(a[-1]))
    dy = 2 * np.clip(h[-1] @ V.T - y, -residual, residual) / y.size
    dU, dW, dh = np.zeros_like(U), np.zeros_like(W), dy @ V
    for t in reversed(range(len(x))):
        delta = dh * (1 - h[t + 1] ** 2) * (np.abs(a[t]) < largest)
        dU, dW, dh = dU + delta.T @ x[t], dW + delta.T @ h[t], delta @ W
    return {"U": dU, "W": dW, "V": dy.T @ h[-1]}


@pytest.mark.table(4)
@pytest.mark.parametrize(
    "wrong", [{"largest": 7}, {"largest": 9}, {"residual": 10}, {"residual": 1000}]
)
def test_saturated_slopes_and_clamped_losses_are_caught(wrong: dict[str, float]) -> None:
    assert judge(lambda p, x, y: plain(p, x, y, **wrong)).verdict is Verdict.DISAGREES


def plain_lstm(
    params: Any, x: Any, y: Any, *, limit: float = np.inf, at_zero: float = 0.5
) -> Gradients:
    """The LSTM with its cell state clipped, which its backward pass ignores, and this σ(0)."""

    def sigmoid(a: Any) -> Any:
        return np.where(a == 0, a.dtype.type(at_zero), 1 / (1 + np.exp(-a)))

    U, W, V, b, c = params
    cells = [np.zeros((x.shape[1], W.shape[1]), x.dtype)]
    h, gates = [cells[0]], []
    for x_t in x:
        i, f, g, o = np.split(x_t @ U.T + h[-1] @ W.T + b, 4, axis=1)
        gates.append((sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)))
        i, f, g, o = gates[-1]
        cells.append(np.clip(f * cells[-1] + i * g, -limit, limit))
        h.append(o * np.tanh(cells[-1]))
    dy = 2 * (h[-1] @ V.T + c - y) / y.size
    dU, dW, db, dh, dc = np.zeros_like(U), np.zeros_like(W), np.zeros_like(b), dy @ V, 0.0
    for t in reversed(range(len(x))):
        i, f, g, o = gates[t]
        state = np.tanh(cells[t + 1])
        dc = dc + dh * o * (1 - state**2)
        slopes = [dc * g * i * (1 - i), dc * cells[t] * f * (1 - f)]
        slopes += [dc * i * (1 - g**2), dh * state * o * (1 - o)]
        da = np.concatenate(slopes, axis=1)
        dU, dW, db = dU + da.T @ x[t], dW + da.T @ h[t], db + da.sum(axis=0)
        dh, dc = da @ W, dc * f
    return {"U": dU, "W": dW, "V": dy.T @ h[-1], "b": db, "c": dy.sum(axis=0)}


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"limit": 5}, marks=pytest.mark.slow),
        pytest.param({"limit": 50}, marks=pytest.mark.slow),
        pytest.param({"at_zero": 0.0}, marks=pytest.mark.rest),
    ],
)
def test_cell_states_grow_and_units_begin_at_zero(wrong: dict[str, float]) -> None:
    report = judge(lambda p, x, y: plain_lstm(p, x, y, **wrong), "lstm", bias=True)
    assert report.verdict is Verdict.DISAGREES


@pytest.mark.rest
def test_a_plain_lstm_agrees() -> None:
    report = judge(plain_lstm, "lstm", bias=True)
    assert report.verdict is Verdict.AGREES, str(report)


@pytest.mark.parametrize("cell", CELLS)
def test_an_lstm_alone_is_drawn_with_large_cell_states(cell: str) -> None:
    made = subject(cell)
    found = [*draw_large_cell_states(made.draw_problem, np.random.default_rng(0))]
    assert len(found) == (cell == "lstm")
    for problem in found:
        _, trace = lstm.forward(lstm.Params(**problem.weights), problem.x, **problem.first)
        states = np.abs(trace.cells)
        assert (states[-2] > 50).all()
        assert ((states[-1] > 0.5) & (states[-1] < 2)).all()


@pytest.mark.parametrize("cell", CELLS)
def test_a_padded_sequence_begins_with_zeros(cell: str) -> None:
    made = subject(cell)
    problem = draw_padded_problem(made.draw_problem, 3)
    steps = [bool(step.any()) for step in problem.x]
    assert steps == [False, False, True, True, True]
    assert not any(state.any() for state in problem.first.values())
    assert all(value.any() for value in problem.weights.values())


def tanh_by_exponentials(a: Any) -> Any:
    """Tanh, of which small values lose digits."""
    e = np.exp(-2 * np.abs(a))
    return np.sign(a) * (1 - e) / (1 + e)


@pytest.mark.rest
def test_extreme_cases_are_tried_where_other_formulas_exceed_the_bound() -> None:
    def derive(params: Any, x: Any, y: Any, largest: float = np.inf) -> Any:
        return plain(params, x, y, largest=largest, tanh=tanh_by_exponentials)

    report = verify(derive)
    assert report, str(report)
    assert "scatter like rounding" in " ".join(report.notes)  # so that the test is one
    assert report.largest_sizes["T"] == 200
    assert verify(partial(derive, largest=7)).verdict is Verdict.DISAGREES


def with_ones(state: Any, params: Any, x: Any) -> Any:
    return np.ones((x.shape[1], params.W.shape[1]), x.dtype) if state is None else state


def test_what_is_wrong_without_an_initial_state_alone_is_caught() -> None:
    def gradients(params: Any, x: Any, y: Any, h0: Any = None) -> Gradients:
        return right("rnn", params, x, y, h0=with_ones(h0, params, x))

    (mistake,) = judge(gradients).mistakes
    assert (
        mistake.explanation
        == "your numbers are wrong where h0 is not given, and right where it is."
    )


def is_large(x: Any, letter: str) -> bool:
    return bool(x.shape["TBD".index(letter)] > {"T": 8, "B": 4, "D": 8}[letter])


@pytest.mark.rest
@pytest.mark.parametrize("letter", "TBD")
def test_sizes_are_large_without_an_initial_state_too(letter: str) -> None:
    def gradients(params: Any, x: Any, y: Any, h0: Any = None) -> Gradients:
        wrong = h0 is None and is_large(x, letter)
        return right("rnn", params, x, y, h0=with_ones(h0, params, x) if wrong else h0)

    (mistake,) = judge(gradients).mistakes
    assert mistake.explanation.endswith("wrong where h0 is not given, and right where it is.")


@pytest.mark.rest
@pytest.mark.parametrize("letter", "TBD")
@pytest.mark.parametrize("kind", ["float32", "strided"])
def test_formats_and_layouts_are_tried_at_large_sizes_too(kind: str, letter: str) -> None:
    def gradients(params: Any, x: Any, y: Any) -> Any:
        special = x.dtype == np.float32 if kind == "float32" else not x.flags.c_contiguous
        found = right("rnn", params, x, y)
        factor = x.dtype.type(1.5 if special and is_large(x, letter) else 1)
        return found._replace(W=factor * found.W)

    assert judge(gradients).verdict is Verdict.DISAGREES


@pytest.mark.slow
@pytest.mark.table(2)
@pytest.mark.parametrize("missing", ["h0", "c0"])
def test_each_optional_state_of_an_lstm_is_left_out(missing: str) -> None:
    def gradients(params: Any, x: Any, y: Any, h0: Any = None, c0: Any = None) -> Any:
        states = {"h0": h0, "c0": c0}
        states[missing] = with_ones(states[missing], params, x)
        return lstm.value_and_grad(lstm.Params(*params), x, y, **states)

    report = judge(gradients, "lstm")
    assert report.mistakes[0].name == "forward-differs"
    assert f"{missing} was not given: it is zero." in report.mistakes[0].explanation


@pytest.mark.rest
def test_a_right_derivation_with_an_optional_state_agrees() -> None:
    def gradients(params: Any, x: Any, y: Any, h0: Any = None, *, c0: Any = None) -> Any:
        return lstm.value_and_grad(lstm.Params(*params), x, y, h0, c0)

    assert judge(gradients, "lstm")


@pytest.mark.rest
def test_a_relu_whose_slope_at_zero_is_one_agrees() -> None:
    def gradients(params: Any, x: Any, y: Any) -> Gradients:
        U, W, V = params
        h, a = [np.zeros((x.shape[1], len(W)), x.dtype)], []
        for x_t in x:
            a.append(x_t @ U.T + h[-1] @ W.T)
            h.append(np.maximum(a[-1], 0))
        dy = 2 * (h[-1] @ V.T - y) / y.size
        dU, dW, dh = np.zeros_like(U), np.zeros_like(W), dy @ V
        for t in reversed(range(len(x))):
            delta = dh * (a[t] >= 0)
            dU, dW, dh = dU + delta.T @ x[t], dW + delta.T @ h[t], delta @ W
        return {"U": dU, "W": dW, "V": dy.T @ h[-1]}

    assert judge(gradients, activation="relu")


def test_every_report_states_the_largest_sizes() -> None:
    report = judge(lambda p, x, y: right("rnn", p, x, y))
    assert report.largest_sizes == LARGE._asdict()
    assert report.to_dict()["largest_sizes"] == LARGE._asdict()
    for text in (str(report), report.to_html()):
        assert f"{report.cases} cases up to T=200 B=33 D=33 H=65 O=33" in text


@pytest.mark.slow
def test_sizes_that_are_asked_for_are_tried() -> None:
    wrong = wrong_where("rnn", lambda s: s.T > 200)
    assert judge(wrong)
    report = judge(wrong, sizes=[{"H": 9}, {"T": 230, "B": 3}])
    assert report.verdict is Verdict.DISAGREES
    assert report.largest_sizes["T"] == 230
    assert report.counterexample is not None
    assert report.counterexample.sizes.startswith("T=201 B=1 D=1 H=1 O=1")


def test_sizes_that_are_not_given_are_small() -> None:
    assert complete_sizes({"T": 500, "B": 64}) == Sizes(T=500, B=64, D=3, H=4, O=2)


@pytest.mark.slow
def test_a_slow_derivation_is_not_called_where_all_sizes_are_large() -> None:
    seen = []

    def gradients(params: Any, x: Any, y: Any, h0: Any) -> Any:
        seen.append(min(x.shape))
        return STYLES["forward recursion"]("tanh")(params, x, y, h0)

    report = judge(gradients)
    assert report
    assert max(seen) == 16
    assert "T=200 B=33 D=33 H=65 O=33 together were not tried" in report.notes[0]
