"""Paths that may end in several states, of which a backward recursion begins at one."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes.in_ends import list_end_mistakes
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import trace
from tests.support.diagnosis import IN_BOTH_PRECISIONS, diagnose_planted

rng = np.random.default_rng(9)
D, K = 2, 4
X = rng.normal(size=(6, D))
LONG = [(rng.normal(size=(5, D)), [1, 2]), (rng.normal(size=(6, D)), [3, 1])]
LOW = -1e4  # a logarithm of zero that all arithmetic is finite with


def log_softmax(z: Any, xp: Any) -> Any:
    return z - xp.log(xp.sum(xp.exp(z), axis=1, keepdims=True))


def logadd(*xs: Any, xp: Any) -> Any:
    m = xs[0]
    for x in xs[1:]:
        m = xp.maximum(m, x)
    return m + xp.log(sum(xp.exp(x - m) for x in xs))


def extend(labels: list[int]) -> list[int]:
    found = [0]
    for label in labels:
        found += [label, 0]
    return found


def list_terms(states: Any, s: int, ext: list[int], sign: int) -> list[Any]:
    """List the states before state s, or after it, on a path."""
    others = [s, s - sign, s - 2 * sign]
    skip = 0 <= others[2] < len(ext) and ext[s] != 0 and ext[s] != ext[others[2]]
    return [states[k] for k in others[: 3 if skip else 2] if 0 <= k < len(ext)]


def run_forward(lp: Any, ext: list[int], xp: Any) -> list[Any]:
    alpha = [[lp[0, ext[s]] if s < 2 else LOW + 0 * lp[0, 0] for s in range(len(ext))]]
    for t in range(1, len(lp)):
        before = alpha[-1]
        alpha.append([
            logadd(*list_terms(before, s, ext, 1), xp=xp) + lp[t, ext[s]] for s in range(len(ext))
        ])  # fmt: skip
    return alpha


def run_backward(lp: Any, ext: list[int], last: list[float]) -> list[Any]:
    beta = [np.array(last)]
    for t in reversed(range(len(lp) - 1)):
        after = [beta[0][s] + lp[t + 1, ext[s]] for s in range(len(ext))]
        beta.insert(0, np.array([
            logadd(*list_terms(after, s, ext, -1), xp=np) for s in range(len(ext))
        ]))  # fmt: skip
    return beta


# CTC of one sequence, and of two.


def ctc_loss(p: Any, xp: Any) -> Any:
    total = 0.0
    for x, labels in LONG:
        alpha = run_forward(log_softmax(x @ p["W"], xp), extend(labels), xp)
        total = total - logadd(alpha[-1][-1], alpha[-1][-2], xp=xp)
    return total


def ctc_by_pairs(p: Any, xp: Any) -> Any:
    """CTC whose sums are `logaddexp` of two numbers at a time."""
    total = 0.0
    for x, labels in LONG:
        ext, lp = extend(labels), log_softmax(x @ p["W"], xp)
        alpha = [lp[0, ext[s]] if s < 2 else LOW + 0 * lp[0, 0] for s in range(len(ext))]
        for t in range(1, len(lp)):
            before, alpha = alpha, []
            for s, k in enumerate(ext):
                first, *others = list_terms(before, s, ext, 1)
                for other in others:
                    first = xp.logaddexp(first, other)
                alpha.append(first + lp[t, k])
        total = total - xp.logaddexp(alpha[-1], alpha[-2])
    return total


def ctc_gradients(p: Any) -> Any:
    G = np.zeros_like(p["W"])
    for x, labels in LONG:
        ext, lp = extend(labels), log_softmax(x @ p["W"], np)
        alpha = np.array(run_forward(lp, ext, np))
        ends = logadd(alpha[-1][-1], alpha[-1][-2], xp=np)
        beta = np.array(run_backward(lp, ext, [LOW] * (len(ext) - 2) + [0.0, 0.0]))
        y = np.zeros_like(lp)
        for s, k in enumerate(ext):
            y[:, k] += np.exp(alpha[:, s] + beta[:, s] - ends)
        G += x.T @ (np.exp(lp) - y)
    return {"W": G}


# A left-to-right chain whose paths end in the last three states, in one array.


def chain_run(lp: Any, xp: Any) -> list[Any]:
    alpha = [lp[0] + np.array([0.0, -9.0, -9.0, -9.0])]
    for t in range(1, len(X)):
        moved = xp.concatenate([np.full(1, -40.0), alpha[-1][:-1]])
        alpha.append(xp.log(xp.exp(alpha[-1]) + xp.exp(moved)) + lp[t])
    return alpha


def chain_loss(p: Any, xp: Any) -> Any:
    last = chain_run(log_softmax(X @ p["W"], xp), xp)[-1][1:]
    return -xp.log(xp.sum(xp.exp(last)))


def chain_gradients(p: Any) -> Any:
    lp = log_softmax(X @ p["W"], np)
    alpha = chain_run(lp, np)
    logZ = np.log(np.sum(np.exp(alpha[-1][1:])))
    beta, y = np.array([LOW, 0.0, 0.0, 0.0]), np.zeros_like(lp)
    for t in reversed(range(len(X))):
        y[t] = np.exp(alpha[t] + beta - logZ)
        onward = lp[t] + beta
        beta = np.logaddexp(onward, np.append(onward[1:], LOW))
    return {"W": X.T @ (np.exp(lp) - y)}


PARAMS = {"W": np.ones((D, K))}
MODELS: dict[str, Any] = {
    "ctc": (ctc_loss, ctc_gradients, PARAMS),
    "ctc by pairs": (ctc_by_pairs, ctc_gradients, PARAMS),
    "chain": (chain_loss, chain_gradients, PARAMS),
}
PLANTED: dict[str, tuple[str, str, tuple[str, str]]] = {
    "no blank": ("ctc", "first of 2", ("[0.0, 0.0]", "[0.0, LOW]")),
    "no label": ("ctc", "second of 2", ("[0.0, 0.0]", "[LOW, 0.0]")),
    "no blank, by pairs": ("ctc by pairs", "first of 2", ("[0.0, 0.0]", "[0.0, LOW]")),
    "no label, by pairs": ("ctc by pairs", "second of 2", ("[0.0, 0.0]", "[LOW, 0.0]")),
    "not the first": ("chain", "first of 3", ("[LOW, 0.0, 0.0, 0.0]", "[LOW, LOW, 0.0, 0.0]")),
    "not the last": ("chain", "third of 3", ("[LOW, 0.0, 0.0, 0.0]", "[LOW, 0.0, 0.0, LOW]")),
}


def mark_long(names: Any) -> list[Any]:
    """Mark what takes seconds: each sum of two numbers is ten operations."""
    return [pytest.param(n, marks=pytest.mark.rest) if "by pairs" in n else n for n in names]


@pytest.mark.parametrize("model", mark_long(MODELS))
def test_nothing_is_wrong_without_a_change(model: str) -> None:
    assert diagnose_planted(MODELS[model]) == ()


@IN_BOTH_PRECISIONS
@pytest.mark.parametrize("kind", mark_long(PLANTED))
def test_an_end_state_that_is_missing_is_named(kind: str, dtype: Any) -> None:
    model, which, change = PLANTED[kind]
    (found,) = diagnose_planted(MODELS[model], change, dtype=dtype)
    assert (found.name, f"the {which} end states" in found.explanation) == (
        "sum-part-missing",
        True,
    )


def test_the_numbers_that_logaddexp_adds_are_end_states() -> None:
    def loss(p: Any, xp: Any) -> Any:
        lp = log_softmax(X[:1] @ p["W"], xp)[0]
        return -xp.logaddexp(xp.logaddexp(lp[0], lp[1]), lp[2])

    with use_float64():
        known = structure(trace(loss, PARAMS))
        said = [each.alteration for each in list_end_mistakes(known)]
    assert ["the first of 2" in said[0], "the second of 2" in said[1]] == [True, True]
    assert len(said) == 2


def test_a_softmax_has_no_end_states_of_its_own() -> None:
    def loss(p: Any, xp: Any) -> Any:
        return -xp.sum(log_softmax(X @ p["W"], xp)[:, 1])

    with use_float64():
        known = structure(trace(loss, PARAMS))
    assert [*list_end_mistakes(known)] == []
