"""A user's loss as a list of equations, and their values, with rounding errors or without.

The equations of its jaxpr are evaluated in NumPy, one by one, not compiled; `backward`
differentiates them. One pass computes many samples, to measure the effect of rounding
(docs/derivation.md, section 10).
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.by_jax import bind, make_apply
from bptt_verifier.program.decisions import Decisions, note_decisions
from bptt_verifier.program.idle_calls import interrupt_idle
from bptt_verifier.program.operations import MOVES, Operation, evaluate
from bptt_verifier.program.rounding import EXACTLY, RoundingErrors, is_inexact
from bptt_verifier.program.source_lines import Place, places
from bptt_verifier.tolerance.noise import INLINED, constant_and_carried

# A loop is unrolled up to this number of operations; JAX evaluates longer ones as a whole.
UNROLLED = 20_000
DIGITS = 8  # an error leaves digits of a number if it is no more than this part of it

Params = Mapping[str, Array]
Loss = Callable[[dict[str, Any], Any], Any]


class Program(NamedTuple):
    """A loss as equations between slots of values.

    `constants` are the slots that do not depend on the parameters, `leaves` the slots of the
    parameters, `result` is the slot of the loss, and `slots` their number. At points where the
    slots `decided` have not these `outcomes`, the loss takes another path; `deciding` are the
    expressions that decide.
    """

    operations: tuple[Operation, ...]
    constants: dict[int, Array]
    leaves: dict[str, int]
    result: int
    slots: int
    shapes: dict[str, tuple[int, ...]]
    decided: tuple[int, ...] = ()
    outcomes: tuple[Array, ...] = ()
    deciding: tuple[Place, ...] = ()


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


def to_numpy(value: Any) -> Any:
    """Convert to a NumPy array; a random key stays as it is."""
    extended = jnp.issubdtype(getattr(value, "dtype", float), jax.dtypes.extended)
    return value if extended else np.array(value)  # a copy: JAX's own would stay interned


def trace(loss: Loss, params: Params, decisions: Decisions | None = None) -> Program:
    """Trace a loss to equations in float64, with calls inlined and loops of known length unrolled.

    Constants are evaluated. Parameters reach the loss in the order given. Needs 64-bit JAX.
    `decisions` may make some of the loss in another way.
    """
    given = {name: np.asarray(value, np.float64) for name, value in params.items()}

    with note_decisions(decisions) as noted:

        def in_order(values: Sequence[Any]) -> Any:  # JAX sorts the names of a dict
            return [loss(dict(zip(given, values, strict=True)), jnp), *noted.values]

        with interrupt_idle():
            closed = jax.make_jaxpr(in_order)([*given.values()])
    tracing = Tracing()
    leaves = dict(zip(given, tracing.slots(len(given)), strict=True))
    result, *decided = tracing.inline(closed, [*leaves.values()], Site())
    shapes = {name: value.shape for name, value in given.items()}
    operations, constants = tuple(tracing.operations), tracing.constants
    deciding = tuple(place for place in noted.places if place)
    path = tuple(decided), tuple(noted.outcomes), deciding
    return Program(operations, constants, leaves, result, tracing.used, shapes, *path)


class Site(NamedTuple):
    """The places of the calls and loops around an operation, and the positions in those calls."""

    where: tuple[Place, ...] = ()
    position: tuple[int, ...] = ()


class Tracing:
    """A program in the making: its operations, its constants and the number of slots used."""

    def __init__(self, *, placed: bool = True) -> None:
        """Begin a program; where it is not `placed`, its operations have no places in the code."""
        self.placed = placed
        self.operations: list[Operation] = []
        self.constants: dict[int, Any] = {}
        self.used = 0
        self.transposed: dict[Any, list[int]] = {}  # what is transposed already, by what it is of

    def slots(self, number: int) -> list[int]:
        """Take this many new slots."""
        self.used += number
        return [*range(self.used - number, self.used)]

    def constant(self, value: Any) -> int:
        """Put a constant into a new slot."""
        (slot,) = self.slots(1)
        self.constants[slot] = to_numpy(value)
        return slot

    def inline(self, closed: ClosedJaxpr, inputs: Sequence[int], site: Site) -> list[int]:
        """Add the operations of a jaxpr; return the slots of its results.

        `site` is that of the call or loop that it belongs to. A call's body was traced at its first
        use, so its source lines may be outdated: its operations have the place of the call. The
        body of a loop keeps its own lines.
        """
        known: dict[Any, int] = dict(zip(closed.jaxpr.invars, inputs, strict=True))
        known |= zip(closed.jaxpr.constvars, map(self.constant, closed.consts), strict=True)

        def slot(atom: Any) -> int:
            return self.constant(atom.val) if isinstance(atom, Literal) else known[atom]

        for number, equation in enumerate(closed.jaxpr.eqns):
            if not equation.outvars:
                continue  # it prints, or checks something
            operands = [slot(atom) for atom in equation.invars]
            found = places(equation) if self.placed else ()
            own = tuple(place for place in found if place not in site.where)
            inside = site._replace(position=(*site.position, number))
            here = inside if site.position else Site((*own, *site.where))
            results = self.add(equation, operands, here)
            known |= zip(equation.outvars, results, strict=True)
        return [slot(atom) for atom in closed.jaxpr.outvars]

    def add(self, equation: Any, operands: Sequence[int], site: Site) -> list[int]:
        """Add the operations of one equation; return the slots of its results."""
        name, params = equation.primitive.name, equation.params
        if all(slot in self.constants for slot in operands):
            values = [self.constants[slot] for slot in operands]
            return [self.constant(value) for value in bind(equation.primitive, params, *values)]
        if name in INLINED and not has_own_derivative(equation):
            # A jitted loss is called by the judge: what has a place is inside of it.
            inside = site._replace(position=site.position or (0,)) if site.where else site
            return self.inline(body_of(equation), operands, inside)
        if name == "cond":
            return self.choose(equation, operands, site)
        if name == "scan" and 0 < count_operations(equation) <= UNROLLED:
            return self.unroll(equation, operands, site)
        values = [self.constants.get(slot) for slot in operands]
        active = [slot not in self.constants for slot in operands]
        results = self.slots(len(equation.outvars))
        avals = [variable.aval for variable in equation.outvars]
        taken = tuple(atom.aval.dtype for atom in equation.invars)
        sizes = tuple(atom.aval.shape for atom in equation.invars)
        apply = make_apply(equation.primitive, params, taken, sizes)
        if name == "transpose":  # at every step, of the same weight
            key = operands[0], params["permutation"]
            if key in self.transposed:
                return self.transposed[key]
            self.transposed[key] = results
        for part, moved in movements(equation, active, values):
            shapes, dtypes = zip(*((a.shape, a.dtype) for a in avals[part]), strict=True)
            what = name, equation.primitive, params, tuple(operands), tuple(results[part])
            self.operations.append(Operation(*what, shapes, *site, moved, dtypes, apply))
        return results

    def add_one(
        self,
        primitive: Any,
        params: dict[str, Any],
        operands: Sequence[int],
        aval: Any,
        site: Site,
        moved: Array | None = None,
        name: str | None = None,
    ) -> int:
        """Add an operation that no equation of the loss stands for; return its result's slot."""
        (result,) = self.slots(1)
        apply = make_apply(primitive, params, (aval.dtype,) * len(operands), (aval.shape,))
        what = name or primitive.name, primitive, params, tuple(operands), (result,)
        shape, dtype = (tuple(aval.shape),), (aval.dtype,)
        self.operations.append(Operation(*what, shape, *site, moved, dtype, apply))
        return result

    def choose(self, equation: Any, operands: Sequence[int], site: Site) -> list[int]:
        """Add the branch of a conditional that is taken, or all where that depends on the point."""
        which, *rest = operands
        branches = equation.params["branches"]
        if which in self.constants:
            number = int(np.clip(self.constants[which], 0, len(branches) - 1))
            return self.inline(branches[number], rest, site)
        every = [self.inline(branch, rest, site) for branch in branches]
        return [
            self.add_one(lax.select_n_p, {}, [which, *cases], variable.aval, site)
            for *cases, variable in zip(*every, equation.outvars, strict=True)
        ]

    def unroll(self, equation: Any, operands: Sequence[int], site: Site) -> list[int]:
        """Add the steps of a scan one by one."""
        params = equation.params
        consts, carried = constant_and_carried(equation)
        split, length = consts + carried, params["length"]
        fixed, carry, sliced = operands[:consts], operands[consts:split], operands[split:]
        stacks = [atom.aval for atom in equation.invars[split:]]
        inside = params["jaxpr"].in_avals[split:]
        collected: list[list[int]] = [[] for _ in equation.outvars[carried:]]
        order = range(length)[::-1] if params["reverse"] else range(length)
        for t in order:
            each = [
                self.take(slot, t, stack, aval, site)
                for slot, stack, aval in zip(sliced, stacks, inside, strict=True)
            ]
            results = self.inline(params["jaxpr"], [*fixed, *carry, *each], site)
            carry = results[:carried]
            for slots, slot in zip(collected, results[carried:], strict=True):
                slots.append(slot)
        stacked = [
            self.stack(slots if order.step > 0 else slots[::-1], variable.aval, site)
            for slots, variable in zip(collected, equation.outvars[carried:], strict=True)
        ]
        return [*carry, *stacked]

    def take(self, slot: int, t: int, stack: Any, aval: Any, site: Site) -> int:
        """Add the slice of a scanned operand at step t."""
        if slot in self.constants:
            return self.constant(self.constants[slot][t])
        moved = np.arange(prod(stack.shape)).reshape(stack.shape)[t].ravel()
        return self.add_one(lax.slice_p, {}, [slot], aval, site, moved)

    def stack(self, slots: list[int], aval: Any, site: Site) -> int:
        """Add the array of the results of all steps of a scan."""
        if all(slot in self.constants for slot in slots):
            return self.constant(np.stack([self.constants[slot] for slot in slots]))
        params = {"axis": 0}
        return self.add_one(lax.concatenate_p, params, slots, aval, site, None, "stack")


