"""The first states that a submission takes: in their places after y, or by name."""

import inspect
from collections.abc import Callable, Collection
from itertools import takewhile
from typing import Any, NamedTuple

from bptt_verifier.program.attempt import Failure, attempt


class TakenStates(NamedTuple):
    """The initial states that a submission takes: after y, in order, and as keywords, by name.

    `optional` are those that may be left out.
    """

    in_order: tuple[str, ...] = ()
    by_name: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """All of them, in the order in which they are drawn and reported."""
        return self.in_order + self.by_name

    def select(self, given: Collection[str]) -> "TakenStates":
        """Select the states that are given in one call; those after an omitted one go by name."""
        in_order = tuple(takewhile(given.__contains__, self.in_order))
        by_name = tuple(name for name in self.all if name in given and name not in in_order)
        return TakenStates(in_order, by_name)


def find_states(gradients: Callable[..., Any], states: tuple[str, ...] = ("h0",)) -> TakenStates:
    """Find the initial states for which the submission has an argument.

    That argument has the state's name, or it is the next one after y and the earlier states and has
    no default. Other arguments with a default are options of the submission, and keep it.
    """
    signature = attempt(inspect.signature, gradients)
    if isinstance(signature, Failure):  # there is none, or it raises
        return TakenStates()
    parameters = signature.parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    places = [p for p in parameters if p.kind in kinds][3:]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    others = {p.name for p in parameters if p.kind in named}
    in_order, by_name = list[str](), list[str]()
    for state in states:
        here = places[0] if places else None
        unnamed = here and here.name not in states and here.default is inspect.Parameter.empty
        if here and (here.name == state or (unnamed and state not in others)):
            in_order.append(state)
            places = places[1:]
        elif state in others:
            by_name.append(state)
            places = [place for place in places if place.name != state]
    by_keyword = {
        p.name for p in parameters if p.kind in (kinds[1], inspect.Parameter.KEYWORD_ONLY)
    }
    has_default = {p.name for p in parameters if p.default is not p.empty}
    optional = [name for name in states if name in by_keyword & has_default]
    return TakenStates(tuple(in_order), tuple(by_name), tuple(optional))
