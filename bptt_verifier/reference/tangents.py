"""The reference of tangents by autodiff: forward mode and Hessian-vector products of the RNN.

As in `autodiff`, problems are padded to one capacity, which compiles once for each activation.
"""

from functools import partial
from typing import Any

import jax
import numpy as np

from bptt_verifier.problems.problem import LARGEST, LOSSES, Problem
from bptt_verifier.reference.autodiff import lay_out, name_arrays, reference
from bptt_verifier.reference.case import Truth
from bptt_verifier.tolerance.noise import UNOPTIMISED
from bptt_verifier.tolerance.tangent_bounds import bound_tangents
from jax_reference import padded
from jax_reference.unrolled import Derivatives
from manual_bptt.tangents import Direction

_move_padded = partial(
    jax.jit, static_argnames=("model", "states", "measures"), compiler_options=UNOPTIMISED
)(padded.moved)


def reference_tangents(problem: Problem, direction: Direction) -> Derivatives:
    """Compute autodiff's tangents along a direction at a problem that fits, in float64."""
    parts = direction._asdict()
    moved = {
        name: np.zeros_like(value) if parts[name] is None else parts[name]
        for name, value in (problem.weights | {"x": problem.x}).items()
    }
    x, first = moved.pop("x"), {} if direction.h0 is None else {"h0": direction.h0}
    along = problem._replace(params=problem.params._replace(**moved), x=x, first=first)
    with jax.enable_x64(True):
        laid, laid_along = (lay_out(each, LARGEST) for each in (problem, along))
        at = laid.problem, laid_along.problem, laid.fixed
        return laid.cut(*_move_padded(laid.model, laid.states, LOSSES, *at))


def tangent_truth(problem: Problem, direction: Direction) -> Truth:
    """Find autodiff's tangents by name, with the derived bound of a correct derivation. (E13)."""
    values, dtype = name_arrays(reference_tangents(problem, direction)), problem.x.dtype
    own = bound_tangents(
        problem.params, direction, problem.x, problem.y, reference(problem),
        dtype=dtype, loss=problem.loss, **problem.option,
    )  # fmt: skip
    both = 1 + np.finfo(np.float64).eps / np.finfo(dtype).eps
    allowed: dict[str, Any] = {n: both * bound for n, bound in name_arrays(own).items()}  # (E13)
    return Truth(values, {name: allowed[name] for name in values})
