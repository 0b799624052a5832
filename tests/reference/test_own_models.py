"""The cases of an own model, and the checks of its loss and of its reference; nothing is traced."""

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.paths import Followed
from bptt_verifier.reference import cuts, own_cases, own_loss
from bptt_verifier.reference.black_box import Chosen
from bptt_verifier.reference.case import Case
from bptt_verifier.reference.own_cases import make_case
from bptt_verifier.reference.own_loss import (
    CONFIRMED,
    ask_second_opinion,
    check_loss,
    compare_losses,
    confirm,
    use_differences,
)
from bptt_verifier.reference.own_model import OwnModel
from bptt_verifier.reference.points import Point
from bptt_verifier.reference.stated_derivatives import UNCONFIRMED
from tests.support.stated_cases import state_case

PARAMS = {"w": np.array([0.5, 2.0])}


def square(p: Any, xp: Any) -> Any:
    return xp.sum(p["w"] ** 2)


def model(**known: Any) -> OwnModel:
    return OwnModel(**({"loss": square, "params": (PARAMS,), "seed": 3} | known))


def case(
    number: int = 0,
    setting: int = 0,
    loss: float = 4.25,
    slopes: Any = (1.0, 4.0),
    allowed: float = 1e-12,
) -> Case:
    values = {"w": slopes, "loss": loss}
    found = state_case(values, {"w": np.full(2, allowed), "loss": allowed}, PARAMS)
    return found._replace(point=Point(number, setting=setting), label=f"case {number}")


def make_own_case(params: Any, monkeypatch: pytest.MonkeyPatch, fails: bool = False) -> Any:
    """A case whose measured errors are the unit times a number, and the units that are measured."""
    units = list[list[float]]()

    def measure(program: Any, wide: Any, given: Any, slopes: Any, seed: int) -> Any:
        units.append([*given])
        assert seed == 5
        if fails:
            raise ValueError("not this one")
        return [((7 * unit), {name: 3 * unit * np.ones(2) for name in params}) for unit in given]

    monkeypatch.setattr(own_cases, "gradient_and_noise", measure)
    followed: Any = (SimpleNamespace(program=None), 4.25, {n: np.ones(2) for n in params})
    followed = own_cases.Followed(*followed)
    return make_case(followed, params, 5, np.sum), units


