"""The report on one submission, as it is returned and shown."""

from typing import Any

from bptt_verifier.report.findings import Findings
from bptt_verifier.report.page import render_fragment, render_page
from bptt_verifier.report.text import render_text, summarise
from bptt_verifier.tolerance.comparison import Verdict


class Report(Findings):
    """The findings on one submission; true where the verdict is agrees.

    `str(report)` is plain text, `report.to_dict()` plain values for JSON, and `report.to_html()` a
    page. A notebook shows the page by itself.
    """

    __slots__ = ()

    def __bool__(self) -> bool:
        """True where the verdict is agrees, false where it is disagrees or inconclusive."""
        return self.verdict is Verdict.AGREES

    def __str__(self) -> str:
        """The report as text that fits a screen."""
        return render_text(self)

    def __repr__(self) -> str:
        """The report on one line, as `assert report` shows it."""
        return f"<Report: {summarise(self)}>"

    def to_html(self) -> str:
        """The report as one page with pictures, without scripts, readable offline."""
        return render_page(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the report as text in a terminal of IPython."""
        printer.text(str(self))

    def _repr_html_(self) -> str:
        """The report as a notebook shows it."""
        return render_fragment(self)


class DerivationError(AssertionError):
    """A submission does not agree; the message is the report, which is also `.report`."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report