def body_of(call: Any) -> ClosedJaxpr:
    """The jaxpr of the function that an equation calls."""
    inner = call.params[INLINED[call.primitive.name]]
    return inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())


def count_operations(equation: Any) -> int:
    """Count the operations of an equation, with those of the loops and calls in it, unrolled."""
    name, params = equation.primitive.name, equation.params
    bodies = [params["jaxpr"]] if name == "scan" else params.get("branches", ())
    bodies = [body_of(equation)] if name in INLINED else bodies
    steps = params["length"] if name == "scan" else 1
    return steps * max(1, sum(count_operations(e) for body in bodies for e in body.eqns))


def has_own_derivative(call: Any) -> bool:
    """True if a function has a derivative that is not that of its body, at two random points.

    One that closes over arrays is not asked: its rule would keep the user's arrays in 64 bit. If
    its derivative is another one, the measured errors find that jax.grad differs.
    """
    if not call.primitive.name.startswith("custom_") or call.params.get("num_consts"):
        return False
    rng = np.random.default_rng(0)
    body = jaxpr_as_fun(body_of(call))
    smooth = [i for i, atom in enumerate(call.invars) if is_inexact(atom.aval.dtype)]

    def pull_ones(function: Callable[..., Any], point: Sequence[Any]) -> Any:
        def of_smooth(*chosen: Any) -> list[Any]:
            replaced = dict(enumerate(point)) | dict(zip(smooth, chosen, strict=True))
            return [q for q in function(*replaced.values()) if is_inexact(q.dtype)]

        results, pull = jax.vjp(of_smooth, *(point[i] for i in smooth))
        return pull([np.ones(q.shape, q.dtype) for q in results])

    for shift in (0.0, 3.0):  # at positive numbers, too
        drawn = [rng.normal(size=atom.aval.shape) + shift for atom in call.invars]
        point = [x.astype(atom.aval.dtype) for x, atom in zip(drawn, call.invars, strict=True)]
        own = pull_ones(lambda *x: bind(call.primitive, call.params, *x), point)
        for one, other in zip(own, pull_ones(body, point), strict=True):
            if not are_same_slopes(one, other):
                return True
    return False


