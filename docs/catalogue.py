"""Write docs/mistakes.md, the catalogue of mistakes: `make docs`."""

from pathlib import Path

from bptt_verifier.judge.published import list_entries, read_entry
from bptt_verifier.mistakes.catalogue import SECTIONS
from bptt_verifier.mistakes.explanation import Explanation

PAGE = Path(__file__).with_name("mistakes.md")
INTRODUCTION = """\
# Catalogue of mistakes

This page lists every name that a report gives, with the line that shows the mistake and the right
one. `docs/catalogue.py` writes it from `bptt_verifier/mistakes/catalogue.py`. The tests put each
wrong line into its example, and the judge gives it this name.

The lines are from two correct derivations in NumPy. [every_step.py](../examples/every_step.py) has
an output at every step, which is called z; it works on one sequence, and its vectors are columns.
[right.py](../examples/right.py) has one output, at the last step; it works on a batch, and each row
of its arrays is one sequence. Lines of other models are from small files that are linked there.

A rank is the place among the fifteen commonest mistakes in the public hand-written BPTT code that
we tried. Two mistakes with the same rank were counted together.
"""


def find_docket_entries() -> dict[str, list[str]]:
    """Find the entries of the docket that have each mistake, by its name."""
    found: dict[str, list[str]] = {}
    for name in list_entries():
        for mistake in read_entry(name).entry.mistake:
            found.setdefault(mistake, []).append(name)
    return found


def write_lines(heading: str, lines: str) -> str:
    """Write lines of code under a comment that says which they are."""
    return f"# {heading}\n{lines}"


def render_entry(entry: Explanation, docket: list[str]) -> str:
    """Render one name: what is wrong, the lines, where they are from, and how common it is."""
    parts = [f"### `{entry.name}`", entry.meaning]
    if entry.wrong:
        code = f"{write_lines('wrong', entry.wrong)}\n\n{write_lines('right', entry.right)}"
        parts.append(f"```python\n{code}\n```")
    if entry.remedy:
        parts.append(entry.remedy)
    found = [f"Rank in public code: {entry.rank}."] if entry.rank else []
    if entry.example not in ("", "right.py", "every_step.py"):
        found.append(f"The lines are from [{entry.example}](../examples/{entry.example}).")
    if docket:
        links = ", ".join(f"[{name}](docket/{name}.md)" for name in docket)
        found.append(f"In the docket: {links}.")
    return "\n\n".join(parts + [" ".join(found)] * bool(found))


def render_page() -> str:
    """Render the whole catalogue: a list of all names by section, then the entries."""
    docket = find_docket_entries()
    rows = [
        f"| {section} | {', '.join(f'[{entry.name}](#{entry.name})' for entry in entries)} |"
        for section, entries in SECTIONS.items()
    ]
    parts = [INTRODUCTION, "\n".join(["| where | names |", "| --- | --- |", *rows])]
    for section, entries in SECTIONS.items():
        parts.append(f"## {section}")
        parts += [render_entry(entry, docket.get(entry.name, [])) for entry in entries]
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render_page(), encoding="utf-8")
