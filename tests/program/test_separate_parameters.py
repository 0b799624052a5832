"""Functions that take each parameter as an argument of its own."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify_own_model
from bptt_verifier.judge.files import read_file
from bptt_verifier.program.namespaces import takes_namespace
from bptt_verifier.program.separate_parameters import (
    find_arguments,
    join_parameters,
    list_settings,
)
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict

W, B = np.array([1.0, 2.0, -0.5]), np.array(0.3)


def loss(w: Any, b: Any) -> Any:
    return (w**2).sum() * b


def gradients(w: Any, b: Any) -> Any:
    return 2 * w * b, (w**2).sum()


def wrong(w: Any, b: Any) -> Any:
    return 2 * w, (w**2).sum()


def of_dict(params: Any) -> Any:
    return {"w": 2 * params["w"] * params["b"], "b": (params["w"] ** 2).sum()}


def loss_of_dict(params: Any) -> Any:
    return (params["w"] ** 2).sum() * params["b"]


def loss_in_order(params: Any) -> Any:
    return (params[0] ** 2).sum() * params[1]


def with_namespace(w: Any, b: Any, xp: Any = np) -> Any:
    return xp.sum(w**2) * b


def needs_namespace(w: Any, b: Any, xp: Any) -> Any:
    return xp.sum(w**2) * b


def loss_of_all(w: Any) -> Any:
    return sum((value**2).sum() for value in w.values())


def double_by_name(w: Any) -> Any:
    return {"w": 2 * w}


def square(w: Any) -> Any:
    return (w**2).sum()


def raise_always(w: Any) -> Any:
    raise ValueError(w)


BY_NAME, IN_ORDER = {"b": B, "w": W}, [W, B]


@pytest.mark.parametrize(
    ("derived", "stated", "params"),
    [
        (gradients, loss, BY_NAME), (gradients, loss, IN_ORDER), (gradients, loss_of_dict, BY_NAME),
        (gradients, loss_in_order, IN_ORDER), (of_dict, loss, BY_NAME),
        (gradients, with_namespace, BY_NAME), (gradients, needs_namespace, IN_ORDER),
        (gradients, loss, [BY_NAME, {"b": B, "w": np.ones(4)}]),
    ],
)  # fmt: skip
def test_each_parameter_may_be_an_argument(derived: Any, stated: Any, params: Any) -> None:
    report = verify_own_model(derived, stated, params, cases=4)
    assert report, report
    assert {*report.parameters} == {"w", "b"}
    if derived is gradients:
        report = verify_own_model(wrong, stated, params, cases=4)
        found = [n for n, r in report.parameters.items() if r.verdict is Verdict.DISAGREES]
        assert found == ["w"], report


def test_the_parameters_are_named_and_in_the_order_of_the_arguments() -> None:
    for params in (BY_NAME, IN_ORDER):
        derived, stated, named = join_parameters(gradients, loss, params)
        assert [*named] == ["w", "b"]
        assert stated(named) == loss(W, B)
        assert [np.array_equal(*pair) for pair in zip(derived(named), gradients(W, B), strict=True)]
        assert derived.__module__ != __name__
        assert [*inspect.signature(derived).parameters] == ["params"]
        assert not takes_namespace(stated)
    *_, named = join_parameters(gradients, loss, {"a": W, **BY_NAME})
    assert [*named] == ["w", "b", "a"]
    *_, settings = join_parameters(gradients, loss, [BY_NAME, BY_NAME])
    assert [[*each] for each in settings] == [["w", "b"]] * 2
    _, stated, named = join_parameters(gradients, with_namespace, BY_NAME)
    assert takes_namespace(stated)
    assert stated(named, np) == loss(W, B)


def test_functions_of_all_parameters_stay_as_they_are() -> None:
    for given in (
        (of_dict, loss_of_dict, BY_NAME), (of_dict, loss_in_order, IN_ORDER),
        (lambda w: 2 * w["w"], lambda w: (w["w"] ** 2).sum(), {"w": W}), ("none", None, BY_NAME),
        (gradients, loss, {"w": W}), (gradients, loss, [W, B, B]), (gradients, loss, [W, "b"]),
    ):  # fmt: skip
        assert all(one is other for one, other in zip(join_parameters(*given), given, strict=True))


def test_one_argument_by_the_name_of_the_only_parameter_may_be_its_array() -> None:
    assert find_arguments(lambda w: 2 * w, {"w": W}) == ["w"]
    assert find_arguments(lambda w, xp: xp.tanh(w), {"w": W}) == ["w"]
    assert find_arguments(loss_of_all, {"w": W}) is None
    assert find_arguments(raise_always, {"w": W}) is None
    assert find_arguments(lambda w: 2 * w, {"w": W, "b": B}) is None
    assert find_arguments(lambda w: w, {"w": W}) is None
    assert find_arguments(lambda w: 2 * w, {"w": [W]}) is None
    assert verify_own_model(double_by_name, square, {"w": W}, cases=4)


def test_settings_are_a_list_of_dicts() -> None:
    settings = [BY_NAME, BY_NAME]
    assert list_settings(settings) is settings
    assert list_settings(BY_NAME) == [BY_NAME]
    assert list_settings([]) == [[]]
    assert list_settings([BY_NAME, W]) == [[BY_NAME, W]]


FILE = """
import numpy as np
params = {"U": np.full((2, 3), 0.3), "W": np.full((2, 2), 0.1), "V": np.full((1, 2), -0.2)}
X = np.arange(12.0).reshape(4, 3) / 12
def loss(ARGUMENTS):
    h = np.zeros(2)
    for x in X:
        h = np.tanh(U @ x + W @ h)
    return ((V @ h - 1) ** 2).sum()
