"""The judge of other people's models: right ones pass, planted mistakes are caught and named."""

import importlib
import json
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bptt_verifier.judge import own_model
from bptt_verifier.judge.own_model import (
    compared,
    judged,
    roundoff,
    verify_own_model,
)
from bptt_verifier.program import source_lines
from bptt_verifier.program.structure import structure
from bptt_verifier.program.trace import Change, backward, forward, gradient_and_noise, traced
from bptt_verifier.reference.own_loss import Oracle, copies, drawn, prepared
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict
from tests.support import own_models
from tests.support.own_models import MISTAKES, MODELS, Mistake, planted

CASES = 36


@lru_cache
def oracle(model: str) -> Oracle:
    return prepared(MODELS[model].loss, MODELS[model].params, cases=CASES, seed=3)


def float32_only(model: str) -> Oracle:
    known = oracle(model)
    single = [c for c in known.cases if all(v.dtype == np.float32 for v in c.params.values())]
    assert len(single) >= CASES // 4
    return known._replace(cases=tuple(single))


def names(report: Report) -> list[str]:
    return [mistake.name for mistake in report.mistakes]


# Right derivations.


@pytest.mark.parametrize("style", ["gradients", "otherwise"])
@pytest.mark.parametrize("model", MODELS)
def test_a_right_derivation_agrees_in_every_style(model: str, style: str) -> None:
    report = judged(getattr(MODELS[model], style), oracle(model))
    assert report.verdict is Verdict.AGREES, str(report)
    assert not report.mistakes
    assert set(report.parameters) == set(MODELS[model].params)
    # Far from the bound, so that a right derivation that rounds otherwise agrees, too.
    assert max(result.error for result in report.parameters.values()) < 0.5


def test_the_values_drawn_are_of_both_precisions_and_never_small_or_alike() -> None:
    params = MODELS["batch"].params
    seen = [drawn(params, seed=0, case=case) for case in range(1, 30)]
    assert {values["W"].dtype for values in seen} == {np.dtype("f4"), np.dtype("f8")}
    for values in seen:
        assert min(np.min(np.abs(value)) for value in values.values()) > 0.05
        assert not np.allclose(values["W"], values["W"].T)
    assert np.array_equal(drawn(params, seed=0, case=0)["W"], params["W"])


# Wrong ones.


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: f"{m.model}: {m.name}: {m.written}")
def test_a_planted_mistake_is_caught_and_named(mistake: Mistake) -> None:
    wrong = planted(mistake.model, (mistake.right, mistake.written))
    report = judged(wrong, oracle(mistake.model))
    assert report.verdict is Verdict.DISAGREES
    assert names(report) == [mistake.name], str(report)
    details = report.mistakes[0].details
    if "alteration" in details:
        file, _, line = details["file_line"].rpartition(":")
        assert (
            Path(file).read_text(encoding="utf-8").splitlines()[int(line) - 1].strip()
            == (details["line"])
        )
        assert details["line"] in report.mistakes[0].explanation
    json.dumps(report.to_dict())


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: f"{m.model}: {m.name}: {m.written}")
def test_a_planted_mistake_is_caught_in_float32(mistake: Mistake) -> None:
    if "1e-9" in mistake.written:
        pytest.skip("float32 does not hold a difference of 1e-9")
    wrong = planted(mistake.model, (mistake.right, mistake.written))
    report = judged(wrong, float32_only(mistake.model))
    assert report.verdict is Verdict.DISAGREES
    assert names(report) == [mistake.name], str(report)


W_UNTRANSPOSED = ('da @ p["W"].T', 'da @ p["W"]')
PAIRS = {
    "char": [
        (('p["Whh"].T @ da', 'p["Whh"] @ da'), ("g['by'] +=", "g['by'] -=")),
        (("dh * (1 - h[t] * h[t])", "dh"), ("da @ h[t - 1].T", "da @ h[t].T")),
    ],
    "batch": [
        (W_UNTRANSPOSED, ("2 / (B * O)", "1 / (B * O)")),
        (W_UNTRANSPOSED, ("dh * (1 - h[t + 1] ** 2)", "dh")),
        (W_UNTRANSPOSED, ("dy.sum(axis=0)", "dy[0]")),
        (("h[t].T @ da", "h[t + 1].T @ da"), ("da.sum(axis=0)", "da[0]")),
    ],
    "gru": [
        (('p["Uz"].T @ dz', 'p["Uz"] @ dz'), ("* (1 - n**2)", "")),
    ],
}


