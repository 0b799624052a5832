"""Penalties of a parameter: the multiple of it in its gradient, of the whole or at some entries."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from bptt_verifier.mistakes.evidence import SLACK, Evidence
from bptt_verifier.mistakes.single_gradients import Finding, round_as_written
from bptt_verifier.problems.problem import Array
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


def list_partial_decays(
    name: str, case: Evidence, back: Any, read: Callable[[str, Any], Array]
) -> Iterator[Finding]:
    """List weight decays at one index of an axis alone, or everywhere but there.

    Such is the gradient of a penalty that a loss has without its intercept. `read` returns the
    parameter of a name, given a backward pass.
    """
    true, w, wanted = back.gradient(name), read(name, back), case.wanted[name]
    if true.shape != wanted.submitted.shape or w.shape != true.shape:
        return
    with np.errstate(all="ignore"):
        added = wanted.submitted - true
        where = np.abs(added) > SLACK * wanted.allowed
    for axis, length in enumerate(w.shape):
        others = tuple(each for each in range(w.ndim) if each != axis)
        touched = where.any(axis=others)
        for index, alone in ((touched.argmax(), True), (touched.argmin(), False)):
            if length < 2 or touched.sum() != (1 if alone else length - 1):
                continue
            chosen = (np.arange(length) == index) == alone
            shape = [length if each == axis else 1 for each in range(w.ndim)]
            kept = np.where(chosen.reshape(shape), w, 0.0)
            with np.errstate(all="ignore"):
                decay = round_as_written(float(np.vdot(added, kept) / np.vdot(kept, kept)))
            if decay and np.isfinite(decay):
                yield describe_partial_decay(name, read, decay, axis, int(index), alone)


def describe_partial_decay(
    name: str,
    read: Callable[[str, Any], Array],
    decay: float,
    axis: int,
    index: int,
    alone: bool,
) -> Finding:
    """Describe a weight decay at an index of an axis alone, or everywhere but there."""
    at = (slice(None),) * axis + (index,)
    place = f"`[{', '.join([':'] * axis + [str(index)])}]`"
    said = f"{abs(decay):.6g} times the parameter is {'added' if decay > 0 else 'missing'} "
    said += f"at {place} alone" if alone else f"everywhere but at {place}"
    said += ", a weight decay that the loss " + ("lacks" if decay > 0 else "has")
    said += " there" if alone else ""

    def alter(back: Any) -> Array:
        value = read(name, back)
        part = np.zeros_like(value) if alone else value.copy()
        part[at] = value[at] if alone else 0.0
        found: Array = back.gradient(name) + decay * part
        return found

    details = {"decay": decay, "axis": axis, "index": index, "alone": alone}
    return Finding("weight-decay", said, details, alter)
