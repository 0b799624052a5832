"""The plugin of pytest: what a failed verification shows, and the pages of the failures."""

import os
import re
import subprocess
import sys
import tomllib
import unittest
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, Unpack, get_type_hints

import numpy as np
import pytest

import bptt_verifier
from bptt_verifier import (
    Verdict,
    assert_own_model_verified,
    assert_verified,
    verify_here,
)
from bptt_verifier import pytest_plugin as plugin
from bptt_verifier.judge.options import (
    DerivationOptions,
    DirectionOptions,
    KernelOptions,
    OwnModelOptions,
    PullbackOptions,
    SessionOptions,
)
from bptt_verifier.judge.verify import verify, verify_own_model
from bptt_verifier.report import DerivationError, Mistake, ParameterResult, Report
from bptt_verifier.report.text import summarise
from tests.support.modules import ROOT

pytest_plugins = ["pytester"]

WRONG = """
from bptt_verifier.report import DerivationError, Mistake, ParameterResult, Report
from bptt_verifier.tolerance.comparison import Verdict

def require(gradients, **options):
    __tracebackhide__ = True
    raise DerivationError(Report(
        "mine", Verdict.DISAGREES,
        (Mistake("missing-transpose", "the line to write is `d @ W.T`.", {}),), first_wrong_step=7,
        parameters={"W": ParameterResult(Verdict.DISAGREES, 9.0, (0, 2), 1.5, 2.5, 1e-9, 3, 1e-9)},
    ))
"""
LINE = (
    "disagrees: missing-transpose, at ∂L/∂W[0, 2], first wrong δ_7: the line to write is `d @ W.T`."
)
TESTS = {
    "functions": "def test_mine(): require(len)\ndef test_other(): assert True",
    "unittest": "import unittest\nclass TestMine(unittest.TestCase):\n"
    "    def test_mine(self): require(len)\n    def test_other(self): pass",
    "a cause": "import pytest\ndef test_mine():\n    try: require(len)\n"
    "    except AssertionError as error: raise RuntimeError('outer') from error\n"
    "def test_other(): pass",
    "a group": "def test_mine():\n    try: require(len)\n"
    "    except AssertionError as error: raise ExceptionGroup('outer', [ValueError(), error])\n"
    "def test_other(): pass",
}


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run pytest on a file with the plugin and no other; return the lines and the folder."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("COLUMNS", "300")

    def run_tests(source: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(test_it=WRONG + source)
        return pytester.runpytest("-p", "bptt_verifier.pytest_plugin", *arguments)

    return run_tests


@pytest.mark.parametrize("kind", TESTS)
def test_the_short_summary_shows_verdict_mistake_place_and_remedy(kind: str, run: Any) -> None:
    ended = run(TESTS[kind])
    ended.assert_outcomes(failed=1, passed=1)
    (line,) = [each for each in ended.outlines if each.startswith("FAILED")]
    assert line.endswith(f"- {LINE}")
    shown = "\n".join(ended.outlines)
    assert f"  {LINE}\n  run again: python -m pytest " in shown
    assert "require(gradients" not in shown  # the traceback ends at the line of the test


NOT_IN_A_TEST = {
    "ERROR": "import pytest\n@pytest.fixture\ndef made(): require(len)\ndef test_mine(made): pass",
    "ERROR test_it.py": "require(len)",
    "SUBFAILED": "def test_mine(subtests):\n    with subtests.test(): require(len)",
    "SUBFAILED(i=1)": "import unittest\nclass TestMine(unittest.TestCase):\n"
    "    def test_mine(self):\n        with self.subTest(i=1): require(len)",
}


@pytest.mark.parametrize("kind", NOT_IN_A_TEST)
def test_a_fixture_a_module_and_a_subtest_show_the_same(
    kind: str, run: Any, pytester: pytest.Pytester
) -> None:
    ended = run(NOT_IN_A_TEST[kind], "--bptt-html", "pages")
    (line,) = [each for each in ended.outlines if each.startswith(kind) and " - " in each]
    assert line.endswith(f"- {LINE}")
    assert f"  {LINE}" in ended.outlines
    assert len([*(pytester.path / "pages").iterdir()]) == 1


def test_each_subtest_has_a_page(run: Any, pytester: pytest.Pytester) -> None:
    source = "    for i in range(2):\n        with subtests.test(i=i): require(len)"
    run(f"def test_mine(subtests):\n{source}", "--bptt-html", "pages")
    assert len([*(pytester.path / "pages").iterdir()]) == 2


def test_other_failures_are_left_as_they_are(run: Any) -> None:
    ended = run("def test_mine(): assert 1 == 2")
    ended.assert_outcomes(failed=1)
    assert "wrong gradients" not in "\n".join(ended.outlines)
    assert any("- assert 1 == 2" in line for line in ended.outlines)


def test_an_expected_failure_is_none(run: Any) -> None:
    ended = run("import pytest\n@pytest.mark.xfail\ndef test_mine(): require(len)")
    ended.assert_outcomes(xfailed=1)
    assert "wrong gradients" not in "\n".join(ended.outlines)


def test_a_page_is_written_for_each_failure(run: Any, pytester: pytest.Pytester) -> None:
    source = (
        "import pytest\n@pytest.mark.parametrize('x', ['a/b', 'a:b', 1])\n"
        "def test_mine(x): require(len) if x != 1 else None"
    )
    ended = run(source, "--bptt-html", "made/pages")
    pages = sorted((pytester.path / "made/pages").iterdir())
    assert len(pages) == 2
    for page in pages:
        assert "missing-transpose" in page.read_text(encoding="utf-8")
        assert f"  page: made/pages/{page.name}" in ended.outlines
        assert re.fullmatch(r"[\w.-]+\.html", page.name)


def test_a_folder_that_cannot_be_made_is_a_usage_error(run: Any, pytester: pytest.Pytester) -> None:
    (pytester.path / "file").touch()
    ended = run(TESTS["functions"], "--bptt-html", "file/pages")
    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    said = "ERROR: --bptt-html: expected a folder that can be made, found file/pages: "
    assert any(line.startswith(said) for line in ended.errlines)


@pytest.mark.slow
def test_the_processes_of_xdist_show_the_same(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    pytester.makepyfile(test_it=WRONG + TESTS["functions"])
    plugins = "-p", "xdist.plugin", "-p", "bptt_verifier.pytest_plugin"
    ended = pytester.runpytest_subprocess(*plugins, "-n", "2", "--bptt-html", "pages")
    ended.assert_outcomes(failed=1, passed=1)
    assert any(line.endswith(f"- {LINE}") for line in ended.outlines)
    assert len([*(pytester.path / "pages").iterdir()]) == 1


def test_the_plugin_is_an_entry_point_and_loads_neither_jax_nor_numpy() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"bptt": plugin.__name__}
    script = f"import sys, {plugin.__name__}; print({{'jax', 'numpy', 'rich'}} & {{*sys.modules}})"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT, check=True)
    assert ran.stdout.strip() == b"set()"


