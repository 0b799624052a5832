"""The reference of a problem by autodiff, and the allowed error of a correct derivation.

Small problems are padded to one capacity, which compiles once for all shapes. The allowed error is
the bound of docs/derivation.md, section 9, where it exists and is small enough to decide. Otherwise
it is measured as in section 10. Large problems have a capacity of their own; their errors are
measured only where they exceed what a sum of that many terms rounds.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import cache, cached_property, partial
from itertools import islice
from typing import Any

import jax
import numpy as np

from bptt_verifier.problems.cached import (
    Recent,
    cached_by_content,
    collect_content,
    make_read_only,
)
from bptt_verifier.problems.extremes import LARGE
from bptt_verifier.problems.problem import (
    ALL_LOSSES,
    GATES,
    LARGEST,
    LOSSES,
    Array,
    Problem,
    list_shapes,
)
from bptt_verifier.reference.blocks import ReferenceBlock
from bptt_verifier.reference.case import FindTruth, Truth
from bptt_verifier.tolerance.bounds import RESOLVING, Bounds, bounds, describe_dtype
from bptt_verifier.tolerance.formats import find_smallest
from bptt_verifier.tolerance.noise import SAFETY, UNOPTIMISED, measure_error
from jax_reference import blocks, padded, unrolled
from jax_reference.padded import Capacity, Fixed, Padded
from jax_reference.programs import Program
from jax_reference.unrolled import Derivatives, Model

COMPARED = (*Bounds._fields, "c0", "b_n")  # everything that a derivation may return, in order


def name_arrays(found: Derivatives | Bounds) -> dict[str, Array]:
    """List the arrays to compare by name, without those that the problem lacks."""
    values = found._asdict()
    if isinstance(found, Derivatives):
        values["prediction"] = found.states.prediction
    return {n: np.asarray(values[n]) for n in COMPARED if values.get(n) is not None}


def fits_capacity(problem: Problem, capacity: Capacity = LARGEST) -> bool:
    """Tell whether a problem fits into a capacity, which compiles once."""
    return all(size <= most for size, most in zip(problem.sizes, capacity, strict=True))


class Reference:
    """Autodiff's derivatives at a problem, and the errors that follow from them, each found once.

    `finish` waits for the derivatives, and `bound` bounds the errors of results in a dtype; its
    arrays are read-only.
    """

    def __init__(
        self, finish: Callable[[], Derivatives], bound: Callable[[Any], Bounds] | None = None
    ) -> None:
        self.finish, self.bound = finish, bound
        self.derived: dict[Any, dict[str, Array]] = {}

    @cached_property
    def derivatives(self) -> Derivatives:
        """The derivatives, in float64 and read-only."""
        return make_read_only(self.finish())

    @cached_property
    def values(self) -> dict[str, Array]:
        """The results by name."""
        return name_arrays(self.derivatives)

    def derive_allowed(self, dtype: Any) -> dict[str, Array]:
        """Derive the error allowed to each result of a submission that computes in `dtype`."""
        dtype = np.dtype(dtype)
        if dtype not in self.derived:
            assert self.bound is not None
            bound = name_arrays(self.bound(dtype))
            self.derived[dtype] = {name: bound[name] for name in self.values}
        return self.derived[dtype]


references = Recent[Reference](1024)


def start_references(problems: Sequence[Problem]) -> list[Reference]:
    """Start computing the references of problems that fit the capacity, unless they are known.

    Those with a derived bound and one activation are computed together, in blocks.
    """
    content = [collect_content(problem) for problem in problems]
    found = {each: known for each in content if (known := references.find(each)) is not None}
    missing = {each: problem for each, problem in zip(content, problems, strict=True)
               if each not in found}  # fmt: skip
    kinds: dict[str, list[Hashable]] = {}
    for each, problem in missing.items():
        if has_derived_bound(problem):
            kinds.setdefault(problem.option["activation"], []).append(each)
        else:
            found[each] = references.keep(each, Reference(start_derivatives(problem)))
    for alike in kinds.values():
        for start in range(0, len(alike), blocks.SIZE):
            together = alike[start : start + blocks.SIZE]
            block = ReferenceBlock([missing[each] for each in together])
            for number, each in enumerate(together):
                known = Reference(partial(block.cut, number), partial(block.bound, number))
                found[each] = references.keep(each, known)
    return [found[each] for each in content]


def start_derivatives(problem: Problem) -> Callable[[], Derivatives]:
    """Start computing the derivatives at one problem; return a function that waits for them."""
    given: dict[str, Any] = problem.first | problem.options
    params, x, y = problem.params, problem.x, problem.y
    return padded.started(params, x, y, **given, cell=problem.cell, capacity=LARGEST)


def start_reference(problem: Problem) -> Reference:
    """Start computing the reference of one problem."""
    return start_references([problem])[0]


def reference(problem: Problem) -> Derivatives:
    """Compute autodiff's derivatives at a problem that fits the capacity, in float64."""
    return start_reference(problem).derivatives


