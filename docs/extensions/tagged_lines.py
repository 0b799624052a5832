"""The lines of code that compute an equation: those with its tag, such as (B3), in a comment."""

import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("manual_bptt", "jax_reference", "bptt_verifier")
CITED = re.compile(r"\(([A-Z]\d+)\)")


def find_lines(root: Path = ROOT) -> dict[str, list[tuple[str, int]]]:
    """Find the file and line of every comment that has a tag, by tag."""
    found: dict[str, list[tuple[str, int]]] = {}
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            with tokenize.open(file) as source:
                for token in tokenize.generate_tokens(source.readline):
                    if token.type == tokenize.COMMENT:
                        for tag in CITED.findall(token.string):
                            place = file.relative_to(root).as_posix(), token.start[0]
                            found.setdefault(tag, []).append(place)
    return found


def rank_place(place: tuple[str, int]) -> tuple[bool, bool, str, int]:
    """Rank the readable derivations first, then those arranged for speed, then the others."""
    file, line = place
    package, *inner = file.split("/")
    fast = len(inner) > 1 or inner[0] == "workspace.py"
    return package != "manual_bptt", fast, file, line
