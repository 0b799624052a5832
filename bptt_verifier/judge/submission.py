"""Somebody's own derivation: calling it without trusting it.

It gets fresh copies of everything, so that nothing it modifies can be blamed on it later; what it
returns is copied at once, since it may be a view of its inputs or of a buffer that it uses again.
"""

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial, wraps
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Problem
from bptt_verifier.report.report import Mistake
from bptt_verifier.tolerance.comparison import Array

NAMES = ("U", "W", "V", "b", "c", "b_n")
OPTIONAL = ("loss", "prediction", "x", "h0", "c0", "adjoints")


def by_field_or_place(params: Any, key: Any) -> Any:
    """`params["U"]` as well as `params[0]`."""
    return getattr(params, key) if isinstance(key, str) else tuple.__getitem__(params, key)


class Weights(NamedTuple):
    """The parameters as a derivation gets them: by field, by name or in order."""

    U: Array
    W: Array
    V: Array

    def __getitem__(self, key: Any) -> Any:
        return by_field_or_place(self, key)


class BiasedWeights(NamedTuple):
    """The parameters of a model with biases."""

    U: Array
    W: Array
    V: Array
    b: Array
    c: Array

    def __getitem__(self, key: Any) -> Any:
        return by_field_or_place(self, key)


class GruBiasedWeights(NamedTuple):
    """The parameters of a GRU with biases; b_n stands beside W_n."""

    U: Array
    W: Array
    V: Array
    b: Array
    c: Array
    b_n: Array

    def __getitem__(self, key: Any) -> Any:
        return by_field_or_place(self, key)


# By the number of the parameters.
WEIGHTS = {len(kind._fields): kind for kind in (Weights, BiasedWeights, GruBiasedWeights)}


def call_with(arrays: Mapping[str, Array], by_name: tuple[str, ...] = ()) -> str:
    """The lines that call a derivation with these numbers: the parameters, then the others.

    Those in `by_name` are passed as keywords.
    """
    written = {name: f"np.array({v.tolist()}, np.{v.dtype})" for name, v in arrays.items()}
    inner = [f"{name}={text}" for name, text in written.items() if name in NAMES]
    others = [
        f"{name}={text}" if name in by_name else text
        for name, text in written.items()
        if name not in NAMES
    ]
    kind = WEIGHTS[len(inner)].__name__
    return (
        f"import numpy as np; from bptt_verifier.judge.submission import {kind}; "
        f"gradients({kind}({', '.join(inner)}), {', '.join(others)})"
    )


class Answer(NamedTuple):
    """What a derivation returned, by name, as arrays of its own dtype."""

    values: dict[str, Array]


class Broken(NamedTuple):
    """Why what a derivation did cannot be compared."""

    mistake: Mistake
    notes: tuple[str, ...] = ()


def broken(name: str, explanation: str, *notes: str, **details: Any) -> Broken:
    """A breach of the contract under its stable name."""
    return Broken(Mistake(name, explanation, details), notes)


def own_place(error: BaseException, gradients: Callable[..., Any]) -> str:
    """File, line and text of the innermost frame in the file that defines the derivation."""
    code = getattr(inspect.unwrap(gradients), "__code__", None)
    file = code.co_filename if code else ""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file]
    frame = own[-1] if own else frames[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}: {frame.line or ''}".rstrip(": ")


class States(NamedTuple):
    """Which first states a derivation takes after y, and how: in order, then by name."""

    in_order: tuple[str, ...] = ()
    by_name: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """In the order that `call` wants them."""
        return self.in_order + self.by_name

    def call(self, gradients: Callable[..., Any], params: Any, x: Any, y: Any, *first: Any) -> Any:
        """What the derivation returns; `first` are the states that it takes."""
        count = len(self.in_order)
        named = dict(zip(self.by_name, first[count:], strict=True))
        return gradients(params, x, y, *first[:count], **named)

    def in_order_for(self, gradients: Callable[..., Any]) -> Callable[..., Any]:
        """The derivation as a function that takes these states in order, after y."""
        if not self.by_name:
            return gradients
        return wraps(gradients)(partial(self.call, gradients))


