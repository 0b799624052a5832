"""The parts of a campaign add up to the whole, whatever their order, and none counts twice."""

from itertools import permutations

import pytest

from bptt_verifier.judge import builtin, campaign
from bptt_verifier.judge.campaign import Ledger, insert
from bptt_verifier.judge.tally import Row, Tally, Worst
from bptt_verifier.problems.problem import Sizes
from bptt_verifier.tolerance.comparison import Comparison, Verdict

SIZES = [Sizes(1, 1, 1, 1, n) for n in range(1, 7)]


def comparison(error: float, resolution: float = 0.0) -> Comparison:
    return Comparison("W", error, (0,), 1.0, 1.0, 1.0, resolution)


def part(case: int, error: float, resolution: float = 0.0) -> Tally:
    """The tally of one example with one comparison."""
    row = Row("hand", "W", 1, resolution == 0, Worst(case, comparison(error)), SIZES[case], "mse")
    return Tally([row], {case: SIZES[case]}, 1)


def execute(asked: campaign.Campaign, remaining: campaign.Remaining, keep: campaign.Keep) -> None:
    """Find half of the allowed error in each part, of one example."""
    for cases in remaining():
        keep(cases, part(cases.start, 0.5))


def plain(tally: Tally) -> object:
    return tally.rows, tally.shapes, tally.cases


def test_parts_add_up_to_the_same_in_every_order() -> None:
    parts = [part(0, 0.25), part(1, 0.5, 1.0), part(2, 0.5), part(3, 0.125)]
    added = []
    for order in permutations(parts):
        whole = Tally()
        for each in order:
            whole = whole.merged(each)
        added.append(plain(whole))
    assert all(each == added[0] for each in added)
    (row,) = whole.list_rows(["hand"])
    assert (row.cases, row.conclusive, row.worst.case, row.largest) == (4, 3, 1, SIZES[3])


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ([part(0, 0.5), part(1, 1.5)], Verdict.DISAGREES),
        ([part(0, 0.5), part(1, float("inf"), 1.0)], Verdict.DISAGREES),
        ([part(0, 0.5), part(1, 0.0, 1.0)], Verdict.AGREES),
        ([part(0, 0.5, 1.0), part(1, 0.0, 1.0)], Verdict.INCONCLUSIVE),
    ],
)
def test_a_row_disagrees_where_any_part_does_and_agrees_where_one_could_have(
    parts: list[Tally], verdict: Verdict
) -> None:
    (row,) = parts[0].merged(parts[1]).list_rows(["hand"])
    assert row.verdict is verdict


def test_a_part_that_is_compared_twice_counts_once() -> None:
    ledger = Ledger()
    for case in (0, 2, 0, 2):
        ledger.keep(range(case, case + 1), part(case, 0.5))
    assert ledger.tally.cases == 2
    assert ledger.done == (range(1), range(2, 3))


def test_what_remains_are_the_gaps_in_parts() -> None:
    ledger = Ledger(done=(range(2, 4), range(7, 8)))
    assert list(ledger.remaining(10, 2)) == [
        range(2), range(4, 6), range(6, 7), range(8, 10),
    ]  # fmt: skip
    assert list(ledger.remaining(4, 2)) == [range(2)]
    assert list(Ledger(done=(range(9),)).remaining(9, 2)) == []


def test_ranges_that_touch_are_joined() -> None:
    done: tuple[range, ...] = ()
    for cases in (range(4, 6), range(2), range(9, 10), range(2, 4), range(6, 9)):
        done = insert(done, cases)
    assert done == (range(10),)


def test_the_report_of_very_many_examples_lists_no_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger()
    for case in range(3):
        ledger.keep(range(case, case + 1), part(case, 0.5))
    asked = campaign.Campaign(0, "float64")
    for listed in (campaign.LISTED, 3):
        monkeypatch.setattr(campaign, "LISTED", listed)
        assert ledger.report(asked).shapes == SIZES[:3]
    monkeypatch.setattr(campaign, "LISTED", 2)
    report = ledger.report(asked)
    assert (report.shapes, report.examples) == ([], 3)


def test_the_sizes_of_a_part_are_kept_up_to_the_number_that_is_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing = campaign.Subjects({}, {}, {}, builtin.AUTODIFF)
    monkeypatch.setattr(campaign, "choose_subjects", lambda asked: nothing)
    monkeypatch.setattr(campaign, "LISTED", 3)
    asked = campaign.Campaign(0, "float64")
    assert set(campaign.compare_cases(asked, range(1, 3)).shapes) == {1, 2}
    beyond = campaign.compare_cases(asked, range(2, 4))
    assert (beyond.shapes, beyond.cases) == ({}, 2)


def test_each_part_that_remains_is_compared_in_this_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing = campaign.Subjects({}, {}, {}, builtin.AUTODIFF)
    monkeypatch.setattr(campaign, "choose_subjects", lambda asked: nothing)
    ledger, asked = Ledger(done=(range(1, 2),)), campaign.Campaign(0, "float64")
    campaign.execute_here(asked, lambda: ledger.remaining(4, 2), ledger.keep)
    assert (ledger.done, ledger.tally.cases) == ((range(4),), 3)


def test_a_campaign_has_one_example_or_more() -> None:
    asked = campaign.Campaign(0, "float64")
    assert campaign.run_campaign(1, asked, execute, together=1).examples == 1
    with pytest.raises(ValueError, match="examples"):
        campaign.run_campaign(0, asked, execute, together=1)


def test_the_ledger_is_saved_after_each_part() -> None:
    saved: list[tuple[range, ...]] = []
    done: list[int] = []

    report = campaign.run_campaign(
        3,
        campaign.Campaign(0, "float64"),
        execute,
        together=1,
        progress=done.append,
        save=lambda ledger: saved.append(ledger.done),
    )
    assert saved == [(range(1),), (range(2),), (range(3),)]
    assert (done, report.examples) == ([1, 2, 3], 3)


def test_a_campaign_has_autodiff_as_its_reference_unless_told_otherwise() -> None:
    asked = campaign.Campaign(0, "float64")
    assert campaign.choose_subjects(asked).yardstick.name == "autodiff"


def test_a_campaign_has_autodiff_or_enclosures_as_its_reference() -> None:
    pytest.importorskip("flint", reason="python-flint is in the extra certify")
    names = [
        campaign.choose_subjects(campaign.Campaign(0, "float64", certified)).yardstick.name
        for certified in (False, True)
    ]
    assert names == ["autodiff", "certified"]
