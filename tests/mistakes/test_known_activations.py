"""Recognised activations: a function, its slope and the text of it belong together."""

import numpy as np
import pytest

from bptt_verifier.mistakes.expressions import SAMPLES
from bptt_verifier.mistakes.known_activations import KNOWN


def evaluate(text: str, y: np.ndarray) -> np.ndarray:
    """Evaluate the text of a formula of y."""
    written = text.format("y").replace("−", "-").replace("²", "**2").replace("y (", "y*(")
    found: np.ndarray = eval(written, {"y": y})
    return found


@pytest.mark.parametrize("name", KNOWN)
def test_the_slope_of_a_known_activation_is_its_derivative(name: str) -> None:
    known, step = KNOWN[name], 1e-20
    derivative = known.function(SAMPLES + 1j * step).imag / step
    np.testing.assert_allclose(known.slope(known.function(SAMPLES)), derivative, rtol=1e-14)


@pytest.mark.parametrize("name", KNOWN)
def test_the_texts_of_slopes_are_their_formulas(name: str) -> None:
    known, y = KNOWN[name], np.array([0.25, 0.7])
    for text, formula in ((known.text, known.slope), *known.incomplete):
        np.testing.assert_array_almost_equal_nulp(evaluate(text, y), formula(y), nulp=4)
        assert text == known.text or not np.allclose(formula(y), known.slope(y))
