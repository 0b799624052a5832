"""The page on losses in plain NumPy shows the example's own lines, and the report on it."""

import re

import numpy as np
import pytest

from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.source_file import load
from tests.support.modules import ROOT

PAGE = (ROOT / "docs" / "numpy-losses.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "char_rnn.py"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_code_of_the_page_is_the_examples() -> None:
    source = EXAMPLE.read_text(encoding="utf-8")
    assert blocks("python")
    for block in blocks("python"):
        assert block in source


@pytest.mark.rest
def test_the_report_of_the_page_is_that_on_the_example() -> None:
    module = load(EXAMPLE)
    report = verify_own_model(module.gradients, module.loss, module.params, cases=4)
    said, *table = blocks("text")[0].split("\n\n")
    (mistake,) = report.mistakes
    forward, backward = (rf" \({EXAMPLE}:{place}\)" for place in ("32:51", "57:25"))
    found = f"{mistake.name}: {mistake.explanation}"
    assert words(re.sub(forward, "", re.sub(backward, "", found))) == words(said)
    assert re.search(f"{forward} of your forward pass.*{backward} computes", found)
    for line in "".join(table).splitlines():
        name, verdict = line.split()
        assert str(report.parameters[name.removeprefix("∂L/∂")].verdict) == verdict


@pytest.mark.rest
def test_the_example_agrees_once_its_mistake_is_mended() -> None:
    module = load(EXAMPLE)
    source = EXAMPLE.read_text(encoding="utf-8")
    wrong, right = "np.dot(da, hs[t].T)", "np.dot(da, hs[t - 1].T)"
    assert source.count(wrong) == 1
    exec(compile(source.replace(wrong, right), str(EXAMPLE), "exec"), vars(module))
    assert verify_own_model(module.gradients, module.loss, module.params, cases=4)
    assert module.np is np
