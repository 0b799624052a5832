"""Gradients under other names, in order, or left out where zero are read, and it is said."""

from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier import Report, Verdict, verify, verify_own_model
from bptt_verifier.judge.files import DERIVATION, choose_kind
from bptt_verifier.judge.one_case import compare_case
from bptt_verifier.judge.submission import BESIDE_LOSS, Breach, Expected, name_results
from bptt_verifier.program.source_file import find_definitions, read_cells
from manual_bptt import rnn

x = np.linspace(-1, 1, 3)
SHAPES = {"U": (2, 3), "b": (2,), "w": (2,)}
params = {name: np.linspace(0.3, 0.9, np.prod(n)).reshape(n) for name, n in SHAPES.items()}


def loss(p: Any) -> Any:
    return 0.5 * (p["w"] @ np.tanh(p["U"] @ x + p["b"])) ** 2


def slopes(p: Any, factor: float = 1.0) -> tuple[Any, Any, Any]:
    h = np.tanh(p["U"] @ x + p["b"])
    e = p["w"] @ h
    da = e * p["w"] * (1 - h * h)
    return np.outer(da, x) * factor, da, e * h


def judge(write: Any, factor: float = 1.0, given: Any = params, of: Any = loss) -> Report:
    """Judge gradients that a function writes from those of U, b and w."""

    def gradients(p: Any) -> Any:
        return write(p, *slopes(p, factor))

    return verify_own_model(gradients, of, given, cases=3)


READ: dict[str, Any] = {
    "d": (lambda p, U, b, w: {"dU": U, "db": b, "dw": w}, "dU for U, db for b, dw for w."),
    "grad_": (lambda p, U, b, w: {"grad_b": b, "w_grad": w, "dL_dU": U}, "dL_dU for U, grad_b"),
    "some": (lambda p, U, b, w: {"U": U, "db": b, "w": w}, "that you return: db for b."),
    "beside the loss": (lambda p, U, b, w: (loss(p), {"dU": U, "db": b, "dw": w}), "db for b"),
    "inside": (lambda p, U, b, w: {"loss": loss(p), "grads": {"U": U, "b": b, "w": w}}, "b for b"),
    "list": (lambda p, U, b, w: [U, b, w], "is read in the order of params: U, b, w."),
    "tuple and loss": (lambda p, U, b, w: (loss(p), (U, b, w)), "in the order of params: U, b, w."),
}


@pytest.mark.table(7)
@pytest.mark.parametrize("case", READ)
def test_gradients_are_read_by_their_names_or_in_order(case: str) -> None:
    write, said = READ[case]
    report = judge(write)
    assert report, str(report)
    assert sum(said in note for note in report.notes) == 1
    assert judge(write, 1.3).verdict is Verdict.DISAGREES


@pytest.mark.rest
@pytest.mark.parametrize("beside", [pytest.param(False, marks=pytest.mark.rest), True])
def test_a_list_in_order_has_none_for_a_gradient_that_is_zero(beside: bool) -> None:
    given = {"U": params["U"], "unused": np.ones((2, 3)), "b": params["b"], "w": params["w"]}

    def write(p: Any, U: Any, b: Any, w: Any, zero: Any = None) -> Any:
        return (loss(p), [U, zero, b, w]) if beside else [U, zero, b, w]

    report = judge(write, given=given)
    assert report, str(report)
    assert any("no gradient of unused" in note for note in report.notes)
    assert judge(write, 1.3, given).verdict is Verdict.DISAGREES
    assert judge(lambda p, U, b, w: write(p, U, b, w, np.zeros((2, 3))), given=given)
    lacking = judge(lambda p, U, b, w: [U, None, b, None], given=given)
    assert [mistake.name for mistake in lacking.mistakes] == ["wrong-shape"]
    assert "no gradient named w:" in lacking.mistakes[0].explanation
    other = judge(lambda p, U, b, w: [b, None, U, w], given=given)
    assert not other
    assert other.cases == 0


@pytest.mark.table(2)
@pytest.mark.parametrize("case", ["beside the loss", "tuple and loss"])
def test_a_loss_beside_gradients_under_other_names_is_compared(case: str) -> None:
    def write(p: Any, U: Any, b: Any, w: Any) -> Any:
        true, gradients = READ[case][0](p, U, b, w)
        return 1.3 * true, gradients

    assert [mistake.name for mistake in judge(write).mistakes] == ["forward-differs"]