def states_taken(gradients: Callable[..., Any], states: tuple[str, ...] = ("h0",)) -> States:
    """Those of the first states that the derivation has an argument for.

    One of that name, or one in the place after y and the states before, whatever its name.
    """
    try:
        parameters = inspect.signature(gradients).parameters.values()
    except (TypeError, ValueError):
        return States()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    places = [p.name for p in parameters if p.kind in kinds][3:]
    others = {p.name for p in parameters} - {p.name for p in parameters if p.kind is kinds[0]}
    in_order: list[str] = []
    by_name: list[str] = []
    for state in states:
        here = places[0] if places else None
        if here == state or (here is not None and here not in states and state not in others):
            in_order.append(state)
            places = places[1:]
        elif state in others:
            by_name.append(state)
            places = [name for name in places if name != state]
    return States(tuple(in_order), tuple(by_name))


def arguments(problem: Problem) -> list[Any]:
    """Fresh, writable copies of what a derivation is given."""
    U, W, V, b, c = (None if w is None else np.array(w) for w in problem.params)
    given: list[Any] = [
        Weights(U, W, V) if b is None or c is None else BiasedWeights(U, W, V, b, c),  # type: ignore[arg-type]
        np.array(problem.x),
        np.array(problem.y),
    ]
    if problem.h0 is not None:
        given.append(np.array(problem.h0))
    return given


def by_name(result: Any, names: tuple[str, ...]) -> dict[str, Any] | Broken:
    """What was returned as a dictionary, or why it cannot be read, whatever it is."""
    try:
        return read_by_name(result, names)
    except Exception as error:  # theirs may be an object of any behaviour
        return broken(
            "wrong-shape",
            f"what your function returned, {type(result).__name__}, cannot be read: "
            f"{type(error).__name__}: {error}",
            found=type(result).__name__,
        )


def read_by_name(result: Any, names: tuple[str, ...]) -> dict[str, Any] | Broken:
    """A mapping, a NamedTuple, or a tuple in order.

    All `names` must be there; with no biases among them, those are let pass.

    A pair (loss, gradients) is taken apart.
    """
    if isinstance(result, Mapping):
        found = dict(result)
    elif hasattr(result, "_asdict"):
        found = result._asdict()
    elif isinstance(result, tuple | list):
        if len(result) == 2 and np.ndim(result[0]) == 0 and not isinstance(result[0], str):
            inner = by_name(result[1], names)
            return inner if isinstance(inner, Broken) else {"loss": result[0], **inner}
        found = dict(zip(NAMES, result, strict=False))
        if len(result) not in (len(names), max(5, len(names))):
            order = ", ".join(names)
            return broken(
                "wrong-shape",
                f"your function returned {len(result)} values, and ({order}) was expected.",
                found=len(result),
            )
    else:
        return broken(
            "wrong-shape",
            f"your function returned {type(result).__name__}, and the gradients by name or in "
            "order were expected.",
            found=type(result).__name__,
        )
    found = {str(name): value for name, value in found.items() if value is not None}
    missing = [name for name in names if name not in found]
    if missing:
        return broken(
            "wrong-shape",
            f"your function returned no gradient named {', '.join(missing)}; "
            f"found {', '.join(found) or 'nothing'}.",
            missing=missing,
            found=list(found),
        )
    return {name: value for name, value in found.items() if name in names + OPTIONAL}


def shapes(problem: Problem) -> dict[str, tuple[int, ...]]:
    """The shape of everything a derivation may return."""
    T, B, D, H, O = problem.sizes
    return {
        "U": (H, D),
        "W": (H, H),
        "V": (O, H),
        "b": (H,),
        "c": (O,),
        "loss": (),
        "prediction": (B, O),
        "x": (T, B, D),
        "h0": (B, H),
        "adjoints": (T, B, H),
    }


