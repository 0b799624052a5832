"""Arguments of a kernel: a pytree with named leaves, of which the floating ones are differentiated.

Leaves are arrays of NumPy (bfloat16 included), JAX or PyTorch. They are kept as NumPy arrays, and
handed out as what was given in their place. Other leaves are data.
"""

import inspect
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bptt_verifier.problems.problem import Array
from bptt_verifier.program.attempt import Failure, attempt, type_name
from bptt_verifier.program.leaves import write_key
from bptt_verifier.program.raising_objects import describe_value, find_raised
from bptt_verifier.program.torch_tensors import (
    copy_array,
    find_torch,
    is_tensor,
    to_array,
    to_plain,
)
from bptt_verifier.program.trees import Keys, has_mapping, list_leaves, replace_leaves
from bptt_verifier.tolerance.formats import is_floating

NO_ARRAYS = "forward: expected a function that returns an array or a pytree of arrays"


class Arguments(NamedTuple):
    """The arguments of one setting: the pytree given, and its floating leaves by name.

    `places` has the number of each of these leaves among all leaves of the pytree, in the order
    that mappings have. `names` are those of the top-level arguments, if they are known.
    """

    given: Any
    leaves: dict[str, Array]
    places: dict[str, int]
    data: dict[str, Any]
    names: tuple[str, ...] = ()

    def rebuild(self, arrays: Mapping[str, Any], like: bool = True) -> Any:
        """Make the pytree with other arrays in the places of the floating leaves.

        If `like`, each becomes what was given there: an array of JAX or a tensor. Data are copied.
        """
        flat, known = [each for _, each in list_leaves(self.given)], {*self.places.values()}
        new = [
            copy_array(each)
            if place not in known and (isinstance(each, np.ndarray) or is_tensor(each))
            else each
            for place, each in enumerate(flat)
        ]
        for name, place in self.places.items():
            new[place] = make_like(arrays[name], flat[place]) if like else arrays[name]
        if not like:  # all in float64, with masks that are data
            tensors = any(map(is_tensor, arrays.values()))
            for place, each in enumerate(flat):
                if place not in known and is_floating(convert_to_numpy(each).dtype):
                    wide = convert_to_numpy(each).astype(np.float64)
                    new[place] = make_tensor(wide) if tensors else wide
        return replace_leaves(self.given, new)

    def hold(self, names: Container[str]) -> "Arguments":
        """Take some floating leaves for data, of which there is no gradient."""
        kept = {name: value for name, value in self.leaves.items() if name not in names}
        held = {name: value for name, value in self.leaves.items() if name in names}
        places = {name: place for name, place in self.places.items() if name in kept}
        return self._replace(leaves=kept, places=places, data=self.data | held)

    def call(self, function: Callable[..., Any], arguments: Any) -> Any:
        """Call a function with a pytree in the shape of the arguments: in order, or by name."""
        return function(**arguments) if isinstance(arguments, Mapping) else function(*arguments)

    def read(self, result: Any) -> dict[str, Array]:
        """Read gradients in the structure of the arguments as NumPy arrays by leaf name.

        A sequence of as many gradients as there are floating leaves is read in their order, and
        names are compared where there are any. Raises ValueError, with one sentence, where the
        structure is another.
        """
        found = self.select(result)
        return {name: read_gradient(name, each, self.leaves[name]) for name, each in found.items()}

    def select(self, result: Any) -> dict[str, Any]:
        """Select what is returned for each floating leaf. Raises ValueError as `read` does."""
        expected = "expected the structure of the arguments, with gradients of "
        expected += ", ".join(self.leaves)
        if isinstance(result, Iterator) or (result is None and len(self.leaves) > 1):
            raise ValueError(f"your backward returned {describe_type(result)}: {expected}")
        of_result = dict(list_leaves(result, none=True))  # None is the gradient of data
        paths = [path for path, _ in list_leaves(self.given)]
        known = [self.use_names(path) for path in paths]
        short = [(*path[:-1], f"d{path[-1]}") if path else path for path in known]  # as in dx
        for own in (paths, known, short, [path[1:] for path in paths]):
            wanted = [own[place] for place in self.places.values()]
            extra = {path for path, each in of_result.items() if each is not None} - set(own)
            if of_result.keys() >= set(wanted) and not extra and len(set(own)) == len(own):
                return dict(zip(self.leaves, map(of_result.__getitem__, wanted), strict=True))
        flat = [*of_result.values()]
        if has_mapping(result):
            named = ", ".join("".join(map(write_key, path)).lstrip(".") for path in of_result)
            raise ValueError(f"your backward returned gradients by name, of {named}: {expected}")
        if len(flat) == len(paths):
            return {name: flat[place] for name, place in self.places.items()}
        if len(flat) == len(self.leaves):
            return dict(zip(self.leaves, flat, strict=True))
        said = "1 gradient" if len(flat) == 1 else f"{len(flat)} gradients"
        raise ValueError(f"your backward returned {said}: {expected}")

    def use_names(self, path: Keys) -> Keys:
        """Begin a path with the name of its argument, if that is known."""
        first: Any = path[0] if path else None
        known = isinstance(first, int) and first < len(self.names)
        return (self.names[first], *path[1:]) if known else path


