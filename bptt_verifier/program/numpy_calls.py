"""Calls of NumPy's functions and methods on arrays over traced values."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bptt_verifier.program.decisions import CURRENT, UntraceableError
from bptt_verifier.program.numpy_arrays import (
    MaskedEntries,
    TracedArray,
    contains_traced,
    depends,
    fix_parts,
    join_traced,
    list_arrays,
    map_nested,
    trace_of,
    unwrap,
    unwrap_index,
    wrap,
)
from bptt_verifier.program.numpy_rules import (
    ACCUMULATIONS,
    IGNORED,
    OF_SHAPE,
    OF_TRUTH,
    PROMOTING,
    REDUCTIONS,
    UPDATES,
    find_rule,
)

# Functions of lists of arrays, each of which may be a list of numbers.
OF_LISTS = frozenset(
    "concatenate concat stack hstack vstack row_stack dstack"
    " column_stack block select choose multi_dot".split()
)
# Functions of a factorisation, a pair: the factor, and its triangle or the order of its rows.
OF_FACTORS = frozenset({"cho_solve", "lu_solve"})
# Functions that take an axis of a number, too, which has none in JAX.
OF_NUMBERS = frozenset("sum prod max min amax amin mean".split())
WEAK = frozenset((int, float, complex))  # Python's numbers take the dtype of the array


def call(function: Any, *arguments: Any, **options: Any) -> Any:
    """Call a function of NumPy or SciPy, and trace it where an argument is traced."""
    given, named = list(arguments), dict(options)
    out = named.pop("out", None)
    if function is np.dot and len(given) == 3:
        out = given.pop()
    arrays = list_arrays([given, named])
    if function in IN_PLACE:
        return IN_PLACE[function](*given, **named)
    name = str(getattr(function, "__name__", function))
    dependent = depends([given, named])
    if dependent and name in OF_TRUTH | {"where"} and len(given) == 1:
        truth = given[0] != 0
        fix_parts(truth)
        return wrap_all(function(unwrap(given[0])), None, arrays)
    traced = None
    if dependent and find_rule(function) is None and not is_of_shape(name):
        return make_view(function, name, given, named, arrays)
    if dependent and not is_of_shape(name):
        read, options = given, named
        if name in OF_NUMBERS and getattr(given[0], "ndim", None) == 0:
            read, options = given[:1], {k: v for k, v in named.items() if k != "axis"}
        traced = trace_call(function, name, [*map(trace_of, read)], trace_of(options))
    if out is None:
        result = function(*map(unwrap, given), **unwrap(named))
        return wrap_all(result, finish(traced, result), arrays)
    (target,) = out if isinstance(out, tuple) else (out,)
    result = function(*map(unwrap, given), **unwrap(named), out=unwrap(target))
    return put_out(target, finish(traced, result))


def trace_call(
    function: Any, name: str, given: list[Any], named: dict[str, Any]
) -> Callable[[Any], Any]:
    """Prepare the call in JAX: what it returns computes the traced result from that in NumPy."""
    rule = find_rule(function)
    if rule is None:
        raise UntraceableError(f"JAX has no counterpart of {name}")
    CURRENT.get().count_operation()
    ordered = name in {"reshape", "ravel"}
    named = {k: v for k, v in named.items() if k not in IGNORED or (k == "order" and ordered)}

    def compute(result: Any) -> Any:
        promoting = name in PROMOTING and getattr(result, "dtype", np.dtype(bool)).kind in "fc"

        def cast(part: Any) -> Any:
            if not isinstance(part, jax.Array | np.ndarray):
                return part
            return part.astype(result.dtype) if promoting and part.dtype != bool else part

        def join(part: Any) -> Any:
            if name == "block":
                return part
            if name in OF_LISTS and isinstance(part, list | tuple):
                return [join_traced(x) if contains_traced(x) else np.asarray(x) for x in part]
            return join_traced(part)

        if name in OF_FACTORS:
            (factor, which), *others = given
            which = bool(which) if np.shape(which) == () else which
            parts = [(join_traced(factor), which), *map(join, others)]
        else:
            parts = [*map(join, given)]
        joined, options = map_nested(parts, cast), map_nested(named, cast)
        try:
            return rule(*joined, **options)
        except TypeError:  # JAX takes no lists for arrays
            options = {key: to_array(value) for key, value in options.items()}
            return rule(*map(to_array, joined), **options)

    return compute


def is_of_shape(name: str) -> bool:
    """True for functions without derivatives: of dtypes and shapes, and assertions on numbers."""
    return name in OF_SHAPE or name.startswith("assert_")


def make_view(
    function: Any, name: str, given: list[Any], named: dict[str, Any], arrays: list[TracedArray]
) -> Any:
    """Call a function that JAX lacks, whose result is a view of its argument.

    Raises UntraceableError if it is none.
    """
    before = [array.value.copy() for array in arrays]
    result = function(*map(unwrap, given), **unwrap(named))
    same = all(np.array_equal(a.value, b, True) for a, b in zip(arrays, before, strict=True))
    for owner in arrays if same and isinstance(result, np.ndarray) else ():
        if result.dtype == owner.dtype and np.may_share_memory(result, owner.memory.numbers):
            return wrap(result, None, [owner])
    raise UntraceableError(f"JAX has no counterpart of {name}")


def to_array(x: Any) -> Any:
    """Make an array of a list of constants."""
    return np.asarray(x) if isinstance(x, list) and not contains_traced(x) else x


def finish(compute: Any, result: Any) -> Any:
    """Compute the traced result; None if there is none. Raises UntraceableError if JAX cannot."""
    if compute is None:
        return None
    try:
        return compute(result)
    except (TypeError, ValueError, NotImplementedError, AttributeError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise UntraceableError(f"JAX does not trace this call ({reason})") from error


def wrap_all(result: Any, traced: Any, owners: Sequence[TracedArray]) -> Any:
    """Wrap the arrays of a result, which may be a tuple or list of them."""
    if isinstance(result, tuple | list):
        pieces = [None] * len(result) if traced is None else traced
        parts = [wrap_all(x, y, owners) for x, y in zip(result, pieces, strict=True)]
        return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)
    return wrap(result, traced, owners)


def put_out(target: Any, traced: Any) -> Any:
    """Note the traced value of an array that NumPy has written as `out`."""
    if isinstance(target, TracedArray):
        if isinstance(target, MaskedEntries):
            _ = target.traced
        target.write(traced)
    elif traced is not None:
        raise UntraceableError("it writes what depends on the parameters into another array")
    return target


# Universal functions.


def call_ufunc(_: Any, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
    """Call a universal function or one of its methods: `__array_ufunc__` of arrays."""
    out = options.pop("out", None)
    if method == "at":
        return update_at(ufunc, *inputs)
    if method == "outer":
        left, right = (x if isinstance(x, TracedArray) else call(np.asarray, x) for x in inputs)
        return ufunc(left.reshape((*left.shape, *[1] * right.ndim)), right, **options)
    if method != "__call__":
        return reduce_ufunc(ufunc, method, inputs, out, options)
    selection = apply_to_selections(ufunc, inputs, out, options)
    if selection is not None:
        return selection
    outs = () if out is None else out
    masked = "where" in options
    traced = None
    if depends([*inputs, options]) or (masked and depends(outs)):
        traced = trace_ufunc(ufunc, inputs, options)
    concrete = {"out": unwrap(outs)} if outs else {}
    before = [trace_of(x) for x in outs] if masked else []
    result = ufunc(*map(unwrap, inputs), **unwrap(options), **concrete)
    results = result if isinstance(result, tuple) else (result,)
    found: list[Any] = [None] * len(results)
    if traced is not None:
        computed = finish(traced, results[0])
        found = list(computed) if isinstance(computed, tuple) else [computed]
        if masked:
            where = jnp.asarray(trace_of(options["where"]))
            old: list[Any] = before or [np.asarray(x) for x in results]
            found = [jnp.where(where, x, y) for x, y in zip(found, old, strict=True)]
    if outs:
        for target, piece in zip(outs, found, strict=True):
            put_out(target, piece)
        return outs if len(outs) > 1 else outs[0]
    wrapped = tuple(wrap(x, y) for x, y in zip(results, found, strict=True))
    return wrapped if isinstance(result, tuple) else wrapped[0]


def trace_ufunc(
    ufunc: np.ufunc, inputs: Sequence[Any], options: dict[str, Any]
) -> Callable[[Any], Any]:
    """Prepare a universal function in JAX, with operands in the dtypes of NumPy's loop."""
    rule = find_rule(ufunc)
    if rule is None:
        raise UntraceableError(f"JAX has no counterpart of {ufunc.__name__}")
    CURRENT.get().count_operation()
    given = [join_traced(trace_of(x)) for x in inputs]
    weak: list[Any] = [type(x) if type(x) in WEAK else np.asarray(unwrap(x)).dtype for x in inputs]
    how: dict[str, Any] = {}
    if options.get("dtype") is not None:
        chosen = np.dtype(unwrap(options["dtype"]))
        signature = (*[None] * ufunc.nin, *[chosen] * ufunc.nout)
        how = {"signature": signature, "casting": "unsafe"}
    loop = ufunc.resolve_dtypes((*weak, *[None] * ufunc.nout), **how)
    operands: list[Any] = [
        convert(x, dtype) for x, dtype in zip(given, loop[: ufunc.nin], strict=True)
    ]
    if "where" in options:  # where nothing is computed, a derivative may be infinite
        mask = jnp.asarray(trace_of(options["where"]))
        operands = [
            jnp.where(mask, x, jnp.asarray(0.5, x.dtype)) if isinstance(x, jax.Array) else x
            for x in operands
        ]
    if ufunc is np.power and np.ndim(given[1]) == 0:
        exponent = unwrap(inputs[1])
        if not contains_traced(given[1]) and isinstance(exponent, int | np.integer):
            operands[1] = int(exponent)
    if options or loop[-1] != np.dtype(bool):
        return lambda _: rule(*operands)

    def compare(_: Any) -> Any:
        # The same comparison of the same values is one value: so masks are recognised.
        key = (ufunc, *map(identify, given))
        known = CURRENT.get().comparisons
        if key not in known:
            known[key] = rule(*operands), given
        return known[key][0]

    return compare


