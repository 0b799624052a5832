"""Values kept by the identity of a mistake, which has no hash."""

from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class ByIdentity(Generic[Key, Value]):
    """Values by the identity of their keys.

    The keys are kept alive: the identity of one that is gone may be that of a new one.
    """

    def __init__(self) -> None:
        self.entries: dict[int, tuple[Key, Value]] = {}

    def __setitem__(self, key: Key, value: Value) -> None:
        self.entries[id(key)] = key, value

    def __getitem__(self, key: Key) -> Value:
        return self.entries[id(key)][1]

    def __contains__(self, key: Key) -> bool:
        return id(key) in self.entries

    def values(self) -> list[Value]:
        """List the values, in the order of their first keys."""
        return [value for _, value in self.entries.values()]

    def __len__(self) -> int:
        return len(self.entries)