def derive_bound(problem: Problem, known: Derivatives) -> Bounds:
    """Bound the distance between the reference and a derivation of the plain RNN.

    Both have an error. Each bound is a polynomial in u without constant term and without negative
    coefficients, so the bound of float64 is at most eps(float64) / eps(dtype) times it. (E13)
    """
    params, x, y, dtype = problem.params, problem.x, problem.y, problem.x.dtype
    own = bounds(params, x, y, known, dtype=dtype, loss=problem.loss, **problem.option)
    both = 1 + np.finfo(np.float64).eps / describe_dtype(dtype).eps
    return Bounds(*(both * bound for bound in own))  # (E13)


# The packages whose code is traced where an error is measured.
TRACED = ("jax_reference", "bptt_verifier.tolerance", "bptt_verifier.reference")


def measure_padded(
    model: Model, states: tuple[str, ...], roundoff: Any, problem: Padded, fixed: Fixed, kinds: int
) -> Any:
    """Measure the error of a padded problem, not compiled."""
    differentiated = partial(padded.differentiated, model, states, kinds=kinds)
    return measure_error(lambda problem: differentiated(problem, fixed), roundoff, problem)


def measure_at_its_size(model: Model, roundoff: Any, y: Any, *point: Any) -> Any:
    """Measure the error of a problem at its own size, not compiled."""

    def differentiated(params: Any, x: Any, first: Any) -> Any:
        return unrolled.compiled_derivatives(model, params, x, first, y, None, None)

    return measure_error(differentiated, roundoff, *point)


_measure_padded = Program(measure_padded, ("model", "states", "kinds"), TRACED, UNOPTIMISED)
_measure_at_its_size = Program(measure_at_its_size, ("model",), TRACED, UNOPTIMISED)
# For large problems, of which there are few.
_differentiate_padded = Program(padded.differentiated, ("model", "states"), options=UNOPTIMISED)


def lay_out(problem: Problem, capacity: Capacity) -> padded.Laid:
    """Pad a problem to a capacity."""
    return padded.lay_out(
        problem.cell, problem.params, problem.x, problem.y, **problem.first,
        option=next(iter(problem.option.values()), None), loss=problem.loss,
        outputs=problem.outputs, lengths=problem.lengths, truncation=problem.truncation,
        capacity=capacity,
    )  # fmt: skip


def arrange_at_its_size(problem: Problem) -> tuple[Model, Any, Array, tuple[Array, ...], Array]:
    """Arrange a problem for the network of its own size: model, parameters, x, states, y.

    As in the padded path, an absent bias or state is zeros: it takes no compilation of its own.
    """
    cell, option = padded.CELLS[problem.cell], next(iter(problem.option.values()), None)
    shapes = list_shapes(problem.cell, problem.sizes)
    wide = problem.map_arrays(lambda values: values.astype(np.float64))
    first = tuple(wide.first.get(state, np.zeros(shapes[state])) for state in cell.states)
    params = wide.params._replace(**{name: np.zeros(shapes[name]) for name in list_absent(problem)})
    return Model(cell.step, option, problem.loss), params, wide.x, first, wide.y


def list_absent(problem: Problem) -> list[str]:
    """List the parameters that a problem lacks: biases."""
    return [name for name, value in problem.params._asdict().items() if value is None]


def sum_roundoffs(dtype: Any) -> float:
    """The roundoff of a derivation plus that of the reference: the error is proportional to it."""
    return sum(float(describe_dtype(each).eps) / 2 for each in (dtype, np.float64))


def list_padded_arguments(laid: padded.Laid, roundoff: float, kinds: int) -> tuple[Any, ...]:
    """List the arguments of `measure_padded`."""
    return laid.model, laid.states, roundoff, laid.problem, laid.fixed, kinds


def list_arguments_at_its_size(problem: Problem, roundoff: float) -> tuple[Any, ...]:
    """List the arguments of `measure_at_its_size`."""
    model, params, x, first, y = arrange_at_its_size(problem)
    return model, roundoff, y, params, x, first


