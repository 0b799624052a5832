"""Hypothesis profiles of the tests, chosen by `pytest --hypothesis-profile=NAME`; `dev` without it.

A test that states a number of examples of its own is in none of them.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import Phase, settings

EXAMPLES = 25
LONG = 10  # cases of a table
SELDOM = 20  # `make test-tables` runs one of so many cases that `make test` leaves of a table

# name       examples              the same examples every time
PROFILES = {
    "dev":  (EXAMPLES,             False),
    "ci":   (EXAMPLES,             True),
    "deep": (100 * EXAMPLES,       False),
    "mutants": (EXAMPLES,          True),  # without shrinking: that a test fails is enough
}  # fmt: skip


def register_profiles() -> None:
    """Register every profile and load `dev`."""
    for name, (max_examples, derandomize) in PROFILES.items():
        settings.register_profile(
            name,
            max_examples=max_examples,
            derandomize=derandomize,
            deadline=None,  # the first example of a test compiles, the others do not
            print_blob=True,
            phases=(Phase.explicit, Phase.generate) if name == "mutants" else tuple(Phase),
        )
    settings.load_profile("dev")


def deep() -> bool:
    """True under the profile `deep`, in which tests of a fixed list go through all of it."""
    return settings().max_examples > EXAMPLES


def by_turns(cases: Sequence[Any], options: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Each case with one of the options by turns; with all of them under the profile `deep`."""
    if deep():
        return [(case, option) for case in cases for option in options]
    return [(case, options[i % len(options)]) for i, case in enumerate(cases)]


def divide_tables(items: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Divide the cases of tables, marked `table(n)`, that are not every n-th of their table.

    A table that is not marked, of LONG cases or more, is divided as one of `table(5)`. The second
    list has those of the first that `make test-deep` alone runs: of each table all but the first
    of every SELDOM.
    """
    names = [(item.path, item.originalname) for item in items]
    lengths, seen = Counter(names), Counter[tuple[Any, str]]()
    rest, seldom = [], []
    for name, item in zip(names, items, strict=True):
        table = item.get_closest_marker("table")
        every = table.args[0] if table is not None else 5 if lengths[name] >= LONG else 1
        rounds, place = divmod(seen[name], every)
        seen[name] += 1
        if place:
            rest.append(item)
            if (rounds * (every - 1) + place) % SELDOM != 1:
                seldom.append(item)
    return rest, seldom
