"""Code as it stands, judged by its own forward pass: right code agrees, and mistakes are named."""

from pathlib import Path

import pytest

from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.own_code import SHAPES, Shape


def judge(folder: Path, shape: Shape) -> Report:
    file = folder / "model.py"
    file.write_text(shape.source, encoding="utf-8")
    found = read_file(file, shape.name, True, {}, shape.chosen)
    assert found.loss is not None
    return verify_own_model(found.gradients, found.loss, found.params, cases=3)


@pytest.mark.table(9)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_right_code_agrees_in_every_shape(shape: Shape, tmp_path: Path) -> None:
    report = judge(tmp_path, shape)
    assert report.verdict is Verdict.AGREES, str(report)
    assert not any("differences" in note for note in report.notes)


@pytest.mark.parametrize(
    "name",
    [
        "arrays of the file, as in min-char-rnn", "layers, as a named tuple",
        "buffers in the object",
        "backward updates, and returns nothing", "backward takes the gradient of the output",
        "backward takes the prediction and the target, and returns the loss",
        "forward leaves the loss in the object, and returns one number",
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_the_users_line(name: str, tmp_path: Path) -> None:
    shape = SHAPES[name]
    wrong = shape.source.replace(".T @ da", " @ da")
    report = judge(tmp_path, shape._replace(source=wrong))
    (mistake,) = report.mistakes
    assert mistake.name == "untransposed-recurrent-weight"
    assert mistake.details["file_line"].startswith(str(tmp_path / "model.py"))
    assert "In your backward pass, `" in mistake.explanation
