"""A submission: the user's function that returns gradients. The judge calls it without trust.

Every call gets fresh copies of the arguments, because a submission may modify them. The results are
copied at once, because they may be views of the arguments or of a buffer that is used again.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Real
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.judge.listed_results import list_items, read_pairs
from bptt_verifier.problems.problem import STATES, Array
from bptt_verifier.program.attempt import (
    MUTED,
    USERS,
    Failure,
    Settings,
    attempt,
    printable,
    type_name,
)
from bptt_verifier.program.gradient_names import ONLY, find_all_gradients, is_named_gradient
from bptt_verifier.program.leaves import Keys, find_root, name_leaf, walk
from bptt_verifier.program.own_results import holds_more_beside_loss
from bptt_verifier.program.raising_objects import describe_value, find_raised, raised_by_user
from bptt_verifier.program.torch_tensors import to_arrays
from bptt_verifier.report import Mistake
from bptt_verifier.tolerance.comparison import Verdict
from bptt_verifier.tolerance.formats import is_floating, is_real, to_real


class Call(NamedTuple):
    """The arguments of one call, and the arrays among them, named as in messages."""

    arguments: tuple[Any, ...]
    named: dict[str, Any]
    arrays: Callable[[], dict[str, Array]]


class Expected(NamedTuple):
    """The results that a submission has to return, and may return.

    `names` are required. `in_order` has the names of a tuple's items, by its length. `shapes` has
    every result that is read; `dtype` is that of integers. `read` converts a structure of gradients
    to one by name. `paths` are the paths of names in a structure of parameters, `zeros` the names
    of gradients that are zero whatever the parameters are, and `numbers` those of floats of
    Python or NumPy, which may be data: a gradient of such a one may be missing.
    """

    names: tuple[str, ...]
    in_order: dict[int, tuple[str, ...]]
    shapes: dict[str, tuple[int, ...]]
    dtype: Any
    read: Callable[[Any], Any] = lambda result: result
    paths: Mapping[str, Keys] = MappingProxyType({})
    zeros: Collection[str] = ()
    numbers: Collection[str] = ()


SHOWN = 10  # names in a sentence
BESIDE_LOSS = "What you return beside the loss, in a tuple with it, is not compared."
FORWARD = ("loss", "prediction")  # results that are no gradients


class Breach(NamedTuple):
    """A breach of the contract, after which numbers cannot be compared.

    `dtype` is the format of a result that is not finite, which may have overflowed. One that is
    `unread` may be right: what was returned could be read in more ways than one. One is `of_values`
    if the function raised an exception for which the values may be the reason, and `by_settings` if
    it did since floating-point errors are exceptions under settings that it makes itself. `where`
    is the expression of the user's code that raised it, and its place.
    """

    mistake: Mistake
    notes: tuple[str, ...] = ()
    dtype: Any = None
    unread: bool = False
    of_values: bool = False
    by_settings: bool = False
    where: str = ""

    @property
    def event(self) -> str:
        """What went wrong, and where an exception was raised, as a clause of a sentence."""
        said = self.mistake.explanation.rstrip(".")
        return f"{said} at {self.where}" if self.where else said

    @property
    def verdict(self) -> Verdict:
        """The verdict on the submission."""
        return Verdict.INCONCLUSIVE if self.unread else Verdict.DISAGREES

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        """The mistake that a report names, if this is one."""
        return () if self.unread else (self.mistake,)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Sentences for the report: the notes, or what could not be read."""
        said = self.mistake.explanation
        return (f"{said[:1].upper()}{said[1:]}",) if self.unread else self.notes


def make_breach(name: str, explanation: str, *notes: str, **details: Any) -> Breach:
    """Make a breach of the contract under its stable name."""
    return Breach(Mistake(name, explanation, details), notes)


