"""Every mistake in a derivation of a cell is caught and named, and no correct one is accused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt_verifier import Report, Verdict, verify
from bptt_verifier.judge.cells import CellSubject
from bptt_verifier.judge.comparisons import compare_at
from bptt_verifier.judge.first_states import TakenStates
from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.submission import Submission
from bptt_verifier.problems.extremes import LARGE_PROBLEMS
from bptt_verifier.problems.problem import ACTIVATIONS, LARGEST, STATES, Sizes
from bptt_verifier.tolerance.comparison import worst_of
from manual_bptt import gru, lstm, rnn
from tests.support.derivations import derivation, options_of, stated_model
from tests.support.planting import (
    B3,
    B5,
    GATED_MISTAKES,
    MISTAKES,
    MORE_GATED_MISTAKES,
    Mistake,
    identify,
    planted,
)
from tests.support.profiles import by_turns
from tests.support.right_derivations import GATED_STYLES, STYLES

CELLS = {"rnn": rnn, "lstm": lstm, "gru": gru}
PRECISIONS = (np.float32, np.float64)
NAMED = [m for m in (*MISTAKES, *GATED_MISTAKES, *MORE_GATED_MISTAKES) if m.called]


def subject(cell: str = "rnn", option: str = "tanh", **changed: Any) -> CellSubject:
    found = CellSubject(
        cell, option, "mse", bias=False, states=TakenStates(STATES[cell]), examples=8, seed=0
    )
    return replace(found, **changed)


def names(report: Report) -> list[str]:
    return [mistake.name for mistake in report.mistakes]


def of_name(name: str, cell: str = "rnn") -> Mistake:
    table = MISTAKES if cell == "rnn" else GATED_MISTAKES
    return next(m for m in table if (m.name, m.suspect) == (name, cell))


# Wrong ones.


@pytest.mark.table(61)
@pytest.mark.parametrize(("mistake", "dtype"), by_turns(NAMED, PRECISIONS), ids=identify)
def test_a_mistake_is_caught_and_named(mistake: Mistake, dtype: type, tmp_path: Path) -> None:
    wrong = derivation(planted(mistake, tmp_path), mistake.suspect, dtype, **options_of(mistake))
    report = verify(wrong, examples=12, **stated_model(mistake))
    assert report.verdict is Verdict.DISAGREES
    # Where a float32 derivation writes into its arguments, half of the problems are copied before.
    assert names(report) == [mistake.called], str(report)


RNN_LINES = {
    "W untransposed": Mistake("one of two", "rnn.py", B3, B3 + ".T"),
    "path dropped": Mistake("one of two", "rnn.py", B3, "np.zeros_like(dh)"),
    "∂L/∂W transposed": Mistake("one of two", "rnn.py", B5, B5 + ".T"),
    "state after the step": Mistake("one of two", "rnn.py", B5, B5.replace("h[:-1]", "h[1:]")),
    "∂L/∂x negative": Mistake("one of two", "rnn.py", "x=adjoints @ U,", "x=-adjoints @ U,"),
    "∂L/∂h0 zero": Mistake("one of two", "rnn.py", "h0=dh,", "h0=0 * dh,"),
    "no φ′": Mistake("one of two", "rnn.py", "dh * phi.derivative(a[t - 1], h[t])", "dh"),
}
PAIRS = {
    "rnn": [
        ("W untransposed", "state after the step", {"untransposed-recurrent-weight", "hidden-state-off-by-one"}),
        ("path dropped", "∂L/∂x negative", {"recurrent-path-dropped", "sign-flipped"}),
        ("∂L/∂W transposed", "∂L/∂h0 zero", {"transposed-gradient", "zero-gradient"}),
        ("W untransposed", "no φ′", {"untransposed-recurrent-weight", "activation-derivative-missing"}),
    ],
    "lstm": [
        ("tanh′ of the cell missing", "cell after the step in the forget gate", {"activation-derivative-missing", "hidden-state-off-by-one"}),
        ("recurrent path dropped", "∂L/∂c0 clipped", {"recurrent-path-dropped", "clipped"}),
        ("state after the step in ∂L/∂W", "∂L/∂c0 is ∂L/∂h0", {"hidden-state-off-by-one", "wrong-operand"}),
        ("a peephole in the forget gate", "tanh′ on the forget gate", {"unknown"}),
    ],
}  # fmt: skip


@pytest.mark.table(8)
@pytest.mark.parametrize(
    ("cell", "pair"), [(cell, pair) for cell, pairs in PAIRS.items() for pair in pairs]
)
def test_two_mistakes_are_caught_and_both_named(
    cell: str, pair: tuple[str, str, set[str]], tmp_path: Path
) -> None:
    first, second = (RNN_LINES[name] if cell == "rnn" else of_name(name, cell) for name in pair[:2])
    wrong = derivation(planted(first, tmp_path, second), cell)
    report = verify(wrong, model=cell, bias=cell != "rnn", examples=24)
    assert report.verdict is Verdict.DISAGREES
    assert set(names(report)) == pair[2], str(report)


def test_unnamed_mistake_is_unknown_where_a_sequence_of_one_step_fails() -> None:
    def gradients(params: Any, x: Any, y: Any) -> dict[str, Any]:
        _, right = rnn.value_and_grad(params, x, y)
        return {"U": right.U**3, "W": right.W, "V": right.V}

    # Among the first two failing cases of this seed is one with T = 1.
    assert names(verify(gradients, examples=6, seed=8)) == ["unknown"]


@pytest.mark.table(5)
@pytest.mark.parametrize(
    ("cell", "written", "equation", "said", "first_wrong_step"),
    [
        ("rnn", "W where Wᵀ belongs", "B3", "W is used where its transpose belongs; the equation is", 29),
        ("lstm", "tanh′ of the cell missing", "S5", "tanh′(c_t) is missing; the equation is ∂L/∂c_t =", 30),
        ("lstm", "cell index −1 wraps around", "S7", "c_{t-1} (at t = 1: c_T) is used where c_{t-1}", 1),
        ("gru", "z where 1 − z belongs", "G6", "z_t is used where 1 − z_t belongs; the equation is δ_n =", 30),
        ("gru", "reset gate missing on the way back", "G12", "r_t is missing", 29),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_equation_and_first_wrong_step(
    cell: str, written: str, equation: str, said: str, first_wrong_step: int, tmp_path: Path
) -> None:
    wrong = derivation(planted(of_name(written, cell), tmp_path), cell)
    report = verify(wrong, model=cell, bias=cell != "rnn", examples=40)
    (found,) = report.mistakes
    assert found.equation == equation
    assert found.explanation.startswith(said)
    assert found.explanation in str(report)
    assert report.first_wrong_step == first_wrong_step


@pytest.mark.rest
def test_a_zeroed_first_adjoint_is_caught_where_no_total_can_see_it(tmp_path: Path) -> None:
    wrong, right = derivation(planted(of_name("δ_1 is zero"), tmp_path)), derivation(rnn)

    def only_on_long_sequences(params: Any, x: Any, y: Any, h0: Any) -> Any:
        found = (wrong if len(x) >= 30 else right)(params, x, y, h0)
        return {name: found[name] for name in ("U", "W", "V")}

    report = verify(only_on_long_sequences, examples=40)
    assert report.verdict is Verdict.DISAGREES
    assert report.first_wrong_step == 1
    # With one length alone, truncation after 29 steps would give the same.
    assert names(report) == ["unknown"]
    assert [step.t for step in report.steps if step.verdict is Verdict.DISAGREES] == [1]


ONE_SLOW = ["rnn", "gru", pytest.param("lstm", marks=pytest.mark.slow)]


@pytest.mark.table(3)
@pytest.mark.parametrize("cell", ONE_SLOW)
def test_what_is_wrong_at_one_length_alone_is_caught(cell: str) -> None:
    right = derivation(CELLS[cell], cell)

    def wrong_at_eleven_steps(params, x, y, *first):
        found = right(params, x, y, *first)
        return found | {"U": -found["U"]} if len(x) == 11 else found

    def of_lstm(params, x, y, h0, c0):
        return wrong_at_eleven_steps(params, x, y, h0, c0)

    def of_others(params, x, y, h0):
        return wrong_at_eleven_steps(params, x, y, h0)

    report = verify(of_lstm if cell == "lstm" else of_others, model=cell, examples=40)
    assert names(report) == ["unknown"]
    assert "your numbers are wrong with T=11 " in report.mistakes[0].explanation


@pytest.mark.table(3)
@pytest.mark.parametrize("cell", CELLS)
def test_what_is_wrong_at_one_step_alone_is_caught(cell: str) -> None:
    right = derivation(CELLS[cell], cell)

    def gradients(params: Any, x: Any, y: Any) -> Any:
        states = [np.zeros((len(y), params.W.shape[1]), x.dtype) for _ in STATES[cell]]
        found = right(params, x, y, *states)
        return found | {"U": -1.5 * found["U"]} if len(x) == 1 else found

    (mistake,) = verify(gradients, model=cell, examples=40).mistakes
    assert mistake.name == "unknown"
    assert "wrong with T=1" in mistake.explanation


@pytest.mark.table(3)
@pytest.mark.extreme
@pytest.mark.parametrize("cell", ONE_SLOW)
def test_as_many_random_problems_of_every_cell_are_tried_as_are_asked_for(cell: str) -> None:
    counts = []
    verify(
        derivation(CELLS[cell], cell),
        model=cell,
        examples=11,
        progress=lambda done, total: counts.append((done, total)),
    )
    extra = 4 if cell == "rnn" else 0  # sequences along which each state is one unit
    large_values = 15 + (cell == "lstm")  # in its cell state
    extreme = 18 + 1 + large_values + LARGE_PROBLEMS  # degenerate, padded, of large values, sizes
    total = 11 + extra + 24 + extreme
    assert counts[-1] == (total, total)


def test_a_gradient_that_is_there_on_some_problems_only_is_no_obstacle() -> None:
    def now_and_then(params, x, y):
        _, right = rnn.gradients(rnn.Params(*params), x, y)
        some = {"x": right.x} if len(x) % 2 else {"c0": right.x}
        return {"U": right.U, "W": 2 * right.W, "V": right.V} | some

    assert names(verify(now_and_then, examples=40)) == ["constant-factor"]


@pytest.mark.table(3)
@pytest.mark.parametrize(
    ("cell", "found_in"), by_turns([*CELLS], [(np.float64, 1e-9), (np.float32, 1e-3)])
)
def test_a_small_relative_error_in_one_entry_is_caught(
    cell: str, found_in: tuple[type, float]
) -> None:
    dtype, relative = found_in
    right = derivation(CELLS[cell], cell, dtype)

    def slightly_wrong(params: Any, x: Any, y: Any, h0: Any, *c0: Any) -> Any:
        found = right(params, x, y, h0, *c0)
        found["W"].flat[np.argmax(np.abs(found["W"]))] *= 1 + relative
        return found

    def of_lstm(params, x, y, h0, c0):
        return slightly_wrong(params, x, y, h0, c0)

    report = verify(of_lstm if cell == "lstm" else slightly_wrong, model=cell, examples=24)
    assert report.verdict is Verdict.DISAGREES
    assert [n for n, r in report.parameters.items() if r.verdict is Verdict.DISAGREES] == ["W"]
    assert names(report) == ["unknown"]


@pytest.mark.table(3)
@pytest.mark.parametrize(("cell", "dtype"), by_turns([*CELLS], PRECISIONS))
def test_what_is_wrong_in_one_precision_alone_is_named(cell: str, dtype: type) -> None:
    right = derivation(CELLS[cell], cell)

    def wrong(params: Any, x: Any, y: Any, h0: Any, *c0: Any) -> Any:
        found = right(params, x, y, h0, *c0)
        return found | {"W": -found["W"]} if x.dtype == dtype else found

    def of_lstm(params, x, y, h0, c0):
        return wrong(params, x, y, h0, c0)

    report = verify(of_lstm if cell == "lstm" else wrong, model=cell, examples=12)
    assert names(report) == ["sign-flipped"], str(report)


def test_a_result_is_held_to_its_own_precision() -> None:
    right = derivation(rnn)

    def with_a_coarse_x(params, x, y, h0):
        found = right(params, x, y, h0)
        found["W"] = found["W"] * (1 + 1e-6)
        return found | {"x": found["x"].astype(np.float32)}

    report = verify(with_a_coarse_x, examples=20)
    assert [n for n, r in report.parameters.items() if r.verdict is Verdict.DISAGREES] == ["W"]


# Correct ones.


@pytest.mark.rest
@settings(max_examples=max(20, settings().max_examples // 2))
@given(data=st.data())
def test_no_correct_derivation_is_called_wrong(data: st.DataObject) -> None:
    of_rnn = [("rnn", style) for style in sorted(STYLES)]
    cell, style = data.draw(st.sampled_from([*of_rnn, *GATED_STYLES, ("lstm", ""), ("gru", "")]))
    slow = cell != "rnn" or style in ("sum over Jacobians", "forward recursion")
    sizes = data.draw(
        st.sampled_from([Sizes(200, 1, 2, 4, 2), Sizes(50, 2, 3, 6, 2)])
        if not slow and data.draw(st.booleans())
        else st.builds(Sizes, *(st.integers(1, most) for most in LARGEST))
    )
    resets = ["after"] if style else gru.RESETS
    option = {"rnn": st.sampled_from(ACTIVATIONS), "gru": st.sampled_from(resets)}
    of_cell = subject(cell, data.draw(option.get(cell, st.just(""))))
    problem = of_cell.draw_problem(
        np.random.default_rng(data.draw(st.integers(0, 2**32))),
        sizes,
        data.draw(st.sampled_from([np.float32, np.float64])),
        spread=data.draw(st.floats(0.2, 3.0)),
        target_scale=data.draw(st.sampled_from([1.0, 10.0, 100.0])),
    )
    if cell == "rnn":
        submission = STYLES[style](of_cell.option)
    elif style:
        submission = GATED_STYLES[cell, style]
    else:
        submission = derivation(CELLS[cell], cell, **problem.option)
    with np.errstate(over="ignore", invalid="ignore"):
        found = compare_at(Submission(submission), of_cell, of_cell.make_case(problem))
    assert isinstance(found, Compared), str(found)
    assert not found.fails, [c for c in found.comparisons if c.error > 1]


@pytest.mark.parametrize("style", sorted(STYLES))
def test_the_verdict_on_a_correct_derivation_is_that_it_agrees(style: str) -> None:
    report = verify(STYLES[style]("tanh"), examples=60)
    assert report
    assert report.mistakes == ()
    assert report.first_wrong_step is None
    assert report.counterexample is None
    assert all(result.error <= 1 for result in report.parameters.values())


@pytest.mark.parametrize(("cell", "style"), GATED_STYLES)
def test_another_formula_of_the_same_gates_is_right_where_they_saturate(
    cell: str, style: str
) -> None:
    of_cell = subject(cell, "after" if cell == "gru" else "")
    for seed in range(20):
        rng = np.random.default_rng(seed)
        # Steep enough that the last bits of 1 + tanh(a/2) are all that is left of a gate.
        problem = of_cell.draw_problem(rng, Sizes(1, 1, 3, 2, 4), np.float64)
        steep = problem._replace(params=problem.params._replace(U=6 * problem.params.U))
        found = compare_at(Submission(GATED_STYLES[cell, style]), of_cell, of_cell.make_case(steep))
        assert isinstance(found, Compared)
        assert not found.fails, [c for c in found.comparisons if c.error > 1]


@pytest.mark.table(3)
@pytest.mark.parametrize(
    ("cell", "bias", "options"),
    [("rnn", True, {}), ("lstm", False, {}), ("gru", True, {"reset": "before"})],
)
def test_a_right_derivation_agrees_at_every_step(
    cell: str, bias: bool, options: dict[str, str]
) -> None:
    module: Any = CELLS[cell]
    right = derivation(module, cell, **options)
    report = verify(right, model=cell, bias=bias, examples=20, **options)
    assert report.verdict is Verdict.AGREES, str(report)
    weights = [n for n in module.Params._fields if bias or n in "UWV"]
    assert set(report.parameters) == {"loss", *weights, "x", *STATES[cell], "adjoints"}
    assert {step.verdict for step in report.steps} == {Verdict.AGREES}
    assert len(report.steps) == 30


@pytest.mark.parametrize("activation", ["tanh", "relu", "identity"])
def test_the_gradient_for_W_separates_the_steps_where_states_are_single_units(
    activation: str,
) -> None:
    right = derivation(rnn, activation=activation)
    of_cell = subject(option=activation, seed=1)
    vanishing = of_cell.make_case(next(of_cell.draw_state_probes()))

    def without_the_first_step(params: Any, x: Any, y: Any, h0: Any) -> Any:
        found = right(params, x, y, h0)
        first = np.einsum("bh,bk->hk", found["adjoints"][0], h0)
        return {"U": found["U"], "W": found["W"] - first, "V": found["V"]}

    assert not getattr(compare_at(Submission(right), of_cell, vanishing), "fails", True)
    found = compare_at(Submission(without_the_first_step), of_cell, vanishing)
    assert isinstance(found, Compared)
    missing = np.abs(found.submitted["W"] - found.values["W"]).max()
    assert missing < 1e-7 * np.abs(found.values["W"]).max()
    worst = worst_of(found.comparisons)
    assert worst.name == "W"
    assert worst.entry[1] == 0  # the unit that is on in h_0
    assert worst.verdict is Verdict.DISAGREES


def test_a_bias_may_be_anything_that_is_true() -> None:
    bias: Any = np.array(True)
    assert verify(derivation(lstm, "lstm"), model="lstm", bias=bias, examples=8)


# What `verify` itself refuses.


@pytest.mark.parametrize(
    ("arguments", "exception", "message"),
    [
        ((3,), TypeError, "gradients: expected a function, found int"),
        ((lambda p, x, y: None, {"activation": "cos"}), ValueError, "activation: expected one of"),
        (
            (lambda p, x, y: None, {"loss": "huber"}),
            ValueError,
            "loss: expected one of mse, half_sse, found 'huber'",
        ),
        ((lambda p, x, y: None, {"examples": 0}), ValueError, "examples: expected at least 1"),
        ((lambda p, x, y: None, {"examples": 2.5}), TypeError, "examples: expected an integer"),
        ((lambda p, x, y: None, {"sizes": [{"t": 9}]}), ValueError, "sizes: expected one of T, B"),
        ((lambda p, x, y: None, {"sizes": [{"T": 0}]}), ValueError, "sizes: T: expected at least"),
        ((lambda p, x, y: None, {"sizes": [9]}), TypeError, "sizes: expected a mapping such as"),
        ((lambda p, x, y: None, {"seed": -1}), ValueError, "seed: expected at least 0, found -1"),
        (
            (lambda p, x, y: None, {"model": "lstn"}),
            ValueError,
            "model: expected one of rnn, lstm, gru, found 'lstn'",
        ),
        (
            (lambda p, x, y: None, {"model": "gru", "reset": "never"}),
            ValueError,
            "reset: expected one of after, before, found 'never'",
        ),
        (
            (lambda p, x, y: None, {"model": "gru", "activation": "relu"}),
            ValueError,
            "activation: expected one of tanh, found 'relu'",
        ),
    ],
)
def test_verify_says_what_it_wants(
    arguments: tuple[Any, ...], exception: type[Exception], message: str
) -> None:
    gradients, *options = arguments
    with pytest.raises(exception, match=message):
        verify(gradients, **(options[0] if options else {}))
