"""Mistakes in the derivative of one operation of a loss.

A mistake changes the same operation at every time step, or at some steps only. `list_tiers` puts
them in order: whoever makes one, makes it in one place, in several, or in a less common way.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from bptt_verifier.mistakes.expressions import (
    is_inside_expression,
    name_activation,
    name_operand,
    quote_expression,
    recognise,
)
from bptt_verifier.mistakes.families import list_families
from bptt_verifier.mistakes.in_arriving_slopes import list_arriving_slopes
from bptt_verifier.mistakes.in_buffers import (
    list_overwritten_gradients,
    list_overwritten_states,
    list_overwritten_steps,
)
from bptt_verifier.mistakes.in_carried_adjoints import list_carried_adjoints
from bptt_verifier.mistakes.in_clipping import list_clipped_adjoints
from bptt_verifier.mistakes.in_conjugates import (
    list_conjugate_mistakes,
    list_single_conjugate_mistakes,
)
from bptt_verifier.mistakes.in_counts import list_count_mistakes
from bptt_verifier.mistakes.in_directions import list_reversal_mistakes
from bptt_verifier.mistakes.in_ends import list_end_mistakes
from bptt_verifier.mistakes.in_factors import (
    list_extra_factors,
    list_factor_mistakes,
    list_factor_sides,
    list_factors_of_steps,
    list_other_operands,
    list_own_results,
    list_path_factors,
    list_twice_carried,
)
from bptt_verifier.mistakes.in_fourier import list_frequency_mistakes
from bptt_verifier.mistakes.in_labels import list_label_mistakes
from bptt_verifier.mistakes.in_leaks import list_leak_mistakes
from bptt_verifier.mistakes.in_linear_maps import list_exchanged_maps
from bptt_verifier.mistakes.in_lookups import list_lookup_mistakes
from bptt_verifier.mistakes.in_maxima import list_maximum_mistakes
from bptt_verifier.mistakes.in_negated_slopes import list_negated_arguments
from bptt_verifier.mistakes.in_normalisations import list_wrong_normalisations
from bptt_verifier.mistakes.in_order import list_added_gradients, list_sweeps_in_order
from bptt_verifier.mistakes.in_other_arrays import list_other_arrays
from bptt_verifier.mistakes.in_parts import list_exchanges, list_partial_products
from bptt_verifier.mistakes.in_patterns import (
    list_epsilon_mistakes,
    list_normalisation_mistakes,
)
from bptt_verifier.mistakes.in_posteriors import list_posterior_mistakes
from bptt_verifier.mistakes.in_products import list_product_mistakes, replace_other_operand
from bptt_verifier.mistakes.in_sequences import list_reset_mistakes
from bptt_verifier.mistakes.in_slopes import (
    list_carried_slopes,
    list_path_slopes,
    list_shifted_slopes,
    list_slope_mistakes,
    replace_slopes,
    slope_at_result,
)
from bptt_verifier.mistakes.in_state_slopes import list_carried_state_slopes, list_state_slopes
from bptt_verifier.mistakes.in_sums import (
    keeps_one_lookup,
    list_step_mistakes,
    list_use_mistakes,
)
from bptt_verifier.mistakes.in_targets import list_softmax_targets, list_target_mistakes
from bptt_verifier.mistakes.in_time import (
    list_adjoint_mistakes,
    list_arrival_mistakes,
    list_head_mistakes,
    list_output_mistakes,
    list_recurrence_mistakes,
    make_local,
)
from bptt_verifier.mistakes.in_use_slopes import list_slopes_in_part, list_use_slopes
from bptt_verifier.mistakes.in_windows import list_unfinished_sweeps, list_windows
from bptt_verifier.mistakes.operation_mistakes import (
    SUMS,
    Changes,
    Edge,
    OperationMistake,
    Values,
    change_edges,
    find_role,
    read_slots,
    scale_edges,
)
from bptt_verifier.mistakes.softmaxes import list_softmax_mistakes
from bptt_verifier.program.activations import (
    Activation,
    find_activations,
    find_activations_at,
    is_linear,
    name_operations,
)
from bptt_verifier.program.backward import Change
from bptt_verifier.program.operations import BINARY
from bptt_verifier.program.structure import Structure, find_starts, is_partial_sum, shape_of


def list_tiers(known: Structure) -> Iterator[list[OperationMistake]]:
    """List every mistake, in tiers: in one place, in several places, and the less common ones."""
    single = [*list_mistakes(known)]
    yield single
    yield [*list_families(known, single)]
    rare = [*list_rare_mistakes(known)]
    yield rare
    yield [*list_families(known, rare)]


def list_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List the common mistakes in one operation, the more specific names first."""
    yield from list_recurrence_mistakes(known)
    yield from list_conjugate_mistakes(known)
    yield from list_single_conjugate_mistakes(known)
    yield from list_softmax_mistakes(known)
    yield from list_softmax_targets(known)
    yield from list_normalisation_mistakes(known)
    for group in known.groups:
        yield from list_activation_mistakes(known, group)
        if known.program.operations[group[0]].name in {"dot_general", "mul"}:
            for operand in known.active(*group):
                yield from list_product_mistakes(known, group, operand)
    yield from list_output_mistakes(known)
    yield from list_step_mistakes(known)
    yield from list_lookup_mistakes(known)
    for group in known.groups:
        if known.program.operations[group[0]].name in {"mul", "div", "dot_general"}:
            for operand in known.active(*group):
                yield from list_factor_mistakes(known, group, operand)
    # Where cutting a path has the same effect in several places, the one nearest to the loss.
    for group in reversed(known.groups):
        yield from list_broadcast_mistakes(known, group)
        yield from list_path_mistakes(known, group)


