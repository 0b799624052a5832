"""Further calls on the object of the first one, which show what it keeps between calls."""

from collections.abc import Collection, Mapping, Sequence
from time import monotonic
from typing import Any

import numpy as np

from bptt_verifier.program.accumulated_gradients import is_double
from bptt_verifier.program.attempt import Failure, attempt, copies
from bptt_verifier.program.beginnings import may_begin_anew
from bptt_verifier.program.leaves import Keys, walk
from bptt_verifier.program.own_calls import Calls, copy_all
from bptt_verifier.program.own_results import follow
from bptt_verifier.program.shared_memory import is_array
from bptt_verifier.program.torch_tensors import is_tensor, to_array

EARLIER = 0.75  # times their values, at which the parameters are at the first call
CALLS = 62  # more calls after the second one, unless they take long
SECONDS = 0.25
CARRIED = "the loss changes from call to call with equal parameters, as with a state carried over"


def call_again(
    calls: Calls, params: Mapping[str, Any], loss: Keys, gradients: Collection[Keys]
) -> dict[str, Any] | None:
    """Call a method on its object with other parameters first; return the state of a later call.

    It is that of the first call whose gradients differ from those of a new object with equal
    parameters and an equal loss, if there is one, else that of the second.
    None where a later call may return something else than the first: where nothing is kept, where
    the loss of equal parameters changes by a bit, as after an update or with a state that is
    carried over and forgotten with time, where gradients add up on purpose, and where the file may
    begin anew between two calls. `calls.later` gets the reason, or an empty text where there is a
    later call or nothing to say.
    """
    found = find_later(calls, params, loss, gradients)
    calls.later.append(found if isinstance(found, str) else "")
    return None if isinstance(found, str) else found


def describe_untried(calls: Calls) -> tuple[str, ...]:
    """Describe why no later call was compared, if none was."""
    if not any(calls.later) or not all(calls.later):
        return ()
    return (f"No later call on the same object was compared: {calls.later[0]}.",)


def describe_raised(failure: Failure) -> str:
    """Describe an exception that the code has raised at a later call."""
    return f"at one, your code raised {failure.said}"


def find_later(
    calls: Calls, params: Mapping[str, Any], loss: Keys, gradients: Collection[Keys]
) -> dict[str, Any] | str:
    """Find the state of a later call; see `call_again`. Otherwise return why there is none."""
    if any(map(is_tensor, params.values())):
        return "it has parameters of PyTorch"
    earlier = {name: np.asarray(EARLIER * value) for name, value in params.items()}
    roots = calls.copy_roots(earlier)
    held = {name: follow(roots, (each.root, *each.path)) for name, each in calls.places.items()}
    before, places = copy_values(roots["self"]), find_places(roots, held)
    first = attempt(calls.run_on, calls.run, roots)
    if isinstance(first, Failure):  # other parameters may be no valid ones
        return describe_raised(first)
    kept = list_kept(before, copy_values(first["self"]))
    results = {str(path[1]) for path in gradients if path[0] == "self"}
    if not kept:
        return ""
    if may_begin_anew(calls, kept, results):
        return (
            "the file may change between two calls what the object keeps, make several objects, or "
            "call it with other data"
        )
    paths = [loss, *gradients]
    own = {name for name, root in zip(places.values(), places, strict=True) if root[0] == "self"}

    def go_on(now: Mapping[str, Any]) -> dict[str, Any]:
        """Call the code once more, with other parameters in the places of those before."""
        pairs = [(follow(first, path), name) for path, name in places.items() if name in own]
        now = copies(now)  # which the code may change
        memo = {id(each): now[name] for each, name in pairs if is_array(each)}
        same = copy_all({name: first[name] for name in calls.roots}, memo)  # and views of these
        set_places(same, places, now)
        return calls.run_on(calls.run, same)

    again = attempt(go_on, earlier)
    if isinstance(again, Failure):
        return describe_raised(again)
    if not are_equal(*(follow(state, loss) for state in (again, first))):
        return CARRIED
    changed = [path for path in gradients if not is_same(follow(again, path), follow(first, path))]
    if changed and all(
        is_double(*(to_array(follow(s, p)) for s in (again, first))) for p in changed
    ):
        return ""  # which the report says of gradients that add up
    alone = attempt(calls.make(calls.run), copies(params))
    state = attempt(go_on, params)
    if isinstance(alone, Failure) or isinstance(state, Failure):
        return describe_raised(alone if isinstance(alone, Failure) else state)
    # Code that is wrong at its second call alone is right again when that is repeated.
    right = all(is_same(follow(state, path), follow(alone, path)) for path in gradients)
    found = repeat(calls, state, paths, bool(changed))
    if right or isinstance(found, str):
        return found
    state = attempt(go_on, params)  # as the repeated call has changed its object
    return describe_raised(state) if isinstance(state, Failure) else state