@pytest.mark.parametrize(
    ("model", "pair"), [(model, pair) for model, pairs in PAIRS.items() for pair in pairs]
)
def test_a_pair_of_mistakes_is_caught_and_never_taken_for_one(model: str, pair: Any) -> None:
    pair = [(a.replace("'", '"'), b.replace("'", '"')) for a, b in pair]
    report = judged(planted(model, *pair), oracle(model))
    assert report.verdict is Verdict.DISAGREES
    assert names(report) == ["unknown"] or len(report.mistakes) == 2, str(report)


def test_two_mistakes_are_both_named() -> None:
    wrong = planted(
        "char",
        ('p["Whh"].T @ da', 'p["Whh"] @ da'),
        (own_models.RETURN, "    g['by'] *= 2\n    return g\n"),
    )
    assert names(judged(wrong, oracle("char"))) == [
        "untransposed-recurrent-weight",
        "constant-factor",
    ]


def test_a_helper_of_several_callers_is_told_with_the_line_that_is_wrong() -> None:
    wrong = planted("lstm", ("do * o * (1 - o)", "do"))
    (mistake,) = judged(wrong, oracle("lstm")).mistakes
    assert "called by `h = sigmoid(o, xp) * xp.tanh(c)`" in mistake.explanation


@pytest.mark.parametrize("model", MODELS)
def test_one_entry_that_is_off_by_1e_9_is_caught(model: str) -> None:
    for case in oracle(model).cases[:12]:
        for name in case.params:
            found = MODELS[model].gradients(case.params)
            single = found[name].dtype == np.float32
            if single and np.max(roundoff(case, name, found[name])[0]) > 5e-4 * np.max(
                np.abs(case.reference[name])
            ):
                continue  # not well-conditioned
            entry = np.unravel_index(np.argmax(np.abs(found[name])), found[name].shape)
            assert compared(found, case)[name].verdict is not Verdict.DISAGREES
            found[name][entry] *= 1 + (1e-3 if single else 1e-9)
            assert compared(found, case)[name].verdict is Verdict.DISAGREES, (name, case.number)


def test_a_case_is_shown_with_simple_values_and_can_be_reproduced() -> None:
    wrong = planted("batch", ('da @ p["W"].T', 'da @ p["W"]'))
    report = judged(wrong, oracle("batch"))
    case = report.counterexample
    assert case is not None
    assert all(round(x, 1) == x for row in case.arrays["W"] for x in row)
    space: dict[str, Any] = {"params": MODELS["batch"].params, "gradients": wrong}
    setup, call = case.reproduce.split("; ")
    exec(setup, space)
    assert np.allclose(eval(call, space)[case.gradient], case.yours)
    assert "Reproduce: " in str(report)


def test_a_verdict_on_a_long_model_takes_less_than_ten_seconds() -> None:
    H, T = 10, 20
    x = np.random.default_rng(0).normal(size=(T, H, 1))

    def loss(p: Any, xp: Any) -> Any:
        h, total = xp.zeros((H, 1)), 0.0
        for t in range(T):
            h = xp.tanh(x[t] + p["W"] @ h + p["b"])
            y = xp.exp(p["V"] @ h)
            total = total - xp.log(y[0, 0] / xp.sum(y))
        return total

    params = {"W": np.ones((H, H)), "V": np.ones((3, H)), "b": np.ones((H, 1))}
    known = prepared(loss, params, cases=6)
    answers = {case.params["b"].tobytes(): case.reference for case in known.cases}

    def wrong(p: Any) -> Any:
        found = {name: np.array(value) for name, value in p.items()}
        found |= copies(answers.get(p["b"].tobytes(), {}))
        found["W"][0, 1] += 1
        found["V"] *= 2
        return found

    start = time.perf_counter()
    report = judged(wrong, known)
    assert time.perf_counter() - start < 10
    assert names(report) == ["unknown"]


