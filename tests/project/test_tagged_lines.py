"""The site links an equation to the lines whose comments have its tag, the readable ones first."""

from pathlib import Path

from tests.support.documentation import load_builder
from tests.support.modules import ROOT, write_package

TAGGED = load_builder("extensions/tagged_lines")


def test_an_equation_is_linked_to_the_lines_with_its_tag() -> None:
    lines = TAGGED.find_lines()
    assert lines.keys() >= {"F1", "B3", "S11", "G12"}
    for tag, places in lines.items():
        for file, line in places:
            source = (ROOT / file).read_text(encoding="utf-8").splitlines()
            assert f"({tag})" in source[line - 1]


def test_tags_outside_of_comments_are_no_lines_of_an_equation(tmp_path: Path) -> None:
    for package in TAGGED.PACKAGES:
        write_package(tmp_path, package, rnn='a = 1  # (F1)\nb = "(F2)"\nc = 3  # (F1), (B2)')
    places = [(f"{package}/rnn.py", line) for package in TAGGED.PACKAGES for line in (1, 3)]
    found = TAGGED.find_lines(tmp_path)
    assert found["F1"] == places
    assert found.keys() == {"F1", "B2"}


def test_the_readable_derivation_is_linked_before_those_made_for_speed() -> None:
    files = "bptt_verifier/a.py", "manual_bptt/jitted/rnn.py", "manual_bptt/workspace.py"
    ranked = sorted([(file, 1) for file in (*files, "manual_bptt/rnn.py")], key=TAGGED.rank_place)
    assert [file for file, _ in ranked] == ["manual_bptt/rnn.py", *files[:0:-1][::-1], files[0]]
