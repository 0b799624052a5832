"""`bptt verify` on many examples: what it keeps where it is stopped, and how it goes on."""

import json
from pathlib import Path
from typing import Any

import pytest

from bptt_verifier.commands import campaign as command
from bptt_verifier.commands import campaign_file
from bptt_verifier.commands.campaign_file import parse, to_json
from bptt_verifier.console.choices import parse_number
from bptt_verifier.judge import campaign
from bptt_verifier.judge.builtin import AUTODIFF, DERIVATIONS, Subjects
from bptt_verifier.judge.campaign import Campaign, Keep, Ledger, Remaining, compare_cases
from bptt_verifier.judge.tally import Tally
from tests.support.command_line import Command, Ended

RNN = {"adjoint recursion": DERIVATIONS["adjoint recursion"]}
CAMPAIGN = Campaign(3, "float64")


@pytest.fixture(autouse=True)
def one_derivation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one derivation is compared, which compiles less."""
    monkeypatch.setattr(campaign, "choose_subjects", lambda _: Subjects(RNN, {}, {}, AUTODIFF))


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes after the second example that is compared."""

    def execute(asked: Campaign, remaining: Remaining, keep: Keep) -> None:
        for number, cases in enumerate(remaining()):
            if number == 2:
                raise KeyboardInterrupt
            keep(cases, compare_cases(asked, cases))

    monkeypatch.setattr(command, "choose_execution", lambda *_: execute)


def report_of(ended: Ended) -> dict[str, Any]:
    """The report that a command has printed as JSON, without how the command was called."""
    return {name: value for name, value in json.loads(ended.out).items() if name != "command"}


# The file of a campaign that lacks the sizes of an example.
INCOMPLETE = to_json(CAMPAIGN, Ledger()).replace(
    '"done": [], "cases": 0', '"done": [[0, 1]], "cases": 1'
)
VERIFY = ("verify", "--seed", 3, "--json", "-", "--examples")


def test_ctrl_c_shows_the_report_on_what_was_compared(bptt: Command, interrupted: None) -> None:
    ended = bptt(*VERIFY, "1e8")
    assert ended.code == 130
    report = report_of(ended)
    why = "interrupted after 2 of 100000000 random problems"
    assert (report["examples"], report["verdict"], report["stopped"]) == (2, "agrees", why)
    assert f"bptt: {why}\n" in ended.err
    assert "adjoint recursion" in ended.err
    assert "--examples 100000000" in json.loads(ended.out)["command"]


