"""The plugin of pytest: failed verifications in the summary, and a page for each.

pytest loads it at every start, so that it imports nothing that a failure does not need.
"""

import re
import shlex
import sys
from collections.abc import Generator
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bptt_verifier.report import DerivationError

WRITTEN = pytest.StashKey[int]()  # the pages of a test that have been written
FINDING = "bptt"  # the property of a pytest report that holds a summary and the page of it


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the pages."""
    parser.getgroup("bptt", "verified gradients").addoption(
        "--bptt-html", metavar="DIR", help="write a page with pictures for each wrong gradient here"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder of the pages. Raises UsageError where it cannot be made."""
    folder = config.getoption("--bptt-html")
    if folder is None:
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        said = f"--bptt-html: expected a folder that can be made, found {folder}: {error.strerror}"
        raise pytest.UsageError(said) from None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the verdict, the mistake, the place and the remedy on the line of the short summary."""
    made = yield
    made.user_properties += describe_failure(item, made, call)
    return made


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Do the same where a module verifies while it is collected."""
    made = yield
    found = describe_failure(collector, made, getattr(made, "call", None))
    vars(made)["user_properties"] = found  # which a report on a test has by itself
    return made


def describe_failure(
    node: pytest.Item | pytest.Collector,
    made: pytest.TestReport | pytest.CollectReport,
    call: pytest.CallInfo[Any] | None,
) -> list[tuple[str, object]]:
    """Put the summary of a failed verification on its line; return it, and write its page."""
    raised = None if call is None or call.excinfo is None else call.excinfo.value
    error = find_error(raised)
    if error is None or not made.failed:
        return []
    from bptt_verifier.report.text import summarise  # noqa: PLC0415

    line = summarise(error.report)
    crash = getattr(made.longrepr, "reprcrash", None)
    if crash is not None:
        crash.message = line
    return [(FINDING, {"summary": line, "page": write_page(node, error)})]


def find_error(raised: BaseException | None) -> "DerivationError | None":
    """Find the error of a verification in an exception, its causes, and the parts of a group."""
    module = sys.modules.get("bptt_verifier.report")
    while module is not None and raised is not None:
        if isinstance(raised, module.DerivationError):
            return raised  # type: ignore[no-any-return]
        if isinstance(raised, BaseExceptionGroup):
            found = map(find_error, raised.exceptions)
            return next((each for each in found if each is not None), None)
        raised = raised.__cause__
    return None


def write_page(node: pytest.Item | pytest.Collector, error: "DerivationError") -> str:
    """Write the page of a failure into the folder of --bptt-html; return its path, or nothing."""
    folder = node.config.getoption("--bptt-html")
    if folder is None:
        return ""
    written = node.stash.get(WRITTEN, 0)
    node.stash[WRITTEN] = written + 1
    what = f"{node.nodeid} {written}" if written else node.nodeid  # of several subtests
    stem = re.sub(r"[^\w.]+", "-", what).strip("-")[-100:]
    page = Path(folder) / f"{stem}-{sha1(what.encode()).hexdigest()[:6]}.html"
    page.write_text(error.report.to_html(), encoding="utf-8")
    return str(page)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print each failed verification whole, where its page is, and the command to repeat it."""
    failed = [
        (made.nodeid, found)
        for kind in ("failed", "error", "subtests failed")
        for made in terminalreporter.getreports(kind)
        for name, found in getattr(made, "user_properties", ())
        if name == FINDING
    ]
    if failed:
        terminalreporter.write_sep("=", "wrong gradients")
    for nodeid, found in failed:
        terminalreporter.write_line(nodeid, bold=True)
        terminalreporter.write_line(f"  {found['summary']}")
        if found["page"]:
            terminalreporter.write_line(f"  page: {found['page']}")
        terminalreporter.write_line(f"  run again: python -m pytest {shlex.quote(nodeid)}")
