"""A submission: the user's function that returns gradients, called without trusting it.

It gets fresh copies of everything, so that nothing that it modifies can be blamed on it later; its
results are copied at once, since they may be views of its inputs or of a buffer that it reuses.
"""

import importlib.util
import inspect
import sys
import traceback
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt, type_name
from bptt_verifier.report import Mistake

NAMES = ("U", "W", "V", "b", "c", "b_n")


# The arguments of a submission that differentiates a cell.


def make_weights_type(name: str, fields: tuple[str, ...]) -> Any:
    """A NamedTuple of the parameters, whose items are also found by name."""

    def item(self: Any, key: Any) -> Any:
        return getattr(self, key) if isinstance(key, str) else tuple.__getitem__(self, key)

    return type(name, (namedtuple(name, fields),), {"__slots__": (), "__getitem__": item})


# The parameters as a submission gets them: by field, by name or in order.
Weights = make_weights_type("Weights", NAMES[:3])
BiasedWeights = make_weights_type("BiasedWeights", NAMES[:5])
GruBiasedWeights = make_weights_type("GruBiasedWeights", NAMES)
# By the number of the parameters.
WEIGHTS = {len(kind._fields): kind for kind in (Weights, BiasedWeights, GruBiasedWeights)}


def write_call(arrays: Mapping[str, Array], by_name: tuple[str, ...] = ()) -> str:
    """The lines that call a submission with these numbers: the parameters, then the others.

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
        f"import numpy as np; from {__name__} import {kind}; "
        f"gradients({kind}({', '.join(inner)}), {', '.join(others)})"
    )


class TakenStates(NamedTuple):
    """The first states that a submission takes after y: those in order, then those by name."""

    in_order: tuple[str, ...] = ()
    by_name: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """In the order in which they are drawn and reported."""
        return self.in_order + self.by_name


def find_states(gradients: Callable[..., Any], states: tuple[str, ...] = ("h0",)) -> TakenStates:
    """Those of the first states that the submission has an argument for.

    One of that name, or one in the place after y and the states before, whatever its name.
    """
    try:
        parameters = inspect.signature(gradients).parameters.values()
    except (TypeError, ValueError):
        return TakenStates()
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
    return TakenStates(tuple(in_order), tuple(by_name))


# What a submission returns.


class Call(NamedTuple):
    """The arguments of one call, and each array among them by the name that a message uses."""

    arguments: tuple[Any, ...]
    named: dict[str, Any]
    arrays: Callable[[], dict[str, Array]]


class Expected(NamedTuple):
    """What a submission has to return: names, in which order, and the shape of everything it may.

    `names` must all be there; `in_order` are the names of a tuple, by its length.
    """

    names: tuple[str, ...]
    in_order: dict[int, tuple[str, ...]]
    shapes: dict[str, tuple[int, ...]]
    dtype: Any  # that integers are taken to be in


class Breach(NamedTuple):
    """Why what a submission did cannot be compared."""

    mistake: Mistake
    notes: tuple[str, ...] = ()


def make_breach(name: str, explanation: str, *notes: str, **details: Any) -> Breach:
    """A breach of the contract under its stable name."""
    return Breach(Mistake(name, explanation, details), notes)


def ask(
    gradients: Callable[..., Any], call: Call, expected: Expected, label: str
) -> dict[str, Array] | Breach:
    """What the submission returns for these arguments, by name, or how it breaks the contract."""
    before = {name: np.array(array) for name, array in call.arrays().items()}
    result = attempt(gradients, *call.arguments, **call.named)
    if isinstance(result, Failure):
        return make_breach(
            "raised",
            f"your function raised {result.what}",
            f"{result.file_line}: {result.text}; with {label}",
            exception=result.exception,
            file_line=result.file_line,
        )
    found = read_results(result, expected)
    arrays = found if isinstance(found, Breach) else convert_results(found, expected)
    if isinstance(arrays, Breach):
        return arrays
    after = call.arrays()
    for name, array in before.items():
        now = after.get(name)
        if now is None or not np.array_equal(now, array, equal_nan=True):
            return make_breach(
                "inputs-modified",
                f"your function modified its argument {name}; the caller's arrays must stay as "
                "they are.",
                gradients=[name],
            )
    return arrays


def read_results(result: Any, expected: Expected) -> dict[str, Any] | Breach:
    """What was returned as a dictionary, or why it cannot be read, whatever it is."""
    found = attempt(name_results, result, expected)
    if not isinstance(found, Failure):
        return found  # type: ignore[no-any-return]
    return make_breach(
        "wrong-shape",
        f"what your function returned, {type_name(result)}, cannot be read: {found.what}",
        found=type_name(result),
    )


def name_results(result: Any, expected: Expected) -> dict[str, Any] | Breach:
    """A mapping, a NamedTuple, or a tuple in order, as a dictionary.

    A pair (loss, gradients) is taken apart; None stands for what is not there.
    """
    several = isinstance(result, tuple | list)
    if isinstance(result, Mapping):
        found = dict(result)
    elif hasattr(result, "_asdict"):
        found = result._asdict()
    elif (
        several and len(result) == 2 and np.ndim(result[0]) == 0 and not isinstance(result[0], str)
    ):
        inner = name_results(result[1], expected)
        return inner if isinstance(inner, Breach) else {"loss": result[0], **inner}
    elif several and len(result) in expected.in_order:
        found = dict(zip(expected.in_order[len(result)], result, strict=True))
    else:
        ways = f" or in the order {', '.join(expected.names)}" if expected.in_order else ""
        number = f" of {len(result)} values" if several else ""
        return make_breach(
            "wrong-shape",
            f"your function returned {type_name(result)}{number}: expected the gradients by "
            f"name{ways}.",
            found=len(result) if several else type_name(result),
        )
    found = {str(name): value for name, value in found.items() if value is not None}
    missing = [name for name in expected.names if name not in found]
    if missing:
        return make_breach(
            "wrong-shape",
            f"your function returned no gradient named {', '.join(missing)}: expected "
            f"{', '.join(expected.names)}, found {', '.join(found) or 'nothing'}.",
            missing=missing,
            found=list(found),
        )
    return {name: value for name, value in found.items() if name in expected.shapes}


def convert_results(found: Mapping[str, Any], expected: Expected) -> dict[str, Array] | Breach:
    """The values as arrays of real numbers, copied, of the expected shapes."""
    arrays = {}
    for name, value in found.items():
        what = name if name in ("loss", "prediction") else f"gradient for {name}"
        array = attempt(np.array, value)
        if isinstance(array, Failure) or array.dtype.kind not in "fiu":
            kind = type_name(value)
            if not isinstance(array, Failure) and array.dtype != object:
                kind = f"dtype {array.dtype}"
            return make_breach(
                "wrong-shape",
                f"the {what}: expected an array of floats, found {kind}.",
                gradients=[name],
                found=kind,
            )
        shape = expected.shapes[name]
        if name == "loss" and array.size == 1 and shape == ():
            array = array.reshape(())
        if array.shape != shape:
            swapped = array.shape == shape[::-1]
            return make_breach(
                "transposed-gradient" if swapped else "wrong-shape",
                f"the {what}: expected shape {shape}, found {array.shape}"
                f"{': it is transposed' if swapped else ''}.",
                gradients=[name],
                found=list(array.shape),
                expected=list(shape),
            )
        arrays[name] = array if array.dtype.kind == "f" else array.astype(expected.dtype)
    return arrays


def find_difference(
    first: Mapping[str, Array], second: Mapping[str, Array], allowed: Mapping[str, Array]
) -> Breach | None:
    """A breach, if two answers to the same question differ by more than is allowed.

    Threads that add up in another order are no mistake; more than rounding is.
    """
    for name, value in first.items():
        other = second.get(name)
        if other is not None and np.array_equal(value, other, equal_nan=True):
            continue
        if other is not None and name in allowed:
            with np.errstate(invalid="ignore"):
                if bool(np.all(np.abs(value - other) <= allowed[name])):
                    continue
        return make_breach(
            "not-deterministic",
            f"your function gave two different answers for {name} when asked twice with the same "
            "arguments.",
            gradients=[name],
        )
    return None


# A submission in a file.


def load(file: Path) -> ModuleType:
    """Import the file as a module. This runs the code in it.

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


def find_function(module: ModuleType, name: str, file: Path) -> Callable[..., Any]:
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


def order_names(names: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """The names of a tuple, by its length: of these parameters, or of all that have a bias."""
    longest = NAMES[: max(5, len(names))]
    return {len(names): tuple(names), len(longest): longest}
