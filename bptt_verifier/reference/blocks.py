"""A block of problems: their references, and the bounds derived for them, computed together."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from bptt_verifier.problems.cached import make_read_only
from bptt_verifier.problems.problem import LARGEST, Array, Problem
from bptt_verifier.tolerance.bounds import Bounds, Extent, Format, bound_results, find_format
from jax_reference import blocks
from jax_reference.unrolled import Derivatives, States


class ReferenceBlock:
    """Autodiff's derivatives at plain networks of one activation, and the bounds on their errors.

    JAX computes the derivatives while Python continues; whoever asks for them waits. The bounds of
    all problems are derived where that of one is asked for.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        arrays = [each.weights | {"x": each.x, "y": each.y} | each.first for each in problems]
        losses = [each.loss for each in problems]
        self.problems, self.activation = problems, problems[0].option["activation"]
        self.block = blocks.start("rnn", self.activation, arrays, losses, LARGEST)
        self.dtypes = tuple(each.x.dtype for each in problems)
        self.bounds: dict[tuple[Any, ...], Bounds] = {}

    def cut(self, number: int) -> Derivatives:
        """The derivatives at one problem, in float64 and read-only."""
        return make_read_only(self.block.cut(number))

    def bound(self, number: int, dtype: Any) -> Bounds:
        """Bound the errors of a submission's results in `dtype` at one problem.

        The others are taken in their own dtypes, unless this one is in another than its own.
        """
        own = self.dtypes
        dtypes = own if dtype == own[number] else (dtype,) * len(own)
        if dtypes not in self.bounds:
            self.bounds[dtypes] = make_read_only(self.derive_bounds(dtypes))
        found, T, B, D, H, O = self.bounds[dtypes], *self.problems[number].sizes
        steps = slice(LARGEST.T - T, None)
        return Bounds(
            loss=found.loss[number, ...],
            prediction=found.prediction[number, :B, :O],
            U=found.U[number, :H, :D],
            W=found.W[number, :H, :H],
            V=found.V[number, :O, :H],
            b=found.b[number, :H],
            c=found.c[number, :O],
            x=found.x[steps, number, :B, :D],
            h0=found.h0[number, :B, :H],
            adjoints=found.adjoints[steps, number, :B, :H],
        )

    def derive_bounds(self, dtypes: Sequence[Any]) -> Bounds:
        """Derive the bounds of all problems, which include the error of the reference. (E13)"""
        formats = {dtype: find_format(dtype) for dtype in dict.fromkeys(dtypes)}
        columns = zip(*(formats[dtype] for dtype in dtypes), strict=True)
        form = Format(*(np.reshape(column, (-1, 1, 1)) for column in columns))
        losses = np.reshape([each.loss for each in self.problems], (-1, 1, 1))
        found = bound_results(*self.aligned, form, self.extent, self.activation, losses)
        both = 1 + find_format(np.float64).u / form.u  # (E13)
        shaped = {1: both[:, 0, 0], 2: both[:, 0]}
        return Bounds(*(shaped.get(bound.ndim, both) * bound for bound in found))

    @cached_property
    def extent(self) -> Extent:
        """The sizes of the problems, and where they lie in the arrays of `aligned`."""
        sizes = np.transpose([each.sizes for each in self.problems]).reshape(5, -1, 1, 1)
        T, B, D, H, O = sizes
        steps, sequences = (np.arange(n)[:, None] for n in (LARGEST.T, LARGEST.B))
        units, outputs = (np.arange(n) for n in (LARGEST.H, LARGEST.O))
        of_steps = (steps[:, :, None, None] >= LARGEST.T - T) & (sequences < B)
        hidden, shown = of_steps & (units < H), (sequences < B) & (outputs < O)
        first = LARGEST.T - T.ravel(), np.arange(len(self.problems))
        return Extent(T, B, D, H, O, hidden.astype(np.float64), shown.astype(np.float64), first)

    @cached_property
    def aligned(self) -> tuple[Any, Array, Array, States]:
        """The parameters, x, y and the states of all problems, as `bound_results` takes them."""
        laid, fixed, (_, _, reached) = self.block.problems, self.block.fixed, self.block.results
        extent = self.extent
        here, T = np.arange(len(self.problems)), extent.T.ravel()

        def align(values: Array) -> Array:
            """Move the padding of time before the first step, and the axis of time to the front."""
            step = np.arange(values.shape[1])[:, None] - LARGEST.T + T
            found: Array = values[here, np.maximum(step, 0)]
            found *= (step >= 0).reshape(*step.shape, 1, 1)
            return found

        params = laid._replace(b=laid.b[:, None], c=laid.c[:, None])
        params = laid._replace(**{n: getattr(params, n)[: len(here)] for n in "UWVbc"})
        states = States(
            reached.prediction[here, T - 1] * extent.outputs,
            align(reached.a) * extent.hidden,
            align(reached.h) * extent.hidden[-1],
        )
        return params, align(laid.x), fixed.y[here, T - 1], states