def load_programs(problem: Problem, pool: Executor, measured: bool = True) -> None:
    """Load the programs for problems of this kind in the pool, if they are kept.

    Where errors are not `measured`, it is the program for large ones.
    """
    dtype = problem.x.dtype
    with jax.enable_x64(True):
        if not measured:
            _differentiate_padded.load_ahead(pool, *lay_out(problem, LARGE)[:4])
        elif fits_capacity(problem):
            kinds = len(ALL_LOSSES)
            if has_derived_bound(problem):
                kinds = len(LOSSES)
                blocks.load_ahead(pool, "rnn", problem.option["activation"], LARGEST)
            laid = lay_out(problem, LARGEST)
            given = list_padded_arguments(laid, sum_roundoffs(dtype), kinds)
            _measure_padded.load_ahead(pool, *given)
        else:
            given = list_arguments_at_its_size(problem, sum_roundoffs(dtype))
            _measure_at_its_size.load_ahead(pool, *given)


@cached_by_content(1024)
def start_measured_reference(
    problem: Problem, dtype: Any, kinds: int = len(ALL_LOSSES)
) -> Callable[[], tuple[Derivatives, Derivatives]]:
    """Start computing `measure_reference`; return a function that blocks until it is there."""
    roundoff = sum_roundoffs(dtype)
    with jax.enable_x64(True):
        if fits_capacity(problem):
            laid = lay_out(problem, LARGEST)
            found = _measure_padded(*list_padded_arguments(laid, roundoff, kinds))
            return cache(lambda: make_read_only((laid.cut(*found[0]), laid.cut(*found[1]))))
        found = _measure_at_its_size(*list_arguments_at_its_size(problem, roundoff))

    def finish() -> tuple[Derivatives, Derivatives]:
        clean, error = jax.tree.map(np.asarray, found)
        without = dict.fromkeys(list_absent(problem))
        return make_read_only((clean._replace(**without), error._replace(**without)))

    return cache(finish)


def measure_reference(
    problem: Problem, dtype: Any = None, kinds: int = len(ALL_LOSSES)
) -> tuple[Derivatives, Derivatives]:
    """Compute autodiff's derivatives in float64, and the error of a correct derivation. (N2)

    `dtype` is the derivation's, by default the problem's. The program that measures covers the
    first `kinds` of the losses. A problem beyond the capacity compiles
    anew for its shape, and must have neither lengths nor truncation.
    """
    return start_measured_reference(problem, np.dtype(dtype or problem.x.dtype), kinds)()


def prefetch_truths(problems: Iterable[Problem]) -> Iterator[tuple[Problem, FindTruth]]:
    """Yield each problem with its truth, while JAX computes what is needed of those after it.

    Problems with a derived bound are taken in blocks, and others one by one.
    """
    remaining, before = iter(problems), list[tuple[Problem, FindTruth]]()
    while first := next(remaining, None):
        together = [first]
        if has_derived_bound(first):
            together += islice(remaining, blocks.SIZE - 1)
        started = start_truths(together)
        yield from before
        before = started
    yield from before


def start_truths(problems: Sequence[Problem]) -> list[tuple[Problem, FindTruth]]:
    """Start computing the truths of problems; return each problem with the function that waits."""
    derived = [each for each in problems if has_derived_bound(each)]
    known = iter(start_references(derived))
    found = list[tuple[Problem, FindTruth]]()
    for each in problems:
        if has_derived_bound(each):
            found.append((each, partial(find_truth_within_bound, next(known), each)))
        else:
            start_measured_reference(each, each.x.dtype)
            found.append((each, partial(measure_truth, each)))
    return found


def measure_truth(
    problem: Problem,
    dtype: Any,
    names: Collection[str] = COMPARED,
    kinds: int = len(ALL_LOSSES),
) -> Truth:
    """Find the reference with measured errors, for any cell and length, of all names."""
    clean, error = (name_arrays(found) for found in measure_reference(problem, dtype, kinds))
    lost = bound_underflow(problem, dtype)
    allowed = {name: np.asarray(value) + lost for name, value in error.items()}
    return loosen_where_overflowing(Truth(clean, allowed), dtype)


def bound_underflow(problem: Problem, dtype: Any) -> float:
    """Bound what one sum may lose whose products underflow: 2 m ν, and one result at least.

    Processors compute with float16's subnormal numbers, but conversions may flush them.
    """
    T, B, _, H, O = problem.sizes
    terms = T * B + B * GATES[problem.cell] * H + O * H + 4
    normal = float(describe_dtype(dtype).smallest_normal)
    return max(normal, 2 * terms * find_smallest(dtype))  # (N10)


def truth(problem: Problem, dtype: Any, names: Collection[str] = COMPARED) -> Truth:
    """Find the reference, with the derived bound where it can decide, or else the measured error.

    `dtype` is the submission's. A bound that cannot decide is replaced for `names` only.
    """
    if not has_derived_bound(problem):
        return measure_truth(problem, dtype, names)
    return find_truth_within_bound(start_reference(problem), problem, dtype, names)