class Submission:
    """The user's function, and notes for the report on what its calls have shown."""

    def __init__(self, gradients: Callable[..., Any]) -> None:
        self.gradients = gradients
        self.calls = 0
        self.known: tuple[str, ...] = ()  # names of results that can be compared
        self.unknown: dict[str, None] = {}  # names of others, in order
        self.raised_by_settings = ""
        self.raised_by_format = ""
        self.meanings: dict[str, str] = {}  # what results are whose names are not those expected
        self.readings: dict[str, None] = {}  # sentences on how results are read, in order

    def answer(self, call: Call, expected: Expected, settings: Settings = MUTED) -> Any:
        """What the function returns, with a list in the place of an iterator, or a Failure."""
        found = attempt(self.gradients, *call.arguments, settings=settings, **call.named)
        if isinstance(found, Failure):
            return found
        return attempt(list_items, found, len(expected.names), settings=settings)

    def select_known(self, found: Mapping[str, Any], expected: Expected) -> dict[str, Any]:
        """Select the results that can be compared, and remember the names of the others."""
        self.known = tuple(expected.shapes)
        found = {self.find_meaning(name, found, expected): value for name, value in found.items()}
        self.unknown |= dict.fromkeys(name for name in found if name not in expected.shapes)
        return {name: value for name, value in found.items() if name in expected.shapes}

    def find_meaning(self, name: str, found: Mapping[str, Any], expected: Expected) -> str:
        """Find what a result is: `dx` is the gradient of x, if it has that shape at its first call.

        Axes in another order may have the same sizes at a later one.
        """
        if name in expected.shapes:
            return name
        if name not in self.meanings:
            others = expected.shapes.keys() - {*expected.names, *FORWARD, *found}
            fitting = [n for n in others if attempt(np.shape, found[name]) == expected.shapes[n]]
            self.meanings[name] = next((n for n in fitting if is_named_gradient(name, n)), name)
            if self.meanings[name] != name:
                self.readings[f"{name} is read as the gradient of {self.meanings[name]}."] = None
        return self.meanings[name]

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the report."""
        notes = [note for note in (self.raised_by_settings, self.raised_by_format) if note]
        notes += self.readings
        if self.unknown:
            names = [printable(name) for name in list(self.unknown)[:SHOWN]]
            more = f" and {len(self.unknown) - SHOWN} others" if len(self.unknown) > SHOWN else ""
            notes.append(
                f"Not checked: {', '.join(names)}{more}. Results of this model that can be "
                f"compared have the names {', '.join(self.known)}."
            )
        return tuple(notes)


def ask(
    submission: Submission, make_call: Callable[[], Call], expected: Expected, label: str
) -> dict[str, Array] | Breach:
    """Call the submission; return its results by name, or how it breaks the contract.

    If it raises only because floating-point errors or warnings are exceptions under the user's
    settings, it is called again without them, and a note says so.
    """
    call = make_call()
    before = {name: np.array(array) for name, array in to_arrays(call.arrays()).items()}
    submission.calls += 1
    settings = USERS.get()
    result = submission.answer(call, expected, settings)
    if isinstance(result, Failure) and result.by_settings:
        call = make_call()
        again = submission.answer(call, expected)
        if not isinstance(again, Failure):
            submission.raised_by_settings = submission.raised_by_settings or (
                f"Your function raised {result.said} with {label}, under your settings for "
                "floating-point errors or warnings; it was called without them."
            )
            result = again
    if isinstance(result, Failure):
        note = f"It was raised at {result.where}, with {label}."
        details = {"exception": result.exception, "file_line": result.file_line}
        raised = make_breach("raised", f"your function raised {result.what}", note, **details)
        return raised._replace(
            of_values=result.of_values, by_settings=result.by_settings, where=result.where
        )
    arrays: Any = attempt(read_arrays, submission, result, expected)
    if isinstance(arrays, Failure):  # even the type of an object may raise
        arrays = make_unread("a value", arrays)
    if isinstance(arrays, Breach):
        return arrays
    after = to_arrays(call.arrays())
    for name, array in before.items():
        now = after.get(name)
        if now is None or not are_equal(now, array):
            said = f"your function modified its argument {name}"
            said += ": expected the caller's arrays to be unchanged."
            return make_breach("inputs-modified", said, gradients=[name])
    return arrays  # type: ignore[no-any-return]


def read_arrays(
    submission: Submission, result: Any, expected: Expected
) -> dict[str, Array] | Breach:
    """Read what was returned as arrays by name, or say how it breaks the contract."""
    plain = attempt(to_arrays, result)
    result = result if isinstance(plain, Failure) else plain
    found = read_results(result, expected, submission.readings)
    if isinstance(found, Breach):
        return found
    return convert_results(submission.select_known(found, expected), expected)


def make_unread(kind: str, failure: Failure) -> Breach:
    """Make the breach that what was returned, of some kind, raises where it is read."""
    said = f"what your function returned, {kind}, cannot be read: {failure.what}"
    breach = make_breach("wrong-shape", said, found=kind)
    return place_breach(breach, failure if failure.raised_by_user else None)


def place_breach(breach: Breach, raised: Failure | None) -> Breach:
    """Add to a breach where an object that was returned has raised an exception, if it has."""
    if raised is None:
        return breach
    notes = (*breach.notes, f"It was raised at {raised.where}.")
    return breach._replace(notes=notes, where=raised.where)


def are_equal(now: Any, before: Array) -> bool:
    """Tell whether two arrays are equal; NaN equals NaN."""
    now = np.asarray(now)  # a number, where the argument is one
    same_type = now.dtype == before.dtype and now.shape == before.shape
    if same_type and now.tobytes() == before.tobytes():  # much cheaper, for small arrays
        return True
    return np.array_equal(now, before, equal_nan=before.dtype.kind == "f")


def read_results(
    result: Any, expected: Expected, readings: dict[str, None] | None = None
) -> dict[str, Any] | Breach:
    """Read what was returned as a dictionary, whatever it is, or say why that fails.

    Sentences on names or an order that are not those expected are added to `readings`.
    """
    readings = {} if readings is None else readings
    result = read_pairs(result, expected.names, expected.paths)
    found: Any = None
    raised = list[Failure]()
    for read in (read_parts, read_in_order, read_by_name):
        found = attempt(read, result, expected, readings)
        if raised_by_user(found):
            raised.append(found)
        if not (found is None or isinstance(found, Failure)):
            break
    if isinstance(found, Failure):
        found = make_unread(type_name(result), found)
    elif isinstance(found, Breach):
        where = raised[0] if raised else find_raised(result, attempt(np.asarray, result))
        found = found if where is None else make_unread(type_name(result), where)
    if isinstance(found, Breach):
        other = attempt(read_by_gradient_names, result, expected, readings)
        found = found if other is None or isinstance(other, Failure) else other
    if isinstance(found, Breach) and holds_more_beside_loss(result):
        again = read_results((result[0][0], result[1]), expected, readings)
        if not isinstance(again, Breach):
            readings[BESIDE_LOSS] = None
            return again
    return found  # type: ignore[no-any-return]


def read_by_name(
    result: Any, expected: Expected, readings: dict[str, None]
) -> dict[str, Any] | Breach:
    """Read the gradients by their names, or a tuple in order."""
    return name_results(expected.read(result), expected, readings)


def read_parts(
    result: Any, expected: Expected, readings: dict[str, None]
) -> dict[str, Any] | Breach | None:
    """Read a list of the gradients of the parts of params, of which the first is a number.

    It could be the loss before the gradients; but then the others would not have the shapes of the
    other parts. None for anything else.
    """
    keys = [*dict.fromkeys(path[0] for path in expected.paths.values())]
    listed = isinstance(result, tuple | list) and not hasattr(result, "_fields")
    named = all(isinstance(key, str) for key in keys)
    if not (listed and keys and named and len(keys) == len(result) and np.size(result[0]) == 1):
        return None
    found = expected.read(dict(zip(keys, result, strict=True)))
    for name in expected.names:
        array = np.asarray(found[name])  # of objects, where it is a dict
        if array.shape != expected.shapes[name] or array.dtype.kind not in "fiu":
            return None
    readings[f"The list that you return is read in the order of params: {', '.join(keys)}."] = None
    return name_results(found, expected, readings)


def read_in_order(
    result: Any, expected: Expected, readings: dict[str, None]
) -> dict[str, Any] | Breach | None:
    """Read a list of gradients in the order of a dict of arrays; None for anything else.

    Every shape has to fit. Where shapes fit in another order alone, the list is not read.
    """
    loss, listed = split_loss(result, len(expected.names))
    flat = expected.paths and all(
        len(path) == 1 and isinstance(path[0], str) for path in expected.paths.values()
    )
    if not flat or not isinstance(listed, tuple | list) or hasattr(listed, "_fields"):
        return None
    shapes = [expected.shapes[name] for name in expected.names]
    pairs = zip(listed, shapes, strict=True) if len(listed) == len(shapes) else ()
    given = [shape if each is None else np.shape(each) for each, shape in pairs]
    names = ", ".join(expected.names)
    if given == shapes:
        readings[f"The list that you return is read in the order of params: {names}."] = None
        return name_results(
            loss | dict(zip(expected.names, listed, strict=True)), expected, readings
        )
    if sorted(given) == sorted(shapes):
        said = f"your function returned a list of shapes {', '.join(map(str, given))}: expected "
        said += f"the gradients by name, or in the order {names}."
        return make_breach("wrong-shape", said, found=len(listed))._replace(unread=True)
    return None


def split_loss(result: Any, number: int = 1) -> tuple[dict[str, Any], Any]:
    """Split the loss and the gradients, or a `number` of them; anything else has no loss."""
    several = isinstance(result, tuple | list) and len(result) in (2, number + 1)
    if several and not isinstance(result[0], str | Mapping) and np.size(result[0]) == 1:
        return {"loss": result[0]}, result[1] if len(result) == 2 else result[1:]
    return {}, result


def read_by_gradient_names(
    result: Any, expected: Expected, readings: dict[str, None]
) -> dict[str, Any] | Breach | None:
    """Read gradients whose names are `dU` or `grad_U` for U; None where one of them has no such.

    Where one has several, or one of these is that of two parameters, the result is not read.
    """
    loss, inside = split_loss(result)
    if find_root(inside) is None:
        return None
    arrays = {path: value for path, value in walk(inside, (), ()) if path and value is not None}
    paths = {n: expected.paths.get(n, (n,)) for n in expected.names if n not in expected.zeros}
    without_numbers = {n: path for n, path in paths.items() if n not in expected.numbers}
    given = {(ONLY, *path): path for path in arrays}
    try:
        found = find_all_gradients(paths, given) or find_all_gradients(without_numbers, given)
    except ValueError as several:
        said = f"your function returned names that may be read in several ways, {several}: "
        said += f"expected the gradients by name, {', '.join(expected.names)}."
        return make_breach("wrong-shape", said, found=[str(p[-1]) for p in arrays])._replace(
            unread=True
        )
    if found is None:
        return None
    others = dict(inside) if isinstance(inside, Mapping) else {}
    used = {path[0] for path in found.values()}
    rest = {str(k): v for k, v in others.items() if k not in used and v is not None}
    pairs = [(n, name_leaf(p, len(p) == 1)) for n, p in found.items() if p != paths[n]]
    listed = ", ".join(f"{spelled} for {n}" for n, spelled in pairs[:SHOWN])
    if pairs:
        readings[f"Gradients are read by the names that you return: {listed}."] = None
    named = {n: arrays[path] for n, path in found.items()}
    return name_results(loss | rest | named, expected, readings)


def name_beside(result: Sequence[Any], expected: Expected) -> tuple[str, ...]:
    """Name the items of a tuple with a loss before the gradients, or those of the states behind.

    The shapes of these tell them from biases. Empty where it is no such tuple.
    """
    states = tuple(name for name in STATES["lstm"] if name in expected.shapes)
    for before, after in ((("loss",), ()), ((), states), (("loss",), states)):
        names = (*before, *expected.names, *after)
        if expected.in_order and len(names) == len(result):
            beside = [(n, v) for n, v in zip(names, result, strict=True) if n in (*before, *after)]
            if beside and all(find_shape(v) == expected.shapes[n] for n, v in beside):
                return names
    return ()


def find_shape(value: Any) -> tuple[int, ...] | None:
    """Find the shape of an array or a number; None of anything else."""
    return () if isinstance(value, Real) else getattr(value, "shape", None)


def name_results(
    result: Any, expected: Expected, readings: dict[str, None] | None = None
) -> dict[str, Any] | Breach:
    """Convert a mapping, a NamedTuple, or a tuple in order to a dictionary.

    A pair (loss, gradients) adds "loss"; entries that are None are omitted. One that is omitted is
    zero where the gradient is.
    """
    readings = {} if readings is None else readings
    several = isinstance(result, tuple | list)
    pair = several and len(result) == 2 and not isinstance(result[0], str | Mapping)
    if isinstance(result, Mapping):
        found = dict(result)
    elif hasattr(result, "_asdict"):
        found = result._asdict()
    elif pair and np.size(result[0]) == 1:
        inner = name_results(result[1], expected, readings)
        return inner if isinstance(inner, Breach) else {"loss": result[0], **inner}
    elif several and (named := name_beside(result, expected)):
        found = dict(zip(named, result, strict=True))
    elif several and len(result) in expected.in_order:
        found = dict(zip(expected.in_order[len(result)], result, strict=True))
    else:
        ways = f" or in the order {', '.join(expected.names)}" if expected.in_order else ""
        number = f" of {len(result)} values" if several else ""
        kind = type_name(result)
        said = f"your function returned {kind}{number}: expected the gradients by name{ways}."
        return make_breach("wrong-shape", said, found=len(result) if several else kind)
    found = {str(name): value for name, value in found.items() if value is not None}
    missing = [name for name in expected.names if name not in found]
    unused = [name for name in missing if name in expected.zeros]
    if len(missing) < len(expected.names) and {*missing} <= {*unused, *expected.numbers}:
        if unused:
            readings[
                f"You return no gradient of {', '.join(unused)}: it is taken for zero, as autodiff "
                "has it in every case."
            ] = None
        return found | {name: np.zeros(expected.shapes[name]) for name in unused}
    missing = [n for n in missing if n not in {*unused, *expected.numbers}] or missing
    if missing:
        said = (
            f"your function returned no gradient named {', '.join(missing)}: expected "
            f"{', '.join(expected.names)}, found {', '.join(found) or 'nothing'}."
        )
        return make_breach("wrong-shape", said, missing=missing, found=list(found))
    return found


def name_result(name: str) -> str:
    """Name a result as a message does."""
    return f"the {name}" if name in FORWARD else f"the gradient for {name}"


def convert_results(found: Mapping[str, Any], expected: Expected) -> dict[str, Array] | Breach:
    """Convert the values to new arrays of real numbers with the expected shapes.

    Numbers of bfloat16 become float32. Those of 8 bits, as float8_e5m2, are not read.
    """
    arrays = {}
    for name, given in found.items():
        what, plain = name_result(name), attempt(to_arrays, given)
        value = given if isinstance(plain, Failure) else plain
        masked = np.sum(value.mask) if isinstance(value, np.ma.MaskedArray) else 0
        if masked:
            said = f"{what}: expected numbers, found {masked} masked entries."
            return make_breach("wrong-shape", said, gradients=[name], found="masked entries")
        first: Any = value.copy() if type(value) is np.ndarray else attempt(np.array, value)
        array: Any = first if isinstance(first, Failure) else attempt(to_real, first)
        if isinstance(array, Failure) or not is_real(array.dtype):
            of_type = isinstance(array, Failure) or (array.dtype == object and array.ndim == 0)
            kind = type_name(value) if of_type else f"dtype {array.dtype}"
            floats = None if of_type else attempt(array.astype, np.float64)
            raised = find_raised(value, first) if of_type else find_raised(None, floats)
            described = describe_value(value, raised) if raised else kind
            said = f"{what}: expected an array of floats, found {described}."
            unread = not isinstance(array, Failure) and is_floating(array.dtype)
            if unread:  # its rounding is as large as the mistakes that are to be seen
                said = f"{what} is in {array.dtype}, whose few digits would hide mistakes: "
                said += "compute and return it in float32."
            other = make_breach("wrong-shape", said, gradients=[name], found=kind)
            return place_breach(other._replace(unread=unread), raised)
        shape = expected.shapes[name]
        if name == "loss" and array.size == 1 and shape == ():
            array = array.reshape(())
        if array.shape != shape:
            breach, why = "wrong-shape", ""
            if array.shape == shape[::-1]:
                breach, why = "transposed-gradient", ": it is transposed"
            said = f"{what}: expected shape {shape}, found {array.shape}{why}."
            details = {"found": list(array.shape), "expected": list(shape)}
            return make_breach(breach, said, gradients=[name], **details)
        arrays[name] = array if array.dtype.kind == "f" else array.astype(expected.dtype)
    return arrays
