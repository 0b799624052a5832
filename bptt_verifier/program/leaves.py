"""Leaves: the float arrays in nested parameters, by name, and the structure around them.

Parameters are any structure of mappings, sequences, NamedTuples, dataclasses, other objects with
attributes, modules of PyTorch and nodes registered with JAX. Tensors are leaves as arrays are. A
leaf is named by its path, `layers[0].Wx`, whether `Wx` is a key or an attribute; a path that starts
with an index is written `params[0].Wx`. Integers, booleans, texts, functions and None are data:
they are handed on unchanged.
"""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import wraps
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import CodeRaisedError, Failure, attempt, type_name
from bptt_verifier.program.torch_tensors import (
    find_module_parts,
    is_tensor,
    remake_module,
    to_array,
    to_tensor,
)

Keys = tuple[Any, ...]  # keys, indices and attributes, from the outside in


class Node(NamedTuple):
    """A container: its children by key or attribute, and a function that remakes it with others."""

    children: dict[Any, Any]
    remake: Callable[[list[Any]], Any]


class Leaves(dict[str, Array]):
    """The arrays of leaves by name.

    `one_precision` is true for tensors, whose dtype the user's code cannot mix with another.
    """

    one_precision = False


class Tree(NamedTuple):
    """Parameters, their leaves by name, and the names of the data among them.

    `keys` is true for a mapping without a structure in it, whose leaves have their keys as names,
    and `flat` for one that holds arrays alone. A float is an array without axes among the leaves.
    """

    params: Any
    leaves: Leaves
    data: tuple[str, ...] = ()
    keys: bool = True
    arrays: bool = True
    empty: tuple[str, ...] = ()  # arrays without entries, which are handed on as data are

    @property
    def flat(self) -> bool:
        """True for a dict of arrays, which is handed on as it is."""
        return self.keys and not self.data and self.arrays

    @property
    def tensors(self) -> bool:
        """True if tensors are among the leaves."""
        return self.leaves.one_precision

    def rebuild(self, arrays: Mapping[str, Any]) -> Any:
        """Make the structure with other arrays as leaves, by name, and copies of the data."""

        def remake(value: Any, path: Keys) -> Any:
            name = name_leaf(path, self.keys)
            if name in arrays:
                return convert_like(arrays[name], value)
            node = find_node(value) if path else find_root(value)
            if node is None or name in self.data:
                copied = attempt(copy.deepcopy, value)
                return value if isinstance(copied, Failure) else copied
            return node.remake([remake(v, (*path, key)) for key, v in node.children.items()])

        return dict(arrays) if self.flat else remake(self.params, ())

    def read(self, result: Any) -> Any:
        """Read a structure of this shape, with or without the data, as values by leaf name.

        A mapping by leaf names, a list in the order of the leaves, with or without Python's
        floats, and a pair of the loss and any of these are read, too. Names that are no leaf's
        are kept. Other results are returned.
        """
        if self.flat:
            return result
        if isinstance(result, list | tuple) and not hasattr(result, "_fields"):
            parts = find_children(self.params)
            same_shape = [*parts] == [*range(len(result))]
            if len(result) == 2 and result[0] is not None and is_scalar(result[0]):
                scalar = same_shape and is_scalar(parts[0])  # a parameter, or the loss
                if not scalar or isinstance(result[1], Mapping):
                    return result[0], self.read(result[1])
            listed = len(result) == len(self.leaves) and not same_shape
            if self.are_arrays_of(self.leaves, result) or (
                listed and self.fit(self.params, result) is None
            ):
                return dict(zip(self.leaves, result, strict=True))
            arrays = [name for name in self.leaves if name not in self.numbers]
            if self.are_arrays_of(arrays, result):
                return dict(zip(arrays, result, strict=True))
        return result if find_root(result) is None else dict(self.match(self.params, result, ()))

    def are_arrays_of(self, names: Collection[str], result: Sequence[Any]) -> bool:
        """True if a list has an array of the right shape for each of these leaves, in order."""
        return len(result) == len(names) and all(
            find_node(given) is None and np.shape(to_array(given)) == self.leaves[name].shape
            for name, given in zip(names, result, strict=True)
        )

    def find_leaves(self, params: Any) -> dict[str, Any]:
        """Find the leaves by name of parameters in this structure."""
        return dict(params if self.flat else self.match(self.params, params, ()))

    def match(self, value: Any, given: Any, path: Keys) -> Iterator[tuple[str, Any]]:
        """Yield names and values of what is given in the place of a part of the parameters."""
        name, fitted = name_leaf(path, self.keys), self.fit(value, given, path)
        if fitted is not None or name in self.leaves:
            yield from ({name: given} if fitted is None else fitted).items()
            return
        children, found = find_children(value), find_children(given)
        if name in self.data or not children:
            return
        if not isinstance(given, Mapping) and len(found) == len(children):
            pairs = zip(children, found.values(), strict=True)
            found = found if [*found] == [*children] else dict(pairs)
        for key, child in children.items():
            if key in found:
                yield from self.match(child, found.pop(key), (*path, key))
        if not path:
            yield from ((str(key), each) for key, each in found.items())

    def fit(self, value: Any, given: Any, path: Keys = ()) -> dict[str, Any] | None:
        """Read what is given for a part of the parameters by leaf name; None where it does not fit.

        It has the structure of that part, or of what is left of that without data, at each level.
        A part with one such child may be left out around it. Arrays of the right shapes decide
        where several of these ways fit, and otherwise the number of axes.
        """
        found = self.fit_arrays(value, given, path, np.shape)
        return self.fit_arrays(value, given, path, np.ndim) if found is None else found

    def fit_arrays(
        self, value: Any, given: Any, path: Keys, measure: Callable[[Any], Any]
    ) -> dict[str, Any] | None:
        """Read what is given for a part, with equal measures of the arrays."""
        name, node = name_leaf(path, self.keys), find_node(given)
        if name in self.leaves:
            fits = node is None and measure(to_array(given)) == measure(self.leaves[name])
            return {name: given} if fits else None
        every, found = find_children(value), find_children(given)
        children = {k: v for k, v in every.items() if self.has_leaves(v, (*path, k))}
        orders = [each for each in (every, children) if len(each) == len(found)]
        if children.keys() <= found.keys() <= every.keys():
            orders = [found]  # by key
        elif isinstance(given, Mapping):
            orders = []
        for order in orders:
            by_key = dict(zip(order, found.values(), strict=True))
            parts = [
                self.fit_arrays(child, by_key[k], (*path, k), measure)
                for k, child in children.items()
            ]
            if all(part is not None for part in parts):
                return {n: v for part in parts if part is not None for n, v in part.items()}
        if len(children) > 1:
            return None
        inner = ((v, given, (*path, k), measure) for k, v in children.items())
        return next((self.fit_arrays(*each) for each in inner), None)

    def has_leaves(self, value: Any, path: Keys) -> bool:
        """True if a part of the parameters is a leaf, or holds one."""
        name = name_leaf(path, self.keys)
        if name in self.leaves or name in self.data:
            return name in self.leaves
        node = find_node(value)
        return node is not None and any(
            self.has_leaves(child, (*path, key)) for key, child in node.children.items()
        )

    @property
    def paths(self) -> dict[str, Keys]:
        """The paths of the leaves, by name."""
        named = {name_leaf(path, self.keys): path for path, _ in walk(self.params, (), ())}
        return {name: named[name] for name in self.leaves if name in named}

    @property
    def numbers(self) -> tuple[str, ...]:
        """The leaves that are Python's floats or NumPy's, by name."""
        named = {name_leaf(path, self.keys): each for path, each in walk(self.params, (), ())}
        return tuple(n for n in self.leaves if isinstance(named.get(n), float | np.floating))

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what is data, and on what has no entries."""
        said = {
            "Handed on as data, not differentiated": [n for n in self.data if n not in self.empty]
        }
        said["Without entries, so that nothing of it is compared"] = [*self.empty]
        return tuple(f"{what}: {', '.join(names)}." for what, names in said.items() if names)


def flatten(params: Any) -> Tree:
    """Find the leaves and the data of parameters.

    Raises ValueError, with one sentence, unless they hold float arrays, and what else is data.
    """
    items = read_items(params) if isinstance(params, Mapping) else {}
    keys = bool(items) and all(find_node(value) is None for value in items.values())
    leaves, data, arrays, first = Leaves(), dict[str, Any](), True, Keys()
    tensors = getattr(params, "one_precision", False)
    for path, value in walk(params, (), ()) if find_root(params) else ():
        name = name_leaf(path, keys)
        if name in leaves or name in data:
            raise ValueError(f"params: expected one entry of the name {name}, found two")
        if is_data(value) or is_empty(value):
            data[name] = value
            first = first or path
        else:
            leaves[name] = convert_leaf(value, write_path(path))
            arrays = arrays and not (is_tensor(value) or isinstance(value, float | np.floating))
            tensors = tensors or is_tensor(value)
    if not leaves and data:
        convert_leaf(data[next(iter(data))], write_path(first))
    if not leaves:
        kind = type_name(params)
        empty = find_root(params) is not None or isinstance(params, Mapping | list | tuple)
        found = f"an empty {kind}; put the arrays in it that loss differentiates" if empty else kind
        raise ValueError(
            f"params: expected a dict of float arrays, which may be nested, found {found}"
        )
    leaves.one_precision = tensors
    without = tuple(name for name, value in data.items() if not is_data(value))
    return Tree(params, leaves, tuple(data), keys, arrays, without)


def rebuild_before(loss: Callable[..., Any], trees: Sequence[Tree]) -> Callable[..., Any]:
    """Make the function of a dict of leaves from a function of the parameters in these structures.

    The structure is the one whose leaves have the shapes of those given. Raises ValueError where
    structures of the same shapes hold other data.
    """
    if all(tree.flat for tree in trees):
        return loss
    by_shapes: dict[Any, Tree] = {}
    for tree in trees:
        known = by_shapes.setdefault(describe_shapes(tree.leaves), tree)
        if known is not tree and tree.data:
            raise ValueError("params: expected settings of different shapes, found two of the same")

    @wraps(loss)
    def rebuilding(arrays: Mapping[str, Any], *others: Any) -> Any:
        return loss(by_shapes[describe_shapes(arrays)].rebuild(arrays), *others)

    rebuilding.__module__ = __name__  # whose globals it has
    return rebuilding


def describe_shapes(arrays: Mapping[str, Any]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Describe the shapes of arrays by name."""
    return tuple((name, tuple(value.shape)) for name, value in arrays.items())


