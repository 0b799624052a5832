"""Penalties in a loss: the multiple of a parameter that a term of it alone gives its gradient."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bptt_verifier.program.backward import Change, backward
from bptt_verifier.program.trace import Program

NEAR = 1e-9  # relative distance of the term's gradient from a multiple of the parameter


def find_decay(program: Program, values: Sequence[Any], name: str) -> float:
    """Find the multiple of a parameter in its gradient that comes from a penalty, such as Σ W².

    A penalty is a scalar that is computed from the parameter alone. 0 where the loss has none, or
    one whose gradient is no multiple of the parameter.
    """
    slot = program.leaves[name]
    leaf = np.asarray(values[slot][0])
    if leaf.ndim == 0:
        return 0.0
    uses: dict[int, frozenset[str]] = {s: frozenset([n]) for n, s in program.leaves.items()}
    cuts: dict[tuple[int, int], Change] = {}
    for number, operation in enumerate(program.operations):
        read = frozenset[str]().union(*(uses.get(s, frozenset()) for s in operation.inputs))
        uses |= dict.fromkeys(operation.outputs, read)
        for operand, each in enumerate(operation.inputs):
            whole = uses.get(each) == frozenset([name]) and np.ndim(values[each][0]) > 0
            if whole and (read != frozenset([name]) or program.result in operation.outputs):
                cuts[number, operand] = Change(operand, after=0.0)
    slope = backward(program, values, (cuts,))[name][0]
    with np.errstate(all="ignore"):
        decay = float(np.vdot(slope, leaf) / np.vdot(leaf, leaf))
        apart = np.max(np.abs(slope - decay * leaf), initial=0.0)
        far = not apart <= NEAR * np.max(np.abs(slope), initial=0.0)
    return 0.0 if far or not np.isfinite(decay) else decay
