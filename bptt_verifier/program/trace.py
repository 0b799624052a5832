"""A user's loss as a list of equations: its gradient with rounding errors, or with mistakes.

The equations of its jaxpr are evaluated and differentiated in NumPy, one by one, not compiled. One
sweep computes many samples, to measure the effect of rounding (docs/derivation.md, section 10), or
many mistaken gradients. jax.grad, the reference for submissions, checks these gradients, too.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.operations import (
    EXACTLY,
    MOVES,
    Operation,
    RoundingErrors,
    evaluate,
    pass_back,
)
from bptt_verifier.program.source_lines import Place, places
from bptt_verifier.tolerance.noise import AMPLIFY, INLINED, SAFETY, SAMPLES

Params = Mapping[str, Array]
Loss = Callable[[dict[str, Any], Any], Any]


class Program(NamedTuple):
    """A loss as equations between slots of values.

    `constants` are the slots that do not depend on the parameters, `leaves` the slots of the
    parameters, `result` is the slot of the loss, and `slots` their number.
    """

    operations: tuple[Operation, ...]
    constants: dict[int, Array]
    leaves: dict[str, int]
    result: int
    slots: int
    shapes: dict[str, tuple[int, ...]]


class Change(NamedTuple):
    """An alteration of one operation's derivative with respect to one operand.

    The cotangent is multiplied by `before`, passed back with the operands of `instead` replacing
    the true ones, and multiplied by `after`; or it is multiplied by `slope` alone. The unaltered
    cotangent is also added to the slots of `also`.
    """

    operand: int
    before: Any = None
    after: Any = None
    instead: tuple[tuple[int, Array], ...] = ()
    slope: Any = None
    also: tuple[int, ...] = ()


Changes = Mapping[tuple[int, int], Change]  # by (equation, operand)


def movements(
    equation: Any, active: Sequence[bool], given: Sequence[Any]
) -> list[tuple[slice, Array | None]]:
    """The results of each operation that an equation stands for, with `moved` of the operation.

    Depending on the version of JAX, `a, b = x` is one unstack or several slices. Here an unstack
    becomes slices, so that one rule covers both.
    """
    name, shape = equation.primitive.name, equation.invars[0].aval.shape
    numbers = np.arange(prod(shape)).reshape(shape)
    if name == "unstack":
        parts = np.moveaxis(numbers, equation.params["axis"], 0)
        return [(slice(i, i + 1), part.ravel()) for i, part in enumerate(parts)]
    moved: Any = None
    if name in MOVES:
        moved = MOVES[name](numbers, equation.params, equation.outvars[0].aval.shape)
    elif name in {"gather", "dynamic_slice"} and active[0] and not any(active[1:]):
        found = np.asarray(equation.primitive.bind(numbers, *given[1:], **equation.params))
        moved = found if (found >= 0).all() else None
    return [(slice(None), None if moved is None else np.asarray(moved).ravel())]


def trace(loss: Loss, params: Params) -> Program:
    """Trace a loss to equations in float64, with calls inlined and constants evaluated.

    Call it with 64-bit JAX.
    """
    given = {name: np.asarray(value, np.float64) for name, value in params.items()}
    closed = jax.make_jaxpr(lambda params: loss(params, jnp))(given)
    equations: list[Operation] = []
    constants: dict[int, Array] = {}
    slots = 0

    def constant(value: Any) -> int:
        nonlocal slots
        constants[slots] = np.array(value)  # a copy: JAX's own would stay interned
        slots += 1
        return slots - 1

    def inline(
        closed: ClosedJaxpr, inputs: Sequence[int], where: tuple[Place, ...], above: tuple[int, ...]
    ) -> list[int]:
        nonlocal slots
        known: dict[Any, int] = dict(zip(closed.jaxpr.invars, inputs, strict=True))
        known |= zip(closed.jaxpr.constvars, map(constant, closed.consts), strict=True)

        def slot(atom: Any) -> int:
            return constant(atom.val) if isinstance(atom, Literal) else known[atom]

        for number, equation in enumerate(closed.jaxpr.eqns):
            name, operands = equation.primitive.name, [slot(atom) for atom in equation.invars]
            active = [operand not in constants for operand in operands]
            values = [constants.get(operand) for operand in operands]
            # A call's body was traced at its first use, so its source lines may be outdated.
            here, position = (where, (*above, number)) if above else (places(equation), ())
            if name in INLINED:
                inner = equation.params[INLINED[name]]
                inner = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
                results = inline(inner, operands, here, position or (0,))
            elif any(active):
                results = list(range(slots, slots + len(equation.outvars)))
                slots += len(results)
                shapes = [variable.aval.shape for variable in equation.outvars]
                for part, moved in movements(equation, active, values):
                    what = name, equation.primitive, equation.params, tuple(operands)
                    outputs, sizes = tuple(results[part]), tuple(shapes[part])
                    equations.append(Operation(*what, outputs, sizes, here, position, moved))
            else:
                found = equation.primitive.bind(*values, **equation.params)
                found = found if equation.primitive.multiple_results else [found]
                results = [constant(value) for value in found]
            known |= zip(equation.outvars, results, strict=True)
        return [slot(atom) for atom in closed.jaxpr.outvars]

    leaves = {name: slots + i for i, name in enumerate(sorted(given))}  # as jax.tree sorts them
    slots += len(leaves)
    (result,) = inline(closed, list(leaves.values()), (), ())
    shapes = {name: value.shape for name, value in given.items()}
    return Program(tuple(equations), constants, leaves, result, slots, shapes)


def forward(program: Program, params: Params, errors: RoundingErrors = EXACTLY) -> list[Any]:
    """The value of every slot, with a leading axis for the samples (of size 1 without errors).

    With errors, the parameters also get an error of one unit in the last place, and so do the
    constants that float32 cannot represent.
    """
    values: list[Any] = [None] * program.slots
    for slot, value in program.constants.items():
        values[slot] = value[None]
        if value.dtype.kind == "f" and (value.astype(np.float32) != value).any():
            values[slot] = errors.add(value[None], np.abs(value[None]))
    for name, slot in program.leaves.items():
        value = np.asarray(params[name], np.float64)[None]
        values[slot] = errors.add(value, np.abs(value))
    with np.errstate(all="ignore"):
        for equation in program.operations:
            results = evaluate(equation, [values[slot] for slot in equation.inputs], errors)
            for slot, result in zip(equation.outputs, results, strict=True):
                values[slot] = result
            # A derivation may use a term only through its sum with a constant, as h (1 − h) does
            # for a sigmoid. Then the digits that the sum rounds away are missing from the
            # derivative, too.
            if errors.sizes is not None and equation.name in {"add", "sub"}:
                total = np.abs(results[0])
                for slot, other in zip(equation.inputs, reversed(equation.inputs), strict=True):
                    if other in program.constants and total.shape[1:] == values[slot].shape[1:]:
                        values[slot] = errors.add(values[slot], total)
    return values


def backward(
    program: Program,
    values: Sequence[Any],
    rows: Sequence[Changes] = ({},),
    errors: RoundingErrors = EXACTLY,
) -> dict[str, Array]:
    """The gradients of every leaf: one for each row of changes, or for each sample of errors."""
    samples = len(rows) if errors.sizes is None else len(errors.sizes)
    altered: dict[int, list[tuple[int, Change]]] = {}
    for row, changes in enumerate(rows):
        for (number, _), change in changes.items():
            altered.setdefault(number, []).append((row, change))
    cotangents: list[Any] = [None] * program.slots
    cotangents[program.result] = np.ones(samples)

    def add(slot: int, ct: Array) -> None:
        if slot in program.constants:
            return
        if cotangents[slot] is not None:
            ct = cotangents[slot] + ct
            ct = errors.add(ct, np.abs(ct))
        cotangents[slot] = ct

    with np.errstate(all="ignore"):
        for number in reversed(range(len(program.operations))):
            equation = program.operations[number]
            arriving = [cotangents[slot] for slot in equation.outputs]
            if all(ct is None for ct in arriving):
                continue
            given = [values[slot] for slot in equation.inputs]
            outputs = [values[slot] for slot in equation.outputs]
            back = pass_back(equation, given, outputs, arriving, errors)
            for one in {change.operand for _, change in altered.get(number, ())}:
                back[one] = None if back[one] is None else np.array(back[one])
            for row, change in altered.get(number, ()):
                one = change.operand
                if back[one] is None:
                    continue
                true = back[one][row].copy()
                back[one][row] = change_row(equation, given, outputs, arriving, true, row, change)
                for slot in change.also:
                    sent = np.zeros_like(back[one])
                    sent[row] = true
                    add(slot, sent)
            for slot, ct in zip(equation.inputs, back, strict=True):
                if ct is not None:
                    add(slot, ct)
    for slot in program.leaves.values():
        if cotangents[slot] is None:
            cotangents[slot] = np.zeros((samples, *values[slot].shape[1:]))
    return {name: np.asarray(cotangents[slot]) for name, slot in program.leaves.items()}


def change_row(
    equation: Operation,
    given: Sequence[Array],
    outputs: Sequence[Array],
    arriving: Sequence[Array | None],
    true: Array,
    row: int,
    change: Change,
) -> Array:
    """Apply a change to one row of the cotangents of one operand."""
    result: Any = true
    if change.slope is not None:
        assert arriving[0] is not None
        result = arriving[0][row] * change.slope
    elif change.before is not None or change.instead:
        factor = 1.0 if change.before is None else change.before
        wrong = list(given)
        for operand, value in change.instead:
            wrong[operand] = value
        once = [ct if ct is None else ct[row : row + 1] * factor for ct in arriving]
        result = pass_back(equation, wrong, outputs, once)[change.operand][0]
    if change.after is not None:
        result = result * change.after
    return np.asarray(result).reshape(true.shape)


def gradient_and_noise(
    program: Program, params: Params, roundoffs: Sequence[float], seed: int = 0
) -> list[tuple[float, dict[str, Array]]]:
    """The allowed errors of the loss and of every gradient entry, for each roundoff.

    The rule is that of `noise.measure_error`, (N1) and (N2).
    """
    sizes = np.repeat([max(u, AMPLIFY * 2.0**-53) for u in roundoffs], SAMPLES)
    errors = RoundingErrors(sizes, np.random.default_rng(seed))
    exact = forward(program, params)
    noisy = forward(program, params, errors)
    clean, moved = backward(program, exact), backward(program, noisy, errors=errors)

    def allowed(samples: Array, value: Array, i: int, u: float) -> Any:
        group = slice(i * SAMPLES, (i + 1) * SAMPLES)
        samples = np.broadcast_to(samples, (len(sizes), *value.shape))  # a constant is one row
        with np.errstate(all="ignore"):
            furthest = np.max(np.abs(samples[group] - value), axis=0)
            # A deviation above an eighth of the result is not proportional to the added errors,
            # so it cannot be scaled down to smaller ones.
            linear = np.max(furthest) <= 0.125 * np.max(np.abs(value))
            scale = u / sizes[i * SAMPLES] if linear else 1.0
            return SAFETY * (furthest * scale + u * np.abs(value))

    measured = []
    for i, u in enumerate(roundoffs):
        of_loss = float(allowed(noisy[program.result], exact[program.result][0], i, u))
        gradients = {name: allowed(moved[name], clean[name][0], i, u) for name in program.leaves}
        measured.append((of_loss, gradients))
    return measured