def convert(x: Any, dtype: Any) -> Any:
    """Convert a traced value or a constant to a dtype; JAX takes its time where it has it."""
    if not isinstance(x, jax.Array):
        return np.asarray(x, dtype)
    return x if x.dtype == dtype else x.astype(dtype)


def identify(x: Any) -> Any:
    """Identify an operand: a traced value by itself, constants by their numbers."""
    if contains_traced(x):
        return id(x)
    array = np.asarray(x)
    return array.dtype.str, array.shape, array.tobytes()


def apply_to_selections(
    ufunc: np.ufunc, inputs: Sequence[Any], out: Any, options: dict[str, Any]
) -> Any:
    """Apply a function of single entries to lazy selections by one mask, or return None."""
    lazy = [x for x in inputs if isinstance(x, MaskedEntries) and x.is_lazy]
    own = out is None or any(out[0] is x for x in lazy)
    others = [x for x in inputs if not isinstance(x, MaskedEntries)]
    fits = (
        lazy
        and own
        and not options
        and ufunc.nout == 1
        and ufunc.signature is None
        and len(lazy) + len(others) == len(inputs)
        and all(x.mask is lazy[0].mask for x in lazy)
        and all(np.ndim(unwrap(x)) == 0 for x in others)
    )
    if not fits:
        return None
    shape = lazy[0].everywhere.shape
    everywhere = [
        wrap(np.broadcast_to(np.asarray(0.5, x.dtype), shape).copy(), x.everywhere)
        if isinstance(x, MaskedEntries)
        else x
        for x in inputs
    ]
    found = trace_ufunc(ufunc, everywhere, {})(None)
    target = {} if out is None else {"out": unwrap(out)}
    result = ufunc(*map(unwrap, inputs), **target)
    if out is not None:
        out[0].replace(found.astype(out[0].dtype))
        return out[0]
    return MaskedEntries(result, like(lazy[0]), found.astype(result.dtype))


