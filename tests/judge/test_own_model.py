"""The judge of other people's models: right ones pass, planted mistakes are caught and named."""

import importlib
import json
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge.comparisons import compare_at
from bptt_verifier.judge.own_model import OwnSubject
from bptt_verifier.judge.path import judge
from bptt_verifier.judge.subject import Compared
from bptt_verifier.judge.submission import Submission
from bptt_verifier.judge.verify import verify_own_model
from bptt_verifier.program.attempt import copies
from bptt_verifier.reference.case import Case, Truth
from bptt_verifier.reference.own_loss import prepare
from bptt_verifier.reference.own_model import OwnModel
from bptt_verifier.reference.points import draw_parameters
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict
from tests.support.own_mistakes import MISTAKES, RETURN, Mistake, planted
from tests.support.own_models import MODELS
from tests.support.profiles import by_turns, deep

CASES = 40


@lru_cache
def own_model(model: str) -> OwnModel:
    return prepare(MODELS[model].loss, MODELS[model].params, cases=CASES, seed=3)


def float32_only(model: str) -> OwnModel:
    single = [case for case in own_model(model).cases if case.single]
    assert len(single) >= CASES // 4
    return own_model(model)._replace(cases=tuple(single))


def judged(gradients: Any, model: OwnModel) -> Report:
    return judge(gradients, OwnSubject(model), "a model")


def first_screen(report: Report) -> str:
    """The text of 24 rows of 80 columns, without the ends of lines."""
    lines = str(report).splitlines()
    rows = [line[i : i + 80] for line in lines for i in range(0, max(len(line), 1), 80)]
    return "".join(rows[:24])


def names(report: Report) -> list[str]:
    return [mistake.name for mistake in report.mistakes]


# Right derivations.


@pytest.mark.table(7)
@pytest.mark.parametrize(("model", "style"), by_turns([*MODELS], ["gradients", "otherwise"]))
def test_a_right_derivation_agrees_in_every_style(model: str, style: str) -> None:
    report = judged(getattr(MODELS[model], style), own_model(model))
    assert report.verdict is Verdict.AGREES, str(report)
    assert not report.mistakes
    assert set(report.parameters) == set(MODELS[model].params)
    # Far from the bound, so that a right derivation that rounds otherwise agrees, too.
    assert max(result.error for result in report.parameters.values()) < 0.5


def test_the_values_drawn_are_of_both_precisions_and_never_small_or_alike() -> None:
    params = MODELS["batch"].params
    seen = [draw_parameters(params, seed=0, case=case) for case in range(1, 30)]
    assert {values["W"].dtype for values in seen} == {np.dtype("f4"), np.dtype("f8")}
    for values in seen:
        assert min(np.min(np.abs(value)) for value in values.values()) > 0.05
        assert not np.allclose(values["W"], values["W"].T)
    assert np.array_equal(draw_parameters(params, seed=0, case=0)["W"], params["W"])


# Wrong ones.


@pytest.mark.rest
@pytest.mark.table(18)
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: f"{m.model}: {m.name}: {m.written}")
def test_a_planted_mistake_is_caught_and_named(mistake: Mistake) -> None:
    wrong = planted(mistake.model, (mistake.right, mistake.written))
    report = judged(wrong, own_model(mistake.model))
    assert report.verdict is Verdict.DISAGREES
    assert names(report) == [mistake.name], str(report)
    details = report.mistakes[0].details
    screen = first_screen(report)
    assert screen.startswith("disagrees")
    assert f"{mistake.name}: {report.mistakes[0].explanation}" in screen
    if "alteration" in details:
        file, _, line = details["file_line"].rpartition(":")
        assert (
            Path(file).read_text(encoding="utf-8").splitlines()[int(line) - 1].strip()
            == (details["line"])
        )
        assert details["line"] in report.mistakes[0].explanation
    json.dumps(report.to_dict())


# In float64 every mistake is judged by the test before.
IN_FLOAT32 = MISTAKES if deep() else MISTAKES[::3]


@pytest.mark.rest
@pytest.mark.table(13)
@pytest.mark.parametrize("mistake", IN_FLOAT32, ids=lambda m: f"{m.model}: {m.name}: {m.written}")
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


@pytest.mark.table(7)
@pytest.mark.parametrize(
    ("model", "pair"), [(model, pair) for model, pairs in PAIRS.items() for pair in pairs]
)
def test_a_pair_of_mistakes_is_caught_and_never_taken_for_one(model: str, pair: Any) -> None:
    pair = [(a.replace("'", '"'), b.replace("'", '"')) for a, b in pair]
    report = judged(planted(model, *pair), own_model(model))
    assert report.verdict is Verdict.DISAGREES
    assert names(report) == ["unknown"] or len(report.mistakes) == 2, str(report)


@pytest.mark.rest
def test_two_mistakes_are_both_named() -> None:
    wrong = planted(
        "char",
        ('p["Whh"].T @ da', 'p["Whh"] @ da'),
        (RETURN, "    g['by'] *= 2\n    return g\n"),
    )
    assert names(judged(wrong, own_model("char"))) == [
        "untransposed-recurrent-weight",
        "constant-factor",
    ]


@pytest.mark.rest
def test_a_helper_of_several_callers_is_told_with_the_line_that_is_wrong() -> None:
    wrong = planted("lstm", ("do * o * (1 - o)", "do"))
    (mistake,) = judged(wrong, own_model("lstm")).mistakes
    assert "called by `h = sigmoid(o, xp) * xp.tanh(c)`" in mistake.explanation


