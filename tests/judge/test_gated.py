"""Derivations of the project's LSTM and GRU are judged as those of its RNN are."""

from functools import partial, wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from bptt_verifier.judge.gated import ORDINARY, Cell, contract, oracle_of, setting
from typer.testing import CliRunner

from bptt_verifier import Verdict, verify
from bptt_verifier.commands.main import app
from bptt_verifier.judge.submission import Broken, States, states_taken
from bptt_verifier.reference import stated_cells
from bptt_verifier.report import nine_digits
from jax_reference import padded
from manual_bptt import gru, lstm
from tests.support.planting import (
    GATED_MISTAKES,
    MORE_GATED_MISTAKES,
    Mistake,
    planted,
)

MODULES = {"lstm": lstm, "gru": gru}
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
NAMED = [mistake for mistake in GATED_MISTAKES + MORE_GATED_MISTAKES if mistake.called]
WITH_RESET_BEFORE = {
    "reset gate before the product on the way back",
    "reset state missing in ∂L/∂W_n",
    "σ′ before the product",
}


def derivation(module: ModuleType, cell: str, dtype: Any = None, **options: Any) -> Any:
    """A module's `gradients` as somebody would hand it in, computing in `dtype` if there is one."""

    def gradients(params: Any, *arrays: Any) -> dict[str, Any]:
        params, arrays = module.Params(*params), tuple(arrays)
        if dtype is not None:
            params = module.Params(
                *(w if w is None else w.astype(dtype, copy=False) for w in params)
            )
            arrays = tuple(v.astype(dtype, copy=False) for v in arrays)
        value, found = module.gradients(params, *arrays, **options)
        return {"loss": value} | found._asdict()

    def of_lstm(params, x, y, h0, c0):
        return gradients(params, x, y, h0, c0)

    def of_gru(params, x, y, h0):
        return gradients(params, x, y, h0)

    return {"lstm": of_lstm, "gru": of_gru}[cell]


def options_of(mistake: Mistake) -> dict[str, str]:
    """Those with which the mistake shows."""
    return {"reset": "before"} if mistake.name in WITH_RESET_BEFORE else {}


def without_loss(yours: Any) -> Any:
    """The same, but the loss is not returned."""

    @wraps(yours)
    def gradients(*arguments: Any) -> dict[str, Any]:
        found: dict[str, Any] = yours(*arguments)
        del found["loss"]
        return found

    return gradients


@pytest.mark.parametrize(
    ("cell", "bias", "options"), [("lstm", False, {}), ("gru", True, {"reset": "before"})]
)
def test_a_right_derivation_agrees_at_every_step(
    cell: str, bias: bool, options: dict[str, str]
) -> None:
    yours = derivation(MODULES[cell], cell, **options)
    report = verify(yours, model=cell, bias=bias, **options)
    assert report.verdict is Verdict.AGREES, str(report)
    states = ["h0", "c0"] if cell == "lstm" else ["h0"]
    weights = ["U", "W", "V", *(["b", "c", "b_n"] if bias else [])]
    assert list(report.parameters) == [*weights, "x", *states, "adjoints"]
    assert {step.verdict for step in report.steps} == {Verdict.AGREES}
    assert len(report.steps) == 30


@DTYPES
@pytest.mark.parametrize("mistake", NAMED, ids=lambda m: f"{m.suspect}: {m.name}")
def test_a_mistake_is_caught_and_named(mistake: Mistake, dtype: type, tmp_path: Path) -> None:
    cell, options = mistake.suspect, options_of(mistake)
    yours = derivation(planted(mistake, tmp_path), cell, dtype, **options)
    report = verify(yours, model=cell, bias=True, **options)
    assert report.verdict is Verdict.DISAGREES
    assert [found.name for found in report.mistakes] == [mistake.called], str(report)