def list_rare_mistakes(known: Structure) -> Iterator[OperationMistake]:
    """List the less common mistakes in one operation, and those in all of the loss."""
    yield from list_epsilon_mistakes(known)
    yield from list_wrong_normalisations(known)
    yield from list_maximum_mistakes(known)
    yield from list_count_mistakes(known)
    yield from list_label_mistakes(known)
    yield from list_posterior_mistakes(known)
    yield from list_end_mistakes(known)
    yield from list_head_mistakes(known)
    yield from list_windows(known)
    yield from list_unfinished_sweeps(known)
    yield from list_sweeps_in_order(known)
    yield from list_reversal_mistakes(known)
    yield from list_added_gradients(known)
    yield from list_overwritten_states(known)
    yield from list_overwritten_steps(known)
    yield from list_reset_mistakes(known)
    longest = find_longest(known)
    activations = [*longest, *find_parts(known, longest)]
    yield from list_path_slopes(known, activations)
    yield from list_carried_slopes(known, activations)
    yield from list_state_slopes(known, activations)
    yield from list_carried_state_slopes(known, activations)
    yield from list_shifted_slopes(known, activations)
    yield from list_negated_arguments(known, activations)
    yield from list_use_slopes(known, activations)
    yield from list_slopes_in_part(known, activations)
    yield from list_arriving_slopes(known, activations)
    yield from list_carried_adjoints(known, activations)
    yield from list_slope_mistakes(known, activations)
    yield from list_clipped_adjoints(known, activations)
    yield from list_exchanges(known, known.groups)
    yield from list_target_mistakes(known)
    for group in known.groups:
        yield from list_partial_products(known, group)
    yield from list_path_factors(known)
    yield from list_extra_factors(known)
    yield from list_twice_carried(known)
    yield from list_factor_sides(known)
    yield from list_factors_of_steps(known)
    yield from list_exchanged_maps(known)
    yield from list_other_arrays(known)
    yield from list_frequency_mistakes(known)
    yield from list_leak_mistakes(known)
    yield from list_use_mistakes(known)
    results = {
        one.start: known.program.operations[one.end].outputs[0]
        for each in activations
        for one in each
    }
    find_local = make_local(known)
    yield from list_arrival_mistakes(known, find_local)
    yield from list_adjoint_mistakes(known, find_local)
    for group in known.groups:
        if known.program.operations[group[0]].name in {"dot_general", "mul"}:
            for operand in known.active(*group):
                family = find_role(known, group, operand)
                own = name_operand(known, group[-1], operand)
                for slots, which, words in (
                    *list_other_operands(known, group, operand),
                    *list_own_results(known, group, operand, results),
                ):
                    said = f"the gradient of {own} is computed with {words}"
                    changes = partial(
                        replace_other_operand, known, group, operand, read_slots(slots)
                    )
                    role = operand if which == "result" else family  # inputs are constants
                    yield OperationMistake(
                        "wrong-operand", said, group[0], changes, {}, (role, which)
                    )
    # A cut path with the same gradients has a name that says more of the loss.
    yield from list_overwritten_gradients(known)


