"""Modules beside a user's file whose names are those of Python's own, or of loaded ones."""

import builtins
import copy
import random
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier.program.modules_beside import PREFIX, make_package
from bptt_verifier.program.source_file import load
from tests.support.own_files import list_wrong, read_own

RANDOM = "import numpy as np\ndef roll(w):\n    return 4 * np.cos(w)\n"
MODEL = """
import numpy as np
{imports}
x = np.linspace(-1, 1, 5)
params = {{"w": np.linspace(0, 1, 5)}}
def loss(p):
    return np.sum(x * {roll}(p["w"]))
def gradients(p):
    return {{"w": -4 * x * np.sin(p["w"])}}
"""


@pytest.fixture(autouse=True)
def _forget_modules() -> Iterator[None]:
    """Leave the modules and the finders of this process as they were."""
    modules, finders = {**sys.modules}, [*sys.meta_path]
    yield
    for name in {*sys.modules} - {*modules}:
        del sys.modules[name]
    sys.meta_path[:] = finders
    make_package.cache_clear()


def write_all(folder: Path, **files: str) -> Path:
    """Write files by their names, and return file.py."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder / "file.py"


def run(folder: Path, text: str, **files: str) -> Any:
    """Run a file with these others beside it."""
    return load(write_all(folder, file=text, **files))


@pytest.mark.parametrize(
    ("imports", "roll"),
    [
        ("import random", "random.roll"),
        ("from random import *", "roll"),
        ("from random import roll as r", "r"),
        ("import helper", "helper.random.roll"),
        ("def late(w):\n    import random\n    return random.roll(w)", "late"),
    ],
)
def test_a_file_gets_the_module_beside_it(tmp_path: Path, imports: str, roll: str) -> None:
    write_all(tmp_path, random=RANDOM, helper="import random\n")
    found = read_own(tmp_path, MODEL.format(imports=imports, roll=roll))
    assert not list_wrong(found)
    assert found.loss(found.params) == pytest.approx(
        4 * np.sum(np.linspace(-1, 1, 5) * np.cos(np.linspace(0, 1, 5)))
    )


def test_libraries_and_the_judge_keep_pythons_module(tmp_path: Path) -> None:
    library = tmp_path / "elsewhere"
    library.mkdir()
    (library / "some_library.py").write_text("import random\nnumber = random.random()\n")
    before = builtins.__import__
    text = f"import sys\nsys.path.append({str(library)!r})\nimport random, some_library\n"
    module = run(tmp_path, text, random="def roll(): return 4\n")
    assert module.random.roll() == 4
    assert 0 <= module.some_library.number < 1
    assert sys.modules["random"] is random
    assert builtins.__import__ is before


def test_packages_and_their_modules_are_found_beside_a_file(tmp_path: Path) -> None:
    text = "import logging.own\nimport logging.own as same\nfrom logging import own as third\n"
    (tmp_path / "logging").mkdir()
    (tmp_path / "logging" / "__init__.py").write_text("from .own import ONE\n")
    (tmp_path / "logging" / "own.py").write_text("ONE = 1\n")
    module = run(tmp_path, text)
    assert module.logging.ONE == module.logging.own.ONE == 1
    assert module.same is module.third is module.logging.own


def test_modules_beside_a_file_are_loaded_once(tmp_path: Path) -> None:
    first = run(tmp_path, "import random\nimport helper\n", random="import helper\n", helper="")
    again = load(tmp_path / "file.py")
    assert first.random.helper is first.helper is again.helper


@pytest.mark.parametrize("name", ["types", "sys", "os", "_json", "numpy"])
def test_what_python_starts_with_and_libraries_are_not_hidden(tmp_path: Path, name: str) -> None:
    files = {name: "own = True\n", "random": ""}
    assert not hasattr(getattr(run(tmp_path, f"import {name}\n", **files), name), "own")


def test_a_module_that_another_folder_has_loaded_is_not_taken_for_the_own(tmp_path: Path) -> None:
    other = types.ModuleType("some_layers")
    other.__file__ = str(tmp_path / "elsewhere" / "some_layers.py")
    sys.modules["some_layers"] = other
    assert run(tmp_path, "import some_layers\n", some_layers="own = True\n").some_layers.own
    assert sys.modules["some_layers"] is other


@pytest.mark.parametrize("beside", ["helper", "types", "copyreg"])
def test_nothing_changes_where_no_module_is_hidden(tmp_path: Path, beside: str) -> None:
    before = {*sys.modules}
    module = run(tmp_path, "import copy\n", **{beside: ""})
    assert module.copy is copy
    assert not any(name.startswith(PREFIX) for name in {*sys.modules} - before)


def test_files_of_packages_get_pythons_modules(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("")
    assert run(tmp_path, "import random\n", random="own = True\n").random is random


def test_builtins_that_are_replaced_for_a_while_are_those_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = run(tmp_path, "import random\ndef f(): return abs(-1)\n", random="")
    assert module.f() == 1
    monkeypatch.setattr(builtins, "abs", lambda value: "replaced")
    assert module.f() == "replaced"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import random\nrandom.seed()\n", "line 2: AttributeError: module 'random' has no attr"),
        ("import random.inner\n", "No module named 'random.inner'; 'random' is not a package"),
        ("import random\nno_such_name\n", "NameError: name 'no_such_name' is not defined"),
        ("__import__('random', globals=globals()).seed()\n", "module 'random' has no attribute"),
    ],
)
def test_messages_name_modules_as_the_file_does(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run(tmp_path, text, random="")
