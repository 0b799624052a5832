"""The worked example of `bptt train` as arguments of the two witnesses."""

from typing import Any

import numpy as np

from bptt_verifier.commands import colours
from bptt_verifier.commands.colours import Encoding, InitialState
from manual_bptt import training as manual


def start(
    encoding: Encoding,
    initial_state: InitialState,
    seed: int = 0,
    hidden_size: int = 16,
    model: str = "rnn",
) -> tuple[Any, Any, Any, Any]:
    """Draw first parameters; return them, the phrases x, the colours y and the initial state."""
    rng = np.random.default_rng(seed)
    x, y = colours.inputs(encoding), colours.targets()
    params = manual.CELLS[model].init(rng, x.shape[2], hidden_size, 3)
    return params, x, y, colours.initial_state(initial_state, rng, hidden_size)
