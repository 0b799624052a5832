"""Findings as one self-contained HTML page: no script, no network, pictures drawn as SVG."""

from html import escape
from math import isfinite, log10
from typing import Any

from bptt_verifier.report.findings import Findings
from bptt_verifier.report.links import link_to_equation, link_to_mistake
from bptt_verifier.report.text import HEADINGS, format_result
from bptt_verifier.tolerance.comparison import find_symbol

# The colours of a page by day and by night: of the reader's system, or of the notebook.
LIGHT = (
    "--text: #1f2328; --page: #ffffff; --agrees: #1a7f37; --disagrees: #b42318; "
    "--inconclusive: #9a6700; --soft: #fff4f2; --grid: #eaeef2; --bound: #8c959f; --error: #0969da;"
)
DARK = (
    "--text: #e6edf3; --page: #0d1117; --agrees: #3fb950; --disagrees: #ff7b72; "
    "--inconclusive: #d29922; --soft: #2d1513; --grid: #30363d; --bound: #848d97; --error: #58a6ff;"
)
STYLE = (
    f"""
.bptt, body:has(> .bptt:only-child) {{ {LIGHT} }}
@media (prefers-color-scheme: dark) {{ .bptt, body:has(> .bptt:only-child) {{ {DARK} }} }}
[data-jp-theme-light="true"] .bptt, .vscode-light .bptt {{ {LIGHT} }}
[data-jp-theme-light="false"] .bptt, .vscode-dark .bptt {{ {DARK} }}
"""
    + """
body:has(> .bptt:only-child) { background: var(--page); }
.bptt { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); }
.bptt { max-width: 60rem; margin: 2rem auto; padding: 0 .5rem; }
.bptt .agrees { color: var(--agrees); } .bptt .disagrees { color: var(--disagrees); }
.bptt .inconclusive { color: var(--inconclusive); }
.bptt .mistake a { color: inherit; }
.bptt h1 { font-size: 1.5rem; margin: 0; } .bptt h2 { font-size: 1.1rem; margin: 1.6rem 0 .4rem; }
.bptt table { border-collapse: collapse; } .bptt th { text-align: left; font-weight: 600; }
.bptt td, .bptt th { padding: .15rem .9rem .15rem 0; font-variant-numeric: tabular-nums; }
.bptt pre, .bptt code { font: 13px/1.45 ui-monospace, monospace; white-space: pre-wrap; }
.bptt .mistake { border-left: 4px solid var(--disagrees); padding: .3rem .9rem; }
.bptt .mistake { background: var(--soft); }
.bptt svg { width: 100%; height: auto; } .bptt svg text { font: 12px system-ui, sans-serif; }
.bptt svg text { fill: var(--text); } .bptt svg text.first { fill: var(--disagrees); }
.bptt .first { stroke: var(--disagrees); } .bptt text.first { stroke: none; }
.bptt .grid { stroke: var(--grid); } .bptt .bound { stroke: var(--bound); }
.bptt .error { stroke: var(--error); }
"""
)


def render_page(findings: Findings) -> str:
    """The findings as a whole page."""
    title = escape(f"{findings.verdict}: {findings.subject}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{title}</title></head>\n'
        f"<body>{render_fragment(findings)}</body></html>\n"
    )


def render_fragment(findings: Findings) -> str:
    """The findings as a fragment of a page with its own style, as a notebook shows it."""
    verdict, step = findings.verdict, findings.first_wrong_step
    parts = [
        f"<style>{STYLE}</style>",
        f'<h1><span class="{verdict}">{verdict}</span>: '
        f"{escape(findings.subject)}</h1><p>{findings.tried}.</p>",
    ]
    for mistake in findings.mistakes:
        name, explanation = escape(mistake.name), escape(mistake.explanation)
        link = f'<a href="{escape(link_to_mistake(mistake.name))}">{name}</a>'
        if mistake.equation:
            equation = escape(link_to_equation(mistake.equation))
            explanation += f' See equation (<a href="{equation}">{escape(mistake.equation)}</a>).'
        parts.append(f'<p class="mistake"><b>{link}</b><br>{explanation}</p>')
    if step is not None:
        parts.append(f"<p>Going backward, δ<sub>{step}</sub> is the first that is wrong.</p>")
    parts += [f"<p>{escape(note)}</p>" for note in findings.notes]
    if findings.parameters:
        parts += ["<h2>By gradient</h2>", draw_table(findings)]
    if findings.curves:
        parts += ["<h2>Relative error of each adjoint δ<sub>t</sub></h2>", draw_steps(findings)]
    if findings.counterexample:
        case = findings.counterexample
        parts += [
            f"<h2>The smallest failing case: {escape(case.sizes)}</h2>",
            f"<p>Error of {escape(find_symbol(case.gradient))} in units of the bound:</p>",
            draw_heat_map(case.error_over_bound),
            f"<pre>yours     {escape(str(case.yours))}\n"
            f"autodiff  {escape(str(case.autodiff))}</pre>",
            f"<p>Reproduce: <code>{escape(case.reproduce)}</code></p>",
        ]
    return f'<div class="bptt">{"".join(parts)}</div>'


