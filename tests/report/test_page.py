"""The page of a report: its themes, its charts, and its marked-up sentences."""

import re
from itertools import product
from math import inf, nan

import pytest

from bptt_verifier.report import Counterexample, Curve, Mistake, ParameterResult, Report
from bptt_verifier.report.charts import (
    StepChart,
    chart_errors,
    chart_steps,
    choose_levels,
    divide,
)
from bptt_verifier.report.page import mark_up
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.colour_vision import find_contrast, find_nearest

CURVES = (
    Curve("float64", (2.4, 1e-14, 0.0), (1e-12, 1e-12, 1e-12)),
    Curve("float64", (inf, 1e-14, 1e-13), (1e-12, 1e-12, 1e-12)),
    Curve("float32", (2.4, 1e-6, 1e-6), (1e-4, 1e-4, 1e-4)),
)
REPORT = Report(
    "<mine>",
    Verdict.DISAGREES,
    mistakes=(Mistake("transposed", "Write `a < b` in δ_t.", {}, "B3"),),
    first_wrong_step=1,
    parameters={"W": ParameterResult(Verdict.DISAGREES, 1e9, (0, 1), 1.5, 2.5, 1e-9, 3, 1e-10)},
    curves=CURVES,
    cases=3,
    notes=("The line `x = y` is wrong.",),
    counterexample=Counterexample("T=2", {}, "W", [[1.0]], [[2.0]], [[1e9]], "gradients(…)"),
    command="bptt verify mine.py",
    versions={"jax": "1.0"},
)
STYLE, _, BODY = REPORT._repr_html_().partition("</style>")


# Themes.


def find_themes() -> list[dict[str, str]]:
    """The colours of each theme, by name."""
    blocks = re.findall(r"\{\s*color-scheme: (?:light|dark);([^}]*)\}", STYLE)
    return [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in blocks]


def test_every_colour_has_a_value_in_both_themes_and_stands_in_the_style_alone() -> None:
    light, dark, *notebooks = find_themes()
    assert light.keys() == dark.keys()
    assert notebooks == [light, dark]
    assert set(re.findall(r"var\(--([\w-]+)\)", STYLE)) <= light.keys()
    assert "#" not in re.sub(r'href="[^"]*"', "", BODY)
    assert "@media (prefers-color-scheme: dark)" in STYLE
    for selector in (
        '[data-jp-theme-light="false"] .bptt',
        ".vscode-dark .bptt",
        '[theme="dark"] .bptt',
        '[data-theme="light"] .bptt',
        '[data-theme="dark"] .bptt',
    ):
        assert selector in STYLE


@pytest.mark.parametrize("theme", [0, 1])
def test_text_has_a_contrast_of_4_5_and_a_curve_of_3(theme: int) -> None:
    colours = find_themes()[theme]
    texts = "text", "quiet", "agrees", "disagrees", "inconclusive", "link"
    for text, ground in product(texts, ("page", "panel")):
        assert find_contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for level in range(5):
        pair = colours[f"on-heat-{level}"], colours[f"heat-{level}"]
        assert find_contrast(*pair) >= 4.5, level
    for curve in range(3):
        assert find_contrast(colours[f"curve-{curve}"], colours["page"]) >= 3, curve
    distance, vision = find_nearest([colours[f"curve-{curve}"] for curve in range(2)])
    assert distance >= 30, vision


# Marked-up sentences.


def test_the_page_shows_code_without_backticks_and_indices_as_indices() -> None:
    assert "Write <code>a &lt; b</code> in δ<sub>t</sub>. See equation (" in BODY
    assert "The line <code>x = y</code> is wrong." in BODY
    assert "`" not in BODY


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("a ` b", "a ` b"),
        ("`a` ` b", "<code>a</code> ` b"),
        ("`h_{t}` ∂L/∂h_{t-1}", "<code>h_{t}</code> ∂L/∂h<sub>t-1</sub>"),
        ("`p['W']`", "<code>p[&#39;W&#39;]</code>"),
        ("x_1, δ_29.", "x_1, δ<sub>29</sub>."),
        ("See https://a.org/b#c.", 'See <a href="https://a.org/b#c">https://a.org/b#c</a>.'),
    ],
)
def test_a_sentence_is_marked_up(text: str, marked: str) -> None:
    assert str(mark_up(text)) == marked


# Charts.


def test_all_precisions_share_one_scale_with_one_line_at_1() -> None:
    chart = chart_steps(REPORT)
    assert chart is not None
    assert len(re.findall(r'class="limit" d="M0 [\d.]+H100"', BODY)) == 1
    places = {label: place for place, label in chart.levels}
    assert places["1"] == chart.limit
    assert len(chart.lines) == 3
    assert len({style for _, style in chart.lines}) == 2
    assert [label for label, _ in chart.legend] == [
        "float64, 2 probes", "float32", "1: as large as allowed",
        "first wrong step going backward, t = 1",
    ]  # fmt: skip
    for points, _ in chart.lines:
        for pair in points.split():
            assert all(0 <= float(number) <= 100 for number in pair.split(","))


def test_an_error_of_nothing_is_at_the_bottom_and_an_infinite_one_at_the_top() -> None:
    chart = chart_steps(REPORT)
    assert chart is not None
    assert chart.lines[0][0].endswith(",100.0")
    assert chart.lines[1][0].split()[0].endswith(",0.0")


