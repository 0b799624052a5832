"""Code in the shapes that public code has is judged as it stands: right, and with a mistake."""

from pathlib import Path

import numpy as np
import pytest

from bptt_verifier.judge.files import FileSubmission, read_file
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.leaves import flatten
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.public_code import PAIRS, Pair

SOME = [*PAIRS][3::12]  # verdicts take seconds; `make test-deep` takes all
OTHERS = [pytest.param(n, marks=pytest.mark.slow) for n in PAIRS if n not in SOME]


def read(folder: Path, pair: Pair, source: str) -> FileSubmission:
    (folder / "input.txt").write_text("hello hollow world\n", encoding="utf-8")
    file = folder / "model.py"
    file.write_text(source, encoding="utf-8")
    return read_file(file, pair.name, None, {}, pair.params)


def judge(folder: Path, pair: Pair, source: str) -> Report:
    found = read(folder, pair, source)
    assert found.loss is not None
    return verify_own_model(found.gradients, found.loss, found.params, cases=6)


def test_the_corpus_has_forty_pairs_and_a_mistake_in_each() -> None:
    assert len({pair.source for pair in PAIRS.values()}) >= 40
    assert all(pair.right in pair.source and pair.mistake for pair in PAIRS.values())


@pytest.mark.parametrize("name", PAIRS)
def test_the_loss_and_the_gradients_of_public_code_are_found(name: str, tmp_path: Path) -> None:
    found = read(tmp_path, PAIRS[name], PAIRS[name].source)
    tree, rng = flatten(found.params), np.random.default_rng(0)
    point = {n: v + 0.1 * rng.normal(size=v.shape) for n, v in tree.leaves.items()}
    slopes = tree.read(found.gradients(tree.rebuild(point))[1])
    along = {n: rng.normal(size=v.shape) for n, v in point.items()}

    def evaluate(step: float) -> float:
        assert found.loss is not None
        moved = {n: v + step * along[n] for n, v in point.items()}
        return float(found.loss(tree.rebuild(moved)))

    slope = (evaluate(1e-5) - evaluate(-1e-5)) / 2e-5
    expected = sum(np.sum(slopes[n] * along[n]) for n in point)
    # The error of the difference is step² L‴ / 6, of 1e-10 L‴, and 2⁻⁵³ L / step, of 1e-11 L.
    assert slope == pytest.approx(expected, rel=1e-6, abs=1e-8)


@pytest.mark.table(24)
@pytest.mark.parametrize("name", [*SOME, *OTHERS])
def test_right_public_code_agrees_and_a_mistake_is_named_with_the_users_line(
    name: str, tmp_path: Path
) -> None:
    pair = PAIRS[name]
    report = judge(tmp_path, pair, pair.source)
    assert report.verdict is Verdict.AGREES, str(report)
    assert not any("cannot be traced" in note for note in report.notes)
    wrong = pair.source.replace(pair.right, pair.wrong)
    report = judge(tmp_path, pair, wrong)
    assert report.verdict is Verdict.DISAGREES
    (mistake,) = report.mistakes
    assert mistake.name == (pair.mistake or mistake.name)
    place = mistake.details.get("file_line", "")
    assert place or not pair.line
    if place:  # every line is the user's
        file, _, line = place.rpartition(":")
        assert file == str(tmp_path / "model.py")
        assert wrong.splitlines()[int(line) - 1].strip() == pair.line
