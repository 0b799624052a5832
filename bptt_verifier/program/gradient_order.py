"""Order of gradients: a list or tuple in which not every item has the name of a gradient.

The order of such a list is that of the parameters, as docs/own-code.md states. A
list that contradicts that order, or has more items than there are parameters, is refused: a guess
would call right gradients wrong.
"""

from collections.abc import Mapping
from typing import Any

from bptt_verifier.program.leaves import Keys, find_node, flatten
from bptt_verifier.program.list_order import find_direction
from bptt_verifier.program.own_calls import Calls
from bptt_verifier.program.own_results import Results, follow


def read_in_order(
    code: str, found: Mapping[str, Keys], leaves: Mapping[str, Keys], results: Results
) -> dict[str, Keys]:
    """Read gradients in the order of the leaves where only some are found by name.

    Raises ValueError where the names that some have contradict the order, or the numbers differ.
    """
    container = results.find_container(len(leaves))
    ordered = results.list_in_order()
    if container is not None:
        whole = ("result", *container)
        ordered = [path for path in ordered if path[: len(whole)] == whole]
    holder = results.state["result"] if container is None else follow(results.state, whole)
    listed = isinstance(holder, list | tuple) and not hasattr(holder, "_fields")
    by_name = {*found.values()}.issuperset(ordered)  # the other gradients are missing
    by_index = all(isinstance(path[-1], int) for path in leaves.values())
    if not found or len(found) == len(leaves) or not listed or by_name:
        return dict(found)
    places = dict(zip(leaves, ordered, strict=False))
    if by_index:  # of a list with data among its arrays, which the gradients may lack
        return places if len(ordered) == len(leaves) else dict(found)
    if len(ordered) != len(leaves) or any(places[n] != path for n, path in found.items()):
        names = [results.name(path) or "one without a name" for path in ordered]
        raise ValueError(
            f"{code}: expected the gradients of {', '.join(leaves)} in this order, or each in a "
            f"variable with a name such as d{next(iter(leaves))}, found {', '.join(names)}"
        )
    return places


def require_one_each(code: str, given: Any, result: Any, name: str, named: bool) -> None:
    """Raise ValueError where a list of gradients has more items than its parameters.

    `named` is true if the name of each gradient says of which parameter of a dict it is.
    """
    node, found = find_node(given), find_node(result)
    if node is None or found is None:
        return
    listed = isinstance(result, list | tuple) and not hasattr(result, "_fields")
    if listed and not (named and isinstance(given, Mapping)):
        known = {len(node.children), len(flatten(given).leaves)}
        if len(result) > max(known):
            raise ValueError(
                f"{code}: expected as many gradients as {name} has arrays, {min(known)}, in the "
                f"same order, found {len(result)}; return what is no gradient outside the list"
            )
    for key, child in node.children.items():
        if key in found.children:
            require_one_each(code, child, found.children[key], f"{name}[{key!r}]", named)


def require_order(
    calls: Calls,
    leaves: Mapping[str, Keys],
    found: Mapping[str, Keys],
    container: Keys | None,
    results: Results,
) -> None:
    """Raise ValueError where the code has a list of gradients from the last to the first.

    `found` are those of arrays with their names; without any, `container` is the list of them all.
    """
    pairs = [((calls.structure, *leaves[n]), path) for n, path in found.items()]
    if not found and container is not None:
        pairs = [((calls.structure, *k), ("result", *container, *k)) for k in leaves.values()]
    lists: dict[tuple[Keys, Keys], int] = {}
    for keys, path in pairs:
        if isinstance(keys[-1], int) and keys[-1] == path[-1]:
            both = keys[:-1], path[:-1]
            lists[both] = lists.get(both, 0) + 1
    for (keys, path), number in lists.items():
        words = [key for key in keys if isinstance(key, str) and key]
        if number < 2 or not words:
            continue
        if find_direction(calls.backward, words[-1], path) == "reversed":
            raise ValueError(
                f"{calls.name}: expected the gradients of {words[-1]} in its order, found a list "
                "that begins with the last; return it reversed, such as grads[::-1]"
            )