# What the diagnosis stands on.


def many_operations(p: Any, xp: Any) -> Any:
    a, b = p["a"], p["b"]
    parts = xp.split(xp.concatenate([a, b.T], axis=1), 2, axis=1)
    c = xp.where(parts[0] > 0, parts[0], xp.expm1(parts[0])) @ b
    d = xp.stack([c, c[::-1]])[:, :, None, 1:]
    e = xp.einsum("ij,jk->ik", a, b) + xp.max(a, axis=1, keepdims=True)
    f = xp.maximum(e, 0.1) ** 3 / (1 + xp.abs(e)) + xp.minimum(a[:, :3], b[:3]) ** 2
    g = xp.sqrt(1 + xp.square(f)) * xp.sin(f) - xp.cos(f) + xp.log1p(xp.exp(-f))
    h = xp.cumsum(a, axis=0) + xp.clip(a, -0.5, 0.5)
    i = a[np.array([0, 2, 2])] + a[np.array([1, 0, 2]), np.array([1, 1, 3])][:, None]
    j = xp.exp2(a) + xp.sort(a, axis=0) + xp.power(2.0 + a**2, 1.5)
    first, _, third, _ = xp.unstack(a, axis=1)
    d = d * xp.sum(first * third)
    return xp.sum(d) + xp.sum(g) + xp.mean(h * i) + xp.sum(xp.log(2 + j**2)) + xp.min(c)


def test_every_operation_is_differentiated_as_jax_does() -> None:
    rng = np.random.default_rng(4)
    params = {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=(4, 3))}
    with jax.enable_x64(True):
        program = traced(many_operations, params)
        found = backward(program, forward(program, params))
        truth = jax.jit(jax.grad(lambda p: many_operations(p, jnp)))(params)
        ((_, allowed),) = gradient_and_noise(program, params, [2.0**-53])
    for name, value in truth.items():
        assert (allowed[name] > 0).all()
        # Both are as far from the exact gradient as rounding may take them.
        assert (np.abs(found[name][0] - np.asarray(value)) <= 2 * allowed[name]).all()
        assert np.max(allowed[name] / np.abs(value)) < 1e-10


def test_a_change_alters_one_row_and_no_other() -> None:
    model = MODELS["char"]
    with jax.enable_x64(True):
        program = traced(model.loss, model.params)
        values = forward(program, model.params)
        edge = structure(program).carried[-1]
        rows = backward(program, values, [{}, {edge: Change(edge[1], after=0.0)}])
        (clean,) = backward(program, values)["Whh"]
    np.testing.assert_array_equal(rows["Whh"][0], clean)
    assert not np.allclose(rows["Whh"][1], clean)


def test_steps_and_what_is_carried_are_found() -> None:
    for model, steps, carried in (("char", 5, 4), ("batch", 5, 4), ("lstm", 5, 8), ("gru", 5, 16)):
        program = oracle(model).program
        assert program is not None
        known = structure(program)
        assert known.steps == steps
        assert len(known.carried) == carried


