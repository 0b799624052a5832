"""Draw the pictures of commands in README.md and on the site: `make pictures`.

Each picture shows the real output of a command.
"""

import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

FOLDER = Path(__file__).parent
COMMANDS = {
    "verify.svg": ["verify"],
    "almost_right.svg": ["verify", "examples/almost_right.py"],
    "train.svg": ["train"],
}
# Rich's own red is too dark on this background.
BACKGROUND, LETTERS = (41, 41, 41), (197, 200, 198)
GREY, RED, GREEN, YELLOW = (75, 78, 85), (255, 123, 114), (152, 168, 75), (208, 179, 68)
BLUE, MAGENTA, CYAN = (96, 138, 177), (152, 114, 159), (104, 160, 179)
COLOURS = TerminalTheme(
    BACKGROUND, LETTERS, [GREY, RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN, LETTERS]
)
# Rich's own template loads fonts from the network; this one uses fonts of the reader's machine.
SVG = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
    font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace;
    font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
<rect width="{width}" height="{height}" rx="8" fill="#292929" />
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def draw(arguments: list[str], width: int = 96) -> str:
    """The output of `bptt` as SVG, with the command above it.

    Raises RuntimeError if the command fails.
    """
    environment = os.environ | {"FORCE_COLOR": "1", "COLORTERM": "truecolor", "COLUMNS": str(width)}
    command = [sys.executable, "-m", "bptt_verifier.commands.main", *arguments]
    printed = subprocess.run(
        command, env=environment, cwd=FOLDER.parent, capture_output=True, text=True, check=False
    )
    if printed.returncode > 1:  # 1 is a verdict, not a failure
        raise RuntimeError(printed.stderr)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=width, file=nowhere, force_terminal=True)
        console.print(Text("$ bptt " + " ".join(arguments), style="bold"))
        console.print(Text.from_ansi(printed.stdout))
        return console.export_svg(theme=COLOURS, code_format=SVG, unique_id=arguments[0])


if __name__ == "__main__":
    for name, arguments in COMMANDS.items():
        (FOLDER / name).write_text(draw(arguments), encoding="utf-8")
