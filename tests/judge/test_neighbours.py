"""Verdicts that the submission's own scatter at neighbouring points decides."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify, verify_own_model
from bptt_verifier.judge.neighbours import weigh
from bptt_verifier.judge.subject import Compared
from bptt_verifier.reference.case import Case
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict, compare
from bptt_verifier.tolerance.scatter import FAR
from manual_bptt import gru, lstm, rnn
from tests.support.profiles import by_turns

RETURNED = [np.dtype(np.float16), np.dtype(np.float32), None]  # None: float64
MODULES = {"rnn": rnn, "lstm": lstm, "gru": gru}


def computed_in(dtype: Any, cell: str, returned: Any = None, factor: float = 1.0) -> Any:
    """A right derivation in a coarser format, with ∂L/∂W multiplied by `factor`."""

    def right(params: Any, arrays: tuple[Any, ...]) -> Any:
        module = MODULES[cell]
        given = module.Params(*(w.astype(dtype) for w in params))
        found = module.value_and_grad(given, *(a.astype(dtype) for a in arrays))[1]
        kind = returned or arrays[0].dtype
        named = {
            n: v.astype(kind) for n, v in found._asdict().items() if v is not None and n != "x"
        }
        return named | {"W": named["W"] * kind.type(factor) if factor != 1 else named["W"]}

    if cell == "lstm":
        return lambda params, x, y, h0, c0: right(params, (x, y, h0, c0))
    return lambda params, x, y, h0: right(params, (x, y, h0))


def judge(submission: Any, cell: str, examples: int = 30, **options: Any) -> Report:
    return verify(submission, model=cell, examples=examples, **options)


@pytest.mark.table(3)
@pytest.mark.parametrize("cell", MODULES)
def test_float32_inside_is_judged_in_float32(cell: str) -> None:
    report = judge(computed_in(np.float32, cell), cell, examples=16)
    assert report.verdict is Verdict.AGREES, str(report)
    assert any("judged in float32" in note for note in report.notes)
    assert all(1e-8 < result.resolution < 1e-3 for result in report.parameters.values())


@pytest.mark.slow
@pytest.mark.parametrize("cell", MODULES)
def test_a_small_mistake_shows_in_float32_inside(cell: str) -> None:
    report = judge(computed_in(np.float32, cell, factor=1.001), cell, examples=16)
    assert report.verdict is Verdict.DISAGREES
    assert [n for n, r in report.parameters.items() if r.verdict is Verdict.DISAGREES] == ["W"]


@pytest.mark.table(3)
@pytest.mark.parametrize(("cell", "returned"), by_turns([*MODULES], RETURNED))
def test_right_derivations_in_half_precision_agree(cell: str, returned: Any) -> None:
    report = judge(computed_in(np.float16, cell, returned), cell)
    assert report.verdict is Verdict.AGREES, str(report)
    assert any("judged in float16" in note for note in report.notes)
    assert all(result.resolution < 0.01 for result in report.parameters.values())


@pytest.mark.table(3)
@pytest.mark.parametrize(("cell", "returned"), by_turns([*MODULES], RETURNED))
def test_one_per_cent_is_seen_in_half_precision(cell: str, returned: Any) -> None:
    report = judge(computed_in(np.float16, cell, returned, factor=1.01), cell)
    assert report.verdict is Verdict.DISAGREES
    assert [n for n, r in report.parameters.items() if r.verdict is Verdict.DISAGREES] == ["W"]


def with_loss(factor: float, cell: str, returned: Any) -> Any:
    """A right derivation in float16, with the loss, multiplied by `factor`."""

    def both(params: Any, *arrays: Any) -> Any:
        given = MODULES[cell].Params(*(w.astype(np.float16) for w in params))
        loss, _ = MODULES[cell].value_and_grad(given, *(a.astype(np.float16) for a in arrays))
        kind = np.dtype(returned or arrays[0].dtype)
        slopes = computed_in(np.float16, cell, returned)(params, *arrays)
        return kind.type(loss) * kind.type(factor), slopes

    def with_one_state(params: Any, x: Any, y: Any, h0: Any) -> Any:
        return both(params, x, y, h0)

    def with_two_states(params: Any, x: Any, y: Any, h0: Any, c0: Any) -> Any:
        return both(params, x, y, h0, c0)

    return with_two_states if cell == "lstm" else with_one_state


@pytest.mark.rest
@pytest.mark.table(3)
@pytest.mark.parametrize(("cell", "returned"), by_turns([*MODULES], RETURNED))
def test_two_per_cent_of_a_loss_are_seen_in_half_precision(cell: str, returned: Any) -> None:
    report = judge(with_loss(1.0, cell, returned), cell)
    assert report.verdict is Verdict.AGREES, str(report)
    assert report.parameters["loss"].resolution < 0.01
    report = judge(with_loss(1.02, cell, returned), cell)
    assert [mistake.name for mistake in report.mistakes] == ["forward-differs"]


TANH = {
    "2σ(2a) − 1": lambda a: 2 / (1 + np.exp(-2 * a)) - 1,
    "quotient of exponentials": lambda a: (np.exp(a) - np.exp(-a)) / (np.exp(a) + np.exp(-a)),
}


def rnn_in_half(tanh: Any, returned: Any) -> Any:
    """The right gradients of the plain RNN in float16, with this formula of tanh."""

    def gradients(params: Any, x: Any, y: Any, h0: Any) -> Any:
        kind = x.dtype if returned is None else returned
        (U, W, V), (x, y, h0) = ([v.astype(np.float16) for v in vs] for vs in (params, (x, y, h0)))
        h, backward = [h0], []
        for x_t in x:
            h.append(tanh(x_t @ U.T + h[-1] @ W.T))
        output = 2 * (h[-1] @ V.T - y) / np.float16(y.size)
        state = output @ V
        for h_t in h[:0:-1]:
            backward.append(state * (1 - h_t**2))
            state = backward[-1] @ W
        adjoints = backward[::-1]
        U, W = (sum(d.T @ v for d, v in zip(adjoints, other, strict=False)) for other in (x, h))
        found = {"U": U, "W": W, "V": output.T @ h[-1], "h0": state}
        return {name: np.asarray(value).astype(kind) for name, value in found.items()}

    return gradients


@pytest.mark.table(3)
@pytest.mark.parametrize(("name", "returned"), by_turns([*TANH], RETURNED))
def test_right_formulas_that_lose_digits_or_overflow_in_half_precision_agree(
    name: str, returned: Any
) -> None:
    for seed in (35, 95):
        report = judge(rnn_in_half(TANH[name], returned), "rnn", seed=seed)
        assert report.verdict is Verdict.AGREES, str(report)


def test_cases_in_which_half_precision_overflows_are_left_out() -> None:
    def gradients(params: Any, x: Any, y: Any, h0: Any) -> Any:
        found = rnn_in_half(np.tanh, np.float16)(params, x, y, h0)
        return found | {"W": found["W"] * (np.inf if x.shape[0] == 7 else 1)}

    report = judge(gradients, "rnn")
    assert report.verdict is Verdict.AGREES, str(report)
    (note,) = [note for note in report.notes if "cases were left out" in note]
    assert note.startswith("2 cases were left out: float16 overflows there. With T=7 ")


def test_half_precision_that_is_never_finite_disagrees() -> None:
    def gradients(params: Any, x: Any, y: Any, h0: Any) -> Any:
        found = rnn_in_half(np.tanh, np.float16)(params, x, y, h0)
        return found | {"W": found["W"] / np.float16(0)}

    report = judge(gradients, "rnn")
    assert [mistake.name for mistake in report.mistakes] == ["not-finite"]


def sum_in_float32(params: Any, x: Any, y: Any, h0: Any, factor: float = 1.0) -> Any:
    """The right gradients of arrays that are stored in float16, with sums in float32."""
    stored = [v.astype(np.float16).astype(np.float32) for v in (*params, x, y, h0)]
    weights, (x, y, h0) = rnn.Params(*stored[:3]), stored[3:]
    h = [h0]
    for x_t in x:
        h.append(np.tanh(x_t @ weights.U.T + h[-1] @ weights.W.T).astype(np.float16).astype("f4"))
    output = np.float32(2 / y.size) * (h[-1] @ weights.V.T - y)
    found = {"U": np.float32(0), "W": np.float32(0), "V": output.T @ h[-1]}
    state = output @ weights.V
    for t in reversed(range(len(x))):
        d = state * (1 - h[t + 1] ** 2)
        found["U"], found["W"] = found["U"] + d.T @ x[t], found["W"] + d.T @ h[t]
        state = d @ weights.W
    return found | {"W": found["W"] * np.float32(factor), "h0": state}


@pytest.mark.table(2)
@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_half_precision_of_what_is_stored_is_found_where_float32_is_returned(
    factor: float,
) -> None:
    def gradients(params: Any, x: Any, y: Any, h0: Any) -> Any:
        return sum_in_float32(params, x, y, h0, factor)

    report = judge(gradients, "rnn")
    wrong = [n for n, r in report.parameters.items() if r.verdict is Verdict.DISAGREES]
    assert wrong == ["W"] * (factor != 1), str(report)
    assert any("judged in float16" in note for note in report.notes)
    assert not any("judged in float32" in note for note in report.notes)


@pytest.mark.parametrize("name", ["W", pytest.param("U", marks=pytest.mark.rest)])
@pytest.mark.parametrize("factor", [1.0, 1.02])
def test_a_gradient_alone_may_be_rounded_to_half_precision(name: str, factor: float) -> None:
    def gradients(params: Any, x: Any, y: Any, h0: Any) -> Any:
        _, found = rnn.value_and_grad(rnn.Params(*params), x, y, h0)
        named = {n: v for n, v in found._asdict().items() if v is not None and n != "x"}
        with np.errstate(over="ignore"):  # beyond 65504
            half = (factor * named[name]).astype(np.float16)
        return named | {name: half.astype(x.dtype)}

    report = judge(gradients, "rnn")
    wrong = [n for n, r in report.parameters.items() if r.verdict is Verdict.DISAGREES]
    assert wrong == [name] * (factor != 1), str(report)
    said = f"You return float16 numbers for {name} where arguments are finer: judged in float16."
    assert said in report.notes
    assert all(r.resolution < 1e-6 for n, r in report.parameters.items() if n != name)


@pytest.mark.parametrize("has_vanishing_steps", [False, True])
def test_an_error_that_is_alike_at_near_neighbours_is_asked_for_at_far_ones(
    has_vanishing_steps: bool,
) -> None:
    true, allowed = np.ones(4), np.full(4, 1e-9)

    def displace(case: Case, number: int, distance: float) -> Case:
        sign = (-1) ** number if distance == FAR else 1
        return case._replace(point=5e-7 * sign * np.ones(4))

    def attempt(case: Case) -> Compared:
        found, kind = true + case.point, np.dtype(np.float32)
        comparison = compare("w", found, true, allowed)
        return Compared(case, {"w": found}, {"w": kind}, {"w": true}, {"w": allowed}, [comparison])

    subject: Any = SimpleNamespace(displace=displace, has_vanishing_steps=has_vanishing_steps)
    here = attempt(Case("a case", {}, np.full(4, 5e-7), None))
    assert here.fails
    # A spacing of float32 is 1.2e-7: the error is less than eight times what it allows.
    assert weigh(attempt, subject, here, ["w"], 100).fails == has_vanishing_steps


PARAMS = {"p": np.linspace(0.3, 0.9, 8)}


def half_the_squares(params: Any, xp: Any) -> Any:
    return xp.sum(params["p"] ** 2) / 2


def lose_digits(factor: float) -> Any:
    """The gradient p, by a formula that loses three digits in float64, times a factor."""
    return lambda params: {"p": ((params["p"] + 1e3) - 1e3) * factor}


@pytest.mark.slow
def test_digits_lost_by_another_formula_are_rounding() -> None:
    report = verify_own_model(lose_digits(1.0), half_the_squares, PARAMS)
    assert report.verdict is Verdict.AGREES, str(report)
    assert any("count as rounding" in note for note in report.notes)
    assert not any("judged in" in note for note in report.notes)


@pytest.mark.slow
def test_a_mistake_larger_than_the_lost_digits_disagrees() -> None:
    report = verify_own_model(lose_digits(1 + 1e-9), half_the_squares, PARAMS)
    assert report.verdict is Verdict.DISAGREES


@pytest.mark.slow
def test_one_gradient_that_has_lost_digits_does_not_loosen_the_others() -> None:
    params = {name: PARAMS["p"] + shift for shift, name in enumerate("abc")}

    def gradients(given: Any) -> Any:
        found = {name: value.copy() for name, value in given.items()}
        found["a"] = found["a"].astype(np.float32).astype(np.float64)
        found["b"] *= 1 + 1e-9
        return found

    def loss(given: Any, xp: Any) -> Any:
        return sum(xp.sum(value**2) for value in given.values()) / 2

    report = verify_own_model(gradients, loss, params)
    assert report.verdict is Verdict.DISAGREES
    assert not any("judged in" in note for note in report.notes)
    assert report.parameters["b"].verdict is Verdict.DISAGREES
    assert report.parameters["c"].resolution < 1e-12


@pytest.mark.rest
def test_a_coarse_prediction_does_not_hide_a_wrong_gradient() -> None:
    def gradients(params: Any, x: Any, y: Any) -> Any:
        weights = rnn.Params(*params)
        found = rnn.value_and_grad(weights, x, y)[1]._asdict()
        prediction = rnn.predict(weights, x).astype(np.float16)
        return {"U": found["U"], "W": 1.01 * found["W"], "V": found["V"], "prediction": prediction}

    report = verify(gradients)
    assert report.verdict is Verdict.DISAGREES
    assert report.parameters["prediction"].verdict is Verdict.AGREES


@pytest.mark.rest
@pytest.mark.parametrize("coarse", ["prediction", "V"])
@pytest.mark.parametrize("factor", [1.0, 1.002])
def test_a_coarse_result_does_not_hide_a_wrong_loss(coarse: str, factor: float) -> None:
    def gradients(params: Any, x: Any, y: Any) -> Any:
        weights = rnn.Params(*params)
        loss, found = rnn.value_and_grad(weights, x, y)
        every = found._asdict() | {"prediction": rnn.predict(weights, x)}
        with np.errstate(over="ignore"):
            rounded = every[coarse].astype(np.float16)
        exact = {name: getattr(found, name) for name in "UWV"}
        return exact | {"loss": factor * float(loss), coarse: rounded}

    report = verify(gradients, examples=20)
    assert report.verdict is (Verdict.AGREES if factor == 1 else Verdict.DISAGREES), str(report)
    assert [m.name for m in report.mistakes] == ["forward-differs"] * (factor != 1)


@pytest.mark.rest
def test_float32_inside_is_found_where_a_bias_is_zero_and_its_units_are_dead() -> None:
    x, y = np.array([[0.6, -1.1]]), np.array([[0.3, 0.7, -0.2]])

    def loss(p: Any, xp: Any) -> Any:
        return xp.mean((xp.maximum(x @ p["U"], 0) @ p["V"] + p["c"] - y) ** 2)

    def gradients(p: Any) -> Any:
        U, V, c = (p[name].astype(np.float32) for name in "UVc")
        a = x.astype(np.float32) @ U
        do = 2 * (np.maximum(a, 0) @ V + c - y.astype(np.float32)) / np.float32(3)
        da = (do @ V.T) * (a > 0)
        found = {"U": x.astype(np.float32).T @ da, "V": np.maximum(a, 0).T @ do, "c": do[0]}
        return {name: value.astype(p[name].dtype) for name, value in found.items()}

    params = {"U": np.array([[-1.0], [1.0]]), "V": np.ones((1, 3)), "c": np.zeros(3)}
    report = verify_own_model(gradients, loss, params)
    assert report, str(report)
