"""A kernel's answers, and how far another right answer may be from one, with numbers by hand."""

from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.judge.kernel_answers import Question, prepare_question
from bptt_verifier.judge.kernel_cases import KernelCase
from bptt_verifier.judge.kernel_comparisons import Found
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.scatter import find_normal_ratio
from tests.support.measurements import make_measurement, make_slices

UNIT = 2.0**-24  # the unit roundoff of float32
ANSWER = {"w": np.full(3, 2.0), "v": np.full(2, 4.0)}


class Calls:
    """Calls of a kernel whose gradients are the arguments times the first cotangent."""

    def __init__(self) -> None:
        self.asked = list[Any]()
        self.finding: Any = None
        self.imitated: Any = None
        self.kept: Any = ()
        self.pullback = self

    def ask(self, point: Any, cotangents: Any, copy: Any) -> Any:
        self.asked.append((point, cotangents, copy))
        c = np.float32(cotangents["y"][0])
        return self.finding or {name: c * value for name, value in point.items()}

    def pull_back(self, points: Any, cotangents: Any) -> Any:
        self.asked.append((points, cotangents))
        gradients = {name: value[None] * 2.0 for name, value in points[0].items()}
        return SimpleNamespace(gradients=gradients, kept=self.kept)

    def imitate_rounding(self, points: Any, cotangents: Any, dtype: Any) -> Any:
        self.asked.append((points, cotangents, dtype))
        if self.imitated is None:
            raise ValueError("the operations are unknown")
        return SimpleNamespace(gradients=self.imitated)


def case_of(number: int, of_w: Any = np.float32, of_v: Any = np.float32) -> KernelCase:
    point = {"w": np.full(3, number + 2, of_w), "v": np.full(2, number + 2, of_v)}
    return KernelCase(0, number, point, {"y": np.full(1, number + 1.0)})


def question(tolerance: float = 0.5, of_w: Any = np.float32, **known: Any) -> Any:
    """A question whose answer is 2 in each entry of w, and 4 in those of v."""
    allowed = {name: np.full(value.shape, tolerance) for name, value in ANSWER.items()}
    sets = {n: frozenset(v) for n, v in known.items()}
    calls: Any = Calls()
    return Question(calls, case_of(0, of_w), case_of(1, of_w), ANSWER, allowed, [], **sets)


def change(**by: Any) -> dict[str, Any]:
    return {name: value + by.get(name, 0.0) for name, value in ANSWER.items()}


def test_answers_elsewhere_are_kept_and_are_in_float64() -> None:
    asked = question()
    found = asked.ask()
    assert {name: value.tolist() for name, value in found.items()} == {"w": [2] * 3, "v": [2] * 2}
    assert found["w"].dtype == np.float64
    assert asked.elsewhere == []
    point, cotangents = asked.other.point, asked.other.cotangents
    for given in ({"point": point}, {"cotangents": cotangents}):
        assert asked.ask(**given) is asked.elsewhere[-1]
    assert [each["w"][0] for each in asked.elsewhere] == [3, 4]
    assert asked.calls.asked[0] == (asked.case.point, asked.case.cotangents, np.array)
    asked.ask_copies(np.copy)
    assert asked.calls.asked[-1] == (asked.case.point, asked.case.cotangents, np.copy)
    asked.calls.finding = Mistake("raised", "It was raised.", {})
    assert asked.ask(point) is None
    assert len(asked.elsewhere) == 2


def test_the_exact_gradients_are_those_of_one_point() -> None:
    asked = question()
    found = asked.pull_back()
    assert found["w"].tolist() == [4, 4, 4]
    assert asked.calls.asked[-1] == ([asked.case.point], [asked.case.cotangents])
    asked.pull_back(asked.other.point, asked.other.cotangents)
    assert asked.calls.asked[-1] == ([asked.other.point], [asked.other.cotangents])
    assert asked.keeps_zeros() is False
    asked.calls.kept = (0,)
    assert asked.keeps_zeros() is True
    assert asked.calls.asked[-1] == ([asked.case.point], [asked.case.cotangents])
    asked.keeps_zeros(asked.other.point)
    assert asked.calls.asked[-1] == ([asked.other.point], [asked.case.cotangents])