def read_items(params: Mapping[Any, Any]) -> dict[str, Any]:
    """Read the items of a mapping. Raises ValueError where that fails, or a name is no string."""
    items = attempt(lambda: dict(params.items()))
    if isinstance(items, Failure):
        refuse(
            f"params: expected a dict of float arrays, found one that raises {items.said}", items
        )
    for name in items:
        if not isinstance(name, str):
            raise ValueError(f"params: expected names that are strings, found {name!r}")
    return items  # type: ignore[no-any-return]


def convert_leaf(value: Any, where: str) -> Array:
    """Convert a leaf to an array. Raises ValueError unless it has float32 or float64 entries."""
    array = attempt(lambda: np.array(to_array(value)))
    if isinstance(array, Failure):
        refuse(f"{where}: expected an array, found {array.said}", array)
    dtype = str(value.dtype).removeprefix("torch.") if is_tensor(value) else str(array.dtype)
    remedy = "; integers are data: convert it to float64" if array.dtype.kind in "iu" else ""
    if dtype not in {"float32", "float64"} or array.size == 0:
        raise ValueError(
            f"{where}: expected a float32 or float64 array with entries, found "
            f"{dtype} of shape {array.shape}{remedy}"
        )
    return array  # type: ignore[no-any-return]


def refuse(sentence: str, failure: Failure) -> NoReturn:
    """Raise a ValueError with a sentence on what cannot be read: CodeRaisedError for user code."""
    raise (CodeRaisedError if failure.raised_by_user else ValueError)(sentence)


