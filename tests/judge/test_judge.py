"""The judge is judged: every mistake is caught and named, and no correct derivation is accused."""

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bptt_verifier.commands import child_process as examination
from bptt_verifier.judge import submission
from bptt_verifier.judge.verify import Judged, Model, assert_verified, judged, state_probes, verify
from bptt_verifier.problems.problem import ACTIVATIONS, LARGEST, Sizes
from bptt_verifier.reference.autodiff import measured_truth, truth
from bptt_verifier.report import DerivationError, Report
from bptt_verifier.tolerance.comparison import Verdict
from manual_bptt import rnn
from tests.support.planting import B3, B5, MISTAKES, Mistake, planted
from tests.support.right_derivations import STYLES, column_vectors_one_sequence_at_a_time

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
NAMED = [mistake for mistake in MISTAKES if mistake.called]


def derivation(module: Any, dtype: Any = np.float64, **named: str) -> Any:
    """A module's `gradients` as somebody would hand it in, computing in `dtype`."""

    def gradients(params: Any, x: Any, y: Any, h0: Any) -> dict[str, Any]:
        # Their arrays are handed on as they are where nothing has to be shortened.
        given = module.Params(*(np.asarray(w).astype(dtype, copy=False) for w in params))
        rest = (np.asarray(v).astype(dtype, copy=False) for v in (x, y, h0))
        _, found = module.gradients(given, *rest, **named)
        return {name: value for name, value in found._asdict().items() if value is not None}

    return gradients


def model_of(mistake: Mistake) -> dict[str, Any]:
    """The model on which the mistake shows."""
    name = mistake.name
    return {
        "activation": next((a for a in ("sigmoid", "relu") if a in name), "tanh"),
        "loss": "half_sse" if "½" in name else "mse",
        "bias": any(word in name for word in ("∂L/∂b", "∂L/∂c", "bias")),
    }


@DTYPES
@pytest.mark.parametrize("mistake", NAMED, ids=lambda m: m.name)
def test_a_mistake_is_caught_and_named(mistake: Mistake, dtype: type, tmp_path: Path) -> None:
    model = model_of(mistake)
    named = {"activation": model["activation"], "loss": model["loss"]}
    report = verify(derivation(planted(mistake, tmp_path), dtype, **named), examples=24, **model)
    assert report.verdict is Verdict.DISAGREES
    names = [found.name for found in report.mistakes]
    if dtype is np.float32 and mistake.called == "inputs-modified":
        assert names  # the float64 half of the problems is copied, so it shows on the other half
    assert names == [mistake.called], str(report)


@pytest.mark.parametrize(
    ("pair", "called"),
    [
        (((B3, B3 + ".T"), (B5, B5.replace("h[:-1]", "h[1:]"))), {"untransposed-recurrent-weight", "hidden-state-off-by-one"}),
        (((B3, "np.zeros_like(dh)"), ("x=adjoints @ U,", "x=-adjoints @ U,")), {"recurrent-path-dropped", "sign-flipped"}),
        (((B5, B5 + ".T"), ("h0=dh,", "h0=0 * dh,")), {"transposed-gradient", "zero-gradient"}),
        (((B3, B3 + ".T"), ("dh * phi.derivative(a[t - 1], h[t])", "dh")), {"untransposed-recurrent-weight", "activation-derivative-missing"}),
    ],
)  # fmt: skip
def test_two_mistakes_are_caught_and_both_named(
    pair: tuple[tuple[str, str], ...], called: set[str], tmp_path: Path
) -> None:
    first, second = (Mistake("one of two", "rnn.py", *lines) for lines in pair)
    report = verify(derivation(planted(first, tmp_path, second)), examples=60)
    assert {found.name for found in report.mistakes} == called, str(report)


def test_a_zeroed_first_adjoint_is_caught_where_no_total_can_see_it(tmp_path: Path) -> None:
    mistake = next(m for m in MISTAKES if m.name == "δ_1 is zero")
    wrong = derivation(planted(mistake, tmp_path))

    def only_on_long_sequences(params: Any, x: Any, y: Any, h0: Any) -> Any:
        found = (wrong if len(x) >= 30 else right)(params, x, y, h0)
        return {name: found[name] for name in ("U", "W", "V")}

    from manual_bptt import rnn  # noqa: PLC0415

    right = derivation(rnn)
    report = verify(only_on_long_sequences, examples=40)
    assert report.verdict is Verdict.DISAGREES
    assert report.first_wrong_step == 1
    # On shorter sequences it is right: so this is what truncation after 29 steps would give.
    assert [(m.name, m.details["steps"]) for m in report.mistakes] == [("truncated", 29)]
    assert [step.t for step in report.steps if step.verdict is Verdict.DISAGREES] == [1]


