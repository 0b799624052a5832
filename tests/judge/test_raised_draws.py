"""Functions that raise an exception outside of their formula's domain, where the loss has none."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify, verify_own_model
from bptt_verifier.judge import raised_draws
from bptt_verifier.judge.raised_draws import (
    ask_at_zeros,
    describe_raised,
    describe_zeroed,
    doubt_few,
    doubt_missing,
)
from bptt_verifier.judge.submission import Submission, make_breach
from manual_bptt import rnn
from tests.support.stated_cases import CASE_OF_ONES, state_compared, state_subject

PARAMS = {"s": np.array([1.5, 0.7, 2.0]), "b": np.array([0.3])}


def loss(p: Any) -> Any:
    return np.sum(np.log(np.abs(p["s"])) + p["b"] * p["s"] ** 2)


def right(p: Any) -> dict[str, Any]:
    return {"s": 1 / p["s"] + 2 * p["b"] * p["s"], "b": np.sum(p["s"] ** 2, keepdims=True)}


def raise_where_negative(p: Any) -> None:
    if (p["s"] <= 0).any():
        raise ValueError("s must be positive")


def assert_positive(p: Any) -> None:
    assert np.all(p["s"] > 0), "s must be positive"


def decompose(p: Any) -> None:
    np.linalg.cholesky(np.diag(p["s"]))


@pytest.mark.parametrize("guard", [raise_where_negative, assert_positive, decompose])
def test_a_draw_at_which_a_function_alone_guards_its_domain_is_left_out(guard: Any) -> None:
    def guarded(p: Any) -> dict[str, Any]:
        guard(p)
        return right(p)

    report = verify_own_model(guarded, loss=loss, params=PARAMS)
    assert str(report.verdict) == "agrees"
    (said,) = (note for note in report.notes if "and not at the parameters given" in note)
    number = int(said.split()[0])
    assert number + report.cases == 24
    assert said.startswith(f"{number} cases were left out: your function raised ")
    assert "It was raised at `" in said
    assert f"{report.cases} of {report.cases} cases could have shown a mistake" in str(report)


@pytest.mark.rest
def test_a_wrong_gradient_disagrees_where_it_raises_nothing() -> None:
    def wrong(p: Any) -> dict[str, Any]:
        assert_positive(p)
        return right(p) | {"s": -right(p)["s"]}

    report = verify_own_model(wrong, loss=loss, params=PARAMS)
    assert str(report.verdict) == "disagrees"
    assert [each.name for each in report.mistakes] == ["sign-flipped"]


def test_a_mistake_of_the_code_at_a_draw_is_one() -> None:
    def failing(p: Any) -> dict[str, Any]:
        return right(p) if (p["s"] > 0).all() else {"s": missing}  # type: ignore[name-defined]

    report = verify_own_model(failing, loss=loss, params=PARAMS)
    assert [each.name for each in report.mistakes] == ["raised"]
    assert "NameError" in str(report)


def test_a_function_that_raises_at_the_parameters_given_raises() -> None:
    def failing(p: Any) -> dict[str, Any]:
        assert p["b"] > 0.5
        return right(p)

    report = verify_own_model(failing, loss=loss, params=PARAMS)
    assert [each.name for each in report.mistakes] == ["raised"]


def test_agreement_in_too_few_cases_is_inconclusive() -> None:
    def near(p: Any) -> dict[str, Any]:
        assert np.abs(p["b"] - PARAMS["b"]) < 1e-3
        return right(p)

    report = verify_own_model(near, loss=loss, params=PARAMS)
    assert str(report.verdict) == "inconclusive"
    assert report.notes[0] == (
        "A mistake in ∂L/∂s, ∂L/∂b would have been seen in too few of the cases in which your "
        "function raises nothing."
    )
    one = verify_own_model(near, loss=loss, params=PARAMS, cases=1)
    assert str(one.verdict) == "agrees"


def test_nothing_can_be_said_where_it_raises_at_all_cases() -> None:
    given = {"s": np.array([1.5, 0.7])}

    def kinked(p: Any) -> Any:  # at the parameters given, which are no case
        return np.sum(np.abs(p["s"] - given["s"]))

    def at_kink(p: Any) -> dict[str, Any]:
        assert np.all(p["s"] == given["s"])
        return {"s": np.zeros(2)}

    report = verify_own_model(at_kink, loss=kinked, params=given)
    assert (str(report.verdict), report.cases) == ("inconclusive", 0)
    assert report.notes[-1] == "Nothing could be compared."
    assert "cases were left out: your function raised AssertionError" in report.notes[-2]


def test_a_function_for_cells_raises_nothing_at_any_size() -> None:
    def short(params: Any, x: Any, y: Any) -> Any:
        if len(x) > 3:
            raise ValueError("expected three steps at most")
        return rnn.value_and_grad(rnn.Params(*params), x, y)[1]

    report = verify(short)
    assert [each.name for each in report.mistakes] == ["raised"]


@pytest.mark.parametrize("returned", [np.nan, np.ones(4)], ids=["no number", "another shape"])
def test_what_is_returned_at_a_draw_is_excused_by_no_domain(returned: Any) -> None:
    def failing(p: Any) -> dict[str, Any]:
        return right(p) if (p["s"] > 0).all() else right(p) | {"s": returned * np.ones_like(1.0)}

    report = verify_own_model(failing, loss=loss, params=PARAMS)
    assert str(report.verdict) == "disagrees"
    assert [each.name for each in report.mistakes] == ["wrong-shape"]


def state_found(errors: dict[str, float], allowed: float = 1e-9) -> Any:
    values = {name: np.ones(2) for name in errors}
    submitted = {name: 1 + np.full(2, error) for name, error in errors.items()}
    return state_compared(submitted, values, dict.fromkeys(errors, np.full(2, allowed)))


RAISED = make_breach("raised", "your function raised ValueError: no", "It was raised at a line.")


def test_one_case_is_counted_as_one() -> None:
    assert [*describe_raised([])] == []
    (said,) = describe_raised([RAISED])
    assert said == (
        "1 case was left out: your function raised ValueError: no there, and not at the parameters "
        "given. It was raised at a line."
    )
    assert next(describe_raised([RAISED, RAISED])).startswith("2 cases were left out: ")
    (by_settings,) = describe_raised([RAISED._replace(by_settings=True)])
    assert by_settings == (
        "1 case was left out: your function raised ValueError: no there, under settings of your "
        "own for floating-point errors. It was raised at a line."
    )


@pytest.mark.parametrize(
    ("sharp", "vague", "raised", "doubted"),
    [(4, 1, 1, False), (3, 2, 1, True), (3, 2, 0, False), (7, 0, 9, False)],
)
def test_four_cases_have_to_tell_where_others_are_left_out(
    sharp: int, vague: int, raised: int, doubted: bool
) -> None:
    subject: Any = SimpleNamespace(total=24, zeros=frozenset())
    cases = [state_found({"w": 0})] * sharp + [state_found({"w": 0}, 0.5)] * vague
    assert bool([*doubt_few(subject, [RAISED] * raised, cases)]) is doubted
    of_zero: Any = SimpleNamespace(total=24, zeros=frozenset({"w"}))
    assert [*doubt_few(of_zero, [RAISED], cases)] == []


def test_as_few_cases_have_to_tell_as_are_asked_for() -> None:
    subject: Any = SimpleNamespace(total=2, zeros=frozenset())
    assert [*doubt_few(subject, [RAISED], [state_found({"w": 0})] * 2)] == []
    assert len([*doubt_few(subject, [RAISED], [state_found({"w": 0})])]) == 1


def test_a_number_without_a_gradient_is_named() -> None:
    subject: Any = SimpleNamespace(expect=lambda case: SimpleNamespace(names=("w", "lam", "eps")))
    assert [*doubt_missing(subject, [state_found({"w": 0, "lam": 0, "eps": 0})])] == []
    (said,) = doubt_missing(subject, [state_found({"w": 0}), state_found({"w": 0, "eps": 0})])
    assert said.startswith("You return no gradient of lam, in params as a float. Return it if ")


# A float of Python's among the parameters is one of them, or data.

NUMBERS = {"W": np.array([[0.5, -1.0, 0.2], [0.1, 0.7, -0.4]]), "v": np.ones(2), "lam": 0.01}
X = np.array([0.3, -0.2, 0.9])


def penalised(p: Any) -> Any:
    return (np.tanh(p["W"] @ X) @ p["v"] - 1.0) ** 2 + p["lam"] * np.sum(p["W"] ** 2)


def differentiate(p: Any, scale: float = 2.0) -> tuple[Any, Any, Any]:
    h = np.tanh(p["W"] @ X)
    e = 2 * (h @ p["v"] - 1.0)
    dW = np.outer(e * p["v"] * (1 - h**2), X) + scale * p["lam"] * p["W"]
    return dW, e * h, np.sum(p["W"] ** 2)


RETURNED: dict[str, Any] = {
    "names": lambda p, dW, dv: {"W": dW, "v": dv},
    "names of gradients": lambda p, dW, dv: {"dW": dW, "dv": dv},
    "a loss and names": lambda p, dW, dv: (penalised(p), {"dW": dW, "dv": dv}),
    "None": lambda p, dW, dv: {"W": dW, "v": dv, "lam": None},
    "a tuple": lambda p, dW, dv: (dW, dv),
    "a loss and a list": lambda p, dW, dv: (penalised(p), [dW, dv]),
}


@pytest.mark.slow
@pytest.mark.table(12)
@pytest.mark.parametrize("read", RETURNED.values(), ids=RETURNED)
@pytest.mark.parametrize("kind", [float, np.float64])
def test_a_number_without_a_gradient_leaves_the_others_compared(read: Any, kind: Any) -> None:
    params = NUMBERS | {"lam": kind(0.01)}
    report = verify_own_model(
        lambda p: read(p, *differentiate(p)[:2]), loss=penalised, params=params
    )
    assert str(report.verdict) == "inconclusive"
    assert report.notes[0].startswith("You return no gradient of lam, in params as a float")
    assert {n: str(r.verdict) for n, r in report.parameters.items() if n != "loss"} == {
        "W": "agrees", "v": "agrees",
    }  # fmt: skip
    wrong = verify_own_model(
        lambda p: read(p, *differentiate(p, 1.0)[:2]), loss=penalised, params=params
    )
    assert str(wrong.verdict) == "disagrees"
    assert [each.name for each in wrong.mistakes] == ["constant-factor"]


@pytest.mark.slow
def test_a_mistake_is_placed_beside_a_number_without_a_gradient() -> None:
    def wrong(p: Any) -> dict[str, Any]:
        dW, dv, _ = differentiate(p)
        noise = np.arange(6.0).reshape(2, 3) * np.sin(dW)
        return {"W": dW + noise, "v": dv}

    report = verify_own_model(wrong, loss=penalised, params=NUMBERS)
    assert [each.name for each in report.mistakes] == ["unknown"]
    assert "the judge's search" not in str(report)


@pytest.mark.slow
def test_a_number_with_a_gradient_is_compared() -> None:
    def gradients(p: Any) -> dict[str, Any]:
        return dict(zip(NUMBERS, differentiate(p), strict=True))

    report = verify_own_model(gradients, loss=penalised, params=NUMBERS)
    assert str(report.verdict) == "agrees"
    doubled = verify_own_model(
        lambda p: gradients(p) | {"lam": 2 * gradients(p)["lam"]}, loss=penalised, params=NUMBERS
    )
    assert str(doubled.parameters["lam"].verdict) == "disagrees"


@pytest.mark.parametrize("missing", ["lam", "v"])
def test_a_missing_gradient_of_an_array_is_a_mistake(missing: str) -> None:
    params = NUMBERS | ({"lam": np.array(0.01)} if missing == "lam" else {})

    def gradients(p: Any) -> dict[str, Any]:
        named = dict(zip(NUMBERS, differentiate(p), strict=True))
        return {name: value for name, value in named.items() if name != missing}

    report = verify_own_model(gradients, loss=penalised, params=params)
    assert [each.name for each in report.mistakes] == ["wrong-shape"]


def test_numbers_alone_need_a_gradient() -> None:
    def square(p: Any) -> Any:
        return p["a"] ** 2

    report = verify_own_model(lambda p: {}, loss=square, params={"a": 0.5})
    assert [each.name for each in report.mistakes] == ["wrong-shape"]


def never_end(p: Any) -> None:
    while not p["s"].any():
        pass


def look_up(p: Any) -> None:
    indices = np.flatnonzero(p["s"])
    indices[0]


def stack(p: Any) -> None:
    np.stack([value for value in p["s"] if value])


def leave(p: Any) -> None:
    if not p["s"].any():
        raise SystemExit("nothing left")


@pytest.mark.parametrize(
    ("guard", "said"),
    [
        (never_end, "a call of your function did not end within 0.2 s. With case 24000 with s "),
        (
            look_up,
            "your function raised IndexError: index 0 is out of bounds for axis 0 with ",
        ),
        (stack, "your function raised ValueError: need at least one array to stack at `np.stack("),
        (leave, "your function raised SystemExit: nothing left at `raise SystemExit("),
    ],
)
def test_code_that_has_nothing_to_do_where_a_parameter_is_zero_is_not_compared_there(
    guard: Any, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raised_draws, "PATIENCE", 0.2)

    def guarded(p: Any) -> dict[str, Any]:
        guard(p)
        error = 2 * (np.outer(POINTS, p["s"]) - p["b"])
        return {"s": POINTS @ error, "b": -np.sum(error, keepdims=True)[0]}

    report = verify_own_model(guarded, loss=scaled_loss, params=PARAMS, cases=8)
    assert report, str(report)
    (note,) = (note for note in report.notes if "parameters are zero" in note)
    assert note.startswith(f"1 case in which parameters are zero was left out: {said}")


def test_what_a_function_raises_at_zeros_is_told_after_one_call() -> None:
    called = []

    def raise_error(w: Any) -> Any:
        called.append(w)
        raise IndexError("none")

    subject = state_subject(CASE_OF_ONES, draws_zeros=lambda case: True)
    breach = ask_at_zeros(Submission(raise_error), subject, CASE_OF_ONES)
    assert breach is not None
    assert (breach.mistake.name, len(called)) == ("raised", 1)
    assert ask_at_zeros(Submission(lambda w: {"w": w}), subject, CASE_OF_ONES) is None


def test_only_cases_with_zeros_are_asked_for_before_they_are_compared() -> None:
    def fail(submission: Any) -> Any:
        raise AssertionError

    case, submission = state_found({"s": 0.0}).case, Submission(fail)
    subject: Any = SimpleNamespace(draws_zeros=lambda case: False)
    assert ask_at_zeros(submission, subject, case) is None
    assert submission.calls == 0


def scaled_loss(p: Any) -> Any:
    return np.sum((np.outer(POINTS, p["s"]) - p["b"]) ** 2)


def divide(p: Any) -> dict[str, Any]:
    """The gradients, of which one is divided by the parameter that scales."""
    scaled = np.outer(POINTS, p["s"])
    error = 2 * (scaled - p["b"])
    return {"s": np.sum(error * scaled, axis=0) / p["s"], "b": -np.sum(error, keepdims=True)[0]}


POINTS = np.array([0.4, -1.1, 0.7, 1.3])


def test_a_zero_by_which_right_code_divides_is_left_out() -> None:
    report = verify_own_model(divide, loss=scaled_loss, params=PARAMS)
    assert report, str(report)
    (said,) = (note for note in report.notes if "parameters are zero" in note)
    assert said.startswith("1 case in which parameters are zero was left out: the gradient for s: ")
    assert said.endswith(" s scaled by 0.")
    assert report.cases == 23


@pytest.mark.rest
@pytest.mark.parametrize("name", ["s", "b"])
def test_what_is_wrong_where_a_parameter_is_zero_disagrees(name: str) -> None:
    def wrong(p: Any) -> dict[str, Any]:
        found = {"s": 2 * np.outer(POINTS, p["s"]) - 2 * p["b"], "b": 0}
        error = found["s"]
        found = {"s": POINTS @ error, "b": -np.sum(error, keepdims=True)[0]}
        return found if p[name].any() else found | {name: 1.01 * found[name]}

    report = verify_own_model(wrong, loss=scaled_loss, params=PARAMS)
    assert str(report.verdict) == "disagrees", str(report)
    given_as_zero = verify_own_model(
        wrong, loss=scaled_loss, params=PARAMS | {name: 0 * PARAMS[name]}
    )
    assert str(given_as_zero.verdict) == "disagrees"


def raise_at_underflow(params: Any, x: Any, y: Any) -> Any:
    with np.errstate(all="raise"):
        _, found = rnn.value_and_grad(rnn.Params(*params), x, y)
        if len(x) == 200 and x.dtype == np.float32:
            np.exp(np.float32(-100))
    return {"U": found.U, "W": found.W, "V": found.V}


@pytest.mark.extreme
def test_a_cell_that_takes_an_underflow_for_an_exception_is_not_compared_there() -> None:
    report = verify(raise_at_underflow, examples=8)
    assert report, str(report)
    (said,) = (note for note in report.notes if "under settings of your own" in note)
    assert "FloatingPointError: underflow" in said


def test_the_cases_with_zeros_that_were_left_out_are_counted() -> None:
    assert [*describe_zeroed([])] == []
    (said,) = describe_zeroed([RAISED, RAISED])
    assert said.startswith("2 cases in which parameters are zero were left out: your function ")
    assert said.endswith(RAISED.notes[0])
    (said,) = describe_zeroed([RAISED._replace(where="`1 / 0` (m.py:3:9)")])
    assert "raised ValueError: no at `1 / 0` (m.py:3:9). " in said
