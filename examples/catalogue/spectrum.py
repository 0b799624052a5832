"""A correct derivation of a filter in the frequency domain: complex factors are conjugated."""

import numpy as np

rng = np.random.default_rng(0)
x, y = np.fft.fft(rng.normal(size=6)), rng.normal(size=6)
params = {"w": rng.normal(size=6), "u": rng.normal(size=6)}


def residual(p):
    return x * (p["w"] + 1j * p["u"]) - y


def loss(p):
    return np.sum(np.abs(residual(p)) ** 2)


def gradients(p):
    dw = np.conj(x) * 2 * residual(p)
    return {"w": dw.real, "u": dw.imag}
