"""Arrays that share memory, such as `dec = enc.T`: copies of them share the memory of the copy.

Where one of them gets other values, as a parameter does, those that view it have these, too.
While the user's code is traced, arrays are those of `numpy_arrays`, which share a memory likewise.
"""

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

MOST = 10_000  # values of a structure among which such arrays are sought
LARGEST = 4  # times the entries of the arrays, those of the memory that is copied for them
LEAVES = (int, float, complex, str, bytes, type(None), type, ModuleType, FunctionType, MethodType)


class Shared(NamedTuple):
    """Arrays of one memory, by their identities, and the array of NumPy that holds it all."""

    root: Array
    members: dict[int, Any]

    @property
    def is_kept(self) -> bool:
        """True if copies keep that the members share memory: some overlap, and all is not large."""
        members = [*map(find_numbers, self.members.values())]
        small = self.root.size <= LARGEST * sum(each.size for each in members)
        alike = all(each.dtype == self.root.dtype for each in members)
        return small and alike and bool(self.root.flags.forc) and overlap(members)

    def find_start(self, member: Array) -> int:
        """Find the place of a member's first entry in the memory of the root."""
        return (find_address(member) - find_address(self.root)) // member.itemsize

    def find_positions(self, member: Any) -> Array:
        """Find where the entries of a member are in the memory of the root."""
        member = find_numbers(member)
        found = np.array(self.find_start(member))
        for length, stride in zip(member.shape, member.strides, strict=True):
            found = found[..., None] + np.arange(length) * (stride // member.itemsize)
        return found

    def copy(self, dtype: Any = None) -> dict[int, Any]:
        """Copy the memory; return the members of the copy by the identities of the originals."""
        dtype = self.root.dtype if dtype is None else dtype
        first = next(iter(self.members.values()))
        if not is_traced(first):
            return self.view(self.root.astype(dtype, order="K"))
        memory, kind = first.memory, type(first)
        whole = kind(memory, memory.numbers)
        traced = None if whole.is_constant else whole.traced.astype(dtype)
        copied = type(memory)(memory.numbers.astype(dtype, order="K"), traced)
        return self.view(kind(copied, copied.numbers))

    def view(self, whole: Any) -> dict[int, Any]:
        """View another array, whose memory lies as that of the root does, as the members do."""
        root, found = find_numbers(whole), dict[int, Any]()
        for key, each in self.members.items():
            member = find_numbers(each)
            strides = tuple(s // member.itemsize * root.itemsize for s in member.strides)
            start = self.find_start(member) * root.itemsize
            view = np.ndarray(member.shape, root.dtype, root, start, strides)
            view.flags.writeable = member.flags.writeable
            found[key] = type(whole)(whole.memory, view) if is_traced(whole) else view
        return found

    def replace(self, replaced: Mapping[int, Any]) -> dict[int, Any]:
        """Give the memory what replaces some members, which are views of it from then on.

        What replaces all of it, and lies as it does, is the memory, and stays as it is. Nothing is
        returned where all members are replaced, each by another array.
        """
        if replaced.keys() == self.members.keys() or not all(map(is_array, replaced.values())):
            return {}
        for key, value in replaced.items():
            if lies_as(self.members[key], self.root) and lies_as(value, self.root):
                return {k: each for k, each in self.view(value).items() if k not in replaced}
        found = self.copy(np.result_type(*(value.dtype for value in replaced.values())))
        for key, value in replaced.items():
            find_numbers(found[key]).flags.writeable = True
            found[key][...] = value
        return found


def copy_shared(value: Any, memo: Mapping[int, Any]) -> dict[int, Any]:
    """Copy the arrays of a structure that share memory, by their identities.

    `memo` has what replaces some of them, which may become views of a memory as well.
    """
    found = dict[int, Any]()
    for shared in find_shared(list_arrays(value)):
        replaced = {key: memo[key] for key in shared.members if key in memo}
        found |= shared.replace(replaced) if replaced else shared.copy()
    return found


def find_shared(arrays: Iterable[Any]) -> list[Shared]:
    """Find the arrays that share memory with another one, by the array that owns it."""
    groups = dict[int, Shared]()
    for array in arrays:
        root = find_root(array)
        groups.setdefault(id(root), Shared(root, {})).members[id(array)] = array
    return [shared for shared in groups.values() if shared.is_kept]


def find_root(array: Any) -> Array:
    """Find the array that owns the memory of another one, or the last one that is known."""
    found: Array = array.memory.numbers if is_traced(array) else array
    while isinstance(found.base, np.ndarray):
        found = found.base
    return found


def is_inside(one: Any, other: Any) -> bool:
    """True if the entries of an array are some of those of another one, and not all."""
    (shared,) = find_shared([one, other]) or (None,)
    if shared is None or one.size >= other.size:
        return False
    return bool(np.isin(shared.find_positions(one), shared.find_positions(other)).all())


def find_address(array: Array) -> int:
    """Find the address of an array's first entry."""
    return int(array.__array_interface__["data"][0])


def lies_as(array: Any, root: Array) -> bool:
    """True if the entries of an array lie in memory, without gaps, in the order of another's."""
    if not is_array(array):
        return False
    array = find_numbers(array)
    flags = "C_CONTIGUOUS" if root.flags.c_contiguous else "F_CONTIGUOUS"
    return array.shape == root.shape and bool(array.flags[flags])


def overlap(arrays: Iterable[Array]) -> bool:
    """True if the memory of one array may be that of another, by the addresses of its ends."""
    bounds = sorted(np.lib.array_utils.byte_bounds(each) for each in arrays if each.size)
    return any(low < high for (_, high), (low, _) in pairwise(bounds))


def is_traced(value: Any) -> bool:
    """True for an array that stands for one of NumPy while the user's code is traced."""
    known = sys.modules.get("bptt_verifier.program.numpy_arrays")
    return known is not None and type(value) is known.TracedArray


def is_array(value: Any) -> bool:
    """True for an array of NumPy, or one that stands for it."""
    return type(value) is np.ndarray or is_traced(value)


def find_numbers(array: Any) -> Array:
    """Find the numbers of an array of NumPy, or of one that stands for it."""
    found: Array = array.value if is_traced(array) else array
    return found


def list_arrays(value: Any) -> Iterator[Any]:
    """List the arrays of numbers in a structure and in the attributes of its objects, once each."""
    waiting, seen = deque([value]), set[int]()
    while waiting and len(seen) < MOST:
        each = waiting.popleft()
        if isinstance(each, LEAVES) or id(each) in seen:
            continue
        seen.add(id(each))
        if is_array(each):
            if each.dtype != object:
                yield each
        elif isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, list | tuple | set | frozenset):
            waiting.extend(each)
        else:
            waiting.append(getattr(each, "__dict__", None))
