"""Parameters that are rounded inside show in what others give the same results."""

from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16

from bptt_verifier.judge import half_precision
from bptt_verifier.judge.half_precision import (
    are_parameters_rounded,
    ignores_rounding,
    move_within,
    round_to,
    specify_format,
)
from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.submission import Call, Submission
from tests.support.stated_cases import state_case, state_compared, state_subject


def round_twice(dtype: Any) -> Any:
    return lambda w: 2 * w.astype(dtype).astype(float)


def find_at(gradients: Any, *w: float) -> tuple[tuple[Submission, Any], Compared]:
    """A submission of one parameter, its subject, and its results at these values."""
    at = {"w": np.array(w)}
    case, results = state_case(at, at, at), {"w": gradients(at["w"])}
    found = state_compared(results, at, at)._replace(case=case)
    return (Submission(lambda w: {"w": gradients(w)}), state_subject(case)), found


SUBMISSIONS: dict[str, tuple[Any, Any]] = {
    "rounds so": (round_twice, True),
    "overflows": (lambda dtype: lambda w: w.astype(dtype).astype(float) * [1.0, np.inf], True),
    "has no number": (lambda dtype: lambda w: w.astype(dtype).astype(float) * [1.0, np.nan], True),
    "rounds to float32": (lambda dtype: round_twice(np.float32), False),
    "rounds to nothing": (lambda dtype: lambda w: 2 * w, False),
    "rounds to decimals": (lambda dtype: lambda w: np.round(w, 1), None),
    "rounds one of two": (
        lambda dtype: lambda w: np.append(w[:1], round_twice(dtype)(w[1:])),
        False,
    ),
}


@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
@pytest.mark.parametrize("kind", SUBMISSIONS)
def test_what_rounds_its_parameters_ignores_which_ones_round_alike(kind: str, dtype: Any) -> None:
    make, expected = SUBMISSIONS[kind]
    of_case, found = find_at(make(dtype), 1 / 3, -2 / 3)
    assert ignores_rounding(*of_case, found, dtype) is expected
    of_case, found = find_at(make(dtype), 1.0, -2.0)  # have no digits that rounding takes
    assert ignores_rounding(*of_case, found, dtype) is None


@pytest.mark.parametrize(
    ("second", "other", "expected"),
    [
        (1 / 3, round_twice(np.float16), True),
        (1 / 3, lambda v: 2 * v, False),
        (1.0, round_twice(np.float16), True),  # one has digits that rounding takes
    ],
)
def test_all_results_show_how_parameters_are_rounded(
    second: float, other: Any, expected: bool
) -> None:
    at = {"w": np.array([1 / 3]), "v": np.array([second])}
    subject: Any = state_subject(state_case(at, at, at))
    subject.call = lambda case, copy: Call((case.arguments,), {}, dict)

    def gradients(p: Any) -> Any:
        return {"w": round_twice(np.float16)(p["w"]), "v": other(p["v"])}

    found = state_compared(gradients(at), at, at)._replace(case=state_case(at, at, at))
    assert ignores_rounding(Submission(gradients), subject, found, np.float16) is expected


def test_what_is_rounded_to_every_other_number_of_a_format_is_rounded_more_coarsely() -> None:
    spacing = 2.0**-12  # of float16 between ¼ and ½
    of_case, found = find_at(lambda w: np.floor(w / spacing / 2 + 0.25), 1 / 4 + 0.1 * spacing)
    assert ignores_rounding(*of_case, found, np.float16) is None


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ("ssssn", True),
        ("sssse", True),
        ("sssss", None),
        ("esssn", None),  # an exception tells nothing
        ("sssen", None),
        ("nsssn", False),
        ("sssnn", False),
        ("ensss", False),
    ],
)
def test_four_draws_and_then_the_next_numbers_are_asked(answers: str, expected: Any) -> None:
    of_case, found = find_at(round_twice(np.float16), 1 / 3)
    left = iter(answers)

    def gradients(w: Any) -> Any:
        answer = next(left)
        if answer == "e":
            raise ValueError("enough")
        return {"w": found.submitted["w"] + (answer == "n")}

    assert ignores_rounding(Submission(gradients), of_case[1], found, np.float16) is expected
    assert not [*left]


def test_a_parameter_without_a_gradient_stays_as_it_is() -> None:
    at = {"w": np.array([1 / 3]), "x": np.array([1 / 3])}
    case, found = state_case({"w": np.ones(1)}, at, at), state_compared(*[{"w": np.ones(1)}] * 3)
    subject, asked = state_subject(case), list[Any]()

    def call(case: Any, copy: Any) -> Call:
        asked.append(case.arguments)
        return Call((case.arguments["w"],), {}, dict)

    subject.call = call
    submission = Submission(lambda w: {"w": np.ones(1)})
    assert ignores_rounding(submission, subject, found._replace(case=case), np.float16) is None
    assert {float(each["x"][0]) for each in asked} == {1 / 3}
    assert len({float(each["w"][0]) for each in asked}) == 5


@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
def test_numbers_that_round_alike_fill_the_space_between_those_of_a_format(dtype: Any) -> None:
    values = np.array([1 / 3, -1.0, 2.0**-30, 3e-5, 0.0, 1000.3])
    near, rng = values.astype(dtype), np.random.default_rng(3)
    draws = np.array([move_within(values, dtype, rng) for _ in range(200)])
    assert (draws.astype(dtype) == near).all()
    spacing = np.abs(np.nextafter(near[:2], dtype(9) * near[:2]) - near[:2]).astype(float)
    assert (np.ptp(draws[:, :2], axis=0) > 0.7 * spacing).all()
    beyond = round_to(values[:2], dtype, next_ones=1)
    np.testing.assert_array_equal(beyond, near[:2].astype(float) + np.sign(values[:2]) * spacing)
    assert move_within(values.astype(np.float32), dtype, rng).dtype == np.float32


@pytest.mark.parametrize(
    ("inferred", "used", "expected"),
    [
        (np.float16, bfloat16, (bfloat16, True)),
        (np.float16, np.float16, (np.float16, True)),
        (np.float16, np.float64, (np.float16, False)),
        (bfloat16, bfloat16, (bfloat16, True)),
        (bfloat16, np.float16, (bfloat16, False)),
        (np.float32, bfloat16, (np.float32, False)),  # its errors are below those of bfloat16
        (None, bfloat16, (None, False)),
    ],
)
def test_parameters_that_are_rounded_tell_bfloat16_from_float16(
    inferred: Any, used: Any, expected: Any
) -> None:
    of_case, found = find_at(round_twice(used), 1 / 3)
    assert specify_format(*of_case, found, inferred) == expected


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ([True] * 4 + [None] * 4, True),
        ([True] * 3 + [None] * 5, False),  # too few
        ([True] * 7 + [False], False),
        ([True] * 8 + [False], True),  # the ninth is not asked
        ([], False),
    ],
)
def test_parameters_are_rounded_if_four_of_eight_cases_show_it_and_none_denies_it(
    shown: list[Any], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half_precision, "ignores_rounding", lambda g, s, found, d: found)
    given: Any = (None, None, shown, np.float16)
    assert are_parameters_rounded(*given) is expected