def are_same_slopes(one: Any, other: Any) -> bool:
    """Tell whether two computations of a derivative differ by no more than they may round.

    n operations with the condition κ lose n κ u of the largest entry. That is at most √u where
    n κ ≤ 1/√u, 9e7 in float64; a rule that is another one on purpose differs in the first digits.
    One that does not still shows in the measured errors, which are held to jax.grad.
    """
    finite = np.isfinite(one) & np.isfinite(other)
    largest = np.max(np.abs(other), where=finite, initial=0.0)
    allowed = np.sqrt(np.finfo(np.asarray(other).dtype).eps) * largest
    with np.errstate(invalid="ignore"):
        near = (np.abs(one - other) <= allowed) & finite
    same = near | (one == other) | (np.isnan(one) & np.isnan(other))
    return bool(np.all(same))


def forward(
    program: Program,
    params: Params,
    errors: RoundingErrors = EXACTLY,
    bounds: Mapping[int, float] = {},
) -> list[Any]:
    """The value of every slot, with a leading axis for the samples (of size 1 without errors).

    With errors, the parameters also get an error of one unit in the last place, and so do the
    constants that float32 cannot represent. The result of an operation with one of the `bounds`,
    by its number, also gets an error of that size, in units of the roundoff.
    """
    values = list_given(program, params)
    if errors is not EXACTLY:
        inexact = [slot for slot, value in program.constants.items() if not fits_float32(value)]
        for slot in [*inexact, *program.leaves.values()]:
            values[slot] = errors.add(values[slot], np.abs(values[slot]))
    with np.errstate(all="ignore"):
        for number, equation in enumerate(program.operations):
            results = evaluate(equation, [values[slot] for slot in equation.inputs], errors)
            if number in bounds:  # (N1)
                (result,) = results
                results = [errors.add(result, np.full((1, *result.shape[1:]), bounds[number]))]
            for slot, result in zip(equation.outputs, results, strict=True):
                values[slot] = result
            if errors.sizes is not None:
                total = errors.measure(results[0])
                for slot in list_terms(program, equation, values):
                    most = errors.measure(values[slot]) / DIGITS
                    values[slot] = errors.add(values[slot], total, most)
    return values


