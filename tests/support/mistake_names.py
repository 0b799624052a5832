"""The stable names of mistakes, read from the source of the judge."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.modules import ROOT

HYPHENATED = re.compile(r"[a-z]+(-[a-z]+)+")
# What makes a mistake, or a breach of the contract, of the name that is its first argument.
MAKERS = frozenset(
    "Mistake Finding OperationMistake EquationMistake CarryMistake make_mistake make_breach "
    "scale_edges use other make finding".split()
)
FOLDERS = ("mistakes", "judge", "commands")
# Texts of these folders with a hyphen that name no mistake.
OTHERS = frozenset(
    "one-hot hidden-size initial-state learning-rate manual-jit output-gradient jaxlib-*-*".split()
)


def read_names(file: Path) -> Iterator[str]:
    """The names in a file; what an f-string computes is written `*`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inside = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in inside:
                if HYPHENATED.fullmatch(text) and text not in OTHERS:
                    yield text
            case ast.JoinedStr(values=parts):
                pattern = "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "*" for part in parts
                )
                if re.fullmatch(r"[a-z*]+(-[a-z*]+)+", pattern) and pattern not in OTHERS:
                    yield pattern
            case ast.Call(func=ast.Name(id=maker), args=[ast.Constant(value=str(name)), *_]):
                if maker in MAKERS and re.fullmatch(r"[a-z-]+", name):
                    yield name


def list_names(root: Path = ROOT) -> set[str]:
    """The names in the packages of the judge that make mistakes, without the catalogue's own."""
    files = [f for folder in FOLDERS for f in (root / "bptt_verifier" / folder).glob("*.py")]
    return {name for file in files if "catalogue" not in file.stem for name in read_names(file)}
