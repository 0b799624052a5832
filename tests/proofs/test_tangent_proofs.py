"""Second derivatives on exact numbers and on symbols, and mistakes that this would show."""

from pathlib import Path

import pytest

from bptt_verifier.proofs.symbolic_tangents import (
    free_tangent_cases,
    prove_tangents_symbolically,
)
from bptt_verifier.proofs.tangents import (
    SHAPES,
    prove_tangent_polynomials,
    prove_tangent_series,
    series_cases,
)
from manual_bptt import tangents
from tests.support.planting import Mistake, planted
from tests.support.profiles import deep

FEW = SHAPES if deep() else (*SHAPES[::11], SHAPES[-1])
CASES = series_cases() if deep() else series_cases()[::20]
FREE = free_tangent_cases() if deep() else free_tangent_cases()[-1:]


def test_every_tangent_is_the_derivative_of_the_loss_polynomial() -> None:
    proved = prove_tangent_polynomials("", tangents, shapes=FEW)
    assert proved.refuted is None
    assert proved.identities == 4 * len(FEW)
    assert proved.degree == 134  # that of L at T = 3, as for the gradients
    assert proved.log10_error < -13


def test_power_series_of_tangents_and_of_the_loss_agree() -> None:
    proved = prove_tangent_series("", tangents, chosen=CASES)
    assert proved.refuted is None
    assert proved.identities == len(CASES)


def test_on_symbols_every_tangent_is_a_derivative_for_any_activation() -> None:
    proved = prove_tangents_symbolically("", tangents, FREE)
    assert proved.refuted is None
    assert proved.models == len(FREE)
    assert proved.entries >= 9 * len(FREE)


D6 = "moved_dh * slope + dh * second(*at) * moved_a[t - 1]"
MISTAKES = [
    Mistake("φ″ forgotten", "tangents.py", D6, "moved_dh * slope"),
    Mistake("φ″ without the tangent of a_t", "tangents.py", D6, "moved_dh * slope + dh * second(*at)"),
    Mistake("sign of φ″", "activations.py", "-2 * h * (1 - h**2)", "2 * h * (1 - h**2)"),
    Mistake("the direction's W forgotten", "tangents.py", "delta[t - 1] @ moved.W + moved_delta[t - 1] @ W", "moved_delta[t - 1] @ W"),
    Mistake("the moved states forgotten", "tangents.py", " + over_time(delta, moved_h[:-1])", ""),
    Mistake("the moved inputs forgotten", "tangents.py", " + over_time(delta, moved.x)", ""),
    Mistake("the moved last state forgotten", "tangents.py", " + over_time(dy, moved_read)", ""),
    Mistake("the direction's V forgotten", "tangents.py", "dy @ moved.V + moved_dy @ V", "moved_dy @ V"),
    Mistake("the direction's U forgotten", "tangents.py", "x @ moved.U.T + moved.x @ U.T", "moved.x @ U.T"),
    Mistake("a state that stands still", "tangents.py", "h[0], moved_h[0] = h0, moved.h0", "h[0], moved_h[0] = h0, 0"),
    Mistake("factor 2 of the loss", "losses.py", "2 * moved / y.size", "moved / y.size"),
    Mistake("softmax without its sum", "losses.py", "p * (moved - mean)", "p * moved"),
    Mistake("Gauss and Newton's matrix", "tangents.py", "moved_entering = dy @ moved.V + moved_dy @ V", "dy = 0 * dy; entering = 0 * entering; moved_entering = moved_dy @ V"),
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.name)
def test_a_planted_mistake_is_refuted(mistake: Mistake, tmp_path: Path) -> None:
    module = planted(mistake._replace(suspect="tangents"), tmp_path)
    refuted = prove_tangent_polynomials("", module, shapes=SHAPES[-1:]).refuted
    if mistake.file != "tangents.py":
        refuted = refuted or prove_tangent_series("", module, chosen=series_cases()[:32:5]).refuted
    assert refuted is not None


def test_a_planted_mistake_is_refuted_on_symbols(tmp_path: Path) -> None:
    module = planted(MISTAKES[0]._replace(suspect="tangents"), tmp_path)
    refuted = prove_tangents_symbolically("", module, free_tangent_cases()[-2:-1]).refuted
    assert refuted is not None
    assert "is not the derivative" in refuted
