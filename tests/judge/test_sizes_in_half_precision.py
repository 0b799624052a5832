"""Cells in half precision that are wrong at some sizes alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify
from bptt_verifier.tolerance.comparison import Verdict
from manual_bptt import gru, lstm, rnn
from tests.support.profiles import by_turns

MODULES = {"rnn": rnn, "lstm": lstm, "gru": gru}
WRONG: dict[str, tuple[str, Callable[[tuple[int, ...]], bool]]] = {
    "nowhere": ("W", lambda sizes: False),
    "for B > 32": ("W", lambda sizes: sizes[1] > 32),
    "for H > 32": ("W", lambda sizes: sizes[3] > 32),
    "where all sizes are 1": ("W", lambda sizes: max(sizes) == 1),
    "for T > 30": ("W", lambda sizes: sizes[0] > 30),
}


def computed_in(dtype: Any, cell: str, where: str) -> Any:
    """A derivation computed in this format, and returned in float16, 5 % off somewhere."""

    wrong, is_wrong = WRONG[where]

    def derive(params: Any, *arrays: Any) -> Any:
        module = MODULES[cell]
        x, y, *_ = arrays
        with np.errstate(over="ignore"):
            given = module.Params(*(w.astype(dtype) for w in params))
            found = module.value_and_grad(given, *(a.astype(dtype) for a in arrays))[1]
        every = {n: v for n, v in found._asdict().items() if v is not None and n != "x"}
        if is_wrong((*x.shape, params.V.shape[1], y.shape[1])):
            every[wrong] = every[wrong] * dtype(1.05)
        with np.errstate(over="ignore"):
            return {name: value.astype(np.float16) for name, value in every.items()}

    def take(params: Any, x: Any, y: Any, h0: Any) -> Any:
        return derive(params, x, y, h0)

    def take_both(params: Any, x: Any, y: Any, h0: Any, c0: Any) -> Any:
        return derive(params, x, y, h0, c0)

    return take_both if cell == "lstm" else take


@pytest.mark.rest
@pytest.mark.table(3)
@pytest.mark.extreme
@pytest.mark.parametrize(
    ("dtype", "where", "cell"),
    [
        pytest.param(dtype, *each, marks=[pytest.mark.slow] * (dtype is np.float16))
        for each in by_turns([*WRONG], [*MODULES])
        for dtype in (np.float16, np.float32, np.float64)
    ],
)
def test_five_per_cent_are_seen_at_the_sizes_where_they_are_wrong(
    dtype: Any, where: str, cell: str
) -> None:
    report = verify(computed_in(dtype, cell, where), model=cell, examples=30)
    expected = Verdict.AGREES if where == "nowhere" else Verdict.DISAGREES
    assert report.verdict is expected, str(report)
    wrong = [n for n, r in report.parameters.items() if r.verdict is Verdict.DISAGREES]
    assert wrong == ([] if where == "nowhere" else [WRONG[where][0]])


@pytest.mark.rest
@pytest.mark.extreme
@pytest.mark.parametrize("where", ["nowhere", "for H > 32"])
def test_five_per_cent_are_seen_where_every_operation_is_rounded(where: str) -> None:
    report = verify(computed_in(np.float16, "rnn", where), examples=30)
    expected = Verdict.AGREES if where == "nowhere" else Verdict.DISAGREES
    assert report.verdict is expected, str(report)
