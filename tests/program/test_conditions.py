"""Which conditions of Python code numbers can decide, and which of their sides count."""

import linecache

import pytest

from bptt_verifier.program.conditions import find_conditions, find_conditions_of, find_sides
from bptt_verifier.program.source_lines import Place


@pytest.mark.parametrize(
    ("test", "names"),
    [
        ("a > 1", [("a",)]),
        ("a[0] < b.c.d", [("a",), ("b", "c", "d")]),
        ("not a.max() > 3", [("a",)]),
        ("np.abs(a).sum() > f(b, key=c)", [("np",), ("a",), ("b",), ("c",)]),
        ("a is not None and b > a", [("b",), ("a",)]),
        ("a", [("a",)]),
        ("a is None", []),
        ("a == 'train'", []),
        ("a == True", []),
        ("'b' in a", []),
        ("len(a) > 3 or isinstance(a, dict)", []),
        ("a.shape[0] > 1 or a.ndim == a.b.size", []),
        ("x[a] > 1", [("x",)]),
        ("True", []),
        ("np.isfinite(a).all()", []),
    ],
)
def test_variables_that_may_hold_numbers_are_listed(
    test: str, names: list[tuple[str, ...]]
) -> None:
    found = find_conditions_of("a.py", f"if {test}:\n    b = 1\n")
    assert [[*each.names] for each in found] == ([names] if names else [])


@pytest.mark.parametrize(
    ("source", "sides"),
    [
        ("if a > 1:\n    b = 1", (False, True)),
        ("b = 1 if a > 1 else 2", (False, True)),
        ("while a > 1:\n    a = a / 2", (True,)),
        ("if a > 1:\n    raise ValueError", ()),
        ("if a > 1:\n    'words'\n    print(a)", ()),
        ("if a > 1:\n    log.warning(a)\nelse:\n    b = 1", (False,)),
        ("if a > 1:\n    b = 1\nelse:\n    raise ValueError", (True,)),
        ("if a > 1:\n    b = 1\nelse:\n    pass", (True,)),
        ("if a > 1:\n    assert b\nelse:\n    pass", ()),
    ],
)
def test_sides_that_only_raise_or_print_do_not_count(source: str, sides: tuple[bool, ...]) -> None:
    found = find_conditions_of("a.py", source)
    assert [each.sides for each in found] == ([sides] if sides else [])


def test_a_place_has_the_sides_of_the_innermost_condition() -> None:
    source = "if a > (1 if b > 2 else 3):\n    raise ValueError\nelse:\n    c = 1\n"
    source += "if d > 1 and e > 2:\n    c = 1\nelse:\n    pass\nassert c > 3\n"
    linecache.cache["places.py"] = len(source), None, source.splitlines(keepends=True), "places.py"
    sides = {
        (1, 3, 26): (False,), (1, 13, 18): (False, True), (5, 3, 18): (True,),
        (5, 3, 8): (), (5, 13, 18): (), (9, 7, 12): (),
    }  # fmt: skip
    for place, expected in sides.items():
        assert find_sides(Place("places.py", *place)) == expected
    assert find_sides(Place("missing.py", 1, 0, 3)) == ()
    first, *_ = find_conditions("places.py")
    assert (first.place.expression, first.flags) == ("a > (1 if b > 2 else 3)", ("a", "b"))


def test_a_body_may_begin_on_a_line_of_the_test() -> None:
    source = "if a: b = 1\nif (a >\n    1):\n    b = 1\nb = 1 if a else 2\n"
    found = find_conditions_of("a.py", source)
    assert [(each.place.line, each.shares_lines) for each in found] == [
        (1, True), (2, False), (5, True),
    ]  # fmt: skip
    assert [each.place.end_column for each in found] == [4, 0, 10]
    assert find_conditions_of("a.py", "if a") == ()