def as_arrays(found: dict[str, Any], problem: Problem) -> dict[str, Array] | Broken:
    """The values as arrays of the expected shapes with real, finite numbers."""
    arrays, wanted = {}, shapes(problem)
    for name, value in found.items():
        if name not in wanted:  # c0, which this cell does not have
            continue
        try:
            copied = np.array(value)
        except (ValueError, TypeError):
            copied = np.array(None)
        if copied.dtype.kind not in "fiu":
            what = "the loss" if name == "loss" else f"the gradient for {name}"
            kind = type(value).__name__ if copied.dtype == object else f"dtype {copied.dtype}"
            return broken(
                "wrong-shape",
                f"{what} is no array of real numbers; found {kind}.",
                gradient=name,
                found=kind,
            )
        expected = wanted[name]
        if copied.shape != expected and name == "loss" and copied.size == 1:
            copied = copied.reshape(())
        if copied.shape != expected:
            swapped = copied.shape == expected[::-1]
            return broken(
                "transposed-gradient" if swapped else "wrong-shape",
                f"the gradient for {name} has shape {copied.shape}, and {expected} was expected"
                f"{': it is transposed' if swapped else ''}.",
                gradient=name,
                found=list(copied.shape),
                expected=list(expected),
            )
        arrays[name] = copied if copied.dtype.kind == "f" else copied.astype(problem.x.dtype)
    return arrays


def ask(gradients: Callable[..., Any], problem: Problem, *, again: bool = False) -> Answer | Broken:
    """What the derivation says of one problem, or how it breaks the contract.

    It gets h0 where the problem has one. With `again` it is asked twice, and must give the same
    answer.
    """
    given, kept = arguments(problem), arguments(problem)
    try:
        result = gradients(*given)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # theirs may raise or exit as it likes
        return broken(
            "raised",
            f"your function raised {type(error).__name__}: {error}",
            f"Raised in {own_place(error, gradients)}; with {problem.sizes}, {problem.x.dtype}.",
            exception=type(error).__name__,
        )
    biased = problem.params.b is not None
    found = by_name(result, NAMES[:5] if biased else NAMES[:3])
    if isinstance(found, Broken):
        return found
    arrays = as_arrays(found, problem)
    if isinstance(arrays, Broken):
        return arrays
    names = ("params", "x", "y", "h0")
    for name, now, before in zip(names, given, kept, strict=False):
        pairs = zip(now, before, strict=True) if name == "params" else [(now, before)]
        fields = now._fields if name == "params" else [name]
        for field, (left, right) in zip(fields, pairs, strict=True):
            if left.shape != right.shape or not np.array_equal(left, right, equal_nan=True):
                return broken(
                    "inputs-modified",
                    f"your function modified its argument {field}; the caller's arrays must stay "
                    "as they are.",
                    argument=field,
                )
    if again:
        second = ask(gradients, problem)
        if isinstance(second, Broken):
            return second
        for name, value in arrays.items():
            other = second.values.get(name)
            if other is None or not np.array_equal(value, other, equal_nan=True):
                return broken(
                    "not-deterministic",
                    f"asked twice with the same arguments, your function gave two different "
                    f"gradients for {name}.",
                    gradient=name,
                )
    return Answer(arrays)


def load(file: Path) -> ModuleType:
    """The file as a module. This runs the code in it.

    Raises ValueError where it does not exist or is no Python, or where running it raises or exits.
    """
    if not file.is_file():
        raise ValueError(f"FILE: expected a Python file, found {file}, which does not exist")
    spec = importlib.util.spec_from_file_location(f"derivation_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"FILE: expected a Python file, found {file}")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
        line = getattr(error, "lineno", None) or (frames[-1].lineno if frames else "?")
        raise ValueError(
            f"FILE: {file} cannot be run: line {line}: {type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.pop(0)
    return module


def function_of(module: ModuleType, name: str, file: Path) -> Callable[..., Any]:
    """The function of that name.

    Raises ValueError where there is none.
    """
    found = getattr(module, name, None)
    if not callable(found):
        functions = [n for n, f in vars(module).items() if inspect.isfunction(f)]
        raise ValueError(
            f"FILE: expected a function {name} in {file}, found {', '.join(functions) or 'none'}"
        )
    return found  # type: ignore[no-any-return]