def describe_type(value: Any) -> str:
    """Describe a value by its type, as in "a generator"."""
    return "None" if value is None else f"a {type_name(value)}"


def require_arrays(result: Any) -> Any:
    """Return the outputs of a forward pass. Raises ValueError where one is no array or number."""
    for path, each in list_leaves(result):
        if not (hasattr(each, "dtype") or isinstance(each, int | float | complex)):
            where = f" at {name_path(path, root='outputs')}" if path else ""
            raise ValueError(f"{NO_ARRAYS}, found {describe_type(each)}{where}")
    return result


def read_gradient(name: str, value: Any, argument: Array) -> Array:
    """Read one gradient; None is zero. Raises ValueError, with one sentence, if it does not fit."""
    if value is None:
        return np.zeros_like(argument)
    array = attempt(convert_to_numpy, value)
    if isinstance(array, Failure) or not is_floating(array.dtype):
        raised = find_raised(value, array)
        found = describe_value(value, raised)
        if raised:
            found += f" at {raised.where}"
        elif not isinstance(array, Failure):
            found = f"dtype {array.dtype}"
        raise ValueError(f"the gradient for {name}: expected an array of floats, found {found}")
    if array.shape != argument.shape:
        raise ValueError(
            f"the gradient for {name}: expected shape {argument.shape}, found {array.shape}"
        )
    return np.array(array)


def read_arguments(given: Any, names: Sequence[str] = ()) -> Arguments:
    """Find the floating leaves of a pytree of arguments, and the data among them.

    `names` are those of the top-level arguments. Raises ValueError, with one sentence, where the
    arguments are no tuple or mapping, or hold no floating array.
    """
    if not isinstance(given, Mapping | tuple | list):
        raise ValueError(
            "arguments: expected a tuple of arguments, a mapping by name, or a list of such "
            f"settings, found {type_name(given)}"
        )
    leaves, places, data = {}, {}, {}
    for place, (path, value) in enumerate(list_leaves(given)):
        name = name_path(path, names)
        array = attempt(convert_to_numpy, value)
        if isinstance(array, Failure) or array.dtype == object:
            raise ValueError(f"{name}: expected an array, found {type_name(value)}")
        if is_floating(array.dtype) and np.ndim(value) + array.size > 0:
            leaves[name], places[name] = np.array(array), place
        else:
            data[name] = value
    if not leaves or any(value.size == 0 for value in leaves.values()):
        every = {**leaves, **{n: convert_to_numpy(each) for n, each in data.items()}}
        found = ", ".join(f"{n} of {x.dtype} {x.shape}" for n, x in every.items())
        raise ValueError(
            "arguments: expected arrays of floating numbers, each with entries, found "
            f"{found or 'none'}"
        )
    return Arguments(given, leaves, places, data, tuple(names))


def read_settings(given: Any, forward: Callable[..., Any]) -> list[Arguments]:
    """Read the arguments of every setting: a list of tuples or mappings holds several."""
    several = isinstance(given, list) and all(isinstance(each, Mapping | tuple) for each in given)
    names = find_parameter_names(forward)
    return [read_arguments(each, names) for each in (given if several and given else [given])]


def find_parameter_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Find the names of a function's positional parameters; empty where it does not tell."""
    signature = attempt(inspect.signature, function)
    if isinstance(signature, Failure):
        return ()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(each.name for each in signature.parameters.values() if each.kind in kinds)


def name_path(keys: Sequence[Any], names: Sequence[str] = (), root: str = "arguments") -> str:
    """Name a leaf by its path, whose first index becomes the name of that argument."""
    first, *others = keys or [""]
    known = isinstance(first, int) and first < len(names)
    start = names[first] if known else f"{root}[{first}]" if isinstance(first, int) else str(first)
    return start + "".join(map(write_key, others))


def read_outputs(result: Any) -> dict[str, Any]:
    """Read the outputs of a forward pass by name, whatever pytree they are in."""
    pairs = list_leaves(result)
    return {name_path(path, root="outputs") or "output": value for path, value in pairs}


def convert_to_numpy(value: Any) -> Array:
    """Convert an array or a tensor, of bfloat16 too, to an array of NumPy."""
    if is_tensor(value):
        torch: Any = find_torch()
        if value.dtype == torch.bfloat16:
            bits = to_plain(value).contiguous().view(torch.int16).numpy()
            return bits.view(jax.numpy.bfloat16)  # type: ignore[no-any-return]
        value = to_array(value)
    return np.asarray(value)


def make_like(array: Array, given: Any) -> Any:
    """Make what was given in an array's place: an array of JAX, a tensor, or a number."""
    if is_tensor(given):
        return make_tensor(array, given.device)
    if isinstance(given, jax.Array):
        with jax.enable_x64(array.dtype == np.float64):
            return jax.numpy.asarray(array)
    return array.item() if isinstance(given, float) else array


def make_tensor(array: Array, device: Any = "cpu") -> Any:
    """Make a tensor of an array of NumPy, bfloat16 included.

    It has the memory of the array, unless that has negative strides, which no tensor has.
    """
    torch: Any = find_torch()
    array = array.copy() if min(array.strides, default=0) < 0 else array
    if array.dtype == jax.numpy.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).to(device)
    return torch.from_numpy(array).to(device)