@pytest.mark.parametrize(
    ("written", "equation", "said", "first_wrong_step"),
    [
        ("tanh′ of the cell missing", "S5", "tanh′(c_t) is missing; right is ∂L/∂c_t =", 30),
        ("cell index −1 wraps around", "S7", "c_{t-1} (at t = 1: c_T) is used where c_{t-1}", 1),
        ("z where 1 − z belongs", "G6", "z_t is used where 1 − z_t belongs; right is δ_n =", 30),
        ("reset gate missing on the way back", "G12", "r_t is missing", 29),
    ],
)
def test_a_mistake_is_named_with_its_equation_and_first_wrong_step(
    written: str, equation: str, said: str, first_wrong_step: int, tmp_path: Path
) -> None:
    mistake = next(m for m in GATED_MISTAKES if m.name == written)
    yours = derivation(planted(mistake, tmp_path), mistake.suspect)
    report = verify(yours, model=mistake.suspect, bias=True)
    (found,) = report.mistakes
    assert found.equation == equation
    assert found.explanation.startswith(said)
    assert found.explanation in str(report)
    assert report.first_wrong_step == first_wrong_step


TWO = {
    "two lines of the way back": (
        "tanh′ of the cell missing", "cell after the step in the forget gate",
        {"activation-derivative-missing", "hidden-state-off-by-one"},
    ),
    "a line and a gradient": (
        "recurrent path dropped", "∂L/∂c0 clipped", {"recurrent-path-dropped", "clipped"},
    ),
    "two gradients": (
        "state after the step in ∂L/∂W", "∂L/∂c0 is ∂L/∂h0",
        {"hidden-state-off-by-one", "wrong-operand"},
    ),
    "one that has no name": (
        "a peephole in the forget gate", "tanh′ on the forget gate", {"unknown"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("pair", TWO.values(), ids=TWO)
def test_two_mistakes_are_caught_and_both_named(
    pair: tuple[str, str, set[str]], tmp_path: Path
) -> None:
    first, second = (
        next(m for m in GATED_MISTAKES if (m.name, m.suspect) == (name, "lstm"))
        for name in pair[:2]
    )
    yours = derivation(planted(first, tmp_path, second), "lstm")
    report = verify(yours, model="lstm", bias=True)
    assert report.verdict is Verdict.DISAGREES
    assert {found.name for found in report.mistakes} == pair[2], str(report)


def gates_in(order: str, packed: str) -> Any:
    """A right derivation that packs the gates in another order."""
    module = MODULES["lstm" if len(order) == 4 else "gru"]
    there = [packed.index(k) for k in order]

    def put(rows: Any, places: Any, axis: int = 0) -> Any:
        blocks = np.split(rows, len(order), axis=axis)
        return np.concatenate([blocks[k] for k in places], axis=axis)

    def gradients(params, x, y, states):
        U, W, V, b, *others = params
        ours = module.Params(put(U, there), put(W, there), V, put(b, there), *others)
        _, found = module.gradients(ours, x, y, *states)
        back = [order.index(k) for k in packed]
        theirs = {name: put(getattr(found, name), back) for name in ("U", "W", "b")}
        return found._asdict() | theirs | {"adjoints": put(found.adjoints, back, -1)}

    if len(order) == 4:
        return lambda params, x, y, h0, c0: gradients(params, x, y, (h0, c0))
    return lambda params, x, y, h0: gradients(params, x, y, (h0,))


def other_lstm(params, x, y, h0, c0):
    return lstm.gradients(lstm.Params(*params), x, y, h0)[1]._asdict() | {"c0": 0 * c0}


def other_gru(params, x, y, h0):
    """z_t and 1 − z_t in each other's place: 1 − σ(a) = σ(−a)."""
    H = h0.shape[1]
    sign = np.ones(3 * H, x.dtype)
    sign[H : 2 * H] = -1
    U, W, V, b, c, b_n = params
    theirs = gru.Params(sign[:, None] * U, sign[:, None] * W, V, sign * b, c, b_n)
    found = gru.gradients(theirs, x, y, h0)[1]
    signed = {"U": sign[:, None] * found.U, "W": sign[:, None] * found.W, "b": sign * found.b}
    return found._asdict() | signed | {"adjoints": sign * found.adjoints}


def unbiased_gru(params, x, y, h0):
    found = gru.gradients(gru.Params(*params)._replace(b_n=0 * params.b_n), x, y, h0)[1]
    return found._asdict()


def backwards(params, x, y, h0):
    found = gru.gradients(gru.Params(*params), x[::-1], y, h0)[1]
    return found._asdict() | {"x": found.x[::-1], "adjoints": found.adjoints[::-1]}


OTHERS = {
    "gates i, g, f, o": ("lstm", gates_in("ifgo", "igfo"), "packed in the order i, g, f, o"),
    "gates z, r, n": ("gru", gates_in("rzn", "zrn"), "packed in the order z, r, n"),
    "no c0": ("lstm", other_lstm, "c0 is ignored"),
    "z for 1 − z": ("gru", other_gru, "with z_t for 1 − z_t"),
    "no b_n": ("gru", unbiased_gru, "the bias b_n is left out"),
    "reset before": ("gru", without_loss(derivation(gru, "gru", reset="before")), "acts before"),
    "backwards": ("gru", backwards, "backwards in time"),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_forward_pass_is_told_from_its_gradients_alone(other: tuple[str, Any, str]) -> None:
    cell, yours, said = other
    report = verify(yours, model=cell, bias=True)
    assert [found.name for found in report.mistakes] == ["forward-differs"], str(report)
    assert said in report.mistakes[0].explanation


@pytest.mark.parametrize("cell", MODULES)
@pytest.mark.parametrize("loss", ["mse", "half_sse"])
@pytest.mark.parametrize("reset", ["after", "before"])
def test_the_stated_forward_pass_is_that_of_the_cell(cell: str, loss: str, reset: str) -> None:
    """To rounding: T (D + H + 8) operations on numbers below 4, each within 4 u of itself."""
    states = ("h0", "c0") if cell == "lstm" else ("h0",)
    at = setting(Cell(cell, loss, True, reset, states), ORDINARY[0], 1)
    module = MODULES[cell]
    params = module.Params(*(at.given[name] for name in at.cell.weights))
    option = {"reset": reset} if cell == "gru" else {}
    first = [at.given[state] for state in at.cell.states]
    value, _ = module.value_and_grad(params, at.given["x"], at.y, *first, loss=loss, **option)
    T, _, D, H, _ = at.sizes
    allowed = T * (D + H + 8) * 4 * 2.0**-53 * max(4.0, float(value)) * H
    assert abs(at.loss(at.given, np) - value) <= allowed


DOUBT = "the oracle itself is in doubt"


@pytest.mark.parametrize(
    ("wrong", "where", "said"),
    [
        ("W", ..., DOUBT),
        ("W", (-1, -1), DOUBT),
        ("U", -1, DOUBT),
        ("c", -1, DOUBT),
        ("adjoints", (..., -1), DOUBT),
        ("loss", ..., "the loss must be one function"),
    ],
)
def test_a_reference_that_is_wrong_anywhere_decides_nothing(
    wrong: str, where: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = padded.derivatives

    def doubled(*problem: Any, **options: Any) -> Any:
        found = true(*problem, **options)
        value = np.array(getattr(found, wrong))
        value[where] *= 2
        return found._replace(**{wrong: value})

    cell = Cell("lstm", "mse", True, "after", ("h0", "c0"))
    asked = (*cell.weights, "adjoints")
    right = oracle_of.__wrapped__(cell, ORDINARY[4], 0, asked)  # of which nothing is kept
    monkeypatch.setattr(padded, "derivatives", doubled)
    oracle = oracle_of.__wrapped__(cell, ORDINARY[4], 0, asked)
    assert right.refusal is None
    assert said in str(oracle.refusal)


def test_what_breaks_the_contract_is_a_verdict() -> None:
    def modifies(params, x, y, h0, c0):
        c0 += 1
        return derivation(lstm, "lstm")(params, x, y, h0, c0)

    def without_V(params, x, y):
        return {"U": params.U, "W": params.W}

    def raises(params, x, y):
        raise IndexError("nothing there")

    def leaves(params, x, y):
        raise SystemExit(0)

    for yours, name, sentence in [
        (leaves, "raised", "SystemExit"),
        (lambda params, x, y: ([1, [2, 3]], {}), "wrong-shape", "cannot be read"),
        (modifies, "inputs-modified", "your function modified its argument c0"),
        (without_V, "wrong-shape", "no gradient named V"),
        (raises, "raised", "IndexError: nothing there"),
    ]:
        report = verify(yours, model="lstm")
        assert report.verdict is Verdict.DISAGREES
        assert [mistake.name for mistake in report.mistakes] == [name]
        assert sentence in report.mistakes[0].explanation
    assert Path(__file__).name in str(verify(raises, model="lstm"))


def test_only_what_is_returned_is_asked_for() -> None:
    cell = Cell("lstm", "mse", False, "after", ())
    at = setting(cell, ORDINARY[0], 0)
    found = contract(lambda params, x, y: (params.U, params.W, params.V), at)
    assert found == ("U", "W", "V")
    assert isinstance(contract(lambda params, x, y: 1, at), Broken)


def test_a_state_is_passed_in_its_place_or_by_its_name() -> None:
    def bound(params, x, y, bias, h0): ...

    for yours, expected in [
        (lambda params, x, y: 0, States()),
        (lambda params, x, y, start: 0, States(("h0",))),
        (lambda params, x, y, h0, c0: 0, States(("h0", "c0"))),
        (lambda params, x, y, c0: 0, States(("c0",))),
        (lambda params, x, y, *, h0=None, c0=None: 0, States((), ("h0", "c0"))),
        (partial(bound, bias=True), States((), ("h0",))),
    ]:
        assert states_taken(yours, ("h0", "c0")) == expected


def test_every_state_arrives_under_its_own_name() -> None:
    for yours in (
        lambda params, x, y, h0, c0: {"h0": h0, "c0": c0},
        lambda params, x, y, c0, h0: {"h0": h0, "c0": c0},
        lambda params, x, y, *, c0, h0: {"h0": h0, "c0": c0},
        lambda params, x, y, h0, *, c0: {"h0": h0, "c0": c0},
        lambda params, x, y, c0: {"c0": c0},
    ):
        states = states_taken(yours, ("h0", "c0"))
        found = states.in_order_for(yours)("params", "x", "y", *states.all)
        assert found == {name: name for name in states.all}


def test_a_derivation_that_writes_into_what_it_is_given_spoils_no_later_verdict() -> None:
    right = derivation(lstm, "lstm")

    def careless(params, x, y, h0, c0):
        found = right(params, x, y, h0, c0)
        for array in (*params, x, y, h0, c0):
            array[...] = np.nan
        return found

    assert verify(right, model="lstm").verdict is Verdict.AGREES
    assert [m.name for m in verify(careless, model="lstm").mistakes] == ["inputs-modified"]
    assert verify(right, model="lstm").verdict is Verdict.AGREES


def test_a_bias_may_be_anything_that_is_true() -> None:
    bias: Any = np.array(True)
    assert verify(derivation(lstm, "lstm"), model="lstm", bias=bias).verdict is Verdict.AGREES


def test_the_smallest_failing_case_is_small_and_can_be_made_again(tmp_path: Path) -> None:
    mistake = next(m for m in GATED_MISTAKES if m.name == "tanh′ of the cell missing")
    yours = derivation(planted(mistake, tmp_path), "lstm")
    case = verify(yours, model="lstm", bias=True).counterexample
    assert case is not None
    assert case.sizes.startswith("T=1 B=1 D=1 H=1 O=1, lstm, mse")
    assert set(case.arrays) == {"U", "W", "V", "b", "c", "x", "y", "h0", "c0"}
    assert all(np.array_equal(np.round(v, 1), v) for v in case.arrays.values())
    line = case.reproduce.replace("gradients(", "found = gradients(")
    exec(line, around := {"gradients": yours})
    # The report shows nine digits.
    np.testing.assert_array_equal(nine_digits(around["found"][case.gradient]), case.yours)
    assert not np.allclose(case.yours, case.autodiff)


def test_a_state_that_is_a_keyword_is_one_in_the_line_that_makes_the_case_again() -> None:
    def negative(params, x, y, *, h0=None, c0=None):
        found = lstm.gradients(lstm.Params(*params), x, y, h0, c0)[1]
        return found._asdict() | {"c0": -found.c0}

    report = verify(negative, model="lstm", bias=True)
    assert [m.name for m in report.mistakes] == ["sign-flipped"]
    assert report.counterexample is not None
    exec(report.counterexample.reproduce, {"gradients": negative})


@pytest.mark.parametrize(
    ("wrong_at", "sizes"),
    [
        (lambda T, H: T == 30, "wrong with T=30 B=1 D=30 H=3 O=2, and not with T=1"),
        (lambda T, H: H == 1, "wrong with T=3 B=2 D=2 H=1 O=2, and not with T=1"),
    ],
)
def test_what_is_wrong_at_some_sizes_only_has_no_name(wrong_at: Any, sizes: str) -> None:
    right = derivation(gru, "gru")

    def sometimes(params, x, y, h0):
        found = right(params, x, y, h0)
        return found | {"U": -found["U"]} if wrong_at(len(x), h0.shape[1]) else found

    report = verify(sometimes, model="gru", bias=True)
    assert [m.name for m in report.mistakes] == ["unknown"]
    assert sizes in report.mistakes[0].explanation


def test_zeros_that_are_integers_are_zeros() -> None:
    right = derivation(lstm, "lstm")

    def without_c0(params, x, y, h0, c0):
        return right(params, x, y, h0, c0) | {"c0": np.zeros(c0.shape, int)}

    report = verify(without_c0, model="lstm", bias=True)
    assert [m.name for m in report.mistakes] == ["zero-gradient"]


def test_a_breach_at_some_sizes_is_told_with_them() -> None:
    def of_several_steps(params, x, y, h0, c0):
        if len(x) == 1:
            raise ValueError("one step")
        return derivation(lstm, "lstm")(params, x, y, h0, c0)

    report = verify(of_several_steps, model="lstm", bias=True)
    assert [m.name for m in report.mistakes] == ["raised"]
    assert "Found with T=1 B=3 D=2 H=4 O=2." in report.notes


def test_a_mistake_that_no_small_case_shows_is_caught() -> None:
    right = derivation(lstm, "lstm")

    def with_three_outputs(params, x, y, h0, c0):
        found = right(params, x, y, h0, c0)
        return found if y.shape[1] < 3 else found | {"V": 2 * found["V"]}

    report = verify(with_three_outputs, model="lstm", bias=True)
    assert report.verdict is Verdict.DISAGREES
    assert report.counterexample is not None
    assert report.counterexample.reproduce.endswith(
        "verify(gradients, model='lstm', loss='mse', bias=True, reset='after', seed=0)"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "lstn"}, "model: expected one of rnn, lstm, gru, found 'lstn'"),
        ({"model": "gru", "reset": "never"}, "reset: expected one of after, before, found 'never'"),
        ({"model": "gru", "activation": "relu"}, "activation: expected one of tanh, found 'relu'"),
    ],
)
def test_a_model_that_is_not_stated_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        verify(lambda params, x, y: None, **options)


def test_the_command_line_judges_an_lstm(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def gradients(params, x, y):\n    return params.U, params.W\n")
    run = CliRunner().invoke(app, ["verify", str(file), "--model", "lstm"])
    assert run.exit_code == 1, run.output
    assert "returned 2 values" in run.output


def test_the_sigmoid_is_one_half_at_zero_and_symmetric() -> None:
    z = np.array([0.0, 1.5, -1.5])
    half, up, down = stated_cells.sigmoid(z, np)
    assert half == 0.5
    assert abs(up + down - 1) <= 2 * np.finfo(float).eps