def list_given(program: Program, params: Params) -> list[Any]:
    """List the values of constants and parameters by their slots; None for what is computed."""
    values: list[Any] = [None] * program.slots
    for slot, value in program.constants.items():
        values[slot] = value[None]
    for name, slot in program.leaves.items():
        values[slot] = np.asarray(params[name], np.float64)[None]
    return values


def find_outcomes(program: Program, params: Params) -> list[Any]:
    """Find the outcomes of the decisions of a path at a point, up to the first that differs."""
    values = list_given(program, params)
    operations, found = iter(program.operations), list[Any]()
    with np.errstate(all="ignore"):
        for slot, outcome in zip(program.decided, program.outcomes, strict=True):
            while values[slot] is None:
                equation = next(operations)
                results = evaluate(equation, [values[n] for n in equation.inputs], EXACTLY)
                for output, result in zip(equation.outputs, results, strict=True):
                    values[output] = result
            found.append(values[slot][0])
            if not np.array_equal(found[-1], outcome):
                break
    return found


def takes_path(program: Program, params: Params) -> bool:
    """Tell whether a point takes the path of a program."""
    found = find_outcomes(program, params)
    return all(map(np.array_equal, found, program.outcomes))


def list_terms(program: Program, equation: Operation, values: Sequence[Any]) -> list[int]:
    """List the terms of a sum with a constant, which get an error of the sum.

    A derivation may use a term only through that sum, as h (1 − h) does for a sigmoid. Then the
    digits that the sum rounds away are missing from the derivative, too. Where all its digits are
    missing, which is where the error exceeds an eighth of it, the derivation cannot use it so.
    """
    if equation.name not in {"add", "sub"}:
        return []
    shape = values[equation.outputs[0]].shape[1:]
    pairs = zip(equation.inputs, reversed(equation.inputs), strict=True)
    return [
        slot
        for slot, other in pairs
        if other in program.constants and values[slot].shape[1:] == shape
    ]


def fits_float32(value: Any) -> bool:
    """True if float32 represents every number of a constant."""
    if not is_inexact(value.dtype):
        return True
    narrow = np.complex64 if np.iscomplexobj(value) else np.float32
    with np.errstate(all="ignore"):
        return bool(np.array_equal(value.astype(narrow), value, equal_nan=True))