def walk(value: Any, path: Keys, above: tuple[int, ...]) -> Iterator[tuple[Keys, Any]]:
    """Yield the paths and values of the leaves and data of a structure, in order.

    A part without any leaf is data as a whole, and so is a part that contains itself.
    """
    node = find_node(value) if path else find_root(value)
    if node is None or id(value) in above:
        yield path, value
        return
    found = [
        each
        for key, child in node.children.items()
        for each in walk(child, (*path, key), (*above, id(value)))
    ]
    whole = path and found and all(is_data(each) for _, each in found)
    yield from [(path, value)] if whole else found


def is_data(value: Any) -> bool:
    """True if a value is handed on, not differentiated: integers, texts, functions, None."""
    if value is None or isinstance(value, str | bytes | int | np.integer):
        return True  # the quick answer, of which a vocabulary needs many
    if find_node(value) is not None:
        return True  # as a whole: `walk` yields no other
    array = attempt(lambda: np.asarray(to_array(value)))
    failed = isinstance(array, Failure)
    if failed and array.raised_by_user and hasattr(type(value), "__array__"):
        return False  # it is meant to be an array
    plain = failed or array.dtype == object
    if plain and (callable(value) or hasattr(value, "__dict__")):
        return True
    return not failed and array.dtype.kind in "biuSUMm"


def is_empty(value: Any) -> bool:
    """True for an array of floats without entries, as of shape (0, 3)."""
    array = value if type(value) is np.ndarray else None
    return array is not None and array.size == 0 and array.dtype.kind == "f"


def find_children(value: Any) -> dict[Any, Any]:
    """Find the children of a container, or the rows of an array."""
    rows = isinstance(value, np.ndarray) and value.ndim
    if rows or (isinstance(value, list | tuple) and not hasattr(value, "_fields")):
        return dict(enumerate(value))
    node = find_node(value)
    return {} if node is None else dict(node.children)


