"""Any value in an operand's place, slopes of one use, and steps that share one object."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.report import Mistake
from tests.support import composed_derivations, further_models, layout_derivations, own_models
from tests.support.diagnosis import diagnose_numbers, plant
from tests.support.own_models import Model
from tests.support.profiles import by_turns

Change = tuple[str, str]

# A rate network: a leaky potential, a softplus rate that the next step and the output use.

STEPS, N, UNITS = 4, 3, 4
RNG = np.random.default_rng(6)  # other modules draw from the shared one in the order of imports
DRIVE, AIM = RNG.normal(size=(STEPS, N, UNITS)), RNG.normal(size=(STEPS, N, 2))
LEAK = 0.3


def rates_loss(p: Any, xp: Any) -> Any:
    a, total = p["a0"] + xp.zeros((N, UNITS)), 0.0
    for t in range(STEPS):
        r = xp.log1p(xp.exp(a))
        a = (1 - LEAK) * a + LEAK * (r @ p["J"] + DRIVE[t])
        total = total + xp.sum((xp.log1p(xp.exp(a)) @ p["w"] - AIM[t]) ** 2)
    return total / N


def rates_gradients(p: Any) -> dict[str, Any]:
    def rate(a: Any) -> Any:
        return np.log1p(np.exp(a))

    def slope(a: Any) -> Any:
        return 1 / (1 + np.exp(-a))

    a = [p["a0"] + np.zeros((N, UNITS))]
    for t in range(STEPS):
        a.append((1 - LEAK) * a[t] + LEAK * (rate(a[t]) @ p["J"] + DRIVE[t]))
    G = {name: np.zeros_like(value) for name, value in p.items()}
    later = np.zeros((N, UNITS))
    for t in reversed(range(STEPS)):
        dy = 2 * (rate(a[t + 1]) @ p["w"] - AIM[t]) / N
        G["w"] += rate(a[t + 1]).T @ dy
        da = later + dy @ p["w"].T * slope(a[t + 1])
        G["J"] += LEAK * rate(a[t]).T @ da
        back = LEAK * da @ p["J"].T * slope(a[t])
        later = (1 - LEAK) * da + back
    G["a0"] = later.sum(0)
    return G


RATES = Model(
    rates_loss, rates_gradients, rates_gradients,
    {"J": np.zeros((UNITS, UNITS)), "w": np.zeros((UNITS, 2)), "a0": np.zeros(UNITS)},
)  # fmt: skip
MODELS = {
    "gru": own_models.MODELS["gru"],
    "lstm": composed_derivations.MODELS["lstm"],
    "peepholes": further_models.MODELS["peepholes"],
    "sequence": further_models.MODELS["sequence"],
    "flow": layout_derivations.MODELS["flow"],
    "features": layout_derivations.MODELS["features"],
    "arrays": layout_derivations.MODELS["arrays"],
    "normalised": further_models.MODELS["normalised"],
    "rates": RATES,
}

OF_TRACE = "for x, h, z, r, n in reversed(trace):"
IN_ORDER = "for k, (x, h, z, r, n) in reversed([*enumerate(trace)]):"
PATHS = "a = dh * (1 - h[t + 1] ** 2)"
OWN = "a = own * (1 - h[t + 1] ** 2) + later * "
PLANTED: list[tuple[str, str, tuple[Change, ...]]] = [
    # A value that the step computes later, or reads elsewhere.
    ("gru", "wrong-operand", (("dr = drh * h * r", "dr = drh * n * r"),)),
    ("gru", "wrong-operand", (('("r", dr, h)', '("r", dr, n)'),)),
    ("gru", "wrong-operand", (('("n", dn, r * h)', '("n", dn, z * h)'),)),
    ("peepholes", "wrong-operand", (("ai = dc * g * i", "ai = dc * u * i"),)),
    ("peepholes", "wrong-operand", (("af = dc * c0 * f", "af = dc * u * f"),)),
    ("peepholes", "wrong-operand", (('G["pf"] += (af * c0)', 'G["pf"] += (af * u)'),)),
    ("gru", "wrong-operand", (('("n", dn, r * h)', '("n", dn, n * h)'),)),
    ("gru", "wrong-operand", (('("n", dn, r * h)', '("n", dn, r * n)'),)),
    ("lstm", "wrong-operand", (("dc * cp * f * (1 - f)", "dc * g * f * (1 - f)"),)),
    ("lstm", "wrong-operand", (("dc * cp * f * (1 - f)", "dc * np.tanh(c) * f * (1 - f)"),)),
    ("flow", "wrong-operand", (('g["W"] += flow.h[t].T @ da', 'g["W"] += flow.f[t].T @ da'),)),
    # A factor of the step before or after in what is carried back.
    ("gru", "hidden-state-off-by-one",
     ((OF_TRACE, IN_ORDER), ("dh = dh * z", "dh = dh * trace[max(k - 1, 0)][2]"))),
    ("gru", "hidden-state-off-by-one",
     ((OF_TRACE, IN_ORDER), ("+ drh * r", "+ drh * trace[min(k + 1, STEPS - 1)][3]"))),
    ("peepholes", "hidden-state-off-by-one",
     (("dc_later = dc * f", "dc_later = dc * trace[max(t - 1, 0)][3]"),)),
    ("lstm", "hidden-state-off-by-one",
     (("dc_next = dc * f", "dc_next = dc * mem[max(t - 1, 0)][3]"),)),
    # The slope of one use alone.
    ("sequence", "activation-derivative-of-activated-value",
     ((PATHS, OWN + "(1 - np.tanh(h[t + 1]) ** 2)"),)),
    ("sequence", "activation-derivative-twice", ((PATHS, OWN + "(1 - h[t + 1] ** 2) ** 2"),)),
    ("sequence", "hidden-state-off-by-one", ((PATHS, OWN + "(1 - h[max(t, 1)] ** 2)"),)),
    ("sequence", "activation-derivative-of-another-function",
     ((PATHS, OWN + "h[t + 1] * (1 - h[t + 1])"),)),
    ("rates", "activation-derivative-of-activated-value",
     (('@ p["J"].T * slope(a[t])', '@ p["J"].T * slope(rate(a[t]))'),)),
    ("rates", "activation-derivative-of-activated-value",
     (('@ p["w"].T * slope(a[t + 1])', '@ p["w"].T * slope(rate(a[t + 1]))'),)),
    ("rates", "activation-derivative-missing", (('@ p["J"].T * slope(a[t])', '@ p["J"].T'),)),
    ("rates", "hidden-state-off-by-one",
     (('@ p["J"].T * slope(a[t])', '@ p["J"].T * slope(a[max(t - 1, 0)])'),)),
    # The last term of a normalisation's derivative.
    ("features", "factor-missing", (("da = (dn - m1 - n * m2) / sd", "da = (dn - m1 - m2) / sd"),)),
    ("features", "wrong-operand",
     (("da = (dn - m1 - n * m2) / sd", "da = (dn - m1 - n * m1) / sd"),)),
    ("arrays", "factor-missing", (("(dn - mean1 - n * mean2)", "(dn - mean1 - mean2)"),)),
    ("normalised", "factor-missing", (("n * (dn * n).mean()", "(dn * n).mean()"),)),
    # One object for all steps.
    ("gru", "state-overwritten", ((OF_TRACE, "for x, h, z, r, n in [trace[-1]] * STEPS:"),)),
    ("peepholes", "state-overwritten",
     (("= trace[t]", "= trace[-1]"), ("own = 2 * (h - Y[t])", "own = 2 * (trace[t][-1] - Y[t])"))),
    ("lstm", "state-overwritten", (("= mem[t]", "= mem[-1]"),)),
]  # fmt: skip
TURNS = by_turns(PLANTED, (np.float64, np.float32))


def diagnose(model: str, changes: tuple[Change, ...], dtype: Any = float) -> tuple[Mistake, ...]:
    chosen = MODELS[model]
    return diagnose_numbers(chosen.loss, chosen.params, plant(chosen.gradients, *changes), dtype)


@pytest.mark.parametrize("model", MODELS)
def test_the_derivations_are_right_as_they_stand(model: str) -> None:
    assert diagnose(model, ()) == ()


@pytest.mark.table(15)
@pytest.mark.parametrize(
    ("each", "dtype"),
    TURNS,
    ids=[f"{n} {each[0]} {dtype.__name__}" for n, (each, dtype) in enumerate(TURNS)],
)
def test_a_rarer_mistake_is_named(each: tuple[str, str, tuple[Change, ...]], dtype: type) -> None:
    model, names, changes = each
    (found,) = diagnose(model, changes, dtype)
    assert {found.name, *found.details.get("or", ())} & {*names.split()}, found.explanation
