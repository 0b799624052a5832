"""Code that has a name in a file: a function, a pair of them, a method, a class or an object."""

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from bptt_verifier.judge.candidates import describe_object
from bptt_verifier.program.attempt import Failure, attempt
from bptt_verifier.program.losses_beside import read_gradient_function, read_or_beside
from bptt_verifier.program.number_lists import join_parameters
from bptt_verifier.program.own_classes import find_methods, read_class, read_pair
from bptt_verifier.program.own_code import OwnCode, read_function
from bptt_verifier.program.source_file import RecordedCall, Recorder, list_functions


def read_named(
    space: Mapping[str, Any], name: str, recorder: Recorder, chosen: Sequence[str]
) -> OwnCode:
    """Read the function, method, class or object of that name in the namespace of a file.

    Lists of numbers among the attributes of an object are read as arrays where it fails otherwise.
    """
    try:
        return read_found(space, name, recorder.calls, chosen)
    except ValueError:
        calls = {
            key: call._replace(owner=join_parameters(call.owner), first=join_parameters(call.first))
            for key, call in recorder.calls.items()
        }
        own = [n for n, v in space.items() if type(v).__module__ == space.get("__name__")]
        objects = {n: join_parameters(space[n]) for n in own}
        pairs = [(call.owner, recorder.calls[key].owner) for key, call in calls.items()]
        pairs += [(each, space[n]) for n, each in objects.items()]
        changed = any(one is not other for one, other in pairs)
        code = attempt(read_found, {**space, **objects}, name, calls, chosen) if changed else None
        if code is None or isinstance(code, Failure):
            raise
        return code  # type: ignore[no-any-return]


def read_found(
    space: Mapping[str, Any],
    name: str,
    recorded: Mapping[str, RecordedCall],
    chosen: Sequence[str],
) -> OwnCode:
    """Read what has that name in the namespace of a file, with its recorded calls."""
    names = name.split(",")
    if len(names) in (2, 3) and all(callable(space.get(each)) for each in names):
        calls = [recorded.get(each) for each in names]
        functions = [space[each] for each in names]
        try:
            return read_pair(functions, name, calls, chosen)
        except ValueError:
            if len(names) > 2:
                raise
            (loss, gradient), (first, last) = functions, calls
            read = partial(read_gradient_function, loss, gradient, name, last or first, chosen)
            code = attempt(read)
            if isinstance(code, Failure):
                raise
            return code  # type: ignore[no-any-return]
    top, _, method = name.partition(".")
    if top not in space:
        raise ValueError(f"{name}: expected it to be defined before its first call, found none")
    found = space[top]
    static = inspect.isclass(found) and find_static(found, [method] if method else [])
    if static and not method:
        functions = [getattr(found, each) for each in static]
        calls, listed = [recorded.get(n) for n in static], ",".join(f"{name}.{n}" for n in static)
        return read_pair(functions, listed, calls, chosen)
    if inspect.isclass(found) and not static:
        known = [call.owner for call in recorded.values() if call.owner is not None]
        found = known[0] if known else find_object(found, space)
    if method:
        bound = getattr(found, method, None)
        if not callable(bound):
            kind = found if inspect.isclass(found) else type(found)
            bases = reversed(kind.__mro__)
            every = {n: each for base in bases for n, each in vars(base).items() if n[:1] != "_"}
            others = list_functions(every)
            raise ValueError(f"{name}: expected a method {method} of {top}, found {others}")
        call = recorded.get(method)
        read = partial(read_function, bound, name, call, chosen)
        return read_or_beside(read, found, top, method, call, chosen)
    if inspect.isfunction(found) or find_methods(found) is None:
        if not callable(found):
            raise ValueError(describe_object(name, found))
        return read_function(found, name, recorded.get(top), chosen)
    methods = find_methods(found)
    backward = methods[-1] if methods else ""
    read = partial(read_class, found, name, recorded, chosen)
    return read_or_beside(read, found, name, backward, recorded.get(backward), chosen)


def find_static(kind: type[Any], methods: Sequence[str]) -> list[str]:
    """Find the methods, or else forward, loss and backward, if all need no object of a class."""
    names = [each for each in methods or find_methods(kind) or () if each]
    found = [inspect.getattr_static(kind, each, None) for each in names]
    return names if all(isinstance(each, staticmethod | classmethod) for each in found) else []


def find_object(kind: type[Any], space: Mapping[str, Any]) -> Any:
    """Find the one object of a class in a namespace, or make one that needs no arguments."""
    objects = [value for value in space.values() if isinstance(value, kind)]
    made = attempt(kind) if not objects else None
    if len({id(each) for each in objects}) > 1 or isinstance(made, Failure):
        name = kind.__name__
        raise ValueError(
            f"{name}: expected one object of it in the file, found "
            f"{'several' if objects else 'none'}; name it, such as FILE:model after "
            f"`model = {name}(...)`"
        )
    return objects[0] if objects else made
