"""The catalogue explains every name of a mistake, and its lines show what it says."""

import re
import tomllib
from pathlib import Path

import pytest

from bptt_verifier import Report, Verdict, verify, verify_own_model
from bptt_verifier.mistakes.catalogue import CATALOGUE, SECTIONS
from bptt_verifier.mistakes.explanation import Explanation
from bptt_verifier.program.source_file import load
from bptt_verifier.report import Mistake
from bptt_verifier.report.links import SITE, link_to_equation, link_to_mistake
from tests.support.documentation import load_builder
from tests.support.mistake_names import list_names, read_names
from tests.support.modules import ROOT

SHOWN = [entry for entry in CATALOGUE.values() if entry.example]
# A call or a short search decides these. The others are for `make test-deep`.
QUICK = set(
    "constant-factor inputs-modified negative-index-wraps-around not-finite parts-exchanged raised "
    "softmax-diagonal wrong-shape".split()
)


def judge(source: str, folder: Path) -> Report:
    """The report on a derivation of the RNN, or on a model of one's own."""
    file = folder / "planted.py"
    file.write_text(source, encoding="utf-8")
    module = load(file)
    if hasattr(module, "params"):
        return verify_own_model(module.gradients, module.loss, module.params, cases=6)
    return verify(module.gradients, examples=12)


def read_example(entry: Explanation) -> str:
    return (ROOT / "examples" / entry.example).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, id=entry.name, marks=() if entry.name in QUICK else pytest.mark.slow)
        for entry in SHOWN
    ],
)
def test_the_judge_gives_the_wrong_line_its_name(entry: Explanation, tmp_path: Path) -> None:
    source = read_example(entry)
    for right, wrong in zip(entry.right.splitlines(), entry.wrong.splitlines(), strict=True):
        source = source.replace(right, wrong)
    assert [mistake.name for mistake in judge(source, tmp_path).mistakes] == [entry.name]


@pytest.mark.parametrize("entry", SHOWN, ids=lambda entry: entry.name)
def test_the_right_line_occurs_once_in_its_example(entry: Explanation) -> None:
    source = read_example(entry)
    assert [line for line in entry.right.splitlines() if source.count(line) != 1] == []
    assert entry.wrong != entry.right


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(example, marks=() if example == "every_step.py" else pytest.mark.slow)
        for example in sorted({entry.example for entry in SHOWN})
    ],
)
def test_the_example_as_it_stands_agrees(example: str, tmp_path: Path) -> None:
    assert judge((ROOT / "examples" / example).read_text(encoding="utf-8"), tmp_path)


def names_of(pattern: str) -> set[str]:
    """The names of the catalogue that a name with `*` for what is computed may be."""
    return set(filter(re.compile(pattern.replace("*", "[a-z]+")).fullmatch, CATALOGUE))


def test_every_name_that_a_report_gives_is_in_the_catalogue_and_no_other() -> None:
    names = list_names()
    assert {name for name in names if not names_of(name)} == set()
    assert set(CATALOGUE) - set().union(*map(names_of, names)) == set()


def test_every_name_is_in_one_section_and_has_a_line_or_a_remedy() -> None:
    assert sum(map(len, SECTIONS.values())) == len(CATALOGUE)
    assert [entry.name for entry in CATALOGUE.values() if not (entry.wrong or entry.remedy)] == []


@pytest.mark.parametrize(
    "source",
    ['Mistake("new", "a sentence")', 'NAME = "new-name"', 'f(name=f"new-{which}")'],
)
def test_a_name_without_an_entry_is_noticed(source: str, tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text(source, encoding="utf-8")
    (found,) = read_names(tmp_path / "new.py")
    assert not names_of(found)


def test_the_page_is_that_of_the_catalogue() -> None:
    """`python docs/catalogue.py` writes it anew."""
    text = load_builder("catalogue").render_page()
    assert (ROOT / "docs" / "mistakes.md").read_text(encoding="utf-8") == text


def test_every_entry_says_how_common_the_mistake_is() -> None:
    page = (ROOT / "docs" / "mistakes.md").read_text(encoding="utf-8")
    _, *entries = page.split("\n### `")
    said = {each.partition("`")[0]: each.partition("\nHow common: ")[2] for each in entries}
    assert said.keys() == CATALOGUE.keys()
    for name, entry in CATALOGUE.items():
        rank = f"rank {entry.rank} in public code" if entry.rank else "not "
        assert said[name].startswith(rank), name
    assert said["truncated"].count("docket/truncated-bptt.md") == 1


def test_a_report_links_to_the_heading_of_the_mistake_it_names() -> None:
    page = (ROOT / "docs" / "mistakes.md").read_text(encoding="utf-8")
    for name in CATALOGUE:
        assert page.count(f"\n### `{name}`\n") == 1
        assert link_to_mistake(name) == f"{SITE}/mistakes.html#{name}"
    assert link_to_equation("B3") == f"{SITE}/derivation.html#equation-b3"


def test_the_project_gives_the_address_of_the_same_site() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["urls"]["Documentation"] == f"{SITE}/"


def test_a_report_says_where_to_read_about_its_mistake() -> None:
    mistake = Mistake("truncated", "a sentence.", {}, "B3")
    report = Report("f", Verdict.DISAGREES, (mistake,), cases=1)
    links = [link_to_mistake("truncated"), link_to_equation("B3")]
    assert str(report).splitlines()[2:] == ["truncated: a sentence. See equation (B3).", *links]
    assert [link for link in links if f'href="{link}"' not in report.to_html()] == []
