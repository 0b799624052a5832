"""The smallest sizes at which a claim on an own model fails: found by running its file smaller."""

import ast
from pathlib import Path

import numpy as np
import pytest

from bptt_verifier.judge.published import read_entry
from bptt_verifier.judge.small_sizes import (
    compare_at,
    find_smallest,
    list_size_lines,
    list_smaller,
)
from tests.support.modules import ROOT

TEMPLATE = (ROOT / "examples" / "docket_entry.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("pascanu-jacobian", {"T": 2, "D": 1, "H": 2}),  # Wᵀ is W for H = 1
        (
            "nicodjimenez-without-carousel",
            {"T": 2, "D": 1, "H": 1},
        ),  # its sizes are in another file
        ("eprop-approximation", {"T": 2, "D": 1, "H": 1, "O": 1}),  # ALPHA is no size
        ("d2l-total", {"T": 2, "D": 1, "H": 1, "Q": 1}),  # and its data and its loss
        ("geeksforgeeks-lstm", {"T": 1, "D": 1, "H": 1}),  # and gives its data another name
        ("deep-learning-columns", {"T": 2, "D": 1, "H": 2, "O": 2}),
    ],
)
def test_a_wrong_claim_fails_at_no_smaller_sizes(name: str, sizes: dict[str, int]) -> None:
    found = find_smallest(read_entry(name))
    assert found is not None
    assert found.sizes == sizes
    assert np.abs(found.claimed - found.true).max() > 1e-6


@pytest.mark.parametrize("name", ["deep-learning-draft", "layer-norm-rnn", "nicodjimenez-lstm"])
def test_a_right_claim_fails_at_no_sizes(name: str) -> None:
    """Not where its gradient is zero either, as that of a softmax over one entry."""
    assert find_smallest(read_entry(name)) is None


def write_entry(folder: Path, *replaced: tuple[str, str]) -> Path:
    """Write the template with other lines."""
    source = TEMPLATE
    for old, new in replaced:
        assert source.count(old) == 1
        source = source.replace(old, new)
    (folder / "own.py").write_text(source, encoding="utf-8")
    return folder / "own.py"


DATA = "x = np.array([0.5, -1.0, 2.0])"
RETURNED = 'return {"w": sum('


def test_an_entry_that_states_no_sizes_is_compared_as_it_stands(tmp_path: Path) -> None:
    file = write_entry(tmp_path, (RETURNED, 'return {"w": 2 * sum('))
    found = find_smallest(read_entry(str(file)))
    assert found is not None
    assert found.sizes == {}
    assert found.claimed == pytest.approx(2 * found.true)


def test_sizes_at_which_a_file_does_not_run_are_passed_over(tmp_path: Path) -> None:
    sized = "N, M = 3, 1\nx = np.ones(N)\nx[1] = 2"
    file = write_entry(tmp_path, (DATA, sized), (RETURNED, 'return {"w": 2 * sum('))
    found = find_smallest(read_entry(str(file)))
    assert found is not None
    assert found.sizes == {"N": 2, "M": 1}


def test_a_loss_that_is_not_analytic_gives_no_numbers(tmp_path: Path) -> None:
    squared = "    return s**2 / 2", "    return abs(s**2 / 2)"
    file = write_entry(tmp_path, squared, (RETURNED, 'return {"w": 2 * sum('))
    assert find_smallest(read_entry(str(file))) is None


def test_sizes_are_tried_by_their_sum() -> None:
    assert [tuple(each.values()) for each in list_smaller({"T": 2, "H": 2})] == [
        (1, 1), (1, 2), (2, 1), (2, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "letters"),
    [
        ("T, D = 3, 2", ["T", "D"]), ("T, x = 3, 2", None), ("t, x = 3, 2", None),
        ("T, D = 3, n", None), ("T, D = m, n", None), ("T = 3", None),
    ],
)  # fmt: skip
def test_sizes_are_numbers_with_capital_letters(line: str, letters: list[str] | None) -> None:
    assert [found for found, _ in list_size_lines(ast.parse(line))] == [letters] * bool(letters)


QUADRATIC = """
import numpy as np

params = {"w": np.array([1.0, 0.0])}


def loss(p):
    return (p["w"] ** 2).sum()


def gradients(p):
    return {"w": 2 * p["w"] + np.array([0, CHANGE])}
"""


@pytest.mark.parametrize(("change", "differs"), [(0.0, False), (1e-6, False), (1.5e-6, True)])
def test_one_entry_that_differs_by_more_than_a_millionth_is_enough(
    change: float, differs: bool, tmp_path: Path
) -> None:
    file = tmp_path / "own.py"
    file.write_text(QUADRATIC.replace("CHANGE", str(change)), encoding="utf-8")
    found = compare_at(file, {})
    assert (found is not None) is differs
