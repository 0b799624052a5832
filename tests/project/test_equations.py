"""Every equation stands beside the line that computes it, and tests that break this rule."""

import re
import tokenize
from collections import Counter
from pathlib import Path

from tests.support.modules import PACKAGES, ROOT, modules, write_package
from tests.support.rocq import proved_tags

DEFINED = re.compile(r"\\tag\{([^}]*)\}")
# What the theorems cover: the cells, outputs at every step, truncation, both other ways of the RNN
# and the losses, without second derivatives.
PROVED = re.compile(r"[FBSGOKJR]\d+|L([1-9]|1[0-2])")
CITED = re.compile(r"\(([A-Z]\d+)\)")


def defined_tags(text: str) -> list[str]:
    """The tags of the equations in a Markdown text, in order."""
    return DEFINED.findall(text)


def cited_tags(package: str, kinds: set[int], root: Path = ROOT) -> set[str]:
    """The tags cited in a package, in its tokens of these kinds."""
    cited = set()
    for file in modules(package, root).values():
        with tokenize.open(file) as source:
            for token in tokenize.generate_tokens(source.readline):
                if token.type in kinds:
                    cited.update(CITED.findall(token.string))
    return cited


def derivation() -> str:
    """The text that numbers the equations."""
    return (ROOT / "docs" / "derivation.md").read_text(encoding="utf-8")


def test_the_equations_and_the_lines_that_compute_them_carry_the_same_tags() -> None:
    beside_code = set[str]().union(*(cited_tags(p, {tokenize.COMMENT}) for p in PACKAGES))
    equations = set(defined_tags(derivation()))
    assert equations
    assert equations - beside_code == set(), "equations that no line of code carries"
    assert beside_code - equations == set(), "tags in the code that no equation has"


def test_the_theorems_carry_the_tags_of_the_equations_that_they_cover() -> None:
    assert proved_tags() == {tag for tag in defined_tags(derivation()) if PROVED.fullmatch(tag)}


def test_every_tag_belongs_to_one_equation() -> None:
    counts = Counter(defined_tags(derivation()))
    assert [tag for tag, count in counts.items() if count > 1] == []


def test_every_tag_that_prose_cites_exists() -> None:
    in_docstrings = set[str]().union(*(cited_tags(p, {tokenize.STRING}) for p in PACKAGES))
    assert (in_docstrings | set(CITED.findall(derivation()))) - set(
        defined_tags(derivation())
    ) == set()


def test_only_comments_place_a_tag_beside_code(tmp_path: Path) -> None:
    source = '''
        """Equations (F1) to (F3)."""
        a = U @ x  # (F1)  a_t = U x_t
        h = phi(a)  # (F2), and the first half of (B2)
        name, call, size = "(F4)", f(F5), (H1)  # not a tag: (T, B) or (a1)
    '''
    package = write_package(tmp_path, "witness", forward=source)
    assert cited_tags(package, {tokenize.COMMENT}, tmp_path) == {"F1", "F2", "B2"}
    assert cited_tags(package, {tokenize.STRING}, tmp_path) == {"F1", "F3", "F4"}


def test_a_tag_that_is_missing_on_either_side_is_noticed(tmp_path: Path) -> None:
    package = write_package(tmp_path, "witness", forward="a = 1  # (F1)\nb = 2  # (F2)")
    code = cited_tags(package, {tokenize.COMMENT}, tmp_path)
    assert set(defined_tags(r"$$a \tag{F1}$$ $$b \tag{F3}$$ and (F9)")) - code == {"F3"}
    assert code - set(defined_tags(r"$$a \tag{F1}$$ $$b \tag{F3}$$ and (F9)")) == {"F2"}
    assert defined_tags(r"\tag{F1} \tag{F1}") == ["F1", "F1"]


def test_only_comments_place_a_tag_beside_a_definition(tmp_path: Path) -> None:
    text = "(** The forward pass, (F3). *)\nDefinition a := x.  (* (F1) *)  (* (F2)\n and (B1) *)"
    (tmp_path / "rnn.v").write_text(text, encoding="utf-8")
    assert proved_tags(tmp_path) == {"F1", "F2", "B1"}
