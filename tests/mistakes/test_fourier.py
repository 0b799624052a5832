"""Frequencies that stand for two, and are weighed as one in a gradient."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.in_fourier import list_frequency_mistakes, make_weights
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import trace
from tests.support.diagnosis import IN_BOTH_PRECISIONS, diagnose_planted

RNG = np.random.default_rng(15)
N, M = 8, 5
X, Y = RNG.normal(size=(3, N)), RNG.normal(size=(3, N))
NINE = RNG.normal(size=9)
TWO = np.r_[1.0, 2.0 * np.ones(M - 2), 1.0]  # how many frequencies of eight numbers each stands for


def weights(**shapes):
    return {name: np.zeros(shape) for name, shape in shapes.items()}


# A filter in frequencies: the inverse transform of a product with parameters.


def filter_loss(p, xp):
    a = xp.fft.irfft(xp.fft.rfft(X) * p["r"], N) + p["w"] * X
    return xp.mean((xp.tanh(a) - Y) ** 2)


def filter_gradients(p):
    F = np.fft.rfft(X)
    s = np.tanh(np.fft.irfft(F * p["r"], N) + p["w"] * X)
    da = 2 * (s - Y) * (1 - s**2) / Y.size
    dG = np.fft.rfft(da) / N * TWO
    return {"r": (dG * np.conj(F)).real.sum(0), "w": np.sum(da * X, keepdims=True).ravel()}


# A loss of spectra: the transform of what depends on parameters.


def spectral_loss(p, xp):
    F = xp.fft.rfft(xp.tanh(X @ p["W"]))
    return xp.sum(xp.real(F) ** 2 * WEIGHT + xp.imag(F) ** 2) / N


WEIGHT = np.linspace(0.5, 1.5, M)


def spectral_gradients(p):
    h = np.tanh(X @ p["W"])
    F = np.fft.rfft(h)
    dF = 2 * (F.real * WEIGHT + 1j * F.imag) / N
    dh = np.fft.irfft(dF / TWO, N) * N
    return {"W": X.T @ (dh * (1 - h**2))}


# Two layers: the transform of states, filtered.


def layers_loss(p, xp):
    u = X
    for r in (p["r1"], p["r2"]):
        u = u + xp.tanh(xp.fft.irfft(xp.fft.rfft(u) * r, N))
    return xp.sum((u - Y) ** 2)


def layers_gradients(p):
    u, tape = X, []
    for r in (p["r1"], p["r2"]):
        F = np.fft.rfft(u)
        s = np.tanh(np.fft.irfft(F * r, N))
        tape.append((F, s, r))
        u = u + s
    du, found = 2 * (u - Y), []
    for F, s, r in reversed(tape):
        dG = np.fft.rfft(du * (1 - s**2)) / N
        dG = dG * TWO
        found.append((dG * np.conj(F)).real.sum(0))
        du = du + np.fft.irfft(dG * r / TWO * N, N)
    return {"r2": found[0], "r1": found[1]}


MODELS: dict[str, Any] = {
    "filter": (filter_loss, filter_gradients, weights(r=(M,), w=(1,))),
    "spectral": (spectral_loss, spectral_gradients, weights(W=(N, N))),
    "layers": (layers_loss, layers_gradients, weights(r1=(M,), r2=(M,))),
}
PLANTED: dict[str, tuple[str, str, tuple[tuple[str, str], ...]]] = {
    "no factor of a filter": ("filter", "factor-missing", ((" / N * TWO", " / N"),)),
    "the last one of a filter": (
        "filter", "factor-twice", ((" / N * TWO", " / N * np.r_[1.0, 2.0 * np.ones(M - 1)]"),),
    ),
    "no half of a spectrum": ("spectral", "factor-missing", (("dF / TWO", "dF"),)),
    "neither": ("layers", "factor-missing", (
        ("dG = dG * TWO", "pass"), ("dG * r / TWO * N", "dG * r * N"),
    )),
    "no factor, and a half": ("layers", "factor-missing", (("dG = dG * TWO", "pass"),)),
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_wrong_without_a_change(model: str) -> None:
    assert diagnose_planted(MODELS[model]) == ()


@IN_BOTH_PRECISIONS
@pytest.mark.parametrize("kind", PLANTED)
def test_frequencies_of_wrong_weight_are_named(kind: str, dtype: Any) -> None:
    model, name, changes = PLANTED[kind]
    (found,) = diagnose_planted(MODELS[model], *changes, dtype=dtype)
    assert found.name == name, found
    alike, last = "all frequencies are weighed alike", "the last frequency, which stands for one,"
    assert (alike if name == "factor-missing" else last) in found.explanation


@pytest.mark.parametrize(
    ("count", "last", "wanted"),
    [(4, False, [1, 0.5, 1]), (5, False, [1, 0.5, 0.5]), (4, True, [1, 1, 2]),
     (5, True, [1, 1, 1])],
)  # fmt: skip
def test_the_last_frequency_of_an_odd_number_stands_for_two(
    count: int, last: bool, wanted: list[float]
) -> None:
    assert make_weights(count, last).tolist() == wanted


def test_an_odd_number_has_no_last_frequency_of_its_own() -> None:
    def loss(p, xp):
        return xp.sum(xp.abs(xp.fft.rfft(p["w"] * NINE)) ** 2)

    with use_float64():
        known = structure(trace(loss, weights(w=(9,))))
    assert [each.name for each in list_frequency_mistakes(known)] == ["factor-missing"]
