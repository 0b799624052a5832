"""Mistakes in well-known expressions: normalisation, a small ε."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from bptt_verifier.mistakes.in_time import differentiate
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    Edge,
    FindChanges,
    OperationMistake,
    Values,
    change_edges,
    change_nothing,
    merge_at,
    scale_edges,
)
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import Change, backward
from bptt_verifier.program.operations import UNARY, evaluate
from bptt_verifier.program.structure import Structure

SMALL = 1e-2  # the largest constant that is taken for an ε
HOPS = 6  # operations between the parts of an expression, at most
AROUND = frozenset(
    "broadcast_in_dim reshape squeeze expand_dims convert_element_type copy transpose".split()
)

ROOTED = frozenset({*UNARY, "add", "pow", "integer_pow", "max"})


def ancestors(known: Structure, slot: int, through: frozenset[str], hops: int = HOPS) -> set[int]:
    """Find a slot and those from which it is computed by operations of these names alone."""
    found, border = {slot}, [slot]
    for _ in range(hops):
        numbers = [known.producer[each] for each in border if each in known.producer]
        border = [
            each
            for number in numbers
            if known.program.operations[number].name in through
            for each in known.program.operations[number].inputs
            if each not in found and each not in known.program.constants
        ]
        found.update(border)
    return found


def producers(known: Structure, slots: set[int], name: str) -> list[int]:
    """Find the operations of one name that compute one of these slots."""
    numbers = [known.producer[slot] for slot in sorted(slots) if slot in known.producer]
    return [number for number in numbers if known.program.operations[number].name == name]


def list_normalisation_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List mistakes that take the mean or the variance of a normalisation for constants.

    Others forget to divide by the standard deviation, or leave its ε out.
    """
    operations, name = known.program.operations, "normalisation-path-missing"
    # `np.var` divides by n − ddof where that is not zero.
    through = AROUND | {"div", "mul", "select_n"}
    means, variances, roots = list[Edge](), list[Edge](), dict[int, int]()
    for equation in operations:
        if equation.name == "sub":
            one, other = equation.inputs
            for source in producers(known, ancestors(known, other, through), "reduce_sum"):
                if operations[source].inputs[0] in ancestors(known, one, AROUND):
                    means.append((source, 0))
        elif equation.name in {"div", "mul"} and equation.inputs[1] not in known.program.constants:
            for slot, scaled in zip(equation.inputs, reversed(equation.inputs), strict=True):
                reached = ancestors(known, slot, through | ROOTED)
                found = producers(known, reached, "sqrt") or producers(known, reached, "rsqrt")
                sums = producers(known, reached, "reduce_sum") if found else []
                variances += [(k, 0) for k in sums if (k, 0) not in means]
                centred = producers(known, {scaled}, "sub")
                before = operations[centred[0]].inputs[0] if centred else scaled
                summed = {operations[k].inputs[0] for k in sums}
                squared = [ancestors(known, s, AROUND | ROOTED | {"sub", "mul"}) for s in summed]
                if before in known.producer and any(before in each for each in squared):
                    roots[known.producer[before]] = found[0]
    paths = {"mean": sorted(set(means)), "variance": sorted(set(variances))}
    chosen = [[which] for which, edges in paths.items() if edges]
    if len(chosen) == 2:
        chosen.append(["mean", "variance"])
    for which in chosen:
        edges = [edge for each in which for edge in paths[each]]
        taken = "is taken for a constant" if len(which) == 1 else "are taken for constants"
        said = f"the {' and the '.join(which)} of the normalisation {taken}"
        yield scale_edges(name, said, edges, 0.0, path=" and ".join(which))
    if roots:
        first = min(roots.values())
        divided, without = "divided by the standard deviation", "without the ε that the loss adds"
        every = [edge for edges in paths.values() for edge in edges]
        whole = partial(skip_normalisation, known, roots, every)
        said = "the normalisation is not differentiated: its gradient is passed on unchanged"
        yield OperationMistake(name, said, first, whole, {"path": "all"})
        for named, words, what in (
            ("factor-missing", f"not {divided}", "missing"),
            ("factor-twice", f"{divided} twice", "twice"),
            ("epsilon-ignored", f"{divided} {without}", "epsilon"),
        ):
            changes = partial(rescale, known, roots, what)
            yield OperationMistake(named, f"the gradient is {words}", first, changes)


