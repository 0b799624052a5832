"""The suite is judged: every planted mistake must be caught by what test_gradients.py demands."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import manual_bptt.rnn
from bptt_verifier.strategies import cell_problems, problems
from tests.support.agreement import assert_agrees, assert_cell_agrees
from tests.support.planting import B3, GATED_MISTAKES, MISTAKES, Mistake, identify, planted
from tests.support.profiles import by_turns

PRECISIONS = (np.float32, np.float64)


def demands(module: ModuleType, dtype: type) -> None:
    """What test_gradients.py demands, without shrinking."""

    @settings(
        max_examples=100,  # how often a derivation is tried before a mistake counts as a survivor
        phases=[Phase.generate],
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def suite(data: st.DataObject) -> None:
        cell = module.__name__.rpartition(".")[2]
        if cell in ("lstm", "gru"):
            assert_cell_agrees(module, data.draw(cell_problems(cell, dtype)))
        else:
            assert_agrees(module, data.draw(problems(dtype)))

    suite()


@pytest.mark.table(19)
@pytest.mark.parametrize(
    ("mistake", "dtype"), by_turns(MISTAKES + GATED_MISTAKES, PRECISIONS), ids=identify
)
def test_the_suite_catches(mistake: Mistake, dtype: type, tmp_path: Path) -> None:
    module = planted(mistake, tmp_path)
    try:
        demands(module, dtype)
    except AssertionError:
        return
    pytest.fail(f"survived: {mistake.name}")


@pytest.mark.table(5)
@pytest.mark.parametrize(
    ("suspect", "dtype"), by_turns(["rnn", "jacobian_sum", "rtrl", "lstm", "gru"], PRECISIONS)
)
def test_a_copy_without_a_mistake_passes(suspect: str, dtype: type, tmp_path: Path) -> None:
    demands(planted(Mistake("none", "rnn.py", B3, B3, suspect), tmp_path), dtype)


def test_a_planted_mistake_leaves_the_installed_package_alone(tmp_path: Path) -> None:
    module = planted(MISTAKES[0], tmp_path)
    assert Path(str(module.__file__)).is_relative_to(tmp_path)
    assert not Path(manual_bptt.rnn.__file__).is_relative_to(tmp_path)


def test_a_mistake_whose_line_is_gone_is_reported(tmp_path: Path) -> None:
    stale = MISTAKES[0]._replace(right="no such line")
    with pytest.raises(AssertionError, match=r"'no such line' occurs 0 times in rnn\.py"):
        planted(stale, tmp_path)