OPERATION = Mistake(
    "wrong", "a long explanation of several sentences",
    {"file_line": "/there/net.py:3", "expression": "W @ h", "alteration": "it is zero"},
)  # fmt: skip


def with_backward(mistake: Mistake, right: str | None) -> Mistake:
    """The mistake with the line of the submission that makes it, in the current folder."""
    line = {"file_line": str(Path.cwd() / "net.py:9"), "expression": "W @ d", "right": right}
    return mistake._replace(details=mistake.details | {"backward": line})


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (Report("mine", Verdict.AGREES), "agrees:"),
        (
            Report("mine", Verdict.INCONCLUSIVE, notes=("One.", "The loss\nis not finite.")),
            "inconclusive: The loss is not finite.",
        ),
        (
            Report(
                "mine", Verdict.DISAGREES,
                (Mistake("raised", "your function raised E", {"file_line": "mine.py:3"}),),
            ),
            "disagrees: raised, at mine.py:3: your function raised E",
        ),
        (
            Report(
                "mine", Verdict.DISAGREES,
                (Mistake("one", "A.", {}, "B3"), Mistake("two", "in b.", {"file_line": "b.py:1"})),
                parameters={"w": ParameterResult(Verdict.DISAGREES, 9.0, (), 1.0, 2.0, 1e-9, 3, 0)},
            ),
            "disagrees: one and two, at b.py:1, ∂L/∂w: A. See equation (B3). In b.",
        ),
        (
            Report("mine", Verdict.DISAGREES, (OPERATION,)),
            "disagrees: wrong, at /there/net.py:3: `W @ h` is differentiated wrongly: "
            "it is zero.",
        ),
        (
            Report("mine", Verdict.DISAGREES, (with_backward(OPERATION, None),)),
            "disagrees: wrong, at net.py:9: `W @ d` computes the wrong term: it is zero.",
        ),
        (
            Report("mine", Verdict.DISAGREES, (with_backward(OPERATION, "W.T @ d"),)),
            "disagrees: wrong, at net.py:9: `W @ d` should be `W.T @ d`.",
        ),
    ],
)  # fmt: skip
def test_a_report_is_summarised_on_one_line(report: Report, line: str) -> None:
    assert summarise(report) == line


def test_a_report_is_summarised_where_the_current_folder_is_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> Path:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "cwd", fail)
    report = Report("mine", Verdict.DISAGREES, (OPERATION,))
    assert summarise(report).startswith("disagrees: wrong, at /there/net.py:3: ")


# The functions that a test calls.


def wrong(params: Any, x: Any, y: Any) -> Any:
    raise KeyError("no")


def square(params: Any) -> Any:
    return params["w"] ** 2