def skip_normalisation(
    known: Structure, roots: Mapping[int, int], paths: Sequence[Edge], values: Values
) -> Changes:
    """Pass nothing back through the mean and the variance, and do not divide by σ."""
    return rescale(known, roots, "missing", values) | change_edges(paths, after=0.0)(values)


def rescale(known: Structure, roots: Mapping[int, int], what: str, values: Values) -> Changes:
    """Multiply what arrives at a normalised value by σ, by 1/σ, or by σ over σ without ε."""
    operations, changes = known.program.operations, dict[Edge, Change]()
    for source, root in roots.items():
        slot = operations[root].inputs[0]
        with np.errstate(all="ignore"):
            factor = np.sqrt(values[slot])
            if what == "twice":
                factor = 1 / factor
            elif what == "epsilon":
                total = operations[known.producer[slot]] if slot in known.producer else None
                if total is None or total.name != "add":
                    return {}
                kept = [s for s in total.inputs if s not in known.program.constants]
                factor = factor / np.sqrt(values[kept[0]])
        factor = repeat_along_axes(known, operations[root].outputs[0], factor)
        shape = operations[source].shapes[0]
        sizes = zip(factor.shape[1:], shape, strict=False)
        # A scalar needs no axes to be multiplied.
        if factor.ndim - 1 not in (0, len(shape)) or any(one not in (1, n) for one, n in sizes):
            return {}
        for operand in known.active(source):
            changes[source, operand] = Change(operand, before=factor[0])
    return changes


def repeat_along_axes(known: Structure, slot: int, value: Array) -> Array:
    """Reshape and broadcast a value as the loss does with the value of a slot."""
    operations = known.program.operations
    while True:
        users = [operations[user] for user, _ in known.users.get(slot, ())]
        inverted = len(users) == 1 and users[0].name == "div" and users[0].inputs[1] == slot
        if inverted and users[0].inputs[0] in known.program.constants:
            (slot,) = users[0].outputs  # 1/σ is repeated, not σ
            continue
        around = [each for each in users if each.name in AROUND]
        if not around:
            return value
        (value,) = evaluate(around[0], [value])
        (slot,) = around[0].outputs


def list_epsilon_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List mistakes that differentiate as if a small constant in a sum were zero."""
    program = known.program
    small = {
        slot
        for slot, value in program.constants.items()
        if np.issubdtype(value.dtype, np.floating)
        and value.size
        and 0 < np.max(np.abs(value)) <= SMALL
    }
    sums = [
        number
        for number, equation in enumerate(program.operations)
        if equation.name in {"add", "sub", "max"} and small.intersection(equation.inputs)
    ]
    if not sums:
        return
    slots = sorted(small & {slot for number in sums for slot in program.operations[number].inputs})
    value = float(np.max(np.abs(program.constants[slots[0]])))
    said = f"the constant {value:.3g} is ignored: your derivation is right for a loss without it"
    constants = program.constants | {slot: 0 * program.constants[slot] for slot in slots}
    without = program._replace(constants=constants)
    for gradients in (
        partial(differentiate, without),
        partial(differentiate_without, known, sums, set(slots)),
    ):
        yield OperationMistake("epsilon-ignored", said, sums[0], change_nothing, whole=gradients)


def differentiate_without(
    known: Structure,
    sums: Sequence[int],
    small: set[int],
    values: Values,
    made: Sequence[FindChanges] = (),
) -> dict[str, Array]:
    """Differentiate at values in which these sums lack their small constants."""
    changed, mixed = set[int](), [*values]
    for number, equation in enumerate(known.program.operations):
        if number in sums:
            kept = [slot for slot in equation.inputs if slot not in small]
            mixed[equation.outputs[0]] = np.broadcast_to(
                mixed[kept[0]], mixed[equation.outputs[0]].shape
            )
            changed.update(equation.outputs)
        elif equation.name in {*UNARY, *AROUND} and changed.intersection(equation.inputs):
            with np.errstate(all="ignore"):
                (mixed[equation.outputs[0]],) = evaluate(
                    equation, [mixed[slot] for slot in equation.inputs]
                )
            if equation.name != "log":
                changed.update(equation.outputs)
    found = backward(known.program, mixed, [merge_at(mixed, made)])
    return {name: value[0] for name, value in found.items()}
