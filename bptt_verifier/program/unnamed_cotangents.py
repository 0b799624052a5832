"""Cotangents among the arguments of backward whose names do not tell of which output they are.

`backward(dHout_mean, cache)` takes the gradient of what `forward` returns, though no variable has
the name `Hout_mean`. Each argument that is no result of `forward` and has the shape of an output
may be the cotangent of that. Every such reading is tried: right code is right in one of them, and a
single nonzero gradient that agrees with differences of the weighted outputs proves a reading. If
none is proven, the arguments have to have names of gradients, and of no other variable.
"""

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from itertools import islice, product
from typing import Any, NamedTuple

import numpy as np

from bptt_verifier.program.attempt import Failure, attempt, find_code
from bptt_verifier.program.data_names import find_kind
from bptt_verifier.program.gradient_names import AFTER, is_named_gradient
from bptt_verifier.program.leaves import Keys, flatten
from bptt_verifier.program.own_code import OwnCode
from bptt_verifier.program.own_data import find_doubts
from bptt_verifier.program.own_results import follow, is_float_array, list_items
from bptt_verifier.program.own_updates import RATES
from bptt_verifier.program.passed_arguments import (
    COTANGENT,
    find_paths_by_name,
    is_of_operand,
    is_probability,
)
from bptt_verifier.program.source_file import RecordedCall
from bptt_verifier.program.torch_tensors import to_array

ERRORS = frozenset("e err error errors diff difference residual residuals".split())
READINGS = 24  # that are tried: four arguments in any order


class KnownPasses(NamedTuple):
    """What is known of forward and backward before a reading is chosen.

    `drawn` are what forward returns, at the parameters given and at others, and `names` those of
    its items. `known` are the arguments of backward that are arguments or results of forward. If a
    loss is `stated`, arguments without names of gradients may be what that loss is computed from.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    recorded: RecordedCall | None
    drawn: Sequence[Any]
    names: Mapping[Keys, str]
    known: frozenset[str]
    stated: bool = False

    @property
    def outputs(self) -> dict[Keys, Any]:
        """The float arrays that forward returns, by their paths."""
        out = self.drawn[0]
        return {p: v for p, v in [((), out), *list_items(out)] if is_float_array(v) and np.ndim(v)}

    def choose_paths(self, name: str, parameter: Parameter) -> list[Keys]:
        """Choose the outputs of which an argument may be the cotangent; none for data."""
        given = {} if self.recorded is None else self.recorded.arguments
        required = parameter.default is parameter.empty or name in given
        variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        data = name in self.known or name.lower() in RATES or bool(find_kind(name))
        error = self.stated or name.lower() in ERRORS
        if variadic or data or not required or (error and not has_name_of_gradient(name)):
            return []
        paths = find_paths_by_name(name, self.outputs, self.names) or [*self.outputs]
        if name not in given:
            return paths
        value = given[name]
        alike = is_float_array(value) and np.ndim(value)
        return [p for p in paths if alike and np.shape(self.outputs[p]) == np.shape(value)]

    def list_readings(self) -> list[dict[str, Keys]]:
        """List the ways to take arguments of backward for cotangents, those in order first."""
        parameters = signature(self.backward).parameters
        chosen = {name: self.choose_paths(name, each) for name, each in parameters.items()}
        chosen = {name: paths for name, paths in chosen.items() if paths}
        order = [*self.outputs]
        found = [ways for ways in islice(product(*chosen.values()), 1000)
                 if len({*ways}) == len(ways)]  # fmt: skip
        found.sort(
            key=lambda ways: [order.index(p) for p in ways] != sorted(map(order.index, ways))
        )
        return [dict(zip(chosen, ways, strict=True)) for ways in found[:READINGS] if chosen]

    def is_sure(self, reading: Mapping[str, Keys]) -> bool:
        """True if the arguments have names of gradients, and of those of no other variable."""
        return all(
            has_name_of_gradient(name)
            and not self.names_another(name, path)
            and not is_probability(self.follow_drawn(path))
            and not is_of_operand(name, self.names.get(path, ""), self.follow_drawn(path))
            for name, path in reading.items()
        )

    def follow_drawn(self, path: Keys) -> list[Any]:
        """List an output at all parameters that were drawn."""
        return [follow(each, path) for each in self.drawn]

    def names_another(self, name: str, path: Keys) -> bool:
        """True if an argument is named as the gradient of another variable of forward."""
        code = find_code(self.forward)
        variables = {*code.co_varnames, *code.co_names} if code is not None else set()
        return any(is_named_gradient(name, v) for v in variables - {self.names.get(path, "")})


def has_name_of_gradient(name: str) -> bool:
    """True for an argument with a name that only a gradient has, as `dHout` or `Hout_bar`."""
    shown = name[:1] in ("d", "g") and name[1:2].isupper()
    begins = name.lower().startswith(COTANGENT)
    return shown or begins or name.endswith(tuple(a for a in AFTER if a not in ("_d", "_g")))


def read_by_structure(
    passes: KnownPasses, read: Callable[[Mapping[str, Keys]], OwnCode], error: ValueError
) -> OwnCode:
    """Read backward with arguments taken for cotangents by their shapes.

    `read` reads both passes with given cotangents. Raises the `error` that these passes have
    without them, with the names that are understood, where no reading is proven or sure.
    """
    readings, found = passes.list_readings(), list[tuple[int, OwnCode]]()
    for reading in readings:
        code = attempt(read, reading)
        if isinstance(code, Failure):
            continue
        wrong, proven = count_wrong(code)
        if not wrong and proven:
            return code  # type: ignore[no-any-return]
        if proven or passes.is_sure(reading):
            found.append((wrong, code))
    if found:
        return min(found, key=lambda each: each[0])[1]
    if not readings:
        raise error
    names, forward = ", ".join(readings[0]), passes.forward.__name__
    outputs = [n for n in map(passes.names.get, readings[0].values()) if n]
    hint = " and ".join(f"d{n} for the gradient of {n}" for n in outputs)
    raise type(error)(
        f"{error}; if {forward}'s outputs have the gradients {names}, use names that say so: "
        f"{hint or 'dout, or d before the name of what is returned'}"
    ) from error


def count_wrong(code: OwnCode) -> tuple[int, bool]:
    """Count the gradients that are not those of the loss, and tell if a nonzero one is."""
    leaves = flatten(code.params).leaves
    doubts = {each.name for each in find_doubts(leaves, code.params, code.gradients, code.loss)}
    slopes = attempt(lambda: code.gradients(code.params)[1])
    if isinstance(slopes, Failure):
        return len(leaves), False
    shaped = {
        n: attempt(lambda n=n: np.asarray(to_array(slopes[n]))) for n in leaves if n not in doubts
    }
    agree = [
        n
        for n, slope in shaped.items()
        if not isinstance(slope, Failure) and slope.shape == np.shape(leaves[n])
    ]
    return len(leaves) - len(agree), any(np.any(shaped[n]) for n in agree)