def test_what_stands_beside_gradients_under_other_names_is_listed() -> None:
    def write(p: Any, U: Any, b: Any, w: Any) -> Any:
        return {"dU": U, "grad_U": None, "db": b, "dw": w, "hidden": b, "unset": None}

    report = judge(write)
    assert report, str(report)
    assert sum("Not checked: hidden. Results" in note for note in report.notes) == 1


@pytest.mark.rest
@pytest.mark.parametrize(
    "beside", [({"h": 1.0},), pytest.param((2.0, "more"), marks=pytest.mark.rest)]
)
def test_the_loss_may_stand_in_a_tuple_with_more(beside: tuple[Any, ...]) -> None:
    def write(p: Any, *found: Any, off: float = 0.0) -> Any:
        return (loss(p) + off, *beside), dict(zip("Ubw", found, strict=True))

    report = judge(write)
    assert report.verdict is Verdict.AGREES
    assert BESIDE_LOSS in report.notes
    assert judge(write, factor=1.1).verdict is Verdict.DISAGREES
    report = judge(lambda p, *found: write(p, *found, off=0.1))
    assert [each.name for each in report.mistakes] == ["forward-differs"]
    report = judge(lambda p, *g: ([loss(p), 1.0], dict(zip("Ubw", g, strict=True))))
    assert [each.name for each in report.mistakes] == ["wrong-shape"]


def test_names_of_nested_gradients_are_read() -> None:
    given = {"enc": [{"U": params["U"], "b": params["b"]}], "w": params["w"]}

    def write_nested(p: Any) -> Any:
        U, b, w = slopes(p["enc"][0] | {"w": p["w"]})
        return {"enc": [{"dU": U, "db": b}], "dw": w}

    def of_nested(p: Any) -> Any:
        return loss(p["enc"][0] | {"w": p["w"]})

    report = verify_own_model(write_nested, of_nested, given, cases=3)
    assert report, str(report)
    assert "enc[0].dU for enc[0].U, enc[0].db for enc[0].b, dw for w." in " ".join(report.notes)


UNREAD: dict[str, Any] = {
    "two": (lambda p, U, b, w: {"dU": U, "grad_U": U, "db": b, "dw": w}, "dU and grad_U for U"),
    "other order": (lambda p, U, b, w: [b, U, w], "list of shapes (2,), (2, 3), (2,): expected"),
}


@pytest.mark.parametrize("case", UNREAD)
def test_results_that_may_be_read_in_several_ways_are_inconclusive(case: str) -> None:
    write, said = UNREAD[case]
    report = judge(write)
    assert (report.verdict, report.mistakes, report.cases) == (Verdict.INCONCLUSIVE, (), 0)
    assert said in report.notes[-1]
    assert "expected the gradients by name, " in report.notes[-1]
    one = compare_case(lambda p: write(p, *slopes(p)), loss, params, "1")
    assert one.verdict is Verdict.INCONCLUSIVE
    assert said in " ".join(one.notes)


def test_letters_of_both_cases_are_kept_apart() -> None:
    given = {"u": params["b"], "U": params["U"]}

    def both(p: Any) -> Any:
        h = np.tanh(p["U"] @ x)
        da = (p["u"] @ h) * p["u"] * (1 - h * h)
        return {"du": (p["u"] @ h) * h, "dU": np.outer(da, x)}

    def of_both(p: Any) -> Any:
        return 0.5 * (p["u"] @ np.tanh(p["U"] @ x)) ** 2

    report = verify_own_model(both, of_both, given)
    assert report, str(report)


@pytest.mark.table(2)
@pytest.mark.parametrize("more", [{}, {"idle": None}])
def test_a_gradient_that_is_zero_may_be_left_out(more: Any) -> None:
    given = params | {"idle": np.ones(2)}
    report = judge(lambda p, U, b, w: {"U": U, "b": b, "w": w} | more, given=given)
    assert report, str(report)
    assert "You return no gradient of idle: it is taken for zero" in " ".join(report.notes)
    wrong = judge(lambda p, U, b, w: {"U": U, "b": b} | more, given=given)
    assert [mistake.name for mistake in wrong.mistakes] == ["wrong-shape"]
    assert "no gradient named w:" in wrong.mistakes[0].explanation
    idle = judge(lambda p, U, b, w: {"U": U, "b": b, "w": w, "idle": w}, given=given)
    assert idle.verdict is Verdict.DISAGREES


