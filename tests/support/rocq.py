"""The folder of theorems, compiled once, and mistakes planted in its definitions."""

import shutil
import subprocess
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
