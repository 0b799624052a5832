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
    name: str,
    evidence: Sequence[Evidence],
    backs: Sequence[Any],
    read: Callable[[str, Any], Array],
) -> Iterator[Finding]:
    """List weight decays at one index of an axis alone, or everywhere but there.

    Such is the gradient of a penalty that a loss has without its intercept. `read` returns the
    parameter of a name, given a backward pass. Where the true gradient is a multiple of the
    parameter in all cases, its factor may be wrong as well, and nothing is listed.
    """
    true, w = ([of(name, back) for back in backs] for of in (read_gradient, read))
    wanted = evidence[0].wanted[name]
    if true[0].shape != wanted.submitted.shape or w[0].shape != true[0].shape:
        return
    with np.errstate(all="ignore"):
        added = wanted.submitted - true[0]
        where = np.abs(added) > SLACK * wanted.allowed
    for axis, length in enumerate(w[0].shape):
        others = tuple(each for each in range(w[0].ndim) if each != axis)
        touched = where.any(axis=others)
        for index, alone in ((touched.argmax(), True), (touched.argmin(), False)):
            if length < 2 or touched.sum() != (1 if alone else length - 1):
                continue
            chosen = np.flatnonzero((np.arange(length) == index) == alone)
            parts = [np.take(each, chosen, axis).ravel() for each in (added, w[0])]
            with np.errstate(all="ignore"):
                decay = round_as_written(find_share(*parts))
            slopes, values = (
                np.concatenate([np.take(v, chosen, axis).ravel() for v in each])
                for each in (true, w)
            )
            if decay and np.isfinite(decay) and not is_multiple(slopes, values):
                yield describe_partial_decay(name, read, decay, axis, int(index), alone)


def read_gradient(name: str, back: Any) -> Array:
    """Read the true gradient of a parameter, given a backward pass."""
    found: Array = back.gradient(name)
    return found


def find_share(slopes: Array, values: Array) -> float:
    """Find the factor of values that is nearest to slopes."""
    return float(np.vdot(slopes, values) / np.vdot(values, values))


def is_multiple(slopes: Array, values: Array) -> bool:
    """True if slopes are one multiple of values, to rounding."""
    with np.errstate(all="ignore"):
        apart = np.max(np.abs(slopes - find_share(slopes, values) * values), initial=0.0)
        return bool(apart <= NEAR * np.max(np.abs(slopes), initial=0.0))


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
    where = f"at {place} alone" if alone else f"everywhere but at {place}"
    said = f"{abs(decay):.6g} times the parameter is added {where}, as by a weight decay"
    if decay < 0:
        said = f"{-decay:.6g} times the parameter is missing {where}, as of a penalty in the loss"

    def alter(back: Any) -> Array:
        value = read(name, back)
        part = np.zeros_like(value) if alone else value.copy()
        part[at] = value[at] if alone else 0.0
        found: Array = back.gradient(name) + decay * part
        return found

    details = {"decay": decay, "axis": axis, "index": index, "alone": alone}
    return Finding("weight-decay", said, details, alter)