def find_truth_within_bound(
    known: Reference, problem: Problem, dtype: Any, names: Collection[str] = COMPARED
) -> Truth:
    """Find the truth by a reference whose bound is derived; `truth` describes the rest."""
    values, errors = known.values, known.derive_allowed(dtype)
    largest = {name: np.max(np.abs(value)) for name, value in values.items() if name in names}
    vague = [n for n, size in largest.items() if np.max(errors[n]) > RESOLVING * size > 0]
    if vague:
        finer = measure_truth(problem, dtype, names, len(LOSSES)).allowed
        errors = errors | {name: np.fmin(errors[name], finer[name]) for name in vague}
    return loosen_where_overflowing(Truth(values, errors), dtype)


def find_values(problem: Problem, dtype: Any = None, names: Collection[str] = COMPARED) -> Truth:
    """Find the reference alone; no error is allowed. The other arguments are those of `truth`."""
    fits = fits_capacity(problem)
    values = name_arrays(reference(problem)) if fits else start_large_reference(problem)()
    return Truth(values, {name: np.zeros_like(value) for name, value in values.items()})


class LargeReference:
    """The reference of a large problem, which JAX may still be computing.

    A call waits for it. `pending` are the arrays that JAX computes, and `finish` makes the
    derivatives of them.
    """

    def __init__(self, pending: Any, finish: Callable[[Any], Derivatives]) -> None:
        self.pending, self.finish = pending, finish

    def __call__(self) -> dict[str, Array]:
        """The results by name, read-only."""
        return self.values

    @property
    def is_there(self) -> bool:
        """True if nobody has to wait for it."""
        return all(each.is_ready() for each in jax.tree.leaves(self.pending))

    @cached_property
    def values(self) -> dict[str, Array]:
        """The results by name; the arrays that they are cut out of are dropped."""
        found = name_arrays(self.finish(self.pending))
        # Copies, because a part of a padded array keeps all of it.
        copied = make_read_only({name: value.copy() for name, value in found.items()})
        self.pending = None
        return copied


@cached_by_content(32)
def start_large_reference(problem: Problem) -> LargeReference:
    """Start computing the reference of a large problem; return what blocks where it is called.

    A problem beyond the capacity for large ones compiles anew for its shape.
    """
    with jax.enable_x64(True):
        if fits_capacity(problem, LARGE):
            laid = lay_out(problem, LARGE)
            cut = laid.parts.cut
            return LargeReference(_differentiate_padded(*laid[:4]), lambda found: cut(*found))
        model, params, x, first, y = arrange_at_its_size(problem)
        found = unrolled.compiled_derivatives(model, params, x, first, y, None, None)
        return LargeReference(found, partial(jax.tree.map, np.asarray))


def large_truth(problem: Problem, dtype: Any, names: Collection[str] = COMPARED) -> Truth:
    """Find the reference of a large problem, with the error of one sum of so many terms. (N4)

    Where a submission exceeds that error, the scatter of its own errors decides.
    """
    values = start_large_reference(problem)()
    unit = sum(float(describe_dtype(each).eps) / 2 for each in (dtype, np.float64))
    T, *others = problem.sizes
    terms, lost = T * sum(others), bound_underflow(problem, dtype)

    def allow(name: str, value: Array) -> Array:
        # Steps differ in size. A column of ∂L/∂U may be one step's.
        axes: dict[str, int | tuple[int, int]] = {"U": 0, "x": (1, 2), "adjoints": (1, 2)}
        axis = axes.get(name)
        largest = np.max(np.abs(value), axis=axis, keepdims=True)
        allowed = SAFETY * np.sqrt(terms) * unit * largest + lost  # (N4)
        return np.broadcast_to(allowed, value.shape)

    allowed = {name: allow(name, value) for name, value in values.items() if name in names}
    return loosen_where_overflowing(Truth({n: values[n] for n in allowed}, allowed), dtype)


def has_derived_bound(problem: Problem) -> bool:
    """Tell whether docs/derivation.md, section 9, bounds the errors of this problem."""
    full = problem.lengths is None and problem.truncation is None and problem.outputs == "last"
    return full and problem.cell == "rnn" and problem.loss in LOSSES and fits_capacity(problem)


def loosen_where_overflowing(known: Truth, dtype: Any) -> Truth:
    """Allow any error where products of the values may overflow in that dtype."""
    values = np.concatenate([value.ravel() for value in known.values.values()])
    if np.max(np.abs(values)) < float(describe_dtype(dtype).max) ** 0.5:
        return known
    return Truth(known.values, {n: np.full_like(v, np.inf) for n, v in known.values.items()})
