"""The pictures of the commands show what the commands print today: `make pictures` draws them."""

import re
import tomllib
from html import unescape

import pytest

from bptt_verifier import verify
from bptt_verifier.judge.builtin import CELL_DERIVATIONS, DERIVATIONS, TANGENT_DERIVATIONS
from bptt_verifier.program.source_file import load
from tests.support.colour_vision import find_contrast
from tests.support.documentation import load_builder
from tests.support.modules import ROOT

DOCS = ROOT / "docs"
TEXT = re.compile(r'<text [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>')
MEASURED = re.compile(r"-?\d+(\.\d+)+(e[+-]?\d+)?|-?\d+e[+-]?\d+")  # and versions


PICTURES = load_builder("pictures")


def read_lines(picture: str) -> list[str]:
    """The lines of text in a picture, from top to bottom, with single spaces."""
    lines: dict[float, list[tuple[float, str]]] = {}
    for x, y, text in TEXT.findall(picture):
        lines.setdefault(float(y), []).append((float(x), unescape(text)))
    joined = ("".join(text for _, text in sorted(lines[y])) for y in sorted(lines))
    return [" ".join(line.split()) for line in joined]


def without_measurements(picture: str) -> str:
    """The words of a picture; numbers with decimals, which differ between machines, are masked."""
    return MEASURED.sub("#", " ".join(read_lines(picture)))


def read_picture(name: str) -> str:
    text: str = (DOCS / name).read_text(encoding="utf-8")
    return text


@pytest.mark.parametrize("name", PICTURES.COMMANDS)
def test_a_picture_begins_with_its_command(name: str) -> None:
    command = " ".join(PICTURES.COMMANDS[name])
    assert read_lines(read_picture(name))[0] == f"$ bptt {command}"


def test_the_picture_of_verify_shows_every_derivation() -> None:
    text = " ".join(read_lines(read_picture("verify.svg")))
    every = [*DERIVATIONS, *CELL_DERIVATIONS]
    assert [text.count(f" {name} L ") for name in every] == [1] * len(every)
    assert [text.count(f" {name} R{{") for name in TANGENT_DERIVATIONS] == [1, 1]


@pytest.mark.slow
def test_the_picture_of_a_mistake_has_the_cases_of_today() -> None:
    module = load(ROOT / "examples" / "almost_right.py")
    report = verify(module.gradients, timeout=0)
    assert f"almost_right.py, {report.tried}" in read_lines(read_picture("almost_right.svg"))[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES.COMMANDS)
def test_a_picture_shows_what_its_command_prints(name: str) -> None:
    drawn = PICTURES.draw(PICTURES.COMMANDS[name])
    assert without_measurements(read_picture(name)) == without_measurements(drawn)


def test_another_word_or_count_in_a_picture_is_noticed() -> None:
    picture = read_picture("almost_right.svg")
    for old, new in (("228", "224"), ("disagrees", "agrees"), ("δ_29", "δ_28")):
        assert old in picture
        assert without_measurements(picture.replace(old, new)) != without_measurements(picture)
    assert without_measurements(picture.replace("2.83e+13", "2.84e+13")) == without_measurements(
        picture
    )


@pytest.mark.parametrize("name", PICTURES.COMMANDS)
def test_the_colours_of_a_picture_stand_out_from_its_background(name: str) -> None:
    picture = read_picture(name)
    (background,) = re.findall(r'rx="8" fill="(#\w{6})"', picture)
    colours = set(re.findall(r"\{ fill: (#\w{6})", picture))
    assert len(colours) > 1
    assert all(find_contrast(background, each) >= 4.5 for each in colours)


def list_unreachable_pictures(page: str, address: str) -> list[str]:
    """The pictures of a page that are not files of the repository, at its address."""
    raw = address.replace("https://github.com/", "https://raw.githubusercontent.com/") + "/main/"
    shown = re.findall(r"!\[[^]]*\]\(([^)]*)\)", page)
    return [
        p for p in shown if p == p.removeprefix(raw) or not (ROOT / p.removeprefix(raw)).is_file()
    ]


def test_the_readme_shows_pictures_of_the_repository_by_absolute_address() -> None:
    """A package index does not show others."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "![" in page
    assert list_unreachable_pictures(page, project["urls"]["Source"]) == []


@pytest.mark.parametrize(
    "picture", ["docs/a.svg", "https://raw.githubusercontent.com/a/b/main/no.svg"]
)
def test_a_picture_that_a_package_index_would_not_show_is_noticed(picture: str) -> None:
    assert list_unreachable_pictures(f"![a]({picture})", "https://github.com/a/b") == [picture]
