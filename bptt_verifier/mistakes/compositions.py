"""One mistake in gradients after another: a transposed gradient in what is then clipped.

The first mistake is in one gradient or in all. The numbers that the second one has, such as a
factor or a limit, are read from the submission, beside the gradients that the first one gives.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from bptt_verifier.mistakes.single_gradients import (
    SIMPLE,
    Factor,
    Finding,
    Gradient,
    clip,
    find_norm,
    list_confusions,
    list_transpositions,
    make_finding,
    multiply,
    say_factor,
    scale_down,
)
from bptt_verifier.problems.problem import Array

Read = Callable[[str, Any], Array | None]  # the parameter of a name, given a backward pass

LIMITS = (0.01, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0)  # limits that public code has
DECAYS = (0.1, 0.01, 0.001, 0.0001)
FACTORS = (2.0, 0.5)


class Altered:
    """A backward pass whose gradients are altered afterwards; all else is that of `back`."""

    def __init__(self, back: Any, alteration: Mapping[str, Gradient]) -> None:
        self.back, self.alteration = back, alteration

    def gradient(self, name: str) -> Array:
        """Compute the gradient of this name, altered if it is one of those."""
        if name in self.alteration:
            return self.alteration[name](self.back)
        found: Array = self.back.gradient(name)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.back, name)


class First(NamedTuple):
    """A first mistake, and the wrong gradients as functions of the backward pass, by name."""

    finding: Finding
    alteration: Mapping[str, Gradient]


def list_first(
    names: Sequence[str],
    backs: Sequence[Any],
    read: Read,
    factors: Sequence[Factor],
    found: Sequence[Finding],
) -> Iterator[First]:
    """List the mistakes that another one may follow.

    Those `found` in some gradients may be in all of them, since another one in the rest hides them.
    """
    for finding in (*found, *list_common_first(names, backs[0], read, factors)):
        if finding.find_gradient is not None:
            yield First(finding, {name: finding.find_gradient(name) for name in names})
    for name in names:
        for finding in list_in_one(name, names, backs):
            yield First(finding, {name: finding.gradient})


def list_common_first(
    names: Sequence[str], back: Any, read: Read, factors: Sequence[Factor]
) -> Iterator[Finding]:
    """List mistakes in all gradients with the numbers that public code has."""
    norm = find_norm([back.gradient(name) for name in names])
    for limit in LIMITS:
        said = f"the gradient is clipped to ±{limit:g}"
        yield make_finding("clipped", said, {"value": limit}, names[0], partial(clip, limit))
        if limit < norm:
            said = f"the gradient is scaled down so that the norm of all is at most {limit:g}"
            alter = partial(scale_down, names, limit)
            yield make_finding("clipped", said, {"norm": limit}, names[0], alter)
    for decay in DECAYS:
        said = f"{decay:g} times the parameter is added, as by a weight decay"

        def add(name: str, back: Any, decay: float = decay) -> Array:
            value = read(name, back)
            found: Array = back.gradient(name)
            return found if value is None else found + decay * value

        yield make_finding("weight-decay", said, {"decay": decay}, names[0], add)

    for words, value in factors:

        def scale(name: str, back: Any, value: Callable[[Any], float] = value) -> Array:
            return multiply(value(back), name, back)

        said = say_factor(words)
        yield make_finding("constant-factor", said, {"factor": words}, names[0], scale)


def list_in_one(name: str, names: Sequence[str], backs: Sequence[Any]) -> Iterator[Finding]:
    """List mistakes in one gradient alone."""
    for mistake, said, by in SIMPLE:
        yield make_finding(mistake, said, {}, name, partial(multiply, by))
    for by in FACTORS:
        said, details = f"every entry is {by:g} times what it should be", {"value": by}
        yield make_finding("constant-factor", said, details, name, partial(multiply, by))
    if backs[0].gradient(name).ndim >= 2:
        yield from list_transpositions(name)
    for other in names:
        if other != name and all(b.gradient(other).size == b.gradient(name).size for b in backs):
            yield from list_confusions(name, other)