def test_a_unit_is_that_of_the_argument_or_of_the_coarsest() -> None:
    asked = question(of_w=np.float64)
    assert asked.find_size("w") == 2.0**-53 * 2
    assert asked.find_size("v") == UNIT * 4
    tangent = asked._replace(answer={"tangent of y": np.array([3.0, 4])})
    assert tangent.find_size("tangent of y") == pytest.approx(UNIT * 12.5**0.5)


def test_imitated_sums_have_the_size_of_the_largest_sample() -> None:
    asked = question(of_w=np.float16)
    asked.calls.imitated = {"w": np.array([[[1.0, 1, 1]], [[3, 3, 3]], [[2, 2, 2]]])}
    assert asked.imitate_sums("w") == 3
    assert asked.calls.asked[-1] == ([asked.case.point], [asked.case.cotangents], np.float16)
    for endless in (np.inf, np.nan):
        asked.calls.imitated = {"w": np.array([[[3, endless, 3]], [[1.0, 1, 1]]])}
        assert asked.imitate_sums("w") == np.inf
    asked.calls.imitated = None
    assert asked.imitate_sums("w") == np.inf


def test_rounding_of_every_operation_is_allowed_in_32_and_64_bits() -> None:
    asked = question()
    assert asked.allow_rounding() is asked
    errors = np.array([[[3.0, 0, 0], [0, 6, 0]], [[4, 0, 0], [0, 8, np.nan]]])  # samples, points
    asked.calls.imitated = {"w": errors, "v": np.zeros((2, 2, 2))}
    wider = asked.allow_rounding().tolerance
    size = find_normal_ratio(5) * 12.5**0.5  # √((9 + 16) / 2), and twice that
    np.testing.assert_allclose(wider["w"], [0.5 + size, 0.5 + 2 * size, 0.5])
    assert wider["v"].tolist() == [0.5, 0.5]
    points = [asked.case.point, asked.other.point]
    assert asked.calls.asked[-1] == (
        points, [asked.case.cotangents, asked.other.cotangents], np.float32,
    )  # fmt: skip
    mixed = asked._replace(case=case_of(0, np.float64, np.float32))
    mixed.allow_rounding()
    assert asked.calls.asked[-1][2] == np.float32
    half = asked._replace(case=case_of(0, np.float32, jnp.bfloat16))
    assert half.allow_rounding() is half


def test_two_right_answers_differ_by_twice_the_tolerance() -> None:
    asked = question()
    assert asked.differs(change(w=1.0, v=-1.0), ANSWER) == ""
    assert asked.differs(change(v=1.01), ANSWER) == "v"
    assert asked.differs(change(w=-1.01, v=1.01), ANSWER) == "w"
    for factor in (3.0, -3.0):
        assert asked.differs(change(w=3.0), ANSWER, factor) == ""
        assert asked.differs(change(w=3.01), ANSWER, factor) == "w"
    assert asked.differs(change(w=1.0), ANSWER, 0.1) == ""
    assert asked.differs(change(w=1.01), ANSWER, 0.1) == "w"
    assert asked.differs(change(w=np.nan), ANSWER) == "w"
    assert asked.differs(change(w=np.array([0, 9, 0])), ANSWER) == "w"
    assert asked.undecided is False


def test_a_wrong_gradient_has_a_sharper_limit_unless_the_answer_is_rounded_otherwise() -> None:
    asked = question(wrong="w")
    by = 64 * UNIT * 2
    assert asked.differs(change(w=by), ANSWER) == ""
    assert asked.differs(change(w=1.01 * by), ANSWER) == "w"
    assert asked.differs(change(v=100 * by), ANSWER) == ""
    assert asked.differs(change(w=1.01 * by), ANSWER, rounded=True) == ""
    assert asked.differs(change(w=1.01 * by), ANSWER, 2.0) == ""
    assert asked.differs(change(w=2.01 * by), ANSWER, -2.0) == "w"


def test_one_entry_may_change_by_four_times_as_much_in_64_units_or_4_of_16_bits() -> None:
    for dtype, units in ((np.float32, 64 * UNIT), (np.float16, 4 * 2.0**-11)):
        asked = question(of_w=dtype)
        limit = units * 2
        assert asked.is_coarse is (dtype == np.float16)
        assert not asked.changes("w", change(w=limit), ANSWER)
        assert asked.changes("w", change(w=-1.01 * limit), ANSWER)
        assert not asked.changes("w", change(w=-2.99 * limit), ANSWER, 3.0)
        many = {"w": np.full(64, 2.0)}
        wide = asked._replace(answer=many)
        for part, found in ((4.0, False), (4.01, True)):
            one = many["w"].copy()
            one[5] -= part * limit
            assert wide.changes("w", {"w": one}, many) is found


