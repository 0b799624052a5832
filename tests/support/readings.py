"""Readings of code that ends in a statement, and what they have to agree and to disagree with."""

from pathlib import Path
from typing import Any

from bptt_verifier.judge.files import read_file
from bptt_verifier.judge.verify import verify_own_model

START = "import numpy as np\nrng = np.random.default_rng(0)\ndraw = lambda *n: rng.normal(size=n)\n"


def read(folder: Path, name: str, text: str, returns: str, factor: str = "1.0") -> Any:
    """Read code that ends in a statement, with one gradient times a factor."""
    file = folder / "model.py"
    file.write_text(START + text.replace("RETURN", returns).replace("FACTOR", factor))
    return read_file(file, name, None, {}, ())


def require_comparison(folder: Path, name: str, text: str, returns: str, said: str) -> None:
    """Require that right gradients agree, wrong ones disagree, and a sentence on the reading."""
    found = read(folder, name, text, returns)
    assert said in found.said
    assert verify_own_model(found.gradients, found.loss, found.params, cases=2)
    wrong = read(folder, name, text, returns, "1.3")
    assert not verify_own_model(wrong.gradients, wrong.loss, wrong.params, cases=2)
