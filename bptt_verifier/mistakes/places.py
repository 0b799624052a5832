"""The place of a mistake without a name: gradients, entries, and the first wrong adjoint.

The gradient of a weight is linear in the adjoints of the expressions that read it: ∂L/∂U is the sum
of δ_t x_tᵀ. Where the operands determine the adjoints, least squares finds those that the submitted
gradients imply, and they are compared with the true ones. Nothing is said where they do not.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.mistakes.evidence import Evidence
from bptt_verifier.mistakes.expressions import quote_expression
from bptt_verifier.mistakes.single_gradients import join_symbols
from bptt_verifier.problems.problem import Array
from bptt_verifier.program.backward import sweep_back
from bptt_verifier.program.operations import pass_back
from bptt_verifier.program.structure import Structure, shape_of

UNKNOWNS = 400  # entries of adjoints that are fitted together, at most
CONDITION = 1e5  # largest condition number of a fit that is trusted
OFF = 1e-3  # relative error of an adjoint that is called wrong; a hundredth of it counts as right
FEW = 3  # rows, columns or entries that are listed

# Operations whose result has the cotangents of their operand, moved or summed.
TRANSPARENT = frozenset(
    "add sub add_any neg broadcast_in_dim reshape squeeze expand_dims transpose slice split"
    " concatenate stack copy convert_element_type gather dynamic_slice".split()
)


class Expression(NamedTuple):
    """The adjoints of one expression at all steps, and the parameters that they determine."""

    slots: tuple[int, ...]
    weights: frozenset[str]


class AdjointError(NamedTuple):
    """The error of the adjoint that gradients imply, relative to its size, and the allowed one."""

    relative: float
    allowed: float

    @property
    def wrong(self) -> bool | None:
        """Whether the adjoint is wrong; None where its error is neither small nor large."""
        return False if self.relative <= self.allowed else True if self.relative > OFF else None


def list_places(known: Structure, evidence: Sequence[Evidence], wrong: Sequence[str]) -> list[str]:
    """List sentences on where the gradients are wrong; each holds in every case."""
    right = [name for name in evidence[0].wanted if name not in wrong]
    found = [f"{join_symbols(right)} {'is' if len(right) == 1 else 'are'} right."] if right else []
    for name in wrong:
        part = describe_wrong_part(name, evidence)
        found += [f"{join_symbols([name])} is wrong {part} only."] if part else []
    return found + describe_adjoints(known, evidence, frozenset(right))


def describe_wrong_part(name: str, evidence: Sequence[Evidence]) -> str:
    """Describe the rows, columns or entries outside of which a gradient is right."""
    masks = []
    for case in evidence:
        wanted = case.wanted[name]
        reference = case.reference[name]
        masks.append(~wanted.within(reference, 1.0, reference))
    mask = np.logical_or.reduce(masks)
    if mask.all() or not mask.any() or mask.ndim == 0:
        return ""
    words = ("entry", "entries") if mask.ndim == 1 else ("row", "rows")
    for axis in range(mask.ndim):
        others = tuple(k for k in range(mask.ndim) if k != axis)
        places = np.flatnonzero(mask.any(axis=others))
        if axis == 1:
            words = "column", "columns"
        # Of an axis of length 1 every place is the only one.
        if axis < 2 and len(places) <= min(FEW, mask.shape[axis] // 2):
            listed = " and ".join(map(str, places))
            if axis == 0 and mask.ndim == 2 and mask.sum() == 1:
                return f"at the entry {np.argwhere(mask)[0].tolist()}"
            return f"in {words[len(places) > 1]} {listed}"
    return ""


def describe_adjoints(
    known: Structure, evidence: Sequence[Evidence], right: frozenset[str]
) -> list[str]:
    """Describe the first wrong adjoint going backward, where the gradients before it are wrong."""
    expressions = find_expressions(known)
    fits = [fit for each in expressions if (fit := fit_everywhere(known, evidence, each))]
    # The nearest to the loss comes first.
    steps = sorted(
        ((slot, each, state) for each, states in fits for slot, state in states.items()),
        key=lambda found: -known.producer[found[0]],
    )
    for position, (slot, each, state) in enumerate(steps):
        if state is None:
            return []
        if not state:
            continue
        number, later = known.producer[slot], steps[:position]
        if right & find_weights_before(known, slot):
            return []  # the adjoint was right there: a gradient alone is wrong
        step = known.step.get(number)
        when = f"first at step {step + 1} of {known.steps}" if step is not None else "there"
        where = known.program.operations[number].where
        line = f" (the line `{where[0].text}`, {where[0]})" if where else ""
        value = quote_expression(known, number)
        verb = "implies" if len(each.weights) == 1 else "imply"
        said = (
            f"Your {join_symbols(sorted(each.weights))} {verb} which gradient of {value}{line} you"
            f" used: going backward, it is wrong {when}."
        )
        after = " What your gradients imply nearer to the loss is right." if later else ""
        return [said + after]
    return []


def find_weights_before(known: Structure, slot: int) -> frozenset[str]:
    """Find the parameters that an expression depends on."""
    operations, reached = known.program.operations, {slot}
    for number in reversed(range(known.producer[slot] + 1)):
        if reached.intersection(operations[number].outputs):
            reached.update(operations[number].inputs)
    own = {known.leaf[s] for s in operations[known.producer[slot]].inputs if s in known.leaf}
    return frozenset(known.leaf[each] for each in reached if each in known.leaf) - own


def fit_everywhere(
    known: Structure, evidence: Sequence[Evidence], expression: Expression
) -> tuple[Expression, dict[int, bool | None]] | None:
    """Fit the adjoints of an expression in every case.

    Returns, by slot, whether the adjoint is wrong; None where the cases differ. None as a whole
    where a fit is not determined, or leaves an error.
    """
    verdicts: list[dict[int, bool | None]] = []
    for case in evidence:
        found = fit_adjoints(known, case, expression)
        if found is None:
            return None
        verdicts.append({slot: error.wrong for slot, error in found.items()})
    return expression, {
        slot: verdicts[0][slot] if len({each[slot] for each in verdicts}) == 1 else None
        for slot in expression.slots
    }


def fit_adjoints(
    known: Structure, case: Evidence, expression: Expression
) -> dict[int, AdjointError] | None:
    """Fit the adjoints of an expression to the submitted gradients of its weights.

    Returns their errors by slot; None where a fit is not determined, or leaves an error.
    """
    names = [name for name in case.wanted if name in expression.weights]
    if not names:
        return None
    columns = [make_columns(known, case.forward, slot, names) for slot in expression.slots]
    if any(column is None for column in columns):
        return None
    matrix = np.concatenate([column for column in columns if column is not None], axis=0).T
    submitted = np.concatenate([case.wanted[name].submitted.ravel() for name in names])
    if not np.isfinite(submitted).all():
        return None
    # Where there are no more numbers than unknowns, some adjoints fit any gradient.
    if matrix.shape[0] < matrix.shape[1] + max(2, matrix.shape[1] // 4):
        return None
    fitted, _, rank, sizes = np.linalg.lstsq(matrix, submitted, rcond=None)
    if rank < matrix.shape[1] or sizes[0] > CONDITION * sizes[-1]:
        return None
    scale = float(np.max(np.abs(submitted)))
    noise = max(float(np.median(case.wanted[n].allowed)) for n in names) / max(scale, 1e-300)
    error = np.max(np.abs(matrix @ fitted - submitted)) / max(scale, 1e-300)
    uncertain = max(1e-9, 8 * noise) * sizes[0] / sizes[-1]
    if error > max(1e-8, 8 * noise) or uncertain > OFF / 100:
        return None
    adjoints, true = sweep_back(known.program, case.forward), dict[int, Array]()
    for slot in expression.slots:  # what the loss only counts or rounds has none
        absent = adjoints[slot] is None
        true[slot] = np.zeros(case.forward[slot].size) if absent else adjoints[slot].ravel()
    errors, start = dict[int, AdjointError](), 0
    largest = max(float(np.max(np.abs(adjoint))) for adjoint in true.values())
    for slot, adjoint in true.items():
        found = fitted[start : start + adjoint.size]
        start += adjoint.size
        off = float(np.max(np.abs(found - adjoint)))
        size = float(np.max(np.abs(adjoint))) or float(np.finfo(float).tiny)
        # The fit shares its errors among all adjoints.
        errors[slot] = AdjointError(off / size, max(OFF / 100, uncertain * largest / size))
    return errors


def measure_adjoints(known: Structure, case: Evidence) -> list[tuple[str, list[AdjointError]]]:
    """Measure the adjoints at every step, for each expression whose weights determine them.

    Returns the gradients that determine them, and the errors from the first step to the last.
    """
    measured = []
    for expression in find_expressions(known):
        by_step = {known.step.get(known.producer[slot]): slot for slot in expression.slots}
        if known.steps < 2 or by_step.keys() != {*range(known.steps)}:
            continue
        errors = fit_adjoints(known, case, expression)
        if errors is not None:
            in_order = [errors[by_step[t]] for t in range(known.steps)]
            measured.append((join_symbols(sorted(expression.weights)), in_order))
    return measured


def find_expressions(known: Structure) -> list[Expression]:
    """Find the expressions that read weights, each with those that no other expression reads."""
    operations = known.program.operations
    slots_of: dict[str, set[int]] = {}
    for number, equation in enumerate(operations):
        for slot in equation.inputs:
            name = known.leaf.get(slot)
            if name is not None and equation.outputs[0] not in known.leaf:
                slots_of.setdefault(name, set()).add(follow_sums(known, number))
    groups: dict[frozenset[int], set[str]] = {}
    for name, slots in slots_of.items():
        same = frozenset(known.group_of[known.producer[slot]] for slot in slots)
        if len(same) == 1:
            groups.setdefault(same, set()).add(name)
    found = []
    for names in groups.values():
        slots = {slot for name in names for slot in slots_of[name]}
        listed = tuple(sorted(slots, key=lambda slot: known.producer[slot]))
        if sum(prod(shape_of(known, slot) or ()) for slot in listed) <= UNKNOWNS:
            found.append(Expression(listed, frozenset(names)))
    return found


def follow_sums(known: Structure, number: int) -> int:
    """Follow a term through sums of one use to their last result."""
    operations = known.program.operations
    (slot, *_) = operations[number].outputs
    while len(known.users.get(slot, ())) == 1:
        ((user, _),) = known.users[slot]
        alike = operations[user].name in {"add", "sub", "add_any", "broadcast_in_dim", "reshape"}
        # What is passed back through a sum with a constant may be wrong there already.
        alike = alike and len(known.active(user)) == len(operations[user].inputs)
        if not alike or known.step.get(user) != known.step.get(number):
            break
        (slot,) = operations[user].outputs
    return slot


def make_columns(
    known: Structure, values: Sequence[Any], slot: int, names: Sequence[str]
) -> Array | None:
    """Compute the gradients of weights for every unit adjoint of one slot, along the first axis."""
    operations, shape = known.program.operations, shape_of(known, slot) or ()
    unknowns = prod(shape)
    arriving = {slot: np.eye(unknowns).reshape(unknowns, *shape)}
    totals = {name: np.zeros((unknowns, *known.program.shapes[name])) for name in names}
    leaves = {known.program.leaves[name]: name for name in names}
    for number in reversed(range(known.producer[slot] + 1)):
        equation = operations[number]
        (result, *others) = equation.outputs
        if (
            result not in arriving
            or others
            or any(np.iscomplexobj(values[s]) for s in equation.inputs)
        ):
            continue
        reads = [k for k, each in enumerate(equation.inputs) if each in known.leaf]
        if not reads and equation.name not in TRANSPARENT:
            continue
        given, outputs = [values[s] for s in equation.inputs], [values[result]]
        with np.errstate(all="ignore"):
            back = pass_back(equation, given, outputs, [arriving.pop(result)])
        for k, each in enumerate(equation.inputs):
            ct = back[k]
            if ct is None or (reads and k not in reads and equation.name not in TRANSPARENT):
                continue
            if each in leaves:
                totals[leaves[each]] += ct
            elif each in known.producer:
                arriving[each] = arriving[each] + ct if each in arriving else ct
    joined = np.concatenate([totals[name].reshape(unknowns, -1) for name in names], axis=1)
    return joined if np.isfinite(joined).all() else None