def find_node(value: Any) -> Node | None:
    """Find the children of a container; None where the value is a leaf or data."""
    kind: Any = type(value)
    if isinstance(value, Mapping):
        return Node(dict(value), lambda new: remake_mapping(value, new))
    fields_of_kind = getattr(kind, "_fields", None)  # of the value they may be anything
    if isinstance(value, tuple) and isinstance(fields_of_kind, tuple):
        return Node(dict(zip(fields_of_kind, value, strict=True)), lambda new: kind(*new))
    if isinstance(value, list | tuple):
        return None if value and is_numbers(value) else Node(dict(enumerate(value)), kind)
    atoms = str | bytes | type | ModuleType | FunctionType | BuiltinFunctionType | MethodType
    atoms |= np.ufunc  # which may note its signature as an attribute
    if value is None or isinstance(value, atoms) or hasattr(value, "__array__"):
        return None
    parts = find_module_parts(value)
    if parts is not None:
        return Node(parts, lambda new: remake_module(value, dict(zip(parts, new, strict=True))))
    if not jax.tree_util.all_leaves([value]):
        pairs, form = jax.tree_util.tree_flatten_with_path(value, lambda part: part is not value)
        children = {read_key(path[0]): child for path, child in pairs}
        return Node(children, lambda new: jax.tree_util.tree_unflatten(form, new))
    names = [f.name for f in fields(value)] if is_dataclass(value) else vars_of(value)
    children = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return Node(children, lambda new: remake_object(value, children, new)) if children else None


def find_root(params: Any) -> Node | None:
    """Find the children of parameters; unlike elsewhere, a list of numbers is no array here."""
    if isinstance(params, list | tuple) and params and is_numbers(params):
        return Node(dict(enumerate(params)), type(params))
    return find_node(params)


def convert_like(new: Any, given: Any) -> Any:
    """Convert an array to what was given in its place: a tensor, or a number without axes."""
    if isinstance(given, float | np.floating) and hasattr(new, "dtype"):
        number = new[()]
        real = isinstance(number, np.float32 | np.float64)
        return float(number) if type(given) is float and real else number
    numbers = isinstance(new, np.ndarray) and new.dtype != object
    return to_tensor(new, given) if numbers and is_tensor(given) else new


def vars_of(value: Any) -> list[str]:
    """List the attributes that an object has in a dict or in the slots of its classes."""
    slots = (getattr(kind, "__slots__", ()) for kind in type(value).__mro__)
    named = [each for of in slots for each in ((of,) if isinstance(of, str) else of)]
    of_slots = [name for name in named if not name.startswith("__") and hasattr(value, name)]
    return [*dict.fromkeys([*getattr(value, "__dict__", ()), *of_slots])]


def is_scalar(value: Any) -> bool:
    """True for a number or an array of one entry."""
    if find_node(value) is not None or isinstance(value, str):
        return False
    return bool(attempt(np.size, to_array(value)) == 1)  # its attributes may raise


def is_numbers(value: Any) -> bool:
    """True for a list of Python's numbers, or of such lists, that stands for an array."""
    if isinstance(value, list | tuple):
        inner = all(map(is_numbers, value))
        return inner and not isinstance(attempt(np.array, value), Failure)
    return isinstance(value, int | float | np.number)


def remake_mapping(value: Mapping[Any, Any], new: list[Any]) -> Any:
    """Make a mapping of the same type with other values, or a dict where that fails."""
    items = dict(zip(value, new, strict=True))

    def copy_with_items() -> Any:
        other: Any = copy.copy(value)
        for key, each in items.items():
            other[key] = each
        return other

    other = items if type(value) is dict else attempt(copy_with_items)
    return items if isinstance(other, Failure) else other


def remake_object(value: Any, names: Mapping[str, Any], new: list[Any]) -> Any:
    """Copy an object and set its attributes, which may be frozen."""
    other = copy.copy(value)
    for name, each in zip(names, new, strict=True):
        object.__setattr__(other, name, each)
    return other


def read_key(key: Any) -> Any:
    """Read the name, key or index of a child in JAX's path."""
    for name in ("name", "key", "idx"):
        if hasattr(key, name):
            return getattr(key, name)
    return str(key)


def write_path(path: Keys) -> str:
    """Write a path as an expression."""
    if len(path) == 1 and isinstance(path[0], str):
        return f"params[{path[0]!r}]"
    return "params" + "".join(map(write_key, path))


def write_key(key: Any) -> str:
    """Write a key, index or attribute as a part of a leaf's name."""
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"


def name_leaf(path: Keys, keys: bool) -> str:
    """Name a leaf by its path, or by its key alone in a mapping of leaves."""
    if keys:
        return str(path[0]) if path else ""
    return ("params" + "".join(map(write_key, path))).removeprefix("params.")
