"""Terms and factors of the probabilities of pairs of states: missing, or of another step."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.in_posteriors import list_posterior_mistakes
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import trace
from tests.support.chain_derivations import MODELS
from tests.support.diagnosis import IN_BOTH_PRECISIONS, diagnose_planted, ones
from tests.support.further_derivations import MODELS as NETWORKS

PAIR = 'pair = alpha[t - 1][:, None] + p["trans"] + emit[t] + beta - logZ'
SINGLE = 'np.exp(alpha[t - 1][:, None] + p["trans"] + (emit[t] + beta)[None] - logZ)'
COUNT = "np.outer(alpha[t - 1], B[:, y[t]] * beta) / scales[t]"
PLANTED: dict[str, tuple[str, str, tuple[str, str]]] = {
    "no emission": ("sentences", "factor-missing", (PAIR, PAIR.replace(" + emit[t]", ""))),
    "no emission, single": ("single", "factor-missing", (SINGLE, SINGLE.replace("emit[t] + ", ""))),
    "no emission in β": ("single", "factor-missing", (
        'beta = np.log(np.sum(np.exp(p["trans"] + (emit[t] + beta)[None]), axis=1))',
        'beta = np.log(np.sum(np.exp(p["trans"] + beta[None]), axis=1))')),
    "two emissions": ("sentences", "factor-twice", (PAIR, PAIR.replace("emit[t]", "2 * emit[t]"))),
    "the emission before": (
        "sentences", "wrong-operand", (PAIR, PAIR.replace("emit[t]", "emit[t - 1]"))),
    "the emission before, single": (
        "single", "wrong-operand", (SINGLE, SINGLE.replace("emit[t]", "emit[t - 1]"))),
    "products of single states": ("single", "wrong-operand", (
        'G["trans"] += pair', 'G["trans"] += np.outer(pair.sum(axis=1), pair.sum(axis=0))')),
    "products, sentences": ("sentences", "wrong-operand", (
        'G["trans"] += np.exp(pair) / n',
        'G["trans"] += np.outer(np.exp(pair).sum(axis=1), np.exp(pair).sum(axis=0)) / n')),
    "no scale": ("hidden", "factor-missing", (COUNT, COUNT.replace(" / scales[t]", ""))),
    "two scales": ("hidden", "factor-twice", (COUNT, COUNT + " / scales[t]")),
    "the scale before": ("hidden", "wrong-operand", (COUNT, COUNT.replace("[t]", "[t - 1]", 3)
        .replace("y[t - 1]", "y[t]"))),
}  # fmt: skip


@IN_BOTH_PRECISIONS
@pytest.mark.parametrize("kind", PLANTED)
def test_a_term_of_a_pair_that_is_missing_or_of_another_step_is_named(
    kind: str, dtype: Any
) -> None:
    model, name, change = PLANTED[kind]
    (found,) = diagnose_planted(MODELS[model], change, dtype=dtype)
    assert found.name == name, found


@pytest.mark.parametrize("model", NETWORKS)
def test_a_network_has_no_posteriors(model: str) -> None:
    with use_float64():
        known = structure(trace(NETWORKS[model].loss, NETWORKS[model].params))
    assert [*list_posterior_mistakes(known)] == []


# Scores of the state before along the last axis, and a sum whose absolute value is taken.

EMIT = np.random.default_rng(5).normal(size=(4, 3))


def turned_run(p: Any, xp: Any) -> list[Any]:
    alpha = [EMIT[0] + p["start"]]
    for e in EMIT[1:]:
        s = alpha[-1][None, :] + p["trans"]
        m = xp.max(s, axis=1)
        alpha.append(e + xp.log(xp.abs(xp.sum(xp.exp(s - m[:, None]), axis=1))) + m)
    return alpha


def turned_loss(p: Any, xp: Any) -> Any:
    return xp.log(xp.sum(xp.exp(turned_run(p, xp)[-1]))) - p["trans"][1, 2]


def turned_gradients(p: Any) -> Any:
    alpha, beta = turned_run(p, np), np.zeros(3)
    logZ = np.log(np.sum(np.exp(alpha[-1])))
    dtrans = np.zeros((3, 3))
    dtrans[1, 2] -= 1
    for t in (3, 2, 1):
        pair = np.exp(alpha[t - 1][None, :] + p["trans"] + (EMIT[t] + beta)[:, None] - logZ)
        dtrans += pair
        beta = np.log(np.sum(np.exp(p["trans"] + (EMIT[t] + beta)[:, None]), axis=0))
    return {"trans": dtrans, "start": np.exp(alpha[0] + beta - logZ)}


def test_products_of_posteriors_are_named_in_the_other_orientation() -> None:
    turned = turned_loss, turned_gradients, ones(trans=(3, 3), start=(3,))
    assert diagnose_planted(turned) == ()
    change = ("dtrans += pair", "dtrans += np.outer(pair.sum(axis=1), pair.sum(axis=0))")
    (found,) = diagnose_planted(turned, change)
    assert found.name == "wrong-operand"
    assert "the product of the posteriors of two states" in found.explanation
