"""Pytrees whose mappings keep their order, where `jax.tree` sorts them by key."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax

from bptt_verifier.program.leaves import read_key

Keys = tuple[Any, ...]


def split_node(tree: Any) -> tuple[dict[Any, Any] | None, Callable[[list[Any]], Any]]:
    """Find the children of a pytree by key, and what makes it of others; None of a leaf."""
    if type(tree) is dict:
        return tree, lambda new: dict(zip(tree, new, strict=True))
    if type(tree) is defaultdict:
        factory = tree.default_factory
        return tree, lambda new: defaultdict(factory, zip(tree, new, strict=True))
    pairs, form = jax.tree_util.tree_flatten_with_path(tree, lambda part: part is not tree)
    if len(pairs) == 1 and not pairs[0][0]:
        return None, lambda new: new[0]
    children = {read_key(path[0]): child for path, child in pairs}
    return children, lambda new: jax.tree.unflatten(form, new)


def list_leaves(tree: Any, none: bool = False, path: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """List the paths and leaves of a pytree in the order that it holds them.

    With `none`, None is a leaf as well.
    """
    children, _ = split_node(tree)
    if children is None or (none and tree is None):
        yield path, tree
        return
    for key, child in children.items():
        yield from list_leaves(child, none, (*path, key))


def replace_leaves(tree: Any, leaves: Iterable[Any]) -> Any:
    """Make a pytree like another, with other leaves, which are in its order."""
    left = iter(leaves)

    def replace(part: Any) -> Any:
        children, make = split_node(part)
        return make([next(left)] if children is None else [*map(replace, children.values())])

    return replace(tree)


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply a function to each leaf of a pytree."""
    return replace_leaves(tree, (function(leaf) for _, leaf in list_leaves(tree)))


def has_mapping(tree: Any) -> bool:
    """Tell whether a mapping is in a pytree."""
    children, _ = split_node(tree)
    return isinstance(tree, Mapping) or any(map(has_mapping, (children or {}).values()))


def pair_leaves(tree: Any, like: Any) -> list[tuple[Any, Any]]:
    """Pair the leaves of two pytrees: by their paths if these are the same, else in order.

    Raises ValueError where one has more leaves.
    """
    pairs, second = [*list_leaves(tree)], dict(list_leaves(like))
    if {path for path, _ in pairs} == set(second):
        return [(leaf, second[path]) for path, leaf in pairs]
    return [(leaf, each) for (_, leaf), each in zip(pairs, second.values(), strict=True)]