def draw_table(findings: Findings) -> str:
    """A row for each gradient, coloured by its verdict."""
    head = "".join(f"<th>{heading}</th>" for heading in HEADINGS)
    rows = []
    for name, result in findings.parameters.items():
        *cells, verdict = map(escape, format_result(name, result))
        plain = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr>{plain}<td class="{verdict}">{verdict}</td></tr>')
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def draw_steps(findings: Findings) -> str:
    """The relative error over t in every probe, with the bound, on a logarithmic axis."""
    width, height, left, bottom, top = 860, 320, 60, 40, 14
    curves, first_wrong = findings.curves, findings.first_wrong_step
    steps = max(len(curve.relative_errors) for curve in curves)
    values = [v for curve in curves for v in (*curve.relative_errors, *curve.allowed)]
    positive = [v for v in values if v > 0 and isfinite(v)] or [1.0]
    low, high = int(log10(min(positive))) - 1, max(1, int(log10(max(positive))) + 1)

    def place(t: int, value: float) -> tuple[float, float]:
        across = left + (width - left - 10) * (t - 0.5) / steps
        level = log10(value) if value > 0 and isfinite(value) else (low if value <= 0 else high)
        return across, top + (height - top - bottom) * (high - level) / (high - low)

    def line(values: tuple[float, ...], style: str) -> str:
        places = (place(t, value) for t, value in enumerate(values, 1))
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        return f'<polyline fill="none" {style} points="{points}"/>'

    label = "relative error over time"
    drawn = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">']
    for exponent in range(low, high + 1, max(1, (high - low) // 8)):
        y = place(1, 10.0**exponent)[1]
        drawn.append(f'<line x1="{left}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        drawn.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">1e{exponent}</text>')
    for t in range(1, steps + 1, max(1, steps // 10)):
        x = place(t, 1)[0]
        drawn.append(f'<text x="{x:.1f}" y="{height - 18}" text-anchor="middle">{t}</text>')
    drawn.append(f'<text x="{width / 2}" y="{height - 2}" text-anchor="middle">step t</text>')
    if first_wrong is not None:
        x = place(first_wrong, 1)[0]
        anchor = "end" if x > width / 2 else "start"
        drawn.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{height - bottom}" class="first" '
            'stroke-dasharray="2 4"/>'
            f'<text x="{x:.1f}" y="{top + 10}" text-anchor="{anchor}" class="first">'
            f"first wrong step, t = {first_wrong}</text>"
        )
    for curve in curves:
        drawn.append(line(curve.allowed, 'class="bound" stroke-dasharray="6 4"'))
        drawn.append(line(curve.relative_errors, 'class="error" stroke-width="1.6"'))
    legend = f"{len(curves)} probes: error solid, bound dashed"
    drawn.append(f'<text x="{left + 8}" y="{height - bottom - 8}">{legend}</text></svg>')
    return "".join(drawn)


def draw_heat_map(errors: list[Any]) -> str:
    """One square an entry: white within the bound, redder the further outside."""
    rows = errors if errors and isinstance(errors[0], list) else [errors]
    while rows and rows[0] and isinstance(rows[0][0], list):
        rows = [row for block in rows for row in block]
    size = 26
    width, height = size * max(len(row) for row in rows), size * len(rows)
    cells = "".join(
        f'<rect x="{j * size}" y="{i * size}" width="{size - 2}" height="{size - 2}" '
        f'fill="{shade(value)}" stroke="#d0d7de"><title>[{i}, {j}] {value:.3g}</title></rect>'
        for i, row in enumerate(rows)
        for j, value in enumerate(row)
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" style="max-width:{width}px" role="img" '
        f'aria-label="error of each entry">{cells}</svg>'
    )


def shade(value: float) -> str:
    """The colour of an error: white up to 1, then red by its logarithm, darkest from 10⁶ on."""
    if value <= 1:
        return "#ffffff"
    depth = min(1.0, 0.25 + log10(value) / 8) if isfinite(value) else 1.0
    return f"hsl(6 75% {95 - 50 * depth:.0f}%)"