def find_longest(known: Structure) -> list[list[Activation]]:
    """Find the activations of the loss, each as long as it goes, at every step.

    One whose value is used several times ends there, even where a longer one contains it.
    """
    longest = [found[-1] for group in known.groups if (found := find_activations(known, group))]
    longest = [each for each in longest if not is_linear(known, each[0])]
    inside = {number for each in longest for one in each for number in one.numbers[:-1]}

    def used_once(number: int) -> bool:
        return len(known.users.get(known.program.operations[number].outputs[0], ())) == 1

    return [each for each in longest if each[0].end not in inside or not used_once(each[0].end)]


def find_parts(known: Structure, longest: Sequence[Sequence[Activation]]) -> list[Any]:
    """Find the parts of activations that are unknown: known ones, as in α tanh(a), and the last.

    The last is the logarithm in log(cosh(a)), whose slope may be applied twice.
    """
    found = list[Any]()
    for each in longest:
        if recognise(known, each[0]) is None:
            first, *_ = find_activations(known, known.groups[known.group_of[each[0].end]])
            found += [first] if first != each and not is_linear(known, first[0]) else []
            inner = (find_activations(known, known.groups[known.group_of[number]])
                     for number in each[0].numbers[:-1])  # fmt: skip
            found += [one for every in inner for one in every if recognise(known, one[0])]
    return found


