"""Code in PyTorch that derives its gradients by hand is judged as it stands, as code in NumPy is.

torch is no dependency: where it is not installed, these tests are skipped.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.torch_code import CODE, TensorCode

pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")


def judge(folder: Path, code: TensorCode, source: str) -> Report:
    file = folder / "model.py"
    file.write_text(source, encoding="utf-8")
    found = read_file(file, code.name, None, {})
    assert found.loss is not None
    assert sorted(found.params) == sorted(code.params)
    return verify_own_model(found.gradients, found.loss, found.params, cases=6)


@pytest.mark.parametrize("name", CODE)
def test_right_code_agrees_and_a_mistake_is_found_in_every_shape(name: str, tmp_path: Path) -> None:
    code = CODE[name]
    report = judge(tmp_path, code, code.source)
    assert report.verdict is Verdict.AGREES, str(report)
    assert not any("cannot be traced" in note for note in report.notes), str(report)
    assert code.right in code.source
    report = judge(tmp_path, code, code.source.replace(code.right, code.wrong))
    assert report.verdict is Verdict.DISAGREES, str(report)
    for mistake in report.mistakes:
        place = str(mistake.details.get("file_line", tmp_path / "model.py"))
        assert place.startswith(str(tmp_path / "model.py"))
    if "da" in code.right:
        assert f"In your backward pass, `{code.wrong}`" in report.mistakes[0].explanation
