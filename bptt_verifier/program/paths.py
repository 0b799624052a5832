"""Paths of a loss through its branches, each traced where a point takes it first.

A loss in JAX has one path. A loss in plain NumPy may branch on values: the program of a path is
that of the points at which all its decisions have the same outcomes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.decisions import Decisions
from bptt_verifier.program.jax_gradients import LONG, compile_gradient
from bptt_verifier.program.operations import Operation
from bptt_verifier.program.source_lines import Place
from bptt_verifier.program.trace import Program, find_outcomes, trace
from bptt_verifier.program.zero_cotangents import keep_zeros, keep_zeros_of

Point = Mapping[str, Array]
Scalar = Callable[[Any], Any]  # a loss as a function of JAX arrays

Gradient = Callable[..., tuple[Any, dict[str, Any], list[Any]]]

FULL = np.dtype(np.float64)
MOST, OPERATIONS = 12, 30_000  # paths of a setting, and their operations in all but the last
LONGEST = 3 * LONG  # operations of a first path that is compiled, in five seconds


class Path(NamedTuple):
    """One path: its program, and the function that computes its loss, gradient and decisions.

    `keeping` is what serves in their place where autodiff multiplies zero by an infinite slope.
    Where the gradient is `interpreted`, whether a point takes the path is found before it.
    """

    program: Program
    gradient: Gradient
    keeping: Path | None = None
    interpreted: bool = False


class Followed(NamedTuple):
    """The loss and its gradient at a point, and the path that it takes there.

    It `keeps_zeros` where jax.grad is not finite, and this gradient is (N8).
    """

    path: Path
    loss: Any
    slopes: dict[str, Any]
    keeps_zeros: bool = False


class Paths:
    """The paths of one loss, for parameters of certain shapes.

    Beyond the largest number of paths, and of their operations, points on others are left out.
    """

    def __init__(
        self,
        scalar_at: Callable[[Point], Scalar],
        forget: Callable[[], None] = lambda: None,
        most: int = MOST,
        operations: int = OPERATIONS,
    ) -> None:
        self.scalar_at, self.forget = scalar_at, forget
        self.most, self.operations = most, operations
        self.known: list[Path] = []
        self.keeps_zeros = False  # some gradient is finite only where zeros stay zero (N8)

    def trace(self, point: Point) -> Path:
        """Trace the path that a point takes, and compile its gradient."""
        scalar = self.scalar_at(point)
        program = self.retrace(point, scalar)
        # A loss without decisions has one path, and may be a short loop of JAX.
        longest = LONG if self.known else LONGEST
        interpreted = bool(program.decided) and len(program.operations) > longest
        differentiate = partial(compile_gradient, scalar, interpreted=interpreted)
        gradient = differentiate(forget=self.forget)
        keeping = Path(keep_zeros_of(program), differentiate(keep_zeros, self.forget))
        self.known.append(Path(program, gradient, keeping, interpreted))
        return self.known[-1]

    def retrace(
        self, point: Point, scalar: Scalar | None = None, decisions: Decisions | None = None
    ) -> Program:
        """Trace the program of a point, by decisions that may make some in another way."""
        traced = scalar or self.scalar_at(point)
        self.forget()
        return prune(trace(lambda params, _: traced(params), point, decisions))

    def follow(self, point: Point, first: bool = True, *, limited: bool = True) -> Followed | None:
        """Compute the loss and gradient at a point; None beyond the number of paths, if `limited`.

        To keep zeros (N8), the loss is compiled a second time. Where `first` is false, a gradient
        that is not finite stays so until another point has needed that compilation.
        """
        made: Sequence[Any] = ()  # decisions at the point, as far as they are known
        for path in self.known:
            outcomes = path.program.outcomes
            if not all(map(np.array_equal, made, outcomes)) or len(made) > len(outcomes):
                continue
            if path.interpreted:
                made = max(made, find_outcomes(path.program, point), key=len)
                if not all(map(np.array_equal, made, outcomes)):
                    continue
            loss, slopes, decided = path.gradient(point, again=False)
            if all(map(np.array_equal, decided, outcomes)):
                return self.keep_finite(Followed(path, loss, slopes), point, first)
            made = max(made, list_valid(decided, outcomes), key=len)
        traced = sum(len(path.program.operations) for path in self.known)
        if limited and (len(self.known) >= self.most or traced > self.operations):
            return None
        path = self.trace(point)
        loss, slopes, _ = path.gradient(point, again=False)
        return self.keep_finite(Followed(path, loss, slopes), point, first)

    def keep_finite(self, followed: Followed, point: Point, first: bool) -> Followed:
        """Compute a gradient that is not finite with zeros kept, unless it would be the first."""
        if not (first or self.keeps_zeros):
            return followed
        found = keep_finite(followed, point)
        self.keeps_zeros |= found.keeps_zeros
        return found

    @property
    def places(self) -> list[Place]:
        """The expressions that decide on the path."""
        found = (place for path in self.known for place in path.program.deciding)
        return list(dict.fromkeys(found))


def find_only(known: Sequence[Path]) -> Path | None:
    """Find the path that every point takes: one that is known, and on which nothing decides."""
    return known[0] if len(known) == 1 and not known[0].program.outcomes else None


def keep_finite(followed: Followed, point: Point) -> Followed:
    """Compute a gradient that is not finite, of a loss that is, with zeros that stay zero. (N8)"""
    path, loss, slopes, _ = followed
    if path.keeping is None or not np.isfinite(loss) or are_finite(slopes):
        return followed
    # Compiled, each of them may find no operand that equals a maximum.
    for again, each in product((False, True), (path, path.keeping)):
        if again or each is path.keeping:
            _, slopes, _ = each.gradient(point, again=again)
            if are_finite(slopes):
                return Followed(each, loss, slopes, each is path.keeping)
    return followed


def list_valid(decided: Sequence[Any], outcomes: Sequence[Any]) -> list[Any]:
    """List what was decided on a path up to the first that differs, which leaves the path."""
    alike = map(np.array_equal, decided, outcomes)
    return [*decided][: 1 + next(number for number, same in enumerate(alike) if not same)]


def are_finite(slopes: Mapping[str, Any]) -> bool:
    """Tell whether every entry of a gradient is finite."""
    return all(np.isfinite(each).all() for each in slopes.values())


def prune(program: Program) -> Program:
    """Leave out the operations on which neither the loss nor a decision depends."""
    needed, kept = {program.result, *program.decided}, []
    for operation in reversed(program.operations):
        if needed.intersection(operation.outputs):
            needed.update(operation.inputs)
            kept.append(operation)
    constants = {slot: value for slot, value in program.constants.items() if slot in needed}
    return program._replace(operations=tuple(reversed(kept)), constants=constants)


def leave_out_reshapes(program: Program) -> Program:
    """Leave out the reshapes to the same shape, such as those of numbers in `math.exp`.

    What is in one expression is then one activation. The loss itself stays what it is.
    """
    shapes = {slot: tuple(np.shape(value)) for slot, value in program.constants.items()}
    shapes |= {slot: tuple(program.shapes[name]) for name, slot in program.leaves.items()}
    same, kept = dict[int, int](), list[Operation]()
    for each in program.operations:
        operation = each._replace(inputs=tuple(same.get(slot, slot) for slot in each.inputs))
        shapes |= zip(operation.outputs, map(tuple, operation.shapes), strict=True)
        (slot, *others), (result, *_) = operation.inputs, operation.outputs
        plain = operation.name == "reshape" and not others and result != program.result
        if plain and shapes.get(slot) == shapes[result] and operation.dtypes[0] == FULL:
            same[result] = slot
        else:
            kept.append(operation)
    decided = tuple(same.get(slot, slot) for slot in program.decided)
    return program._replace(operations=tuple(kept), decided=decided)