def repeat(
    calls: Calls, state: dict[str, Any], paths: Sequence[Keys], changes: bool
) -> dict[str, Any] | str:
    """Repeat a call on its object; return the first state with another gradient, else this one.

    The first of the paths is that of the loss: no state but a reason where it is another one. If
    gradients are known to change, one more call tells whether the loss does.
    """
    given = {path: np.array(to_array(follow(state, path))) for path in paths}
    end, later = monotonic() + SECONDS, state
    for number in range(1 if changes else CALLS):
        if number and monotonic() > end:
            break
        again = attempt(calls.run_on, calls.run, {name: later[name] for name in calls.roots})
        if isinstance(again, Failure):
            return describe_raised(again)
        later = dict(again)
        if not are_equal(follow(later, paths[0]), given[paths[0]]):
            return CARRIED
        if not all(is_same(follow(later, path), value) for path, value in given.items()):
            return later
    return state


def find_places(roots: Mapping[str, Any], params: Mapping[str, Any]) -> dict[Keys, str]:
    """Find all places of the parameters in the roots, before a call has set others to them."""
    named = {id(value): name for name, value in params.items()}
    return {p: named[id(v)] for p, v in walk(dict(roots), (), ()) if id(v) in named}


def set_places(
    roots: dict[str, Any], places: Mapping[Keys, str], params: Mapping[str, Any]
) -> None:
    """Set parameters at their places, as an update does that makes new arrays.

    A view that has the values of its parameter already stays one.
    """
    for path, name in places.items():
        owner, held = follow(roots, path[:-1]), follow(roots, path)
        if is_array(held) and np.array_equal(held, params[name]):
            continue
        if isinstance(path[-1], str) and not isinstance(owner, Mapping):
            setattr(owner, path[-1], params[name])
        else:
            owner[path[-1]] = params[name]


def are_equal(two: Any, one: Any) -> bool:
    """True if two losses are equal to the bit, as those of repeated calls without a state are."""
    return bool(np.array_equal(to_array(two), to_array(one)))


def is_same(two: Any, one: Any) -> bool:
    """True if two gradients are the same up to the rounding of sums in another order."""
    two, one = to_array(two), to_array(one)
    if np.shape(two) != np.shape(one):
        return False
    unit = float(np.finfo(np.result_type(one, np.float16)).eps)
    return bool(np.max(np.abs(two - one), initial=0) <= unit**0.5 * np.max(np.abs(one), initial=0))


def copy_values(owner: Any) -> dict[Keys, Any]:
    """Copy the values in an object, by their paths."""
    return {p: attempt(lambda v=v: np.array(to_array(v))) for p, v in walk(owner, (), ())}


def list_kept(before: Mapping[Keys, Any], after: Mapping[Keys, Any]) -> frozenset[str]:
    """List the attributes of an object, and of those in it, that a call has set or changed."""
    changed = [
        path
        for path, value in after.items()
        if path not in before or attempt(np.array_equal, value, before[path]) is not True
    ]
    return frozenset(key for path in changed for key in path if isinstance(key, str))