def make_chart(*curves: tuple[float, ...], first: int | None = None) -> StepChart:
    """The chart of curves of errors that are to be 1 at most."""
    made = tuple(Curve(f"{n}", errors, (1.0,) * len(errors)) for n, errors in enumerate(curves))
    chart = chart_steps(Report("x", Verdict.DISAGREES, curves=made, first_wrong_step=first))
    assert chart is not None
    return chart


def test_errors_are_placed_by_their_powers_of_ten_and_steps_in_the_middle_of_their_part() -> None:
    chart = make_chart((1e-3, 0.1, 10.0, 0.0), (0.5, 1.0), first=3)
    assert chart.lines[0][0] == "12.5,100.0 37.5,50.0 62.5,0.0 87.5,100.0"
    assert chart.lines[1][0] == "12.5,32.53 37.5,25.0"
    assert chart.levels == [(100, "10⁻³"), (75, "10⁻²"), (50, "10⁻¹"), (25, "1"), (0, "10¹")]
    assert chart.times == [(12.5, 1), (37.5, 2), (62.5, 3), (87.5, 4)]
    assert (chart.limit, chart.first_wrong) == (25, 62.5)
    assert (
        chart.description == "Error over allowed error of each adjoint δ, at 4 steps: at most 10."
    )
    assert make_chart((1.0,) * 3).lines[0][0] == "16.67,50.0 50.0,50.0 83.33,50.0"


def test_a_long_sequence_has_a_label_at_some_steps() -> None:
    times = make_chart((1.0,) * 102).times
    assert [t for _, t in times] == [1, 17, 34, 51, 68, 85, 102]


def test_a_fourth_curve_has_the_style_of_the_first() -> None:
    styles = [style for _, style in make_chart(*[(1.0, 1.0)] * 4).lines]
    assert styles == [f"curve curve-{n}" for n in (0, 1, 2, 0)]


def test_a_probe_of_one_step_is_drawn() -> None:
    chart = make_chart((1.0,))
    assert len(chart.lines[0][0].split()) == 2


@pytest.mark.parametrize(
    ("error", "allowed", "ratio"), [(0, 0, 0), (1, 0, inf), (1, 2, 0.5), (3, 0.5, 6), (0, 2, 0)]
)
def test_an_error_is_divided_by_the_allowed_one(error: float, allowed: float, ratio: float) -> None:
    assert divide(error, allowed) == ratio


@pytest.mark.parametrize(
    ("values", "exponents"),
    [
        ([], [-1, 0, 1]),
        ([1e-9], [-10, -8, -6, -4, -2, 0, 2]),
        ([1e14], [-3, 0, 3, 6, 9, 12, 15]),
        ([0.02, 50], [-2, -1, 0, 1, 2]),
    ],
)
def test_the_labels_of_the_axis_are_powers_of_ten_evenly_apart(
    values: list[float], exponents: list[int]
) -> None:
    assert choose_levels(values) == exponents


def test_without_steps_there_is_no_chart() -> None:
    assert chart_steps(Report("mine", Verdict.AGREES)) is None
    assert "<svg" not in Report("mine", Verdict.AGREES).to_html()


@pytest.mark.parametrize(
    "values", [[], [0.0], [1e-9], [1e14], [1e-300, 1e300], [inf, nan, 0.5], [1.0]]
)
def test_the_labels_of_the_axis_hold_all_values_and_1(values: list[float]) -> None:
    levels = choose_levels(values)
    assert 0 in levels
    assert 3 <= len(levels) <= 8
    finite = [value for value in values if 0 < value < inf]
    assert all(10.0 ** levels[0] <= value <= 10.0 ** min(levels[-1], 308) for value in finite)


def test_a_heat_map_has_a_scale_and_the_power_of_ten_in_each_cell() -> None:
    found = chart_errors([[0.5, 1.0, 9.0], [999.0, 1e6, 1e7], [inf, 0.0, 1e3]])
    assert found.columns == 3
    assert [(level, power) for level, power, _ in found.cells] == [
        (0, ""), (0, ""), (1, "0"), (2, "2"), (3, "6"), (4, "7"), (4, "∞"), (0, ""), (2, "3")
    ]  # fmt: skip
    assert found.cells[3][2] == "[1, 0]: 999"
    said = "6 of 9 entries are beyond the allowed error, at most by inf"
    assert found.description == said
    other = chart_errors([1.5, 10.5, 0.5, 1100.0])
    assert [(level, power) for level, power, _ in other.cells] == [
        (1, "0"), (2, "1"), (0, ""), (3, "3")
    ]  # fmt: skip
    assert other.description.startswith(
        "3 of 4 entries are beyond the allowed error, at most by 1.1"
    )
    for label in found.scale:
        assert f"</i>{label}</li>" in BODY


def test_the_cells_of_a_large_map_have_colours_alone() -> None:
    assert chart_errors([[9.0] * 41]).cells[0] == (1, "", "")
    assert chart_errors([[9.0] * 40]).cells[0] == (1, "0", "[0, 0]: 9")


@pytest.mark.parametrize(
    ("errors", "columns"),
    [([1.0, 2.0], 2), ([[[1.0], [2.0]], [[3.0], [4.0]]], 1), ([5.0], 1), ([], 1)],
)
def test_a_heat_map_is_of_any_shape(errors: list[object], columns: int) -> None:
    assert chart_errors(errors).columns == columns


def test_a_gradient_without_entries_has_no_error() -> None:
    said = "0 of 0 entries are beyond the allowed error, at most by 0"
    assert chart_errors([]).description == said
