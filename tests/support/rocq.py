"""The folder of theorems: its tags, its compiled files, and mistakes planted in its definitions."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bptt_verifier.proofs.theorems import FOLDER, MissingRocq, compile_file, find_coqc


def reason_to_skip() -> str:
    """Why the theorems cannot be checked on this machine; empty where they can."""
    try:
        find_coqc()
    except MissingRocq as missing:
        return str(missing)
    return ""


# Comments beside definitions, not documentation; the tags in them; where a statement begins.
BESIDE = re.compile(r"\(\*(?!\*).*?\*\)", re.DOTALL)
CITED = re.compile(r"\(([A-Z]\d+)\)")
STATEMENT = re.compile(r"^(?:Definition|Fixpoint|Theorem)\b", re.MULTILINE)


def proved_tags(folder: Path = FOLDER) -> set[str]:
    """The tags beside the definitions of the theorems: in comments, not in documentation."""
    texts = [file.read_text(encoding="utf-8") for file in folder.glob("*.v")]
    comments = [comment for text in texts for comment in BESIDE.findall(text)]
    return {tag for comment in comments for tag in CITED.findall(comment)}


class PlantedMistake(NamedTuple):
    """A mistake in a definition: in the file, `right`, which is there once, becomes `wrong`."""

    file: str
    right: str
    wrong: str

    def plant(self, folder: Path) -> None:
        """Write the file with the mistake into a folder."""
        text = (FOLDER / f"{self.file}.v").read_text(encoding="utf-8")
        assert text.count(self.right) == 1, (self.file, self.right, text.count(self.right))
        mistaken = text.replace(self.right, self.wrong)
        (folder / f"{self.file}.v").write_text(mistaken, encoding="utf-8")


class TaggedDefinition(NamedTuple):
    """A definition, or a field of a record, with the tags of its equation beside it."""

    file: str
    text: str
    start: int
    end: int
    tags: tuple[str, ...]

    def has(self, mistake: PlantedMistake) -> bool:
        """True if the mistake changes this definition."""
        place = self.text.find(mistake.right)
        return mistake.file == self.file and self.start < place + len(mistake.right) <= self.end


def tagged_definitions(file: str) -> Iterator[TaggedDefinition]:
    """Yield each part of a file that ends with a tag beside it."""
    text, start = (FOLDER / f"{file}.v").read_text(encoding="utf-8"), 0
    for comment in BESIDE.finditer(text):
        tags = tuple(CITED.findall(comment.group()))
        if not tags:
            continue
        begins = [found.start() for found in STATEMENT.finditer(text, start, comment.start())]
        yield TaggedDefinition(file, text, max([start, *begins]), comment.end(), tags)
        start = comment.end()


def compile_files(files: list[str], folder: Path) -> None:
    """Copy files of the theorems into a folder and compile them there."""
    for file in files:
        shutil.copy(FOLDER / f"{file}.v", folder)
        assert compile_file(find_coqc(), file, folder) is None


def print_answers(coqc: str, text: str, folder: Path) -> list[str]:
    """What Rocq prints for each `Eval` of a text, on the compiled files of a folder."""
    (folder / "questions.v").write_text(text, encoding="utf-8")
    ended = subprocess.run(
        [coqc, "-q", "-w", "none", "-Q", ".", "Bptt", "questions.v"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split("     = ")[1:]
