"""Smaller failing cases, evidence for a name, and words on a cell, with submissions by rule."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import cells
from bptt_verifier.judge.cells import (
    CHEAP,
    CONFIRMED,
    DECIMALS,
    FRESH,
    LONG,
    PRINTED,
    READABLE,
    CellSubject,
    find_contradiction,
    is_large,
    keep_states,
    work,
)
from bptt_verifier.judge.first_states import TakenStates
from bptt_verifier.judge.subject import Compared
from bptt_verifier.mistakes import cells as mistaken_cells
from bptt_verifier.problems.draws import with_values
from bptt_verifier.problems.extremes import LARGE
from bptt_verifier.problems.problem import LARGEST, Problem, Sizes
from bptt_verifier.reference.autodiff import measure_truth
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.comparison import compare
from manual_bptt import lstm, rnn
from tests.support.cell_subjects import WITH_STATE, subject

ONES = Sizes(1, 1, 1, 1, 1)
FULL = Sizes(*LARGEST)
Rule = Callable[[Problem], bool]


class Submission:
    """A submission whose gradient for W is wrong where a rule says so; it notes the problems."""

    def __init__(self, chosen: CellSubject, fails: Rule, raises: Rule = lambda _: False) -> None:
        self.chosen, self.fails, self.raises = chosen, fails, raises
        self.seen: list[Any] = []

    def at(self, sizes: Sizes, dtype: Any = np.float64) -> Compared:
        """What is found at a problem of these sizes, of the numbers 0 and 1."""
        rng = np.random.default_rng(0)
        found = self.compare(self.chosen.make_case(self.chosen.draw_problem(rng, sizes, dtype)))
        assert found is not None
        return found

    def compare(self, case: Any) -> Compared | None:
        self.seen.append(case)
        assert len(self.seen) < 1000
        assert case.point.x.size < 10**6
        if self.raises(case.point):
            return None
        wrong, one = self.fails(case.point), np.ones(1)
        values, submitted = {"W": one, "loss": one}, {"W": one - wrong, "loss": one}
        dtypes = dict.fromkeys(submitted, np.dtype(np.float64))
        found = [compare("W", one, submitted["W"], np.full(1, 1e-9))]
        return Compared(case, submitted, dtypes, values, dict.fromkeys(values, one), found)


def shrink(
    fails: Rule, sizes: Sizes = FULL, chosen: CellSubject | None = None, **more: Any
) -> tuple[Compared, Submission]:
    """Shrink a failing case of these sizes."""
    own = subject(**more) if chosen is None else chosen
    submission = Submission(own, fails)
    given = submission.at(sizes)
    submission.seen.clear()
    return own.shrink(submission.compare, given), submission


def count_decimals(problem: Problem) -> int:
    """The decimals of the numbers of a problem; 9 for all."""
    arrays = [*problem.weights.values(), problem.x, problem.y, *problem.first.values()]
    return next(
        (n for n in (1, 2) if all(np.array_equal(each, each.round(n)) for each in arrays)), 9
    )


def test_what_always_fails_fails_with_single_numbers_of_one_decimal() -> None:
    found, submission = shrink(lambda _: True)
    assert found.case.point.sizes == ONES
    assert count_decimals(found.case.point) == 1
    assert [each.point.sizes for each in submission.seen] == [READABLE, ONES]


@pytest.mark.parametrize("decimals", [2, 9])
def test_no_more_decimals_are_shown_than_a_mistake_needs(decimals: int) -> None:
    found, _ = shrink(lambda problem: count_decimals(problem) >= decimals)
    assert found.case.point.sizes == ONES
    assert count_decimals(found.case.point) == decimals


def test_a_readable_case_has_the_fewest_numbers_that_fail() -> None:
    found, submission = shrink(lambda p: p.sizes.T >= 3 and p.sizes.H >= 2)
    assert found.case.point.sizes == (3, 1, 1, 2, 1)
    tried = [sum(each.point.sizes) for each in submission.seen[1:]]
    assert tried == sorted(tried)
    assert found.case.point.x.dtype == np.float64


def test_no_size_of_a_readable_case_is_larger_than_can_be_read() -> None:
    found, _ = shrink(lambda p: p.sizes == READABLE or max(p.sizes) > READABLE.T)
    assert found.case.point.sizes == READABLE


def test_what_no_readable_case_shows_is_reduced_step_by_step() -> None:
    found, submission = shrink(lambda p: p.sizes.T >= 6 and p.sizes.O >= 2)
    assert found.case.point.sizes == (6, 1, 1, 1, 2)
    least = min(each.point.sizes[i] for each in submission.seen for i in range(5))
    assert least == 1
    given, _ = shrink(lambda p: p.sizes == FULL)
    assert given.case.point.sizes == FULL


@pytest.mark.parametrize(("cell", "draws"), [("rnn", 8), ("lstm", 3)])
def test_a_case_with_a_derived_bound_is_drawn_more_often(cell: str, draws: int) -> None:
    option = {"rnn": "tanh", "lstm": ""}[cell]
    found, submission = shrink(lambda _: False, ONES, cell=cell, option=option)
    assert found.case.point.sizes == ONES
    assert [each.point.sizes for each in submission.seen] == [READABLE] * draws * len(DECIMALS)
    first = [float(each.point.x[0, 0, 0]) for each in submission.seen[-draws:]]
    assert len({*first}) == draws


def test_a_smaller_case_has_the_states_of_the_failing_one() -> None:
    chosen = subject(states=WITH_STATE)
    submission = Submission(chosen, lambda p: not p.first)
    problem = chosen.draw_problem(np.random.default_rng(0), FULL, np.float32)
    given: Any = submission.compare(chosen.make_case(keep_states(problem, ())))
    found = chosen.shrink(submission.compare, given)
    assert found.case.point.sizes == ONES
    assert found.case.point.first == {}
    assert found.case.point.x.dtype == np.float32


BEYOND = Sizes(T=200, B=3, D=7, H=2, O=5)


@pytest.mark.parametrize("least", [1, 13, 100, 127, 200])
def test_a_large_case_is_reduced_by_bisection(least: int) -> None:
    found, submission = shrink(lambda p: not least > p.sizes.T and p.sizes.D >= 7, BEYOND)
    assert found.case.point.sizes == (least, 1, 7, 1, 1)
    assert found.fails
    assert len(submission.seen) < 8 * len(DECIMALS) + 2 * 5 * 9


def test_a_large_case_may_fail_with_pulses_or_with_normal_inputs() -> None:
    for pulses in (True, False):

        def fails(problem: Problem, pulses: bool = pulses) -> bool:
            return problem.sizes.T > 12 and (0 in problem.x) is pulses

        found, _ = shrink(fails, BEYOND)
        assert found.case.point.sizes.T == 13
        assert (0 in found.case.point.x) is pulses
    alone, _ = shrink(lambda p: p.sizes == BEYOND, BEYOND)
    assert alone.case.point.sizes == BEYOND
    chosen = subject(states=WITH_STATE)
    submission = Submission(chosen, lambda p: p.sizes.T > 12 and not p.first)
    problem = keep_states(chosen.draw_problem(np.random.default_rng(0), BEYOND, np.float32), ())
    given: Any = submission.compare(chosen.make_case(problem))
    found = chosen.shrink(submission.compare, given)
    assert (found.case.point.first, found.case.point.x.dtype) == ({}, np.float32)


def test_a_call_that_raises_shows_no_smaller_case() -> None:
    chosen = subject()
    submission = Submission(chosen, lambda _: True)
    for sizes in (FULL, BEYOND):
        given = submission.at(sizes)
        submission.raises = lambda _: True
        assert chosen.shrink(submission.compare, given) is given
        submission.raises = lambda _: False


# The evidence for a name.


def diagnose(
    given: list[Any],
    submission: Submission,
    monkeypatch: pytest.MonkeyPatch,
    *names: str,
    probes: Any = (),
) -> list[Any]:
    """Diagnose, where these names are found one after the other; return what was asked."""
    asked: list[Any] = []
    left = list(names) or ["none"]

    def find(witnesses: Any, several: bool) -> Any:
        asked.append((witnesses, several))
        return tuple(Mistake(each, "", {}) for each in left.pop(0).split(" and "))

    monkeypatch.setattr(mistaken_cells, "diagnose", find)
    last: list[str] = [*names] or ["none"]
    found = submission.chosen.diagnose(submission.compare, given, probes)
    assert " and ".join(each.name for each in found) == last[len(asked) - 1]
    return asked


def list_sizes(witnesses: Any) -> list[Sizes]:
    return [each.point.sizes for each in witnesses]


def test_a_name_has_to_explain_failing_cases_probes_and_fresh_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submission = Submission(subject(), lambda p: p.sizes.T > 4, lambda p: p.sizes == FRESH[2])
    given, probe = [submission.at(each, np.float32) for each in (FULL, SIX)], submission.at(FIVE)
    ((witnesses, several),) = diagnose(given, submission, monkeypatch, probes=[probe])
    assert several
    assert list_sizes(witnesses) == [FULL, SIX, FIVE, *FRESH[:2], *FRESH[3:]]
    fresh = witnesses[3:]
    assert {each.point.x.dtype for each in fresh} == {np.dtype(np.float32)}
    assert [each.fails for each in fresh] == [each.T > 4 for each in (*FRESH[:2], *FRESH[3:])]
    assert all(each.submitted.keys() == {"W"} for each in witnesses)
    assert 3 < np.std([each.point.y.std() for each in fresh]) + 5 < 30
    assert np.mean([np.abs(each.point.y).max() for each in fresh]) > 8
    assert len({float(each.point.x[0, 0, 0]) for each in fresh}) == len(fresh)


SIX, FIVE = Sizes(6, 1, 2, 3, 2), Sizes(5, 1, 2, 3, 2)
CHEAPER, DEARER = Sizes(20, 33, 3, 4, 2), Sizes(200, 33, 33, 65, 33)


def test_small_cases_come_before_large_ones_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submission = Submission(subject(), lambda p: p.sizes.T > 4)
    given = [submission.at(each) for each in (DEARER, FULL, CHEAPER, FIVE)]
    ((witnesses, several),) = diagnose(given, submission, monkeypatch)
    assert several
    assert list_sizes(witnesses)[:4] == [FULL, FIVE, CHEAPER, DEARER]


def test_of_large_cases_the_cheapest_is_measured_and_the_dear_ones_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submission = Submission(subject(), lambda p: p.sizes.B > 4 or p.sizes.T > 12)
    given = [submission.at(each) for each in (DEARER, CHEAPER, CHEAPER._replace(T=21))]
    submission.seen.clear()
    ((witnesses, several),) = diagnose(given, submission, monkeypatch)
    assert not several
    assert list_sizes(witnesses) == [CHEAPER, CHEAPER._replace(T=21), *FRESH]
    assert submission.seen[0].truth.func is measure_truth
    assert submission.seen[0].point is given[1].case.point
    for raises in (True, False):
        submission = Submission(subject(), lambda p: p.sizes.B > 4)
        given = [submission.at(CHEAPER)]
        if raises:
            submission.raises = lambda _: True
        else:
            submission.fails = lambda _: False
        ((witnesses, _),) = diagnose(given, submission, monkeypatch)
        assert witnesses[0].fails  # the case as it was found


def test_every_mistake_is_tried_at_a_case_that_costs_so_much_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cheap = Sizes(200, CHEAP // 1000, 3, 2, 1)
    submission = Submission(subject(), lambda p: p.sizes.B > 4)
    given = [submission.at(each) for each in (cheap, cheap._replace(T=201), cheap)]
    assert work(given[0]) == CHEAP
    ((witnesses, _),) = diagnose(given, submission, monkeypatch)
    assert list_sizes(witnesses) == [cheap, cheap, *FRESH]


def test_a_dear_case_is_reduced_first(monkeypatch: pytest.MonkeyPatch) -> None:
    submission = Submission(subject(), lambda p: p.sizes.T > 100)
    given = [submission.at(DEARER)]
    ((witnesses, several),) = diagnose(given, submission, monkeypatch)
    assert not several
    assert list_sizes(witnesses) == [(101, 1, 1, 1, 1), *FRESH]


@pytest.mark.parametrize(("sizes", "inputs"), [(FULL, LONG.D), (CHEAPER, LONG.T)])
def test_a_truncation_is_tried_at_a_longer_sequence(
    sizes: Sizes, inputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    submission = Submission(subject(), lambda p: p.sizes.T > 4)
    given = [submission.at(sizes)]
    first, second = diagnose(given, submission, monkeypatch, "truncated and scaled", "detached")
    assert list_sizes(second[0]) == [*list_sizes(first[0]), LONG._replace(D=inputs)]
    x = second[0][-1].point.x
    assert np.count_nonzero(x) == min(inputs, LONG.T)
    submission.raises = lambda p: p.sizes.T == LONG.T
    assert len(diagnose(given, submission, monkeypatch, "truncated")) == 1


# Sizes and words.


def test_work_is_the_number_of_products_with_a_vector() -> None:
    submission = Submission(subject(), lambda _: True)
    assert work(submission.at(Sizes(2, 3, 5, 7, 4))) == 2 * 3 * (5 + 7)
    assert not is_large(submission.at(FULL))
    for letter in Sizes._fields:
        larger = FULL._replace(**{letter: getattr(FULL, letter) + 1})
        assert is_large(submission.at(larger))


def test_the_largest_size_of_each_kind_is_found() -> None:
    chosen = subject()
    submission = Submission(chosen, lambda _: True)
    found = [submission.at(each).case for each in (Sizes(2, 1, 5, 1, 1), Sizes(1, 3, 1, 2, 1))]
    assert chosen.find_largest_sizes(found) == {"T": 2, "B": 3, "D": 5, "H": 2, "O": 1}
    assert chosen.find_largest_sizes([]) == {}


def test_the_first_references_are_compared_with_complex_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = subject()
    case = Submission(chosen, lambda _: True).at(ONES).case
    for doubt, said in ((None, None), ("U differs.", f"With {case.label}, U differs.")):
        monkeypatch.setattr(cells, "find_contradiction", lambda _, doubt=doubt: doubt)
        assert [chosen.contradict(n, case) for n in (0, CONFIRMED - 1)] == [said] * 2
        assert chosen.contradict(CONFIRMED, case) is None


def test_complex_steps_are_compared_with_a_reference_in_float64(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = with_values(np.random.default_rng(0), Sizes(2, 1, 2, 2, 1), dtype=np.float32)
    seen: list[Any] = []

    class Known:
        values = {"U": np.ones((2, 2)), "loss": np.ones(())}  # noqa: RUF012 - not changed

    def find_truth(*given: Any) -> Any:
        seen.append(given[1:])
        return Known

    def contradict(loss: Any, asked: Any, known: Any, steps: int) -> str:
        assert known is Known
        assert [*asked] == ["U"]
        moved = asked["U"] * 2
        params = problem.params._replace(U=2 * problem.params.U.astype(np.float64))
        value, _ = rnn.value_and_grad(
            rnn.Params(*(None if w is None else w.astype(np.float64) for w in params)),
            problem.x.astype(np.float64), problem.y.astype(np.float64),
        )  # fmt: skip
        # 16 roundoffs of float32, in which the loss may be computed; U moves it by far more.
        assert float(np.real(loss({"U": moved}))) == pytest.approx(value, rel=16 * 2.0**-24)
        return f"{steps} steps"

    monkeypatch.setattr(cells, "truth", find_truth)
    monkeypatch.setattr(cells, "contradict_signs", contradict)
    assert find_contradiction.__wrapped__(problem) == "2 steps"
    assert seen == [(np.float64, ())]


def make_named(cell: str, option: str, loss: str, **states: Any) -> tuple[CellSubject, Any]:
    chosen = subject(cell, option, loss=loss, states=TakenStates(**states))
    rng = np.random.default_rng(0)
    return chosen, chosen.make_case(chosen.draw_problem(rng, Sizes(3, 2, 2, 3, 2), np.float64))


def test_the_model_of_another_loss_is_named() -> None:
    chosen, case = make_named("rnn", "tanh", "mse", in_order=("h0",))
    given = case.point.params, case.point.x, case.point.y, case.point.first["h0"]
    for option, loss in (("relu", "mse"), ("tanh", "half_sse"), ("identity", "half_sse")):
        value, _ = rnn.value_and_grad(*given, activation=option, loss=loss)
        said = f" It is that of activation {option} with loss {loss}."
        assert chosen.name_model_of_loss(case, float(value)) == said
        assert chosen.name_model_of_loss(case, float(value) * (1 - 0.9e-6)) == said
        assert chosen.name_model_of_loss(case, float(value) * (1 + 1.5e-6)) == ""
    zero = {"V": 0 * case.point.params.V}, {"y": 0 * case.point.y}
    at = case.point._replace(params=case.point.params._replace(**zero[0]), **zero[1])
    said = " It is that of activation tanh with loss half_sse."  # and of that which is stated
    assert chosen.name_model_of_loss(case._replace(point=at), 0.0) == said
    gated, case = make_named("lstm", "", "mse", by_name=("h0", "c0"))
    at = case.point
    value, _ = lstm.value_and_grad(at.params, at.x, at.y, **at.first, loss="half_sse")
    assert gated.name_model_of_loss(case, float(value)) == " It is that of lstm with loss half_sse."
    without = case._replace(point=keep_states(at, ()))
    assert gated.name_model_of_loss(without, -1.0) == " h0 and c0 was not given: it is zero."
    assert gated.name_model_of_loss(case, -1.0) == ""


def test_the_words_on_sizes_name_the_model() -> None:
    submission = Submission(subject("gru", "after", loss="half_sse"), lambda _: True)
    found = submission.at(ONES, np.float32)
    said = submission.chosen.describe_sizes(found)
    assert said == f"{ONES}, gru, after, half_sse, float32"
    submission = Submission(subject("lstm", ""), lambda _: True)
    assert submission.chosen.describe_sizes(submission.at(ONES)) == f"{ONES}, lstm, mse, float64"


@pytest.mark.parametrize(
    ("cell", "option", "named"),
    [("rnn", "relu", ", activation='relu'"), ("gru", "after", ", reset='after'"), ("lstm", "", "")],
)
def test_a_case_is_reproduced_by_its_numbers_or_by_the_options(
    cell: str, option: str, named: str
) -> None:
    chosen = subject(cell, option, TakenStates(by_name=("h0",)), seed=7)
    small = Submission(chosen, lambda _: True).at(ONES)
    assert "gradients(Weights(" in (line := chosen.reproduce(small))
    assert "h0=np.array(" in line
    large = Submission(chosen, lambda _: True).at(Sizes(*LARGE))
    assert chosen.reproduce(large) == (
        f"from bptt_verifier import verify; print(verify(gradients, model='{cell}'{named}, "
        "loss='mse', bias=False, sizes=[{'T': 200, 'B': 33, 'D': 33, 'H': 65, 'O': 33}], seed=7))"
    )


def test_a_line_has_at_most_so_many_numbers() -> None:
    chosen = subject()
    # U, W, V, x and y have D + 1 + 1 + T D + 1 numbers.
    for T, printed in ((PRINTED - 4, True), (PRINTED - 3, False)):
        found = Submission(chosen, lambda _: True).at(ONES._replace(T=T))
        assert ("np.array(" in chosen.reproduce(found)) is printed


def test_exact_values_are_asked_of_the_small_problems_first() -> None:
    chosen = subject()
    submission = Submission(chosen, lambda _: True)
    compared = [submission.at(each) for each in (FULL, ONES, SIX)]
    compared[1].dtypes["W"] = np.dtype(np.float32)  # in which it computes, whatever it returns
    compared[1].submitted["V"], compared[1].dtypes["V"] = np.ones((1, 1)), np.dtype(np.float64)
    compared[2].submitted["prediction"] = np.ones(1, np.float16)  # says nothing of gradients
    compared[2].dtypes["prediction"] = np.dtype(np.float16)
    found = [*chosen.choose_for_exact_values(compared)]
    assert [each.problem.sizes for each in found] == [ONES, SIX, FULL]
    assert {*found[0].submitted} == {"W", "V"}
    assert [each.dtype for each in found] == [np.float32, np.float64, np.float64]
