"""A user's file: how it is run, how far, and what is said where it cannot be run."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bptt_verifier.program.notebooks import Cell
from bptt_verifier.program.source_file import (
    Recorder,
    copy_deeply,
    find_definitions,
    find_function,
    load,
    order_path,
    read_cells,
)


def write(folder: Path, source: str, name: str = "model.py") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source, encoding="utf-8")
    return file


CALLS = """
def other(n):
    return f(n) if n else n
def f(n, *rest, key=3, **named):
    def f():
        pass
    f()
    return n
class A:
    def f(self, x):
        return x
class B(A):
    pass
A().f(7)
b = B()
b.f(8)
other(0)
try:
    f([5], 6, extra=9)
    done = True
except Exception:
    caught = True
while True:
    f(10)
"""


def test_a_run_ends_at_the_first_call_and_its_arguments_are_kept(tmp_path: Path) -> None:
    recorder = Recorder(frozenset({"f"}), frozenset({"f"}))
    module = load(write(tmp_path, CALLS), recorder)
    assert recorder.calls["f"].arguments == {
        "n": [5], "rest": (6,), "key": 3, "named": {"extra": 9},
    }  # fmt: skip
    assert not hasattr(module, "done")
    assert not hasattr(module, "caught")
    assert sys.getprofile() is None


def test_a_method_is_recorded_of_its_class_and_what_derives_from_it(tmp_path: Path) -> None:
    for kind, x in [("A", 7), ("B", 8)]:
        recorder = Recorder(frozenset({"f"}), frozenset({"f"}), kind)
        load(write(tmp_path, CALLS), recorder)
        owner, arguments, _ = recorder.calls["f"]
        assert (type(owner).__name__, arguments) == (kind, {"x": x})


def test_definitions_are_found_without_running_the_file(tmp_path: Path) -> None:
    source = (
        "import a.b as c, d.e\nfrom .x import y as z\nclass K:\n    inner = 1\nif c:\n    k = K()\n"
        "for i in z:\n    def f():\n        hidden = 1\n1 / 0\n"
    )
    found = find_definitions(tmp_path, [Cell("x", source)])
    assert found.names == {"c", "d", "z", "K", "k", "i", "f"}
    assert ([*found.functions], [*found.classes], found.objects) == (["f"], ["K"], {"k": "K"})
    assert found.relative
    assert found.defines("f", "k")
    assert not found.defines("hidden")
    assert find_definitions(tmp_path, [Cell("x", "from x import *")]).defines("anything")


def test_a_file_of_a_package_imports_from_it_by_dots(tmp_path: Path) -> None:
    write(tmp_path, "ONE = 1", "package/inner/parts.py")
    write(tmp_path, "", "package/inner/__init__.py")
    write(tmp_path, "TWO = 2", "package/__init__.py")
    file = write(tmp_path, "from .parts import ONE\nfrom .. import TWO", "package/inner/model.py")
    before = [*sys.path]
    module = load(file)
    assert (module.ONE, module.TWO, module.__package__) == (1, 2, "package.inner")
    assert sys.path == before
    other = write(tmp_path, "from . import parts\nimport parts as same", "plain_folder/model.py")
    write(tmp_path, "ONE = 1", "plain_folder/parts.py")
    assert load(other).same.ONE == 1


def test_dataclasses_of_a_file_may_name_their_types_as_texts(tmp_path: Path) -> None:
    source = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass A:\n    x: int = 1\n"
    )
    assert load(write(tmp_path, source)).A().x == 1


@pytest.mark.parametrize(
    ("source", "name", "sentence"),
    [
        ("import sys\nsys.exit(3)", "m.py", r"line 2: SystemExit: 3 at `sys.exit\(3\)`; put what the file runs under"),
        ("import no_such_module.x", "m.py", "install the package that has no_such_module, or put no_such_module.py beside"),
        ("raise EOFError", "m.py", "line 1: EOFError at `raise EOFError`; nothing can be typed in while it is judged"),
        ("open('no.txt')", "m.py", "line 1: FileNotFoundError: .*; run bptt in the folder that has it"),
        ("import broken", "m.py", r"line 1: ZeroDivisionError: division by zero at `1 / 0` \(broken.py:2\)$"),
        ("from .parts import x", "not a name/m.py", "its folder not a name is no name of a package"),
        ("from .parts import x", "json/m.py", "write `from module import name` without the dot"),
        ("x = (\n", "m.py", "cannot be run: line 1: SyntaxError"),
        ("x = '\0'", "m.py", r"m.py cannot be run: (\w+Error: source|line 1: SyntaxError)"),
        ("x = 1", "notes.txt", r"notes.txt; its name must end in .py or .ipynb"),
        ("x = (\n", "m.py", r"line 1: SyntaxError: '\(' was never closed at `x = \(`$"),
        ("import unclosed", "m.py", r"line 1: SyntaxError: .* at `y = \(` \(unclosed.py:2\)$"),
        ("\nimport math\nmath.sqrt(-1)", "m.py", r"line 3: ValueError: .* at `math.sqrt\(-1\)`$"),
        ("raise KeyboardInterrupt", "m.py", "line 1: KeyboardInterrupt at `raise KeyboardInterrupt`$"),
        ("# coding: no-such\n", "m.py", "found .*m.py, which cannot be read as text: unknown encoding: no-such; save it in UTF-8"),
        ("x = '\xff'".encode("latin-1"), "m.py", "which cannot be read as text: invalid or missing encoding"),
        ("from .parts import x", "package/m.py", "No module named 'package.parts' at `from .parts import x`; put parts.py beside the file"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_run_is_said_with_the_remedy(
    source: str | bytes, name: str, sentence: str, tmp_path: Path
) -> None:
    write(tmp_path, "\n1 / 0", "broken.py")
    write(tmp_path, "\ny = (", "unclosed.py")
    file = write(tmp_path, "" if isinstance(source, bytes) else source, name)
    if isinstance(source, bytes):
        file.write_bytes(source)
    with pytest.raises(ValueError, match=sentence) as raised:
        load(file)
    assert "\n" not in str(raised.value)


def test_a_folder_is_refused_with_the_files_in_it(tmp_path: Path) -> None:
    write(tmp_path, "")
    with pytest.raises(ValueError, match=r"found the folder .*, which is no file; .*: model.py"):
        read_cells(tmp_path)


def test_a_value_in_the_place_of_a_function_is_told_by_its_type(tmp_path: Path) -> None:
    module = load(write(tmp_path, "loss = 3\ndef other(): pass"))
    with pytest.raises(
        ValueError, match=r"expected a function loss in m.py, found a value of type int"
    ):
        find_function(module, "loss", Path("m.py"))
    with pytest.raises(ValueError, match=r"found other; name yours, such as m.py:NAME"):
        find_function(module, "gradients", Path("m.py"))


def test_a_folder_without_python_files_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"found the folder .*, which has no Python file in it$"):
        read_cells(tmp_path)


def test_the_import_path_of_a_link_to_itself_is_found_without_an_exception(tmp_path: Path) -> None:
    circle = tmp_path / "circle.py"
    circle.symlink_to("circle.py")
    assert str(tmp_path) in order_path(circle)


def test_copies_share_modules_and_replace_parts_wherever_they_are() -> None:
    class Lazy(ModuleType):
        pass

    class Holder:
        def __init__(self, part: Any) -> None:
            self.part, self.again, self.module = part, {"part": part}, sys
            self.other = Lazy("lazy")

    part = [1]
    holder = Holder(part)
    copied = copy_deeply(holder, {id(part): "new"})
    assert (copied.part, copied.again, copied.module) == ("new", {"part": "new"}, sys)
    assert copied.other is holder.other
    assert holder.part is part
    assert ModuleType not in __import__("copyreg").dispatch_table
