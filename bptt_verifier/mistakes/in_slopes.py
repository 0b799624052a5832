"""Mistakes in the slope of an activation: applied twice, on one path only, of another value."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.expressions import (
    SAMPLES,
    name_activation,
    name_operand,
    name_result,
    quote_apart,
    quote_expression,
    recognise,
)
from bptt_verifier.mistakes.known_activations import KNOWN, Formula
from bptt_verifier.mistakes.operation_mistakes import (
    Changes,
    OperationMistake,
    Values,
    find_role,
    list_summands,
    repeat_changes,
)
from bptt_verifier.program.activations import (
    Activation,
    is_linear,
    name_operations,
    result_of,
    slope_of,
)
from bptt_verifier.program.backward import Change
from bptt_verifier.program.structure import Structure, find_starts, following, shape_of

NEAR = 1e-5  # distance of two points whose difference tells slopes apart

FindSlope = Callable[[Structure, Activation, Values], Any]


def list_shifted_slopes(
    known: Structure, activations: Sequence[Sequence[Activation]]
) -> Iterator[OperationMistake]:
    """List activations whose slope is that of the step before or after, or of another function."""
    for each in activations:
        what = name_activation(known, each[0])
        for by, which in ((-1, "previous"), (1, "next")) if len(each) > 1 else ():
            said = f"the derivative of {what} is that of the {which} step"
            for others in list_neighbours(known, each, by):
                for at_end in (slope_below_zero, right_slope, *find_end_slopes(known, each, by)):
                    of_step = partial(slope_at_step, others, at_end)
                    changes = partial(replace_slopes, known, each, of_step)
                    yield OperationMistake("hidden-state-off-by-one", said, each[0].end, changes)
        yield from list_partial_arguments(known, each)
        kind = recognise(known, each[0])
        if kind is None:
            yield from list_second_derivatives(known, each)
            name = "activation-derivative-of-another-function"
            powers = {"integer_pow", "square"}.issuperset(name_operations(known, each[0]))
            ways = [("argument", value_at_start), ("result", value_at_end)]
            # Half of the slope of a square is a factor; a sign is the slope of an absolute value.
            for words, at in [*ways[powers:], ("sign of the argument", sign_at_start)]:
                if words == "result" and is_exponential(known, each[0]):
                    continue
                said = f"your gradient multiplies by the {words} of {what}, where its derivative"
                changes = partial(replace_slopes, known, each, at)
                yield OperationMistake(
                    name, f"{said} belongs", each[0].end, changes, {}, (name, words, what)
                )
            continue
        y = name_result(known, each[0])
        right = f"the derivative of {kind} is {KNOWN[kind].text.format(y)}"
        right += ", of its result y" if y == "y" else ""
        of_argument = KNOWN[kind].text.format("a")
        said = f"your gradient uses {of_argument}, of the argument a of {kind}, where {right}"
        name, formula = "activation-derivative-of-preactivation", KNOWN[kind].slope
        changes = partial(replace_slopes, known, each, partial(evaluate_at_variable, formula))
        yield OperationMistake(name, said, each[0].end, changes, {}, (name, kind))
        name = "activation-derivative-incomplete"
        wrong = [(name, words, slope) for words, slope in KNOWN[kind].incomplete]
        name = "activation-derivative-of-another-function"
        wrong += [(name, other.text, other.slope) for k, other in KNOWN.items() if k != kind]
        for name, words, slope in wrong:
            said = f"your gradient uses {words.format(y)} where {right}"
            at_result = partial(evaluate_at_result, slope)
            changes = partial(replace_slopes, known, each, at_result)
            yield OperationMistake(name, said, each[0].end, changes, {}, (name, kind, words))


def list_neighbours(
    known: Structure, each: Sequence[Activation], by: int
) -> list[dict[int, Activation | None]]:
    """List which activation each has beside it, by its last operation; None beyond the ends.

    The steps of several sequences follow one another in a loss, and each sequence has its own ends.
    Where the sequences are not surely known, all steps are taken for one sequence as well.
    """
    starts = {*find_starts(known)} if all(one.end in known.step for one in each) else set[int]()
    found = list[dict[int, Activation | None]]()
    for ends in (starts, set[int]()):
        others = dict[int, Activation | None]()
        for k, one in enumerate(each):
            inside = 0 <= k + by < len(each)
            later = each[max(k, k + by)] if inside else one
            apart = not inside or known.step.get(later.end, -1) in ends
            others[one.end] = None if apart else each[k + by]
        found += [others] if others not in found else []
    return found


def list_partial_arguments(
    known: Structure, each: Sequence[Activation]
) -> Iterator[OperationMistake]:
    """List slopes at one term of an argument, as tanh(ŷ) where the loss is log cosh(ŷ − y)."""
    operations = known.program.operations
    sources = [known.producer.get(one.start) for one in each]
    numbers = [number for number in sources if number is not None]
    names = {operations[number].name for number in numbers}
    if len(numbers) < len(each) or names not in ({"add"}, {"sub"}):
        return
    what, argument = name_activation(known, each[0]), quote_expression(known, numbers[-1])
    for operand in (0, 1):
        slots = [operations[number].inputs[operand] for number in numbers]
        shapes = [operations[number].shapes[0] for number in numbers]
        if [shape_of(known, slot) for slot in slots] != shapes:
            continue
        sign = -1.0 if operand and names == {"sub"} else 1.0
        by_end = {one.end: slot for one, slot in zip(each, slots, strict=True)}
        said = f"the derivative of {what} is taken at {'−' if sign < 0 else ''}"
        said += f"{name_operand(known, numbers[-1], operand)} alone, where its argument {argument}"
        changes = partial(replace_slopes, known, each, partial(slope_at_term, by_end, sign))
        family = "wrong-operand", "term", operand, what
        yield OperationMistake("wrong-operand", f"{said} belongs", each[0].end, changes, {}, family)


def slope_at_term(
    terms: Mapping[int, int], sign: float, known: Structure, activation: Activation, values: Values
) -> Any:
    """Compute the slope of an activation at one term of its argument."""
    return slope_of(known, activation, values, sign * values[terms[activation.end]])[0]


def is_exponential(known: Structure, activation: Activation) -> bool:
    """Tell whether a slope is a multiple of the result, as of exp(a / 2).

    What multiplies by the result has a wrong factor, and no derivative of another function.
    """
    with np.errstate(all="ignore"):
        at, ends = (result_of(known, activation, SAMPLES + shift) for shift in (0.0, NEAR))
        ratio = (ends - at) / at
    return np.shape(ratio) == SAMPLES.shape and np.allclose(ratio, ratio.ravel()[0], 1e-3)


def list_second_derivatives(
    known: Structure, each: Sequence[Activation]
) -> Iterator[OperationMistake]:
    """List the mistake of differentiating twice, where the first derivative is a known activation.

    The derivative of log cosh is tanh, and that of the softplus is the sigmoid.
    """
    with np.errstate(all="ignore"):
        ends = [result_of(known, each[0], SAMPLES + shift) for shift in (-NEAR, NEAR)]
        slope = (ends[1] - ends[0]) / (2 * NEAR)
    for kind, (function, text, formula, _) in KNOWN.items():
        if np.shape(slope) != SAMPLES.shape or not np.allclose(slope, function(SAMPLES)):
            continue

        def differentiate_twice(
            known: Structure, one: Activation, values: Values, formula: Formula = formula
        ) -> Any:
            return formula(slope_of(known, one, values)[0])

        name, what = "activation-derivative-of-another-function", name_activation(known, each[0])
        said = f"your gradient uses {text.format(f'{kind}(a)')}, where {kind}(a) is the derivative"
        said += f" of {what}, a being its argument"
        changes = partial(replace_slopes, known, each, differentiate_twice)
        family = name, "second", what
        yield OperationMistake(name, said, each[0].end, changes, {}, family)


def slope_at_step(
    others: Mapping[int, Activation | None],
    at_end: FindSlope,
    known: Structure,
    activation: Activation,
    values: Values,
) -> Any:
    """Compute the slope of the activation of another step; beyond the ends, `at_end`."""
    other = others[activation.end]
    if other is None:
        return at_end(known, activation, values)
    return slope_of(known, other, values)[0]


def right_slope(known: Structure, activation: Activation, values: Values) -> Any:
    """Compute the slope that belongs there, as where a loop guards the first or the last step."""
    return slope_of(known, activation, values)[0]


def slope_below_zero(known: Structure, activation: Activation, values: Values) -> Any:
    """Compute the slope at zero; at a kink that below it, since derivations mask by `h > 0`."""
    below = np.full_like(values[activation.start], -np.finfo(np.float32).tiny)
    return slope_of(known, activation, values, below)[0]


def find_end_slopes(known: Structure, each: Sequence[Activation], by: int) -> list[FindSlope]:
    """Find the slopes before the first step, at an initial state, or after the last one."""
    operations = known.program.operations
    if by > 0:
        after = following(known, each[-1].start, each[-2].start)
        return [] if after is None else [partial(slope_at_slot, after)]
    first, kind = known.step.get(each[0].end), recognise(known, each[0])
    (state,) = operations[each[0].end].outputs
    for number, operand in known.users.get(state, ()) if kind is not None else ():
        if first is None or known.step.get(number) != first + 1:
            continue
        group = known.groups[known.group_of[number]]
        slots = [operations[k].inputs[operand] for k in group if known.step.get(k) == first]
        if slots and kind is not None and shape_of(known, slots[0]) == shape_of(known, state):
            return [partial(evaluate_at_slot, KNOWN[kind].slope, slots[0])]
    return []


def value_at_start(known: Structure, activation: Activation, values: Values) -> Any:
    """Read the variable of an activation."""
    return values[activation.start][0]


def sign_at_start(known: Structure, activation: Activation, values: Values) -> Any:
    """Compute the sign of the variable of an activation."""
    return np.sign(values[activation.start][0])


def value_at_end(known: Structure, activation: Activation, values: Values) -> Any:
    """Read the result of an activation."""
    return values[known.program.operations[activation.end].outputs[0]][0]


def slope_at_result(known: Structure, activation: Activation, values: Values) -> Any:
    """Compute the slope of an activation at its result."""
    (result,) = known.program.operations[activation.end].outputs
    return slope_of(known, activation, values, values[result])[0]


def slope_at_slot(slot: int, known: Structure, activation: Activation, values: Values) -> Any:
    """Compute the slope of an activation at the value of a slot."""
    return slope_of(known, activation, values, values[slot])[0]


def evaluate_at_slot(
    formula: Formula, slot: int, known: Structure, activation: Activation, values: Values
) -> Any:
    """Evaluate a formula at the value of a slot."""
    return formula(values[slot][0])


def evaluate_at_variable(
    formula: Formula, known: Structure, activation: Activation, values: Values
) -> Any:
    """Evaluate a formula meant for an activation's result at its variable."""
    return formula(values[activation.start][0])


