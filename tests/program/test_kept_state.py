"""What a loss keeps in globals is put back after each call of the judge's own."""

from collections import OrderedDict, defaultdict, deque
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bptt_verifier import verify_own_model
from bptt_verifier.program.kept_state import (
    BUDGET,
    COUNTERS,
    MOST,
    NUMBERS,
    hold_globals,
    put_back_globals,
)


class Optimiser:
    """An object of this file's, as one of a user's file is."""

    def __init__(self) -> None:
        self.moments, self.steps = dict[str, Any](), 0


def make_update() -> Any:
    """Make a function that keeps moments around it, and counts its calls."""
    moments, steps = dict[str, Any](), 0

    def update(name: str, value: Any) -> int:
        nonlocal steps
        steps += 1
        moments[name] = value
        return steps

    return update


def make_space() -> dict[str, Any]:
    """The globals of a file, of whatever a call may change."""
    inner = np.zeros(3)
    space: dict[str, Any] = {
        "__name__": __name__, "moments": {}, "losses": [1.0], "seen": {1}, "queue": deque([1]),
        "by_name": defaultdict(list), "order": OrderedDict(a=1, b=2), "nested": {"m": [inner]},
        "pair": ([], 1), "optimiser": Optimiser(), "count": 0, "array": inner,
        "named": SimpleNamespace(n=1),
    }  # fmt: skip
    update = make_update()
    space["update"] = FunctionType(update.__code__, space, "update", (), update.__closure__)
    exec("def keep(x, seen=[], *, by={}):\n    seen.append(x)\n    by[x], keep.last = x, x", space)
    return space


CHANGES = """
moments["W"] = 1j
losses.append(2.0)
named.n += 1
seen.add(2)
queue.popleft()
by_name["W"].append(1)
order.move_to_end("a")
nested["m"][0] += 7
nested["more"] = {}
pair[0].append(1)
optimiser.moments["W"], optimiser.steps = 1j, 5
update("W", 1j)
count = 3
keep(1j)
created = 1
del moments["W"]
moments["W"] = 2j
order["a"] = order.pop("a")
"""


def define(space: dict[str, Any], body: str) -> Any:
    """Define a function that changes these globals."""
    names = "global " + ", ".join(name for name in (*space, "created") if name.isidentifier())
    lines = "\n".join(f"    {line}" for line in (names, *body.strip().splitlines()))
    exec(f"def change(*arguments):\n{lines}\n    return arguments", space)
    return space.pop("change")


def describe(space: dict[str, Any]) -> str:
    """All that the globals hold, in order, and what objects they are."""
    state = {name: value for name, value in space.items() if name != "__builtins__"}
    cells = [cell.cell_contents for cell in space["update"].__closure__]
    keep = space["keep"]
    kept = keep.__defaults__, keep.__kwdefaults__, vars(keep)
    optimiser = vars(space["optimiser"]), cells, kept
    return repr([(name, id(value), value) for name, value in state.items()]) + repr(optimiser)


@pytest.mark.parametrize("line", [*CHANGES.strip().splitlines()[:15], CHANGES])
def test_what_a_call_changes_is_as_before(line: str) -> None:
    space = make_space()
    function = define(space, line)
    before = describe(space)
    assert put_back_globals(function)(1, 2) == (1, 2)
    assert describe(space) == before
    function()
    assert describe(space) != before


def test_it_is_put_back_where_the_call_raises() -> None:
    space = make_space()
    function = define(space, "moments['W'] = 1\nlosses[5]")
    with pytest.raises(IndexError):
        put_back_globals(function)()
    assert space["moments"] == {}


def test_data_are_left_as_they_are_and_not_copied() -> None:
    space = make_space() | {
        "words": {k: k for k in range(MOST + 1)}, "table": {"E": np.zeros(NUMBERS + 1)},
        "rows": {k: k for k in range(MOST)}, "small": {"E": np.zeros(NUMBERS)},
    }  # fmt: skip
    body = "words[0], rows[0] = 7, 7\ntable['E'][0] = 7\nsmall['E'][0] = 7\narray[0] = 7"
    put_back_globals(define(space, body))()
    assert (space["words"][0], space["table"]["E"][0]) == (7, 7)
    assert (space["rows"][0], space["small"]["E"][0]) == (0, 0)
    assert space["array"][0] == 0  # it is in a list, too


def test_arrays_that_are_globals_are_put_back_if_they_are_to_be() -> None:
    for arrays, size, kept in [(True, COUNTERS + 1, 0), (False, COUNTERS + 1, 7), (False, 4, 0)]:
        space: dict[str, Any] = {"__name__": __name__, "numbers": np.zeros(size)}
        change = define(space, "numbers[0] = 7")
        with hold_globals(change, arrays=arrays):
            change()
        assert space["numbers"][0] == kept


def test_a_structure_that_contains_itself_is_put_back() -> None:
    space = make_space()
    space["nested"]["self"] = space["nested"]
    put_back_globals(define(space, "nested['m'] = 1"))()
    assert len(space["nested"]["m"]) == 1


def test_what_is_no_function_of_python_has_no_globals() -> None:
    with hold_globals(np.sum):
        pass
    assert put_back_globals(len)([1]) == 1


# The judge's numbers do not reach the submission.

MOMENTS: dict[str, Any] = {}


def compute(p: Any) -> Any:
    """Compute the states, and keep their moment."""
    h = np.tanh(p["W"] @ np.ones(2))
    MOMENTS["h"] = 0.9 * MOMENTS.get("h", 0.0) + h
    return h


def loss(p: Any) -> Any:
    return np.sum(compute(p) ** 2)


def gradients(p: Any) -> dict[str, Any]:
    h = compute(p)
    updated = np.ones(3)
    updated -= 0.1 * MOMENTS["h"]  # as of a learning rate
    return {"W": np.outer(2 * h * (1 - h**2), np.ones(2))}


def test_numbers_that_the_loss_is_called_with_do_not_reach_the_submission() -> None:
    MOMENTS.clear()
    report = verify_own_model(gradients, loss=loss, params={"W": np.ones((3, 2)) / 3})
    assert str(report.verdict) == "agrees"
    assert MOMENTS["h"].dtype == np.float64


class Node:
    """An element of a linked list."""

    after: Any = None
    total = 0.0


def test_long_chains_of_objects_are_followed_as_far_as_the_budget_goes() -> None:
    first = Node()
    node = first
    for _ in range(3000):
        node.after = Node()
        node = node.after
    space = {"__name__": __name__, "first": first, "Node": Node}
    with hold_globals(define(space, "first.after.value = 7")):
        first.after.value = 7
    assert not hasattr(first.after, "value")


def test_attributes_of_the_files_own_classes_are_put_back() -> None:
    space = {"__name__": __name__, "Node": Node, "Other": OrderedDict}
    put_back_globals(define(space, "Node.total = 1j\nNode.more = 2"))()
    assert Node.total == 0.0
    assert not hasattr(Node, "more")


def test_what_is_remembered_is_bounded() -> None:
    space = {"__name__": __name__, "rows": [[k] for k in range(MOST)]}
    space |= {f"more{k}": [[k] for _ in range(MOST)] for k in range(2 * BUDGET // MOST)}
    last = f"more{2 * BUDGET // MOST - 1}"
    put_back_globals(define(space, f"rows[0] = 7\n{last}[0][0] = 7"))()
    assert space["rows"][0] == [0]
    assert space[last][0] == [7]