def test_a_gradient_that_is_there_on_some_problems_only_is_no_obstacle() -> None:
    def now_and_then(params, x, y):
        _, right = rnn.gradients(rnn.Params(*params), x, y)
        some = {"x": right.x} if len(x) % 2 else {"c0": right.x}
        return {"U": right.U, "W": 2 * right.W, "V": right.V} | some

    report = verify(now_and_then, examples=40)
    assert [m.name for m in report.mistakes] == ["constant-factor"]


@settings(max_examples=max(20, settings().max_examples // 2))
@given(data=st.data())
def test_no_correct_derivation_is_called_wrong(data: st.DataObject) -> None:
    style = data.draw(st.sampled_from(sorted(STYLES)))
    activation = data.draw(st.sampled_from(ACTIVATIONS))
    long = style not in ("sum over Jacobians", "forward recursion") and data.draw(st.booleans())
    sizes = data.draw(
        st.sampled_from([Sizes(200, 1, 2, 4, 2), Sizes(50, 2, 3, 6, 2)])
        if long
        else st.builds(Sizes, *(st.integers(1, most) for most in LARGEST))
    )
    model = Model(activation, "mse", bias=False, initial_state=True)
    problem = model.problem(
        np.random.default_rng(data.draw(st.integers(0, 2**32))),
        sizes,
        data.draw(st.sampled_from([np.float32, np.float64])),
        spread=data.draw(st.floats(0.2, 3.0)),
        target_scale=data.draw(st.sampled_from([1.0, 10.0, 100.0])),
    )
    with np.errstate(over="ignore", invalid="ignore"):
        found = judged(STYLES[style](activation), problem, measured_truth if long else truth)
    assert isinstance(found, Judged), str(found)
    assert not found.disagrees, [c for c in found.comparisons if c.error > 1]


@pytest.mark.parametrize("style", sorted(STYLES))
def test_the_verdict_on_a_correct_derivation_is_that_it_agrees(style: str) -> None:
    report = verify(STYLES[style]("tanh"), examples=60)
    assert report.verdict is Verdict.AGREES, str(report)
    assert report.mistakes == ()
    assert report.first_wrong_step is None
    assert report.counterexample is None
    assert all(result.error <= 1 for result in report.parameters.values())


@pytest.mark.parametrize("activation", ["tanh", "relu", "identity"])
def test_the_gradient_for_W_separates_the_steps_where_states_are_single_units(
    activation: str,
) -> None:
    from manual_bptt import rnn  # noqa: PLC0415

    right = derivation(rnn, activation=activation)
    model = Model(activation, "mse", bias=False, initial_state=True)
    vanishing = next(iter(state_probes(model, seed=1)))

    def without_the_first_step(params: Any, x: Any, y: Any, h0: Any) -> Any:
        found = right(params, x, y, h0)
        first = np.einsum("bh,bk->hk", found["adjoints"][0], h0)
        return {"U": found["U"], "W": found["W"] - first, "V": found["V"]}

    assert not getattr(judged(right, vanishing), "disagrees", True)
    case = judged(without_the_first_step, vanishing)
    assert isinstance(case, Judged)
    missing = np.abs(case.yours["W"] - case.truth.values["W"]).max()
    assert missing < 1e-7 * np.abs(case.truth.values["W"]).max()
    worst = max(case.comparisons, key=lambda c: c.error)
    assert worst.name == "W"
    assert worst.entry[1] == 0  # the unit that is on in h_0
    assert worst.verdict is Verdict.DISAGREES


@pytest.mark.parametrize(("dtype", "relative"), [(np.float64, 1e-9), (np.float32, 1e-3)])
def test_a_small_relative_error_in_one_entry_is_caught(dtype: type, relative: float) -> None:
    from manual_bptt import rnn  # noqa: PLC0415

    right = derivation(rnn, dtype)

    def slightly_wrong(params: Any, x: Any, y: Any, h0: Any) -> Any:
        found = right(params, x, y, h0)
        found["W"].flat[np.argmax(np.abs(found["W"]))] *= 1 + relative
        return found

    report = verify(slightly_wrong, examples=60)
    assert report.verdict is Verdict.DISAGREES
    assert [n for n, r in report.parameters.items() if r.verdict is Verdict.DISAGREES] == ["W"]
    assert [m.name for m in report.mistakes] == ["unknown"]


# fmt: off
BREACHES = {
    "raises": (lambda p, x, y: 1 / 0, "raised", "ZeroDivisionError"),
    "exits": (lambda p, x, y: sys.exit(3), "raised", "SystemExit"),
    "returns None": (lambda p, x, y: None, "wrong-shape", "NoneType"),
    "returns a string": (lambda p, x, y: "gradients", "wrong-shape", "str"),
    "returns strings": (lambda p, x, y: ("a", "b", "c"), "wrong-shape", "U"),
    "returns objects": (lambda p, x, y: (object(), p.W, p.V), "wrong-shape", "object"),
    "returns two": (lambda p, x, y: (p.U, p.W), "wrong-shape", "2 values"),
    "returns one too few by name": (lambda p, x, y: {"U": p.U, "V": p.V}, "wrong-shape", "no gradient named W"),
    "returns scalars": (lambda p, x, y: (1.0, 2.0, 3.0), "wrong-shape", "()"),
    "returns transposed": (lambda p, x, y: (p.U.T.copy(), p.W, p.V), "transposed-gradient", "it is transposed"),
    "returns ragged lists": (lambda p, x, y: ([[1.0], [1.0, 2.0]], p.W, p.V), "wrong-shape", "list"),
    "returns NaN": (lambda p, x, y: (p.U * np.nan, p.W, p.V), "not-finite", "nan"),
    "returns random numbers": (lambda p, x, y: (np.random.default_rng().normal(size=p.U.shape), p.W, p.V), "not-deterministic", "two different"),
    "writes into x": (lambda p, x, y: (x.__iadd__(1), (p.U, p.W, p.V))[1], "inputs-modified", "argument x"),
    "writes into W": (lambda p, x, y: (p.W.__isub__(0.1), (p.U, p.W, p.V))[1], "inputs-modified", "argument W"),
}
# fmt: on


@pytest.mark.parametrize("breach", BREACHES)
def test_a_broken_contract_is_a_verdict_that_says_so(breach: str) -> None:
    gradients, name, piece = BREACHES[breach]
    report = verify(gradients, examples=8)
    assert report.verdict is Verdict.DISAGREES
    assert [mistake.name for mistake in report.mistakes] == [name]
    assert piece in str(report)
    json.dumps(report.to_dict())


def test_their_exception_is_shown_with_their_own_line() -> None:
    def gradients(params: Any, x: Any, y: Any) -> Any:
        return params.U @ np.ones(10_000)  # a shape that does not fit

    report = verify(gradients, examples=4)
    assert "return params.U @ np.ones(10_000)" in str(report)
    assert Path(__file__).name in str(report)


def test_a_view_of_the_inputs_is_copied_before_it_can_change() -> None:
    right = column_vectors_one_sequence_at_a_time("tanh")
    buffer: dict[str, Any] = {}

    def gradients(params: Any, x: Any, y: Any, h0: Any) -> Any:
        _, (dU, dW, dV) = right(params, x, y, h0)
        if buffer.get("shape") == dU.shape:
            buffer["U"][...] = dU  # the array returned last time, used again
        else:
            buffer.update(shape=dU.shape, U=dU)
        return buffer["U"], dW, dV

    assert verify(gradients, examples=20).verdict is Verdict.AGREES


def test_another_loss_is_not_called_a_wrong_gradient() -> None:
    right = column_vectors_one_sequence_at_a_time("tanh")
    report = verify(right, activation="sigmoid", examples=20)
    assert [mistake.name for mistake in report.mistakes] == ["forward-differs"]
    assert "activation tanh with loss mse" in report.mistakes[0].explanation


def test_one_report_as_text_as_json_and_as_a_page(tmp_path: Path) -> None:
    mistake = next(m for m in MISTAKES if m.name == "W where Wᵀ belongs")
    report = verify(derivation(planted(mistake, tmp_path)), examples=40, subject="<mine>")
    text = str(report)
    assert text.startswith("disagrees: <mine>")
    assert "untransposed-recurrent-weight" in text
    assert "See (B3) in docs/derivation.md" in text
    assert "Going backward, δ_29 is the first that is wrong." in text
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["mistake"]["name"] == "untransposed-recurrent-weight"
    assert plain["first_wrong_step"] == 29
    assert set(plain["parameters"]["W"]) == {
        "verdict",
        "worst_error_over_bound",
        "entry",
        "yours",
        "autodiff",
        "bound",
        "cases",
    }
    assert [step["t"] for step in plain["steps"]] == list(range(1, 31))
    assert plain["counterexample"]["sizes"].startswith("T=")
    html = report.to_html()
    assert "&lt;mine&gt;" in html
    assert "<mine>" not in html
    assert "http" not in html
    assert "<script" not in html
    assert html.count("<polyline") == 2 * len(report.curves) > 0
    assert report._repr_html_() in html


def test_the_line_that_reproduces_the_case_does(tmp_path: Path) -> None:
    mistake = next(m for m in MISTAKES if m.name == "W where Wᵀ belongs")
    wrong = derivation(planted(mistake, tmp_path))
    report = verify(wrong, examples=40)
    case = report.counterexample
    assert case is not None
    scope: dict[str, Any] = {"gradients": wrong}
    *setup, call = case.reproduce.split("; ")
    exec("; ".join(setup), scope)
    found = eval(call, scope)
    half_a_unit_of_the_ninth_digit = 5e-9
    np.testing.assert_allclose(
        found[case.gradient], case.yours, rtol=half_a_unit_of_the_ninth_digit
    )


CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@pytest.mark.skipif(CHROMIUM is None, reason="no headless Chromium is installed")
def test_a_browser_draws_the_page(tmp_path: Path) -> None:
    mistake = next(m for m in MISTAKES if m.name == "W where Wᵀ belongs")
    report = verify(derivation(planted(mistake, tmp_path / "copy")), examples=40)
    page = tmp_path / "report.html"
    page.write_text(report.to_html(), encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command = [str(CHROMIUM), *flags, "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "first wrong step, t = 29" in dom
    assert dom.count("<polyline") == 2 * len(report.curves)
    assert dom.count("<rect") >= 1


def test_assert_verified_raises_the_report_and_only_where_it_must(tmp_path: Path) -> None:
    report = assert_verified(column_vectors_one_sequence_at_a_time("tanh"), examples=20)
    assert isinstance(report, Report)
    mistake = next(m for m in MISTAKES if m.name == "recurrent path dropped")
    with pytest.raises(DerivationError, match="recurrent-path-dropped") as caught:
        assert_verified(derivation(planted(mistake, tmp_path)), examples=20)
    assert caught.value.report.verdict is Verdict.DISAGREES


@pytest.mark.parametrize(
    ("arguments", "exception", "message"),
    [
        ((3,), TypeError, "gradients: expected a function, found int"),
        ((lambda p, x, y: None, {"activation": "cos"}), ValueError, "activation: expected one of"),
        (
            (lambda p, x, y: None, {"loss": "huber"}),
            ValueError,
            "loss: expected one of mse, half_sse, found 'huber'",
        ),
        ((lambda p, x, y: None, {"examples": 0}), ValueError, "examples: expected at least 1"),
        ((lambda p, x, y: None, {"examples": 2.5}), TypeError, "examples: expected an integer"),
        ((lambda p, x, y: None, {"seed": -1}), ValueError, "seed: expected at least 0, found -1"),
    ],
)
def test_verify_says_what_it_wants(
    arguments: tuple[Any, ...], exception: type[Exception], message: str
) -> None:
    gradients, *options = arguments
    with pytest.raises(exception, match=message):
        verify(gradients, **(options[0] if options else {}))


HOSTILE = {
    "never returns": ("while True: pass", "timed-out"),
    "kills the process": ("import os; os._exit(7)", "exited"),
    "prints megabytes and raises": ("print('x' * 10**7); raise KeyError('no')", "raised"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_code_ends_in_a_verdict(kind: str, tmp_path: Path) -> None:
    body, name = HOSTILE[kind]
    file = tmp_path / "theirs.py"
    file.write_text(f"def gradients(params, x, y):\n    {body}\n", encoding="utf-8")
    request = {"file": str(file), "function": "gradients", "own": False, "options": {}}
    found = examination.examine(request, 1.0, lambda done, total: None)
    assert found.verdict is Verdict.DISAGREES
    assert found.plain["mistake"]["name"] == name
    assert "Traceback" not in found.text
    assert len(found.text) < 5000


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = ", "cannot be run: line 1: SyntaxError"),
        ("\nraise RuntimeError('stop')", "cannot be run: line 2: RuntimeError: stop"),
        ("import sys\nsys.exit(1)", "cannot be run: line 2: SystemExit"),
        ("def other(): pass", "expected a function gradients in .*, found other"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_sentence(
    text: str, sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / "theirs.py"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=sentence), contextlib.redirect_stdout(None):
        submission.function_of(submission.load(file), "gradients", file)
    with pytest.raises(ValueError, match="which does not exist"):
        submission.load(tmp_path / "none.py")
