"""The smallest sizes at which a claim of the docket on a model of its own fails.

An entry states its sizes in one line, such as `T, D, H = 4, 2, 3`, and draws data and parameters
of these sizes. Here its file runs again with smaller numbers in that line, smallest sum first.
"""

import ast
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.docket import entry
from bptt_verifier.judge.published import FOLDER, SHARED, DocketCase, differentiate_first
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import attempt

# Data and parameters are about 1. A smaller difference may be the rounding of a gradient that is
# zero at small sizes, such as that of a softmax over one entry.
VISIBLE = 1e-6
PACKAGE = entry.__name__.rpartition(".")[0]


class SmallCase(NamedTuple):
    """Sizes at which a claim fails, the gradient that is furthest off, and its values."""

    sizes: dict[str, int]
    gradient: str
    claimed: Array
    true: Array


def list_size_lines(tree: ast.AST) -> list[tuple[list[str], list[ast.expr]]]:
    """List the assignments of numbers to several capital letters: the letters and the numbers."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)):
                letters = [each.id for each in names if isinstance(each, ast.Name)]
                numbers = all(isinstance(each, ast.Constant) for each in values)
                if numbers and all(letter.isupper() for letter in letters):
                    found.append((letters, values))
    return found


def parse_with_bases(file: Path) -> list[ast.Module]:
    """Parse the file of an entry after those of the entries that it imports from."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    parsed, kept = [], []
    for node in tree.body:
        package, name, renamed = "", "", []
        if isinstance(node, ast.ImportFrom):
            package, _, name = (node.module or "").rpartition(".")
            renamed = [f"{each.asname} = {each.name}" for each in node.names if each.asname]
        if package == PACKAGE and name not in SHARED:
            parsed += parse_with_bases(FOLDER / f"{name}.py")
            kept += ast.parse("\n".join(renamed)).body
        else:
            kept.append(node)
    tree.body = kept
    return [*parsed, tree]


def read_sizes(trees: list[ast.Module]) -> dict[str, int]:
    """Read the sizes of an entry by their letters."""
    lines = [line for tree in trees for line in list_size_lines(tree)]
    pairs = [pair for letters, values in lines for pair in zip(letters, values, strict=True)]
    return {
        letter: value.value
        for letter, value in pairs
        if isinstance(value, ast.Constant) and type(value.value) is int
    }


def run_with_sizes(file: Path, sizes: dict[str, int]) -> dict[str, Any]:
    """Run the file of an entry with other sizes; return the names that it defines."""
    names: dict[str, Any] = {}
    for tree in parse_with_bases(file):
        for letters, values in list_size_lines(tree):
            for letter, value in zip(letters, values, strict=True):
                if letter in sizes and isinstance(value, ast.Constant):
                    value.value = sizes[letter]
        exec(compile(tree, str(file), "exec"), names)
    return names


def compare_at(file: Path, sizes: dict[str, int]) -> SmallCase | None:
    """Compare the claim with complex steps at these sizes; None where they are equal."""
    names = run_with_sizes(file, sizes)
    params = {name: np.asarray(value) for name, value in names["params"].items()}
    claimed, true = names["gradients"](dict(params)), differentiate_first(names["loss"], params)
    errors = {name: float(np.abs(claimed[name] - true[name]).max()) for name in params}
    worst = max(errors, key=lambda name: errors[name])
    if not errors[worst] > VISIBLE:
        return None
    return SmallCase(sizes, worst, np.asarray(claimed[worst]), true[worst])


def list_smaller(sizes: dict[str, int]) -> Iterator[dict[str, int]]:
    """List all sizes up to these, smallest sum first."""
    tried = product(*(range(1, size + 1) for size in sizes.values()))
    for each in sorted(tried, key=lambda numbers: (sum(numbers), numbers)):
        yield dict(zip(sizes, each, strict=True))


def find_smallest(case: DocketCase) -> SmallCase | None:
    """Find the smallest sizes at which a claim on an own model fails, if it fails at any.

    Sizes at which the file does not run are passed over.
    """
    file = Path(case.module.__file__)
    for sizes in list_smaller(read_sizes(parse_with_bases(file))):
        found = attempt(compare_at, file, sizes)
        if isinstance(found, SmallCase):
            return found
    return None
