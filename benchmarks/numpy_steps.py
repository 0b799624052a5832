"""Training steps in NumPy: the derivation by hand, and its matrix products alone."""

import tracemalloc
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.contenders import Contender, Setting, Step, Unavailable, fastest, named
from bptt_verifier.problems.problem import CELLS, GATES, Problem
from manual_bptt.workspace import Workspace


def copied(params: Any) -> Any:
    """A copy of the parameters, which a step may overwrite."""
    return type(params)(*(None if weight is None else weight.copy() for weight in params))


def require_numpy(problem: Problem, setting: Setting) -> None:
    """Raise Unavailable on a GPU, and for a dtype that NumPy does not compute with."""
    if setting.gpu:
        raise Unavailable("NumPy computes on the CPU")
    if not np.issubdtype(problem.x.dtype, np.floating):
        raise Unavailable(f"NumPy does not compute with {problem.x.dtype}")


def manual(name: str, problem: Problem, setting: Setting, **options: Any) -> Contender:
    """The preallocated workspace of the cell; `options` are those of the workspace."""
    require_numpy(problem, setting)
    options |= {**problem.option, "loss": problem.loss}
    workspace = Workspace(problem.params, problem.x, **options)

    def step(params: Any, rate: float) -> tuple[Any, Any]:
        return workspace.step(params, problem.x, problem.y, rate), params

    return Contender(
        name,
        start=partial(copied, problem.params),
        step=step,
        parameters=named,
        temporary_bytes=workspace.nbytes,
    )


def readable(name: str, problem: Problem, setting: Setting) -> Contender:
    """The readable module of a cell, which is not written for speed."""
    require_numpy(problem, setting)
    module: ModuleType = CELLS[problem.cell]

    def step(params: Any, rate: float) -> tuple[Any, Any]:
        loss, gradient = module.value_and_grad(
            params, problem.x, problem.y, **problem.option, loss=problem.loss
        )
        for weight, slope in zip(params, gradient, strict=True):
            if weight is not None:
                weight[...] -= rate * slope
        return loss, params

    start = partial(copied, problem.params)
    return Contender(
        name, start, step, parameters=named, temporary_bytes=peak_memory(step, start())
    )


def peak_memory(step: Step, params: Any) -> int:
    """The peak of the bytes that a step allocates, by tracemalloc."""
    tracemalloc.start()
    try:
        step(params, 0.0)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def products(problem: Problem, *, copied_transpose: bool) -> Step:
    """The matrix products of one training step alone, into preallocated arrays.

    The operands have the shapes of a training step, but not its values; docs/performance.md counts
    the products. Every time step overwrites the result of the one before, so no more memory is
    touched than the products need. Wᵀ is a view, or a copy where `copied_transpose`.
    """
    (T, B, D), (O, H), dtype = problem.x.shape, problem.params.V.shape, problem.x.dtype
    columns = GATES[problem.cell] * H
    U, W, V = problem.params.U, problem.params.W, problem.params.V
    rng = np.random.default_rng(0)
    x = problem.x.reshape(T * B, D)
    h = rng.normal(size=(T, B, H)).astype(dtype)
    dy = rng.normal(size=(B, O)).astype(dtype)
    a, W_T = np.empty((T, B, columns), dtype), np.empty_like(W.T, order="C")
    next_a, next_h = np.empty((B, columns), dtype), np.empty((B, H), dtype)
    prediction, dU, dW, dV = np.empty_like(dy), np.empty_like(U), np.empty_like(W), np.empty_like(V)

    def step(state: Any, rate: float) -> tuple[Any, Any]:
        recurrent = W.T
        if copied_transpose:
            np.copyto(W_T, W.T)
            recurrent = W_T
        np.dot(x, U.T, out=a.reshape(T * B, columns))
        for t in range(1, T):
            np.dot(h[t - 1], recurrent, out=next_a)
        np.dot(h[T - 1], V.T, out=prediction)
        np.dot(dy, V, out=next_h)
        for t in range(T - 1, 0, -1):
            np.dot(a[t], W, out=next_h)
        np.dot(dy.T, h[T - 1], out=dV)
        np.dot(a.reshape(T * B, columns).T, x, out=dU)
        np.dot(a[1:].reshape(-1, columns).T, h[:-1].reshape(-1, H), out=dW)
        return None, state

    return step


def limit(name: str, problem: Problem, setting: Setting) -> Contender:
    """The matrix products alone, with a copy of Wᵀ where that is faster; it has no gradients."""
    require_numpy(problem, setting)
    steps = (products(problem, copied_transpose=copied) for copied in (False, True))
    chosen = fastest([partial(step, None, 0.0) for step in steps])
    return Contender(name, lambda: None, lambda state, rate: (chosen()[0], state), parameters=None)