def test_not_every_gradient_may_be_left_out() -> None:
    unused = Expected(("U",), {}, {"U": (2,)}, float, zeros=("U",))
    assert isinstance(name_results({}, unused), Breach)


NUMBERS = {
    "objects": lambda v: v.astype(object),
    "fractions": lambda v: np.array([Fraction(float(each)) for each in v]),
    "complex": lambda v: v + 0j,
}


@pytest.mark.table(3)
@pytest.mark.parametrize("kind", NUMBERS)
def test_the_numbers_of_objects_and_complex_arrays_are_taken(kind: str) -> None:
    def write(p: Any, U: Any, b: Any, w: Any) -> Any:
        return {"U": U, "b": NUMBERS[kind](b), "w": w}

    assert judge(write)
    assert judge(lambda p, U, b, w: write(p, U, 1.3 * b, w)).verdict is Verdict.DISAGREES


def test_what_is_no_real_number_is_none() -> None:
    changes: list[Any] = [lambda v: v + np.array([1e-3j, 0]), lambda v: np.array([v[0], None])]
    for change in changes:
        report = judge(lambda p, U, b, w, f=change: {"U": U, "b": f(b), "w": w})
        assert [mistake.name for mistake in report.mistakes] == ["wrong-shape"]


@pytest.mark.rest
def test_parameters_without_entries_are_said_to_be_so() -> None:
    for given in (params | {"e": np.zeros((0, 3))}, params | {"more": [np.zeros(0)]}):
        report = judge(lambda p, U, b, w: {"U": U, "b": b, "w": w}, given=given)
        assert report, str(report)
        assert "Without entries, so that nothing of it is compared: " in " ".join(report.notes)
        assert judge(lambda p, U, b, w: {"U": 2 * U, "b": b, "w": w}, given=given).mistakes


@pytest.mark.rest
def test_a_report_that_ends_early_says_that_no_case_was_compared() -> None:
    report = judge(lambda p, U, b, w: {"U": U[0], "b": b, "w": w})
    said = "0 of 0 cases could have shown a mistake in every gradient."
    assert (report.cases, report.notes) == (0, (said,))
    complete = judge(lambda p, U, b, w: {"U": 2 * U, "b": b, "w": w})
    assert any("could have shown a mistake" in note for note in complete.notes)


@pytest.mark.rest
def test_a_derivation_may_name_its_gradients_and_take_its_data_as_a_tuple(tmp_path: Path) -> None:
    def named(params: Any, *data: Any) -> Any:
        found = rnn.value_and_grad(params, *data)[1]
        return {f"d{name}": getattr(found, name) for name in ("U", "W", "V")}

    report = verify(named, examples=8)
    assert report, str(report)
    assert "dU for U, dW for W, dV for V." in " ".join(report.notes)
    file = tmp_path / "mine.py"
    file.write_text("def gradients(params, *data):\n    return params\n")
    assert choose_kind(file, find_definitions(file, read_cells(file)), None, None) == (
        DERIVATION,
        "gradients",
    )


@pytest.mark.table(2)
@pytest.mark.parametrize("named", [True, False])
def test_gradients_of_the_inputs_are_read_by_their_names_and_shapes(named: bool) -> None:
    def more(params: Any, x: Any, y: Any, factor: float = 1.0, axes: Any = (0, 1, 2)) -> Any:
        _, found = rnn.gradients(rnn.Params(*params), x, y)
        weights = {f"d{name}" * named or name: getattr(found, name) for name in ("U", "W", "V")}
        return weights | {"dx": factor * found.x.transpose(axes), "dh0": found.h0}

    report = verify(more, examples=8)
    assert report, str(report)
    assert {"x", "h0"} <= report.parameters.keys()
    assert "dx is read as the gradient of x." in report.notes
    doubled = verify(partial(more, factor=2.0), examples=8)
    assert [mistake.name for mistake in doubled.mistakes] == ["constant-factor"]
    other = verify(partial(more, factor=2.0, axes=(1, 0, 2)), examples=8)  # its own order of axes
    assert other, str(other)
    assert "Not checked: dx. Results" in " ".join(other.notes)
