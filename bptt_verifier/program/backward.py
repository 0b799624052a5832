"""The backward pass of a traced loss, with rounding errors, or with mistakes.

One sweep computes many samples of rounding errors (docs/derivation.md, section 10), or many
mistaken gradients. jax.grad, the reference for submissions, checks these gradients, too.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.operations import (
    WITHOUT_COPIES,
    Operation,
    measure_products,
    pass_back,
    sum_to_shape,
)
from bptt_verifier.program.repeated_factors import (
    LARGE,
    Product,
    find_repeated_factors,
    list_repeated,
    sum_products,
)
from bptt_verifier.program.rounding import (
    EXACTLY,
    Pending,
    RoundingErrors,
    align,
    exclude_infinities,
    is_inexact,
)
from bptt_verifier.program.saturation import Saturating, find_saturating, measure_underflow
from bptt_verifier.program.shifts import find_shifts, stop_at_shift
from bptt_verifier.program.trace import Program


class Change(NamedTuple):
    """An alteration of one operation's derivative with respect to one operand.

    The cotangent, or in its place `arriving`, or that of the slot `arriving_at` in the same sweep,
    is multiplied by `before`, passed back with the operands of `instead` replacing the true ones,
    and multiplied by `after`; or it is multiplied by `slope` alone. The unaltered cotangent is also
    added to the slots of `also`, and what arrives, multiplied by a factor, to those of `send`.
    `through` passes the cotangents of all results, or that of `arriving_at`, back in another way.
    """

    operand: int
    before: Any = None
    after: Any = None
    instead: tuple[tuple[int, Array], ...] = ()
    slope: Any = None
    also: tuple[int, ...] = ()
    arriving: Any = None
    arriving_at: int | None = None
    send: tuple[tuple[int, Any], ...] = ()
    through: Callable[[Sequence[Any]], Any] | None = None


Changes = Mapping[tuple[int, int], Change]  # by (equation, operand)


def is_scale(change: Change) -> bool:
    """Tell whether a change multiplies what is passed back by a number, and does nothing else."""
    fields = change.before, change.slope, change.arriving, change.arriving_at, change.through
    empty = all(field is None for field in fields)
    empty = empty and not (change.instead or change.also or change.send)
    return empty and isinstance(change.after, float)


def backward(
    program: Program,
    values: Sequence[Any],
    rows: Sequence[Changes] = ({},),
    errors: RoundingErrors = EXACTLY,
    saturating: Mapping[int, Saturating] | None = None,
) -> dict[str, Array]:
    """The gradients of every leaf: one for each row of changes, or for each sample of errors."""
    kept = frozenset(program.leaves.values())
    cotangents = sweep_back(program, values, rows, errors, saturating=saturating, kept=kept)
    return {name: np.asarray(cotangents[slot]) for name, slot in program.leaves.items()}


def sweep_back(
    program: Program,
    values: Sequence[Any],
    rows: Sequence[Changes] = ({},),
    errors: RoundingErrors = EXACTLY,
    seeds: Mapping[int, Array] | None = None,
    saturating: Mapping[int, Saturating] | None = None,
    kept: frozenset[int] | None = None,
    cut: frozenset[tuple[int, int]] = frozenset(),
) -> list[Any]:
    """The cotangents of every slot, with a leading axis for the rows; None where there is none.

    The sweep begins with one at the loss, or with these `seeds` by slot instead. `saturating` are
    the activations whose slopes get errors of their own, where they are known. Where `kept` is
    given, the other cotangents are dropped once they have been passed back. The edges of `cut`, by
    equation and operand, pass nothing back in any row, not even zeros.
    """
    samples = len(rows) if errors.sizes is None else len(errors.sizes)
    altered: dict[int, dict[int, list[tuple[int, Change]]]] = {}
    for row, changes in enumerate(rows):
        for (number, operand), change in changes.items():
            altered.setdefault(number, {}).setdefault(operand, []).append((row, change))
    cotangents: list[Any] = [None] * program.slots
    for slot, seed in ({program.result: np.ones(samples)} if seeds is None else seeds).items():
        cotangents[slot] = seed
    if saturating is None:
        saturating = find_saturating(program) if errors.sizes is not None else {}
    shifts = find_shifts(program) if errors.sizes is not None else frozenset()
    # With errors, each product and each partial sum has one of its own.
    repeated = find_repeated_factors(program) if errors.sizes is None else frozenset()
    repeated = frozenset(slot for slot in repeated if values[slot].size >= LARGE)
    products = dict[int, list[Product]]()  # that are not summed yet, by the slot of their factor
    apart = dict[int, dict[int, list[Product]]]()  # those of one row, by its number
    terms = dict[int, list[tuple[int, Array]]]()  # of the same sums, in one row each
    if kept is not None:  # some changes read what arrives at another slot
        changes_made = chain.from_iterable(each.values() for each in rows)
        kept = kept.union(c.arriving_at for c in changes_made if c.arriving_at is not None)
    sums = set[int]()  # slots whose cotangent is a sum that nothing else refers to
    # Errors that nothing has read yet: what is only moved and added may get them all at once.
    pending = dict[int, Pending]()

    def is_varied(slot: int) -> bool:
        return slot not in program.constants and is_inexact(values[slot].dtype)

    def note(slot: int, magnitude: Array, number: int = 1) -> None:
        pending[slot] = Pending(exclude_infinities(magnitude), number).join(pending.get(slot))

    def draw_errors(slot: int) -> None:
        if slot in pending:
            errors_together, ct = pending.pop(slot), cotangents[slot]
            ct = np.zeros((samples, *values[slot].shape[1:])) if ct is None else ct
            several = errors_together.number > 1
            cotangents[slot] = errors.add(ct, errors_together.magnitude, several=several)

    def add(slot: int, ct: Array, error: Pending | None = None) -> None:
        if not is_varied(slot):
            return
        total = cotangents[slot]
        if total is not None:
            if slot in sums and (total.shape, total.dtype) == (ct.shape, ct.dtype):
                total += ct  # a fresh array for each of many uses takes most of a sweep's time
                ct = total
            else:
                ct = total + ct
                sums.add(slot)
            if errors.sizes is not None:
                note(slot, errors.measure(ct))
        if error is not None:
            note(slot, error.magnitude, error.number)
        cotangents[slot] = ct

    def settle(slot: int | None) -> None:
        if slot in products:
            total = sum_products(products.pop(slot))
            total = np.asarray(total, complex) if np.iscomplexobj(values[slot]) else total.real
            of_rows = [(k, sum_products(each)[0]) for k, each in apart.pop(slot, {}).items()]
            for row, term in (*terms.pop(slot, ()), *of_rows):
                total[row] += term if np.iscomplexobj(total) else term.real
            add(slot, total)

    def read(change: Change, row: int) -> Change:
        if change.arriving_at is None:
            return change
        settle(change.arriving_at)
        return resolve(change, cotangents, row)

    with np.errstate(all="ignore"):
        for number in reversed(range(len(program.operations))):
            equation = program.operations[number]
            if products:
                for slot in equation.outputs:
                    settle(slot)
            moves = equation.name in WITHOUT_COPIES and cotangents[equation.outputs[0]] is not None
            moved = pending.pop(equation.outputs[0], None) if moves else None
            for slot in equation.outputs:
                draw_errors(slot)
            arriving = [cotangents[slot] for slot in equation.outputs]
            if all(ct is None for ct in arriving):
                continue
            if number in shifts:
                arriving = [stop_at_shift(arriving[0], errors)]
            sums.difference_update(equation.outputs)
            given = [values[slot] for slot in equation.inputs]
            outputs = [values[slot] for slot in equation.outputs]
            changed = altered.get(number, {})
            shared = [
                one
                for one in list_repeated(equation, given, repeated, bool(changed))
                if is_varied(equation.inputs[one]) and (number, one) not in cut
            ]
            wanted = [
                one not in shared and (bool(changed) or is_varied(slot))
                for one, slot in enumerate(equation.inputs)
            ]
            back = [
                ct.real if np.iscomplexobj(ct) and not np.iscomplexobj(x) else ct
                for ct, x in zip(
                    pass_back(equation, given, outputs, arriving, errors, wanted),
                    given,
                    strict=True,
                )
            ]
            found: list[Pending | None] = [None] * len(back)
            if moved is not None:
                magnitude = pass_back(equation, given, outputs, [moved.magnitude])[0]
                found[0] = Pending(magnitude, moved.number)
            elif equation.name == "dot_general" and errors.sizes is not None:
                sizes = measure_products(equation, given, arriving[0], errors, wanted)
                found = [m if m is None else Pending(m) for m in sizes]
            for one, stated in changed.items():
                true = back[one]
                if true is None:
                    continue
                made = [(row, read(change, row)) for row, change in stated]
                for slot, sent in collect_sent(made, values, arriving, true, samples).items():
                    add(slot, sent)
                back[one] = change_all(equation, given, outputs, arriving, true, one, made)
            for one in shared:
                slot, stated = equation.inputs[one], changed.get(one, [])
                # What they read is what has arrived before.
                others = [(row, read(c, row)) for row, c in stated if not is_scale(c)]
                product = Product(equation, given, one, scale_rows(arriving[0], stated))
                products.setdefault(slot, []).append(product)
                for row, change in others:
                    if replaces_factor(change, given):
                        of_row = apart.setdefault(slot, {}).setdefault(row, [])
                        of_row.append(replace_factor(product, arriving[0][row], change))
                others = [each for each in others if not replaces_factor(each[1], given)]
                if not others:
                    continue
                chosen = [row for row, _ in others]
                part = [arriving[0][chosen]]
                just = [k == one for k in range(len(given))]
                true = pass_back(equation, given, outputs, part, wanted=just)[one]
                true = true if np.iscomplexobj(given[one]) else true.real
                made = [(k, change) for k, (_, change) in enumerate(others)]
                for slot_sent, sent in collect_sent(made, values, part, true, len(made)).items():
                    whole = np.zeros((samples, *sent.shape[1:]), sent.dtype)
                    whole[chosen] = sent
                    add(slot_sent, whole)
                wrong = change_all(equation, given, outputs, part, true, one, made)
                terms.setdefault(slot, []).extend(zip(chosen, wrong, strict=True))
            for one, (slot, ct) in enumerate(zip(equation.inputs, back, strict=True)):
                if ct is not None and (number, one) not in cut:
                    add(slot, ct, found[one])
            if number in saturating and arriving[0] is not None:  # (N1)
                start, size, _, rate = saturating[number]
                ct = errors.measure(arriving[0])
                a = align(errors.measure(values[start]), ct.ndim - 1)
                lost = size * ct + measure_underflow(ct, 2 * rate * a, errors.units)
                note(start, sum_to_shape(lost, values[start], EXACTLY, exact=True))
            if kept is not None:
                for slot in set(equation.outputs) - kept:
                    cotangents[slot] = None
        for slot in [*products]:
            settle(slot)
    for slot in program.leaves.values():
        draw_errors(slot)
        if cotangents[slot] is None:
            cotangents[slot] = np.zeros((samples, *values[slot].shape[1:]))
    return cotangents


def replaces_factor(change: Change, given: Sequence[Array]) -> bool:
    """Tell whether a change replaces the other factor of a product by one of its shape."""
    if len(change.instead) != 1:
        return False
    ((operand, factor),) = change.instead
    scales = change.after is None or isinstance(change.after, float)
    alone = scales and is_scale(change._replace(instead=(), after=1.0))
    return alone and operand == 1 - change.operand and factor.shape == given[operand].shape


def replace_factor(product: Product, arriving: Array, change: Change) -> Product:
    """Replace the other factor of a product in one row."""
    given, ((operand, factor),) = [*product.given], change.instead
    given[operand] = factor
    ct = arriving[None] if change.after is None else change.after * arriving[None]
    return product._replace(given=given, arriving=ct)


def scale_rows(ct: Array, stated: Sequence[tuple[int, Change]]) -> Array:
    """Scale the rows of changes that scale them; rows with other changes are zero."""
    scaled = np.array(ct) if stated else ct
    for row, change in stated:
        if is_scale(change):
            scaled[row] *= change.after
        else:
            scaled[row] = 0.0
    return scaled


def own(ct: Any, dtype: type, arriving: Sequence[Any]) -> Array:
    """An array that may be written into: the cotangent itself unless other slots refer to it.

    What a rule passes back is either an array of its own or a view of what arrives.
    """
    shared = any(each is not None and np.may_share_memory(ct, each) for each in arriving)
    if isinstance(ct, np.ndarray) and ct.dtype == dtype and ct.flags.writeable and not shared:
        return ct
    return np.array(ct, dtype)


def resolve(change: Change, cotangents: Sequence[Any], row: int) -> Change:
    """Read what arrives at another slot in a row of a sweep, for a change that passes it back."""
    if change.arriving_at is None:
        return change
    found = cotangents[change.arriving_at]
    return change._replace(arriving=0.0 if found is None else found[row], arriving_at=None)


def collect_sent(
    made: Sequence[tuple[int, Change]],
    values: Sequence[Any],
    arriving: Sequence[Array | None],
    true: Array,
    samples: int,
) -> dict[int, Array]:
    """Collect the cotangents that changes add to other slots than the operand's."""
    found: dict[int, Array] = {}

    def add(slot: int, row: int, ct: Any) -> None:
        shape = values[slot].shape[1:]
        if np.shape(ct) == shape:  # a derivation cannot add it elsewhere
            wide = complex if np.iscomplexobj(values[slot]) else float
            found.setdefault(slot, np.zeros((samples, *shape), wide))[row] += ct

    for row, change in made:
        for slot in change.also:
            add(slot, row, true[row])
        for slot, factor in change.send:
            assert arriving[0] is not None
            ct = arriving[0][row] * factor
            add(slot, row, ct if np.iscomplexobj(values[slot]) else ct.real)
    return found


