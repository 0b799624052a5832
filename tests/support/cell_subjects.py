"""Subjects of the judge of cells, with few examples."""

from typing import Any

from bptt_verifier.judge.cells import CellSubject
from bptt_verifier.judge.first_states import TakenStates

WITH_STATE = TakenStates(in_order=("h0",), optional=("h0",))


def subject(
    cell: str = "rnn",
    option: str = "tanh",
    states: TakenStates = TakenStates(),  # noqa: B008 - a tuple
    **more: Any,
) -> CellSubject:
    """The subject of a cell with these options."""
    known: dict[str, Any] = {"loss": "mse", "bias": False, "examples": 3, "seed": 1} | more
    return CellSubject(cell, option, states=states, **known)
