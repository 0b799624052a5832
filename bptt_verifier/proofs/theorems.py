"""The theorems of the folder `proofs`, checked by the proof assistant Rocq (Coq).

They state for every T and every size, over any commutative ring, what the other certificates
prove at given sizes. The folder belongs to the repository, not to the installed package; Rocq 8.16
with Mathematical Components 1.15 are packages of the distribution.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

FOLDER = Path(__file__).parents[2] / "proofs"
INSTALL = "apt-get install coq libcoq-mathcomp-algebra"
STATED = re.compile(r"(?:^\(\*\* ([^\n]*) \*\)\n)?^(?:Theorem|Corollary) (\w+)", re.MULTILINE)
CLOSED = "Closed under the global context"


class Theorem(NamedTuple):
    """A theorem of one file, what it says, and why it is not proved; None where it is."""

    file: str
    name: str
    refuted: str | None
    statement: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The theorem as plain data, for JSON."""
        return {
            "file": self.file,
            "theorem": self.name,
            "statement": self.statement,
            "refuted": self.refuted,
        }


class MissingRocq(ValueError):  # noqa: N818 - names what is missing, not the error
    """The theorems cannot be checked on this machine; the message says what to install."""


def find_coqc(folder: Path = FOLDER) -> str:
    """The path of Rocq's compiler. Raises MissingRocq where it, its library or `folder` is not."""
    if not (folder / "_CoqProject").is_file():
        raise MissingRocq("the theorems are in the folder proofs of the project's repository")
    coqc = shutil.which("coqc")
    if coqc is not None:
        where = subprocess.run([coqc, "-where"], capture_output=True, text=True, check=True).stdout
        if (Path(where.strip()) / "user-contrib/mathcomp/algebra").is_dir():
            return coqc
    raise MissingRocq(f"the theorems need Rocq with Mathematical Components: {INSTALL}")


def files_in_order(folder: Path = FOLDER) -> list[str]:
    """The names of the files, without `.v`, each after those that it imports."""
    lines = (folder / "_CoqProject").read_text(encoding="utf-8").splitlines()
    return [line.removesuffix(".v") for line in lines if line.endswith(".v")]


def compile_file(coqc: str, name: str, folder: Path) -> str | None:
    """Compile one file of a folder; return Rocq's complaint, or None."""
    ended = subprocess.run(
        [coqc, "-q", "-w", "none", "-Q", ".", "Bptt", f"{name}.v"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    complaint = " ".join(ended.stderr.split()) or f"coqc ended with {ended.returncode}"
    return complaint if ended.returncode else None


def rest_on(coqc: str, found: Sequence[Theorem], folder: Path) -> Iterator[Theorem]:
    """Yield the theorems of one compiled file; an axiom that one rests on refutes it here."""
    file = found[0].file
    question = f"{file}_assumptions"
    asked = (f'Redirect "{each.name}" Print Assumptions {file}.{each.name}.\n' for each in found)
    text = f"From Bptt Require {file}.\n" + "".join(asked)
    (folder / f"{question}.v").write_text(text, encoding="utf-8")
    complaint = compile_file(coqc, question, folder)
    for theorem in found:
        answer = folder / f"{theorem.name}.out"
        printed = answer.read_text(encoding="utf-8") if answer.is_file() else str(complaint)
        assumptions = " ".join(printed.split())
        yield theorem._replace(refuted=None if assumptions == CLOSED else assumptions)


def stated(folder: Path = FOLDER) -> list[Theorem]:
    """Every theorem in order, with the sentence before it, unchecked."""
    return [
        Theorem(file, name, None, sentence)
        for file in files_in_order(folder)
        for sentence, name in STATED.findall((folder / f"{file}.v").read_text(encoding="utf-8"))
    ]


def check(folder: Path = FOLDER) -> Iterator[Theorem]:
    """Check every file of `folder` from its source; yield its theorems with their status.

    A file that does not compile refutes its theorems. Raises MissingRocq.
    """
    coqc = find_coqc(folder)
    with TemporaryDirectory() as copied:
        copy = Path(copied)
        for file in files_in_order(folder):
            shutil.copy(folder / f"{file}.v", copy)
            complaint = compile_file(coqc, file, copy)
            found = [theorem for theorem in stated(folder) if theorem.file == file]
            if complaint is not None:
                for theorem in found or [Theorem(file, file, None)]:
                    yield theorem._replace(refuted=complaint)
            elif found:
                yield from rest_on(coqc, found, copy)
