"""How a published claim is judged and measured, on entries whose numbers are known."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import published
from bptt_verifier.judge.published import (
    CASES,
    EXAMPLES,
    ORDINARY,
    DocketCase,
    compare_sizes,
    differentiate_first,
    differentiate_own,
    evaluate,
    is_as_stated,
    judge_entry,
    measure_defined_errors,
    measure_errors,
    read_entry,
    require_analytic,
)
from bptt_verifier.problems.draws import with_values
from bptt_verifier.report import Mistake, Report
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.modules import ROOT


def entry(model: str = "", module: Any = None, **stated: Any) -> DocketCase:
    """An entry with these statements, and no texts."""
    plain = {"model": model, "bias": False, "activation": "relu", "reset": "before", "exactly": ""}
    made: Any = SimpleNamespace(**(plain | stated))
    own = module or SimpleNamespace(gradients=len, loss=abs, params={"w": np.array(2.0)})
    return DocketCase("mine", made, own)


def test_the_claim_of_an_entry_is_judged_with_the_options_that_it_states(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = list[Any]()

    def note(*given: Any, **options: Any) -> Report:
        asked.append((given, options))
        return Report("", Verdict.AGREES)

    monkeypatch.setattr(published, "verify", note)
    monkeypatch.setattr(published, "verify_own_model", note)
    own = entry()
    for case, given, options in [
        (own, (len, abs, own.module.params), []),
        (entry("rnn"), (len,), [("model", "rnn"), ("bias", False), ("activation", "relu")]),
        (entry("gru", bias=True), (len,), [("model", "gru"), ("bias", True), ("reset", "before")]),
        (entry("lstm"), (len,), [("model", "lstm"), ("bias", False)]),
    ]:
        number = ("cases", CASES) if case is own else ("examples", EXAMPLES)
        assert judge_entry(case).verdict is Verdict.AGREES
        assert asked.pop() == (given, dict([("subject", "mine"), number, *options]))


def test_a_verdict_is_as_stated_with_the_names_that_are_stated_and_no_others() -> None:
    def names(*said: str) -> Report:
        return Report("", Verdict.DISAGREES, tuple(Mistake(each, "", {}) for each in said))

    for stated, found, as_stated in [
        (("a",), ("a",), True), (("a",), ("a", "unknown"), True), ((), ("unknown",), True),
        (("a",), ("b",), False), (("a", "b"), ("a",), False), ((), ("a",), False),
    ]:  # fmt: skip
        given: Any = SimpleNamespace(verdict=Verdict.DISAGREES, mistake=stated)
        assert is_as_stated(given, names(*found)) is as_stated
        given.verdict = Verdict.AGREES
        assert not is_as_stated(given, names(*found))


@pytest.mark.parametrize(
    ("model", "bias", "weights"),
    [("rnn", False, "UWV"), ("rnn", True, "UWVbc"), ("gru", False, "UWV"), ("lstm", True, "UWVbc")],
)
@pytest.mark.parametrize("by_name", [True, False])
def test_a_claim_on_a_cell_is_evaluated_on_one_problem_of_ordinary_sizes(
    model: str, bias: bool, weights: str, by_name: bool
) -> None:
    def gradients(params: Any, x: Any, y: Any) -> Any:
        asked.append((params, x, y))
        named = {name: 2 * getattr(params, name) for name in weights}
        return named if by_name else list(named.values())

    asked = list[Any]()
    case = entry(model, SimpleNamespace(gradients=gradients), bias=bias)
    found = evaluate(case)
    ((params, x, y),) = asked
    assert x.shape == (ORDINARY.T, ORDINARY.B, ORDINARY.D)
    assert found.data[0] is x
    assert found.data[1] is y
    assert set(weights) <= {*found.weights}
    for name in weights:
        assert getattr(params, name) is found.weights[name]
        assert np.array_equal(found.claimed[name], 2 * found.weights[name])


@pytest.mark.parametrize(("model", "option"), [("rnn", "relu"), ("gru", "before"), ("lstm", None)])
def test_the_problem_of_a_claim_has_the_option_of_its_cell(
    model: str, option: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = list[Any]()

    def draw(*given: Any, **named: Any) -> Any:
        options.append(named["option"])
        return with_values(*given, **named)

    monkeypatch.setattr(published, "with_values", draw)
    evaluate(entry(model, SimpleNamespace(gradients=lambda params, x, y: tuple(params))))
    assert options == [option]


def square(p: Any) -> Any:
    return (p["w"] ** 2).sum() + 3 * p["v"]


WEIGHTS = {"w": np.array([1.0, -2.0]), "v": np.array(0.5)}
EXACT = {"w": [2.0, -4.0], "v": 3.0}


def check_exact(found: Any) -> None:
    for name, value in EXACT.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-15)


def test_complex_steps_give_the_derivative_of_an_analytic_loss_by_every_entry() -> None:
    check_exact(differentiate_first(square, WEIGHTS))
    module = SimpleNamespace(loss=square, params=WEIGHTS)
    check_exact(differentiate_own(entry(module=module)))


def test_a_loss_whose_complex_steps_fail_is_differentiated_by_autodiff_at_its_parameters() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return xp.sum(p["w"] * xp.abs(p["w"])) + 3 * p["v"]

    found = differentiate_own(entry(module=SimpleNamespace(loss=loss, params=WEIGHTS)))
    np.testing.assert_allclose(found["w"], [2.0, 4.0], rtol=1e-12)
    np.testing.assert_allclose(found["v"], 3.0, rtol=1e-12)


@pytest.mark.parametrize(("off", "refused"), [(0.0, False), (1e-8, False), (1e-2, True)])
@pytest.mark.parametrize("name", ["w", "v"])
def test_differences_refuse_what_is_no_derivative(name: str, off: float, refused: bool) -> None:
    derivative = {n: np.asarray(value) + (n == name) * off for n, value in EXACT.items()}
    if refused:
        with pytest.raises(ValueError, match="analytic functions"):
            require_analytic(square, WEIGHTS, derivative)
    else:
        require_analytic(square, WEIGHTS, derivative)
    with pytest.raises(ValueError, match="analytic functions"):
        require_analytic(square, WEIGHTS, derivative | {name: np.full_like(WEIGHTS[name], np.nan)})


def test_the_rounding_of_a_large_loss_refuses_no_derivative() -> None:
    """A unit of 2³⁰ is 2⁻²², and over a step of 2⁻¹⁷ it is 2⁻⁵ in the difference."""

    def far(p: Any) -> Any:
        return 2.0**30 + 2.0**-10 * p["v"]

    given = {"v": np.array(0.5)}
    require_analytic(far, given, {"v": np.array(2.0**-10)})
    require_analytic(lambda p: 0.0, given, {"v": np.zeros(())})


def test_an_error_is_relative_to_the_norm_of_the_true_gradient_unless_that_is_zero() -> None:
    true = {"w": np.array([3.0, 4.0]), "z": np.zeros(2), "not asked": np.ones(1)}
    found: Any = {"w": [3.0, 4.5], "z": [0.0, 0.25]}
    assert compare_sizes(found, true, ("w", "z")) == {"w": 0.1, "z": 0.25}


def test_a_claim_is_measured_against_the_gradient_and_against_what_it_is_exactly() -> None:
    """The claim holds one factor w of w² constant, which gives half of the gradient."""
    halved = SimpleNamespace(
        params={"w": np.array([1.0, -2.0])},
        loss=lambda p: (p["w"] ** 2).sum(), gradients=lambda p: {"w": p["w"]},
        held_loss=lambda p, held: (p["w"] * held["w"]).sum(),
    )  # fmt: skip
    case = entry(module=halved, exactly="the derivative with one factor held constant")
    assert measure_errors(case) == pytest.approx({"w": 0.5})
    assert measure_defined_errors(case) == pytest.approx({"w": 0.0}, abs=1e-15)
    del halved.held_loss
    halved.change = lambda gradient: {"w": gradient["w"] / 4}  # a half of the claim
    assert measure_defined_errors(case) == pytest.approx({"w": 1.0})
    assert measure_defined_errors(entry(module=halved)) == {}


def test_a_claim_on_a_cell_is_exactly_the_derivative_of_a_loss_of_its_weights_and_data() -> None:
    module = SimpleNamespace(
        gradients=lambda params, x, y: (params.U, x.sum() * params.W, y.sum() * params.V),
        held_loss=lambda p, held, x, y: (
            (p.U * held.U).sum() + x.sum() * (p.W * held.W).sum() + y.sum() * (p.V * held.V).sum()
        ),
    )
    found = measure_defined_errors(entry("rnn", module, exactly="a sum of products"))
    assert found == pytest.approx(dict.fromkeys("UWV", 0.0), abs=1e-13)


@pytest.mark.parametrize(
    ("arguments", "more", "cell"),
    [
        ("params, x, y", "", True), ("params, x", "", True), ("params", "", False),
        ("params, x, y", "params = {}\n", False),
    ],
)  # fmt: skip
def test_an_entry_on_a_cell_is_known_by_its_arguments_and_by_the_absence_of_params(
    arguments: str, more: str, cell: bool, tmp_path: Path
) -> None:
    source = (ROOT / "examples" / "docket_entry.py").read_text(encoding="utf-8")
    file = tmp_path / "own.py"
    code = f"{more}def gradients({arguments}):\n    return {{}}\n"
    file.write_text(source[: source.index("x = np.array")] + code, encoding="utf-8")
    with pytest.raises(ValueError, match=r"to define .*loss, found none") as raised:
        read_entry(str(file))
    assert ("for a cell of this project" in str(raised.value)) is cell
