"""Write docs/mistakes.md, the catalogue of mistakes: `make docs`."""

from pathlib import Path

from bptt_verifier.judge.published import list_entries, read_entry
from bptt_verifier.mistakes.catalogue import SECTIONS
from bptt_verifier.mistakes.explanation import Explanation
from bptt_verifier.tolerance.comparison import Verdict

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

Two counts tell how common a mistake is. A rank is the place among the fifteen commonest mistakes in
the public hand-written BPTT code that we tried; two mistakes with the same rank were counted
together. The [docket](docket.md) has published derivations, some of which disagree with the
gradient.
"""
UNCOUNTED = {
    "Kernels": "not counted, since the code that was counted has no kernels",
    "The contract, and no name": "not counted",
}
RARE = "not among the fifteen commonest in public code"


def find_docket_entries() -> tuple[dict[str, list[str]], int]:
    """Find the entries of the docket that have each mistake, by its name, and how many disagree."""
    found: dict[str, list[str]] = {}
    entries = [(name, read_entry(name).entry) for name in list_entries()]
    for name, entry in entries:
        for mistake in entry.mistake:
            found.setdefault(mistake, []).append(name)
    return found, sum(entry.verdict is Verdict.DISAGREES for _, entry in entries)


def write_lines(heading: str, lines: str) -> str:
    """Write lines of code under a comment that says which they are."""
    return f"# {heading}\n{lines}"


def describe_frequency(entry: Explanation, section: str, docket: list[str], disagree: int) -> str:
    """Describe how common a mistake is: its rank, and its entries of those that disagree."""
    said = f"rank {entry.rank} in public code" if entry.rank else UNCOUNTED.get(section, RARE)
    if docket:
        links = ", ".join(f"[{name}](docket/{name}.md)" for name in docket)
        said += f"; {len(docket)} of the {disagree} claims in the docket that disagree: {links}"
    return f"How common: {said}."


def render_entry(entry: Explanation, frequency: str) -> str:
    """Render one name: what is wrong, the lines, how common it is, and where they are from."""
    parts = [f"### `{entry.name}`", entry.meaning]
    if entry.wrong:
        code = f"{write_lines('wrong', entry.wrong)}\n\n{write_lines('right', entry.right)}"
        parts.append(f"```python\n{code}\n```")
    if entry.remedy:
        parts.append(entry.remedy)
    found = [frequency]
    if entry.example not in ("", "right.py", "every_step.py"):
        found.append(f"The lines are from [{entry.example}](../examples/{entry.example}).")
    return "\n\n".join([*parts, " ".join(found)])


def render_page() -> str:
    """Render the whole catalogue: a list of all names by section, then the entries."""
    docket, disagree = find_docket_entries()
    rows = [
        f"| {section} | {', '.join(f'[{entry.name}](#{entry.name})' for entry in entries)} |"
        for section, entries in SECTIONS.items()
    ]
    parts = [INTRODUCTION, "\n".join(["| where | names |", "| --- | --- |", *rows])]
    for section, entries in SECTIONS.items():
        parts.append(f"## {section}")
        for entry in entries:
            of_name = docket.get(entry.name, [])
            frequency = describe_frequency(entry, section, of_name, disagree)
            parts.append(render_entry(entry, frequency))
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render_page(), encoding="utf-8")