def test_two_parameters_read_side_by_side_are_two() -> None:
    """Of different shapes, and in one expression of the source."""
    rng = np.random.default_rng(7)
    shapes = {"x": (4, 3, 2), "e": (4, 3, 5), "U": (5, 2), "W": (5, 5)}
    params = {name: rng.normal(size=shape) for name, shape in shapes.items()}

    def loss(p: Any, xp: Any) -> Any:
        h = np.zeros((3, 5))
        for x_t, e_t in zip(p["x"], p["e"], strict=True):
            h = xp.tanh(x_t @ p["U"].T + h @ p["W"].T + e_t)
        return xp.sum(h**2) / 2

    def untransposed(p: Any) -> dict[str, Any]:
        h = [np.zeros((3, 5))]
        for x_t, e_t in zip(p["x"], p["e"], strict=True):
            h.append(np.tanh(x_t @ p["U"].T + h[-1] @ p["W"].T + e_t))
        found, dh = {name: np.zeros_like(value) for name, value in p.items()}, h[-1]
        for t in (3, 2, 1, 0):
            found["e"][t] = da = dh * (1 - h[t + 1] ** 2)
            found["x"][t] = da @ p["U"]
            found["U"] += da.T @ p["x"][t]
            found["W"] += da.T @ h[t]
            dh = da @ p["W"].T
        return found

    report = verify_own_model(untransposed, loss, params)
    assert names(report) == ["untransposed-recurrent-weight"], str(report)
    # Its numbers have no name: every candidate is tried.
    report = verify_own_model(
        lambda p: (found := untransposed(p)) | {"W": found["W"] + 0.01 * p["W"]}, loss, params
    )
    assert names(report) == ["unknown"]


@pytest.mark.parametrize("explicitly", [False, True])
def test_weights_that_are_unpacked_from_one_array_are_still_weights(explicitly: bool) -> None:
    # Some versions of JAX unpack by slices, others as xp.unstack always does.
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(4, 2, 3)), rng.normal(size=(2, 3))

    def loss(p: Any, xp: Any) -> Any:
        U, W = xp.unstack(p["UW"]) if explicitly else p["UW"]
        h = np.zeros((2, 3))
        for x_t in x:
            h = xp.tanh(x_t @ U + h @ W)
        return xp.sum((h - y) ** 2)

    def untransposed(p: Any) -> dict[str, Any]:
        (U, W), h = p["UW"], [np.zeros((2, 3))]
        for x_t in x:
            h.append(np.tanh(x_t @ U + h[-1] @ W))
        dUW, dh = np.zeros_like(p["UW"]), 2 * (h[-1] - y)
        for t in (3, 2, 1, 0):
            da = dh * (1 - h[t + 1] ** 2)
            dUW += x[t].T @ da, h[t].T @ da
            dh = da @ W
        return {"UW": dUW}

    report = verify_own_model(untransposed, loss, {"UW": rng.normal(size=(2, 3, 3)) / 2})
    assert names(report) == ["untransposed-recurrent-weight"]


@pytest.mark.parametrize("how", ["gone", "changed", "empty"])
def test_without_source_locations_mistakes_are_named_all_the_same(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = importlib.import_module("jax._src.source_info_util")
    if how == "gone":
        monkeypatch.delattr(private, "user_frames")
    else:
        frames = (lambda: None) if how == "changed" else (lambda traceback: iter(()))
        monkeypatch.setattr(private, "user_frames", frames)
    known = prepared(MODELS["batch"].loss, MODELS["batch"].params, cases=4)
    wrong = planted("batch", ('da @ p["W"].T', 'da @ p["W"]'))
    (mistake,) = judged(wrong, known).mistakes
    assert mistake.name == "untransposed-recurrent-weight"
    assert mistake.details["line"] is None


def test_source_locations_are_those_of_the_loss() -> None:
    program = oracle("batch").program
    assert program is not None
    tanh = next(equation for equation in program.equations if equation.name == "tanh")
    assert tanh.where[0].text == "h = xp.tanh(a)"
    assert tanh.where[0].file == own_models.__file__
    assert not any(place.file.startswith(source_lines.HERE) for place in tanh.where)


# The guards.


def test_a_planted_text_that_is_gone_is_reported() -> None:
    with pytest.raises(AssertionError, match="occurs 0 times"):
        planted("char", ("no such text", ""))


def test_a_planted_nothing_agrees() -> None:
    for model in MODELS:
        assert judged(planted(model), oracle(model)).verdict is Verdict.AGREES


def test_a_judge_whose_bound_is_too_large_is_not_conclusive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = own_model.roundoff
    monkeypatch.setattr(
        own_model, "roundoff", lambda *given: (1e12 * exact(*given)[0], exact(*given)[1])
    )
    assert judged(MODELS["char"].gradients, oracle("char")).verdict is Verdict.INCONCLUSIVE