def like(selection: MaskedEntries) -> Any:
    """The mask of a selection, as an array."""
    return wrap(selection.chosen, selection.mask)


def reduce_ufunc(
    ufunc: np.ufunc, method: str, inputs: Sequence[Any], out: Any, options: dict[str, Any]
) -> Any:
    """Reduce or accumulate by a universal function."""
    rules = {"reduce": REDUCTIONS, "accumulate": ACCUMULATIONS}.get(method, {})
    traced = None
    if depends([*inputs, options]):
        if ufunc.__name__ not in rules:
            return put_result(fold(ufunc, method, *inputs, **options), out)
        named = {"axis": 0} | trace_of({k: v for k, v in options.items() if k != "dtype"})
        array = join_traced(trace_of(inputs[0]))
        rule = rules[ufunc.__name__]
        traced = finish(lambda _: rule(jnp.asarray(array), **named), None)
    concrete = {} if out is None else {"out": unwrap(out)}
    result = getattr(ufunc, method)(*map(unwrap, inputs), **unwrap(options), **concrete)
    return wrap(result, traced) if out is None else put_out(out[0], traced)


def fold(
    ufunc: np.ufunc, method: str, array: Any, *index: Any, axis: Any = 0, **options: Any
) -> Any:
    """Reduce or accumulate by a universal function, one slice after the other."""
    if ufunc.nin != 2 or not isinstance(axis, int) or any(v is not False for v in options.values()):
        raise UntraceableError(f"JAX has no counterpart of {ufunc.__name__}.{method}")
    array = call(np.moveaxis, call(np.asarray, array), axis, 0)
    if method == "reduceat":
        starts = np.asarray(unwrap(index[0])).tolist()
        ends = [*starts[1:], len(array)]
        pieces = [array[i : max(i + 1, j)] for i, j in zip(starts, ends, strict=True)]
        found = [ufunc.reduce(piece, axis=0) for piece in pieces]
    else:
        found = [array[0]]
        for each in array[1:]:
            found.append(ufunc(found[-1], each))
    return found[-1] if method == "reduce" else call(np.stack, found, axis=axis)


