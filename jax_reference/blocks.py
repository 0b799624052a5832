"""Derivatives of a block of problems, in one compiled call.

A call costs JAX more time than the arithmetic of a small problem. Here the problems of a block are
padded to one capacity, as in `padded`, and stand side by side along an axis of their own.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import jax
import numpy as np

from jax_reference import losses
from jax_reference.padded import CELLS, LAYOUT, Capacity, Fixed, Padded, Parts, differentiated
from jax_reference.programs import Program
from jax_reference.unrolled import Derivatives, Model, States

SIZE = 16  # problems of a block; one that is not full has rows of zeros


KINDS = 2  # of losses that a problem of a block may have: the first


def differentiate(model: Model, states: tuple[str, ...], problems: Padded, fixed: Fixed) -> Any:
    """The loss, the gradient and the states of padded problems side by side, not compiled."""
    return jax.vmap(partial(differentiated, model, states, kinds=KINDS))(problems, fixed)


_differentiate = Program(differentiate, static=("model", "states"))


@dataclass(frozen=True)
class Block:
    """Padded problems side by side, and what JAX computes of them.

    `pending` are the loss, the gradient and the states, which JAX may still be computing, and
    `parts` are those of each problem.
    """

    problems: Padded
    fixed: Fixed
    pending: tuple[Any, Padded, States]
    parts: list[Parts]

    @cached_property
    def results(self) -> tuple[Any, Padded, States]:
        """The loss, the gradient and the states of all problems, as NumPy arrays."""
        found: tuple[Any, Padded, States] = jax.tree.map(np.asarray, self.pending)
        return found

    def cut(self, number: int) -> Derivatives:
        """The derivatives at one problem, without padding, as NumPy arrays."""
        value, gradient, (prediction, a, h, cells) = self.results
        reached = States(
            prediction[number], a[number], h[number], None if cells is None else cells[number]
        )
        one = Padded(*(each[number] for each in gradient))
        return self.parts[number].cut(value[number], one, reached)


@lru_cache(maxsize=8192)
def find_own_parts(sizes: tuple[int, ...], gates: int) -> dict[str, tuple[slice, ...]]:
    """The parts of all padded arrays that belong to a problem of sizes (T, B, D, H, O)."""
    size = dict(zip(Capacity._fields, sizes, strict=True)) | {"h": sizes[3], "G": gates}
    return {name: tuple(slice(size[letter]) for letter in LAYOUT[name]) for name in LAYOUT}


def lay_out(
    cell: str,
    option: Any,
    problems: Sequence[Mapping[str, Any]],
    measures: Sequence[str],
    capacity: Capacity,
) -> tuple[Model, tuple[str, ...], Padded, Fixed, list[Parts]]:
    """Pad problems side by side, as `start` takes them: the arguments of `differentiate`, parts."""
    step, gates, _, states = CELLS[cell]
    most = capacity._asdict() | {"h": capacity.H, "G": gates}
    room = {n: np.zeros((SIZE, *(most[each] for each in LAYOUT[n]))) for n in LAYOUT}
    valid, parts = np.zeros(room["y"].shape, bool), []
    model = Model(step, option, outputs="every")
    for number, arrays in enumerate(problems):
        (T, B, D), (O, H) = arrays["x"].shape, arrays["V"].shape
        own = find_own_parts((T, B, D, H, O), gates)
        for name in arrays.keys() - {"y"}:
            part = room[name][number][own[name]]
            part[...] = arrays[name].reshape(part.shape)
        room["y"][number, T - 1, :B, :O], valid[number, T - 1, :B, :O] = arrays["y"], True
        room["lengths"][number, :B] = T
        present = {*arrays, *states, "perturbations"}
        absent = tuple(name for name in Padded._fields if name not in present)
        parts.append(Parts(own, gates, "last", absent))
    for name, letters in LAYOUT.items():
        if "G" in letters:
            axis, whole = letters.index("G") + 1, room[name]
            room[name] = whole.reshape(*whole.shape[:axis], -1, *whole.shape[axis + 2 :])
    chosen = np.zeros(SIZE, np.int64)
    chosen[: len(measures)] = [list(losses.LOSSES).index(each) for each in measures]
    padded = Padded(*(room[name] for name in Padded._fields))
    endless = np.full(SIZE, capacity.T)
    fixed = Fixed(room["y"], valid, room["lengths"].astype(np.int64), endless, chosen)
    return model, states, padded, fixed, parts


def start(
    cell: str,
    option: Any,
    problems: Sequence[Mapping[str, Any]],
    measures: Sequence[str],
    capacity: Capacity,
) -> Block:
    """Start computing the derivatives of problems that have one output, at the end.

    A problem has its arrays by name: parameters, x, y and initial states; what is absent is zeros.
    They must fit each other and the capacity. `measures` has the loss of each problem, which is
    one of the first `KINDS` of `LOSSES`.
    """
    model, states, padded, fixed, parts = lay_out(cell, option, problems, measures, capacity)
    with jax.enable_x64(True):
        results = _differentiate(model, states, padded, fixed)
    return Block(padded, fixed, results, parts)


def load_ahead(pool: Executor, cell: str, option: Any, capacity: Capacity) -> None:
    """Load the program of all blocks of these in the pool, if it is kept; see `Program`."""
    with jax.enable_x64(True):
        _differentiate.load_ahead(pool, *lay_out(cell, option, (), (), capacity)[:4])