@pytest.mark.table(6)
@pytest.mark.parametrize("model", MODELS)
def test_one_entry_that_is_off_by_1e_9_is_caught(model: str) -> None:
    subject = OwnSubject(own_model(model))
    for case in own_model(model).cases[:6]:
        found = MODELS[model].gradients(case.arguments)
        right = compare_at(Submission(lambda p, found=found: found), subject, case)
        assert isinstance(right, Compared)
        assert not right.fails
        for name, value in found.items():
            single = value.dtype == np.float32
            if single and np.max(right.allowed[name]) > 5e-4 * np.max(np.abs(right.values[name])):
                continue  # not well-conditioned
            entry = np.unravel_index(np.argmax(np.abs(value)), value.shape)
            wrong = found | {name: value.copy()}
            wrong[name][entry] *= 1 + (1e-3 if single else 1e-9)
            compared = compare_at(Submission(lambda p, wrong=wrong: wrong), subject, case)
            assert isinstance(compared, Compared)
            assert compared.fails, (name, case.label)


def test_a_case_is_shown_with_simple_values_and_can_be_reproduced() -> None:
    wrong = planted("batch", ('da @ p["W"].T', 'da @ p["W"]'))
    report = judged(wrong, own_model("batch"))
    case = report.counterexample
    assert case is not None
    assert all(round(x, 1) == x for row in case.arrays["W"] for x in row)
    loss = MODELS["batch"].loss
    space: dict[str, Any] = {"params": MODELS["batch"].params, "gradients": wrong, "loss": loss}
    setup, call = case.reproduce.split("; ")
    exec(setup, space)
    again = eval(call.removeprefix("print"), space)
    assert again.counterexample.yours == case.yours
    assert again.counterexample.autodiff == case.autodiff
    assert "Reproduce: " in str(report)


def time_products() -> float:
    """CPU seconds of 20,000 small products and their tanh: the pace of the machine at this moment.

    A verdict is made of such calls; of Python's own additions, versions differ by half.
    """
    h, start = np.full((10, 10), 0.1), time.process_time()
    for _ in range(20_000):
        h = np.tanh(h @ h)
    return time.process_time() - start


@pytest.mark.slow  # a time: beside other tests the pace changes within one verdict
def test_a_verdict_on_a_long_model_takes_as_long_as_ten_million_small_products_at_most() -> None:
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
    model = prepare(loss, params, cases=6)
    answers = [
        (case.arguments["b"], case.truth(np.float64, ()).values)
        for case in model.cases
        if case.truth is not None
    ]

    def wrong(p: Any) -> Any:
        found = {name: np.array(value) for name, value in p.items()}
        near = [known for b, known in answers if np.allclose(b, p["b"], rtol=1e-12)]
        found |= copies(near[0]) if near else {}
        found.pop("loss", None)
        found["W"][0, 1] += 1
        found["V"] *= 2
        return found

    before, start = time_products(), time.process_time()  # other processes do not count
    report = judged(wrong, model)
    elapsed = time.process_time() - start
    # Up to 161 times alone, and 280 where earlier tests have left more that the code can reach.
    assert elapsed < 500 * max(before, time_products())
    assert names(report) == ["unknown"]


# What a model may be made of.


@pytest.mark.slow
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
        lambda p: (found := untransposed(p)) | {"W": found["W"] + 0.01 * p["W"] ** 2}, loss, params
    )
    assert names(report) == ["unknown"]


@pytest.mark.slow
@pytest.mark.parametrize("explicitly", [False, pytest.param(True, marks=pytest.mark.slow)])
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


@pytest.mark.table(3)
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
    model = prepare(MODELS["batch"].loss, MODELS["batch"].params, cases=4)
    wrong = planted("batch", ('da @ p["W"].T', 'da @ p["W"]'))
    (mistake,) = judged(wrong, model).mistakes
    assert mistake.name == "untransposed-recurrent-weight"
    assert mistake.details["line"] is None


# The guards.


def test_a_planted_text_that_is_gone_is_reported() -> None:
    with pytest.raises(AssertionError, match="occurs 0 times"):
        planted("char", ("no such text", ""))


@pytest.mark.slow
def test_a_planted_nothing_agrees() -> None:
    for model in MODELS:
        assert judged(planted(model), own_model(model)).verdict is Verdict.AGREES


def test_a_judge_whose_bound_is_too_large_is_not_conclusive() -> None:
    model = own_model("char")

    def vague(case: Case) -> Case:
        def truth(dtype: Any, names: Any) -> Truth:
            assert case.truth is not None
            values, allowed = case.truth(dtype, names)
            return Truth(values, {name: 1e12 * error for name, error in allowed.items()})

        return case._replace(truth=truth)

    model = model._replace(cases=tuple(map(vague, model.cases)))
    report = judged(MODELS["char"].gradients, model)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "is not testable: rounding alone may move it" in " ".join(report.notes)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_a_report_that_agrees_says_which_clipping_would_not_have_been_seen(scale: float) -> None:
    x = np.linspace(-1, 1, 5)

    def loss(params: Any) -> Any:
        return scale * np.mean(np.tanh(params["w"] * x))

    def gradients(params: Any) -> Any:
        return {"w": scale * x * (1 - np.tanh(params["w"] * x) ** 2) / x.size}

    def clipped(limit: float) -> Report:
        given = {"w": np.full(5, 0.3)}
        return verify_own_model(lambda p: {"w": gradients(p)["w"].clip(-limit, limit)}, loss, given)

    report = clipped(np.inf)
    assert report, report
    (said,) = (note for note in report.notes if "a clip of a gradient to" in note)
    largest = float(said.split(" are at most ")[1].split(" in ")[0])
    assert clipped(1.1 * largest)
    wrong = clipped(0.9 * largest)
    assert wrong.verdict is Verdict.DISAGREES
    assert not any("a clip of a gradient to" in note for note in wrong.notes)
