"""Parts of the transpose test, of linear functions in NumPy whose transposes are known."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import transposes
from bptt_verifier.judge.directions import DirectionCalls
from bptt_verifier.judge.kernel_calls import KernelCalls
from bptt_verifier.judge.kernel_cases import KernelCase
from bptt_verifier.judge.transposes import (
    Unstated,
    assert_transpose_verified,
    draw_aligned,
    draw_case,
    find_breach,
    jvp_like,
    keep,
    measure_noise,
    pair_at,
    pair_blocks,
    report_blocks,
    verify_transpose,
)
from bptt_verifier.program.arguments import read_arguments
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.comparison import Verdict
from bptt_verifier.tolerance.formats import round_significand
from bptt_verifier.tolerance.pairings import Pairing, pair
from bptt_verifier.tolerance.scatter import DISTANCE, IN_HALF

A = np.random.default_rng(0).normal(size=(4, 3))
X, S = np.array([0.5, -1, 2]), np.array([1.5, 0.5])
GIVEN = read_arguments((X, S))


def push(arguments: Any, direction: Any) -> Any:
    """The tangents of y = A x² and z = s."""
    (x, _), (dx, ds) = arguments, direction
    return {"y": A @ (2 * x * dx), "z": ds}


def pull(arguments: Any, cotangents: Any) -> Any:
    (x, _) = arguments
    return 2 * x * (A.T @ cotangents["y"]), cotangents["z"]


def pull_wrong(arguments: Any, cotangents: Any) -> Any:
    of_x, of_s = pull(arguments, cotangents)
    return 1.1 * of_x, of_s


def case_of(number: int = 0, dtype: Any = np.float64) -> KernelCase:
    given = read_arguments((X.astype(dtype), S.astype(dtype)))
    return draw_case(given, 0, number, 0)


def test_a_case_is_what_is_given_at_first_and_drawn_near_it_then() -> None:
    first, second, third = (draw_case(GIVEN, 0, number, 0) for number in range(3))
    assert (first.setting, first.number, second.number) == (0, 0, 1)
    assert np.array_equal(first.point["arguments[0]"], X)
    assert not np.array_equal(second.point["arguments[0]"], X)
    for one, other in (
        (first, second), (second, third), (first, draw_case(GIVEN, 0, 0, 1)),
        (first, draw_case(GIVEN, 1, 0, 0)),
    ):  # fmt: skip
        assert not np.array_equal(one.cotangents["arguments[0]"], other.cotangents["arguments[0]"])
    assert first.cotangents.keys() == first.point.keys() == first.excluding
    endless = read_arguments((np.array([0.0, -1e9, 0.5]),))
    assert draw_case(endless, 0, 1, 0).point["arguments[0]"][1] == -1e9


def test_results_of_what_is_not_stated_are_those_of_its_outputs() -> None:
    shapes = Unstated(GIVEN, {"y": X, "z": S})
    assert [*shapes.computed] == ["y", "z"]
    assert [*shapes.results] == ["tangent of y", "tangent of z"]
    assert shapes.results["tangent of z"] is S
    assert jvp_like(X) is None  # type: ignore[func-returns-value]


def test_cotangents_have_the_signs_of_the_tangents() -> None:
    tangents = {"tangent of y": np.array([-2.0, 3, 0], np.float32), "tangent of z": -S}
    drawn = draw_aligned(tangents, np.random.default_rng(0))
    assert [*drawn] == ["y", "z"]
    assert np.sign(drawn["y"]).tolist() == [-1, 1, 1]
    assert np.all(drawn["z"] < 0)
    assert drawn["y"].dtype == np.float32


def test_the_first_breach_or_number_that_is_not_finite_is_found() -> None:
    raised, case = Mistake("raised", "It was raised.", {}), case_of()
    right = {"y": X, "z": S}
    assert find_breach([right, raised], case) is raised
    assert find_breach([right, right], case) is None
    for endless in (np.nan, np.inf):
        found = find_breach([right, {"y": X, "z": np.array([1, endless])}, raised], case)
        assert found is not None
        assert (found.name, found.details) == ("not-finite", {})
        assert found.explanation == (
            "expected finite numbers, found NaN or infinity, with the arguments given."
        )


def test_one_array_is_kept() -> None:
    kept = keep({"y": X, "z": S}, "z")
    assert kept["z"] is S
    assert kept["y"].tolist() == [0, 0, 0]


class Calls:
    """A function of one array that is not additive by a constant."""

    def __init__(self, constant: float) -> None:
        self.constant, self.asked = constant, list[Any]()

    def ask(self, point: Any, cotangents: Any) -> Any:
        self.asked.append(cotangents["y"])
        return {"x": cotangents["y"] + self.constant}


def test_noise_is_what_two_parts_leave_of_their_sum() -> None:
    case = KernelCase(0, 0, {}, {"y": np.ones(8, np.float32)})
    calls: Any = Calls(0.01)
    found: Any = measure_noise(calls, case)
    assert found["noise"] == pytest.approx(0.01 / 1.01, rel=1e-5)
    whole, one, other = calls.asked
    assert np.array_equal(one + other, whole)
    assert one.any()
    assert other.any()
    assert one.dtype == np.float32
    assert measure_noise(Calls(0.0), case) == {"noise": 0.0}  # type: ignore[arg-type]
    endless: Any = measure_noise(Calls(np.nan), case)  # type: ignore[arg-type]
    assert endless.name == "not-finite"


def blocks(vjp: Any = pull, jvp: Any = push, case: Any = None) -> Any:
    return pair_blocks(jvp, vjp, GIVEN, case or case_of(), 0)


def test_each_block_of_a_function_is_paired_with_its_transpose() -> None:
    found = blocks()
    names = [f"∂{y}/∂arguments[{k}]" for k in range(2) for y in "yz"]
    assert [*found] == names
    assert not any(each.wrong for each in found.values())
    sizes = {name: each.size > 0 for name, each in found.items()}
    assert sizes == dict(zip(names, [True, False, False, True], strict=True))
    each = found["∂y/∂arguments[0]"]
    assert each.forward == pytest.approx(each.backward, rel=1e-12)
    assert each.allowed < 1e-10 * abs(each.forward)


def test_the_block_that_is_wrong_is_wrong_at_both_distances(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = list[float]()

    def note(pushing: Any, pulling: Any, case: Any, distance: float, seed: int) -> Any:
        asked.append(distance)
        return pair_at(pushing, pulling, case, distance, seed)

    monkeypatch.setattr(transposes, "pair_at", note)
    found = blocks(pull_wrong)
    assert [name for name, each in found.items() if each.wrong] == ["∂y/∂arguments[0]"]
    assert asked == [DISTANCE, IN_HALF]
    blocks()
    assert asked[2:] == [DISTANCE]
    asked.clear()
    half = case_of(dtype=np.float16)
    given = read_arguments((X.astype(np.float16), S.astype(np.float16)))
    pair_blocks(push, pull_wrong, given, half, 0)
    assert asked == [IN_HALF]


def test_a_breach_of_the_contract_is_returned_in_the_place_of_blocks() -> None:
    def fail(*_: Any) -> Any:
        raise OSError("no memory")

    def fail_after(number: int) -> Any:
        calls: list[Any] = []

        def rarely(arguments: Any, given: Any) -> Any:
            calls.append(given)
            return fail() if len(calls) > number else push(arguments, given)

        return rarely

    assert blocks(jvp=fail).name == "raised"
    assert blocks(vjp=fail).name == "raised"
    for number in (1, 3, 5):  # the whole, its parts, and the neighbours
        assert blocks(jvp=fail_after(number)).name == "raised"
    endless = lambda arguments, d: {"y": A @ d[0] * np.inf, "z": d[1]}  # noqa: E731
    assert blocks(jvp=endless).name == "not-finite"


def test_the_noise_of_either_side_is_allowed_in_all_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def round_off(arguments: Any, cotangents: Any) -> Any:
        return tuple(round_significand(each, 11) for each in pull(arguments, cotangents))

    asked = list[Any]()

    def note(forward: Any, backward: Any, noise: float, tests: int) -> Any:
        asked.append((noise, tests))
        return pair(forward, backward, noise, tests)

    monkeypatch.setattr(transposes, "pair", note)
    pushing, pulling = calls_of(push, round_off)
    found = pair_at(pushing, pulling, case_of(), IN_HALF, 0)
    assert isinstance(found, dict)
    assert {tests for _, tests in asked} == {4}
    assert all(2.0**-14 < noise < 2.0**-10 for noise, _ in asked)


def calls_of(jvp: Any, vjp: Any) -> Any:
    shapes: Any = Unstated(GIVEN, {"y": np.ones(4), "z": S})
    return DirectionCalls(jvp, shapes), KernelCalls(vjp, shapes)


# The report.


def pairing(difference: float, size: float = 4.0) -> Pairing:
    return Pairing(2.0, 2.0 + difference, difference, 0.1, size)


def test_blocks_that_are_zero_on_both_sides_are_left_out() -> None:
    first = {"∂y/∂x": pairing(0.05), "∂z/∂x": pairing(0.0, 0.0), "∂z/∂s": pairing(0.0, 0.0)}
    second = {"∂y/∂x": pairing(0.05), "∂z/∂x": pairing(0.05), "∂z/∂s": pairing(0.0, 0.0)}
    report = report_blocks("mine", [first, second])
    assert [*report.parameters] == ["∂y/∂x", "∂z/∂x"]
    assert (report.subject, report.verdict, report.cases) == ("mine", Verdict.AGREES, 2)
    assert report.mistakes == ()
    assert report.notes[0].endswith("What both get wrong alike is not seen.")


def test_wrong_blocks_are_named() -> None:
    report = report_blocks("mine", [{"∂y/∂x": pairing(0.2), "∂z/∂x": pairing(0.05)}])
    assert report.verdict is Verdict.DISAGREES
    (mistake,) = report.mistakes
    assert (mistake.name, mistake.details) == ("not-transposed", {"blocks": ["∂y/∂x"]})
    said = "the forward mode and the pull-back disagree on ∂y/∂x."
    assert mistake.explanation == said


def test_two_modes_agree_or_not_over_all_cases() -> None:
    report = verify_transpose(push, pull, (X, S))
    assert report.verdict is Verdict.AGREES
    assert (report.subject, report.cases, report.seed) == ("push and pull", 3, 0)
    assert report.command == "verify_transpose(push, pull, arguments, seed=0)"
    report = verify_transpose(push, pull_wrong, [(X, S)] * 2, cases=1, seed=5, subject="mine")
    assert (report.subject, report.cases, report.verdict) == ("mine", 2, Verdict.DISAGREES)
    assert report.command == "verify_transpose(push, pull_wrong, arguments, cases=1, seed=5)"
    for given in ({"cases": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match=next(iter(given))):
            verify_transpose(push, pull, (X, S), **given)
    with pytest.raises(TypeError, match=r"^vjp:"):
        verify_transpose(push, 3, (X, S))  # type: ignore[arg-type]


def test_a_breach_ends_the_comparison_with_its_case() -> None:
    def fail(arguments: Any, cotangents: Any) -> Any:
        if np.abs(arguments[0] - X).max() > 0.1:  # no neighbour of what is given
            raise OSError("no memory")
        return pull(arguments, cotangents)

    report = verify_transpose(push, fail, (X, S))
    assert (report.verdict, report.cases) == (Verdict.DISAGREES, 1)
    assert [mistake.name for mistake in report.mistakes] == ["raised"]
    assert report.command.startswith("verify_transpose(push, fail")


def test_the_report_is_returned_where_it_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    assert assert_transpose_verified(push, pull, (X, S), cases=1).verdict is Verdict.AGREES

    def disagree(*given: Any, **options: Any) -> Any:
        raise ValueError("it disagrees")

    monkeypatch.setattr(transposes, "verify_transpose", disagree)
    with pytest.raises(ValueError, match="it disagrees") as caught:
        assert_transpose_verified(push, pull, (X, S))
    hidden = [entry.name for entry in caught.traceback if entry.ishidden(caught)]
    assert hidden == ["assert_transpose_verified"]