def test_ctrl_c_before_the_first_example_shows_no_report(
    bptt: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EndedError(Exception):
        pass

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    def end() -> None:
        raise EndedError

    monkeypatch.setattr(command, "choose_execution", lambda *_: interrupted)
    monkeypatch.setattr("bptt_verifier.commands.application.end_at_once", end)
    with pytest.raises(EndedError):
        bptt(*VERIFY, 9)


def test_a_campaign_that_was_stopped_goes_on_to_the_same_report(
    bptt: Command, tmp_path: Path, interrupted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "campaign.json"
    ended = bptt(*VERIFY, 5, "--checkpoint", file)
    assert f"after 2 of 5 random problems; --resume goes on from {file}\n" in ended.err
    monkeypatch.undo()
    monkeypatch.setattr(campaign, "choose_subjects", lambda _: Subjects(RNN, {}, {}, AUTODIFF))
    ended, at_once = bptt(*VERIFY, 5, "--checkpoint", file, "--resume"), bptt(*VERIFY, 5)
    assert ended.code == at_once.code == 0
    assert report_of(ended) == report_of(at_once)
    again = bptt(*VERIFY, 5, "--checkpoint", file, "--resume")
    assert report_of(again) == report_of(at_once)


def test_the_file_holds_every_number_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger()
    for cases in (range(1, 3), range(4, 5)):
        ledger.keep(cases, compare_cases(CAMPAIGN, cases))
    before, found = parse(to_json(CAMPAIGN, ledger))
    assert before["seed"] == 3
    assert found.done == ledger.done
    assert found.tally.rows == ledger.tally.rows
    assert found.report(CAMPAIGN).to_dict() == ledger.report(CAMPAIGN).to_dict()


def test_the_ledger_is_saved_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(campaign_file.time, "monotonic", lambda: now)
    file = tmp_path / "campaign.json"
    save = campaign_file.saving(file, CAMPAIGN)
    save(Ledger())
    assert not file.exists()
    now = campaign_file.SAVE_EVERY + 1
    save(Ledger())
    assert parse(file.read_text(encoding="utf-8"))[1].done == ()
    campaign_file.saving(None, CAMPAIGN)(Ledger())


@pytest.mark.parametrize(
    ("before", "arguments", "sentence"),
    [
        (None, ("--resume",), "--resume: expected --checkpoint FILE with it, found none"),
        (None, ("--checkpoint", "a.json", "--resume"), "no file a.json"),
        ("", ("--checkpoint", "a.json"), "--checkpoint: expected a new file, or --resume to go on"),
        ("{}", ("--checkpoint", "a.json", "--resume"), "a.json: expected the file of a campaign"),
        ("[1]", ("--checkpoint", "a.json", "--resume"), "a.json: expected the file of a campaign"),
        (
            to_json(CAMPAIGN._replace(seed=4), Ledger()), ("--checkpoint", "a.json", "--resume"),
            "--seed: expected 4 as in a.json, found 3",
        ),
        (
            to_json(CAMPAIGN, Ledger()).replace('"numpy": "', '"numpy": "0'),
            ("--checkpoint", "a.json", "--resume"), "numpy: expected 0",
        ),
        (
            to_json(CAMPAIGN, Ledger()).replace('"done": []', '"done": [[0, 9]]'),
            ("--checkpoint", "a.json", "--resume"), "a.json: expected the file of a campaign",
        ),
        (
            INCOMPLETE,
            ("--checkpoint", "a.json", "--resume"), "a.json: expected the file of a campaign",
        ),
        (
            to_json(CAMPAIGN, Ledger()).replace('"done": []', '"done": [[9, 9]]'),
            ("--checkpoint", "a.json", "--resume"),
            "--examples: expected at least 9 as in a.json, found 5",
        ),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_in_one_sentence(
    before: str | None,
    arguments: tuple[str, ...],
    sentence: str,
    bptt: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if before is not None:
        (tmp_path / "a.json").write_text(before, encoding="utf-8")
    ended = bptt(*VERIFY, 5, *arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert sentence in ended.err
    assert [file.name for file in tmp_path.iterdir()] == ([] if before is None else ["a.json"])


@pytest.mark.parametrize("linked", [False, True])
def test_the_report_never_overwrites_the_campaign(
    linked: bool, bptt: Command, tmp_path: Path
) -> None:
    file, other = tmp_path / "r.json", tmp_path / "other.json"
    if linked:
        other.symlink_to(file)
    report = other if linked else file
    ended = bptt("verify", "--examples", 1, "--json", report, "--checkpoint", file)
    expected = f"bptt: --json: expected another file than that of --checkpoint, found {report}\n"
    assert (ended.code, ended.out, ended.err) == (2, "", expected)
    assert not file.exists()


def test_no_report_overwrites_the_code_or_another_report(bptt: Command, tmp_path: Path) -> None:
    file, twin = tmp_path / "mine.py", tmp_path / "twin"
    file.write_text("def gradients(): ...", encoding="utf-8")
    twin.hardlink_to(file)
    for first, option, second, other in (
        (file, "--json", twin, "FILE"),
        (f"{file}:gradients", "--html", file, "FILE"),
    ):
        ended = bptt("verify", first, option, second)
        assert (ended.code, ended.out) == (2, "")
        sentence = f"bptt: {option}: expected another file than that of {other}, found {second}\n"
        assert ended.err == sentence
    new = tmp_path / "new"
    ended = bptt("verify", file, "--json", new, "--html", new)
    assert ended.err.startswith("bptt: --html: expected another file than that of --json, found")
    assert not new.exists()


def test_ctrl_c_while_a_part_is_added_leaves_a_file_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (compare_cases(CAMPAIGN, range(n, n + 1)) for n in range(2))
    ledger, file = Ledger(), tmp_path / "a.json"
    ledger.keep(range(1), first)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Tally, "put", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ledger.keep(range(1, 2), second)
    campaign_file.save(file, CAMPAIGN, ledger)
    found = campaign_file.open_ledger(file, CAMPAIGN, 2, resume=True)
    assert (found.done, found.tally.rows) == ((range(1),), first.rows)
    found.keep(range(1, 2), second)
    assert found.tally.cases == len(found.list_shapes()) == 2


def test_of_two_new_campaigns_with_one_file_the_second_is_refused(tmp_path: Path) -> None:
    file, link = tmp_path / "a.json", tmp_path / "link.json"
    link.symlink_to(file)  # to where nothing is yet
    assert campaign_file.open_ledger(link, CAMPAIGN, 9, resume=False).done == ()
    for path in (file, link):
        with pytest.raises(FileExistsError, match="expected a new file, or --resume to go on"):
            campaign_file.open_ledger(path, CAMPAIGN._replace(seed=4), 9, resume=False)
    assert campaign_file.open_ledger(file, CAMPAIGN, 9, resume=True).done == ()


@pytest.mark.parametrize("compared", [0, 2])
def test_whatever_ends_a_campaign_it_is_saved_with_its_report(
    compared: int, bptt: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def execute(asked: Campaign, remaining: Remaining, keep: Keep) -> None:
        for cases in (*remaining(),)[:compared]:
            keep(cases, compare_cases(asked, cases))
        raise failure

    file = tmp_path / "a.json"
    monkeypatch.setattr(command, "choose_execution", lambda *_: execute)
    failure: Exception = OSError("--cluster: no network")
    ended = bptt(*VERIFY, 5, "--checkpoint", file)
    assert ended.code == 2
    assert "bptt: --cluster: no network" in ended.err
    assert file.exists() == bool(ended.out) == bool(compared)
    if compared:
        assert report_of(ended)["examples"] == compared
        failure = RuntimeError("a bug")
        file.unlink()
        with pytest.raises(RuntimeError, match="a bug"):
            command.compare_derivations(5, CAMPAIGN, checkpoint=file)
        assert campaign_file.open_ledger(file, CAMPAIGN, 5, resume=True).tally.cases == compared


def test_a_file_that_cannot_be_written_any_more_costs_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "a.json")

    monkeypatch.setattr(command, "save", fail)
    report, stopped = command.compare_derivations(2, CAMPAIGN, checkpoint=tmp_path / "a.json")
    assert report.examples == 2
    assert stopped is not None
    assert (stopped.code, "No space left" in stopped.why, "--resume" in stopped.why) == (
        2, True, False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "number"), [("1", 1), ("200", 200), ("1e8", 10**8), ("2.5E3", 2500), ("1_000", 1000)]
)
def test_a_number_of_examples_may_be_written_with_an_exponent(text: str, number: int) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["0", "-5", "1.5", "x", "", "nan", "inf", "1e-3", "1e999999999"])
def test_what_is_no_number_of_examples_is_refused(bptt: Command, text: str) -> None:
    ended = bptt("verify", f"--examples={text}")
    expected = f"bptt: --examples: expected an integer of at least 1, found {text!r}\n"
    assert (ended.code, ended.err) == (2, expected)
