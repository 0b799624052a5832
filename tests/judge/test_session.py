"""Verification in a session: what is found among the names of the caller."""

from typing import Any

import numpy as np
import pytest

from bptt_verifier.judge import session
from bptt_verifier.judge.session import verify_here
from bptt_verifier.report import Report
from bptt_verifier.tolerance.comparison import Verdict

SESSION = """
import numpy as np
from bptt_verifier.judge.session import verify_here
x, w = np.array([0.5, -1.0]), np.array([0.3, 0.7])
def f(x, xp):
    h = xp.tanh(w * xp.asarray(x))
    dw = 2 * h * (1 - h * h) * xp.asarray(x)
    return xp.sum(h * h), dw
"""


def run(line: str) -> Any:
    space: dict[str, Any] = {"__name__": "session"}
    exec(compile(SESSION, "session", "exec"), space)
    exec(line, space)
    return space["report"]


def test_a_function_is_judged_with_the_variables_of_the_session() -> None:
    report = run("report = verify_here(f, params=['w'], cases=4, seed=1)")
    assert report, str(report)
    assert report.subject == "f"
    assert report.command == "verify_here(f, params=['w'], cases=4, seed=1)"
    assert report.notes[0].startswith("f is taken for a function that returns the loss")


def test_without_a_function_the_names_of_an_own_model_are_used() -> None:
    lines = "params = {'w': w}\nloss = lambda p, xp: xp.sum(p['w'] ** 2)\n"
    lines += "gradients = lambda p: {'w': 3 * p['w']}\nreport = verify_here(cases=4)"
    assert [mistake.name for mistake in run(lines).mistakes] == ["constant-factor"]
    derivation = "def gradients(params, x, y): raise KeyError(1)\nreport = verify_here(examples=1)"
    report = run(derivation)
    assert [mistake.name for mistake in report.mistakes] == ["raised"]
    assert report.command == "verify_here(examples=1)"


def test_what_is_missing_in_the_session_is_said() -> None:
    with pytest.raises(ValueError, match="gradients: expected a function of that name here"):
        run("verify_here()")
    with pytest.raises(ValueError, match="found none for y; call it once"):
        run("def g(y): return 1.0, y\nverify_here(g)")
    with pytest.raises(ValueError, match="expected a function or class, found ndarray"):
        verify_here(np.ones(3))


def test_a_case_is_compared_for_an_own_model_and_refused_for_a_derivation() -> None:
    lines = "params = {'w': w}\nloss = lambda p, xp: xp.sum(p['w'] ** 2)\n"
    lines += "gradients = lambda p: {'w': 2 * p['w']}\nreport = verify_here(case='1', seed=2)"
    report = run(lines)
    assert report.tried.startswith("1 case up to w=")
    assert report.command == "verify_here(seed=2)"
    with pytest.raises(ValueError, match=r"^case: expected a model of your own.* leave case out$"):
        run("def gradients(params, x, y): raise KeyError(1)\nverify_here(case='1')")


MODEL = """
params, loss = {'w': w}, lambda p, xp: xp.sum(p['w'] ** 2)
gradients = lambda p: {'w': 2 * p['w']}
"""


@pytest.mark.parametrize(
    ("call", "seed"), [("case='1'", 0), ("case='1', seed=2", 2), ("f, params=['w'], case='1'", 0)]
)
def test_a_case_is_drawn_with_the_seed_given_or_with_that_of_a_report(
    call: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = list[int]()

    def compare_case(*given: Any, seed: int, subject: str = "") -> Report:
        seeds.append(seed)
        return Report("", Verdict.AGREES)

    monkeypatch.setattr(session, "compare_case", compare_case)
    run(f"{MODEL}report = verify_here({call})")
    assert seeds == [seed]


def test_params_without_a_loss_are_no_own_model() -> None:
    derivation = "def gradients(params, x, y): raise KeyError(1)\n"
    report = run(f"params = {{'w': w}}\n{derivation}report = verify_here(examples=1)")
    assert report.command == "verify_here(examples=1)"
    assert [mistake.name for mistake in report.mistakes] == ["raised"]


def test_what_the_data_leave_untried_is_said_of_code_that_agrees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "describe_data", lambda data, lines: ("untried",))
    for verdict, said in [(Verdict.AGREES, True), (Verdict.DISAGREES, False)]:
        monkeypatch.setattr(session, "compare_case", lambda *_, v=verdict, **__: Report("", v))
        report = run("report = verify_here(f, params=['w'], case='1')")
        assert ("untried" in report.notes) is said