@pytest.mark.parametrize(
    ("dtype", "measured", "share"),
    [
        # Each has the error of its own precision, and that of the reference.
        (np.longdouble, [[2.0**-53]], 2 * 2.0**-53),
        (np.float64, [[2.0**-53]], 2 * 2.0**-53),
        (np.float32, [[2.0**-24, 2.0**-53]], 2.0**-24 + 2.0**-53),
        (np.float16, [[2.0**-24, 2.0**-53]], 2.0**-11 + 2.0**-53),
    ],
)
def test_the_allowed_error_is_measured_in_the_precision_of_the_submission_and_the_reference(
    dtype: Any, measured: Any, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, units = make_own_case(PARAMS, monkeypatch)
    values, allowed = found.truth(dtype, ())
    lost = 16 * float(np.finfo(dtype).smallest_normal)
    assert units == measured
    assert values.keys() == allowed.keys() == {"w", "loss"}
    assert allowed["w"] == pytest.approx(3 * share + lost, rel=1e-12, abs=0)
    assert allowed["loss"] == pytest.approx(7 * share + lost, rel=1e-12, abs=0)
    found.truth(dtype, ())
    assert units == measured  # once


def test_what_is_measured_for_float32_serves_float64_but_not_the_other_way_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for dtypes, measured in [
        ((np.float32, np.float64), [[2.0**-24, 2.0**-53]]),
        ((np.float64, np.float32), [[2.0**-53], [2.0**-24]]),
    ]:
        found, units = make_own_case(PARAMS, monkeypatch)
        allowed = [found.truth(dtype, ()).allowed["w"][0] for dtype in dtypes]
        assert units == measured
        assert sorted(allowed) == pytest.approx([6 * 2.0**-53, 3 * 2.0**-24], rel=1e-6)


def test_the_noise_is_that_of_the_loss_though_a_parameter_has_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for params in (PARAMS, {"loss": np.ones(2)}):
        for fails, noise in [(False, 2 * 7 * 2.0**-53), (True, np.inf)]:
            found, units = make_own_case(params, monkeypatch, fails=fails)
            assert units == []  # measured where it is asked for
            assert found.noise() == noise
    assert state_case({}, {}).noise() == 0


def test_where_a_format_cannot_hold_a_gradient_any_error_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measured(program: Any, params: Any, units: Any, slopes: Any, seed: int) -> Any:
        return [(1e-9, {"w": np.full(2, 1e-9)}) for _ in units]

    monkeypatch.setattr(own_cases, "gradient_and_noise", measured)
    followed: Any = SimpleNamespace(program=None)
    largest = float(np.finfo(np.float32).max)
    made = make_case(Followed(followed, 1.0, {"w": np.array([largest, 4e38])}), PARAMS, 0, np.sum)
    assert made.truth is not None
    for dtype, undecided in [(np.float32, [False, True]), (np.float64, [False, False])]:
        found = np.isinf(made.truth(dtype, ()).allowed["w"])
        assert found.tolist() == undecided


def test_where_nothing_can_be_measured_any_error_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, _ = make_own_case(PARAMS, monkeypatch, fails=True)
    allowed = found.truth(np.float64, ()).allowed
    assert {name: value.shape for name, value in allowed.items()} == {"w": (2,), "loss": ()}
    assert all(np.isinf(value).all() for value in allowed.values())


def test_of_a_model_of_which_nothing_is_known_nothing_is_said() -> None:
    fresh = model()
    assert (fresh.refusal, fresh.doubt, fresh.losses_differ) == (None, None, False)


@pytest.mark.parametrize("in_numpy", [True, False])
def test_a_loss_that_differs_in_numpy_and_jax_is_named_with_both_numbers(in_numpy: bool) -> None:
    given = model(in_numpy=in_numpy)
    assert compare_losses(given, case()) is None
    said = compare_losses(given, case(loss=4.5))
    calls = ("loss(params)", "loss(params) over JAX") if in_numpy else (
        "loss(params, numpy)", "loss(params, jax.numpy)"
    )  # fmt: skip
    assert said is not None
    assert said.startswith(f"{calls[0]} is 4.25 and {calls[1]} is 4.5 at case 0, beyond rounding")


@pytest.mark.parametrize(
    ("loss", "allowed", "differs"),
    [(4.5, 0.25, False), (4.5, 0.24, True), (4.0, 0.25, False), (9.0, np.inf, False)],
)
def test_losses_that_are_as_far_apart_as_is_allowed_are_one(
    loss: float, allowed: float, differs: bool
) -> None:
    said = compare_losses(model(), case(loss=loss, allowed=allowed))
    assert (said is not None) is differs


def test_a_loss_that_raises_at_a_case_is_named_with_its_line() -> None:
    def failing(p: Any, xp: Any) -> Any:
        raise ValueError("not here")

    said = compare_losses(model(loss=failing), case()) or ""
    assert said.startswith("loss(params, numpy) raised ValueError: not here at `raise ValueError")


@pytest.mark.parametrize(
    ("result", "what"),
    [
        (np.ones(2), "float64 of shape (2,)"),
        (1j, "complex128 of shape ()"),
        (np.ones(1), None),
        (np.array([np.nan]), None),  # it is no other number when it is called again
        (3, None),
        ([3.0], "found a list of 1 values; return the loss alone, or write a function that does"),
        (
            (3.0, {}),
            "found a tuple of 2 values; return the loss alone, or write a function that does",
        ),
        (Fraction(1, 2), "found Fraction; return the loss as a number"),
        ("3", "<U1 of shape ()"),
    ],
)
def test_a_loss_is_one_real_number(result: Any, what: str | None) -> None:
    given = model(loss=lambda p, xp: result, in_numpy=True)
    if what is None:
        assert check_loss(given, PARAMS) is None
    else:
        with pytest.raises(ValueError, match="expected a real scalar, found") as raised:
            check_loss(given, PARAMS)
        assert str(raised.value).endswith(what)


def test_without_a_case_for_differences_there_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    box: Any = SimpleNamespace(dtype=np.float64, gradient=None)
    monkeypatch.setattr(
        own_loss, "choose_black_box", lambda *given: (box, Chosen((), 4, frozenset()))
    )
    found = use_differences(model(), "It is text.", 6, lambda done, total: None)
    assert found.refusal == "It is text. Its differences are too slow or too inaccurate to serve."
    assert found.notes == ()


@pytest.mark.parametrize(("cases", "doubted"), [(2, False), (24, True)])
def test_differences_at_few_of_the_cases_asked_for_are_no_agreement(
    cases: int, doubted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_loss, "describe_differences", lambda *given: ["It is text."])
    chosen = Chosen((case(0), case(1)), 0, frozenset())
    monkeypatch.setattr(own_loss, "choose_black_box", lambda *given: ("box", chosen))
    found = use_differences(model(), "Why.", cases, lambda done, total: None)
    assert bool(found.doubt) is doubted


@pytest.mark.parametrize("in_torch", [True, False])
def test_differences_are_confirmed_where_autograd_gives_the_reference(
    in_torch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, asked = (case(0), case(1), case(2)), list[int]()
    given = list[Any]()

    def choose(loss: Any, *others: Any) -> Any:
        given.append(others[-1])
        return "box", Chosen(chosen, 4, frozenset())

    def contradict(model: OwnModel, case: Case) -> str | None:
        asked.append(case.point.number)
        return "No." if case.point.number == 1 else None

    monkeypatch.setattr(own_loss, "choose_black_box", choose)
    monkeypatch.setattr(own_loss, "describe_differences", lambda *given: ["It is text."])
    monkeypatch.setattr(own_loss, "ask_second_opinion", contradict)
    monkeypatch.setattr(own_loss, "differentiate", lambda loss, point: (0.0, {}))
    found = use_differences(model(in_torch=in_torch), "Why.", 6, lambda done, total: None)
    assert found.cases == chosen
    assert (given[0] is not None) is in_torch
    assert given[0] is None or given[0](PARAMS) == (0.0, {})
    assert asked == ([0, 1] if in_torch else [])
    assert (found.refusal, found.notes) == (("No.", ()) if in_torch else (None, ("It is text.",)))


def test_differences_of_a_loss_that_raises_give_no_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def choose(*given: Any) -> Any:
        raise ValueError("not here")

    def fail(loss: Any, point: Any) -> Any:
        raise TypeError("no tensor")

    monkeypatch.setattr(own_loss, "choose_black_box", choose)
    monkeypatch.setattr(own_loss, "differentiate", fail)
    for in_torch in (True, False):
        found = use_differences(model(in_torch=in_torch), "Why.", 6, lambda done, total: None)
        said = "Why. Its differences: ValueError: not here at `raise ValueError("
        assert str(found.refusal).startswith(said)


def confirm_with(
    monkeypatch: pytest.MonkeyPatch,
    losses: dict[int, str],
    slopes: dict[int, str],
    cases: int = 6,
    stated: str | None = None,
    two_losses: str = "",
    **known: Any,
) -> tuple[OwnModel, list[int], list[int]]:
    """The model after its check, where the loss and slopes of these cases are contradicted."""
    asked: tuple[list[int], list[int]] = [], []

    def answer(place: int, said: dict[int, str]) -> Any:
        def at(model: OwnModel, case: Case) -> str | None:
            asked[place].append(case.point.number)
            return said.get(case.point.number)

        return at

    monkeypatch.setattr(own_loss, "compare_losses", answer(0, losses))
    monkeypatch.setattr(own_loss, "ask_second_opinion", answer(1, slopes))
    monkeypatch.setattr(own_loss, "confirm_stated", lambda model, case: stated)
    monkeypatch.setattr(own_loss, "describe_two_losses", lambda model, case: two_losses)
    every = tuple(case(number) for number in range(cases))
    return confirm(model(cases=every, **known)), *asked


def test_the_reference_is_confirmed_at_two_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _, asked = confirm_with(monkeypatch, {}, {})
    assert asked == list(range(CONFIRMED))
    assert (found.refusal, len(found.cases)) == (None, 6)


def test_a_contradicted_case_is_left_out_and_others_confirm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, _, asked = confirm_with(monkeypatch, {}, {0: "No."})
    assert asked == [0, 1, 2]
    assert found.refusal is None
    assert [each.point.number for each in found.cases] == [1, 2, 3, 4, 5]
    assert found.notes == ("No. This case was left out.",)


def test_a_case_that_confirms_what_the_loss_states_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    slopes = {0: "No.", 1: "Neither."}
    found, _, asked = confirm_with(monkeypatch, {}, slopes, stated="It stops.")
    assert (found.refusal, len(found.cases), found.notes) == (None, 6, ("It stops.",))
    assert asked == list(range(CONFIRMED))
    # Losses that differ are two functions, whatever they state.
    found, _, _ = confirm_with(monkeypatch, {0: "Not the loss.", 1: "No."}, {}, stated="It stops.")
    assert found.refusal == "Not the loss."


@pytest.mark.parametrize(
    ("stated", "doubt", "expected"),
    [
        (f"It stops; {UNCONFIRMED}", None, f"It stops; {UNCONFIRMED}"),
        (f"It stops; {UNCONFIRMED}", "Too few.", "Too few."),
        ("It stops.", None, None),
        ("It stops.", "Too few.", "Too few."),
    ],
)
def test_a_stated_derivative_that_nothing_confirms_is_a_doubt_where_there_is_none(
    stated: str, doubt: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, *_ = confirm_with(monkeypatch, {}, {0: "No."}, stated=stated, doubt=doubt)
    assert (found.refusal, found.doubt, found.notes) == (None, expected, (stated,))


def test_a_contradiction_says_that_the_loss_is_two_functions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, *_ = confirm_with(monkeypatch, {}, {0: "No."}, two_losses=" It is two.")
    assert found.notes == ("No. It is two. This case was left out.",)


def test_two_contradicted_cases_leave_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    found, _, asked = confirm_with(monkeypatch, {}, {0: "No.", 1: "Neither.", 2: "Nor here."})
    assert asked == [0, 1]
    assert (found.refusal, found.losses_differ) == ("No.", False)
    found, _, asked = confirm_with(monkeypatch, {0: "Not the loss.", 1: "Again."}, {})
    assert (found.refusal, found.losses_differ) == ("Not the loss.", True)
    assert asked == []


@pytest.mark.parametrize("in_numpy", [True, False])
def test_a_loss_in_plain_numpy_is_compared_at_every_case(
    in_numpy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, asked, _ = confirm_with(monkeypatch, {5: "Not the loss."}, {}, in_numpy=in_numpy)
    if in_numpy:
        assert asked == [0, 1, *range(6)]
        assert (found.refusal, found.losses_differ) == ("Not the loss.", True)
    else:
        assert asked == [0, 1]
        assert found.refusal is None
    right, *_ = confirm_with(monkeypatch, {}, {}, in_numpy=in_numpy)
    assert (right.refusal, len(right.cases)) == (None, 6)


def in_reals_only(p: Any, xp: Any) -> Any:
    if p["w"].dtype.kind == "c":
        raise TypeError("real numbers only")
    return xp.sum(p["w"] ** 2)


@pytest.mark.parametrize("in_numpy", [True, False])
def test_a_wrong_slope_is_contradicted_by_the_loss(in_numpy: bool) -> None:
    for loss in (square, in_reals_only):
        given = model(loss=loss, in_numpy=in_numpy)
        assert ask_second_opinion(given, case()) is None
        said = ask_second_opinion(given, case(slopes=(1.5, 4.5)))
        assert said is not None
        assert said.startswith("At case 0, jax.grad says ")
        assert " for ∂L/∂w[" in said


@pytest.mark.parametrize("in_numpy", [True, False])
def test_all_entries_together_are_checked_of_a_loss_in_plain_numpy(
    in_numpy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_loss, "contradict_entries", lambda *given: None)
    said = ask_second_opinion(model(in_numpy=in_numpy), case(slopes=(1.0, 4.5)))
    assert (said is not None) is in_numpy


def test_a_failure_of_the_loss_is_no_second_opinion() -> None:
    def failing(p: Any, xp: Any) -> Any:
        raise ValueError("not here")

    assert ask_second_opinion(model(loss=failing), case(slopes=(9.0, 9.0))) is None


def ask_at(loss: Any, point: Any, monkeypatch: pytest.MonkeyPatch, **known: Any) -> Any:
    """What a second opinion takes for the loss at a point."""
    found = list[Any]()
    monkeypatch.setattr(
        own_loss, "contradict_entries", lambda in_numpy, *given: found.append(in_numpy(point))
    )
    assert ask_second_opinion(model(loss=loss, **known), case()) is None
    return found[0]


def test_no_complex_number_is_asked_of_a_black_box_or_of_a_buffer_of_reals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def buffered(p: Any, xp: Any) -> Any:
        buffer = np.empty(2)
        buffer[:] = p["w"] ** 2
        return xp.sum(buffer)

    real, shifted = PARAMS, {"b": np.ones(1), "w": PARAMS["w"] + 0.5j}
    box: Any = SimpleNamespace()
    for loss, known, complex_too in [
        (square, {}, True), (square, {"black_box": box}, False), (buffered, {}, False),
    ]:  # fmt: skip
        assert ask_at(loss, real, monkeypatch, **known) == 4.25
        found = ask_at(loss, shifted, monkeypatch, **known)
        assert found == np.sum(shifted["w"] ** 2) if complex_too else found is None


@pytest.mark.parametrize(
    ("slopes", "said"),
    [
        ((1.0, 4.0), None),
        ((1.0 + 2.0**-40, 4.0 - 2.0**-40), None),  # as far apart as is allowed
        ((1.0, np.nan), None),
        (
            (1.0, 4.0 + 2.0**-39),
            "torch.autograd gives another ∂L/∂w than the trace of loss(params)",
        ),
        (None, "torch.autograd of the loss raised TypeError: no tensor at "),
    ],
)
def test_the_trace_of_a_loss_of_torch_is_compared_with_autograd(
    slopes: Any, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differentiate(loss: Any, point: Any) -> Any:
        if slopes is None:
            raise TypeError("no tensor")
        return 4.25, {"w": np.array(slopes)}

    monkeypatch.setattr(cuts, "differentiate", differentiate)
    given = case(allowed=2.0**-40)
    found = compare_losses(model(in_numpy=True, in_torch=True), given)
    assert found is None if said is None else str(found).startswith(said)
    assert compare_losses(model(in_numpy=True), given) is None
