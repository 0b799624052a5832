"""A mistake is stated by what it does: as a path that is cut, and where it has an effect."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from bptt_verifier.mistakes import own_models
from bptt_verifier.mistakes.evidence import Witness
from bptt_verifier.mistakes.families import join
from bptt_verifier.mistakes.operation_mistakes import OperationMistake, scale_edges
from bptt_verifier.mistakes.own_diagnosis import collect_evidence
from bptt_verifier.mistakes.own_models import OwnHypotheses
from bptt_verifier.mistakes.restatements import restate
from bptt_verifier.program.precision import use_float64
from bptt_verifier.program.structure import has_layers_as_steps, structure
from bptt_verifier.report import Mistake
from tests.support.diagnosis import diagnose_planted, ones, trace_points

rng = np.random.default_rng(4)
T, H, O = 5, 3, 2
X, Y = rng.normal(size=(T, H)), rng.normal(size=(T, O))


def sigmoid(z: Any, xp: Any) -> Any:
    return 1 / (1 + xp.exp(-z))


def gated(p: Any, xp: Any) -> Any:
    """A recurrence whose gates are computed for all steps before the loop."""
    a, h = sigmoid(p["g"], xp), p["h"]
    for t in range(T):
        h = a[t] * h + xp.sqrt(1 - a[t] ** 2) * X[t]
    return xp.sum(h**3)


def gated_back(p: Any) -> Any:
    a = 1 / (1 + np.exp(-p["g"]))
    m = np.sqrt(1 - a**2)
    h = [p["h"]]
    for t in range(T):
        h.append(a[t] * h[t] + m[t] * X[t])
    dh, da = 3 * h[T] ** 2, np.zeros_like(a)
    for t in reversed(range(T)):
        da[t] = dh * h[t] - dh * X[t] * a[t] / m[t]
        dh = dh * a[t]
    return {"g": da * a * (1 - a), "h": dh}


def delta(p: Any, xp: Any) -> Any:
    """The delta rule, whose state is read before its update and after it."""
    S, every = xp.zeros((H, O)), []
    for t in range(T):
        u = p["v"][t] - p["k"][t] @ S
        S = S + p["beta"][t] * xp.outer(p["k"][t], u)
        every.append(p["q"][t] @ S)
    return xp.sum(xp.stack(every) * Y)


def delta_back(p: Any) -> Any:
    q, k, v = p["q"], p["k"], p["v"]
    S = [np.zeros((H, O))]
    for t in range(T):
        S.append(S[t] + p["beta"][t] * np.outer(k[t], v[t] - k[t] @ S[t]))
    g, dS = {n: np.zeros_like(x) for n, x in p.items()}, np.zeros((H, O))
    for t in reversed(range(T)):
        g["q"][t] = S[t + 1] @ Y[t]
        dS = dS + np.outer(q[t], Y[t])
        w = k[t] @ dS
        e = v[t] - k[t] @ S[t]
        g["beta"][t] = w @ e
        du = p["beta"][t] * w
        g["v"][t] = du
        g["k"][t] = p["beta"][t] * dS @ e - S[t] @ du
        dS = dS - np.outer(k[t], du)
    return g


def cosine(p: Any, xp: Any) -> Any:
    """Rows of norm 1, as an embedding has them."""
    z = X @ p["W"]
    n = xp.linalg.norm(z, axis=1, keepdims=True)
    return xp.sum(z / n * Y) + xp.sum(z * Y)


def cosine_back(p: Any) -> Any:
    z = X @ p["W"]
    n = np.linalg.norm(z, axis=1, keepdims=True)
    u = z / n
    dz = (Y - u * np.sum(Y * u, axis=1, keepdims=True)) / n + Y
    return {"W": X.T @ dz}


def layered(p: Any, xp: Any) -> Any:
    """A leaky ReLU after each of two layers, in a loop over the layers."""
    x = X
    for name in ("A", "B"):
        x = x @ p[name]
        x = xp.where(x > 0, x, 0.1 * x)
    return xp.sum((x @ p["C"] - Y) ** 2)


def layered_back(p: Any) -> Any:
    inputs, every = [X], list[Any]()
    for name in ("A", "B"):
        z = inputs[-1] @ p[name]
        every.append(z)
        inputs.append(np.where(z > 0, z, 0.1 * z))
    d = 2 * (inputs[2] @ p["C"] - Y)
    g = {"C": inputs[2].T @ d}
    d = d @ p["C"].T
    for k, name in ((1, "B"), (0, "A")):
        d = np.where(every[k] > 0, d, 0.1 * d)
        g[name] = inputs[k].T @ d
        d = d @ p[name].T
    return g


Model = tuple[Callable[..., Any], Callable[..., Any], Mapping[str, Any]]
GATED: Model = gated, gated_back, ones(g=(T, H), h=(H,))
DELTA: Model = delta, delta_back, ones(q=(T, H), k=(T, H), v=(T, O), beta=(T,))
COSINE: Model = cosine, cosine_back, ones(W=(H, O))
LAYERED: Model = layered, layered_back, ones(A=(H, 6), B=(6, 4), C=(4, O))


def explain(model: Model, *change: str) -> Mistake:
    right, written = change
    (found,) = diagnose_planted(model, (right, written))
    return found


def say_everything(known: Any, evidence: Any, made: Any) -> Any:
    """State a mistake in the words that it was tried with."""
    return made


@pytest.mark.parametrize(
    ("change", "to"),
    [
        ((" - dh * X[t] * a[t] / m[t]", ""), "xp.sqrt(1 - a[t] ** 2) * X[t]"),
        (("dh * h[t] - dh", "-dh"), "a[t]"),
    ],
)
def test_a_path_of_one_use_that_is_cut_is_no_slope_of_another_step(
    change: tuple[str, str], to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = explain(GATED, *change)
    assert found.name == "zero-gradient"
    assert f"no gradient is passed on to `{to}`" in found.explanation
    assert "off-by-one" not in found.explanation
    assert "zeros in the place" not in found.explanation
    monkeypatch.setattr(own_models, "restate", say_everything)
    assert explain(GATED, *change).name == "hidden-state-off-by-one"


def test_a_wrong_slope_of_one_use_keeps_its_name() -> None:
    found = explain(GATED, "* a[t] / m[t]", "/ m[t]")
    assert found.name == "activation-derivative-incomplete", found


def test_a_value_that_is_the_right_one_elsewhere_is_said_of_its_own_place() -> None:
    found = explain(DELTA, 'g["q"][t] = S[t + 1] @ Y[t]', 'g["q"][t] = S[t] @ Y[t]')
    assert found.name == "hidden-state-off-by-one"
    assert found.details["expression"] == 'p["q"][t] @ S'
    assert 'the gradient of `p["k"][t]`' not in found.explanation


def list_scaled(known: OwnHypotheses) -> list[OperationMistake]:
    """List factors of what each product with the state passes back to its left operand."""
    groups = [each for each in known.structure.groups if name_of(known, each) == "dot_general"]
    return [
        scale_edges("constant-factor", f"factor of {k}", [(number, 0) for number in group], 2.0)
        for k, group in enumerate(groups)
    ]


def name_of(known: OwnHypotheses, group: Sequence[int]) -> str:
    return known.program.operations[group[0]].name


def test_a_mistake_is_said_of_the_places_at_which_it_has_an_effect() -> None:
    program, points = trace_points(delta, tuple((n, v.shape) for n, v in DELTA[2].items()), float)
    with use_float64():
        (_, wide, true), *_ = points
        witness = Witness(wide, true, true, {n: 0 * v for n, v in true.items()}, True)
        evidence = collect_evidence(program, [witness])
        known = OwnHypotheses(program, evidence)
        one, other = list_scaled(known)[:2]
        idle = one._replace(changes=lambda values: {e: c._replace(after=1.0) for e, c in
                                                    one.changes(values).items()})  # fmt: skip
        assert restate(known, evidence, join([idle, other])).alteration == other.alteration
        assert restate(known, evidence, join([one, other])).places == (one.equation, other.equation)
        found = restate(known, evidence, join([idle, one, other]))
        assert found.places == (one.equation, other.equation)


def test_one_negated_factor_of_a_square_is_a_path_that_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change = "(Y - u * np.sum(Y * u, axis=1, keepdims=True)) / n", "Y / n"
    found = explain(COSINE, *change)
    assert found.name == "normalisation-path-missing"
    assert "sign-flipped" not in found.explanation
    assert "sign-flipped" not in found.details.get("or", ())
    monkeypatch.setattr(own_models, "restate", say_everything)
    assert "sign-flipped" in explain(COSINE, *change).explanation


def test_a_flipped_sign_of_a_square_keeps_its_name() -> None:
    found = explain(COSINE, "(Y - u", "(Y + u")
    assert found.name == "sign-flipped", found


@pytest.mark.parametrize("slope", ["0.0 * d", "np.zeros_like(d)"])
def test_a_slope_of_zero_in_layers_is_no_value_of_another_step(
    slope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = explain(LAYERED, "0.1 * d)", f"{slope})")
    assert found.name == "zero-gradient"
    assert "iteration" not in found.explanation
    monkeypatch.setattr(own_models, "restate", say_everything)
    assert explain(LAYERED, "0.1 * d)", f"{slope})").name == "input-off-by-one"


def trace_structure(model: Model) -> Any:
    loss, _, params = model
    program, _ = trace_points(loss, tuple((n, v.shape) for n, v in params.items()), float)
    return structure(program)


def test_layers_with_parameters_of_their_own_are_no_steps_in_time() -> None:
    layers = trace_structure(LAYERED)
    assert layers.carried  # a loop over layers has the structure of one over time
    assert has_layers_as_steps(layers)
    assert not has_layers_as_steps(trace_structure(GATED))
    assert not has_layers_as_steps(trace_structure(DELTA))


def test_a_path_that_is_cut_between_layers_is_no_recurrent_one() -> None:
    found = explain(LAYERED, "d = d @ p[name].T", "d = 0 * (d @ p[name].T)")
    assert found.name == "zero-gradient", found
    assert "recurrent" not in found.explanation


def tail(p: Any, xp: Any) -> Any:
    e = xp.tanh(p["W"] @ X[0] + p["a"]) @ p["V"] - Y[0]
    return 0.35 * e @ e


def mean_tail(p: Any, xp: Any) -> Any:
    e = xp.tanh(p["W"] @ X[0] + p["a"]) @ p["V"] - Y[0]
    return xp.sum(e**3) / 2.5


def tail_back(p: Any) -> Any:
    h = np.tanh(p["W"] @ X[0] + p["a"])
    e = h @ p["V"] - Y[0]
    dh = 0.7 * p["V"] @ e
    return {"V": np.outer(h, 0.7 * e), "a": dh * (1 - h**2), "W": np.outer(dh * (1 - h**2), X[0])}


def mean_tail_back(p: Any) -> Any:
    h = np.tanh(p["W"] @ X[0] + p["a"])
    d = 3 * (h @ p["V"] - Y[0]) ** 2
    dh = p["V"] @ d / 2.5
    return {"V": np.outer(h, d / 2.5), "a": dh * (1 - h**2), "W": np.outer(dh * (1 - h**2), X[0])}


def half_tail(p: Any, xp: Any) -> Any:
    e = xp.tanh(p["W"] @ X[0] + p["a"]) @ p["V"] - Y[0]
    return 0.25 * xp.sum(e**2)


def half_tail_back(p: Any) -> Any:
    h = np.tanh(p["W"] @ X[0] + p["a"])
    d = 0.5 * (h @ p["V"] - Y[0])
    dh = p["V"] @ d
    return {"V": np.outer(h, d), "a": dh * (1 - h**2), "W": np.outer(dh * (1 - h**2), X[0])}


@pytest.mark.parametrize(
    ("loss", "back", "change", "said"),
    [
        (tail, tail_back, ('0.7 * p["V"] @ e', 'p["V"] @ e'), "lacks the factor 0.7 of `0.35 * e"),
        (mean_tail, mean_tail_back, ("@ d / 2.5\n", "@ d\n"), "lacks the factor 0.4 of `"),
        (
            half_tail,
            half_tail_back,
            ('p["V"] @ d\n', '2 * p["V"] @ d\n'),
            "lacks the factor 0.5 of",
        ),
    ],
    ids=["with a square", "a divisor", "twice"],
)
def test_a_factor_of_the_loss_that_is_missing_on_a_path_is_told_before_others(
    loss: Any, back: Any, change: tuple[str, str], said: str
) -> None:
    (found,) = diagnose_planted((loss, back, ones(V=(H, O), W=(H, H), a=(H,))), change)
    assert found.name == "factor-missing", found.explanation
    assert said in found.explanation, found.explanation
    assert ", or has a factor" in found.explanation


def test_another_factor_is_none_of_the_loss() -> None:
    change = '0.7 * p["V"] @ e', '2.1 * p["V"] @ e'
    (found,) = diagnose_planted((tail, tail_back, ones(V=(H, O), W=(H, H), a=(H,))), change)
    assert found.name == "constant-factor", found.explanation
    assert "lacks" not in found.explanation


def test_a_factor_of_the_loss_in_one_gradient_is_told_as_that() -> None:
    change = '"V": np.outer(h, 0.7 * e)', '"V": np.outer(h, e)'
    (found,) = diagnose_planted((tail, tail_back, ones(V=(H, O), W=(H, H), a=(H,))), change)
    assert found.name == "constant-factor"
    assert "1/0.7 is one over a factor that your forward pass gives" in found.explanation