def evaluate_at_result(
    formula: Formula, known: Structure, activation: Activation, values: Values
) -> Any:
    """Evaluate the formula of another activation at the result."""
    (output,) = known.program.operations[activation.end].outputs
    return formula(values[output][0])


def list_path_slopes(
    known: Structure, activations: Sequence[Sequence[Activation]]
) -> Iterator[OperationMistake]:
    """List mistakes in the slope on one path through an activation: to a state, or to a weight."""
    operations = known.program.operations
    for each in activations:
        by_term: dict[int, list[Summand]] = {}
        for one in each:
            readers = {(k, i) for k in one.numbers for i in range(len(operations[k].inputs))}
            for number, sign in list_summands(known, one.start, readers):
                by_term.setdefault(known.group_of[number], []).append(Summand(number, sign, one))
        for terms in by_term.values():
            numbers = [term.number for term in terms]
            if operations[numbers[0]].name in {"add", "sub"}:
                continue
            for operand in known.active(*numbers):
                to = f"in the gradient passed on to {name_operand(known, numbers[-1], operand)}"
                what = f"the derivative of {name_activation(known, terms[-1].activation)}"
                role = find_role(known, numbers, operand)
                for name, how, way in (
                    ("activation-derivative-missing", "is missing", "none"),
                    ("activation-derivative-twice", "is applied twice", "twice"),
                    (
                        "activation-derivative-after-matrix-product",
                        "is multiplied in after the product, not before it,",
                        "after",
                    ),
                ):
                    said = f"{what} {how} {to}"
                    changes = partial(change_path, known, terms, operand, way)
                    yield OperationMistake(name, said, numbers[0], changes, {}, (name, role))


