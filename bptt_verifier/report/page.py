"""Findings as one self-contained HTML page, from the template page.jinja: no script, no network."""

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from bptt_verifier.report.charts import chart_errors, chart_steps
from bptt_verifier.report.findings import Findings
from bptt_verifier.report.links import link_to_equation, link_to_mistake
from bptt_verifier.report.numbers import show_numbers
from bptt_verifier.report.text import HEADINGS, format_result
from bptt_verifier.tolerance.comparison import find_symbol

if TYPE_CHECKING:
    from jinja2 import Template

INDEX = r"(?:_\{([^}]+)\}|(?<=δ)_(\w+))"  # as in h_{t-1} and δ_t
ADDRESS = r"(https?://[^\s<>&]*[^\s<>&.,;:)])"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title></head>
<body><main>{body}</main></body></html>
"""


@cache
def load_template() -> "Template":
    """Load the template, whose values are escaped."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - only pages need it

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["prose"] = mark_up
    source = files(__package__).joinpath("page.jinja").read_text(encoding="utf-8")
    return environment.from_string(source)


def mark_up(text: str) -> Any:
    """Mark up a sentence: code between backticks, indices outside of it, and addresses."""
    from markupsafe import Markup, escape  # noqa: PLC0415

    parts = str(escape(text)).split("`")
    if len(parts) % 2 == 0:  # a backtick without a partner stays as it is
        parts[-2:] = ["`".join(parts[-2:])]
    parts[::2] = [
        re.sub(ADDRESS, r'<a href="\1">\1</a>', re.sub(INDEX, r"<sub>\1\2</sub>", part))
        for part in parts[::2]
    ]
    parts[1::2] = [f"<code>{part}</code>" for part in parts[1::2]]
    return Markup("".join(parts))


def render_page(findings: Findings) -> str:
    """The findings as a whole page."""
    from markupsafe import escape  # noqa: PLC0415

    title = escape(f"{findings.verdict}: {findings.subject}")
    return PAGE.format(title=title, body=render_fragment(findings))


def render_fragment(findings: Findings) -> str:
    """The findings as a fragment of a page with its own style, as a notebook shows it."""
    case = findings.counterexample
    rows = []
    for name, result in findings.parameters.items():
        symbol, *cells = format_result(name, result)
        rows.append((str(result.verdict), symbol, cells))
    return load_template().render(
        found=findings,
        link=link_to_mistake,
        link_equation=link_to_equation,
        headings=HEADINGS,
        rows=rows,
        steps=chart_steps(findings),
        case=case,
        symbol=find_symbol(case.gradient) if case else "",
        numbers=show_numbers(case) if case else None,
        heat=chart_errors(case.error_over_bound) if case else None,
        versions=", ".join(map(" ".join, findings.versions.items())),
    )