def gradients(ARGUMENTS):
    h = [np.zeros(2)]
    for x in X:
        h.append(np.tanh(U @ x + W @ h[-1]))
    d = 2 * (V @ h[-1] - 1)
    dV, dh, dU, dW = np.outer(d, h[-1]), V.T @ d, 0 * U, 0 * W
    for t in reversed(range(4)):
        da = dh * (1 - h[t + 1] ** 2)
        dU, dW, dh = dU + np.outer(da, X[t]), dW + np.outer(da, h[t]), W.T @ da
    return dU, dW, dV
"""


def judge(text: str, folder: Path, name: str | None = None) -> Report:
    file = folder / "model.py"
    file.write_text(text, encoding="utf-8")
    found = read_file(file, name, None, {}, [])
    assert found.loss is not None
    return verify_own_model(found.gradients, found.loss, found.params, cases=4)


@pytest.mark.parametrize("name", [None, "gradients"])
def test_a_file_may_have_such_functions(name: str | None, tmp_path: Path) -> None:
    text = FILE.replace("ARGUMENTS", "U, W, V")
    assert judge(text, tmp_path, name)
    wrong = judge(
        text.replace("W.T @ da", "W @ da").replace("0.1)", "0.1) * [[1, 2], [3, 4]]"), tmp_path
    )
    assert [mistake.name for mistake in wrong.mistakes] == ["untransposed-recurrent-weight"]


def test_such_a_pair_needs_no_name(tmp_path: Path) -> None:
    text = FILE.replace("ARGUMENTS", "U, W, V").replace("def gradients", "def grad_loss")
    assert judge(text, tmp_path)


def test_a_loss_of_all_parameters_may_be_beside_gradients_of_each(tmp_path: Path) -> None:
    text = FILE.replace("def loss(ARGUMENTS):", "def loss(params):\n    U, W, V = params.values()")
    assert judge(text.replace("ARGUMENTS", "U, W, V"), tmp_path)


@pytest.mark.parametrize(("value", "agrees"), [("(w**2).sum() * b", True), ("1.0", False)])
def test_the_loss_may_be_the_first_of_several_values(value: str, agrees: bool) -> None:
    def derive(w: Any, b: Any) -> Any:
        return eval(value, {"w": w, "b": b}), 2 * w * b, (w**2).sum()

    report = verify_own_model(derive, loss, BY_NAME, cases=4)
    assert bool(report) is agrees, report
    assert ("loss" in report.parameters) is agrees
    if not agrees:
        assert [mistake.name for mistake in report.mistakes] == ["forward-differs"]


def test_arguments_that_are_no_parameters_are_refused(tmp_path: Path) -> None:
    text = FILE.replace("ARGUMENTS", "A, W, V").replace("U @", "A @").replace("0 * U", "0 * A")
    with pytest.raises(ValueError, match=r"3 arguments.*each by its name in params"):
        judge(text, tmp_path)
