"""The diagnosis of numbers alone: no verdict, no measured errors, a few points."""

import inspect
import linecache
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.evidence import Witness
from bptt_verifier.mistakes.own_diagnosis import diagnose
from bptt_verifier.program.backward import backward
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.trace import Program, forward, trace
from bptt_verifier.reference.points import draw_parameters
from bptt_verifier.report import Mistake

POINTS = (1, 3, 5)  # draws in float64 for these numbers
IN_BOTH_PRECISIONS = pytest.mark.parametrize(
    "dtype", [np.float64, pytest.param(np.float32, marks=pytest.mark.slow)]
)


def ones(**shapes: tuple[int, ...]) -> dict[str, Any]:
    """Parameters of these names and shapes."""
    return {name: np.ones(shape) for name, shape in shapes.items()}


@lru_cache
def trace_points(loss: Callable[..., Any], shapes: Any, dtype: Any) -> tuple[Program, list[Any]]:
    """Trace a loss; draw parameters, in this dtype and in float64, with the true gradients."""
    params = {name: np.full(shape, 0.5) for name, shape in shapes}
    with use_float64():
        program, points = trace(loss, params), []
        for number in POINTS:
            drawn = draw_parameters(params, seed=0, case=number)
            point = {name: value.astype(dtype) for name, value in drawn.items()}
            wide = {name: value.astype(np.float64) for name, value in point.items()}
            found = backward(program, forward(program, wide))
            points.append((point, wide, {name: value[0] for name, value in found.items()}))
    return program, points


def diagnose_numbers(
    loss: Callable[..., Any],
    params: Mapping[str, Any],
    gradients: Callable[..., Any],
    dtype: Any = np.float64,
    least: float = 0.0,
) -> tuple[Mistake, ...]:
    """Diagnose gradients that are computed in this dtype; what float64 rounds is allowed.

    At least that: of a gradient that is zero to rounding, its own size does not tell.
    """
    allowed = 2.0**-40 if dtype == np.float64 else 2.0**-17
    shapes = tuple((name, np.shape(value)) for name, value in params.items())
    program, points = trace_points(loss, shapes, np.dtype(dtype))
    witnesses = []
    for point, wide, true in points:
        errors = {
            name: np.full_like(v, max(least, allowed * np.max(np.abs(v))))
            for name, v in true.items()
        }
        submitted = {name: np.asarray(v, dtype) for name, v in gradients(point).items()}
        witnesses.append(Witness(wide, submitted, true, errors, True))
    with use_float64():
        return diagnose(program, witnesses)


def diagnose_planted(
    model: tuple[Callable[..., Any], Callable[..., Any], Mapping[str, Any]],
    *changes: tuple[str, str],
    dtype: Any = np.float64,
) -> tuple[Mistake, ...]:
    """Diagnose the gradients of a loss with these texts of their source changed.

    `model` is the loss, its gradients and parameters of the shapes that both take.
    """
    loss, gradients, params = model
    return diagnose_numbers(loss, params, plant(gradients, *changes), dtype)


def plant(function: Callable[..., Any], *changes: tuple[str, str]) -> Callable[..., Any]:
    """Change texts of a function's source, each of which occurs exactly once."""
    return compile_function(function, f"<{function.__name__}>", change_source(function, *changes))


def plant_in_file(
    function: Callable[..., Any], path: Path, *changes: tuple[str, str]
) -> Callable[..., Any]:
    """Change texts of a function's source in a file, from which its lines are read."""
    source = change_source(function, *changes)
    path.write_text(source)
    linecache.checkcache(str(path))
    return compile_function(function, str(path), source)


def change_source(function: Callable[..., Any], *changes: tuple[str, str]) -> str:
    """Change texts of the source of a function, each of which occurs exactly once."""
    source = inspect.getsource(function)
    for right, written in changes:
        assert source.count(right) == 1, f"{right!r} occurs {source.count(right)} times"
        source = source.replace(right, written)
    return source


def compile_function(function: Callable[..., Any], file: str, source: str) -> Callable[..., Any]:
    """Compile another source of a function, which reads the same globals."""
    module = ModuleType("planted")
    exec(compile(source, file, "exec"), function.__globals__, module.__dict__)
    planted: Callable[..., Any] = module.__dict__[function.__name__]
    return planted
