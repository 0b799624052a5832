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
    error = None if call.excinfo is None else find_error(call.excinfo.value)
    if error is not None and made.failed:
        from bptt_verifier.report.text import summarise  # noqa: PLC0415

        line = summarise(error.report)
        crash = getattr(made.longrepr, "reprcrash", None)
        if crash is not None:
            crash.message = line
        page = write_page(item, error)
        made.user_properties.append((FINDING, {"summary": line, "page": page}))
    return made


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


def write_page(item: pytest.Item, error: "DerivationError") -> str:
    """Write the page of a failure into the folder of --bptt-html; return its path, or nothing."""
    folder = item.config.getoption("--bptt-html")
    if folder is None:
        return ""
    stem = re.sub(r"[^\w.]+", "-", item.nodeid).strip("-")[-100:]
    page = Path(folder) / f"{stem}-{sha1(item.nodeid.encode()).hexdigest()[:6]}.html"
    page.write_text(error.report.to_html(), encoding="utf-8")
    return str(page)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print each failed verification whole, where its page is, and the command to repeat it."""
    failed = [
        (made.nodeid, found)
        for made in terminalreporter.getreports("failed")
        for name, found in made.user_properties
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