def put_result(found: Any, out: Any) -> Any:
    """Write a result into `out`, if it is given."""
    if out is None:
        return found
    out[0][...] = found
    return out[0]


def update_at(ufunc: np.ufunc, array: Any, index: Any, *operands: Any) -> None:
    """Apply a universal function at an index, repeatedly where the index repeats."""
    dependent = depends([array, operands])
    fix_parts(index)
    if dependent and not isinstance(array, TracedArray):
        raise UntraceableError("it writes what depends on the parameters into another array")
    if not dependent:
        ufunc.at(unwrap(array), unwrap_index(index), *map(unwrap, operands))
        return
    if ufunc.__name__ not in UPDATES:
        update_each(ufunc, array, index, *operands)
        return
    method, change = UPDATES[ufunc.__name__]
    before = jnp.asarray(array.traced)
    operand = jnp.asarray(join_traced(trace_of(operands[0]))).astype(array.dtype)
    ufunc.at(array.value, unwrap_index(index), unwrap(operands[0]))
    array.write(getattr(before.at[unwrap_index(index)], method)(change(operand)))


def update_each(ufunc: np.ufunc, array: Any, index: Any, *operands: Any) -> None:
    """Apply a universal function at one entry of an index after the other."""
    places = np.arange(array.size).reshape(array.shape)[unwrap_index(index)]
    given = [call(np.broadcast_to, each, places.shape) for each in operands]
    for i, place in np.ndenumerate(places):
        at = np.unravel_index(place, array.shape)
        array[at] = ufunc(array[at], *(each[i] for each in given))


# Functions that write into their first argument.


def copy_to(array: Any, source: Any, casting: Any = "same_kind", where: Any = True) -> None:
    """np.copyto."""
    dependent, given = depends([array, source, where]), join_traced(trace_of(source))
    mask, before = trace_of(where), trace_of(array)
    np.copyto(unwrap(array), unwrap(source), casting=casting, where=unwrap(where))
    if dependent and where is not True:
        given = jnp.where(jnp.asarray(mask), jnp.asarray(given).astype(array.dtype), before)
    put_out(array, given if isinstance(given, jax.Array) else None)


def fill_diagonal(array: Any, value: Any, wrap: bool = False) -> None:
    """np.fill_diagonal."""
    if wrap or not isinstance(array, TracedArray):
        np.fill_diagonal(unwrap(array), unwrap(value), wrap)
    else:
        every = np.arange(min(array.shape))
        array[(every,) * array.ndim] = value


def put(array: Any, index: Any, values: Any, mode: str = "raise") -> None:
    """np.put."""
    require_contiguous(array)
    call(np.ravel, array)[call(np.ravel, index)] = values


def put_mask(array: Any, mask: Any, values: Any) -> None:
    """np.putmask."""
    array[mask] = values if np.ndim(unwrap(values)) == 0 else call(np.asarray, values)[mask]


def place(array: Any, mask: Any, values: Any) -> None:
    """np.place, which repeats the values."""
    count = int(np.count_nonzero(unwrap(mask)))
    array[mask] = call(np.resize, values, count)


def put_along_axis(array: Any, index: Any, values: Any, axis: int) -> None:
    """np.put_along_axis."""
    grid: list[Any] = [*np.ogrid[tuple(map(slice, array.shape))]]
    grid[axis] = index
    array[tuple(grid)] = values


def require_contiguous(array: Any) -> None:
    """Raise UntraceableError unless a flat array is a view of an array."""
    if not unwrap(array).flags.c_contiguous:
        raise UntraceableError("it writes into a flat copy of an array")


IN_PLACE: dict[Any, Callable[..., Any]] = {
    np.copyto: copy_to, np.fill_diagonal: fill_diagonal, np.put: put, np.putmask: put_mask,
    np.place: place, np.put_along_axis: put_along_axis,
}  # fmt: skip