def list_carried_slopes(
    known: Structure, activations: Sequence[Sequence[Activation]]
) -> Iterator[OperationMistake]:
    """List activations whose slope what comes back from the next step does not get."""
    operations = known.program.operations
    for each in activations:
        starts = {operations[one.end].outputs[0]: one.start for one in each}
        edges = [e for e in known.carried if operations[e[0]].inputs[e[1]] in starts]
        if not edges:
            continue
        name, role = "activation-derivative-missing", name_operations(known, each[0])
        said = f"the derivative of {name_activation(known, each[0])} is missing in the gradient"
        said += " that comes back from the next step"
        changes = {
            (number, k): Change(k, after=0.0, also=(starts[operations[number].inputs[k]],))
            for number, k in edges
        }
        yield OperationMistake(
            name, said, each[0].end, partial(repeat_changes, changes), {}, (name, "carried", role)
        )


class Summand(NamedTuple):
    """An operation whose result is added, with a sign, to the variable of an activation.

    The sign is 0 where something else reads the sum, too.
    """

    number: int
    sign: float
    activation: Activation


def change_path(
    known: Structure, terms: Sequence[Summand], operand: int, way: str, values: Values
) -> Changes:
    """Leave the slope out of what one operand of each term gets, square it, or apply it last.

    Where it is left out, the operand gets what arrives at the activation's result.
    """
    changes: Changes = {}
    for number, sign, activation in terms:
        with np.errstate(all="ignore"):
            slope = slope_of(known, activation, values)[0]
        equation = known.program.operations[number]
        if slope.shape != equation.shapes[0] or equation.inputs[operand] in known.program.constants:
            continue
        if way == "after" and values[equation.inputs[operand]].shape[1:] != slope.shape:
            return {}
        (result,) = known.program.operations[activation.end].outputs
        change = Change(operand, before=slope)
        if way != "twice":
            with np.errstate(all="ignore"):
                change = Change(operand, before=1 / slope)
            change = Change(operand, before=sign, arriving_at=result) if sign else change
            change = change._replace(after=slope if way == "after" else None)
        changes[number, operand] = change
    return changes


