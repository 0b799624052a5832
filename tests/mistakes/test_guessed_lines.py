"""A line is guessed where a term is missing: the one whose value is the wrong gradient."""

from pathlib import Path

import pytest

from tests.mistakes.test_backward_lines import INLINE, diagnose_file


@pytest.mark.parametrize(
    ("right", "wrong", "expression"),
    [
        (" + later", "", "d @ weight"),
        (" + later", " + 2 * later", 'times(dy, p["V"].T) + 2 * later'),
        ('G["V"] += h[t + 1].T @ dy', 'G["V"] = h[t + 1].T @ dy', "h[t + 1].T @ dy"),
        ('G["W"] += h[t].T @ da', 'G["W"] -= h[t].T @ da', 'G["W"] -= h[t].T @ da'),
        ("    return G", '    G["U"] = G["U"] / 2\n    return G', 'G["U"] / 2'),
    ],
)
def test_the_line_that_has_the_wrong_gradient_is_guessed(
    right: str, wrong: str, expression: str, tmp_path: Path
) -> None:
    (mistake,) = diagnose_file(tmp_path / "wrong.py", INLINE, right, wrong)
    guess = mistake.details["backward_guess"]
    assert guess["expression"] == expression, mistake.explanation
    assert f"A guess: look at `{expression}`" in mistake.explanation
    assert "backward" not in mistake.details  # nothing is said for certain


def test_a_line_that_is_certain_is_no_guess(tmp_path: Path) -> None:
    change = 'da @ p["W"].T', 'da @ p["W"]'
    (mistake,) = diagnose_file(tmp_path / "wrong.py", INLINE, *change)
    assert "backward" in mistake.details
    assert "backward_guess" not in mistake.details
    assert "A guess" not in mistake.explanation


def test_nothing_is_guessed_where_two_lines_have_the_gradient(tmp_path: Path) -> None:
    source = INLINE.replace(" + later\n", ' + later\n        same = times(dy, p["V"].T)\n')
    (mistake,) = diagnose_file(tmp_path / "wrong.py", source, " + later\n", "\n")
    assert "backward_guess" not in mistake.details