def test_a_gradient_of_zeros_is_right_if_it_is_rounding_of_the_largest() -> None:
    asked = question(tolerance=0.0, zero="w")
    limit = 4 * 64 * UNIT * 4  # of v, the larger one
    assert asked.differs(change(w=limit), ANSWER) == ""
    assert asked.differs(change(w=-1.01 * limit), ANSWER) == "w"
    assert asked.differs(change(v=1e-9), ANSWER) == "v"
    assert asked.differs(change(w=limit, v=1e-9), ANSWER) == "v"
    assert asked.differs(change(w=2.0 * limit), ANSWER, 2.0) == ""
    assert asked.is_rounding(np.zeros(0), 1.0) is True
    coarse = question(tolerance=0.0, of_w=np.float16, zero="v")
    coarse = coarse._replace(answer={"w": np.full(3, 2.0), "v": np.zeros(2)})
    limit = 4 * 4 * 2.0**-11 * 2
    assert coarse.is_rounding(np.array([0, -limit]), 1.0)
    assert not coarse.is_rounding(np.array([0, -1.01 * limit]), 1.0)


# What is known of a case before it is asked about.


def prepare(
    near: Any = None,
    unsure: Any = (),
    noisy: Any = (),
    finding: Any = None,
    elsewhere: Any = (),
    **found: Any,
) -> Any:
    calls: Any = Calls()
    calls.finding = finding
    every = Found(
        case_of(0), {}, {}, found, {}, frozenset(unsure), near=near, noisy=dict.fromkeys(noisy, 1.0)
    )
    return prepare_question(calls, every, case_of(1), [*elsewhere, every])


def measured(
    resolution: float, relative: float = 0.0, unit: float = UNIT, wrong: bool = False
) -> Any:
    found = make_measurement([9.0 * wrong], limit=0.25 if not wrong else 1.0, relative=relative)
    slices = (make_slices(None, [0.0], limit=resolution),)
    return found._replace(noise=found.noise._replace(unit=unit), slices=slices)


def test_a_question_has_what_the_errors_of_a_case_tell() -> None:
    found = prepare(
        w=measured(0.01, 16 * UNIT), v=measured(np.inf, 17 * UNIT), b=measured(0.01, wrong=True),
        noisy="v",
    )  # fmt: skip
    assert found.tolerance["w"].tolist() == [0.25]
    assert found.wrong == {"b", "v"}
    assert found.precise == {"w", "b"}
    assert found.noisy == {"v"}
    assert found.zero == {"v"}
    assert found.undecided is False
    assert found.answer["w"].tolist() == [2, 2, 2]
    assert (found.case.number, found.other.number) == (0, 1)
    assert prepare(w=measured(0.01), finding=Mistake("raised", "", {})) is None


def test_tolerances_and_noise_are_those_nearest_to_the_point() -> None:
    near = SimpleNamespace(gradients={"w": measured(np.inf, 17 * UNIT)._replace(limit=np.ones(1))})
    found = prepare(near, w=measured(0.01))
    assert found.tolerance["w"].tolist() == [1]
    assert found.precise == found.zero == frozenset()


@pytest.mark.parametrize(
    ("resolution", "noise", "unsure", "undecided"),
    [
        (2.0**-4, 2.0**-6, "", False), (0.0626, 0.0, "", True), (np.inf, 1.0, "", False),
        (0.01, 0.0, "w", True), (0.01, 0.0157, "", True),
    ],
)  # fmt: skip
def test_a_gradient_in_doubt_or_with_much_noise_leaves_the_verdict_undecided(
    resolution: float, noise: float, unsure: str, undecided: bool
) -> None:
    v = measured(0.01)
    found = prepare(w=measured(resolution, noise), v=v, unsure=unsure)
    assert found.undecided is undecided
    here = Found(case_of(2), {}, {}, {"w": measured(resolution, noise)}, {}, frozenset(unsure))
    assert prepare(v=v, elsewhere=[here]).undecided is undecided
