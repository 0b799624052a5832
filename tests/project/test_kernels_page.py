"""The code in docs/kernels.md runs, and its adapters make what the page says."""

import ast
import re
from importlib.util import find_spec
from typing import Any

from bptt_verifier import Verdict
from bptt_verifier.adapters import Kernel
from bptt_verifier.adapters.of_c import read_signature
from tests.support.c_gru import MISTAKES as GRU_MISTAKES
from tests.support.kernel_gallery import GALLERY
from tests.support.modules import ROOT
from tests.support.torch_kernels import MISTAKES as LSTM_MISTAKES

PAGE = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_kernel_on_the_page_agrees() -> None:
    names: dict[str, Any] = {"print": lambda report: None}
    exec(BLOCKS[0], names)
    assert names["report"].verdict is Verdict.AGREES, str(names["report"])


def test_the_adapters_on_the_page_make_kernels() -> None:
    start, *made, prototype, of_c = map(ast.unparse, ast.parse(BLOCKS[1]).body)
    names: dict[str, Any] = {"f": lambda x: x}
    exec(start, names)
    assert len(made) == 2
    for each in made:
        if "from_torch" in each and find_spec("torch") is None:
            continue
        exec(each, names)
        assert isinstance(names.pop("backward"), Kernel)
    (signature,) = re.findall(r"'(const [^']*)'", prototype)
    assert of_c.startswith("backward = from_c(")
    assert [each.name for each in read_signature(signature)] == ["x", "dh", "dx", "T"]


def test_every_finding_on_the_page_is_one_of_the_code_and_the_other_way_round() -> None:
    folder = ROOT / "bptt_verifier" / "judge"
    files = [*folder.glob("kernel_*.py")]
    code = " ".join(file.read_text(encoding="utf-8") for file in files)
    listed = set(re.findall(r"^\| (`[^|]*) \|", PAGE, re.MULTILINE))
    names = {name for row in listed for name in re.findall(r"`([a-z-]+)`", row)}
    names = {name for name in names if "-" in name}
    assert {name for name in names if f'"{name}"' not in code} == set()
    made = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', code))
    assert made - names - {"wrong-shape", "not-finite"} == set()


def test_the_gallery_lists_every_kernel_and_mistake_of_the_tests() -> None:
    listed = [mistake for each in GALLERY.values() for mistake in each.mistakes]
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    for known in (*GALLERY, *listed, *LSTM_MISTAKES, *GRU_MISTAKES):
        assert sum(f"| {known} |" in row for row in rows) == 1, known
