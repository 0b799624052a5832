"""Pull-backs of cotangents through a stated function, in float64: a kernel's exact gradients.

The function is one of JAX, of plain NumPy or of PyTorch. docs/derivation.md, section 17.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verifier.program import torch_losses
from bptt_verifier.program.arguments import (
    NO_ARRAYS,
    Arguments,
    convert_to_numpy,
    read_outputs,
    require_arrays,
)
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.numpy_code import trace_arrays
from bptt_verifier.program.precision import find_narrowing, is_loop, use_float64
from bptt_verifier.program.torch_points import compute_at_points, pull_back_at_points
from bptt_verifier.program.torch_tensors import find_torch, is_tensor
from bptt_verifier.program.torch_trace import trace_tensors
from bptt_verifier.program.trees import map_leaves, pair_leaves, replace_leaves
from bptt_verifier.program.zero_cotangents import keep_zeros
from bptt_verifier.reference.excluded_scores import find_excluding
from bptt_verifier.reference.kept_zeros import has_nan, leave_out_kinks
from bptt_verifier.reference.lost_numbers import is_lost, list_unconfirmed, restore_numbers
from bptt_verifier.reference.lost_tensors import restoring_numbers
from bptt_verifier.reference.overflows import find_overflowing, has
from bptt_verifier.reference.point_arrays import (
    Arrays,
    Pulled,
    select_floating,
    select_traced,
    stack,
    to_jax,
    widen,
)
from bptt_verifier.tolerance.formats import (
    allow_elementary,
    find_largest,
    find_smallest,
    find_unit,
    is_floating,
)
from bptt_verifier.tolerance.noise import SAMPLES, UNOPTIMISED, Roundoff, add_noise

Forward = Callable[..., Any]
REMEDY = "leave out conversions and dtypes in the forward pass that states the function"
SMALL = 4096  # entries of all arguments; beyond, optimising a compilation pays
UNROLLED = 100  # operations without a loop; beyond, calling each of them is quicker than compiling
SAME = 1e-9  # relative difference of two float64 computations of one forward pass, at most
NO_ROUNDING = 2.0**-60  # a unit roundoff that changes no number in float64


class Pullback(ABC):
    """The forward pass of one setting, and the pull-back of cotangents through it, in float64."""

    def __init__(self, forward: Forward, arguments: Arguments) -> None:
        self.forward, self.arguments = forward, arguments
        self.is_careful = False  # as quotients of large numbers have asked for at some point (V16)

    @cached_property
    def structure(self) -> Any:
        """The outputs at the arguments given, or what has their shapes and dtypes, as a pytree."""
        return self.find_structure()

    @cached_property
    def excluding(self) -> frozenset[str]:
        """The arguments in which a number stands for −∞: twice that gives the same outputs."""
        return find_excluding(self)

    @property
    def outputs(self) -> dict[str, Any]:
        """The floating outputs at the arguments given, or their shapes and dtypes, by name."""
        return {n: x for n, x in read_outputs(self.structure).items() if is_floating(x.dtype)}

    def call(self, arrays: Mapping[str, Any]) -> Any:
        """Call the function with other arrays in the places of the floating leaves."""
        given = self.arguments.rebuild(arrays, like=False)
        return require_arrays(self.arguments.call(self.forward, given))

    @abstractmethod
    def find_structure(self) -> Any:
        """Find the structure of the outputs in float64. Raises ValueError where that is left."""

    @abstractmethod
    def pull_back(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> Pulled:
        """Pull cotangents back at each point."""

    def confirm(
        self, points: Sequence[Arrays], cotangents: Sequence[Arrays], pulled: Pulled
    ) -> Pulled:
        """Confirm gradients by differences of the outputs, or put NaN where they are lost. (V15)

        Where differences do not confirm them, quotients are differentiated with care (V16); where
        they do not confirm these either, numbers that float64 cannot hold may be the reason (V17).
        """
        at = points, cotangents
        doubtful = self.list_unconfirmed(*at, pulled.gradients)
        if not doubtful:
            return pulled
        careful = self.compute_carefully(*at)
        left = {*self.list_unconfirmed(*at, careful.gradients)} & {*doubtful}
        restored = self.restore_numbers(*at).gradients if left else {}
        self.is_careful |= left != {*doubtful}
        for name, gradient in pulled.gradients.items():
            for k in doubtful:
                if k not in left:
                    gradient[k] = careful.gradients[name][k]
                elif is_lost(careful.gradients[name][k], restored[name][k]):
                    gradient[k] = np.nan
        return pulled

    def list_unconfirmed(
        self, points: Sequence[Arrays], cotangents: Sequence[Arrays], gradients: Arrays
    ) -> list[int]:
        """List the points at which differences of the outputs do not confirm gradients. (V15)"""
        return list_unconfirmed(
            lambda there: self.compute_outputs(there, cotangents), points, cotangents, gradients
        )

    @abstractmethod
    def compute_outputs(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> Arrays:
        """Compute the outputs at points, of which there are some for each of the `cotangents`."""

    @abstractmethod
    def compute_carefully(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> Pulled:
        """Pull cotangents back without the square of a divisor (V16), and zeros as zeros (N8)."""

    @abstractmethod
    def restore_numbers(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> Pulled:
        """Do so with numbers of float64 in the place of those that it cannot hold. (V17)"""

    @abstractmethod
    def imitate_rounding(
        self, points: Sequence[Arrays], cotangents: Sequence[Arrays], dtype: Any
    ) -> Pulled:
        """Compute the errors that rounding each operation to a format makes.

        They are stacked over samples and points. In a sample the relative error of an operation is
        the same at all points, as that of a number that rounds alike at all of them.
        """

    @abstractmethod
    def find_overflows(
        self, points: Sequence[Arrays], cotangents: Sequence[Arrays], largest: float
    ) -> Pulled:
        """Find the results that depend on a number inside that is larger than `largest`.

        That number may be one of another formula. True for each such entry, stacked over
        the points.
        """


class JaxPullback(Pullback):
    """The pull-back through a function of JAX, for all points at once."""

    def __init__(self, forward: Forward, arguments: Arguments) -> None:
        super().__init__(forward, arguments)
        # By the number of points, and by the format that is imitated; and whether zeros are kept,
        # as where autodiff gives NaN (N8).
        self.compiled: dict[tuple[int, bool], Any] = {}
        self.noisy: dict[tuple[Roundoff, bool], Any] = {}
        self.has_kept = False  # zeros, at some point
        self.is_unrolled = False  # and has so many operations that a compilation takes longest
        self.is_small = sum(v.size for v in arguments.leaves.values()) <= SMALL

    def find_structure(self) -> Any:
        """Trace the function at the arguments given."""
        point = widen(self.arguments.leaves)
        function, last = self.trace(point), list[Any]()

        def run(arrays: Any) -> Any:
            last[:] = [function(arrays)]  # whose mappings are in the order of the user's code
            return last[0]

        with use_float64():
            shape: Any
            jaxpr, shape = jax.make_jaxpr(run, return_shape=True)(to_jax(point))
        self.is_unrolled = len(jaxpr.eqns) > UNROLLED and not has(jaxpr.jaxpr, is_loop)
        narrower = find_narrowing(jaxpr.jaxpr)
        if narrower:
            raise ValueError(f"the forward pass converts float64 to {narrower}: {REMEDY}")
        return replace_leaves(last[0], (each for _, each in pair_leaves(last[0], shape)))

    def trace(self, point: Arrays) -> Callable[[Any], Any]:
        """Make the function of a dict of arrays that JAX differentiates."""
        return self.call

    def compile(self, at: Any, back: Any, keeps: bool) -> Any:
        """Compile outputs and pull-back for stacked points, traced at the first of them."""
        options = UNOPTIMISED if self.is_small else None
        every = jax.vmap(self.make_single(at, keeps))
        return jax.jit(every, compiler_options=options).lower(at, back).compile()

    def make_single(self, at: Any, keeps: bool) -> Callable[[Any, Any], Any]:
        """Make the outputs and the pull-back at one point, traced at the first of these."""
        function = self.trace({n: np.asarray(x)[0] for n, x in at.items()})

        def select(arrays: Any) -> Any:
            return select_traced(function(arrays))

        def one(arrays: Any, given: Any) -> Any:
            return self.differentiate(self.care(select) if keeps else select, arrays, given)

        return one

    def care(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Make the function whose derivative keeps zeros (N8) and squares no divisor (V16)."""
        return keep_zeros(function)

    def differentiate(self, function: Callable[[Any], Any], at: Any, given: Any) -> Any:
        """Compute the outputs at a point and the pull-back of cotangents, all by name."""
        outputs, pull = jax.vjp(function, at)
        return outputs, pull({n: given[n] for n in outputs})[0]

    def pull_back(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> Pulled:
        """Pull cotangents back at all points in one compiled call; keep zeros where it gives NaN.

        Where the gradient is NaN with kept zeros as well, or an output is, NaN stays. Where it is a
        number, quotients are differentiated with care if a point has asked for that.
        """
        pulled = self.compute(points, cotangents)
        missing = [k for k in range(len(points)) if has_nan(pulled.gradients, k)]
        if not (missing or self.is_careful):
            return pulled
        again = self.compute(points, cotangents, keeps=True)
        known = [k for k in range(len(points)) if not has_nan(again.named, k)]
        kept = [k for k in known if k in missing]
        replaced = known if self.is_careful else kept
        for name, gradient in pulled.gradients.items():
            gradient[replaced] = again.gradients[name][replaced]
        if kept:
            self.has_kept = True
            gradients = pulled.gradients
            leave_out_kinks(self.compute_kept, points, cotangents, gradients, kept, self.excluding)
        return pulled._replace(kept=kept)

    def compute_kept(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> Arrays:
        """Compute the gradients with kept zeros."""
        return self.compute(points, cotangents, keeps=True).gradients

    def compute_outputs(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> Arrays:
        """Compute the outputs by what is compiled for as many points as there are cotangents."""
        number = len(cotangents)
        starts = range(0, len(points), number)
        groups = [self.compute(points[k : k + number], cotangents).outputs for k in starts]
        return {name: np.concatenate([each[name] for each in groups]) for name in groups[0]}

    def compute_carefully(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> Pulled:
        """Compute another derivative, which is compiled as well."""
        return self.compute(points, cotangents, keeps=True)

    def restore_numbers(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> Pulled:
        """Evaluate the traced pull-back with other numbers in it."""
        with use_float64():
            at, back = stack(points), stack(cotangents)
            every = jax.vmap(restore_numbers(self.make_single(at, keeps=True)))
            if not self.is_unrolled:
                every = jax.jit(every, compiler_options=UNOPTIMISED)
            return Pulled(*jax.tree.map(np.asarray, every(at, back)))

    def compute(
        self, points: Sequence[Arrays], cotangents: Sequence[Arrays], keeps: bool = False
    ) -> Pulled:
        """Compute the outputs, and the cotangents pulled back, at all points."""
        count = len(points)
        most = max((number for number, each in self.compiled if each is keeps), default=0)
        if self.is_small and count < most:  # to compute more is quicker than to compile again
            missing = most - count
            points = [*points, *[points[0]] * missing]
            cotangents = [*cotangents, *[cotangents[0]] * missing]
        with use_float64():
            at, back = stack(points), stack(cotangents)
            kind = len(points), keeps
            if traced_here := kind not in self.compiled:
                self.compiled[kind] = self.compile(at, back, keeps)
            found = self.compiled[kind](at, back)
            outputs, gradients = (
                {n: np.array(g)[:count] for n, g in each.items()} for each in found
            )
            others = self.list_other_paths(points[:count], outputs)
            for k in others if len(points) > 1 or not traced_here else ():
                alone = type(self)(self.forward, self.arguments)
                there = alone.compute([points[k]], [cotangents[k]], keeps)
                for every, alone_there in (outputs, there.outputs), (gradients, there.gradients):
                    for name, each in alone_there.items():
                        every[name][k] = each[0]
        return Pulled(outputs, gradients)

    def imitate_rounding(
        self, points: Sequence[Arrays], cotangents: Sequence[Arrays], dtype: Any
    ) -> Pulled:
        """Evaluate the traced pull-back with an error after every operation, and without."""
        unit = find_unit(dtype)
        limits = find_smallest(dtype) / unit, find_largest(dtype)
        form = Roundoff(unit, allow_elementary(dtype), *limits)
        with use_float64():
            at, back = stack(points), stack(cotangents)
            keeps = self.needs_kept_zeros(points, cotangents)
            if self.is_unrolled:
                every = jax.vmap(self.make_noisy(at, form, keeps), in_axes=(0, 0, None, None))
                salts = jnp.arange(SAMPLES + 1, dtype=jnp.uint64)
                found = every(salts, jnp.where(salts > 0, unit, 0.0), at, back)
                return Pulled(*jax.tree.map(lambda each: np.asarray(each[1:] - each[0]), found))
            noisy = self.add_errors(at, form, keeps)
            exact = noisy(jnp.uint64(0), 0.0, at, back)
            samples = [noisy(jnp.uint64(k + 1), unit, at, back) for k in range(SAMPLES)]
            errors = [jax.tree.map(np.subtract, each, exact) for each in samples]
        return Pulled(*jax.tree.map(lambda *each: np.stack(each), *errors))

    def needs_kept_zeros(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> bool:
        """Tell whether autodiff gives NaN at one of the points; elsewhere kept zeros change none.

        Where it is finite, each zero that is kept was a zero, or was selected by nothing. They are
        kept, too, where quotients ask for care.
        """
        if self.is_careful:
            return True
        found = self.compute(points, cotangents).gradients if self.has_kept else {}
        return any(has_nan(found, k) for k in range(len(points)))

    def add_errors(self, at: Any, form: Roundoff, keeps: bool) -> Any:
        """Compile outputs and pull-back for stacked points, with an error after every operation."""
        kind = form, keeps
        if kind not in self.noisy:
            noisy = self.make_noisy(at, form, keeps)
            self.noisy[kind] = jax.jit(noisy, compiler_options=UNOPTIMISED)
        return self.noisy[kind]

    def make_noisy(self, at: Any, form: Roundoff, keeps: bool) -> Any:
        """Make outputs and pull-back for stacked points, with an error after every operation."""
        single = add_noise(self.make_single(at, keeps), form)
        return jax.vmap(single, in_axes=(None, None, 0, 0))

    def find_overflows(
        self, points: Sequence[Arrays], cotangents: Sequence[Arrays], largest: float
    ) -> Pulled:
        """Evaluate the traced pull-back with NaN in the place of numbers that are too large."""
        with use_float64():
            at, back = stack(points), stack(cotangents)
            keeps = self.needs_kept_zeros(points, cotangents)
            first = jax.tree.map(lambda x: x[0], (at, back))
            jaxpr = jax.make_jaxpr(self.make_single(at, keeps))(*first)
            noisy = self.add_errors(at, find_overflowing(jaxpr.jaxpr, largest), keeps)
            found = noisy(jnp.uint64(1), NO_ROUNDING, at, back)
            return Pulled(*jax.tree.map(lambda each: np.isnan(np.asarray(each)), found))

    def list_other_paths(self, points: Sequence[Arrays], outputs: Arrays) -> list[int]:
        """List the points at which the code takes another path than the one compiled; none here."""
        return []


class NumpyPullback(JaxPullback):
    """The pull-back through a function of plain NumPy, which is traced at one point."""

    def trace(self, point: Arrays) -> Callable[[Any], Any]:
        """Trace the function's program at a point."""

        @wraps(self.forward)
        def function(arrays: dict[str, Any]) -> Any:
            return self.call(arrays)

        function.__module__ = __name__  # whose globals it has
        return trace_arrays(function, point)

    def list_other_paths(self, points: Sequence[Arrays], outputs: Arrays) -> list[int]:
        """List the points at which NumPy's outputs are not those of the traced program."""
        others = []
        for k, point in enumerate(points):
            for name, true in select_floating(self.call(widen(point))).items():
                size = float(np.abs(true[np.isfinite(true)]).max(initial=0.0))
                if not np.allclose(outputs[name][k], true, SAME, SAME * size, equal_nan=True):
                    others.append(k)
                    break
        return others


class TracedPullback(JaxPullback):
    """The pull-back through a function of PyTorch that JAX traces."""

    def trace(self, point: Arrays) -> Callable[[Any], Any]:
        """Trace the function at a point, on tensors."""
        return trace_tensors(self.call_on_tensors, point)

    def call_on_tensors(self, tensors: Mapping[str, Any]) -> Any:
        """Call the function with tensors in float64."""
        with torch_losses.use_float64():
            return self.call(tensors)


class TorchPullback(Pullback):
    """The pull-back through a function of PyTorch, by torch.autograd."""

    def find_structure(self) -> Any:
        """Run the function at the arguments given."""
        outputs = self.call(torch_losses.make_tensors(widen(self.arguments.leaves)))
        return require_float64(map_leaves(convert_to_numpy, outputs))

    def call(self, arrays: Mapping[str, Any]) -> Any:
        """Call the function with tensors in float64."""
        with torch_losses.use_float64():
            return super().call(arrays)

    def pull_back(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> Pulled:
        """Pull cotangents back at all points together, or at one after the other."""
        at, back = ([widen(each) for each in some] for some in (points, cotangents))
        return Pulled(*pull_back_at_points(self.call, at, back))

    @cached_property
    def traced(self) -> JaxPullback:
        """The same function as JAX traces it, whose operations are known."""
        return TracedPullback(self.forward, self.arguments)

    def compute_outputs(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> Arrays:
        """Run the function at all points together, or at one after the other."""
        return compute_at_points(self.call, [widen(point) for point in points])

    def compute_carefully(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> Pulled:
        """Pull back in the function that JAX traces, or as before where it traces none."""
        found = attempt(self.traced.compute_carefully, points, cotangents)
        return self.pull_back(points, cotangents) if isinstance(found, Failure) else found

    def restore_numbers(self, points: Sequence[Arrays], cotangents: Sequence[Arrays]) -> Pulled:
        """Restore numbers in the function that JAX traces, or in PyTorch where it traces none."""
        found: Pulled | Failure = attempt(self.traced.restore_numbers, points, cotangents)
        if not isinstance(found, Failure):
            return found
        with restoring_numbers():
            return self.pull_back(points, cotangents)

    def imitate_rounding(
        self, points: Sequence[Arrays], cotangents: Sequence[Arrays], dtype: Any
    ) -> Pulled:
        """Imitate rounding in the function that JAX traces. Raises UntraceableError."""
        return self.traced.imitate_rounding(points, cotangents, dtype)

    def find_overflows(
        self, points: Sequence[Arrays], cotangents: Sequence[Arrays], largest: float
    ) -> Pulled:
        """Find them in the function that JAX traces. Raises UntraceableError."""
        return self.traced.find_overflows(points, cotangents, largest)


def prepare_pullback(forward: Forward, arguments: Arguments) -> Pullback:
    """Find out how a forward pass computes, and prepare its pull-back.

    Raises ValueError, with one sentence, where it can be run by none of JAX, NumPy and PyTorch, or
    computes in less than float64.
    """
    kinds: list[type[Pullback]] = [JaxPullback, NumpyPullback]
    tensors = any(is_tensor(each) for each in jax.tree.leaves(arguments.given))
    if torch_losses.names_torch(forward):
        kinds = [TorchPullback]
    elif find_torch() is not None:  # which the function may call by another name
        kinds.insert(0 if tensors else len(kinds), TorchPullback)
    failures = {}
    for kind in kinds:
        pullback = kind(forward, arguments)
        found = attempt(lambda each: each.structure, pullback)
        if not isinstance(found, Failure):
            require_float64(found)
            return pullback
        failures[kind] = found
    for each in failures.values():
        if NO_ARRAYS in each.what:
            raise ValueError(each.what[each.what.index(NO_ARRAYS) :])
    # What JAX cannot trace is plain NumPy: what is said there is about the user's code.
    last = failures.get(NumpyPullback, failures[kinds[0]]).what
    what = next((each.what for each in failures.values() if REMEDY in each.what), last)
    said = f"forward: expected a function of these arguments, which raised {what}"
    if tensors:
        said += (
            "; the arguments are tensors: state the function in torch, or give NumPy arrays, of "
            "which from_torch makes tensors for the kernel"
        )
    raise ValueError(said)


def require_float64(structure: Any) -> Any:
    """Return the outputs of a forward pass. Raises ValueError unless they are in float64."""
    outputs = read_outputs(structure)
    floating = {name: x.dtype for name, x in outputs.items() if is_floating(x.dtype)}
    if not floating:
        found = ", ".join(f"{name} of {x.dtype}" for name, x in outputs.items()) or "none"
        raise ValueError(
            f"forward: expected a function that returns arrays of floats, found {found}"
        )
    for name, dtype in floating.items():
        if dtype != np.float64:
            raise ValueError(f"{name} is {dtype} where all arguments are float64: {REMEDY}")
    return structure