def list_slope_mistakes(
    known: Structure, activations: Sequence[Sequence[Activation]]
) -> Iterator[OperationMistake]:
    """List activations whose derivative is applied twice, or is that of another activation."""
    for each in activations:
        changes = partial(replace_slopes, known, each, square_slope)
        family = "activation-derivative-twice", name_operations(known, each[0])
        said = f"the derivative of {name_activation(known, each[0])} is applied twice"
        yield OperationMistake(family[0], said, each[0].end, changes, {}, family)
    for each in activations:
        for others in activations:
            ends = [(a.end, b.end) for a, b in zip(each, others, strict=False)]
            steps = [(known.step.get(a), known.step.get(b)) for a, b in ends]
            shapes = [[known.program.operations[end].shapes[0] for end in pair] for pair in ends]
            apart = len(others) != len(each) or any(a != b for a, b in [*steps, *shapes])
            if others is each or apart or each[0].end == others[0].end:
                continue  # of one result, the longer activation only has more of what leads to it
            if is_multiple(known, others[0], each[0]):
                continue  # the slope of 1 − z is that of z with the wrong sign
            own, other = quote_apart(known, each[0].end, others[0].end)
            said = f"your gradient uses the derivative of {other}, where that of {own} belongs"
            by_end = {one.end: other for one, other in zip(each, others, strict=True)}
            changes = partial(replace_slopes, known, each, partial(slope_of_other, by_end))
            yield OperationMistake("wrong-operand", said, each[0].end, changes)
            yield from list_mixed_slopes(known, each, others)