@pytest.mark.rest
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (assert_verified, (wrong,)),
        (assert_own_model_verified, (dict, square, {"w": 1.0})),
        (bptt_verifier.assert_vjp_verified, (wrong, np.sin, (np.ones(1),))),
        (bptt_verifier.assert_jvp_verified, (wrong, np.sin, (np.ones(1),))),
        (bptt_verifier.assert_hvp_verified, (wrong, np.sum, (np.ones(1),))),
        (bptt_verifier.assert_transpose_verified, (wrong, wrong, (np.ones(1),))),
    ],
)
def test_no_frame_of_the_package_is_in_the_traceback(function: Any, arguments: Any) -> None:
    with pytest.raises(DerivationError) as raised:
        function(*arguments)
    hidden = [entry for entry in raised.traceback if not entry.ishidden(raised)]
    assert [str(entry.path) for entry in hidden] == [__file__]


TYPED = {
    "verify": DerivationOptions,
    "verify_own_model": OwnModelOptions,
    "verify_vjp": PullbackOptions,
    "verify_jvp": DirectionOptions,
    "verify_hvp": DirectionOptions,
    "verify_transpose": KernelOptions,
}


def find_twin(name: str) -> str:
    """The function that raises unless `name` agrees."""
    return "_".join(["assert", *name.split("_")[1:], "verified"])


def test_every_entry_point_has_typed_options_and_a_twin_that_raises() -> None:
    public = {name for name in bptt_verifier.__all__ if name.startswith("verify")}
    assert public == {*TYPED, "verify_here"}
    raising = {name for name in bptt_verifier.__all__ if name.startswith("assert")}
    assert raising == {find_twin(name) for name in TYPED}
    assert get_type_hints(verify_here)["options"] == Unpack[SessionOptions]


@pytest.mark.parametrize("name", TYPED)
def test_the_typed_options_are_those_of_the_function(name: str) -> None:
    function, options = getattr(bptt_verifier, name), TYPED[name]
    parameters = signature(function).parameters.values()
    named = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    hints = get_type_hints(function)
    assert get_type_hints(options) == {each: hints[each] for each in named}
    twin = getattr(bptt_verifier, find_twin(name))
    assert get_type_hints(twin)["options"] == Unpack[options]
    places = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert list(signature(twin).parameters) == [*places, "options"]


def test_the_options_have_one_order_in_all_functions() -> None:
    order = ["examples", "cases", "seed", "timeout", "progress", "subject"]
    for name in TYPED:
        found = [p for p in signature(getattr(bptt_verifier, name)).parameters if p in order]
        assert found == [each for each in order if each in found], name


def test_a_report_carries_what_repeats_it() -> None:
    report = verify(wrong, model="lstm", sizes=[{"T": 5}], examples=3, seed=7)
    assert report.seed == 7
    assert report.options["examples"] == 3
    call = "verify(wrong, model='lstm', sizes=[{'T': 5}], examples=3, seed=7)"
    assert report.command == call
    assert {"verified-bptt", "jax", "numpy", "Python"} <= report.versions.keys()
    for rendered in (str(report), report.to_dict()):
        assert call in str(rendered)
        assert report.versions["jax"] in str(rendered)
    again = eval(call, {"verify": verify, "wrong": wrong})
    assert again == report
    assert verify(wrong, examples=3).command == "verify(wrong, examples=3, seed=0)"
    without_name = partial(wrong, None)
    assert verify(without_name, examples=3).command == "verify(gradients, examples=3, seed=0)"
    assert verify_own_model(dict, square, {"w": 1.0}, cases=2).command == (
        "verify_own_model(dict, square, params, cases=2, seed=0)"
    )


def test_every_public_name_is_there_and_no_other() -> None:
    for name in bptt_verifier.__all__:
        assert getattr(bptt_verifier, name) is not None
        assert name in dir(bptt_verifier)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bptt_verifier.nothing  # noqa: B018


def test_a_report_on_a_kernel_carries_what_repeats_it() -> None:
    def double(x: Any) -> Any:
        return 2 * x

    def along(arguments: Any, given: Any) -> Any:
        return 2 * given[0] if isinstance(given, tuple) else (2 * given,)

    arguments = (np.ones(3),)
    report = bptt_verifier.verify_vjp(along, double, arguments, cotangents=np.ones(3), seed=4)
    assert report.command == "verify_vjp(along, double, arguments, cotangents=cotangents, seed=4)"
    assert (report.seed, report.options) == (4, {"cases": 3})
    report = bptt_verifier.verify_jvp(along, double, arguments, direction=(np.ones(3),), cases=2)
    call = "verify_jvp(along, double, arguments, direction=direction, cases=2, seed=0)"
    assert report.command == call
    report = bptt_verifier.verify_transpose(along, along, arguments)
    assert report.command == "verify_transpose(along, along, arguments, seed=0)"
    assert report


def test_a_wrong_gradient_is_a_failure_of_a_unittest_and_not_an_error() -> None:
    class TestMine(unittest.TestCase):
        def test_mine(self) -> None:
            assert_own_model_verified(dict, square, {"w": 1.0})

    ended = unittest.TestResult()
    TestMine("test_mine").run(ended)
    ((_, shown),) = ended.failures
    assert ended.errors == []
    assert "DerivationError: disagrees: your model" in shown