def group_changes(made: Sequence[tuple[int, Change]]) -> list[list[tuple[int, Change]]]:
    """Group the rows whose changes are of one form, which one pass back serves."""
    groups: dict[Any, list[tuple[int, Change]]] = {}
    for row, change in made:
        replaced: tuple[Any, ...] = ()
        if change.instead:  # most have none
            replaced = tuple((operand, np.iscomplexobj(v)) for operand, v in change.instead)
        own = id(change) if change.through is not None else None
        form = change.slope is not None, change.arriving is not None, replaced, own
        groups.setdefault(form, []).append((row, change))
    return [*groups.values()]


def change_all(
    equation: Operation,
    given: Sequence[Array],
    outputs: Sequence[Array],
    arriving: Sequence[Array | None],
    true: Array,
    operand: int,
    made: Sequence[tuple[int, Change]],
) -> Array:
    """Apply changes to some rows of the cotangents of one operand."""
    changed = own(true, complex if np.iscomplexobj(given[operand]) else float, arriving)
    for alike in group_changes(made):
        rows, changes = [row for row, _ in alike], [change for _, change in alike]
        changed[rows] = change_rows(equation, given, outputs, arriving, true, rows, changes)
    return changed


def change_rows(
    equation: Operation,
    given: Sequence[Array],
    outputs: Sequence[Array],
    arriving: Sequence[Array | None],
    true: Array,
    rows: Sequence[int],
    changes: Sequence[Change],
) -> Array:
    """Apply changes of one form to these rows of the cotangents of one operand."""
    first, result = changes[0], np.asarray(true[rows])
    shape = result.shape

    def scale(cotangents: Any, factors: Sequence[Any]) -> Any:
        if all(factor is None for factor in factors):
            return cotangents
        pairs = zip(cotangents, factors, strict=True)
        return np.stack([ct if factor is None else ct * factor for ct, factor in pairs])

    if first.through is not None:
        given_back = [ct if ct is None else ct[rows] for ct in arriving]
        if first.arriving is not None:
            given_back = [np.stack([change.arriving for change in changes])]
        result = np.asarray(first.through(given_back))
    elif first.slope is not None:
        assert arriving[0] is not None
        ct = arriving[0][rows] if first.arriving is None else [c.arriving for c in changes]
        result = scale(ct, [change.slope for change in changes])
    elif first.instead or first.arriving is not None or any(c.before is not None for c in changes):
        wrong, cotangents = list(given), [ct if ct is None else ct[rows] for ct in arriving]
        for k, (operand, _) in enumerate(first.instead):
            wrong[operand] = np.concatenate([change.instead[k][1] for change in changes])
        if first.arriving is not None:
            alike = outputs[0].shape[1:]
            cotangents[0] = np.stack([np.broadcast_to(c.arriving, alike) for c in changes])
        factors = [change.before for change in changes]
        once = [ct if ct is None else scale(ct, factors) for ct in cotangents]
        result = pass_back(equation, wrong, outputs, once)[first.operand]
    result = scale(result, [change.after for change in changes])
    reshaped: Array = np.asarray(result).reshape(shape)
    return reshaped if np.iscomplexobj(true) else reshaped.real
