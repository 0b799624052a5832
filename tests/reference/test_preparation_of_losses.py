"""A model beside its trace: its arguments, its cases by number, and the derivative it states."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier.reference import own_loss, own_model
from bptt_verifier.reference.case import CASES, Case
from bptt_verifier.reference.own_loss import CONFIRMED, prepare
from bptt_verifier.reference.own_model import OwnModel
from bptt_verifier.reference.points import SCALE, Point
from tests.support.stated_cases import state_case

PARAMS = {"w": np.array([0.5, 2.0])}


def square(p: Any, xp: Any) -> Any:
    return xp.sum(p["w"] ** 2)


def model(**known: Any) -> OwnModel:
    return OwnModel(**({"loss": square, "params": (PARAMS,), "seed": 3} | known))


class Differences:
    """A black box that keeps the point that it was asked for last."""

    def make_case(self, params: Any, point: Point, seed: int) -> Case:
        self.asked: Any = params
        return state_case({}, {}, params)

    def differentiate(self, params: Any) -> Any:
        self.asked = params
        slopes = {name: 2 * value for name, value in params.items()}
        return 4.25, slopes, {name: 1e-9 * value for name, value in params.items()}


def test_a_model_of_which_nothing_else_is_known_takes_its_namespace() -> None:
    assert model().called == "loss(params, numpy)"
    assert model().traced == "loss(params, jax.numpy)"
    assert not model().by_autograd


@pytest.mark.parametrize(
    ("refusal", "raised"),
    [
        (None, False), ("loss(params, numpy) raised ValueError: no at `x`.", True),
        ("loss(params) raised ValueError: no at `x`.", False), ("It has no case.", False),
    ],
)  # fmt: skip
def test_a_loss_that_raised_in_numpy_is_known_by_the_refusal(
    refusal: str | None, raised: bool
) -> None:
    assert model(refusal=refusal).loss_raised is raised


def test_a_case_is_made_of_a_setting_and_of_factors_that_there_are() -> None:
    box: Any = Differences()
    given = model(black_box=box)
    for factors in ({}, {"w": 0.25}):
        point = Point(4, factors=factors)
        made = given.make_case(point)
        assert (made.label, made.point) == (point.label, point)
        assert box.asked["w"].shape == (2,)
    for setting in (1, 2):
        said = f"case: expected one of a setting of params, found setting {setting + 1} of 1"
        with pytest.raises(ValueError, match=said):
            given.make_case(Point(4, setting=setting))
    with pytest.raises(ValueError, match="case: expected factors of w, found one of W"):
        given.make_case(Point(4, factors={"W": 0.25}))


def test_zeros_are_displaced_by_a_part_of_the_parameter_s_size_or_of_that_of_draws() -> None:
    distance, large = 2.0**-10, np.append(np.full(10, 100.0), np.zeros(990))  # of size 10
    given = {"large": large, "bias": np.zeros(1000)}
    box: Any = Differences()
    found = model(black_box=box).displaced_case(state_case({}, {}, given), 7, distance)
    moves = {name: np.abs(found.arguments[name] - value).max() for name, value in given.items()}
    assert moves["large"] == pytest.approx(100 * distance, rel=0.5)
    assert np.abs(found.arguments["large"][10:]).max() == pytest.approx(10 * distance, rel=0.02)
    assert moves["bias"] == pytest.approx(SCALE * distance, rel=0.02)
    assert found.truth is not None
    values, allowed = found.truth(np.float64, ())
    assert values["loss"] == 4.25
    assert np.array_equal(values["bias"], 2 * found.arguments["bias"])
    assert np.array_equal(allowed["bias"], 1e-9 * found.arguments["bias"])
    assert not allowed["loss"].any()


def test_the_program_at_a_point_is_that_of_its_path_and_a_black_box_has_none() -> None:
    path = SimpleNamespace(path=SimpleNamespace(program="the program"))
    paths: Any = SimpleNamespace(follow=lambda params, limited: path, known=(), keeps_zeros=False)
    only, known = SimpleNamespace(outcomes=()), {"follow": paths.follow, "keeps_zeros": False}
    alone: Any = SimpleNamespace(known=[SimpleNamespace(program=only)], **known)
    traced: Any = model(params=(PARAMS, PARAMS), paths=(alone, paths))
    assert traced.find_program(PARAMS, 0) is only
    assert traced.find_program(PARAMS, 1) == "the program"
    alone.keeps_zeros = True
    assert traced.find_program(PARAMS, 0) == "the program"
    assert traced._replace(black_box=Differences()).find_program(PARAMS, 1) is None


def prepare_with(
    monkeypatch: pytest.MonkeyPatch, traced: Callable[[OwnModel], OwnModel], **options: Any
) -> OwnModel:
    """Prepare a model whose trace gives this one."""
    monkeypatch.setattr(own_loss, "trace_and_select", lambda model, *given: traced(model))
    return prepare(square, PARAMS, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cases": 0}, "cases: expected at least 1, found 0"),
        ({"seed": -1}, "seed: expected at least 0, found -1"),
    ],
)
def test_numbers_of_cases_and_seeds_that_are_none_are_refused(
    options: dict[str, int], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=said):
        prepare_with(monkeypatch, lambda model: model, **options)
    least: dict[str, Any] = {"cases": 1, "seed": 0}
    assert prepare_with(monkeypatch, lambda model: model, **least).refusal is None


def test_a_loss_that_is_no_function_is_refused() -> None:
    loss: Any = 3.0
    with pytest.raises(ValueError, match="loss: expected a function, found float"):
        prepare(loss, PARAMS)


def test_what_is_not_given_is_the_first_seed_and_the_usual_number_of_cases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = list[int]()

    def select(model: OwnModel, cases: int, progress: Any) -> OwnModel:
        asked.append(cases)
        progress(1, cases)
        return model

    monkeypatch.setattr(own_loss, "trace_and_select", select)
    assert prepare(square, PARAMS).seed == 0
    assert asked == [CASES]


@pytest.mark.parametrize(
    ("in_torch", "follows", "refusal", "cut", "expected"),
    [
        (True, True, None, "It stops.", "It stops."),
        (True, True, None, None, None),
        (True, True, "No case.", "It stops.", "No case."),
        (True, False, None, "It stops.", None),  # whose derivative autograd is
        (False, True, None, "It stops.", None),
    ],
)
def test_what_autograd_stops_is_asked_of_losses_of_torch_whose_values_are_differentiated(
    in_torch: bool,
    follows: bool,
    refusal: str | None,
    cut: str | None,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cases, notes = tuple(state_case({}, {}) for _ in range(CONFIRMED + 1)), ("A note.",)
    monkeypatch.setattr(own_loss, "takes_tensors", lambda loss, trees: in_torch)
    monkeypatch.setattr(own_loss, "over_arrays", lambda loss, trees: loss)
    monkeypatch.setattr(own_model, "follows_values", lambda loss: follows)

    def describe(loss: Any, given: Any, called: str) -> str | None:
        assert given == cases[:CONFIRMED]
        return cut

    monkeypatch.setattr(own_loss, "describe_cut", describe)
    monkeypatch.setattr(own_loss, "check_loss", lambda model, given: None)
    found = prepare_with(
        monkeypatch, lambda model: model._replace(cases=cases, notes=notes, refusal=refusal)
    )
    assert found.refusal == expected
    assert found.notes == (() if expected == "It stops." else notes)


@pytest.mark.parametrize("in_numpy", [True, False])
@pytest.mark.parametrize("untraced", ["It prints.", None])
def test_differences_serve_where_plain_numpy_cannot_be_traced(
    in_numpy: bool, untraced: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_differences(model: OwnModel, reason: str, *given: Any) -> OwnModel:
        return model._replace(notes=(f"Differences, as {reason}",))

    monkeypatch.setattr(own_loss, "takes_namespace", lambda loss: not in_numpy)
    monkeypatch.setattr(own_loss, "ignore_namespace", lambda loss: loss)
    monkeypatch.setattr(own_loss, "use_differences", take_differences)
    found = prepare_with(monkeypatch, lambda model: model._replace(untraced=untraced))
    assert found.in_numpy is in_numpy
    assert found.notes == (("Differences, as It prints.",) if in_numpy and untraced else ())


@pytest.mark.parametrize(
    ("in_numpy", "in_torch", "narrow", "gives", "notes"),
    [
        (True, False, True, True, ("Read anew.",)),
        (True, False, True, False, ("As it is.",)),  # that gives no reference
        (True, False, False, True, ("As it is.",)),
        (False, False, True, True, ("As it is.",)),
        (True, True, True, True, ("As it is.",)),
    ],
)
def test_a_loss_of_float32_is_read_anew_if_it_takes_neither_a_namespace_nor_tensors(
    in_numpy: bool,
    in_torch: bool,
    narrow: bool,
    gives: bool,
    notes: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(model: OwnModel, mode: Any, trace: Any) -> OwnModel | None:
        return trace(model)._replace(notes=("Read anew.",)) if gives else None

    monkeypatch.setattr(own_loss, "takes_namespace", lambda loss: not in_numpy)
    monkeypatch.setattr(own_loss, "ignore_namespace", lambda loss: loss)
    monkeypatch.setattr(own_loss, "takes_tensors", lambda loss, trees: in_torch)
    monkeypatch.setattr(own_loss, "over_arrays", lambda loss, trees: loss)
    monkeypatch.setattr(own_model, "follows_values", lambda loss: False)
    monkeypatch.setattr(own_loss, "may_be_narrow", lambda model, mode: narrow)
    monkeypatch.setattr(own_loss, "read_narrow", read)
    found = prepare_with(monkeypatch, lambda model: model._replace(notes=("As it is.",)))
    assert found.notes == notes


def test_a_loss_that_raises_in_any_setting_is_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Any]()

    def check(model: OwnModel, params: Any) -> str | None:
        asked.append(params["w"].size)
        return None if params["w"].size == 2 else "It raised."

    monkeypatch.setattr(own_loss, "check_loss", check)
    monkeypatch.setattr(own_loss, "trace_and_select", None)
    found = prepare(square, [PARAMS, {"w": np.ones(3)}, {"w": np.ones(4)}])
    assert (found.refusal, asked) == ("It raised.", [2, 3])


@pytest.mark.parametrize(
    ("error", "remedy"),
    [(ValueError("no"), ""), (ModuleNotFoundError("no"), "; install it where bptt runs")],
)
def test_a_loss_that_raises_is_refused_with_its_line(error: Exception, remedy: str) -> None:
    def failing(p: Any, xp: Any) -> Any:
        raise error

    said = own_loss.check_loss(model(loss=failing), PARAMS) or ""
    assert said.startswith(f"loss(params, numpy) raised {type(error).__name__}: no at `raise error")
    assert said.endswith(f"){remedy}.")


def test_a_loss_in_plain_numpy_returns_the_same_number_again() -> None:
    calls = iter(range(100))
    given = model(loss=lambda p, xp: float(next(calls)), in_numpy=True)
    said = own_loss.check_loss(given, PARAMS) or ""
    assert said.startswith("loss(params) returns another number when it is called again: seed")


@pytest.mark.parametrize("in_torch", [True, False])
def test_a_contradiction_of_autograd_names_what_stops_it(
    in_torch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = state_case({}, {}, PARAMS)
    for doubt in ("jax.grad says 1.", None):
        monkeypatch.setattr(own_loss, "contradict", lambda *given, doubt=doubt: doubt)
        said = own_loss.ask_second_opinion(model(in_torch=in_torch), case)
        library = "torch.autograd" if in_torch else "jax.grad"
        end = (
            " Where the loss uses detach, item, no_grad or padding_idx, autograd gives another "
            "derivative."
        )
        expected = f"At a case, {library} says 1.{end if in_torch else ''}"
        assert said == (expected if doubt else None)


@pytest.mark.parametrize(
    ("traced", "rules", "stops", "in_numpy", "both", "contradicted", "confirmed"),
    [
        (True, False, True, True, False, False, True),  # whose stopped values are held
        (True, False, True, True, False, True, False),
        (True, True, False, True, False, True, True),  # the reference is that of the rule
        (True, True, True, True, False, True, True),
        (True, False, False, True, False, False, False),
        (True, False, True, False, True, False, True),
        (True, False, True, False, False, False, False),  # in JAX alone
        (False, True, True, True, True, False, False),
    ],
)
def test_the_derivative_that_a_loss_states_is_confirmed_where_it_states_it_in_numpy_too(
    traced: bool,
    rules: bool,
    stops: bool,
    in_numpy: bool,
    both: bool,
    contradicted: bool,
    confirmed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program, held = object() if traced else None, object()
    given = state_case({}, {}, PARAMS)._replace(point=Point(0))

    def contradict(model: OwnModel, case: Case, loss: Any) -> str | None:
        assert (case, loss) == (given, held)
        return "No." if contradicted else None

    monkeypatch.setattr(OwnModel, "find_program", lambda model, params, setting: program)
    monkeypatch.setattr(own_loss, "states_rules", lambda program: rules)
    monkeypatch.setattr(own_loss, "states_stops", lambda program: stops)
    monkeypatch.setattr(own_loss, "is_stated_in_numpy", lambda loss, point: both)
    monkeypatch.setattr(own_loss, "hold_stopped", lambda program, point: held)
    monkeypatch.setattr(own_loss, "contradict", contradict)
    monkeypatch.setattr(own_loss, "describe_stated", lambda program, by_autograd: "It stops.")
    found = own_loss.confirm_stated(model(in_numpy=in_numpy), given)
    assert found == ("It stops." if confirmed else None)


@pytest.mark.parametrize("in_numpy", [True, False])
@pytest.mark.parametrize("both", [True, False])
def test_a_loss_is_two_functions_if_it_states_a_derivative_in_jax_alone(
    in_numpy: bool, both: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OwnModel, "find_program", lambda model, params, setting: "the program")
    monkeypatch.setattr(own_loss, "is_stated_in_numpy", lambda loss, point: both)
    monkeypatch.setattr(own_loss, "describe_stated_in_jax", lambda program: f" So says {program}.")
    case = state_case({}, {}, PARAMS)._replace(point=Point(0))
    said = own_loss.describe_two_losses(model(in_numpy=in_numpy), case)
    assert said == ("" if in_numpy or both else " So says the program.")


@pytest.mark.parametrize("in_numpy", [True, False])
@pytest.mark.parametrize("doubt", ["No.", None])
def test_a_loss_in_plain_numpy_is_as_coarse_as_its_allowed_error(
    in_numpy: bool, doubt: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[tuple[str, float]]()

    def ask_entries(loss: Any, point: Any, known: Any, seed: int, noise: float) -> str | None:
        asked.append(("entries", noise))
        return doubt

    def ask_signs(loss: Any, point: Any, known: Any, seed: int, noise: float) -> str:
        asked.append(("signs", noise))
        return "Nor along signs."

    monkeypatch.setattr(own_loss, "contradict_entries", ask_entries)
    monkeypatch.setattr(own_loss, "contradict_signs", ask_signs)
    noise = 0.125 if in_numpy else 0.0
    # A parameter may be called loss; its gradient has other errors.
    of_loss = {"loss": np.ones(2)}
    case = state_case(of_loss, {"loss": np.full(2, 0.5)}, of_loss)
    case = case._replace(point=Point(0), noise=lambda: 0.125)
    found = own_loss.contradict(model(in_numpy=in_numpy), case, square)
    if in_numpy and doubt is None:
        assert (found, asked) == ("Nor along signs.", [("entries", noise), ("signs", noise)])
    else:
        assert (found, asked) == (doubt, [("entries", noise)])