def list_activation_mistakes(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List mistakes that omit an activation's derivative, or take it at the activated value."""
    yield from list_selection_mistakes(known, group)
    yield from list_square_mistakes(known, group)
    for each in find_activations(known, group):
        if is_linear(known, each[0]) or (
            recognise(known, each[0]) is None and is_inside_expression(known, each[0])
        ):
            continue
        names, what = name_operations(known, each[0]), name_activation(known, each[0])
        activated = f"the derivative of {what} is taken at its result, where its argument belongs"
        missing = say_missing(what)
        if is_negated(known, each[0]):
            missing = f"the derivative of {what} is missing, and the sign is wrong"
        for name, said, find_slope in (
            ("activation-derivative-missing", missing, no_slope),
            ("activation-derivative-of-activated-value", activated, slope_at_result),
        ):
            changes = partial(replace_slopes, known, each, find_slope)
            yield OperationMistake(name, said, each[0].end, changes, {}, (name, names))


def is_negated(known: Structure, activation: Activation) -> bool:
    """Tell whether an activation is that of −a in a known one of a, such as 1 / (1 + exp(−a)).

    What it passes back unchanged has the wrong sign for the known one.
    """
    source = known.producer.get(activation.start, -1)
    longer = find_activations_at(known, activation.end)
    negated = source >= 0 and known.program.operations[source].name == "neg"
    return negated and any(recognise(known, each) for each in longer if source in each.numbers)


def list_square_mistakes(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List the mistake of differentiating x² as 2, not as 2 x."""
    equation = known.program.operations[group[-1]]
    if equation.name == "integer_pow" and equation.params["y"] == 2:
        name, square = "activation-derivative-incomplete", quote_expression(known, group[-1])
        x = name_operand(known, group[-1], 0)
        said = f"your gradient uses 2 where the derivative of {square} is 2 times {x}"
        changes = change_edges([(number, 0) for number in group], slope=2.0)
        yield OperationMistake(name, said, group[0], changes, {}, (name, "square"))


def say_missing(what: str) -> str:
    """Say that the derivative of an activation is missing."""
    return f"the derivative of {what} is missing: the gradient is passed on unchanged"


def list_selection_mistakes(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List mistakes that omit the derivative of an activation such as `where(a > 0, a, 0)`."""
    operations, name = known.program.operations, "activation-derivative-missing"
    if operations[group[-1]].name != "select_n":
        return
    condition, *cases = operations[group[-1]].inputs
    source = known.producer.get(condition)
    compared = () if source is None else operations[source].inputs
    for operand in [k for k in known.active(*group) if k and cases[k - 1] in compared]:
        edges = [(number, k) for number in group for k in known.active(number) if k]
        changes = partial(pass_to_one, edges, operand)
        said = say_missing(quote_expression(known, group[0]))
        yield OperationMistake(name, said, group[0], changes, {}, (name, "select_n"))


def pass_to_one(edges: Sequence[Edge], operand: int, values: Values) -> Changes:
    """Pass what arrives back to one operand as it is, and nothing to the others."""
    return {edge: Change(edge[1], slope=float(edge[1] == operand)) for edge in edges}


def no_slope(known: Structure, activation: Activation, values: Values) -> Any:
    """Return one."""
    return 1.0


def list_broadcast_mistakes(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List mistakes that sum one entry only over the axis along which a parameter is broadcast."""
    operations = known.program.operations
    shape = operations[group[0]].shapes[0]
    if len({operations[number].shapes[0] for number in group}) > 1:
        return
    for operand in known.active(*group):
        if operations[group[0]].inputs[operand] not in known.leaf:
            continue
        whose = name_operand(known, group[-1], operand)
        for axis in find_summed_axes(known, group[0], operand):
            summed = (
                f"the gradient of {whose} is a sum over {shape[axis]} entries along axis {axis}"
            )
            for part, index in (("first", 0), ("last", -1)):
                mask = np.zeros(shape)
                mask[(slice(None),) * axis + (index,)] = 1
                said = f"{summed} of this expression, and yours has only the {part} of them"
                changes = change_edges([(number, operand) for number in group], before=mask)
                added = operations[group[0]].name in SUMS  # as a bias is
                name = "bias-part-missing" if added else "sum-part-missing"
                yield OperationMistake(name, said, group[0], changes)


def find_summed_axes(known: Structure, number: int, operand: int) -> list[int]:
    """Find the axes of a result that are summed over in the gradient of an operand."""
    equation = known.program.operations[number]
    shape = equation.shapes[0]
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    if equation.moved is not None:
        moved = equation.moved.reshape(shape)
        return [axis for axis in axes if not np.ptp(moved, axis=axis).any()]
    if equation.name == "dot_general":
        contract, batch = equation.params["dimension_numbers"]
        shapes = [shape_of(known, slot) or () for slot in equation.inputs]
        free = [
            len(each) - len(c) - len(b) for each, c, b in zip(shapes, contract, batch, strict=True)
        ]
        first = len(batch[0]) + (0 if operand == 1 else free[0])
        return [axis for axis in axes if first <= axis < first + free[1 - operand]]
    own = shape_of(known, equation.inputs[operand])
    if equation.name in BINARY and own is not None:
        return [axis for axis in axes if len(own) != len(shape) or own[axis] == 1]
    return []


def list_path_mistakes(known: Structure, group: Sequence[int]) -> Iterator[OperationMistake]:
    """List mistakes that cut or scale what is passed back to one operand, or to all."""
    active = known.active(*group)
    zero, scaled, flipped = "zero-gradient", "constant-factor", "sign-flipped"
    twice = "path-counted-twice"
    # Uses at all steps have the name of a step; others are only the first and the last of several.
    of_steps = len(group) == known.steps and group[0] in known.step
    for operand in active:
        edges = [(number, operand) for number in group]
        target = name_operand(known, group[-1], operand)
        path, none = f"the gradient passed on to {target}", f"no gradient is passed on to {target}"
        role = find_role(known, group, operand)
        for name, said, by in (
            (zero, none, 0.0),
            (twice, f"{path} is counted twice, or has a factor 2", 2.0),
            (flipped, f"{path} has the wrong sign", -1.0),
        ):
            details = {"or": [scaled]} if name == twice else {}
            made = scale_edges(name, said, edges, by)
            yield made._replace(family=(name, role), details=details)
        yield scale_edges(scaled, f"{path} is halved", edges, 0.5, factor=0.5)
        uses = [("first", "", edges[:1], edges[1:]), ("last", "", edges[-1:], edges[:-1])]
        uses += list_uses_by_sequence(known, edges) if of_steps else []
        # What is cut off from a running sum is the loss of other steps: list_loss_mistakes.
        summed = is_partial_sum(known, group[-1], operand)
        for word, use, some, rest in uses if len(group) > 1 and not summed else ():
            name = f"{word}-step-skipped" if of_steps else zero
            when = f"at the {word} step" if of_steps else f"the {word} time that this is computed"
            if of_steps and not known.carried:  # the loop may be over heads
                when = f"in the {word} iteration"
            for key, what, cut, named in (
                ("left out", f"{none} {when}{use}", some, name),
                ("alone", f"{none} except {when}{use}", rest, zero),
            ):
                if known.carried or not keeps_one_lookup(known, edges, cut):
                    made = scale_edges(named, what, cut, 0.0)
                    yield made._replace(family=(word, use, key, role))
    if len(group) == 1 and known.steps > 1:
        yield from list_axis_mistakes(known, group[0])
    if len(active) > 2 and len(group) == 1:
        number = group[0]
        for kept in (active[0], active[-1]):
            edges = [(number, operand) for operand in active if operand != kept]
            only = name_operand(known, number, kept)
            yield scale_edges(zero, f"a gradient is passed on to {only} alone", edges, 0.0)
            said = f"no gradient is passed on to {only}"
            yield scale_edges(zero, said, [(number, kept)], 0.0)
    if len(active) > 1:
        edges = [(number, operand) for number in group for operand in active]
        every = "the gradient passed back through this expression"
        yield scale_edges(flipped, f"{every} has the wrong sign", edges, -1.0)
        yield scale_edges(scaled, f"{every} is twice too large", edges, 2.0, factor=2.0)
        yield scale_edges(scaled, f"{every} is halved", edges, 0.5, factor=0.5)


def list_uses_by_sequence(
    known: Structure, edges: Sequence[Edge]
) -> list[tuple[str, str, list[Edge], list[Edge]]]:
    """List the first or last uses in each of several sequences, and the other ones."""
    starts = find_starts(known)
    if len(starts) < 2:
        return []
    ends = [*(start - 1 for start in starts[1:]), known.steps - 1]
    found = []
    for word, steps in (("first", starts), ("last", ends)):
        one = [edge for edge in edges if known.step[edge[0]] in steps]
        rest = [edge for edge in edges if known.step[edge[0]] not in steps]
        found.append((word, " of every sequence", one, rest))
    return found


def list_axis_mistakes(known: Structure, number: int) -> Iterator[OperationMistake]:
    """List mistakes that pass a cotangent back to one step of an operand that has all steps."""
    for operand in known.active(number):
        shape = shape_of(known, known.program.operations[number].inputs[operand]) or ()
        for axis, size in enumerate(shape):
            for word, index in (("first", 0), ("last", -1)) if size == known.steps else ():
                mask = np.zeros(shape)
                mask[(slice(None),) * axis + (index,)] = 1
                none = f"no gradient is passed on to {name_operand(known, number, operand)}"
                said = f"{none} except at the {word} of {size} entries along axis {axis}"
                yield OperationMistake(
                    "zero-gradient", said, number, change_edges([(number, operand)], after=mask)
                )
