"""The page of a report in a browser: it is as wide as the screen, in both themes."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from bptt_verifier.report import Counterexample, Curve, Mistake, ParameterResult, Report
from bptt_verifier.tolerance.comparison import Verdict

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
pytestmark = pytest.mark.skipif(not BROWSER, reason="there is no chromium to show the page in")

LONG = "layers[0].attention.W_query_" * 3
REPORT = Report(
    f"{LONG}.py",
    Verdict.DISAGREES,
    mistakes=(Mistake("missing", f"The line `{LONG * 3}` is wrong: see https://{LONG}.", {}),),
    first_wrong_step=100,
    parameters={LONG: ParameterResult(Verdict.DISAGREES, 1e99, (9, 9, 9), -1.23456789e-100, 1.0,
                                      1e-9, 3, 1e-10)},
    curves=(
        Curve("float64", (0.5,) * 100, (1e-12,) * 100),
        Curve("float32", (0.5,) * 100, (1e-4,) * 100),
    ),
    cases=3,
    counterexample=Counterexample(
        LONG, {}, "W", [[0.123456789] * 100] * 3, [[1.0] * 100] * 3, [[1e9] * 100] * 3, LONG * 9
    ),
    command=f"bptt verify {LONG}.py",
    versions={"jax": "1.0"},
)  # fmt: skip
WIDTHS, THEMES = (390, 1000), ("light", "dark")
# Shows the page in frames of all widths and themes, and writes what it measures as its own text.
HARNESS = """<!doctype html><body>{frames}<script>
onload = () => {{
  const found = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, box = query => page.querySelector(query);
    const style = query => getComputedStyle(box(query));
    page.querySelector("details").open = true;
    const apart = [...page.querySelectorAll(".plot .x span")].map(e => e.getBoundingClientRect());
    return {{
      scroll: page.documentElement.scrollWidth, width: frame.clientWidth,
      page: style("body").backgroundColor, text: style(".bptt").color,
      table: style("table").display, label: parseFloat(style(".plot .y span").fontSize),
      plot: box(".plot svg").getBoundingClientRect().height,
      overlap: apart.some((e, i) => i && e.left < apart[i - 1].right),
      focusable: [...page.querySelectorAll("summary, a")].every(e => e.tabIndex === 0),
      titled: [...page.querySelectorAll("[role=img]")].every(
        e => e.querySelector("title") || e.getAttribute("aria-label")),
    }};
  }});
  document.body.textContent = JSON.stringify(found);
}};
</script></body>"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], dict[str, Any]]:
    """What a browser shows of the page, by width and theme."""
    folder: Path = tmp_path_factory.mktemp("page")
    source = escape(REPORT.to_html())
    frames = "".join(
        f'<iframe style="color-scheme: {theme}; border: 0; width: {width}px" srcdoc="{source}">'
        "</iframe>"
        for width, theme in product(WIDTHS, THEMES)
    )
    harness = folder / "harness.html"
    harness.write_text(HARNESS.format(frames=frames), encoding="utf-8")
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}",
        "--virtual-time-budget=5000", "--dump-dom", harness.as_uri(),
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (text,) = re.findall(r"<body>(.*)</body>", ran.stdout, re.DOTALL)
    found = json.loads(unescape(text))
    return dict(zip(product(WIDTHS, THEMES), found, strict=True))


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_never_scrolls_sideways(shown: Any, width: int, theme: str) -> None:
    found = shown[width, theme]
    assert found["width"] == width
    assert found["scroll"] <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_follows_the_theme(shown: Any, width: int) -> None:
    light, dark = (shown[width, theme] for theme in THEMES)
    assert (light["page"], dark["page"]) == ("rgb(255, 255, 255)", "rgb(13, 17, 23)")
    assert (light["text"], dark["text"]) == ("rgb(31, 35, 40)", "rgb(230, 237, 243)")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_labels_of_the_axes_can_be_read_at_any_width(shown: Any, width: int) -> None:
    found = shown[width, "light"]
    assert found["label"] >= 12
    assert found["plot"] >= 200
    assert not found["overlap"]


def test_the_table_becomes_a_list_on_a_narrow_screen(shown: Any) -> None:
    assert shown[390, "light"]["table"] == "block"
    assert shown[1000, "light"]["table"] == "table"


def test_the_page_can_be_used_by_keyboard_and_every_picture_has_a_title(shown: Any) -> None:
    for found in shown.values():
        assert found["focusable"]
        assert found["titled"]
