"""Structure of the code: floors of packages, no circle of imports, one class a name, tests apart.

Each rule is a function that returns its violations; a test hands it code that breaks the rule.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.modules import (
    COMPUTED,
    PACKAGES,
    ROOT,
    imported,
    imports_of,
    modules,
    within,
    write_package,
)
from tests.support.profiles import PROFILES

HOUSE = "bptt_verifier"

# The packages of the judge, the lowest floor first. A module imports from its own package and from
# lower floors, never from another package on its own floor. Six floors are the most.
FLOORS = (
    ("problems", "tolerance", "console", "cells"),  # arguments, allowed errors, stated cells
    ("report", "program", "proofs", "docket"),  # verdicts, losses, exact numbers, published claims
    ("reference", "strategies", "adapters"),  # what is true of a case; draws; kernels of JAX, C …
    ("mistakes",),  # every mistake that has a name, and the search for it
    ("judge",),  # where a verdict is made
    ("commands", "pytest_plugin"),  # the `bptt` commands; the plugin of pytest
)


# Floors.


def imported_modules(house: str, root: Path = ROOT) -> dict[str, set[str]]:
    """The modules of a package that each of its modules imports, or `COMPUTED`."""
    files = modules(house, root)

    def module_of(name: str) -> str:
        while name not in files:
            name = name.rpartition(".")[0]
        return name

    return {
        module: {
            name if name == COMPUTED else module_of(name)
            for name in imported(module, file)
            if within(name, (house, COMPUTED))
        }
        for module, file in files.items()
    }


def upward_imports(
    house: str, floors: tuple[tuple[str, ...], ...] = FLOORS, root: Path = ROOT
) -> list[str]:
    """The imports, written `from -> to`, that leave a package for one that is not on a lower floor.

    The package's root stands above all floors: it imports anything, and nothing imports it. So does
    its `__main__`.
    """
    height = {f"{house}.{part}": floor for floor, parts in enumerate(floors) for part in parts}
    height |= {house: len(floors), COMPUTED: len(floors)}

    def package(module: str) -> str:
        return ".".join(module.removesuffix(".__main__").split(".")[:2])

    return [
        f"{module} -> {name}"
        for module, names in imported_modules(house, root).items()
        for name in sorted(names)
        if package(module) != package(name)
        if height[package(module)] <= height[package(name)]
    ]


def test_every_package_of_the_judge_stands_on_one_of_at_most_six_floors() -> None:
    roots = HOUSE, f"{HOUSE}.__main__"
    parts = [module.split(".")[1] for module in modules(HOUSE) if module not in roots]
    assert sorted(chain(*FLOORS)) == sorted(set(parts))
    assert len(FLOORS) <= 6


def test_a_module_imports_from_its_own_package_and_from_lower_floors_only() -> None:
    assert upward_imports(HOUSE) == []


UPWARD = {
    "up": "from house.judge import path",
    "beside": "import house.report.text",
    "late": "def f():\n    from house.judge.path import verdict",
    "for types": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house import judge",
    "relative": "from ..judge.path import verdict",
    "named": "import importlib\nimportlib.import_module('house.judge')",
    "computed": "import importlib\nimportlib.import_module('hou' + 'se')",
    "the root": "from house import verdict",
    "the root itself": "import house",
}


@pytest.mark.parametrize("source", UPWARD.values(), ids=UPWARD)
def test_an_import_from_a_floor_that_is_not_lower_is_noticed(source: str, tmp_path: Path) -> None:
    house = write_package(tmp_path, "house")
    (tmp_path / house / "__init__.py").write_text("from house.judge import path")
    write_package(tmp_path / house, "problems", problem="import numpy")
    write_package(tmp_path / house, "program", trace=source, steps="from . import trace")
    write_package(tmp_path / house, "report", text="from house.problems.problem import Problem")
    write_package(tmp_path / house, "judge", path="from house.program import steps")
    floors = (("problems",), ("program", "report"), ("judge",))
    (found,) = upward_imports(house, floors, tmp_path)
    assert found.startswith("house.program.trace -> ")


# Circles.


def circle(package: str, root: Path = ROOT) -> list[str]:
    """Modules of a package of which each imports the next and the last is the first, if any."""
    try:
        TopologicalSorter(imported_modules(package, root)).prepare()
    except CycleError as error:
        found: list[str] = error.args[1][::-1]
        return found
    return []


@pytest.mark.parametrize("package", [*PACKAGES, "benchmarks"])
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    assert circle(package) == []


def test_a_circle_of_imports_is_noticed(tmp_path: Path) -> None:
    package = write_package(
        tmp_path,
        "report",
        page="from report.text import line",
        text="def f():\n    from . import figures",
        figures="import report.page",
        findings="import numpy",
    )
    found = circle(package, tmp_path)
    assert found[0] == found[-1]
    assert set(found) == {"report.page", "report.text", "report.figures"}
    assert len(found) == 4
    (tmp_path / package / "figures.py").write_text("from report import findings")
    assert circle(package, tmp_path) == []


# Benchmarks and tests.


def test_the_benchmarks_import_no_command() -> None:
    assert imports_of({f"{HOUSE}.commands"}, "benchmarks") == []


def test_a_benchmark_that_imports_a_command_is_noticed(tmp_path: Path) -> None:
    package = write_package(
        tmp_path,
        "benchmarks",
        clean="from bptt_verifier.console.files import replacing",
        guilty="from bptt_verifier import commands",
        late="def f():\n    from bptt_verifier.commands.tables import table",
    )
    guilty = imports_of({f"{HOUSE}.commands"}, package, tmp_path)
    assert guilty == ["benchmarks.guilty", "benchmarks.late"]


def imported_tests(root: Path = ROOT) -> Iterator[str]:
    """The imports, written `from -> to`, of test modules and of conftest.py among the tests.

    pytest imports both under names of its own. A second import is a second module: its fixtures
    are others, and conftest.py would load the default profile over the chosen one.
    """
    files = modules("tests", root)
    stems = {file.stem for file in files.values() if file.stem.startswith("test_")} | {"conftest"}
    for module, file in files.items():
        yield from (
            f"{module} -> {name}"
            for name in imported(module, file)
            if stems.intersection(name.split("."))
        )


def test_no_test_module_and_no_conftest_is_imported() -> None:
    assert list(imported_tests()) == []


def test_an_imported_test_module_is_noticed(tmp_path: Path) -> None:
    write_package(tmp_path, "tests", conftest="", test_text="from tests.support import planting")
    write_package(
        tmp_path / "tests",
        "judge",
        test_path="from jax.test_util import check_grads",
        test_page="from test_text import bptt",
        test_cells="from tests.judge.test_path import names",
        test_steps="from tests.conftest import deep",
    )
    write_package(
        tmp_path / "tests", "support", planting="def f():\n    from tests import test_text"
    )
    assert list(imported_tests(tmp_path)) == [
        "tests.judge.test_cells -> tests.judge.test_path.names",
        "tests.judge.test_page -> test_text.bptt",
        "tests.judge.test_steps -> tests.conftest.deep",
        "tests.support.planting -> tests.test_text",
    ]


def profile_in_force(name: str) -> bool:
    """True if Hypothesis draws as the profile of this name says."""
    return repr(settings()) == repr(settings.get_profile(name))


def test_the_chosen_profile_is_in_force(pytestconfig: pytest.Config) -> None:
    assert profile_in_force(pytestconfig.getoption("--hypothesis-profile") or "dev")
    assert [profile_in_force(name) for name in PROFILES].count(True) == 1


# One word, one class.


def classes(package: str, root: Path = ROOT) -> dict[str, list[str]]:
    """The modules of a package that define a class of each name, without the package's name."""
    found: dict[str, list[str]] = {}
    for module, file in modules(package, root).items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(module.removeprefix(f"{package}."))
    return found


def shared_names(package: str, root: Path = ROOT) -> dict[str, list[str]]:
    """The names that several classes of a package have, and where."""
    return {name: found for name, found in classes(package, root).items() if len(found) > 1}


def test_no_two_classes_have_the_same_name() -> None:
    assert shared_names(HOUSE) == {}


def test_a_second_class_of_a_name_is_noticed(tmp_path: Path) -> None:
    package = write_package(
        tmp_path,
        "house",
        path="class Case: ...\nclass Report: ...",
        search="def f():\n    class Case: ...",
        text="import case\nCase = case.Case",
    )
    assert shared_names(package, tmp_path) == {"Case": ["path", "search"]}