def is_multiple(known: Structure, activation: Activation, inner: Activation) -> bool:
    """Tell whether an activation is a linear function of another one's result, such as 1 − z."""
    after = tuple(number for number in activation.numbers if number not in inner.numbers)
    (result,) = known.program.operations[inner.end].outputs
    longer = activation.start == inner.start and {*inner.numbers} < {*activation.numbers}
    return longer and is_linear(known, Activation(after, result))


def list_mixed_slopes(
    known: Structure, each: Sequence[Activation], others: Sequence[Activation]
) -> Iterator[OperationMistake]:
    """List formulas of an activation's slope that have another one's result in one place or all."""
    kind, other_kind = (recognise(known, a[0]) for a in (each, others))
    if kind is None:
        return
    y, z = (name_result(known, a[0]) for a in (each, others))
    unnamed = [(name, a[0]) for name, a in ((y, each), (z, others)) if name == "y"]
    z = "z" if y == z else z
    if len(unnamed) == 2:
        unnamed[1] = z, unnamed[1][1]
    formulas: list[tuple[str, Callable[[Any, Any], Any]]] = []
    if kind == "sigmoid":
        formulas += [
            (f"{y} (1 − {z})", lambda y, z: y * (1 - z)),
            (f"{z} (1 − {y})", lambda y, z: z * (1 - y)),
        ]
    if kind != other_kind:
        slope = KNOWN[kind].slope
        formulas.append((KNOWN[kind].text.format(z), lambda y, z: slope(z)))
    by_end = {one.end: other for one, other in zip(each, others, strict=True)}
    right = KNOWN[kind].text.format(y)
    right += "".join(f", {name} being {quote_expression(known, a.end)}" for name, a in unnamed)
    for words, formula in formulas:
        said = f"your gradient uses {words} where the derivative of {kind} is {right}"
        changes = partial(replace_slopes, known, each, partial(mix_results, by_end, formula))
        yield OperationMistake("wrong-operand", said, each[0].end, changes)


def mix_results(
    others: Mapping[int, Activation],
    formula: Callable[[Any, Any], Any],
    known: Structure,
    activation: Activation,
    values: Values,
) -> Any:
    """Evaluate a formula of the results of an activation and of another one."""
    ends = activation.end, others[activation.end].end
    results = (known.program.operations[end].outputs[0] for end in ends)
    return formula(*(values[slot][0] for slot in results))


def square_slope(known: Structure, activation: Activation, values: Values) -> Any:
    """Compute the square of an activation's slope."""
    return slope_of(known, activation, values)[0] ** 2


def slope_of_other(
    others: Mapping[int, Activation], known: Structure, activation: Activation, values: Values
) -> Any:
    """Compute the slope of the activation that takes the place of this one."""
    return slope_of(known, others[activation.end], values)[0]


def list_passing(known: Structure, number: int) -> list[int]:
    """List the operands that an operation at the end of an activation passes cotangents back to."""
    condition = known.program.operations[number].name == "select_n"
    return [operand for operand in known.active(number) if operand or not condition]


def replace_slopes(
    known: Structure,
    activations: Sequence[Activation],
    find_slope: FindSlope,
    values: Values,
) -> Changes:
    """Replace the slope of each activation, between its result and its variable."""
    changes: Changes = {}
    with np.errstate(all="ignore"):
        slopes = [find_slope(known, activation, values) for activation in activations]
    for activation, slope in zip(activations, slopes, strict=True):
        if np.shape(slope) not in ((), known.program.operations[activation.end].shapes[0]):
            return {}  # of a sequence of another length
        first, *others = list_passing(known, activation.end)
        sent = ((activation.start, slope),)
        changes[activation.end, first] = Change(first, after=0.0, send=sent)
        for operand in others:
            changes[activation.end, operand] = Change(operand, after=0.0)
    return changes
